//! English words that say nothing about what a text is about. Of other languages' the frequency in
//! the texts at hand tells (the inverse document frequency of `rank`).

/// Sorted, lower case; what apostrophes leave of contractions is among them.
const STOP: &[&str] = &[
    "a",
    "about",
    "after",
    "again",
    "all",
    "also",
    "am",
    "an",
    "and",
    "any",
    "are",
    "aren",
    "as",
    "at",
    "be",
    "because",
    "been",
    "before",
    "being",
    "both",
    "but",
    "by",
    "can",
    "cannot",
    "could",
    "couldn",
    "did",
    "didn",
    "do",
    "does",
    "doesn",
    "doing",
    "don",
    "during",
    "each",
    "either",
    "else",
    "for",
    "from",
    "had",
    "hadn",
    "has",
    "hasn",
    "have",
    "haven",
    "having",
    "he",
    "her",
    "here",
    "hers",
    "herself",
    "him",
    "himself",
    "his",
    "how",
    "i",
    "if",
    "in",
    "into",
    "is",
    "isn",
    "it",
    "its",
    "itself",
    "just",
    "ll",
    "may",
    "me",
    "might",
    "mine",
    "more",
    "most",
    "much",
    "must",
    "my",
    "myself",
    "no",
    "nor",
    "not",
    "of",
    "off",
    "on",
    "one",
    "ones",
    "only",
    "onto",
    "or",
    "other",
    "our",
    "ours",
    "ourselves",
    "out",
    "over",
    "own",
    "please",
    "re",
    "same",
    "shall",
    "she",
    "should",
    "shouldn",
    "so",
    "some",
    "such",
    "than",
    "that",
    "the",
    "their",
    "theirs",
    "them",
    "themselves",
    "then",
    "there",
    "these",
    "they",
    "this",
    "those",
    "through",
    "to",
    "too",
    "under",
    "until",
    "up",
    "upon",
    "us",
    "ve",
    "very",
    "was",
    "wasn",
    "we",
    "were",
    "weren",
    "what",
    "when",
    "where",
    "whether",
    "which",
    "while",
    "who",
    "whom",
    "whose",
    "why",
    "will",
    "with",
    "within",
    "without",
    "won",
    "would",
    "wouldn",
    "you",
    "your",
    "yours",
    "yourself",
    "yourselves",
];

/// Sorted: words of [`STOP`] that stand for something said before.
const POINTING: &[&str] = &[
    "he", "her", "hers", "him", "his", "it", "its", "one", "ones", "same", "she", "that", "their",
    "theirs", "them", "there", "these", "they", "this", "those",
];

pub(super) fn is_stop(word: &[u8]) -> bool {
    is_in(STOP, word)
}

/// Whether it stands for something said before.
pub(super) fn is_pointing(word: &[u8]) -> bool {
    is_in(POINTING, word)
}

fn is_in(sorted: &[&str], word: &[u8]) -> bool {
    sorted
        .binary_search_by(|known| known.as_bytes().cmp(word))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_what_points_is_a_stop_word() {
        for list in [STOP, POINTING] {
            assert!(list.is_sorted_by(|a, b| a < b));
        }
        assert!(POINTING.iter().all(|word| is_stop(word.as_bytes())));
        assert!(!is_stop(b"") && !is_stop(b"price"));
    }
}
