//! What the routing score is worth on recorded prompts: `cargo xtask bench router` runs it. Rows of
//! figures as a JSON list on stdout, tables on stderr.
//!
//! `SLUICE_ROUTER_DATA` names the folder of the data, which holds `routing/`: every file there is
//! measured, other ones alike.

mod data;
mod report;
mod shipped;

use std::process::ExitCode;

use lexopt::ValueExt as _;

use report::Report;

/// Draws of an interval.
const ROUNDS: usize = 1000;
const QUICK_ROUNDS: usize = 40;

const HELP: &str = "router [--only PART] [--quick]    PART: shipped";

#[derive(Debug, Default)]
struct Args {
    only: String,
    quick: bool,
    help: bool,
}

impl Args {
    fn parse() -> Result<Args, lexopt::Error> {
        use lexopt::prelude::{Long, Short};
        let mut args = Args::default();
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("only") => args.only = parser.value()?.string()?,
                Long("quick") => args.quick = true,
                Long("help") | Short('h') => args.help = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(args)
    }
}

fn main() -> ExitCode {
    match Args::parse()
        .map_err(Into::into)
        .and_then(|args| run(&args))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    if args.help {
        println!("{HELP}");
        return Ok(());
    }
    let mut sets = data::sets()?;
    let mix = data::mix(&sets);
    if !mix.prompts.is_empty() {
        sets.push(mix);
    }
    let mut report = Report::new(if args.quick { QUICK_ROUNDS } else { ROUNDS });
    if "shipped".contains(&args.only) {
        shipped::measure(&sets, &mut report);
    }
    report.print();
    Ok(())
}
