//! The breaker: after failures in a row a store is left alone for a while, then probed by one call.

use std::sync::{Mutex, PoisonError};

/// Counts failures in a row. Time is passed in, in milliseconds of any steady clock.
#[derive(Debug)]
pub struct Breaker {
    failures: u32,
    pause_ms: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    in_a_row: u32,
    /// While set, the breaker is open until then.
    open_until: Option<u64>,
    probing: bool,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls go.
    Closed,
    /// Calls are not tried.
    Open,
    /// The pause is over: one call is tried.
    HalfOpen,
}

impl State {
    /// The number for it in metrics.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        }
    }
}

/// Leave for one call, which ends with [`Permit::succeeded`] or [`Permit::failed`]. Dropped without
/// either (the caller went away in the middle), it says nothing about the store and lets another
/// call probe.
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
    told: bool,
}

impl Breaker {
    /// Opens for `pause_ms` after `failures` in a row.
    #[must_use]
    pub fn new(failures: u32, pause_ms: u64) -> Self {
        Breaker {
            failures: failures.max(1),
            pause_ms,
            inner: Mutex::default(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Leave for a call at `now_ms`, if one may be tried.
    pub fn ask(&self, now_ms: u64) -> Option<Permit<'_>> {
        let probe = self.with(|inner| match inner.open_until {
            None => Some(false),
            Some(until) if now_ms >= until && !inner.probing => {
                inner.probing = true;
                Some(true)
            }
            Some(_) => None,
        })?;
        Some(Permit {
            breaker: self,
            probe,
            told: false,
        })
    }

    /// Where the breaker stands at `now_ms`.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> State {
        self.with(|inner| match inner.open_until {
            None => State::Closed,
            Some(until) if now_ms >= until => State::HalfOpen,
            Some(_) => State::Open,
        })
    }
}

impl Permit<'_> {
    /// The store answered.
    pub fn succeeded(mut self) {
        self.told = true;
        let probe = self.probe;
        self.breaker.with(|inner| {
            // A call from before the breaker opened does not close it; the probe does.
            if probe || inner.open_until.is_none() {
                *inner = Inner::default();
            }
        });
    }

    /// The store did not. Returns whether this opened the breaker.
    pub fn failed(mut self, now_ms: u64) -> bool {
        self.told = true;
        let (probe, breaker) = (self.probe, self.breaker);
        breaker.with(|inner| {
            inner.in_a_row = inner.in_a_row.saturating_add(1);
            if probe {
                inner.probing = false;
            }
            let opens = probe || (inner.open_until.is_none() && inner.in_a_row >= breaker.failures);
            if opens {
                inner.open_until = Some(now_ms.saturating_add(breaker.pause_ms));
            }
            opens
        })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe && !self.told {
            self.breaker.with(|inner| inner.probing = false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Breaker {
        let breaker = Breaker::new(3, 1000);
        for now in 0..3 {
            breaker.ask(now).unwrap().failed(now);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not() {
        let breaker = Breaker::new(3, 1000);
        for now in 0..20 {
            let permit = breaker.ask(now).unwrap();
            if now % 3 == 0 {
                permit.succeeded();
            } else {
                assert!(!permit.failed(now));
            }
        }
        assert_eq!(breaker.state(20), State::Closed);
        let breaker = open();
        assert_eq!(breaker.state(3), State::Open);
        assert!(breaker.ask(1001).is_none());
    }

    #[test]
    fn after_the_pause_one_probe_goes_and_closes_it_or_opens_it_again() {
        let breaker = open();
        let probe = breaker.ask(1002).unwrap();
        assert!(breaker.ask(1003).is_none(), "one probe at a time");
        assert!(probe.failed(1010));
        assert!(breaker.ask(2009).is_none());
        breaker.ask(2010).unwrap().succeeded();
        assert_eq!(breaker.state(2011), State::Closed);
        assert!(
            !breaker.ask(2011).unwrap().failed(2011),
            "the count starts anew"
        );
    }

    #[test]
    fn a_probe_whose_caller_left_makes_room_for_the_next() {
        let breaker = open();
        drop(breaker.ask(1002).unwrap());
        assert!(breaker.ask(1003).is_some());
    }

    #[test]
    fn an_answer_from_before_it_opened_does_not_close_it() {
        let breaker = Breaker::new(1, 1000);
        let early = breaker.ask(0).unwrap();
        breaker.ask(0).unwrap().failed(1);
        early.succeeded();
        assert_eq!(breaker.state(2), State::Open);
    }
}
