//! `cache`: which answers are kept, for how long, and for whom.

use sluice_wire::{Auto, header};

use super::Lower;
use crate::config::plan::{Caching, Semantic};
use crate::config::raw::{self, Mode};
use crate::config::values::AutoOr;
use crate::policy::tags;

/// What shares of the answers by meaning may be audited, or be wrong. None audited would hold no
/// rate, and no rate of wrong ones can be held at none.
const LEAST_SHARE: f64 = 0.001;
const MOST_SHARE: f64 = 0.5;
/// Most headers that a route adds to the key.
const MOST_HEADERS: usize = 16;

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
        let refresh = raw
            .refresh
            .as_ref()
            .map(|raw| self.loopback(&format!("{path}.refresh"), &raw.cluster, raw.timeout));
        let semantic = raw
            .semantic
            .as_ref()
            .and_then(|raw| self.semantic(&format!("{path}.semantic"), raw));
        let embedding = raw.embedding.clone().unwrap_or_default();
        let dtype = embedding.dtype.unwrap_or_default();
        let by_input = self.switch(&format!("{path}.embedding.mode"), embedding.mode);
        Caching {
            semantic,
            embedding: by_input.then_some(dtype),
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
            headers: self.key_headers(
                &format!("{path}.headers"),
                raw.headers.as_deref().unwrap_or(&[]),
            ),
            tags: self.tags(&format!("{path}.tags"), raw.tags.as_deref().unwrap_or(&[])),
        }
    }

    fn semantic(&mut self, path: &str, raw: &raw::Semantic) -> Option<Semantic> {
        let threshold_milli = match raw.threshold {
            Some(AutoOr::Number(found)) => {
                if !(0.5..=0.99).contains(&found) {
                    self.fault(
                        &format!("{path}.threshold"),
                        format!("found {found}, expected 0.5 to 0.99, a probability, or `auto`"),
                    );
                }
                Some((found * 1000.0).round() as u16)
            }
            Some(AutoOr::Auto) | None => None,
        };
        let auto = raw.threshold == Some(AutoOr::Auto);
        let mut share = |name: &str, found: Option<f64>, default: f64| {
            let share = found.unwrap_or(default);
            if found.is_some() && !auto {
                self.fault(
                    &format!("{path}.{name}"),
                    format!("found {share} beside a fixed threshold, expected `threshold: auto`"),
                );
            }
            if !(LEAST_SHARE..=MOST_SHARE).contains(&share) {
                self.fault(
                    &format!("{path}.{name}"),
                    format!("found {share}, expected {LEAST_SHARE} to {MOST_SHARE}, a share"),
                );
            }
            (share * 1e6).round() as u32
        };
        let shares = Auto {
            audit_ppm: share("audit", raw.audit, 0.01),
            false_ppm: share("false_hits", raw.false_hits, 0.02),
        };
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
            auto: auto.then_some(shares),
            max_chars: max_chars as usize,
            timeout_ms,
        })
    }

    /// Names of headers, lower case and in order: how a list is written does not change a key.
    fn key_headers(&mut self, path: &str, raw: &[String]) -> Vec<String> {
        let name_of = |raw: &String| raw.to_ascii_lowercase();
        let mut names: Vec<String> = raw.iter().map(name_of).collect();
        for (at, name) in names.iter().enumerate() {
            let token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                self.fault(
                    &format!("{path}[{at}]"),
                    format!("found `{name}`, expected the name of a request header"),
                );
            } else if name.starts_with(header::PREFIX) {
                self.fault(
                    &format!("{path}[{at}]"),
                    format!(
                        "found `{name}`, expected no `{}*`: these are removed",
                        header::PREFIX
                    ),
                );
            }
        }
        if names.len() > MOST_HEADERS {
            self.fault(
                path,
                format!(
                    "found {} names, expected at most {MOST_HEADERS}",
                    names.len()
                ),
            );
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    fn tags(&mut self, path: &str, raw: &[String]) -> Vec<String> {
        for (at, tag) in raw.iter().enumerate() {
            if !tags::is_tag(tag) {
                self.fault(
                    &format!("{path}[{at}]"),
                    format!(
                        "found `{tag}`, expected 1 to {} visible ASCII characters without a comma",
                        tags::LONGEST
                    ),
                );
            }
        }
        if raw.len() > tags::MOST {
            self.fault(
                path,
                format!("found {} tags, expected at most {}", raw.len(), tags::MOST),
            );
        }
        raw.to_vec()
    }
}
