//! Digests made before: a conversation's stays the same until more of it is left out, so it is made
//! once.

use std::collections::HashMap;

use crate::policy::trim::turns::Turns;

/// Digests in one generation; there are two. Of 500 tokens each they take half a mebibyte.
const GENERATION: usize = 128;

/// Bounded: when the young generation is full, it becomes the old one, and the old one is
/// forgotten. What is asked for again moves to the young one.
#[derive(Debug, Default)]
pub struct DigestMemory {
    young: HashMap<[u8; 32], Option<String>, rustc_hash::FxBuildHasher>,
    old: HashMap<[u8; 32], Option<String>, rustc_hash::FxBuildHasher>,
}

impl DigestMemory {
    /// The digest of what `keep` leaves out, made where it is not known. `salt` keeps apart what
    /// the same exchanges have digests of: their tokens, the vocabulary that counts them.
    ///
    /// A digest that hangs on the question is not for this memory: it is another each time.
    pub fn get(
        &mut self,
        turns: &Turns<'_>,
        keep: &[bool],
        salt: u64,
        make: impl FnOnce() -> Option<String>,
    ) -> Option<String> {
        let key = key(turns, keep, salt);
        if let Some(known) = self.young.get(&key) {
            return known.clone();
        }
        let digest = self.old.remove(&key).unwrap_or_else(make);
        if self.young.len() >= GENERATION {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, digest.clone());
        digest
    }
}

/// Of the raw items that go, in order. A hash that nobody can find two texts for: a digest is told
/// to whoever asks with the same, and must not be another's.
fn key(turns: &Turns<'_>, keep: &[bool], salt: u64) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(&salt.to_le_bytes());
    for (_, exchange) in turns.dropped(keep) {
        for item in turns.going(exchange) {
            // A length in front: two lists are the same only item by item.
            hash.update(&(item.content.raw.len() as u64).to_le_bytes());
            hash.update(item.content.raw.as_bytes());
        }
    }
    *hash.finalize().as_bytes()
}
