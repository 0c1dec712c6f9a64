//! The second check: how probable it is that two questions which no guard keeps apart ask the same.

use super::align::Alignment;
use super::guard::{self, Refusal};
use super::question::{Kind, Question, Term};
use super::vocabulary::Vocabulary;
use super::weights::{BIAS, WEIGHTS};

/// What the check looks at, each between 0 and about 1, none of a topic.
pub const FEATURES: usize = 5;

/// Names of the features, in their order.
pub const FEATURE_NAMES: [&str; FEATURES] = [
    "distance",
    "small_words",
    "pointing_words",
    "little_shared",
    "length",
];

/// The probability of two questions whose terms are all equal.
const SAME_TEXT: f32 = 0.995;

/// The probability from which a stored answer is given.
pub const DEFAULT_THRESHOLD: f32 = 0.98;

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// A guard keeps the two apart.
    Refused(Refusal),
    /// The estimated probability that the two ask the same.
    Probability(f32),
}

/// Small words that change what is asked where only one of the two has them.
const SMALL_WORDS: &[&str] = &[
    "in", "on", "at", "for", "with", "by", "about", "into", "onto", "from", "than", "through",
    "up", "down", "out", "off", "away", "between", "per", "over", "back", "to", "or", "and", "all",
    "most",
];

/// Words that point at something the question does not name.
const POINTING_WORDS: &[&str] = &["that", "it", "same", "such", "both", "every", "each"];

fn of(aligned: &Alignment<'_>, cosine: f32, words: Option<&Vocabulary>) -> [f32; FEATURES] {
    let alone = |wanted: &[&str]| {
        let on = |terms: &[Term<'_>], alone: &[usize]| {
            alone
                .iter()
                .filter(|at| wanted.contains(&terms[**at].text))
                .count()
        };
        (on(&aligned.a, &aligned.alone_a) + on(&aligned.b, &aligned.alone_b)) as f32
    };
    // The less two questions share, the more the rest of them decides.
    let mut shared = 0.0;
    for pair in &aligned.pairs {
        let term = aligned.a[pair.a];
        shared += match term.kind {
            Kind::Content | Kind::Name => 0.3 + words.map_or(0.5, |words| words.rarity(term.text)),
            Kind::Quoted | Kind::Code | Kind::Number => 1.0,
            _ => 0.0,
        };
    }
    let letters =
        |terms: &[Term<'_>]| terms.iter().map(|term| term.text.len()).sum::<usize>() as f32;
    let (a, b) = (letters(&aligned.a), letters(&aligned.b));
    [
        ((1.0 - cosine) * 5.0).clamp(0.0, 1.5),
        alone(SMALL_WORDS) / 4.0,
        alone(POINTING_WORDS) / 2.0,
        1.0 / (0.5 + shared),
        (a - b).abs() / a.max(b).max(1.0),
    ]
}

/// What the check sees of two questions, the refusal of a guard beside it; `None` where they are
/// one text or cannot be compared by terms. Only training needs it: refused pairs show it how much
/// a cosine is worth.
#[must_use]
pub fn features(
    a: &Question,
    b: &Question,
    cosine: f32,
    words: Option<&Vocabulary>,
) -> Option<([f32; FEATURES], Option<Refusal>)> {
    let refusal = guard::before_alignment(a, b);
    if matches!(
        refusal,
        Some(Refusal::Rules | Refusal::TooLong | Refusal::Language)
    ) || a.same_terms(b)
    {
        return None;
    }
    let aligned = Alignment::new(a, b, words);
    let refusal = refusal.or_else(|| guard::after_alignment(&aligned));
    Some((of(&aligned, cosine, words), refusal))
}

/// Decides about a stored question `a` and a new one `b`: the guards, then the check.
#[must_use]
pub fn judge(a: &Question, b: &Question, cosine: f32, words: Option<&Vocabulary>) -> Verdict {
    if let Some(refusal) = guard::before_alignment(a, b) {
        return Verdict::Refused(refusal);
    }
    if a.same_terms(b) {
        return Verdict::Probability(SAME_TEXT);
    }
    let aligned = Alignment::new(a, b, words);
    if let Some(refusal) = guard::after_alignment(&aligned) {
        return Verdict::Refused(refusal);
    }
    let features = of(&aligned, cosine, words);
    let sum: f32 = WEIGHTS
        .iter()
        .zip(features)
        .map(|(weight, x)| weight * x)
        .sum();
    Verdict::Probability(1.0 / (1.0 + (-sum - BIAS).exp()))
}
