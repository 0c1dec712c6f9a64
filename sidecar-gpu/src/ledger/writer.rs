//! The ledger's one writing thread: batches that wait together are committed together.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use sluice_wire::{Record, Settle};
use tokio::sync::{mpsc, oneshot};

use super::{Booking, LedgerError, Options, Stats, schema};
use crate::budget::{CEILING, Id, Spend, spent};
use crate::text;

/// Most records in one transaction; bounds how long a batch waits for its company.
const GROUP: usize = 5_000;
/// Most records pruned in one transaction; bounds how long settling waits for it.
const PRUNE: usize = 5_000;
/// Largest count of tokens that is booked for one request; keeps SQLite's sums in range.
const MAX_TOKENS: u64 = 1_000_000_000_000;
/// Longest text of a record; a longer one is cut.
const MAX_TEXT: usize = 256;

type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

pub(super) enum Job {
    Book {
        items: Arc<Vec<Settle>>,
        booking: Booking,
        reply: Reply<Vec<bool>>,
    },
    Prune {
        now_ms: u64,
        reply: Reply<u64>,
    },
    SkipTo {
        seq: u64,
        reply: Reply<()>,
    },
    Close,
}

struct Batch {
    items: Arc<Vec<Settle>>,
    booking: Booking,
    reply: Reply<Vec<bool>>,
}

pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    options: Options,
    stats: Arc<Stats>,
    /// Number of the last record that the file had when it was opened.
    opened: i64,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        path: PathBuf,
        (options, stats): (Options, Arc<Stats>),
    ) -> rusqlite::Result<Self> {
        Ok(Writer {
            opened: last(&connection)?,
            connection,
            path,
            options,
            stats,
        })
    }

    /// Number of the last record that the file had when it was opened.
    pub(super) fn opened(&self) -> u64 {
        u64::try_from(self.opened).unwrap_or(0)
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut batches = Vec::new();
            let mut records = 0;
            let mut next = Some(first);
            let mut close = false;
            while let Some(job) = next.take() {
                match job {
                    Job::Book {
                        items,
                        booking,
                        reply,
                    } => {
                        self.stats.queued.fetch_sub(1, Ordering::Relaxed);
                        records += items.len();
                        batches.push(Batch {
                            items,
                            booking,
                            reply,
                        });
                    }
                    Job::Prune { now_ms, reply } => {
                        let outcome = self.attempt(|ledger| ledger.prune(now_ms));
                        // Who asked may have left; pruning is done all the same.
                        let _ = reply.send(outcome);
                    }
                    Job::SkipTo { seq, reply } => {
                        let outcome = self.attempt(|ledger| ledger.skip_to(int(seq)));
                        let _ = reply.send(outcome);
                    }
                    Job::Close => {
                        queue.close();
                        close = true;
                    }
                }
                // After closing, the whole rest is drained.
                if close || records < GROUP {
                    next = queue.try_recv().ok();
                }
            }
            self.book(batches);
        }
        // Leaves one file behind; the next start does not have to replay anything.
        if let Err(error) =
            self.connection
                .pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()))
        {
            log::warn!("ledger: last checkpoint: {error}");
        }
    }

    fn book(&mut self, batches: Vec<Batch>) {
        if batches.is_empty() {
            return;
        }
        let outcome = self.attempt(|ledger| ledger.commit(&batches));
        match outcome {
            Ok(fresh) => {
                for (batch, fresh) in batches.into_iter().zip(fresh) {
                    let _ = batch.reply.send(Ok(fresh));
                }
            }
            Err(error) => {
                for batch in batches {
                    let _ = batch.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Runs one transaction, keeps the numbers, and opens the database anew when it is stuck.
    fn attempt<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let started = Instant::now();
        let outcome = act(self);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.stats.commit_us.fetch_add(micros, Ordering::Relaxed);
        let failing = self.stats.failing.swap(outcome.is_err(), Ordering::Relaxed);
        // Told when it changes: a full disk fails thousands of times a second.
        match &outcome {
            Err(error) if !failing => log::error!("ledger: {error}; settling is refused (503)"),
            Ok(_) if failing => log::info!("ledger: written again"),
            _ => {}
        }
        outcome.map_err(|error| {
            self.stats.errors.fetch_add(1, Ordering::Relaxed);
            if !self.connection.is_autocommit() {
                match schema::connect(&self.path, self.options.max_bytes) {
                    Ok(connection) => self.connection = connection,
                    Err(error) => log::error!("ledger: opening anew: {error}"),
                }
            }
            LedgerError::Database(error.to_string().into())
        })
    }

    /// All batches in one transaction; for each item whether it is new.
    fn commit(&mut self, batches: &[Batch]) -> rusqlite::Result<Vec<Vec<bool>>> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut fresh = Vec::with_capacity(batches.len());
        let mut seq = last(&transaction)?;
        for batch in batches {
            let mut of_batch = Vec::with_capacity(batch.items.len());
            for item in batch.items.iter() {
                let new = insert(&transaction, &item.record, (seq + 1, batch.booking))?;
                if new {
                    seq += 1;
                    charge(&transaction, item)?;
                }
                of_batch.push(new);
            }
            fresh.push(of_batch);
        }
        transaction.commit()?;
        Ok(fresh)
    }

    /// Numbers what was booked since the file was opened from `seq` on, past the numbers that were
    /// given before the file was replaced by an older copy.
    fn skip_to(&mut self, seq: i64) -> rusqlite::Result<()> {
        if self.opened >= seq {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Through the negative ones, because no number may be there twice in between.
        transaction.execute(
            "UPDATE records SET seq = -(seq + ?1) WHERE seq > ?2",
            params![seq - self.opened, self.opened],
        )?;
        transaction.execute("UPDATE records SET seq = -seq WHERE seq < 0", [])?;
        remember(&transaction, seq)?;
        transaction.commit()?;
        self.opened = seq;
        Ok(())
    }

    fn prune(&mut self, now_ms: u64) -> rusqlite::Result<u64> {
        let keep_ms = u64::try_from(self.options.retention.as_millis()).unwrap_or(u64::MAX);
        let before = int(now_ms.saturating_sub(keep_ms));
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        // What is deleted last may be the highest; its number must not be given again.
        let highest = last(&transaction)?;
        // By booking, not by arrival: an id must stay known as long as it may be settled again.
        let records = transaction.execute(
            "DELETE FROM records WHERE seq IN (SELECT seq FROM records ORDER BY seq LIMIT ?1)
             AND booked_ms < ?2",
            params![int(PRUNE as u64), before],
        )?;
        if records > 0 {
            remember(&transaction, highest)?;
        }
        transaction.execute(
            "DELETE FROM charges WHERE window_end < ?1",
            params![int((now_ms / 1000).saturating_sub(86_400))],
        )?;
        transaction.commit()?;
        self.stats
            .pruned
            .fetch_add(records as u64, Ordering::Relaxed);
        Ok(records as u64)
    }
}

/// SQLite's integers are signed.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn tokens(value: u64) -> i64 {
    int(value.min(MAX_TOKENS))
}

/// At most [`MAX_TEXT`] bytes of `text`, whole characters.
fn cut(text: &str) -> &str {
    text::cut(text, MAX_TEXT)
}

/// The highest number that a record has or had.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached(
        "SELECT MAX(IFNULL((SELECT MAX(seq) FROM records), 0),
                    IFNULL((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'seq'), 0))",
    )?;
    statement.query_row([], |row| row.get(0))
}

/// Keeps `seq` and those below from being given again.
fn remember(transaction: &Transaction<'_>, seq: i64) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT OR REPLACE INTO meta VALUES ('seq', ?1)",
        params![seq.to_string()],
    )?;
    Ok(())
}

/// Books one record under the number `seq`; tells whether it was not there.
fn insert(
    transaction: &Transaction<'_>,
    record: &Record,
    (seq, booking): (i64, Booking),
) -> rusqlite::Result<bool> {
    // The HTTP handler has checked the id; another one would be the same request forever.
    let id = record.id.parse::<Id>().map_or(0, |id| id.0).to_be_bytes();
    let mut statement = transaction.prepare_cached(
        "INSERT OR IGNORE INTO records VALUES (?40, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
         ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29,
         ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39)",
    )?;
    let (usage, saved, would) = (&record.usage, &record.saved, &record.would_save);
    let rows = statement.execute(params![
        id,
        int(booking.now_ms),
        int(record.at_ms),
        cut(&record.tenant),
        cut(&record.task),
        cut(&record.conversation),
        cut(&record.route),
        cut(&record.endpoint),
        cut(&record.model_asked),
        cut(&record.model),
        cut(&record.tier),
        record.score_milli,
        record.stream,
        record.status,
        record.outcome.name(),
        record.cache.name(),
        tokens(usage.prompt),
        tokens(usage.cached),
        tokens(usage.cache_write),
        tokens(usage.completion),
        tokens(usage.reasoning),
        record.estimated,
        record.as_asked.map(|usd| usd.0),
        record.cost.map(|usd| usd.0),
        saved.route.0,
        saved.trim.0,
        saved.cache.0,
        saved.batch.0,
        saved.offload.0,
        would.route.0,
        would.trim.0,
        would.cache.0,
        would.batch.0,
        would.offload.0,
        booking.alone,
        record.age_secs.map(int),
        record.trim.map(|trim| tokens(trim.tokens)),
        record.trim.map(|trim| trim.gross.0),
        record.trim.map(|trim| trim.lost.0),
        seq,
    ])?;
    Ok(rows == 1)
}

fn charge(transaction: &Transaction<'_>, item: &Settle) -> rusqlite::Result<()> {
    let spend = Spend {
        id: Id(0),
        at_ms: item.record.at_ms,
        counted: item.counted.clone(),
    };
    for (slot, amount) in spent(&spend) {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO charges VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET amount = MIN(amount + excluded.amount, ?7)",
        )?;
        statement.execute(params![
            slot.counter,
            slot.window.name(),
            schema::unit_name(slot.unit),
            int(slot.start),
            int(slot.end_ms() / 1000),
            int(amount),
            int(CEILING),
        ])?;
    }
    Ok(())
}
