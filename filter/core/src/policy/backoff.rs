//! When an upstream that fails is left alone, and for how long; kept by each worker.
//!
//! After failures in a row (5xx, or 429 without a time) nothing is sent there for a pause, then one
//! request tries; the pause doubles with each try that fails. An upstream that says when to come
//! back (`retry-after`, RFC 9110 §10.2.3) is taken at its word, up to the longest pause.

use rustc_hash::FxHashMap;

use crate::config::Backoff;

/// Upstreams that are remembered. Names come from clients (hosts, models), so there is a bound;
/// past it the one that may be tried soonest gives way.
const MOST: usize = 1024;

/// What an upstream answered, as far as this looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It works, whatever it said.
    Works,
    /// It failed.
    Failed,
    /// It asks to be left alone for so long.
    RetryAfter {
        /// Nanoseconds.
        ns: u64,
    },
}

/// Whether an upstream may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Yes.
    Go,
    /// Yes, as the one try after a pause: what comes of it is to be told with [`Backoffs::told`], or
    /// with [`Backoffs::abandoned`].
    Try,
    /// Not for so many nanoseconds.
    Not {
        /// Nanoseconds, at least one.
        for_ns: u64,
    },
}

/// The upstreams that fail, by a hash of their name.
#[derive(Debug, Default)]
pub struct Backoffs(FxHashMap<u64, State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    failures: u32,
    /// Pauses so far, without a success between.
    pauses: u32,
    until_ns: u64,
    /// A request tries since then.
    probing_since_ns: Option<u64>,
}

impl Backoffs {
    /// Whether to ask `upstream` now.
    pub fn ask(&mut self, upstream: u64, config: &Backoff, now_ns: u64) -> Ask {
        let Some(state) = self.0.get_mut(&upstream) else {
            return Ask::Go;
        };
        if state.until_ns == 0 {
            return Ask::Go;
        }
        if now_ns < state.until_ns {
            return Ask::Not {
                for_ns: state.until_ns - now_ns,
            };
        }
        // A try of which nothing was heard for as long as a pause may last is over.
        if let Some(since_ns) = state.probing_since_ns
            && now_ns.saturating_sub(since_ns) < config.longest_ns
        {
            return Ask::Not {
                for_ns: config.pause_ns.max(1),
            };
        }
        state.probing_since_ns = Some(now_ns);
        Ask::Try
    }

    /// Whether `upstream` is left alone now; as [`Backoffs::ask`], without taking the one try.
    #[must_use]
    pub fn pauses(&self, upstream: u64, now_ns: u64) -> bool {
        let state = self.0.get(&upstream);
        state.is_some_and(|state| now_ns < state.until_ns)
    }

    /// What an upstream answered.
    pub fn told(&mut self, upstream: u64, config: &Backoff, (seen, now_ns): (Seen, u64)) {
        if seen == Seen::Works {
            // What was under way when the pause began says nothing new.
            if !self.pauses(upstream, now_ns) {
                self.0.remove(&upstream);
            }
            return;
        }
        if !self.0.contains_key(&upstream) {
            self.make_room();
        }
        let state = self.0.entry(upstream).or_default();
        state.failures = state.failures.saturating_add(1);
        let probed = state.probing_since_ns.take().is_some();
        let pause_ns = match seen {
            Seen::RetryAfter { ns } => ns.min(config.longest_ns),
            // As above.
            _ if now_ns < state.until_ns => return,
            _ if !probed && state.failures < config.failures => return,
            _ => {
                let pause_ns = config.pause_ns.saturating_mul(1 << state.pauses.min(20));
                state.pauses = state.pauses.saturating_add(1);
                pause_ns.min(config.longest_ns)
            }
        };
        state.until_ns = state.until_ns.max(now_ns.saturating_add(pause_ns).max(1));
    }

    /// The one try ended without a word of the upstream: the client left.
    pub fn abandoned(&mut self, upstream: u64) {
        if let Some(state) = self.0.get_mut(&upstream) {
            state.probing_since_ns = None;
        }
    }

    fn make_room(&mut self) {
        if self.0.len() >= MOST {
            let soonest = self.0.iter().min_by_key(|(_, state)| state.until_ns);
            if let Some(upstream) = soonest.map(|(upstream, _)| *upstream) {
                self.0.remove(&upstream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const CONFIG: Backoff = Backoff {
        failures: 3,
        pause_ns: SECOND,
        longest_ns: 5 * SECOND,
    };
    const NOW: u64 = 1_700_000_000 * SECOND;

    fn not(secs: u64) -> Ask {
        Ask::Not {
            for_ns: secs * SECOND,
        }
    }

    #[test]
    fn failures_in_a_row_pause_it_then_one_tries_and_the_pause_doubles_up_to_the_longest() {
        let mut all = Backoffs::default();
        let mut now = NOW;
        for failures in 1..=3 {
            assert_eq!(
                all.ask(1, &CONFIG, now),
                Ask::Go,
                "before failure {failures}"
            );
            all.told(1, &CONFIG, (Seen::Failed, now));
        }
        for pause in [1, 2, 4, 5, 5] {
            assert_eq!(all.ask(1, &CONFIG, now), not(pause));
            now += pause * SECOND;
            assert_eq!(all.ask(1, &CONFIG, now), Ask::Try, "one tries");
            assert!(
                matches!(all.ask(1, &CONFIG, now), Ask::Not { .. }),
                "and only one"
            );
            all.told(1, &CONFIG, (Seen::Failed, now));
        }
        now += 5 * SECOND;
        assert_eq!(all.ask(1, &CONFIG, now), Ask::Try);
        all.told(1, &CONFIG, (Seen::Works, now));
        all.told(1, &CONFIG, (Seen::Failed, now));
        assert_eq!(all.ask(1, &CONFIG, now), Ask::Go, "the count starts anew");
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let mut all = Backoffs::default();
        for round in 0..10 {
            all.told(1, &CONFIG, (Seen::Failed, NOW));
            all.told(1, &CONFIG, (Seen::Failed, NOW));
            all.told(1, &CONFIG, (Seen::Works, NOW));
            assert_eq!(all.ask(1, &CONFIG, NOW), Ask::Go, "round {round}");
        }
    }

    #[test]
    fn an_upstream_that_says_when_is_taken_at_its_word_up_to_the_longest() {
        let mut all = Backoffs::default();
        all.told(1, &CONFIG, (Seen::RetryAfter { ns: 2 * SECOND }, NOW));
        assert_eq!(all.ask(1, &CONFIG, NOW), not(2));
        assert_eq!(all.ask(2, &CONFIG, NOW), Ask::Go, "no other is meant");
        all.told(2, &CONFIG, (Seen::RetryAfter { ns: 60 * SECOND }, NOW));
        assert_eq!(all.ask(2, &CONFIG, NOW), not(5));
        assert!(all.pauses(2, NOW) && !all.pauses(2, NOW + 5 * SECOND));
    }

    #[test]
    fn a_try_that_was_abandoned_or_never_heard_of_makes_room_for_the_next() {
        let mut all = Backoffs::default();
        all.told(1, &CONFIG, (Seen::RetryAfter { ns: SECOND }, NOW));
        let now = NOW + SECOND;
        assert_eq!(all.ask(1, &CONFIG, now), Ask::Try);
        all.abandoned(1);
        assert_eq!(all.ask(1, &CONFIG, now), Ask::Try);
        assert_eq!(all.ask(1, &CONFIG, now + 5 * SECOND), Ask::Try);
    }

    #[test]
    fn what_was_under_way_when_a_pause_began_does_not_end_it() {
        let mut all = Backoffs::default();
        all.told(1, &CONFIG, (Seen::RetryAfter { ns: 5 * SECOND }, NOW));
        all.told(1, &CONFIG, (Seen::Works, NOW + SECOND));
        assert_eq!(all.ask(1, &CONFIG, NOW + SECOND), not(4));
        let now = NOW + 5 * SECOND;
        assert_eq!(all.ask(1, &CONFIG, now), Ask::Try);
        all.told(1, &CONFIG, (Seen::Works, now));
        assert_eq!(all.ask(1, &CONFIG, now), Ask::Go);
    }

    #[test]
    fn upstreams_are_bounded_in_number() {
        let mut all = Backoffs::default();
        for upstream in 0..MOST as u64 + 100 {
            all.told(
                upstream,
                &CONFIG,
                (Seen::RetryAfter { ns: SECOND }, NOW + upstream),
            );
        }
        assert_eq!(all.0.len(), MOST);
        assert!(all.pauses(MOST as u64 + 99, NOW + MOST as u64 + 99));
    }
}
