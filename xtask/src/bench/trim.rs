//! Trimming: what of a past conversation and of retrieved chunks stays when a prompt is cut.

use anyhow::Result;

use super::table::Row;
use super::{Asked, rows};
use crate::run::Workspace;
use crate::setup;

/// Parts of the sidecar's bench `trim`: what `--only` is held against.
const QUALITY: &[&str] = &["locomo", "pubmedqa"];

/// Rows of the sidecar's bench `trim`; what is absent, its data or the model, it says and skips.
pub(super) fn measure(workspace: &Workspace, asked: &Asked<'_>) -> Result<Vec<Row>> {
    let wanted = |parts: &[&str]| parts.iter().any(|part| part.contains(asked.only));
    let mut all = Vec::new();
    if wanted(QUALITY) {
        let mut command = workspace.cargo();
        command.args(["bench", "--package", "sluice", "--bench", "trim", "--"]);
        command.args(["--only", asked.only]);
        if asked.quick {
            command.arg("--quick");
        }
        match setup::model::minilm(workspace) {
            Ok(model) => drop(command.env("SLUICE_MODEL", model)),
            // Words are measured without it.
            Err(error) => eprintln!("embeddings are skipped, there is no model: {error:#}"),
        }
        all.extend(rows(&mut command)?);
    }
    Ok(all)
}
