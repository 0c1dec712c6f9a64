//! The conversation so far: a short last turn may stand on a long one.

use crate::policy::route::facts::Facts;
use crate::policy::route::rule::{GROUPS, Rule, up_to};

pub(in super::super) struct Turns;

impl Rule for Turns {
    fn weigh(&self, facts: &Facts, _: [f32; GROUPS]) -> f32 {
        let earlier = (facts.turns - 1.0).max(0.0);
        let context = (facts.history_bytes - facts.bytes).max(0.0);
        0.6 * up_to(earlier, 12.0)
            + 0.4 * up_to(context, 16_000.0)
            + 0.2 * up_to(facts.system_bytes, 2_000.0)
    }
}
