//! `trim`: how long a prompt may be.

use std::collections::BTreeMap;

use super::Lower;
use crate::config::plan::{InputLimit, Trimming};
use crate::config::raw::{self, Mode};
use crate::config::values::Count;

impl Lower<'_> {
    pub(super) fn trimming(&mut self, path: &str, mode: Mode, raw: &raw::Trimming) -> Trimming {
        Trimming {
            mode,
            input: raw
                .input_tokens
                .as_ref()
                .map(|limit| self.input_limit(&format!("{path}.input_tokens"), limit)),
            context: raw
                .context
                .as_ref()
                .map(|context| self.context(&format!("{path}.context"), context)),
            template: self.template_of(&format!("{path}.template"), raw.template.as_deref()),
        }
    }

    fn input_limit(&mut self, path: &str, raw: &raw::InputTokens) -> InputLimit {
        let plain = |limits: &BTreeMap<String, Count>| {
            limits
                .iter()
                .map(|(name, Count(limit))| (name.clone(), *limit))
                .collect()
        };
        if raw.limit.is_none() && raw.tenants.is_empty() && raw.models.is_empty() {
            self.fault(path, "found no limit, expected limit, tenants or models");
        }
        InputLimit {
            limit: raw.limit.map(|Count(limit)| limit),
            tenants: plain(&raw.tenants),
            models: plain(&raw.models),
            over: raw.over,
        }
    }
}
