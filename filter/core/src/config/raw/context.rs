//! `trim.context` and `templates` as people write them.

use serde::Deserialize;
use sluice_wire::Over;

use super::Mode;
use crate::config::values::{Count, OffOr, decimal, off_or_decimal};
use crate::policy::trim::context::{Order, Rank};
use crate::policy::trim::template::ClientSystem;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Context {
    pub(crate) markers: Option<Vec<Marker>>,
    pub(crate) top_k: Option<Count>,
    pub(crate) tokens: Option<Count>,
    pub(crate) filter: Option<String>,
    #[serde(default, deserialize_with = "off_or_decimal")]
    pub(crate) duplicates: Option<OffOr>,
    pub(crate) rank: Option<Rank>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) min_score: Option<f64>,
    pub(crate) order: Option<Order>,
    pub(crate) extra: Option<Mode>,
}

impl Context {
    /// `over`'s fields win; what it leaves out stays as in `self`.
    pub(crate) fn overlaid(self, over: Context) -> Context {
        Context {
            markers: over.markers.or(self.markers),
            top_k: over.top_k.or(self.top_k),
            tokens: over.tokens.or(self.tokens),
            filter: over.filter.or(self.filter),
            duplicates: over.duplicates.or(self.duplicates),
            // A floor is on the scale of what ranks: it ends where a route ranks otherwise.
            min_score: over
                .min_score
                .or(self.min_score.filter(|_| over.rank.is_none())),
            rank: over.rank.or(self.rank),
            order: over.order.or(self.order),
            extra: over.extra.or(self.extra),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Marker {
    Tag(Tag),
    List(List),
    Fence(Fence),
    Section(Section),
    Json(Json),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a tag's name, or {name: …, inside: …, text: …}")]
pub(crate) enum Tag {
    Name(String),
    Full(FullTag),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct FullTag {
    pub(crate) name: String,
    pub(crate) inside: Option<String>,
    pub(crate) text: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct List {
    pub(crate) after: String,
    pub(crate) before: Option<String>,
    pub(crate) number: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Fence {
    pub(crate) line: String,
    pub(crate) label: String,
    pub(crate) split: Option<String>,
    pub(crate) metadata: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Section {
    pub(crate) after: String,
    pub(crate) before: String,
    pub(crate) split: Option<String>,
    pub(crate) metadata: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Json {
    pub(crate) after: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Template {
    pub(crate) name: String,
    pub(crate) system: Option<String>,
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) tokens: SlotTokens,
    #[serde(default)]
    pub(crate) client_system: ClientSystem,
    pub(crate) over: Option<Over>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct SlotTokens {
    pub(crate) context: Option<Count>,
    pub(crate) memory: Option<Count>,
    pub(crate) question: Option<Count>,
}
