//! Budgets: may a request go, and what did it use in the end?
//!
//! An admitted request holds a *reservation* on each of its counters until it is settled with what
//! it really used, or until the reservation lapses. `used + reserved` never passes a limit at
//! admission, so the most by which a counter can end over its limit is
//!
//! > Σ (actual − reserved) over the requests that were not settled when the limit was reached,
//!
//! those in flight, and those that were answered in the moments before (a settlement is under way
//! for some 50 ms, longer where the sidecar is busy),
//!
//! which is zero where reservations are exact upper bounds. On top of that come, with their causes:
//! requests that outlive their `hold` (their reservation lapsed before they were settled); after a
//! restart of a sidecar with the memory store, the reservations that it held; and while Redis
//! cannot be reached, each sidecar's own count starts from what was settled through it, so `n`
//! sidecars together may admit up to `n` times what was left. What was settled in that time is told
//! to Redis once it is back; a sidecar that is killed before has it in its ledger only.

mod decide;
mod guarded;
mod memory;
mod redis;

use std::fmt;
use std::str::FromStr;

use futures_util::future::BoxFuture;
use sluice_wire::{Charge, Counted, Unit, Window};

pub use decide::{Decision, Overrun};
pub use guarded::{Claim, Guarded};
pub use memory::{Gauges, MemoryBudgets};
pub use redis::RedisBudgets;
pub(crate) use redis::marker_key;

use crate::store::StoreError;

/// Largest amount of one reservation or settlement (a million dollars in picodollars); larger ones
/// are taken as this. It keeps every sum exact in 64 bits.
pub const MAX_AMOUNT: u64 = 1_000_000_000_000_000_000;
/// Where a counter's `used` stops.
pub const CEILING: u64 = 9_000_000_000_000_000_000;
/// Longest hold of a reservation.
pub const MAX_HOLD_SECS: u32 = 86_400;
/// How long a counter outlives its window, for settlements that come late.
const GRACE_MS: u64 = 3_600_000;

/// A request's id: 32 hex digits on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u128);

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(Id)
            .ok_or_else(|| format!("expected 32 hex digits, found {} bytes", text.len()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A request that asks to be let in on one plan.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks. A reservation that this id holds already is replaced.
    pub id: Id,
    /// Milliseconds since the epoch.
    pub now_ms: u64,
    /// How long an unsettled reservation holds.
    pub hold_ms: u64,
    /// The plan's charges.
    pub charges: &'a [Charge],
    /// Whether there is no cheaper plan to go to.
    pub last: bool,
}

/// What a finished request used.
#[derive(Clone, Debug, PartialEq)]
pub struct Spend {
    /// Who held the reservation.
    pub id: Id,
    /// Arrival of the request: says which windows are charged.
    pub at_ms: u64,
    /// The charges; empty only releases.
    pub counted: Vec<Counted>,
}

/// Where counters live. All of one call happens at once or not at all.
pub trait BudgetStore: Send + Sync {
    /// Decides about one plan and, if it may go, reserves all its charges.
    fn reserve<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Decision, StoreError>>;

    /// Releases the reservations of `spends` and charges what they used. Which of them were
    /// settled before is the caller's to know.
    fn settle<'a>(
        &'a self,
        now_ms: u64,
        spends: &'a [Spend],
    ) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// A counter in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot<'a> {
    pub(crate) counter: &'a str,
    pub(crate) window: Window,
    pub(crate) unit: Unit,
    /// Seconds since the epoch.
    pub(crate) start: u64,
}

impl<'a> Slot<'a> {
    fn of(counter: &'a str, window: Window, unit: Unit, at_ms: u64) -> Self {
        Slot {
            counter,
            window,
            unit,
            start: window.around(at_ms / 1000).0,
        }
    }

    /// End of the window, milliseconds since the epoch.
    pub(crate) fn end_ms(&self) -> u64 {
        self.window.around(self.start).1.saturating_mul(1000)
    }
}

/// The slots that `charges` draw on, each once, with the largest reservation asked for it; and for
/// each charge the index of its slot. Two rules may share a counter (a soft and a hard limit).
fn slots<'a>(charges: &'a [Charge], now_ms: u64) -> (Vec<(Slot<'a>, u64)>, Vec<usize>) {
    let mut slots: Vec<(Slot<'a>, u64)> = Vec::with_capacity(charges.len());
    let of_charge = charges
        .iter()
        .map(|charge| {
            let slot = Slot::of(&charge.counter, charge.window, charge.unit, now_ms);
            let amount = charge.reserve.min(MAX_AMOUNT);
            if let Some(index) = slots.iter().position(|(it, _)| *it == slot) {
                slots[index].1 = slots[index].1.max(amount);
                index
            } else {
                slots.push((slot, amount));
                slots.len() - 1
            }
        })
        .collect();
    (slots, of_charge)
}

/// What a spend charges, each slot once: rules that share a counter name it twice.
pub(crate) fn spent(spend: &Spend) -> Vec<(Slot<'_>, u64)> {
    let mut slots: Vec<(Slot<'_>, u64)> = Vec::with_capacity(spend.counted.len());
    for counted in &spend.counted {
        let slot = Slot::of(&counted.counter, counted.window, counted.unit, spend.at_ms);
        let amount = counted.amount.min(MAX_AMOUNT);
        match slots.iter_mut().find(|(it, _)| *it == slot) {
            Some((_, most)) => *most = (*most).max(amount),
            None => slots.push((slot, amount)),
        }
    }
    slots
}

#[cfg(test)]
mod tests;
