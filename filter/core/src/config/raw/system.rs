//! `trim.system` as people write it.

use serde::Deserialize;

use crate::config::values::Count;
use crate::policy::trim::system::Cut;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct System {
    pub(crate) tokens: Option<Count>,
    pub(crate) cut: Option<Cut>,
    pub(crate) minify: Option<bool>,
    pub(crate) examples: Option<Examples>,
}

impl System {
    /// `over`'s fields win; what it leaves out stays as in `self`.
    pub(crate) fn overlaid(self, over: System) -> System {
        System {
            tokens: over.tokens.or(self.tokens),
            cut: over.cut.or(self.cut),
            minify: over.minify.or(self.minify),
            examples: over.examples.or(self.examples),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Examples {
    pub(crate) top_k: Count,
    #[serde(default)]
    pub(crate) markers: Vec<Between>,
}

/// What stands around an example.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Between {
    pub(crate) open: String,
    pub(crate) close: String,
}
