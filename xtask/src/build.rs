//! What is shipped: the filter's module and the sidecar's binary, in `target/dist`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::run::{self, Workspace};
use crate::setup::wasm::{TARGET, Wasm, wasm_opt};

/// Flags for rustc on every build, lint and test for wasm.
const WASM_RUSTFLAGS: &[&str] = &["-C", "target-feature=+simd128"];

/// What wasm-opt is asked for. Rust's own output has had its passes for speed; these find what only
/// a look at the whole module shows.
const WASM_OPT: &[&str] = &[
    "-O3",
    "--enable-bulk-memory",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-simd",
    "--strip-debug",
    "--strip-producers",
    "--strip-target-features",
];

/// `cargo SUBCOMMAND` for wasm with the project's flags.
pub(crate) fn wasm_cargo(wasm: &Wasm<'_>, subcommand: &str) -> Result<Command> {
    let mut command = wasm.cargo(subcommand)?;
    if !WASM_RUSTFLAGS.is_empty() {
        command.env(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
            WASM_RUSTFLAGS.join(" "),
        );
    }
    Ok(command)
}

/// The filter: `target/dist/sluice-filter.wasm`.
pub(crate) fn wasm(workspace: &Workspace) -> Result<PathBuf> {
    let wasm = Wasm::find(workspace)?;
    let optimiser = wasm_opt()?;
    run::show(wasm_cargo(&wasm, "build")?.args([
        "--profile",
        "wasm",
        "--package",
        "sluice-filter",
    ]))?;
    let built = wasm.output("wasm").join("sluice_filter.wasm");
    let place = workspace.dist.join("sluice-filter.wasm");
    if !older(&place, &[&built, &std::env::current_exe()?])? {
        return Ok(place);
    }
    fs::create_dir_all(&workspace.dist)?;
    let half = place.with_extension("half");
    run::read(
        workspace
            .command(optimiser)
            .args(WASM_OPT)
            .arg(&built)
            .arg("--output")
            .arg(&half),
    )?;
    fs::rename(&half, &place)?;
    let size = |file: &Path| fs::metadata(file).map(|meta| meta.len() as f64 / 1e6);
    println!(
        "{}: {:.2} MB for {TARGET} ({:.2} before wasm-opt)",
        workspace.shown(&place),
        size(&place)?,
        size(&built)?
    );
    Ok(place)
}

/// The filter, and the sidecar: `target/dist/sluice`.
pub(crate) fn dist(workspace: &Workspace) -> Result<()> {
    wasm(workspace)?;
    // By itself, so that no feature that only tests ask for gets into what is shipped.
    run::show(workspace.cargo().args([
        "build",
        "--release",
        "--package",
        "sluice",
        "--bin",
        "sluice",
    ]))?;
    place(
        workspace,
        &workspace.target.join("release/sluice"),
        "sluice",
    )
}

/// The stand-in provider, for the examples: `target/dist/sluice-provider`. As fast as its tests
/// need it, and so built as they build it.
pub(crate) fn provider(workspace: &Workspace) -> Result<()> {
    programs(workspace, &["sluice-provider"])?;
    place(
        workspace,
        &workspace.target.join("debug/sluice-provider"),
        "sluice-provider",
    )
}

/// Programs of the test package. The selection of packages is that of `test`, and so are the
/// features of their dependencies: what one command compiled serves the other.
pub(crate) fn programs(workspace: &Workspace, names: &[&str]) -> Result<()> {
    let mut command = workspace.cargo();
    command.args(["build", "--workspace", "--exclude", "sluice-filter"]);
    for name in names {
        command.args(["--bin", name]);
    }
    run::show(&mut command)
}

/// Copies a program into `target/dist`, renamed into place: one that is running keeps its old file.
fn place(workspace: &Workspace, built: &Path, name: &str) -> Result<()> {
    let place = workspace.dist.join(name);
    if !older(&place, &[built])? {
        return Ok(());
    }
    let half = place.with_extension("half");
    fs::copy(built, &half).with_context(|| format!("copying {}", built.display()))?;
    fs::rename(&half, &place)?;
    let size = fs::metadata(&place)?.len() as f64 / 1e6;
    println!("{}: {size:.2} MB", workspace.shown(&place));
    Ok(())
}

/// Whether `file` is missing or was made before one of `inputs`.
fn older(file: &Path, inputs: &[&Path]) -> Result<bool> {
    let made = |path: &Path| -> Result<SystemTime> {
        let meta = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
        Ok(meta.modified()?)
    };
    let Ok(own) = made(file) else { return Ok(true) };
    for input in inputs {
        if made(input)? > own {
            return Ok(true);
        }
    }
    Ok(false)
}
