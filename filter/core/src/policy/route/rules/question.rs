//! The shape of the question: free, with options, a blank to fill, several at once.

use crate::policy::route::facts::Facts;
use crate::policy::route::rule::{GROUPS, Rule, up_to};

pub(in super::super) struct Question;

impl Rule for Question {
    fn weigh(&self, facts: &Facts, _: [f32; GROUPS]) -> f32 {
        let several = up_to(facts.questions - 1.0, 3.0).max(0.0);
        0.5 * up_to(facts.options, 4.0) + 0.4 * several + 0.3 * up_to(facts.list_items, 5.0)
    }
}
