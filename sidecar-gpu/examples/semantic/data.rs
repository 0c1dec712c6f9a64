//! The recorded questions, where they are present.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// A customer question and its intent.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Intent {
    pub(crate) text: String,
    pub(crate) label: String,
}

/// Two questions, and whether people said that they ask the same.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Labelled {
    pub(crate) a: String,
    pub(crate) b: String,
    pub(crate) label: u8,
}

fn folder() -> PathBuf {
    std::env::var_os("SLUICE_CACHE_DATA").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/cache").into(),
        PathBuf::from,
    )
}

/// BANKING77, `None` where it is absent.
pub(crate) fn intents() -> Result<Option<Vec<Intent>>> {
    rows("banking77.jsonl")
}

/// The Quora pairs, `None` where they are absent.
pub(crate) fn labelled() -> Result<Option<Vec<Labelled>>> {
    rows("qqp_pairs.jsonl")
}

fn rows<T: for<'de> Deserialize<'de>>(name: &str) -> Result<Option<Vec<T>>> {
    let path = folder().join(name);
    if !path.is_file() {
        eprintln!("skipped: no {}", path.display());
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rows = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    Ok(Some(rows))
}
