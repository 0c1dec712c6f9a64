//! `cargo xtask demo`, without its builds: the program that it starts.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice-demo"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_demo_ends_with_what_it_saved_and_all_books_agree() {
    let output = demo(&[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last = text.trim_end().lines().last().unwrap();
    let dollars: Vec<f64> = last
        .split(['$', ' ', '(', '%'])
        .filter_map(|word| word.parse().ok())
        .collect();
    assert!(
        last.starts_with("saved $") && last.ends_with("%)"),
        "{last}"
    );
    let [saved, asked, percent] = dollars[..] else {
        panic!("{last}")
    };
    assert!(
        saved > 0.0 && saved < asked && (saved / asked * 100.0 - percent).abs() < 0.2,
        "{last}"
    );
    assert!(text.contains("\nledger = provider = metrics: "), "{text}");
    for told in [
        "by task",
        "saved by lever",
        "route",
        "cache",
        "/report",
        "/stats/prometheus",
        "/_stats",
    ] {
        assert!(text.contains(told), "{told} in {text}");
    }
}

#[test]
fn prompts_from_a_file_are_repeated_and_all_accounted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prompts.jsonl");
    let lines: Vec<String> = (0..60)
        .map(|number| {
            serde_json::json!({"id": number, "prompt": format!("What is {number} times {number}?")})
                .to_string()
        })
        .collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let path = file.to_str().unwrap();
    let output = demo(&[
        "--traffic",
        path,
        "--repeats",
        "30%",
        "--limit",
        "70",
        "--concurrency",
        "3",
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("70 requests answered"), "{text}");
    assert!(text.contains("ledger = provider = metrics"), "{text}");
}

#[test]
fn a_file_that_is_no_traffic_is_refused_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broken.jsonl");
    std::fs::write(&file, "{\"prompt\": \"a\"}\n{\"question\": 1}\n").unwrap();
    let output = demo(&["--traffic", file.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("line 2"),
        "{text}"
    );
}
