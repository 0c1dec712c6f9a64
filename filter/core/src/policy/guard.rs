//! What holds spending where caches fail: requests upstream at once, and dollars per minute.
//!
//! Both are counted per route over all workers of an Envoy ([`Host::count`]), so that they hold
//! while the sidecar is down.

use sluice_wire::Usd;

use crate::config::{Misses, Spend};
use crate::exchange::Host;

/// Length of the windows in which requests upstream are counted. A worker's VM that dies cannot say
/// that its requests are over: they are forgotten with the window after the one they were counted in.
const WINDOW_SECS: u64 = 15;

/// The requests upstream of one worker on one route.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upstream {
    /// Of this worker.
    here: u64,
    /// The window in which they were counted last.
    window: u64,
    /// Requests of this worker that wait for their turn.
    pub queued: usize,
}

impl Upstream {
    /// Moves this worker's requests into a window that is new to it: first in, then out, so that
    /// they are never missed.
    pub fn keep(&mut self, route: &str, host: &mut dyn Host) {
        let window = host.now_ns() / 1_000_000_000 / WINDOW_SECS;
        if window > self.window {
            let old = std::mem::replace(&mut self.window, window);
            if self.here > 0 {
                let here = i64::try_from(self.here).unwrap_or(i64::MAX);
                count(route, window, (here, u64::MAX), host);
                count(route, old, (-here, u64::MAX), host);
            }
        }
    }

    /// One more, unless there are as many as may be.
    pub fn enter(&mut self, route: &str, misses: &Misses, host: &mut dyn Host) -> bool {
        self.keep(route, host);
        // Those of workers that have not moved theirs yet.
        let (before, _) = count(route, self.window.saturating_sub(1), (0, u64::MAX), host);
        let limit = misses.limit.saturating_sub(before);
        let (_, added) = count(route, self.window, (1, limit), host);
        self.here += u64::from(added);
        added
    }

    /// One less.
    pub fn leave(&mut self, route: &str, host: &mut dyn Host) {
        self.keep(route, host);
        self.here = self.here.saturating_sub(1);
        count(route, self.window, (-1, u64::MAX), host);
    }
}

/// Two counters in turn, so that one window is there while the next one fills.
fn count(
    route: &str,
    window: u64,
    (amount, limit): (i64, u64),
    host: &mut dyn Host,
) -> (u64, bool) {
    let key = format!("misses|{route}|{}", window % 2);
    host.count(&key, window * WINDOW_SECS, amount, limit)
}

/// Weight of a minute in the trailing rate: half of it is the last twenty minutes.
const WEIGHT: f64 = 1.0 / 30.0;
/// A minute in which too much was spent counts so much less: growth that lasts becomes the rate, a
/// spike does not.
const SPIKE: f64 = 1.0 / 8.0;
/// Minutes that must have been seen before the trailing rate says anything.
const WARM: u32 = 5;
/// Minutes without a request after which the rate is forgotten.
const FORGOTTEN: u64 = 240;

/// The trailing rate of spending on one route, as one worker knows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trailing {
    minute: u64,
    /// Weighted sum and sum of weights; their ratio is dollars per minute.
    dollars: f64,
    weights: f64,
    minutes: u32,
}

/// How much is spent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Not too much.
    Within,
    /// More than the trailing rate allows.
    Over {
        /// Seconds until the minute is over.
        reset_secs: u64,
    },
    /// More than is ever allowed.
    Ceiling {
        /// Seconds until the minute is over.
        reset_secs: u64,
    },
}

impl Trailing {
    /// How this minute's spending stands against what is allowed.
    pub fn rate(&mut self, route: &str, config: &Spend, host: &mut dyn Host) -> Rate {
        let now = host.now_ns() / 1_000_000_000;
        let minute = now / 60;
        self.roll(route, minute, config, host);
        let spent = spent_in(route, minute, host);
        let reset_secs = 60 - now % 60;
        if config.ceiling.is_some_and(|ceiling| spent >= ceiling) {
            return Rate::Ceiling { reset_secs };
        }
        match self.allowed(config) {
            Some(allowed) if spent >= allowed => Rate::Over { reset_secs },
            _ => Rate::Within,
        }
    }

    /// To be called at least once a minute: takes in the minutes in which this worker was not
    /// asked.
    pub fn keep(&mut self, route: &str, config: &Spend, host: &mut dyn Host) {
        self.roll(route, host.now_ns() / 60_000_000_000, config, host);
    }

    /// Dollars that a minute may cost; None while the rate is not known.
    fn allowed(&self, config: &Spend) -> Option<Usd> {
        if self.minutes < WARM || self.weights <= 0.0 {
            return None;
        }
        let rate = Usd::from_dollars(self.dollars / self.weights * config.factor);
        Some(rate.max(config.floor))
    }

    /// Takes in the minutes since the last one seen.
    fn roll(&mut self, route: &str, minute: u64, config: &Spend, host: &mut dyn Host) {
        if self.minute == 0 || minute < self.minute || minute - self.minute > FORGOTTEN {
            *self = Trailing {
                minute,
                ..Trailing::default()
            };
        }
        while self.minute < minute {
            // Only the last one is still on record; nobody was there in those between.
            let spent = match self.minute + 1 == minute {
                true => spent_in(route, self.minute, host),
                false => Usd::ZERO,
            };
            let allowed = self.allowed(config);
            let (spent, weight) = match allowed {
                Some(allowed) if spent > allowed => (allowed, WEIGHT * SPIKE),
                _ => (spent, WEIGHT),
            };
            self.dollars = self.dollars * (1.0 - weight) + spent.dollars() * weight;
            self.weights = self.weights * (1.0 - weight) + weight;
            self.minutes = self.minutes.saturating_add(1);
            self.minute += 1;
        }
    }
}

/// Books what a request cost.
pub fn spend(route: &str, cost: Usd, host: &mut dyn Host) {
    if cost > Usd::ZERO {
        let minute = host.now_ns() / 60_000_000_000;
        host.count(&spend_key(route, minute), minute * 60, cost.0, u64::MAX);
    }
}

fn spent_in(route: &str, minute: u64, host: &mut dyn Host) -> Usd {
    let (spent, _) = host.count(&spend_key(route, minute), minute * 60, 0, u64::MAX);
    Usd(i64::try_from(spent).unwrap_or(i64::MAX))
}

/// Two counters in turn, so that a minute can be read while the next one is counted.
fn spend_key(route: &str, minute: u64) -> String {
    format!("spend|{route}|{}", minute % 2)
}

#[cfg(test)]
mod tests;
