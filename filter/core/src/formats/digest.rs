//! A message as a number, made once in a request: whatever remembers messages knows them by it.

use std::borrow::Cow;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{Content, Part, Request, Role};
use crate::json::Cursor;
use crate::json::splices::{Splices, field, span};

/// A client's word on how far to cache.
const MARK: &str = "cache_control";

/// What a message, a system prompt or the tools are known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// All that it says, and who says it, but for the marks that say how far to cache: a provider's
    /// prefix cache goes by that. Clients move marks from turn to turn, and a text that bears one is
    /// written as a list of one block where it was a string before.
    pub said: u64,
    /// Every byte of it, and who says it.
    pub all: u128,
}

/// The digests of a request, piece by piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Of the tool definitions.
    pub tools: Option<Digest>,
    /// Of each of [`Request::system`].
    pub system: Vec<Digest>,
    /// Of each of [`Request::messages`].
    pub messages: Vec<Digest>,
}

impl Digests {
    /// Reads every byte of the request's pieces once.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Digests {
        let mut reader = Reader::default();
        let system = request.system.iter().map(|one| reader.digest(None, one));
        let system = system.collect();
        let messages = request.messages.iter();
        let messages = messages.map(|one| reader.digest(Some(one.role), &one.content));
        Digests {
            tools: request.tools.map(of_json),
            system,
            messages: messages.collect(),
        }
    }
}

/// Digest of raw JSON, which nobody says.
fn of_json(raw: &str) -> Digest {
    let all = xxh3_128(raw.as_bytes());
    let said = match unmarked(raw) {
        Cow::Borrowed(_) => all,
        Cow::Owned(said) => xxh3_128(said.as_bytes()),
    };
    Digest {
        said: said as u64,
        all,
    }
}

/// The pass over a request. The long texts are hashed where they stand, and then what is between them
/// with their hashes.
#[derive(Default)]
struct Reader {
    said: Vec<u8>,
    beside: Vec<u8>,
}

impl Reader {
    fn digest(&mut self, role: Option<Role>, content: &Content<'_>) -> Digest {
        let (said, beside) = (&mut self.said, &mut self.beside);
        said.clear();
        beside.clear();
        said.push(role.map_or(0, |role| 1 + role as u8));
        let mut at = 0;
        for part in &content.parts {
            let (kind, text) = match part {
                Part::Text(text) => (1, text.escaped()),
                Part::Tokens(tokens) => {
                    said.push(2);
                    said.extend(tokens.to_le_bytes());
                    continue;
                }
                Part::ToolCall(raw)
                | Part::ToolResult(raw)
                | Part::Media(raw)
                | Part::Other(raw) => (3, *raw),
            };
            let mut hash = xxh3_128(text.as_bytes());
            // What no text is between stands in order, or else all of it is read once more.
            let place = span(content.raw, text).filter(|place| place.start >= at);
            match place {
                Some(place) => {
                    push(beside, content.raw.get(at..place.start).unwrap_or(""));
                    at = place.end;
                }
                None => at = 0,
            }
            if kind == 3
                && let Cow::Owned(unmarked) = unmarked(text)
            {
                beside.extend(hash.to_le_bytes());
                hash = xxh3_128(unmarked.as_bytes());
            }
            said.push(kind);
            said.extend(hash.to_le_bytes());
        }
        push(beside, content.raw.get(at..).unwrap_or(""));
        let whose = xxh3_64(said);
        beside.extend_from_slice(said);
        Digest {
            said: whose,
            all: xxh3_128(beside),
        }
    }
}

/// With its length, so that no two lists are one.
fn push(bytes: &mut Vec<u8>, piece: &str) {
    bytes.extend((piece.len() as u64).to_le_bytes());
    bytes.extend_from_slice(piece.as_bytes());
}

/// Raw JSON, an object or an array of them, without the marks of these.
fn unmarked(raw: &str) -> Cow<'_, str> {
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

    /// The digests of a request with one message.
    fn digests(rest: &str, content: &str) -> Digests {
        let body =
            format!(r#"{{"model":"m"{rest},"messages":[{{"role":"user","content":{content}}}]}}"#);
        Digests::of(&AnthropicMessages.parse(&body).unwrap())
    }

    fn digest(content: &str) -> Digest {
        *digests("", content).messages.last().unwrap()
    }

    #[test]
    fn a_mark_that_moves_on_changes_nothing_that_is_said_and_any_word_does() {
        let plain = digest(r#""Where is it?""#);
        for same in [
            r#"[{"type":"text","text":"Where is it?","cache_control":{"type":"ephemeral"}}]"#,
            r#"[{"type":"text","text":"Where is it?"}]"#,
            r#" "Where is it?""#,
        ] {
            let same = digest(same);
            assert_eq!(same.said, plain.said);
            assert_ne!(same.all, plain.all);
        }
        assert_ne!(digest(r#""Where is it""#).said, plain.said);
        let image = |mark: &str, data: &str| {
            digest(&format!(
                r#"[{{"type":"image","source":{{"type":"base64","data":"{data}"}}{mark}}}]"#
            ))
        };
        let mark = r#","cache_control":{"type":"ephemeral"}"#;
        assert_eq!(image(mark, "aa").said, image("", "aa").said);
        assert_ne!(image(mark, "aa").all, image("", "aa").all);
        assert_ne!(image(mark, "aa").said, image(mark, "ab").said);
        assert_ne!(image(mark, "aa").all, image(mark, "ab").all);
        let tools = |mark: &str| {
            let tools = format!(r#","tools":[{{"name":"a"}},{{"name":"b"{mark}}}]"#);
            digests(&tools, r#""Hi""#).tools.unwrap()
        };
        assert_eq!(tools(mark).said, tools("").said);
        assert_ne!(tools(mark).all, tools("").all);
    }

    #[test]
    fn every_byte_counts_and_so_does_who_speaks() {
        let body = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"tool_use","id":"t","name":"f","input":{}},{"type":"text","text":"b"}]}]}"#;
        let of = |body: &str| {
            let request = AnthropicMessages.parse(body).ok()?;
            Digests::of(&request)
                .messages
                .last()
                .map(|digest| digest.all)
        };
        let whole = of(body).unwrap();
        let start = body.find("{\"role").unwrap();
        for at in start..body.len() - 2 {
            let mut changed = body.as_bytes().to_vec();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_ne!(of(&changed), Some(whole), "{changed}");
        }
        let by = |role: &str| body.replace("user", role);
        assert_ne!(of(&by("assistant")), Some(whole));
        let swapped = body.replace("\"a\"", "\"c\"").replace("\"b\"", "\"a\"");
        assert_ne!(of(&swapped.replace("\"c\"", "\"b\"")), Some(whole));
    }
}
