//! What the last turns of this worker's conversations wanted told: all that there is without a
//! sidecar, and with one what it may not have been told yet.

use rustc_hash::FxHashMap;

/// Conversations in one generation; there are two. Most take a quarter of a kibibyte, and all of them
/// at most twelve mebibytes.
const GENERATION: usize = 2048;

/// Bounded: when the young generation is full, it becomes the old one, and the old one is forgotten.
#[derive(Debug, Default)]
pub(super) struct Conversations {
    young: FxHashMap<String, String>,
    old: FxHashMap<String, String>,
}

impl Conversations {
    pub(super) fn get(&self, conversation: &str) -> Option<String> {
        let young = self.young.get(conversation);
        young.or_else(|| self.old.get(conversation)).cloned()
    }

    pub(super) fn put(&mut self, conversation: String, state: String) {
        if self.young.len() >= GENERATION {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(conversation, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_word_counts_and_what_is_not_told_again_is_forgotten() {
        let mut conversations = Conversations::default();
        conversations.put("a".into(), "1".into());
        conversations.put("a".into(), "2".into());
        assert_eq!(conversations.get("a").as_deref(), Some("2"));
        for number in 0..GENERATION {
            conversations.put(number.to_string(), String::new());
        }
        assert_eq!(
            conversations.get("a").as_deref(),
            Some("2"),
            "one generation on"
        );
        for number in 0..GENERATION {
            conversations.put(number.to_string(), String::new());
        }
        conversations.put("b".into(), String::new());
        assert_eq!(conversations.get("a"), None);
        assert!(conversations.young.len() + conversations.old.len() <= 2 * GENERATION);
    }
}
