//! Trains and measures what decides whether two questions are one: `cargo run --release --example
//! semantic -- train | measure`. docs/semantic-cache.md explains both.

mod bases;
mod data;
mod fit;
mod generate;
mod measure;
mod report;
mod train;
mod vectors;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::vectors::Model;

#[derive(Debug, Parser)]
struct Args {
    /// Folder of the embedding model; `cargo xtask setup model` fetches the default.
    #[arg(
        long,
        env = "SLUICE_MODEL",
        global = true,
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/models/all-MiniLM-L6-v2")
    )]
    model: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fits the check and writes its weights.
    Train {
        /// The file of the weights.
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/src/semantic/weights.rs"))]
        into: PathBuf,
    },
    /// Precision and recall on recorded questions.
    Measure {
        /// False hits to print.
        #[arg(long, default_value_t = 30)]
        shown: usize,
        /// Rows as a JSON list on stdout, the rest on stderr.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.command {
        Command::Train { into } => {
            let intents = data::intents()?.context("training needs BANKING77")?;
            train::train(&intents, &Model::open(&args.model)?, &into)
        }
        Command::Measure { shown, json } => measure::measure(&args.model, shown, json),
    }
}
