//! Counts of messages seen before, so that a conversation's old turns are counted once.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Counts in one generation; there are two, so at most twice as many are held: two hundred
/// conversations of forty messages and more, in a mebibyte.
const GENERATION: usize = 8192;

/// Bounded: when the young generation is full, it becomes the old one, and the old one is
/// forgotten. What is asked for again moves to the young one, so a conversation that goes on
/// stays known.
#[derive(Debug, Default)]
pub(super) struct Memory {
    young: Counts,
    old: Counts,
}

type Counts = HashMap<u128, u32, BuildHasherDefault<Hashed>>;

impl Memory {
    /// Key of a text by its digest; `salt` keeps apart what the same bytes mean in different places.
    pub(super) fn key(digest: u128, salt: u64) -> u128 {
        // An odd factor, so that salts, which are small numbers, differ in every bit.
        digest ^ u128::from(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn get(&mut self, key: u128) -> Option<u64> {
        if let Some(&count) = self.young.get(&key) {
            return Some(u64::from(count));
        }
        let count = self.old.remove(&key)?;
        self.put(key, u64::from(count));
        Some(u64::from(count))
    }

    pub(super) fn put(&mut self, key: u128, count: u64) {
        if self.young.len() >= GENERATION {
            // Swapped and cleared rather than dropped: the tables keep their room.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young
            .insert(key, u32::try_from(count).unwrap_or(u32::MAX));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// The key is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}
