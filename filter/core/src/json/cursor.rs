//! A walk over JSON that was validated before: no allocation, no recursion, one pass.

use std::borrow::Cow;

use super::JsonStr;

/// A place in valid JSON. On anything else it stops early or reads nonsense, but ends and never
/// panics.
///
/// ```
/// use sluice_core::json::Cursor;
/// let mut at = Cursor::new(r#"{"role": "user", "content": [1, 2]}"#);
/// assert!(at.enter(b'{'));
/// while let Some(key) = at.key() {
///     match &*key {
///         "role" => assert_eq!(at.value(), r#""user""#),
///         _ => assert_eq!(at.value(), "[1, 2]"),
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of `json`.
    #[must_use]
    pub fn new(json: &'a str) -> Self {
        Cursor { json, at: 0 }
    }

    /// The first byte of the next value.
    #[must_use]
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.json.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            // Values are separated by nothing else in valid JSON.
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Goes into the next value if it starts with `bracket` (`{` or `[`); else stays.
    pub fn enter(&mut self, bracket: u8) -> bool {
        let enters = self.peek() == Some(bracket);
        if enters {
            self.at += 1;
        }
        enters
    }

    /// In an object: the next key; its value must then be read. At the object's end: leaves it.
    pub fn key(&mut self) -> Option<Cow<'a, str>> {
        if self.peek() == Some(b'"') {
            let raw = self.value();
            return JsonStr::new(raw).map(JsonStr::text);
        }
        self.leave();
        None
    }

    /// In an array: whether another element follows, which must then be read. At the array's end:
    /// leaves it.
    pub fn element(&mut self) -> bool {
        match self.peek() {
            None | Some(b']' | b'}') => {
                self.leave();
                false
            }
            Some(_) => true,
        }
    }

    /// Leaves the array or object that ends here.
    pub(super) fn leave(&mut self) {
        match self.peek() {
            Some(b']' | b'}') => self.at += 1,
            // Not valid JSON: nothing more to read.
            _ => self.at = self.json.len(),
        }
    }

    /// The next value, raw.
    pub fn value(&mut self) -> &'a str {
        let first = self.peek();
        let start = self.at;
        let bytes = self.json.as_bytes();
        match first {
            Some(b'"') => self.at = after_string(bytes, start),
            Some(b'{' | b'[') => self.at = after_nested(bytes, start),
            Some(_) => {
                let rest = bytes.get(start..).unwrap_or(&[]);
                self.at = start
                    + rest
                        .iter()
                        .position(|byte| {
                            matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')
                        })
                        .unwrap_or(rest.len())
                        // Something must be read, or a loop over elements would not end.
                        .max(1);
            }
            None => {}
        }
        self.json.get(start..self.at).unwrap_or("")
    }

    /// From `start` of a value to here, raw: for values that were entered.
    #[must_use]
    pub fn since(&self, start: usize) -> &'a str {
        self.json.get(start..self.at).unwrap_or("")
    }

    /// Where the next value starts.
    pub fn mark(&mut self) -> usize {
        let _ = self.peek();
        self.at
    }
}

/// End of the string that starts at `start`.
fn after_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        at += found;
        if bytes.get(at) == Some(&b'"') {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

/// End of the object or array that starts at `start`.
fn after_nested(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = after_string(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}
