//! Server-sent events cut anywhere: bytes in, whole events out, and the bytes to pass on.

use std::borrow::Cow;

use crate::formats::Show;

#[cfg(test)]
mod tests;

/// Longest event that is held and parsed, in bytes; a longer one passes as it comes, unread.
pub const MAX_EVENT: usize = 1 << 20;

/// One whole event (WHATWG HTML, "Server-sent events").
#[derive(Clone, Debug, PartialEq)]
pub struct SseEvent<'a> {
    /// The event's bytes as they came, its closing blank line included.
    pub raw: &'a [u8],
    /// `event:` field, empty when absent.
    pub name: &'a str,
    /// `data:` lines joined by line feeds.
    pub data: Cow<'a, str>,
}

impl<'a> SseEvent<'a> {
    /// Reads the event that `raw` (whole lines) is. None where it has no data, which makes it no
    /// event (comments, keep-alives).
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn parse(raw: &'a [u8]) -> Result<Option<Self>, std::str::Utf8Error> {
        let text = std::str::from_utf8(raw)?;
        let mut name = "";
        let mut data: Option<Cow<'a, str>> = None;
        // A CRLF leaves an empty line between its two, which means nothing inside an event.
        for line in text.split(['\r', '\n']) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value,
                "data" => match &mut data {
                    None => data = Some(Cow::Borrowed(value)),
                    Some(before) => {
                        let before = before.to_mut();
                        before.push('\n');
                        before.push_str(value);
                    }
                },
                _ => {}
            }
        }
        Ok(data.map(|data| SseEvent { raw, name, data }))
    }

    /// Appends an event to a stream; `data` must be one line.
    pub fn write(out: &mut Vec<u8>, name: &str, data: &str) {
        if !name.is_empty() {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(name.as_bytes());
            out.push(b'\n');
        }
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(data.as_bytes());
        out.extend_from_slice(b"\n\n");
    }
}

/// Cuts a byte stream into events. Holds at most one incomplete event of [`MAX_EVENT`] bytes.
#[derive(Debug)]
pub struct SseParser {
    /// The incomplete event, where it began in an earlier chunk.
    held: Vec<u8>,
    /// The line that is being read has no byte yet.
    line_empty: bool,
    /// The last byte was a carriage return: the line has ended, but a line feed may belong to it.
    /// Only the next byte tells, so that the cuts do not show in what is told.
    carriage_return: bool,
    /// The event is too long: its bytes go out as they come until it ends.
    overlong: bool,
    /// No event was read yet; a byte order mark may come.
    first: bool,
    missed: u64,
    max: usize,
}

impl Default for SseParser {
    fn default() -> Self {
        SseParser::new()
    }
}

impl SseParser {
    /// At the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        SseParser::with_limit(MAX_EVENT)
    }

    /// With another limit than [`MAX_EVENT`].
    #[must_use]
    pub fn with_limit(max: usize) -> Self {
        SseParser {
            held: Vec::new(),
            line_empty: true,
            carriage_return: false,
            overlong: false,
            first: true,
            missed: 0,
            max,
        }
    }

    /// More bytes: tells every event that is whole now, and returns the bytes to pass on, which are
    /// all but those of hidden events and of the incomplete one. Where nothing is ever hidden,
    /// pass the chunk on and use [`SseParser::watch`].
    pub fn push(&mut self, chunk: &[u8], on_event: impl FnMut(&SseEvent<'_>) -> Show) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len() + chunk.len());
        self.read(chunk, Some(&mut out), on_event);
        out
    }

    /// More bytes, which pass on as they are: tells every event that is whole now.
    pub fn watch(&mut self, chunk: &[u8], mut on_event: impl FnMut(&SseEvent<'_>)) {
        self.read(chunk, None, |event| {
            on_event(event);
            Show::Pass
        });
    }

    /// The stream is over: tells the event whose closing blank line never came, and returns the
    /// bytes that were still held back (of no use after [`SseParser::watch`]).
    pub fn finish(&mut self, mut on_event: impl FnMut(&SseEvent<'_>) -> Show) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::new();
        if self.overlong {
            self.missed += 1;
        } else if !held.is_empty() {
            self.tell(&held, &mut Some(&mut out), &mut on_event);
        }
        *self = SseParser {
            missed: self.missed,
            ..SseParser::with_limit(self.max)
        };
        out
    }

    /// Events that passed unread, because they were longer than the limit or not UTF-8: what was
    /// told of the stream is then not the whole of it.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Bytes of an incomplete event that are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn read(
        &mut self,
        chunk: &[u8],
        mut out: Option<&mut Vec<u8>>,
        mut on_event: impl FnMut(&SseEvent<'_>) -> Show,
    ) {
        let mut from = 0;
        let mut at = 0;
        while let Some(byte) = chunk.get(at) {
            if self.carriage_return {
                self.carriage_return = false;
                at += usize::from(*byte == b'\n');
            } else {
                let rest = chunk.get(at..).unwrap_or(&[]);
                let found = memchr::memchr2(b'\r', b'\n', rest);
                let text = found.unwrap_or(rest.len());
                self.line_empty &= text == 0;
                at += text;
                if found.is_none() {
                    break;
                }
                at += 1;
                if chunk.get(at - 1) == Some(&b'\r') {
                    self.carriage_return = true;
                    continue;
                }
            }
            // A line ends here; if it is empty, so does the event.
            if std::mem::replace(&mut self.line_empty, true) {
                self.end(chunk.get(from..at).unwrap_or(&[]), &mut out, &mut on_event);
                from = at;
            }
        }
        let rest = chunk.get(from..).unwrap_or(&[]);
        if !self.overlong && self.held.len() + rest.len() > self.max {
            self.overlong = true;
            let held = std::mem::take(&mut self.held);
            pass(&mut out, &held);
        }
        if self.overlong {
            pass(&mut out, rest);
        } else {
            self.held.extend_from_slice(rest);
        }
    }

    /// The event ends with `bytes`.
    fn end(
        &mut self,
        bytes: &[u8],
        out: &mut Option<&mut Vec<u8>>,
        on_event: &mut impl FnMut(&SseEvent<'_>) -> Show,
    ) {
        if std::mem::take(&mut self.overlong) {
            self.missed += 1;
            self.first = false;
            pass(out, bytes);
        } else if self.held.is_empty() {
            self.tell(bytes, out, on_event);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(bytes);
            self.tell(&held, out, on_event);
            held.clear();
            self.held = held;
        }
    }

    fn tell(
        &mut self,
        raw: &[u8],
        out: &mut Option<&mut Vec<u8>>,
        on_event: &mut impl FnMut(&SseEvent<'_>) -> Show,
    ) {
        let first = std::mem::replace(&mut self.first, false);
        if raw.len() > self.max {
            self.missed += 1;
            return pass(out, raw);
        }
        let text = match raw.strip_prefix(BOM) {
            Some(text) if first => text,
            _ => raw,
        };
        let show = match SseEvent::parse(text) {
            Ok(Some(event)) => on_event(&SseEvent { raw, ..event }),
            Ok(None) => Show::Pass,
            Err(_) => {
                self.missed += 1;
                Show::Pass
            }
        };
        if show == Show::Pass {
            pass(out, raw);
        }
    }
}

/// UTF-8's byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

fn pass(out: &mut Option<&mut Vec<u8>>, bytes: &[u8]) {
    if let Some(out) = out {
        out.extend_from_slice(bytes);
    }
}
