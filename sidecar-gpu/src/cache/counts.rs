//! How a store has fared, for metrics and for operators.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{Corrupt, Put};

/// Everything that is counted about one store, since the start.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) voided: AtomicU64,
    stored: AtomicU64,
    fenced: AtomicU64,
    refused: AtomicU64,
    foreign: AtomicU64,
    checksum: AtomicU64,
    head: AtomicU64,
    packed: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    pub(super) fn corrupt(&self, why: &Corrupt) {
        count(match why {
            Corrupt::Foreign => &self.foreign,
            Corrupt::Checksum { .. } => &self.checksum,
            Corrupt::Head(_) => &self.head,
            Corrupt::Packed(_) => &self.packed,
        });
    }

    pub(super) fn put(&self, put: Put) {
        count(match put {
            Put::Stored => &self.stored,
            Put::Fenced => &self.fenced,
            Put::Voided => &self.voided,
            Put::Refused => &self.refused,
        });
    }

    /// The counts of the store of that name.
    pub(super) fn layer(&self, name: &str) -> Layer {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Layer {
            name: name.to_owned(),
            entries: None,
            bytes: None,
            capacity: None,
            subscribed: None,
            hits: of(&self.hits),
            misses: of(&self.misses),
            voided: of(&self.voided),
            stored: of(&self.stored),
            fenced: of(&self.fenced),
            refused: of(&self.refused),
            corrupt: [
                ("foreign", of(&self.foreign)),
                ("checksum", of(&self.checksum)),
                ("head", of(&self.head)),
                ("packed", of(&self.packed)),
            ]
            .map(|(kind, count)| (kind.to_owned(), count))
            .into(),
        }
    }
}

/// One store of answers as operators see it. Counts are since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// `memory`, `local` (in front of Redis) or `redis`.
    pub name: String,
    /// Answers kept; unknown of Redis, which others share.
    pub entries: Option<u64>,
    /// What they take in this process, bookkeeping included.
    pub bytes: Option<u64>,
    /// What they may take.
    pub capacity: Option<u64>,
    /// Whether changes elsewhere are heard of here, for a layer in front of Redis.
    pub subscribed: Option<bool>,
    /// Look-ups that found an answer.
    pub hits: u64,
    /// Look-ups that found none, or one past its time.
    pub misses: u64,
    /// Answers, found or to be stored, that an invalidation had made void.
    pub voided: u64,
    /// Answers stored.
    pub stored: u64,
    /// Answers not stored, because a later lease's was there.
    pub fenced: u64,
    /// Answers not stored, because their tags are too many, too long or without a scope.
    pub refused: u64,
    /// Values found that are no entries, by kind.
    pub corrupt: BTreeMap<String, u64>,
}
