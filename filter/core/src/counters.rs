//! Budget counters in a store that can only compare and swap, and never delete: the shared data
//! that the workers of one Envoy have in common.

use xxhash_rust::xxh3::xxh3_128;

/// Counters kept. A config with more budgets × tenants than this has no limit on the rest, which
/// is counted ([`Counted::full`]).
pub const SLOTS: u64 = 4096;

/// Slots tried for a counter before it counts as full.
const PROBES: u64 = 16;

/// Tries to win a slot against other workers. Each failure means that another one succeeded.
const TRIES: u32 = 64;

/// A counter whose window began so long ago is of no window any more (the longest is a month).
const STALE_SECS: u64 = 40 * 86_400;

/// A store of small values by slot number.
pub trait Slots {
    /// The value and its version; an empty one where nothing was put yet.
    fn get(&mut self, slot: u64) -> (Vec<u8>, u32);

    /// Puts a value if the version is still the same; says whether it did.
    fn put(&mut self, slot: u64, value: &[u8], version: u32) -> bool;
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The counter before the call.
    pub before: u64,
    /// The amount was added (or the counter could not be kept, which limits nobody).
    pub added: bool,
    /// No slot was free, or other workers were always faster: nothing was counted.
    pub full: bool,
}

const UNKEPT: Counted = Counted {
    before: 0,
    added: true,
    full: true,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counter {
    key: u128,
    window_start: u64,
    used: u64,
}

impl Counter {
    fn read(bytes: &[u8]) -> Option<Counter> {
        let (key, rest) = bytes.split_first_chunk::<16>()?;
        let (window_start, rest) = rest.split_first_chunk::<8>()?;
        let (used, _) = rest.split_first_chunk::<8>()?;
        Some(Counter {
            key: u128::from_le_bytes(*key),
            window_start: u64::from_le_bytes(*window_start),
            used: u64::from_le_bytes(*used),
        })
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend(self.key.to_le_bytes());
        bytes.extend(self.window_start.to_le_bytes());
        bytes.extend(self.used.to_le_bytes());
        bytes
    }
}

/// Adds `amount` to the counter of `key` unless the sum would pass `limit`; see
/// [`Host::count`](crate::exchange::Host::count), which this implements.
///
/// A negative amount for a window that is over releases nothing: its counter is gone.
pub fn count(
    slots: &mut dyn Slots,
    key: &str,
    window_start: u64,
    amount: i64,
    limit: u64,
) -> Counted {
    let key = xxh3_128(key.as_bytes());
    for _ in 0..TRIES {
        let Some((slot, found, version)) = find(slots, key, window_start) else {
            return UNKEPT;
        };
        let used = match found {
            Some(counter) if counter.window_start > window_start => {
                return Counted {
                    before: 0,
                    added: true,
                    full: false,
                };
            }
            Some(counter) if counter.window_start == window_start => counter.used,
            _ => 0,
        };
        let after = used.saturating_add_signed(amount);
        // A release always succeeds, even where the limit was lowered meanwhile.
        if amount > 0 && after > limit {
            return Counted {
                before: used,
                added: false,
                full: false,
            };
        }
        let counter = Counter {
            key,
            window_start,
            used: after,
        };
        if found == Some(counter) || slots.put(slot, &counter.write(), version) {
            return Counted {
                before: used,
                added: true,
                full: false,
            };
        }
    }
    UNKEPT
}

/// The slot that a counter has, or the first that it may take.
fn find(
    slots: &mut dyn Slots,
    key: u128,
    window_start: u64,
) -> Option<(u64, Option<Counter>, u32)> {
    let mut free = None;
    for probe in 0..PROBES {
        let slot = (key as u64).wrapping_add(probe) % SLOTS;
        let (value, version) = slots.get(slot);
        match Counter::read(&value) {
            Some(counter) if counter.key == key => return Some((slot, Some(counter), version)),
            Some(counter) if counter.window_start + STALE_SECS >= window_start => {}
            // Stale, but the own counter may still stand behind it.
            Some(_) => free = free.or(Some((slot, None, version))),
            // Slots are never emptied, so nothing stands behind an empty one.
            None => return free.or(Some((slot, None, version))),
        }
    }
    free
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Envoy's shared data, as far as it goes.
    #[derive(Default)]
    pub(crate) struct Map {
        pub(crate) values: HashMap<u64, (Vec<u8>, u32)>,
        /// Another worker wins so many times.
        pub(crate) lose: u32,
    }

    impl Slots for Map {
        fn get(&mut self, slot: u64) -> (Vec<u8>, u32) {
            self.values.get(&slot).cloned().unwrap_or_default()
        }
        fn put(&mut self, slot: u64, value: &[u8], version: u32) -> bool {
            let (_, now) = self.get(slot);
            if self.lose > 0 {
                self.lose -= 1;
                return false;
            }
            if now != version {
                return false;
            }
            self.values.insert(slot, (value.to_vec(), now + 1));
            true
        }
    }

    fn added(before: u64) -> Counted {
        Counted {
            before,
            added: true,
            full: false,
        }
    }

    fn refused(before: u64) -> Counted {
        Counted {
            before,
            added: false,
            full: false,
        }
    }

    #[test]
    fn a_counter_adds_up_to_its_limit_and_not_past_it() {
        let map = &mut Map::default();
        assert_eq!(count(map, "k", 60, 70, 100), added(0));
        assert_eq!(count(map, "k", 60, 31, 100), refused(70));
        assert_eq!(count(map, "k", 60, 30, 100), added(70));
        assert_eq!(count(map, "k", 60, 0, 100), added(100));
        assert_eq!(count(map, "other", 60, 100, 100), added(0));
    }

    #[test]
    fn a_release_gives_back_and_stops_at_zero() {
        let map = &mut Map::default();
        count(map, "k", 60, 70, 100);
        assert_eq!(
            count(map, "k", 60, -50, 0),
            added(70),
            "also above a limit that was lowered"
        );
        assert_eq!(count(map, "k", 60, -50, 100), added(20));
        assert_eq!(count(map, "k", 60, 100, 100), added(0));
    }

    #[test]
    fn a_new_window_starts_at_zero_and_an_old_one_changes_nothing() {
        let map = &mut Map::default();
        count(map, "k", 60, 70, 100);
        assert_eq!(count(map, "k", 120, 100, 100), added(0));
        assert_eq!(
            count(map, "k", 60, -70, 100),
            added(0),
            "settled after its window was over"
        );
        assert_eq!(count(map, "k", 120, 1, 100), refused(100));
    }

    #[test]
    fn a_worker_that_loses_the_race_tries_again_and_gives_up_in_the_end() {
        let map = &mut Map {
            lose: 5,
            ..Map::default()
        };
        assert_eq!(count(map, "k", 60, 70, 100), added(0));
        map.lose = u32::MAX;
        assert_eq!(count(map, "k", 60, 10, 100), UNKEPT);
    }

    #[test]
    fn counters_past_the_bound_limit_nobody_and_say_so_and_stale_slots_are_taken_again() {
        let map = &mut Map::default();
        let full = (0..20_000)
            .filter(|number| count(map, &number.to_string(), 60, 1, 1).full)
            .count();
        assert!(map.values.len() as u64 <= SLOTS);
        assert!(full > 10_000, "{full}");
        let later = 60 + STALE_SECS + 1;
        assert!(!count(map, "new", later, 1, 1).full);
        assert_eq!(count(map, "new", later, 1, 1), refused(1));
    }

    #[test]
    fn the_guards_counters_are_not_taken_for_old_ones() {
        struct Envoy(Map);
        impl crate::exchange::Host for Envoy {
            fn now_ns(&self) -> u64 {
                1_700_000_000_000_000_000
            }
            fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
                None
            }
            fn count(&mut self, key: &str, window: u64, amount: i64, limit: u64) -> (u64, bool) {
                let counted = count(&mut self.0, key, window, amount, limit);
                (counted.before, counted.added)
            }
        }
        use crate::policy::guard::{Upstream, spend};
        let (mut envoy, mut upstream) = (Envoy(Map::default()), Upstream::default());
        let misses = crate::config::Misses {
            limit: 1,
            ..crate::config::Misses::default()
        };
        assert!(upstream.enter("r", &misses, &mut envoy));
        spend("r", sluice_wire::Usd(5), &mut envoy);
        let mine = envoy.0.values.clone();
        for number in 0..20_000 {
            count(&mut envoy.0, &number.to_string(), 1_699_920_000, 1, 1);
        }
        for (slot, (value, _)) in mine {
            assert_eq!(envoy.0.values[&slot].0, value, "slot {slot}");
        }
        assert!(!upstream.enter("r", &misses, &mut envoy));
    }

    #[test]
    fn a_slot_with_a_strange_value_is_taken_as_free() {
        let map = &mut Map::default();
        for slot in 0..SLOTS {
            map.values.insert(slot, (b"junk".to_vec(), 7));
        }
        assert_eq!(count(map, "k", 60, 70, 100), added(0));
        assert_eq!(count(map, "k", 60, 31, 100), refused(70));
    }
}
