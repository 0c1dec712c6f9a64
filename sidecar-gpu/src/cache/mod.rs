//! The exact cache: answers by the key that the filter computed (which covers the tenant's scope).
//!
//! A cache failure is a miss: the request goes upstream and pays, and the failure is counted.

mod codec;
mod memory;
mod redis;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluice_wire::EntryHead;

pub use codec::Corrupt;
pub use memory::MemoryCache;
pub use redis::RedisCache;

use crate::store::StoreError;

/// Longest life of an entry; a longer one is cut to it.
pub const MAX_TTL_SECS: u64 = 30 * 86_400;

/// A key: 32 bytes, 64 hex digits on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

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

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When it was stored, milliseconds since the epoch.
    pub stored_ms: u64,
    /// Until when it is fresh.
    pub expires_ms: u64,
    /// What is known about it.
    pub head: EntryHead,
    /// The answer's bytes.
    pub body: Bytes,
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A fresh entry.
    Hit(std::sync::Arc<Entry>),
    /// Nothing, or nothing fresh.
    Miss,
    /// A value that is not an entry of ours; as good as a miss.
    Corrupt,
}

/// Where answers are kept.
pub trait CacheStore: Send + Sync {
    /// Looks `key` up.
    fn get(&self, key: Key, now_ms: u64) -> BoxFuture<'_, Result<Found, StoreError>>;

    /// Keeps `entry` until it expires, or until there is no room.
    fn put(&self, key: Key, entry: Entry) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Bytes and entries kept in this process.
    fn size(&self) -> (u64, u64);
}
