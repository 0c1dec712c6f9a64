//! `reserve`: what a request holds of its budgets until its answer is counted.

use super::Lower;
use crate::config::plan::Reserve;
use crate::config::raw;
use crate::config::values::Count;

impl Lower<'_> {
    pub(super) fn reserve(&mut self, raw: &raw::Reserve) -> Reserve {
        Reserve {
            output_tokens: raw.output_tokens.map_or(256, |Count(tokens)| tokens),
            hold_secs: self.within("reserve.hold", raw.hold, 120_000, 1000..=86_400_000) as u32
                / 1000,
        }
    }
}
