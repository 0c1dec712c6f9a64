//! An entry as bytes, in every store: small, versioned, and checked when read.
//!
//! `SLC3`, the token as 16 decimal digits (in clear, so that a script in Redis can compare it),
//! CRC-32 of everything else, how the rest is coded (0 plain, 1 as [`super::pack`] does), then as
//! varints: when it was stored, for how long before that its request had been under way, how long
//! it is fresh, stale and kept, the length of its head, and of head and answer when they are
//! packed; then both, the head as JSON. Another version, another program's value or a damaged one
//! is told apart from an entry and treated as a miss.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_wire::EntryHead;

use super::{Entry, pack};

/// What a value of this version begins with.
pub(super) const MAGIC: &str = "SLC3";
/// Where the token's digits stand, for scripts.
pub(super) const TOKEN: std::ops::Range<usize> = 4..20;
const CHECKED: usize = TOKEN.end + 4;
/// The largest token that 16 digits and a double hold exactly.
const MAX_TOKEN: u64 = 9_007_199_254_740_991;

const PLAIN: u8 = 0;
const PACKED: u8 = 1;

/// What stands before the answer.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    tags: Cow<'a, [String]>,
    entry: Cow<'a, EntryHead>,
}

/// Why bytes are no entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// Too short, or another program's or version's.
    #[error("expected a value that begins with `SLC3`")]
    Foreign,
    /// The checksum does not match.
    #[error("expected checksum {expected:08x}, found {found:08x}")]
    Checksum {
        /// As stored.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// The head is not what this version writes.
    #[error("head: {0}")]
    Head(String),
    /// The packed part is not what it says it is.
    #[error("expected a packed value of {0} bytes, found another")]
    Packed(u64),
}

impl Corrupt {
    /// The word for it in metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Corrupt::Foreign => "foreign",
            Corrupt::Checksum { .. } => "checksum",
            Corrupt::Head(_) => "head",
            Corrupt::Packed(_) => "packed",
        }
    }
}

/// A token as it stands in a value.
pub(super) fn digits(token: u64) -> String {
    format!("{:016}", token.min(MAX_TOKEN))
}

/// The token of a value; 0 where it has none.
pub(super) fn token(bytes: &[u8]) -> u64 {
    bytes.get(TOKEN).and_then(number).unwrap_or(0)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl Entry {
    /// The entry as bytes.
    ///
    /// # Errors
    /// When the head cannot be serialised, which does not happen.
    pub fn encode(&self) -> Result<Vec<u8>, Corrupt> {
        let head = Head {
            tags: Cow::Borrowed(&self.tags),
            entry: Cow::Borrowed(&self.head),
        };
        let mut plain = serde_json::to_vec(&head).map_err(|it| Corrupt::Head(it.to_string()))?;
        let head_len = plain.len();
        plain.extend_from_slice(&self.body);
        let packed = pack::pack(&plain);
        let rest = packed.as_ref().unwrap_or(&plain);

        let mut bytes = Vec::with_capacity(CHECKED + 32 + rest.len());
        bytes.extend_from_slice(MAGIC.as_bytes());
        bytes.extend_from_slice(digits(self.token).as_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.push(if packed.is_some() { PACKED } else { PLAIN });
        for number in [
            self.stored_ms,
            self.stored_ms.saturating_sub(self.built_ms),
            self.fresh_ms.saturating_sub(self.stored_ms),
            self.stale_ms.saturating_sub(self.fresh_ms),
            self.keep_ms.saturating_sub(self.stale_ms),
            head_len as u64,
        ] {
            put_varint(&mut bytes, number);
        }
        if packed.is_some() {
            put_varint(&mut bytes, plain.len() as u64);
        }
        bytes.extend_from_slice(rest);
        let checksum = checksum(&bytes);
        bytes[TOKEN.end..CHECKED].copy_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    /// Reads what [`Entry::encode`] wrote.
    ///
    /// # Errors
    /// See [`Corrupt`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let head = |what: &str| Corrupt::Head(what.to_owned());
        if bytes.len() <= CHECKED || !bytes.starts_with(MAGIC.as_bytes()) {
            return Err(Corrupt::Foreign);
        }
        let mut stored = [0; 4];
        stored.copy_from_slice(&bytes[TOKEN.end..CHECKED]);
        let expected = u32::from_le_bytes(stored);
        let found = checksum(bytes);
        if expected != found {
            return Err(Corrupt::Checksum { expected, found });
        }
        let token = number(&bytes[TOKEN]).ok_or_else(|| head("its token is no number"))?;
        let coding = bytes[CHECKED];
        let mut rest = &bytes[CHECKED + 1..];
        let mut next = || varint(&mut rest).ok_or_else(|| head("a number has no end"));
        let stored_ms = next()?;
        let built_ms = stored_ms.saturating_sub(next()?);
        let fresh_ms = stored_ms.saturating_add(next()?);
        let stale_ms = fresh_ms.saturating_add(next()?);
        let keep_ms = stale_ms.saturating_add(next()?);
        let head_len = next()?;
        let plain = match coding {
            PLAIN => Bytes::copy_from_slice(rest),
            PACKED => {
                let len = next()?;
                usize::try_from(len)
                    .ok()
                    .and_then(|len| pack::unpack(rest, len))
                    .ok_or(Corrupt::Packed(len))?
                    .into()
            }
            _ => return Err(head("its coding is not known")),
        };
        let end = usize::try_from(head_len)
            .ok()
            .filter(|&end| end <= plain.len())
            .ok_or_else(|| head("its length passes the value's"))?;
        let Head { tags, entry } =
            serde_json::from_slice(&plain[..end]).map_err(|it| Corrupt::Head(it.to_string()))?;
        Ok(Entry {
            stored_ms,
            built_ms,
            fresh_ms,
            stale_ms,
            keep_ms,
            token,
            tags: tags.into_owned(),
            head: entry.into_owned(),
            body: plain.slice(end..),
        })
    }
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

/// Takes a number off `bytes`; `None` when it does not end, or fit.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if low << shift >> shift != low {
            return None;
        }
        number |= low << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Of everything but itself.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..TOKEN.end]);
    crc.update(&bytes[CHECKED..]);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_wire::{EntryHead, Usage, Usd};

    fn entry() -> Entry {
        Entry {
            stored_ms: 1_700_000_000_000,
            built_ms: 1_699_999_999_000,
            fresh_ms: 1_700_000_600_000,
            stale_ms: 1_700_000_700_000,
            keep_ms: 1_700_000_800_000,
            token: 1_699_999_999_000_001,
            tags: vec!["acme/doc:1".to_owned()],
            head: EntryHead {
                format: "openai_chat".to_owned(),
                model: "gpt-4o-mini".to_owned(),
                tier: Some("small".to_owned()),
                status: 200,
                usage: Usage {
                    prompt: 12,
                    completion: 3,
                    ..Usage::default()
                },
                cost: Some(Usd(42)),
            },
            body: Bytes::from_static(b"{\"answer\":\"yes\"}"),
        }
    }

    fn entries() -> [Entry; 2] {
        let long = Entry {
            tags: Vec::new(),
            head: EntryHead::default(),
            body: Bytes::from(b"{\"answer\":\"no\"}".repeat(40)),
            ..entry()
        };
        [entry(), long]
    }

    /// A value whose checksum is right, whatever else it is.
    fn forged(coding: u8, numbers: &[u64], rest: &[u8]) -> Vec<u8> {
        let mut bytes = entry().encode().unwrap()[..CHECKED].to_vec();
        bytes.push(coding);
        for &number in numbers {
            put_varint(&mut bytes, number);
        }
        bytes.extend_from_slice(rest);
        let checksum = checksum(&bytes).to_le_bytes();
        bytes[TOKEN.end..CHECKED].copy_from_slice(&checksum);
        bytes
    }

    #[test]
    fn an_entry_survives_a_round_trip() {
        for entry in entries() {
            let bytes = entry.encode().unwrap();
            assert_eq!(token(&bytes), entry.token);
            assert_eq!(Entry::decode(&bytes), Ok(entry));
        }
    }

    #[test]
    fn an_entry_that_was_not_packed_is_read_too() {
        let head = br#"{"entry":{"format":"f","model":"m","usage":{"prompt":1,"cached":0,"cache_write":0,"completion":2,"reasoning":0}}}"#;
        let times = [50, 10, 100, 0, 20, head.len() as u64];
        let entry = Entry::decode(&forged(PLAIN, &times, &[head, &b"body"[..]].concat())).unwrap();
        let found = (
            entry.built_ms,
            entry.fresh_ms,
            entry.stale_ms,
            entry.keep_ms,
        );
        assert_eq!(found, (40, 150, 150, 170));
        assert_eq!((&*entry.head.model, &entry.body[..]), ("m", &b"body"[..]));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        for entry in entries() {
            let bytes = entry.encode().unwrap();
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                assert!(Entry::decode(&damaged).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_value_cut_anywhere_is_no_entry() {
        for entry in entries() {
            let bytes = entry.encode().unwrap();
            for end in 0..bytes.len() {
                assert!(Entry::decode(&bytes[..end]).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn another_programs_value_is_foreign() {
        for value in [&b""[..], b"hello", b"SLC2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert_eq!(Entry::decode(value), Err(Corrupt::Foreign));
        }
    }

    #[test]
    fn a_forged_value_is_refused_before_it_takes_memory() {
        let plain = vec![b'a'; 1 << 20];
        let bomb = pack::pack(&plain).unwrap();
        let times = [1, 1, 1, 1, 1];
        let value = |coding, lens: &[u64], rest: &[u8]| {
            let numbers = [&times[..], lens].concat();
            Entry::decode(&forged(coding, &numbers, rest)).unwrap_err()
        };
        assert_eq!(
            value(PACKED, &[10, u64::MAX], &bomb),
            Corrupt::Packed(u64::MAX)
        );
        let most = pack::MAX_PLAIN as u64 + 1;
        assert_eq!(value(PACKED, &[10, most], &bomb), Corrupt::Packed(most));
        assert_eq!(value(PACKED, &[10, 100], &bomb), Corrupt::Packed(100));
        assert_eq!(value(PACKED, &[10, 3], b"abc"), Corrupt::Packed(3));
        assert!(matches!(
            value(PACKED, &[1 << 30, 1 << 20], &bomb),
            Corrupt::Head(_)
        ));
        assert!(matches!(value(PLAIN, &[u64::MAX], b"{}"), Corrupt::Head(_)));
        assert!(matches!(value(PLAIN, &[2], b"{}"), Corrupt::Head(_)));
        assert!(matches!(value(9, &[2], b"{}"), Corrupt::Head(_)));
        let endless = forged(PLAIN, &[], &[0xff; 40]);
        assert!(matches!(Entry::decode(&endless), Err(Corrupt::Head(_))));
    }

    #[test]
    fn numbers_of_every_size_survive() {
        for shift in 0..64 {
            for number in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, number);
                let mut rest = &bytes[..];
                assert_eq!((varint(&mut rest), rest), (Some(number), &[][..]));
                assert_eq!(varint(&mut &bytes[..bytes.len() - 1]), None);
            }
        }
        assert_eq!(varint(&mut &[0xff; 10][..]), None, "more than 64 bits");
    }
}
