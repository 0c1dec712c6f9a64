//! What a provider's prefix cache knows a message by: all that it says, but for the marks that say how
//! far to cache. Clients move these from turn to turn, and a text that bears one is written as a list
//! of one block where it was a string before.

use xxhash_rust::xxh3::Xxh3;

use super::splices::{Splices, field};
use crate::formats::{Content, Part, Role};
use crate::json::Cursor;

const MARK: &str = "cache_control";

/// Digest of a message or system prompt.
pub(super) fn of(role: Option<Role>, content: &Content<'_>) -> u64 {
    let mut hash = Xxh3::new();
    let mut part = |kind: u8, bytes: &[u8]| {
        hash.update(&[kind]);
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let role = role.map_or(0, |role| 1 + role as u8);
    part(role, b"");
    for one in &content.parts {
        match one {
            Part::Text(text) => part(1, text.escaped().as_bytes()),
            Part::Tokens(tokens) => part(2, &tokens.to_le_bytes()),
            Part::ToolCall(raw) | Part::ToolResult(raw) | Part::Media(raw) | Part::Other(raw) => {
                part(3, unmarked(raw).as_bytes());
            }
        }
    }
    hash.digest()
}

/// Digest of raw JSON: tool definitions.
pub(super) fn of_raw(raw: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(unmarked(raw).as_bytes())
}

/// Raw JSON, an object or an array of them, without the marks of these.
fn unmarked(raw: &str) -> std::borrow::Cow<'_, str> {
    if memchr::memmem::find(raw.as_bytes(), MARK.as_bytes()).is_none() {
        return raw.into();
    }
    let mut splices = Splices::default();
    let mut cursor = Cursor::new(raw);
    if cursor.enter(b'[') {
        while cursor.element() {
            splices.cut(field(raw, cursor.value(), MARK));
        }
    } else {
        splices.cut(field(raw, raw, MARK));
    }
    splices.apply(raw).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{AnthropicMessages, Format as _};

    /// The digest of the last message.
    fn digest(content: &str) -> u64 {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}]}}"#);
        let request = AnthropicMessages.parse(&body).unwrap();
        let conversation = AnthropicMessages.conversation(&request).unwrap();
        let item = conversation.items.last().unwrap();
        of(item.role, &item.content)
    }

    #[test]
    fn a_mark_that_moves_on_changes_nothing_and_any_word_does() {
        let plain = digest(r#""Where is it?""#);
        assert_eq!(
            digest(
                r#"[{"type":"text","text":"Where is it?","cache_control":{"type":"ephemeral"}}]"#
            ),
            plain
        );
        assert_eq!(digest(r#"[{"type":"text","text":"Where is it?"}]"#), plain);
        assert_ne!(digest(r#""Where is it""#), plain);
        let image = |mark: &str, data: &str| {
            digest(&format!(
                r#"[{{"type":"image","source":{{"type":"base64","data":"{data}"}}{mark}}}]"#
            ))
        };
        let mark = r#","cache_control":{"type":"ephemeral"}"#;
        assert_eq!(image(mark, "aa"), image("", "aa"));
        assert_ne!(image(mark, "aa"), image(mark, "ab"));
        let tools = |mark: &str| of_raw(&format!(r#"[{{"name":"a"}},{{"name":"b"{mark}}}]"#));
        assert_eq!(tools(mark), tools(""));
    }
}
