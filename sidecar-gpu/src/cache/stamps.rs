//! When what answers were built on has changed, as far as this process knows.
//!
//! Changes are kept by tenant, so that one who invalidates without end makes room by its own
//! answers and not by another's.

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use sluice_wire::limit;

/// Most tags that are remembered. Beyond one of these the oldest changes are forgotten by raising a
/// floor, which voids too much rather than too little.
const BOUNDS: Bounds = Bounds {
    of_one: 10_000,
    of_all: 100_000,
    tenants: 10_000,
};

#[derive(Clone, Copy)]
struct Bounds {
    /// Tags of one tenant: beyond, its oldest give way.
    of_one: usize,
    /// Tags of all: beyond, all of whoever has the most.
    of_all: usize,
    /// Tenants: beyond, everything.
    tenants: usize,
}

/// The tenant of a scoped tag, and the tag; no tenant means everyone's.
fn split(tag: &str) -> (&str, &str) {
    tag.split_once('/').unwrap_or(("", tag))
}

/// The part of a scoped tag that stands for it whoever's it is: an operator's invalidation without
/// a tenant means everyone's.
pub(super) fn everyones(tag: &str) -> &str {
    tag.find('/').map_or(tag, |at| &tag[at..])
}

/// Whether `tags` are few and short enough, and written as [`sluice_wire::scoped_tag`] does.
pub(super) fn fit(tags: &[String]) -> bool {
    tags.len() <= limit::TAGS
        && tags.iter().all(|tag| {
            let (tenant, rest) = split(tag);
            // An escaped byte is three.
            tag.contains('/') && rest.len() <= limit::TAG && tenant.len() <= 3 * limit::TAG
        })
}

/// The latest change of each tag.
pub(super) struct Stamps {
    inner: RwLock<Inner>,
    bounds: Bounds,
}

#[derive(Default)]
struct Inner {
    /// What was built at or before this is void, if it has tags.
    floor_ms: u64,
    by_tenant: HashMap<String, Changes>,
}

/// One tenant's.
#[derive(Default)]
struct Changes {
    floor_ms: u64,
    by_tag: HashMap<String, u64>,
    by_time: BTreeSet<(u64, String)>,
}

impl Changes {
    fn mark(&mut self, tag: &str, at_ms: u64) {
        let before = self.by_tag.get(tag).copied();
        if before.is_some_and(|before| before >= at_ms) {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, tag.to_owned()));
        }
        self.by_tag.insert(tag.to_owned(), at_ms);
        self.by_time.insert((at_ms, tag.to_owned()));
    }

    fn forget_oldest(&mut self) {
        if let Some((at_ms, tag)) = self.by_time.pop_first() {
            self.by_tag.remove(&tag);
            self.floor_ms = self.floor_ms.max(at_ms);
        }
    }

    /// The time of the last change.
    fn last_ms(&self) -> u64 {
        let last = self.by_time.last().map_or(0, |(at_ms, _)| *at_ms);
        last.max(self.floor_ms)
    }

    fn void(&self, tag: &str, built_ms: u64) -> bool {
        built_ms <= self.floor_ms || self.by_tag.get(tag).is_some_and(|&at| built_ms <= at)
    }
}

impl Stamps {
    /// None yet; entries with tags that were built at `floor_ms` or before are void.
    pub(super) fn new(floor_ms: u64) -> Self {
        Stamps::within(BOUNDS, floor_ms)
    }

    fn within(bounds: Bounds, floor_ms: u64) -> Self {
        Stamps {
            inner: RwLock::new(Inner {
                floor_ms,
                ..Inner::default()
            }),
            bounds,
        }
    }

    /// `tag` changed at `at_ms`.
    pub(super) fn mark(&self, tag: &str, at_ms: u64) {
        let (tenant, tag) = split(tag);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let changes = inner.by_tenant.entry(tenant.to_owned()).or_default();
        changes.mark(tag, at_ms);
        if changes.by_tag.len() > self.bounds.of_one {
            changes.forget_oldest();
        }
        let all: usize = inner.by_tenant.values().map(|it| it.by_tag.len()).sum();
        if all > self.bounds.of_all
            && let Some(most) = inner
                .by_tenant
                .values_mut()
                .max_by_key(|it| it.by_tag.len())
        {
            *most = Changes {
                floor_ms: most.last_ms(),
                ..Changes::default()
            };
        }
        if inner.by_tenant.len() > self.bounds.tenants {
            let last_ms = inner.by_tenant.values().map(Changes::last_ms).max();
            inner.floor_ms = inner.floor_ms.max(last_ms.unwrap_or(0));
            inner.by_tenant.clear();
        }
    }

    /// Whether one of `tags` has changed since `built_ms`, or at that very moment.
    pub(super) fn void(&self, tags: &[String], built_ms: u64) -> bool {
        if tags.is_empty() {
            return false;
        }
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let changed = |tenant: &str, tag: &str| {
            let changes = inner.by_tenant.get(tenant);
            changes.is_some_and(|it| it.void(tag, built_ms))
        };
        built_ms <= inner.floor_ms
            || tags.iter().any(|tag| {
                let (tenant, tag) = split(tag);
                changed(tenant, tag) || changed("", tag)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn void(stamps: &Stamps, tag: &str, built_ms: u64) -> bool {
        stamps.void(&[tag.to_owned()], built_ms)
    }

    #[test]
    fn what_was_built_before_a_change_is_void_and_what_was_built_after_is_not() {
        let stamps = Stamps::new(0);
        stamps.mark("acme/doc:1", 100);
        assert!(void(&stamps, "acme/doc:1", 99));
        assert!(stamps.void(&["acme/x".to_owned(), "acme/doc:1".to_owned()], 100));
        assert!(!void(&stamps, "acme/doc:1", 101));
        assert!(!void(&stamps, "globex/doc:1", 99));
        assert!(!void(&stamps, "/doc:1", 99));
        assert!(!stamps.void(&[], 0));
        stamps.mark("acme/doc:1", 50);
        assert!(void(&stamps, "acme/doc:1", 100), "the later one counts");
    }

    #[test]
    fn a_change_without_a_tenant_is_everyones() {
        let stamps = Stamps::new(0);
        stamps.mark("/doc:1/part", 100);
        for tag in ["/doc:1/part", "acme/doc:1/part", "a%2Fb/doc:1/part"] {
            assert!(void(&stamps, tag, 100), "{tag}");
        }
        assert!(!void(&stamps, "acme/part", 100));
        assert!(!void(&stamps, "doc:1/part", 100));
    }

    #[test]
    fn who_invalidates_too_much_voids_too_much_of_its_own_and_nothing_of_others() {
        let bounds = Bounds {
            of_one: 10,
            of_all: 1_000,
            tenants: 1_000,
        };
        let stamps = Stamps::within(bounds, 0);
        stamps.mark("globex/doc", 50);
        for n in 0..30 {
            stamps.mark(&format!("acme/{n}"), 100 + n);
        }
        for n in 0..30 {
            assert!(void(&stamps, &format!("acme/{n}"), 100 + n), "{n}");
        }
        // The floor is the last one that was forgotten; what was built later stands.
        assert!(void(&stamps, "acme/never", 119));
        assert!(!void(&stamps, "acme/never", 120));
        assert!(!void(&stamps, "acme/29", 130));
        assert!(!void(&stamps, "globex/never", 51));
        assert!(void(&stamps, "globex/doc", 50));
        assert!(!void(&stamps, "globex/doc", 51));
        assert_eq!(
            stamps.inner.read().unwrap().by_tenant["acme"].by_tag.len(),
            10
        );
    }

    #[test]
    fn however_many_change_memory_is_bounded_and_nothing_that_changed_stands() {
        let bounds = Bounds {
            of_one: 10,
            of_all: 20,
            tenants: 7,
        };
        let stamps = Stamps::within(bounds, 0);
        let tags: Vec<String> = (0..300).map(|n| format!("{}/{n}", n % 11)).collect();
        for (tag, at_ms) in tags.iter().zip(100..) {
            stamps.mark(tag, at_ms);
            let inner = stamps.inner.read().unwrap();
            let all: usize = inner.by_tenant.values().map(|it| it.by_time.len()).sum();
            assert!(all <= 20 && inner.by_tenant.len() <= 7, "{all}");
        }
        for (tag, at_ms) in tags.iter().zip(100..) {
            assert!(void(&stamps, tag, at_ms), "{tag}");
        }
        assert!(!void(&stamps, &tags[299], 400));
    }
}
