//! Shares with their confidence intervals, on screen and as the rows that `cargo xtask bench` keeps.

use anyhow::Result;
use serde_json::json;

/// How many of the hits were right, of how many that could be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) right: usize,
    pub(crate) hits: usize,
    pub(crate) all: usize,
}

impl Share {
    fn precision(self) -> f64 {
        self.right as f64 / self.hits.max(1) as f64
    }

    /// Wilson's interval of the precision, 95%.
    fn interval(self) -> (f64, f64) {
        let (n, p, z) = (self.hits.max(1) as f64, self.precision(), 1.96_f64);
        let middle = p + z * z / (2.0 * n);
        let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + z * z / n;
        ((middle - spread) / scale, (middle + spread) / scale)
    }
}

/// What was measured.
pub(crate) struct Report {
    json: bool,
    /// False hits that are printed.
    pub(crate) shown: usize,
    rows: Vec<serde_json::Value>,
}

impl Report {
    pub(crate) fn new(json: bool, shown: usize) -> Self {
        Self {
            json,
            shown,
            rows: Vec::new(),
        }
    }

    /// A line for people.
    pub(crate) fn say(&self, line: &str) {
        if self.json {
            eprintln!("{line}")
        } else {
            println!("{line}")
        }
    }

    pub(crate) fn row(&mut self, case: &str, value: f64, unit: &str) {
        let better = if unit == "%" { "higher" } else { "lower" };
        self.rows.push(json!({
            "case": case, "value": value, "unit": unit, "target": null, "better": better,
        }));
        if !case.ends_with("precision") && !case.ends_with("recall") {
            self.say(&format!("{case:<48} {value:.1} {unit}"));
        }
    }

    /// A point of a curve of precision and recall.
    pub(crate) fn curve(&mut self, case: &str, share: Share) {
        let (low, high) = share.interval();
        let recall = share.right as f64 / share.all.max(1) as f64;
        self.say(&format!(
            "{case:<48} precision {:5.1}% ({:.1}-{:.1})  recall {:4.1}%  hits {}",
            share.precision() * 100.0,
            low * 100.0,
            high * 100.0,
            recall * 100.0,
            share.hits,
        ));
        self.row(
            &format!("{case} · precision"),
            share.precision() * 100.0,
            "%",
        );
        self.row(&format!("{case} · recall"), recall * 100.0, "%");
    }

    /// What of a stream was answered, and how much of that wrongly.
    pub(crate) fn stream(&mut self, case: &str, share: Share) {
        let answered = share.hits as f64 / share.all.max(1) as f64 * 100.0;
        self.row(&format!("{case} · answered"), answered, "%");
        let wrong = (1.0 - share.precision()) * 100.0;
        self.rows.push(json!({
            "case": format!("{case} · other intent"), "value": wrong, "unit": "%", "target": null,
            "better": "lower",
        }));
        self.say(&format!(
            "{:<48} {wrong:.2} % of {}",
            "  with another intent", share.hits
        ));
    }

    pub(crate) fn finish(self) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(&self.rows)?);
        }
        Ok(())
    }
}
