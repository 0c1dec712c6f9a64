//! The ledger read in the order of booking: what is published to the other sidecars.

use rusqlite::{Connection, Row, params, params_from_iter};
use serde::de::DeserializeOwned;
use sluice_wire::{Record, Savings, Trimmed, Usage, Usd};

use super::query::{Query, conditions};
use super::writer;
use crate::budget::Id;
use crate::report::Booked;

/// A record and what publishing needs to know about it.
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) id: Id,
    /// See [`super::Booking::alone`].
    pub(super) alone: bool,
    pub(super) booked: Booked,
}

/// The highest number that a record has or had.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<u64> {
    writer::last(connection).map(unsigned)
}

/// At most `limit` records with a number above `seq`, lowest first.
pub(super) fn after(
    connection: &Connection,
    sidecar: &str,
    (seq, limit): (u64, usize),
) -> rusqlite::Result<Vec<Entry>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM records WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let rows = statement.query_map(params![signed(seq), signed(limit as u64)], |row| {
        entry(row, sidecar)
    })?;
    rows.collect()
}

/// The `limit` records of `query` that were booked last, latest first.
pub(super) fn latest(
    connection: &Connection,
    sidecar: &str,
    (query, limit): (&Query, usize),
) -> rusqlite::Result<Vec<Booked>> {
    let (conditions, values) = conditions(query);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT * FROM records WHERE {conditions} ORDER BY seq DESC LIMIT {limit}"
    ))?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        entry(row, sidecar).map(|entry| entry.booked)
    })?;
    rows.collect()
}

fn entry(row: &Row<'_>, sidecar: &str) -> rusqlite::Result<Entry> {
    let number = |name: &str| row.get(name).map(unsigned);
    let usd = |name: &str| row.get(name).map(Usd);
    let id = Id(u128::from_be_bytes(row.get("id")?));
    let record = Record {
        id: id.to_string(),
        at_ms: number("at_ms")?,
        tenant: row.get("tenant")?,
        task: row.get("task")?,
        conversation: row.get("conversation")?,
        route: row.get("route")?,
        endpoint: row.get("endpoint")?,
        model_asked: row.get("model_asked")?,
        model: row.get("model")?,
        tier: row.get("tier")?,
        score_milli: row.get("score_milli")?,
        stream: row.get("stream")?,
        status: row.get("status")?,
        outcome: named(row.get("outcome")?),
        cache: named(row.get("cache")?),
        age_secs: row.get::<_, Option<i64>>("age_secs")?.map(unsigned),
        usage: Usage {
            prompt: number("prompt")?,
            cached: number("cached")?,
            cache_write: number("cache_write")?,
            completion: number("completion")?,
            reasoning: number("reasoning")?,
        },
        estimated: row.get("estimated")?,
        as_asked: row.get::<_, Option<i64>>("as_asked")?.map(Usd),
        cost: row.get::<_, Option<i64>>("cost")?.map(Usd),
        saved: savings(&usd, "saved")?,
        trim: trimmed(row)?,
        would_save: savings(&usd, "would")?,
    };
    Ok(Entry {
        seq: number("seq")?,
        id,
        alone: row.get("alone")?,
        booked: Booked {
            booked_ms: number("booked_ms")?,
            sidecar: sidecar.to_owned(),
            record,
        },
    })
}

fn trimmed(row: &Row<'_>) -> rusqlite::Result<Option<Trimmed>> {
    let Some(tokens) = row.get("trim_tokens")? else {
        return Ok(None);
    };
    Ok(Some(Trimmed {
        tokens: unsigned(tokens),
        gross: Usd(row.get("trim_gross")?),
        lost: Usd(row.get("trim_lost")?),
    }))
}

fn savings(
    usd: &impl Fn(&str) -> rusqlite::Result<Usd>,
    prefix: &str,
) -> rusqlite::Result<Savings> {
    let of = |lever: &str| usd(&format!("{prefix}_{lever}"));
    Ok(Savings {
        route: of("route")?,
        trim: of("trim")?,
        cache: of("cache")?,
        batch: of("batch")?,
        offload: of("offload")?,
    })
}

/// A value by the name that it is stored under. One of a later version is the default.
fn named<T: DeserializeOwned + Default>(name: String) -> T {
    serde_json::from_value(serde_json::Value::String(name)).unwrap_or_default()
}

/// The table's integers are signed, and never negative.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
