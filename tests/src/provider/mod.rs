//! The stand-in provider: answers as OpenAI and Anthropic do, keeps its own books, fails on demand.
//!
//! It stands where the tests, the demo and the benches would need a real provider. In process:
//! [`Provider::start`]; as a program: `sluice-provider`. Beside the APIs it has `GET /_stats` (its
//! books), `GET /_requests?n=` (what it was sent) and `POST /_admin` (faults, forgetting).

mod api;
mod books;
mod compose;
mod faults;
mod models;
mod prefixes;
mod reply;
mod server;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use axum::http::HeaderMap;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use books::{Account, Stats};
pub use faults::{Fault, HEADER as FAULT_HEADER};
pub use models::{Catalog, Sold};
pub use prefixes::CLOCK_HEADER;
#[cfg(test)]
pub(crate) use prefixes::Charges;
pub use tokens::Counting;

/// How a provider behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Models and list prices.
    pub catalog: Catalog,
    /// Milliseconds to the first token.
    pub ttft_ms: u64,
    /// Generation speed; 0: no time passes.
    pub tokens_per_second: u64,
    /// How prompts are counted.
    pub counting: Counting,
    /// A fixed answer length instead of a plausible one.
    pub answer_tokens: Option<u64>,
    /// Milliseconds after its last use that the front of a prompt is remembered.
    pub prefix_ms: u64,
    /// Largest request body in bytes; beyond, 413.
    pub max_body: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            catalog: Catalog::default(),
            ttft_ms: 0,
            tokens_per_second: 0,
            counting: Counting::Exact,
            answer_tokens: None,
            prefix_ms: 5 * 60_000,
            max_body: 32 << 20,
        }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case, values as they came (not UTF-8: replaced), in order.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Bytes,
    /// What came behind the body.
    pub trailers: HeaderMap,
}

impl Seen {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Requests that are remembered, and their bytes in all.
const SEEN: usize = 512;
const SEEN_BYTES: usize = 128 << 20;

#[derive(Debug, Default)]
struct SeenLog {
    list: VecDeque<Seen>,
    bytes: usize,
}

/// Everything that one provider holds.
#[derive(Debug)]
pub(crate) struct State {
    config: Config,
    catalog: Catalog,
    tokens: tokens::Tokens,
    prefixes: prefixes::Prefixes,
    books: books::Books,
    faults: faults::Faults,
    seen: Mutex<SeenLog>,
    calls: AtomicU64,
}

impl State {
    fn new(config: Config) -> State {
        State {
            catalog: config.catalog.clone(),
            tokens: tokens::Tokens::new(config.counting),
            prefixes: prefixes::Prefixes::new(config.prefix_ms),
            books: books::Books::new(),
            faults: faults::Faults::default(),
            seen: Mutex::default(),
            calls: AtomicU64::new(1),
            config,
        }
    }

    fn number(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    fn see(&self, seen: Seen) {
        let mut log = self.seen_log();
        log.bytes += seen.body.len();
        log.list.push_back(seen);
        while log.list.len() > SEEN || log.bytes > SEEN_BYTES {
            let Some(oldest) = log.list.pop_front() else {
                break;
            };
            log.bytes -= oldest.body.len();
        }
    }

    /// The last `n`, newest first.
    fn last_seen(&self, n: usize) -> Vec<Seen> {
        self.seen_log().list.iter().rev().take(n).cloned().collect()
    }

    fn clear(&self) {
        *self.seen_log() = SeenLog::default();
        self.books.clear();
        self.faults.clear();
        self.prefixes.forget();
    }

    fn seen_log(&self) -> std::sync::MutexGuard<'_, SeenLog> {
        self.seen
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Serves until `shutdown` completes.
///
/// # Errors
/// When the listener fails.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    server::serve(listener, Arc::new(State::new(config)), shutdown).await
}

/// A provider in this process. It stops when dropped.
#[derive(Debug)]
pub struct Provider {
    address: SocketAddr,
    state: Arc<State>,
    _stop: oneshot::Sender<()>,
}

impl Provider {
    /// Starts one on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(config: Config) -> anyhow::Result<Provider> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.context("a port for the provider")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::new(config));
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            let shutdown = async move {
                // The sender is only ever dropped.
                let _ = stopped.await;
            };
            server::serve(listener, served, shutdown).await
        });
        Ok(Provider {
            address,
            state,
            _stop: stop,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its books.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state.books.stats()
    }

    /// The last `n` requests, newest first.
    #[must_use]
    pub fn requests(&self, n: usize) -> Vec<Seen> {
        self.state.last_seen(n)
    }

    /// The last request.
    #[must_use]
    pub fn last_request(&self) -> Option<Seen> {
        self.requests(1).pop()
    }

    /// Lets a coming request fail.
    pub fn fault(&self, fault: Fault) {
        self.state.faults.add(fault);
    }

    /// No more faults.
    pub fn heal(&self) {
        self.state.faults.clear();
    }

    /// Forgets books, requests, faults and prefixes.
    pub fn clear(&self) {
        self.state.clear();
    }
}

fn now_secs() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
