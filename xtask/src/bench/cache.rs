//! The caches: what a client waits for a hit, what an answer takes, which questions count as one.

use anyhow::Result;

use super::table::Row;
use super::{Asked, program, rows};
use crate::run::Workspace;
use crate::setup;

/// Parts, by the program that measures them: what `--only` is held against.
const IN_ENVOY: &[&str] = &["exact", "semantic"];
const IN_PROCESS: &[&str] = &["memory", "packing", "index"];
const DECISION: &[&str] = &["decision"];

/// Rows of `sluice-bench cache`, of the sidecar's bench `cache`, and of its example `semantic`; what
/// the last needs and skips, docs/semantic-cache.md says.
pub(super) fn measure(workspace: &Workspace, asked: &Asked<'_>) -> Result<Vec<Row>> {
    let wanted = |parts: &[&str]| parts.iter().any(|part| part.contains(asked.only));
    let mut all = Vec::new();
    if wanted(IN_ENVOY) {
        all.extend(program(workspace, asked)?);
    }
    if wanted(IN_PROCESS) {
        let mut command = workspace.cargo();
        command.args(["bench", "--package", "sluice", "--bench", "cache", "--"]);
        command.args(["--only", asked.only]);
        if asked.quick {
            command.arg("--quick");
        }
        all.extend(rows(&mut command)?);
    }
    if wanted(DECISION) {
        let mut command = workspace.cargo();
        command
            .args(["run", "--release", "--package", "sluice"])
            .args(["--example", "semantic", "--", "measure", "--json"])
            .env("SLUICE_MODEL", setup::model::minilm(workspace)?);
        all.extend(rows(&mut command)?);
    }
    Ok(all)
}
