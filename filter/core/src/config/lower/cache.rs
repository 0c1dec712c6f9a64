//! `cache`: which answers are kept, for how long, and for whom.

use super::Lower;
use crate::config::plan::{Caching, Refresh, Semantic};
use crate::config::raw::{self, Mode};

impl Lower<'_> {
    /// Whether a part of a lever is on; it follows the lever where it is `dry`.
    fn switch(&mut self, path: &str, mode: Option<Mode>) -> bool {
        match mode {
            None | Some(Mode::On) => true,
            Some(Mode::Off) => false,
            Some(Mode::Dry) => {
                self.fault(
                    path,
                    "found `dry`, expected `on` or `off`: it is dry where the cache is",
                );
                false
            }
        }
    }

    pub(super) fn caching(&mut self, path: &str, mode: Mode, raw: &raw::Caching) -> Caching {
        let exact = raw.exact.clone().unwrap_or_default();
        let defaults = Caching::default();
        let ttl = self.within(
            &format!("{path}.exact.ttl"),
            exact.ttl,
            defaults.ttl_secs * 1000,
            1000..=30 * 86_400_000,
        );
        let max_answer = exact
            .max_answer
            .map_or(defaults.max_answer, |size| size.0 as usize);
        if !(1..=8 << 20).contains(&max_answer) {
            self.fault(
                &format!("{path}.exact.max_answer"),
                format!("found {max_answer} bytes, expected 1 to 8MiB"),
            );
        }
        let max_temperature = exact.max_temperature.unwrap_or(defaults.max_temperature);
        if !(0.0..=2.0).contains(&max_temperature) {
            self.fault(
                &format!("{path}.exact.max_temperature"),
                format!("found {max_temperature}, expected 0 to 2"),
            );
        }
        let month = 30 * 86_400_000;
        let window = |lower: &mut Self, name: &str, value| {
            lower.within(&format!("{path}.exact.{name}"), value, 0, 0..=month) / 1000
        };
        let stale_secs = window(self, "stale", exact.stale);
        let stale_if_error_secs = window(self, "stale_if_error", exact.stale_if_error);
        let coalesce = raw.coalesce.clone().unwrap_or_default();
        let lease_ms = self.within(
            &format!("{path}.coalesce.lease"),
            coalesce.lease,
            u64::from(defaults.lease_ms),
            100..=3_600_000,
        );
        let negative = raw.negative.clone();
        let negative_ms = negative.map_or(0, |negative| {
            let ttl = self.within(
                &format!("{path}.negative.ttl"),
                negative.ttl,
                30_000,
                1000..=3_600_000,
            );
            match self.switch(&format!("{path}.negative.mode"), negative.mode) {
                true => ttl,
                false => 0,
            }
        });
        let refresh = raw.refresh.as_ref().map(|refresh| {
            if refresh.cluster.is_empty() {
                self.fault(
                    &format!("{path}.refresh.cluster"),
                    "found nothing, expected the name of an Envoy cluster",
                );
            }
            Refresh {
                cluster: refresh.cluster.clone(),
                timeout_ms: self.within(
                    &format!("{path}.refresh.timeout"),
                    refresh.timeout,
                    120_000,
                    100..=3_600_000,
                ) as u32,
            }
        });
        let semantic = raw
            .semantic
            .as_ref()
            .and_then(|raw| self.semantic(&format!("{path}.semantic"), raw));
        Caching {
            semantic,
            stale_secs,
            stale_if_error_secs,
            lease_ms: match self.switch(&format!("{path}.coalesce.mode"), coalesce.mode) {
                true => lease_ms as u32,
                false => 0,
            },
            negative_secs: negative_ms / 1000,
            refresh,
            mode,
            scope: raw.scope.unwrap_or_default(),
            ttl_secs: ttl / 1000,
            max_answer,
            max_temperature,
        }
    }

    fn semantic(&mut self, path: &str, raw: &raw::Semantic) -> Option<Semantic> {
        let threshold_milli = raw.threshold.map(|found| {
            if !(0.5..=0.99).contains(&found) {
                self.fault(
                    &format!("{path}.threshold"),
                    format!("found {found}, expected 0.5 to 0.99, a probability"),
                );
            }
            (found * 1000.0).round() as u16
        });
        let max_chars = raw.max_chars.map_or(500, |count| count.0);
        if !(1..=2000).contains(&max_chars) {
            self.fault(
                &format!("{path}.max_chars"),
                format!("found {max_chars}, expected 1 to 2000"),
            );
        }
        let timeout_ms =
            self.within(&format!("{path}.timeout"), raw.timeout, 60, 1..=10_000) as u32;
        let on = self.switch(&format!("{path}.mode"), raw.mode);
        on.then_some(Semantic {
            threshold_milli,
            max_chars: max_chars as usize,
            timeout_ms,
        })
    }
}
