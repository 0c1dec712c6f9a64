//! `budgets`: what may be spent, by whom, in which window.

use sluice_wire::{Unit, Usd};

use super::Lower;
use crate::config::plan::BudgetRule;
use crate::config::raw;
use crate::config::values::Count;

/// Largest dollar budget: sums stay exact in 64 bits of picodollars.
const MAX_DOLLARS: f64 = 1_000_000.0;

impl Lower<'_> {
    /// `raw` has each rule's index in the config.
    pub(super) fn budgets(&mut self, raw: &[(usize, raw::Budget)]) -> Vec<BudgetRule> {
        let mut budgets: Vec<_> = raw
            .iter()
            .filter_map(|(at, rule)| self.budget(*at, rule))
            .collect();
        number_alike(&mut budgets);
        budgets
    }

    fn budget(&mut self, at: usize, raw: &raw::Budget) -> Option<BudgetRule> {
        let path = format!("budgets[{at}]");
        let (unit, limit) = match (raw.tokens, raw.dollars) {
            (Some(Count(tokens)), None) => (Unit::Tokens, tokens),
            (None, Some(dollars)) if dollars > 0.0 && dollars <= MAX_DOLLARS => {
                (Unit::Usd, Usd::from_dollars(dollars).0.unsigned_abs())
            }
            (None, Some(dollars)) => {
                self.fault(
                    &format!("{path}.dollars"),
                    format!("found {dollars}, expected more than 0, at most {MAX_DOLLARS}"),
                );
                return None;
            }
            (None, None) => {
                self.fault(
                    &path,
                    "found neither tokens nor dollars, expected one of them",
                );
                return None;
            }
            (Some(_), Some(_)) => {
                self.fault(
                    &path,
                    "found tokens and dollars, expected one of them (write two rules)",
                );
                return None;
            }
        };
        // 2^53: the shared store's scripts compare in doubles.
        if limit == 0 || (unit == Unit::Tokens && limit > 1 << 53) {
            self.fault(
                &format!("{path}.tokens"),
                format!("found {limit}, expected 1 to 2^53"),
            );
            return None;
        }
        Some(BudgetRule {
            per: raw.per,
            only: raw.only.clone(),
            unit,
            limit,
            every: raw.every,
            over: raw.over,
            series: 0,
        })
    }
}

/// Gives rules that count the same thing in the same window counters of their own.
fn number_alike(budgets: &mut [BudgetRule]) {
    for at in 0..budgets.len() {
        let (before, rest) = budgets.split_at_mut(at);
        if let Some(rule) = rest.first_mut() {
            let alike = |other: &&BudgetRule| {
                (other.per, other.every, other.unit) == (rule.per, rule.every, rule.unit)
            };
            rule.series = before.iter().filter(alike).count() as u16;
        }
    }
}
