//! `cargo xtask bench`: measure side by side, print a table, keep `target/bench/NAME.json`.

mod cache;
mod core;
mod table;

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use self::table::Row;
use crate::run::{self, Workspace};
use crate::{Options, build, setup};

/// One comparison.
struct Bench {
    name: &'static str,
    about: &'static str,
    measure: fn(&Workspace, &'static str) -> Result<Vec<Row>>,
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
        about: "which near questions are one: precision, recall, time of a comparison",
        measure: cache::measure,
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
        let rows = (bench.measure)(workspace, bench.name)
            .with_context(|| format!("bench {}", bench.name))?;
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
fn program(workspace: &Workspace, name: &'static str) -> Result<Vec<Row>> {
    let envoy = setup::envoy::envoy(workspace)?;
    build::dist(workspace)?;
    run::show(
        workspace
            .cargo()
            .args(["build", "--release", "--package", "sluice-tests"])
            .args(["--bin", "sluice-bench", "--bin", "sluice-provider"]),
    )?;
    let output = workspace
        .command(workspace.target.join("release/sluice-bench"))
        .arg(name)
        .env("SLUICE_ENVOY", envoy)
        .env("SLUICE_DIST", &workspace.dist)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("starting sluice-bench")?;
    if !output.status.success() {
        bail!("sluice-bench {name}: {}", output.status);
    }
    table::parse(&String::from_utf8(output.stdout)?)
}
