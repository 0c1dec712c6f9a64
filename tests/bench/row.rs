//! One figure of a bench, in the form that `cargo xtask bench` reads.

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    case: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
    better: Better,
}

/// Which way is good.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Row {
    /// A figure of which more is better.
    pub(crate) fn higher(case: impl Into<String>, value: f64, unit: &'static str) -> Row {
        Row {
            case: case.into(),
            value,
            unit,
            target: None,
            better: Better::Higher,
        }
    }

    /// A figure of which less is better.
    pub(crate) fn lower(case: impl Into<String>, value: f64, unit: &'static str) -> Row {
        Row {
            better: Better::Lower,
            ..Row::higher(case, value, unit)
        }
    }

    /// With what it should be at least or at most.
    pub(crate) fn target(self, target: impl Into<Option<f64>>) -> Row {
        Row {
            target: target.into(),
            ..self
        }
    }
}

/// All of them, as JSON.
pub(crate) fn json(rows: &[Row]) -> String {
    // Numbers and words: there is nothing that JSON could not hold.
    serde_json::to_string_pretty(rows).unwrap_or_default()
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that a share of all do not pass.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(median(&values), 50.0);
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_row_without_a_target_names_none() {
        let rows = [
            Row::higher("a", 1.5, "share").target(0.5),
            Row::lower("b", 2.0, "ms"),
        ];
        let value: serde_json::Value = serde_json::from_str(&json(&rows)).unwrap();
        assert_eq!(value[0]["target"], 0.5);
        assert_eq!(value[0]["better"], "higher");
        assert!(value[1].get("target").is_none());
    }
}
