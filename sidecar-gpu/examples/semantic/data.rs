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

/// How the file of a set of labelled pairs ends.
const PAIRS: &str = "_pairs.jsonl";

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

/// Every file of labelled pairs, by its name without `_pairs.jsonl`.
pub(crate) fn labelled() -> Result<Vec<(String, Vec<Labelled>)>> {
    let folder = folder();
    let mut names = Vec::new();
    if folder.is_dir() {
        for file in fs::read_dir(&folder)? {
            let name = file?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(PAIRS).map(str::to_owned));
        }
    }
    if names.is_empty() {
        eprintln!("skipped: no *{PAIRS} in {}", folder.display());
    }
    names.sort_unstable();
    let mut sets = Vec::new();
    for name in names {
        let pairs = rows(&format!("{name}{PAIRS}"))?.unwrap_or_default();
        sets.push((name, pairs));
    }
    Ok(sets)
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
