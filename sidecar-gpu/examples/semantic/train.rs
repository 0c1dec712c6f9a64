//! Makes the pairs, reads them as the cache would, fits the check and writes its weights.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use sluice::semantic::{FEATURE_NAMES, Question, Refusal, Vocabulary, features};

use crate::data::Intent;
use crate::fit::{Fit, Row};
use crate::generate::{self, Pair};
use crate::vectors::{Model, Vectors, dot};

/// Seed of the generated pairs.
const SEED: u64 = 77;

/// Of five bases, one is kept out of the training.
const HELD_OUT: usize = 5;

/// Nearest neighbours of each customer question that become pairs, and how near they must be.
const NEIGHBOURS: usize = 12;
const NEAR: f32 = 0.7;

/// Every how many-th customer question is also reworded and changed.
const REWORDED: usize = 5;

/// All generated pairs.
pub(crate) fn pairs(intents: &[Intent]) -> Vec<Pair> {
    let extra: Vec<String> = intents
        .iter()
        .step_by(REWORDED)
        .map(|intent| intent.text.clone())
        .collect();
    generate::pairs(SEED, &extra)
}

/// Pairs of customer questions that the cache would compare: the same intent is the same question,
/// near enough.
fn neighbours(intents: &[Intent], vectors: &Vectors) -> Result<Vec<Pair>> {
    let rows: Vec<&[f32]> = intents
        .iter()
        .map(|intent| vectors.of(&intent.text))
        .collect::<Result<_>>()?;
    let mut pairs = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let mut near: Vec<(f32, usize)> = rows[..at]
            .iter()
            .enumerate()
            .map(|(other, vector)| (dot(row, vector), other))
            .filter(|(cosine, _)| *cosine > NEAR)
            .collect();
        near.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, other) in near.into_iter().take(NEIGHBOURS) {
            pairs.push(Pair {
                a: intents[other].text.clone(),
                b: intents[at].text.clone(),
                same: intents[other].label == intents[at].label,
                base: at,
            });
        }
    }
    Ok(pairs)
}

#[derive(Default)]
struct Seen {
    /// What no guard refuses.
    left: Vec<Row>,
    refused: Vec<Row>,
}

/// Sources of pairs.
const MADE: usize = 0;
const RECORDED: usize = 1;

/// Recorded pairs a made one counts for: there are thirty times as many, most of them refused.
const MADE_WEIGHT: f64 = 10.0;

/// What the check sees of the pairs; a feature for each reason of refusing follows its own, so that
/// refused pairs can say what a cosine is worth and no more.
fn see(pairs: &[Pair], source: usize, vectors: &Vectors, words: &Vocabulary) -> Result<Seen> {
    let mut seen = Seen::default();
    for pair in pairs {
        let (a, b) = (Question::read(&pair.a), Question::read(&pair.b));
        // Made pairs are near by the way they are made: what a cosine is worth only recorded ones
        // can tell.
        let cosine = match source {
            MADE => 1.0,
            _ => vectors.cosine(&pair.a, &pair.b)?,
        };
        let Some((features, refusal)) = features(&a, &b, cosine, Some(words)) else {
            continue;
        };
        let reasons = Refusal::ALL.map(|reason| f64::from(u8::from(refusal == Some(reason))));
        let row = Row {
            features: features
                .iter()
                .map(|one| f64::from(*one))
                .chain(reasons)
                .collect(),
            same: pair.same,
            weight: if source == MADE { MADE_WEIGHT } else { 1.0 },
            source,
        };
        match refusal {
            Some(_) => seen.refused.push(row),
            None => seen.left.push(row),
        }
    }
    Ok(seen)
}

/// Fits, says how well, and writes the weights to `into`.
pub(crate) fn train(intents: &[Intent], model: &Model, into: &Path) -> Result<()> {
    let vectors = model.embed(intents.iter().map(|intent| intent.text.as_str()))?;
    let words = &model.words;
    let (held, made): (Vec<_>, Vec<_>) = pairs(intents)
        .into_iter()
        .partition(|pair| pair.base % HELD_OUT == 0);
    let made = see(&made, MADE, &vectors, words)?;
    let held = see(&held, MADE, &vectors, words)?;
    let recorded = see(&neighbours(intents, &vectors)?, RECORDED, &vectors, words)?;
    for (name, seen) in [
        ("generated", &made),
        ("held out", &held),
        ("BANKING77", &recorded),
    ] {
        let same = |rows: &[Row]| rows.iter().filter(|row| row.same).count();
        let (refused, left) = (same(&seen.refused), same(&seen.left));
        println!(
            "{name}: refused {refused} same and {} other; left {left} same and {} other",
            seen.refused.len() - refused,
            seen.left.len() - left,
        );
    }
    let mut rows = recorded.left;
    rows.extend(recorded.refused);
    rows.extend(made.left);
    let fit = Fit::new(&rows);
    let bias = fit.biases[RECORDED];
    println!(
        "held out: a pair that asks the same comes before one that does not in {:.3} of the cases",
        ranking(&held.left, &fit)
    );
    let mut text = String::from(
        "//! Written by `cargo run --release --example semantic -- train`; see docs/semantic-cache.md.\n\n\
         use super::check::FEATURES;\n\n\
         /// What each feature adds to the logit, in the order of the features.\n\
         pub(super) const WEIGHTS: [f32; FEATURES] = [\n",
    );
    for (weight, name) in fit.weights.iter().zip(FEATURE_NAMES) {
        println!("{weight:9.3} {name}");
        text.push_str(&format!("    {:?}, // {name}\n", rounded(*weight)));
    }
    println!("{bias:9.3} bias");
    text.push_str(&format!(
        "];\n\n/// The logit of two questions that do not differ.\npub(super) const BIAS: f32 = {:?};\n",
        rounded(bias)
    ));
    fs::write(into, text).with_context(|| into.display().to_string())?;
    println!("wrote {}", into.display());
    Ok(())
}

/// How often a pair that asks the same is held for more probable than one that does not.
fn ranking(rows: &[Row], fit: &Fit) -> f64 {
    let probabilities = |same: bool| -> Vec<f64> {
        rows.iter()
            .filter(|row| row.same == same)
            .map(|row| fit.probability(row))
            .collect()
    };
    let (same, other) = (probabilities(true), probabilities(false));
    let before: f64 = same
        .iter()
        .flat_map(|one| other.iter().map(move |two| (one > two, one == two)))
        .map(|(more, equal)| f64::from(u8::from(more)) + f64::from(u8::from(equal)) / 2.0)
        .sum();
    before / (same.len() * other.len()).max(1) as f64
}

/// To two places: what a machine's own last bits change must not reach the weights.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0 + 0.0
}
