//! `cargo xtask bench`: measure side by side, print a table, keep `target/bench/NAME.json`.

mod cache;
mod core;
pub(crate) mod router;
mod table;
mod trim;

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use self::table::Row;
use crate::run::{self, Workspace};
use crate::{Options, build, setup};

/// One comparison.
struct Bench {
    name: &'static str,
    about: &'static str,
    measure: fn(&Workspace, &Asked<'_>) -> Result<Vec<Row>>,
}

/// Which bench, and how much of it.
struct Asked<'a> {
    name: &'static str,
    quick: bool,
    /// Only parts whose name contains this.
    only: &'a str,
}

/// One line each; `program` runs the case of that name in `sluice-bench`.
const BENCHES: &[Bench] = &[
    Bench {
        name: "filter",
        about: "requests per second and added latency in Envoy, beside bare Envoy",
        measure: program,
    },
    Bench {
        name: "core",
        about: "parse, count, score, key and SSE: natively and in wasm under node",
        measure: core::measure,
    },
    Bench {
        name: "cache",
        about: "time of exact and semantic hits, memory per answer, which near questions are one",
        measure: cache::measure,
    },
    Bench {
        name: "trim",
        about: "what stays when a prompt is cut, what that takes, what conversations then cost",
        measure: trim::measure,
    },
    Bench {
        name: "router",
        about: "which prompts the score sends to the large model, and what quality that keeps",
        measure: router::measure,
    },
];

/// `cargo xtask bench`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if options.list {
        for bench in BENCHES {
            println!("{:<9}{}", bench.name, bench.about);
        }
        return Ok(());
    }
    let folder = workspace.root.join("target/bench");
    fs::create_dir_all(&folder)?;
    for bench in options.pick(BENCHES, |bench| bench.name)? {
        println!("=== {}: {}", bench.name, bench.about);
        let asked = Asked {
            name: bench.name,
            quick: options.quick,
            only: &options.only,
        };
        let rows =
            (bench.measure)(workspace, &asked).with_context(|| format!("bench {}", bench.name))?;
        if rows.is_empty() {
            bail!("bench {} measured nothing", bench.name);
        }
        let file = folder.join(format!("{}.json", bench.name));
        fs::write(&file, table::json(&rows)?)?;
        print!("\n{}", table::show(&rows));
        println!("kept in {}\n", workspace.shown(&file));
    }
    Ok(())
}

/// `sluice-bench NAME`: rows as a JSON list on stdout, progress on stderr.
fn program(workspace: &Workspace, asked: &Asked<'_>) -> Result<Vec<Row>> {
    let envoy = setup::envoy::envoy(workspace)?;
    build::dist(workspace)?;
    run::show(
        workspace
            .cargo()
            .args(["build", "--release", "--package", "sluice-tests"])
            .args(["--bin", "sluice-bench", "--bin", "sluice-provider"]),
    )?;
    let mut command = workspace.command(workspace.target.join("release/sluice-bench"));
    command
        .args([asked.name, "--only", asked.only])
        .env("SLUICE_ENVOY", envoy)
        .env("SLUICE_DIST", &workspace.dist);
    if asked.quick {
        command.args(["--rounds", "1", "--seconds", "1", "--latency", "3"]);
    }
    if asked.name == "cache" {
        command.env("SLUICE_MODEL", setup::model::minilm(workspace)?);
    }
    rows(&mut command)
}

/// What a program wrote to stdout; its stderr is shown.
fn rows(command: &mut Command) -> Result<Vec<Row>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", output.status);
    }
    table::parse(&String::from_utf8(output.stdout)?)
}
