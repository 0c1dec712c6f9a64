//! An entry as bytes in a store that others can write to: versioned, and checked when read.
//!
//! `SLC2`, the token as 16 decimal digits (so that a script in the store can compare it), CRC-32 of
//! all that follows, length of the head (little endian), the head as JSON, the answer. Another
//! version, another program's value or a damaged one is told apart from an entry and treated as a
//! miss.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_wire::EntryHead;

use super::Entry;

const MAGIC: &[u8; 4] = b"SLC2";
/// Where the token's digits stand, for scripts.
pub(super) const TOKEN: std::ops::Range<usize> = 4..20;
const CHECKED: usize = TOKEN.end + 4;
const FIXED: usize = CHECKED + 4;
/// The largest token that 16 digits and a double hold exactly.
const MAX_TOKEN: u64 = 9_007_199_254_740_991;

/// What stands before the answer.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    stored_ms: u64,
    built_ms: u64,
    fresh_ms: u64,
    stale_ms: u64,
    keep_ms: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    entry: Cow<'a, EntryHead>,
}

/// Why bytes are no entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// Too short, or another program's or version's.
    #[error("expected a value that begins with `SLC2`")]
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
}

/// A token as it stands in a value.
pub(super) fn digits(token: u64) -> String {
    format!("{:016}", token.min(MAX_TOKEN))
}

impl Entry {
    /// The entry as bytes.
    ///
    /// # Errors
    /// When the head cannot be serialised or is longer than 4 GiB; neither happens.
    pub fn encode(&self) -> Result<Vec<u8>, Corrupt> {
        let head = Head {
            stored_ms: self.stored_ms,
            built_ms: self.built_ms,
            fresh_ms: self.fresh_ms,
            stale_ms: self.stale_ms,
            keep_ms: self.keep_ms,
            tags: self.tags.clone(),
            entry: Cow::Borrowed(&self.head),
        };
        let head = serde_json::to_vec(&head).map_err(|it| Corrupt::Head(it.to_string()))?;
        let length = u32::try_from(head.len()).map_err(|it| Corrupt::Head(it.to_string()))?;
        let mut bytes = Vec::with_capacity(FIXED + head.len() + self.body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(digits(self.token).as_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&self.body);
        let checksum = checksum(&bytes);
        bytes[TOKEN.end..CHECKED].copy_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    /// Reads what [`Entry::encode`] wrote.
    ///
    /// # Errors
    /// See [`Corrupt`].
    pub fn decode(bytes: &Bytes) -> Result<Self, Corrupt> {
        if bytes.len() < FIXED || &bytes[..4] != MAGIC {
            return Err(Corrupt::Foreign);
        }
        let expected = u32::from_le_bytes(array(bytes, TOKEN.end));
        let found = checksum(bytes);
        if expected != found {
            return Err(Corrupt::Checksum { expected, found });
        }
        let token = std::str::from_utf8(&bytes[TOKEN])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| Corrupt::Head("its token is no number".to_owned()))?;
        let length = u32::from_le_bytes(array(bytes, CHECKED));
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| FIXED.checked_add(length))
            .filter(|&end| end <= bytes.len())
            .ok_or_else(|| Corrupt::Head("its length passes the value's".to_owned()))?;
        let head: Head<'_> = serde_json::from_slice(&bytes[FIXED..end])
            .map_err(|it| Corrupt::Head(it.to_string()))?;
        Ok(Entry {
            stored_ms: head.stored_ms,
            built_ms: head.built_ms,
            fresh_ms: head.fresh_ms,
            stale_ms: head.stale_ms,
            keep_ms: head.keep_ms,
            token,
            tags: head.tags,
            head: head.entry.into_owned(),
            body: bytes.slice(end..),
        })
    }
}

/// Of everything but itself.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..TOKEN.end]);
    crc.update(&bytes[CHECKED..]);
    crc.finalize()
}

/// `N` bytes from `at`, which the caller has checked to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
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
            tags: vec!["doc:1".to_owned()],
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

    #[test]
    fn an_entry_survives_a_round_trip() {
        let bytes = entry().encode().unwrap();
        assert_eq!(Entry::decode(&bytes.into()), Ok(entry()));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let bytes = entry().encode().unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Entry::decode(&damaged.into()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_value_cut_anywhere_is_no_entry() {
        let bytes = Bytes::from(entry().encode().unwrap());
        for end in 0..bytes.len() {
            assert!(Entry::decode(&bytes.slice(..end)).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn another_programs_value_is_foreign() {
        for value in [&b""[..], b"hello", b"SLC1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert_eq!(
                Entry::decode(&Bytes::from_static(value)),
                Err(Corrupt::Foreign)
            );
        }
    }
}
