//! What OpenAI's APIs have in common: usage, errors, asking for usage, chunks of a stream.

mod chunks;

pub(super) use chunks::{ChunkReader, Flavour};

use sluice_wire::Usage;

use super::{Answer, ApiError, Edit, ErrorKind, Request};
use crate::json::{self, Cursor, JsonStr, Object, ObjectWriter};
use crate::sse::SseEvent;

/// Longest delta of a replayed stream, in bytes: clients exist that read lines of 64 KiB at most.
pub(super) const MAX_DELTA: usize = 4 << 10;

/// Request headers that change the answer, or whose upstream project keeps it.
pub(super) const KEY_HEADERS: &[&str] = &["openai-beta", "openai-organization", "openai-project"];

/// Reads a `usage` object: of chat, completions and embeddings (`prompt_tokens`), or of Responses
/// (`input_tokens`).
pub(super) fn usage(raw: &str) -> Option<Usage> {
    let fields = Object::parse(raw).ok()?;
    let either = |new: &str, old: &str| fields.count(new).or_else(|| fields.count(old));
    let prompt = either("prompt_tokens", "input_tokens");
    let completion = either("completion_tokens", "output_tokens");
    if prompt.is_none() && completion.is_none() {
        return None;
    }
    let detail = |objects: [&str; 2], key: &str| {
        objects
            .into_iter()
            .find_map(|name| fields.object(name)?.count(key))
            .unwrap_or(0)
    };
    let of_prompt = ["prompt_tokens_details", "input_tokens_details"];
    let of_completion = ["completion_tokens_details", "output_tokens_details"];
    let prompt = prompt.unwrap_or(0);
    let mut completion = completion.unwrap_or(0);
    let reasoning = detail(of_completion, "reasoning_tokens");
    // Some compatible upstreams (xAI) count reasoning beside the completion; the total tells.
    let apart = prompt.saturating_add(completion).saturating_add(reasoning);
    if reasoning > 0 && fields.count("total_tokens") == Some(apart) {
        completion = completion.saturating_add(reasoning);
    }
    let cached = detail(of_prompt, "cached_tokens").min(prompt);
    Some(Usage {
        prompt,
        cached,
        cache_write: detail(of_prompt, "cache_write_tokens").min(prompt - cached),
        completion,
        reasoning: reasoning.min(completion),
    })
}

/// An error of ours as OpenAI's APIs tell theirs.
pub(super) fn error(error: &ApiError) -> String {
    let kind = match error.kind {
        // OpenAI answers 403 and 413 with this type too; the status tells them apart.
        ErrorKind::InvalidRequest | ErrorKind::Forbidden | ErrorKind::TooLarge => {
            "invalid_request_error"
        }
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::BadGateway | ErrorKind::Unavailable => "server_error",
    };
    serde_json::json!({
        "error": {"message": error.message, "type": kind, "param": null, "code": error.code}
    })
    .to_string()
}

/// Whether the client asked for usage at the end of the stream.
pub(super) fn asks_usage(fields: &Object<'_>) -> bool {
    fields
        .object("stream_options")
        .and_then(|options| options.read("include_usage"))
        .unwrap_or(false)
}

/// `stream_options` with `include_usage`, where the client streams and did not ask.
pub(super) fn ask_usage(request: &Request<'_>) -> Option<Edit> {
    if !request.stream || request.stream_usage {
        return None;
    }
    let asked = [("include_usage", "true")];
    let json = match request.fields.set("stream_options") {
        None => r#"{"include_usage":true}"#.to_owned(),
        // Options that are no object are upstream's to refuse.
        Some(raw) => json::set_fields(raw, &Object::parse(raw).ok()?, &asked),
    };
    Some(Edit {
        field: "stream_options",
        json,
    })
}

/// Whether a response format (raw JSON) asks for JSON.
pub(super) fn asks_json(format: Option<&str>) -> bool {
    format
        .and_then(|raw| Object::parse(raw).ok())
        .and_then(|format| format.str("type"))
        .is_some_and(|kind| matches!(kind.text().as_ref(), "json_object" | "json_schema"))
}

/// Reads a whole answer of chat or completions.
pub(super) fn answer(body: &[u8], flavour: Flavour) -> Answer {
    let Some(fields) = std::str::from_utf8(body)
        .ok()
        .and_then(|body| Object::parse(body).ok())
    else {
        return Answer::default();
    };
    let mut answer = Answer {
        usage: fields.set("usage").and_then(usage),
        ..Answer::default()
    };
    let mut choices = 0;
    let mut ended = 0;
    let mut cursor = Cursor::new(fields.get("choices").unwrap_or(""));
    if cursor.enter(b'[') {
        while cursor.element() {
            if !cursor.enter(b'{') {
                cursor.value();
                continue;
            }
            choices += 1;
            while let Some(key) = cursor.key() {
                let value = cursor.value();
                match &*key {
                    "finish_reason" => ended += u64::from(flavour.is_end(value)),
                    "message" => answer.text_bytes += text_bytes(value),
                    "text" => answer.text_bytes += string_bytes(value),
                    _ => {}
                }
            }
        }
    }
    answer.complete = choices > 0 && ended == choices && fields.set("error").is_none();
    answer
}

/// Bytes of text that a message or delta holds, tool arguments included.
pub(super) fn text_bytes(message: &str) -> u64 {
    let mut bytes = 0;
    let mut cursor = Cursor::new(message);
    if !cursor.enter(b'{') {
        return 0;
    }
    while let Some(key) = cursor.key() {
        match &*key {
            "role" | "name" | "id" | "type" => {
                cursor.value();
            }
            "tool_calls" => {
                if cursor.enter(b'[') {
                    while cursor.element() {
                        bytes += call_bytes(cursor.value());
                    }
                } else {
                    cursor.value();
                }
            }
            "function_call" => bytes += members(cursor.value(), string_bytes),
            _ => bytes += string_bytes(cursor.value()),
        }
    }
    bytes
}

fn call_bytes(call: &str) -> u64 {
    // Name and arguments (or a custom tool's input) stand one level down.
    members(call, |value| members(value, string_bytes))
}

fn members(object: &str, of: impl Fn(&str) -> u64) -> u64 {
    let mut bytes = 0;
    let mut cursor = Cursor::new(object);
    if cursor.enter(b'{') {
        while cursor.key().is_some() {
            bytes += of(cursor.value());
        }
    }
    bytes
}

/// Bytes of the text that a raw value is; nothing when it is no string.
pub(super) fn string_bytes(raw: &str) -> u64 {
    JsonStr::new(raw).map_or(0, |text| text.text_len() as u64)
}

/// Members of an answer that every chunk repeats.
const HEAD: [&str; 5] = [
    "id",
    "created",
    "model",
    "service_tier",
    "system_fingerprint",
];

/// Writes the chunks of a replayed stream.
pub(super) struct ChunkWriter<'a> {
    answer: &'a Object<'a>,
    object: &'static str,
    /// The client wants usage.
    asked: bool,
    out: Vec<u8>,
}

impl<'a> ChunkWriter<'a> {
    /// From an answer's fields; `object` is what a chunk calls itself.
    pub(super) fn new(answer: &'a Object<'a>, object: &'static str, asked: bool) -> Self {
        ChunkWriter {
            answer,
            object,
            asked,
            out: Vec::new(),
        }
    }

    /// A chunk with one choice (raw JSON).
    pub(super) fn choice(&mut self, choice: &str) {
        // A client that asked sees `usage` in every chunk, null but in the last.
        let usage = self.asked.then_some("null");
        self.chunk(&format!("[{choice}]"), usage);
    }

    fn chunk(&mut self, choices: &str, usage: Option<&str>) {
        let mut chunk = ObjectWriter::new().str("object", self.object);
        for key in HEAD {
            chunk = chunk.maybe(key, self.answer.get(key));
        }
        chunk = chunk.raw("choices", choices).maybe("usage", usage);
        if self.out.is_empty() {
            // What compatible upstreams add (citations, filter results) comes once.
            for (key, value) in self.answer.iter() {
                if !HEAD.contains(&key) && !matches!(key, "object" | "choices" | "usage") {
                    chunk = chunk.named(key, value);
                }
            }
        }
        SseEvent::write(&mut self.out, "", &chunk.end());
    }

    /// The stream.
    pub(super) fn end(mut self) -> Vec<u8> {
        if self.asked
            && let Some(usage) = self.answer.set("usage")
        {
            self.chunk("[]", Some(usage));
        }
        SseEvent::write(&mut self.out, "", "[DONE]");
        self.out
    }
}
