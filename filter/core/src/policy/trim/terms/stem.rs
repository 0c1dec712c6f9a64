//! The stem of an English word: what its forms have in common, by rules on its ending.
//!
//! After Porter, "An algorithm for suffix stripping", Program 14(3), 1980, without its steps for
//! rare derivations: the forms of nouns and verbs and the commonest of adverbs and nouns made from
//! them. A word of another language that ends alike loses the same letters wherever it stands, so
//! it still meets itself.

/// Shortest word that has a stem other than itself, and fewest letters of a stem.
const SHORT: usize = 3;

/// Cuts `word`, lower-case ASCII letters, down to its stem, in place.
pub(super) fn stem(word: &mut Vec<u8>) {
    if word.len() <= SHORT {
        return;
    }
    plural(word);
    past_or_participle(word);
    derived(word);
    // "bake", "baking"; "photography", "photographies".
    if word.len() > SHORT && word.ends_with(b"e") {
        word.pop();
    }
    if word.len() > SHORT && word.ends_with(b"y") {
        word.pop();
        word.push(b'i');
    }
}

fn plural(word: &mut Vec<u8>) {
    if !word.ends_with(b"s") || ends_with_any(word, &[b"ss", b"us", b"is"]) {
        return;
    }
    if word.ends_with(b"ies") && word.len() > SHORT + 1 {
        cut(word, 3);
        word.push(b'y');
    } else if ends_with_any(word, &[b"sses", b"xes", b"zes", b"ches", b"shes"]) {
        cut(word, 2);
    } else {
        cut(word, 1);
    }
}

fn past_or_participle(word: &mut Vec<u8>) {
    let length = match word.as_slice() {
        [.., b'i', b'n', b'g'] => 3,
        [.., b'i', b'e', b'd'] if word.len() > SHORT + 1 => {
            cut(word, 3);
            word.push(b'y');
            return;
        }
        [.., b'e', b'e', b'd'] => return,
        [.., b'e', b'd'] => 2,
        _ => return,
    };
    let rest = word.len() - length;
    let has_vowel = word.iter().take(rest).any(|&letter| is_vowel(letter));
    if rest < SHORT || !has_vowel {
        return;
    }
    word.truncate(rest);
    // "planning", not "calling", "passing", "buzzing".
    if let [.., one, other] = word.as_slice()
        && one == other
        && !is_vowel(*one)
        && !b"lsz".contains(one)
    {
        word.pop();
    }
}

/// Endings of words made from others, longest first, and what stays in their place.
const DERIVED: &[(&[u8], &[u8])] = &[
    (b"ization", b"ize"),
    (b"ational", b"ate"),
    (b"fulness", b"ful"),
    (b"iveness", b"ive"),
    (b"ousness", b"ous"),
    (b"ation", b"ate"),
    (b"ition", b"ite"),
    (b"ement", b"e"),
    (b"ment", b""),
    (b"ness", b""),
    (b"ally", b"al"),
    (b"ily", b"y"),
    (b"ly", b""),
];

fn derived(word: &mut Vec<u8>) {
    let fits = |(ending, _): &&(&[u8], &[u8])| word.ends_with(ending);
    if let Some((ending, left)) = DERIVED.iter().find(fits)
        && let rest = word.len() - ending.len()
        // "movement", not "station", "comment", "early".
        && rest >= SHORT
        && rest + left.len() > SHORT
    {
        cut(word, ending.len());
        word.extend_from_slice(left);
    }
}

fn cut(word: &mut Vec<u8>, letters: usize) {
    word.truncate(word.len() - letters);
}

fn ends_with_any(word: &[u8], endings: &[&[u8]]) -> bool {
    endings.iter().any(|ending| word.ends_with(ending))
}

fn is_vowel(letter: u8) -> bool {
    b"aeiouy".contains(&letter)
}
