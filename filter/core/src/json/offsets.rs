//! From places in a string's text to places in the string as it stands: so that a part of the text
//! can be cut out and every other byte, escapes included, stays.

use super::{JsonStr, unit};

/// Where places of a text stand in its escaped form.
#[derive(Clone, Debug)]
pub(crate) enum Offsets {
    /// Nothing is escaped: they are the same.
    Same,
    /// Pairs of a place in the text and one in the escaped form, in order.
    Known(Vec<(usize, usize)>),
}

impl Offsets {
    /// Finds `places` of [`JsonStr::text`] in [`JsonStr::escaped`], in one walk. Places are byte
    /// offsets at which a character begins or the text ends, in order.
    pub(crate) fn of(string: JsonStr<'_>, places: &[usize]) -> Offsets {
        let bytes = string.escaped().as_bytes();
        let next = |from: usize| {
            let rest = bytes.get(from..).unwrap_or(&[]);
            from + memchr::memchr(b'\\', rest).unwrap_or(rest.len())
        };
        let mut escape = next(0);
        if escape == bytes.len() {
            return Offsets::Same;
        }
        let (mut at, mut text) = (0, 0);
        let mut known = Vec::with_capacity(places.len());
        for &place in places {
            while text < place && at < bytes.len() {
                if at < escape {
                    let step = (escape - at).min(place - text);
                    at += step;
                    text += step;
                } else {
                    let (escaped, plain) = escape_at(bytes, at);
                    at += escaped;
                    text += plain;
                    escape = next(at);
                }
            }
            known.push((place, at.min(bytes.len())));
        }
        Offsets::Known(known)
    }

    /// The place in the escaped form of one of the places that were asked for.
    pub(crate) fn get(&self, place: usize) -> usize {
        match self {
            Offsets::Same => place,
            Offsets::Known(known) => {
                let after = known.partition_point(|(text, _)| *text < place);
                known.get(after).map_or(place, |(_, escaped)| *escaped)
            }
        }
    }
}

/// Lengths of the escape at `at` and of what it stands for in UTF-8, as [`JsonStr::text`] reads it:
/// halves of a pair as one character, a lone half as U+FFFD.
fn escape_at(bytes: &[u8], at: usize) -> (usize, usize) {
    let code = |at: usize| {
        (bytes.get(at..at + 2) == Some(br"\u")).then(|| unit(bytes.get(at + 2..at + 6)))
    };
    match code(at) {
        None => (2, 1),
        Some(0..0x80) => (6, 1),
        Some(0x80..0x800) => (6, 2),
        Some(0xd800..0xdc00) if matches!(code(at + 6), Some(0xdc00..0xe000)) => (12, 4),
        Some(_) => (6, 3),
    }
}
