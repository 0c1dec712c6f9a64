//! Edits of top-level fields that keep every other byte.

use std::borrow::Cow;

use super::Object;

/// `body` (one JSON object) with top-level fields set to raw JSON values: a value that is there is
/// replaced where it stands, a new field is appended after the last one. Every other byte stays,
/// white space and byte order mark included. Of two edits to one field the later counts.
///
/// A key that stands several times is replaced everywhere, so that the edit holds also for an
/// upstream whose parser takes the first.
///
/// `fields` must be the parse of `body`.
#[must_use]
pub fn set_fields(body: &str, fields: &Object<'_>, edits: &[(&str, &str)]) -> String {
    // Where a value of `fields` stands in `body`.
    let span = |value: &str| {
        let start = (value.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
        (start, start.wrapping_add(value.len()))
    };
    let mut changes: Vec<(usize, usize, Cow<'_, str>)> = Vec::with_capacity(edits.len());
    let mut added = String::new();
    for (index, (name, json)) in edits.iter().enumerate() {
        if edits.iter().skip(index + 1).any(|(later, _)| later == name) {
            continue;
        }
        let mut found = false;
        for (_, old) in fields.fields.iter().filter(|(key, _)| key == name) {
            let (start, end) = span(old);
            changes.push((start, end, Cow::Borrowed(*json)));
            found = true;
        }
        if !found {
            added.push(',');
            added.push_str(&serde_json::Value::from(*name).to_string());
            added.push(':');
            added.push_str(json);
        }
    }
    if !added.is_empty() {
        let (at, added) = match fields.fields.last() {
            Some((_, last)) => (span(last).1, added.as_str()),
            None => (
                body.find('{').map_or(body.len(), |brace| brace + 1),
                added.get(1..).unwrap_or(""),
            ),
        };
        changes.push((at, at, Cow::Owned(added.to_owned())));
    }
    // Stable, and values come before what is added: an insertion after the last value, itself
    // replaced, starts where the replacement ends.
    changes.sort_by_key(|(start, end, _)| (*end, *start));
    let mut out = String::with_capacity(body.len() + added.len() + 64);
    let mut at = 0;
    for (start, end, json) in &changes {
        out.push_str(body.get(at..(*start).max(at)).unwrap_or(""));
        out.push_str(json);
        at = *end;
    }
    out.push_str(body.get(at..).unwrap_or(""));
    out
}

/// Valid JSON without the white space between its tokens, on one line.
#[must_use]
pub fn minify(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let mut out: Option<String> = None;
    // Start of what is not yet copied.
    let mut from = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(found) = bytes
                    .get(at..)
                    .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
                {
                    at += found;
                    if bytes.get(at) == Some(&b'"') {
                        break;
                    }
                    at += 2;
                }
                at += 1;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {
                let copied = out.get_or_insert_with(|| String::with_capacity(json.len()));
                copied.push_str(json.get(from..at).unwrap_or(""));
                at += 1;
                from = at;
            }
            _ => at += 1,
        }
    }
    match out {
        None => Cow::Borrowed(json),
        Some(mut out) => {
            out.push_str(json.get(from..).unwrap_or(""));
            Cow::Owned(out)
        }
    }
}
