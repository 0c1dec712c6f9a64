//! What filters want to know at a conversation's next turn, whichever filter serves it: the filters'
//! own affair, kept for a while under a key that they made.
//!
//! With Redis it is there only, so that all sidecars tell the same; while Redis does not answer
//! nothing is known, and the filter does as it would at a first turn. Nothing waits for a write.
//!
//! Beside it stand the texts that were written of what the conversation leaves out; they live on for
//! as long as they are asked for.

use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use redis::Script;
use sluice_wire::{Written, limit};

use crate::cache::{Key, MAX_TTL_SECS};
use crate::store::{Link, StoreError};

/// What a state costs beside its bytes: its key, moka's nodes, what allocation adds.
const OVERHEAD: usize = 256;
/// How much longer than a look-up storing may take: no request waits for it.
const UNHURRIED: u32 = 20;
/// Digits of the time that a value in Redis begins with, so that times compare as texts do.
const DIGITS: usize = 16;

/// KEYS: conversation; ARGV: time, state, life in ms. Keeps the state unless that of a later turn is
/// there.
const TELL: &str = "
local there = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
if there > ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1";

/// KEYS: texts. What stands there, which begins with its life in ms, and lives on for as long.
const READ: &str = "
local there = redis.call('GET', KEYS[1])
local life_ms = tonumber(string.sub(there or '', 1, 16))
if life_ms and life_ms > 0 then redis.call('PEXPIRE', KEYS[1], life_ms) end
return there";

/// A conversation as it is kept here.
#[derive(Clone, Default)]
struct Kept {
    state: Arc<str>,
    /// When its turn arrived, and when all of it is over; milliseconds since the epoch.
    at_ms: u64,
    until_ms: u64,
    texts: Arc<[Written]>,
}

impl Kept {
    fn bytes(&self) -> usize {
        let texts = self.texts.iter().map(|one| one.id.len() + one.text.len());
        OVERHEAD + self.state.len() + texts.sum::<usize>()
    }
}

/// The shared store where there is one, this process's own where not.
pub(crate) struct Conversations {
    shared: Option<Shared>,
    local: Cache<Key, Kept>,
}

struct Shared {
    link: Arc<Link>,
    tell: Script,
    read: Script,
}

/// A turn of a conversation that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    /// The conversation.
    pub(crate) key: Key,
    /// What is to be told at the next one.
    pub(crate) state: &'a str,
    /// When it arrived: of turns that overlap the later one counts.
    pub(crate) at_ms: u64,
    /// How long it is told.
    pub(crate) ttl_secs: u64,
}

/// A text that was written for a conversation.
#[derive(Clone, Debug)]
pub(crate) struct NewText<'a> {
    /// The conversation.
    pub(crate) key: Key,
    /// The text.
    pub(crate) text: Written,
    /// Of those that are there, the one that stays before all others.
    pub(crate) beside: Option<&'a str>,
    /// How long it lives unless it is asked for.
    pub(crate) ttl_secs: u64,
}

impl NewText<'_> {
    /// The texts of a conversation that had `old`: this one first, then the one that it went on with
    /// when this was ordered, then the newest of the others: it may go on with one of these by now.
    fn among(&self, old: &[Written]) -> Vec<Written> {
        let old = old.iter().filter(|one| one.id != self.text.id);
        let (beside, others): (Vec<_>, Vec<_>) =
            old.partition(|one| Some(one.id.as_str()) == self.beside);
        let old = beside.into_iter().chain(others).cloned();
        let all = std::iter::once(self.text.clone()).chain(old);
        all.take(limit::SUMMARIES).collect()
    }
}

fn name(key: Key) -> Vec<u8> {
    [b"sluice:conversation:", &key.bytes()[..]].concat()
}

/// Where a conversation's texts stand.
fn texts_name(key: Key) -> Vec<u8> {
    [b"sluice:summaries:", &key.bytes()[..]].concat()
}

/// A life in milliseconds.
fn life_ms(ttl_secs: u64) -> u64 {
    ttl_secs.min(MAX_TTL_SECS).saturating_mul(1000).max(1)
}

impl Conversations {
    /// Behind `link`, or of at most `bytes` in this process, those used last.
    pub(crate) fn new(link: Option<Arc<Link>>, bytes: u64) -> Self {
        let shared = link.map(|link| Shared {
            link,
            tell: Script::new(TELL),
            read: Script::new(READ),
        });
        let local = Cache::builder()
            .max_capacity(bytes)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_: &Key, kept: &Kept| u32::try_from(kept.bytes()).unwrap_or(u32::MAX))
            .build();
        Conversations { shared, local }
    }

    /// What the last turn wanted told, if that is not over.
    pub(crate) async fn last(&self, key: Key, now_ms: u64) -> Result<Option<String>, StoreError> {
        let state = match &self.shared {
            Some(shared) => shared.last(key).await?,
            None => self.local(key, now_ms).map(|kept| kept.state.to_string()),
        };
        Ok(state.filter(|state| !state.is_empty()))
    }

    /// Keeps what a turn wants told; whether no later one has been there before.
    pub(crate) async fn tell(&self, turn: Turn<'_>, now_ms: u64) -> Result<bool, StoreError> {
        let life_ms = life_ms(turn.ttl_secs);
        // A filter's clock that is ahead does not keep the next turn out.
        let at_ms = turn.at_ms.min(now_ms);
        if let Some(shared) = &self.shared {
            return shared.tell(turn, (at_ms, life_ms)).await;
        }
        let entry = self.local.entry(turn.key).and_compute_with(|there| {
            let there = there.map(|there| there.into_value());
            let there = there.filter(|there| now_ms < there.until_ms);
            match there.as_ref().is_some_and(|there| at_ms < there.at_ms) {
                true => moka::ops::compute::Op::Nop,
                false => moka::ops::compute::Op::Put(Kept {
                    state: turn.state.into(),
                    at_ms,
                    until_ms: now_ms.saturating_add(life_ms),
                    texts: there.map(|there| there.texts).unwrap_or_default(),
                }),
            }
        });
        Ok(!matches!(
            entry,
            moka::ops::compute::CompResult::Unchanged(_)
        ))
    }

    /// The texts that were written for a conversation, the newest first.
    pub(crate) async fn texts(&self, key: Key, now_ms: u64) -> Result<Vec<Written>, StoreError> {
        match &self.shared {
            Some(shared) => Ok(shared.texts(key).await?.1),
            None => {
                let kept = self.local(key, now_ms).unwrap_or_default();
                Ok(kept.texts.to_vec())
            }
        }
    }

    /// Keeps a text that was written for a conversation. Of two that come at once from two sidecars
    /// one may be lost.
    pub(crate) async fn keep(&self, new: NewText<'_>, now_ms: u64) -> Result<(), StoreError> {
        if let Some(shared) = &self.shared {
            return shared.keep(&new).await;
        }
        self.local.entry(new.key).and_upsert_with(|there| {
            let there = there.map(|there| there.into_value());
            let there = there.filter(|there| now_ms < there.until_ms);
            let there = there.unwrap_or_default();
            let until_ms = now_ms.saturating_add(life_ms(new.ttl_secs));
            Kept {
                texts: new.among(&there.texts).into(),
                until_ms: until_ms.max(there.until_ms),
                ..there
            }
        });
        Ok(())
    }

    fn local(&self, key: Key, now_ms: u64) -> Option<Kept> {
        self.local.get(&key).filter(|kept| now_ms < kept.until_ms)
    }

    /// Conversations that this process knows, and the bytes that they take, about.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.local.run_pending_tasks();
        (self.local.entry_count(), self.local.weighted_size())
    }
}

impl Shared {
    async fn last(&self, key: Key) -> Result<Option<String>, StoreError> {
        let command = redis::cmd("GET").arg(name(key)).take();
        let value: Option<Vec<u8>> = self
            .link
            .call(1, async |mut redis| command.query_async(&mut redis).await)
            .await?;
        let Some(value) = value else { return Ok(None) };
        let state = value.get(DIGITS..).map(<[u8]>::to_vec);
        let state = state.and_then(|state| String::from_utf8(state).ok());
        state.map(Some).ok_or(StoreError::Nonsense {
            expected: "a conversation's state",
            found: format!("{} bytes", value.len()),
        })
    }

    async fn tell(&self, turn: Turn<'_>, (at_ms, life_ms): (u64, u64)) -> Result<bool, StoreError> {
        let mut call = self.tell.prepare_invoke();
        call.key(name(turn.key))
            .arg(format!("{at_ms:0DIGITS$}"))
            .arg(turn.state)
            .arg(life_ms);
        let kept: u8 = self
            .link
            .call(UNHURRIED, async |mut redis| {
                call.invoke_async(&mut redis).await
            })
            .await?;
        Ok(kept == 1)
    }
    /// A conversation's texts, and how long they live; milliseconds.
    async fn texts(&self, key: Key) -> Result<(u64, Vec<Written>), StoreError> {
        let mut call = self.read.prepare_invoke();
        call.key(texts_name(key));
        let value: Option<Vec<u8>> = self
            .link
            .call(1, async |mut redis| call.invoke_async(&mut redis).await)
            .await?;
        let Some(value) = value else {
            return Ok((0, Vec::new()));
        };
        let read = || {
            let (life_ms, texts) = value.split_at_checked(DIGITS)?;
            let life_ms = std::str::from_utf8(life_ms).ok()?.parse().ok()?;
            Some((life_ms, serde_json::from_slice(texts).ok()?))
        };
        read().ok_or(StoreError::Nonsense {
            expected: "a conversation's texts",
            found: format!("{} bytes", value.len()),
        })
    }

    async fn keep(&self, new: &NewText<'_>) -> Result<(), StoreError> {
        // What another program wrote there gives way.
        let (old_ms, old) = match self.texts(new.key).await {
            Err(StoreError::Nonsense { .. }) => (0, Vec::new()),
            texts => texts?,
        };
        let life_ms = life_ms(new.ttl_secs).max(old_ms);
        let texts = serde_json::to_string(&new.among(&old)).unwrap_or_default();
        let value = format!("{life_ms:0DIGITS$}{texts}");
        let mut command = redis::cmd("SET");
        command.arg(texts_name(new.key)).arg(value);
        command.arg("PX").arg(life_ms);
        self.link
            .call(UNHURRIED, async |mut redis| {
                command.query_async(&mut redis).await
            })
            .await
    }
}
