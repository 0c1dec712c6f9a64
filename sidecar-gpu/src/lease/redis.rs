//! Leases in Redis, which count for all sidecars. Each decision is one script over one key.

use std::sync::Arc;

use redis::Script;

use super::{End, Lease, OPEN_MS, REST_MS, RESTS_MS, Take, Taker};
use crate::cache::Key;
use crate::store::{Link, StoreError};

/// How much longer than a look-up ending a lease may take: no request waits for it.
const UNHURRIED: u32 = 20;

/// The store.
pub struct RedisLeases {
    link: Arc<Link>,
    take: Script,
    end: Script,
}

fn name(key: Key) -> Vec<u8> {
    let mut name = b"sluice:l:".to_vec();
    name.extend_from_slice(key.bytes());
    name
}

impl RedisLeases {
    /// The store behind `link`.
    #[must_use]
    pub fn new(link: Arc<Link>) -> Self {
        RedisLeases {
            link,
            take: Script::new(include_str!("take.lua")),
            end: Script::new(include_str!("end.lua")),
        }
    }

    /// Takes the lease on `key` for `taker`, or prolongs the one that it has.
    ///
    /// # Errors
    /// When Redis does not answer, or with something else.
    pub async fn take(&self, key: Key, taker: Taker, life_ms: u64) -> Result<Take, StoreError> {
        let Taker { holder, serves } = taker;
        let mut call = self.take.prepare_invoke();
        call.key(name(key))
            .arg(holder.to_string())
            .arg(life_ms.max(1))
            .arg(u8::from(serves));
        let answer: Vec<String> = self
            .link
            .call(1, async |mut redis| call.invoke_async(&mut redis).await)
            .await?;
        let words: Vec<&str> = answer.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["taken", token] => token
                .parse()
                .ok()
                .map(|token| Take::Taken(Lease { holder, token })),
            ["busy"] => Some(Take::Busy),
            ["open"] => Some(Take::Open),
            _ => None,
        }
        .ok_or_else(|| StoreError::Nonsense {
            expected: "an answer of the lease script",
            found: format!("{answer:?}"),
        })
        .inspect_err(|error| self.link.count(error))
    }

    /// Whether a lease on `key` is held.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn held(&self, key: Key) -> Result<bool, StoreError> {
        let command = redis::cmd("GET").arg(name(key)).take();
        let there: Option<Vec<u8>> = self
            .link
            .call(1, async |mut redis| command.query_async(&mut redis).await)
            .await?;
        Ok(there.is_some_and(|there| there != b"open" && !there.starts_with(b"rest:")))
    }

    /// Ends a lease. One that is not held any more stays as it is; says whether it was held.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn end(&self, key: Key, lease: Lease, end: End) -> Result<bool, StoreError> {
        let (what, ms) = match end {
            End::Over => ("over", 0),
            End::Open => ("open", OPEN_MS),
            End::Rest => ("rest", REST_MS),
        };
        let mut call = self.end.prepare_invoke();
        call.key(name(key))
            .arg(lease.holder.to_string())
            .arg(lease.token)
            .arg(what)
            .arg(ms)
            .arg(RESTS_MS);
        let ended: u8 = self
            .link
            .call(UNHURRIED, async |mut redis| {
                call.invoke_async(&mut redis).await
            })
            .await?;
        Ok(ended == 1)
    }
}
