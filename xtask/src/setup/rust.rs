//! The native toolchain's own parts.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{required, say};
use crate::run::{self, Workspace};

/// rustfmt and clippy, which a minimal rustup installation lacks.
pub(crate) fn components(workspace: &Workspace) -> Result<()> {
    let missing: Vec<_> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(command, _)| run::read(workspace.cargo().args([command, "--version"])).is_err())
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    required("rustup", "rustfmt and clippy are its components")?;
    say(&format!("{} (rustup component add)", missing.join(", ")));
    run::read(
        workspace
            .command("rustup")
            .args(["component", "add"])
            .args(missing),
    )?;
    Ok(())
}

/// The toolchain's folder.
pub(super) fn sysroot(workspace: &Workspace) -> Result<PathBuf> {
    let path = run::read(rustc(workspace).args(["--print", "sysroot"])).context("asking rustc")?;
    Ok(PathBuf::from(path.trim()))
}

/// `x86_64-unknown-linux-gnu` and the like.
pub(super) fn host(workspace: &Workspace) -> Result<String> {
    let text = run::read(rustc(workspace).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_string())
}

fn rustc(workspace: &Workspace) -> Command {
    workspace.command(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}
