//! Anthropic Messages: `POST /v1/messages`.

mod replay;
mod stream;

use sluice_wire::Usage;

use super::conversation::{self, Conversation, Fields, Tie};
use super::{
    Answer, ApiError, Content, Edit, ErrorKind, Format, Kind, NotThisApi, Part, Request, Role,
    StreamReader, SystemPlace, content, openai,
};
use crate::json::{Cursor, Object};

/// The format.
#[derive(Clone, Copy, Debug)]
pub struct AnthropicMessages;

impl Format for AnthropicMessages {
    fn name(&self) -> &'static str {
        "anthropic.messages"
    }

    fn family(&self) -> &'static str {
        "anthropic"
    }

    fn kind(&self) -> Kind {
        Kind::Generation
    }

    fn serves(&self, path: &str) -> bool {
        // Not what lies below it: `/v1/messages/count_tokens`, `/v1/messages/batches`.
        path.ends_with("/v1/messages")
    }

    fn read<'a>(&self, body: &'a str, fields: Object<'a>) -> Result<Request<'a>, NotThisApi> {
        let mut list = content::list(&fields, "messages")?;
        let mut system = Vec::new();
        if let Some(raw) = fields.set("system") {
            let mut parts = Vec::new();
            content::parts(&mut Cursor::new(raw), &mut parts);
            system.push(Content { raw, parts });
        }
        let mut messages = Vec::with_capacity(8);
        while list.element() {
            let (speaker, content) = message(&mut list);
            content::file(speaker, content, &mut system, &mut messages);
        }
        // `output_config.format`, and `output_format` of the beta.
        let config = fields.object("output_config");
        let format = config.as_ref().and_then(|config| config.get("format"));
        Ok(Request {
            body,
            model: content::model(&fields)?,
            system,
            messages,
            tools: content::tools(&fields, &["tools"]),
            structured: openai::asks_json(format.or_else(|| fields.get("output_format"))),
            output_limit: fields.count("max_tokens"),
            stream: fields.read("stream").unwrap_or(false),
            stream_usage: true,
            temperature: fields.read("temperature"),
            choices: 1,
            fields,
        })
    }

    fn output_limit_field(&self, _request: &Request<'_>) -> &'static str {
        "max_tokens"
    }

    fn min_output_limit(&self, request: &Request<'_>) -> u64 {
        // The limit must exceed what thinking may take of it.
        let thinking = request.fields.object("thinking");
        let budget = thinking.and_then(|thinking| thinking.count("budget_tokens"));
        budget.map_or(1, |budget| budget.saturating_add(1))
    }

    fn ask_usage(&self, _request: &Request<'_>) -> Option<Edit> {
        // `message_start` and `message_delta` always have it.
        None
    }

    fn not_in_key(&self) -> &'static [&'static str] {
        &["stream", "metadata"]
    }

    fn key_headers(&self) -> &'static [&'static str] {
        &["anthropic-beta", "anthropic-version"]
    }

    fn cacheable(&self, request: &Request<'_>) -> bool {
        let fields = &request.fields;
        // Containers and MCP servers hold state; diagnostics are about an earlier message.
        let elsewhere = ["container", "mcp_servers", "diagnostics"]
            .into_iter()
            .any(|key| fields.set(key).is_some_and(|raw| raw != "[]"));
        !elsewhere && content::only_client_tools(request.tools, &["", "custom"])
    }

    fn conversation<'a>(&self, request: &Request<'a>) -> Option<Conversation<'a>> {
        conversation::read(request, ("messages", "text"), ties)
    }

    fn system_place(&self) -> SystemPlace {
        SystemPlace::Field("system", "messages")
    }

    fn answer(&self, body: &[u8]) -> Answer {
        let Some(message) = std::str::from_utf8(body)
            .ok()
            .and_then(|body| Object::parse(body).ok())
        else {
            return Answer::default();
        };
        Answer {
            usage: message.set("usage").and_then(usage),
            usage_so_far: false,
            complete: message.get("type") == Some(r#""message""#)
                && message.get("stop_reason").is_some_and(is_end),
            text_bytes: content_bytes(message.get("content").unwrap_or("")),
        }
    }

    fn usage(&self, raw: &str) -> Option<Usage> {
        usage(raw)
    }

    fn stream(&self, _hide_usage: bool) -> Box<dyn StreamReader> {
        Box::new(stream::Reader::default())
    }

    fn replay(&self, answer: &str, _usage: bool) -> Option<Vec<u8>> {
        replay::replay(answer)
    }

    fn error(&self, error: &ApiError) -> String {
        let kind = match error.kind {
            ErrorKind::InvalidRequest => "invalid_request_error",
            ErrorKind::Forbidden => "permission_error",
            ErrorKind::TooLarge => "request_too_large",
            ErrorKind::RateLimited => "rate_limit_error",
            ErrorKind::BadGateway => "api_error",
            ErrorKind::Unavailable => "overloaded_error",
        };
        serde_json::json!({
            "type": "error", "error": {"type": kind, "message": error.message}
        })
        .to_string()
    }
}

/// Reads the message that the cursor stands before.
fn message<'a>(cursor: &mut Cursor<'a>) -> (content::Speaker, Content<'a>) {
    let start = cursor.mark();
    let mut parts = Vec::new();
    let mut speaker = content::Speaker::Other(Role::User);
    let mut body = "";
    if cursor.enter(b'{') {
        while let Some(key) = cursor.key() {
            match &*key {
                "role" => speaker = content::Speaker::of(&content::word(cursor)),
                "content" => {
                    let start = cursor.mark();
                    content::parts(cursor, &mut parts);
                    body = cursor.since(start);
                }
                _ => {
                    cursor.value();
                }
            }
        }
    } else {
        parts.push(Part::Other(cursor.value()));
    }
    let raw = cursor.since(start);
    if matches!(speaker, content::Speaker::Other(Role::User)) && only_results(body) {
        speaker = content::Speaker::Other(Role::Tool);
    }
    (speaker, Content { raw, parts })
}

/// What ties a message to others: blocks of tools' calls and results.
fn ties<'a>(fields: &Fields<'a>, _: &Content<'a>) -> Vec<Tie<'a>> {
    use conversation::by_id;
    let mut ties = Vec::new();
    let role = fields.word("role");
    if !matches!(role.as_deref(), Some("user" | "assistant" | "system")) {
        ties.push(Tie::Unknown);
    }
    for block in fields.objects("content") {
        ties.extend(match block.word("type").as_deref().unwrap_or("") {
            "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                Some(by_id(block.word("id"), Tie::Call))
            }
            kind if kind.ends_with("tool_result") => {
                Some(by_id(block.word("tool_use_id"), Tie::Result))
            }
            "text" | "image" | "document" | "thinking" | "redacted_thinking" | "search_result"
            | "container_upload" => None,
            // `compaction` stands for all that was before it; what comes later may too.
            _ => Some(Tie::Unknown),
        });
    }
    ties
}

/// Whether a user message is nothing but tools' results: then no person speaks in it.
fn only_results(content: &str) -> bool {
    let mut cursor = Cursor::new(content);
    let mut results = false;
    if cursor.enter(b'[') {
        while cursor.element() {
            if !cursor.enter(b'{') {
                return false;
            }
            let mut is_result = false;
            while let Some(key) = cursor.key() {
                if key == "type" {
                    is_result = content::word(&mut cursor) == "tool_result";
                    if !is_result {
                        return false;
                    }
                } else {
                    cursor.value();
                }
            }
            if !is_result {
                return false;
            }
            results = true;
        }
    }
    results
}

/// Whether a message with that `stop_reason` (raw) ended by itself: not by a limit, a refusal of
/// the API, or a pause of a hosted tool.
fn is_end(stop_reason: &str) -> bool {
    matches!(
        stop_reason,
        r#""end_turn""# | r#""stop_sequence""# | r#""tool_use""#
    )
}

/// Token counts as Anthropic tells them: each part of the prompt apart.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    input: Option<u64>,
    read: Option<u64>,
    written: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
}

impl Counts {
    fn of(raw: &str) -> Counts {
        let Ok(fields) = Object::parse(raw) else {
            return Counts::default();
        };
        Counts {
            input: fields.count("input_tokens"),
            read: fields.count("cache_read_input_tokens"),
            written: fields.count("cache_creation_input_tokens"),
            output: fields.count("output_tokens"),
            thinking: fields
                .object("output_tokens_details")
                .and_then(|details| details.count("thinking_tokens")),
        }
    }

    /// With what a later event tells: counts are totals, and what is left out stays.
    fn then(self, later: Counts) -> Counts {
        Counts {
            input: later.input.or(self.input),
            read: later.read.or(self.read),
            written: later.written.or(self.written),
            output: later.output.or(self.output),
            thinking: later.thinking.or(self.thinking),
        }
    }

    /// As ours: the prompt is the total, what was read from and written to the cache parts of it.
    fn usage(self) -> Option<Usage> {
        if self.input.is_none() && self.output.is_none() {
            return None;
        }
        let (read, written) = (self.read.unwrap_or(0), self.written.unwrap_or(0));
        let input = self.input.unwrap_or(0);
        let completion = self.output.unwrap_or(0);
        Some(Usage {
            prompt: input.saturating_add(read).saturating_add(written),
            cached: read,
            cache_write: written,
            completion,
            reasoning: self.thinking.unwrap_or(0).min(completion),
        })
    }
}

fn usage(raw: &str) -> Option<Usage> {
    Counts::of(raw).usage()
}

/// Bytes of generated text in content blocks; a tool's input by its JSON.
fn content_bytes(content: &str) -> u64 {
    let mut bytes = 0;
    let mut blocks = Cursor::new(content);
    if !blocks.enter(b'[') {
        return 0;
    }
    while blocks.element() {
        if !blocks.enter(b'{') {
            blocks.value();
            continue;
        }
        while let Some(key) = blocks.key() {
            let value = blocks.value();
            bytes += match &*key {
                "text" | "thinking" => openai::string_bytes(value),
                "input" => value.len() as u64,
                _ => 0,
            };
        }
    }
    bytes
}
