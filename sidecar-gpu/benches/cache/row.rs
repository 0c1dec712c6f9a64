//! One figure, in the form that `cargo xtask bench` reads.

use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    case: String,
    value: f64,
    unit: &'static str,
    at_most: Option<f64>,
}

impl Row {
    /// A figure of which less is better.
    pub(crate) fn lower(case: impl Into<String>, value: f64, unit: &'static str) -> Row {
        Row {
            case: case.into(),
            value,
            unit,
            at_most: None,
        }
    }

    /// With what it should be at most.
    pub(crate) fn at_most(self, most: f64) -> Row {
        Row {
            at_most: Some(most),
            ..self
        }
    }
}

impl From<Row> for Value {
    fn from(row: Row) -> Value {
        let mut value = json!({
            "case": row.case, "value": row.value, "unit": row.unit, "better": "lower",
        });
        if let Some(most) = row.at_most {
            value["target"] = json!(most);
        }
        value
    }
}

/// The value that a share of all, in percent, do not pass; of sorted values.
pub(crate) fn quantile(sorted: &[f64], percent: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * percent / 100.0).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
