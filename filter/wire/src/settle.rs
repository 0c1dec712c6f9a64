//! `POST /v1/settle`: book what requests used, release reservations, store answers.

use serde::{Deserialize, Serialize};

use crate::{Audit, Lease, Record, Unit, Usage, Usd, Window};

/// A batch of finished requests. The bytes to store follow the frame's head, one item's after
/// another's in the order of `items`, each [`Settle::body_len`] long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SettleRequest {
    /// What is settled, oldest first.
    pub items: Vec<Settle>,
}

/// One finished request. Idempotent by `record.id`: booking it twice changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settle {
    /// For the ledger.
    pub record: Record,
    /// What the budgets are charged in place of the reservation; empty releases it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<Counted>,
    /// The answer, where it is to be stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
    /// What was computed of an embedding request's inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<StoreVectors>,
    /// The lease that ends with this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// The audit that this request was; the answer is in `store`, where it can be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// What the next request of the conversation is to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Remember>,
}

/// What a filter wants to know at a conversation's next turn, whichever filter serves it. Where the
/// turns of a conversation overlap, the one that is settled last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remember {
    /// As in [`crate::AdmitRequest::conversation`].
    pub conversation: String,
    /// The filter's own affair, [`crate::limit::STATE`] bytes at the most; an empty one is forgotten.
    pub state: String,
    /// Seconds after which it is forgotten.
    pub ttl_secs: u32,
    /// A text that is to be written of the conversation, behind the settlement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

/// What a conversation leaves out, to be written down in fewer words by a model. The text is told with
/// [`crate::AdmitReply::summaries`] once it is there; that it will be is not promised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Names what the text stands for: the filter's own affair, [`crate::limit::SUMMARY_ID`] bytes at
    /// the most.
    pub id: String,
    /// Of the texts that are there, the one that the conversation goes on with: others give way first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// The model that is to write it, as the writer's endpoint knows it.
    pub model: String,
    /// Most tokens of the text.
    pub tokens: u32,
    /// What was said, [`crate::limit::ORDER`] bytes at the most.
    pub text: String,
}

/// A text that stands for what a conversation leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// As in [`Order::id`].
    pub id: String,
    /// As the model wrote it, [`crate::limit::SUMMARY`] bytes at the most.
    pub text: String,
}

impl Settle {
    /// Bytes that follow the head for this item: the answer's, then the vectors'.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        let answer = self.store.as_ref().map_or(0, |store| store.len);
        let vectors = self.vectors.as_ref().map_or(0, StoreVectors::body_len);
        answer.saturating_add(vectors)
    }

    /// Bytes of the text that [`Remember::order`] is about.
    #[must_use]
    pub fn order_len(&self) -> usize {
        let order = self.sent.as_ref().and_then(|sent| sent.order.as_ref());
        order.map_or(0, |order| order.text.len())
    }

    /// Gives up what was to be stored; the request is settled all the same.
    pub fn store_nothing(&mut self) {
        (self.store, self.vectors) = (None, None);
    }

    /// Gives up the text that was to be written.
    pub fn order_nothing(&mut self) {
        if let Some(sent) = &mut self.sent {
            sent.order = None;
        }
    }
}

/// The end of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Exact-cache key (64 hex digits) that it was on.
    pub key: String,
    /// The lease.
    pub lease: Lease,
    /// What those who wait are to do where no answer comes with it.
    pub end: LeaseEnd,
}

/// What came of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseEnd {
    /// The answer was stored.
    Stored,
    /// Its holder failed or left: one of those who wait takes over.
    Failed,
    /// There is an answer, but not one to share: for a while all go by themselves.
    Uncacheable,
}

/// An actual charge on one budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// As in [`crate::Charge::counter`].
    pub counter: String,
    /// As in [`crate::Charge::window`]; the window is the one that holds `record.at_ms`.
    pub window: Window,
    /// As in [`crate::Charge::unit`].
    pub unit: Unit,
    /// Amount used, in `unit`.
    pub amount: u64,
}

/// An answer to keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Store {
    /// Exact-cache key (64 hex digits).
    pub key: String,
    /// Seconds it stays fresh.
    pub ttl_secs: u64,
    /// Seconds beyond, in which it is served while one request refreshes it.
    #[serde(default)]
    pub stale_secs: u64,
    /// Seconds beyond `ttl_secs`, in which it may stand in for an upstream that fails.
    #[serde(default)]
    pub stale_if_error_secs: u64,
    /// What it was built on, as [`crate::scoped_tag`] writes it: invalidating one of these drops it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What is kept beside the bytes.
    pub entry: EntryHead,
    /// Length of the bytes.
    pub len: u64,
    /// The question that it answers, where others that ask the same may be answered with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Answered>,
}

/// Vectors to keep, one for each input that upstream computed. Their bytes are key, vector, key,
/// vector, …
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreVectors {
    /// As in [`Store::ttl_secs`].
    pub ttl_secs: u64,
    /// As in [`Store::stale_if_error_secs`].
    #[serde(default)]
    pub stale_if_error_secs: u64,
    /// As in [`Store::tags`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What upstream called the model.
    pub model: String,
    /// Bytes of each vector.
    pub len: u32,
    /// Prompt tokens of each input.
    pub tokens: Vec<u32>,
}

impl StoreVectors {
    /// Bytes of keys and vectors together.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        let each = crate::limit::KEY as u64 + u64::from(self.len);
        each.saturating_mul(self.tokens.len() as u64)
    }
}

/// A question whose answer is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// As in [`crate::Plan::scope`].
    pub scope: String,
    /// As in [`crate::Question::text`].
    pub text: String,
}

/// What is kept beside a cached answer's bytes. The bytes are the answer's JSON as the API gives
/// it without streaming; a stream is replayed from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryHead {
    /// Name of the API format, as in `core::formats`.
    pub format: String,
    /// Model that answered, as it was asked for upstream.
    pub model: String,
    /// Tier that it was answered by, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// HTTP status that it is told with: 200, or that of a refusal that is remembered.
    #[serde(default = "ok", skip_serializing_if = "is_ok")]
    pub status: u16,
    /// What the upstream counted.
    pub usage: Usage,
    /// What it cost, if the price is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Usd>,
}

impl Default for EntryHead {
    fn default() -> Self {
        EntryHead {
            format: String::new(),
            model: String::new(),
            tier: None,
            status: ok(),
            usage: Usage::default(),
            cost: None,
        }
    }
}

fn ok() -> u16 {
    200
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde asks for"
)]
fn is_ok(status: &u16) -> bool {
    *status == ok()
}

/// How a batch went: every item is either booked (durably, before this answer) or named here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SettleReply {
    /// Items booked now.
    pub booked: u32,
    /// Items that were booked before; nothing was changed.
    pub repeated: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_remembered_is_said_only_where_there_is_something() {
        let silent = serde_json::to_string(&Settle::default()).unwrap();
        assert!(!silent.contains("sent"), "{silent}");
        let settle = Settle {
            sent: Some(Remember {
                conversation: "ab".repeat(32),
                state: "{\"kept\":[1]}".to_owned(),
                ttl_secs: 300,
                order: None,
            }),
            ..Settle::default()
        };
        let told = serde_json::to_string(&settle).unwrap();
        assert_eq!(serde_json::from_str::<Settle>(&told).unwrap(), settle);
        assert_eq!((settle.body_len(), settle.order_len()), (0, 0));
        assert!(!told.contains("order"), "{told}");
    }

    #[test]
    fn a_text_that_is_to_be_written_can_be_given_up_by_itself() {
        let mut settle = Settle {
            sent: Some(Remember {
                state: "{}".to_owned(),
                order: Some(Order {
                    text: "User: hi".to_owned(),
                    ..Order::default()
                }),
                ..Remember::default()
            }),
            ..Settle::default()
        };
        let told = serde_json::to_string(&settle).unwrap();
        assert_eq!(serde_json::from_str::<Settle>(&told).unwrap(), settle);
        assert_eq!((settle.body_len(), settle.order_len()), (0, 8));
        settle.order_nothing();
        assert_eq!(settle.order_len(), 0);
        assert_eq!(settle.sent.unwrap().state, "{}");
    }

    #[test]
    fn what_follows_the_head_is_as_long_as_an_item_says() {
        let mut settle = Settle {
            store: Some(Store {
                len: 5,
                ..Store::default()
            }),
            vectors: Some(StoreVectors {
                len: 6144,
                tokens: vec![3, 9],
                ..StoreVectors::default()
            }),
            ..Settle::default()
        };
        assert_eq!(settle.body_len(), 5 + 2 * (32 + 6144));
        settle.store_nothing();
        assert_eq!((settle.body_len(), settle), (0, Settle::default()));
        let endless = StoreVectors {
            len: u32::MAX,
            tokens: vec![0; 3],
            ..StoreVectors::default()
        };
        assert_eq!(endless.body_len(), 3 * (32 + u64::from(u32::MAX)));
    }
}
