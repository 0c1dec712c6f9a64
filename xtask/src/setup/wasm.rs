//! The compiler for wasm32-unknown-unknown: rustup's, else Debian's with std built from source.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{apt, rust, say};
use crate::run::{self, Workspace, path_with, which};

/// The target that Envoy's runtime takes.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// How long rustup may try to reach its server.
const RUSTUP_SECONDS: &str = "240";

/// Which toolchain compiles to wasm.
#[derive(Clone, Debug, PartialEq)]
enum Origin {
    /// The native toolchain has the target.
    Native,
    /// `rustc-web` and `cargo-web`; std is built from `rust-web-src`.
    Debian {
        /// A linker that speaks wasm.
        linker: PathBuf,
    },
}

/// A toolchain that builds, lints and tests for [`TARGET`].
#[derive(Clone, Debug)]
pub(crate) struct Wasm<'a> {
    workspace: &'a Workspace,
    origin: Origin,
}

impl<'a> Wasm<'a> {
    /// The toolchain, installed where it was missing.
    pub(crate) fn find(workspace: &'a Workspace) -> Result<Self> {
        let origin = match std::env::var("SLUICE_WASM").as_deref() {
            Ok("debian") => debian(workspace)?,
            Ok("rustup") => {
                rustup(workspace)?;
                Origin::Native
            }
            Ok(other) if !other.is_empty() => {
                bail!("SLUICE_WASM is rustup or debian; found '{other}'")
            }
            _ if has_target(workspace)? => Origin::Native,
            _ => match rustup(workspace) {
                Ok(()) => Origin::Native,
                Err(error) => {
                    let reason = error.to_string();
                    let reason = reason.lines().last().unwrap_or_default();
                    say(&format!(
                        "rustup could not add {TARGET} ({reason}); Debian's way"
                    ));
                    debian(workspace)?
                }
            },
        };
        Ok(Wasm { workspace, origin })
    }

    /// `cargo SUBCOMMAND` for the target; arguments that follow go to the subcommand.
    pub(crate) fn cargo(&self, subcommand: &str) -> Result<Command> {
        let mut command = match &self.origin {
            Origin::Native => self.workspace.cargo(),
            Origin::Debian { linker } => {
                if subcommand == "clippy" {
                    debian_clippy()?;
                }
                let mut command = self.workspace.command("/usr/bin/cargo");
                command
                    .env("PATH", path_with(Path::new("/usr/bin")))
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                    .env_remove("RUSTUP_TOOLCHAIN")
                    .env_remove("CARGO");
                command
            }
        };
        command.arg(subcommand).args(["--target", TARGET]);
        command.env("CARGO_TARGET_DIR", self.target_dir());
        if matches!(self.origin, Origin::Debian { .. }) {
            command.args(["-Z", "build-std=std,panic_abort"]);
        }
        Ok(command)
    }

    /// Where `profile` (`debug`, `release`) leaves what it builds.
    pub(crate) fn output(&self, profile: &str) -> PathBuf {
        self.target_dir().join(TARGET).join(profile)
    }

    /// Debian's compiler gets a folder of its own, so that it and the native one do not take turns
    /// in throwing away each other's work; the native one shares build scripts and macros.
    fn target_dir(&self) -> PathBuf {
        match self.origin {
            Origin::Native => self.workspace.target.clone(),
            Origin::Debian { .. } => self.workspace.target.join("debian"),
        }
    }
}

impl fmt::Display for Wasm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Native => write!(f, "the native toolchain with {TARGET}"),
            Origin::Debian { linker } => {
                write!(
                    f,
                    "/usr/bin/rustc with its std from source, {}",
                    linker.display()
                )
            }
        }
    }
}

fn has_target(workspace: &Workspace) -> Result<bool> {
    let lib = rust::sysroot(workspace)?
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib");
    Ok(lib.is_dir())
}

fn rustup(workspace: &Workspace) -> Result<()> {
    if has_target(workspace)? {
        return Ok(());
    }
    if which("rustup", &[]).is_none() {
        bail!("no rustup on the PATH");
    }
    say(&format!("{TARGET} (rustup target add)"));
    run::read(
        workspace
            .command("timeout")
            .args([RUSTUP_SECONDS, "rustup", "target", "add", TARGET])
            .env("RUSTUP_MAX_RETRIES", "0"),
    )?;
    if !has_target(workspace)? {
        bail!("rustup added {TARGET} to another toolchain than the one in use");
    }
    Ok(())
}

fn debian(workspace: &Workspace) -> Result<Origin> {
    let there = Path::new("/usr/bin/rustc").is_file()
        && Path::new("/usr/bin/cargo").is_file()
        && run::read(Command::new("dpkg").args(["-s", "rust-web-src"])).is_ok();
    if !there {
        apt::install(
            &["rustc-web", "cargo-web", "rust-web-src"],
            "rustc-web, cargo-web, rust-web-src (Debian), to build for wasm",
        )?;
    }
    check_version()?;
    let bundled = rust::sysroot(workspace)?
        .join("lib/rustlib")
        .join(rust::host(workspace)?)
        .join("bin/rust-lld");
    let linker = if bundled.is_file() {
        bundled
    } else {
        apt::program("wasm-ld", "lld")?
    };
    Ok(Origin::Debian { linker })
}

/// Debian's plain bookworm has 1.85, its security suite a newer one.
fn check_version() -> Result<()> {
    let text = run::read(Command::new("/usr/bin/rustc").arg("--version"))?;
    let minor = minor_version(&text).with_context(|| format!("reading '{}'", text.trim()))?;
    let wanted = minor_version(&format!("rustc {}", env!("CARGO_PKG_RUST_VERSION")))
        .context("the workspace names no rust-version")?;
    if minor < wanted {
        bail!(
            "/usr/bin/rustc is 1.{minor}, 1.{wanted} is needed (rustc-web is newer in bookworm-security)"
        );
    }
    Ok(())
}

/// The 96 of `rustc 1.96.0 (…)`.
fn minor_version(text: &str) -> Option<u32> {
    text.split_whitespace()
        .nth(1)?
        .split('.')
        .nth(1)?
        .parse()
        .ok()
}

/// The linter that belongs to Debian's compiler. Its package conflicts with a packaged rustup, not
/// with one that was installed by its script.
fn debian_clippy() -> Result<()> {
    if run::is_executable(Path::new("/usr/bin/cargo-clippy")) {
        return Ok(());
    }
    apt::install(
        &["rust-web-clippy"],
        "rust-web-clippy (Debian), to lint for wasm",
    )
}

/// binaryen's `wasm-opt`.
pub(crate) fn wasm_opt() -> Result<PathBuf> {
    apt::program("wasm-opt", "binaryen")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_line_is_read_whatever_follows_the_number() {
        assert_eq!(
            minor_version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a tarball)"),
            Some(96)
        );
        assert_eq!(minor_version("rustc 1.89"), Some(89));
        assert_eq!(minor_version("rustc"), None);
    }
}
