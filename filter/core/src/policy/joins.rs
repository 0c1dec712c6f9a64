//! May an upstream be asked for a part of a batch of embeddings? Only one whose answers to whole
//! batches were read, and that said of them what the known vectors say: what it answers to a part
//! has to stand beside those, and where it cannot the client gets an error.

use std::hash::{Hash, Hasher};

use rustc_hash::{FxHashMap, FxHasher};

/// How long an upstream is asked for whole batches after an answer of its could not be joined; as
/// long again each time, up to [`LONGEST_NS`].
const WHOLE_NS: u64 = 600_000_000_000;
/// A day.
const LONGEST_NS: u64 = 86_400_000_000_000;

/// Upstreams that are remembered.
const MOST: usize = 256;

/// What a worker saw of upstreams' answers to embedding requests.
#[derive(Debug, Default)]
pub struct Joins(FxHashMap<u64, Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Hash of what it called its model in its last whole answer; None: that was not read.
    model: Option<u64>,
    /// That one had several vectors, so that it is known how it numbers them.
    several: bool,
    /// Until when it is asked for whole batches, nanoseconds since the epoch.
    until_ns: u64,
    /// How often it could not be joined, or called its model otherwise than before.
    faults: u32,
}

impl Seen {
    fn fault(&mut self, now_ns: u64) {
        let pause = WHOLE_NS.saturating_mul(1_u64.checked_shl(self.faults).unwrap_or(u64::MAX));
        self.faults = self.faults.saturating_add(1);
        self.until_ns = now_ns.saturating_add(pause.min(LONGEST_NS));
    }
}

impl Joins {
    /// Whether `upstream` can be asked for one or `several` inputs whose vectors are to stand
    /// beside those of `model`.
    #[must_use]
    pub fn may(&self, upstream: u64, (model, several): (&str, bool), now_ns: u64) -> bool {
        self.0.get(&upstream).is_some_and(|seen| {
            seen.model == Some(hash(model)) && now_ns >= seen.until_ns && (seen.several || !several)
        })
    }

    /// A whole answer of `upstream` was read: one or `several` vectors of `model`.
    pub fn read(&mut self, upstream: u64, (model, several): (&str, bool), now_ns: u64) {
        let seen = self.seen(upstream);
        let model = hash(model);
        // One that goes by several names in turn would be joined by luck.
        if seen.model.is_some_and(|before| before != model) {
            seen.fault(now_ns);
        }
        seen.several |= several;
        seen.model = Some(model);
    }

    /// A whole answer of `upstream` was none of vectors that are kept.
    pub fn unread(&mut self, upstream: u64) {
        if let Some(seen) = self.0.get_mut(&upstream) {
            (seen.model, seen.several) = (None, false);
        }
    }

    /// An answer of `upstream` to a part could not be joined.
    pub fn failed(&mut self, upstream: u64, now_ns: u64) {
        let seen = self.seen(upstream);
        (seen.model, seen.several) = (None, false);
        seen.fault(now_ns);
    }

    fn seen(&mut self, upstream: u64) -> &mut Seen {
        if self.0.len() >= MOST && !self.0.contains_key(&upstream) {
            // Each is learned again by one whole answer.
            self.0.clear();
        }
        self.0.entry(upstream).or_default()
    }
}

fn hash(model: &str) -> u64 {
    let mut hasher = FxHasher::default();
    model.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_part_is_asked_of_whom_has_told_a_whole_of_the_same_model() {
        let mut joins = Joins::default();
        assert!(!joins.may(1, ("m", false), 0), "nothing is known");
        joins.read(1, ("m", false), 0);
        assert!(joins.may(1, ("m", false), 0));
        assert!(!joins.may(1, ("m", true), 0), "how it numbers several");
        assert!(!joins.may(1, ("m-2", false), 0), "another revision");
        assert!(!joins.may(2, ("m", false), 0), "another upstream");
        joins.read(1, ("m", true), 0);
        joins.read(1, ("m", false), 0);
        assert!(joins.may(1, ("m", true), 0));
        joins.unread(1);
        assert!(!joins.may(1, ("m", false), 0));
    }

    #[test]
    fn whoever_cannot_be_joined_is_asked_for_wholes_longer_each_time() {
        let mut joins = Joins::default();
        let mut now = 0;
        for minutes in [10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440] {
            joins.failed(1, now);
            joins.read(1, ("m", true), now);
            let end = now + minutes * 60 * SECOND;
            assert!(!joins.may(1, ("m", true), end - 1), "{minutes}");
            assert!(joins.may(1, ("m", true), end), "{minutes}");
            now = end;
        }
        for _ in 0..100 {
            joins.failed(1, now);
        }
        joins.read(1, ("m", true), now);
        assert!(joins.may(1, ("m", true), now + LONGEST_NS));
    }

    #[test]
    fn one_of_several_names_costs_no_answer_before_it_is_left_alone() {
        let mut joins = Joins::default();
        for name in ["a", "b", "a", "b"] {
            joins.read(1, (name, true), 0);
        }
        assert!(!joins.may(1, ("b", true), 2399 * SECOND));
        assert!(joins.may(1, ("b", true), 2400 * SECOND));
    }

    #[test]
    fn so_many_upstreams_are_remembered_and_no_more() {
        let mut joins = Joins::default();
        for upstream in 0..1000 {
            joins.read(upstream, ("m", true), 0);
            assert!(joins.0.len() <= MOST);
            assert!(joins.may(upstream, ("m", true), 0));
        }
    }
}
