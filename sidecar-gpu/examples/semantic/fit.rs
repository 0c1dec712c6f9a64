//! Logistic regression in which no difference between two questions can speak for their being one.

/// One pair: what the check saw, what is true.
pub(crate) struct Row {
    pub(crate) features: Vec<f64>,
    pub(crate) same: bool,
    /// How many pairs it counts for.
    pub(crate) weight: f64,
    /// Where it comes from. Each source has a bias of its own: how many of its pairs are one
    /// question is an accident of how they were made.
    pub(crate) source: usize,
}

/// What was fitted.
pub(crate) struct Fit {
    /// At most zero, each.
    pub(crate) weights: Vec<f64>,
    /// One per source.
    pub(crate) biases: [f64; SOURCES],
}

/// Sources of pairs.
pub(crate) const SOURCES: usize = 2;

/// Pull of each weight towards zero.
const RIDGE: f64 = 2.0;

impl Fit {
    /// Coordinate descent: the same numbers for the same rows, on any machine.
    pub(crate) fn new(rows: &[Row]) -> Self {
        let features = rows.first().map_or(0, |row| row.features.len());
        let mut fit = Self {
            weights: vec![0.0; features],
            biases: [0.0; SOURCES],
        };
        let mut scores = vec![0.0; rows.len()];
        for _ in 0..1000 {
            let mut moved = 0.0_f64;
            for at in 0..SOURCES + features {
                let value = |row: &Row| match at.checked_sub(SOURCES) {
                    Some(feature) => row.features[feature],
                    None => f64::from(u8::from(row.source == at)),
                };
                let (mut slope, mut curve) = (0.0, 1e-9);
                for (row, score) in rows.iter().zip(&scores) {
                    let x = value(row);
                    if x != 0.0 {
                        let probability = sigmoid(*score);
                        slope += row.weight * (probability - f64::from(u8::from(row.same))) * x;
                        curve += row.weight * probability * (1.0 - probability) * x * x;
                    }
                }
                let (weight, new) = match at.checked_sub(SOURCES) {
                    Some(feature) => {
                        let old = fit.weights[feature];
                        let new = old - (slope + RIDGE * old) / (curve + RIDGE);
                        (&mut fit.weights[feature], new.min(0.0))
                    }
                    None => {
                        let new = fit.biases[at] - slope / curve;
                        (&mut fit.biases[at], new)
                    }
                };
                let step = (new - *weight).clamp(-1.0, 1.0);
                *weight += step;
                if step != 0.0 {
                    for (row, score) in rows.iter().zip(&mut scores) {
                        *score += step * value(row);
                    }
                }
                moved = moved.max(step.abs());
            }
            if moved < 1e-8 {
                break;
            }
        }
        fit
    }

    pub(crate) fn probability(&self, row: &Row) -> f64 {
        let sum: f64 = self
            .weights
            .iter()
            .zip(&row.features)
            .map(|(weight, x)| weight * x)
            .sum();
        sigmoid(sum + self.biases[row.source])
    }
}

fn sigmoid(score: f64) -> f64 {
    1.0 / (1.0 + (-score).exp())
}
