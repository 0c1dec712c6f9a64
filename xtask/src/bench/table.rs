//! Rows of measurements: as JSON for programs, as a table for people.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) case: String,
    pub(super) value: f64,
    pub(super) unit: String,
    /// What it should be at least or at most. None: information.
    pub(super) target: Option<f64>,
    pub(super) better: Better,
}

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Better {
    Higher,
    Lower,
}

impl Better {
    fn name(self) -> &'static str {
        match self {
            Better::Higher => "higher",
            Better::Lower => "lower",
        }
    }
}

impl Row {
    fn met(&self) -> Option<bool> {
        self.target.map(|target| match self.better {
            Better::Higher => self.value >= target,
            Better::Lower => self.value <= target,
        })
    }
}

/// Reads a list of rows.
pub(super) fn parse(text: &str) -> Result<Vec<Row>> {
    let list: Vec<Value> = serde_json::from_str(text).context("rows are a JSON list")?;
    list.iter()
        .map(|value| row(value).with_context(|| format!("row {value}")))
        .collect()
}

fn row(value: &Value) -> Result<Row> {
    let text = |name: &str| {
        value[name]
            .as_str()
            .with_context(|| format!("{name}: a string"))
    };
    Ok(Row {
        case: text("case")?.to_string(),
        value: value["value"].as_f64().context("value: a number")?,
        unit: text("unit")?.to_string(),
        target: value["target"].as_f64(),
        better: match text("better")? {
            "higher" => Better::Higher,
            "lower" => Better::Lower,
            other => bail!("better: higher or lower; found '{other}'"),
        },
    })
}

/// Writes a list of rows; `target` is left out where there is none.
pub(super) fn json(rows: &[Row]) -> Result<String> {
    let list: Vec<_> = rows
        .iter()
        .map(|row| {
            let mut value = json!({
                "case": row.case, "value": row.value, "unit": row.unit, "better": row.better.name(),
            });
            if let Some(target) = row.target {
                value["target"] = json!(target);
            }
            value
        })
        .collect();
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

/// The rows under each other, with what was asked of them.
pub(super) fn show(rows: &[Row]) -> String {
    let width = rows
        .iter()
        .map(|row| row.case.chars().count())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<width$}  {:>12}  {:<12}  {:>14}",
        "case", "value", "unit", "target"
    );
    for row in rows {
        let sign = match row.better {
            Better::Higher => "≥",
            Better::Lower => "≤",
        };
        let target = row
            .target
            .map_or(String::new(), |target| format!("{sign} {}", number(target)));
        let verdict = match row.met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        let line = format!(
            "{:<width$}  {:>12}  {:<12}  {target:>14}  {verdict}",
            row.case,
            number(row.value),
            row.unit
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Four significant digits, or all of a whole number.
fn number(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size >= 1_000.0 || value == value.trunc() => 0,
        _ if size >= 100.0 => 1,
        _ if size >= 10.0 => 2,
        _ if size >= 1.0 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Row> {
        let row = |case: &str, value, target, better| Row {
            case: case.into(),
            value,
            unit: "share".into(),
            target,
            better,
        };
        vec![
            row("hit 1 KB", 0.61, Some(0.5), Better::Higher),
            row("p99", 0.7, Some(0.5), Better::Lower),
            row("bare", 8_480.4, None, Better::Higher),
        ]
    }

    #[test]
    fn rows_survive_being_written_and_read() {
        assert_eq!(parse(&json(&sample()).unwrap()).unwrap(), sample());
    }

    #[test]
    fn a_missed_target_is_marked_and_a_row_without_one_is_not() {
        let text = show(&sample());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].ends_with("≥ 0.5000  met"), "{text}");
        assert!(lines[2].ends_with("≤ 0.5000  MISSED"), "{text}");
        assert!(lines[3].ends_with("8480  share"), "{text}");
    }

    #[test]
    fn a_row_that_lacks_a_field_is_refused_by_name() {
        let error = parse(r#"[{"case":"a","unit":"s","better":"lower"}]"#).unwrap_err();
        assert!(
            format!("{error:#}").ends_with("value: a number"),
            "{error:#}"
        );
    }
}
