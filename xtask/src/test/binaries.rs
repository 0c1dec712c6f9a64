//! The workspace's test programs, built once for all steps that run some of them.
//!
//! Asking cargo for one package at a time would give that package's dependencies other features,
//! and compile them again for every step.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::NATIVE;
use crate::run::Workspace;

/// A test program.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Binary {
    pub(super) package: String,
    pub(super) target: String,
    pub(super) kind: Kind,
    /// The executable.
    pub(super) path: PathBuf,
    /// The package's folder.
    pub(super) folder: PathBuf,
}

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// `#[cfg(test)]` in a library or program.
    Unit,
    /// A file in `tests/`.
    Integration,
}

impl Binary {
    /// Starts Envoy and the like.
    pub(super) fn is_e2e(&self) -> bool {
        self.package == "sluice-tests" && self.kind == Kind::Integration
    }

    /// Runs for as long as it is told.
    pub(super) fn is_fuzz(&self) -> bool {
        self.package == "sluice-core" && self.target == "fuzz" && self.kind == Kind::Integration
    }
}

/// Builds them all.
pub(super) fn build(workspace: &Workspace) -> Result<Vec<Binary>> {
    let output = workspace
        .cargo()
        .args([
            "test",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .args(NATIVE)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo test --no-run")?;
    if !output.status.success() {
        bail!("cargo test --no-run: {}", output.status);
    }
    let text = String::from_utf8(output.stdout)?;
    let mut all: Vec<_> = text.lines().filter_map(binary).collect();
    all.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    Ok(all)
}

/// The test program that a line of cargo's messages is about.
fn binary(line: &str) -> Option<Binary> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let folder = Path::new(message["manifest_path"].as_str()?)
        .parent()?
        .to_path_buf();
    let kind = match message["target"]["kind"][0].as_str()? {
        "test" => Kind::Integration,
        "bench" => return None,
        _ => Kind::Unit,
    };
    Some(Binary {
        package: package(message["package_id"].as_str()?)?.to_string(),
        target: message["target"]["name"].as_str()?.to_string(),
        kind,
        path: message["executable"].as_str()?.into(),
        folder,
    })
}

/// `path+file:///…/filter/core#sluice-core@0.1.0`; the name is left out where it is the folder's.
fn package(id: &str) -> Option<&str> {
    let (source, rest) = id.rsplit_once('#')?;
    match rest.split_once('@') {
        Some((name, _)) => Some(name),
        None => source.rsplit('/').next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"reason":"compiler-artifact","package_id":"path+file:///src/tests#sluice-tests@0.1.0","manifest_path":"/src/tests/Cargo.toml","target":{"kind":["test"],"name":"e2e"},"profile":{"test":true},"executable":"/src/target/debug/deps/e2e-1"}"#;

    #[test]
    fn a_test_program_is_found_in_cargos_messages() {
        let binary = binary(LINE).unwrap();
        assert!(binary.is_e2e());
        assert_eq!(binary.folder, Path::new("/src/tests"));
    }

    #[test]
    fn libraries_and_other_messages_are_passed_over() {
        assert_eq!(
            binary(&LINE.replace("\"test\":true", "\"test\":false")),
            None
        );
        assert_eq!(
            binary(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(binary("warning: text"), None);
    }

    #[test]
    fn a_package_named_like_its_folder_is_still_named() {
        assert_eq!(package("path+file:///src/xtask#0.1.0"), Some("xtask"));
        assert_eq!(
            package("path+file:///src/filter/core#sluice-core@0.1.0"),
            Some("sluice-core")
        );
    }
}
