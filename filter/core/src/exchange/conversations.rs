//! What the last turns of this worker's conversations wanted told: all that there is without a
//! sidecar, and with one what it may not have been told yet.

use rustc_hash::FxHashMap;

/// Bytes in one generation; there are two, so at most twice as many are held: some four thousand
/// conversations in each, where most take a quarter of a kibibyte, and six hundred of the longest.
const GENERATION: usize = 2 << 20;

/// Bytes that an entry takes beside its texts: their places, what each allocation costs, free slots.
const ENTRY: usize = 128;

/// Bounded: when the young generation is full, it becomes the old one, and the old one is forgotten.
#[derive(Debug, Default)]
pub(super) struct Conversations {
    young: Known,
    old: Known,
    /// Bytes of the young.
    bytes: usize,
}

type Known = FxHashMap<Box<str>, Box<str>>;

impl Conversations {
    pub(super) fn get(&self, conversation: &str) -> Option<String> {
        let young = self.young.get(conversation);
        let known = young.or_else(|| self.old.get(conversation));
        known.map(|state| state.to_string())
    }

    pub(super) fn put(&mut self, conversation: &str, state: &str) {
        let size = size(conversation, state);
        if size > GENERATION {
            return;
        }
        let before = self.young.remove(conversation);
        self.bytes -= before.map_or(0, |before| self::size(conversation, &before));
        if self.bytes + size > GENERATION {
            // Swapped and cleared rather than dropped: the tables keep their room.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.bytes = 0;
        }
        self.bytes += size;
        self.young.insert(conversation.into(), state.into());
    }
}

fn size(conversation: &str, state: &str) -> usize {
    conversation.len() + state.len() + ENTRY
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of what is held, counted anew.
    fn held(conversations: &Conversations) -> usize {
        let all = conversations.young.iter().chain(&conversations.old);
        all.map(|(name, state)| size(name, state)).sum()
    }

    #[test]
    fn the_latest_word_counts_and_what_is_not_told_again_is_forgotten() {
        let mut conversations = Conversations::default();
        conversations.put("a", "1");
        conversations.put("a", "2");
        assert_eq!(conversations.get("a").as_deref(), Some("2"));
        let state = " ".repeat(sluice_wire::limit::STATE);
        let generation = GENERATION / size("0", &state);
        for number in 0..generation {
            conversations.put(&number.to_string(), &state);
        }
        assert_eq!(
            conversations.get("a").as_deref(),
            Some("2"),
            "one generation on"
        );
        for number in 0..=generation {
            conversations.put(&format!("b{number}"), &state);
        }
        assert_eq!(conversations.get("a"), None);
    }

    #[test]
    fn no_more_bytes_are_held_than_two_generations_however_many_and_long_the_conversations() {
        for len in [0, 250, sluice_wire::limit::STATE] {
            let mut conversations = Conversations::default();
            let mut most = 0;
            for number in 0..3 * GENERATION / (len + ENTRY) {
                let name = format!("{:064}", number % 50_000);
                conversations.put(&name, &" ".repeat(len));
                if number % 97 == 0 {
                    let young = conversations.young.iter();
                    let young: usize = young.map(|(name, state)| size(name, state)).sum();
                    assert_eq!(conversations.bytes, young);
                    most = most.max(held(&conversations));
                }
            }
            assert!(most <= 2 * GENERATION, "{most}");
            assert!(most > GENERATION, "it was filled past one: {most}");
        }
    }

    #[test]
    fn one_that_goes_on_for_ever_takes_the_room_of_one() {
        let mut conversations = Conversations::default();
        for turn in 0..100_000 {
            conversations.put("a", &turn.to_string());
        }
        assert_eq!(held(&conversations), size("a", "99999"));
    }
}
