//! Words that are good once: which were said within the last minute, in a store that can only compare
//! and swap, and never delete, so that all workers of one Envoy know.

use xxhash_rust::xxh3::xxh3_128;

use crate::counters::Slots;

/// Slots, and words in each: 3/4 MiB when all are full. That is room for some 500 words a second; past
/// it the oldest of a slot is forgotten, and would pass for new.
const SLOTS: u64 = 1024;
const EACH: usize = 32;

/// How long a word is remembered: as long as any is good, and a second for clocks that differ.
const REMEMBERED_SECS: u64 = 62;

/// Tries to win a slot against other workers. Each failure means that another one succeeded.
const TRIES: u32 = 64;

/// Bytes of a word's hash and of the second at which it is forgotten.
const KEY: usize = 16;
const ENTRY: usize = KEY + 8;

/// Whether `word` was not said within the last minute. Only words that are known to be good may be
/// asked about: each takes the place of another.
pub fn first(slots: &mut dyn Slots, word: &str, now_secs: u64) -> bool {
    let hash = xxh3_128(word.as_bytes());
    let key = hash.to_le_bytes();
    let slot = hash as u64 % SLOTS;
    for _ in 0..TRIES {
        let (value, version) = slots.get(slot);
        let remembered = |entry: &&[u8]| {
            let until = entry.split_at(KEY).1;
            let until = until.try_into().map_or(0, u64::from_le_bytes);
            now_secs < until
        };
        let entries = value.chunks_exact(ENTRY).filter(remembered);
        let mut entries: Vec<&[u8]> = entries.collect();
        if entries.iter().any(|entry| entry.starts_with(&key)) {
            return false;
        }
        // The oldest stand first.
        entries.drain(..entries.len().saturating_sub(EACH - 1));
        let until = now_secs.saturating_add(REMEMBERED_SECS).to_le_bytes();
        let value = [entries.concat().as_slice(), &key, &until].concat();
        if slots.put(slot, &value, version) {
            return true;
        }
    }
    // Nobody knows: it does not pass.
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::tests::Map;

    #[test]
    fn a_word_is_new_once_until_its_minute_is_over() {
        let map = &mut Map::default();
        assert!(first(map, "a", 1000));
        assert!(first(map, "b", 1000), "another word");
        assert!(!first(map, "a", 1000));
        assert!(!first(map, "a", 1061), "as long as it is good");
        assert!(first(map, "a", 1062));
        map.lose = 3;
        assert!(first(map, "c", 1000), "tried until it is won");
        map.lose = u32::MAX;
        assert!(!first(map, "d", 1000), "what nobody knows of does not pass");
    }

    #[test]
    fn slots_are_bounded_and_the_oldest_make_room() {
        let map = &mut Map::default();
        let all = SLOTS as usize * EACH * 2;
        let new = (0..all).filter(|it| first(map, &it.to_string(), 1000));
        assert_eq!(new.count(), all);
        assert!(map.values.len() <= SLOTS as usize);
        assert!(map.values.values().all(|(it, _)| it.len() <= EACH * ENTRY));
        assert!(
            !first(map, &(all - 1).to_string(), 1000),
            "the youngest stays"
        );
        map.values.values_mut().for_each(|it| it.0 = vec![b'x'; 7]);
        assert!(first(map, "a", 1000), "what is no entry is none");
    }
}
