//! What must agree whatever the embeddings say: numbers, names, negation, who does what to whom.

use super::align::{Alignment, is_content};
use super::lexicon;
use super::question::{Ask, Kind, Question, RULES, Reading, Term};
use super::tense::{past_alone, same_tense};
use super::vocabulary::Vocabulary;

/// The first reason for which two questions cannot be the same. Ordered as they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// One was read by other rules than these.
    Rules,
    /// One is too long to be read.
    TooLong,
    /// Not understood, and not the same text.
    Language,
    /// Other code, path, address or sign.
    Code,
    /// Another quotation.
    Quoted,
    /// Another number.
    Number,
    /// Another unit or currency.
    Unit,
    /// Another day, month or time.
    Date,
    /// Negated in one, or something else negated.
    Negation,
    /// A name that the other has not.
    Name,
    /// Opposites in each other's place.
    Opposite,
    /// *before*, *instead*, *only*: in one and not in the other.
    Relation,
    /// Another kind of answer is asked for.
    Ask,
    /// Past, present or future; *can* or *should*.
    Tense,
    /// Another person.
    Person,
    /// *from* in one, *to* in the other.
    Direction,
    /// The same words with their parts exchanged.
    Order,
    /// A word of substance for which the other has none.
    Content,
}

impl Refusal {
    /// All of them, for counters.
    pub const ALL: [Refusal; 18] = [
        Refusal::Rules,
        Refusal::TooLong,
        Refusal::Language,
        Refusal::Code,
        Refusal::Quoted,
        Refusal::Number,
        Refusal::Unit,
        Refusal::Date,
        Refusal::Negation,
        Refusal::Name,
        Refusal::Opposite,
        Refusal::Relation,
        Refusal::Ask,
        Refusal::Tense,
        Refusal::Person,
        Refusal::Direction,
        Refusal::Order,
        Refusal::Content,
    ];

    /// A name for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Rules => "rules",
            Refusal::TooLong => "too_long",
            Refusal::Language => "language",
            Refusal::Code => "code",
            Refusal::Quoted => "quoted",
            Refusal::Number => "number",
            Refusal::Unit => "unit",
            Refusal::Date => "date",
            Refusal::Negation => "negation",
            Refusal::Name => "name",
            Refusal::Opposite => "opposite",
            Refusal::Relation => "relation",
            Refusal::Ask => "ask",
            Refusal::Tense => "tense",
            Refusal::Person => "person",
            Refusal::Direction => "direction",
            Refusal::Order => "order",
            Refusal::Content => "content",
        }
    }
}

/// Compares what needs no alignment, cheapest first.
pub(super) fn before_alignment(a: &Question, b: &Question) -> Option<Refusal> {
    if a.rules != RULES || b.rules != RULES {
        return Some(Refusal::Rules);
    }
    if a.reading == Reading::TooLong || b.reading == Reading::TooLong {
        return Some(Refusal::TooLong);
    }
    if a.reading == Reading::Verbatim || b.reading == Reading::Verbatim {
        let same = a.reading == b.reading && a.text == b.text;
        return (!same).then_some(Refusal::Language);
    }
    [
        (Kind::Code, Refusal::Code),
        (Kind::Quoted, Refusal::Quoted),
        (Kind::Number, Refusal::Number),
        (Kind::Unit, Refusal::Unit),
        (Kind::Date, Refusal::Date),
        (Kind::Relation, Refusal::Relation),
    ]
    .into_iter()
    .find(|(kind, _)| !same_terms(a, b, *kind))
    .map(|(_, refusal)| refusal)
    .or_else(|| (asked(a) != asked(b)).then_some(Refusal::Ask))
    .or_else(|| (!same_tense(a, b)).then_some(Refusal::Tense))
    .or_else(|| (!same_persons(a, b)).then_some(Refusal::Person))
}

/// Whether an alignment shows a difference.
type Differs = fn(&Alignment<'_>) -> bool;

/// Compares what the alignment shows.
pub(super) fn after_alignment(aligned: &Alignment<'_>) -> Option<Refusal> {
    let checks: [(Differs, Refusal); 7] = [
        (past_alone, Refusal::Tense),
        (negation_differs, Refusal::Negation),
        (name_alone, Refusal::Name),
        (opposites, Refusal::Opposite),
        (direction_differs, Refusal::Direction),
        (exchanged, Refusal::Order),
        (content_alone, Refusal::Content),
    ];
    checks
        .into_iter()
        .find(|(differs, _)| differs(aligned))
        .map(|(_, refusal)| refusal)
}

/// The first reason for refusing, if there is one.
#[must_use]
pub fn compare(a: &Question, b: &Question, words: Option<&Vocabulary>) -> Option<Refusal> {
    before_alignment(a, b).or_else(|| {
        if a.reading == Reading::Verbatim {
            return None;
        }
        after_alignment(&Alignment::new(a, b, words))
    })
}

fn same_terms(a: &Question, b: &Question, kind: Kind) -> bool {
    if !a.kinds.contains(&kind) && !b.kinds.contains(&kind) {
        return true;
    }
    let sorted = |question: &Question| {
        let mut texts: Vec<String> = question
            .terms()
            .filter(|term| term.kind == kind)
            .map(|term| term.text.to_string())
            .collect();
        texts.sort_unstable();
        texts
    };
    sorted(a) == sorted(b)
}

/// What is asked for, in any order; a demand (*explain X*) asks for what *what is X* does.
fn asked(question: &Question) -> Vec<Ask> {
    let mut asks: Vec<Ask> = question
        .asks
        .iter()
        .map(|ask| {
            if *ask == Ask::Statement {
                Ask::What
            } else {
                *ask
            }
        })
        .collect();
    asks.sort_unstable_by_key(|ask| *ask as u8);
    asks
}

fn same_persons(a: &Question, b: &Question) -> bool {
    let persons = |question: &Question| -> Vec<u8> {
        question
            .terms()
            .filter(|term| term.kind == Kind::Pronoun)
            .filter_map(|term| {
                Some(match term.text {
                    "i" | "me" | "my" | "mine" | "myself" | "we" | "us" | "our" | "ours"
                    | "ourselves" => 1,
                    "you" | "your" | "yours" | "yourself" | "yourselves" => 2,
                    "he" | "him" | "his" | "himself" => 3,
                    "she" | "her" | "hers" | "herself" => 4,
                    "someone" | "somebody" | "anyone" | "anybody" | "everyone" | "everybody" => 0,
                    "they" | "them" | "their" | "theirs" | "themselves" => 5,
                    _ => return None,
                })
            })
            .collect()
    };
    let (a_persons, b_persons) = (persons(a), persons(b));
    let third = |persons: &[u8]| -> Vec<u8> {
        let mut third: Vec<u8> = persons.iter().copied().filter(|one| *one > 2).collect();
        third.sort_unstable();
        third.dedup();
        third
    };
    let (a_third, b_third) = (third(&a_persons), third(&b_persons));
    let plural = |third: &[u8]| third.is_empty() || third == [5];
    if a_third != b_third && !(plural(&a_third) && plural(&b_third)) {
        return false;
    }
    // Who of the two who talk, or who else, does what to whom.
    let talk = |persons: &[u8]| -> Vec<u8> {
        let mut talk: Vec<u8> = persons.iter().copied().filter(|one| *one <= 2).collect();
        talk.dedup();
        talk
    };
    let (a_talk, b_talk) = (talk(&a_persons), talk(&b_persons));
    // *do I owe him*, *does he owe me*.
    let both = |talk: &[u8], third: &[u8]| !talk.is_empty() && !third.is_empty();
    if both(&a_talk, &a_third)
        && both(&b_talk, &b_third)
        && (a_persons.first() > Some(&2)) != (b_persons.first() > Some(&2))
    {
        return false;
    }
    let several = |talk: &[u8]| talk.iter().any(|one| *one != talk[0]);
    if several(&a_talk) || several(&b_talk) {
        return a_talk == b_talk;
    }
    // *How do you …* asks what *how do I …* asks; *what is your name* does not ask for mine.
    a.asks.contains(&Ask::How) || a_talk.is_empty() || b_talk.is_empty() || a_talk == b_talk
}

fn negation_differs(aligned: &Alignment<'_>) -> bool {
    // What is negated: the next word of substance.
    let scopes = |terms: &[Term<'_>]| -> Vec<Option<usize>> {
        terms
            .iter()
            .enumerate()
            .filter(|(_, term)| term.kind == Kind::Negation)
            .map(|(at, _)| {
                (at + 1..terms.len()).find(|next| {
                    !matches!(
                        terms[*next].kind,
                        Kind::Function | Kind::Aux | Kind::Pronoun | Kind::Negation
                    )
                })
            })
            .collect()
    };
    let (a, b) = (scopes(&aligned.a), scopes(&aligned.b));
    if a.len() != b.len() {
        return true;
    }
    a.iter().any(|scope| match scope {
        None => !b.contains(&None),
        Some(at) => {
            let partner = aligned
                .pairs
                .iter()
                .find(|pair| pair.a == *at)
                .map(|pair| pair.b);
            partner.is_none() || !b.contains(&partner)
        }
    })
}

fn name_alone(aligned: &Alignment<'_>) -> bool {
    let named =
        |terms: &[Term<'_>], alone: &[usize]| alone.iter().any(|at| terms[*at].kind == Kind::Name);
    named(&aligned.a, &aligned.alone_a) || named(&aligned.b, &aligned.alone_b)
}

fn opposites(aligned: &Alignment<'_>) -> bool {
    aligned.alone_a.iter().any(|one| {
        aligned
            .alone_b
            .iter()
            .any(|other| lexicon::opposites(aligned.a[*one].text, aligned.b[*other].text))
    })
}

/// Prepositions that say from where, to where, or by whom.
const DIRECTIONS: &[&[&str]] = &[
    &["from", "off", "out"],
    &["to", "into", "onto", "toward", "towards"],
    &["than"],
    &["by"],
    &["against"],
];

/// Words that make another verb of the one before: *sign up*, *sign in*, *sign off*.
const PARTICLES: &[&str] = &[
    "up", "off", "out", "down", "over", "away", "back", "in", "on",
];

fn particle_differs(aligned: &Alignment<'_>) -> bool {
    let behind = |terms: &[Term<'_>], at: usize| {
        let next = terms.get(at + 1)?;
        PARTICLES.iter().position(|particle| *particle == next.text)
    };
    // *in* and *on* are as often where something is.
    let place = |at: usize| matches!(PARTICLES[at], "in" | "on");
    let joins = |term: Term<'_>| matches!(term.text, "sign" | "log" | "check" | "clock" | "zoom");
    aligned.pairs.iter().any(|pair| {
        let term = aligned.a[pair.a];
        let verb = matches!(term.kind, Kind::Content | Kind::Light);
        match (behind(&aligned.a, pair.a), behind(&aligned.b, pair.b)) {
            (Some(one), Some(other)) if verb && one != other => {
                !place(one) && !place(other) || joins(term)
            }
            _ => false,
        }
    })
}

fn direction_differs(aligned: &Alignment<'_>) -> bool {
    let governor = |terms: &[Term<'_>], at: usize| {
        terms[..at]
            .iter()
            .rev()
            .find(|term| {
                !matches!(
                    term.text,
                    "a" | "an" | "the" | "my" | "your" | "our" | "their" | "his" | "her"
                )
            })
            .and_then(|term| DIRECTIONS.iter().position(|row| row.contains(&term.text)))
    };
    particle_differs(aligned)
        || aligned.pairs.iter().any(|pair| {
            let kind = aligned.a[pair.a].kind;
            if !(is_content(kind)
                || matches!(kind, Kind::Number | Kind::Unit | Kind::Date | Kind::Light))
            {
                return false;
            }
            match (governor(&aligned.a, pair.a), governor(&aligned.b, pair.b)) {
                (Some(one), Some(other)) => one != other,
                _ => false,
            }
        })
}

/// Adverbs that mean the same wherever they stand: *is still pending*, *is pending still*.
fn is_idle(term: &Term<'_>) -> bool {
    matches!(
        term.text,
        "still" | "yet" | "already" | "really" | "finally" | "currently" | "just"
    )
}

/// Whether two terms changed places round a third that stands between them in both, or as
/// neighbours.
fn exchanged(aligned: &Alignment<'_>) -> bool {
    let heavy = |at: &usize| {
        !matches!(
            aligned.a[*at].kind,
            Kind::Function | Kind::Wh | Kind::Aux | Kind::Pronoun
        ) && !is_idle(&aligned.a[*at])
    };
    let pairs: Vec<(usize, usize)> = aligned
        .pairs
        .iter()
        .filter(|pair| heavy(&pair.a))
        .map(|pair| (pair.a, pair.b))
        .collect();
    let between = |one: (usize, usize), other: (usize, usize)| {
        aligned.pairs.iter().any(|pair| {
            one.0 < pair.a
                && pair.a < other.0
                && other.1 < pair.b
                && pair.b < one.1
                && !matches!(
                    aligned.a[pair.a].text,
                    "a" | "an" | "the" | "and" | "or" | "of" | "is" | "are" | "in" | "for"
                )
        })
    };
    // *the 2015 cup*, *cup 2015*.
    let counted = |one: (usize, usize), other: (usize, usize)| {
        [one, other]
            .iter()
            .any(|pair| matches!(aligned.a[pair.0].kind, Kind::Number | Kind::Date))
    };
    // *can my boss fire me*, *can I fire my boss*: a person is the object of one alone.
    let object = |terms: &[Term<'_>]| {
        terms
            .iter()
            .any(|term| matches!(term.text, "me" | "us" | "him" | "them"))
    };
    let turned = object(&aligned.a) != object(&aligned.b);
    let neighbours = |terms: &[Term<'_>], from: usize, to: usize| {
        let own =
            |term: &Term<'_>| term.kind == Kind::Pronoun || matches!(term.text, "a" | "an" | "the");
        to == from + 1 || turned && from < to && terms[from + 1..to].iter().all(own)
    };
    pairs.iter().enumerate().any(|(at, one)| {
        pairs[at + 1..].iter().any(|other| {
            other.1 < one.1
                && (between(*one, *other)
                    || neighbours(&aligned.a, one.0, other.0)
                        && neighbours(&aligned.b, other.1, one.1)
                        && !counted(*one, *other))
        })
    })
}

fn content_alone(aligned: &Alignment<'_>) -> bool {
    let any =
        |terms: &[Term<'_>], alone: &[usize]| alone.iter().any(|at| is_content(terms[*at].kind));
    let nothing_shared = !aligned.pairs.iter().any(|pair| {
        !matches!(
            aligned.a[pair.a].kind,
            Kind::Function | Kind::Wh | Kind::Aux | Kind::Pronoun | Kind::Light
        )
    });
    let verb = |terms: &[Term<'_>], alone: &[usize]| {
        alone
            .iter()
            .any(|at| lexicon::is_light_verb(terms[*at].text))
    };
    let verb_exchanged = verb(&aligned.a, &aligned.alone_a) && verb(&aligned.b, &aligned.alone_b);
    verb_exchanged
        || any(&aligned.a, &aligned.alone_a)
        || any(&aligned.b, &aligned.alone_b)
        || nothing_shared && !(aligned.alone_a.is_empty() && aligned.alone_b.is_empty())
}
