//! `cache`: which answers are kept, for how long, and for whom.

use super::Lower;
use crate::config::plan::Caching;
use crate::config::raw::{self, Mode};

impl Lower<'_> {
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
        Caching {
            mode,
            scope: raw.scope.unwrap_or_default(),
            ttl_secs: ttl / 1000,
            max_answer,
            max_temperature,
        }
    }
}
