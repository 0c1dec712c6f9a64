//! `sluice calibrate`: what it prints and writes, and what docs/calibrating.md says to type.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::binary::{run, text};

const CONFIG: &str = "
sidecar: {cluster: sluice_sidecar, secret: 0123456789abcdef0123456789abcdef}
models:
  gpt-4o-mini: {encoding: o200k_base, input: 0.15, output: 0.60}
  gpt-4o: {encoding: o200k_base, input: 2.50, output: 10.00}
route:
  tiers:
    - {name: small, below: 0.3, model: gpt-4o-mini, max_tokens: 256}
    - {name: large, model: {openai: gpt-4o, anthropic: claude-opus-4}}
routes:
  - name: coding
    match: {path: /code/*}
    route:
      tiers:
        - {name: quick, below: 0.3, model: gpt-4o-mini}
        - {name: best, model: gpt-4o}
";

struct Dir(tempfile::TempDir);

impl Dir {
    fn new(config: &str) -> Self {
        let dir = Dir(tempfile::tempdir().unwrap());
        std::fs::write(dir.file("sluice.yaml"), config).unwrap();
        dir
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `sluice calibrate` on `labels`: whether it succeeded, what it printed, what it said.
    fn calibrate(&self, labels: &str, args: &[&str]) -> (bool, String, String) {
        let config = self.file("sluice.yaml");
        let mut all = vec!["calibrate", "--config", config.to_str().unwrap()];
        all.extend(["--labels", "-"]);
        all.extend(args);
        let output = run(&all, labels);
        let printed = text(&output.stdout).to_owned();
        (
            output.status.success(),
            printed,
            text(&output.stderr).to_owned(),
        )
    }
}

/// Requests of which the small tier answers the easy ones well.
fn labels(small: &str, large: &str) -> String {
    let mut rng = fastrand::Rng::with_seed(1);
    let label = |_| {
        let score = rng.f64();
        let good = rng.f64() < 1.0 - 0.8 * score * score;
        let quality = json!({small: f64::from(u8::from(good)), large: 1});
        json!({"score": score, "quality": quality}).to_string() + "\n"
    };
    (0..300).map(label).collect()
}

fn below(config: &str) -> f64 {
    let (_, rest) = config.split_once("below: ").unwrap();
    rest[..rest.find(',').unwrap()].parse().unwrap()
}

#[test]
fn the_tiers_that_are_written_are_a_config_that_check_takes() {
    let dir = Dir::new(CONFIG);
    let out = dir.file("tiers.yaml");
    let args = ["--quality", "95%", "--write", out.to_str().unwrap()];
    let (good, printed, said) = dir.calibrate(&labels("small", "large"), &args);
    assert!(good, "{said}");
    assert!(
        printed.contains("300 labels") && printed.contains("judged by labels"),
        "{printed}"
    );
    let written = std::fs::read_to_string(&out).unwrap();
    assert!((0.2..0.8).contains(&below(&written)), "{written}");
    // In the place of the old ones.
    let (front, rest) = CONFIG.split_once("route:\n").unwrap();
    let routes = &rest[rest.find("routes:").unwrap()..];
    let config = dir.file("new.yaml");
    std::fs::write(&config, format!("{front}{written}{routes}")).unwrap();
    let checked = run(&["check", config.to_str().unwrap()], "");
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    for kept in ["max_tokens: 256", "\"anthropic\": \"claude-opus-4\""] {
        assert!(written.contains(kept), "{written}");
    }
    // A second time it is there.
    let (good, _, said) = dir.calibrate(&labels("small", "large"), &args);
    assert!(!good && said.contains("--write"), "{said}");
}

#[test]
fn an_overrides_tiers_are_its_own() {
    let dir = Dir::new(CONFIG);
    let args = ["--route", "coding", "--spend", "40"];
    let (good, printed, said) = dir.calibrate(&labels("quick", "best"), &args);
    assert!(good, "{said}");
    let (_, patch) = printed.split_once("routes:\n").unwrap();
    assert!(
        patch.starts_with("  - name: \"coding\"\n    route:\n      tiers:\n"),
        "{patch}"
    );
    assert!(patch.contains("name: \"quick\", below: "), "{patch}");
}

#[test]
fn json_holds_the_choice_and_the_curve() {
    let dir = Dir::new(CONFIG);
    let args = ["--quality", "90", "--json"];
    let (good, printed, said) = dir.calibrate(&labels("small", "large"), &args);
    assert!(good, "{said}");
    let found: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(found["labels"], 300);
    assert!(found["chosen"]["quality"].as_f64() >= Some(0.9));
    assert!(found["chosen"]["spend"].as_f64() < Some(0.9));
    assert!(
        found["curve"]
            .as_array()
            .is_some_and(|curve| curve.len() > 5)
    );
}

#[test]
fn what_is_wrong_is_told_with_what_is_expected() {
    let dir = Dir::new(CONFIG);
    let good = labels("small", "large");
    let few: String = good.split_inclusive('\n').take(20).collect();
    let no_price = CONFIG.replace(", input: 2.50, output: 10.00", "");
    let unpriced = Dir::new(&no_price);
    for (dir, labels, args, told) in [
        (&dir, &good[..], &["--quality", "0"][..], "found `0`"),
        (&dir, &good[..], &[], "--quality"),
        (
            &dir,
            &good[..],
            &["--quality", "95", "--route", "x"],
            "expected one of: coding",
        ),
        (
            &dir,
            &good[..],
            &["--quality", "95", "--tiers", "small"],
            "found 1 tiers",
        ),
        (
            &dir,
            &good[..],
            &["--quality", "95", "--tiers", "large,small"],
            "in the config's order",
        ),
        (
            &dir,
            &good[..],
            &["--quality", "95", "--tiers", "smal,large"],
            "found `smal`",
        ),
        (
            &dir,
            &good[..],
            &["--quality", "99", "--spend", "20"],
            "no thresholds keep 99.0%",
        ),
        (
            &dir,
            &few[..],
            &["--quality", "95"],
            "20 labels, expected at least 50",
        ),
        (
            &dir,
            "{\"score\": 0.5}\n[]\n",
            &["--quality", "95"],
            "line 2",
        ),
        (
            &unpriced,
            &good[..],
            &["--quality", "95"],
            "no price in the config",
        ),
    ] {
        let (good, printed, said) = dir.calibrate(labels, args);
        assert!(!good && printed.is_empty(), "{args:?}: {printed}");
        assert!(said.contains(told), "{args:?}: {said}");
    }
}
