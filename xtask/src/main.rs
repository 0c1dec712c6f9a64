//! Every chore of the workspace, behind `cargo xtask`.

mod bench;
mod build;
mod demo;
mod run;
mod setup;
mod test;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::run::Workspace;

const HELP: &str = "\
cargo xtask COMMAND

  demo [ARGS…]     build everything, start Envoy, the sidecar and a stand-in provider on loopback,
                   send the sample traffic, print what was saved
                     --serve            keep it running afterwards
                     --traffic FILE     send these prompts ({id, prompt} lines or request bodies)
                     --upstream URL     a real OpenAI-compatible provider in place of the stand-in
  test [--full] [STEP…]
                   everything that CI checks; --full adds the long runs; with names only those
                   steps (cargo xtask test --list shows them)
  wasm             target/dist/sluice-filter.wasm
  dist [--examples]
                   the same, and target/dist/sluice; --examples adds the stand-in provider that
                   examples/docker-compose.yaml starts beside them
  bench [NAME…]    measure; a table on screen and target/bench/NAME.json
                   (cargo xtask bench --list shows the names)
                     --quick            short runs, to see that it works: no figures to quote
                     --only PART        only the parts whose name contains this
  train-router     fit the learned part of the routing score to the recorded prompts of
                   SLUICE_ROUTER_DATA (default: ../shared/data) and write its weights
  setup [PIECE…]   install what the other commands need, which they also do by themselves
                   (cargo xtask setup --list shows the pieces)

Environment
  SLUICE_WASM=rustup|debian   where the wasm compiler comes from (default: rustup, else Debian)
  SLUICE_CACHE=DIR            where built tools are kept (default: ~/.cache/sluice)
";

fn main() -> ExitCode {
    match dispatch(std::env::args_os().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(mut args: Vec<OsString>) -> Result<ExitCode> {
    if args.is_empty() {
        print!("{HELP}");
        return Ok(ExitCode::FAILURE);
    }
    let command = args.remove(0);
    let command = command.to_str().context("the command is not UTF-8")?;
    if matches!(command, "help" | "--help" | "-h") {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let workspace = Workspace::find()?;
    if command == "demo" {
        // Its arguments are the demo's own, `--help` included.
        return demo::run(&workspace, args);
    }
    let options = Options::parse(args)?;
    if options.help {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    if options.full && command != "test" {
        bail!("--full belongs to test");
    }
    if options.examples && command != "dist" {
        bail!("--examples belongs to dist");
    }
    if (options.quick || !options.only.is_empty()) && command != "bench" {
        bail!("--quick and --only belong to bench");
    }
    match command {
        "test" => test::run(&workspace, &options)?,
        "wasm" => {
            options.no_names(command)?;
            build::wasm(&workspace)?;
        }
        "dist" => {
            options.no_names(command)?;
            build::dist(&workspace)?;
            if options.examples {
                build::provider(&workspace)?;
            }
        }
        "bench" => bench::run(&workspace, &options)?,
        "train-router" => {
            options.no_names(command)?;
            run::show(&mut bench::router::example(&workspace, "train"))?;
        }
        "setup" => setup::run(&workspace, &options)?,
        other => bail!("no command '{other}'; cargo xtask --help lists them"),
    }
    Ok(ExitCode::SUCCESS)
}

/// What may follow any command but `demo`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) help: bool,
    pub(crate) list: bool,
    pub(crate) full: bool,
    pub(crate) examples: bool,
    pub(crate) quick: bool,
    /// A part's name, or some of it; empty: all.
    pub(crate) only: String,
    pub(crate) names: Vec<String>,
}

impl Options {
    fn parse(args: Vec<OsString>) -> Result<Self> {
        use lexopt::prelude::{Long, Short, Value, ValueExt as _};
        let mut options = Options::default();
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("help") | Short('h') => options.help = true,
                Long("list") => options.list = true,
                Long("full") => options.full = true,
                Long("examples") => options.examples = true,
                Long("quick") => options.quick = true,
                Long("only") => options.only = parser.value()?.string()?,
                Value(name) => options.names.push(name.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(options)
    }

    fn no_names(&self, command: &str) -> Result<()> {
        if let Some(name) = self.names.first() {
            bail!("{command} takes no argument; found '{name}'");
        }
        Ok(())
    }

    /// The entries of `all` that were named, all where none was; an unknown name is an error.
    pub(crate) fn pick<'a, T>(
        &self,
        all: &'a [T],
        name: impl Fn(&T) -> &'static str,
    ) -> Result<Vec<&'a T>> {
        for wanted in &self.names {
            if !all.iter().any(|entry| name(entry) == wanted) {
                let known: Vec<_> = all.iter().map(&name).collect();
                bail!("no '{wanted}'; there are: {}", known.join(", "));
            }
        }
        Ok(all
            .iter()
            .filter(|entry| self.names.is_empty() || self.names.iter().any(|n| n == name(entry)))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(args.iter().map(OsString::from).collect())
    }

    #[test]
    fn flags_and_names_may_come_in_any_order() {
        let options = parse(&["fmt", "--full", "clippy"]).unwrap();
        assert!(options.full);
        assert_eq!(options.names, ["fmt", "clippy"]);
    }

    #[test]
    fn a_bench_may_be_cut_short_and_cut_down() {
        let options = parse(&["cache", "--only", "memory", "--quick"]).unwrap();
        assert!(options.quick);
        assert_eq!(options.only, "memory");
        assert_eq!(options.names, ["cache"]);
        assert!(parse(&["--only"]).is_err());
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        assert!(parse(&["--fulll"]).is_err());
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_those_that_are() {
        let options = parse(&["fnt"]).unwrap();
        let error = options.pick(&["fmt", "doc"], |name| name).unwrap_err();
        assert_eq!(error.to_string(), "no 'fnt'; there are: fmt, doc");
    }

    #[test]
    fn no_name_picks_everything_and_a_name_picks_one() {
        let all = ["fmt", "doc"];
        assert_eq!(parse(&[]).unwrap().pick(&all, |n| n).unwrap().len(), 2);
        assert_eq!(
            parse(&["doc"]).unwrap().pick(&all, |n| n).unwrap(),
            [&"doc"]
        );
    }
}
