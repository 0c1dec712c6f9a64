//! Redis where it can be reached, this process's own count where it cannot.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;

use super::redis::Marker;
use super::{Ask, BudgetStore, Decision, Id, MemoryBudgets, RedisBudgets, Spend};
use crate::store::StoreError;

/// Settlements that wait for Redis to come back; the oldest are given up beyond.
const OUTBOX: usize = 100_000;

/// Redis first. What is settled through this sidecar is also counted in memory, so that during an
/// outage a budget does not start from nothing; what Redis could not be told is told it later.
pub struct Guarded {
    redis: RedisBudgets,
    local: std::sync::Arc<MemoryBudgets>,
    outbox: Mutex<VecDeque<Spend>>,
    fallbacks: AtomicU64,
    dropped: AtomicU64,
}

/// Whose ledger books an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This sidecar's.
    Book,
    /// Another sidecar has booked it.
    Booked,
    /// Another sidecar is at it; ask again later.
    Busy,
}

impl Guarded {
    /// `redis`, and `local` for when it fails.
    #[must_use]
    pub fn new(redis: RedisBudgets, local: std::sync::Arc<MemoryBudgets>) -> Self {
        Guarded {
            redis,
            local,
            outbox: Mutex::default(),
            fallbacks: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    fn outbox(&self) -> std::sync::MutexGuard<'_, VecDeque<Spend>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose ledger is to book each of `ids`, and whether that was decided alone: without Redis
    /// each sidecar books what it is told.
    pub async fn claim(&self, ids: &[Id]) -> (Vec<Claim>, bool) {
        match self.redis.claim(ids).await {
            Ok(markers) => {
                let claims = markers.into_iter().map(|marker| match marker {
                    Marker::Ours => Claim::Book,
                    Marker::Pending => Claim::Busy,
                    Marker::Done => Claim::Booked,
                });
                (claims.collect(), false)
            }
            Err(_) => (vec![Claim::Book; ids.len()], true),
        }
    }

    /// Gives claims back that this sidecar's ledger refused. If Redis fails too, they lapse.
    pub async fn unclaim(&self, ids: &[Id]) {
        let _ = self.redis.unclaim(ids).await;
    }

    /// Tells Redis what it missed. Call it now and then.
    pub async fn catch_up(&self, now_ms: u64) {
        loop {
            let batch: Vec<Spend> = self.outbox().iter().take(128).cloned().collect();
            if batch.is_empty() || self.redis.settle(now_ms, &batch).await.is_err() {
                return;
            }
            // Only this loop takes from the front, and one task runs it; settling is idempotent
            // by id, so a batch that an overflow has shifted is at worst told twice.
            let mut outbox = self.outbox();
            for spend in &batch {
                if outbox.front().is_some_and(|front| front.id == spend.id) {
                    outbox.pop_front();
                }
            }
        }
    }

    /// Settlements that wait for Redis, those given up, and admissions decided without it.
    #[must_use]
    pub fn backlog(&self) -> (usize, u64, u64) {
        (
            self.outbox().len(),
            self.dropped.load(Ordering::Relaxed),
            self.fallbacks.load(Ordering::Relaxed),
        )
    }

    /// Settles in Redis all of `spends`: those booked now, and those that a retry repeats, because
    /// an earlier try may have ended between ledger and Redis. The marker lets each count once.
    pub async fn settle_all(&self, now_ms: u64, spends: &[Spend]) {
        if self.redis.settle(now_ms, spends).await.is_ok() {
            return;
        }
        let mut outbox = self.outbox();
        for spend in spends {
            if outbox.len() >= OUTBOX {
                outbox.pop_front();
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            outbox.push_back(spend.clone());
        }
    }
}

impl BudgetStore for Guarded {
    fn reserve<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Decision, StoreError>> {
        Box::pin(async move {
            match self.redis.reserve(ask).await {
                Ok(decision) => Ok(decision),
                Err(_) => {
                    self.fallbacks.fetch_add(1, Ordering::Relaxed);
                    self.local.reserve(ask).await
                }
            }
        })
    }

    fn settle<'a>(
        &'a self,
        now_ms: u64,
        spends: &'a [Spend],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.local.settle_now(now_ms, spends);
            self.settle_all(now_ms, spends).await;
            Ok(())
        })
    }
}
