//! An entry as bytes in a store that others can write to: versioned, and checked when read.
//!
//! `SLC1`, CRC-32 of all that follows, `stored_ms`, `expires_ms`, length of the head (all little
//! endian), the head as JSON, the answer. Another version, another program's value or a damaged one
//! is told apart from an entry and treated as a miss.

use bytes::Bytes;

use super::Entry;

const MAGIC: &[u8; 4] = b"SLC1";
const FIXED: usize = 4 + 4 + 8 + 8 + 4;

/// Why bytes are no entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// Too short, or another program's or version's.
    #[error("expected a value that begins with `SLC1`")]
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

impl Entry {
    /// The entry as bytes.
    ///
    /// # Errors
    /// When the head cannot be serialised or is longer than 4 GiB; neither happens.
    pub fn encode(&self) -> Result<Vec<u8>, Corrupt> {
        let head = serde_json::to_vec(&self.head).map_err(|it| Corrupt::Head(it.to_string()))?;
        let length = u32::try_from(head.len()).map_err(|it| Corrupt::Head(it.to_string()))?;
        let mut bytes = Vec::with_capacity(FIXED + head.len() + self.body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.stored_ms.to_le_bytes());
        bytes.extend_from_slice(&self.expires_ms.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&self.body);
        let checksum = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
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
        let expected = u32::from_le_bytes(array(bytes, 4));
        let found = crc32fast::hash(&bytes[8..]);
        if expected != found {
            return Err(Corrupt::Checksum { expected, found });
        }
        let length = u32::from_le_bytes(array(bytes, 24));
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| FIXED.checked_add(length))
            .filter(|&end| end <= bytes.len())
            .ok_or_else(|| Corrupt::Head("its length passes the value's".to_owned()))?;
        let head = serde_json::from_slice(&bytes[FIXED..end])
            .map_err(|it| Corrupt::Head(it.to_string()))?;
        Ok(Entry {
            stored_ms: u64::from_le_bytes(array(bytes, 8)),
            expires_ms: u64::from_le_bytes(array(bytes, 16)),
            head,
            body: bytes.slice(end..),
        })
    }
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
            expires_ms: 1_700_000_600_000,
            head: EntryHead {
                format: "openai_chat".to_owned(),
                model: "gpt-4o-mini".to_owned(),
                tier: Some("small".to_owned()),
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
        for value in [&b""[..], b"hello", b"SLC2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert_eq!(
                Entry::decode(&Bytes::from_static(value)),
                Err(Corrupt::Foreign)
            );
        }
    }
}
