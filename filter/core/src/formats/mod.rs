//! The APIs that Sluice reads: one file each. LLM APIs have one line each in [`ALL`]; [`Retrieval`]
//! is told by a route of its kind.

mod anthropic_messages;
pub mod batch;
mod content;
mod conversation;
mod digest;
mod openai;
mod openai_chat;
mod openai_completions;
mod openai_embeddings;
mod openai_responses;
pub mod refusal;
mod request;
mod retrieval;
mod system;
mod tap;
mod unstreamed;
mod usage_scan;

pub use anthropic_messages::AnthropicMessages;
pub use batch::Batch;
pub use conversation::{Conversation, Item, PIN, Tie};
pub use digest::{Digest, Digests};
pub use openai_chat::OpenAiChat;
pub use openai_completions::OpenAiCompletions;
pub use openai_embeddings::OpenAiEmbeddings;
pub use openai_responses::OpenAiResponses;
pub use request::{
    ApiError, Content, Edit, ErrorKind, Kind, Message, NotThisApi, Part, Request, Role,
};
pub use retrieval::Retrieval;
pub use system::SystemPlace;

pub use tap::Tap;
pub use usage_scan::UsageScan;

use percent_encoding::percent_decode_str;
use sluice_wire::Usage;

use crate::json::Object;
use crate::sse;

/// Every format that a path tells, in the order in which it is tried.
pub const ALL: &[&dyn Format] = &[
    &OpenAiChat,
    &OpenAiCompletions,
    &OpenAiEmbeddings,
    &OpenAiResponses,
    &AnthropicMessages,
];

/// The format that serves `path` (query string allowed), which may be percent-encoded: servers
/// decode it before they look.
#[must_use]
pub fn by_path(path: &str) -> Option<&'static dyn Format> {
    let path = path.split('?').next().unwrap_or(path);
    let path = percent_decode_str(path).decode_utf8_lossy();
    ALL.iter().copied().find(|format| format.serves(&path))
}

/// The format of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Format> {
    ALL.iter().copied().find(|format| format.name() == name)
}

/// One API: how to read its requests and answers and how to speak it.
pub trait Format: Sync + std::fmt::Debug {
    /// Name in the config, metrics and ledger: `openai.chat`.
    fn name(&self) -> &'static str;

    /// Family whose models it shares: `openai`, `openai-completions`, `openai-embeddings`,
    /// `anthropic`. A tier names its model by family.
    fn family(&self) -> &'static str;

    /// What it makes.
    fn kind(&self) -> Kind;

    /// Whether a path (no query string) is its own. Suffix match, so that prefixes in front of
    /// `/v1/…` (Azure, gateways) work.
    fn serves(&self, path: &str) -> bool;

    /// Reads a request.
    ///
    /// # Errors
    /// [`NotThisApi`] when the body is no JSON object of this API; it is then passed on untouched.
    fn parse<'a>(&self, body: &'a str) -> Result<Request<'a>, NotThisApi> {
        self.read(body, content::fields(body)?)
    }

    /// Reads once more what [`Format::parse`] has read, or that with fields set: whether it is JSON is
    /// known, and to find that out is most of what reading costs.
    ///
    /// # Errors
    /// As [`Format::parse`].
    fn parse_again<'a>(&self, body: &'a str) -> Result<Request<'a>, NotThisApi> {
        self.read(body, Object::of_valid(body))
    }

    /// [`Format::parse`] of a body with these top-level fields.
    ///
    /// # Errors
    /// [`NotThisApi`] when they are not those of this API.
    fn read<'a>(&self, body: &'a str, fields: Object<'a>) -> Result<Request<'a>, NotThisApi>;

    /// The request field that limits output tokens in this request: the one that is set, else the
    /// one to add. Asked of [`Kind::Generation`] only.
    fn output_limit_field(&self, request: &Request<'_>) -> &'static str;

    /// The smallest output limit that the API takes for this request; a lower one would turn a
    /// good request into a refused one.
    fn min_output_limit(&self, _request: &Request<'_>) -> u64 {
        1
    }

    /// The edits that make upstream report usage at the end of a stream, where the client did not
    /// ask for it (then [`StreamReader::event`] hides what the client did not ask for).
    fn ask_usage(&self, request: &Request<'_>) -> Option<Edit>;

    /// Top-level request fields that do not change the answer and so are not in the cache key
    /// (every other field is, known or not): `stream`, `user`, `metadata`, …
    fn not_in_key(&self) -> &'static [&'static str];

    /// Request headers (lower case) that change the answer: `anthropic-beta`, …
    fn key_headers(&self) -> &'static [&'static str];

    /// Tells, part by part, what of the body is in the cache key besides the model and the output
    /// limit. False: there is no telling, so that the request has no key.
    ///
    /// Every field, known or not, unless the format says that it does not matter. One that stands
    /// twice counts as it counts for the provider: by its last value.
    fn key_parts(&self, request: &Request<'_>, part: &mut dyn FnMut(&str, &[u8])) -> bool {
        let limit_field = match self.kind() {
            Kind::Generation => self.output_limit_field(request),
            Kind::Embedding | Kind::Retrieval => "",
        };
        let mut fields: Vec<(&str, &str)> = request
            .fields
            .iter()
            .filter(|(name, _)| {
                *name != "model" && *name != limit_field && !self.not_in_key().contains(name)
            })
            .filter_map(|(name, _)| Some((name, request.fields.get(name)?)))
            .collect();
        fields.sort_unstable();
        fields.dedup_by_key(|(name, _)| *name);
        for (name, value) in fields {
            part("field", name.as_bytes());
            part("value", value.as_bytes());
        }
        true
    }

    /// Whether the request's answer may be cached at all (no background jobs, no server state).
    fn cacheable(&self, request: &Request<'_>) -> bool;

    /// The request input by input, where each has an answer of its own that hangs on nothing but
    /// itself and what the batch says.
    fn batch<'a>(&self, _request: &Request<'a>) -> Option<Batch<'a>> {
        None
    }

    /// The conversation item by item, with what ties the items together; None where there is no
    /// list of them.
    fn conversation<'a>(&self, _request: &Request<'a>) -> Option<Conversation<'a>> {
        None
    }

    /// Where its system prompt goes. Asked of [`Kind::Generation`] only.
    fn system_place(&self) -> SystemPlace {
        SystemPlace::Prompt
    }

    /// Whether its messages are turns, so that what is asked last can be told from what was said
    /// before.
    fn has_turns(&self) -> bool {
        self.kind() == Kind::Generation
    }

    /// Reads a whole JSON answer with status 200.
    fn answer(&self, body: &[u8]) -> Answer;

    /// Reads the `usage` object of an answer (raw JSON), as [`UsageScan`] finds it in an answer
    /// that is too long to hold.
    fn usage(&self, usage: &str) -> Option<Usage>;

    /// Reader of a streamed answer. `hide_usage`: the usage was asked for by us, not by the client.
    fn stream(&self, hide_usage: bool) -> Box<dyn StreamReader>;

    /// A stored JSON answer as the stream that the API would have sent; `usage` as the client
    /// asked. None when the answer cannot be told as a stream.
    fn replay(&self, answer: &str, usage: bool) -> Option<Vec<u8>>;

    /// An error of ours in this API's shape (JSON).
    fn error(&self, error: &ApiError) -> String;
}

/// What a finished answer told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Tokens, where it reported them.
    pub usage: Option<Usage>,
    /// `usage` is what was told on the way: of completion tokens there may be more.
    pub usage_so_far: bool,
    /// It ended by itself: not cut by a limit or filter, not failed, not unfinished. Only such
    /// answers are stored.
    pub complete: bool,
    /// Bytes of generated text (tool arguments included), for estimates without `usage`.
    pub text_bytes: u64,
}

/// Reads a streamed answer event by event. Bounded: past `MAX_ASSEMBLED` bytes it stops keeping
/// what it would need for [`StreamReader::assemble`] and only watches for usage.
pub trait StreamReader: std::fmt::Debug {
    /// The next event; says whether the client gets it.
    fn event(&mut self, event: &sse::SseEvent<'_>) -> Show;

    /// What has been read so far.
    fn outcome(&self) -> Answer;

    /// The answer as the API would have given it without streaming, if it came whole.
    fn assemble(&self) -> Option<String>;
}

/// Whether an event reaches the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Byte for byte.
    Pass,
    /// Not at all: the client did not ask for it.
    Hide,
}

/// Longest answer that a [`StreamReader`] assembles, in bytes of text.
pub const MAX_ASSEMBLED: usize = 1 << 20;
