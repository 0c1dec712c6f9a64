//! What reading and replaying costs, natively: `cargo bench -p sluice-core --bench formats`.

#![expect(clippy::unwrap_used, reason = "a bench may stop at once")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice_core::formats::{self, Format, Tap, UsageScan};
use sluice_core::json;

/// Prose with the escapes that prose has.
fn prose(bytes: usize) -> String {
    let line =
        r#"The quick brown fox said \"hello\" to the lazy dog — and ran on, over 13 hills.\n"#;
    line.repeat(bytes / line.len() + 1)
}

/// A chat request of about `bytes` bytes in `turns` turns.
fn chat(bytes: usize, turns: usize) -> String {
    let text = prose(bytes / turns);
    let messages: Vec<String> = (0..turns)
        .map(|turn| {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            format!(r#"{{"role":"{role}","content":"{text}"}}"#)
        })
        .collect();
    format!(
        r#"{{"model":"gpt-4o","messages":[{{"role":"system","content":"Be brief."}},{}],"temperature":0.2,"max_tokens":256,"stream":true}}"#,
        messages.join(",")
    )
}

/// The same as an Anthropic request, each message in blocks.
fn blocks(bytes: usize, turns: usize) -> String {
    let text = prose(bytes / turns);
    let messages: Vec<String> = (0..turns)
        .map(|turn| {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            format!(r#"{{"role":"{role}","content":[{{"type":"text","text":"{text}"}}]}}"#)
        })
        .collect();
    format!(
        r#"{{"model":"claude-sonnet-4-5","max_tokens":256,"system":"Be brief.","messages":[{}]}}"#,
        messages.join(",")
    )
}

fn parse(criterion: &mut Criterion) {
    let chat_format = formats::by_name("openai.chat").unwrap();
    let anthropic = formats::by_name("anthropic.messages").unwrap();
    let cases: [(&str, &dyn Format, String); 4] = [
        ("chat 1 KB", chat_format, chat(1 << 10, 1)),
        ("chat 16 KB", chat_format, chat(16 << 10, 1)),
        ("chat 20 turns of 16 KB", chat_format, chat(16 << 10, 20)),
        (
            "anthropic 20 turns of 16 KB",
            anthropic,
            blocks(16 << 10, 20),
        ),
    ];
    let mut group = criterion.benchmark_group("parse");
    for (name, format, body) in &cases {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(*name, |bench| {
            bench.iter(|| format.parse(black_box(body)).unwrap().messages.len());
        });
    }
    let (_, format, body) = &cases[1];
    let request = format.parse(body).unwrap();
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("edit of chat 16 KB", |bench| {
        let edits = [("model", "\"gpt-4o-mini\""), ("max_tokens", "128")];
        bench.iter(|| json::set_fields(body, black_box(&request.fields), &edits).len());
    });
    group.finish();
}

/// A chat answer of about `bytes` bytes.
fn answer(bytes: usize) -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30}}}}"#,
        prose(bytes)
    )
}

fn stream(criterion: &mut Criterion) {
    let format = formats::by_name("openai.chat").unwrap();
    // 500 chunks of a word each, as the API sends them.
    let chunk = r#"{"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null}"#;
    let sse = format!("data: {chunk}\n\n").repeat(500);
    let mut group = criterion.benchmark_group("stream");
    group.throughput(Throughput::Bytes(sse.len() as u64));
    for (name, hide) in [("500 chunks", false), ("500 chunks, hiding usage", true)] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut tap = Tap::new(format, hide);
                let passed: usize = sse
                    .as_bytes()
                    .chunks(1400)
                    .map(|piece| tap.chunk(piece).len())
                    .sum();
                (passed, tap.outcome())
            });
        });
    }
    let answer = answer(4 << 10);
    group.throughput(Throughput::Bytes(answer.len() as u64));
    group.bench_function("replay of 4 KB", |bench| {
        bench.iter(|| format.replay(black_box(&answer), true).unwrap().len());
    });
    group.bench_function("answer of 4 KB", |bench| {
        bench.iter(|| format.answer(black_box(answer.as_bytes())).text_bytes);
    });
    let vectors = format!(
        r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":[{}]}}],"usage":{{"prompt_tokens":8,"total_tokens":8}}}}"#,
        "-0.009327292,".repeat(80_000) + "0"
    );
    group.throughput(Throughput::Bytes(vectors.len() as u64));
    group.bench_function("usage in 1 MB of vectors", |bench| {
        bench.iter(|| {
            let mut scan = UsageScan::new();
            for piece in vectors.as_bytes().chunks(16 << 10) {
                scan.push(piece);
            }
            scan.usage().map(str::len)
        });
    });
    group.finish();
}

criterion_group!(benches, parse, stream);
criterion_main!(benches);
