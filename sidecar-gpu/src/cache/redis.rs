//! Cached answers in Redis, shared by all sidecars.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use redis::Script;

use super::{Age, CacheStore, Entry, Found, Key, Put, codec};
use crate::store::{Link, StoreError};

/// How much longer than a look-up storing may take: no request waits for it.
const UNHURRIED: u32 = 20;

/// KEYS: entry; ARGV: where its token's digits begin and end, token, value, life in ms. Keeps the
/// value unless what is there was fetched under a later lease. Returns 1 when kept.
const PUT: &str = "
if redis.call('TYPE', KEYS[1]).ok == 'string' then
  local there = tonumber(redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2]))
  if there and there > tonumber(ARGV[3]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
return 1";

/// The shared store. Memory is bounded by Redis's own `maxmemory` and its eviction policy.
pub struct RedisCache {
    link: Arc<Link>,
    put: Script,
}

impl RedisCache {
    /// The store behind `link`.
    #[must_use]
    pub fn new(link: Arc<Link>) -> Self {
        RedisCache {
            link,
            put: Script::new(PUT),
        }
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
                Some(Ok(entry)) if entry.age(now_ms) != Age::Over => Found::Entry(Arc::new(entry)),
                Some(Ok(_)) => Found::Miss,
                Some(Err(_)) => Found::Corrupt,
            })
        })
    }

    fn put(&self, key: Key, entry: Entry) -> BoxFuture<'_, Result<Put, StoreError>> {
        Box::pin(async move {
            let life = entry.keep_ms.saturating_sub(entry.stored_ms);
            let value = entry.encode().map_err(|error| StoreError::Nonsense {
                expected: "an entry that can be written",
                found: error.to_string(),
            })?;
            let mut call = self.put.prepare_invoke();
            call.key(name(key))
                .arg(codec::TOKEN.start)
                .arg(codec::TOKEN.end - 1)
                .arg(codec::digits(entry.token))
                .arg(value)
                .arg(life.max(1));
            let kept: u8 = self
                .link
                .call(UNHURRIED, async |mut redis| {
                    call.invoke_async(&mut redis).await
                })
                .await?;
            Ok(if kept == 1 { Put::Stored } else { Put::Fenced })
        })
    }

    fn size(&self) -> (u64, u64) {
        (0, 0)
    }
}
