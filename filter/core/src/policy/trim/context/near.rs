//! Near-duplicates: the same passage, retrieved twice from overlapping windows or copied pages.
//!
//! Two texts are as near as the Jaccard index of their sets of three-word shingles. It is computed
//! exactly: MinHash pays for millions of documents, not for the tens of a prompt, and guesses. Only
//! pairs are compared that share a shingle in their prefixes, which every pair above the threshold
//! does (Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins", ICDE 2006): few,
//! unless they are duplicates. Texts that differ in a number or a negation say different things,
//! however much else they share, and are never duplicates.

use std::hash::Hasher;

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::Xxh3Default;

/// Words of a shingle.
const SHINGLE: usize = 3;
/// Steps of comparisons per shingle at most; what is left then is taken as different. Only texts
/// made for it come near.
const MAX_WORK: usize = 32;

/// Words that turn a sentence around.
const NEGATIONS: [&str; 8] = [
    "not", "no", "never", "none", "without", "cannot", "nor", "t",
];

/// For each of `texts`, whether it is as near as `threshold` (above 0, at most 1) to one before it
/// that stays.
#[must_use]
pub(super) fn duplicates(texts: &[&str], threshold: f64) -> Vec<bool> {
    let prints: Vec<Print> = texts.iter().map(|text| Print::of(text)).collect();
    let all: usize = prints.iter().map(|print| print.shingles.len()).sum();
    let mut left = all.saturating_mul(MAX_WORK);
    let mut kept: Vec<Print> = Vec::new();
    // A shingle → the kept texts in whose prefix it is.
    let mut index: FxHashMap<u64, Vec<usize>> = FxHashMap::default();
    // Which text a kept one was last compared with.
    let mut compared: Vec<usize> = Vec::new();
    let mut is_duplicate = Vec::with_capacity(texts.len());
    for (turn, print) in prints.into_iter().enumerate() {
        let prefix = print.prefix(threshold);
        let sharing = prefix
            .iter()
            .filter_map(|shingle| index.get(shingle))
            .flatten();
        let mut near = false;
        for &at in sharing {
            left = left.saturating_sub(1);
            let (Some(other), Some(last)) = (kept.get(at), compared.get_mut(at)) else {
                continue;
            };
            let work = print.shingles.len() + other.shingles.len();
            if *last == turn {
                continue;
            }
            if left < work {
                break;
            }
            *last = turn;
            left -= work;
            near = print.is_near(other, threshold);
            if near {
                break;
            }
        }
        is_duplicate.push(near);
        if !near {
            for shingle in prefix {
                index.entry(*shingle).or_default().push(kept.len());
            }
            kept.push(print);
            compared.push(turn);
        }
    }
    is_duplicate
}

/// What of a text is compared.
struct Print {
    /// Hashes of its shingles, sorted: their order is as good as random, so that a prefix has few
    /// of the frequent ones.
    shingles: Vec<u64>,
    /// Hash of its numbers and negations, in order.
    facts: u64,
}

impl Print {
    fn of(text: &str) -> Print {
        let mut facts = Xxh3Default::new();
        let mut shingles = Vec::with_capacity(text.len() / 6);
        let mut window = [0_u64; SHINGLE];
        let mut count = 0;
        words(text, |word| {
            if word.bytes().any(|byte| byte.is_ascii_digit()) || NEGATIONS.contains(&word) {
                facts.write(word.as_bytes());
                facts.write_u8(0xff);
            }
            window.rotate_left(1);
            window[SHINGLE - 1] = xxhash_rust::xxh3::xxh3_64(word.as_bytes());
            count += 1;
            if count >= SHINGLE {
                shingles.push(joined(&window));
            }
        });
        if count < SHINGLE {
            shingles.push(joined(&window));
        }
        shingles.sort_unstable();
        shingles.dedup();
        Print {
            shingles,
            facts: facts.finish(),
        }
    }

    /// The shingles of which a near text shares at least one with this one's.
    fn prefix(&self, threshold: f64) -> &[u64] {
        let len = self.shingles.len();
        // The least that they share; a little less, so that rounding hides no pair.
        let shared = (threshold * len as f64 - 1e-6).ceil().max(1.0) as usize;
        self.shingles
            .get(..len + 1 - shared.min(len))
            .unwrap_or(&self.shingles)
    }

    fn is_near(&self, other: &Print, threshold: f64) -> bool {
        if self.facts != other.facts {
            return false;
        }
        let (one, two) = (&self.shingles, &other.shingles);
        let (mut left, mut right, mut shared) = (0, 0, 0_usize);
        while let (Some(a), Some(b)) = (one.get(left), two.get(right)) {
            shared += usize::from(a == b);
            left += usize::from(a <= b);
            right += usize::from(b <= a);
        }
        shared as f64 >= threshold * (one.len() + two.len() - shared) as f64
    }
}

fn joined(window: &[u64; SHINGLE]) -> u64 {
    let mut hash = Xxh3Default::new();
    for word in window {
        hash.write_u64(*word);
    }
    hash.finish()
}

/// The words of `text` in small letters. A sign of a script without spaces is a word of its own.
fn words(text: &str, mut word: impl FnMut(&str)) {
    let mut current = String::new();
    let mut end = |current: &mut String| {
        if !current.is_empty() {
            word(current);
            current.clear();
        }
    };
    for c in text.chars() {
        if !c.is_alphanumeric() {
            end(&mut current);
            continue;
        }
        // From the kana on: CJK ideographs and what else is written without spaces.
        let alone = c >= '\u{3040}' && !('\u{ac00}'..='\u{d7a3}').contains(&c);
        if alone {
            end(&mut current);
        }
        if c.is_ascii() {
            current.push(c.to_ascii_lowercase());
        } else {
            current.extend(c.to_lowercase());
        }
        if alone {
            end(&mut current);
        }
    }
    end(&mut current);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const PASSAGE: &str = "The warranty covers manufacturing faults for a period of two years from \
        the date of purchase, provided that the device was used as the manual describes and that \
        its seal is whole. Batteries and other parts that wear are covered for half of that time.";

    #[test]
    fn a_copy_with_another_layout_is_a_duplicate_and_another_passage_is_not() {
        let copy = PASSAGE.replace(". ", ".\n\n").to_uppercase();
        let longer = format!("{PASSAGE} Call us.");
        let texts = [PASSAGE, "Something else altogether.", &copy, &longer];
        assert_eq!(duplicates(&texts, 0.9), [false, false, true, true]);
        assert_eq!(duplicates(&texts, 1.0), [false, false, true, false]);
    }

    #[test]
    fn a_number_or_a_negation_is_all_the_difference_that_is_needed() {
        let page = format!("{PASSAGE} See page 12.");
        let other_page = format!("{PASSAGE} See page 13.");
        let negated = PASSAGE.replace("are covered for half", "are not covered for half");
        assert_eq!(duplicates(&[&page, &other_page], 0.8), [false, false]);
        assert_eq!(duplicates(&[PASSAGE, &negated], 0.8), [false, false]);
        assert_eq!(duplicates(&[&page, &page], 0.8), [false, true]);
    }

    #[test]
    fn short_texts_and_texts_without_words_are_compared_too() {
        assert_eq!(
            duplicates(
                &[
                    "Yes.",
                    "yes",
                    "no",
                    "",
                    "--",
                    "東京は日本の首都です",
                    "東京は日本の首都です。"
                ],
                0.9
            ),
            [false, true, false, false, true, false, true]
        );
    }

    #[test]
    fn texts_that_are_made_to_be_compared_end_and_are_all_told() {
        // All share nine tenths of their shingles, less a little.
        let common: String = (0..900)
            .map(|at| format!("w{at} ").replace(|c: char| c.is_ascii_digit(), "x"))
            .collect();
        let texts: Vec<String> = (0..1024)
            .map(|at| format!("{common} {}", letters(at).repeat(3)))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(duplicates(&texts, 0.5).len(), 1024);
    }

    fn letters(number: usize) -> String {
        number
            .to_string()
            .bytes()
            .map(|digit| char::from(digit - b'0' + b'a'))
            .collect::<String>()
            + " "
    }

    proptest! {
        #[test]
        fn exactly_the_pairs_above_the_threshold_are_found(
            texts in prop::collection::vec("[abc]( [abc]){0,12}", 1..8), threshold in 0.3..1.0_f64,
        ) {
            let shingles = |text: &str| -> BTreeSet<Vec<String>> {
                let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
                if words.len() < SHINGLE {
                    return BTreeSet::from([words]);
                }
                words.windows(SHINGLE).map(<[String]>::to_vec).collect()
            };
            let mut kept: Vec<BTreeSet<Vec<String>>> = Vec::new();
            let mut expected = Vec::new();
            for text in &texts {
                let print = shingles(text);
                let near = kept.iter().any(|other| {
                    let shared = print.intersection(other).count() as f64;
                    shared >= threshold * print.union(other).count() as f64
                });
                expected.push(near);
                if !near {
                    kept.push(print);
                }
            }
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            prop_assert_eq!(duplicates(&texts, threshold), expected);
        }
    }
}
