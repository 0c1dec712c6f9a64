//! Thresholds between tiers from answers whose quality is known: what each split of the scores would
//! have cost and kept, and the cheapest that keeps enough.

mod labels;
mod split;
mod table;

pub use labels::{Assumed, Label, LabelError, Labels, Tier};
pub use split::MAX_TIERS;

use serde::Serialize;
use split::{Splits, grid};
use table::{Sorted, Table};

/// Resamples behind an interval, and behind each choice that is judged by other labels.
const RESAMPLES: usize = 400;
const FOLD_RESAMPLES: usize = 100;
/// Parts that labels are dealt into, to judge thresholds by labels that they were not chosen by.
const FOLDS: usize = 5;
/// Fewest labels that thresholds are chosen by: below, an interval says nothing.
pub const MIN_LABELS: usize = 50;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// Least share of the quality that the largest tier has on the same requests.
    pub quality: Option<f64>,
    /// Most share of what the largest tier would cost for them.
    pub spend: Option<f64>,
    /// How sure the quality must be: share of resamples in which it is kept.
    pub confidence: f64,
}

/// Thresholds, and what they do to the labelled requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Scores below which a request goes to each tier but the last, smallest first.
    pub below: Vec<f64>,
    /// Share of the requests that goes to each tier.
    pub shares: Vec<f64>,
    /// Spend, as a share of the largest tier's.
    pub spend: f64,
    /// Quality, as a share of the largest tier's.
    pub quality: f64,
    /// Its 95% interval, by bootstrap over the labels (Efron and Tibshirani, 1993).
    pub quality_95: (f64, f64),
}

/// What thresholds do to requests that they were not chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeldOut {
    /// Spend, as a share of the largest tier's.
    pub spend: f64,
    /// Quality, as a share of the largest tier's.
    pub quality: f64,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Labels that were used.
    pub labels: usize,
    /// Mean quality of each tier, were all requests its own, in the labels' unit.
    pub tier_quality: Vec<f64>,
    /// What was chosen.
    pub chosen: Point,
    /// The same choice made on four fifths of the labels and judged by the rest, five times: what
    /// to expect of new requests, less optimistic than `chosen`.
    pub held_out: HeldOut,
    /// The best quality at each spend, from the least to the most.
    pub curve: Vec<Point>,
}

/// Why nothing could be chosen.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unmet {
    /// Too few labels.
    #[error("{0} labels, expected at least {MIN_LABELS}: an interval would say nothing")]
    TooFew(usize),
    /// Nobody said how good a tier is.
    #[error(
        "no label says how good answers of tier `{0}` are: label some, or leave the tier out with \
         --tiers"
    )]
    Unlabelled(String),
    /// Nothing to keep a share of.
    #[error("the largest tier's mean quality is {0:.3}, expected more than 0")]
    Worthless(f64),
    /// Both bounds cannot be kept.
    #[error(
        "no thresholds keep {floor:.1}% of the quality (in {sure:.0}% of resamples) within \
         {ceiling:.1}% of the spend: the cheapest that keep it spend {needs:.1}%, the best within \
         the spend keep {keeps:.1}%"
    )]
    Apart {
        /// Wanted quality, in percent.
        floor: f64,
        /// How sure, in percent.
        sure: f64,
        /// Allowed spend, in percent.
        ceiling: f64,
        /// Spend of the cheapest that keep the quality, in percent.
        needs: f64,
        /// Quality of the best within the spend, in percent.
        keeps: f64,
    },
    /// Even the cheapest thresholds spend more.
    #[error("no thresholds spend {0:.1}% or less: the cheapest spend {1:.1}%")]
    Dear(f64, f64),
}

/// Chooses thresholds for `tiers` by `labels`. Deterministic.
///
/// Where a label does not say how good a tier would have been, the tier's quality at that score
/// stands in for it: an isotonic fit to the labels that say (never better for a harder request).
///
/// # Errors
/// Where there are too few labels, or the goal cannot be met.
pub fn calibrate(labels: &[Label], tiers: &[String], goal: Goal) -> Result<Calibration, Unmet> {
    if labels.len() < MIN_LABELS {
        return Err(Unmet::TooFew(labels.len()));
    }
    for (at, name) in tiers.iter().enumerate() {
        if labels.iter().all(|label| label.quality[at].is_none()) {
            return Err(Unmet::Unlabelled(name.clone()));
        }
    }
    let sorted = Sorted::new(labels, tiers.len());
    let once = vec![1.0; sorted.len()];
    let all = sorted.table(&once);
    if all.best() <= 0.0 {
        return Err(Unmet::Worthless(all.best()));
    }
    let splits = Splits::new(
        grid(&sorted.scores, tiers.len()),
        &sorted.scores,
        tiers.len(),
    );
    let judged = Judged::new(&sorted, &once, &splits, RESAMPLES);
    let at = judged.choose(goal)?;
    Ok(Calibration {
        labels: labels.len(),
        tier_quality: all.tier_quality(),
        chosen: judged.point(at),
        held_out: held_out(&sorted, &all, &splits, goal),
        curve: judged.curve(),
    })
}

/// Splits with what they cost and keep, on some of the labels.
struct Judged<'s> {
    splits: &'s Splits,
    table: Table,
    /// Spend and quality of each split.
    values: Vec<(f64, f64)>,
    /// Quality of each split in each resample, sorted.
    resampled: Vec<Vec<f64>>,
}

impl<'s> Judged<'s> {
    /// `weights`: how often each label counts.
    fn new(sorted: &Sorted, weights: &[f64], splits: &'s Splits, resamples: usize) -> Self {
        let table = sorted.table(weights);
        let values = splits.iter().map(|cuts| table.at(cuts)).collect();
        let mut resampled = vec![Vec::with_capacity(resamples); splits.len()];
        let mut rng = fastrand::Rng::with_seed(0x51_0CE);
        let chosen_from: Vec<usize> = (0..weights.len()).filter(|at| weights[*at] > 0.0).collect();
        for _ in 0..resamples {
            let mut drawn = vec![0.0; weights.len()];
            for _ in 0..chosen_from.len() {
                drawn[chosen_from[rng.usize(..chosen_from.len())]] += 1.0;
            }
            let table = sorted.table(&drawn);
            for (cuts, found) in splits.iter().zip(&mut resampled) {
                found.push(table.at(cuts).1);
            }
        }
        for found in &mut resampled {
            found.sort_by(f64::total_cmp);
        }
        Judged {
            splits,
            table,
            values,
            resampled,
        }
    }

    /// Whether the split keeps `quality` as surely as is wanted.
    fn keeps(&self, at: usize, quality: f64, confidence: f64) -> bool {
        let below = self.resampled[at].partition_point(|found| *found < quality);
        let kept = 1.0 - below as f64 / self.resampled[at].len() as f64;
        self.values[at].1 >= quality && kept >= confidence
    }

    /// Splits that no other betters in both spend and quality, from the dearest on. A floor is
    /// followed down from there to the first that fails, as a fixed sequence of tests: to take the
    /// cheapest of all that pass would be to take the luckiest (Angelopoulos et al., "Learn then
    /// Test", arXiv 2110.01052).
    fn frontier(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.splits.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (self.values[*a], self.values[*b]);
            a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1))
        });
        let mut best = f64::NEG_INFINITY;
        order.retain(|at| {
            let quality = self.values[*at].1;
            let better = quality > best;
            best = best.max(quality);
            better
        });
        order.reverse();
        order
    }

    fn choose(&self, goal: Goal) -> Result<usize, Unmet> {
        let percent = |share: f64| share * 100.0;
        let spend = |at: &usize| self.values[*at].0;
        let quality = |at: &usize| self.values[*at].1;
        let all = 0..self.splits.len();
        let ceiling = goal.spend.unwrap_or(f64::INFINITY);
        let best = all
            .clone()
            .filter(|at| spend(at) <= ceiling)
            .max_by(|a, b| {
                quality(a)
                    .total_cmp(&quality(b))
                    .then(spend(b).total_cmp(&spend(a)))
            });
        let Some(best) = best else {
            let least = all.map(|at| spend(&at)).fold(f64::INFINITY, f64::min);
            return Err(Unmet::Dear(percent(ceiling), percent(least)));
        };
        let Some(floor) = goal.quality else {
            return Ok(best);
        };
        let kept = self.frontier().into_iter();
        let cheapest = kept
            .take_while(|at| self.keeps(*at, floor, goal.confidence))
            .last();
        match cheapest {
            Some(at) if spend(&at) <= ceiling => Ok(at),
            found => Err(Unmet::Apart {
                floor: percent(floor),
                sure: percent(goal.confidence),
                ceiling: percent(ceiling),
                needs: found.map_or(f64::INFINITY, |at| percent(spend(&at))),
                keeps: percent(quality(&best)),
            }),
        }
    }

    fn point(&self, at: usize) -> Point {
        let found = &self.resampled[at];
        let quantile = |share: f64| found[((found.len() - 1) as f64 * share).round() as usize];
        let (spend, quality) = self.values[at];
        Point {
            below: self.splits.below(at),
            shares: self.table.shares(self.splits.cuts(at)),
            spend,
            quality,
            quality_95: (quantile(0.025), quantile(0.975)),
        }
    }

    /// The best within a tenth of the way from the least spend to the most, within two, and so on.
    fn curve(&self) -> Vec<Point> {
        let spends = self.values.iter().map(|(spend, _)| *spend);
        let (least, most) = spends.fold(
            (f64::INFINITY, f64::NEG_INFINITY),
            |(least, most), spend| (least.min(spend), most.max(spend)),
        );
        let mut curve: Vec<Point> = Vec::new();
        for step in 0..=10 {
            // A little more, for what rounding took.
            let ceiling = least + (most - least) * f64::from(step) / 10.0 + 1e-9;
            let goal = Goal {
                quality: None,
                spend: Some(ceiling),
                confidence: 0.0,
            };
            if let Ok(at) = self.choose(goal) {
                let point = self.point(at);
                if curve.last() != Some(&point) {
                    curve.push(point);
                }
            }
        }
        curve
    }
}

/// Thresholds chosen without a fifth of the labels and judged by it, for each fifth. A fold in which
/// the goal cannot be met sends all to the largest tier.
fn held_out(sorted: &Sorted, all: &Table, splits: &Splits, goal: Goal) -> HeldOut {
    let (mut spend, mut quality) = (0.0, 0.0);
    let (mut largest_spend, mut largest_quality) = (0.0, 0.0);
    for fold in 0..FOLDS {
        let in_fold = |at: usize| at % FOLDS == fold;
        let weights = |inside: bool| -> Vec<f64> {
            (0..sorted.len())
                .map(|at| f64::from(u8::from(in_fold(at) == inside)))
                .collect()
        };
        let judged = Judged::new(sorted, &weights(false), splits, FOLD_RESAMPLES);
        let cuts = judged.choose(goal).map(|at| splits.cuts(at));
        for at in (0..sorted.len()).filter(|at| in_fold(*at)) {
            let largest = all.tiers() - 1;
            let tier = cuts.as_ref().map_or(largest, |cuts| {
                cuts.iter().filter(|cut| at >= **cut).count()
            });
            spend += sorted.spend(at, tier);
            quality += all.quality(at, tier);
            largest_spend += sorted.spend(at, largest);
            largest_quality += all.quality(at, largest);
        }
    }
    HeldOut {
        spend: spend / largest_spend,
        quality: quality / largest_quality,
    }
}

#[cfg(test)]
mod tests;
