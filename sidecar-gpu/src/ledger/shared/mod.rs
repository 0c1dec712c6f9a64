//! The ledger that all sidecars on one Redis share: hourly sums by label set, and the latest
//! records.
//!
//! Each sidecar's own file stays the source of truth. What it has booked is published in the order
//! of booking, in the background, together with a mark that says how far it has come; the mark
//! lives in Redis beside the sums and moves with them. So a batch that is tried twice counts once,
//! a Redis that went back to an older snapshot is told what it lost, and one that comes back empty
//! is told everything that the files still hold.

mod publish;
mod read;

use std::collections::BTreeMap;

pub use publish::{PublishError, Publisher};
pub use read::{Reader, report};

use crate::report::Published;
use crate::store::StoreError;

/// How much longer than an admit a call may take: no request waits for it.
const UNHURRIED: u32 = 20;
/// An hour, in milliseconds.
const HOUR_MS: u64 = 3_600_000;

const SIDECARS: &str = "{sluice}:l:sidecars";
const HOURS: &str = "{sluice}:l:hours";
const STREAM: &str = "{sluice}:l:stream";

fn hour_key(hour_secs: u64) -> String {
    format!("{{sluice}}:l:h:{hour_secs}")
}

/// As in `publish.lua`, which writes them.
fn sums_key(hour_secs: u64, number: &str) -> String {
    format!("{{sluice}}:l:s:{hour_secs}:{number}")
}

fn owners_key(hour_secs: u64) -> String {
    format!("{{sluice}}:l:o:{hour_secs}")
}

fn nonsense(expected: &'static str, found: &impl std::fmt::Debug) -> StoreError {
    StoreError::Nonsense {
        expected,
        found: format!("{found:?}"),
    }
}

/// How far a sidecar has published, as it is kept in Redis: `SEQ UNTIL_MS PENDING STATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Number of the last record that is published.
    seq: u64,
    /// All that was booked until then is published; 0 while that was never so.
    until_ms: u64,
    /// Records that wait.
    pending: u64,
    /// The sidecar has ended in good order: nothing is booked until it starts again.
    closed: bool,
}

impl Mark {
    fn encode(self) -> String {
        let state = if self.closed { "closed" } else { "open" };
        format!("{} {} {} {state}", self.seq, self.until_ms, self.pending)
    }

    fn decode(text: &str) -> Option<Mark> {
        let mut parts = text.split(' ');
        let mut number = || parts.next()?.parse().ok();
        Some(Mark {
            seq: number()?,
            until_ms: number()?,
            pending: number()?,
            closed: parts.next()? == "closed",
        })
    }

    fn published(self, sidecar: &str, now_ms: u64) -> Published {
        let until_ms = (self.until_ms > 0).then_some(self.until_ms);
        Published {
            sidecar: sidecar.to_owned(),
            until_ms,
            lag_secs: until_ms
                .filter(|_| !self.closed)
                .map(|it| now_ms.saturating_sub(it) / 1000),
            pending: self.pending,
            closed: self.closed,
        }
    }
}

/// The marks of all sidecars, by name.
fn marks(found: BTreeMap<String, String>) -> BTreeMap<String, Mark> {
    found
        .into_iter()
        .filter_map(|(sidecar, text)| Some((sidecar, Mark::decode(&text)?)))
        .collect()
}
