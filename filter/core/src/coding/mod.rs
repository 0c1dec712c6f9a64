//! Compressed answers, read for their usage: bytes cut anywhere in, plain bytes out.
//!
//! A request that nothing may touch keeps its `accept-encoding`, and so providers compress. What is
//! decoded here is only looked at; the client gets the bytes that came.
//!
//! zstd is not decoded: `ruzstd` 0.9.1 gives out a byte only when the window (2 MiB by default) is
//! full or the frame over. Each stream would take that much, one that is broken off would tell
//! nothing, and its interface for slices panics on damaged frames, which would end the VM.

mod brotli;
mod deflate;
mod memory;

use std::fmt;

use brotli::Brotli;
use deflate::{Deflate, Gzip};
pub use memory::Memory;
use memory::NoMemory;

/// Most that all decoders of a VM take together, in bytes. Past it an answer is not read.
///
/// One gzip or deflate stream takes 44 KiB. Brotli's takes 4 KiB of state, its code tables (some
/// ten KiB as encoders write them) and a ring of twice the plain bytes at most, until that is the
/// window (4 MiB by default, 16 MiB at most); while it grows, the old ring is there too.
pub const MOST_MEMORY: usize = 6 << 20;

/// Codings one after another that are undone. Servers apply one, and a proxy may add another.
const MOST_CODINGS: usize = 2;

/// Plain bytes that an answer may have whatever it came in.
const FREE: u64 = 1 << 20;

/// And so many more per byte that came. Events shrink to a thirtieth; a bomb to a thousandth.
const MOST_RATIO: u64 = 100;

/// Bytes given out at once at most.
const PIECE: usize = 8 << 10;

/// Where plain bytes go; an error of its own stops the decoder.
type Sink<'s> = &'s mut dyn FnMut(&[u8]) -> Result<(), Unreadable>;

/// Why an answer is not read. It passes all the same, and is booked by estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A `content-encoding` of which we have no decoder, or too many of them.
    #[error("a content-encoding that is not read")]
    Unknown,
    /// It is not what `content-encoding` says, or damaged.
    #[error("damaged compressed data")]
    Damaged,
    /// It ended in the middle.
    #[error("compressed data without its end")]
    Cut,
    /// More plain bytes than are read, or more than an honest answer has.
    #[error("too many bytes once decompressed")]
    TooLong,
    /// [`MOST_MEMORY`] is taken.
    #[error("too many compressed answers at once")]
    NoMemory,
}

impl From<NoMemory> for Unreadable {
    fn from(_: NoMemory) -> Self {
        Unreadable::NoMemory
    }
}

/// A content coding (RFC 9110 §8.4.1, RFC 7932).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
}

impl Coding {
    fn named(name: &str) -> Result<Coding, Unreadable> {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Ok(Coding::Gzip),
            "deflate" => Ok(Coding::Deflate),
            "br" => Ok(Coding::Brotli),
            _ => Err(Unreadable::Unknown),
        }
    }

    fn step(self, memory: &Memory) -> Result<Box<dyn Step>, Unreadable> {
        Ok(match self {
            Coding::Gzip => Box::new(Gzip::new(memory)?),
            Coding::Deflate => Box::new(Deflate::new(memory)?),
            Coding::Brotli => Box::new(Brotli::new(memory)?),
        })
    }
}

/// Undoes one coding.
trait Step: fmt::Debug {
    /// More bytes; what they give goes to `sink` in pieces of [`PIECE`] bytes at most.
    fn push(&mut self, bytes: &[u8], sink: Sink<'_>) -> Result<(), Unreadable>;

    /// Whether the data came to its end, and its checksum fits where it has one.
    fn ended(&self) -> bool;
}

/// Undoes the codings of one answer.
#[derive(Debug)]
pub struct Decoder {
    /// In the order in which they are undone.
    codings: Vec<Coding>,
    memory: Memory,
    /// Made when the first bytes come: an answer that is held until it is whole needs them late.
    steps: Vec<Box<dyn Step>>,
    /// Plain bytes that may still come out.
    spare: u64,
}

impl Decoder {
    /// For an answer with this `content-encoding`; None where it is plain.
    ///
    /// # Errors
    /// When one of its codings is not known, or there are too many.
    pub fn new(content_encoding: &str, memory: &Memory) -> Result<Option<Self>, Unreadable> {
        let names = content_encoding.split(',').map(str::trim);
        let codings = names
            .rev()
            .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
            .map(Coding::named)
            .collect::<Result<Vec<_>, _>>()?;
        match codings.len() {
            0 => Ok(None),
            1..=MOST_CODINGS => Ok(Some(Decoder {
                codings,
                memory: memory.clone(),
                steps: Vec::new(),
                spare: FREE,
            })),
            _ => Err(Unreadable::Unknown),
        }
    }

    /// More bytes, cut anywhere; what they give goes to `sink`, whose own error stops it.
    ///
    /// # Errors
    /// When the rest of the answer cannot be read.
    pub fn push(&mut self, bytes: &[u8], sink: Sink<'_>) -> Result<(), Unreadable> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.steps.is_empty() {
            let steps = self.codings.iter().map(|coding| coding.step(&self.memory));
            self.steps = steps.collect::<Result<_, _>>()?;
        }
        self.spare = self.spare.saturating_add(MOST_RATIO * bytes.len() as u64);
        undo(&mut self.steps, bytes, &mut self.spare, sink)
    }

    /// The answer is over.
    ///
    /// # Errors
    /// When it lacks its end, so that what was read of it may be anything.
    pub fn end(&self) -> Result<(), Unreadable> {
        if !self.steps.is_empty() && self.steps.iter().all(|step| step.ended()) {
            Ok(())
        } else {
            Err(Unreadable::Cut)
        }
    }

    /// Reads a whole answer, of which `watch` sees every part; None when it has more than so many
    /// plain bytes.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub fn whole(
        mut self,
        bytes: &[u8],
        most: usize,
        watch: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Vec<u8>>, Unreadable> {
        let mut plain = Some(Vec::new());
        self.push(bytes, &mut |piece| {
            watch(piece);
            match &mut plain {
                Some(kept) if kept.len() + piece.len() <= most => kept.extend_from_slice(piece),
                _ => plain = None,
            }
            Ok(())
        })?;
        self.end()?;
        Ok(plain)
    }
}

fn undo(
    steps: &mut [Box<dyn Step>],
    bytes: &[u8],
    spare: &mut u64,
    sink: Sink<'_>,
) -> Result<(), Unreadable> {
    let Some((step, later)) = steps.split_first_mut() else {
        return sink(bytes);
    };
    step.push(bytes, &mut |piece| {
        // What an inner coding gives counts too, so that the work is bounded by what came.
        *spare = spare
            .checked_sub(piece.len() as u64)
            .ok_or(Unreadable::TooLong)?;
        undo(later, piece, spare, sink)
    })
}
