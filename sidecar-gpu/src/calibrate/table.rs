//! What requests cost and are worth in each tier, summed so that any split is added up at once.

use super::Label;

/// Labels by score.
pub(super) struct Sorted {
    pub(super) scores: Vec<f64>,
    /// By tier and label: quality, where it is known.
    quality: Vec<Vec<Option<f64>>>,
    /// By tier and label.
    spend: Vec<Vec<f64>>,
}

/// Sums over the labels, each counted so often.
pub(super) struct Table {
    /// By tier and label: quality, known or fitted.
    quality: Vec<Vec<f64>>,
    /// By tier: sums of the labels before each.
    qualities: Vec<Vec<f64>>,
    spends: Vec<Vec<f64>>,
    counts: Vec<f64>,
}

impl Sorted {
    pub(super) fn new(labels: &[Label], tiers: usize) -> Self {
        let mut order: Vec<&Label> = labels.iter().collect();
        order.sort_by(|a, b| a.score.total_cmp(&b.score));
        Sorted {
            scores: order.iter().map(|label| label.score).collect(),
            quality: (0..tiers)
                .map(|tier| order.iter().map(|label| label.quality[tier]).collect())
                .collect(),
            spend: (0..tiers)
                .map(|tier| order.iter().map(|label| label.spend[tier]).collect())
                .collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.scores.len()
    }

    pub(super) fn spend(&self, at: usize, tier: usize) -> f64 {
        self.spend[tier][at]
    }

    /// Sums with each label counted `weights` times; the fits count it as often.
    pub(super) fn table(&self, weights: &[f64]) -> Table {
        let quality: Vec<Vec<f64>> = self
            .quality
            .iter()
            .map(|known| fill(known, weights))
            .collect();
        let sums = |values: &[f64]| {
            let mut sum = 0.0;
            let mut sums = vec![0.0];
            sums.extend(values.iter().zip(weights).map(|(value, weight)| {
                sum += value * weight;
                sum
            }));
            sums
        };
        Table {
            qualities: quality.iter().map(|values| sums(values)).collect(),
            spends: self.spend.iter().map(|values| sums(values)).collect(),
            counts: sums(&vec![1.0; weights.len()]),
            quality,
        }
    }
}

impl Table {
    pub(super) fn tiers(&self) -> usize {
        self.quality.len()
    }

    /// Quality of a label in a tier, known or fitted.
    pub(super) fn quality(&self, at: usize, tier: usize) -> f64 {
        self.quality[tier][at]
    }

    /// Mean quality of the largest tier.
    pub(super) fn best(&self) -> f64 {
        self.tier_quality().last().copied().unwrap_or(0.0)
    }

    /// Mean quality of each tier over all labels.
    pub(super) fn tier_quality(&self) -> Vec<f64> {
        let count = last(&self.counts);
        self.qualities
            .iter()
            .map(|sums| last(sums) / count)
            .collect()
    }

    /// Spend and quality, as shares of the largest tier's, where the labels before the first of
    /// `cuts` go to the first tier, those before the second to the second, and so on.
    pub(super) fn at(&self, cuts: &[usize]) -> (f64, f64) {
        let share = |sums: &[Vec<f64>]| {
            let routed: f64 = ranges(cuts, self.counts.len() - 1)
                .zip(sums)
                .map(|((from, to), sums)| sums[to] - sums[from])
                .sum();
            let largest = sums.last().map_or(0.0, |sums| last(sums));
            // A resample in which the largest tier is worth nothing: so is every split.
            if largest > 0.0 { routed / largest } else { 1.0 }
        };
        (share(&self.spends), share(&self.qualities))
    }

    /// Share of the labels in each tier.
    pub(super) fn shares(&self, cuts: &[usize]) -> Vec<f64> {
        let count = last(&self.counts);
        ranges(cuts, self.counts.len() - 1)
            .map(|(from, to)| (self.counts[to] - self.counts[from]) / count)
            .collect()
    }
}

fn last(sums: &[f64]) -> f64 {
    sums.last().copied().unwrap_or(0.0)
}

/// From where to where each tier's labels are.
fn ranges(cuts: &[usize], all: usize) -> impl Iterator<Item = (usize, usize)> {
    let from = std::iter::once(0).chain(cuts.iter().copied());
    from.zip(cuts.iter().copied().chain([all]))
}

/// The known values, and for the others an isotonic fit to those that count: the non-increasing
/// step function nearest to them, by pooling adjacent violators (Barlow et al., 1972). A label
/// between two steps has the latter.
fn fill(known: &[Option<f64>], weights: &[f64]) -> Vec<f64> {
    if let Some(all) = known.iter().copied().collect::<Option<Vec<f64>>>() {
        return all;
    }
    // Steps: value, weight, first place behind it.
    let mut steps: Vec<(f64, f64, usize)> = Vec::new();
    for (at, (value, weight)) in known.iter().zip(weights).enumerate() {
        let Some(value) = value.filter(|_| *weight > 0.0) else {
            continue;
        };
        let mut step = (value, *weight, at + 1);
        while let Some(before) = steps.pop_if(|before| before.0 <= step.0) {
            let weight = before.1 + step.1;
            step.0 = (before.0 * before.1 + step.0 * step.1) / weight;
            step.1 = weight;
        }
        steps.push(step);
    }
    let mut filled = Vec::with_capacity(known.len());
    let mut step = 0;
    for (at, value) in known.iter().enumerate() {
        while steps.get(step).is_some_and(|step| at >= step.2) && step + 1 < steps.len() {
            step += 1;
        }
        let fitted = steps.get(step).map_or(0.0, |step| step.0);
        filled.push(value.unwrap_or(fitted));
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_fitted_and_never_rises() {
        let known = [Some(1.0), None, Some(0.4), Some(0.6), None, Some(0.1), None];
        let filled = fill(&known, &[1.0; 7]);
        // .4 and .6 are the wrong way round: their mean stands for both.
        let expected = [1.0, 0.5, 0.4, 0.6, 0.1, 0.1, 0.1];
        for (found, expected) in filled.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{filled:?}");
        }
        // A label that does not count does not shape the fit.
        let filled = fill(&known, &[0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert!((filled[1] - 0.5).abs() < 1e-12, "{filled:?}");
        assert_eq!(filled[0].to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn a_split_is_summed_as_one_by_one() {
        let mut rng = fastrand::Rng::with_seed(1);
        let labels: Vec<Label> = (0..40)
            .map(|_| Label {
                score: (rng.f64() * 10.0).round() / 10.0,
                quality: (0..3).map(|_| Some(rng.f64())).collect(),
                spend: vec![1.0, 2.0, 5.0],
            })
            .collect();
        let sorted = Sorted::new(&labels, 3);
        let table = sorted.table(&[1.0; 40]);
        let (low, high) = (0.35, 0.65);
        let cuts = [low, high].map(|below| sorted.scores.partition_point(|score| *score < below));
        let tier =
            |label: &Label| usize::from(label.score >= low) + usize::from(label.score >= high);
        let quality: f64 = labels.iter().map(|it| it.quality[tier(it)].unwrap()).sum();
        let largest: f64 = labels.iter().map(|it| it.quality[2].unwrap()).sum();
        let spend: f64 = labels.iter().map(|it| it.spend[tier(it)]).sum();
        let found = table.at(&cuts);
        assert!((found.0 - spend / 200.0).abs() < 1e-9);
        assert!((found.1 - quality / largest).abs() < 1e-9);
        assert!((table.shares(&cuts).iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
