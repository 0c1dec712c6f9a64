//! Fixtures of the API formats: requests, answers and streams as the APIs give them.

use std::path::PathBuf;

use sluice_core::formats::{self, Answer, Content, Format, Part, Request, Tap};
use sluice_core::json::{self, Object};
use sluice_wire::Usage;

/// One fixture file.
pub(crate) struct Fixture {
    pub(crate) format: &'static dyn Format,
    /// `text.stream.sse`
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Fixture {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).expect("fixtures are UTF-8")
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// All fixtures whose names end so, of all formats, in order.
pub(crate) fn fixtures(suffix: &str) -> Vec<Fixture> {
    let mut found = Vec::new();
    for format in formats::ALL {
        let folder = folder().join(format.name());
        for entry in std::fs::read_dir(&folder).expect("every format has fixtures") {
            let path = entry.expect("readable folder").path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(suffix) {
                let bytes = std::fs::read(&path).expect("readable fixture");
                found.push(Fixture {
                    format: *format,
                    name,
                    bytes,
                });
            }
        }
    }
    found.sort_by(|a, b| (a.format.name(), &a.name).cmp(&(b.format.name(), &b.name)));
    assert!(!found.is_empty(), "fixtures *{suffix}");
    found
}

/// Compares with the golden file beside the fixture; `SLUICE_BLESS=1` writes it anew.
pub(crate) fn golden(fixture: &Fixture, found: &serde_json::Value) {
    let name = format!("{}.golden", fixture.name);
    let path = folder().join(fixture.format.name()).join(&name);
    let found = format!("{found:#}\n");
    if std::env::var_os("SLUICE_BLESS").is_some() {
        std::fs::write(&path, &found).expect("writable golden file");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{}/{name}: expected {expected}found {found}",
        fixture.format.name()
    );
}

/// Everything that is read from a request.
pub(crate) fn told_by_request(format: &dyn Format, request: &Request<'_>) -> serde_json::Value {
    let parts = |content: &Content<'_>| -> serde_json::Value {
        assert!(request.body.contains(content.raw), "raw lies in the body");
        content
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => format!("text {}", text.text()),
                Part::Tokens(count) => format!("tokens {count}"),
                Part::ToolCall(raw) => format!("tool call {raw}"),
                Part::ToolResult(raw) => format!("tool result {raw}"),
                Part::Media(raw) => format!("media {raw}"),
                Part::Other(raw) => format!("other {raw}"),
            })
            .collect()
    };
    serde_json::json!({
        "model": request.model,
        "system": request.system.iter().map(&parts).collect::<Vec<_>>(),
        "messages": request.messages.iter()
            .map(|message| (format!("{:?}", message.role), parts(&message.content)))
            .collect::<Vec<_>>(),
        "tools": request.tools.map(|raw| json::array(raw).unwrap().len()),
        "structured": request.structured,
        "output_limit": request.output_limit,
        "min_output_limit": format.min_output_limit(request),
        "output_limit_field": format.output_limit_field(request),
        "stream": request.stream,
        "stream_usage": request.stream_usage,
        "ask_usage": format.ask_usage(request).map(|edit| (edit.field, edit.json)),
        "temperature": request.temperature,
        "choices": request.choices,
        "cacheable": format.cacheable(request),
    })
}

/// Everything that an answer told.
pub(crate) fn told_by_answer(answer: &Answer) -> serde_json::Value {
    serde_json::json!({
        "usage": answer.usage,
        "complete": answer.complete,
        "text_bytes": answer.text_bytes,
    })
}

/// What a stream came to.
#[derive(Debug, PartialEq)]
pub(crate) struct Streamed {
    pub(crate) passed: Vec<u8>,
    pub(crate) outcome: Answer,
    pub(crate) assembled: Option<String>,
}

/// Lets a stream pass in the given pieces.
pub(crate) fn stream<'c>(
    format: &dyn Format,
    hide_usage: bool,
    pieces: impl IntoIterator<Item = &'c [u8]>,
) -> Streamed {
    let mut tap = Tap::new(format, hide_usage);
    let mut passed = Vec::new();
    for piece in pieces {
        passed.extend_from_slice(&tap.chunk(piece));
    }
    passed.extend_from_slice(&tap.end());
    Streamed {
        passed,
        outcome: tap.outcome(),
        assembled: tap.assemble(),
    }
}

/// JSON without the members that a stream does not tell.
pub(crate) fn told_in_streams(answer: &str) -> serde_json::Value {
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                fields.retain(|key, value| {
                    !(key == "annotations" && value.as_array().is_some_and(Vec::is_empty))
                });
                fields.values_mut().for_each(strip);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(answer).expect("JSON");
    strip(&mut value);
    value
}

/// Usage in one line.
pub(crate) fn usage(
    prompt: u64,
    cached: u64,
    cache_write: u64,
    completion: u64,
    reasoning: u64,
) -> Usage {
    Usage {
        prompt,
        cached,
        cache_write,
        completion,
        reasoning,
    }
}

/// The object that a text is.
pub(crate) fn object(json: &str) -> Object<'_> {
    Object::parse(json).expect("a JSON object")
}
