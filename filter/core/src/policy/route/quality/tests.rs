use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::*;
use crate::policy::route::score_prompt;

const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");

/// Holds what is computed against `eval_router.py`'s output. Its intervals come of other draws.
fn check(name: &str, graded: Vec<Graded>, expected: &Value) {
    let ranked = Ranked::new(graded);
    let quality = ranked.quality().unwrap();
    for (field, value) in [
        ("q_weak", quality.weak),
        ("q_strong", quality.strong),
        ("APGR", quality.apgr),
        ("CPT50", quality.cpt50),
        ("CPT80", quality.cpt80),
        ("weak@95", quality.weak95),
    ] {
        let expected = expected[field].as_f64().unwrap();
        assert!(
            (value - expected).abs() < 1e-9,
            "{name}: {field} is {value}, expected {expected}"
        );
    }
    let intervals = ranked.intervals(2000);
    for (field, found) in ["APGR", "CPT50", "CPT80", "weak@95"].iter().zip(intervals) {
        let expected = [0, 1].map(|at| expected["ci95"][field][at].as_f64().unwrap());
        let slack = 0.25 * (expected[1] - expected[0]);
        assert!(
            (found.0 - expected[0]).abs() < slack && (found.1 - expected[1]).abs() < slack,
            "{name}: {field}'s interval is {found:?}, expected {expected:?}"
        );
    }
}

fn graded(score: &Value, strong: &Value, weak: &Value) -> Graded {
    let number = |value: &Value| value.as_f64().unwrap();
    Graded {
        score: number(score),
        strong: number(strong),
        weak: number(weak),
    }
}

#[test]
fn made_up_rows_are_measured_as_by_the_script() {
    let cases = include_str!("../../../../tests/fixtures/routing/eval_router.json");
    let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let rows = case["rows"].as_array().unwrap().iter();
        let rows = rows.map(|row| graded(&row[0], &row[1], &row[2]));
        let name = case["name"].as_str().unwrap();
        check(name, rows.collect(), &case["expected"]);
    }
}

#[test]
fn recorded_rows_are_measured_as_by_the_script() {
    let data = format!("{SHARED}/data/routing/routellm_gsm8k.jsonl");
    let Ok(text) = std::fs::read_to_string(&data) else {
        eprintln!("skipped: no {data}");
        return;
    };
    let mut rows = Vec::new();
    let mut scores = String::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let score = score_prompt(row["prompt"].as_str().unwrap()).value;
        let score = serde_json::json!({"id": row["id"], "score": score});
        writeln!(scores, "{score}").unwrap();
        if row["contaminated"] != true && row["suspect"] != true {
            rows.push(graded(&score["score"], &row["strong"], &row["weak"]));
        }
    }
    let script = Command::new("python3")
        .arg(format!("{SHARED}/eval_router.py"))
        .args(["--data", &data, "--scores", "/dev/stdin", "--json"])
        .args([
            "--drop-suspect",
            "--drop-contaminated",
            "--bootstrap",
            "400",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut script) = script else {
        eprintln!("skipped: no python3");
        return;
    };
    let mut input = script.stdin.take().unwrap();
    input.write_all(scores.as_bytes()).unwrap();
    drop(input);
    let output = script.wait_with_output().unwrap();
    assert!(output.status.success());
    let output: Value = serde_json::from_slice(&output.stdout).unwrap();
    check("GSM8K", rows, &output["results"]["ROUTER"]);
}

#[test]
fn a_constant_score_recovers_what_chance_does() {
    let rows = (0..40).map(|at| Graded {
        score: 0.5,
        strong: 1.0,
        weak: f64::from(at % 2),
    });
    let quality = Ranked::new(rows.collect()).quality().unwrap();
    assert_eq!((quality.apgr, quality.cpt80), (0.5, 0.8));
    assert!((quality.weak95 - 0.1).abs() < 1e-12);
}

#[test]
fn models_that_do_equally_well_leave_no_gap() {
    assert_eq!(Ranked::new(Vec::new()).quality(), None);
    let row = Graded {
        score: 0.1,
        strong: 1.0,
        weak: 1.0,
    };
    let ranked = Ranked::new(vec![row; 3]);
    assert_eq!(ranked.quality(), None);
    assert!(ranked.intervals(10)[0].0.is_nan());
}
