//! `sluice-bench`: what `cargo xtask bench` runs in real Envoy. Rows as JSON on stdout, progress on
//! stderr.

mod cache;
mod filter;
mod floor;
mod latency;
mod paraphrases;
mod replay;
mod rig;
mod row;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Measures Sluice side by side with what it is added to.
#[derive(Debug, Parser)]
#[command(name = "sluice-bench", version)]
struct Args {
    /// What to measure.
    bench: Bench,
    /// Rounds of every case; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of one case in one round.
    #[arg(long, default_value_t = 2.5)]
    seconds: f64,
    /// Seconds of a latency at a fixed rate.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=60))]
    latency: u64,
    /// Only parts whose name contains this. Of `filter`: module, 1 KB, 16 KB, 20 turns, latency,
    /// memory. Of `cache`: exact, semantic.
    #[arg(long, default_value = "")]
    only: String,
    /// Only cases whose name contains this, beside bare Envoy: floor, no callout, cache miss, cache
    /// hit, trimming. Of `trim`: gpt-4o, gpt-4.1, claude, …
    #[arg(long, default_value = "")]
    case: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bench {
    /// The filter in one Envoy worker.
    Filter,
    /// Hits of the exact and the semantic cache.
    Cache,
    /// What conversations cost with and without trimming.
    Trim,
}

/// One thread: it is on its own core beside Envoy's worker, and its parts wait for each other less
/// than threads would.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let rows = match args.bench {
        Bench::Filter => filter::measure(&args).await,
        Bench::Cache => cache::measure(&args).await,
        Bench::Trim => replay::measure(&args).await,
    };
    match rows {
        Ok(rows) => {
            println!("{}", row::json(&rows));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
