//! What answers are asked for again and how fast they change: observed at admission and at
//! settling, so that a report can propose how long to keep them.
//!
//! Only hashes of keys and answers are held, of a sample of the keys that is as large as its bound
//! allows. For each of them a cache is played through for every candidate TTL, so what a TTL would
//! have caught is counted and not modelled.

mod answer;
mod propose;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

pub use answer::fingerprint;
pub use propose::{Audited, Goal, Point, Proposal, RouteTuning, Tuning};

use crate::cache::Key;

/// The TTLs that are played through, in seconds: 1 min, 5 min, 15 min, 1 h, 6 h, 1 day. Ages and
/// intervals are told apart by the same bounds.
pub const TTLS: [u32; N] = [60, 300, 900, 3600, 21_600, 86_400];
const N: usize = 6;
/// Keys watched at once: about 5 MB. Beyond, half of them are given up, by their hash.
const KEYS: usize = 65_536;
/// Routes that are told apart; more are counted as `other`.
const ROUTES: usize = 100;
const OTHER: &str = "other";
/// Longest name of a route; a longer one is cut.
const MAX_NAME: usize = 64;
/// A key that was not asked for that long is forgotten: no TTL would have caught it.
const HORIZON_SECS: u32 = 2 * TTLS[N - 1];
/// Re-asks of a route after which all its counts are halved, so that the present outweighs the
/// past.
const HALVE: u64 = 1 << 18;

/// What was counted for one route. All of it is of the sampled keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests that had a key.
    asks: u64,
    /// Of them, those whose key had been asked for within the horizon.
    reasks: u64,
    /// By TTL and by age of the answer: re-asks that it would have answered.
    hits: [[u64; N]; N],
    /// Answers that replaced an earlier one of the same key, by the earlier one's age; the last
    /// are older than every TTL.
    pairs: [u64; N + 1],
    /// Of them, those that said something else.
    changed: [u64; N + 1],
    /// What is stored now is kept so long, and so much longer while it is refreshed.
    kept_secs: Option<(u64, u64)>,
}

impl Counts {
    fn halve(&mut self) {
        let hits = self.hits.iter_mut().flatten();
        let pairs = self.pairs.iter_mut().chain(&mut self.changed);
        for count in hits.chain(pairs).chain([&mut self.asks, &mut self.reasks]) {
            *count /= 2;
        }
    }
}

/// An answer that is stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The route of its request.
    pub route: &'a str,
    /// See [`fingerprint`].
    pub answer: u32,
    /// How long it is fresh.
    pub ttl_secs: u64,
    /// How much longer it is served while it is refreshed.
    pub stale_secs: u64,
}

/// Watches keys. Calls take well under a microsecond; a key outside the sample costs a hash.
pub struct Observer {
    /// Keys whose hash is not above it are in the sample.
    sample: AtomicU64,
    inner: Mutex<Inner>,
    file: PathBuf,
}

struct Inner {
    keys: HashMap<u64, Seen>,
    routes: Vec<(String, Counts)>,
    /// Since when is counted.
    since_ms: u64,
}

/// A key in the sample. Times are seconds since the epoch; 0 is never.
struct Seen {
    route: u8,
    asked: u32,
    /// By TTL: since when its cache has the answer.
    held: [u32; N],
    answer: u32,
    answered: u32,
}

/// What survives a restart: the counts, not the keys.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Saved {
    since_ms: u64,
    routes: BTreeMap<String, Counts>,
}

/// The file with the counts of the sidecar whose ledger is in `data`.
#[must_use]
pub fn file(data: &Path) -> PathBuf {
    data.join("tuning.json")
}

/// The counts that a sidecar has saved in `data`, as a report.
///
/// # Errors
/// When there are none, or they are not to be read.
pub fn read(data: &Path, goal: Goal) -> std::io::Result<Tuning> {
    let saved: Saved = serde_json::from_slice(&std::fs::read(file(data))?)?;
    Ok(Tuning {
        semantic: Audited::of(crate::semantic::read_thresholds(data)?),
        ..Tuning::new(saved.since_ms, saved.routes, goal)
    })
}

impl Observer {
    /// An observer that goes on from the counts that were saved in `data`, if there are any.
    #[must_use]
    pub fn open(data: &Path, now_ms: u64) -> Self {
        let file = file(data);
        let saved = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                log::warn!("{}: {error}; counting anew", file.display());
                Saved::default()
            }),
            Err(_) => Saved::default(),
        };
        let since_ms = if saved.since_ms == 0 {
            now_ms
        } else {
            saved.since_ms
        };
        Observer {
            sample: AtomicU64::new(u64::MAX),
            inner: Mutex::new(Inner {
                keys: HashMap::new(),
                routes: saved.routes.into_iter().take(ROUTES + 1).collect(),
                since_ms,
            }),
            file,
        }
    }

    /// The hash of a key that is in the sample.
    fn sampled(&self, key: &Key) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        (hash <= self.sample.load(Ordering::Relaxed)).then_some(hash)
    }

    /// Whether [`Observer::stored`] would count an answer to this key; a fingerprint costs more
    /// than asking.
    #[must_use]
    pub fn watches(&self, key: &Key) -> bool {
        self.sampled(key)
            .is_some_and(|hash| self.inner().keys.contains_key(&hash))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request came whose answer has this key, wherever it is answered from. A route that is not
    /// known (empty) is that of the answer that was stored last.
    pub fn asked(&self, route: &str, key: &Key, now_ms: u64) {
        let Some(hash) = self.sampled(key) else {
            return;
        };
        let now = secs(now_ms);
        let mut inner = self.inner();
        if inner.keys.len() >= KEYS && !inner.keys.contains_key(&hash) {
            let sample = inner.make_room(now, self.sample.load(Ordering::Relaxed));
            self.sample.store(sample, Ordering::Relaxed);
            if hash > sample {
                return;
            }
        }
        inner.ask(route, hash, now);
    }

    /// An answer to this key was fetched from upstream and is stored.
    pub fn stored(&self, key: &Key, stored: Stored<'_>, now_ms: u64) {
        let Some(hash) = self.sampled(key) else {
            return;
        };
        self.inner().store(hash, stored, secs(now_ms));
    }

    /// What was counted, and what it proposes.
    #[must_use]
    pub fn report(&self, goal: Goal) -> Tuning {
        let saved = self.inner().saved();
        Tuning::new(saved.since_ms, saved.routes, goal)
    }

    /// Writes the counts down, for the next start and for `sluice report --cache`. A kill loses
    /// what was counted since the last time.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self) -> std::io::Result<()> {
        let saved = self.inner().saved();
        let fresh = self.file.with_extension("json.new");
        std::fs::write(&fresh, serde_json::to_vec(&saved)?)?;
        std::fs::rename(&fresh, &self.file)
    }
}

impl Inner {
    fn saved(&self) -> Saved {
        Saved {
            since_ms: self.since_ms,
            routes: self.routes.iter().cloned().collect(),
        }
    }

    fn route(&mut self, name: &str) -> u8 {
        let name = crate::text::cut(name, MAX_NAME);
        let known = |routes: &[(String, Counts)], name: &str| {
            routes.iter().position(|(known, _)| known == name)
        };
        let index = known(&self.routes, name).unwrap_or_else(|| {
            let name = if self.routes.len() < ROUTES {
                name
            } else {
                OTHER
            };
            known(&self.routes, name).unwrap_or_else(|| {
                self.routes.push((name.to_owned(), Counts::default()));
                self.routes.len() - 1
            })
        });
        // At most ROUTES and `other`.
        u8::try_from(index).unwrap_or(u8::MAX)
    }

    fn ask(&mut self, route: &str, hash: u64, now: u32) {
        let known = self.keys.get(&hash).map(|seen| seen.route);
        let route = match known {
            Some(known) if route.is_empty() => known,
            _ => self.route(route),
        };
        let seen = self.keys.entry(hash).or_insert(Seen {
            route,
            asked: 0,
            held: [0; N],
            answer: 0,
            answered: 0,
        });
        let counts = &mut self.routes[usize::from(route)].1;
        counts.asks += 1;
        let again = seen.asked != 0 && now.saturating_sub(seen.asked) <= HORIZON_SECS;
        counts.reasks += u64::from(again);
        for ((ttl, held), hits) in TTLS.iter().zip(&mut seen.held).zip(&mut counts.hits) {
            let age = now.saturating_sub(*held);
            if *held != 0 && age < *ttl {
                hits[bucket(age).min(N - 1)] += 1;
            } else {
                *held = now;
            }
        }
        (seen.route, seen.asked) = (route, now);
        if counts.reasks >= HALVE {
            counts.halve();
        }
    }

    fn store(&mut self, hash: u64, stored: Stored<'_>, now: u32) {
        let route = self.route(stored.route);
        let counts = &mut self.routes[usize::from(route)].1;
        counts.kept_secs = Some((stored.ttl_secs, stored.stale_secs));
        let Some(seen) = self.keys.get_mut(&hash) else {
            return;
        };
        if seen.answered != 0 {
            let age = bucket(now.saturating_sub(seen.answered));
            counts.pairs[age] += 1;
            counts.changed[age] += u64::from(seen.answer != stored.answer);
        }
        (seen.route, seen.answer, seen.answered) = (route, stored.answer, now);
    }

    /// Forgets keys that were not asked for long, then, while more than half of the room is taken,
    /// every second one by its hash. Returns the sample that is left; it grows again where twice as
    /// many keys would leave half of the room.
    fn make_room(&mut self, now: u32, mut sample: u64) -> u64 {
        self.keys
            .retain(|_, seen| now.saturating_sub(seen.asked) <= HORIZON_SECS);
        if self.keys.len() < KEYS / 4 {
            return sample.saturating_mul(2);
        }
        while self.keys.len() > KEYS / 2 {
            sample /= 2;
            self.keys.retain(|hash, _| *hash <= sample);
        }
        sample
    }
}

/// Seconds since the epoch; they fit until 2106.
fn secs(now_ms: u64) -> u32 {
    u32::try_from(now_ms / 1000).unwrap_or(u32::MAX)
}

/// Which bounds of [`TTLS`] an age lies between; N is beyond all.
fn bucket(age: u32) -> usize {
    TTLS.iter().position(|bound| age < *bound).unwrap_or(N)
}

#[cfg(test)]
mod tests;
