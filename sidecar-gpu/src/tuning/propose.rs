//! From counts to a proposal: how long to keep a route's answers, with the curve behind it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Counts, N, TTLS};
use crate::semantic::Found;

/// Fewest re-asks that a proposal is made from.
const MIN_REASKS: u64 = 100;
/// Fewest replaced answers that a share of changed ones is taken from.
const MIN_PAIRS: u64 = 50;
/// The normal distribution's 97.5 % quantile: bounds hold with 95 %, two-sided.
const Z: f64 = 1.96;

/// What a proposal is to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// Largest share of cached answers that upstream would have answered otherwise by then.
    pub changed: f64,
    /// Share of the re-asks that the longest such TTL would catch; a shorter one that catches it
    /// will do.
    pub caught: f64,
}

impl Default for Goal {
    fn default() -> Self {
        Goal {
            changed: 0.05,
            caught: 0.9,
        }
    }
}

impl Goal {
    /// From percentages; the default where there is none.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn percent(changed: Option<f64>, caught: Option<f64>) -> Result<Goal, String> {
        let share = |name: &str, percent: Option<f64>, default: f64| match percent {
            None => Ok(default),
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
            Some(other) => Err(format!(
                "{name}: expected a percentage above 0 and up to 100, found {other}"
            )),
        };
        let Goal {
            changed: most,
            caught: least,
        } = Goal::default();
        Ok(Goal {
            changed: share("changed", changed, most)?,
            caught: share("caught", caught, least)?,
        })
    }
}

/// What was observed, and what it proposes, by route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// Since when, milliseconds since the epoch.
    pub since_ms: u64,
    /// What the proposals keep to.
    pub goal: Goal,
    /// By route, the most asked first.
    pub routes: Vec<RouteTuning>,
    /// Routes whose threshold for questions in other words finds itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub semantic: Vec<Audited>,
}

/// The audits of one route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audited {
    /// Its name; empty for the defaults.
    pub route: String,
    /// The probability from which two questions count as one.
    pub threshold: f64,
    /// Audits that were judged.
    pub audits: u64,
    /// Share of false answers, smoothed over about 200 audits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_hits: Option<f64>,
}

impl Audited {
    /// What was found, by route.
    #[must_use]
    pub fn of(found: Vec<(String, Found)>) -> Vec<Audited> {
        found
            .into_iter()
            .map(|(route, found)| Audited {
                route,
                threshold: found.threshold(),
                audits: found.audits(),
                false_hits: found.estimate(),
            })
            .collect()
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteTuning {
    /// Its name; empty for the defaults.
    pub route: String,
    /// Requests of the sample that had a key.
    pub asks: u64,
    /// Of them, those whose key had been asked for within two days.
    pub reasks: u64,
    /// Answers that replaced an earlier one of the same key.
    pub replaced: u64,
    /// Of them, those that said something else.
    pub changed: u64,
    /// How long answers are fresh now, in seconds, where some were stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_secs: Option<u64>,
    /// How much longer they are served while they are refreshed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_secs: Option<u64>,
    /// What each candidate would do.
    pub curve: Vec<Point>,
    /// What is proposed; none with a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<Proposal>,
    /// Why nothing is proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A candidate TTL.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The TTL in seconds.
    pub ttl_secs: u64,
    /// Re-asks that it would have answered.
    pub hits: u64,
    /// Their share of all re-asks.
    pub caught: f64,
    /// Share of its answers that upstream would have answered otherwise by then. None: too few
    /// answers of that age were replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<f64>,
    /// At most that, with 95 % confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at_most: Option<f64>,
}

/// How long to keep answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// How long they are fresh, in seconds.
    pub ttl_secs: u64,
    /// How much longer they are served while they are refreshed.
    pub stale_secs: u64,
    /// Share of the re-asks that fresh answers catch.
    pub caught: f64,
    /// The same with the stale window, if every stale answer counts.
    pub caught_with_stale: f64,
    /// Share of changed answers at the end of the stale window, at most, with 95 % confidence.
    pub changed_at_most: f64,
}

impl Tuning {
    pub(super) fn new(since_ms: u64, routes: BTreeMap<String, Counts>, goal: Goal) -> Self {
        let routes = routes.into_iter();
        let mut routes: Vec<RouteTuning> = routes
            .map(|(route, counts)| tune(route, &counts, goal))
            .collect();
        routes.sort_by(|a, b| b.asks.cmp(&a.asks).then_with(|| a.route.cmp(&b.route)));
        Tuning {
            since_ms,
            goal,
            routes,
            semantic: Vec::new(),
        }
    }
}

fn tune(route: String, counts: &Counts, goal: Goal) -> RouteTuning {
    let by_age: [_; N] = std::array::from_fn(|age| share(counts, age));
    let curve: Vec<Point> = (0..N).map(|ttl| point(counts, &by_age, ttl)).collect();
    let (proposal, reason) = match propose(counts, &curve, goal) {
        Ok(proposal) => (Some(proposal), None),
        Err(reason) => (None, Some(reason)),
    };
    RouteTuning {
        route,
        asks: counts.asks,
        reasks: counts.reasks,
        replaced: counts.pairs.iter().sum(),
        changed: counts.changed.iter().sum(),
        ttl_secs: counts.kept_secs.map(|it| it.0),
        stale_secs: counts.kept_secs.map(|it| it.1),
        curve,
        proposal,
        reason,
    }
}

/// The share of answers of this age that have changed, and its upper bound. Where too few were
/// replaced at this age, older ones stand in: an answer is no likelier to have changed when it is
/// younger, so that errs on the safe side.
fn share(counts: &Counts, age: usize) -> Option<(f64, f64)> {
    let (mut pairs, mut changed) = (0, 0);
    for older in age..=N {
        pairs += counts.pairs[older];
        changed += counts.changed[older];
        if pairs >= MIN_PAIRS {
            let share = changed as f64 / pairs as f64;
            return Some((share, wilson(share, pairs as f64)));
        }
    }
    None
}

/// Upper end of Wilson's score interval.
fn wilson(share: f64, count: f64) -> f64 {
    let square = Z * Z;
    let spread = Z * (share * (1.0 - share) / count + square / (4.0 * count * count)).sqrt();
    ((share + square / (2.0 * count) + spread) / (1.0 + square / count)).min(1.0)
}

fn point(counts: &Counts, by_age: &[Option<(f64, f64)>; N], ttl: usize) -> Point {
    let hits: u64 = counts.hits[ttl].iter().sum();
    // What it answers with, by age.
    let mut sum = Some((0.0, 0.0));
    for (count, share) in counts.hits[ttl].iter().zip(by_age) {
        if *count > 0 {
            sum = sum.zip(*share).map(|((changed, at_most), share)| {
                let weight = *count as f64 / hits as f64;
                (changed + weight * share.0, at_most + weight * share.1)
            });
        }
    }
    let sum = sum.filter(|_| hits > 0);
    Point {
        ttl_secs: u64::from(TTLS[ttl]),
        hits,
        caught: hits as f64 / counts.reasks.max(1) as f64,
        changed: sum.map(|it| it.0),
        changed_at_most: sum.map(|it| it.1),
    }
}

fn propose(counts: &Counts, curve: &[Point], goal: Goal) -> Result<Proposal, String> {
    if counts.reasks < MIN_REASKS {
        return Err(format!(
            "not enough data: {} re-asks of {MIN_REASKS}",
            counts.reasks
        ));
    }
    let replaced: u64 = counts.pairs.iter().sum();
    if replaced < MIN_PAIRS {
        return Err(format!(
            "not enough data: {replaced} replaced answers of {MIN_PAIRS}"
        ));
    }
    let good = |point: &&Point| point.changed_at_most.is_some_and(|it| it <= goal.changed);
    let Some(longest) = curve.iter().rfind(good) else {
        return Err(format!(
            "no TTL keeps the share of changed answers under {:.1} %: if it is as high for the \
             shortest, the model answers otherwise each time, whatever the age",
            goal.changed * 100.0
        ));
    };
    let enough = goal.caught * longest.hits as f64;
    let mut shorter = curve.iter().filter(good);
    let chosen = shorter
        .find(|point| point.hits as f64 >= enough)
        .unwrap_or(longest);
    Ok(Proposal {
        ttl_secs: chosen.ttl_secs,
        stale_secs: longest.ttl_secs - chosen.ttl_secs,
        caught: chosen.caught,
        caught_with_stale: longest.caught,
        changed_at_most: longest.changed_at_most.unwrap_or(1.0),
    })
}
