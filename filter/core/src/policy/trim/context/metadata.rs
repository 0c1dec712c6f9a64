//! What is known about a chunk besides its text.

use crate::json::{Cursor, JsonStr};

/// Most fields of a chunk that are kept, and elements of a list.
const MAX_FIELDS: usize = 64;
/// Longest name or text that is kept, in bytes; a longer one is not metadata.
const MAX_TEXT: usize = 1024;
/// Deepest nesting of JSON metadata that is read; `a.b.c` names the third level.
const MAX_DEPTH: usize = 3;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text. Attributes of tags are always text.
    Text(String),
    /// A number.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// Plain values.
    List(Vec<Value>),
}

impl Value {
    /// As a number: one, or a text that is one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text
                .trim()
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite()),
            _ => None,
        }
    }

    /// A raw JSON value that is plain: not null, no object, no list.
    fn plain(raw: &str) -> Option<Value> {
        match raw {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => match JsonStr::new(raw) {
                Some(text) if text.text_len() <= MAX_TEXT => {
                    Some(Value::Text(text.text().into_owned()))
                }
                Some(_) => None,
                None => serde_json::from_str(raw).ok().map(Value::Number),
            },
        }
    }
}

/// The fields of a chunk. The first of a name counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(Vec<(String, Value)>);

impl Metadata {
    /// The value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value)
    }

    /// Adds a field; what is past the bounds is left out.
    pub fn set(&mut self, name: &str, value: Value) {
        if self.0.len() < MAX_FIELDS && name.len() <= MAX_TEXT {
            self.0.push((name.to_owned(), value));
        }
    }

    /// Adds a text field; what is past the bounds is left out.
    pub(super) fn set_text(&mut self, name: &str, text: &str) {
        if text.len() <= MAX_TEXT {
            self.set(name, Value::Text(text.to_owned()));
        }
    }

    /// Adds the fields of a JSON object (valid, raw): plain values and lists of them under their
    /// names, those of inner objects under `outer.inner`.
    pub(super) fn set_object(&mut self, json: &str) {
        self.set_nested("", json, 0);
    }

    /// Adds the JSON value (valid, raw) under `name`.
    pub(super) fn set_json(&mut self, name: &str, raw: &str) {
        self.set_value(name, raw, 0);
    }

    fn set_nested(&mut self, prefix: &str, json: &str, depth: usize) {
        let mut at = Cursor::new(json);
        if depth == MAX_DEPTH || !at.enter(b'{') {
            return;
        }
        while let Some(key) = at.key() {
            let value = at.value();
            if self.0.len() >= MAX_FIELDS {
                return;
            }
            if prefix.is_empty() {
                self.set_value(&key, value, depth + 1);
            } else {
                self.set_value(&format!("{prefix}.{key}"), value, depth + 1);
            }
        }
    }

    fn set_value(&mut self, name: &str, raw: &str, depth: usize) {
        match raw.as_bytes().first() {
            Some(b'{') => self.set_nested(name, raw, depth),
            Some(b'[') => self.set(name, Value::List(list(raw))),
            _ => {
                if let Some(value) = Value::plain(raw) {
                    self.set(name, value);
                }
            }
        }
    }
}

fn list(raw: &str) -> Vec<Value> {
    let mut at = Cursor::new(raw);
    let mut values = Vec::new();
    at.enter(b'[');
    while values.len() < MAX_FIELDS && at.element() {
        values.extend(Value::plain(at.value()));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_objects_have_dotted_names_and_what_is_not_plain_is_left_out() {
        let mut metadata = Metadata::default();
        metadata.set_object(
            r#"{"lang": "en", "year": 2020, "ok": true, "none": null, "tags": ["a", 1, {}],
                "loc": {"page": 3, "lines": {"from": 1, "deeper": {"x": 1}}}}"#,
        );
        assert_eq!(metadata.get("lang"), Some(&Value::Text("en".into())));
        assert_eq!(metadata.get("year"), Some(&Value::Number(2020.0)));
        assert_eq!(metadata.get("ok"), Some(&Value::Bool(true)));
        assert_eq!(metadata.get("none"), None);
        assert_eq!(
            metadata.get("tags"),
            Some(&Value::List(vec![
                Value::Text("a".into()),
                Value::Number(1.0)
            ]))
        );
        assert_eq!(metadata.get("loc.page"), Some(&Value::Number(3.0)));
        assert_eq!(metadata.get("loc.lines.from"), Some(&Value::Number(1.0)));
        assert_eq!(metadata.get("loc.lines.deeper.x"), None);
    }

    #[test]
    fn hostile_metadata_is_bounded() {
        let mut metadata = Metadata::default();
        let many: Vec<String> = (0..10_000).map(|at| format!("\"k{at}\":{at}")).collect();
        metadata.set_object(&format!("{{{}}}", many.join(",")));
        metadata.set_object(&"{\"a\":".repeat(10_000));
        metadata.set_text("long", &"x".repeat(MAX_TEXT + 1));
        assert_eq!(metadata.0.len(), MAX_FIELDS);
        assert_eq!(metadata.get("long"), None);
    }
}
