//! `extra`: sentences inside a chunk that have nothing to do with the question.
//!
//! Off unless asked for, and careful: whole sentences only, of lines that are prose; a chunk with
//! code, a table, markup or JSON in it stays as it is. A sentence stays where it shares a word with
//! the question, stands beside one that does, or is the first; a chunk of which no sentence does
//! stays whole: what made it relevant is then not in its words.

use std::ops::Range;

use rustc_hash::FxHashSet;

/// Letters of a word from which it tells something: shorter ones are mostly grammar.
const MIN_WORD: usize = 4;

/// What only code, tables and markup have.
const NO_PROSE: [&str; 7] = ["```", "</", "/>", "{\"", "| ", " |", "\t"];

/// Words of four letters and more that stand in any sentence.
const COMMON: [&str; 40] = [
    "about", "also", "been", "before", "being", "between", "both", "could", "does", "each",
    "explain", "from", "give", "have", "into", "just", "more", "most", "much", "only", "other",
    "over", "please", "same", "should", "some", "such", "tell", "than", "that", "their", "them",
    "then", "there", "these", "they", "this", "those", "what", "with",
];

/// Parts of `text` that can be left out where `question` is asked, in order, each a sentence with
/// the space behind it.
pub(super) fn extra(text: &str, question: &str) -> Vec<Range<usize>> {
    let mut asked = FxHashSet::default();
    words(question, |word| {
        asked.insert(word.to_owned());
    });
    if NO_PROSE.iter().any(|sign| text.contains(sign)) || text.contains("\n    ") {
        return Vec::new();
    }
    let sentences = sentences(text);
    let relevant: Vec<bool> = sentences
        .iter()
        .map(|place| {
            let mut shares = false;
            words(text.get(place.clone()).unwrap_or(""), |word| {
                shares |= asked.contains(word)
            });
            shares
        })
        .collect();
    if !relevant.contains(&true) {
        return Vec::new();
    }
    let near = |at: usize| {
        let around = at.saturating_sub(1)..(at + 2).min(relevant.len());
        at == 0
            || relevant
                .get(around)
                .is_some_and(|around| around.contains(&true))
    };
    let droppable = |(at, place): (usize, &Range<usize>)| {
        (!near(at) && is_sentence(text, place)).then(|| place.clone())
    };
    sentences.iter().enumerate().filter_map(droppable).collect()
}

/// `text` in sentences, each with the space behind it; the end of a line ends one.
fn sentences(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        let ends = match byte {
            b'\n' => true,
            b'.' | b'!' | b'?' => {
                bytes.get(at).is_some_and(u8::is_ascii_whitespace) && !abbreviates(text, start, at)
            }
            _ => false,
        };
        if ends {
            while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
                at += 1;
            }
            found.push(start..at);
            start = at;
        }
    }
    if start < text.len() {
        found.push(start..text.len());
    }
    found
}

/// Whether the full stop that ends at `end` stands for letters: `Dr.`, `e.g.`, `J.`, or the next
/// word goes on in small letters.
fn abbreviates(text: &str, start: usize, end: usize) -> bool {
    let goes_on = text
        .get(end..)
        .and_then(|rest| rest.trim_start().chars().next())
        .is_some_and(char::is_lowercase);
    let word = text
        .get(start..end.saturating_sub(1))
        .and_then(|sentence| sentence.rsplit(char::is_whitespace).next())
        .unwrap_or("");
    let short = word.chars().count() <= 3 && word.starts_with(char::is_uppercase);
    goes_on || short || word.contains('.')
}

/// Whether what stands at `place` is a sentence of prose: it begins as one and ends as one.
fn is_sentence(text: &str, place: &Range<usize>) -> bool {
    let sentence = text.get(place.clone()).unwrap_or("").trim_end();
    let begins = sentence
        .starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit() || "\"'“(".contains(c));
    let ends = sentence.ends_with(['.', '!', '?', '"', '”', ')']);
    // A line break inside a list of short lines is its shape.
    begins && ends && sentence.split_whitespace().count() >= 3
}

/// The words that tell something, in small letters, without a plural's `s`.
fn words(text: &str, mut each: impl FnMut(&str)) {
    for word in text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        let lower = word.to_lowercase();
        let tells =
            word.chars().any(|c| c.is_ascii_digit()) || !word.is_ascii() || word.len() >= MIN_WORD;
        if tells && COMMON.binary_search(&lower.as_str()).is_err() {
            each(
                lower
                    .strip_suffix('s')
                    .filter(|stem| stem.len() >= MIN_WORD)
                    .unwrap_or(&lower),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn left(text: &str, question: &str) -> String {
        let mut out = text.to_owned();
        for range in extra(text, question).into_iter().rev() {
            out.replace_range(range, "");
        }
        out
    }

    const CHUNK: &str = "The X200 is a printer of Acme Inc. and was shown in 2019. It prints 40 pages a \
        minute. Paper goes into the lower tray. The colour is grey. Dr. Ho designed it. Its warranty \
        lasts two years. Batteries are excluded. The box holds a cable. It was sold in Europe.";

    #[test]
    fn sentences_that_are_far_from_the_question_go_whole() {
        assert_eq!(
            left(CHUNK, "How long is the warranty?"),
            "The X200 is a printer of Acme Inc. and was shown in 2019. Dr. Ho designed it. Its warranty \
             lasts two years. Batteries are excluded. "
        );
    }

    #[test]
    fn a_chunk_stays_where_no_sentence_is_about_the_question_or_it_is_no_prose() {
        assert_eq!(left(CHUNK, "Wie lange gilt die Garantie?"), CHUNK);
        for text in [
            "Intro here it is. The warranty is this. Third one is here. ```\nlet x = 1. Then y.\n``` Last one here.",
            "A is one. The warranty is two. Three is it. | a | b |\n Four is last.",
            "{\"warranty\": \"It is long. Then more. Then even more. And the end of it.\"}",
            "- item one\n- warranty two\n- item three\n- item four\n- item five",
        ] {
            assert_eq!(left(text, "warranty"), text);
        }
    }

    #[test]
    fn the_common_words_are_in_order() {
        assert!(COMMON.is_sorted());
    }

    proptest! {
        #[test]
        fn what_goes_are_whole_parts_in_order(text in "([A-Z]?[a-c]{1,5}[.!?,]? ?\n?|warranty ){0,40}") {
            let ranges = extra(&text, "warranty");
            let mut from = 0;
            for range in ranges {
                prop_assert!(range.start >= from && text.get(range.clone()).is_some());
                prop_assert!(!text[range.clone()].contains("warranty"));
                from = range.end;
            }
        }
    }
}
