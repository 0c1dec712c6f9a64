//! Leases in this process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluice_wire::LeaseEnd;

use super::{Lease, OPEN_MS, Take};
use crate::budget::Id;
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
    /// None: open.
    lease: Option<Lease>,
    until_ms: u64,
}

impl MemoryLeases {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lease on `key` for `holder`, or prolongs the one that it has.
    pub fn take(&self, key: Key, holder: Id, (now_ms, life_ms): (u64, u64)) -> Take {
        let mut inner = self.inner();
        let until_ms = now_ms.saturating_add(life_ms);
        match inner.leases.get_mut(&key) {
            Some(state) if now_ms < state.until_ms => match state.lease {
                None => return Take::Open,
                Some(lease) if lease.holder == holder => {
                    state.until_ms = until_ms;
                    return Take::Taken(lease);
                }
                Some(_) => return Take::Busy,
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
            lease: Some(lease),
            until_ms,
        };
        inner.leases.insert(key, state);
        Take::Taken(lease)
    }

    /// Whether a lease on `key` is held at `now_ms`.
    pub fn held(&self, key: Key, now_ms: u64) -> bool {
        let inner = self.inner();
        let state = inner.leases.get(&key);
        state.is_some_and(|state| state.lease.is_some() && now_ms < state.until_ms)
    }

    /// Ends a lease. One that is not held any more stays as it is; says whether it was held.
    pub fn end(&self, key: Key, lease: Lease, (end, now_ms): (LeaseEnd, u64)) -> bool {
        let mut inner = self.inner();
        let held = inner.leases.get(&key).and_then(|state| state.lease);
        let ends = held.is_some_and(|held| {
            held.holder == lease.holder && (lease.token == 0 || held.token == lease.token)
        });
        if ends {
            match end {
                LeaseEnd::Uncacheable => {
                    let until_ms = now_ms.saturating_add(OPEN_MS);
                    let open = State {
                        lease: None,
                        until_ms,
                    };
                    inner.leases.insert(key, open);
                }
                LeaseEnd::Stored | LeaseEnd::Failed => {
                    inner.leases.remove(&key);
                }
            }
        }
        ends
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
