//! The `sluice` binary: see `sluice --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice::cli::main()
}
