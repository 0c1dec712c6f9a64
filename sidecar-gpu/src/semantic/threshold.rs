//! The threshold of each route, where it finds itself.
//!
//! Some answers by meaning are asked upstream as well, and whether the two answers say the same
//! moves the threshold: adaptive conformal inference (I. Gibbs, E. Candès, "Adaptive Conformal
//! Inference Under Distribution Shift", 2021), on the scale of log-odds. What is false raises it by
//! `STEP · (1 − rate)`, what is right lowers it by `STEP · rate`: it rests where the share of false
//! ones is `rate`, whatever the probabilities are worth on that route, and follows where that
//! changes.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::private::Private;
use super::{DEFAULT_THRESHOLD, RULES};

/// Where a threshold stays. Below the lower end hardly anything is gained (`cargo xtask bench cache`:
/// two more of a hundred questions between 0.97 and 0.9), and all tenants of a route bear what one
/// of them has lowered; at the upper one only questions of the same terms are told (their
/// probability is 0.995).
const BOUNDS: (f64, f64) = (0.9, 0.995);
/// How far a threshold moves, in log-odds. Where the share of false hits falls in step with the odds,
/// it then strays by about ±0.35 (√(STEP/2)) around its place, 0.972 to 0.986 at 0.98, and forgets in
/// 1 / (STEP · rate) audits: 200 at a rate of 2%.
const STEP: f64 = 0.25;
/// Audits that the estimate of false hits looks back on: it is their mean until there are so many,
/// and exponentially smoothed after.
const MEMORY: f64 = 200.0;
/// Routes that are told apart; those beyond share one.
pub(super) const ROUTES: usize = 1024;
/// Longest name of a route, bytes; a longer one is cut.
const MAX_NAME: usize = 128;
/// What the routes beyond are called: no config's name begins so.
const OTHERS: &str = "\u{0}others";
/// Audits that wait to be told to the other sidecars.
const UNTOLD: usize = 4096;

/// A route's threshold and what it was found by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Log-odds of the probability from which two questions count as one.
    logit: f64,
    /// Audits whose two answers said the same.
    same: u64,
    /// Audits whose two answers did not.
    different: u64,
    /// Share of false hits, smoothed.
    estimate: f64,
}

fn logit(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln()
}

impl Default for Found {
    fn default() -> Self {
        Found {
            logit: logit(f64::from(DEFAULT_THRESHOLD)),
            same: 0,
            different: 0,
            estimate: 0.0,
        }
    }
}

impl Found {
    /// The threshold, a probability.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        let probability = 1.0 / (1.0 + (-self.logit).exp());
        probability.clamp(BOUNDS.0, BOUNDS.1)
    }

    /// Audits that were judged.
    #[must_use]
    pub fn audits(&self) -> u64 {
        self.same.saturating_add(self.different)
    }

    /// The share of false hits, about, over the last two hundred audits; none before the first.
    #[must_use]
    pub fn estimate(&self) -> Option<f64> {
        (self.audits() > 0).then_some(self.estimate)
    }

    /// After one more audit, where `rate` is the share of false hits to hold.
    #[must_use]
    pub fn after(self, audit: Judged) -> Self {
        let rate = audit.rate.clamp(0.0, 1.0);
        let step = match audit.different {
            true => STEP * (1.0 - rate),
            false => -STEP * rate,
        };
        let mut next = self;
        next.logit = (self.logit + step).clamp(logit(BOUNDS.0), logit(BOUNDS.1));
        match audit.different {
            true => next.different = next.different.saturating_add(1),
            false => next.same = next.same.saturating_add(1),
        }
        let weight = 1.0 / (next.audits() as f64).clamp(1.0, MEMORY);
        let seen = f64::from(u8::from(audit.different));
        next.estimate += (seen - next.estimate) * weight;
        next
    }

    /// What was read from outside, as far as it makes sense.
    fn checked(self) -> Option<Self> {
        let sound = self.logit.is_finite()
            && (0.0..=1.0).contains(&self.estimate)
            && self.same.checked_add(self.different).is_some();
        sound.then(|| Found {
            logit: self.logit.clamp(logit(BOUNDS.0), logit(BOUNDS.1)),
            ..self
        })
    }

    /// As it stands in Redis.
    pub(super) fn encode(&self) -> String {
        let Found {
            logit,
            same,
            different,
            estimate,
        } = self;
        format!("{logit} {same} {different} {estimate}")
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let found = Found {
            logit: parts.next()?.parse().ok()?,
            same: parts.next()?.parse().ok()?,
            different: parts.next()?.parse().ok()?,
            estimate: parts.next()?.parse().ok()?,
        };
        found.checked().filter(|_| parts.next().is_none())
    }
}

/// What came of an audit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The two answers do not say the same.
    pub different: bool,
    /// Share of false hits to hold.
    pub rate: f64,
}

#[derive(Default)]
struct Inner {
    routes: HashMap<String, Found>,
    /// By route: audits that the other sidecars have not heard of, oldest first.
    untold: HashMap<String, Vec<Judged>>,
    waiting: usize,
}

/// The thresholds of all routes.
#[derive(Default)]
pub(super) struct Thresholds {
    inner: Mutex<Inner>,
    file: Option<PathBuf>,
    made_by: String,
}

/// What survives a restart.
#[derive(Default, Serialize, Deserialize)]
struct Saved {
    /// What the probabilities were made by: another model's mean something else.
    made_by: String,
    routes: Vec<(String, Found)>,
}

/// The file with the thresholds of the sidecar whose ledger is in `data`.
fn file(data: &Path) -> PathBuf {
    data.join("semantic.thresholds")
}

/// The thresholds that a sidecar has saved in `data`, by route.
///
/// # Errors
/// The file system's, and what is no such file.
pub fn read_thresholds(data: &Path) -> io::Result<Vec<(String, Found)>> {
    Ok(read(data)?.routes)
}

fn read(data: &Path) -> io::Result<Saved> {
    let bytes = match std::fs::read(file(data)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(error),
    };
    let Saved { made_by, routes } = serde_json::from_slice(&bytes)?;
    let sound = routes.into_iter().filter_map(|(route, found)| {
        let found = found.checked()?;
        (route.len() <= MAX_NAME).then_some((route, found))
    });
    Ok(Saved {
        made_by,
        routes: sound.take(ROUTES + 1).collect(),
    })
}

impl Thresholds {
    /// Those that were saved in `data`, and are to be; of a model of that `revision`.
    pub(super) fn open(data: &Path, revision: &str) -> Self {
        let made_by = format!("{RULES}:{revision}");
        let saved = read(data).unwrap_or_else(|error| {
            log::warn!(
                "semantic cache: {}: {error}; thresholds are found anew",
                file(data).display()
            );
            Saved::default()
        });
        let routes = match saved.made_by == made_by {
            true => saved.routes.into_iter().collect(),
            false => HashMap::new(),
        };
        Thresholds {
            inner: Mutex::new(Inner {
                routes,
                ..Inner::default()
            }),
            file: Some(file(data)),
            made_by,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That of `route`.
    pub(super) fn of(&self, route: &str) -> Found {
        let inner = self.inner();
        let name = inner.name(route);
        inner.routes.get(name).copied().unwrap_or_default()
    }

    /// All of them, by route.
    pub(super) fn all(&self) -> Vec<(String, Found)> {
        let inner = self.inner();
        let mut all: Vec<_> = inner
            .routes
            .iter()
            .map(|(route, found)| (route.clone(), *found))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Moves that of `route`; `told` says that other sidecars are to hear of it.
    pub(super) fn judged(&self, route: &str, audit: Judged, told: bool) {
        let inner = &mut *self.inner();
        let name = inner.name(route).to_owned();
        let found = inner.routes.entry(name.clone()).or_default();
        *found = found.after(audit);
        // Beyond, the others do without: this one has it.
        if told && inner.waiting < UNTOLD {
            inner.waiting += 1;
            inner.untold.entry(name).or_default().push(audit);
        }
    }

    /// What the others have not heard of, by route.
    pub(super) fn untold(&self) -> HashMap<String, Vec<Judged>> {
        self.inner().untold.clone()
    }

    /// They have heard of the first `count` of `route`.
    pub(super) fn told(&self, route: &str, count: usize) {
        let inner = &mut *self.inner();
        let Some(audits) = inner.untold.get_mut(route) else {
            return;
        };
        let count = count.min(audits.len());
        audits.drain(..count);
        if audits.is_empty() {
            inner.untold.remove(route);
        }
        inner.waiting -= count;
    }

    /// What all sidecars together have found.
    pub(super) fn adopt(&self, route: &str, found: Found) {
        let inner = &mut *self.inner();
        let name = inner.name(route).to_owned();
        // What is not told yet was put on top of what was shared before.
        if !inner.untold.contains_key(&name) {
            inner.routes.insert(name, found);
        }
    }

    /// Writes them down for the next start.
    pub(super) fn save(&self) -> io::Result<()> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let mut out = Private::create(path)?;
        let saved = Saved {
            made_by: self.made_by.clone(),
            routes: self.all(),
        };
        out.write_all(&serde_json::to_vec(&saved)?)?;
        out.finish()
    }
}

impl Inner {
    fn name<'a>(&self, route: &'a str) -> &'a str {
        let route = crate::text::cut(route, MAX_NAME);
        match self.routes.contains_key(route) || self.routes.len() < ROUTES {
            true => route,
            false => OTHERS,
        }
    }
}

#[cfg(test)]
mod tests;
