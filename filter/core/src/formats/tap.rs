//! A streamed answer on its way to the client: cut into events, read, and what is hidden left out.

use std::borrow::Cow;

use super::{Answer, Format, StreamReader};
use crate::sse::SseParser;

/// Parser and reader of one streamed answer. Holds at most one incomplete event, and that only
/// where something is to be hidden; else every chunk passes as it came.
#[derive(Debug)]
pub struct Tap {
    parser: SseParser,
    reader: Box<dyn StreamReader>,
    hides: bool,
}

impl Tap {
    /// For an answer of `format`; `hide_usage` as in [`Format::stream`].
    #[must_use]
    pub fn new(format: &dyn Format, hide_usage: bool) -> Self {
        Tap {
            parser: SseParser::new(),
            reader: format.stream(hide_usage),
            hides: hide_usage,
        }
    }

    /// More of the answer; returns what goes to the client now.
    pub fn chunk<'c>(&mut self, chunk: &'c [u8]) -> Cow<'c, [u8]> {
        let reader = &mut self.reader;
        if self.hides {
            Cow::Owned(self.parser.push(chunk, |event| reader.event(event)))
        } else {
            self.parser.watch(chunk, |event| {
                reader.event(event);
            });
            Cow::Borrowed(chunk)
        }
    }

    /// The answer is over; returns what was held back and goes to the client now.
    pub fn end(&mut self) -> Vec<u8> {
        let reader = &mut self.reader;
        let held = self.parser.finish(|event| reader.event(event));
        if self.hides { held } else { Vec::new() }
    }

    /// What has been read so far. Not complete where a part of it could not be read.
    #[must_use]
    pub fn outcome(&self) -> Answer {
        let mut outcome = self.reader.outcome();
        outcome.complete &= self.parser.missed() == 0;
        outcome
    }

    /// The answer as the API would have given it without streaming, if it came whole.
    #[must_use]
    pub fn assemble(&self) -> Option<String> {
        if self.parser.missed() > 0 {
            return None;
        }
        self.reader.assemble()
    }
}
