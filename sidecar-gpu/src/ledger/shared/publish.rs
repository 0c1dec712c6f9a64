//! Publishing: this sidecar's records go to Redis in the order of booking, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{AsyncCommands, Script};
use rusqlite::Connection;

use super::super::sums::{Labels, Numbers};
use super::super::{Ledger, feed, read};
use super::{
    HOUR_MS, HOURS, Mark, Reader, SIDECARS, STREAM, UNHURRIED, hour_key, marks, nonsense,
    owners_key,
};
use crate::store::{Link, StoreError};

/// Records of one batch: bounds how long its script keeps Redis from other calls (about 2 ms where
/// all labels differ).
const BATCH: usize = 128;
/// How long one turn may take; the next goes on from there.
const TURN: Duration = Duration::from_millis(800);
/// Label sets of one hour that are told apart; those beyond keep their tenant, and beyond twice as
/// many not even that.
const LABEL_SETS: u64 = 1000;
/// Latest records that are kept, about: Redis trims whole nodes of a hundred.
const STREAM_RECORDS: u64 = 10_000;
/// How much longer than the sums a sidecar that is gone is remembered.
const GRACE_MS: u64 = 24 * HOUR_MS;

/// Why records are not published. They stay in the file, and the next turn tries again.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Redis.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The ledger's file cannot be read.
    #[error("ledger: {0}")]
    Ledger(String),
    /// Redis has more of this ledger than the ledger has: its file was replaced by an older copy,
    /// whose new records must not be taken for those that were published; see
    /// [`crate::ledger::Ledger::skip_to`].
    #[error(
        "record {mark} of this ledger was published before it had so many: its file was replaced \
         by an older copy"
    )]
    OlderCopy {
        /// Number in the mark.
        mark: u64,
    },
}

/// Publishes one sidecar's ledger.
pub struct Publisher {
    link: Arc<Link>,
    reader: Reader,
    sidecar: String,
    data: PathBuf,
    retention_ms: u64,
    own: Script,
    publish: Script,
    /// One turn at a time.
    turn: tokio::sync::Mutex<Turn>,
    pending: AtomicU64,
    failing: AtomicBool,
    /// Sidecars that Redis named last.
    others: Mutex<BTreeSet<String>>,
}

/// Kept from turn to turn.
#[derive(Default)]
struct Turn {
    connection: Option<Connection>,
    /// The mark as this process knows it. `None`: not known yet.
    mark: Option<Option<u64>>,
    /// No mark of this ledger can be above it: the last number that the file had when it was
    /// opened, and what was sent since.
    reach: u64,
    until_ms: u64,
}

/// What the file has next.
struct Next {
    entries: Vec<feed::Entry>,
    last: u64,
}

impl Publisher {
    /// A publisher of `ledger`, whose sums are kept for `retention`.
    #[must_use]
    pub fn new(link: Arc<Link>, ledger: &Ledger, retention: Duration) -> Self {
        Publisher {
            reader: Reader::new(link.clone()),
            link,
            sidecar: ledger.sidecar().to_owned(),
            data: ledger
                .path()
                .parent()
                .map(Path::to_owned)
                .unwrap_or_default(),
            retention_ms: u64::try_from(retention.as_millis()).unwrap_or(u64::MAX / 2),
            own: Script::new(include_str!("own.lua")),
            publish: Script::new(include_str!("publish.lua")),
            turn: tokio::sync::Mutex::new(Turn {
                reach: ledger.opened,
                ..Turn::default()
            }),
            pending: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            others: Mutex::default(),
        }
    }

    /// What all sidecars have published.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Records that the others do not see yet, as of the last turn; and whether it failed.
    #[must_use]
    pub fn backlog(&self) -> (u64, bool) {
        (
            self.pending.load(Ordering::Relaxed),
            self.failing.load(Ordering::Relaxed),
        )
    }

    /// The other sidecars that Redis named when it was last asked.
    #[must_use]
    pub fn others(&self) -> Vec<String> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.iter().cloned().collect()
    }

    /// Publishes what was booked before `now_ms`, for one turn at the most. Tells whether that was
    /// all of it.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, now_ms: u64) -> Result<bool, PublishError> {
        self.take_turn(now_ms, false).await
    }

    /// [`Publisher::publish`] for the last time: nothing is booked from now on.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn close(&self, now_ms: u64) -> Result<bool, PublishError> {
        self.take_turn(now_ms, true).await
    }

    /// Nothing that is booked from now on has a number up to `seq`.
    pub async fn skipped_to(&self, seq: u64) {
        let mut turn = self.turn.lock().await;
        turn.reach = turn.reach.max(seq);
    }

    async fn take_turn(&self, now_ms: u64, closing: bool) -> Result<bool, PublishError> {
        let mut turn = self.turn.lock().await;
        let outcome = self.batches(&mut turn, now_ms, closing).await;
        let failed = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !failed => {
                log::warn!("ledger: not shared for now: {error}");
            }
            Ok(_) if failed => log::info!("ledger: shared again"),
            _ => {}
        }
        outcome
    }

    async fn batches(
        &self,
        turn: &mut Turn,
        now_ms: u64,
        closing: bool,
    ) -> Result<bool, PublishError> {
        let started = Instant::now();
        while started.elapsed() < TURN {
            let mark = match turn.mark {
                Some(mark) => mark,
                None => self.ask_mark().await?,
            };
            turn.mark = Some(mark);
            let before = mark.unwrap_or(0);
            if before > turn.reach {
                return Err(PublishError::OlderCopy { mark: before });
            }
            let next = self.next(turn, before).await?;
            let done = next.entries.len() < BATCH;
            let seq = next.entries.last().map_or(before, |entry| entry.seq);
            let moved = Mark {
                seq,
                until_ms: if done { now_ms } else { turn.until_ms },
                // What is booked while this runs is the next turn's.
                pending: if done { 0 } else { next.last - seq },
                closed: closing && done,
            };
            turn.reach = turn.reach.max(seq);
            let found = self.send(mark, moved, (&next.entries, now_ms)).await;
            let found = found.inspect_err(|_| {
                // Whether it was done is not known.
                turn.mark = None;
                self.pending.store(next.last - before, Ordering::Relaxed);
            })?;
            if let Err(actual) = found {
                // Redis lost what it had, or an answer to us was lost.
                log::info!(
                    "ledger: publishing goes on from record {}",
                    actual.unwrap_or(0)
                );
                turn.mark = Some(actual);
                turn.until_ms = 0;
                continue;
            }
            turn.mark = Some(Some(seq));
            turn.until_ms = moved.until_ms;
            self.pending.store(moved.pending, Ordering::Relaxed);
            if done {
                self.look_around(now_ms).await?;
                return Ok(true);
            }
            // Others want Redis too.
            tokio::task::yield_now().await;
        }
        Ok(false)
    }

    async fn ask_mark(&self) -> Result<Option<u64>, PublishError> {
        let text: Option<String> = self
            .link
            .call(UNHURRIED, async |mut redis| {
                redis.hget(SIDECARS, &self.sidecar).await
            })
            .await?;
        // A mark that is none of ours is as good as none for the script too, which compares digits.
        Ok(text.and_then(|text| Mark::decode(&text)).map(|it| it.seq))
    }

    /// Reads the file beside its writer.
    async fn next(&self, turn: &mut Turn, seq: u64) -> Result<Next, PublishError> {
        let (data, sidecar) = (self.data.clone(), self.sidecar.clone());
        let connection = turn.connection.take();
        let reading = tokio::task::spawn_blocking(move || {
            let connection = match connection {
                Some(connection) => connection,
                None => read(&data).map_err(|error| error.to_string())?,
            };
            let next = feed::after(&connection, &sidecar, (seq, BATCH)).and_then(|entries| {
                let last = feed::last(&connection)?;
                Ok(Next { entries, last })
            });
            next.map(|next| (next, connection))
                .map_err(|error| error.to_string())
        });
        let (next, connection) = reading
            .await
            .map_err(|error| error.to_string())
            .and_then(|it| it)
            .map_err(PublishError::Ledger)?;
        turn.connection = Some(connection);
        Ok(next)
    }

    /// One batch. The inner error is the number in the mark as it is, where it is not `before`.
    async fn send(
        &self,
        before: Option<u64>,
        moved: Mark,
        (entries, now_ms): (&[feed::Entry], u64),
    ) -> Result<Result<(), Option<u64>>, PublishError> {
        let ours = self.ours(entries, now_ms).await?;
        let mut groups: BTreeMap<(u64, Labels), Numbers> = BTreeMap::new();
        let mut records = Vec::with_capacity(ours.len());
        for entry in ours {
            let record = &entry.booked.record;
            let group = (hour_of(record.at_ms), Labels::of(record));
            let numbers = Numbers::of(record);
            groups
                .entry(group)
                .and_modify(|sum| sum.add(&numbers))
                .or_insert(numbers);
            let json = serde_json::to_string(&entry.booked);
            records.push(json.map_err(|error| PublishError::Ledger(error.to_string()))?);
        }
        let mut call = self.publish.prepare_invoke();
        call.key(SIDECARS).key(HOURS).key(STREAM);
        call.arg(&self.sidecar)
            .arg(before.map_or_else(String::new, |seq| seq.to_string()))
            .arg(moved.encode())
            .arg(now_ms)
            .arg(self.retention_ms)
            .arg(LABEL_SETS)
            .arg(STREAM_RECORDS)
            .arg(records.len());
        for record in records {
            call.arg(record);
        }
        for ((hour, labels), numbers) in &groups {
            let (tenant, none) = labels.folded();
            let fields = numbers.fields();
            call.key(hour_key(*hour));
            call.arg(*hour)
                .arg(self.ttl_ms(*hour, now_ms))
                .arg(labels.encode())
                .arg(tenant.encode())
                .arg(none.encode())
                .arg(fields.len());
            for (name, amount) in fields {
                call.arg(name).arg(amount.to_string());
            }
        }
        let answer: String = self
            .link
            .call(UNHURRIED, async |mut redis| {
                call.invoke_async(&mut redis).await
            })
            .await?;
        match answer.as_str() {
            "ok" => Ok(Ok(())),
            "" => Ok(Err(None)),
            number => match number.parse() {
                Ok(number) => Ok(Err(Some(number))),
                Err(_) => Err(nonsense("an answer of the publish script", &answer).into()),
            },
        }
    }

    /// Those of `entries` that this sidecar is to sum: not what another has, nor what is of an hour
    /// whose sums have lapsed.
    async fn ours<'a>(
        &self,
        entries: &'a [feed::Entry],
        now_ms: u64,
    ) -> Result<Vec<&'a feed::Entry>, PublishError> {
        let entries: Vec<&feed::Entry> = entries
            .iter()
            .filter(|it| self.ttl_ms(hour_of(it.booked.record.at_ms), now_ms) > 0)
            .collect();
        if entries.is_empty() {
            return Ok(entries);
        }
        let mut call = self.own.prepare_invoke();
        call.arg(&self.sidecar);
        for entry in &entries {
            let hour = hour_of(entry.booked.record.at_ms);
            call.key(owners_key(hour))
                .key(crate::budget::marker_key(entry.id))
                .arg(&entry.id.0.to_be_bytes())
                .arg(u8::from(entry.alone))
                .arg(self.ttl_ms(hour, now_ms));
        }
        let answer: Vec<u8> = self
            .link
            .call(UNHURRIED, async |mut redis| {
                call.invoke_async(&mut redis).await
            })
            .await?;
        if answer.len() != entries.len() {
            return Err(nonsense("an answer per record", &answer).into());
        }
        let ours = entries.into_iter().zip(answer);
        Ok(ours.filter(|(_, ours)| *ours == 1).map(|it| it.0).collect())
    }

    /// How long the sums of an hour are kept; 0 when it is over. An hour that a broken clock puts
    /// far ahead is kept as if it were this one.
    fn ttl_ms(&self, hour_secs: u64, now_ms: u64) -> u64 {
        let end_ms = hour_secs.saturating_mul(1000).saturating_add(HOUR_MS);
        let lapses_ms = end_ms
            .min(now_ms + HOUR_MS)
            .saturating_add(self.retention_ms);
        lapses_ms.saturating_sub(now_ms)
    }

    /// Takes note of the other sidecars, and forgets those of which no sums are left.
    async fn look_around(&self, now_ms: u64) -> Result<(), PublishError> {
        let marks = self.reader.marks().await?;
        let gone: Vec<&String> = marks
            .iter()
            .filter(|(sidecar, mark)| {
                let lapsed = mark.until_ms + self.retention_ms + GRACE_MS < now_ms;
                **sidecar != self.sidecar && mark.until_ms > 0 && lapsed
            })
            .map(|(sidecar, _)| sidecar)
            .collect();
        if !gone.is_empty() {
            let () = self
                .link
                .call(UNHURRIED, async |mut redis| {
                    redis.hdel(SIDECARS, &gone).await
                })
                .await?;
        }
        let others = marks.keys().filter(|it| **it != self.sidecar).cloned();
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = others.collect();
        Ok(())
    }
}

impl Reader {
    /// How far each sidecar has published.
    pub(super) async fn marks(&self) -> Result<BTreeMap<String, Mark>, StoreError> {
        let found: BTreeMap<String, String> = self
            .link
            .call(UNHURRIED, async |mut redis| redis.hgetall(SIDECARS).await)
            .await?;
        Ok(marks(found))
    }
}

/// Start of the hour that holds a moment, in seconds.
fn hour_of(at_ms: u64) -> u64 {
    at_ms / HOUR_MS * (HOUR_MS / 1000)
}
