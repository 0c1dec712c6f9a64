//! The plug-in's configuration as Envoy hands it over: a `google.protobuf.Struct` in its binary
//! form (whatever its documentation says about JSON), or the JSON text of a `StringValue`.
//!
//! Numbers of a Struct are doubles, and its maps have no order. Envoy's YAML reader makes booleans
//! of `on` and `off`, and strings of `2_000_000` and `50ms`: the config's types take all of these.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

/// Deeper than any config, and far from the end of a VM's stack.
const MAX_DEPTH: usize = 64;

/// Why bytes are no configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum PluginConfigError {
    /// It starts as JSON.
    #[error("not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// It does not, and is no Struct either.
    #[error(
        "the plug-in's configuration is neither a google.protobuf.Struct nor JSON text: {0} at byte {1}"
    )]
    Protobuf(&'static str, usize),
}

/// The configuration as JSON text, which borrows where it is text already; none at all is an empty
/// object.
///
/// # Errors
/// See [`PluginConfigError`].
pub(super) fn json_text(bytes: &[u8]) -> Result<Cow<'_, str>, PluginConfigError> {
    let mut reader = Reader {
        bytes,
        at: 0,
        end: bytes.len(),
    };
    // A line feed is the tag of a Struct's first entry, and `{` could be that entry's length: what
    // reads as a Struct is one.
    let json = reader.object(0);
    if json.is_err() && matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Ok(Cow::Borrowed(std::str::from_utf8(bytes)?));
    }
    Ok(Cow::Owned(json?.to_string()))
}

/// What a field holds, by the low bits of its tag.
enum Field {
    Varint(u64),
    Fixed64(u64),
    /// The reader is at its start; the end is here.
    Bytes(usize),
    Fixed32,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl Reader<'_> {
    fn fail<T>(&self, what: &'static str) -> Result<T, PluginConfigError> {
        Err(PluginConfigError::Protobuf(what, self.at))
    }

    fn byte(&mut self) -> Result<u8, PluginConfigError> {
        match self.bytes.get(self.at) {
            Some(byte) if self.at < self.end => {
                self.at += 1;
                Ok(*byte)
            }
            _ => self.fail("cut short"),
        }
    }

    fn varint(&mut self) -> Result<u64, PluginConfigError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        self.fail("number of more than 64 bits")
    }

    fn field(&mut self) -> Result<(u64, Field), PluginConfigError> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                let mut value = [0; 8];
                for byte in &mut value {
                    *byte = self.byte()?;
                }
                Field::Fixed64(u64::from_le_bytes(value))
            }
            2 => {
                let length = self.varint()?;
                match usize::try_from(length) {
                    Ok(length) if length <= self.end - self.at => Field::Bytes(self.at + length),
                    _ => return self.fail("length past the end"),
                }
            }
            5 => {
                for _ in 0..4 {
                    self.byte()?;
                }
                Field::Fixed32
            }
            _ => return self.fail("unknown wire type"),
        };
        Ok((tag >> 3, field))
    }

    /// Reads what is up to `end` with `read`, and stands there afterwards.
    fn within<T>(
        &mut self,
        end: usize,
        read: impl FnOnce(&mut Self) -> Result<T, PluginConfigError>,
    ) -> Result<T, PluginConfigError> {
        let outer = std::mem::replace(&mut self.end, end);
        let result = read(self)?;
        self.at = end;
        self.end = outer;
        Ok(result)
    }

    fn text(&mut self) -> Result<String, PluginConfigError> {
        match std::str::from_utf8(&self.bytes[self.at..self.end]) {
            Ok(text) => Ok(text.to_string()),
            Err(_) => self.fail("text that is not UTF-8"),
        }
    }

    /// A field that is not ours is passed over, as protobuf asks.
    fn skip(&mut self, field: &Field) {
        if let Field::Bytes(end) = field {
            self.at = *end;
        }
    }

    /// `Struct`: field 1 is its map, an entry each.
    fn object(&mut self, depth: usize) -> Result<Value, PluginConfigError> {
        if depth > MAX_DEPTH {
            return self.fail("nested too deep");
        }
        let mut map = Map::new();
        while self.at < self.end {
            match self.field()? {
                (1, Field::Bytes(end)) => {
                    let (key, value) = self.within(end, |reader| reader.entry(depth))?;
                    map.insert(key, value);
                }
                (_, other) => self.skip(&other),
            }
        }
        Ok(Value::Object(map))
    }

    fn entry(&mut self, depth: usize) -> Result<(String, Value), PluginConfigError> {
        let (mut key, mut value) = (String::new(), Value::Null);
        while self.at < self.end {
            match self.field()? {
                (1, Field::Bytes(end)) => key = self.within(end, Self::text)?,
                (2, Field::Bytes(end)) => {
                    value = self.within(end, |reader| reader.value(depth + 1))?;
                }
                (_, other) => self.skip(&other),
            }
        }
        Ok((key, value))
    }

    /// `Value`: one of null, number, string, bool, struct, list.
    fn value(&mut self, depth: usize) -> Result<Value, PluginConfigError> {
        let mut value = Value::Null;
        while self.at < self.end {
            value = match self.field()? {
                (1, Field::Varint(_)) => Value::Null,
                (2, Field::Fixed64(bits)) => match number(f64::from_bits(bits)) {
                    Some(number) => Value::Number(number),
                    None => return self.fail("number that is not finite"),
                },
                (3, Field::Bytes(end)) => Value::String(self.within(end, Self::text)?),
                (4, Field::Varint(bit)) => Value::Bool(bit != 0),
                (5, Field::Bytes(end)) => self.within(end, |reader| reader.object(depth))?,
                (6, Field::Bytes(end)) => self.within(end, |reader| reader.list(depth))?,
                (_, other) => {
                    self.skip(&other);
                    continue;
                }
            };
        }
        Ok(value)
    }

    /// `ListValue`: field 1 is an element each.
    fn list(&mut self, depth: usize) -> Result<Value, PluginConfigError> {
        if depth > MAX_DEPTH {
            return self.fail("nested too deep");
        }
        let mut list = Vec::new();
        while self.at < self.end {
            match self.field()? {
                (1, Field::Bytes(end)) => {
                    list.push(self.within(end, |reader| reader.value(depth + 1))?);
                }
                (_, other) => self.skip(&other),
            }
        }
        Ok(Value::Array(list))
    }
}

/// A whole number that a double holds exactly is an integer again.
fn number(value: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        Some(Number::from(value as i64))
    } else {
        Number::from_f64(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plugin_config(bytes: &[u8]) -> Result<Value, PluginConfigError> {
        Ok(serde_json::from_str(&json_text(bytes)?).unwrap())
    }

    fn bytes(field: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![field << 3 | 2];
        let mut length = payload.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(payload);
        out
    }

    fn value(json: &Value) -> Vec<u8> {
        match json {
            Value::Null => vec![8, 0],
            Value::Bool(bit) => vec![4 << 3, u8::from(*bit)],
            Value::Number(number) => {
                let mut out = vec![2 << 3 | 1];
                out.extend(number.as_f64().unwrap().to_le_bytes());
                out
            }
            Value::String(text) => bytes(3, text.as_bytes()),
            Value::Array(list) => bytes(
                6,
                &list
                    .iter()
                    .flat_map(|v| bytes(1, &value(v)))
                    .collect::<Vec<_>>(),
            ),
            Value::Object(_) => bytes(5, &object(json)),
        }
    }

    fn object(json: &Value) -> Vec<u8> {
        let entry = |(key, v): (&String, &Value)| {
            bytes(1, &[bytes(1, key.as_bytes()), bytes(2, &value(v))].concat())
        };
        json.as_object().unwrap().iter().flat_map(entry).collect()
    }

    fn sample() -> Value {
        json!({
            "mode": true, "none": null, "ttl": "10m", "limit": 2_000_000, "price": 0.075,
            "tiers": [{"name": "small", "below": 0.3}, {"name": "large"}],
            "long": "x".repeat(300), "empty": {}, "nothing": [],
        })
    }

    #[test]
    fn a_struct_becomes_the_json_that_it_stands_for() {
        assert_eq!(plugin_config(&object(&sample())).unwrap(), sample());
    }

    #[test]
    fn json_text_is_taken_too_and_nothing_is_an_empty_object() {
        assert_eq!(
            plugin_config(b" {\"mode\": \"dry\"}").unwrap(),
            json!({"mode": "dry"})
        );
        assert_eq!(plugin_config(b"").unwrap(), json!({}));
    }

    #[test]
    fn a_first_entry_whose_length_looks_like_a_brace_is_no_json() {
        for length in 90..130 {
            let json = json!({"k": "x".repeat(length)});
            assert_eq!(plugin_config(&object(&json)).unwrap(), json);
        }
        assert_eq!(
            plugin_config(b"\n\n{\"mode\": \"dry\"}").unwrap(),
            json!({"mode": "dry"})
        );
    }

    #[test]
    fn the_first_bytes_that_envoy_sends_are_read() {
        // `limits: {response_body: 4MiB}` as Envoy 1.40 passed it.
        let sent = b"\x0a\x25\x0a\x06limits\x12\x1b\x2a\x19\x0a\x17\x0a\x0dresponse_body\x12\x06\x1a\x044MiB";
        assert_eq!(
            plugin_config(sent).unwrap(),
            json!({"limits": {"response_body": "4MiB"}})
        );
    }

    #[test]
    fn a_struct_that_is_cut_anywhere_is_refused_or_reads_as_fewer_entries() {
        let whole = object(&sample());
        for end in 1..whole.len() {
            if let Ok(Value::Object(map)) = plugin_config(&whole[..end]) {
                assert!(map.len() < sample().as_object().unwrap().len(), "at {end}");
            }
        }
    }

    #[test]
    fn no_byte_that_is_changed_makes_it_panic() {
        let whole = object(&sample());
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = byte;
                let _ = plugin_config(&changed);
            }
        }
    }

    #[test]
    fn nesting_past_the_bound_is_refused() {
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({"a": deep});
        }
        let error = plugin_config(&object(&deep)).unwrap_err().to_string();
        assert!(error.contains("nested too deep"), "{error}");
    }

    #[test]
    fn what_is_neither_is_refused_with_its_place() {
        let error = plugin_config(b"mode: on").unwrap_err().to_string();
        assert!(error.contains("neither"), "{error}");
    }
}
