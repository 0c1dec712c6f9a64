//! The ways to split scores among tiers that are tried.

/// Most tiers that are calibrated.
pub const MAX_TIERS: usize = 5;

/// Thresholds have so many decimals, so that a config shows them whole.
const DECIMALS: f64 = 1e4;

/// Thresholds tried between two tiers, and between more, where every combination is tried.
fn fineness(tiers: usize) -> usize {
    match tiers {
        ..=2 => 200,
        3 => 60,
        4 => 28,
        _ => 18,
    }
}

/// Thresholds to try: quantiles of the sorted scores, rounded, and some at each end, so that a tier
/// may be left empty. Rising.
pub(super) fn grid(scores: &[f64], tiers: usize) -> Vec<f64> {
    let steps = fineness(tiers);
    let inner = (1..steps).filter_map(|step| scores.get(scores.len() * step / steps));
    let mut grid: Vec<f64> = inner.map(|score| (score * DECIMALS).round()).collect();
    for end in 1..tiers {
        grid.push(end as f64);
        grid.push(DECIMALS - (end - 1) as f64);
    }
    grid.retain(|threshold| *threshold >= 1.0 && *threshold <= DECIMALS);
    grid.sort_by(f64::total_cmp);
    grid.dedup();
    grid.into_iter()
        .map(|threshold| threshold / DECIMALS)
        .collect()
}

/// Every rising choice of thresholds.
pub(super) struct Splits {
    grid: Vec<f64>,
    /// How many scores are below each threshold.
    counts: Vec<usize>,
    /// Places in the grid, one group of `wide` after the other.
    places: Vec<usize>,
    /// The counts at these places.
    cuts: Vec<usize>,
    wide: usize,
}

impl Splits {
    pub(super) fn new(grid: Vec<f64>, scores: &[f64], tiers: usize) -> Self {
        let counts = grid
            .iter()
            .map(|below| scores.partition_point(|score| score < below))
            .collect();
        let mut splits = Splits {
            grid,
            counts,
            places: Vec::new(),
            cuts: Vec::new(),
            wide: tiers.saturating_sub(1),
        };
        splits.add(&mut Vec::new());
        splits
    }

    /// Adds all groups that begin with `group`.
    fn add(&mut self, group: &mut Vec<usize>) {
        if group.len() == self.wide {
            self.places.extend_from_slice(group);
            self.cuts
                .extend(group.iter().map(|place| self.counts[*place]));
            return;
        }
        for place in group.last().map_or(0, |last| last + 1)..self.grid.len() {
            group.push(place);
            self.add(group);
            group.pop();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.cuts.len() / self.wide.max(1)
    }

    /// Of each: how many of the sorted scores are below each threshold.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[usize]> {
        self.cuts.chunks(self.wide.max(1))
    }

    pub(super) fn cuts(&self, at: usize) -> &[usize] {
        &self.cuts[at * self.wide..(at + 1) * self.wide]
    }

    pub(super) fn below(&self, at: usize) -> Vec<f64> {
        let places = &self.places[at * self.wide..(at + 1) * self.wide];
        places.iter().map(|place| self.grid[*place]).collect()
    }
}
