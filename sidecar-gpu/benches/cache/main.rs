//! What keeping answers and their questions costs: packing, memory, look-ups as the store grows, and
//! the semantic cache's index. `cargo xtask bench cache` runs it; alone: `cargo bench --package
//! sluice --bench cache`.
//!
//! No criterion: these are counts, sizes and single runs over a million entries.
#![expect(
    clippy::cast_precision_loss,
    reason = "figures of a few digits; counts are far below 2^52"
)]

mod answers;
mod index;
mod memory;
mod packing;
mod row;

use std::process::ExitCode;

use clap::Parser;

use row::Row;

#[derive(Debug, Parser)]
struct Args {
    /// Only parts whose name contains this: packing, memory, index.
    #[arg(long, default_value = "")]
    only: String,
    /// Up to 100,000 entries in place of a million: no figure that is asked for.
    #[arg(long)]
    quick: bool,
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
    // First of all: it reads the size of this process.
    if "memory".contains(&args.only) {
        rows.extend(memory::measure(args.quick)?);
    }
    if "packing".contains(&args.only) {
        rows.extend(packing::measure()?);
    }
    if "index".contains(&args.only) {
        rows.extend(index::measure(args.quick));
    }
    Ok(rows)
}
