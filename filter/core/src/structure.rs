//! The plugin's config when it is written as YAML in Envoy's own config: a `google.protobuf.Struct`.
//!
//! Envoy's documentation says that it arrives as JSON. Envoy 1.40 hands over the message's bytes.

use serde_json::{Map, Number, Value};

/// Deeper is no config.
const DEPTH: u32 = 64;

/// The JSON that `bytes` mean: themselves, unless they are a serialised `Struct`.
#[must_use]
pub fn json(bytes: &[u8]) -> Vec<u8> {
    // JSON starts with `{` or white space (but a message can start with a line feed, its first
    // field's tag: then JSON is what does not read as one); an empty message is an empty object.
    let first = bytes.first().copied();
    if matches!(first, None | Some(b'\n'))
        && let Some(object) = structure(bytes, DEPTH)
    {
        return Value::Object(object).to_string().into_bytes();
    }
    bytes.to_vec()
}

/// What a field holds, as far as these messages go.
enum Field<'a> {
    Number(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

/// The fields of a message in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// The next field and its number; `Some(None)` at the end, None where there is none.
    fn next(&mut self) -> Option<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                let (double, rest) = self.0.split_first_chunk::<8>()?;
                self.0 = rest;
                Field::Double(f64::from_le_bytes(*double))
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        Some(Some((tag >> 3, field)))
    }
}

/// `Struct`: `map<string, Value> fields = 1`.
fn structure(bytes: &[u8], depth: u32) -> Option<Map<String, Value>> {
    let depth = depth.checked_sub(1)?;
    let mut object = Map::new();
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        let (1, Field::Bytes(entry)) = (number, field) else {
            return None;
        };
        let (mut key, mut value) = (String::new(), Value::Null);
        let mut entry = Fields(entry);
        while let Some((number, field)) = entry.next()? {
            match (number, field) {
                (1, Field::Bytes(name)) => key = String::from_utf8(name.to_vec()).ok()?,
                (2, Field::Bytes(bytes)) => value = self::value(bytes, depth)?,
                _ => return None,
            }
        }
        object.insert(key, value);
    }
    Some(object)
}

/// `Value`: one of null, number, string, bool, struct, list.
fn value(bytes: &[u8], depth: u32) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let mut value = Value::Null;
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        value = match (number, field) {
            (1, Field::Number(_)) => Value::Null,
            (2, Field::Double(double)) => Value::Number(number_of(double)?),
            (3, Field::Bytes(text)) => Value::String(String::from_utf8(text.to_vec()).ok()?),
            (4, Field::Number(bool)) => Value::Bool(bool != 0),
            (5, Field::Bytes(bytes)) => Value::Object(structure(bytes, depth)?),
            (6, Field::Bytes(bytes)) => {
                let mut list = Vec::new();
                let mut items = Fields(bytes);
                while let Some((number, field)) = items.next()? {
                    let (1, Field::Bytes(item)) = (number, field) else {
                        return None;
                    };
                    list.push(self::value(item, depth)?);
                }
                Value::Array(list)
            }
            _ => return None,
        };
    }
    Some(value)
}

/// A whole number as such: `400` in YAML comes as 400.0.
fn number_of(double: f64) -> Option<Number> {
    if double.fract() == 0.0 && double.abs() < 9e15 {
        return Some(Number::from(double as i64));
    }
    Number::from_f64(double)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend(bytes);
        out
    }

    /// As protobuf would write it.
    fn write(value: &Value) -> Vec<u8> {
        match value {
            Value::Null => vec![1 << 3, 0],
            Value::Bool(bool) => vec![4 << 3, u8::from(*bool)],
            Value::Number(number) => {
                let mut out = vec![2 << 3 | 1];
                out.extend(number.as_f64().unwrap().to_le_bytes());
                out
            }
            Value::String(text) => field(3, text.as_bytes()),
            Value::Array(list) => field(
                6,
                &list
                    .iter()
                    .flat_map(|one| field(1, &write(one)))
                    .collect::<Vec<_>>(),
            ),
            Value::Object(object) => field(5, &write_struct(object)),
        }
    }

    fn write_struct(object: &Map<String, Value>) -> Vec<u8> {
        let entry = |(key, value): (&String, &Value)| {
            let mut entry = field(1, key.as_bytes());
            entry.extend(field(2, &write(value)));
            field(1, &entry)
        };
        object.iter().flat_map(entry).collect()
    }

    #[test]
    fn a_struct_becomes_the_json_that_it_means() {
        let config = serde_json::json!({
            "mode": "on",
            "limit": 400, "price": 0.15, "pin": false, "none": null,
            "tiers": [{"name": "small", "below": 0.3}, {"name": "größte"}],
            "long": "x".repeat(300),
        });
        let bytes = write_struct(config.as_object().unwrap());
        assert_eq!(bytes[0], b'\n');
        assert_eq!(
            serde_json::from_slice::<Value>(&json(&bytes)).unwrap(),
            config
        );
    }

    #[test]
    fn json_stays_as_it_is_and_an_empty_config_is_an_empty_object() {
        for text in [
            "{}",
            " {\"a\": 1}",
            "\n{\"a\": 1}",
            "\n\n  {}",
            "nonsense",
            "\n",
        ] {
            assert_eq!(json(text.as_bytes()), text.as_bytes());
        }
        assert_eq!(json(b""), b"{}");
    }

    #[test]
    fn a_cut_or_endless_message_is_left_to_the_json_parser() {
        let bytes = write_struct(serde_json::json!({"a": {"b": [1, 2]}}).as_object().unwrap());
        for cut in 1..bytes.len() {
            assert_eq!(json(&bytes[..cut]), bytes[..cut]);
        }
        let mut deep = vec![1 << 3, 0];
        for _ in 0..200 {
            deep = field(6, &field(1, &deep));
        }
        let mut entry = field(1, b"k");
        entry.extend(field(2, &deep));
        let deep = field(1, &entry);
        assert_eq!(json(&deep), deep);
    }
}
