//! Two levels: answers that were read from Redis stay a few seconds in this process.
//!
//! What others change is heard of by subscription. While that is lost, look-ups go to Redis and
//! nothing new is kept here; only where Redis fails too do entries still answer, for what is left
//! of their life here. So a change is unseen for no longer than that life, whatever gets lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;

use super::redis::{CHANNEL, Change};
use super::{CacheStore, Entry, Found, Key, Layer, MemoryCache, Put, RedisCache, codec};
use crate::config::Local;
use crate::store::{Link, StoreError};

/// Slots that count changes; keys share them.
const SLOTS: usize = 4096;
/// How often the subscription is tried for life, and how long one step of it may take.
const PULSE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
/// Pauses before the subscription is tried again.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// Memory in front of Redis.
pub struct Layered {
    local: MemoryCache,
    redis: RedisCache,
    link: Arc<Link>,
    life_ms: u64,
    subscribed: AtomicBool,
    /// Rises whenever everything that was read before may be outdated.
    epoch: AtomicU64,
    changes: Box<[Mutex<Slot>]>,
}

/// What changed last among the keys that share it.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// How many changes there were.
    version: u64,
    /// Token of the answer that the last one put; `u64::MAX` where it dropped one.
    token: u64,
}

impl Layered {
    /// A layer as `local` says over the Redis behind `link`. It is used once
    /// [`CacheStore::listen`] has subscribed.
    #[must_use]
    pub fn new(link: Arc<Link>, local: Local) -> Self {
        Layered {
            // Redis knows what was invalidated before this process was there.
            local: MemoryCache::new(local.memory, 0),
            redis: RedisCache::new(link.clone()),
            link,
            life_ms: u64::try_from(local.life.as_millis()).unwrap_or(u64::MAX),
            subscribed: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            changes: (0..SLOTS).map(|_| Mutex::default()).collect(),
        }
    }

    fn slot(&self, key: Key) -> MutexGuard<'_, Slot> {
        let index = usize::from(u16::from_le_bytes([key.0[0], key.0[1]])) % SLOTS;
        self.changes[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is compared before and after a read.
    fn version(&self, key: Key) -> (u64, u64) {
        (self.epoch.load(Ordering::SeqCst), self.slot(key).version)
    }

    /// Keeps what was read since `version`, unless it may be outdated by now.
    fn keep(&self, key: Key, (bytes, until_ms): (&[u8], u64), (epoch, version): (u64, u64)) {
        let slot = self.slot(key);
        // A single change since may be the very answer that was read, told a little later.
        let told = slot.version == version + 1 && codec::token(bytes) >= slot.token;
        if slot.version != version && !told {
            return;
        }
        self.local.keep(key, bytes, until_ms);
        // The epoch rises before everything is dropped: either it is seen here, or this is dropped.
        if self.epoch.load(Ordering::SeqCst) != epoch {
            self.local.drop_key(key);
        }
    }

    /// `key`'s answer gave way to one that was fetched under `token`, or (`u64::MAX`) to none.
    fn changed(&self, key: Key, token: u64) {
        let mut slot = self.slot(key);
        slot.version += 1;
        slot.token = token;
        self.local.drop_to(key, token);
    }

    fn changed_all(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.local.drop_all();
    }

    fn apply(&self, message: &[u8]) {
        match Change::read(message) {
            Some(Change::Put(key, token)) => self.changed(key, token),
            Some(Change::Dropped(key)) => self.changed(key, u64::MAX),
            Some(Change::Tag(tag, at_ms)) => self.local.mark(&tag, at_ms),
            // What is not understood may be anything.
            Some(Change::All) | None => self.changed_all(),
        }
    }

    /// Hears changes until the subscription breaks; `heard` tells whether there was one.
    async fn hear(&self, heard: &mut bool) -> Result<(), StoreError> {
        let late = |_| StoreError::Timeout(PATIENCE);
        let client = self.link.listener();
        let mut pubsub = tokio::time::timeout(PATIENCE, client.get_async_pubsub())
            .await
            .map_err(late)??;
        tokio::time::timeout(PATIENCE, pubsub.subscribe(CHANNEL))
            .await
            .map_err(late)??;
        let (mut sink, mut stream) = pubsub.split();
        let _subscribed = Subscribed::begin(self);
        *heard = true;
        let mut pulse = tokio::time::interval(PULSE);
        loop {
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) => self.apply(message.get_payload_bytes()),
                    None => return Ok(()),
                },
                _ = pulse.tick() => {
                    tokio::time::timeout(PATIENCE, sink.ping::<redis::Value>())
                        .await
                        .map_err(late)??;
                }
            }
        }
    }
}

/// The time in which changes are heard of; it ends also where nobody polls any more.
struct Subscribed<'a>(&'a Layered);

impl<'a> Subscribed<'a> {
    /// What was read before may have changed unheard.
    fn begin(layered: &'a Layered) -> Self {
        layered.changed_all();
        layered.subscribed.store(true, Ordering::SeqCst);
        Subscribed(layered)
    }
}

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        self.0.subscribed.store(false, Ordering::SeqCst);
        // What is being read at this moment is not kept.
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

impl CacheStore for Layered {
    fn get(&self, key: Key, now_ms: u64) -> BoxFuture<'_, Result<Found, StoreError>> {
        Box::pin(async move {
            let version = self.version(key);
            let subscribed = self.subscribed.load(Ordering::SeqCst);
            if subscribed && let Found::Entry(entry) = self.local.look_up(key, now_ms) {
                return Ok(Found::Entry(entry));
            }
            match self.redis.fetch(key, now_ms).await {
                Ok((Found::Entry(entry), bytes)) => {
                    if subscribed {
                        let until_ms = now_ms.saturating_add(self.life_ms).min(entry.keep_ms);
                        self.keep(key, (&bytes, until_ms), version);
                    }
                    Ok(Found::Entry(entry))
                }
                Ok((found, _)) => Ok(found),
                Err(error) if !subscribed => match self.local.look_up(key, now_ms) {
                    Found::Entry(entry) => Ok(Found::Entry(entry)),
                    _ => Err(error),
                },
                Err(error) => Err(error),
            }
        })
    }

    fn get_all<'a>(
        &'a self,
        keys: &'a [Key],
        now_ms: u64,
    ) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        Box::pin(async move {
            let versions: Vec<_> = keys.iter().map(|key| self.version(*key)).collect();
            let subscribed = self.subscribed.load(Ordering::SeqCst);
            let mut found = match subscribed {
                true => self.local.look_up_all(keys, now_ms).await,
                false => vec![Found::Miss; keys.len()],
            };
            let is_there = |found: &Found| matches!(found, Found::Entry(_));
            let missing: Vec<usize> = (0..keys.len())
                .filter(|&at| !is_there(&found[at]))
                .collect();
            let asked: Vec<Key> = missing.iter().map(|&at| keys[at]).collect();
            if asked.is_empty() {
                return Ok(found);
            }
            match self.redis.fetch_all(&asked, now_ms).await {
                Ok(list) => {
                    for (&at, (one, bytes)) in missing.iter().zip(list) {
                        if let (Found::Entry(entry), true) = (&one, subscribed) {
                            let until_ms = now_ms.saturating_add(self.life_ms).min(entry.keep_ms);
                            self.keep(keys[at], (&bytes, until_ms), versions[at]);
                        }
                        found[at] = one;
                    }
                    Ok(found)
                }
                Err(error) => {
                    if !subscribed {
                        found = self.local.look_up_all(keys, now_ms).await;
                    }
                    match found.iter().any(is_there) {
                        true => Ok(found),
                        false => Err(error),
                    }
                }
            }
        })
    }

    /// Only what is read is kept here as well: most answers are never asked for again.
    fn put(&self, key: Key, entry: Entry) -> BoxFuture<'_, Result<Put, StoreError>> {
        let token = entry.token;
        Box::pin(async move {
            let put = self.redis.put(key, entry).await?;
            if put == Put::Stored {
                self.changed(key, token);
            }
            Ok(put)
        })
    }

    fn remove(&self, key: Key) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let dropped = self.redis.remove(key).await?;
            self.changed(key, u64::MAX);
            Ok(dropped)
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.redis.clear().await?;
            self.changed_all();
            Ok(())
        })
    }

    fn invalidate<'a>(
        &'a self,
        tag: &'a str,
        now_ms: u64,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            self.local.mark(tag, now_ms);
            let at_ms = self.redis.invalidate(tag, now_ms).await?;
            Ok(at_ms.saturating_add(self.life_ms))
        })
    }

    fn sweep(&self, now_ms: u64) {
        self.local.sweep(now_ms);
    }

    fn layers(&self) -> Vec<Layer> {
        let local = Layer {
            subscribed: Some(self.subscribed.load(Ordering::SeqCst)),
            ..self.local.layer("local")
        };
        vec![local, self.redis.layer()]
    }

    fn listen(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let [least, most] = PAUSES;
            let mut pause = least;
            loop {
                let mut heard = false;
                let outcome = self.hear(&mut heard).await;
                if heard {
                    pause = least;
                    match outcome {
                        Ok(()) => log::warn!("redis ended the subscription to changes"),
                        Err(error) => log::warn!("the subscription to changes is lost: {error}"),
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(most);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluice_wire::EntryHead;

    use super::*;
    use crate::config::{Patience, Secret};

    const KEY: Key = Key([1; 32]);

    /// Over a Redis that is not there: what is tested does not ask it.
    fn layered() -> Layered {
        let patience = Patience {
            timeout: PATIENCE,
            failures: 1,
            pause: PATIENCE,
        };
        let link = Link::new(&Secret::new("redis://127.0.0.1:1"), patience).unwrap();
        let local = Local {
            memory: 1 << 20,
            life: Duration::from_secs(5),
        };
        Layered::new(Arc::new(link), local)
    }

    fn bytes(token: u64) -> Vec<u8> {
        let entry = Entry {
            stored_ms: 1,
            built_ms: 1,
            fresh_ms: 100,
            stale_ms: 100,
            keep_ms: 100,
            token,
            tags: Vec::new(),
            head: EntryHead::default(),
            body: Bytes::new(),
        };
        entry.encode().unwrap()
    }

    /// Whether an answer of token 5 is kept, during whose reading `meanwhile` happened.
    fn kept(meanwhile: impl FnOnce(&Layered)) -> bool {
        let layered = layered();
        let version = layered.version(KEY);
        meanwhile(&layered);
        layered.keep(KEY, (&bytes(5), 100), version);
        matches!(layered.local.look_up(KEY, 50), Found::Entry(_))
    }

    #[test]
    fn what_changed_while_it_was_read_is_not_kept() {
        assert!(kept(|_| {}));
        assert!(!kept(|it| it.changed(KEY, u64::MAX)), "dropped");
        assert!(!kept(|it| it.changed(KEY, 6)), "replaced");
        assert!(kept(|it| it.changed(KEY, 5)), "its own putting, told late");
        assert!(
            !kept(|it| {
                it.changed(KEY, 6);
                it.changed(KEY, 5);
            }),
            "two changes, of which the last alone is known"
        );
        assert!(!kept(Layered::changed_all));
        assert!(!kept(|it| drop(Subscribed::begin(it))));
        assert!(kept(|it| it.changed(Key([2; 32]), u64::MAX)), "another key");
    }

    #[test]
    fn a_message_does_what_it_says_and_one_that_is_not_understood_empties_the_layer() {
        let after = |message: &[u8]| {
            let layered = layered();
            layered.keep(KEY, (&bytes(5), 100), layered.version(KEY));
            layered.apply(message);
            matches!(layered.local.look_up(KEY, 50), Found::Entry(_))
        };
        let put = |token: u64| [b"p", &KEY.0[..], format!("{token:016}").as_bytes()].concat();
        assert!(after(&put(4)), "an earlier one");
        assert!(!after(&put(5)), "the same, or another under an equal token");
        assert!(!after(&put(6)), "a later one");
        assert!(!after(&[b"d", &KEY.0[..]].concat()));
        assert!(after(&[b"d", &[2; 32][..]].concat()), "another key");
        assert!(!after(b"a"));
        assert!(!after(b"a message of a later version"));
    }
}
