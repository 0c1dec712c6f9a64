//! What filters want to know at a conversation's next turn, whichever filter serves it: the filters'
//! own affair, kept for a while under a key that they made.
//!
//! With Redis it is there only, so that all sidecars tell the same; while Redis does not answer
//! nothing is known, and the filter does as it would at a first turn. Nothing waits for a write.

use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use redis::Script;

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

/// A state as it is kept here.
#[derive(Clone)]
struct Kept {
    state: Arc<str>,
    /// When its turn arrived, and when it is over; milliseconds since the epoch.
    at_ms: u64,
    until_ms: u64,
}

/// The shared store where there is one, this process's own where not.
pub(crate) struct Conversations {
    shared: Option<Shared>,
    local: Cache<Key, Kept>,
}

struct Shared {
    link: Arc<Link>,
    tell: Script,
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

fn name(key: Key) -> Vec<u8> {
    [b"sluice:conversation:", &key.bytes()[..]].concat()
}

impl Conversations {
    /// Behind `link`, or of at most `bytes` in this process, those used last.
    pub(crate) fn new(link: Option<Arc<Link>>, bytes: u64) -> Self {
        let shared = link.map(|link| Shared {
            link,
            tell: Script::new(TELL),
        });
        let local = Cache::builder()
            .max_capacity(bytes)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_: &Key, kept: &Kept| {
                u32::try_from(OVERHEAD + kept.state.len()).unwrap_or(u32::MAX)
            })
            .build();
        Conversations { shared, local }
    }

    /// What the last turn wanted told, if that is not over.
    pub(crate) async fn last(&self, key: Key, now_ms: u64) -> Result<Option<String>, StoreError> {
        let state = match &self.shared {
            Some(shared) => shared.last(key).await?,
            None => {
                let kept = self.local.get(&key).filter(|kept| now_ms < kept.until_ms);
                kept.map(|kept| kept.state.to_string())
            }
        };
        Ok(state.filter(|state| !state.is_empty()))
    }

    /// Keeps what a turn wants told; whether no later one has been there before.
    pub(crate) async fn tell(&self, turn: Turn<'_>, now_ms: u64) -> Result<bool, StoreError> {
        let life_ms = turn.ttl_secs.min(MAX_TTL_SECS).saturating_mul(1000).max(1);
        // A filter's clock that is ahead does not keep the next turn out.
        let at_ms = turn.at_ms.min(now_ms);
        if let Some(shared) = &self.shared {
            return shared.tell(turn, (at_ms, life_ms)).await;
        }
        let kept = Kept {
            state: turn.state.into(),
            at_ms,
            until_ms: now_ms.saturating_add(life_ms),
        };
        let later = |there: &Kept| now_ms < there.until_ms && at_ms < there.at_ms;
        let entry = self.local.entry(turn.key).and_compute_with(|there| {
            match there.is_some_and(|there| later(there.value())) {
                true => moka::ops::compute::Op::Nop,
                false => moka::ops::compute::Op::Put(kept),
            }
        });
        Ok(!matches!(
            entry,
            moka::ops::compute::CompResult::Unchanged(_)
        ))
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
}
