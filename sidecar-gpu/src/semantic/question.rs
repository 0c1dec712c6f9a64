//! A question as the guards and the check need it: its terms, read once and kept beside the answer.

use serde::{Deserialize, Serialize};

use super::{lexicon, numbers, scan, wrappers};

/// Raised whenever the same text may be read into other terms than before; questions read by other
/// rules are never compared.
pub const RULES: u16 = 3;

/// Bytes of text that are read. A longer text is not understood.
pub const MAX_BYTES: usize = 2048;

/// Terms that are kept. A question of more is not understood.
pub(super) const MAX_TERMS: usize = 64;

/// What a term is to its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A word that says what the question is about.
    Content,
    /// A word of its own written like a name or an acronym.
    Name,
    /// A word that says little: *way*, *good*, *make*.
    Light,
    /// An article, a preposition, a conjunction.
    Function,
    /// *what*, *how*, …
    Wh,
    /// *is*, *did*, *can*, …
    Aux,
    /// A person who is not named.
    Pronoun,
    /// A word that sets the rest in relation: *before*, *without*, *instead*.
    Relation,
    /// *not*, *never*, *without*, …
    Negation,
    /// Anything with a digit, or a number in words.
    Number,
    /// A unit or a currency.
    Unit,
    /// A month, a day, *yesterday*, …
    Date,
    /// What stood between quotation marks.
    Quoted,
    /// What is compared letter by letter: code, paths, addresses.
    Code,
}

/// What kind of answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// A thing: *what*, *which*.
    What,
    /// A person.
    Who,
    /// A reason.
    Why,
    /// A manner, *what is the best way to* included.
    How,
    /// An amount, a duration, a size: *how many*, *how long*.
    Amount,
    /// A time.
    When,
    /// A place.
    Where,
    /// Yes or no.
    Whether,
    /// No question in form.
    Statement,
}

/// How much of the text is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// English: compared by terms.
    English,
    /// Another language or script, or too little to tell: compared as a whole.
    Verbatim,
    /// Longer than what is read: never the same as anything.
    TooLong,
}

/// A question, read. About the size of its text; made by [`Question::read`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub(super) rules: u16,
    pub(super) reading: Reading,
    pub(super) asks: Vec<Ask>,
    /// The terms, one a line; the whole text in small letters where it is not understood.
    pub(super) text: Box<str>,
    /// One per term.
    pub(super) kinds: Vec<Kind>,
}

/// One term, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term<'a> {
    pub(super) text: &'a str,
    pub(super) kind: Kind,
}

impl Question {
    /// Reads a question: a few microseconds, no more than [`MAX_BYTES`] of it.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut question = Self {
            rules: RULES,
            reading: Reading::TooLong,
            asks: Vec::new(),
            text: Box::default(),
            kinds: Vec::new(),
        };
        if text.len() > MAX_BYTES {
            return question;
        }
        let folded = scan::fold(text);
        let mut tokens = scan::tokens(&folded);
        if !scan::is_english(&folded, &tokens) {
            question.reading = Reading::Verbatim;
            question.text = scan::verbatim(&folded).into();
            return question;
        }
        wrappers::drop(&mut tokens);
        purposes(&mut tokens);
        let mut tokens = numbers::join(tokens);
        tokens.truncate(MAX_TERMS + 1);
        if tokens.len() > MAX_TERMS {
            return question;
        }
        question.reading = Reading::English;
        question.asks = asks(&tokens);
        question.kinds = tokens.iter().map(|token| token.kind).collect();
        let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
        question.text = texts.join("\n").into();
        question
    }

    /// How much of it was understood.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.reading
    }

    /// Whether [`Question::read`] may have made it: what is longer would cost more to compare.
    pub(super) fn is_sound(&self) -> bool {
        let bounded = self.kinds.len() <= MAX_TERMS
            && self.asks.len() <= 2 * MAX_TERMS
            // Small letters and contractions written out take more than was written.
            && self.text.len() <= 4 * MAX_BYTES;
        let terms = self.text.split('\n').count();
        let whole = match self.reading {
            Reading::English => terms == self.kinds.len().max(1),
            Reading::Verbatim | Reading::TooLong => self.kinds.is_empty(),
        };
        bounded && whole
    }

    /// Bytes on the heap.
    pub(super) fn weight(&self) -> usize {
        self.text.len() + self.kinds.len() + self.asks.len()
    }

    /// Whether all terms are equal, in their order.
    pub(super) fn same_terms(&self, other: &Self) -> bool {
        self.text == other.text && self.kinds == other.kinds
    }

    pub(super) fn terms(&self) -> impl Iterator<Item = Term<'_>> {
        self.text
            .split('\n')
            .zip(&self.kinds)
            .map(|(text, &kind)| Term { text, kind })
    }
}

/// *the best laptop to buy*, *good places to visit*: what is looked for says that already, so the
/// verb is as light as *get* is.
fn purposes(tokens: &mut [scan::Token]) {
    const BACK: usize = 6;
    for at in 1..tokens.len() {
        let purpose = tokens[at - 1].text == "to"
            && matches!(
                tokens[at].text.as_str(),
                "buy" | "purchase" | "visit" | "read" | "watch"
            );
        let clause = &tokens[at.saturating_sub(BACK)..at];
        let chosen = clause
            .iter()
            .any(|token| matches!(token.text.as_str(), "best" | "good" | "top" | "great"));
        if purpose && chosen {
            tokens[at].kind = Kind::Light;
        }
        // *the procedure to apply*, but *the procedure code*.
        let manner = matches!(tokens[at].text.as_str(), "to" | "i" | "you" | "we" | "one");
        if manner && tokens[at - 1].text == "procedure" {
            tokens[at - 1].kind = Kind::Light;
        }
        // *under $500* is *below $500*.
        let amount = matches!(tokens[at].kind, Kind::Number | Kind::Unit);
        if amount && tokens[at - 1].text == "below" {
            tokens[at - 1].text = "under".to_owned();
        }
    }
}

/// What is asked, clause by clause.
fn asks(tokens: &[scan::Token]) -> Vec<Ask> {
    let mut asks = Vec::new();
    let clauses = tokens.chunk_by(|_, next| !next.starts_sentence);
    for clause in clauses {
        asks.extend(ask(clause));
        // *where and how …*
        for (at, two) in clause.windows(2).enumerate() {
            if matches!(two[0].text.as_str(), "and" | "or") && two[1].kind == Kind::Wh {
                asks.extend(ask(&clause[at + 1..]));
            }
        }
    }
    // Questions among statements: the statements are circumstances, compared by their words.
    if asks.iter().any(|ask| *ask != Ask::Statement) {
        asks.retain(|ask| *ask != Ask::Statement);
    } else {
        asks.truncate(1);
    }
    asks
}

fn ask(clause: &[scan::Token]) -> Option<Ask> {
    let word = |at: usize| clause.get(at).map_or("", |token| token.text.as_str());
    let first = clause.first()?;
    if first.kind == Kind::Aux && word(0) != "need" {
        if clause.iter().take(5).any(|token| is_manner(&token.text)) {
            return Some(Ask::How); // is there a way to …
        }
        return Some(Ask::Whether);
    }
    if matches!(word(0), "if" | "whether") && !clause.iter().any(|token| token.kind == Kind::Wh) {
        return Some(Ask::Whether);
    }
    let Some(at) = clause.iter().position(|token| token.kind == Kind::Wh) else {
        // *in Peru, is it …*
        let turned = clause.windows(2).any(|two| {
            two[0].kind == Kind::Aux
                && matches!(
                    two[1].text.as_str(),
                    "i" | "you" | "we" | "it" | "he" | "she" | "they" | "there"
                )
        });
        return Some(if turned { Ask::Whether } else { Ask::Statement });
    };
    // *when I try, it fails* is a circumstance; so is *where* after a noun.
    let next_is_aux = clause
        .get(at + 1)
        .is_some_and(|token| token.kind == Kind::Aux);
    let Some(at) = (match word(at) {
        "when" | "where" | "who" | "which" if !next_is_aux && at > 0 => clause
            .iter()
            .skip(at + 1)
            .position(|token| token.kind == Kind::Wh)
            .map(|further| at + 1 + further),
        _ => Some(at),
    }) else {
        return Some(Ask::Statement);
    };
    Some(match word(at) {
        "who" | "whom" | "whose" => Ask::Who,
        "why" => Ask::Why,
        "when" => Ask::When,
        "where" => Ask::Where,
        "how" if asks_difference(&clause[at..]) => Ask::What,
        "how" => match word(at + 1) {
            "come" => Ask::Why,
            "many" | "much" | "long" | "often" | "far" | "old" | "big" | "large" | "tall"
            | "high" | "fast" | "deep" | "wide" | "heavy" | "soon" | "hot" | "cold" | "likely" => {
                Ask::Amount
            }
            _ if how_is_what(clause, at) => Ask::What,
            _ => Ask::How,
        },
        "what" if what_is_how(clause, at) => Ask::How,
        _ => {
            let near = clause.iter().skip(at + 1).take(5);
            let of_manner = clause
                .iter()
                .skip(at + 1)
                .take(8)
                .position(|token| is_manner(&token.text))
                .is_some_and(|way| match word(at + way + 2) {
                    "to" | "i" | "you" | "we" | "one" => true,
                    // *the process of applying*, but *the process for a loan*.
                    "of" | "for" => word(at + way + 3).ends_with("ing"),
                    _ => false,
                });
            match word(at + 1) {
                "time" | "date" | "year" | "day" => Ask::When,
                _ if of_manner => Ask::How,
                _ if near.clone().take(4).any(|token| token.text == "time") => Ask::When,
                _ if near
                    .clone()
                    .any(|token| matches!(lexicon::stem(&token.text).as_str(), "reason")) =>
                {
                    Ask::Why
                }
                _ => Ask::What,
            }
        }
    })
}

/// *how would you define X*, *how does it feel to …*
fn how_is_what(clause: &[scan::Token], at: usize) -> bool {
    let word = |at: usize| clause.get(at).map_or("", |token| token.text.as_str());
    clause
        .get(at + 1)
        .is_some_and(|token| token.kind == Kind::Aux)
        && matches!(
            (word(at + 2), word(at + 3)),
            ("you" | "one", "define" | "explain" | "describe") | ("it", "feel")
        )
}

/// *what can I do to …*
fn what_is_how(clause: &[scan::Token], at: usize) -> bool {
    let kind = |at: usize| clause.get(at).map(|token| token.kind);
    let word = |at: usize| clause.get(at).map_or("", |token| token.text.as_str());
    let done = match kind(at + 2) {
        Some(Kind::Pronoun) if word(at + 3) == "do" => at + 4,
        Some(Kind::Pronoun)
            if matches!(word(at + 3), "have" | "need")
                && (word(at + 4), word(at + 5)) == ("to", "do") =>
        {
            at + 6
        }
        _ if (word(at + 2), word(at + 3)) == ("be", "done") => at + 4,
        _ => return false,
    };
    kind(at + 1) == Some(Kind::Aux) && matches!(word(done), "to" | "about")
}

/// *how do X and Y differ*, *how is X different from Y*: the difference, not a manner.
fn asks_difference(asked: &[scan::Token]) -> bool {
    let word = |at: usize| asked.get(at).map_or("", |token| token.text.as_str());
    let is = matches!(word(1), "is" | "are" | "was" | "were");
    (0..asked.len()).any(|at| match word(at) {
        "differ" | "differs" => true,
        // Not *how do different animals sleep*, *how are different laws made*.
        "different" if at == 1 => matches!(word(2), "is" | "are"),
        "different" => is && matches!(word(at + 1), "" | "from" | "than" | "to"),
        _ => false,
    })
}

fn is_manner(word: &str) -> bool {
    matches!(
        word,
        "way" | "ways" | "method" | "methods" | "steps" | "procedure" | "process"
    )
}
