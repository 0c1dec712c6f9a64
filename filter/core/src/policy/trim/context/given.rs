//! Chunks that a client gives in a field of its own, `sluice_context`: `[{text, score, metadata}]`
//! or `["…"]`.
//!
//! No provider knows the field, and most refuse what they do not know, so it is taken out in every
//! mode of trimming but `off`, dry run included; in a dry run all of its chunks are rendered.

use std::ops::Range;

use super::cut::{Pick, without};
use super::markers::MAX_CHUNKS;
use super::{Chunk, Metadata, Retrieval, markers};
use crate::formats::{Content, Format, Request, Role};
use crate::json::{self, JsonStr, Object};
use crate::policy::trim::splices::{Splices, escaped, field, span};
use crate::policy::trim::spoken::texts;

/// The field.
pub const FIELD: &str = "sluice_context";

/// Where in a message's text its chunks go; without it they stand in front of the last question.
pub const PLACE: &str = "{{context}}";

/// The field is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`sluice_context`{at}: found {found}, expected {expected}")]
pub struct Unreadable {
    /// Which element: `[3]`; empty for the field itself.
    pub at: String,
    /// What stands there; never its text.
    pub found: String,
    /// What should.
    pub expected: &'static str,
}

/// The chunks that the field's raw value holds; `null` holds none.
pub(super) fn chunks(raw: &str) -> Result<Vec<Chunk>, Unreadable> {
    let unreadable = |at: String, found: String, expected| Unreadable {
        at,
        found,
        expected,
    };
    if raw == "null" {
        return Ok(Vec::new());
    }
    let array = json::array(raw).map_err(|_| {
        unreadable(
            String::new(),
            kind(raw).to_owned(),
            "an array of {text, score, metadata}",
        )
    })?;
    if array.len() > MAX_CHUNKS {
        return Err(unreadable(
            String::new(),
            format!("{} chunks", array.len()),
            "at most 1024",
        ));
    }
    let read = |(at, raw): (usize, &str)| {
        chunk(raw).ok_or_else(|| {
            unreadable(
                format!("[{at}]"),
                kind(raw).to_owned(),
                "{text, score, metadata} with a text, or a string",
            )
        })
    };
    array.into_iter().enumerate().map(read).collect()
}

fn chunk(raw: &str) -> Option<Chunk> {
    if let Some(text) = JsonStr::new(raw) {
        return Some(Chunk::new(text.text().into_owned(), Metadata::default()));
    }
    let (text, metadata) = markers::chunk(&Object::parse(raw).ok()?)?;
    Some(Chunk::new(text, metadata))
}

fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'{') => "an object without it",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// What of the body goes so that the field is gone.
pub(super) fn places(request: &Request<'_>) -> Vec<Range<usize>> {
    // A parser does not count the mark of the encoding.
    let object = request.body.trim_start_matches('\u{feff}');
    field(request.body, object, FIELD)
}

/// The kept chunks as they stand in the prompt. The index is that among all that were given, so that
/// it names the same chunk whatever else was kept.
pub(super) fn render(retrieval: &Retrieval<'_>, pick: &Pick) -> String {
    let mut out = String::new();
    for &at in &pick.ranked {
        let text = retrieval
            .chunks
            .get(at)
            .map_or("", |chunk| chunk.text.as_str());
        let text = without(text, 0..text.len(), pick.extra(at));
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!(
            "<document index=\"{}\">\n{text}\n</document>",
            at + 1
        ));
    }
    out
}

/// Nothing in the request can take the chunks: it has no user message with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`sluice_context`: found no user message with a text, expected one to put it in front of")]
pub struct NoPlace;

/// The edits that put rendered chunks into the prompt: at the first [`PLACE`] in a system or user
/// message, else in front of the last user message's text. A format without turns has them in each
/// of its prompts.
///
/// # Errors
/// [`NoPlace`].
pub fn place(
    request: &Request<'_>,
    format: &dyn Format,
    rendered: &str,
) -> Result<Splices, NoPlace> {
    let mut edits = Splices::default();
    let users = request
        .messages
        .iter()
        .filter(|message| message.role == Role::User);
    let users: Vec<&Content<'_>> = users.map(|message| &message.content).collect();
    if !format.has_turns() {
        for content in users {
            put(request.body, &[content], content, rendered, &mut edits)?;
        }
        return Ok(edits);
    }
    let last = users
        .iter()
        .rev()
        .find(|content| !texts(content).is_empty());
    let all: Vec<&Content<'_>> = request.system.iter().chain(users.iter().copied()).collect();
    let Some(last) = last else {
        return if rendered.is_empty() {
            Ok(edits)
        } else {
            Err(NoPlace)
        };
    };
    put(request.body, &all, last, rendered, &mut edits)?;
    Ok(edits)
}

/// Puts it where one of `contents` says, else in front of `last`.
fn put(
    body: &str,
    contents: &[&Content<'_>],
    last: &Content<'_>,
    rendered: &str,
    edits: &mut Splices,
) -> Result<(), NoPlace> {
    // Braces are not escaped in JSON; where some writer does, the place is simply not seen.
    let named = contents.iter().copied().flat_map(texts).find_map(|text| {
        let inner = text.escaped();
        let at = span(body, inner)?.start + inner.find(PLACE)?;
        Some(at..at + PLACE.len())
    });
    if let Some(place) = named {
        edits.replace(place, escaped(rendered));
    } else if !rendered.is_empty() {
        let text = texts(last).into_iter().next().ok_or(NoPlace)?;
        let at = span(body, text.escaped()).ok_or(NoPlace)?.start;
        edits.replace(at..at, escaped(rendered) + "\\n\\n");
    }
    Ok(())
}
