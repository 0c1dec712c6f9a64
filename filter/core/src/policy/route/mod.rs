//! How hard a request is, in [0, 1], and which tier that makes it.

mod facts;
pub mod learned;
mod lexicon;
pub mod quality;
mod rule;
mod rules;
mod scan;

use facts::Facts;
use learned::{MODEL, Model, Weigh};
use lexicon::LEXICON;
use rule::{Hits, Rule};

use crate::formats::Request;

/// Every rule. A new one is a new file and a line here.
const RULES: [(&str, &dyn Rule); 9] = [
    ("task", &rules::Task),
    ("code", &rules::Code),
    ("maths", &rules::Maths),
    ("reasoning", &rules::Reasoning),
    ("domain", &rules::Domain),
    ("question", &rules::Question),
    ("tools", &rules::Tools),
    ("turns", &rules::Turns),
    ("length", &rules::Length),
];

/// Logit of a request in which no rule finds anything.
const NOTHING: f32 = -2.4;

/// How hard a request is, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// 0 is trivial, 1 is as hard as it gets.
    pub value: f32,
    /// How familiar the text is to the learned part of the score, in [0, 1]; at 0 the rules decide
    /// alone.
    pub confidence: f32,
    /// What each rule added to the logit, in the order of the registry, and what was learned.
    pub reasons: [(&'static str, f32); RULES.len() + 1],
}

/// What the rules make of a text: their logit, and what each added.
fn rules_logit(facts: &Facts, hits: &Hits) -> (f32, [f32; RULES.len()]) {
    let mut weights = [0.0; RULES.len()];
    let mut logit = NOTHING;
    for (at, (weight, (_, rule))) in weights.iter_mut().zip(RULES).enumerate() {
        *weight = rule.weigh(facts, hits.of(at));
        logit += *weight;
    }
    (logit, weights)
}

impl Score {
    fn of(model: &Model, (facts, hits, grams): &(Facts, Hits, Weigh<'_>)) -> Score {
        let (logit, weights) = rules_logit(facts, hits);
        let learned = model.learned((facts, hits), logit, grams);
        let mut reasons = [("learned", learned.term); RULES.len() + 1];
        for ((reason, (name, _)), weight) in reasons.iter_mut().zip(RULES).zip(weights) {
            *reason = (name, weight);
        }
        Score {
            value: 1.0 / (1.0 + (-logit - learned.term).exp()),
            confidence: learned.confidence,
            reasons,
        }
    }

    /// In thousandths, as in the ledger.
    #[must_use]
    pub fn milli(&self) -> u16 {
        (self.value * 1000.0).round() as u16
    }
}

/// Scores a request by a bounded window of it: the last user turn's beginning and end, the system
/// prompt's beginning, and counts. Deterministic; the time it takes does not grow with the text.
#[must_use]
pub fn score(request: &Request<'_>) -> Score {
    let model = &MODEL;
    Score::of(model, &facts::of_request(request, &LEXICON, model.weigh()))
}

/// Scores a bare prompt as if it were a request's only message.
#[must_use]
pub fn score_prompt(prompt: &str) -> Score {
    score_prompt_by(&MODEL, prompt)
}

/// The same with another model than the shipped one.
#[must_use]
pub fn score_prompt_by(model: &Model, prompt: &str) -> Score {
    Score::of(model, &facts::of_prompt(prompt, &LEXICON, model.weigh()))
}

/// Upper bounds of the tiers but the last, when the config names none.
pub const THRESHOLDS: [f32; 2] = [0.3, 0.7];

/// The tier of a score: the first whose threshold it is below, else the one after the last.
/// `thresholds` rise.
#[must_use]
pub fn pick(score: f32, thresholds: &[f32]) -> usize {
    thresholds
        .iter()
        .position(|&below| score < below)
        .unwrap_or(thresholds.len())
}

#[cfg(test)]
mod tests;
