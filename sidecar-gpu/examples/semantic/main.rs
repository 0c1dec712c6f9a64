//! Trains and measures what decides whether two questions are one: `cargo run --release --example
//! semantic -- texts | train | measure`. docs/semantic-cache.md explains each.

mod bases;
mod data;
mod fit;
mod generate;
mod measure;
mod report;
mod train;
mod vectors;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every text that needs a vector, as JSON strings, one a line.
    Texts,
    /// Fits the check and writes its weights.
    Train {
        /// Holds texts.jsonl, vectors.f32 and vocab.txt.
        #[arg(long, env = "SLUICE_VECTORS")]
        vectors: PathBuf,
        /// The file of the weights.
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/src/semantic/weights.rs"))]
        into: PathBuf,
    },
    /// Precision and recall on recorded questions.
    Measure {
        /// Holds texts.jsonl, vectors.f32 and vocab.txt.
        #[arg(long, env = "SLUICE_VECTORS")]
        vectors: Option<PathBuf>,
        /// False hits to print.
        #[arg(long, default_value_t = 30)]
        shown: usize,
        /// Rows as a JSON list on stdout, the rest on stderr.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Texts => texts(),
        Command::Train { vectors, into } => {
            let intents = data::intents()?.context("training needs BANKING77")?;
            train::train(&intents, &vectors, &into)
        }
        Command::Measure {
            vectors,
            shown,
            json,
        } => measure::measure(vectors.as_deref(), shown, json),
    }
}

fn texts() -> Result<()> {
    let intents = data::intents()?.unwrap_or_default();
    let labelled = data::labelled()?.unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut out = std::io::stdout().lock();
    let all = intents
        .iter()
        .map(|intent| &intent.text)
        .chain(labelled.iter().flat_map(|pair| [&pair.a, &pair.b]));
    for text in all {
        if seen.insert(text) {
            writeln!(out, "{}", serde_json::to_string(text)?)?;
        }
    }
    Ok(())
}
