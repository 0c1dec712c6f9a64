//! Embeddings of the texts that are compared, by the engine that the sidecar runs, each made once.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use sluice_engine::{LoadOptions, Overlong, load};

/// Texts of one call.
const BATCH: usize = 64;

/// Embeddings by text.
#[derive(Debug, Default)]
pub(crate) struct Vectors {
    by_text: HashMap<String, Vec<f32>>,
}

impl Vectors {
    /// By the model in that folder; says on stderr how far it is. `None` where there is no model.
    pub(crate) fn of(model: &Path, mut texts: Vec<&str>) -> Result<Option<Vectors>> {
        if !model.is_dir() {
            let model = model.display();
            eprintln!("skipped embeddings: no model in {model} (cargo xtask setup model)");
            return Ok(None);
        }
        let options = LoadOptions {
            overlong: Overlong::Truncate,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            ..LoadOptions::default()
        };
        let engine = load(model, &options)?;
        texts.sort_unstable();
        texts.dedup();
        // Texts of like length share a batch well.
        texts.sort_by_key(|text| text.len());
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let (mut by_text, mut done) = (HashMap::with_capacity(texts.len()), 0);
        for batch in texts.chunks(BATCH) {
            let vectors = engine.embed(batch)?;
            by_text.extend(batch.iter().map(|text| (*text).to_owned()).zip(vectors));
            done += batch.iter().map(|text| text.len()).sum::<usize>();
            bar(by_text.len(), done as f64 / bytes.max(1) as f64)?;
        }
        eprintln!();
        Ok(Some(Vectors { by_text }))
    }

    /// Cosine of two texts' embeddings; they have length 1.
    pub(crate) fn cosine(&self, one: &str, other: &str) -> Option<f32> {
        let (one, other) = (self.by_text.get(one)?, self.by_text.get(other)?);
        Some(one.iter().zip(other).map(|(a, b)| a * b).sum())
    }
}

fn bar(texts: usize, share: f64) -> Result<()> {
    const WIDTH: usize = 40;
    let full = ((share * WIDTH as f64) as usize).min(WIDTH);
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(WIDTH - full));
    eprint!("\r{bar} {texts} embeddings");
    Ok(std::io::stderr().flush()?)
}
