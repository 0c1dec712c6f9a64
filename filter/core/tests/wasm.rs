//! The decisions as Envoy runs them: the same code on wasm32, under node.
#![cfg(target_arch = "wasm32")]

use std::rc::Rc;

use sluice_core::config::Plan;
use sluice_core::exchange::{Effect, Event, Exchange, Flow, Headers, Host, Vm};
use sluice_core::json::Object;
use sluice_core::policy::route::{THRESHOLDS, pick, score_prompt};
use sluice_core::policy::trim::terms::{TermMemory, Terms};
use sluice_core::tokens::{Encoding, Tokens};
use sluice_wire::Usd;
use wasm_bindgen_test::wasm_bindgen_test;

#[wasm_bindgen_test]
fn sums_past_32_bits_are_exact() {
    let price = Usd::from_dollars(2.5 / 1e6);
    assert_eq!(price.times(40_000_000_000).dollars(), 100_000.0);
}

#[wasm_bindgen_test]
fn a_body_is_read_with_every_value_as_it_stands() {
    let body = r#"{"model":"gpt-4o","seed":9007199254740993,"model":"gpt-4o-mini"}"#;
    let object = Object::parse(body).unwrap();
    assert_eq!(object.get("seed"), Some("9007199254740993"));
    assert_eq!(object.str("model").unwrap().text(), "gpt-4o-mini");
}

#[wasm_bindgen_test]
fn tokens_are_those_of_tiktoken() {
    let tokens = Tokens::load(&Encoding::ALL);
    for (text, o200k, cl100k) in [
        ("The quick brown fox jumps over the lazy dog.", 10, 10),
        ("Wie spät ist es? Übung macht den Meister.", 11, 13),
        ("你好，世界。今天天气很好", 8, 15),
        ("1234567890 3.14159", 9, 9),
    ] {
        let counts = Encoding::ALL.map(|encoding| tokens.count_text(encoding, text));
        assert_eq!(counts, [Some(o200k), Some(cl100k)], "{text}");
    }
}

#[wasm_bindgen_test]
fn a_megabyte_without_a_space_is_counted_without_a_trap() {
    let tokens = Tokens::load(&[Encoding::O200kBase]);
    for text in ["a", " ", "\n", "証", "!", "A", "1"] {
        let text = text.repeat(1 << 20);
        let count = tokens.count_text(Encoding::O200kBase, &text).unwrap();
        assert!(count > 0 && count <= text.len() as u64);
    }
}

#[wasm_bindgen_test]
fn scores_fall_into_the_tiers_that_they_have_natively() {
    for (prompt, tier) in [
        ("What is the capital of France?", 0),
        (
            "Write a Python function that returns the n-th Fibonacci number.",
            1,
        ),
        (
            "Prove that there are infinitely many primes of the form 4k+3.",
            2,
        ),
        (
            "证明：对任意正整数n，n^3-n能被6整除。分析其推广并详细论证。",
            2,
        ),
    ] {
        assert_eq!(
            pick(score_prompt(prompt).value, &THRESHOLDS),
            tier,
            "{prompt}"
        );
    }
}

struct World;

impl Host for World {
    fn now_ns(&self) -> u64 {
        1_700_000_000_000_000_000
    }
    fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }
    fn count(&mut self, _: &str, _: u64, _: i64, _: u64) -> (u64, bool) {
        (0, true)
    }
}

#[wasm_bindgen_test]
fn a_request_is_routed_to_its_tier() {
    let config = br#"{
        "models": {
            "gpt-4o": {"encoding": "o200k_base", "input": 2.5, "output": 10},
            "gpt-4o-mini": {"encoding": "o200k_base", "input": 0.15, "output": 0.6}},
        "route": {"tiers": [
            {"name": "small", "below": 0.3, "model": "gpt-4o-mini", "max_tokens": 256},
            {"name": "large", "model": "gpt-4o"}]}}"#;
    let plan = Plan::parse(config, &|_| None).unwrap();
    let tokens = Tokens::load(&plan.encodings());
    let mut vm = Vm::new(Rc::new(plan), tokens);
    let mut exchange = Exchange::new();
    let headers: Headers = [(":method", "POST"), (":path", "/v1/chat/completions")]
        .into_iter()
        .collect();
    let event = Event::RequestHeaders {
        headers: &headers,
        end_of_stream: false,
    };
    assert_eq!(exchange.on(event, &mut vm, &mut World).flow, Flow::Pause);
    let body = br#"{"model":"gpt-4o","seed":9007199254740993,"messages":[{"role":"user","content":"What is the capital of France?"}]}"#;
    let effects = exchange.on(Event::RequestBody { body }, &mut vm, &mut World);
    let sent = effects.list.iter().find_map(|effect| match effect {
        Effect::ReplaceRequestBody(body) => std::str::from_utf8(body).ok(),
        _ => None,
    });
    let sent = sent.unwrap();
    assert!(
        sent.starts_with(r#"{"model":"gpt-4o-mini","seed":9007199254740993,"messages""#),
        "{sent}"
    );
    assert!(effects.list.contains(&Effect::ResumeRequest));
}

/// Bytes of linear memory, which never shrinks.
fn memory() -> usize {
    core::arch::wasm32::memory_size::<0>() << 16
}

#[wasm_bindgen_test]
fn terms_of_any_number_of_texts_take_a_bounded_part_of_the_memory() {
    let mut terms = TermMemory::default();
    let mut keys = 0_u128..;
    let mut fill = |texts: usize, words: usize| {
        for key in keys.by_ref().take(texts) {
            let text: String = (0..words).map(|word| format!("w{key}x{word} ")).collect();
            terms.get(key, || Terms::of(&text));
        }
        memory()
    };
    let before = memory();
    // Texts of all sizes, of which some ten mebibytes would be held if none were forgotten.
    let mut sizes = Vec::new();
    for _ in 0..3 {
        for words in [0, 3, 30, 300] {
            sizes.push(fill(9_000 / (words + 1) + 300, words));
        }
    }
    let grown = sizes.last().unwrap() - before;
    assert!(grown <= 3 << 20, "{grown} bytes: {sizes:?}");
    assert!(grown >= 1 << 20, "it was filled: {grown} bytes");
}
