//! What the learned part of the score sees of a prompt: its form in numbers, and its words.

use super::super::RULES;
use super::super::facts::Facts;
use super::super::rule::{GROUPS, Hits};

/// Numbers of a prompt's form.
pub const FORM: usize = 30 + RULES.len() * GROUPS;

/// The form, of what the pass counted and the rules made of it. `variety` is the share of words
/// and pairs that stood there for the first time.
pub(super) fn form((facts, hits): (&Facts, &Hits), logit: f32, variety: f32) -> [f32; FORM] {
    let words = facts.words.max(1.0);
    let all_words = facts.words + facts.numbers;
    let options = facts.options.max(1.0);
    let in_options = if facts.options > 0.0 {
        all_words - facts.before_options
    } else {
        0.0
    };
    let numbers_in_options = if facts.options > 0.0 {
        facts.numbers - facts.numbers_before_options
    } else {
        0.0
    };
    let ends = facts.sentences + facts.questions;
    let own = [
        logit,
        facts.bytes.ln_1p(),
        all_words.ln_1p(),
        facts.numbers.ln_1p(),
        facts.sentences.ln_1p(),
        facts.questions.ln_1p(),
        facts.list_items.ln_1p(),
        facts.options.ln_1p(),
        facts.amounts.ln_1p(),
        facts.operators.ln_1p(),
        facts.latex.ln_1p(),
        facts.code_signs.ln_1p(),
        facts.identifiers.ln_1p(),
        facts.lines.ln_1p(),
        facts.commas.ln_1p(),
        facts.quotes.ln_1p(),
        facts.blanks.ln_1p(),
        facts.brackets.ln_1p(),
        (all_words - in_options).ln_1p(),
        (in_options / options).ln_1p(),
        (numbers_in_options / options).ln_1p(),
        numbers_in_options / in_options.max(1.0),
        facts.numbers / all_words.max(1.0),
        facts.letters / words,
        facts.long_words / words,
        facts.capitals / words,
        (all_words / (ends + 1.0)).ln_1p(),
        facts.commas / words,
        facts.indented.ln_1p(),
        variety,
    ];
    let mut form = [0.0; FORM];
    let counts = hits.0.iter().map(|&count| f32::from(count).ln_1p());
    for (form, value) in form.iter_mut().zip(own.into_iter().chain(counts)) {
        *form = value;
    }
    form
}
