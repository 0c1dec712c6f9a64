use std::collections::HashMap;

use super::*;
use crate::config::OverSpend;

/// What the workers of one Envoy share.
#[derive(Default)]
struct Envoy {
    now_secs: u64,
    counters: HashMap<String, (u64, u64)>,
}

impl Host for Envoy {
    fn now_ns(&self) -> u64 {
        self.now_secs * 1_000_000_000
    }

    fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }

    fn count(&mut self, key: &str, window: u64, amount: i64, limit: u64) -> (u64, bool) {
        let (start, used) = self.counters.entry(key.to_owned()).or_default();
        if window < *start {
            return (0, true);
        }
        if window > *start {
            (*start, *used) = (window, 0);
        }
        let (before, after) = (*used, used.saturating_add_signed(amount));
        if amount > 0 && after > limit {
            return (before, false);
        }
        *used = after;
        (before, true)
    }
}

const START: u64 = 1_700_000_010;

fn envoy() -> Envoy {
    Envoy {
        now_secs: START,
        ..Envoy::default()
    }
}

const THREE: Misses = Misses {
    limit: 3,
    queue: 10,
    wait_ns: 0,
};

#[test]
fn workers_share_the_bound_and_who_leaves_makes_room() {
    let mut envoy = envoy();
    let (mut one, mut two) = (Upstream::default(), Upstream::default());
    assert!(one.enter("r", &THREE, &mut envoy) && two.enter("r", &THREE, &mut envoy));
    assert!(one.enter("r", &THREE, &mut envoy));
    assert!(!two.enter("r", &THREE, &mut envoy));
    assert!(
        two.enter("other", &THREE, &mut envoy),
        "routes do not share"
    );
    one.leave("r", &mut envoy);
    assert!(two.enter("r", &THREE, &mut envoy));
    assert!(!one.enter("r", &THREE, &mut envoy));
}

#[test]
fn requests_that_last_are_counted_in_the_next_window_too() {
    let mut envoy = envoy();
    let (mut one, mut two) = (Upstream::default(), Upstream::default());
    for _ in 0..3 {
        assert!(one.enter("r", &THREE, &mut envoy));
    }
    envoy.now_secs += WINDOW_SECS;
    assert!(
        !two.enter("r", &THREE, &mut envoy),
        "not moved yet, and not forgotten"
    );
    one.keep("r", &mut envoy);
    assert!(!two.enter("r", &THREE, &mut envoy));
    one.leave("r", &mut envoy);
    assert!(two.enter("r", &THREE, &mut envoy));
    envoy.now_secs += WINDOW_SECS;
    for worker in [&mut one, &mut two] {
        worker.keep("r", &mut envoy);
    }
    assert!(!one.enter("r", &THREE, &mut envoy));
}

#[test]
fn the_requests_of_a_vm_that_died_are_forgotten_with_the_next_window() {
    let mut envoy = envoy();
    let mut dead = Upstream::default();
    for _ in 0..3 {
        assert!(dead.enter("r", &THREE, &mut envoy));
    }
    let mut reborn = Upstream::default();
    assert!(!reborn.enter("r", &THREE, &mut envoy));
    envoy.now_secs += 2 * WINDOW_SECS;
    assert!(reborn.enter("r", &THREE, &mut envoy));
}

fn spend_config() -> Spend {
    Spend {
        factor: 4.0,
        floor: Usd::from_dollars(1.0),
        ceiling: Some(Usd::from_dollars(100.0)),
        over: vec![OverSpend::Reject],
    }
}

/// Minutes of `dollars` each.
fn minutes(trailing: &mut Trailing, envoy: &mut Envoy, (minutes, dollars): (u64, f64)) {
    let config = spend_config();
    for _ in 0..minutes {
        trailing.rate("r", &config, envoy);
        spend("r", Usd::from_dollars(dollars), envoy);
        envoy.now_secs += 60;
    }
}

#[test]
fn more_than_the_trailing_rate_allows_is_over_until_the_minute_is() {
    let (mut envoy, mut trailing) = (envoy(), Trailing::default());
    minutes(&mut trailing, &mut envoy, (10, 2.0));
    let config = spend_config();
    spend("r", Usd::from_dollars(7.9), &mut envoy);
    assert_eq!(trailing.rate("r", &config, &mut envoy), Rate::Within);
    spend("r", Usd::from_dollars(0.2), &mut envoy);
    let reset_secs = 60 - START % 60;
    assert_eq!(
        trailing.rate("r", &config, &mut envoy),
        Rate::Over { reset_secs }
    );
    assert_eq!(trailing.rate("other", &config, &mut envoy), Rate::Within);
    envoy.now_secs += reset_secs;
    assert_eq!(trailing.rate("r", &config, &mut envoy), Rate::Within);
    spend("r", Usd::from_dollars(100.0), &mut envoy);
    assert_eq!(
        trailing.rate("r", &config, &mut envoy),
        Rate::Ceiling { reset_secs: 60 }
    );
}

#[test]
fn little_spending_is_never_too_much_and_an_unknown_rate_stops_nobody() {
    let (mut envoy, mut trailing) = (envoy(), Trailing::default());
    let config = spend_config();
    minutes(&mut trailing, &mut envoy, (4, 0.01));
    spend("r", Usd::from_dollars(50.0), &mut envoy);
    assert_eq!(
        trailing.rate("r", &config, &mut envoy),
        Rate::Within,
        "four minutes"
    );
    let mut trailing = Trailing::default();
    envoy.now_secs += 120;
    minutes(&mut trailing, &mut envoy, (30, 0.01));
    spend("r", Usd::from_dollars(0.9), &mut envoy);
    assert_eq!(
        trailing.rate("r", &config, &mut envoy),
        Rate::Within,
        "below the floor"
    );
    spend("r", Usd::from_dollars(0.2), &mut envoy);
    assert!(matches!(
        trailing.rate("r", &config, &mut envoy),
        Rate::Over { .. }
    ));
}

#[test]
fn a_spike_does_not_become_the_rate_and_growth_that_lasts_does() {
    let (mut envoy, mut trailing) = (envoy(), Trailing::default());
    minutes(&mut trailing, &mut envoy, (60, 2.0));
    let before = trailing.allowed(&spend_config()).unwrap();
    minutes(&mut trailing, &mut envoy, (10, 90.0));
    trailing.rate("r", &spend_config(), &mut envoy);
    let after = trailing.allowed(&spend_config()).unwrap();
    assert!(
        after.dollars() < before.dollars() * 1.2,
        "{before} then {after}"
    );
    minutes(&mut trailing, &mut envoy, (600, 30.0));
    trailing.rate("r", &spend_config(), &mut envoy);
    let later = trailing.allowed(&spend_config()).unwrap();
    assert!(later > Usd::from_dollars(60.0), "{later}");
}

#[test]
fn quiet_minutes_count_and_a_long_silence_is_forgotten() {
    let (mut envoy, mut trailing) = (envoy(), Trailing::default());
    let config = spend_config();
    minutes(&mut trailing, &mut envoy, (60, 4.0));
    envoy.now_secs += 60 * 60;
    trailing.rate("r", &config, &mut envoy);
    let allowed = trailing.allowed(&config).unwrap();
    assert!(allowed < Usd::from_dollars(8.0), "{allowed}");
    envoy.now_secs += 60 * (FORGOTTEN + 1);
    trailing.rate("r", &config, &mut envoy);
    assert_eq!(trailing.allowed(&config), None);
}
