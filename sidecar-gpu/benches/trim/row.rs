//! One figure, in the form that `cargo xtask bench` reads.

use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    case: String,
    value: f64,
    unit: &'static str,
    better: &'static str,
    target: Option<f64>,
}

impl Row {
    /// A figure of which more is better.
    pub(crate) fn higher(case: impl Into<String>, value: f64, unit: &'static str) -> Row {
        Row {
            case: case.into(),
            value,
            unit,
            better: "higher",
            target: None,
        }
    }

    /// A figure of which less is better.
    pub(crate) fn lower(case: impl Into<String>, value: f64, unit: &'static str) -> Row {
        Row {
            better: "lower",
            ..Row::higher(case, value, unit)
        }
    }

    /// With what it should reach, if anything.
    pub(crate) fn target(self, target: Option<f64>) -> Row {
        Row { target, ..self }
    }
}

impl From<Row> for Value {
    fn from(row: Row) -> Value {
        json!({
            "case": row.case, "value": row.value, "unit": row.unit, "better": row.better,
            "target": row.target,
        })
    }
}

/// The mean, in percent.
pub(crate) fn percent(shares: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = shares
        .into_iter()
        .fold((0.0, 0_u32), |(sum, count), share| (sum + share, count + 1));
    100.0 * sum / f64::from(count.max(1))
}
