//! Pairs made by programme: rewordings that ask the same, changes that do not.

use std::collections::BTreeSet;

use fastrand::Rng;

use crate::bases::{BASES, SMALL, SYNONYMS, TAILS};

/// A generated pair.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) a: String,
    pub(crate) b: String,
    pub(crate) same: bool,
    /// Which base it came from: pairs of one base are never divided between training and holdout.
    pub(crate) base: usize,
}

/// The same pairs for the same seed.
pub(crate) fn pairs(seed: u64, extra: &[String]) -> Vec<Pair> {
    let mut rng = Rng::with_seed(seed);
    let mut pairs = Pairs::default();
    for (base, (pattern, fillers)) in BASES.iter().enumerate() {
        let fillers: Vec<&str> = fillers.split(',').collect();
        for filler in &fillers {
            let question = pattern.replace("{}", filler);
            for _ in 0..8 {
                let b = reword(&mut rng, &question);
                pairs.add((&question, b), true, base);
            }
            for _ in 0..8 {
                let changed = match rng.u8(0..10) {
                    0 => pattern.replace("{}", fillers[rng.usize(0..fillers.len())]),
                    _ => change(&mut rng, &question),
                };
                let b = if rng.bool() {
                    reword(&mut rng, &changed)
                } else {
                    changed
                };
                pairs.add((&question, b), false, base);
            }
        }
    }
    for (at, question) in extra.iter().enumerate() {
        let base = BASES.len() + at;
        let b = reword(&mut rng, question);
        pairs.add((question, b), true, base);
        let b = change(&mut rng, question);
        pairs.add((question, b), false, base);
    }
    pairs.list
}

/// Pairs of two texts that differ, each once.
#[derive(Default)]
struct Pairs {
    list: Vec<Pair>,
    seen: BTreeSet<(String, String)>,
}

impl Pairs {
    fn add(&mut self, (a, b): (&str, String), same: bool, base: usize) {
        let a = a.to_owned();
        if a != b && self.seen.insert((a.clone(), b.clone())) {
            self.list.push(Pair { a, b, same, base });
        }
    }
}

fn one<'a, T: ?Sized>(rng: &mut Rng, list: &[&'a T]) -> &'a T {
    list[rng.usize(0..list.len())]
}

/// One to three rewordings.
fn reword(rng: &mut Rng, question: &str) -> String {
    let mut text = question.to_string();
    for _ in 0..rng.u8(1..=3) {
        text = match rng.u8(0..11) {
            0..=3 => form(rng, &text),
            4 => wrap(rng, &text),
            5 => synonym(rng, &text),
            6 => number(rng, &text),
            7 => typo(rng, &text),
            8 => letters(rng, &text),
            9 => front(&text),
            _ => article(rng, &text),
        };
    }
    text
}

/// Ways to ask one thing.
const FORMS: &[&[&str]] = &[
    &[
        "How do I ",
        "How can I ",
        "How do you ",
        "How can you ",
        "How would I ",
        "How could I ",
        "How to ",
        "What is the best way to ",
        "What's the best way to ",
        "What is the way to ",
        "How can one ",
        "How does one ",
        "What are the ways to ",
        "Is there a way to ",
        "What is a good way to ",
        "How should I ",
        "How would you ",
        "What are some ways to ",
        "What can I do to ",
        "How do we ",
    ],
    &[
        "What is the best ",
        "Which is the best ",
        "What's the best ",
        "Which is the top ",
    ],
    &[
        "What is ",
        "What's ",
        "What exactly is ",
        "What is exactly ",
    ],
    &[
        "What are the ",
        "What're the ",
        "Which are the ",
        "What are some of the ",
        "What are all the ",
        "What are ",
    ],
    &[
        "Can I ",
        "Could I ",
        "Am I able to ",
        "Is it possible for me to ",
        "May I ",
    ],
    &[
        "Where can I ",
        "Where do I ",
        "Where could I ",
        "Where can you ",
    ],
    &["Why is ", "What is the reason that ", "Why exactly is "],
    &["Is it ", "Is it actually ", "Is it really "],
    &[
        "Do I need ",
        "Do I require ",
        "Do you need ",
        "Would I need ",
    ],
    &[
        "What happens if I ",
        "What would happen if I ",
        "What happens when I ",
    ],
    &[
        "How long should I ",
        "How long do I ",
        "How long must I ",
        "For how long should I ",
    ],
    &[
        "What causes ",
        "What is the cause of ",
        "What are the causes of ",
        "What actually causes ",
    ],
];

fn form(rng: &mut Rng, text: &str) -> String {
    for row in FORMS {
        for beginning in *row {
            if let Some(rest) = text.strip_prefix(beginning) {
                return format!("{}{rest}", one(rng, row));
            }
        }
    }
    text.to_string()
}

fn wrap(rng: &mut Rng, text: &str) -> String {
    let before = [
        "Please tell me, ",
        "Could you tell me: ",
        "Hi, ",
        "Hello! ",
        "Quick question: ",
        "Just wondering, ",
        "I want to know: ",
    ];
    let after = [
        " Thanks!",
        " Thank you.",
        " Please help.",
        " Thanks in advance.",
    ];
    match rng.u8(0..3) {
        0 => format!("{text}{}", one(rng, &after)),
        _ => format!("{}{}", one(rng, &before), small_first(text)),
    }
}

fn small_first(text: &str) -> String {
    let mut rest = text.chars();
    match rest.next() {
        Some('I') if text.starts_with("I ") => text.to_string(),
        Some(first) => first.to_lowercase().chain(rest).collect(),
        None => String::new(),
    }
}

fn synonym(rng: &mut Rng, text: &str) -> String {
    let found: Vec<(&str, &str)> = SYNONYMS
        .iter()
        .flat_map(|(one, other)| [(*one, *other), (*other, *one)])
        .filter(|(word, _)| {
            text.split(' ')
                .any(|part| part.trim_end_matches('?') == *word)
        })
        .collect();
    if found.is_empty() {
        return text.to_string();
    }
    let (word, other) = found[rng.usize(0..found.len())];
    swap(text, word, other)
}

/// `word` for `other`, once, as a whole word.
fn swap(text: &str, word: &str, other: &str) -> String {
    let mut done = false;
    let words: Vec<String> = text
        .split(' ')
        .map(|part| {
            let bare = part.trim_end_matches(['?', '.', ',']);
            if bare == word && !done {
                done = true;
                format!("{other}{}", &part[bare.len()..])
            } else {
                part.to_string()
            }
        })
        .collect();
    words.join(" ")
}

fn long_word<'a>(rng: &mut Rng, text: &'a str) -> Option<&'a str> {
    let words: Vec<&str> = text
        .split(' ')
        .map(|word| word.trim_end_matches(['?', '.', ',']))
        .filter(|word| word.len() >= 6 && word.bytes().all(|one| one.is_ascii_lowercase()))
        .collect();
    (!words.is_empty()).then(|| words[rng.usize(0..words.len())])
}

/// Plural for singular or the other way round.
fn number(rng: &mut Rng, text: &str) -> String {
    let Some(word) = long_word(rng, text) else {
        return text.to_string();
    };
    if word.ends_with("ss") || word.ends_with("ing") || word.ends_with("ed") {
        return text.to_string();
    }
    let other = match word.strip_suffix('s') {
        Some(head) => head.to_string(),
        None => format!("{word}s"),
    };
    swap(text, word, &other)
}

fn typo(rng: &mut Rng, text: &str) -> String {
    let Some(word) = long_word(rng, text) else {
        return text.to_string();
    };
    let at = rng.usize(1..word.len() - 1);
    let mut letters: Vec<char> = word.chars().collect();
    if rng.bool() {
        letters.swap(at, at + 1);
    } else {
        letters.remove(at);
    }
    swap(text, word, &letters.into_iter().collect::<String>())
}

fn letters(rng: &mut Rng, text: &str) -> String {
    match rng.u8(0..4) {
        0 => text.to_lowercase(),
        1 => text.trim_end_matches('?').to_string(),
        2 => format!("{text}?"),
        _ => small_first(text.trim_end_matches('?')),
    }
}

/// *… in Rome?* becomes *In Rome, …?*
fn front(text: &str) -> String {
    for preposition in [" in ", " near ", " after ", " during "] {
        if let Some((head, tail)) = text.rsplit_once(preposition)
            && tail.split(' ').count() <= 3
            && head.split(' ').count() >= 3
        {
            let mut word = preposition.trim().to_string();
            word[..1].make_ascii_uppercase();
            return format!(
                "{word} {}, {}?",
                tail.trim_end_matches(['?', '.']),
                small_first(head)
            );
        }
    }
    text.to_string()
}

fn article(rng: &mut Rng, text: &str) -> String {
    let changes = [
        ("a", "the"),
        ("my", "a"),
        ("the", "a"),
        ("my", "the"),
        ("a", "my"),
        ("a", "any"),
    ];
    let (word, other) = changes[rng.usize(0..changes.len())];
    swap(text, word, other)
}

/// One change after which another question is asked.
fn change(rng: &mut Rng, question: &str) -> String {
    match rng.u8(0..10) {
        0..=3 => small(rng, question),
        4 | 5 => tail(rng, question),
        6 => drop_small(rng, question),
        7 => ask_otherwise(rng, question),
        8 => exchange(rng, question),
        _ => negate(question),
    }
}

fn small(rng: &mut Rng, text: &str) -> String {
    let found: Vec<&(&str, &[&str])> = SMALL
        .iter()
        .filter(|(word, _)| text.split(' ').skip(2).any(|part| part == *word))
        .collect();
    if found.is_empty() {
        return tail(rng, text);
    }
    let (word, others) = found[rng.usize(0..found.len())];
    swap(text, word, one(rng, others))
}

fn tail(rng: &mut Rng, text: &str) -> String {
    let body = text.trim_end_matches(['?', '.', ' ']);
    let end = &text[body.len()..];
    format!("{body} {}{end}", one(rng, TAILS))
}

/// Leaves out a particle or preposition.
fn drop_small(rng: &mut Rng, text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let places: Vec<usize> = (2..words.len())
        .filter(|at| {
            matches!(
                words[*at],
                "in" | "on" | "for" | "to" | "of" | "from" | "with" | "out" | "by"
            )
        })
        .collect();
    if places.is_empty() {
        return tail(rng, text);
    }
    let at = places[rng.usize(0..places.len())];
    let end = rng.bool();
    let left: Vec<&str> = words
        .iter()
        .enumerate()
        .filter(|(place, _)| *place != at && !(end && *place > at))
        .map(|(_, word)| *word)
        .collect();
    left.join(" ")
}

fn ask_otherwise(rng: &mut Rng, text: &str) -> String {
    let other = [
        "What is it like to ",
        "Why do people ",
        "Where do people ",
        "When should I ",
        "What do I get if I ",
        "Who can ",
        "Is it good to ",
        "What do you think when you ",
    ];
    for beginning in [
        "How do I ",
        "How can I ",
        "Where can I ",
        "Can I ",
        "Should I ",
    ] {
        if let Some(rest) = text.strip_prefix(beginning) {
            return format!("{}{rest}", one(rng, &other));
        }
    }
    for (from, to) in [
        ("What is ", "What is it about "),
        ("What are ", "What makes "),
        ("Why is ", "How is "),
        ("What causes ", "What do I get from "),
        ("Why does ", "When does "),
        ("Who ", "How many "),
        ("When was ", "Why was "),
        ("What does ", "Who does "),
        ("How are ", "Why are "),
    ] {
        if let Some(rest) = text.strip_prefix(from) {
            return format!("{to}{rest}");
        }
    }
    tail(rng, text)
}

/// Two longer words in each other's place.
fn exchange(rng: &mut Rng, text: &str) -> String {
    let mut words: Vec<&str> = text.trim_end_matches('?').split(' ').collect();
    let places: Vec<usize> = (1..words.len()).filter(|at| words[*at].len() > 3).collect();
    if places.len() < 2 {
        return tail(rng, text);
    }
    let first = rng.usize(0..places.len() - 1);
    words.swap(places[first], places[first + 1]);
    format!("{}?", words.join(" "))
}

fn negate(text: &str) -> String {
    for (from, to) in [
        (" do I ", " do I not "),
        (" can I ", " can I not "),
        (" is ", " is not "),
        (" are ", " are not "),
    ] {
        if text.contains(from) {
            return text.replacen(from, to, 1);
        }
    }
    format!("Why not {}", small_first(text))
}
