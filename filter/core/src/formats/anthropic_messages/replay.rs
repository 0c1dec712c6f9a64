//! A stored message as the typed events that the API would have streamed.

use crate::formats::openai::MAX_DELTA;
use crate::json::{self, JsonStr, Object, ObjectWriter, split_escaped};
use crate::sse::SseEvent;

/// Members of `usage` that `message_delta` repeats as totals.
const TOTALS: [&str; 6] = [
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
];

/// Members of a message that are known only at its end.
const ENDINGS: [&str; 4] = ["stop_reason", "stop_sequence", "stop_details", "container"];

/// The stream, from `message_start` to `message_stop`. None when the message has no end.
pub(super) fn replay(answer: &str) -> Option<Vec<u8>> {
    let answer = json::minify(answer);
    let message = Object::parse(&answer).ok()?;
    message.set("stop_reason")?;
    let blocks = json::array(message.get("content")?).ok()?;
    let usage = message.get("usage")?;
    let totals = Object::parse(usage).ok()?;
    // At the start the API has counted the prompt and hardly any output.
    let counted = json::set_fields(usage, &totals, &[("output_tokens", "1")]);
    let mut start = vec![("content", "[]"), ("usage", counted.as_str())];
    for key in ENDINGS {
        if message.get(key).is_some() {
            start.push((key, "null"));
        }
    }
    let start = json::set_fields(&answer, &message, &start);
    let mut out = Vec::new();
    send(&mut out, "message_start", |event| {
        event.raw("message", &start)
    });
    for (index, raw) in blocks.into_iter().enumerate() {
        block(&mut out, index as u64, raw)?;
    }
    let mut delta = ObjectWriter::new();
    for key in ENDINGS {
        delta = delta.maybe(key, message.get(key));
    }
    let mut told = ObjectWriter::new();
    for key in TOTALS {
        told = told.maybe(key, totals.set(key));
    }
    let (delta, told) = (delta.end(), told.end());
    send(&mut out, "message_delta", |event| {
        event.raw("delta", &delta).raw("usage", &told)
    });
    send(&mut out, "message_stop", |event| event);
    Some(out)
}

fn send(out: &mut Vec<u8>, kind: &str, fill: impl FnOnce(ObjectWriter) -> ObjectWriter) {
    let event = ObjectWriter::new().str("type", kind);
    SseEvent::write(out, kind, &fill(event).end());
}

fn block(out: &mut Vec<u8>, index: u64, raw: &str) -> Option<()> {
    let block = Object::parse(raw).ok()?;
    let kind = block.str("type")?.text();
    // What grows by deltas starts empty; any other block comes whole.
    let mut start: Vec<(&str, &str)> = Vec::new();
    let mut deltas: Vec<(&str, &str, String)> = Vec::new();
    match &*kind {
        "text" => {
            let cited = block.set("citations").unwrap_or("[]");
            if cited != "[]" {
                start.push(("citations", "[]"));
            }
            for citation in json::array(cited).ok()? {
                deltas.push(("citations_delta", "citation", citation.to_owned()));
            }
            start.push(("text", "\"\""));
            deltas.extend(texts("text_delta", "text", block.str("text")?));
        }
        "thinking" => {
            start.push(("thinking", "\"\""));
            deltas.extend(texts("thinking_delta", "thinking", block.str("thinking")?));
            if let Some(signature) = block.str("signature") {
                start.push(("signature", "\"\""));
                deltas.push(("signature_delta", "signature", signature.raw().to_owned()));
            }
        }
        "tool_use" | "server_tool_use" | "mcp_tool_use" => {
            start.push(("input", "{}"));
            // The API always starts with an empty piece, and sends no more for no arguments.
            deltas.push(("input_json_delta", "partial_json", "\"\"".to_owned()));
            let input = block.get("input")?;
            if input != "{}" {
                let escaped = serde_json::Value::from(input).to_string();
                deltas.extend(texts(
                    "input_json_delta",
                    "partial_json",
                    JsonStr::new(&escaped)?,
                ));
            }
        }
        _ => {}
    }
    let started = json::set_fields(raw, &block, &start);
    send(out, "content_block_start", |event| {
        event.int("index", index).raw("content_block", &started)
    });
    if index == 0 {
        send(out, "ping", |event| event);
    }
    for (kind, key, value) in deltas {
        let delta = ObjectWriter::new().str("type", kind).raw(key, &value).end();
        send(out, "content_block_delta", |event| {
            event.int("index", index).raw("delta", &delta)
        });
    }
    send(out, "content_block_stop", |event| event.int("index", index));
    Some(())
}

/// A text in deltas.
fn texts<'k>(kind: &'k str, key: &'k str, text: JsonStr<'_>) -> Vec<(&'k str, &'k str, String)> {
    split_escaped(text.escaped(), MAX_DELTA)
        .map(|piece| (kind, key, format!("\"{piece}\"")))
        .collect()
}
