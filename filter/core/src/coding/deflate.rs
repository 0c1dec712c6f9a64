//! gzip (RFC 1952) and deflate: zlib's (RFC 1950), as it is meant, or raw (RFC 1951), as some send it.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::memory::{Lease, Memory, NoMemory};
use super::{PIECE, Sink, Step, Unreadable};

/// What `miniz_oxide`'s decoder takes: its window of 32 KiB, its tables.
const INFLATE: usize = 44 << 10;

/// Reads on; returns how many bytes were used, and whether the data ended with them. If it did not,
/// all were used.
fn inflate(
    stream: &mut Decompress,
    bytes: &[u8],
    sink: Sink<'_>,
) -> Result<(usize, bool), Unreadable> {
    let mut piece = [0; PIECE];
    let mut used = 0;
    loop {
        let (took, gave) = (stream.total_in(), stream.total_out());
        let rest = bytes.get(used..).unwrap_or(&[]);
        let status = stream
            .decompress(rest, &mut piece, FlushDecompress::None)
            .map_err(|_| Unreadable::Damaged)?;
        let took = (stream.total_in() - took) as usize;
        let gave = (stream.total_out() - gave) as usize;
        used += took;
        sink(piece.get(..gave).unwrap_or(&[]))?;
        if status == Status::StreamEnd {
            return Ok((used, true));
        }
        if used == bytes.len() && gave < PIECE {
            return Ok((used, false));
        }
        if took == 0 && gave == 0 {
            return Err(Unreadable::Damaged);
        }
    }
}

/// `content-encoding: deflate`.
#[derive(Debug)]
pub(super) struct Deflate {
    /// None until the first byte, which tells zlib's header from raw data: no encoder begins raw
    /// data with a stored block whose padding is not zero.
    stream: Option<Decompress>,
    ended: bool,
    _lease: Lease,
}

impl Deflate {
    pub(super) fn new(memory: &Memory) -> Result<Self, NoMemory> {
        Ok(Deflate {
            stream: None,
            ended: false,
            _lease: memory.lease(INFLATE)?,
        })
    }
}

impl Step for Deflate {
    fn push(&mut self, bytes: &[u8], sink: Sink<'_>) -> Result<(), Unreadable> {
        let (Some(first), false) = (bytes.first(), self.ended) else {
            // What follows the end means nothing, here as in browsers.
            return Ok(());
        };
        let stream = self
            .stream
            .get_or_insert_with(|| Decompress::new(first & 0x0f == 8));
        (_, self.ended) = inflate(stream, bytes, sink)?;
        Ok(())
    }

    fn ended(&self) -> bool {
        self.ended
    }
}

/// `content-encoding: gzip`: members one after another.
#[derive(Debug)]
pub(super) struct Gzip {
    at: At,
    /// Header flags whose fields are still to come.
    flags: u8,
    stream: Decompress,
    crc: Crc,
    _lease: Lease,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The header's ten bytes that are always there.
    Header(u8),
    /// The length of the extra field, low byte first.
    ExtraLow,
    ExtraHigh(u8),
    /// So many bytes that mean nothing to us.
    Skip(u16),
    /// A text that ends with a zero.
    Text,
    Body,
    /// Checksum and length, as far as they have been read.
    Trailer(u8, u64),
    /// Another member, or anything: padding is ignored, as `gzip` ignores it.
    Between,
    Over,
}

impl Gzip {
    pub(super) fn new(memory: &Memory) -> Result<Self, NoMemory> {
        Ok(Gzip {
            at: At::Header(0),
            flags: 0,
            stream: Decompress::new(false),
            crc: Crc::new(),
            _lease: memory.lease(INFLATE)?,
        })
    }

    /// One byte that is not compressed data.
    fn byte(&mut self, byte: u8) -> Result<(), Unreadable> {
        self.at = match self.at {
            At::Header(at) => {
                let fits = match at {
                    0 => byte == 0x1f,
                    1 => byte == 0x8b,
                    2 => byte == 8,
                    3 => byte & 0xe0 == 0,
                    _ => true,
                };
                if !fits {
                    return Err(Unreadable::Damaged);
                }
                if at == 3 {
                    self.flags = byte;
                }
                if at < 9 {
                    At::Header(at + 1)
                } else {
                    self.field()
                }
            }
            At::ExtraLow => At::ExtraHigh(byte),
            At::ExtraHigh(low) => match u16::from_le_bytes([low, byte]) {
                0 => self.field(),
                length => At::Skip(length),
            },
            At::Skip(left) if left > 1 => At::Skip(left - 1),
            At::Text if byte != 0 => At::Text,
            At::Skip(_) | At::Text => self.field(),
            At::Trailer(read, value) => {
                let value = value | u64::from(byte) << (8 * read);
                if read < 7 {
                    At::Trailer(read + 1, value)
                } else if value == u64::from(self.crc.amount()) << 32 | u64::from(self.crc.sum()) {
                    At::Between
                } else {
                    return Err(Unreadable::Damaged);
                }
            }
            At::Between if byte == 0x1f => {
                self.stream.reset(false);
                self.crc.reset();
                At::Header(1)
            }
            At::Between | At::Over => At::Over,
            At::Body => At::Body,
        };
        Ok(())
    }

    /// The next field of the header that its flags announce.
    fn field(&mut self) -> At {
        for (flag, at) in [
            (0x04, At::ExtraLow),
            (0x08, At::Text),
            (0x10, At::Text),
            (0x02, At::Skip(2)),
        ] {
            if self.flags & flag != 0 {
                self.flags &= !flag;
                return at;
            }
        }
        At::Body
    }
}

impl Step for Gzip {
    fn push(&mut self, mut bytes: &[u8], sink: Sink<'_>) -> Result<(), Unreadable> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.at != At::Body {
                self.byte(*first)?;
                bytes = rest;
                continue;
            }
            let crc = &mut self.crc;
            let (used, ended) = inflate(&mut self.stream, bytes, &mut |piece| {
                crc.update(piece);
                sink(piece)
            })?;
            if ended {
                self.at = At::Trailer(0, 0);
            }
            bytes = bytes.get(used..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn ended(&self) -> bool {
        matches!(self.at, At::Between | At::Over)
    }
}
