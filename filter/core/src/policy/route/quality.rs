//! What a score is worth: how much of the large model's quality is kept when the prompts it calls
//! easy stay on the small one. The filter decides without it; who measures or calibrates a score
//! asks here.
//!
//! APGR and CPT are RouteLLM's (arXiv 2406.18665), exact over every prompt instead of ten bins.

/// A prompt that both models answered. The qualities are in any unit, the same for both.
#[derive(Clone, Copy, Debug)]
pub struct Graded {
    /// Higher: the strong model is needed. Prompts of one score are told apart by chance.
    pub score: f64,
    /// Quality of the strong model's answer.
    pub strong: f64,
    /// Quality of the weak model's answer.
    pub weak: f64,
}

/// What a score comes to. Shares are of all calls, in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Mean quality of the weak model alone.
    pub weak: f64,
    /// Mean quality of the strong model alone.
    pub strong: f64,
    /// Mean share of the gap between them that is recovered, over all shares of calls that may go
    /// to the strong model. Chance has 0.5.
    pub apgr: f64,
    /// Least share of calls on the strong model that recovers half of the gap. NaN where none does.
    pub cpt50: f64,
    /// The same for 80% of it.
    pub cpt80: f64,
    /// Largest share of calls on the weak model that keeps 95% of the strong one's quality.
    pub weak95: f64,
}

/// Prompts ordered by their score, hardest first: what a curve is drawn of, as often as need be.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// Strong and weak quality of each prompt.
    pairs: Vec<(f64, f64)>,
    /// Ends of the runs of one score.
    ends: Vec<usize>,
}

impl Ranked {
    /// Orders the prompts.
    #[must_use]
    pub fn new(mut graded: Vec<Graded>) -> Ranked {
        graded.sort_by(|one, other| other.score.total_cmp(&one.score));
        let ends = (1..=graded.len()).filter(|&end| {
            let score = |at: usize| graded.get(at).map(|one| one.score);
            score(end) != score(end - 1)
        });
        Ranked {
            ends: ends.collect(),
            pairs: graded.iter().map(|one| (one.strong, one.weak)).collect(),
        }
    }

    /// None where the models do equally well, as of no prompt: there is no gap to recover.
    #[must_use]
    pub fn quality(&self) -> Option<Quality> {
        self.weighted(&vec![1; self.pairs.len()])
    }

    /// 95% intervals (low, high) of APGR, CPT50, CPT80 and weak@95 in this order, by drawing the
    /// prompts anew `rounds` times. The same each time.
    #[must_use]
    pub fn intervals(&self, rounds: usize) -> [(f64, f64); 4] {
        let mut dice = Dice(7);
        let mut seen: [Vec<f64>; 4] = Default::default();
        let mut times = vec![0_u32; self.pairs.len()];
        for _ in 0..rounds {
            times.fill(0);
            for _ in 0..times.len() {
                let drawn = dice.below(times.len());
                if let Some(times) = times.get_mut(drawn) {
                    *times += 1;
                }
            }
            if let Some(quality) = self.weighted(&times) {
                let Quality {
                    apgr,
                    cpt50,
                    cpt80,
                    weak95,
                    ..
                } = quality;
                for (seen, value) in seen.iter_mut().zip([apgr, cpt50, cpt80, weak95]) {
                    if !value.is_nan() {
                        seen.push(value);
                    }
                }
            }
        }
        seen.map(|mut values| {
            values.sort_by(f64::total_cmp);
            let at = |share: f64| {
                let at = (share * values.len() as f64) as usize;
                values.get(at).or(values.last()).copied()
            };
            (at(0.025).unwrap_or(f64::NAN), at(0.975).unwrap_or(f64::NAN))
        })
    }

    /// With each prompt counted so many times.
    fn weighted(&self, times: &[u32]) -> Option<Quality> {
        let all: f64 = times.iter().map(|&times| f64::from(times)).sum();
        let mean = |of: fn(&(f64, f64)) -> f64| {
            let terms = self.pairs.iter().zip(times);
            terms
                .map(|(pair, &times)| of(pair) * f64::from(times))
                .sum::<f64>()
                / all
        };
        let (strong, weak) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let gap = strong - weak;
        // Also of no prompt, whose means are no numbers.
        if gap.is_nan() || gap.abs() < 1e-12 {
            return None;
        }
        let mut curve = vec![(0.0, weak)];
        let (mut from, mut count, mut gained) = (0, 0.0, 0.0);
        for &end in &self.ends {
            let before = count;
            let run = self.pairs.get(from..end).unwrap_or_default();
            for ((strong, weak), &times) in run.iter().zip(times.get(from..end).unwrap_or_default())
            {
                count += f64::from(times);
                gained += f64::from(times) * (strong - weak);
            }
            if count > before {
                curve.push((count / all, weak + gained / all));
            }
            from = end;
        }
        let area: f64 = segments(&curve)
            .map(|((x, y), (next_x, next_y))| (next_x - x) * (y + next_y) / 2.0)
            .sum();
        let reach = |quality: f64| first_reach(&curve, quality);
        Some(Quality {
            weak,
            strong,
            apgr: (area - weak) / gap,
            cpt50: reach(weak + 0.5 * gap).unwrap_or(f64::NAN),
            cpt80: reach(weak + 0.8 * gap).unwrap_or(f64::NAN),
            weak95: reach(0.95 * strong).map_or(0.0, |share| 1.0 - share),
        })
    }
}

type Point = (f64, f64);

fn segments(curve: &[Point]) -> impl Iterator<Item = (Point, Point)> + '_ {
    curve.iter().copied().zip(curve.iter().skip(1).copied())
}

/// The least share of calls on the strong model with which `quality` is reached.
fn first_reach(curve: &[Point], quality: f64) -> Option<f64> {
    if curve.first()?.1 >= quality {
        return Some(0.0);
    }
    segments(curve)
        .find(|(_, next)| next.1 >= quality)
        .map(|((x, y), (next_x, next_y))| x + (next_x - x) * (quality - y) / (next_y - y))
}

/// splitmix64: the same draws on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        ((u128::from(bits) * sides as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests;
