//! Which term of one question stands for which term of the other.

use super::lexicon;
use super::question::{Kind, Question, Term};
use super::vocabulary::Vocabulary;

/// Two terms taken for the same, by their places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) a: usize,
    pub(super) b: usize,
}

/// Two questions term by term.
#[derive(Debug)]
pub(super) struct Alignment<'q> {
    pub(super) a: Vec<Term<'q>>,
    pub(super) b: Vec<Term<'q>>,
    /// In the order of `a`.
    pub(super) pairs: Vec<Pair>,
    pub(super) alone_a: Vec<usize>,
    pub(super) alone_b: Vec<usize>,
}

/// Content in the widest sense: what the question is about.
pub(super) fn is_content(kind: Kind) -> bool {
    matches!(kind, Kind::Content | Kind::Name)
}

fn is_word(kind: Kind) -> bool {
    !matches!(kind, Kind::Number | Kind::Quoted | Kind::Code)
}

impl<'q> Alignment<'q> {
    pub(super) fn new(a: &'q Question, b: &'q Question, words: Option<&Vocabulary>) -> Self {
        let mut aligned = Self {
            a: a.terms().collect(),
            b: b.terms().collect(),
            pairs: Vec::new(),
            alone_a: Vec::new(),
            alone_b: Vec::new(),
        };
        aligned.alone_a = (0..aligned.a.len()).collect();
        aligned.alone_b = (0..aligned.b.len()).collect();
        aligned
            .take(|one, other| one.text == other.text && is_word(one.kind) == is_word(other.kind));
        if aligned.alone_a.is_empty() && aligned.alone_b.is_empty() {
            aligned.pairs.sort_unstable_by_key(|pair| pair.a);
            return aligned;
        }
        let both = |one: Term<'_>, other: Term<'_>| is_word(one.kind) && is_word(other.kind);
        aligned.take(|one, other| {
            both(one, other) && lexicon::stem(one.text) == lexicon::stem(other.text)
        });
        aligned.join_split();
        aligned.take(|one, other| both(one, other) && lexicon::synonyms(one.text, other.text));
        aligned.take(|one, other| {
            one.kind == Kind::Content
                && other.kind == Kind::Content
                && is_typo(one.text, other.text, words)
        });
        aligned.pairs.sort_unstable_by_key(|pair| pair.a);
        aligned
    }

    /// Pairs what is alone on both sides, nearest places first come.
    fn take(&mut self, equal: impl Fn(Term<'_>, Term<'_>) -> bool) {
        let (a, b) = (&self.a, &self.b);
        let (alone_b, pairs) = (&mut self.alone_b, &mut self.pairs);
        self.alone_a.retain(|&at| {
            let Some(place) = alone_b.iter().position(|&other| equal(a[at], b[other])) else {
                return true;
            };
            pairs.push(Pair {
                a: at,
                b: alone_b.remove(place),
            });
            false
        });
    }

    /// *cock roach* for *cockroach*, either way round.
    fn join_split(&mut self) {
        let joined = |whole: Term<'_>, terms: &[Term<'_>], alone: &[usize]| {
            alone.windows(2).find_map(|two| match two {
                [one, next]
                    if *next == one + 1
                        && whole.text.strip_prefix(terms[*one].text) == Some(terms[*next].text) =>
                {
                    Some(*one)
                }
                _ => None,
            })
        };
        let mut found = Vec::new();
        for &at in &self.alone_a {
            if let Some(first) = joined(self.a[at], &self.b, &self.alone_b) {
                found.push((at, first));
                self.alone_b
                    .retain(|other| *other != first && *other != first + 1);
            }
        }
        self.alone_a
            .retain(|at| !found.iter().any(|(whole, _)| whole == at));
        self.pairs
            .extend(found.drain(..).map(|(a, b)| Pair { a, b }));
        for &at in &self.alone_b {
            if let Some(first) = joined(self.b[at], &self.a, &self.alone_a) {
                found.push((first, at));
                self.alone_a
                    .retain(|other| *other != first && *other != first + 1);
            }
        }
        self.alone_b
            .retain(|at| !found.iter().any(|(_, whole)| whole == at));
        self.pairs
            .extend(found.into_iter().map(|(a, b)| Pair { a, b }));
    }
}

/// One slip of the keyboard in a long word, where exactly one of the two is a usual word: two usual
/// words that are this near are two words (*casual*, *causal*), two unusual ones may be two names.
fn is_typo(one: &str, other: &str, words: Option<&Vocabulary>) -> bool {
    let Some(words) = words else { return false };
    let (short, long) = (one.len().min(other.len()), one.len().max(other.len()));
    short >= 5
        && long - short <= 1
        && one.as_bytes().first() == other.as_bytes().first()
        && one_slip(one.as_bytes(), other.as_bytes())
        && words.is_usual(one) != words.is_usual(other)
}

/// One letter more, less, other, or two neighbours swapped.
fn one_slip(one: &[u8], other: &[u8]) -> bool {
    let head = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[head..], &other[head..]);
    let tail = one
        .iter()
        .rev()
        .zip(other.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (one, other) = (&one[..one.len() - tail], &other[..other.len() - tail]);
    match (one, other) {
        ([_], [_]) | ([_], []) | ([], [_]) => true,
        ([a, b], [c, d]) => a == d && b == c,
        _ => false,
    }
}
