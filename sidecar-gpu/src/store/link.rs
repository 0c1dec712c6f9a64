//! The connection to Redis: every call through it is bounded in time and watched by a breaker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::{Client, ErrorKind, RedisResult, TlsCertificates};
use tokio_rustls::rustls::crypto;

use super::{Address, Breaker, Conn, FORMS, State, StoreError};
use crate::config::{Patience, Secret};

/// Calls in flight at once; more wait for their turn and time out there. Bounds what a slow Redis
/// makes us hold.
const CONCURRENCY: usize = 1024;
/// How long a connection may take to be made, and one answer on it at the very most.
const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(2);
/// How many keys a server looks at in one step when some are dropped by a pattern.
const STEP: usize = 1000;
/// How much longer than an answer on the request path such a step may take.
const UNHURRIED: u32 = 20;

/// One multiplexed connection, to each server of a cluster, made when it is first needed and anew
/// when the breaker has opened.
pub struct Link {
    /// By node of the URL.
    clients: Vec<Client>,
    cluster: Option<ClusterClient>,
    /// Which of `clients` is the next to listen on.
    turn: AtomicUsize,
    conn: Mutex<Option<Conn>>,
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
        Link::trusting(url, patience, None)
    }

    /// As [`Link::new`], where the authorities in `ca` (PEM) vouch for Redis instead of the
    /// system's.
    ///
    /// # Errors
    /// When the URL is none of Redis's, or `ca` cannot be read.
    pub fn trusting(url: &Secret, patience: Patience, ca: Option<Vec<u8>>) -> RedisResult<Self> {
        let refused = || {
            (
                ErrorKind::InvalidClientConfig,
                "expected a URL of Redis",
                FORMS.to_owned(),
            )
        };
        let address = Address::parse(url.expose()).ok_or_else(refused)?;
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: ca,
        };
        if address.tls {
            // Whoever was first has decided; in this process nobody asks for another provider.
            let _ = crypto::ring::default_provider().install_default();
        }
        let client = |node: &String| match address.tls {
            true => Client::build_with_tls(node.as_str(), certificates.clone()),
            false => Client::open(node.as_str()),
        };
        let clients = address
            .nodes
            .iter()
            .map(client)
            .collect::<RedisResult<Vec<_>>>()?;
        let cluster = address.cluster.then(|| {
            let mut builder = ClusterClient::builder(address.nodes.iter().map(String::as_str))
                .retries(1)
                .connection_timeout(CONNECT)
                .response_timeout(ANSWER)
                .connection_concurrency_limit(CONCURRENCY);
            if address.tls {
                builder = builder.certs(certificates);
            }
            builder.build()
        });
        Ok(Link {
            clients,
            cluster: cluster.transpose()?,
            turn: AtomicUsize::new(0),
            conn: Mutex::new(None),
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

    /// A client for a subscription: what is published reaches every node, so they take turns.
    #[must_use]
    pub fn listener(&self) -> &Client {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.clients[turn % self.clients.len()]
    }

    fn conn(&self) -> RedisResult<Conn> {
        let mut slot = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(conn) = slot.as_ref() {
            return Ok(conn.clone());
        }
        let conn = if let Some(cluster) = &self.cluster {
            let config = ClusterConfig::new();
            Conn::Cluster(cluster.get_pending_async_connection_with_config(config))
        } else {
            let config = ConnectionManagerConfig::new()
                .set_number_of_retries(1)
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(ANSWER))
                .set_concurrency_limit(CONCURRENCY);
            let client = self.clients[0].clone();
            Conn::One(ConnectionManager::new_lazy_with_config(client, config)?)
        };
        *slot = Some(conn.clone());
        Ok(conn)
    }

    /// Runs `call` within the time for one answer on the request path, `factor` times that for
    /// work that no request waits for.
    ///
    /// # Errors
    /// When the breaker is open, the time is over, or Redis fails.
    pub async fn call<T, F>(
        &self,
        factor: u32,
        call: impl FnOnce(Conn) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Some(permit) = self.breaker.ask(self.now_ms()) else {
            self.count(&StoreError::Open);
            return Err(StoreError::Open);
        };
        let limit = self.timeout * factor;
        let outcome = match self.conn() {
            Ok(conn) => match tokio::time::timeout(limit, call(conn)).await {
                Ok(result) => result.map_err(StoreError::Redis),
                Err(_) => Err(StoreError::Timeout(limit)),
            },
            Err(error) => Err(StoreError::Redis(error)),
        };
        match &outcome {
            Ok(_) => permit.succeeded(),
            // A store that is full says so at once, and goes on answering what it has.
            Err(error) if error.is_full() => {
                self.count(error);
                permit.succeeded();
            }
            Err(error) => {
                self.count(error);
                if permit.failed(self.now_ms()) {
                    log::warn!("redis is left alone for a while after failures in a row: {error}");
                    // A connection that went silent is not worth another second.
                    *self.conn.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
            }
        }
        outcome
    }

    /// Drops all keys that match `pattern`, on every server, in bounded steps.
    ///
    /// # Errors
    /// As [`Link::call`]; some keys are dropped then.
    pub async fn drop_all(&self, pattern: &str) -> Result<(), StoreError> {
        let masters = self
            .call(UNHURRIED, async |mut conn| conn.masters().await)
            .await?;
        for master in &masters {
            let mut cursor = 0_u64;
            loop {
                let scan = redis::cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(pattern)
                    .arg("COUNT")
                    .arg(STEP)
                    .take();
                cursor = self
                    .call(UNHURRIED, async |mut conn| {
                        let answer = conn.ask(master, scan).await?;
                        let (next, keys): (u64, Vec<Vec<u8>>) = redis::from_redis_value(answer)?;
                        if !keys.is_empty() {
                            let drop = redis::cmd("UNLINK").arg(keys).take();
                            drop.query_async::<u64>(&mut conn).await?;
                        }
                        Ok(next)
                    })
                    .await?;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
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
