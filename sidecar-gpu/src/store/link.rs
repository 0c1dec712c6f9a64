//! The connection to Redis: every call through it is bounded in time and watched by a breaker.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::RedisResult;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use super::{Breaker, State, StoreError};
use crate::config::{Patience, Secret};

/// Calls in flight at once; more wait for their turn and time out there. Bounds what a slow Redis
/// makes us hold.
const CONCURRENCY: usize = 1024;

/// One multiplexed connection, made when it is first needed and anew when the breaker has opened.
pub struct Link {
    client: redis::Client,
    manager: Mutex<Option<ConnectionManager>>,
    breaker: Breaker,
    timeout: Duration,
    started: Instant,
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

/// How a link has fared.
#[derive(Clone, Debug)]
pub struct LinkStats {
    /// Where the breaker stands.
    pub state: State,
    /// Failed calls by [`StoreError::kind`], since the start.
    pub failures: BTreeMap<&'static str, u64>,
}

impl Link {
    /// A link to the Redis at `url`. Nothing is sent yet: a Redis that is down does not keep the
    /// sidecar from starting.
    ///
    /// # Errors
    /// When the URL is none of Redis's.
    pub fn new(url: &Secret, patience: Patience) -> RedisResult<Self> {
        Ok(Link {
            client: redis::Client::open(url.expose())?,
            manager: Mutex::new(None),
            breaker: Breaker::new(
                patience.failures,
                u64::try_from(patience.pause.as_millis()).unwrap_or(u64::MAX),
            ),
            timeout: patience.timeout,
            started: Instant::now(),
            failures: Mutex::default(),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn manager(&self) -> RedisResult<ConnectionManager> {
        let mut slot = self.manager.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(manager) = slot.as_ref() {
            return Ok(manager.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(2)))
            .set_concurrency_limit(CONCURRENCY);
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        *slot = Some(manager.clone());
        Ok(manager)
    }

    /// Runs `call` within the time for one answer on the request path, `factor` times that for
    /// work that no request waits for.
    ///
    /// # Errors
    /// When the breaker is open, the time is over, or Redis fails.
    pub async fn call<T, F>(
        &self,
        factor: u32,
        call: impl FnOnce(ConnectionManager) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Some(permit) = self.breaker.ask(self.now_ms()) else {
            self.count(&StoreError::Open);
            return Err(StoreError::Open);
        };
        let limit = self.timeout * factor;
        let outcome = match self.manager() {
            Ok(manager) => match tokio::time::timeout(limit, call(manager)).await {
                Ok(result) => result.map_err(StoreError::Redis),
                Err(_) => Err(StoreError::Timeout(limit)),
            },
            Err(error) => Err(StoreError::Redis(error)),
        };
        match &outcome {
            Ok(_) => permit.succeeded(),
            Err(error) => {
                self.count(error);
                if permit.failed(self.now_ms()) {
                    log::warn!("redis is left alone for a while after failures in a row: {error}");
                    // A connection that went silent is not worth another second.
                    *self.manager.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
            }
        }
        outcome
    }

    /// Counts a failure that the caller found in the answer.
    pub fn count(&self, error: &StoreError) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures.entry(error.kind()).or_default() += 1;
    }

    /// How the link has fared.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        LinkStats {
            state: self.breaker.state(self.now_ms()),
            failures: self
                .failures
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}
