//! Reading: a report over what all sidecars have published.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands;

use super::super::query::{Breakdowns, Query};
use super::super::sums::{Labels, Numbers};
use super::{HOUR_MS, HOURS, STREAM, UNHURRIED, hour_key, nonsense, sums_key};
use crate::report::{Booked, Covers, Report};
use crate::store::{Link, StoreError};

/// Hashes per round trip: short, because budgets are decided between two of them.
const CHUNK: usize = 200;
/// Hours whose label sets are read in one round trip: each may have thousands.
const HOURS_CHUNK: usize = 20;
/// Records per round trip.
const RECORDS: usize = 500;
/// Beyond this lag a sidecar that runs has not published what a report should have: it publishes
/// every second.
const LATE_SECS: u64 = 10;

/// How long a report over all sidecars may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The report over all sidecars in due time, or why there is none.
///
/// # Errors
/// A sentence for the reader of the report that is made instead.
pub async fn report(reader: &Reader, query: &Query, now_ms: u64) -> Result<Report, String> {
    match tokio::time::timeout(PATIENCE, reader.report(query, now_ms)).await {
        Ok(report) => report.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no report within {PATIENCE:?}")),
    }
}

/// Reads what all sidecars have published.
pub struct Reader {
    pub(super) link: Arc<Link>,
}

impl Reader {
    /// A reader behind `link`.
    #[must_use]
    pub fn new(link: Arc<Link>) -> Self {
        Reader { link }
    }

    /// The report over all sidecars. Sums are kept by the hour, so the query's moments are rounded
    /// outwards to whole hours, and the report says to which.
    ///
    /// # Errors
    /// When Redis cannot be reached or holds something else than sums of ours.
    pub async fn report(&self, query: &Query, now_ms: u64) -> Result<Report, StoreError> {
        let query = Query {
            from_ms: query.from_ms.map(|it| it / HOUR_MS * HOUR_MS),
            to_ms: query
                .to_ms
                .map(|it| it.div_ceil(HOUR_MS).saturating_mul(HOUR_MS)),
            ..query.clone()
        };
        // Before the sums: they hold at least what the marks say.
        let covers = self.covers(now_ms).await?;
        let mut breakdowns = Breakdowns::new(&query);
        let mut folded = false;
        for hours in self.hours(&query).await?.chunks(HOURS_CHUNK) {
            let mut wanted = Vec::new();
            for (hour, index) in hours
                .iter()
                .zip(self.hashes(hours, |it| hour_key(*it)).await?)
            {
                let index: BTreeMap<String, String> = index;
                for (text, number) in index {
                    let labels =
                        Labels::decode(&text).ok_or_else(|| nonsense("a label set", &text))?;
                    folded |= labels.is_folded();
                    let theirs = |tenant| labels.tenant() == Some(tenant);
                    if query.tenant.as_deref().is_none_or(theirs) {
                        wanted.push((*hour, labels, number));
                    }
                }
            }
            for wanted in wanted.chunks(CHUNK) {
                let hashes = self.hashes(wanted, |(hour, _, number)| sums_key(*hour, number));
                for ((hour, labels, _), fields) in wanted.iter().zip(hashes.await?) {
                    let numbers =
                        Numbers::read(&fields).ok_or_else(|| nonsense("sums", &fields))?;
                    let sums = numbers.sums(labels);
                    breakdowns.add(|dimension| labels.value(dimension, *hour), &sums);
                }
            }
        }
        let mut report = breakdowns.finish();
        report.covers = covers;
        if folded {
            report.covers.notes.push(
                "some hours had more label sets than are told apart: part of their sums is under \
                 `other`, and of those of tenants beyond twice as many under the tenant `other`"
                    .to_owned(),
            );
        }
        report.records = self.latest(&query).await?;
        Ok(report)
    }

    async fn covers(&self, now_ms: u64) -> Result<Covers, StoreError> {
        let marks = self.marks().await?;
        let sidecars: Vec<_> = marks
            .iter()
            .map(|(sidecar, mark)| mark.published(sidecar, now_ms))
            .collect();
        let late = |secs: Option<u64>| secs.is_none_or(|secs| secs > LATE_SECS);
        Ok(Covers {
            shared: true,
            complete: sidecars
                .iter()
                .all(|it| it.pending == 0 && (it.closed || !late(it.lag_secs))),
            sidecars,
            ..Covers::default()
        })
    }

    /// The hours that have sums, in seconds.
    async fn hours(&self, query: &Query) -> Result<Vec<u64>, StoreError> {
        let from = query
            .from_ms
            .map_or("-inf".to_owned(), |it| (it / 1000).to_string());
        let to = query
            .to_ms
            .map_or("+inf".to_owned(), |it| format!("({}", it / 1000));
        self.link
            .call(UNHURRIED, async |mut redis| {
                redis.zrangebyscore(HOURS, from, to).await
            })
            .await
    }

    /// The hashes at the keys of `items`; an empty one where there is none.
    async fn hashes<T, V: redis::FromRedisValue>(
        &self,
        items: &[T],
        key: impl Fn(&T) -> String,
    ) -> Result<Vec<BTreeMap<String, V>>, StoreError> {
        let mut pipe = redis::pipe();
        for item in items {
            pipe.hgetall(key(item));
        }
        self.link
            .call(UNHURRIED, async |mut redis| {
                pipe.query_async(&mut redis).await
            })
            .await
    }

    /// The records of the query that were published last, latest first.
    async fn latest(&self, query: &Query) -> Result<Vec<Booked>, StoreError> {
        let mut records = Vec::new();
        let mut end = "+".to_owned();
        while records.len() < query.records {
            let mut command = redis::cmd("XREVRANGE");
            command.arg(STREAM).arg(&end).arg("-");
            command.arg("COUNT").arg(RECORDS);
            let page: Vec<(String, BTreeMap<String, String>)> = self
                .link
                .call(UNHURRIED, async |mut redis| {
                    command.query_async(&mut redis).await
                })
                .await?;
            let Some((oldest, _)) = page.last() else {
                break;
            };
            end = format!("({oldest}");
            for (id, fields) in &page {
                let text = fields.get("r").map_or("", String::as_str);
                let booked: Booked =
                    serde_json::from_str(text).map_err(|_| nonsense("a record", &id))?;
                if query.holds(&booked.record) && records.len() < query.records {
                    records.push(booked);
                }
            }
        }
        Ok(records)
    }
}
