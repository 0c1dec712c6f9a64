//! The ledger: every settled request, durable before the filter hears that it is booked.
//!
//! An SQLite database in WAL mode with `synchronous=FULL`. One thread writes; what several HTTP
//! requests want booked while it is busy goes into the next transaction together, so they share
//! one `fsync`. Reports read beside it, in this process or another.

mod feed;
mod query;
mod schema;
pub mod shared;
mod sums;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use sluice_wire::{Counted, Settle};
use tokio::sync::{mpsc, oneshot};

pub use query::{Dimension, Query, query};

/// Batches that wait for the writer; more are refused (503, the filter retries).
const QUEUE: usize = 1024;

/// How to keep a ledger.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory; made if missing.
    pub data: PathBuf,
    /// How long records are kept.
    pub retention: Duration,
    /// Largest size of the database in bytes.
    pub max_bytes: Option<u64>,
}

/// How a batch comes to be booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booking {
    /// When, milliseconds since the epoch.
    pub now_ms: u64,
    /// No other sidecar could be asked whether it has these, so one may have them too.
    pub alone: bool,
}

/// Why a batch is not booked. All are worth a retry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// Too many batches wait already.
    #[error("{QUEUE} batches wait already")]
    Busy,
    /// The database refused: full, locked by another program, or its disk failed.
    #[error("database: {0}")]
    Database(Arc<str>),
    /// The ledger is being closed.
    #[error("the ledger is closed")]
    Closed,
}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Directory or files.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Another sidecar has it.
    #[error("{0}: another sidecar uses this directory; give each its own `serve.data`")]
    InUse(PathBuf),
    /// SQLite.
    #[error("{path}: {error}")]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
    /// Made by a later version.
    #[error(
        "{path}: expected schema version {known} or less, found {found}: a later version of sluice made it"
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// What this version knows.
        known: i64,
        /// What is there.
        found: i64,
    },
}

/// Numbers about the writer, for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Batches that wait.
    pub queued: AtomicU64,
    /// Transactions committed.
    pub commits: AtomicU64,
    /// Time spent in them, microseconds.
    pub commit_us: AtomicU64,
    /// Transactions that failed.
    pub errors: AtomicU64,
    /// Records pruned.
    pub pruned: AtomicU64,
    /// Whether the last transaction failed.
    pub failing: AtomicBool,
}

/// The ledger of one sidecar.
pub struct Ledger {
    jobs: mpsc::Sender<writer::Job>,
    writer: std::sync::Mutex<Option<JoinHandle<()>>>,
    stats: Arc<Stats>,
    path: PathBuf,
    /// Name of this ledger's sidecar, the same after a restart.
    sidecar: String,
    /// Number of the last record that it had when it was opened.
    opened: u64,
    /// Held while the ledger is open, so that no second sidecar writes it.
    _lock: File,
}

/// What the ledger says was used in windows that are not over, by window start in seconds.
pub type Used = Vec<(Counted, u64)>;

/// The database file of the ledger in `data`.
#[must_use]
pub fn database(data: &Path) -> PathBuf {
    data.join("ledger.sqlite3")
}

/// Opens the ledger in `data` for reading, beside a running sidecar if there is one. One of an
/// earlier version is read as if it were of this one.
///
/// # Errors
/// When there is none, or it is of a later version.
pub fn read(data: &Path) -> Result<Connection, OpenError> {
    let path = database(data);
    let fail = |error| OpenError::Database {
        path: path.clone(),
        error,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(fail)?;
    connection
        .busy_timeout(Duration::from_secs(5))
        .map_err(fail)?;
    schema::check(&connection, &path)?;
    schema::present(&connection).map_err(fail)?;
    Ok(connection)
}

impl Ledger {
    /// Opens or makes the ledger and starts its writer. Also tells what was used in windows that
    /// are not over at `now_ms`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: &Options, now_ms: u64) -> Result<(Self, Used), OpenError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::File { path, error }
        };
        std::fs::create_dir_all(&options.data).map_err(file(&options.data))?;
        let lock_path = options.data.join("lock");
        let lock = File::create(&lock_path).map_err(file(&lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse(options.data.clone()),
            TryLockError::Error(error) => file(&lock_path)(error),
        })?;

        let path = database(&options.data);
        let fail = |error| OpenError::Database {
            path: path.clone(),
            error,
        };
        let mut connection = schema::open(&path, options.max_bytes)?;
        let sidecar = schema::sidecar(&connection).map_err(fail)?;
        let used = schema::used(&mut connection, now_ms).map_err(fail)?;

        let stats = Arc::new(Stats::default());
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writing = (options.clone(), stats.clone());
        let writer = writer::Writer::new(connection, path.clone(), writing).map_err(fail)?;
        let opened = writer.opened();
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(file(&path))?;
        let ledger = Ledger {
            jobs,
            writer: std::sync::Mutex::new(Some(thread)),
            stats,
            path,
            sidecar,
            opened,
            _lock: lock,
        };
        Ok((ledger, used))
    }

    /// Books `items` durably; tells for each whether it is new (or was booked before).
    ///
    /// # Errors
    /// See [`LedgerError`]; then none of `items` is booked.
    pub async fn book(
        &self,
        items: Arc<Vec<Settle>>,
        booking: Booking,
    ) -> Result<Vec<bool>, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let job = writer::Job::Book {
            items,
            booking,
            reply,
        };
        self.stats.queued.fetch_add(1, Ordering::Relaxed);
        self.jobs.try_send(job).map_err(|error| {
            self.stats.queued.fetch_sub(1, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => LedgerError::Busy,
                mpsc::error::TrySendError::Closed(_) => LedgerError::Closed,
            }
        })?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// Removes a bounded number of records and counters that are past their time.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn prune(&self, now_ms: u64) -> Result<u64, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.jobs
            .send(writer::Job::Prune { now_ms, reply })
            .await
            .map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// Gives numbers above `seq` to what was booked since the ledger was opened, and from now on:
    /// its file is an older copy of one whose records up to `seq` are published.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn skip_to(&self, seq: u64) -> Result<(), LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.jobs
            .send(writer::Job::SkipTo { seq, reply })
            .await
            .map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// Writes what waits and stops the writer. Idempotent; what comes later is refused.
    pub async fn close(&self) {
        let _ = self.jobs.send(writer::Job::Close).await;
        let thread = self
            .writer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Numbers about the writer.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Whether the last transaction went well and the writer is there.
    #[must_use]
    pub fn healthy(&self) -> bool {
        !self.stats.failing.load(Ordering::Relaxed) && !self.jobs.is_closed()
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name of this ledger's sidecar, the same after a restart.
    #[must_use]
    pub fn sidecar(&self) -> &str {
        &self.sidecar
    }
}

#[cfg(test)]
mod tests;
