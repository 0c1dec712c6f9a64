//! Budgets in this process: the default store, and the fallback while Redis cannot be reached.

use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use indexmap::{Equivalent, IndexMap};
use sluice_wire::{Counted, Unit, Window};

use super::decide::decide;
use super::{Ask, BudgetStore, CEILING, Decision, GRACE_MS, Id, Slot, Spend, slots, spent};
use crate::store::StoreError;

/// How many counters are looked at to find one that can give way.
const SAMPLE: usize = 64;
/// Reservations per counter of the cap.
const RESERVATIONS_PER_COUNTER: usize = 10;

/// Counters and reservations under one lock; an operation takes about a microsecond.
///
/// At most `cap` counters are kept. At the cap, a counter whose window is over gives way; else, of
/// a sample, the least used one without reservations (its usage is forgotten, which bounds the
/// error by the smallest counters); else the new counter is not kept: its request goes and is not
/// counted. At most ten times as many reservations are kept; a request beyond goes unreserved.
#[derive(Debug)]
pub struct MemoryBudgets {
    inner: Mutex<Inner>,
}

/// How full the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Counters kept.
    pub counters: usize,
    /// Reservations held.
    pub reservations: usize,
    /// Counters that gave way with usage on them, since the start.
    pub evicted: u64,
    /// Charges that were not kept because the store was full, since the start.
    pub untracked: u64,
}

#[derive(Debug, Default)]
struct Inner {
    cap: usize,
    counters: IndexMap<Key, Counter>,
    /// What each unsettled request holds.
    held: HashMap<Id, Held>,
    /// The same by the moment at which they lapse.
    lapses: BTreeSet<(u64, Id)>,
    /// Where the next sample for eviction begins.
    cursor: usize,
    evicted: u64,
    untracked: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    counter: Arc<str>,
    window: Window,
    unit: Unit,
    start: u64,
}

impl Key {
    fn slot(&self) -> Slot<'_> {
        Slot {
            counter: &self.counter,
            window: self.window,
            unit: self.unit,
            start: self.start,
        }
    }
}

// Hashes as the borrowed form does, so that a look-up needs no allocation.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.slot().hash(state);
    }
}

impl Equivalent<Key> for Slot<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.slot()
    }
}

impl From<Slot<'_>> for Key {
    fn from(slot: Slot<'_>) -> Self {
        Key {
            counter: slot.counter.into(),
            window: slot.window,
            unit: slot.unit,
            start: slot.start,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    used: u64,
    /// Wider than an amount: any number of reservations may stand.
    reserved: u128,
}

impl Counter {
    fn level(self) -> u128 {
        u128::from(self.used) + self.reserved
    }
}

#[derive(Debug)]
struct Held {
    lapses_ms: u64,
    parts: Vec<(Key, u64)>,
}

impl Inner {
    fn lapse(&mut self, now_ms: u64) {
        while let Some(&(at, id)) = self.lapses.first() {
            if at > now_ms {
                break;
            }
            self.release(id);
        }
    }

    fn release(&mut self, id: Id) {
        let Some(held) = self.held.remove(&id) else {
            return;
        };
        self.lapses.remove(&(held.lapses_ms, id));
        for (key, amount) in held.parts {
            // A counter with reservations is never evicted, so it is there.
            if let Some(counter) = self.counters.get_mut(&key) {
                counter.reserved = counter.reserved.saturating_sub(u128::from(amount));
            }
        }
    }

    /// The counter of `slot`, made if there is room for it.
    fn counter(&mut self, slot: Slot<'_>, now_ms: u64) -> Option<&mut Counter> {
        if !self.counters.contains_key(&slot) && !self.make_room(now_ms) {
            self.untracked += 1;
            return None;
        }
        Some(self.counters.entry(Key::from(slot)).or_default())
    }

    fn make_room(&mut self, now_ms: u64) -> bool {
        if self.counters.len() < self.cap {
            return true;
        }
        let mut least: Option<(usize, u64)> = None;
        for step in 0..SAMPLE.min(self.counters.len()) {
            let index = (self.cursor + step) % self.counters.len();
            let Some((key, counter)) = self.counters.get_index(index) else {
                break;
            };
            if counter.reserved > 0 {
                continue;
            }
            let over = key.slot().end_ms().saturating_add(GRACE_MS) < now_ms;
            let weight = if over { 0 } else { counter.used };
            if least.is_none_or(|(_, lightest)| weight < lightest) {
                least = Some((index, weight));
            }
        }
        self.cursor = self.cursor.wrapping_add(SAMPLE);
        let Some((index, weight)) = least else {
            return false;
        };
        self.evicted += u64::from(weight > 0);
        self.counters.swap_remove_index(index);
        true
    }

    fn reserve(&mut self, ask: &Ask<'_>) -> Decision {
        self.lapse(ask.now_ms);
        self.release(ask.id);
        let (slots, of_charge) = slots(ask.charges, ask.now_ms);
        let levels: Vec<u128> = slots
            .iter()
            .map(|(slot, _)| self.counters.get(slot).map_or(0, |it| it.level()))
            .collect();
        let levels: Vec<u128> = of_charge.iter().map(|&slot| levels[slot]).collect();
        let decision = decide(ask.charges, &levels, (ask.now_ms, ask.last));
        if matches!(decision, Decision::Go { .. }) {
            self.hold(ask, &slots);
        }
        decision
    }

    fn hold(&mut self, ask: &Ask<'_>, slots: &[(Slot<'_>, u64)]) {
        if self.held.len() >= self.cap.saturating_mul(RESERVATIONS_PER_COUNTER) {
            self.untracked += 1;
            return;
        }
        let mut parts = Vec::with_capacity(slots.len());
        for &(slot, amount) in slots {
            if amount == 0 {
                continue;
            }
            if let Some(counter) = self.counter(slot, ask.now_ms) {
                counter.reserved += u128::from(amount);
                parts.push((Key::from(slot), amount));
            }
        }
        if parts.is_empty() {
            return;
        }
        let lapses_ms = ask.now_ms.saturating_add(ask.hold_ms);
        self.lapses.insert((lapses_ms, ask.id));
        self.held.insert(ask.id, Held { lapses_ms, parts });
    }

    fn settle(&mut self, now_ms: u64, spend: &Spend) {
        self.release(spend.id);
        for (slot, amount) in spent(spend) {
            self.charge(slot, amount, now_ms);
        }
    }

    fn charge(&mut self, slot: Slot<'_>, amount: u64, now_ms: u64) {
        let gone = slot.end_ms().saturating_add(GRACE_MS) < now_ms;
        if gone || amount == 0 {
            return;
        }
        if let Some(counter) = self.counter(slot, now_ms) {
            counter.used = counter.used.saturating_add(amount).min(CEILING);
        }
    }
}

impl MemoryBudgets {
    /// An empty store of at most `cap` counters (at least one).
    #[must_use]
    pub fn new(cap: usize) -> Self {
        MemoryBudgets {
            inner: Mutex::new(Inner {
                cap: cap.max(1),
                ..Inner::default()
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing below panics half-way; a poisoned lock still guards consistent counters.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`BudgetStore::reserve`], which needs no waiting here.
    pub fn reserve_now(&self, ask: &Ask<'_>) -> Decision {
        self.lock().reserve(ask)
    }

    /// [`BudgetStore::settle`], which needs no waiting here.
    pub fn settle_now(&self, now_ms: u64, spends: &[Spend]) {
        let mut inner = self.lock();
        inner.lapse(now_ms);
        for spend in spends {
            inner.settle(now_ms, spend);
        }
    }

    /// Charges what the ledger says was used before a restart.
    pub fn restore(&self, now_ms: u64, used: &[(Counted, u64)]) {
        let mut inner = self.lock();
        for (counted, start_secs) in used {
            let slot = Slot {
                counter: &counted.counter,
                window: counted.window,
                unit: counted.unit,
                start: *start_secs,
            };
            inner.charge(slot, counted.amount.min(CEILING), now_ms);
        }
    }

    /// How full the store is.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let inner = self.lock();
        Gauges {
            counters: inner.counters.len(),
            reservations: inner.held.len(),
            evicted: inner.evicted,
            untracked: inner.untracked,
        }
    }

    /// Used, and used and reserved, of a counter in the window around `now_ms`.
    #[must_use]
    pub fn level(&self, (counter, window, unit): (&str, Window, Unit), now_ms: u64) -> (u64, u128) {
        let mut inner = self.lock();
        inner.lapse(now_ms);
        let slot = Slot::of(counter, window, unit, now_ms);
        inner
            .counters
            .get(&slot)
            .map_or((0, 0), |it| (it.used, it.level()))
    }
}

impl BudgetStore for MemoryBudgets {
    fn reserve<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Decision, StoreError>> {
        Box::pin(std::future::ready(Ok(self.reserve_now(&ask))))
    }

    fn settle<'a>(
        &'a self,
        now_ms: u64,
        spends: &'a [Spend],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.settle_now(now_ms, spends);
        Box::pin(std::future::ready(Ok(())))
    }
}
