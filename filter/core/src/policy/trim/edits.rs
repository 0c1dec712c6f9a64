//! A conversation without what is left out of it: every byte of what is kept stays.

use super::splices::{Splices, cuts, escaped, field, span};
use super::turns::Turns;
use crate::formats::{Conversation, Item, PIN, Role};
use crate::json::{Cursor, JsonStr};

/// The changes that leave out the exchanges whose `keep` is false and which need not stay. Every
/// kept item stays byte for byte, less its pin.
///
/// `note` is put in front of what the user says first after the first gap, in the same message (the
/// first that is text or has parts):
/// there it is behind the part of the prompt that did not change, roles alternate as before, and
/// what somebody said in the past gains no authority that it did not have, as it would in a system
/// or developer message. Nothing is noted where nothing is left out.
///
/// Changes to the texts of messages are made before, and the result is read again: a note in a text
/// that another change replaces would be lost.
#[must_use]
pub fn dropping(turns: &Turns<'_>, keep: &[bool], note: Option<&str>) -> Splices {
    let mut stays = vec![true; turns.items.len()];
    let mut gap = None;
    for (_, exchange) in turns.dropped(keep) {
        gap = gap.or(Some(exchange.items.end));
        for at in exchange.items.clone() {
            if let (Some(stays), Some(item)) = (stays.get_mut(at), turns.items.get(at)) {
                *stays = item.stays();
            }
        }
    }
    let mut splices = leaving(turns.body, &turns.items, &stays);
    if let (Some(note), Some(gap)) = (note.filter(|note| !note.is_empty()), gap) {
        let later = turns.items.iter().zip(&stays).skip(gap);
        let mut users = later.filter_map(|(item, stays)| {
            (*stays && item.role == Some(Role::User) && item.known()).then_some(item)
        });
        if let Some((at, json)) = users.find_map(|item| noted(turns, item, note)) {
            splices.replace(at..at, json);
        }
    }
    splices
}

/// The changes that leave out the items whose `stays` is false, and take every pin out.
pub(super) fn leaving(body: &str, items: &[Item<'_>], stays: &[bool]) -> Splices {
    let mut splices = Splices::default();
    for item in items.iter().filter(|item| item.pin.is_some()) {
        splices.cut(field(body, item.content.raw, PIN));
    }
    if stays.contains(&false) {
        let spans = items.iter().map(|item| span(body, item.content.raw));
        let spans: Option<Vec<_>> = spans.collect();
        splices.cut(cuts(&spans.unwrap_or_default(), stays));
    }
    splices
}

/// Whether a message of this body may bear a pin: nearly none does, and to read every message once
/// more is not free. A key may stand escaped, as in `sluice\u005fpin`.
pub(crate) fn may_be_pinned(body: &str) -> bool {
    let escaped = |at: usize| {
        let digits = body.get(at + 4..at + 6);
        let letter = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        letter.is_some_and(|letter| PIN.as_bytes().contains(&letter))
    };
    memchr::memmem::find(body.as_bytes(), PIN.as_bytes()).is_some()
        || memchr::memmem::find_iter(body.as_bytes(), br"\u00").any(escaped)
}

/// The changes that take every pin out of a conversation, which stands in `body`, whatever it looks
/// like: upstream knows no such field, and would refuse the request.
#[must_use]
pub fn unpinned(body: &str, conversation: &Conversation<'_>) -> Splices {
    leaving(body, &conversation.items, &[])
}

/// Where the note goes in a user's message, and as what; None where its content is neither text nor
/// parts.
fn noted(turns: &Turns<'_>, item: &Item<'_>, note: &str) -> Option<(usize, String)> {
    let raw = item.content.raw;
    let start = span(turns.body, raw)?.start;
    let mut cursor = Cursor::new(raw);
    let mut content = "";
    if cursor.enter(b'{') {
        while let Some(key) = cursor.key() {
            let value = cursor.value();
            if key == "content" {
                content = value;
            }
        }
    }
    let at = start + span(raw, content)?.start;
    let text = escaped(note);
    if content.starts_with('"') {
        return Some((at + 1, format!(r"{text}\n\n")));
    }
    let first = first_part(content).and_then(|part| span(content, part))?;
    let kind = turns.text_type;
    let part = format!(r#"{{"type":"{kind}","text":"{text}"}},"#);
    Some((at + first.start, part))
}

/// The first part of a content that is no tool's result: Anthropic wants those in front.
fn first_part(content: &str) -> Option<&str> {
    let mut cursor = Cursor::new(content);
    if !cursor.enter(b'[') {
        return None;
    }
    while cursor.element() {
        let part = cursor.value();
        let mut fields = Cursor::new(part);
        let mut result = false;
        if fields.enter(b'{') {
            while let Some(key) = fields.key() {
                let value = fields.value();
                let text = JsonStr::new(value).map(JsonStr::text);
                result |= key == "type" && text.is_some_and(|kind| kind == "tool_result");
            }
        }
        if !result {
            return Some(part);
        }
    }
    None
}

#[cfg(test)]
mod tests;
