//! What the sidecars on one Redis learn from each other: questions, and where thresholds rest.
//!
//! A question that one has kept goes to a stream, capped at as many as its index holds, and all read
//! along; who starts reads what is there. Reading one twice changes nothing, and an answer that is
//! gone by then takes its question with it when it is looked up. A threshold is moved by
//! compare-and-set, so every audit counts for all, and once unless Redis's answer is lost.
//!
//! While Redis is away each goes on alone, and tells what it has kept meanwhile once it is back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{AsyncCommands, Script};

use super::RULES;
use super::file::{self, VERSION};
use super::index::{Bounds, Index, Row, Stored};
use super::threshold::{Found, Judged, ROUTES, Thresholds};
use crate::cache::MAX_TTL_SECS;
use crate::store::{Link, StoreError};

/// How much longer than an admit a call may take: no request waits for it.
const UNHURRIED: u32 = 20;
/// Questions of one call.
const BATCH: usize = 200;
/// How long one turn may read; the next goes on from there.
const TURN: Duration = Duration::from_millis(400);
/// Questions that wait to be told. Beyond, the oldest stay this sidecar's own.
const UNTOLD: usize = 10_000;
/// How often a threshold that others move meanwhile is tried again in one turn.
const TRIES: usize = 5;
/// Stream and thresholds end when nobody has added to them for longer than an answer may live.
const LIFE_MS: u64 = (MAX_TTL_SECS + 86_400) * 1000;

/// What has been told and heard, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// Questions of this sidecar that others can read.
    pub told: u64,
    /// Questions of others that were learnt here.
    pub learnt: u64,
    /// Questions that are this sidecar's own, because too many waited.
    pub dropped: u64,
    /// What stood in the stream and was no question of this version.
    pub unreadable: u64,
    /// Questions that wait to be told.
    pub waiting: u64,
}

/// The exchange with the other sidecars.
pub(super) struct Shared {
    link: Arc<Link>,
    stream: String,
    thresholds: String,
    most: usize,
    dimensions: usize,
    move_: Script,
    untold: Mutex<VecDeque<Vec<u8>>>,
    /// Up to where the stream was read; one turn at a time.
    read: tokio::sync::Mutex<String>,
    told: AtomicU64,
    learnt: AtomicU64,
    dropped: AtomicU64,
    unreadable: AtomicU64,
    failing: AtomicBool,
}

fn decode(bytes: &[u8]) -> Option<Found> {
    Found::decode(std::str::from_utf8(bytes).ok()?)
}

/// An answer of XREAD: streams, their entries, each with its fields.
type Streams = Vec<(String, Vec<(String, BTreeMap<Vec<u8>, Vec<u8>>)>)>;

impl Shared {
    /// Behind `link`, for vectors of `dimensions` made by `revision` of a model.
    pub(super) fn new(
        link: Arc<Link>,
        (revision, dimensions): (&str, usize),
        bounds: Bounds,
    ) -> Self {
        Shared {
            link,
            // Questions of another version, other rules or another model never meet.
            stream: format!("sluice:semantic:q:{VERSION}.{RULES}:{revision}"),
            thresholds: format!("sluice:semantic:t:{RULES}:{revision}"),
            most: bounds.most(dimensions),
            dimensions,
            move_: Script::new(include_str!("threshold.lua")),
            untold: Mutex::default(),
            read: tokio::sync::Mutex::new("0-0".to_owned()),
            told: AtomicU64::new(0),
            learnt: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        }
    }

    fn untold(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question was kept here: the others hear of it at the next turn.
    pub(super) fn tell(&self, stored: &Stored, row: &Row) {
        let Some(bytes) = file::packed(stored, row) else {
            return;
        };
        let mut untold = self.untold();
        if untold.len() >= UNTOLD {
            untold.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        untold.push_back(bytes);
    }

    /// How the exchange fares.
    pub(super) fn exchanged(&self) -> Exchanged {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Exchanged {
            told: of(&self.told),
            learnt: of(&self.learnt),
            dropped: of(&self.dropped),
            unreadable: of(&self.unreadable),
            waiting: self.untold().len() as u64,
        }
    }

    /// Tells what is new here, and learns what is new elsewhere.
    pub(super) async fn turn(&self, index: &Index, thresholds: &Thresholds) {
        let outcome = self.exchange(index, thresholds).await;
        let failed = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Err(error) if !failed => log::warn!("semantic cache: not shared for now: {error}"),
            Ok(()) if failed => log::info!("semantic cache: shared again"),
            _ => {}
        }
    }

    async fn exchange(&self, index: &Index, thresholds: &Thresholds) -> Result<(), StoreError> {
        let mut read = self.read.lock().await;
        let told = self.publish().await;
        // A Redis that is full takes nothing, and is read all the same.
        if told.as_ref().is_err_and(|error| !error.is_full()) {
            return told;
        }
        self.learn(&mut read, index).await?;
        self.move_thresholds(thresholds).await?;
        told
    }

    async fn publish(&self) -> Result<(), StoreError> {
        loop {
            let (batch, before): (Vec<Vec<u8>>, u64) = {
                let untold = self.untold();
                let batch = untold.iter().take(BATCH).cloned().collect();
                (batch, self.dropped.load(Ordering::Relaxed))
            };
            if batch.is_empty() {
                return Ok(());
            }
            let mut pipe = redis::pipe();
            for bytes in &batch {
                let mut add = redis::cmd("XADD");
                add.arg(&self.stream).arg("MAXLEN").arg("~").arg(self.most);
                pipe.add_command(add.arg("*").arg("q").arg(bytes).take())
                    .ignore();
            }
            pipe.pexpire(&self.stream, LIFE_MS as i64).ignore();
            let () = self
                .link
                .call(UNHURRIED, async |mut redis| {
                    pipe.query_async(&mut redis).await
                })
                .await?;
            let mut untold = self.untold();
            // What had to make room meanwhile was among these.
            let gone = self.dropped.load(Ordering::Relaxed) - before;
            let left = batch.len().saturating_sub(gone as usize);
            let left = left.min(untold.len());
            untold.drain(..left);
            self.told.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
    }

    async fn learn(&self, read: &mut String, index: &Index) -> Result<(), StoreError> {
        let started = Instant::now();
        while started.elapsed() < TURN {
            let mut command = redis::cmd("XREAD");
            command.arg("COUNT").arg(BATCH);
            command.arg("STREAMS").arg(&self.stream).arg(&*read);
            let streams: Option<Streams> = self
                .link
                .call(UNHURRIED, async |mut redis| {
                    command.query_async(&mut redis).await
                })
                .await?;
            let entries: Vec<_> = streams.into_iter().flatten().flat_map(|it| it.1).collect();
            let count = entries.len();
            for (id, fields) in entries {
                let bytes = fields.get(&b"q"[..]).map_or(&[][..], Vec::as_slice);
                match file::unpacked(bytes, self.dimensions) {
                    Some((stored, row)) => {
                        let new = index.learn(stored, &row);
                        self.learnt.fetch_add(u64::from(new), Ordering::Relaxed);
                    }
                    None => {
                        self.unreadable.fetch_add(1, Ordering::Relaxed);
                    }
                }
                *read = id;
            }
            if count < BATCH {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn move_thresholds(&self, thresholds: &Thresholds) -> Result<(), StoreError> {
        for (route, audits) in thresholds.untold() {
            if self.move_one(&route, &audits, thresholds).await? {
                thresholds.told(&route, audits.len());
            }
        }
        // As bytes: what another program wrote must not fail the call, which counts against Redis.
        let all: BTreeMap<Vec<u8>, Vec<u8>> = self
            .link
            .call(UNHURRIED, async |mut redis| {
                redis.hgetall(&self.thresholds).await
            })
            .await?;
        for (route, found) in all.iter().take(ROUTES + 1) {
            if let (Ok(route), Some(found)) = (std::str::from_utf8(route), decode(found)) {
                thresholds.adopt(route, found);
            }
        }
        Ok(())
    }

    /// Whether the audits count for all from now on, or cannot.
    async fn move_one(
        &self,
        route: &str,
        audits: &[Judged],
        thresholds: &Thresholds,
    ) -> Result<bool, StoreError> {
        let mut there: Option<Vec<u8>> = self
            .link
            .call(UNHURRIED, async |mut redis| {
                redis.hget(&self.thresholds, route).await
            })
            .await?;
        for _ in 0..TRIES {
            // Where Redis has lost it, or never had it, it goes on from what is known here.
            let next = match there.as_deref().and_then(decode) {
                Some(found) => audits
                    .iter()
                    .fold(found, |found, audit| found.after(*audit)),
                None => thresholds.of(route),
            };
            let mut call = self.move_.prepare_invoke();
            call.key(&self.thresholds)
                .arg(route)
                .arg(there.as_deref().unwrap_or_default())
                .arg(next.encode())
                .arg(ROUTES + 1)
                .arg(LIFE_MS);
            let found: Option<Vec<u8>> = self
                .link
                .call(UNHURRIED, async |mut redis| {
                    call.invoke_async(&mut redis).await
                })
                .await?;
            match found {
                None => return Ok(true),
                Some(found) if found == next.encode().as_bytes() => return Ok(true),
                Some(found) => there = Some(found).filter(|found| !found.is_empty()),
            }
        }
        Ok(false)
    }

    /// Drops all questions that are shared.
    pub(super) async fn clear(&self) -> Result<(), StoreError> {
        let command = redis::cmd("UNLINK").arg(&self.stream).take();
        self.untold().clear();
        self.link
            .call(UNHURRIED, async |mut redis| {
                command.query_async::<u64>(&mut redis).await
            })
            .await
            .map(|_| ())
    }
}
