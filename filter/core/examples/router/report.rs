//! Figures as a table on stderr, and as the rows that `cargo xtask bench` keeps.

use serde_json::{Value, json};
use sluice_core::policy::route::quality::{Graded, Ranked};

/// What is asked of a case.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aims {
    /// Least APGR.
    pub(crate) apgr: Option<f64>,
    /// Least lower end of its interval.
    pub(crate) low: Option<f64>,
    pub(crate) weak95: Option<f64>,
}

impl Aims {
    pub(crate) fn new(apgr: f64, weak95: f64) -> Aims {
        Aims {
            apgr: Some(apgr),
            weak95: Some(weak95),
            low: None,
        }
    }
}

/// What was measured.
pub(crate) struct Report {
    /// Times that prompts are drawn anew for an interval.
    rounds: usize,
    rows: Vec<Value>,
}

impl Report {
    pub(crate) fn new(rounds: usize) -> Report {
        Report {
            rounds,
            rows: Vec::new(),
        }
    }

    /// A heading.
    pub(crate) fn part(&self, title: &str) {
        eprintln!(
            "\n{title:<56} {:>5} {:>6}  {:<15}{:>7} {:>6} {:>8}  95%",
            "rows", "APGR", "95%", "CPT50", "CPT80", "weak@95"
        );
    }

    /// What a score comes to. Says so where the models do equally well.
    pub(crate) fn case(&mut self, case: &str, graded: Vec<Graded>, aims: Aims) {
        let count = graded.len();
        let ranked = Ranked::new(graded);
        let Some(quality) = ranked.quality() else {
            eprintln!("{case:<56} {count:>5}  the models do equally well");
            return;
        };
        let [apgr, _, _, weak95] = ranked.intervals(self.rounds);
        eprintln!(
            "{case:<56} {count:>5} {:>6.3}  {:<15}{:>6.1}% {:>5.1}% {:>7.1}%  {:.1} – {:.1}%",
            quality.apgr,
            format!("{:.3} – {:.3}", apgr.0, apgr.1),
            quality.cpt50 * 100.0,
            quality.cpt80 * 100.0,
            quality.weak95 * 100.0,
            weak95.0 * 100.0,
            weak95.1 * 100.0,
        );
        let unit = "of the gap";
        self.row(&format!("{case} · APGR"), quality.apgr, (unit, aims.apgr));
        self.row(&format!("{case} · APGR, low"), apgr.0, (unit, aims.low));
        self.row(&format!("{case} · APGR, high"), apgr.1, (unit, None));
        for (name, value) in [("CPT50", quality.cpt50), ("CPT80", quality.cpt80)] {
            // It may be that no share of calls recovers so much.
            if !value.is_nan() {
                self.lower(&format!("{case} · {name}"), value * 100.0, "% of calls");
            }
        }
        self.row(
            &format!("{case} · weak@95"),
            quality.weak95 * 100.0,
            ("% of calls", aims.weak95.map(|aim| aim * 100.0)),
        );
    }

    /// A figure of which more is better: its value, unit and what is asked of it.
    pub(crate) fn row(&mut self, case: &str, value: f64, (unit, target): (&str, Option<f64>)) {
        self.rows.push(json!({
            "case": case, "value": value, "unit": unit, "target": target, "better": "higher",
        }));
    }

    fn lower(&mut self, case: &str, value: f64, unit: &str) {
        self.rows
            .push(json!({"case": case, "value": value, "unit": unit, "better": "lower"}));
    }

    /// All rows as a JSON list on stdout.
    pub(crate) fn print(self) {
        println!("{}", Value::from(self.rows));
    }
}
