//! Debian packages, for the programs that only a distribution ships.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

use anyhow::{Context as _, Result, bail};

use super::say;
use crate::run::{self, which};

/// `program` on the PATH, else from Debian's `package`.
pub(super) fn program(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = which(program, &[]) {
        return Ok(path);
    }
    install(&[package], &format!("{program} ({package} from Debian)"))?;
    which(program, &[]).with_context(|| format!("package {package} brought no {program}"))
}

/// Installs packages; `what` is told.
pub(super) fn install(packages: &[&str], what: &str) -> Result<()> {
    if which("apt-get", &[]).is_none() {
        bail!(
            "no apt-get here; install {} by the means of this system and run again",
            packages.join(", ")
        );
    }
    say(what);
    static LISTS: Once = Once::new();
    LISTS.call_once(|| {
        // Old lists often still serve; where they do not, the installation below says so.
        let _ = run::read(apt().arg("update"));
    });
    run::read(
        apt()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )?;
    Ok(())
}

fn apt() -> Command {
    let root = run::read(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let mut command = if root {
        Command::new("apt-get")
    } else {
        // `-n`: a question for a password would hang where nobody sits in front.
        let mut command = Command::new("sudo");
        command.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    };
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
    command
}
