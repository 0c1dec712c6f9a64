//! The semantic cache's decision, on recorded questions where they are present.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::table::{self, Row};
use crate::run::Workspace;
use crate::setup;

/// Rows of `examples/semantic`; what it needs and skips, docs/semantic-cache.md says.
pub(super) fn measure(workspace: &Workspace, _name: &'static str) -> Result<Vec<Row>> {
    let model = setup::model::minilm(workspace)?;
    let output = workspace
        .cargo()
        .args(["run", "--release", "--package", "sluice"])
        .args(["--example", "semantic", "--", "measure", "--json"])
        .env("SLUICE_MODEL", model)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("starting the example semantic")?;
    if !output.status.success() {
        bail!("the example semantic: {}", output.status);
    }
    table::parse(&String::from_utf8(output.stdout)?)
}
