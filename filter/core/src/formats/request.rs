//! A request as every policy sees it, whatever API it is in. Borrowed from the body: nothing is
//! unescaped or copied until somebody reads it.

use std::borrow::Cow;

use crate::json::{JsonStr, Object};

/// What a format makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, tool calls: tokens out.
    Generation,
    /// Vectors.
    Embedding,
    /// What a search found: no model is asked, so there are no tokens and no price.
    Retrieval,
}

impl Kind {
    /// Whether a model is asked: it has its leave, its tokens, its price and its budgets.
    #[must_use]
    pub fn asks_a_model(self) -> bool {
        self != Kind::Retrieval
    }
}

/// The body is not a request of this API; it is passed on untouched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a request of this API: {0}")]
pub struct NotThisApi(pub String);

/// One request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The whole body.
    pub body: &'a str,
    /// Its top-level fields, in order.
    pub fields: Object<'a>,
    /// `model`.
    pub model: Cow<'a, str>,
    /// System or developer prompts, `instructions`.
    pub system: Vec<Content<'a>>,
    /// User, assistant and tool messages in order (system messages are in `system`).
    pub messages: Vec<Message<'a>>,
    /// Raw JSON of the tool definitions, if any.
    pub tools: Option<&'a str>,
    /// The answer must follow a JSON mode or schema.
    pub structured: bool,
    /// The client's limit on output tokens.
    pub output_limit: Option<u64>,
    /// The client asked for a stream.
    pub stream: bool,
    /// The client asked for usage at the end of the stream (always true where the API always
    /// sends it).
    pub stream_usage: bool,
    /// `temperature`, if set.
    pub temperature: Option<f64>,
    /// Answers asked for (`n`, or inputs of an embedding request).
    pub choices: u64,
}

impl<'a> Request<'a> {
    /// Text parts of the last user message (empty when there is none).
    #[must_use]
    pub fn last_user(&self) -> &[Part<'a>] {
        self.messages
            .iter()
            .rev()
            .find(|message| message.role == Role::User)
            .map_or(&[], |message| &message.content.parts)
    }

    /// What is asked, where the last message is the user's and plain text: nothing is then left to
    /// answer of a tool, an image or a half-written answer.
    #[must_use]
    pub fn question(&self) -> Option<JsonStr<'a>> {
        let last = self.messages.last()?;
        match (last.role, last.content.parts.as_slice()) {
            (Role::User, [Part::Text(text)]) => Some(*text),
            _ => None,
        }
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
}

/// A message.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content<'a>,
}

/// A piece of content with the bytes it stands in.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// The raw JSON it was read from (the whole message object where it is a message).
    pub raw: &'a str,
    /// Its parts.
    pub parts: Vec<Part<'a>>,
}

/// A part of a content.
#[derive(Clone, Debug)]
pub enum Part<'a> {
    /// Text.
    Text(JsonStr<'a>),
    /// Text that the client sent as token ids: how many (legacy completions, embeddings).
    Tokens(u64),
    /// A tool call: raw JSON.
    ToolCall(&'a str),
    /// A tool's result that is not plain text: raw JSON.
    ToolResult(&'a str),
    /// An image, audio, file: raw JSON.
    Media(&'a str),
    /// Something that this version does not know: raw JSON.
    Other(&'a str),
}

/// A change to top-level fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// Field.
    pub field: &'static str,
    /// New raw JSON value.
    pub json: String,
}

/// An error of ours, before it takes an API's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// What it is.
    pub kind: ErrorKind,
    /// For people: what was found, what is allowed.
    pub message: String,
    /// Machine-readable code: `budget_exceeded`, `prompt_too_long`, …
    pub code: &'static str,
}

/// Kinds of errors of ours, and their HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400.
    InvalidRequest,
    /// 403.
    Forbidden,
    /// 413.
    TooLarge,
    /// 429.
    RateLimited,
    /// 502.
    BadGateway,
    /// 503.
    Unavailable,
}

impl ErrorKind {
    /// HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            ErrorKind::InvalidRequest => 400,
            ErrorKind::Forbidden => 403,
            ErrorKind::TooLarge => 413,
            ErrorKind::RateLimited => 429,
            ErrorKind::BadGateway => 502,
            ErrorKind::Unavailable => 503,
        }
    }
}
