//! Leases in this process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{End, Lease, OPEN_MS, REST_MS, RESTS_MS, Take, Taker};
use crate::cache::Key;

/// Leases held at once; beyond, requests go without one.
const MOST: usize = 100_000;

/// The store.
#[derive(Default)]
pub struct MemoryLeases(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    leases: HashMap<Key, State>,
    last_token: u64,
}

struct State {
    what: What,
    /// When this is forgotten.
    until_ms: u64,
    /// Refreshes in a row that failed.
    failures: u32,
}

enum What {
    Held(Lease),
    Open,
    Rests { until_ms: u64 },
}

impl State {
    fn lease(&self) -> Option<Lease> {
        match self.what {
            What::Held(lease) => Some(lease),
            What::Open | What::Rests { .. } => None,
        }
    }
}

impl MemoryLeases {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lease on `key` for `taker`, or prolongs the one that it has.
    pub fn take(&self, key: Key, taker: impl Into<Taker>, (now_ms, life_ms): (u64, u64)) -> Take {
        let Taker { holder, serves } = taker.into();
        let mut inner = self.inner();
        let until_ms = now_ms.saturating_add(life_ms);
        let mut failures = 0;
        match inner.leases.get_mut(&key) {
            Some(state) if now_ms < state.until_ms => match state.what {
                What::Open => return Take::Open,
                What::Held(lease) if lease.holder == holder => {
                    state.until_ms = until_ms;
                    return Take::Taken(lease);
                }
                What::Held(_) => return Take::Busy,
                What::Rests { until_ms } if serves && now_ms < until_ms => return Take::Busy,
                What::Rests { .. } => failures = state.failures,
            },
            _ => {}
        }
        if inner.leases.len() >= MOST {
            inner.leases.retain(|_, state| now_ms < state.until_ms);
        }
        if inner.leases.len() >= MOST {
            return Take::Open;
        }
        // A clock that steps back does not make an older token of a later lease.
        inner.last_token = (inner.last_token + 1).max(now_ms.saturating_mul(1000));
        let lease = Lease {
            holder,
            token: inner.last_token,
        };
        let state = State {
            what: What::Held(lease),
            until_ms,
            failures,
        };
        inner.leases.insert(key, state);
        Take::Taken(lease)
    }

    /// Whether a lease on `key` is held at `now_ms`.
    pub fn held(&self, key: Key, now_ms: u64) -> bool {
        let inner = self.inner();
        let state = inner.leases.get(&key);
        state.is_some_and(|state| state.lease().is_some() && now_ms < state.until_ms)
    }

    /// Ends a lease. One that is not held any more stays as it is; says whether it was held.
    pub fn end(&self, key: Key, lease: Lease, (end, now_ms): (impl Into<End>, u64)) -> bool {
        let mut inner = self.inner();
        let Some(state) = inner.leases.get_mut(&key) else {
            return false;
        };
        let ends = state.lease().is_some_and(|held| {
            held.holder == lease.holder && (lease.token == 0 || held.token == lease.token)
        });
        if !ends {
            return false;
        }
        match end.into() {
            End::Over => {
                inner.leases.remove(&key);
            }
            End::Open => {
                state.what = What::Open;
                state.until_ms = now_ms.saturating_add(OPEN_MS);
            }
            End::Rest => {
                let rest_ms = (REST_MS << state.failures.min(16)).min(RESTS_MS);
                let until_ms = now_ms.saturating_add(rest_ms);
                state.what = What::Rests { until_ms };
                state.until_ms = until_ms.saturating_add(RESTS_MS);
                state.failures = state.failures.saturating_add(1);
            }
        }
        true
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner().leases.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
