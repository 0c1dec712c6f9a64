//! The exact count, by tiktoken-rs, with bounded work.

use std::borrow::Cow;
use std::cell::Cell;

use tiktoken_rs::CoreBPE;
use xxhash_rust::xxh3::xxh3_64;

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

/// Longest word that is remembered.
const WORD: usize = 32;

/// One vocabulary.
pub(super) struct Counter {
    encoding: Encoding,
    bpe: &'static CoreBPE,
    words: Words,
}

/// Counts of words seen before. A word costs the vocabulary's pattern and merges once, and a hash
/// and a look from then on; nine words of ten of a new text were seen in another.
///
/// A table in which a newcomer takes its place from who was there: words that are used come back.
/// Each slot holds 56 bits of a word's hash above its count; zero is empty.
struct Words(Box<[Cell<u64>]>);

impl Words {
    /// A power of two; a quarter of a mebibyte.
    const SLOTS: usize = 1 << 15;

    fn new() -> Words {
        Words(vec![Cell::new(0); Words::SLOTS].into())
    }

    fn count(&self, word: &str, bpe: &CoreBPE) -> usize {
        let hash = xxh3_64(word.as_bytes());
        let Some(slot) = self.0.get(hash as usize >> 8 & (Words::SLOTS - 1)) else {
            return bpe.count_ordinary(word);
        };
        let known = slot.get();
        if known != 0 && (known ^ hash) >> 8 == 0 {
            return (known & 0xff) as usize;
        }
        let count = bpe.count_ordinary(word);
        // At most as many as bytes.
        slot.set(hash & !0xff | count as u64);
        count
    }
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
        Some(Counter {
            encoding,
            bpe,
            words: Words::new(),
        })
    }

    /// Tokens of a text of at most [`PIECE`] bytes.
    ///
    /// Both vocabularies' patterns always split before a space that stands between other
    /// characters, whatever stands farther away, so that the words between such places are counted
    /// one by one.
    fn count(&self, text: &str) -> usize {
        let (mut tokens, mut start) = (0, 0);
        for at in memchr::memchr_iter(b' ', text.as_bytes()) {
            if splits(text.as_bytes(), at) {
                tokens += self.word(text.get(start..at).unwrap_or(""));
                start = at;
            }
        }
        tokens + self.word(text.get(start..).unwrap_or(""))
    }

    /// Tokens of a text between two places where the patterns split.
    ///
    /// They split around digits too, of which they take three at a time and nothing with them, and
    /// every one to three digits are a token (a test looks). Numbers, of which no memory has seen
    /// all, so cost no look. What stands beside them must be ASCII, since it could be a digit of
    /// another script, and not more than one space, since the patterns look from spaces ahead.
    fn word(&self, mut word: &str) -> usize {
        let mut tokens = 0;
        while let Some(start) = word.bytes().position(|byte| byte.is_ascii_digit()) {
            let bytes = word.as_bytes();
            let digits = bytes.iter().skip(start);
            let end = start + digits.take_while(|byte| byte.is_ascii_digit()).count();
            let alone = match start.checked_sub(1).and_then(|at| bytes.get(at)) {
                None => true,
                Some(b' ') => start == 1,
                Some(before) => before.is_ascii() && !before.is_ascii_whitespace(),
            };
            if !alone || bytes.get(end).is_some_and(|after| !after.is_ascii()) {
                break;
            }
            tokens += self.plain_word(word.get(..start).unwrap_or(""));
            tokens += (end - start).div_ceil(3);
            word = word.get(end..).unwrap_or("");
        }
        tokens + self.plain_word(word)
    }

    fn plain_word(&self, word: &str) -> usize {
        match word.len() {
            0 => 0,
            1..=WORD => self.words.count(word, self.bpe),
            _ => self.bpe.count_ordinary(word),
        }
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
    (PIECE - CUT_WITHIN..PIECE)
        .rev()
        .find(|&at| text.as_bytes().get(at) == Some(&b' ') && splits(text.as_bytes(), at))
        .or_else(|| {
            (PIECE - 3..=PIECE)
                .rev()
                .find(|&at| text.is_char_boundary(at))
        })
        .unwrap_or(text.len())
}

/// Whether the space at `at` stands between other characters. ASCII on both sides: a neighbour
/// that is part of a longer character may be a space of another script.
fn splits(bytes: &[u8], at: usize) -> bool {
    let plain = |at: usize| {
        let byte = bytes.get(at);
        byte.is_some_and(|byte| byte.is_ascii() && !byte.is_ascii_whitespace())
    };
    at.checked_sub(1).is_some_and(plain) && plain(at + 1)
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
            && memchr::memmem::find(content.raw.as_bytes(), b"\"name\"").is_some()
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
    items: Vec<(usize, u128, Item<'a>)>,
}

impl<'a> Work<'a> {
    /// The item of that place, which is remembered under `key`.
    pub(super) fn add(&mut self, place: usize, key: u128, item: Item<'a>) {
        self.items.push((place, key, item));
    }

    /// Counts everything into its place of `counts` and remembers it. Where it is more than
    /// [`EXACT_BYTES`], half of them goes to the first items that fit and the rest is sampled, so
    /// that a long conversation is known exactly after a few turns.
    pub(super) fn count(self, counter: &Counter, memory: &mut Memory, counts: &mut [u64]) {
        let bytes: usize = self.items.iter().map(|(.., item)| item.bytes()).sum();
        let mut left = if bytes > EXACT_BYTES {
            EXACT_BYTES / 2
        } else {
            EXACT_BYTES
        };
        let mut put = |place: usize, count: u64| {
            if let Some(slot) = counts.get_mut(place) {
                *slot = count;
            }
        };
        let mut rest = Vec::new();
        for (place, key, item) in self.items {
            match left.checked_sub(item.bytes()) {
                Some(after) => {
                    left = after;
                    let count = item.fixed + sample(counter, &item.texts, usize::MAX);
                    memory.put(key, count);
                    put(place, count);
                }
                None => rest.push((place, item)),
            }
        }
        let texts: Vec<_> = rest.iter().flat_map(|(_, item)| &item.texts).collect();
        let mut tokens = sample(counter, &texts, EXACT_BYTES / 2);
        let mut bytes: usize = rest.iter().map(|(_, item)| item.bytes()).sum();
        for (place, item) in &rest {
            // Each its share of what is left, so that together they are all of it.
            let share = u128::from(tokens) * item.bytes() as u128 / bytes.max(1) as u128;
            let share = u64::try_from(share).unwrap_or(u64::MAX);
            tokens -= share;
            bytes -= item.bytes();
            put(*place, item.fixed + share);
        }
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
        tokens += counter.count(piece);
    }
    if every == 1 || counted == 0 {
        return tokens as u64;
    }
    let scaled = tokens as u128 * bytes as u128 / counted as u128;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
