//! The learned part of the score: linear in a prompt's form and its words, bounded, and heard the
//! less the less of the prompt its training knew.
//!
//! It was fitted to how much better a strong model answers than a weak one, which is not how hard
//! a prompt is. docs/router-model.md says on what, and what it is worth.

mod features;
mod fit;
mod words;

use std::sync::LazyLock;

pub use features::FORM;
pub use fit::{Example, Reading, fit, read_prompt};
pub(super) use words::Weigh;
use words::{Sum, Table};

use super::facts::Facts;
use super::rule::Hits;

/// The shipped model's bytes; `cargo xtask train-router` writes them.
pub const SHIPPED: &[u8] = include_bytes!("weights.bin");

/// The shipped model. Built once: it depends on nothing but the code.
pub(super) static MODEL: LazyLock<Model> =
    LazyLock::new(|| Model::from_bytes(SHIPPED).unwrap_or_else(Model::empty));

/// Logits per unit of predicted gain.
const GAIN: f32 = 22.0;
/// How much of what the rules say gives way where all of a text is known.
const INSTEAD: f32 = 0.5;
/// Most that the learned part can move the rules' logit by.
const MOST: f32 = 2.5;
/// Share of a text's grams that has to be known for the model to be heard at all, and in full.
const FAMILIAR: [f32; 2] = [0.4, 0.65];
/// Different words and pairs of a text that is half as telling as a long one: of a short question
/// the rules know more.
const FEW: f32 = 55.0;
/// Standard deviations beyond which a number of the form says no more.
const FAR: f32 = 3.0;

/// One number of the form.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Column {
    /// Its mean in training, and one over its standard deviation.
    mean: f32,
    scale: f32,
    weight: f32,
}

impl Column {
    fn standard(&self, value: f32) -> f32 {
        ((value - self.mean) * self.scale).clamp(-FAR, FAR)
    }
}

/// Weights of form and words: learned from prompts whose answers by two models are graded.
#[derive(Clone, Debug)]
pub struct Model {
    form: [Column; FORM],
    /// Mean of the rules' logit in training.
    logit: f32,
    /// Mean of what words add.
    words: f32,
    /// What one step of a word's weight is worth.
    step: f32,
    table: Table,
}

/// What the model makes of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Learned {
    /// Added to the rules' logit.
    pub(super) term: f32,
    /// In [0, 1]: how familiar the text is, which is how far the rules give way.
    pub(super) confidence: f32,
}

impl Model {
    /// Bytes of a model.
    const BYTES: usize = 4 * (3 * FORM + 3) + Table::BYTES;

    /// Knows nothing: with it the rules decide alone.
    #[must_use]
    pub fn empty() -> Model {
        Model {
            form: [Column::default(); FORM],
            logit: 0.0,
            words: 0.0,
            step: 0.0,
            table: Table::empty(),
        }
    }

    /// Reads what [`Model::to_bytes`] wrote; None where it is of another form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Model> {
        if bytes.len() != Model::BYTES {
            return None;
        }
        let (numbers, table) = bytes.split_at_checked(bytes.len() - Table::BYTES)?;
        let mut numbers = numbers.chunks_exact(4).map(|number| {
            let number: [u8; 4] = number.try_into().ok()?;
            Some(f32::from_le_bytes(number)).filter(|number| number.is_finite())
        });
        let mut next = || numbers.next().flatten();
        let mut model = Model::empty();
        for column in &mut model.form {
            *column = Column {
                mean: next()?,
                scale: next()?,
                weight: next()?,
            };
        }
        (model.logit, model.words, model.step) = (next()?, next()?, next()?);
        model.table = Table::from_bytes(table)?;
        Some(model)
    }

    /// As it is kept: numbers of four bytes, lowest first, then the words' tags and weights.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let columns = self.form.iter();
        let numbers = columns
            .flat_map(|column| [column.mean, column.scale, column.weight])
            .chain([self.logit, self.words, self.step]);
        let mut bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        bytes.extend(self.table.to_bytes());
        bytes
    }

    /// Reads the grams of a text.
    pub(super) fn weigh(&self) -> Weigh<'_> {
        Weigh::new(&self.table)
    }

    /// What it makes of a text to which the rules gave `logit`.
    pub(super) fn learned(
        &self,
        (facts, hits): (&Facts, &Hits),
        logit: f32,
        grams: &Weigh<'_>,
    ) -> Learned {
        let Sum {
            distinct,
            known,
            steps,
            ..
        } = grams.sum;
        let distinct = distinct as f32;
        let form = features::form((facts, hits), logit, grams.sum.variety());
        let form: f32 = form
            .iter()
            .zip(&self.form)
            .map(|(&value, column)| column.weight * column.standard(value))
            .sum();
        let words = self.step * steps as f32 / distinct.max(1.0).sqrt() - self.words;
        let [none, full] = FAMILIAR;
        let share = known as f32 / distinct.max(1.0);
        let enough = distinct * distinct;
        let confidence =
            ((share - none) / (full - none)).clamp(0.0, 1.0) * enough / (enough + FEW * FEW);
        let wish = GAIN * (form + words) - INSTEAD * (logit - self.logit);
        Learned {
            // Bends to its bound, so that two texts beyond it are still told apart.
            term: confidence * MOST * (wish / MOST).tanh(),
            confidence,
        }
    }
}

#[cfg(test)]
mod tests;
