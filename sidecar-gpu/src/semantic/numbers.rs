//! Numbers in words, ordinals and Roman numerals, brought to digits; units after them.

use super::lexicon;
use super::question::Kind;
use super::scan::Token;

const SMALL: &[&str] = &[
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];

const TENS: &[&str] = &[
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];

const ORDINALS: &[&str] = &[
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    "eleventh", "twelfth",
];

const SCALES: &[(&str, u64)] = &[
    ("hundred", 100),
    ("thousand", 1_000),
    ("lakh", 100_000),
    ("lakhs", 100_000),
    ("million", 1_000_000),
    ("crore", 10_000_000),
    ("crores", 10_000_000),
    ("billion", 1_000_000_000),
    ("trillion", 1_000_000_000_000),
];

const OTHERS: &[(&str, &str)] = &[
    ("half", "1/2"),
    ("quarter", "1/4"),
    ("double", "2x"),
    ("twice", "2x"),
    ("triple", "3x"),
    ("thrice", "3x"),
    ("once", "1x"),
    ("dozen", "12"),
    ("couple", "2"),
    ("single", "1"),
];

/// Words after which a lone `I`, `V` or `X` counts.
const NUMBERED: &[&str] = &[
    "type", "part", "phase", "chapter", "class", "level", "grade", "stage", "war", "volume",
    "book", "article", "title", "factor", "schedule", "category", "tier", "episode", "act",
];

fn below_hundred(word: &str) -> Option<u64> {
    let at = |list: &[&str]| list.iter().position(|one| *one == word).map(|at| at as u64);
    at(SMALL).or_else(|| at(TENS).map(|tens| (tens + 2) * 10))
}

fn scale(word: &str) -> Option<u64> {
    SCALES
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, value)| *value)
}

/// Joins what spells one number and tells numbers and units from other words.
pub(super) fn join(tokens: Vec<Token>) -> Vec<Token> {
    let mut joined: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.into_iter().peekable();
    while let Some(mut token) = rest.next() {
        let previous = joined.last();
        let next = rest.peek();
        if token.kind == Kind::Number {
            if let (Ok(digits), Some(by)) = (
                token.text.parse::<u64>(),
                next.and_then(|next| scale(&next.text)),
            ) {
                token.text = digits.saturating_mul(by).to_string();
                rest.next();
            }
        } else if is_one_pronoun(&token.text, previous, next) {
            token.kind = Kind::Pronoun;
        } else if let Some(first) = below_hundred(&token.text).or_else(|| scale(&token.text)) {
            let mut total = first;
            while let Some(word) = rest.peek().filter(|next| !next.starts_sentence) {
                if let Some(by) = scale(&word.text) {
                    total = total.saturating_mul(by);
                } else if let Some(small) = below_hundred(&word.text)
                    && total >= 20
                    && total.is_multiple_of(if small < 10 { 10 } else { 100 })
                {
                    total = total.saturating_add(small);
                } else {
                    break;
                }
                rest.next();
            }
            token.kind = Kind::Number;
            token.text = total.to_string();
        } else if let Some(nth) = ordinal(&token.text, previous) {
            token.kind = Kind::Number;
            token.text = nth;
        } else if let Some((_, value)) = OTHERS.iter().find(|(word, _)| *word == token.text) {
            token.kind = Kind::Number;
            token.text = (*value).to_string();
        } else if let Some(roman) = token.roman.filter(|value| {
            *value > 1 && !matches!(*value, 5 | 10 | 50 | 100 | 500 | 1000)
                || previous.is_some_and(|word| NUMBERED.contains(&word.text.as_str()))
        }) {
            token.kind = Kind::Number;
            token.text = roman.to_string();
        } else if let Some(unit) = lexicon::unit(&token.text).filter(|unit| {
            // *in*, *m*, *l* and the like are units only after a number.
            unit.len() > 2 && token.text.len() > 2
                || unit.len() == 2 && token.text.len() > 2
                || matches!(
                    token.text.as_str(),
                    "km" | "kg"
                        | "cm"
                        | "mm"
                        | "gb"
                        | "mb"
                        | "tb"
                        | "kb"
                        | "mg"
                        | "ml"
                        | "$"
                        | "€"
                        | "£"
                        | "₹"
                        | "¥"
                        | "%"
                        | "lb"
                        | "oz"
                )
                || previous.is_some_and(|word| word.kind == Kind::Number)
        }) && !matches!(token.kind, Kind::Quoted | Kind::Code)
        {
            token.kind = Kind::Unit;
            token.text = unit.to_string();
        } else if matches!(
            token.text.as_str(),
            "am" | "pm" | "fps" | "rpm" | "dpi" | "c" | "f"
        ) && previous.is_some_and(|word| word.kind == Kind::Number)
        {
            token.kind = Kind::Unit;
        }
        joined.push(token);
    }
    joined
}

/// *one* as in *how can one …*, *this one*, *one of*: not a count.
fn is_one_pronoun(word: &str, previous: Option<&Token>, next: Option<&Token>) -> bool {
    if word != "one" {
        return false;
    }
    let before = previous.is_some_and(|word| {
        matches!(word.kind, Kind::Aux | Kind::Wh)
            || matches!(
                word.text.as_str(),
                "this" | "that" | "the" | "if" | "any" | "no" | "best" | "another"
            )
    });
    let after = next.is_none_or(|word| {
        word.starts_sentence
            || word.kind == Kind::Aux
            || matches!(word.text.as_str(), "of" | "should" | "to")
    });
    before || after
}

/// *third*, and *second* where it is no unit of time.
fn ordinal(word: &str, previous: Option<&Token>) -> Option<String> {
    let at = ORDINALS.iter().position(|one| *one == word)? + 1;
    let counts = at != 2
        || previous.is_some_and(|word| {
            matches!(
                word.text.as_str(),
                "the" | "my" | "your" | "a" | "his" | "her" | "their"
            )
        });
    counts.then(|| format!("{at}th"))
}

/// The value of a Roman numeral in capitals, below 4000 and written in the usual way.
pub(super) fn roman(word: &str) -> Option<u16> {
    const DIGITS: &[(&str, u16)] = &[
        ("M", 1000),
        ("CM", 900),
        ("D", 500),
        ("CD", 400),
        ("C", 100),
        ("XC", 90),
        ("L", 50),
        ("XL", 40),
        ("X", 10),
        ("IX", 9),
        ("V", 5),
        ("IV", 4),
        ("I", 1),
    ];
    if word.is_empty() || word.len() > 6 {
        return None;
    }
    let mut rest = word;
    let mut value = 0;
    for (digit, worth) in DIGITS {
        let mut times = 0;
        while let Some(after) = rest.strip_prefix(digit) {
            times += 1;
            if times > 3 || digit.len() == 2 && times > 1 {
                return None;
            }
            rest = after;
            value += worth;
        }
    }
    rest.is_empty().then_some(value)
}
