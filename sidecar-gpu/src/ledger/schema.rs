//! The ledger's tables and how an older file becomes the present one.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};
use sluice_wire::{Counted, Unit, Window};

use super::{OpenError, Used};

/// One entry per schema version, applied in order. Never edit one that was released: append.
const MIGRATIONS: [&str; 3] = [
    "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('sidecar', lower(hex(randomblob(8))));

-- In order of booking. Money is in picodollars; NULL means that the price is unknown.
CREATE TABLE records (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL,
  booked_ms INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  tenant TEXT NOT NULL, task TEXT NOT NULL, conversation TEXT NOT NULL,
  route TEXT NOT NULL, endpoint TEXT NOT NULL,
  model_asked TEXT NOT NULL, model TEXT NOT NULL, tier TEXT NOT NULL,
  score_milli INTEGER, stream INTEGER NOT NULL, status INTEGER NOT NULL,
  outcome TEXT NOT NULL, cache TEXT NOT NULL,
  prompt INTEGER NOT NULL, cached INTEGER NOT NULL, cache_write INTEGER NOT NULL,
  completion INTEGER NOT NULL, reasoning INTEGER NOT NULL, estimated INTEGER NOT NULL,
  as_asked INTEGER, cost INTEGER,
  saved_route INTEGER NOT NULL, saved_trim INTEGER NOT NULL, saved_cache INTEGER NOT NULL,
  saved_batch INTEGER NOT NULL, saved_offload INTEGER NOT NULL,
  would_route INTEGER NOT NULL, would_trim INTEGER NOT NULL, would_cache INTEGER NOT NULL,
  would_batch INTEGER NOT NULL, would_offload INTEGER NOT NULL
);
CREATE UNIQUE INDEX records_id ON records (id);
CREATE INDEX records_at ON records (at_ms);
CREATE INDEX records_tenant ON records (tenant, at_ms);

-- What budgets were charged, so that a restart with the memory store forgets nothing.
CREATE TABLE charges (
  counter TEXT NOT NULL, window TEXT NOT NULL, unit TEXT NOT NULL,
  window_start INTEGER NOT NULL, window_end INTEGER NOT NULL, amount INTEGER NOT NULL,
  PRIMARY KEY (counter, window, unit, window_start)
) WITHOUT ROWID;
CREATE INDEX charges_end ON charges (window_end);
",
    "
-- Whether it was booked without asking the other sidecars, so that one of them may have it too.
ALTER TABLE records ADD COLUMN alone INTEGER NOT NULL DEFAULT 1;
ALTER TABLE records ADD COLUMN age_secs INTEGER;
",
    "
-- What trimming left out, in tokens and picodollars; NULL where it had no hand in it, and in what
-- was booked before this was known.
ALTER TABLE records ADD COLUMN trim_tokens INTEGER;
ALTER TABLE records ADD COLUMN trim_gross INTEGER;
ALTER TABLE records ADD COLUMN trim_lost INTEGER;
",
];

/// The columns of `records` that each later version added, as a file from before has them.
const ADDED: [(i64, &str); 2] = [
    (2, "1 AS alone, NULL AS age_secs"),
    (
        3,
        "NULL AS trim_tokens, NULL AS trim_gross, NULL AS trim_lost",
    ),
];

const KNOWN: i64 = MIGRATIONS.len() as i64;

/// Opens the database for writing and brings its schema up to date.
pub(super) fn open(path: &Path, max_bytes: Option<u64>) -> Result<Connection, OpenError> {
    let fail = |error| OpenError::Database {
        path: path.to_owned(),
        error,
    };
    let connection = connect(path, max_bytes).map_err(fail)?;
    check(&connection, path)?;
    migrate(connection).map_err(fail)
}

/// A connection with the ledger's settings.
pub(super) fn connect(path: &Path, max_bytes: Option<u64>) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // Long enough for a checkpoint or a backup; then the batch is refused and retried.
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL, because NORMAL may lose the last commits when the machine loses power.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    if let Some(bytes) = max_bytes {
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        // Answers with the new value, which pragma_update would take for an error.
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
}

/// Refuses a file of a later version.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let found = version(connection).map_err(|error| OpenError::Database {
        path: path.to_owned(),
        error,
    })?;
    if found > KNOWN {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            known: KNOWN,
            found,
        });
    }
    Ok(())
}

/// Lets a connection that may not write, and so not migrate, read an older file as if it were of the
/// present version: by a view of its own that stands before the table.
pub(super) fn present(connection: &Connection) -> rusqlite::Result<()> {
    let found = version(connection)?;
    let missing = ADDED.iter().filter(|(version, _)| *version > found);
    let missing: Vec<&str> = missing.map(|(_, columns)| *columns).collect();
    if missing.is_empty() {
        return Ok(());
    }
    connection.execute_batch(&format!(
        "CREATE TEMP VIEW records AS SELECT *, {} FROM main.records",
        missing.join(", ")
    ))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn migrate(mut connection: Connection) -> rusqlite::Result<Connection> {
    let from = usize::try_from(version(&connection)?).unwrap_or(0);
    for (index, step) in MIGRATIONS.iter().enumerate().skip(from) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// Name of this ledger's sidecar.
pub(super) fn sidecar(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT value FROM meta WHERE name = 'sidecar'", [], |row| {
        row.get(0)
    })
}

/// What was used in windows that are not over.
pub(super) fn used(connection: &mut Connection, now_ms: u64) -> rusqlite::Result<Used> {
    let now_secs = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    let mut statement = connection.prepare(
        "SELECT counter, window, unit, amount, window_start FROM charges WHERE window_end > ?",
    )?;
    let rows = statement.query_map(params![now_secs], |row| {
        let (window, unit): (String, String) = (row.get(1)?, row.get(2)?);
        let counted = Counted {
            counter: row.get(0)?,
            window: window_of(&window),
            unit: if unit == "usd" {
                Unit::Usd
            } else {
                Unit::Tokens
            },
            amount: unsigned(row.get(3)?),
        };
        Ok((counted, unsigned(row.get(4)?)))
    })?;
    rows.collect()
}

/// The table's integers are signed, and never negative.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn window_of(name: &str) -> Window {
    [Window::Minute, Window::Hour, Window::Day]
        .into_iter()
        .find(|it| it.name() == name)
        .unwrap_or(Window::Month)
}

/// The word for a unit in the table.
pub(super) fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Tokens => "tokens",
        Unit::Usd => "usd",
    }
}
