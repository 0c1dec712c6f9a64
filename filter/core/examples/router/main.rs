//! What the routing score is worth on recorded prompts, and what it is learned from them: `cargo
//! xtask bench router` runs `measure`, `cargo xtask train-router` runs `train`. Rows of figures as a
//! JSON list on stdout, tables on stderr.
//!
//! `SLUICE_ROUTER_DATA` names the folder of the data, which holds `routing/`: every file there is
//! measured, other ones alike.

mod data;
mod learned;
mod report;
mod shipped;

use std::process::ExitCode;

use lexopt::ValueExt as _;

use report::Report;

/// Draws of an interval.
const ROUNDS: usize = 1000;
const QUICK_ROUNDS: usize = 40;

const HELP: &str = "\
router measure [--only PART] [--quick]    PART: shipped, learned
router train                              writes the shipped weights";

const WEIGHTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/policy/route/learned/weights.bin"
);

#[derive(Debug, Default)]
struct Args {
    command: String,
    only: String,
    quick: bool,
    help: bool,
}

impl Args {
    fn parse() -> Result<Args, lexopt::Error> {
        use lexopt::prelude::{Long, Short, Value};
        let mut args = Args::default();
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("only") => args.only = parser.value()?.string()?,
                Long("quick") => args.quick = true,
                Value(command) => args.command = command.string()?,
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
    match args.command.as_str() {
        "measure" => {
            let mix = data::mix(&sets);
            if !mix.prompts.is_empty() {
                sets.push(mix);
            }
            let mut report = Report::new(if args.quick { QUICK_ROUNDS } else { ROUNDS });
            if "shipped".contains(&args.only) {
                shipped::measure(&sets, &mut report);
            }
            if "learned".contains(&args.only) {
                learned::measure(&sets, &mut report);
            }
            report.print();
        }
        "train" => {
            let model = learned::shipped(&sets).ok_or("a set that trains is absent")?;
            std::fs::write(WEIGHTS, model.to_bytes())?;
            eprintln!("wrote {WEIGHTS}");
        }
        other => return Err(format!("no command '{other}'\n{HELP}").into()),
    }
    Ok(())
}
