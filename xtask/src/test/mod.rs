//! `cargo xtask test`: everything that CI checks, in the order in which it fails cheapest.

mod binaries;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::binaries::{Binary, Kind};
use crate::build::{self, wasm_cargo};
use crate::run::{self, Workspace, show};
use crate::setup::docker::Docker;
use crate::setup::wasm::Wasm;
use crate::{Options, setup};

/// All that builds and runs on the host.
const NATIVE: &[&str] = &["--workspace", "--exclude", "sluice-filter"];

/// How long one test program may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// The same with the long runs.
const LONG_LIMIT: Duration = Duration::from_secs(3 * 60 * 60);

/// One check.
struct Step {
    name: &'static str,
    about: &'static str,
    /// Only with `--full` or by name.
    long: bool,
    run: fn(&Workspace) -> Result<()>,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        about: "formatting",
        long: false,
        run: fmt,
    },
    Step {
        name: "clippy",
        about: "lints of all that runs on the host",
        long: false,
        run: clippy,
    },
    Step {
        name: "clippy-wasm",
        about: "lints of the filter and the core for wasm",
        long: false,
        run: clippy_wasm,
    },
    Step {
        name: "doc",
        about: "documentation without a warning",
        long: false,
        run: doc,
    },
    Step {
        name: "deny",
        about: "licences, bans, sources, advisories",
        long: false,
        run: deny,
    },
    Step {
        name: "unit",
        about: "unit and documentation tests on the host",
        long: false,
        run: unit,
    },
    Step {
        name: "wasm",
        about: "the core's tests in wasm under node",
        long: false,
        run: wasm,
    },
    Step {
        name: "fuzz",
        about: "a minute of random events, bodies and cuts",
        long: false,
        run: fuzz,
    },
    Step {
        name: "dist",
        about: "what is shipped",
        long: false,
        run: build::dist,
    },
    Step {
        name: "e2e",
        about: "filter in Envoy, sidecar, Redis, clients, compose",
        long: false,
        run: e2e,
    },
    Step {
        name: "long",
        about: "the long runs",
        long: true,
        run: long,
    },
];

/// `cargo xtask test`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if options.list {
        for step in STEPS {
            let when = if step.long { " (with --full)" } else { "" };
            println!("{:<13}{}{when}", step.name, step.about);
        }
        return Ok(());
    }
    setup::rust::components(workspace)?;
    let picked = options.pick(STEPS, |step| step.name)?;
    let steps: Vec<_> = picked
        .into_iter()
        .filter(|step| !step.long || options.full || !options.names.is_empty())
        .collect();
    let start = Instant::now();
    let mut done = Vec::new();
    for step in steps {
        println!("\n=== {}: {}", step.name, step.about);
        let begin = Instant::now();
        let result = (step.run)(workspace);
        let took = begin.elapsed();
        println!(
            "=== {} {} after {}",
            step.name,
            outcome(result.is_ok()),
            shown(took)
        );
        done.push((step.name, took, result.is_ok()));
        if let Err(error) = result {
            summary(&done, start.elapsed());
            return Err(error.context(format!(
                "step {name} failed (alone: cargo xtask test {name})",
                name = step.name
            )));
        }
    }
    summary(&done, start.elapsed());
    Ok(())
}

fn summary(done: &[(&str, Duration, bool)], all: Duration) {
    println!("\nstep         result    time");
    for (name, took, ok) in done {
        println!("{name:<13}{:<10}{}", outcome(*ok), shown(*took));
    }
    println!(
        "all          {:<10}{}",
        outcome(done.iter().all(|(_, _, ok)| *ok)),
        shown(all)
    );
}

fn outcome(ok: bool) -> &'static str {
    if ok { "passed" } else { "FAILED" }
}

fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

fn fmt(workspace: &Workspace) -> Result<()> {
    show(workspace.cargo().args(["fmt", "--all", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    show(workspace.cargo().arg("clippy").args(NATIVE).args([
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn clippy_wasm(workspace: &Workspace) -> Result<()> {
    let wasm = Wasm::find(workspace)?;
    show(wasm_cargo(&wasm, "clippy")?.args([
        "--package",
        "sluice-filter",
        "--package",
        "sluice-core",
        "--package",
        "sluice-wire",
        "--",
        "-D",
        "warnings",
    ]))
}

fn doc(workspace: &Workspace) -> Result<()> {
    let deny = ("RUSTDOCFLAGS", "-D warnings");
    show(
        workspace
            .cargo()
            .arg("doc")
            .args(NATIVE)
            .arg("--no-deps")
            .env(deny.0, deny.1),
    )?;
    let wasm = Wasm::find(workspace)?;
    show(
        wasm_cargo(&wasm, "doc")?
            .args(["--package", "sluice-filter", "--no-deps"])
            .env(deny.0, deny.1),
    )
}

fn deny(workspace: &Workspace) -> Result<()> {
    let program = setup::cargo_tool::cargo_deny(workspace)?;
    let check = |what: &[&str]| {
        let mut command = workspace.command(&program);
        command
            .args(["--all-features", "check", "--hide-inclusion-graph"])
            .args(what);
        show(&mut command)
    };
    check(&["licenses", "bans", "sources"])?;
    // The advisories lie in a git repository, which not every network lets one reach.
    let fetched = run::read(
        workspace
            .command("timeout")
            .arg("90")
            .arg(&program)
            .args(["fetch", "db"]),
    );
    match fetched {
        Ok(_) => check(&["--disable-fetch", "advisories"]),
        Err(_) => {
            println!("SKIPPED: advisories; their database could not be fetched");
            Ok(())
        }
    }
}

fn unit(workspace: &Workspace) -> Result<()> {
    let all = binaries::build(workspace)?;
    // Where it is told of a model, the engine's tests may not skip it.
    let model = setup::model::minilm(workspace)?;
    for binary in all
        .iter()
        .filter(|binary| !binary.is_e2e() && !binary.is_fuzz())
    {
        show(test_command(workspace, binary, LIMIT).env("SLUICE_MODEL", &model))?;
    }
    show(
        workspace
            .cargo()
            .args(["test", "--quiet", "--doc"])
            .args(NATIVE),
    )
}

fn wasm(workspace: &Workspace) -> Result<()> {
    let wasm = Wasm::find(workspace)?;
    setup::node()?;
    let runner = setup::cargo_tool::wasm_bindgen_test_runner(workspace)?;
    show(
        wasm_cargo(&wasm, "test")?
            .args(["--package", "sluice-core", "--test", "wasm"])
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner),
    )
}

fn fuzz(workspace: &Workspace) -> Result<()> {
    let all = binaries::build(workspace)?;
    let binary = all
        .iter()
        .find(|binary| binary.is_fuzz())
        .context("no test target named fuzz")?;
    show(
        test_command(workspace, binary, LIMIT)
            .arg("--nocapture")
            .env("SLUICE_FUZZ_SECONDS", "60"),
    )
}

fn e2e(workspace: &Workspace) -> Result<()> {
    let environment = Environment::prepare(workspace)?;
    // What is tested is what is shipped, also where this step runs alone.
    build::dist(workspace)?;
    build::provider(workspace)?;
    let all = binaries::build(workspace)?;
    let suite: Vec<_> = all.iter().filter(|binary| binary.is_e2e()).collect();
    if suite.is_empty() {
        bail!("package sluice-tests has no test target");
    }
    // One at a time: each starts an Envoy and more, and watches timeouts of milliseconds that a
    // neighbour's load would eat up.
    every(&suite, |binary| {
        let mut command = test_command(workspace, binary, LIMIT);
        show(environment.give(command.arg("--test-threads=1")))
    })
}

/// Runs them all, whichever fail: such runs take minutes, and one failure must not hide another.
fn every(binaries: &[&Binary], run: impl Fn(&Binary) -> Result<()>) -> Result<()> {
    let failed: Vec<_> = binaries
        .iter()
        .filter_map(|binary| {
            run(binary)
                .err()
                .map(|error| format!("{}: {error:#}", binary.target))
        })
        .collect();
    if !failed.is_empty() {
        bail!(
            "{} of {} failed:\n{}",
            failed.len(),
            binaries.len(),
            failed.join("\n")
        );
    }
    Ok(())
}

fn long(workspace: &Workspace) -> Result<()> {
    let environment = Environment::prepare(workspace)?;
    build::dist(workspace)?;
    build::provider(workspace)?;
    let all = binaries::build(workspace)?;
    every(&all.iter().collect::<Vec<_>>(), |binary| {
        let mut command = test_command(workspace, binary, LONG_LIMIT);
        command.args(["--ignored", "--nocapture", "--test-threads=1"]);
        show(environment.give(&mut command))
    })
}

/// The test program where cargo would run it, stopped when it hangs.
fn test_command(workspace: &Workspace, binary: &Binary, limit: Duration) -> Command {
    println!(
        "\n--- {} {}{}",
        binary.package,
        binary.target,
        match binary.kind {
            Kind::Integration => " (integration)",
            Kind::Unit => "",
        }
    );
    let mut command = workspace.command("timeout");
    command
        .args(["--kill-after=30", &limit.as_secs().to_string()])
        .arg(&binary.path)
        .current_dir(&binary.folder)
        .env("CARGO_MANIFEST_DIR", &binary.folder);
    command
}

/// What the end-to-end tests are told about their surroundings.
struct Environment(Vec<(&'static str, std::ffi::OsString)>);

impl Environment {
    fn prepare(workspace: &Workspace) -> Result<Self> {
        let docker = setup::docker::found();
        let compose = match docker {
            Docker::V2 => "docker compose",
            Docker::V1 => "docker-compose",
            Docker::NoCompose | Docker::None => {
                println!("SKIPPED: the compose example ({docker})");
                ""
            }
        };
        Ok(Environment(vec![
            ("SLUICE_DIST", workspace.dist.clone().into()),
            ("SLUICE_ENVOY", setup::envoy::envoy(workspace)?.into()),
            ("SLUICE_REDIS", setup::redis()?.into()),
            ("SLUICE_MODEL", setup::model::minilm(workspace)?.into()),
            ("SLUICE_PYTHON", setup::python::clients(workspace)?.into()),
            // Empty: no engine. Otherwise the words that start Compose.
            ("SLUICE_COMPOSE", compose.into()),
            // What a test may skip on a developer's machine it must not skip here.
            ("SLUICE_REQUIRE_ALL", "1".into()),
        ]))
    }

    fn give<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.envs(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_steps_share_a_name() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }

    #[test]
    fn times_are_shown_in_minutes_past_the_first() {
        assert_eq!(shown(Duration::from_millis(1_250)), "1.2 s");
        assert_eq!(shown(Duration::from_secs(125)), "2 min 05 s");
    }
}
