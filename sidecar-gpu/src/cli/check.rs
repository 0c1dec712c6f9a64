//! `sluice check`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{self, Faults};

/// Check a config: the filter's part and the sidecar's
#[derive(clap::Args)]
#[command(
    long_about = "Check a config by the code that the filter and the sidecar read it with. Ends \
                  with 0, or tells each fault with its path and place and ends with 1. Secrets named \
                  `env:NAME` must be set.",
    after_help = "Example:\n  sluice check sluice.yaml"
)]
pub(super) struct Args {
    /// Config file, YAML or JSON
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match config::read(&args.file, &config::process_env) {
        Ok(config) => {
            for warning in config.warnings() {
                eprintln!("warning: {warning}");
            }
            println!("{}: ok", args.file.display());
            ExitCode::SUCCESS
        }
        Err(Faults(faults)) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            ExitCode::FAILURE
        }
    }
}
