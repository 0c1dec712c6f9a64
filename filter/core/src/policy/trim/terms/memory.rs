//! Terms of texts seen before, so that a conversation's old turns are read once.

use std::collections::HashMap;
use std::rc::Rc;

use rustc_hash::FxBuildHasher;

use super::Terms;

/// Bytes in one generation; there are two, so at most twice as many are held: some thousand
/// messages of two hundred tokens each.
const GENERATION: usize = 1 << 20;

/// Bytes that an entry takes beside its terms: key, pointer, counts of the pointer, free slots, what
/// each of three allocations costs.
const ENTRY: usize = 128;

/// Bounded: when the young generation is full, it becomes the old one, and the old one is
/// forgotten. What is asked for again moves to the young one, so a conversation that goes on
/// stays known.
#[derive(Debug, Default)]
pub struct TermMemory {
    young: Known,
    old: Known,
    /// Bytes of the young.
    bytes: usize,
}

type Known = HashMap<u128, Rc<Terms>, FxBuildHasher>;

impl TermMemory {
    /// The terms of the text of that digest: known, or read now.
    pub fn get(&mut self, key: u128, text: impl FnOnce() -> Terms) -> Rc<Terms> {
        if let Some(known) = self.young.get(&key) {
            return Rc::clone(known);
        }
        let terms = self.old.remove(&key).unwrap_or_else(|| Rc::new(text()));
        self.put(key, Rc::clone(&terms));
        terms
    }

    fn put(&mut self, key: u128, terms: Rc<Terms>) {
        let size = terms.size() + ENTRY;
        if size > GENERATION {
            return;
        }
        if self.bytes + size > GENERATION {
            // Swapped and cleared rather than dropped: the tables keep their room.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.bytes = 0;
        }
        self.bytes += size;
        self.young.insert(key, terms);
    }

    /// Bytes of what is held.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let held = self.young.values().chain(self.old.values());
        held.map(|terms| terms.size() + ENTRY).sum()
    }
}
