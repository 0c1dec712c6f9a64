//! JSON as the client wrote it: spans of the body, edits that keep every other byte.
//!
//! Two ways to read: [`Object::parse`] validates (serde_json, whose skipping is iterative: nesting
//! costs heap, one byte a level, and never stack), [`Cursor`] walks JSON that is known to be valid
//! without allocating.

mod canonical;
mod cursor;
mod edit;
mod offsets;
pub mod splices;
mod write;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub use canonical::{MAX_DEPTH, canonical};
pub use cursor::Cursor;
pub use edit::{minify, set_fields};
pub(crate) use offsets::Offsets;
pub(crate) use write::{ListWriter, ObjectWriter, split_escaped};

/// U+FEFF, which RFC 8259 lets a parser skip in front of a text.
const BOM: char = '\u{feff}';

/// The fields of a JSON object, in order; keys unescaped, values raw. A key that stands twice
/// counts by its last value, as in Python's and JavaScript's parsers.
#[derive(Clone, Debug, Default)]
pub struct Object<'a> {
    fields: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Object<'a> {
    /// Reads the object that `json` is. A byte order mark in front is skipped.
    ///
    /// # Errors
    /// When it is not one JSON object. However deep it is nested, it costs no stack.
    pub fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(Cow<'de, str>, &'de str)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(12);
                // Keys are read raw, because serde_json refuses lone surrogates in them, which
                // the parsers of the upstreams accept: such a body must not slip past us unread.
                while let Some(key) = map.next_key::<&'de RawValue>()? {
                    let key = JsonStr::new(key.get()).map_or(Cow::Borrowed(""), JsonStr::text);
                    fields.push((key, map.next_value::<&'de RawValue>()?.get()));
                }
                Ok(fields)
            }
        }
        let mut reader = serde_json::Deserializer::from_str(json.strip_prefix(BOM).unwrap_or(json));
        let fields = reader.deserialize_map(Fields)?;
        reader.end()?;
        Ok(Object { fields })
    }

    /// The object that `json`, which is known to be one, is; of anything else nonsense, but no panic.
    pub(crate) fn of_valid(json: &'a str) -> Self {
        let mut cursor = Cursor::new(json.strip_prefix(BOM).unwrap_or(json));
        let mut fields = Vec::with_capacity(12);
        if cursor.enter(b'{') {
            while let Some(key) = cursor.key() {
                fields.push((key, cursor.value()));
            }
        }
        Object { fields }
    }

    /// The raw value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.fields
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| *value)
    }

    /// The raw value of `key`, where it is there and not `null`.
    #[must_use]
    pub fn set(&self, key: &str) -> Option<&'a str> {
        self.get(key).filter(|raw| *raw != "null")
    }

    /// The string that `key` is, if it is one.
    #[must_use]
    pub fn str(&self, key: &str) -> Option<JsonStr<'a>> {
        self.get(key).and_then(JsonStr::new)
    }

    /// The object that `key` is, if it is one.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Object<'a>> {
        Object::parse(self.get(key)?).ok()
    }

    /// `key` as any plain type (number, bool, string); None when absent, null or of another type.
    #[must_use]
    pub fn read<T: serde::Deserialize<'a>>(&self, key: &str) -> Option<T> {
        self.get(key).and_then(|raw| serde_json::from_str(raw).ok())
    }

    /// `key` as a whole number of things, `12.0` included; None when absent, null, negative or of
    /// another type.
    #[must_use]
    pub fn count(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(count)
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> + '_ {
        self.fields
            .iter()
            .map(|(key, value)| (key.as_ref(), *value))
    }

    /// Whether it has no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// The raw JSON number as a whole number of things: `12`, `12.0`, `1e3`.
#[must_use]
pub fn count(raw: &str) -> Option<u64> {
    if let Ok(whole) = raw.parse::<u64>() {
        return Some(whole);
    }
    let number: f64 = serde_json::from_str(raw).ok()?;
    // Below 2^63 the conversion is exact enough for a count; above it nobody counts tokens.
    (number >= 0.0 && number.fract() == 0.0 && number < 9.2e18).then_some(number as u64)
}

/// The raw elements of the JSON array that `json` is.
///
/// # Errors
/// When it is not one JSON array.
pub fn array(json: &str) -> Result<Vec<&str>, serde_json::Error> {
    struct Elements;
    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de str>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a JSON array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element::<&'de RawValue>()? {
                elements.push(element.get());
            }
            Ok(elements)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    let elements = reader.deserialize_seq(Elements)?;
    reader.end()?;
    Ok(elements)
}

/// A JSON string as it stands in the body, quotes and escapes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonStr<'a>(&'a str);

impl<'a> JsonStr<'a> {
    /// `raw` if it is a string literal of valid JSON.
    #[must_use]
    pub fn new(raw: &'a str) -> Option<Self> {
        (raw.len() >= 2 && raw.starts_with('"')).then_some(JsonStr(raw))
    }

    /// With quotes and escapes.
    #[must_use]
    pub fn raw(self) -> &'a str {
        self.0
    }

    /// Without quotes, escapes as they stand: cheap, good enough for lengths and hashes.
    #[must_use]
    pub fn escaped(self) -> &'a str {
        self.0.get(1..self.0.len() - 1).unwrap_or("")
    }

    /// The text. Borrowed where nothing is escaped. Lone surrogates become U+FFFD.
    #[must_use]
    pub fn text(self) -> Cow<'a, str> {
        let escaped = self.escaped();
        if memchr::memchr(b'\\', escaped.as_bytes()).is_none() {
            return Cow::Borrowed(escaped);
        }
        match serde_json::from_str::<String>(self.0) {
            Ok(text) => Cow::Owned(text),
            Err(_) => Cow::Owned(unescape_lossy(escaped)),
        }
    }

    /// Length of the text in bytes of UTF-8, without making it.
    #[must_use]
    pub fn text_len(self) -> usize {
        let bytes = self.escaped().as_bytes();
        let mut len = bytes.len();
        let mut at = 0;
        while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
            at += found;
            if bytes.get(at + 1) == Some(&b'u') {
                // Six characters for one to three bytes; each half of a pair counts two of four.
                let unit = unit(bytes.get(at + 2..at + 6));
                let utf8 = match unit {
                    0..0x80 => 1,
                    0x80..0x800 | 0xd800..0xe000 => 2,
                    _ => 3,
                };
                len = len.saturating_sub(6 - utf8);
                at += 6;
            } else {
                len = len.saturating_sub(1);
                at += 2;
            }
        }
        len
    }
}

/// The UTF-16 unit that four hexadecimal digits are; U+FFFD when they are not.
fn unit(digits: Option<&[u8]>) -> u16 {
    digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .unwrap_or(0xfffd)
}

/// Unescapes what serde_json will not: strings with lone surrogates.
fn unescape_lossy(escaped: &str) -> String {
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let mut units = Vec::new();
        rest = &rest[at..];
        while rest.as_bytes().starts_with(b"\\u") {
            units.push(unit(rest.as_bytes().get(2..6)));
            rest = rest.get(6..).unwrap_or("");
        }
        if units.is_empty() {
            let plain = match rest.as_bytes().get(1) {
                Some(b'n') => '\n',
                Some(b't') => '\t',
                Some(b'r') => '\r',
                Some(b'b') => '\u{8}',
                Some(b'f') => '\u{c}',
                Some(b'/') => '/',
                Some(b'"') => '"',
                _ => '\\',
            };
            out.push(plain);
            rest = rest.get(2..).unwrap_or("");
        } else {
            out.push_str(&String::from_utf16_lossy(&units));
        }
    }
    out.push_str(rest);
    out
}
