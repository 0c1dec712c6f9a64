//! When what answers were built on has changed, as far as this process knows.

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use sluice_wire::limit;

/// Most tags that are remembered. Beyond it the oldest change is forgotten by raising a floor,
/// which voids too much rather than too little.
const TAGS: usize = 100_000;

/// The part of a scoped tag that stands for it whoever's it is: an operator's invalidation without
/// a tenant means everyone's.
pub(super) fn everyones(tag: &str) -> &str {
    tag.find('/').map_or(tag, |at| &tag[at..])
}

/// Whether `tags` are few and short enough, and written as [`sluice_wire::scoped_tag`] does.
pub(super) fn fit(tags: &[String]) -> bool {
    tags.len() <= limit::TAGS
        && tags.iter().all(|tag| {
            // Room for a tenant's name before it.
            tag.len() <= 2 * limit::TAG && tag.contains('/')
        })
}

/// The latest change of each tag.
pub(super) struct Stamps {
    inner: RwLock<Inner>,
    most: usize,
}

#[derive(Default)]
struct Inner {
    /// What was built at or before this is void, if it has tags.
    floor_ms: u64,
    by_tag: HashMap<String, u64>,
    by_time: BTreeSet<(u64, String)>,
}

impl Stamps {
    /// None yet; entries with tags that were built at `floor_ms` or before are void.
    pub(super) fn new(floor_ms: u64) -> Self {
        Stamps::of(TAGS, floor_ms)
    }

    fn of(most: usize, floor_ms: u64) -> Self {
        Stamps {
            inner: RwLock::new(Inner {
                floor_ms,
                ..Inner::default()
            }),
            most,
        }
    }

    /// `tag` changed at `at_ms`.
    pub(super) fn mark(&self, tag: &str, at_ms: u64) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if at_ms <= inner.floor_ms {
            return;
        }
        match inner.by_tag.insert(tag.to_owned(), at_ms) {
            Some(before) if before > at_ms => {
                inner.by_tag.insert(tag.to_owned(), before);
                return;
            }
            Some(before) => {
                inner.by_time.remove(&(before, tag.to_owned()));
            }
            None => {}
        }
        inner.by_time.insert((at_ms, tag.to_owned()));
        while inner.by_tag.len() > self.most
            && let Some((at_ms, tag)) = inner.by_time.pop_first()
        {
            inner.by_tag.remove(&tag);
            inner.floor_ms = inner.floor_ms.max(at_ms);
        }
    }

    /// Whether one of `tags` has changed since `built_ms`, or at that very moment.
    pub(super) fn void(&self, tags: &[String], built_ms: u64) -> bool {
        if tags.is_empty() {
            return false;
        }
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let changed = |tag: &str| inner.by_tag.get(tag).is_some_and(|&at| built_ms <= at);
        built_ms <= inner.floor_ms
            || tags
                .iter()
                .any(|tag| changed(tag) || changed(everyones(tag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(list: &[&str]) -> Vec<String> {
        list.iter().map(|&tag| tag.to_owned()).collect()
    }

    #[test]
    fn what_was_built_before_a_change_is_void_and_what_was_built_after_is_not() {
        let stamps = Stamps::new(0);
        stamps.mark("acme/doc:1", 100);
        assert!(stamps.void(&tags(&["acme/doc:1"]), 99));
        assert!(stamps.void(&tags(&["acme/x", "acme/doc:1"]), 100));
        assert!(!stamps.void(&tags(&["acme/doc:1"]), 101));
        assert!(!stamps.void(&tags(&["globex/doc:1", "/doc:1"]), 99));
        assert!(!stamps.void(&[], 0));
        stamps.mark("acme/doc:1", 50);
        assert!(
            stamps.void(&tags(&["acme/doc:1"]), 100),
            "the later one counts"
        );
    }

    #[test]
    fn a_change_without_a_tenant_is_everyones() {
        let stamps = Stamps::new(0);
        stamps.mark("/doc:1/part", 100);
        for tag in ["/doc:1/part", "acme/doc:1/part", "a%2Fb/doc:1/part"] {
            assert!(stamps.void(&tags(&[tag]), 100), "{tag}");
        }
        assert!(!stamps.void(&tags(&["acme/part", "doc:1/part"]), 100));
    }

    #[test]
    fn a_full_map_voids_too_much_rather_than_too_little() {
        let stamps = Stamps::of(10, 0);
        for n in 0..30 {
            stamps.mark(&format!("/{n}"), 100 + n);
        }
        for n in 0..30 {
            assert!(stamps.void(&tags(&[&format!("a/{n}")]), 100 + n), "{n}");
        }
        // The floor is the last one that was forgotten; what was built later stands.
        assert!(stamps.void(&tags(&["a/never"]), 119));
        assert!(!stamps.void(&tags(&["a/never"]), 120));
        assert!(!stamps.void(&tags(&["a/29"]), 130));
        assert!(stamps.inner.read().unwrap().by_tag.len() <= 10);
    }
}
