//! Tools to choose from, answers that must fit a schema, images.

use crate::policy::route::facts::Facts;
use crate::policy::route::rule::{GROUPS, Rule, up_to};

pub(in super::super) struct Tools;

impl Rule for Tools {
    fn weigh(&self, facts: &Facts, _: [f32; GROUPS]) -> f32 {
        let tools = if facts.tools { 0.8 } else { 0.0 };
        let structured = if facts.structured { 0.3 } else { 0.0 };
        tools + structured + 0.4 * up_to(facts.tool_results, 4.0) + 0.4 * up_to(facts.media, 1.0)
    }
}
