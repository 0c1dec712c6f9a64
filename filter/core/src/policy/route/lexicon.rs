//! The words that rules look for, in one table: a word of the text costs one hash and one probe.

use std::sync::LazyLock;

use super::RULES;
use super::rule::{GROUPS, Hits};

/// Slots of the table; a power of two, at least twice the number of words (a test watches it).
const SLOTS: usize = 4096;

/// The table of all rules' words. Built once: it depends on nothing but the code.
pub(super) static LEXICON: LazyLock<Lexicon> = LazyLock::new(Lexicon::build);

/// A word's hash, built letter by letter (FNV-1a, 32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WordHash(u32);

impl WordHash {
    pub(super) const EMPTY: WordHash = WordHash(0x811c_9dc5);

    /// Stands for every number.
    pub(super) const NUMBER: WordHash = WordHash(0x0030_0030);

    /// With one more letter, which is lower case already.
    #[inline]
    pub(super) fn with(self, letter: u32) -> WordHash {
        WordHash((self.0 ^ letter).wrapping_mul(0x0100_0193))
    }

    /// Of two words in this order.
    #[inline]
    pub(super) fn pair(self, next: WordHash) -> WordHash {
        WordHash(self.0.rotate_left(7).wrapping_mul(0x9E37_79B1) ^ next.0)
    }

    /// The hash itself.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// A gram by its hash.
    pub(super) fn of_bits(bits: u32) -> WordHash {
        WordHash(bits)
    }

    /// Place in the sieve, and the bit there. Taken from other bits than the slot is.
    #[inline]
    fn sieve(self) -> (usize, u64) {
        let at = self.0.wrapping_mul(0x85EB_CA6B) >> 17;
        (at as usize / 64 % (SIEVE / 64), 1 << (at % 64))
    }

    fn slot(self) -> usize {
        // The multiplication spreads into the high bits.
        (self.0.wrapping_mul(0x9E37_79B1) >> 20) as usize % SLOTS
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    /// Rule and group, plus one; zero is empty.
    place: u16,
}

/// Bits of the sieve in front of the table; a power of two. Nine words of ten are in no rule, and
/// nineteen of twenty of these are told so by its 4 KiB, which stay in the processor's first cache
/// where the table does not.
const SIEVE: usize = 1 << 15;

#[derive(Debug)]
pub(super) struct Lexicon {
    slots: Vec<Slot>,
    sieve: Vec<u64>,
    words: usize,
}

impl Lexicon {
    fn build() -> Lexicon {
        let empty = Slot { hash: 0, place: 0 };
        let mut lexicon = Lexicon {
            slots: vec![empty; SLOTS],
            sieve: vec![0; SIEVE / 64],
            words: 0,
        };
        for (rule, &(_, rule_impl)) in RULES.iter().enumerate() {
            for (group, words) in rule_impl.words().iter().take(GROUPS).enumerate() {
                let place = (rule * GROUPS + group + 1) as u16;
                for entry in words.split_whitespace() {
                    lexicon.put(hash_entry(entry), place);
                }
            }
        }
        lexicon
    }

    /// The first rule to name a word has it.
    fn put(&mut self, hash: WordHash, place: u16) {
        if self.words >= SLOTS / 2 || self.find(hash).is_some() {
            return;
        }
        let mut at = hash.slot();
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.place == 0 {
                *slot = Slot {
                    hash: hash.0,
                    place,
                };
                self.words += 1;
                let (at, bit) = hash.sieve();
                if let Some(bits) = self.sieve.get_mut(at) {
                    *bits |= bit;
                }
                return;
            }
            at = (at + 1) % SLOTS;
        }
    }

    #[inline]
    fn find(&self, hash: WordHash) -> Option<u16> {
        let (at, bit) = hash.sieve();
        if self.sieve.get(at)? & bit == 0 {
            return None;
        }
        self.find_slot(hash)
    }

    fn find_slot(&self, hash: WordHash) -> Option<u16> {
        let mut at = hash.slot();
        loop {
            let slot = self.slots.get(at)?;
            if slot.place == 0 {
                return None;
            }
            if slot.hash == hash.0 {
                return Some(slot.place - 1);
            }
            at = (at + 1) % SLOTS;
        }
    }

    /// Counts a word or phrase, if a rule looks for it.
    #[inline]
    pub(super) fn hit(&self, hash: WordHash, hits: &mut Hits) {
        if let Some(place) = self.find(hash)
            && let Some(count) = hits.0.get_mut(usize::from(place))
        {
            *count = count.saturating_add(1);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.words
    }
}

/// `word`, or `two_words`. In Chinese, Japanese and Korean every two adjacent characters are
/// looked up, so an entry is such a pair.
pub(super) fn hash_entry(entry: &str) -> WordHash {
    let hash = |word: &str| {
        word.chars()
            .fold(WordHash::EMPTY, |hash, letter| hash.with(letter as u32))
    };
    match entry.split_once('_') {
        Some((first, second)) => hash(first).pair(hash(second)),
        None => hash(entry),
    }
}
