//! JSON arrays that stand in a text: of objects with a text, or of strings below a label.

use std::ops::Range;

use serde_json::value::RawValue;

use super::lines::lines;
use super::{Block, Group, MAX_CHUNKS};
use crate::json::{JsonStr, Object};
use crate::policy::trim::context::metadata::Metadata;

/// Fields that hold what a chunk says, in the order in which they are looked for: OpenAI's vector
/// store search, LangChain's documents and others.
const TEXTS: [&str; 5] = ["text", "content", "page_content", "chunk", "passage"];

/// Beginnings of arrays in one text that may turn out to be none: each may be read to the end.
const MAX_TRIES: usize = 8;
/// Bytes between a label's line and the array at most: an object's brace and a key fit.
const MAX_GAP: usize = 200;

/// Which arrays.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// How the line begins in which, or below which, the array begins. Without it only arrays of
    /// objects are chunks: strings may be anything.
    pub after: Option<String>,
}

impl Array {
    pub(super) fn find(&self, text: &str) -> Option<Vec<Group>> {
        let mut groups = Vec::new();
        let mut from = 0;
        let mut tries = 0;
        while let Some(start) = self.next(text, from) {
            let rest = text.get(start..)?;
            let mut reader = serde_json::Deserializer::from_str(rest).into_iter::<Vec<&RawValue>>();
            from = match reader.next() {
                Some(Ok(elements)) => {
                    groups.extend(self.group(text, &elements));
                    start + reader.byte_offset().max(1)
                }
                // Brackets that are never closed.
                Some(Err(error)) if error.is_eof() => return None,
                _ => {
                    tries += 1;
                    if tries == MAX_TRIES {
                        return None;
                    }
                    start + 1
                }
            };
        }
        Some(groups)
    }

    /// The next place at or after `from` where an array of chunks may begin.
    fn next(&self, text: &str, from: usize) -> Option<usize> {
        let Some(after) = &self.after else {
            return begins(text, from..text.len(), &['{']);
        };
        let rest = text.get(from..)?;
        lines(rest)
            .filter(|line| line.begins(after))
            .find_map(|line| {
                let gap = from + line.start..text.len().min(from + line.end() + MAX_GAP);
                begins(text, gap, &['{', '"'])
            })
    }

    /// The chunks that an array is; None where it is something else.
    fn group(&self, text: &str, elements: &[&RawValue]) -> Option<Group> {
        if elements.is_empty() || elements.len() > MAX_CHUNKS {
            return None;
        }
        let blocks = elements.iter().map(|raw| self.block(text, raw.get()));
        Some(Group {
            blocks: blocks.collect::<Option<_>>()?,
            enclosed: true,
        })
    }

    fn block(&self, text: &str, raw: &str) -> Option<Block> {
        let whole = crate::policy::trim::splices::span(text, raw)?;
        if let Some(string) = JsonStr::new(raw) {
            let text = self.after.as_ref().map(|_| string.text().into_owned())?;
            return Some(Block {
                whole,
                inner: None,
                text,
                metadata: Metadata::default(),
            });
        }
        let object = Object::parse(raw).ok()?;
        let (text, metadata) = chunk(&object)?;
        Some(Block {
            whole,
            inner: None,
            text,
            metadata,
        })
    }
}

/// What a JSON object says as a chunk, and what it tells besides. None where it says nothing.
pub(in crate::policy::trim::context) fn chunk(object: &Object<'_>) -> Option<(String, Metadata)> {
    let name = TEXTS.into_iter().find(|name| object.str(name).is_some())?;
    let text = object.str(name)?.text().into_owned();
    let mut metadata = Metadata::default();
    for (key, value) in object.iter() {
        match key {
            "metadata" => metadata.set_object(value),
            key if key == name => {}
            key => metadata.set_json(key, value),
        }
    }
    Some((text, metadata))
}

/// The first place in `range` where an array begins whose first element begins with one of `first`.
fn begins(text: &str, range: Range<usize>, first: &[char]) -> Option<usize> {
    let bytes = text.as_bytes().get(range.clone())?;
    memchr::memchr_iter(b'[', bytes)
        .map(|at| range.start + at)
        .find(|at| {
            text.get(at + 1..)
                .is_some_and(|rest| rest.trim_start().starts_with(first))
        })
}
