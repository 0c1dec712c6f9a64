//! Bodies as long as the filter takes, made to take long.

use std::time::Instant;

use serde_json::{Value, json};
use sluice_wire::limit;

use crate::turns::{Turn, Worker};

const TRIM: &str = r#"{"history":{"keep":"summary","tokens":100,"summary":{"tokens":60}},
    "system":{"tokens":50,"minify":true},
    "context":{"markers":[{"tag":"d"},{"json":{}},{"list":{"after":"Sources:"}},{"section":{"after":"Use","before":"End"}},{"fence":{"line":"```","label":"c"}}],"top_k":3}}"#;

/// Bytes of the longest body that is read, by default.
const MOST: usize = 8 << 20;

fn message(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// Messages of so many pieces.
type Make = fn(usize) -> Vec<Value>;

const MADE: [(&str, Make); 9] = [
    ("messages", |n| {
        (0..n)
            .flat_map(|at| {
                [
                    message(&format!("q{at}")),
                    json!({"role":"assistant","content":format!("a{at}")}),
                ]
            })
            .collect()
    }),
    ("users in a row", |n| {
        (0..n).map(|at| message(&format!("q{at}"))).collect()
    }),
    ("open tags", |n| {
        vec![message(&"<d>".repeat(n)), message("q")]
    }),
    ("closed tags", |n| {
        vec![message(&"<d>x</d>".repeat(n)), message("q")]
    }),
    ("brackets", |n| vec![message(&"[".repeat(n)), message("q")]),
    ("objects", |n| {
        vec![message(&r#"[{"text":"#.repeat(n)), message("q")]
    }),
    ("calls", |n| {
        (0..n).flat_map(|at| {
            let id = format!("call_{at:07}");
            [message("q"), json!({"role":"assistant","content":null,"tool_calls":[{"id":id,"type":"function","function":{"name":"f","arguments":"{}"}}]}),
             json!({"role":"tool","tool_call_id":id,"content":"r"})]
        }).collect()
    }),
    ("words", |n| {
        let words: Vec<String> = (0..n).map(|at| format!("w{at:07}")).collect();
        vec![
            message(&words.join(" ")),
            json!({"role":"assistant","content":"a"}),
            message("q"),
        ]
    }),
    ("sentences", |n| {
        let said: String = (0..n).map(|at| format!("It is {at:07}. ")).collect();
        vec![
            message("q"),
            json!({"role":"assistant","content":said}),
            message(&said),
        ]
    }),
];

/// Trims a body of so many pieces so many times, each as the turn after the one before; its bytes.
fn trims((name, make): (&str, Make), pieces: usize, turns: u64) -> usize {
    let body = json!({"model": "gpt-4o", "messages": make(pieces)}).to_string();
    let mut worker = Worker::new(TRIM, false);
    let mut state: Option<String> = None;
    for now_ms in 1..=turns {
        let trimmed = worker.trim(&Turn {
            format: "openai.chat",
            body: &body,
            model: "plain",
            limit: None,
            similarities: &[],
            state: state.as_deref(),
            summaries: &[],
            now_ms,
            scale_milli: 1000,
        });
        assert!(trimmed.after <= trimmed.before, "{name}");
        let sent = trimmed.body.as_deref().unwrap_or(&body);
        assert!(sent.len() <= body.len(), "{name}");
        serde_json::from_str::<serde::de::IgnoredAny>(sent).unwrap();
        state = trimmed.state;
        let told = state.as_ref().map_or(0, String::len);
        assert!(told <= limit::STATE, "{name}: {told}");
    }
    body.len()
}

/// Work is linear, or nearly so, whatever a client sends. The times are printed and not judged: what
/// takes a square of its length shows here as a test that does not end.
#[test]
fn long_hostile_bodies_come_to_an_end_and_grow_no_longer() {
    for (name, make) in MADE {
        let start = Instant::now();
        trims((name, make), 1_500, 3);
        println!("{name}: {:?}", start.elapsed());
    }
}

#[test]
fn bodies_of_eight_mebibytes_come_to_an_end_within_all_bounds() {
    for (name, make) in MADE {
        let start = Instant::now();
        let piece = trims((name, make), 1_000, 1) as f64 / 1_000.0;
        // Of numbers in it some grow by a digit or two.
        let bytes = trims((name, make), (MOST as f64 / piece * 0.9) as usize, 1);
        assert!(
            (MOST * 7 / 10..MOST * 6 / 5).contains(&bytes),
            "{name}: {bytes}"
        );
        println!("{name}: {bytes} bytes, {:?}", start.elapsed());
    }
}
