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

/// Messages of the conversations that are held against each other: the core's cases have them.
const LENGTHS: [u32; 4] = [50, 100, 200, 400];

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
    let parsed = us("parse/100 messages")?;
    let new = us("parse and trim/100 messages, 4000 tokens new")?;
    let few = us("parse and trim/100 messages, 200 tokens new")?;
    let mut rows = vec![
        Row {
            target: Some(MOST_US),
            ..row("100 messages of 200 tokens, seen", seen, "µs")
        },
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
    ];
    // A whole request, its last message new: what it takes without trimming is reading.
    let mut lengths = Vec::new();
    for messages in LENGTHS {
        let read = us(&format!("whole request/{messages} messages, not trimmed"))?;
        let whole = us(&format!("whole request/{messages} messages, trimmed"))?;
        let own = whole - read;
        rows.push(row(
            &format!("{messages} messages, not trimmed"),
            read,
            "µs",
        ));
        rows.push(row(
            &format!("{messages} messages, trimming's own"),
            own,
            "µs",
        ));
        lengths.push((f64::from(messages), read, own));
    }
    for pair in lengths.windows(2) {
        let [(few, read_few, own_few), (many, read_many, own_many)] = pair else {
            continue;
        };
        let each = |few: f64, many: f64, messages: f64| (many - few) / messages * 1e3;
        let name = format!("each old message of {few} to {many}");
        let messages = many - few;
        let read = each(*read_few, *read_many, messages);
        rows.push(row(&format!("{name}, not trimmed"), read, "ns"));
        let own = each(*own_few, *own_many, messages);
        rows.push(row(&format!("{name}, trimming's own"), own, "ns"));
    }
    if let [_, (_, _, own), _, (_, _, own_of_most)] = lengths[..] {
        let grown = own_of_most / own;
        rows.push(row("trimming's own, 400 messages ÷ 100", grown, "times"));
    }
    Ok(rows)
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
            ("trim/100 messages seen, 20 chunks", 900e3),
            ("trim/100 messages seen, summary", 800e3),
            ("parse/100 messages", 60e3),
            ("parse and trim/100 messages, 200 tokens new", 460e3),
            ("parse and trim/100 messages, 4000 tokens new", 1460e3),
        ];
        let cases = cases.map(|(case, time)| (case.to_owned(), time));
        let mut cases: BTreeMap<String, f64> = cases.into();
        for (messages, read, trimmed) in [
            (50, 40e3, 140e3),
            (100, 80e3, 280e3),
            (200, 160e3, 460e3),
            (400, 320e3, 820e3),
        ] {
            let name = |how: &str| format!("whole request/{messages} messages, {how}");
            cases.insert(name("not trimmed"), read);
            cases.insert(name("trimmed"), trimmed);
        }
        let rows = cost(&cases).unwrap();
        let value = |case: &str| {
            rows.iter()
                .find(|row| row.case.contains(case))
                .unwrap()
                .value
        };
        assert_eq!(value("of 4000 tokens"), 1400.0);
        assert_eq!(value("100 messages, trimming's own"), 200.0);
        assert_eq!(value("100 to 200, not trimmed"), 800.0);
        assert_eq!(value("100 to 200, trimming's own"), 1000.0);
        assert_eq!(value("400 messages ÷ 100"), 2.5);
        assert_eq!(rows.iter().filter(|row| row.target.is_some()).count(), 1);
    }
}
