//! What a rule is: its words, and what it makes of the facts.

use super::facts::Facts;

/// Word groups that a rule can have.
pub(super) const GROUPS: usize = 4;

/// One view of what makes a request hard. A new one is a new file and a line in `RULES`.
pub(super) trait Rule: Sync {
    /// Groups of words, at most [`GROUPS`], each separated by white space, lower case; `_` joins
    /// the words of a two-word phrase. Chinese, Japanese and Korean entries are pairs of
    /// characters.
    fn words(&self) -> &'static [&'static str] {
        &[]
    }

    /// What it adds to the score's logit: positive is harder. `hits` are the counts of its word
    /// groups.
    fn weigh(&self, facts: &Facts, hits: [f32; GROUPS]) -> f32;
}

/// How often the words of each rule's groups stood in the window.
#[derive(Clone, Debug)]
pub(super) struct Hits(pub(super) [u16; super::RULES.len() * GROUPS]);

impl Hits {
    pub(super) fn new() -> Hits {
        Hits([0; super::RULES.len() * GROUPS])
    }

    /// Those of the rule at this place in the registry.
    pub(super) fn of(&self, rule: usize) -> [f32; GROUPS] {
        let mut counts = [0.0; GROUPS];
        for (count, hits) in counts.iter_mut().zip(self.0.iter().skip(rule * GROUPS)) {
            *count = f32::from(*hits);
        }
        counts
    }
}

/// `count` of something as a share of `enough`, at most 1: the third sign of a thing says less
/// than the first.
pub(super) fn up_to(count: f32, enough: f32) -> f32 {
    (count / enough).min(1.0)
}
