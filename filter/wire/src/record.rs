//! A ledger record: what one request would have cost, did cost, and which lever saved what.

use serde::{Deserialize, Serialize};

use crate::Usd;

/// Tokens of one request, as the provider counted them or (see [`Record::estimated`]) as estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// All prompt tokens, cached and cache-written ones included.
    pub prompt: u64,
    /// Prompt tokens read from the provider's prefix cache; part of `prompt`.
    pub cached: u64,
    /// Prompt tokens written to the provider's prefix cache; part of `prompt` (Anthropic).
    pub cache_write: u64,
    /// All completion tokens, reasoning included.
    pub completion: u64,
    /// Reasoning tokens; part of `completion`.
    pub reasoning: u64,
}

impl Usage {
    /// Prompt and completion tokens.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// The five levers, in the order in which savings are attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lever {
    /// Tiered routing.
    Route,
    /// Trimming.
    Trim,
    /// Caching.
    Cache,
    /// Batching.
    Batch,
    /// Work off the GPU.
    Offload,
}

impl Lever {
    /// All of them, in order.
    pub const ALL: [Lever; 5] = [
        Lever::Route,
        Lever::Trim,
        Lever::Cache,
        Lever::Batch,
        Lever::Offload,
    ];

    /// The config's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Lever::Route => "route",
            Lever::Trim => "trim",
            Lever::Cache => "cache",
            Lever::Batch => "batch",
            Lever::Offload => "offload",
        }
    }
}

/// Dollars by lever. A lever is absent when it saved nothing; negative when it cost more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Savings {
    /// By routing to a cheaper tier.
    #[serde(skip_serializing_if = "is_zero")]
    pub route: Usd,
    /// By sending fewer tokens.
    #[serde(skip_serializing_if = "is_zero")]
    pub trim: Usd,
    /// By answering from a cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: Usd,
    /// By a batch discount.
    #[serde(skip_serializing_if = "is_zero")]
    pub batch: Usd,
    /// By our own hardware.
    #[serde(skip_serializing_if = "is_zero")]
    pub offload: Usd,
}

fn is_zero(amount: &Usd) -> bool {
    *amount == Usd::ZERO
}

impl Savings {
    /// The share of one lever.
    #[must_use]
    pub fn of(&self, lever: Lever) -> Usd {
        match lever {
            Lever::Route => self.route,
            Lever::Trim => self.trim,
            Lever::Cache => self.cache,
            Lever::Batch => self.batch,
            Lever::Offload => self.offload,
        }
    }

    /// All levers together.
    #[must_use]
    pub fn total(&self) -> Usd {
        Lever::ALL.into_iter().map(|lever| self.of(lever)).sum()
    }
}

/// What trimming took off one request, and what it gave up for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trimmed {
    /// Prompt tokens that were not sent.
    pub tokens: u64,
    /// What these tokens cost at the list price of the answering model's prompt tokens: without the
    /// provider's prefix cache. Nothing where the price is unknown.
    pub gross: Usd,
    /// What the provider's prefix cache would have taken off the whole prompt, less what it took off
    /// the prompt that was sent; both net of the surcharge for writing to it. Negative where more
    /// surcharge was spared than discount was lost.
    pub lost: Usd,
}

impl Trimmed {
    /// `gross - lost`: the record's `saved.trim`. Negative for a turn that lost more in discounts
    /// than its tokens cost.
    #[must_use]
    pub fn net(&self) -> Usd {
        self.gross - self.lost
    }
}

/// What the cache did with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheResult {
    /// Answered from the exact cache.
    Hit,
    /// Answered with what was stored for a question that means the same.
    Semantic,
    /// Answered with what was stored, past its time: while it is refreshed, or because upstream
    /// fails.
    Stale,
    /// Answered with what an equal request in flight was answered.
    Coalesced,
    /// Refused with what upstream refused an equal request with shortly before.
    Negative,
    /// Asked upstream although the answer to a question that means the same is stored, to see
    /// whether the two say the same.
    Audit,
    /// Of an embedding request's inputs some were there, and upstream was asked for the others.
    Partial,
    /// Looked up, not there.
    Miss,
    /// Fetched behind a stale answer that went out before: nobody waited for it.
    Refresh,
    /// Not looked up: the caller or the request's nature forbade it.
    Bypass,
    /// The lever is off, or there is no sidecar to ask.
    #[default]
    Off,
}

impl CacheResult {
    /// All of them.
    pub const ALL: [CacheResult; 11] = [
        CacheResult::Hit,
        CacheResult::Semantic,
        CacheResult::Stale,
        CacheResult::Coalesced,
        CacheResult::Negative,
        CacheResult::Audit,
        CacheResult::Partial,
        CacheResult::Miss,
        CacheResult::Refresh,
        CacheResult::Bypass,
        CacheResult::Off,
    ];

    /// Whether the answer came from what was stored, so that upstream was not asked.
    #[must_use]
    pub fn answers(self) -> bool {
        !matches!(
            self,
            CacheResult::Audit
                | CacheResult::Partial
                | CacheResult::Miss
                | CacheResult::Refresh
                | CacheResult::Bypass
                | CacheResult::Off
        )
    }

    /// As in the `x-sluice-cache` header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CacheResult::Hit => "hit",
            CacheResult::Semantic => "semantic",
            CacheResult::Stale => "stale",
            CacheResult::Coalesced => "coalesced",
            CacheResult::Negative => "negative",
            CacheResult::Audit => "audit",
            CacheResult::Partial => "partial",
            CacheResult::Miss => "miss",
            CacheResult::Refresh => "refresh",
            CacheResult::Bypass => "bypass",
            CacheResult::Off => "off",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered, by upstream or from cache.
    #[default]
    Answered,
    /// Refused by a budget or a limit of ours.
    Rejected,
    /// Upstream answered with an error.
    UpstreamError,
    /// The answer broke off: upstream reset, or the client left.
    Aborted,
}

impl Outcome {
    /// The word used in metrics and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Rejected => "rejected",
            Outcome::UpstreamError => "upstream_error",
            Outcome::Aborted => "aborted",
        }
    }
}

/// One request in the ledger. It holds no prompt, no answer and no key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Idempotent request id, 32 hex digits.
    pub id: String,
    /// Arrival, milliseconds since the epoch.
    pub at_ms: u64,
    /// Who pays.
    pub tenant: String,
    /// What it was for; empty when not stated.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// Conversation it belongs to; empty when not stated.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub conversation: String,
    /// The config's route that it matched; empty for the defaults.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// Endpoint: the name of the API format, as in `core::formats`.
    pub endpoint: String,
    /// Model that the client asked for.
    pub model_asked: String,
    /// Model that was used.
    pub model: String,
    /// Tier that was chosen; empty when routing left it alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tier: String,
    /// Complexity score in thousandths, when it was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_milli: Option<u16>,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// HTTP status that the client saw; 0 when it saw none.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// What the cache did.
    pub cache: CacheResult,
    /// Age of the stored answer in seconds, where one was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_secs: Option<u64>,
    /// Tokens; on a cache hit those that the stored answer took. Where the cache answered a part,
    /// those that upstream worked for.
    pub usage: Usage,
    /// `usage` is an estimate, because upstream reported none.
    pub estimated: bool,
    /// What it would have cost as asked: requested model, untouched prompt. None: price unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_asked: Option<Usd>,
    /// What it did cost. None: price unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Usd>,
    /// What the levers saved: sums to `as_asked - cost` where both are known.
    pub saved: Savings,
    /// What trimming did to it, where it changed what is paid: tokens were left out, or a discount
    /// was lost to what was left out earlier in the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trim: Option<Trimmed>,
    /// What levers in mode `dry` would have saved on top.
    pub would_save: Savings,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_trimming_did_is_told_where_it_did_something_and_an_older_record_reads_without() {
        let plain = serde_json::to_string(&Record::default()).unwrap();
        assert!(!plain.contains("\"trim\""), "{plain}");
        assert_eq!(
            serde_json::from_str::<Record>(&plain).unwrap(),
            Record::default()
        );
        let record = Record {
            trim: Some(Trimmed {
                tokens: 500,
                gross: Usd(1000),
                lost: Usd(1300),
            }),
            ..Record::default()
        };
        let told = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&told).unwrap(), record);
        assert_eq!(record.trim.unwrap().net(), Usd(-300));
    }
}
