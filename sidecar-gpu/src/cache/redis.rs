//! Cached answers in Redis, shared by all sidecars.
//!
//! Entries are spread over a cluster by their keys. Beside them stand *stamps*: when each tag last
//! changed, all in one slot, because an answer's are read and written together. A stamp is written
//! with the first answer that is built on its tag and outlives them all. One that is gone (evicted,
//! or lost with a server) therefore voids its answers: forgetting costs a miss, never a stale
//! answer.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use redis::Script;

use super::counts::{Counts, count};
use super::stamps::{self, everyones};
use super::{Age, CacheStore, Corrupt, Entry, Found, Key, Layer, Put, TURN, codec, encoded};
use crate::store::{Link, StoreError};

/// How much longer than a look-up storing may take: no request waits for it.
const UNHURRIED: u32 = 20;
/// Keys that are looked up together in the time for one: of more, each such number has it again.
const KEYS_IN_TIME: usize = 256;
/// How much longer a stamp lives than what was built on its tag: longer than any request is under
/// way.
const SLACK_MS: u64 = 86_400_000;
/// Where changes are told to other sidecars.
pub(super) const CHANNEL: &str = "sluice:cache";

/// KEYS: entry; ARGV: what a value begins with, where its token's digits end, token, value, life in
/// ms, channel, message. Keeps the value unless what is there was fetched under a later lease.
/// Returns 1 when kept.
const PUT: &str = "
if redis.call('TYPE', KEYS[1]).ok == 'string' then
  local head = redis.call('GETRANGE', KEYS[1], 0, ARGV[2])
  if string.sub(head, 1, #ARGV[1]) == ARGV[1] then
    local there = tonumber(string.sub(head, #ARGV[1] + 1))
    if there and there > tonumber(ARGV[3]) then return 0 end
  end
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
redis.call('PUBLISH', ARGV[6], ARGV[7])
return 1";

/// KEYS: stamps; ARGV: when an answer was built, life of its stamps in ms. Returns 1 when the
/// answer stands, with its stamps there for as long as it is.
const REGISTER: &str = "
for _, key in ipairs(KEYS) do
  local at = tonumber(redis.call('GET', key))
  if at and at >= tonumber(ARGV[1]) then return 0 end
end
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 0 then
    redis.call('SET', key, string.format('%.0f', tonumber(ARGV[1]) - 1), 'PX', ARGV[2])
  elseif redis.call('PTTL', key) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', key, ARGV[2])
  end
end
return 1";

/// KEYS: stamp; ARGV: now, its least life in ms, channel, message.
const INVALIDATE: &str = "
local at = tonumber(redis.call('GET', KEYS[1]))
local life = math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[2]))
if not at or at < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', string.format('%.0f', life))
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1";

/// KEYS: entry; ARGV: channel, message. Returns how many were dropped.
const REMOVE: &str = "
local dropped = redis.call('UNLINK', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return dropped";

/// A change that other sidecars hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// An answer fetched under this token was put there.
    Put(Key, u64),
    /// The key's answer was dropped.
    Dropped(Key),
    /// A tag changed at this time.
    Tag(String, u64),
    /// Everything was dropped.
    All,
}

impl Change {
    fn message(&self) -> Vec<u8> {
        match self {
            Change::Put(key, token) => {
                [b"p", &key.0[..], codec::digits(*token).as_bytes()].concat()
            }
            Change::Dropped(key) => [b"d", &key.0[..]].concat(),
            Change::Tag(tag, at_ms) => format!("t{at_ms:016}{tag}").into_bytes(),
            Change::All => b"a".to_vec(),
        }
    }

    /// `None` for what no sidecar of this version writes.
    pub(super) fn read(message: &[u8]) -> Option<Change> {
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
        let key = |bytes: &[u8]| Some(Key(bytes.try_into().ok()?));
        match message.split_first()? {
            (b'p', rest) => {
                let (bytes, digits) = rest.split_at_checked(32)?;
                Some(Change::Put(key(bytes)?, number(digits)?))
            }
            (b'd', rest) => Some(Change::Dropped(key(rest)?)),
            (b't', rest) => {
                let (digits, tag) = rest.split_at_checked(16)?;
                let tag = std::str::from_utf8(tag).ok()?;
                Some(Change::Tag(tag.to_owned(), number(digits)?))
            }
            (b'a', []) => Some(Change::All),
            _ => None,
        }
    }
}

/// The shared store. Memory is bounded by Redis's own `maxmemory` and its eviction policy.
pub struct RedisCache {
    link: Arc<Link>,
    counts: Counts,
    put: Script,
    register: Script,
    invalidate: Script,
    remove: Script,
}

fn name(key: Key) -> Vec<u8> {
    [b"sluice:c:", &key.0[..]].concat()
}

fn stamp(tag: &str) -> String {
    format!("{{sluice}}:t:{tag}")
}

/// The stamps of an answer: each tag's own and everyone's.
fn stamps_of(tags: &[String]) -> Vec<String> {
    let mut stamps: Vec<String> = tags
        .iter()
        .flat_map(|tag| [stamp(tag), stamp(everyones(tag))])
        .collect();
    stamps.sort_unstable();
    stamps.dedup();
    stamps
}

impl RedisCache {
    /// The store behind `link`.
    #[must_use]
    pub fn new(link: Arc<Link>) -> Self {
        RedisCache {
            link,
            counts: Counts::default(),
            put: Script::new(PUT),
            register: Script::new(REGISTER),
            invalidate: Script::new(INVALIDATE),
            remove: Script::new(REMOVE),
        }
    }

    /// The entry of `key`, and its bytes.
    pub(super) async fn fetch(
        &self,
        key: Key,
        now_ms: u64,
    ) -> Result<(Found, Vec<u8>), StoreError> {
        let command = redis::cmd("GET").arg(name(key)).take();
        let value: Option<Vec<u8>> = self
            .link
            .call(1, async |mut redis| {
                // A key of another type is foreign, not a fault of the connection.
                match command.query_async::<Option<Vec<u8>>>(&mut redis).await {
                    Err(error) if error.code() == Some("WRONGTYPE") => Ok(Some(Vec::new())),
                    answer => answer,
                }
            })
            .await?;
        let found = self.read(key, value.as_deref(), now_ms).await;
        let mut one = [(found, value.unwrap_or_default())];
        self.void(&mut one).await?;
        let [one] = one;
        Ok(one)
    }

    /// What `bytes` under `key` are; what is none of ours is forgotten. An entry is not counted yet.
    async fn read(&self, key: Key, bytes: Option<&[u8]>, now_ms: u64) -> Found {
        match bytes.map(Entry::decode) {
            Some(Ok(entry)) if entry.age(now_ms) != Age::Over => Found::Entry(Arc::new(entry)),
            Some(Err(why)) => {
                self.counts.corrupt(&why);
                self.forget(key, &why).await;
                Found::Corrupt
            }
            _ => {
                count(&self.counts.misses);
                Found::Miss
            }
        }
    }

    /// The entries of `keys` and their bytes, in their order. The client asks each server of a
    /// cluster for those that it has, at the same time.
    pub(super) async fn fetch_all(
        &self,
        keys: &[Key],
        now_ms: u64,
    ) -> Result<Vec<(Found, Vec<u8>)>, StoreError> {
        let names: Vec<_> = keys.iter().map(|key| name(*key)).collect();
        let command = redis::cmd("MGET").arg(names).take();
        let patience = 1 + u32::try_from(keys.len() / KEYS_IN_TIME).unwrap_or(u32::MAX - 1);
        let values: Vec<Option<Vec<u8>>> = self
            .link
            .call(patience, async |mut redis| {
                command.query_async(&mut redis).await
            })
            .await?;
        if values.len() != keys.len() {
            return Err(StoreError::Nonsense {
                expected: "a value for each key",
                found: format!("{} for {}", values.len(), keys.len()),
            });
        }
        let mut all = Vec::with_capacity(keys.len());
        for (at, (key, value)) in keys.iter().zip(values).enumerate() {
            if at % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let value = value.filter(|bytes| !bytes.is_empty());
            let found = self.read(*key, value.as_deref(), now_ms).await;
            all.push((found, value.unwrap_or_default()));
        }
        self.void(&mut all).await?;
        Ok(all)
    }

    /// Counts the entries, and makes misses of those that were built on what has changed since.
    async fn void(&self, all: &mut [(Found, Vec<u8>)]) -> Result<(), StoreError> {
        let tags = |found: &Found| match found {
            Found::Entry(entry) => stamps_of(&entry.tags),
            _ => Vec::new(),
        };
        let mut stamps: Vec<String> = all.iter().flat_map(|(found, _)| tags(found)).collect();
        stamps.sort_unstable();
        stamps.dedup();
        let times: Vec<Option<u64>> = match stamps.is_empty() {
            true => Vec::new(),
            false => {
                let command = redis::cmd("MGET").arg(&stamps).take();
                self.link
                    .call(1, async |mut redis| command.query_async(&mut redis).await)
                    .await?
            }
        };
        let changed: HashMap<String, Option<u64>> = stamps.into_iter().zip(times).collect();
        for (found, _) in all {
            let Found::Entry(entry) = found else { continue };
            let stands = stamps_of(&entry.tags).iter().all(|stamp| {
                let at = changed.get(stamp).copied().flatten();
                at.is_some_and(|at| at < entry.built_ms)
            });
            count(match stands {
                true => &self.counts.hits,
                false => &self.counts.voided,
            });
            if !stands {
                *found = Found::Miss;
            }
        }
        Ok(())
    }

    /// Drops a damaged entry of ours: its token could fence off what comes after. What another
    /// program or version wrote is its own: it stays until it is written over.
    async fn forget(&self, key: Key, why: &Corrupt) {
        if *why != Corrupt::Foreign {
            let command = redis::cmd("UNLINK").arg(name(key)).take();
            // Failing, it is dropped by the next look-up; the link counts it.
            let _ = self
                .link
                .call(1, async |mut redis| {
                    command.query_async::<u64>(&mut redis).await
                })
                .await;
        }
    }

    async fn register(&self, entry: &Entry) -> Result<bool, StoreError> {
        if entry.tags.is_empty() {
            return Ok(true);
        }
        let life = entry.keep_ms.saturating_sub(entry.stored_ms);
        let mut call = self.register.prepare_invoke();
        for stamp in stamps_of(&entry.tags) {
            call.key(stamp);
        }
        call.arg(entry.built_ms).arg(life.saturating_add(SLACK_MS));
        let stands: u8 = self
            .link
            .call(UNHURRIED, async |mut redis| {
                call.invoke_async(&mut redis).await
            })
            .await?;
        Ok(stands == 1)
    }

    async fn store(&self, key: Key, entry: Entry) -> Result<Put, StoreError> {
        if !stamps::fit(&entry.tags) {
            return Ok(Put::Refused);
        }
        if !self.register(&entry).await? {
            return Ok(Put::Voided);
        }
        let token = entry.token;
        let life = entry.keep_ms.saturating_sub(entry.stored_ms);
        let value = encoded(entry).await?;
        let mut call = self.put.prepare_invoke();
        call.key(name(key))
            .arg(codec::MAGIC)
            .arg(codec::TOKEN.end - 1)
            .arg(codec::digits(token))
            .arg(value)
            .arg(life.max(1))
            .arg(CHANNEL)
            .arg(Change::Put(key, token).message());
        let kept: u8 = self
            .link
            .call(UNHURRIED, async |mut redis| {
                call.invoke_async(&mut redis).await
            })
            .await?;
        Ok(if kept == 1 { Put::Stored } else { Put::Fenced })
    }

    pub(super) fn layer(&self) -> Layer {
        self.counts.layer("redis")
    }
}

impl CacheStore for RedisCache {
    fn get(&self, key: Key, now_ms: u64) -> BoxFuture<'_, Result<Found, StoreError>> {
        Box::pin(async move { Ok(self.fetch(key, now_ms).await?.0) })
    }

    fn get_all<'a>(
        &'a self,
        keys: &'a [Key],
        now_ms: u64,
    ) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        Box::pin(async move {
            let all = self.fetch_all(keys, now_ms).await?;
            Ok(all.into_iter().map(|(found, _)| found).collect())
        })
    }

    fn put(&self, key: Key, entry: Entry) -> BoxFuture<'_, Result<Put, StoreError>> {
        Box::pin(async move {
            let put = self.store(key, entry).await?;
            self.counts.put(put);
            Ok(put)
        })
    }

    fn remove(&self, key: Key) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut call = self.remove.prepare_invoke();
            call.key(name(key))
                .arg(CHANNEL)
                .arg(Change::Dropped(key).message());
            let dropped: u64 = self
                .link
                .call(UNHURRIED, async |mut redis| {
                    call.invoke_async(&mut redis).await
                })
                .await?;
            Ok(dropped > 0)
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.link.drop_all("sluice:c:*").await?;
            let command = redis::cmd("PUBLISH")
                .arg(CHANNEL)
                .arg(Change::All.message())
                .take();
            self.link
                .call(UNHURRIED, async |mut redis| {
                    command.query_async::<u64>(&mut redis).await
                })
                .await
                .map(|_| ())
        })
    }

    fn invalidate<'a>(
        &'a self,
        tag: &'a str,
        now_ms: u64,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut call = self.invalidate.prepare_invoke();
            call.key(stamp(tag))
                .arg(now_ms)
                .arg(SLACK_MS)
                .arg(CHANNEL)
                .arg(Change::Tag(tag.to_owned(), now_ms).message());
            self.link
                .call(UNHURRIED, async |mut redis| {
                    call.invoke_async::<u8>(&mut redis).await
                })
                .await
                .map(|_| now_ms)
        })
    }

    /// Redis does it.
    fn sweep(&self, _: u64) {}

    fn layers(&self) -> Vec<Layer> {
        vec![self.layer()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_as_it_was_told_and_anything_else_is_not() {
        let changes = [
            Change::Put(Key([7; 32]), 1_700_000_000_000_001),
            Change::Dropped(Key([255; 32])),
            Change::Tag("acme/ß".to_owned(), 1_700_000_000_000),
            Change::All,
        ];
        for change in changes {
            let message = change.message();
            assert_eq!(Change::read(&message), Some(change));
            if message.len() > 1 {
                for end in 0..17.min(message.len()) {
                    assert_eq!(Change::read(&message[..end]), None);
                }
            }
        }
        for message in [&b""[..], b"x", b"ab", b"p", b"t0000000000000xxxtag"] {
            assert_eq!(Change::read(message), None, "{message:?}");
        }
    }

    #[test]
    fn an_answer_has_its_own_stamps_and_everyones() {
        let tags = ["acme/doc:1", "/doc:1", "/x"].map(str::to_owned);
        assert_eq!(
            stamps_of(&tags),
            [
                "{sluice}:t:/doc:1",
                "{sluice}:t:/x",
                "{sluice}:t:acme/doc:1"
            ]
        );
    }
}
