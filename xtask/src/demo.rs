//! `cargo xtask demo`: build what is shipped, then hand over to the demo program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::run::Workspace;
use crate::{HELP, build, setup};

/// Does not come back when all goes well: the demo takes this process's place, so that signals and
/// the exit code are its own.
pub(crate) fn run(workspace: &Workspace, args: Vec<OsString>) -> Result<ExitCode> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let envoy = setup::envoy::envoy(workspace)?;
    build::dist(workspace)?;
    build::programs(workspace, &["sluice-demo", "sluice-provider"])?;
    let program = workspace.target.join("debug/sluice-demo");
    let error = workspace
        .command(&program)
        .args(args)
        .env("SLUICE_ENVOY", envoy)
        .env("SLUICE_DIST", &workspace.dist)
        .current_dir(std::env::current_dir()?)
        .exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}
