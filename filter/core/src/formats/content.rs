//! What the formats' requests have in common: models, roles, contents made of parts.

use std::borrow::Cow;

use super::{Content, Message, NotThisApi, Part, Role};
use crate::json::{Cursor, JsonStr, Object};

/// Reads the body's top-level fields.
pub(super) fn fields(body: &str) -> Result<Object<'_>, NotThisApi> {
    // serde_json's own message may quote the body, which must never reach a log.
    Object::parse(body).map_err(|error| {
        NotThisApi(format!(
            "expected a JSON object, found {:?} fault at line {} column {}",
            error.classify(),
            error.line(),
            error.column()
        ))
    })
}

/// `model`; empty when absent, because some upstreams then have a default.
pub(super) fn model<'a>(fields: &Object<'a>) -> Result<Cow<'a, str>, NotThisApi> {
    match fields.set("model") {
        None => Ok(Cow::Borrowed("")),
        Some(raw) => JsonStr::new(raw)
            .map(JsonStr::text)
            .ok_or_else(|| NotThisApi("`model`: expected a string".to_owned())),
    }
}

/// The array that `key` must be.
pub(super) fn list<'a>(fields: &Object<'a>, key: &str) -> Result<Cursor<'a>, NotThisApi> {
    let mut cursor = Cursor::new(fields.get(key).unwrap_or(""));
    if cursor.enter(b'[') {
        Ok(cursor)
    } else {
        Err(NotThisApi(format!("`{key}`: expected an array")))
    }
}

/// Raw JSON of the tool definitions under the first of `keys` that has any.
pub(super) fn tools<'a>(fields: &Object<'a>, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| {
        let raw = fields.set(key)?;
        let mut cursor = Cursor::new(raw);
        (cursor.enter(b'[') && cursor.element()).then_some(raw)
    })
}

/// Whether every tool is described in the request itself and run by the client: then the answer
/// hangs on the request alone. Hosted tools (web search, code interpreters, MCP) are not.
pub(super) fn only_client_tools(tools: Option<&str>, types: &[&str]) -> bool {
    let mut cursor = Cursor::new(tools.unwrap_or("[]"));
    if !cursor.enter(b'[') {
        return false;
    }
    while cursor.element() {
        let Ok(tool) = Object::parse(cursor.value()) else {
            return false;
        };
        let known = match tool.get("type") {
            // Anthropic's own tools need no type.
            None => types.contains(&""),
            Some(raw) => {
                JsonStr::new(raw).is_some_and(|kind| types.contains(&kind.text().as_ref()))
            }
        };
        if !known {
            return false;
        }
    }
    true
}

/// Who a message is from, as the APIs call it.
pub(super) enum Speaker {
    System,
    Other(Role),
}

impl Speaker {
    /// An unknown role counts as the user: its words are then weighed, not overlooked.
    pub(super) fn of(role: &str) -> Speaker {
        match role {
            "system" | "developer" => Speaker::System,
            "assistant" | "model" => Speaker::Other(Role::Assistant),
            "tool" | "function" => Speaker::Other(Role::Tool),
            _ => Speaker::Other(Role::User),
        }
    }
}

/// Files a content under its speaker.
pub(super) fn file<'a>(
    speaker: Speaker,
    content: Content<'a>,
    system: &mut Vec<Content<'a>>,
    messages: &mut Vec<Message<'a>>,
) {
    match speaker {
        Speaker::System => system.push(content),
        Speaker::Other(role) => messages.push(Message { role, content }),
    }
}

/// The text of a string value, borrowed where nothing is escaped; empty for any other value.
pub(super) fn word<'a>(cursor: &mut Cursor<'a>) -> Cow<'a, str> {
    JsonStr::new(cursor.value()).map_or(Cow::Borrowed(""), JsonStr::text)
}

/// Reads a content, which is a string, an array of parts, or null.
pub(super) fn parts<'a>(cursor: &mut Cursor<'a>, parts: &mut Vec<Part<'a>>) {
    match cursor.peek() {
        Some(b'"') => parts.extend(JsonStr::new(cursor.value()).map(Part::Text)),
        Some(b'[') => {
            cursor.enter(b'[');
            while cursor.element() {
                part(cursor, parts);
            }
        }
        Some(b'{') => part(cursor, parts),
        _ => {
            cursor.value();
        }
    }
}

/// Reads one part.
fn part<'a>(cursor: &mut Cursor<'a>, parts: &mut Vec<Part<'a>>) {
    let start = cursor.mark();
    if !cursor.enter(b'{') {
        let raw = cursor.value();
        parts.push(JsonStr::new(raw).map_or(Part::Other(raw), Part::Text));
        return;
    }
    let mut kind = Cow::Borrowed("text");
    let mut text = None;
    let mut content = "";
    let mut source = "";
    while let Some(key) = cursor.key() {
        match &*key {
            "type" => kind = word(cursor),
            "text" | "refusal" => text = JsonStr::new(cursor.value()),
            "content" => content = cursor.value(),
            "source" => source = cursor.value(),
            _ => {
                cursor.value();
            }
        }
    }
    let raw = cursor.since(start);
    match (&*kind, text) {
        ("text" | "input_text" | "output_text" | "refusal" | "summary_text", Some(text)) => {
            parts.push(Part::Text(text));
        }
        ("tool_use" | "server_tool_use" | "mcp_tool_use", _) => parts.push(Part::ToolCall(raw)),
        // Anthropic: a tool's result inside a user message.
        ("tool_result", _) => result(content, raw, parts),
        ("document", _) => parts.push(plain_text(source).map_or(Part::Media(raw), Part::Text)),
        (
            "image" | "image_url" | "input_image" | "audio" | "input_audio" | "output_audio"
            | "video" | "video_url" | "file" | "input_file" | "container_upload",
            _,
        ) => parts.push(Part::Media(raw)),
        (kind, _) if kind.ends_with("_tool_result") => parts.push(Part::ToolResult(raw)),
        _ => parts.push(Part::Other(raw)),
    }
}

/// A tool's result: its texts where it is a string or an array of parts, else `raw`.
pub(super) fn result<'a>(content: &'a str, raw: &'a str, into: &mut Vec<Part<'a>>) {
    if content.starts_with(['"', '[']) {
        // Results do not hold results: a part inside is read without coming back here.
        let mut cursor = Cursor::new(content);
        match cursor.peek() {
            Some(b'[') => {
                cursor.enter(b'[');
                while cursor.element() {
                    let raw = cursor.value();
                    into.push(inner(raw));
                }
            }
            _ => into.extend(JsonStr::new(cursor.value()).map(Part::Text)),
        }
    } else {
        into.push(Part::ToolResult(raw));
    }
}

/// A part of a tool's result.
fn inner(raw: &str) -> Part<'_> {
    let mut cursor = Cursor::new(raw);
    if !cursor.enter(b'{') {
        return JsonStr::new(raw).map_or(Part::ToolResult(raw), Part::Text);
    }
    let mut kind = Cow::Borrowed("");
    let mut text = None;
    while let Some(key) = cursor.key() {
        match &*key {
            "type" => kind = word(&mut cursor),
            "text" => text = JsonStr::new(cursor.value()),
            _ => {
                cursor.value();
            }
        }
    }
    match (&*kind, text) {
        (_, Some(text)) => Part::Text(text),
        ("image" | "document" | "input_image" | "input_file", _) => Part::Media(raw),
        _ => Part::ToolResult(raw),
    }
}

/// The text of Anthropic's plain-text documents.
fn plain_text(source: &str) -> Option<JsonStr<'_>> {
    let mut cursor = Cursor::new(source);
    cursor.enter(b'{').then_some(())?;
    let mut plain = false;
    let mut data = None;
    while let Some(key) = cursor.key() {
        match &*key {
            "type" => plain = word(&mut cursor) == "text",
            "data" => data = JsonStr::new(cursor.value()),
            _ => {
                cursor.value();
            }
        }
    }
    data.filter(|_| plain)
}

/// Reads the input of legacy completions and embeddings: a string, strings, token ids, or arrays
/// of token ids. One content each.
pub(super) fn inputs<'a>(raw: Option<&'a str>) -> Vec<Content<'a>> {
    let Some(raw) = raw else { return Vec::new() };
    let one = |raw: &'a str, part: Part<'a>| Content {
        raw,
        parts: vec![part],
    };
    if let Some(text) = JsonStr::new(raw) {
        return vec![one(raw, Part::Text(text))];
    }
    let mut cursor = Cursor::new(raw);
    if !cursor.enter(b'[') {
        return vec![one(raw, Part::Other(raw))];
    }
    let mut contents = Vec::new();
    let mut ids = 0;
    while cursor.element() {
        match cursor.peek() {
            Some(b'"') => {
                let text = cursor.value();
                contents.extend(JsonStr::new(text).map(|part| one(text, Part::Text(part))));
            }
            Some(b'[') => {
                let list = cursor.value();
                contents.push(one(list, Part::Tokens(elements(list))));
            }
            Some(b'{') => {
                let mut content = Vec::new();
                let start = cursor.mark();
                part(&mut cursor, &mut content);
                contents.push(Content {
                    raw: cursor.since(start),
                    parts: content,
                });
            }
            _ => {
                cursor.value();
                ids += 1;
            }
        }
    }
    if ids > 0 {
        contents.push(one(raw, Part::Tokens(ids)));
    }
    contents
}

fn elements(raw: &str) -> u64 {
    let mut cursor = Cursor::new(raw);
    let mut count = 0;
    if cursor.enter(b'[') {
        while cursor.element() {
            cursor.value();
            count += 1;
        }
    }
    count
}
