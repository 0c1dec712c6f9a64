//! `guard`: what holds spending where caches fail, and when an upstream that fails is left alone.

use sluice_wire::Usd;

use super::Lower;
use crate::config::plan::{Backoff, Guard, Misses, Spend};
use crate::config::raw::{self, Mode, OverSpend};
use crate::config::values::Count;

impl Lower<'_> {
    pub(super) fn guard(&mut self, path: &str, mode: Mode, raw: &raw::Guard) -> Guard {
        Guard {
            mode,
            misses: raw
                .misses
                .as_ref()
                .map(|raw| self.misses(&format!("{path}.misses"), raw)),
            spend: raw
                .spend
                .as_ref()
                .map(|raw| self.spend(&format!("{path}.spend"), raw)),
            backoff: raw
                .backoff
                .as_ref()
                .map(|raw| self.backoff(&format!("{path}.backoff"), raw)),
        }
    }

    fn misses(&mut self, path: &str, raw: &raw::Misses) -> Misses {
        let defaults = Misses::default();
        let Count(limit) = raw.limit;
        if !(1..=1_000_000).contains(&limit) {
            self.fault(
                &format!("{path}.limit"),
                format!("found {limit}, expected 1 to 1000000"),
            );
        }
        let queue = raw
            .queue
            .map_or(defaults.queue as u64, |Count(queue)| queue);
        if queue > 100_000 {
            self.fault(
                &format!("{path}.queue"),
                format!("found {queue}, expected 0 to 100000"),
            );
        }
        let wait_ms = self.within(
            &format!("{path}.wait"),
            raw.wait,
            defaults.wait_ns / 1_000_000,
            0..=600_000,
        );
        Misses {
            limit,
            queue: queue as usize,
            wait_ns: wait_ms * 1_000_000,
        }
    }

    fn spend(&mut self, path: &str, raw: &raw::Spend) -> Spend {
        let factor = raw.factor.unwrap_or(4.0);
        if !(1.0..=1000.0).contains(&factor) {
            self.fault(
                &format!("{path}.factor"),
                format!("found {factor}, expected 1 to 1000"),
            );
        }
        let dollars = |lower: &mut Self, name: &str, found: f64| {
            if !(0.0..=1e6).contains(&found) {
                lower.fault(
                    &format!("{path}.{name}"),
                    format!("found {found}, expected 0 to 1000000 dollars per minute"),
                );
            }
            Usd::from_dollars(found)
        };
        let floor = dollars(self, "floor", raw.floor.unwrap_or(1.0));
        let ceiling = raw.ceiling.map(|found| dollars(self, "ceiling", found));
        if ceiling.is_some_and(|ceiling| ceiling < floor) {
            self.fault(
                &format!("{path}.ceiling"),
                "found less than `floor`, expected at least as much",
            );
        }
        let over = raw
            .over
            .clone()
            .unwrap_or_else(|| vec![OverSpend::Stale, OverSpend::SmallTier, OverSpend::Reject]);
        if over.is_empty() {
            self.fault(
                &format!("{path}.over"),
                "found nothing, expected some of stale, small_tier, queue, reject",
            );
        }
        Spend {
            factor,
            floor,
            ceiling,
            over,
        }
    }

    fn backoff(&mut self, path: &str, raw: &raw::Backoff) -> Backoff {
        let failures = raw.failures.map_or(5, |Count(failures)| failures);
        if !(1..=1_000_000).contains(&failures) {
            self.fault(
                &format!("{path}.failures"),
                format!("found {failures}, expected 1 to 1000000"),
            );
        }
        let pause = self.within(&format!("{path}.pause"), raw.pause, 1000, 10..=3_600_000);
        let longest = self.within(
            &format!("{path}.longest"),
            raw.longest,
            30_000,
            10..=3_600_000,
        );
        if longest < pause {
            self.fault(
                &format!("{path}.longest"),
                "found less than `pause`, expected at least as much",
            );
        }
        Backoff {
            failures: failures as u32,
            pause_ns: pause * 1_000_000,
            longest_ns: longest * 1_000_000,
        }
    }
}
