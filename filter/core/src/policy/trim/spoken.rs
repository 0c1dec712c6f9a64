//! The texts that somebody says in a message, as against what the message brings along.

use std::borrow::Cow;
use std::ops::Range;

use super::splices::span;
use crate::formats::{Content, Part};
use crate::json::{Cursor, JsonStr};

/// The texts of a content, without those of a tool's result or a document in it (Anthropic has both
/// as parts of a user's message): these are nobody's question, and not to be written into.
pub(super) fn texts<'a>(content: &Content<'a>) -> Vec<JsonStr<'a>> {
    let brought = brought(content.raw);
    content
        .parts
        .iter()
        .filter_map(|part| match part {
            Part::Text(text) => Some(*text),
            _ => None,
        })
        .filter(|text| {
            // In order, so that many parts take no square of them.
            let place = span(content.raw, text.raw()).map_or(0, |place| place.start);
            let next = brought.partition_point(|part| part.end <= place);
            !brought.get(next).is_some_and(|part| part.contains(&place))
        })
        .collect()
}

/// Where in a message, or in a content by itself, parts stand that bring something along.
fn brought(raw: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = Cursor::new(raw);
    if at.enter(b'{') {
        while let Some(key) = at.key() {
            if key == "content" {
                parts(raw, &mut at, &mut found);
            } else {
                at.value();
            }
        }
    } else {
        parts(raw, &mut at, &mut found);
    }
    found
}

fn parts(raw: &str, at: &mut Cursor<'_>, found: &mut Vec<Range<usize>>) {
    if !at.enter(b'[') {
        at.value();
        return;
    }
    while at.element() {
        let part = at.value();
        let kind = kind(part);
        if kind == "document" || kind.ends_with("tool_result") {
            found.extend(span(raw, part));
        }
    }
}

/// The `type` of a part.
fn kind(part: &str) -> Cow<'_, str> {
    let mut at = Cursor::new(part);
    let mut kind = Cow::Borrowed("");
    if at.enter(b'{') {
        while let Some(key) = at.key() {
            let value = at.value();
            if key == "type" {
                kind = JsonStr::new(value).map_or(Cow::Borrowed(""), JsonStr::text);
            }
        }
    }
    kind
}
