//! How hard a request is, in [0, 1], and which tier that makes it.

mod facts;
mod lexicon;
pub mod quality;
mod rule;
mod rules;
mod scan;

use facts::Facts;
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
    /// What each rule added to the logit, in the order of the registry.
    pub reasons: [(&'static str, f32); RULES.len()],
}

impl Score {
    fn of(facts: &Facts, hits: &Hits) -> Score {
        let mut reasons = [("", 0.0); RULES.len()];
        let mut logit = NOTHING;
        for (at, (reason, (name, rule))) in reasons.iter_mut().zip(RULES).enumerate() {
            let weight = rule.weigh(facts, hits.of(at));
            *reason = (name, weight);
            logit += weight;
        }
        Score {
            value: 1.0 / (1.0 + (-logit).exp()),
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
    let (facts, hits) = facts::of_request(request, &LEXICON);
    Score::of(&facts, &hits)
}

/// Scores a bare prompt as if it were a request's only message.
#[must_use]
pub fn score_prompt(prompt: &str) -> Score {
    let (facts, hits) = facts::of_prompt(prompt, &LEXICON);
    Score::of(&facts, &hits)
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
