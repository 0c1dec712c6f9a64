//! Past, present and future; *can*, *should* and what is.

use super::align::Alignment;
use super::lexicon;
use super::question::{Ask, Kind, Question, Term};

/// Whether both ask of the past, the present or the future, and of what can or should be.
pub(super) fn same_tense(a: &Question, b: &Question) -> bool {
    let has = |question: &Question, words: &[&str]| {
        question
            .terms()
            .any(|term| term.kind == Kind::Aux && words.contains(&term.text))
    };
    let past = ["was", "were", "did", "had"];
    // *has been paid* is asked for as *was paid* and as *is paid*, *have you worked* as *did you
    // work* and never as *do you work*.
    let (of_a, of_b) = (perfect(a), perfect(b));
    let future = ["will", "shall"];
    let duty = ["should", "must", "ought", "shall"];
    let ability = ["can", "could", "may", "might"];
    let past_differs = match (has(a, &past), has(b, &past)) {
        (true, false) => of_b == Perfect::No || has(a, &["had"]),
        (false, true) => of_a == Perfect::No || has(b, &["had"]),
        (true, true) => false,
        (false, false) => {
            matches!(
                (of_a, of_b),
                (Perfect::Active, Perfect::No) | (Perfect::No, Perfect::Active)
            ) && [a, b].into_iter().any(is_present)
        }
    };
    if past_differs || has(a, &future) != has(b, &future) {
        return false;
    }
    if a.asks.contains(&Ask::How) {
        return true;
    }
    // *Where should I stay* asks what *where do I stay* does, and not what *where may I stay* does.
    // What others should do is not what they do.
    let talks = |question: &Question| {
        question
            .terms()
            .any(|term| matches!(term.text, "i" | "we" | "you" | "one"))
    };
    let advice = a.asks.contains(&Ask::What) || a.asks.contains(&Ask::Where);
    if advice && talks(a) && talks(b) && !has(a, &ability) && !has(b, &ability) {
        return true;
    }
    has(a, &duty) == has(b, &duty)
        && (has(a, &ability) == has(b, &ability) || !a.asks.contains(&Ask::Whether))
}

/// *do you work*, *who owns it*, but not *who bought it*, *can I go*.
fn is_present(question: &Question) -> bool {
    const PRESENT: [&str; 5] = ["do", "does", "is", "are", "am"];
    let helps = |term: Term<'_>| term.kind == Kind::Aux && PRESENT.contains(&term.text);
    let helped = question.terms().any(helps) || !has_aux(question.terms());
    helped && !question.terms().any(|term| is_past(&term))
}

fn has_aux<'a>(mut terms: impl Iterator<Item = Term<'a>>) -> bool {
    terms.any(|term| term.kind == Kind::Aux)
}

fn is_past(term: &Term<'_>) -> bool {
    let verb = matches!(term.kind, Kind::Content | Kind::Light | Kind::Negation);
    verb && lexicon::is_past(term.text)
}

/// What *has* and *have* are to a question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Perfect {
    /// They say what one has, or are not there.
    No,
    /// *has been paid*.
    Passive,
    /// *have you worked*, *has been president*.
    Active,
}

fn perfect(question: &Question) -> Perfect {
    let terms: Vec<Term<'_>> = question.terms().collect();
    let is = |at: usize, words: &[&str]| {
        let term = terms.get(at);
        term.is_some_and(|term| words.contains(&term.text))
    };
    // *does it have heated seats*, *have to be named*.
    let helped = (0..terms.len()).any(|at| is(at, &["do", "does", "did"]));
    let have = (0..terms.len()).find(|at| is(*at, &["has", "have"]) && !is(at + 1, &["to"]));
    let Some(have) = have.filter(|_| !helped) else {
        return Perfect::No;
    };
    let past = |at: usize| terms.get(at).is_some_and(is_past);
    // *who has the red car*: behind an article stands a thing.
    let article = |at: usize| is(at, &["the", "a", "an"]);
    for at in have + 1..(have + 6).min(terms.len()) {
        if is(at, &["been"]) {
            return match (at + 1..at + 3).any(past) {
                true => Perfect::Passive,
                false => Perfect::Active,
            };
        }
        if past(at) && !article(at - 1) {
            return Perfect::Active;
        }
    }
    Perfect::No
}

/// *who owns it*, *which states owned it*: nothing but the verb tells.
pub(super) fn past_alone(aligned: &Alignment<'_>) -> bool {
    let (a, b) = (&aligned.a, &aligned.b);
    let alone = |terms: &[Term<'_>]| {
        let asks = terms.first().is_some_and(|first| first.kind == Kind::Wh);
        asks && !has_aux(terms.iter().copied())
    };
    alone(a)
        && alone(b)
        && aligned.pairs.iter().any(|pair| {
            let verb = (1..3).contains(&pair.a) && (1..3).contains(&pair.b);
            verb && is_past(&a[pair.a]) != is_past(&b[pair.b])
        })
}
