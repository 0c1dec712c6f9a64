//! The `usage` of a JSON answer that is too long to hold or is not held: found as it passes.

/// Longest `usage` object that is kept, in bytes. Real ones have some hundred.
const MAX_USAGE: usize = 8 << 10;

/// Longest key that is looked at.
const KEY: &[u8] = b"usage";

/// Watches a JSON answer, cut anywhere, for its top-level `usage` object. Memory is bounded by
/// 8 KiB; time is one look at each byte.
#[derive(Clone, Debug, Default)]
pub struct UsageScan {
    depth: u64,
    /// Inside a string.
    string: bool,
    /// The last byte was a backslash inside a string.
    escape: bool,
    /// The top-level key that is being read or was read last: how many bytes of it match `usage`;
    /// None once one does not.
    key: Option<usize>,
    /// The next top-level string is a key, not a value.
    expects_key: bool,
    /// The value being read is that of `usage`, and is an object.
    capturing: bool,
    captured: Vec<u8>,
    found: Option<Vec<u8>>,
}

impl UsageScan {
    /// At the start of an answer.
    #[must_use]
    pub fn new() -> Self {
        UsageScan::default()
    }

    /// More of the answer.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            if self.string {
                at = self.in_string(chunk, at);
                continue;
            }
            if self.capturing {
                self.keep(&[byte]);
            }
            match byte {
                b'"' => {
                    self.string = true;
                    if self.depth == 1 && self.expects_key {
                        self.key = Some(0);
                    }
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth == 1 {
                        self.expects_key = byte == b'{';
                    } else if self.depth == 2 && byte == b'{' && self.is_usage() {
                        self.capturing = true;
                        self.captured.clear();
                        self.keep(b"{");
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 1 && std::mem::take(&mut self.capturing) {
                        // Of two the last counts, as for every key. One too long for us is none.
                        let captured = std::mem::take(&mut self.captured);
                        self.found = (captured.len() <= MAX_USAGE).then_some(captured);
                    }
                }
                b':' if self.depth == 1 => self.expects_key = false,
                b',' if self.depth == 1 => {
                    self.expects_key = true;
                    self.key = None;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// The raw `usage` object, for [`Format::usage`](super::Format::usage), once it has passed.
    #[must_use]
    pub fn usage(&self) -> Option<&str> {
        std::str::from_utf8(self.found.as_deref()?).ok()
    }

    fn is_usage(&self) -> bool {
        !self.expects_key && self.key == Some(KEY.len())
    }

    /// Reads on inside a string; returns where to go on.
    fn in_string(&mut self, chunk: &[u8], at: usize) -> usize {
        let rest = chunk.get(at..).unwrap_or(&[]);
        if std::mem::take(&mut self.escape) {
            // A key with escapes is not taken for `usage`: no upstream writes it so.
            self.text(rest.get(..1).unwrap_or(&[]));
            self.key = None;
            return at + 1;
        }
        let Some(end) = memchr::memchr2(b'"', b'\\', rest) else {
            self.text(rest);
            return chunk.len();
        };
        self.text(rest.get(..end).unwrap_or(&[]));
        if self.capturing {
            self.keep(rest.get(end..=end).unwrap_or(&[]));
        }
        if rest.get(end) == Some(&b'"') {
            self.string = false;
        } else {
            self.escape = true;
        }
        at + end + 1
    }

    /// Bytes of a string.
    fn text(&mut self, bytes: &[u8]) {
        if self.capturing {
            self.keep(bytes);
        }
        if self.depth == 1
            && self.expects_key
            && let Some(matched) = self.key
        {
            let matches = KEY
                .get(matched..)
                .is_some_and(|wanted| wanted.starts_with(bytes));
            self.key = matches.then_some(matched + bytes.len());
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        // One byte past the bound tells that it was passed.
        let room = (MAX_USAGE + 1).saturating_sub(self.captured.len());
        self.captured
            .extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or(&[]));
    }
}
