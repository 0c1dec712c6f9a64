//! Cached answers in Redis, shared by all sidecars.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{CacheStore, Entry, Found, Key};
use crate::store::{Link, StoreError};

/// How much longer than a look-up storing may take: no request waits for it.
const UNHURRIED: u32 = 20;

/// The shared store. Memory is bounded by Redis's own `maxmemory` and its eviction policy.
pub struct RedisCache {
    link: Arc<Link>,
}

impl RedisCache {
    /// The store behind `link`.
    #[must_use]
    pub fn new(link: Arc<Link>) -> Self {
        RedisCache { link }
    }
}

fn name(key: Key) -> Vec<u8> {
    let mut name = b"sluice:c:".to_vec();
    name.extend_from_slice(&key.0);
    name
}

impl CacheStore for RedisCache {
    fn get(&self, key: Key, now_ms: u64) -> BoxFuture<'_, Result<Found, StoreError>> {
        Box::pin(async move {
            let command = redis::cmd("GET").arg(name(key)).take();
            let value: Option<bytes::Bytes> = self
                .link
                .call(1, async |mut redis| {
                    // A key of another type is foreign, not a fault of the connection.
                    match command.query_async::<Option<Vec<u8>>>(&mut redis).await {
                        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Some(Vec::new())),
                        answer => answer,
                    }
                })
                .await?
                .map(bytes::Bytes::from);
            Ok(match value.map(|bytes| Entry::decode(&bytes)) {
                None => Found::Miss,
                Some(Ok(entry)) if now_ms < entry.expires_ms => Found::Hit(Arc::new(entry)),
                Some(Ok(_)) => Found::Miss,
                Some(Err(_)) => Found::Corrupt,
            })
        })
    }

    fn put(&self, key: Key, entry: Entry) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let life = entry.expires_ms.saturating_sub(entry.stored_ms);
            let value = entry.encode().map_err(|error| StoreError::Nonsense {
                expected: "an entry that can be written",
                found: error.to_string(),
            })?;
            let command = redis::cmd("SET")
                .arg(name(key))
                .arg(value)
                .arg("PX")
                .arg(life.max(1))
                .take();
            self.link
                .call(UNHURRIED, async |mut redis| {
                    command.query_async::<()>(&mut redis).await
                })
                .await
        })
    }

    fn size(&self) -> (u64, u64) {
        (0, 0)
    }
}
