//! Trimming: what of a past conversation and of retrieved chunks stays when a prompt is cut, what that
//! takes of the filter's time, and what conversations cost with and without it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::table::{Better, Row};
use super::{Asked, core, program, rows};
use crate::run::Workspace;
use crate::setup;

/// Parts, by what measures them: what `--only` is held against.
const QUALITY: &[&str] = &["locomo", "pubmedqa"];
const COST: &[&str] = &["cost"];
const REPLAY: &[&str] = &["replay"];

/// Most microseconds that trimming may take of a request in wasm: 100 messages of 200 tokens, seen
/// before.
const MOST_US: f64 = 1000.0;

/// Rows of the sidecar's bench `trim` (what is absent, its data or the model, it says and skips), of
/// the core's cases of trimming in wasm, and of `sluice-bench trim`.
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
    if wanted(COST) {
        all.extend(cost(&core::wasm(workspace)?)?);
    }
    if wanted(REPLAY) {
        all.extend(program(workspace, asked)?);
    }
    Ok(all)
}

/// What trimming takes in wasm, of the core's cases (nanoseconds by name).
fn cost(cases: &BTreeMap<String, f64>) -> Result<Vec<Row>> {
    let us = |case: &str| -> Result<f64> {
        let time = cases.get(case);
        Ok(time.with_context(|| format!("the core has no case '{case}'"))? / 1e3)
    };
    let row = |case: &str, value: f64, unit: &str| Row {
        case: format!("cost · {case} · wasm"),
        value,
        unit: unit.into(),
        target: None,
        better: Better::Lower,
    };
    let seen = us("trim/100 messages seen")?;
    let twice = us("trim/200 messages seen")?;
    let parsed = us("parse/100 messages")?;
    let new = us("parse and trim/100 messages, 4000 tokens new")?;
    let few = us("parse and trim/100 messages, 200 tokens new")?;
    let bare = us("whole request/100 messages, not trimmed")?;
    let whole = us("whole request/100 messages, trimmed")?;
    Ok(vec![
        Row {
            target: Some(MOST_US),
            ..row("100 messages of 200 tokens, seen", seen, "µs")
        },
        row("200 messages, seen", twice, "µs"),
        row("200 messages ÷ 100", twice / seen, "times"),
        row("the last message new", few - parsed, "µs"),
        row("the last message new, of 4000 tokens", new - parsed, "µs"),
        row(
            "seen, 20 chunks",
            us("trim/100 messages seen, 20 chunks")?,
            "µs",
        ),
        row(
            "seen, keep: summary",
            us("trim/100 messages seen, summary")?,
            "µs",
        ),
        row("whole request, not trimmed", bare, "µs"),
        row("whole request, trimmed", whole, "µs"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_the_core_does_not_have_is_named() {
        let error = cost(&BTreeMap::new()).unwrap_err();
        assert!(
            error.to_string().contains("'trim/100 messages seen'"),
            "{error}"
        );
    }

    #[test]
    fn what_was_only_read_is_not_counted_as_trimmed() {
        let cases = [
            ("trim/100 messages seen", 400e3),
            ("trim/200 messages seen", 700e3),
            ("trim/100 messages seen, 20 chunks", 900e3),
            ("trim/100 messages seen, summary", 800e3),
            ("parse/100 messages", 60e3),
            ("parse and trim/100 messages, 200 tokens new", 460e3),
            ("parse and trim/100 messages, 4000 tokens new", 1460e3),
            ("whole request/100 messages, not trimmed", 80e3),
            ("whole request/100 messages, trimmed", 500e3),
        ];
        let cases = cases.map(|(case, time)| (case.to_owned(), time));
        let rows = cost(&cases.into()).unwrap();
        let value = |case: &str| {
            rows.iter()
                .find(|row| row.case.contains(case))
                .unwrap()
                .value
        };
        assert_eq!(value("of 4000 tokens"), 1400.0);
        assert_eq!(value("200 messages ÷ 100"), 1.75);
        assert_eq!(rows.iter().filter(|row| row.target.is_some()).count(), 1);
    }
}
