//! The exact cache: answers by the key that the filter computed (which covers the tenant's scope).
//!
//! A cache failure is a miss: the request goes upstream and pays, and the failure is counted.

mod codec;
mod counts;
mod layered;
mod memory;
mod pack;
mod redis;
mod stamps;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluice_wire::EntryHead;

pub use codec::Corrupt;
pub use counts::Layer;
pub use layered::Layered;
pub use memory::MemoryCache;
pub use redis::RedisCache;

use crate::config::Serve;
use crate::store::{Link, StoreError};

/// Longest life of an entry; a longer one is cut to it.
pub const MAX_TTL_SECS: u64 = 30 * 86_400;

/// Answers larger than this are packed on a thread that no other call waits for.
const LARGE: usize = 256 << 10;

/// Entries that are unpacked before other calls have their turn: a millisecond's work at most.
const TURN: usize = 64;

/// A key: 32 bytes, 64 hex digits on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Key(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::str::FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("expected 64 hex digits, found {} bytes", text.len());
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(fault());
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |c: u8| {
                (c as char)
                    .to_digit(16)
                    .and_then(|it| u8::try_from(it).ok())
            };
            *byte = match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(fault()),
            };
        }
        Ok(Key(key))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An answer as it is kept. Its times rise from `built_ms` to `keep_ms`, in the order in which they
/// stand here but for the first two.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When it was stored, milliseconds since the epoch, as all times here.
    pub stored_ms: u64,
    /// When the request arrived that it answers: what was invalidated since then is not in it.
    pub built_ms: u64,
    /// Until when it is fresh.
    pub fresh_ms: u64,
    /// Until when it is served while one request refreshes it; `fresh_ms` or later.
    pub stale_ms: u64,
    /// Until when it may stand in for an upstream that fails, and is kept; `stale_ms` or later.
    pub keep_ms: u64,
    /// Fencing token of the lease that it was fetched under; see [`sluice_wire::Lease`].
    pub token: u64,
    /// What it was built on.
    pub tags: Vec<String>,
    /// What is known about it.
    pub head: EntryHead,
    /// The answer's bytes.
    pub body: Bytes,
}

/// How far an entry is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// As good as new.
    Fresh,
    /// Served, while one request refreshes it.
    Stale,
    /// Only instead of an upstream that fails.
    Spare,
    /// Not at all.
    Over,
}

impl Entry {
    /// How far it is at `now_ms`.
    #[must_use]
    pub fn age(&self, now_ms: u64) -> Age {
        match now_ms {
            now if now < self.fresh_ms => Age::Fresh,
            now if now < self.stale_ms => Age::Stale,
            now if now < self.keep_ms => Age::Spare,
            _ => Age::Over,
        }
    }
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// An entry that is not [`Age::Over`].
    Entry(std::sync::Arc<Entry>),
    /// Nothing, or nothing that may still be used.
    Miss,
    /// A value that is not an entry of ours; as good as a miss.
    Corrupt,
}

/// What became of an entry that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is kept.
    Stored,
    /// What is kept was fetched under a later lease: it stays.
    Fenced,
    /// What it was built on has changed since.
    Voided,
    /// Its tags are too many, too long, or not written as [`sluice_wire::scoped_tag`] does: an
    /// invalidation could miss it.
    Refused,
}

/// The word in metrics for what became of an entry.
pub(crate) fn name(put: &Result<Put, StoreError>) -> &'static str {
    match put {
        Ok(Put::Stored) => "stored",
        Ok(Put::Fenced) => "fenced",
        Ok(Put::Voided) => "voided",
        Ok(Put::Refused) => "refused",
        Err(_) => "error",
    }
}

/// Where answers are kept.
pub trait CacheStore: Send + Sync {
    /// Looks `key` up.
    fn get(&self, key: Key, now_ms: u64) -> BoxFuture<'_, Result<Found, StoreError>>;

    /// [`CacheStore::get`] for each of `keys`, in their order: one question to a shared store, and
    /// not one each.
    fn get_all<'a>(
        &'a self,
        keys: &'a [Key],
        now_ms: u64,
    ) -> BoxFuture<'a, Result<Vec<Found>, StoreError>>;

    /// Keeps `entry` until it is over, or until there is no room; unless what is there already has
    /// a higher token.
    fn put(&self, key: Key, entry: Entry) -> BoxFuture<'_, Result<Put, StoreError>>;

    /// Drops the entry of `key`; whether there was one.
    fn remove(&self, key: Key) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Drops every entry.
    fn clear(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Voids what was built on `tag` (scoped) at `now_ms` or before, wherever it is by now. Returns
    /// from when on no sidecar can give it out, whatever messages are lost.
    fn invalidate<'a>(
        &'a self,
        tag: &'a str,
        now_ms: u64,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Frees what entries past their time take in this process.
    fn sweep(&self, now_ms: u64);

    /// How it fares, layer by layer, the nearest first.
    fn layers(&self) -> Vec<Layer>;

    /// Hears what other sidecars change, for as long as it is polled.
    fn listen(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// The store that `config` asks for, over `link` where it is shared.
#[must_use]
pub fn open(config: &Serve, link: Option<&Arc<Link>>, now_ms: u64) -> Box<dyn CacheStore> {
    match (link, &config.cache_local) {
        (None, _) => Box::new(MemoryCache::new(config.cache_memory, now_ms)),
        (Some(link), None) => Box::new(RedisCache::new(link.clone())),
        (Some(link), Some(local)) => Box::new(Layered::new(link.clone(), *local)),
    }
}

/// `entry` as bytes; off this thread when it is large.
async fn encoded(entry: Entry) -> Result<Vec<u8>, StoreError> {
    let nonsense = |found: String| StoreError::Nonsense {
        expected: "an entry that can be written",
        found,
    };
    let outcome = if entry.body.len() > LARGE {
        tokio::task::spawn_blocking(move || entry.encode())
            .await
            .map_err(|error| nonsense(error.to_string()))?
    } else {
        entry.encode()
    };
    outcome.map_err(|error| nonsense(error.to_string()))
}
