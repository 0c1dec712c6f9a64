//! A stale answer is refreshed by sending its request once more through this Envoy, so that every
//! filter and route that was its lot the first time is so again, the caller's credentials included.
//!
//! That request carries the lease in a header, sealed with the sidecar's secret and bound to all that
//! names its place, its caller and its wishes: only a filter of ours can have sent it so, so its
//! control headers count and it is booked as what the cache costs.

use sluice_wire::{Lease, header};

use super::facts::Facts;
use super::seal;
use super::{Effect, Effects, Headers, Host, Vm};
use crate::config::Mode;

/// Oldest lease that is believed: the longest that a refresh may take, and clocks that differ.
const OLDEST_US: u64 = 3_600_000_000;

impl Vm {
    /// Whether an answer on this route can be refreshed behind the one that goes out.
    pub(super) fn refreshes(&self, facts: &Facts) -> bool {
        let route = facts.route(&self.plan);
        self.seal.is_some()
            && route.cache.mode == Mode::On
            && route.cache.refresh.is_some()
            && facts.under.is_none()
    }

    /// The lease that a request came under, if one of ours sent it.
    pub(super) fn lease_of(&self, headers: &Headers, host: &dyn Host) -> Option<Lease> {
        let value = headers.get(header::LEASE)?;
        let (lease, seal) = value.rsplit_once(':')?;
        let bound = seal::bound_of(&self.naming, headers);
        if !self
            .seal?
            .is(seal::LEASE, &[lease.as_bytes(), &bound], seal)
        {
            return None;
        }
        let (holder, token) = lease.split_once(':')?;
        let token: u64 = token.parse().ok()?;
        // A token is the moment that it was given at, in microseconds: one that somebody saw and
        // kept is worth nothing.
        let age_us = (host.now_ns() / 1000).abs_diff(token);
        (age_us <= OLDEST_US).then(|| Lease {
            holder: holder.to_owned(),
            token,
        })
    }
}

impl Effects {
    /// Refreshes behind the answer that goes out.
    pub(super) fn refresh(&mut self, facts: &Facts, lease: &Lease, vm: &Vm) {
        let Some(refresh) = &facts.route(&vm.plan).cache.refresh else {
            return;
        };
        let lease = format!("{}:{}", lease.holder, lease.token);
        let Some(seal) = vm.sealing(0) else {
            return;
        };
        // What a trusted caller asked for, once more; read and removed on the way in.
        let control = [
            (header::TIER, facts.tier_asked.as_deref()),
            (header::TASK, Some(facts.caller.task.as_str())),
        ];
        let trusted = facts.caller.trusted;
        let mut headers: Vec<_> = control
            .into_iter()
            .filter(|_| trusted)
            .filter_map(|(name, value)| {
                Some((name, value.filter(|value| !value.is_empty())?.to_owned()))
            })
            .collect();
        if trusted && !facts.tags.is_empty() {
            headers.push((header::TAGS, facts.tags.join(",")));
        }
        self.list.push(Effect::Refresh {
            cluster: refresh.cluster.clone(),
            timeout_ms: refresh.timeout_ms,
            headers,
            lease: (seal, lease),
        });
    }
}
