//! Cached answers in this process, bounded by bytes.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use moka::sync::Cache;

use super::counts::{Counts, count};
use super::stamps::{self, Stamps};
use super::{Age, CacheStore, Entry, Found, Key, Layer, Put, TURN, codec, encoded};
use crate::store::StoreError;

/// What an entry costs beside its bytes: its key, moka's nodes and what allocation adds.
/// `cargo xtask bench cache` holds it against the process's real size.
const OVERHEAD: usize = 384;

/// An entry as [`codec`] writes it.
#[derive(Clone)]
struct Kept {
    bytes: Arc<[u8]>,
    until_ms: u64,
}

/// The default store, and the layer in front of Redis. When it is full, entries that are asked for
/// least give way (TinyLFU). Entries stay packed and are unpacked for each hit: a few microseconds
/// for half of the memory.
pub struct MemoryCache {
    kept: Cache<Key, Kept>,
    capacity: u64,
    stamps: Stamps,
    counts: Counts,
}

impl MemoryCache {
    /// A cache of at most `bytes`. Invalidations from before it was made, at `born_ms`, are not
    /// known to it: entries with tags that were built earlier are not kept.
    #[must_use]
    pub fn new(bytes: u64, born_ms: u64) -> Self {
        MemoryCache {
            kept: Cache::builder()
                .max_capacity(bytes)
                .weigher(|_: &Key, kept: &Kept| {
                    u32::try_from(OVERHEAD + kept.bytes.len()).unwrap_or(u32::MAX)
                })
                .build(),
            capacity: bytes,
            stamps: Stamps::new(born_ms.saturating_sub(1)),
            counts: Counts::default(),
        }
    }

    /// Does the housekeeping that otherwise happens along the way; for tests and figures.
    pub fn settle_down(&self) {
        self.kept.run_pending_tasks();
    }

    /// The entry of `key`.
    pub(super) fn look_up(&self, key: Key, now_ms: u64) -> Found {
        let Some(kept) = self.kept.get(&key).filter(|kept| now_ms < kept.until_ms) else {
            count(&self.counts.misses);
            return Found::Miss;
        };
        match Entry::decode(&kept.bytes) {
            Ok(entry) if entry.age(now_ms) == Age::Over => {
                count(&self.counts.misses);
                Found::Miss
            }
            Ok(entry) if self.stamps.void(&entry.tags, entry.built_ms) => {
                count(&self.counts.voided);
                Found::Miss
            }
            Ok(entry) => {
                count(&self.counts.hits);
                Found::Entry(Arc::new(entry))
            }
            Err(why) => {
                self.counts.corrupt(&why);
                Found::Corrupt
            }
        }
    }

    /// The entries of `keys`, in their order.
    pub(super) async fn look_up_all(&self, keys: &[Key], now_ms: u64) -> Vec<Found> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(TURN) {
            found.extend(keys.iter().map(|key| self.look_up(*key, now_ms)));
            if found.len() >= TURN {
                tokio::task::yield_now().await;
            }
        }
        found
    }

    /// Keeps an entry's `bytes` until `until_ms`, unless a later lease's are there.
    pub(super) fn keep(&self, key: Key, bytes: &[u8], until_ms: u64) -> Put {
        let token = codec::token(bytes);
        let bytes: Arc<[u8]> = bytes.into();
        let kept = self.kept.entry(key).and_upsert_with(|before| {
            match before.map(moka::Entry::into_value) {
                Some(before) if codec::token(&before.bytes) > token => before,
                _ => Kept {
                    bytes: bytes.clone(),
                    until_ms,
                },
            }
        });
        match Arc::ptr_eq(&kept.value().bytes, &bytes) {
            true => Put::Stored,
            false => Put::Fenced,
        }
    }

    /// Drops `key`'s entry; whether there was one.
    pub(super) fn drop_key(&self, key: Key) -> bool {
        // `remove` would return what `invalidate_all` has hidden and not yet freed.
        let there = self.kept.contains_key(&key);
        self.kept.invalidate(&key);
        there
    }

    /// Drops `key`'s entry unless it was fetched under a later lease than `token`: of two under
    /// equal tokens the one that was stored later counts, and this may be the other.
    pub(super) fn drop_to(&self, key: Key, token: u64) {
        if let Some(kept) = self.kept.get(&key)
            && codec::token(&kept.bytes) <= token
        {
            self.kept.invalidate(&key);
        }
    }

    /// Drops everything, and frees it before this returns: who looks then sees it gone.
    pub(super) fn drop_all(&self) {
        self.kept.invalidate_all();
        self.kept.run_pending_tasks();
    }

    /// Voids what was built on `tag` at `at_ms` or before.
    pub(super) fn mark(&self, tag: &str, at_ms: u64) {
        self.stamps.mark(tag, at_ms);
    }

    /// What is told of it under `name`.
    pub(super) fn layer(&self, name: &str) -> Layer {
        Layer {
            entries: Some(self.kept.entry_count()),
            bytes: Some(self.kept.weighted_size()),
            capacity: Some(self.capacity),
            ..self.counts.layer(name)
        }
    }
}

impl CacheStore for MemoryCache {
    fn get(&self, key: Key, now_ms: u64) -> BoxFuture<'_, Result<Found, StoreError>> {
        Box::pin(std::future::ready(Ok(self.look_up(key, now_ms))))
    }

    fn get_all<'a>(
        &'a self,
        keys: &'a [Key],
        now_ms: u64,
    ) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        Box::pin(async move { Ok(self.look_up_all(keys, now_ms).await) })
    }

    fn put(&self, key: Key, entry: Entry) -> BoxFuture<'_, Result<Put, StoreError>> {
        Box::pin(async move {
            let put = if !stamps::fit(&entry.tags) {
                Put::Refused
            } else if self.stamps.void(&entry.tags, entry.built_ms) {
                Put::Voided
            } else {
                let keep_ms = entry.keep_ms;
                self.keep(key, &encoded(entry).await?, keep_ms)
            };
            self.counts.put(put);
            Ok(put)
        })
    }

    fn remove(&self, key: Key) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(std::future::ready(Ok(self.drop_key(key))))
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.drop_all();
        Box::pin(std::future::ready(Ok(())))
    }

    fn invalidate<'a>(
        &'a self,
        tag: &'a str,
        now_ms: u64,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.mark(tag, now_ms);
        Box::pin(std::future::ready(Ok(now_ms)))
    }

    fn sweep(&self, now_ms: u64) {
        for (key, kept) in &self.kept {
            if kept.until_ms <= now_ms {
                // What was put there meanwhile is lost with it: once, and a miss is all it costs.
                self.kept.invalidate(&*key);
            }
        }
    }

    fn layers(&self) -> Vec<Layer> {
        vec![self.layer("memory")]
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use sluice_wire::EntryHead;

    use super::*;

    /// An answer that cannot be packed much.
    fn noise(len: usize) -> Bytes {
        let mut state = 1_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn entry(ttl_ms: u64, len: usize) -> Entry {
        Entry {
            stored_ms: 1_000,
            built_ms: 1_000,
            fresh_ms: 1_000 + ttl_ms,
            stale_ms: 1_000 + ttl_ms,
            keep_ms: 1_000 + ttl_ms,
            token: 1,
            tags: Vec::new(),
            head: EntryHead::default(),
            body: noise(len),
        }
    }

    fn key(n: u8) -> Key {
        Key([n; 32])
    }

    fn cache(bytes: u64) -> MemoryCache {
        MemoryCache::new(bytes, 1_000)
    }

    fn get(cache: &MemoryCache, n: u8, now_ms: u64) -> Found {
        cache.get(key(n), now_ms).now_or_never().unwrap().unwrap()
    }

    fn put(cache: &MemoryCache, n: u8, entry: Entry) -> Put {
        cache.put(key(n), entry).now_or_never().unwrap().unwrap()
    }

    fn tagged(built_ms: u64, tag: &str) -> Entry {
        Entry {
            stored_ms: built_ms,
            built_ms,
            tags: vec![tag.to_owned()],
            ..entry(60_000, 10)
        }
    }

    #[test]
    fn what_a_later_lease_fetched_stays() {
        let cache = cache(1 << 20);
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
        let cache = cache(1 << 20);
        put(&cache, 1, entry(60_000, 10));
        assert!(matches!(get(&cache, 1, 60_999), Found::Entry(_)));
        assert_eq!(get(&cache, 1, 61_000), Found::Miss);
        assert_eq!(get(&cache, 2, 1_000), Found::Miss);
    }

    #[test]
    fn what_is_over_makes_room_when_it_is_swept() {
        let cache = cache(1 << 20);
        put(&cache, 1, entry(60_000, 10));
        put(&cache, 2, entry(70_000, 10));
        cache.sweep(60_999);
        cache.settle_down();
        assert_eq!(cache.layer("").entries, Some(2));
        cache.sweep(61_000);
        cache.settle_down();
        assert_eq!(cache.layer("").entries, Some(1));
        assert!(matches!(get(&cache, 2, 61_000), Found::Entry(_)));
    }

    #[test]
    fn a_full_cache_stays_within_its_bytes() {
        let cache = cache(100_000);
        for n in 0..200 {
            put(&cache, n, entry(600_000, 5_000));
            cache.settle_down();
            let bytes = cache.layer("").bytes.unwrap();
            assert!(bytes <= 100_000, "{bytes} after {n}");
        }
        assert!(cache.layer("").entries.unwrap() >= 10);
    }

    #[test]
    fn what_is_asked_for_often_outlives_what_is_asked_for_once() {
        let cache = cache(100_000);
        // moka counts frequencies once half of the room is taken.
        for n in 0..15 {
            put(&cache, n, entry(600_000, 5_000));
            cache.settle_down();
        }
        for _ in 0..20 {
            (0..5).for_each(|n| drop(get(&cache, n, 2_000)));
            cache.settle_down();
        }
        for n in 15..250 {
            put(&cache, n, entry(600_000, 5_000));
            cache.settle_down();
        }
        let left = (0..5).filter(|&n| matches!(get(&cache, n, 2_000), Found::Entry(_)));
        assert_eq!(left.count(), 5);
    }

    #[tokio::test]
    async fn a_large_answer_is_packed_elsewhere_and_kept_all_the_same() {
        let cache = cache(64 << 20);
        let large = entry(60_000, 3 << 20);
        let body = large.body.clone();
        assert_eq!(cache.put(key(1), large).await.unwrap(), Put::Stored);
        let Found::Entry(kept) = get(&cache, 1, 2_000) else {
            panic!("nothing is kept");
        };
        assert!(kept.body == body);
    }

    #[test]
    fn an_answer_larger_than_the_cache_is_not_kept() {
        let cache = cache(1_000);
        put(&cache, 1, entry(600_000, 5_000));
        cache.settle_down();
        let layer = cache.layer("");
        assert_eq!((layer.bytes, layer.entries), (Some(0), Some(0)));
    }

    #[test]
    fn a_kept_answer_does_not_hold_the_batch_that_it_came_in() {
        let cache = cache(1 << 20);
        let batch = Bytes::from(vec![b'b'; 100_000]);
        let mut one = entry(60_000, 0);
        one.body = batch.slice(10..20);
        put(&cache, 1, one);
        assert!(batch.is_unique(), "the batch is free again");
    }

    #[test]
    fn an_invalidated_tag_voids_what_is_kept_and_what_is_still_under_way() {
        let cache = cache(1 << 20);
        put(&cache, 1, tagged(2_000, "acme/doc:1"));
        put(&cache, 2, tagged(2_000, "globex/doc:1"));
        let at = cache.invalidate("acme/doc:1", 3_000).now_or_never();
        assert_eq!(at.unwrap().unwrap(), 3_000);
        assert_eq!(get(&cache, 1, 3_001), Found::Miss);
        assert!(matches!(get(&cache, 2, 3_001), Found::Entry(_)));
        assert_eq!(put(&cache, 1, tagged(3_000, "acme/doc:1")), Put::Voided);
        assert_eq!(put(&cache, 1, tagged(3_001, "acme/doc:1")), Put::Stored);
        assert!(matches!(get(&cache, 1, 3_001), Found::Entry(_)));
        assert_eq!(cache.layer("").voided, 2);
    }

    #[test]
    fn what_was_under_way_when_the_process_began_is_not_kept_if_it_has_tags() {
        let cache = cache(1 << 20);
        assert_eq!(put(&cache, 1, tagged(999, "acme/doc:1")), Put::Voided);
        assert_eq!(put(&cache, 1, tagged(1_000, "acme/doc:1")), Put::Stored);
        let untagged = Entry {
            built_ms: 1,
            ..entry(60_000, 10)
        };
        assert_eq!(put(&cache, 2, untagged), Put::Stored);
    }

    #[test]
    fn an_answer_whose_tags_cannot_be_tracked_is_not_kept() {
        let cache = cache(1 << 20);
        let with = |tags| Entry {
            tags,
            ..entry(60_000, 10)
        };
        for tags in [
            vec!["a/b".to_owned(); 33],
            vec![format!("a/{}", "b".repeat(600))],
            vec!["without a scope".to_owned()],
        ] {
            assert_eq!(put(&cache, 1, with(tags)), Put::Refused);
        }
        assert_eq!(
            put(&cache, 1, with(vec!["a/b".to_owned(); 32])),
            Put::Stored
        );
    }
}
