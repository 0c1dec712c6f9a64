//! Everything a running sidecar holds, made once from its config.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sluice_wire::{LeaseEnd, Store, limit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::budget::{
    Ask, BudgetStore, Claim, Decision, Guarded, Id, MemoryBudgets, RedisBudgets, Spend,
};
use crate::cache::{self, CacheStore, Key};
use crate::clock::Clock;
use crate::config::{self, Serve};
use crate::conversations::Conversations;
use crate::http::{ApiError, Auth, Kind};
use crate::lease::{Lease, Leases, RedisLeases, Signal, Waiting};
use crate::ledger::shared::{PublishError, Publisher};
use crate::ledger::{Ledger, OpenError, Options};
use crate::metrics::{Metrics, Reading};
use crate::relay::Relay;
use crate::relevance::Scorer;
use crate::semantic::{self, SemanticCache, Told, answers};
use crate::store::Link;
use crate::summaries::Summaries;
use crate::tuning::{self, Observer, Stored};

/// KiB of settle bodies held at once.
const SETTLE_ROOM_KIB: u32 = 128 * 1024;
/// How long a settle waits for room.
const SETTLE_WAIT: Duration = Duration::from_secs(2);
/// Reports made at once.
const REPORTS: usize = 2;

/// A sidecar's state.
pub struct App {
    pub(crate) config: Serve,
    pub(crate) auth: Auth,
    pub(crate) clock: Clock,
    pub(crate) ledger: Ledger,
    pub(crate) cache: Box<dyn CacheStore>,
    /// Answers to questions in other words; None: there is no model.
    pub(crate) semantic: Option<Arc<SemanticCache>>,
    /// How near texts are to questions, by the same model.
    pub(crate) relevance: Option<Arc<Scorer>>,
    pub(crate) conversations: Conversations,
    /// The way to Envoy; None: nothing is relayed.
    pub(crate) relay: Option<Relay>,
    /// Who writes down what conversations leave out; None: nobody.
    pub(crate) summaries: Option<Arc<Summaries>>,
    pub(crate) leases: Leases,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) metrics: Metrics,
    pub(crate) reports: Arc<Semaphore>,
    pub(crate) observer: Arc<Observer>,
    local: Arc<MemoryBudgets>,
    shared: Option<Guarded>,
    pub(crate) publisher: Option<Publisher>,
    link: Option<Arc<Link>>,
    settle_room: Arc<Semaphore>,
    /// A question came that there is no model for.
    unmodelled: AtomicBool,
    /// Texts came that there is no model for.
    unmodelled_texts: AtomicBool,
    /// A text was ordered that nobody writes.
    unwritten: AtomicBool,
}

/// Why a sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger.
    #[error("ledger: {0}")]
    Ledger(#[from] OpenError),
    /// The store's URL.
    #[error("serve.store: {0}")]
    Store(redis::RedisError),
    /// The embedding model.
    #[error("{0}")]
    Semantic(#[from] semantic::OpenError),
    /// The authorities that vouch for it.
    #[error("serve.redis.ca: {0}")]
    Authorities(std::io::Error),
}

impl App {
    /// Opens the ledger and the stores of `config`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn open(config: Serve, clock: Clock) -> Result<Arc<Self>, StartError> {
        let place = (config.data.as_path(), clock.now_ms());
        let semantic = config
            .semantic
            .as_ref()
            .map(|semantic| SemanticCache::open(semantic, place))
            .transpose()?;
        App::open_with(config, clock, semantic)
    }

    /// [`App::open`] with a semantic cache that is made already, or none.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn open_with(
        config: Serve,
        clock: Clock,
        semantic: Option<SemanticCache>,
    ) -> Result<Arc<Self>, StartError> {
        let now_ms = clock.now_ms();
        let options = Options {
            data: config.data.clone(),
            retention: config.retention,
            max_bytes: config.max_ledger,
        };
        let (ledger, used) = Ledger::open(&options, now_ms)?;
        let local = Arc::new(MemoryBudgets::new(config.counters));
        local.restore(now_ms, &used);
        let link = match &config.store {
            config::Store::Memory => None,
            config::Store::Redis(url) => {
                let ca = config.redis_ca.as_ref().map(std::fs::read).transpose();
                let ca = ca.map_err(StartError::Authorities)?;
                let link = Link::trusting(url, config.redis, ca).map_err(StartError::Store)?;
                Some(Arc::new(link))
            }
        };
        let cache = cache::open(&config, link.as_ref(), now_ms);
        let mut semantic = semantic;
        if let (Some(semantic), Some(link)) = (&mut semantic, &link) {
            semantic.share(link.clone());
        }
        let shared = link.as_ref().map(|link| {
            let redis = RedisBudgets::new(link.clone(), ledger.sidecar().to_owned());
            Guarded::new(redis, local.clone())
        });
        let publisher = link
            .as_ref()
            .map(|link| Publisher::new(link.clone(), &ledger, config.retention));
        let relevance = semantic
            .as_ref()
            .map(|it| Scorer::new(it.engine().clone(), it.text_options()))
            .transpose()
            .map_err(semantic::OpenError::Engine)?;
        let mut app = App {
            auth: Auth::new(&config),
            metrics: Metrics::new(config.metrics_series, &[]),
            clock,
            ledger,
            cache,
            semantic: semantic.map(Arc::new),
            relevance: relevance.map(Arc::new),
            conversations: Conversations::new(link.clone(), config.conversations),
            relay: config.relay.map(Relay::new),
            summaries: config.summaries.clone().map(Summaries::new).map(Arc::new),
            leases: Leases::new(link.clone().map(RedisLeases::new)),
            waiting: Waiting::new(config.waiters),
            reports: Arc::new(Semaphore::new(REPORTS)),
            observer: Arc::new(Observer::open(&config.data, now_ms)),
            local,
            shared,
            publisher,
            link,
            settle_room: Arc::new(Semaphore::new(SETTLE_ROOM_KIB as usize)),
            unmodelled: AtomicBool::new(false),
            unmodelled_texts: AtomicBool::new(false),
            unwritten: AtomicBool::new(false),
            config,
        };
        app.metrics = Metrics::new(app.config.metrics_series, &app.readings());
        Ok(Arc::new(app))
    }

    /// The config in force.
    #[must_use]
    pub fn config(&self) -> &Serve {
        &self.config
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The budgets that this process counts itself.
    #[must_use]
    pub fn local_budgets(&self) -> &MemoryBudgets {
        &self.local
    }

    pub(crate) async fn reserve(&self, ask: Ask<'_>) -> Decision {
        let store: &dyn BudgetStore = match &self.shared {
            Some(shared) => shared,
            None => &*self.local,
        };
        // Both answer always: the shared store falls back to the local one.
        store
            .reserve(ask)
            .await
            .unwrap_or(Decision::Go { over: Vec::new() })
    }

    pub(crate) async fn claim(&self, ids: &[Id]) -> (Vec<Claim>, bool) {
        match &self.shared {
            Some(shared) => shared.claim(ids).await,
            None => (vec![Claim::Book; ids.len()], true),
        }
    }

    pub(crate) async fn unclaim(&self, spends: &[Spend]) {
        if let Some(shared) = &self.shared {
            let ids: Vec<Id> = spends.iter().map(|it| it.id).collect();
            shared.unclaim(&ids).await;
        }
    }

    /// Charges what is newly booked (`fresh`) here, and all of it in Redis, which knows by itself
    /// what it has charged before.
    pub(crate) async fn settle(&self, now_ms: u64, spends: &[Spend], fresh: &[bool]) {
        let new: Vec<Spend> = spends
            .iter()
            .zip(fresh)
            .filter(|(_, new)| **new)
            .map(|(spend, _)| spend.clone())
            .collect();
        self.local.settle_now(now_ms, &new);
        if let Some(shared) = &self.shared {
            shared.settle_all(now_ms, spends).await;
        }
    }

    /// Room for a settle body of `bytes` (unknown: the largest), so that many large ones at once
    /// wait instead of filling memory.
    pub(crate) async fn settle_room(
        &self,
        bytes: Option<u64>,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        let most = limit::SETTLE_BODY as u64;
        let kib = bytes.unwrap_or(most).min(most) / 1024 + 1;
        let kib = u32::try_from(kib).unwrap_or(SETTLE_ROOM_KIB);
        let room = self.settle_room.clone().acquire_many_owned(kib);
        match tokio::time::timeout(SETTLE_WAIT, room).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ApiError::new(
                Kind::Busy,
                "too many large settlements at once",
            )),
        }
    }

    /// Ends a lease, and tells those who wait here to ask again.
    pub(crate) async fn end_lease(&self, key: Key, lease: Lease, end: LeaseEnd) {
        self.leases
            .end(key, lease, (end, self.clock.now_ms()))
            .await;
        self.waiting.tell(key, Signal::Changed);
    }

    /// A question is to be compared, and there is nothing to compare it by.
    pub(crate) fn no_model(&self) {
        self.metrics
            .compared(Told::plain("no_model"), Duration::ZERO);
        if !self.unmodelled.swap(true, Ordering::Relaxed) {
            log::warn!(
                "filters ask for answers to questions in other words (`cache.semantic`), and this \
                 sidecar has no `serve.semantic`: all of them are misses"
            );
        }
    }

    /// So many texts are to be compared, and there is nothing to compare them by.
    pub(crate) fn no_model_for_texts(&self, texts: usize) {
        self.metrics.texts("no_model", texts as u64);
        if !self.unmodelled_texts.swap(true, Ordering::Relaxed) {
            log::warn!(
                "filters ask how near texts are to a question (`trim`, `embeddings`), and this \
                 sidecar has no `serve.semantic`: requests are trimmed without"
            );
        }
    }

    /// A text is to be written of a conversation, and there is nobody to write it.
    pub(crate) fn no_writer(&self) {
        self.metrics.summary("no_writer");
        if !self.unwritten.swap(true, Ordering::Relaxed) {
            log::warn!(
                "filters have texts written (`trim.history.summary`, `writer: sidecar`), and this \
                 sidecar has no `serve.summaries`: extracts stay in their place"
            );
        }
    }

    pub(crate) fn ready(&self) -> bool {
        self.ledger.healthy()
    }

    /// Tells Redis what it missed while it could not be reached, and the other sidecars what was
    /// booked and which questions are known; hears of theirs. [`crate::server::serve`] does so every
    /// second.
    pub async fn catch_up(&self) {
        self.catch_up_accounts().await;
        self.exchange_questions().await;
    }

    pub(crate) async fn exchange_questions(&self) {
        if let Some(semantic) = &self.semantic {
            semantic.catch_up().await;
        }
    }

    pub(crate) async fn catch_up_accounts(&self) {
        let now_ms = self.clock.now_ms();
        self.leases.catch_up().await;
        if let Some(shared) = &self.shared {
            shared.catch_up(now_ms).await;
        }
        if let Some(publisher) = &self.publisher {
            // It says in the log when it begins to fail, and tries again at the next turn.
            if let Err(PublishError::OlderCopy { mark }) = publisher.publish(now_ms).await {
                match self.ledger.skip_to(mark).await {
                    Ok(()) => publisher.skipped_to(mark).await,
                    Err(error) => log::error!("ledger: {error}"),
                }
            }
        }
    }

    /// [`App::catch_up`] for the last time, once no call is served any more.
    pub async fn leave(&self) {
        if let Some(summaries) = &self.summaries {
            summaries.close().await;
        }
        self.catch_up().await;
        if let Some(publisher) = &self.publisher {
            let _ = publisher.close(self.clock.now_ms()).await;
        }
        self.save_observed().await;
        self.save_questions().await;
        self.save_answers().await;
        let (semantic, relevance) = (self.semantic.clone(), self.relevance.clone());
        let close = move || {
            semantic.inspect(|it| it.close());
            relevance.inspect(|it| it.close());
        };
        let _ = tokio::task::spawn_blocking(close).await;
    }

    /// Hears what other sidecars change in the cache, for as long as it is polled.
    /// [`crate::server::serve`] does.
    pub async fn listen(&self) {
        self.cache.listen().await;
    }

    /// Frees what answers past their time take.
    pub(crate) async fn sweep(self: &Arc<Self>) {
        let app = self.clone();
        let sweep = move || app.cache.sweep(app.clock.now_ms());
        // Cut short only when the process ends.
        let _ = tokio::task::spawn_blocking(sweep).await;
    }

    /// Removes what is past its time, in bounded steps, and writes down what was observed.
    pub(crate) async fn prune(&self) {
        while matches!(self.ledger.prune(self.clock.now_ms()).await, Ok(1..)) {}
        self.save_observed().await;
        if let Some(semantic) = &self.semantic {
            semantic.expire(self.clock.now_ms());
        }
        self.save_questions().await;
    }

    async fn save_questions(&self) {
        let Some(semantic) = self.semantic.clone() else {
            return;
        };
        let saved = tokio::task::spawn_blocking(move || semantic.save()).await;
        if let Ok(Err(error)) = saved {
            log::warn!("the questions of the semantic cache are not saved: {error}");
        }
    }

    /// Where answers are kept over a restart, and whether they are.
    fn answers(&self) -> (PathBuf, bool) {
        let keeps = self
            .config
            .semantic
            .as_ref()
            .is_some_and(|it| it.keep_answers);
        (self.config.data.join("semantic.answers"), keeps)
    }

    async fn save_answers(&self) {
        let ((path, true), Some(semantic)) = (self.answers(), &self.semantic) else {
            return;
        };
        let store = (&*self.cache, self.clock.now_ms());
        match answers::save(&path, store, &semantic.keys()).await {
            Ok(count) => log::info!("semantic cache: {count} answers are kept for the next start"),
            Err(error) => log::warn!("the answers of the semantic cache are not saved: {error}"),
        }
    }

    /// Brings back the answers of an earlier run, where they are kept. To be called once, before calls
    /// are served; [`crate::server::serve`] does.
    pub async fn restore(&self) {
        let (path, keeps) = self.answers();
        let loaded = match keeps {
            true => answers::load(&path, (&*self.cache, self.clock.now_ms())).await,
            // What an earlier run left would be out of date by the time it is wanted again.
            false => answers::forget(&path).map(|()| 0),
        };
        match loaded {
            Ok(0) => {}
            Ok(count) => log::info!("semantic cache: {count} answers of an earlier run"),
            Err(error) => log::warn!("semantic cache: {}: {error}", path.display()),
        }
    }

    async fn save_observed(&self) {
        let observer = self.observer.clone();
        let saved = tokio::task::spawn_blocking(move || observer.save()).await;
        if let Ok(Err(error)) = saved {
            log::warn!("what was observed for tuning is not saved: {error}");
        }
    }

    /// An answer of `route` is about to be stored under `key`.
    pub(crate) fn observe(&self, key: Key, route: &str, (store, body): (&Store, &[u8])) {
        // A refusal that is remembered is no answer that could be kept longer.
        if store.entry.status != 200 || !self.observer.watches(&key) {
            return;
        }
        if let Some(answer) = tuning::fingerprint(body) {
            let stored = Stored {
                route,
                answer,
                ttl_secs: store.ttl_secs,
                stale_secs: store.stale_secs,
            };
            self.observer.stored(&key, stored, self.clock.now_ms());
        }
    }

    /// Numbers that are read when metrics are asked for.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        let int = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let budgets = self.local.gauges();
        let ledger = self.ledger.stats();
        let load = |it: &AtomicU64| int(it.load(Ordering::Relaxed));
        let mut readings = vec![
            (
                "leases_held",
                "Leases held in this process (those in Redis are not among them)",
                int(self.leases.gauges().0 as u64),
            ),
            (
                "lease_fallbacks",
                "Leases taken here because Redis did not answer, since the start",
                int(self.leases.gauges().1),
            ),
            (
                "waiting",
                "Requests that wait for another's answer",
                int(self.waiting.len() as u64),
            ),
            (
                "budget_counters",
                "Budget counters kept in this process",
                int(budgets.counters as u64),
            ),
            (
                "budget_reservations",
                "Reservations held in this process",
                int(budgets.reservations as u64),
            ),
            (
                "budget_counters_evicted",
                "Counters with usage that gave way at the cap, since the start",
                int(budgets.evicted),
            ),
            (
                "budget_untracked",
                "Charges not kept because the store was full, since the start",
                int(budgets.untracked),
            ),
            (
                "ledger_queue",
                "Batches that wait for the ledger",
                load(&ledger.queued),
            ),
            (
                "ledger_transactions",
                "Transactions of the ledger, since the start",
                load(&ledger.commits),
            ),
            (
                "ledger_microseconds",
                "Time spent in them",
                load(&ledger.commit_us),
            ),
            (
                "ledger_errors",
                "Transactions that failed, since the start",
                load(&ledger.errors),
            ),
            (
                "ledger_pruned",
                "Records past their retention that were removed, since the start",
                load(&ledger.pruned),
            ),
            (
                "ledger_failing",
                "Whether the last transaction failed or the writer is gone",
                i64::from(!self.ready()),
            ),
        ];
        if let Some(semantic) = &self.semantic {
            let [hits, misses] = &semantic.embedded;
            let of = |it: &AtomicU64| it.load(Ordering::Relaxed);
            self.metrics.embedded((of(hits), of(misses)));
            let size = semantic.size();
            readings.extend([
                (
                    "semantic_entries",
                    "Questions kept in this process",
                    int(size.entries as u64),
                ),
                (
                    "semantic_bytes",
                    "Bytes that they take, about",
                    int(size.bytes as u64),
                ),
                (
                    "semantic_evicted",
                    "Questions that gave way to others, since the start",
                    int(size.evicted),
                ),
                (
                    "semantic_waiting",
                    "Questions that wait to be embedded",
                    int(semantic.waiting() as u64),
                ),
            ]);
            if let Some(it) = semantic.exchanged() {
                readings.extend([
                    (
                        "semantic_shared_told",
                        "Questions that other sidecars were told of, since the start",
                        int(it.told),
                    ),
                    (
                        "semantic_shared_learnt",
                        "Questions learnt from other sidecars, since the start",
                        int(it.learnt),
                    ),
                    (
                        "semantic_shared_waiting",
                        "Questions that wait to be told",
                        int(it.waiting),
                    ),
                    (
                        "semantic_shared_dropped",
                        "Questions that never were, since the start",
                        int(it.dropped),
                    ),
                    (
                        "semantic_shared_unreadable",
                        "What stood among the shared questions and was none, since the start",
                        int(it.unreadable),
                    ),
                ]);
            }
        }
        if let Some(relevance) = &self.relevance {
            let size = relevance.size();
            readings.extend([
                (
                    "relevance_entries",
                    "Texts whose vectors are kept in this process",
                    int(size.entries),
                ),
                (
                    "relevance_bytes",
                    "Bytes that they take, about",
                    int(size.bytes),
                ),
                (
                    "relevance_waiting",
                    "Texts that wait to be embedded behind answers",
                    int(size.waiting),
                ),
                (
                    "relevance_behind",
                    "Texts that were embedded behind answers, since the start",
                    int(size.behind),
                ),
            ]);
        }
        if let Some(summaries) = &self.summaries {
            readings.push((
                "summaries_waiting",
                "Texts of conversations that wait to be written, or are written",
                int(summaries.open() as u64),
            ));
        }
        let (conversations, bytes) = self.conversations.size();
        readings.extend([
            (
                "conversations",
                "Conversations whose last turn this process knows (those in Redis are not among them)",
                int(conversations),
            ),
            (
                "conversation_bytes",
                "Bytes that they take, about",
                int(bytes),
            ),
        ]);
        readings.extend(cache_readings(&self.cache.layers()));
        if let Some(link) = &self.link {
            let stats = link.stats();
            let failed = |kind: &str| int(stats.failures.get(kind).copied().unwrap_or(0));
            readings.extend([
                (
                    "redis_breaker_state",
                    "Where the breaker stands: closed 0, half-open 1, open 2",
                    stats.state.number(),
                ),
                (
                    "redis_timeouts",
                    "Calls without an answer in time, since the start",
                    failed("timeout"),
                ),
                (
                    "redis_errors",
                    "Calls answered with an error, since the start",
                    failed("redis") + failed("nonsense"),
                ),
                (
                    "redis_skipped",
                    "Calls not tried while the breaker was open, since the start",
                    failed("open"),
                ),
            ]);
        }
        if let Some(shared) = &self.shared {
            let (waiting, dropped, fallbacks) = shared.backlog();
            let publisher = self.publisher.as_ref();
            let (unpublished, failing) = publisher.map_or((0, false), Publisher::backlog);
            readings.extend([
                (
                    "redis_outbox",
                    "Settlements that Redis has not heard of yet",
                    int(waiting as u64),
                ),
                (
                    "redis_outbox_dropped",
                    "Settlements that it never will, since the start",
                    int(dropped),
                ),
                (
                    "ledger_unpublished",
                    "Records that the other sidecars do not see yet",
                    int(unpublished),
                ),
                (
                    "ledger_publish_failing",
                    "Whether the last try to share the ledger failed",
                    i64::from(failing),
                ),
                (
                    "budget_fallbacks",
                    "Admissions decided without Redis, since the start",
                    int(fallbacks),
                ),
            ]);
        }
        readings
    }
}

/// What is told of the cache. The layer in this process is the first.
fn cache_readings(layers: &[cache::Layer]) -> Vec<Reading> {
    let int = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let sum = |of: &dyn Fn(&cache::Layer) -> u64| int(layers.iter().map(of).sum());
    let corrupt = |kind: &str| sum(&|it| it.corrupt.get(kind).copied().unwrap_or(0));
    let mut readings = vec![
        (
            "cache_bytes",
            "Bytes of answers kept in this process, bookkeeping included",
            sum(&|it| it.bytes.unwrap_or(0)),
        ),
        (
            "cache_entries",
            "Answers kept in this process",
            sum(&|it| it.entries.unwrap_or(0)),
        ),
        (
            "cache_voided",
            "Answers that an invalidation had made void when they were found or stored, since the start",
            sum(&|it| it.voided),
        ),
        (
            "cache_foreign",
            "Values found that another program or version wrote, since the start",
            corrupt("foreign"),
        ),
        (
            "cache_damaged",
            "Values of ours found that are damaged, since the start",
            corrupt("checksum") + corrupt("head") + corrupt("packed"),
        ),
    ];
    if let [local, _] = layers {
        readings.extend([
            (
                "cache_local_hits",
                "Look-ups answered by the layer in front of Redis, since the start",
                int(local.hits),
            ),
            (
                "cache_local_subscribed",
                "Whether changes elsewhere are heard of, without which that layer is not used",
                i64::from(local.subscribed == Some(true)),
            ),
        ]);
    }
    readings
}
