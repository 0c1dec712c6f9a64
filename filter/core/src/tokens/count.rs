//! The exact count, by tiktoken-rs, with bounded work.

use std::borrow::Cow;

use tiktoken_rs::CoreBPE;

use super::memory::Memory;
use super::{Encoding, PER_NAME, vocabulary};
use crate::formats::{Content, Part};
use crate::json::Object;

/// Bytes of text counted for one request; beyond, evenly spread pieces are counted and scaled up.
/// In Envoy's V8 this much takes 8 ms of prose and 60 ms of the worst input known (spaces only).
pub const EXACT_BYTES: usize = 256 * 1024;

/// Text is counted in pieces of at most this many bytes. tiktoken's split can backtrack over a
/// whole run of spaces or letters, and fails (and tiktoken-rs then panics) past a million steps.
const PIECE: usize = 4096;

/// Where a piece is cut: within this many bytes of its end, before a space that stands between
/// other characters. Both vocabularies' patterns always split there, so the count stays exact.
/// A run without such a place (base64, Chinese without spaces) is cut in mid-run, which can cost
/// or save a token or two per piece.
const CUT_WITHIN: usize = 1024;

/// One vocabulary.
pub(super) struct Counter {
    encoding: Encoding,
    bpe: &'static CoreBPE,
}

impl std::fmt::Debug for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Counter").field(&self.encoding).finish()
    }
}

impl Counter {
    /// Loads it; None if tiktoken-rs does not take it, which no vocabulary that is built in does
    /// to it (tests load them all).
    pub(super) fn load(encoding: Encoding) -> Option<Counter> {
        let bpe = vocabulary::load(encoding)?;
        Some(Counter { encoding, bpe })
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }
}

/// A text in pieces of at most [`PIECE`] bytes.
struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let (piece, rest) = self.0.split_at_checked(cut(self.0)).unwrap_or((self.0, ""));
        self.0 = rest;
        Some(piece)
    }
}

/// Length of the first piece of `text`; a character boundary, and not zero.
fn cut(text: &str) -> usize {
    if text.len() <= PIECE {
        return text.len();
    }
    let bytes = text.as_bytes();
    let is_space = |at: usize| bytes.get(at).is_none_or(u8::is_ascii_whitespace);
    // ASCII on both sides: a neighbour that is part of a longer character may be a space of
    // another script.
    let plain = |at: usize| bytes.get(at).is_some_and(u8::is_ascii) && !is_space(at);
    (PIECE - CUT_WITHIN..PIECE)
        .rev()
        .find(|&at| bytes.get(at) == Some(&b' ') && plain(at - 1) && plain(at + 1))
        .or_else(|| {
            (PIECE - 3..=PIECE)
                .rev()
                .find(|&at| text.is_char_boundary(at))
        })
        .unwrap_or(text.len())
}

/// A piece of a request that is remembered as a whole: a message, a system prompt, the tools.
#[derive(Debug)]
pub(super) struct Item<'a> {
    texts: Vec<Cow<'a, str>>,
    /// Tokens beside the texts'.
    fixed: u64,
}

impl<'a> Item<'a> {
    /// Raw JSON, counted as it stands.
    pub(super) fn raw(json: &'a str) -> Item<'a> {
        Item {
            texts: vec![Cow::Borrowed(json)],
            fixed: 0,
        }
    }

    /// The text of a message or system prompt. `named`: it is a whole chat message, which may
    /// carry a `name`.
    pub(super) fn content(content: &Content<'a>, named: bool) -> Item<'a> {
        let mut item = Item {
            texts: Vec::with_capacity(content.parts.len()),
            fixed: 0,
        };
        for part in &content.parts {
            match part {
                Part::Text(text) => item.texts.push(text.text()),
                Part::ToolCall(raw) | Part::ToolResult(raw) | Part::Other(raw) => {
                    item.texts.push(Cow::Borrowed(*raw));
                }
                Part::Media(_) | Part::Tokens(_) => {}
            }
        }
        if named
            && content.raw.contains("\"name\"")
            && let Ok(message) = Object::parse(content.raw)
            && let Some(name) = message.str("name")
        {
            item.texts.push(name.text());
            item.fixed = PER_NAME;
        }
        item
    }

    fn bytes(&self) -> usize {
        self.texts.iter().map(|text| text.len()).sum()
    }
}

/// What is not remembered and has to be counted for one request.
#[derive(Debug, Default)]
pub(super) struct Work<'a> {
    items: Vec<(u128, Item<'a>)>,
}

impl<'a> Work<'a> {
    pub(super) fn add(&mut self, key: u128, item: Item<'a>) {
        self.items.push((key, item));
    }

    /// Counts everything and remembers it. Where it is more than [`EXACT_BYTES`], half of them
    /// goes to the first items that fit and the rest is sampled, so that a long conversation is
    /// known exactly after a few turns.
    pub(super) fn count(self, counter: &Counter, memory: &mut Memory) -> u64 {
        let bytes: usize = self.items.iter().map(|(_, item)| item.bytes()).sum();
        let mut left = if bytes > EXACT_BYTES {
            EXACT_BYTES / 2
        } else {
            EXACT_BYTES
        };
        let mut tokens = 0;
        let mut rest = Vec::new();
        for (key, item) in self.items {
            match left.checked_sub(item.bytes()) {
                Some(after) => {
                    left = after;
                    let count = item.fixed + sample(counter, &item.texts, usize::MAX);
                    memory.put(key, count);
                    tokens += count;
                }
                None => {
                    tokens += item.fixed;
                    rest.extend(item.texts);
                }
            }
        }
        tokens + sample(counter, &rest, EXACT_BYTES / 2)
    }
}

/// Tokens of `texts`, by counting about `most` bytes of them, evenly spread, and scaling up.
pub(super) fn sample<T: AsRef<str>>(counter: &Counter, texts: &[T], most: usize) -> u64 {
    let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
    let every = bytes.div_ceil(most.max(1)).max(1);
    let pieces = texts.iter().flat_map(|text| Pieces(text.as_ref()));
    let (mut counted, mut tokens) = (0, 0);
    for piece in pieces.step_by(every) {
        counted += piece.len();
        tokens += counter.bpe.count_ordinary(piece);
    }
    if every == 1 || counted == 0 {
        return tokens as u64;
    }
    let scaled = tokens as u128 * bytes as u128 / counted as u128;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
