//! The command line.

mod cache;
mod calibrate;
mod check;
mod fetch;
mod report;
mod score;
mod serve;
mod tuning;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "sluice",
    version,
    about = "Cuts what LLM inference costs: the sidecar of Sluice's Envoy filter, and its tools",
    after_help = "Examples:\n  sluice check sluice.yaml\n  sluice serve --config sluice.yaml\n  \
                  sluice report --config sluice.yaml --by task,model\n  \
                  sluice cache stats --url http://127.0.0.1:8089\n  \
                  sluice score < prompts.jsonl\n  \
                  sluice calibrate --config sluice.yaml --labels graded.jsonl --quality 95"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Score(score::Args),
    Calibrate(calibrate::Args),
    Report(report::Args),
    Cache(cache::Args),
}

/// Runs the command that the process's arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let outcome = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => return check::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Cache(args) => cache::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_shows_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            let help = sub.get_after_help().map(ToString::to_string);
            assert!(
                help.is_some_and(|help| help.contains("Example")),
                "{} has no example",
                sub.get_name()
            );
        }
    }
}
