//! Routing: what the score is worth on recorded prompts whose answers by two models are graded.

use anyhow::Result;

use super::table::Row;
use super::{Asked, rows};
use crate::run::Workspace;

/// Rows of the core's example `router`, which says what it skips.
pub(super) fn measure(workspace: &Workspace, asked: &Asked<'_>) -> Result<Vec<Row>> {
    let mut command = workspace.cargo();
    command
        .args(["run", "--release", "--package", "sluice-core"])
        .args(["--example", "router", "--", "--only", asked.only]);
    if asked.quick {
        command.arg("--quick");
    }
    rows(&mut command)
}
