//! Answers as providers write them, to measure what keeping them costs.
#![expect(
    clippy::unwrap_used,
    reason = "made up from texts of this repository; each holds whatever they say"
)]

use bytes::Bytes;
use sluice::cache::{Entry, Key};
use sluice_wire::{EntryHead, Usage, Usd};

/// Milliseconds since the epoch; nothing here looks at a clock.
pub(crate) const NOW: u64 = 1_700_000_000_000;
/// English and code, as answers are.
const TEXTS: &str = concat!(
    include_str!("../../../README.md"),
    include_str!("../../../docs/budgets.md"),
    include_str!("../../../docs/deploying.md"),
    include_str!("../../../docs/development.md"),
);

/// Numbers that repeat with the seed.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 16
}

/// A chat answer of a provider, with some `len` bytes of text from a random place.
pub(crate) fn answer(state: &mut u64, len: usize) -> String {
    let starts: Vec<usize> = TEXTS.char_indices().map(|(at, _)| at).collect();
    let cut = |at: u64| starts[usize::try_from(at).unwrap() % (starts.len() - len)];
    let at = cut(random(state));
    let end = (at + len..).find(|&it| TEXTS.is_char_boundary(it)).unwrap();
    let (one, two, tokens) = (random(state), random(state), len / 4);
    // In the order in which the provider writes it.
    format!(
        concat!(
            r#"{{"id":"chatcmpl-{:012x}{:012x}","object":"chat.completion","created":17{:08},"#,
            r#""model":"gpt-4.1-mini-2025-04-14","choices":[{{"index":0,"message":{{"#,
            r#""role":"assistant","content":{},"refusal":null,"annotations":[]}},"#,
            r#""logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{},"#,
            r#""completion_tokens":{},"total_tokens":{},"#,
            r#""prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"#,
            r#""completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"#,
            r#""accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}},"#,
            r#""service_tier":"default","system_fingerprint":"fp_{:010x}"}}"#
        ),
        one,
        two,
        one % 50_000_000,
        serde_json::Value::from(&TEXTS[at..end]),
        one % 4_000,
        tokens,
        one % 4_000 + tokens as u64,
        two % (1 << 40),
    )
}

/// An entry with that body.
pub(crate) fn entry(body: String) -> Entry {
    Entry {
        stored_ms: NOW,
        built_ms: NOW - 1_700,
        fresh_ms: NOW + 600_000,
        stale_ms: NOW + 900_000,
        keep_ms: NOW + 900_000,
        token: (NOW - 1_700) * 1_000,
        tags: Vec::new(),
        head: EntryHead {
            format: "openai_chat".to_owned(),
            model: "gpt-4.1-mini".to_owned(),
            tier: Some("medium".to_owned()),
            usage: Usage {
                prompt: 812,
                completion: 240,
                ..Usage::default()
            },
            cost: Some(Usd(1_234_000)),
            ..EntryHead::default()
        },
        body: Bytes::from(body),
    }
}

/// The key of the `n`-th.
pub(crate) fn key(n: u64) -> Key {
    let mut state = n;
    let words = [(); 4].map(|()| random(&mut state) ^ random(&mut state) << 32);
    let digits: String = words.iter().map(|it| format!("{it:016x}")).collect();
    digits.parse().unwrap()
}
