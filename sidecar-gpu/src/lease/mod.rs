//! Leases: of equal requests in flight one fetches the answer, and the others wait for it.
//!
//! A lease is on an exact-cache key. It ends when its holder settles, or when its time is over: a
//! holder that died or is slow loses it, and the next one to ask takes it. Its *token* rises with
//! every lease of a key, and a store refuses what comes with a lower one than it has (fencing; M.
//! Kleppmann, "How to do distributed locking", 2016), so that a holder that was given up cannot
//! overwrite its successor. What it fetched is stored all the same while its successor has nothing
//! yet: it is a good answer, and others wait for one.
//!
//! After a refresh that failed, stale answers go on being told for a pause that doubles with each
//! failure in a row before the next one tries: else an upstream that fails would be asked by one stale
//! answer after the other.
//!
//! With Redis a lease counts for all sidecars. While Redis cannot be reached each sidecar leases by
//! itself, and for a moment only: the settlement that ends such a lease may reach another sidecar,
//! which knows nothing of it. Equal requests then cost one upstream call per sidecar and moment, and
//! not one each.

mod memory;
mod redis;
mod waiting;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluice_wire::LeaseEnd;

pub use memory::MemoryLeases;
pub use redis::RedisLeases;
pub use waiting::{Seat, Signal, Waiting};

use crate::budget::Id;
use crate::cache::Key;

/// Longest life of a lease.
pub const MAX_LEASE_MS: u64 = 3_600_000;
/// Longest life of a lease that is this process's own because Redis cannot be reached.
const AWAY_MS: u64 = 2_000;
/// Ends that are kept while Redis cannot be told.
const UNHEARD: usize = 10_000;
/// How long all go by themselves after an answer that is not to be shared.
const OPEN_MS: u64 = 10_000;
/// Pause after a refresh that failed, doubled each time up to a bound: a second is long beside what
/// an answer from cache takes, and a minute short beside how long answers stay stale. How many failed
/// is forgotten the longest pause after the last one's end.
const REST_MS: u64 = 1_000;
const RESTS_MS: u64 = 60_000;

/// The right to fetch the answer to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The request that holds it.
    pub holder: Id,
    /// Fencing token. In [`Leases::end`] 0 stands for whatever the holder has.
    pub token: u64,
}

impl TryFrom<&sluice_wire::Lease> for Lease {
    type Error = String;

    fn try_from(lease: &sluice_wire::Lease) -> Result<Self, String> {
        Ok(Lease {
            holder: lease.holder.parse()?,
            token: lease.token,
        })
    }
}

impl From<Lease> for sluice_wire::Lease {
    fn from(lease: Lease) -> Self {
        sluice_wire::Lease {
            holder: lease.holder.to_string(),
            token: lease.token,
        }
    }
}

/// Who asks for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taker {
    /// The request.
    pub holder: Id,
    /// It has a stale answer, so that it can leave an upstream alone that failed to refresh it.
    pub serves: bool,
}

impl From<Id> for Taker {
    fn from(holder: Id) -> Self {
        Taker {
            holder,
            serves: false,
        }
    }
}

/// What the end of a lease leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing: the next one to ask takes it.
    Over,
    /// For a while all go without.
    Open,
    /// A refresh failed: who has a stale answer does not take it for a while.
    Rest,
}

impl From<LeaseEnd> for End {
    fn from(end: LeaseEnd) -> Self {
        match end {
            LeaseEnd::Stored | LeaseEnd::Failed => End::Over,
            LeaseEnd::Uncacheable => End::Open,
        }
    }
}

/// What became of an attempt to take a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The caller holds it, now or still.
    Taken(Lease),
    /// Another one does, or it rests.
    Busy,
    /// The answer is not one to share: go without.
    Open,
}

/// The shared store where there is one and it can be reached, this process's own where not.
pub struct Leases {
    shared: Option<RedisLeases>,
    local: MemoryLeases,
    /// Ends that Redis has not heard of: until it has, others wait for nothing.
    unheard: Mutex<VecDeque<(Key, Lease, End)>>,
    fallbacks: AtomicU64,
}

impl Leases {
    /// `shared`, if there is one, before a store of this process.
    #[must_use]
    pub fn new(shared: Option<RedisLeases>) -> Self {
        Leases {
            shared,
            local: MemoryLeases::default(),
            unheard: Mutex::default(),
            fallbacks: AtomicU64::new(0),
        }
    }

    /// Takes the lease on `key` for `taker`, or prolongs the one that it has.
    pub async fn take(
        &self,
        key: Key,
        taker: impl Into<Taker>,
        (now_ms, life_ms): (u64, u64),
    ) -> Take {
        let taker = taker.into();
        let mut life_ms = life_ms.min(MAX_LEASE_MS);
        if let Some(shared) = &self.shared {
            match shared.take(key, taker, life_ms).await {
                Ok(take) => return take,
                Err(_) => self.fallbacks.fetch_add(1, Ordering::Relaxed),
            };
            life_ms = life_ms.min(AWAY_MS);
        }
        self.local.take(key, taker, (now_ms, life_ms))
    }

    /// Whether a lease on `key` is held at `now_ms`.
    pub async fn held(&self, key: Key, now_ms: u64) -> bool {
        if let Some(shared) = &self.shared
            && let Ok(held) = shared.held(key).await
        {
            return held;
        }
        self.local.held(key, now_ms)
    }

    /// Ends a lease, wherever it is. One that is not held any more stays as it is. What Redis cannot
    /// be told now it is told by [`Leases::catch_up`].
    pub async fn end(&self, key: Key, lease: Lease, (end, now_ms): (impl Into<End>, u64)) {
        let end = end.into();
        self.local.end(key, lease, (end, now_ms));
        let Some(shared) = &self.shared else { return };
        if shared.end(key, lease, end).await.is_err() {
            let mut unheard = self.unheard();
            // The oldest lapse first.
            if unheard.len() >= UNHEARD {
                unheard.pop_front();
            }
            unheard.push_back((key, lease, end));
        }
    }

    /// Tells Redis of the ends that it has not heard of. Call it now and then. One that Redis refuses
    /// is given up, so that it does not keep the others from being heard: its lease lapses.
    pub async fn catch_up(&self) {
        let Some(shared) = &self.shared else { return };
        loop {
            let Some((key, lease, end)) = self.unheard().front().copied() else {
                return;
            };
            match shared.end(key, lease, end).await {
                Ok(_) => {}
                Err(error) if error.is_refusal() => {
                    log::warn!("the end of a lease is given up, and it lapses: {error}");
                }
                Err(_) => return,
            }
            // Only this takes from the front, but for an overflow, which took the same one.
            let mut unheard = self.unheard();
            if unheard.front().is_some_and(|(_, front, _)| *front == lease) {
                unheard.pop_front();
            }
        }
    }

    fn unheard(&self) -> MutexGuard<'_, VecDeque<(Key, Lease, End)>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases held in this process, and leases taken here because Redis did not answer.
    #[must_use]
    pub fn gauges(&self) -> (usize, u64) {
        (self.local.len(), self.fallbacks.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
