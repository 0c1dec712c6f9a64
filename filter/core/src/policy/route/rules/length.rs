//! How much there is to read.

use crate::policy::route::facts::Facts;
use crate::policy::route::rule::{GROUPS, Rule, up_to};

pub(in super::super) struct Length;

impl Rule for Length {
    fn weigh(&self, facts: &Facts, _: [f32; GROUPS]) -> f32 {
        // Long input is often a document to look something up in: it saturates.
        let words = facts.words + facts.numbers;
        0.5 * up_to(words, 60.0) + 0.4 * up_to(words, 250.0)
    }
}
