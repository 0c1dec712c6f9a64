//! The seam to the model: texts to embeddings, and its vocabulary.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use sluice::semantic::Vocabulary;

/// Length of an embedding of all-MiniLM-L6-v2.
const DIMENSIONS: usize = 384;

/// Embeddings by text, made beforehand (docs/semantic-cache.md says how).
pub(crate) struct Vectors {
    places: HashMap<String, usize>,
    numbers: Vec<f32>,
}

impl Vectors {
    /// `texts.jsonl`, one JSON string a line, and `vectors.f32`, a row for each.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let texts = fs::read_to_string(folder.join("texts.jsonl")).context("texts.jsonl")?;
        let numbers = numbers(&folder.join("vectors.f32"))?;
        let places = (0..)
            .zip(texts.lines())
            .map(|(at, line)| Ok((serde_json::from_str(line)?, at)))
            .collect::<Result<HashMap<String, usize>>>()?;
        ensure!(
            numbers.len() == places.len() * DIMENSIONS,
            "vectors.f32 has other rows than texts.jsonl"
        );
        Ok(Self { places, numbers })
    }

    pub(crate) fn of(&self, text: &str) -> Result<&[f32]> {
        let at = self
            .places
            .get(text)
            .with_context(|| format!("no vector for '{text}'"))?;
        Ok(&self.numbers[at * DIMENSIONS..][..DIMENSIONS])
    }

    /// To three places: the last bits depend on the machine that made the vectors, and weights
    /// must not.
    pub(crate) fn cosine(&self, a: &str, b: &str) -> Result<f32> {
        Ok((dot(self.of(a)?, self.of(b)?) * 1000.0).round() / 1000.0)
    }
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `vocab.txt`, the model's word pieces in their order.
pub(crate) fn vocabulary(folder: &Path) -> Result<Vocabulary> {
    let pieces = fs::read_to_string(folder.join("vocab.txt")).context("vocab.txt")?;
    Ok(Vocabulary::new(pieces.lines()))
}

fn numbers(path: &Path) -> Result<Vec<f32>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    ensure!(
        rest.is_empty(),
        "{}: not a whole number of f32",
        path.display()
    );
    Ok(numbers
        .iter()
        .map(|four| f32::from_le_bytes(*four))
        .collect())
}
