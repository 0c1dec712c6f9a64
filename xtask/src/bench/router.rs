//! Routing: what the score is worth on recorded prompts whose answers by two models are graded, and
//! what it takes of the filter's time.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Result, bail};

use super::table::{Better, Row};
use super::{Asked, core, rows};
use crate::run::Workspace;

/// Parts, by what measures them: what `--only` is held against.
const QUALITY: &[&str] = &["shipped", "learned"];
const COST: &[&str] = &["cost"];

/// Most microseconds that a score may take in wasm, however long the request is.
const MOST_US: f64 = 60.0;

/// Rows of the core's example `router`, which says what it skips, and of the core's cases of scoring
/// in wasm.
pub(super) fn measure(workspace: &Workspace, asked: &Asked<'_>) -> Result<Vec<Row>> {
    let wanted = |parts: &[&str]| parts.iter().any(|part| part.contains(asked.only));
    let mut all = Vec::new();
    if wanted(QUALITY) {
        let mut command = example(workspace, "measure");
        command.args(["--only", asked.only]);
        if asked.quick {
            command.arg("--quick");
        }
        all.extend(rows(&mut command)?);
    }
    if wanted(COST) {
        all.extend(cost(&core::wasm(workspace)?)?);
    }
    Ok(all)
}

/// The program that measures the score, and trains it.
pub(crate) fn example(workspace: &Workspace, does: &str) -> Command {
    let mut command = workspace.cargo();
    command
        .args(["run", "--release", "--package", "sluice-core"])
        .args(["--example", "router", "--", does]);
    command
}

/// What a score takes in wasm, of the core's cases (nanoseconds by name).
fn cost(cases: &BTreeMap<String, f64>) -> Result<Vec<Row>> {
    let scores = cases.iter().filter(|(case, _)| case.starts_with("score/"));
    let rows: Vec<_> = scores
        .map(|(case, time)| Row {
            case: format!("cost · {case} · wasm"),
            value: time / 1e3,
            unit: "µs".into(),
            target: Some(MOST_US),
            better: Better::Lower,
        })
        .collect();
    if rows.is_empty() {
        bail!("the core has no case 'score/…'");
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_score_takes_is_held_against_its_bound_and_nothing_else_is() {
        let cases = [
            ("score/1 KB", 30e3),
            ("score/16 KB", 61e3),
            ("key/1 KB", 9e9),
        ];
        let cases = cases.map(|(case, time)| (case.to_owned(), time));
        let rows = cost(&cases.into()).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[1].value, rows[1].target), (61.0, Some(60.0)));
        assert!(cost(&BTreeMap::new()).is_err());
    }
}
