//! What the filter and the sidecar say to each other: types, header names, version.
//!
//! Every body is a *frame*: one line of JSON (the head), a line feed, then raw bytes (cached or
//! cacheable answers). An answer is never escaped into JSON and back on the request path.

mod admit;
mod frame;
mod invalidate;
mod money;
mod record;
mod relay;
mod settle;

pub use admit::{
    AdmitReply, AdmitRequest, Audit, Auto, CacheAsk, Charge, Lease, Over, Plan, Question,
    Relevance, Similarity, Spare, Unit, Vectors, Verdict, Window,
};
pub use frame::{Frame, FrameError};
pub use invalidate::{Invalidate, Invalidated, scoped_tag};
pub use money::Usd;
pub use record::{CacheResult, Lever, Outcome, Record, Savings, Trimmed, Usage};
pub use relay::{Attempt, RelayRequest};
pub use settle::{
    Answered, Counted, EntryHead, LeaseEnd, Order, Release, Remember, Settle, SettleReply,
    SettleRequest, Store, StoreVectors, Written,
};

/// Version of this protocol. The filter sends it in [`header::WIRE`]; the sidecar refuses another
/// with 426, so that a half-upgraded mesh fails loudly instead of misreading budgets.
pub const VERSION: u16 = 4;

/// Header names that Sluice owns.
pub mod header {
    /// Protocol version of a call between filter and sidecar.
    pub const WIRE: &str = "x-sluice-wire";
    /// Request: tier a trusted caller asks for; towards Envoy's router: the tier that was chosen.
    pub const TIER: &str = "x-sluice-tier";
    /// Answer and router: the model that was used.
    pub const MODEL: &str = "x-sluice-model";
    /// Request: `bypass` or `refresh`; answer: what the cache did.
    pub const CACHE: &str = "x-sluice-cache";
    /// Request, from a filter to itself: the lease under which a stale answer is refreshed.
    pub const LEASE: &str = "x-sluice-lease";
    /// Request, from a filter to itself over the sidecar: it is an attempt of [`crate::RelayRequest`],
    /// to be sent as it is. Answer, from the sidecar: the number of the attempt that it is of, from 0.
    pub const ATTEMPT: &str = "x-sluice-attempt";
    /// Request, towards Envoy's router: it goes to the sidecar's [`crate::path::RELAY`]. Only a filter
    /// can have set it: a stranger's is removed.
    pub const RELAY: &str = "x-sluice-relay";
    /// Request: what the answer is built on, comma-separated, so that it can be invalidated by it.
    pub const TAGS: &str = "x-sluice-tags";
    /// Request: the prompt template that a trusted caller asks for, by its name in the config.
    pub const TEMPLATE: &str = "x-sluice-template";
    /// Request: the task that a trusted caller books this request to.
    pub const TASK: &str = "x-sluice-task";
    /// Answer: prompt tokens that were not sent.
    pub const TOKENS_TRIMMED: &str = "x-sluice-tokens-trimmed";
    /// Answer: dollars that this request cost, or `unknown`.
    pub const COST: &str = "x-sluice-cost";
    /// Answer: dollars that this request saved, or `unknown`.
    pub const SAVED: &str = "x-sluice-saved";
    /// Every header that begins so is ours.
    pub const PREFIX: &str = "x-sluice-";
}

/// Paths of the sidecar's API.
pub mod path {
    /// Reserve budget and look up caches.
    pub const ADMIT: &str = "/v1/admit";
    /// As [`ADMIT`], once another request's answer is there, or [`crate::CacheAsk::wait_ms`] is over.
    pub const WAIT: &str = "/v1/wait";
    /// Book what a request used, release its reservation, store its answer.
    pub const SETTLE: &str = "/v1/settle";
    /// Send a request, and once more as it came where upstream refuses its messages.
    pub const RELAY: &str = "/v1/relay";
    /// For operators and tenants: drop what was built on something; see [`crate::Invalidate`].
    pub const INVALIDATE: &str = "/v1/invalidate";
    /// For operators: look into the cache, or drop from it.
    pub const CACHE: &str = "/v1/cache";
}

/// What the sidecar takes in one call. It refuses more with 413 (bytes) or 400 (items).
pub mod limit {
    /// Bytes of an admit: two plans with the keys of [`INPUTS`], texts to compare, and room for the
    /// rest.
    pub const ADMIT_BODY: usize = 80 * 1024 + 2 * INPUTS * KEY + TEXTS_BYTES;
    /// Bytes of a settle, answers included.
    pub const SETTLE_BODY: usize = 16 * 1024 * 1024;
    /// Items of a settle.
    pub const SETTLE_ITEMS: usize = 1000;
    /// Bytes of a relay: two bodies of 8 MiB, and their headers.
    pub const RELAY_BODY: usize = 2 * 8 * 1024 * 1024 + 256 * 1024;
    /// Headers of one attempt of a relay.
    pub const RELAY_HEADERS: usize = 100;
    /// Bytes of a key where it stands in a body.
    pub const KEY: usize = 32;
    /// Inputs of one embedding request that are looked up: as many as OpenAI takes ("Create
    /// embeddings", `input`).
    pub const INPUTS: usize = 2048;
    /// Texts that one request has compared with a question: a long conversation's turns, or the
    /// chunks of a retrieval.
    pub const TEXTS: usize = 256;
    /// Bytes of such a text, and of the question: more than an embedding model reads (MiniLM reads
    /// 256 word pieces, about a kilobyte of English).
    pub const TEXT: usize = 2048;
    /// Bytes of all of a request's texts.
    pub const TEXTS_BYTES: usize = 128 * 1024;
    /// Bytes of what is remembered of a conversation.
    pub const STATE: usize = 3 * 1024;
    /// Bytes of what is to be written down in fewer words: some 16,000 tokens of English.
    pub const ORDER: usize = 64 * 1024;
    /// Bytes of a text that was written of a conversation: some 2,000 tokens.
    pub const SUMMARY: usize = 8 * 1024;
    /// Bytes of such a text's name.
    pub const SUMMARY_ID: usize = 1024;
    /// Such texts of one conversation: the one that it goes on with, a newer one, and one that came
    /// while the newer was ordered.
    pub const SUMMARIES: usize = 3;
    /// Bytes of the vectors that one request stores, keys included; those past it are not kept.
    pub const VECTORS: usize = 4 * 1024 * 1024;
    /// Tags of one answer; one that has more is not kept.
    pub const TAGS: usize = 32;
    /// Bytes of a tag, without its tenant; an answer with a longer one is not kept.
    pub const TAG: usize = 256;
}
