//! What trimming keeps: turns of past conversations that answer a question, chunks of abstracts that
//! do. `cargo xtask bench trim` runs it; alone: `cargo bench --package sluice --bench trim`.
//!
//! `SLUICE_TRIM_DATA` names the folder of the data, which holds `conversation/` and `rag/`: other
//! files of the same names are measured alike.
#![expect(
    clippy::cast_precision_loss,
    reason = "figures of a few digits; counts are far below 2^52"
)]

mod data;
mod locomo;
mod pubmedqa;
mod row;
mod vectors;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use row::Row;

#[derive(Debug, Parser)]
struct Args {
    /// Only parts whose name contains this: locomo, pubmedqa.
    #[arg(long, default_value = "")]
    only: String,
    /// One conversation and fifty abstracts: no figure that is asked for.
    #[arg(long)]
    quick: bool,
    /// Folder of the embedding model; `cargo xtask setup model` fetches the default.
    #[arg(
        long,
        env = "SLUICE_MODEL",
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/models/all-MiniLM-L6-v2")
    )]
    model: PathBuf,
    /// What cargo tells every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(rows) => {
            println!("{}", serde_json::Value::from_iter(rows));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if "locomo".contains(&args.only) {
        rows.extend(locomo::measure(&args.model, args.quick)?);
    }
    if "pubmedqa".contains(&args.only) {
        rows.extend(pubmedqa::measure(&args.model, args.quick)?);
    }
    Ok(rows)
}
