//! Where the programs are that the harness starts.

use std::path::{Path, PathBuf};

use anyhow::bail;

/// The repository.
#[must_use]
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Envoy: `SLUICE_ENVOY`, an `envoy` on the PATH, or `target/tools/envoy`.
///
/// # Errors
/// When there is none.
pub fn envoy() -> anyhow::Result<PathBuf> {
    find("SLUICE_ENVOY", "envoy", Some("target/tools/envoy"))
}

/// The filter: `sluice-filter.wasm` in `SLUICE_DIST` or `target/dist`.
///
/// # Errors
/// When it was not built.
pub fn filter() -> anyhow::Result<PathBuf> {
    shipped("sluice-filter.wasm")
}

/// The sidecar: `SLUICE_SIDECAR`, or `sluice` in `SLUICE_DIST` or `target/dist`.
///
/// # Errors
/// When it was not built.
pub fn sidecar() -> anyhow::Result<PathBuf> {
    match std::env::var_os("SLUICE_SIDECAR") {
        Some(path) => Ok(path.into()),
        None => shipped("sluice"),
    }
}

/// Redis: `SLUICE_REDIS` or a `redis-server` on the PATH.
///
/// # Errors
/// When there is none.
pub fn redis() -> anyhow::Result<PathBuf> {
    find("SLUICE_REDIS", "redis-server", None)
}

/// The embedding model: `SLUICE_MODEL` or what `cargo xtask setup model` put into `target/models`.
///
/// # Errors
/// When it is not there.
pub fn model() -> anyhow::Result<PathBuf> {
    let model = match std::env::var_os("SLUICE_MODEL") {
        Some(model) => model.into(),
        None => root().join("target/models/all-MiniLM-L6-v2"),
    };
    if !model.join("model.safetensors").is_file() {
        bail!(
            "no model in {}; `cargo xtask setup model` fetches it",
            model.display()
        );
    }
    Ok(model)
}

/// The Python that has the official clients: `SLUICE_PYTHON` or that of `target/tools/venv`.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let python = match std::env::var_os("SLUICE_PYTHON") {
        Some(python) => python.into(),
        None => root().join("target/tools/venv/bin/python"),
    };
    python.is_file().then_some(python)
}

fn shipped(name: &str) -> anyhow::Result<PathBuf> {
    let dist = std::env::var_os("SLUICE_DIST").map(PathBuf::from);
    let path = dist
        .unwrap_or_else(|| root().join("target/dist"))
        .join(name);
    if !path.is_file() {
        bail!(
            "{} is missing; `cargo xtask dist` builds it",
            path.display()
        );
    }
    Ok(path)
}

fn find(variable: &str, name: &str, fallback: Option<&str>) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(name));
    let found = on_path
        .chain(fallback.map(|path| root().join(path)))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("no {name}: set {variable}, or run `cargo xtask setup`"),
    }
}
