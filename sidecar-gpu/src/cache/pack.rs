//! Answers made small: zstd at level 1 with a dictionary of what answers have in common.
//!
//! Measured on chat answers of 0.7 to 8 KB (`cargo xtask bench cache --only packing`): lz4 leaves 68
//! to 80% of one, zstd at level 1 48 to 60%, at level 3 a hundredth less. The dictionary takes the
//! shortest from 60 to 37% and 2 KB from 55 to 47%, because most of a short answer is the API's own
//! JSON. It is a text of ours, used as it stands: nothing has to be trained, and it is part of the
//! format (see [`super::codec`]).

use std::cell::RefCell;
use std::sync::LazyLock;

use sluice_wire::limit;
use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

/// The largest plain text that is unpacked: a whole settlement, and room for a head.
pub(super) const MAX_PLAIN: usize = limit::SETTLE_BODY + (256 << 10);

const LEVEL: i32 = 1;
/// Part of the format: a changed text is another format.
const DICTIONARY: &[u8] = include_bytes!("dictionary.txt");

static ENCODER: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, LEVEL));
static DECODER: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

thread_local! {
    // Making one costs more than using it; each is some hundred KB.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::default();
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = RefCell::default();
}

/// `plain`, smaller; `None` where that does not pay.
pub(super) fn pack(plain: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR
        .with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = Compressor::with_prepared_dictionary(&ENCODER).ok();
            }
            slot.as_mut()?.compress(plain).ok()
        })
        .filter(|packed| packed.len() < plain.len())
}

/// What [`pack`] made of exactly `len` bytes, at most [`MAX_PLAIN`]; `None` for anything else.
pub(super) fn unpack(packed: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > MAX_PLAIN {
        return None;
    }
    DECOMPRESSOR
        .with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = Decompressor::with_prepared_dictionary(&DECODER).ok();
            }
            // No more than `len` bytes are written, whatever the frame says of itself.
            slot.as_mut()?.decompress(packed, len).ok()
        })
        .filter(|plain| plain.len() == len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_this_format() {
        // Values in shared stores were packed with it: a new text needs a new coding in `codec`.
        assert_eq!(crc32fast::hash(DICTIONARY), 0x480a_ca61);
    }

    #[test]
    fn what_does_not_get_smaller_stays_as_it_is() {
        assert_eq!(pack(b""), None);
        assert_eq!(pack(b"\x00\x9f\x13"), None);
        assert!(pack(&[b'a'; 100]).is_some());
    }

    #[test]
    fn a_value_that_claims_another_size_than_it_has_is_refused() {
        let packed = pack(&[b'a'; 100_000]).unwrap();
        assert!(packed.len() < 1_000);
        assert_eq!(unpack(&packed, 100_000).unwrap().len(), 100_000);
        for wrong in [0, 10, 99_999, 100_001, MAX_PLAIN, MAX_PLAIN + 1, usize::MAX] {
            assert_eq!(unpack(&packed, wrong), None, "{wrong}");
        }
    }
}
