//! `sidecar`: where it is, how long it may take, and when it is no longer asked.

use super::Lower;
use crate::config::plan::Sidecar;
use crate::config::raw;
use crate::config::values::Count;

impl Lower<'_> {
    pub(super) fn sidecar(&mut self, raw: &raw::Sidecar) -> Sidecar {
        if raw.cluster.is_empty() {
            self.fault(
                "sidecar.cluster",
                "found nothing, expected the name of an Envoy cluster",
            );
        }
        let secret = raw
            .secret
            .as_ref()
            .and_then(|secret| self.secret("sidecar.secret", secret));
        let failures = raw.breaker.failures.map_or(5, |Count(failures)| failures);
        if failures == 0 || failures > 1_000_000 {
            self.fault(
                "sidecar.breaker.failures",
                format!("found {failures}, expected 1 to 1000000"),
            );
        }
        let waits = raw.waits.map_or(512, |Count(waits)| waits);
        if waits > 100_000 {
            self.fault(
                "sidecar.waits",
                format!("found {waits}, expected 0 to 100000"),
            );
        }
        Sidecar {
            cluster: raw.cluster.clone(),
            timeout_ms: self.within("sidecar.timeout", raw.timeout, 50, 1..=60_000) as u32,
            wait_ms: self.within("sidecar.wait", raw.wait, 60_000, 0..=600_000) as u32,
            waits: waits as usize,
            on_failure: raw.on_failure,
            secret,
            breaker_failures: failures as u32,
            breaker_pause_ns: self.within(
                "sidecar.breaker.pause",
                raw.breaker.pause,
                5000,
                1..=3_600_000,
            ) * 1_000_000,
        }
    }
}
