//! Cached answers in this process, bounded by bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use moka::Expiry;
use moka::sync::Cache;

use super::{Age, CacheStore, Entry, Found, Key, Put};
use crate::store::StoreError;

/// What an entry costs beside its texts: key, struct, and moka's own bookkeeping.
const OVERHEAD: usize = 400;

/// The default store. When it is full, entries that are asked for least give way (TinyLFU).
pub struct MemoryCache {
    entries: Cache<Key, Arc<Entry>>,
}

/// Each entry has its own life.
struct Life;

impl Expiry<Key, Arc<Entry>> for Life {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        let millis = entry.keep_ms.saturating_sub(entry.stored_ms);
        Some(Duration::from_millis(millis))
    }

    fn expire_after_update(
        &self,
        key: &Key,
        entry: &Arc<Entry>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, entry, now)
    }
}

fn weight(entry: &Entry) -> u32 {
    let head = &entry.head;
    let texts = head.format.len() + head.model.len() + head.tier.as_ref().map_or(0, String::len);
    u32::try_from(OVERHEAD + texts + entry.body.len()).unwrap_or(u32::MAX)
}

impl MemoryCache {
    /// A cache of at most `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        MemoryCache {
            entries: Cache::builder()
                .max_capacity(bytes)
                .weigher(|_: &Key, entry: &Arc<Entry>| weight(entry))
                .expire_after(Life)
                .build(),
        }
    }

    /// Does the housekeeping that otherwise happens along the way; for tests and gauges.
    pub fn settle_down(&self) {
        self.entries.run_pending_tasks();
    }
}

impl CacheStore for MemoryCache {
    fn get(&self, key: Key, now_ms: u64) -> BoxFuture<'_, Result<Found, StoreError>> {
        let found = match self.entries.get(&key) {
            // moka's clock is real; ours may be a test's.
            Some(entry) if entry.age(now_ms) != Age::Over => Found::Entry(entry),
            _ => Found::Miss,
        };
        Box::pin(std::future::ready(Ok(found)))
    }

    fn put(&self, key: Key, mut entry: Entry) -> BoxFuture<'_, Result<Put, StoreError>> {
        // The bytes may be a slice of a whole settle body; keep the answer alone alive.
        entry.body = bytes::Bytes::copy_from_slice(&entry.body);
        let entry = Arc::new(entry);
        let kept = self
            .entries
            .entry(key)
            .and_upsert_with(|before| match before {
                Some(before) if before.value().token > entry.token => before.into_value(),
                _ => entry.clone(),
            });
        let put = match Arc::ptr_eq(kept.value(), &entry) {
            true => Put::Stored,
            false => Put::Fenced,
        };
        Box::pin(std::future::ready(Ok(put)))
    }

    fn size(&self) -> (u64, u64) {
        (self.entries.weighted_size(), self.entries.entry_count())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use sluice_wire::{EntryHead, Usage};

    use super::*;

    fn entry(ttl_ms: u64, len: usize) -> Entry {
        Entry {
            stored_ms: 1_000,
            built_ms: 1_000,
            fresh_ms: 1_000 + ttl_ms,
            stale_ms: 1_000 + ttl_ms,
            keep_ms: 1_000 + ttl_ms,
            token: 1,
            tags: Vec::new(),
            head: EntryHead {
                format: "f".to_owned(),
                model: "m".to_owned(),
                tier: None,
                status: 200,
                usage: Usage::default(),
                cost: None,
            },
            body: Bytes::from(vec![b'a'; len]),
        }
    }

    fn key(n: u8) -> Key {
        Key([n; 32])
    }

    fn get(cache: &MemoryCache, n: u8, now_ms: u64) -> Found {
        cache.get(key(n), now_ms).now_or_never().unwrap().unwrap()
    }

    fn put(cache: &MemoryCache, n: u8, entry: Entry) -> Put {
        cache.put(key(n), entry).now_or_never().unwrap().unwrap()
    }

    #[test]
    fn what_a_later_lease_fetched_stays() {
        let cache = MemoryCache::new(1 << 20);
        let fetched = |token, len| Entry {
            token,
            ..entry(60_000, len)
        };
        assert_eq!(put(&cache, 1, fetched(7, 7)), Put::Stored);
        assert_eq!(put(&cache, 1, fetched(6, 6)), Put::Fenced);
        let Found::Entry(kept) = get(&cache, 1, 2_000) else {
            panic!("nothing is kept");
        };
        assert_eq!((kept.token, kept.body.len()), (7, 7));
        assert_eq!(put(&cache, 1, fetched(8, 8)), Put::Stored);
    }

    #[test]
    fn an_entry_is_found_until_its_own_time_is_over() {
        let cache = MemoryCache::new(1 << 20);
        put(&cache, 1, entry(60_000, 10));
        assert!(matches!(get(&cache, 1, 60_999), Found::Entry(_)));
        assert_eq!(get(&cache, 1, 61_000), Found::Miss);
        assert_eq!(get(&cache, 2, 1_000), Found::Miss);
    }

    #[test]
    fn a_full_cache_stays_within_its_bytes() {
        let cache = MemoryCache::new(100_000);
        for n in 0..200 {
            put(&cache, n, entry(600_000, 5_000));
            cache.settle_down();
            assert!(cache.size().0 <= 100_000, "{:?} after {n}", cache.size());
        }
        assert!(cache.size().1 >= 10);
    }

    #[test]
    fn an_answer_larger_than_the_cache_is_not_kept() {
        let cache = MemoryCache::new(1_000);
        put(&cache, 1, entry(600_000, 5_000));
        cache.settle_down();
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn a_kept_answer_does_not_hold_the_batch_that_it_came_in() {
        let cache = MemoryCache::new(1 << 20);
        let batch = Bytes::from(vec![b'b'; 100_000]);
        let mut one = entry(60_000, 0);
        one.body = batch.slice(10..20);
        put(&cache, 1, one);
        assert!(batch.is_unique(), "the batch is free again");
    }
}
