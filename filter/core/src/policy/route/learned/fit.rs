//! Fitting the model: ridge regression of how much better the strong model answered. Nothing of it
//! is in the filter; training, the bench and calibration call it. The same input gives the same
//! model.

use std::collections::BTreeMap;

use super::super::facts;
use super::super::lexicon::{LEXICON, WordHash};
use super::super::rules_logit;
use super::features::{self, FORM};
use super::words::{Collect, Table};
use super::{Column, Model};

/// Penalty on a number of the form, in standard deviations, and on a gram.
const FORM_PENALTY: f64 = 300.0;
const GRAM_PENALTY: f64 = 5.0;
/// Prompts that a gram has to stand in.
const LEAST: u32 = 4;
/// Prompts of the whole that a domain's mean is drawn towards it by.
const PRIOR: f64 = 20.0;
/// Prompts of a domain at which half of what a prompt differs from it by is believed.
const HALF: f64 = 350.0;
/// Rounds of conjugate gradients at most, and the share of the residual at which they end.
const ROUNDS: usize = 300;
const ENOUGH: f64 = 1e-4;

/// What the model sees of a prompt.
#[derive(Clone, Debug)]
pub struct Reading {
    form: [f32; FORM],
    logit: f32,
    grams: Vec<WordHash>,
}

/// A prompt that both models answered.
#[derive(Clone, Copy, Debug)]
pub struct Example<'a> {
    /// The prompt as it was read.
    pub reading: &'a Reading,
    /// What it is about: prompts of one domain are alike.
    pub domain: &'a str,
    /// Quality of the strong model's answer less that of the weak one's.
    pub gain: f64,
}

/// Reads a bare prompt for training.
#[must_use]
pub fn read_prompt(prompt: &str) -> Reading {
    let (facts, hits, grams) = facts::of_prompt(prompt, &LEXICON, Collect::new());
    let (logit, _) = rules_logit(&facts, &hits);
    Reading {
        form: features::form((&facts, &hits), logit, grams.variety()),
        logit,
        grams: grams.grams,
    }
}

/// Fits a model. One without examples knows nothing.
#[must_use]
pub fn fit(examples: &[Example<'_>]) -> Model {
    let mut model = Model::empty();
    if examples.is_empty() {
        return model;
    }
    let count = examples.len() as f64;
    model.form = columns(examples);
    model.logit = (examples.iter())
        .map(|example| f64::from(example.reading.logit) / count)
        .sum::<f64>() as f32;
    let (table, places) = vocabulary(examples);
    model.table = table;
    let problem = Problem::new(examples, &model, &places);
    let weights = problem.solve(&targets(examples));
    let (form, grams) = weights.split_at(FORM);
    for (column, weight) in model.form.iter_mut().zip(form) {
        column.weight = *weight as f32;
    }
    let largest = grams.iter().fold(0.0, |most: f64, one| most.max(one.abs()));
    model.step = (largest / f64::from(i8::MAX)) as f32;
    for (&place, &weight) in places.iter().zip(grams) {
        let steps = (weight / f64::from(model.step.max(f32::MIN_POSITIVE))).round();
        model.table.set(place, steps as i8);
    }
    model.words = (problem.means.iter().zip(&weights).skip(FORM))
        .map(|(mean, weight)| mean * weight)
        .sum::<f64>() as f32;
    model
}

/// Means and scales of the form's numbers; one that never changes has scale zero.
fn columns(examples: &[Example<'_>]) -> [Column; FORM] {
    let mut sums = [(0.0, 0.0); FORM];
    for example in examples {
        for ((sum, squares), &value) in sums.iter_mut().zip(&example.reading.form) {
            *sum += f64::from(value);
            *squares += f64::from(value).powi(2);
        }
    }
    let count = examples.len() as f64;
    sums.map(|(sum, squares)| {
        let mean = sum / count;
        let spread = (squares / count - mean * mean).max(0.0).sqrt();
        Column {
            mean: mean as f32,
            scale: if spread > 1e-6 {
                (1.0 / spread) as f32
            } else {
                0.0
            },
            weight: 0.0,
        }
    })
}

/// A table of the grams that stand in most prompts, as far as it has room, and their places.
fn vocabulary(examples: &[Example<'_>]) -> (Table, Vec<usize>) {
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for gram in examples.iter().flat_map(|example| &example.reading.grams) {
        *counts.entry(gram.bits()).or_default() += 1;
    }
    let mut often: Vec<(u32, u32)> = counts.into_iter().filter(|one| one.1 >= LEAST).collect();
    often.sort_by_key(|&(gram, count)| (std::cmp::Reverse(count), gram));
    let mut table = Table::empty();
    let mut places: Vec<usize> = (often.iter())
        .filter_map(|&(gram, _)| table.add(WordHash::of_bits(gram)))
        .collect();
    places.sort_unstable();
    (table, places)
}

/// What is regressed: the mean gain of a prompt's domain, and so much of what the prompt differs
/// from it by as there are prompts to tell that from chance. One answer right and one wrong says
/// little about a prompt, and a hundred of its kind say much.
fn targets(examples: &[Example<'_>]) -> Vec<f64> {
    let mut domains: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for example in examples {
        let (count, sum) = domains.entry(example.domain).or_default();
        *count += 1.0;
        *sum += example.gain;
    }
    let overall = domains.values().map(|(_, sum)| sum).sum::<f64>() / examples.len() as f64;
    let target = |example: &Example<'_>| {
        let (count, sum) = domains.get(example.domain).copied().unwrap_or_default();
        let mean = (sum + PRIOR * overall) / (count + PRIOR);
        mean + count / (count + HALF) * (example.gain - mean)
    };
    examples.iter().map(target).collect()
}

/// Prompts as rows: form in standard deviations, then grams.
struct Problem {
    rows: Vec<Row>,
    means: Vec<f64>,
    penalties: Vec<f64>,
}

struct Row {
    form: [f64; FORM],
    /// Columns of the grams that the model knows; each stands there with `share`.
    grams: Vec<u32>,
    share: f64,
}

impl Row {
    fn times(&self, weights: &[f64]) -> f64 {
        let form: f64 = self.form.iter().zip(weights).map(|(a, b)| a * b).sum();
        let gram = |at: &u32| weights.get(*at as usize).copied().unwrap_or(0.0);
        form + self.share * self.grams.iter().map(gram).sum::<f64>()
    }

    fn add_to(&self, sums: &mut [f64], factor: f64) {
        for (sum, value) in sums.iter_mut().zip(self.form) {
            *sum += factor * value;
        }
        for &at in &self.grams {
            if let Some(sum) = sums.get_mut(at as usize) {
                *sum += factor * self.share;
            }
        }
    }
}

impl Problem {
    /// `places`: of the grams, rising; theirs are the columns after the form's.
    fn new(examples: &[Example<'_>], model: &Model, places: &[usize]) -> Problem {
        let row = |example: &Example<'_>| {
            let reading = example.reading;
            let mut form = [0.0; FORM];
            for ((form, column), &value) in form.iter_mut().zip(&model.form).zip(&reading.form) {
                *form = f64::from(column.standard(value));
            }
            let column = |gram: &WordHash| {
                let place = model.table.find(*gram)?;
                let at = places.binary_search(&place).ok()?;
                u32::try_from(FORM + at).ok()
            };
            Row {
                form,
                grams: reading.grams.iter().filter_map(column).collect(),
                share: 1.0 / (reading.grams.len().max(1) as f64).sqrt(),
            }
        };
        let rows: Vec<Row> = examples.iter().map(row).collect();
        let width = FORM + places.len();
        let mut means = vec![0.0; width];
        for row in &rows {
            row.add_to(&mut means, 1.0 / rows.len() as f64);
        }
        let mut penalties = vec![GRAM_PENALTY; width];
        penalties[..FORM].fill(FORM_PENALTY);
        Problem {
            rows,
            means,
            penalties,
        }
    }

    /// Weights by conjugate gradients on the normal equations of the centred rows, scaled by their
    /// diagonal.
    fn solve(&self, targets: &[f64]) -> Vec<f64> {
        let width = self.means.len();
        let mean = targets.iter().sum::<f64>() / targets.len() as f64;
        let centred: Vec<f64> = targets.iter().map(|target| target - mean).collect();
        let mut residual = self.transposed(&centred);
        let mut scale = self.penalties.clone();
        for row in &self.rows {
            for (scale, value) in scale.iter_mut().zip(row.form) {
                *scale += value * value;
            }
            for &at in &row.grams {
                scale[at as usize] += row.share * row.share;
            }
        }
        let mut weights = vec![0.0; width];
        let mut scaled: Vec<f64> = residual.iter().zip(&scale).map(|(r, s)| r / s).collect();
        let mut direction = scaled.clone();
        let mut size = dot(&residual, &scaled);
        let end = size * ENOUGH * ENOUGH;
        for _ in 0..ROUNDS {
            if size <= end {
                break;
            }
            let offset = dot(&self.means, &direction);
            let ahead: Vec<f64> = (self.rows.iter())
                .map(|row| row.times(&direction) - offset)
                .collect();
            let mut image = self.transposed(&ahead);
            for ((image, penalty), value) in image.iter_mut().zip(&self.penalties).zip(&direction) {
                *image += penalty * value;
            }
            let step = size / dot(&direction, &image);
            for at in 0..width {
                weights[at] += step * direction[at];
                residual[at] -= step * image[at];
                scaled[at] = residual[at] / scale[at];
            }
            let next = dot(&residual, &scaled);
            for (direction, scaled) in direction.iter_mut().zip(&scaled) {
                *direction = scaled + next / size * *direction;
            }
            size = next;
        }
        weights
    }

    /// The centred rows' transpose times values, one for each row. These sum to nothing, so the
    /// rows need not be centred for it.
    fn transposed(&self, values: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.means.len()];
        for (row, &value) in self.rows.iter().zip(values) {
            row.add_to(&mut sums, value);
        }
        sums
    }
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
