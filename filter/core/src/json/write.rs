//! Writing JSON from raw pieces: what was read is copied, never unescaped and escaped again.

/// A JSON object in the making; values are raw JSON.
#[derive(Debug)]
pub(crate) struct ObjectWriter(String);

impl ObjectWriter {
    pub(crate) fn new() -> Self {
        ObjectWriter(String::from("{"))
    }

    /// A field; `key` as it stands between the quotes.
    pub(crate) fn raw(mut self, key: &str, json: &str) -> Self {
        self.key(key);
        self.0.push_str(json);
        self
    }

    /// A field; `key` is any text.
    pub(crate) fn named(mut self, key: &str, json: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&serde_json::Value::from(key).to_string());
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    /// A field, where there is a value.
    pub(crate) fn maybe(self, key: &str, json: Option<&str>) -> Self {
        match json {
            Some(json) => self.raw(key, json),
            None => self,
        }
    }

    /// A string field; `escaped` as it stands between the quotes.
    pub(crate) fn str(mut self, key: &str, escaped: &str) -> Self {
        self.key(key);
        self.0.push('"');
        self.0.push_str(escaped);
        self.0.push('"');
        self
    }

    /// A whole number.
    pub(crate) fn int(self, key: &str, value: u64) -> Self {
        self.raw(key, &value.to_string())
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A JSON array in the making.
#[derive(Debug)]
pub(crate) struct ListWriter(String);

impl ListWriter {
    pub(crate) fn new() -> Self {
        ListWriter(String::from("["))
    }

    pub(crate) fn push(&mut self, json: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(json);
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push(']');
        self.0
    }
}

/// `escaped` (the inside of a JSON string) in pieces of at most `max` bytes (12 and more), none of
/// which cuts a character, an escape or a surrogate pair. Nothing for the empty string.
pub(crate) fn split_escaped(escaped: &str, max: usize) -> impl Iterator<Item = &str> {
    let max = max.max(12);
    let mut rest = escaped;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.get(..cut(rest, max)).unwrap_or(rest);
        rest = rest.get(piece.len()..).unwrap_or("");
        Some(piece)
    })
}

/// The last place at or before `max` where `escaped` may be cut.
fn cut(escaped: &str, max: usize) -> usize {
    if escaped.len() <= max {
        return escaped.len();
    }
    let bytes = escaped.as_bytes();
    let mut end = char_boundary(escaped, max);
    // A cut inside an escape (at most five bytes back) moves before it; before the low half of a
    // surrogate pair, before the high half.
    for _ in 0..3 {
        let from = end.saturating_sub(5);
        let inside =
            (from..end).find(|&at| starts_escape(bytes, at) && at + escape_len(bytes, at) > end);
        if let Some(at) = inside {
            end = at;
            continue;
        }
        let pair = end.checked_sub(6).filter(|&high| {
            is_surrogate(bytes, high, b"89abAB") && is_surrogate(bytes, end, b"cdefCDEF")
        });
        match pair {
            Some(high) => end = high,
            None => break,
        }
    }
    if end == 0 {
        char_boundary(escaped, max)
    } else {
        end
    }
}

/// The last character boundary at or before `at`.
fn char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

/// Whether the backslash at `at` starts an escape and is not the second of `\\`.
fn starts_escape(bytes: &[u8], at: usize) -> bool {
    let before = bytes.get(..at).unwrap_or(&[]);
    bytes.get(at) == Some(&b'\\')
        && before
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count()
            % 2
            == 0
}

fn escape_len(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'u') {
        6
    } else {
        2
    }
}

fn is_surrogate(bytes: &[u8], at: usize, third: &[u8]) -> bool {
    starts_escape(bytes, at)
        && bytes.get(at + 1) == Some(&b'u')
        && matches!(bytes.get(at + 2), Some(b'd' | b'D'))
        && bytes.get(at + 3).is_some_and(|digit| third.contains(digit))
}
