//! `extra`: sentences inside a chunk that have nothing to do with the question.
//!
//! Off unless asked for, and careful: whole sentences only, of lines that are prose; a chunk with
//! code, a table, markup or JSON in it stays as it is. A sentence stays where it shares a word with
//! the question, stands beside one that does, or is the first; a chunk of which no sentence does
//! stays whole: what made it relevant is then not in its words.

use std::ops::Range;

use rustc_hash::FxHashSet;

use crate::policy::trim::sentences::{Sentence, list_mark, sentences};

/// Letters of a word from which it tells something: shorter ones are mostly grammar.
const MIN_WORD: usize = 4;

/// What only code, tables and markup have.
const NO_PROSE: [&str; 5] = ["</", "/>", "{\"", " | ", "\t"];

/// Words of four letters and more that stand in any sentence.
const COMMON: [&str; 40] = [
    "about", "also", "been", "before", "being", "between", "both", "could", "does", "each",
    "explain", "from", "give", "have", "into", "just", "more", "most", "much", "only", "other",
    "over", "please", "same", "should", "some", "such", "tell", "than", "that", "their", "them",
    "then", "there", "these", "they", "this", "those", "what", "with",
];

/// Parts of `text` that can be left out where `question` is asked, in order, each of whole sentences
/// with the white space on one side.
pub(super) fn extra(text: &str, question: &str) -> Vec<Range<usize>> {
    let sentences = sentences(text);
    let is_odd = NO_PROSE.iter().any(|sign| text.contains(sign)) || text.contains("\n    ");
    if is_odd || sentences.iter().any(|sentence| sentence.verbatim) {
        return Vec::new();
    }
    let mut asked = FxHashSet::default();
    words(question, |word| {
        asked.insert(word.to_owned());
    });
    let says = |sentence: &Sentence| text.get(sentence.at.clone()).unwrap_or("");
    let shares = |sentence: &Sentence| {
        let mut shares = false;
        words(says(sentence), |word| shares |= asked.contains(word));
        shares
    };
    let relevant: Vec<bool> = sentences.iter().map(shares).collect();
    if !relevant.contains(&true) {
        return Vec::new();
    }
    let stays = |(at, sentence): (usize, &Sentence)| {
        let around = relevant.get(at.saturating_sub(1)..(at + 2).min(relevant.len()));
        at == 0 || around.is_some_and(|around| around.contains(&true)) || !is_whole(says(sentence))
    };
    let stays: Vec<bool> = sentences.iter().enumerate().map(stays).collect();
    cuts(text, &sentences, &stays)
}

/// Cuts of the sentences that do not stay: of those in one paragraph that follow each other in one.
fn cuts(text: &str, sentences: &[Sentence], stays: &[bool]) -> Vec<Range<usize>> {
    let start_of = |at: usize| {
        sentences
            .get(at)
            .map_or(text.len(), |sentence| sentence.at.start)
    };
    let end_of = |at: usize| {
        sentences
            .get(at)
            .map_or(text.len(), |sentence| sentence.at.end)
    };
    // Whether a paragraph or line ends behind that sentence.
    let ends = |at: usize| {
        let gap = text.get(end_of(at)..start_of(at + 1)).unwrap_or("");
        at + 1 >= sentences.len() || gap.contains('\n')
    };
    let goes = |at: usize| stays.get(at) == Some(&false);
    let mut found = Vec::new();
    let mut at = 0;
    while at < sentences.len() {
        let first = at;
        at += 1;
        if !goes(first) {
            continue;
        }
        while goes(at) && !ends(at - 1) {
            at += 1;
        }
        let last = at - 1;
        // The first sentence stays, so there is one before. The space before goes along, but where
        // a paragraph begins with what goes it begins with what is behind it then.
        let before = first.saturating_sub(1);
        found.push(if ends(before) && !ends(last) {
            start_of(first)..start_of(last + 1)
        } else {
            end_of(before)..end_of(last)
        });
    }
    found
}

/// Whether it begins and ends as a sentence does; what does not may be a line of anything.
fn is_whole(sentence: &str) -> bool {
    let begins = sentence.starts_with(|c: char| {
        !c.is_lowercase() && (c.is_alphanumeric() || "\"'“„«(¿¡".contains(c))
    });
    let ends = sentence.ends_with(|c: char| ".!?…。！？।؟\"”»)」".contains(c));
    begins && ends && list_mark(sentence).is_none()
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
             lasts two years. Batteries are excluded."
        );
        let paragraphs = "It is old.\n\nOne thing. The warranty is long. Two things. Three things.\n\nFour things. Five.\n\nSix things.";
        assert_eq!(
            left(paragraphs, "warranty"),
            "It is old.\n\nOne thing. The warranty is long. Two things."
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
        fn what_goes_are_whole_parts_in_order(text in "([A-Z]?[a-c]{1,5}[.!?,]?[ \n]|warranty ){0,40}") {
            let ranges = extra(&text, "warranty");
            let mut from = 0;
            prop_assert_eq!(left(&text, "nothing"), text.as_str());
            for range in ranges {
                prop_assert!(range.start >= from && text.get(range.clone()).is_some());
                prop_assert!(!text[range.clone()].contains("warranty"));
                from = range.end;
            }
        }
    }
}
