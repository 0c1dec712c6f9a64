//! The seam to the model: texts to embeddings, by the engine that the sidecar runs.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use sluice::semantic::Vocabulary;
use sluice_engine::{Engine, LoadOptions, Overlong, load};

/// Texts of one call.
const BATCH: usize = 64;

/// The embedding model.
pub(crate) struct Model {
    engine: Arc<dyn Engine>,
    pub(crate) words: Vocabulary,
}

impl Model {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let options = LoadOptions {
            overlong: Overlong::Truncate,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            ..LoadOptions::default()
        };
        let words = Vocabulary::of_model(folder);
        Ok(Self {
            engine: load(folder, &options)?,
            words: words.with_context(|| format!("{}: no word pieces", folder.display()))?,
        })
    }

    pub(crate) fn dimensions(&self) -> usize {
        self.engine.info().dimensions
    }

    /// One vector a text; says on stderr how far it is.
    pub(crate) fn embed<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<Vectors> {
        let mut texts: Vec<&str> = texts.into_iter().collect();
        texts.sort_unstable();
        texts.dedup();
        // Texts of like length share a batch well.
        texts.sort_by_key(|text| text.len());
        let mut by_text = HashMap::with_capacity(texts.len());
        for (at, batch) in texts.chunks(BATCH).enumerate() {
            let vectors = self.engine.embed(batch)?;
            by_text.extend(batch.iter().map(|text| (*text).to_owned()).zip(vectors));
            if at % 16 == 0 {
                eprint!("\rembedding {} of {} texts", by_text.len(), texts.len());
                std::io::stderr().flush()?;
            }
        }
        eprintln!("\rembedding {0} of {0} texts", texts.len());
        Ok(Vectors { by_text })
    }
}

/// Embeddings by text.
pub(crate) struct Vectors {
    by_text: HashMap<String, Vec<f32>>,
}

impl Vectors {
    pub(crate) fn of(&self, text: &str) -> Result<&[f32]> {
        let vector = self.by_text.get(text);
        Ok(vector.with_context(|| format!("no vector for '{text}'"))?)
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
