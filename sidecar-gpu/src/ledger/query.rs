//! Sums over the ledger.

use std::collections::BTreeMap;
use std::str::FromStr;

use rusqlite::types::Value;
use rusqlite::{Connection, Row as SqlRow, params_from_iter};
use sluice_wire::{CacheResult, Lever, Record};

use super::{feed, schema};
use crate::report::{
    ByLever, Covers, Money, Published, Report, Row, Sums, Tokens, Trimming, UnknownPrices, sort,
};

/// Most rows of one breakdown; the cheapest beyond are left out, and [`Report::cut`] says so.
const MAX_ROWS: usize = 10_000;
/// Most breakdowns of one report.
const MAX_BREAKDOWNS: usize = 16;

/// What to sum by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// What requests were for.
    Task,
    /// The model that was used.
    Model,
    /// The API.
    Endpoint,
    /// Who pays.
    Tenant,
    /// The tier that was chosen.
    Tier,
    /// The config's route.
    Route,
    /// What the cache did.
    Cache,
    /// How it ended.
    Outcome,
    /// The UTC day of arrival.
    Day,
    /// The UTC hour of arrival.
    Hour,
}

impl Dimension {
    const ALL: [Dimension; 10] = [
        Dimension::Task,
        Dimension::Model,
        Dimension::Endpoint,
        Dimension::Tenant,
        Dimension::Tier,
        Dimension::Route,
        Dimension::Cache,
        Dimension::Outcome,
        Dimension::Day,
        Dimension::Hour,
    ];

    /// The word for it in queries and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Task => "task",
            Dimension::Model => "model",
            Dimension::Endpoint => "endpoint",
            Dimension::Tenant => "tenant",
            Dimension::Tier => "tier",
            Dimension::Route => "route",
            Dimension::Cache => "cache",
            Dimension::Outcome => "outcome",
            Dimension::Day => "day",
            Dimension::Hour => "hour",
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Dimension::Day => "date(at_ms / 1000, 'unixepoch')",
            Dimension::Hour => "strftime('%Y-%m-%dT%H:00:00Z', at_ms / 1000, 'unixepoch')",
            other => other.name(),
        }
    }
}

impl FromStr for Dimension {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Dimension::ALL
            .into_iter()
            .find(|it| it.name() == text)
            .ok_or_else(|| {
                let names: Vec<&str> = Dimension::ALL.iter().map(|it| it.name()).collect();
                format!("expected one of {}, found `{text}`", names.join(", "))
            })
    }
}

/// What to sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Arrived at or after, milliseconds since the epoch.
    pub from_ms: Option<u64>,
    /// Arrived before.
    pub to_ms: Option<u64>,
    /// Of this tenant only.
    pub tenant: Option<String>,
    /// Breakdowns, each by one dimension or several together.
    pub by: Vec<Vec<Dimension>>,
    /// How many of the latest records to show.
    pub records: usize,
}

impl Query {
    /// Reads breakdowns: `task,model` are two, `tenant:model` is one by both together.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn breakdowns(text: &str) -> Result<Vec<Vec<Dimension>>, String> {
        let by: Vec<Vec<Dimension>> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| part.split(':').map(str::parse).collect())
            .collect::<Result<_, _>>()?;
        if by.len() > MAX_BREAKDOWNS {
            return Err(format!(
                "expected at most {MAX_BREAKDOWNS} breakdowns, found {}",
                by.len()
            ));
        }
        Ok(by)
    }

    /// Whether `record` is one that is asked for.
    pub(super) fn holds(&self, record: &Record) -> bool {
        self.from_ms.is_none_or(|from| record.at_ms >= from)
            && self.to_ms.is_none_or(|to| record.at_ms < to)
            && self.tenant.as_ref().is_none_or(|it| *it == record.tenant)
    }

    fn report(&self) -> Report {
        Report {
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            tenant: self.tenant.clone(),
            ..Report::default()
        }
    }
}

/// A report that is added up from sums of a single label set each.
pub(super) struct Breakdowns<'a> {
    query: &'a Query,
    total: Sums,
    rows: Vec<BTreeMap<Vec<String>, Sums>>,
}

impl<'a> Breakdowns<'a> {
    pub(super) fn new(query: &'a Query) -> Self {
        Breakdowns {
            query,
            total: Sums::default(),
            rows: vec![BTreeMap::new(); query.by.len()],
        }
    }

    /// Adds `sums` of records whose labels `value` tells.
    pub(super) fn add(&mut self, value: impl Fn(Dimension) -> String, sums: &Sums) {
        self.total.add(sums);
        for (dimensions, rows) in self.query.by.iter().zip(&mut self.rows) {
            let key = dimensions.iter().map(|it| value(*it)).collect();
            rows.entry(key).or_default().add(sums);
        }
    }

    pub(super) fn finish(self) -> Report {
        let mut report = self.query.report();
        report.total = self.total;
        for (dimensions, rows) in self.query.by.iter().zip(self.rows) {
            let rows = rows.into_iter().map(|(values, sums)| Row {
                key: dimensions
                    .iter()
                    .map(|it| it.name().to_owned())
                    .zip(values)
                    .collect(),
                sums,
            });
            let mut rows: Vec<Row> = rows.collect();
            sort(&mut rows);
            insert(&mut report, dimensions, rows);
        }
        report
    }
}

fn insert(report: &mut Report, dimensions: &[Dimension], mut rows: Vec<Row>) {
    let names: Vec<&str> = dimensions.iter().map(|it| it.name()).collect();
    let name = names.join(":");
    if rows.len() > MAX_ROWS {
        rows.truncate(MAX_ROWS);
        report.cut.push(name.clone());
    }
    report.by.insert(name, rows);
}

/// Sums the ledger behind `connection`, all breakdowns over the same state of it.
///
/// # Errors
/// SQLite's.
pub fn query(connection: &mut Connection, query: &Query) -> rusqlite::Result<Report> {
    let snapshot = connection.transaction()?;
    let mut report = query.report();
    let sidecar = schema::sidecar(&snapshot)?;
    report.records = feed::latest(&snapshot, &sidecar, (query, query.records))?;
    report.covers = Covers {
        complete: true,
        sidecars: vec![Published {
            sidecar,
            ..Published::default()
        }],
        ..Covers::default()
    };
    let rows = rows(&snapshot, query, &[])?;
    if let Some(row) = rows.into_iter().next() {
        report.total = row.sums;
    }
    for dimensions in &query.by {
        let rows = self::rows(&snapshot, query, dimensions)?;
        insert(&mut report, dimensions, rows);
    }
    Ok(report)
}

/// Money is summed in two halves, because SQLite's SUM stops at 64 bits: $9.2 million.
const HALF: i128 = 1_000_000_000;

const OUTCOMES: [&str; 4] = ["answered", "rejected", "upstream_error", "aborted"];

/// The condition that a record was answered from what was stored.
fn cached() -> String {
    let answering = CacheResult::ALL.into_iter().filter(|it| it.answers());
    let names: Vec<String> = answering.map(|it| format!("'{}'", it.name())).collect();
    format!("(cache IN ({}))", names.join(", "))
}

fn money_columns() -> Vec<String> {
    let mut columns = vec!["as_asked".to_owned(), "cost".to_owned()];
    for prefix in ["saved", "would"] {
        for lever in Lever::ALL {
            columns.push(format!("{prefix}_{}", lever.name()));
        }
    }
    columns.extend(["trim_gross", "trim_lost"].map(str::to_owned));
    columns
}

/// The records that `query` asks for, as a condition and the values in it.
pub(super) fn conditions(query: &Query) -> (String, Vec<Value>) {
    let mut conditions = vec!["1"];
    let mut values: Vec<Value> = Vec::new();
    let time = |ms: u64| Value::Integer(i64::try_from(ms).unwrap_or(i64::MAX));
    if let Some(from) = query.from_ms {
        conditions.push("at_ms >= ?");
        values.push(time(from));
    }
    if let Some(to) = query.to_ms {
        conditions.push("at_ms < ?");
        values.push(time(to));
    }
    if let Some(tenant) = &query.tenant {
        conditions.push("tenant = ?");
        values.push(Value::Text(tenant.clone()));
    }
    (conditions.join(" AND "), values)
}

fn rows(
    connection: &Connection,
    query: &Query,
    dimensions: &[Dimension],
) -> rusqlite::Result<Vec<Row>> {
    let mut columns: Vec<String> = dimensions.iter().map(|it| it.sql().to_owned()).collect();
    let cached = cached();
    columns.extend(["COUNT(*)".to_owned(), format!("SUM({cached})")]);
    for column in [
        "SUM(estimated)",
        "SUM(as_asked IS NULL)",
        "SUM(cost IS NULL)",
    ] {
        columns.push(column.to_owned());
    }
    for condition in [format!("NOT {cached}"), cached] {
        for kind in ["prompt", "cached", "cache_write", "completion", "reasoning"] {
            columns.push(format!("SUM({kind}) FILTER (WHERE {condition})"));
        }
    }
    for outcome in OUTCOMES {
        columns.push(format!("SUM(outcome = '{outcome}')"));
    }
    columns.extend(["COUNT(trim_tokens)", "SUM(trim_tokens)"].map(str::to_owned));
    for column in money_columns() {
        columns.push(format!("SUM({column} / {HALF})"));
        columns.push(format!("SUM({column} % {HALF})"));
    }

    let (conditions, values) = conditions(query);
    let mut sql = format!(
        "SELECT {} FROM records WHERE {}",
        columns.join(", "),
        conditions
    );
    if !dimensions.is_empty() {
        let positions: Vec<String> = (1..=dimensions.len()).map(|it| it.to_string()).collect();
        sql.push_str(&format!(" GROUP BY {}", positions.join(", ")));
    }

    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement
        .query_map(params_from_iter(values), |row| read(row, dimensions))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    sort(&mut rows);
    Ok(rows)
}

fn tokens(count: &mut impl FnMut() -> rusqlite::Result<u64>) -> rusqlite::Result<Tokens> {
    Ok(Tokens {
        prompt: count()?,
        cached: count()?,
        cache_write: count()?,
        completion: count()?,
        reasoning: count()?,
    })
}

fn read(row: &SqlRow<'_>, dimensions: &[Dimension]) -> rusqlite::Result<Row> {
    let mut key = BTreeMap::new();
    for (index, dimension) in dimensions.iter().enumerate() {
        key.insert(
            dimension.name().to_owned(),
            // A date beyond SQLite's calendar is NULL.
            row.get::<_, Option<String>>(index)?.unwrap_or_default(),
        );
    }
    let mut at = dimensions.len();
    // SUM over no rows is NULL.
    let mut next = || -> rusqlite::Result<i64> {
        at += 1;
        Ok(row.get::<_, Option<i64>>(at - 1)?.unwrap_or(0))
    };
    let mut count = || next().map(|it| u64::try_from(it).unwrap_or(0));
    let mut sums = Sums {
        requests: count()?,
        cache_hits: count()?,
        estimated: count()?,
        unknown_prices: UnknownPrices {
            as_asked: count()?,
            cost: count()?,
        },
        tokens: tokens(&mut count)?,
        tokens_from_cache: tokens(&mut count)?,
        ..Sums::default()
    };
    for outcome in OUTCOMES {
        let requests = count()?;
        if requests > 0 {
            sums.outcomes.insert(outcome.to_owned(), requests);
        }
    }
    let (requests, tokens) = (count()?, count()?);
    let mut money = || -> rusqlite::Result<Money> {
        let (high, low) = (next()?, next()?);
        Ok(Money(i128::from(high) * HALF + i128::from(low)))
    };
    sums.as_asked = money()?;
    sums.cost = money()?;
    sums.saved = ByLever::new([money()?, money()?, money()?, money()?, money()?]);
    sums.would_save = ByLever::new([money()?, money()?, money()?, money()?, money()?]);
    sums.trim = Trimming::new((requests, tokens), (money()?, money()?));
    Ok(Row { key, sums })
}
