//! JSON as the client wrote it: spans of the body, edits that keep every other byte.

use std::borrow::Cow;

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of a JSON object, in order; keys unescaped, values raw. A key that stands twice
/// counts by its last value, as in Python's and JavaScript's parsers.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    fields: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Object<'a> {
    /// Reads the object that `json` is.
    ///
    /// # Errors
    /// When it is not one JSON object (nesting deeper than serde_json's 128 levels included).
    pub fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(Cow<'de, str>, &'de str)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some(Key(key)) = map.next_key()? {
                    fields.push((key, map.next_value::<&'de RawValue>()?.get()));
                }
                Ok(fields)
            }
        }
        let mut reader = serde_json::Deserializer::from_str(json);
        let fields = reader.deserialize_map(Fields)?;
        reader.end()?;
        Ok(Object { fields })
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

    /// The string that `key` is, if it is one.
    #[must_use]
    pub fn str(&self, key: &str) -> Option<JsonStr<'a>> {
        self.get(key).and_then(JsonStr::new)
    }

    /// `key` as any plain type (number, bool, string); None when absent, null or of another type.
    #[must_use]
    pub fn read<T: serde::Deserialize<'a>>(&self, key: &str) -> Option<T> {
        self.get(key).and_then(|raw| serde_json::from_str(raw).ok())
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> + '_ {
        self.fields
            .iter()
            .map(|(key, value)| (key.as_ref(), *value))
    }
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

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
        if !self.escaped().contains('\\') {
            return Cow::Borrowed(self.escaped());
        }
        match serde_json::from_str::<String>(self.0) {
            Ok(text) => Cow::Owned(text),
            Err(_) => Cow::Borrowed(self.escaped()),
        }
    }
}

/// `body` (one JSON object) with top-level fields set to raw JSON values: a value that is there is
/// replaced where it stands (its last occurrence), a new field is appended after the last one.
/// Every other byte stays.
///
/// `fields` must be the parse of `body`.
#[must_use]
pub fn set_fields(body: &str, fields: &Object<'_>, edits: &[(&str, &str)]) -> String {
    let mut replaced: Vec<(usize, usize, &str)> = Vec::new();
    let mut added = String::new();
    for (name, json) in edits {
        match fields.get(name) {
            Some(old) => {
                let start = old.as_ptr() as usize - body.as_ptr() as usize;
                replaced.push((start, start + old.len(), json));
            }
            None => {
                added.push(',');
                added.push_str(&serde_json::Value::from(*name).to_string());
                added.push(':');
                added.push_str(json);
            }
        }
    }
    replaced.sort_unstable();
    let mut out = String::with_capacity(body.len() + added.len() + 64);
    let mut at = 0;
    for (start, end, json) in replaced {
        out.push_str(&body[at..start]);
        out.push_str(json);
        at = end;
    }
    let Some(close) = body.rfind('}') else {
        return body.to_owned();
    };
    out.push_str(body[at..close].trim_end());
    if fields.fields.is_empty() {
        out.push_str(added.strip_prefix(',').unwrap_or(""))
    } else {
        out.push_str(&added)
    }
    out.push_str(&body[close..]);
    out
}
