//! What is timed, natively (`core.rs`) and in wasm (`../../tests/wasm_bench.rs`): the parts of a
//! request's way, and the whole of it.

mod trim;

use std::hint::black_box;
use std::rc::Rc;

use sluice_core::config::{Plan, Scope};
use sluice_core::exchange::{Effect, Effects, Event, Exchange, Headers, Host, Vm};
use sluice_core::formats::{self, Format, Tap};
use sluice_core::policy::cache_key::{self, KeyInput};
use sluice_core::policy::route;
use sluice_core::tokens::{Encoding, Tokens};

/// A name and what to time.
pub(crate) type Case = (&'static str, Box<dyn FnMut()>);

/// Prose with the escapes that prose has; `seed` makes texts differ.
fn prose(bytes: usize, seed: usize) -> String {
    const WORDS: [&str; 16] = [
        "the",
        "refund",
        "of",
        "your",
        "order",
        "was",
        "sent",
        "on",
        "Monday,",
        "and",
        "should",
        "arrive",
        "within",
        "\\\"five\\\"",
        "days.\\n",
        "Regards",
    ];
    let mut text = String::with_capacity(bytes + 16);
    let mut at = seed.wrapping_mul(2_654_435_761);
    while text.len() < bytes {
        at = at.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        text.push_str(WORDS[(at >> 16) % WORDS.len()]);
        text.push(' ');
    }
    text
}

/// A chat request with `bytes` of text in `turns` messages.
fn chat(bytes: usize, turns: usize, seed: usize) -> String {
    let messages: Vec<String> = (0..turns)
        .map(|turn| {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            format!(
                r#"{{"role":"{role}","content":"{}"}}"#,
                prose(bytes / turns, seed + turn)
            )
        })
        .collect();
    format!(
        r#"{{"model":"gpt-4o","messages":[{{"role":"system","content":"Be brief."}},{}],"temperature":0.2}}"#,
        messages.join(",")
    )
}

/// A streamed answer of `chunks` chunks.
fn stream(chunks: usize) -> Vec<u8> {
    let chunk = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o\",{rest}}}\n\n"
        )
    };
    let mut text = String::new();
    for at in 0..chunks {
        text += &chunk(&format!(
            "\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{at}\"}},\"finish_reason\":null}}]"
        ));
    }
    text += &chunk("\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]");
    text += &chunk(
        "\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":99,\"total_tokens\":108}",
    );
    (text + "data: [DONE]\n\n").into_bytes()
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

const CONFIG: &str = r#"{
    "models":{"gpt-4o":{"encoding":"o200k_base","input":2.5,"output":10},"gpt-4o-mini":{"encoding":"o200k_base","input":0.15,"output":0.6}},
    "route":{"tiers":[{"name":"small","below":0.3,"model":"gpt-4o-mini","max_tokens":256},{"name":"large","model":"gpt-4o","max_tokens":1024}]},
    "trim":{"input_tokens":{"limit":32000}},
    "budgets":[{"per":"tenant","tokens":2000000000,"every":"day","over":"reject"}]}"#;

const ANSWER: &[u8] = br#"{"id":"c1","object":"chat.completion","created":1,"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"Thirty days."},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":10,"total_tokens":110}}"#;

fn pairs(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| (*name, *value)).collect()
}

/// A request from its headers to its end, without a sidecar.
fn whole(vm: &mut Vm, body: &[u8]) -> usize {
    let request = pairs(&[
        (":method", "POST"),
        (":path", "/v1/chat/completions"),
        (":authority", "api.example.com"),
        ("authorization", "Bearer sk-0123456789abcdef"),
        ("content-type", "application/json"),
        ("user-agent", "OpenAI/Python 2.0"),
    ]);
    let response = pairs(&[(":status", "200"), ("content-type", "application/json")]);
    let mut exchange = Exchange::new();
    let mut on = |event: Event<'_>| -> Effects { exchange.on(event, vm, &mut World) };
    let mut effects = on(Event::RequestHeaders {
        headers: &request,
        end_of_stream: false,
    })
    .list
    .len();
    effects += on(Event::RequestBody { body })
        .list
        .iter()
        .filter(|effect| **effect != Effect::ResumeRequest)
        .count();
    effects += on(Event::ResponseHeaders {
        headers: &response,
        end_of_stream: false,
    })
    .list
    .len();
    effects += on(Event::ResponseBody {
        chunk: ANSWER,
        end_of_stream: true,
    })
    .list
    .len();
    effects + on(Event::Done).list.len()
}

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let format = formats::by_path("/v1/chat/completions").unwrap_or(formats::ALL[0]);
    let sizes = [
        ("1 KB", chat(1 << 10, 1, 1)),
        ("16 KB", chat(16 << 10, 1, 2)),
        ("20 turns of 16 KB in all", chat(16 << 10, 20, 3)),
    ];
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |part: &str, size: &str, case: Box<dyn FnMut()>| {
        cases.push((Box::leak(format!("{part}/{size}").into_boxed_str()), case));
    };
    for (size, body) in &sizes {
        add("parse", size, parse(format, body.clone()));
        add("score", size, score(format, body.clone()));
        add("key", size, key(format, body.clone()));
        add("count remembered", size, count(format, body.clone()));
        add("whole request", size, request(body.clone()));
    }
    for bytes in [1 << 10, 16 << 10] {
        let text = prose(bytes, 7);
        let tokens = Tokens::load(&[Encoding::O200kBase]);
        let case = move || {
            black_box(tokens.count_text(Encoding::O200kBase, black_box(&text)));
        };
        add(
            "count new text",
            if bytes == 1 << 10 { "1 KB" } else { "16 KB" },
            Box::new(case),
        );
    }
    let events = stream(200);
    let sse = move || {
        let mut tap = Tap::new(format, true);
        for chunk in events.chunks(1400) {
            black_box(tap.chunk(chunk));
        }
        tap.end();
        black_box(tap.assemble());
    };
    add("sse", "200 events", Box::new(sse));
    cases.extend(trim::all());
    cases
}

fn parse(format: &'static dyn Format, body: String) -> Box<dyn FnMut()> {
    Box::new(move || {
        let _ = black_box(format.parse(black_box(&body)));
    })
}

fn score(format: &'static dyn Format, body: String) -> Box<dyn FnMut()> {
    let body: &'static str = Box::leak(body.into_boxed_str());
    let request = format.parse(body);
    Box::new(move || {
        let _ = request
            .as_ref()
            .map(|request| black_box(route::score(black_box(request))));
    })
}

fn key(format: &'static dyn Format, body: String) -> Box<dyn FnMut()> {
    let body: &'static str = Box::leak(body.into_boxed_str());
    let request = format.parse(body);
    let headers = pairs(&[
        (":authority", "api.example.com"),
        (":path", "/v1/chat/completions"),
    ]);
    Box::new(move || {
        if let Ok(request) = &request {
            black_box(cache_key::exact(&KeyInput {
                scope: Scope::Tenant,
                tenant: "acme",
                format,
                request,
                headers: &headers,
                key_headers: &[],
                model: "gpt-4o-mini",
                output_limit: Some(256),
                policies: &[0; 32],
            }));
        }
    })
}

fn count(format: &'static dyn Format, body: String) -> Box<dyn FnMut()> {
    let body: &'static str = Box::leak(body.into_boxed_str());
    let request = format.parse(body);
    let mut tokens = Tokens::load(&[Encoding::O200kBase]);
    Box::new(move || {
        if let Ok(request) = &request {
            black_box(tokens.count(Encoding::O200kBase, request, format.name()));
        }
    })
}

fn request(body: String) -> Box<dyn FnMut()> {
    let mut vm = Plan::parse(CONFIG.as_bytes(), &|_| None).ok().map(|plan| {
        let tokens = Tokens::load(&plan.encodings());
        Vm::new(Rc::new(plan), tokens)
    });
    Box::new(move || {
        if let Some(vm) = vm.as_mut() {
            black_box(whole(vm, black_box(body.as_bytes())));
        }
    })
}
