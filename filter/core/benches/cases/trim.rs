//! What trimming takes of a request's time: long conversations, of which a VM has seen all but what is
//! new.

use std::hint::black_box;
use std::rc::Rc;

use sluice_core::config::Plan;
use sluice_core::exchange::Vm;
use sluice_core::formats::{self, Format, Request};
use sluice_core::policy::trim::summary::DigestMemory;
use sluice_core::policy::trim::terms::TermMemory;
use sluice_core::policy::trim::{self, Job, Known, Memories, Model, Trimmed};
use sluice_core::tokens::Tokens;

use super::{Case, whole};

/// Bytes of a message of 200 tokens.
const MESSAGE: usize = 900;

/// Last turns that take turns: each time another, all of them seen before.
const LAST: usize = 16;

/// Messages of conversations that are held against each other.
const LENGTHS: [usize; 4] = [50, 100, 200, 400];

/// Chunks of a retrieval.
const CHUNKS: usize = 20;

const MODELS: &str = r#""models":{"gpt-4o":{"encoding":"o200k_base","input":2.5,"cached_input":1.25,"output":10,"prefix":{"lifetime":"5m","longest":"1h"}}}"#;
const RELEVANT: &str = r#""history":{"keep":"relevant","tokens":2000}"#;
const SUMMARY: &str = r#""history":{"keep":"summary","tokens":2000}"#;
const CONTEXT: &str = r#""history":{"keep":"relevant","tokens":2000},"context":{"markers":[{"tag":{"name":"document"}}],"top_k":5}"#;

fn config(trim: &str) -> String {
    format!(r#"{{{MODELS},"trim":{{{trim}}}}}"#)
}

/// Sentences about many things; `seed` makes them differ.
fn speech(bytes: usize, seed: usize) -> String {
    const WORDS: &[&str] = &[
        "the",
        "of",
        "a",
        "to",
        "and",
        "is",
        "it",
        "was",
        "for",
        "on",
        "with",
        "you",
        "that",
        "not",
        "order",
        "refund",
        "delivery",
        "invoice",
        "account",
        "password",
        "subscription",
        "payment",
        "warranty",
        "address",
        "customer",
        "discount",
        "broken",
        "screen",
        "battery",
        "charger",
        "printer",
        "cartridge",
        "returned",
        "replaced",
        "shipped",
        "arrived",
        "cancelled",
        "Berlin",
        "Lisbon",
        "Chicago",
        "Maria",
        "Thomas",
        "Monday",
        "October",
        "warehouse",
        "courier",
        "parcel",
        "tracking",
        "number",
        "signature",
        "neighbour",
        "kitchen",
        "coffee",
        "machine",
        "filter",
        "pressure",
        "temperature",
        "manual",
        "setting",
        "firmware",
        "update",
        "installed",
        "error",
        "message",
        "support",
        "ticket",
        "answered",
        "colleague",
        "manager",
        "promised",
        "voucher",
        "holiday",
        "weekend",
        "morning",
        "evening",
        "garden",
        "furniture",
        "wooden",
        "table",
        "chair",
        "lamp",
        "cable",
        "adapter",
        "voltage",
        "country",
        "customs",
        "declaration",
        "insurance",
    ];
    let mut text = String::with_capacity(bytes + 16);
    let mut at = seed.wrapping_mul(2_654_435_761) as u32;
    let mut words = 0;
    while text.len() < bytes {
        at = at.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let word = (at >> 16) as usize;
        match word % 24 {
            0 => text.push_str(&(at >> 18).to_string()),
            _ => text.push_str(WORDS.get(word % WORDS.len()).unwrap_or(&"")),
        }
        words += 1;
        text.push_str(if words % 12 == 0 { ". " } else { " " });
    }
    text
}

/// A chat request of `messages` messages, the system's one of them, whose last is `last`.
fn chat(messages: usize, last: &str) -> String {
    let mut body =
        String::from(r#"{"model":"gpt-4o","messages":[{"role":"system","content":"Be brief."}"#);
    for turn in 2..messages {
        let role = if turn % 2 == 0 { "user" } else { "assistant" };
        let text = speech(MESSAGE, turn);
        body.push_str(&format!(r#",{{"role":"{role}","content":"{text}"}}"#));
    }
    format!(r#"{body},{{"role":"user","content":"{last}"}}]}}"#)
}

/// A question behind chunks of 200 tokens each.
fn retrieved(seed: usize) -> String {
    let chunks = (0..CHUNKS).map(|at| {
        let text = speech(MESSAGE, 10_000 + at);
        format!(r"<document>\n{text}\n</document>\n")
    });
    let chunks: String = chunks.collect();
    format!(r"{chunks}\nQuestion: {}", speech(200, seed))
}

fn format() -> &'static dyn Format {
    formats::by_path("/v1/chat/completions").unwrap_or(formats::ALL[0])
}

/// What a VM has for trimming.
struct Trimmer {
    plan: Option<Plan>,
    tokens: Tokens,
    terms: TermMemory,
    digests: DigestMemory,
    state: Option<String>,
    now_ms: u64,
}

impl Trimmer {
    /// One that has seen a conversation up to the turn before the last one.
    fn after(config: &str, messages: usize) -> Trimmer {
        let plan = Plan::parse(config.as_bytes(), &|_| None).ok();
        let mut trimmer = Trimmer {
            tokens: Tokens::load(&plan.as_ref().map_or(Vec::new(), Plan::encodings)),
            plan,
            terms: TermMemory::default(),
            digests: DigestMemory::default(),
            state: None,
            now_ms: 1_700_000_000_000,
        };
        let before = chat(messages - 2, &speech(MESSAGE, messages - 2));
        trimmer.state = format()
            .parse(&before)
            .ok()
            .and_then(|request| trimmer.trim(&request)?.state);
        trimmer.now_ms += 30_000;
        trimmer
    }

    fn trim(&mut self, request: &Request<'_>) -> Option<Trimmed> {
        let plan = self.plan.as_ref()?;
        let job = Job {
            request,
            format: format(),
            policy: &plan.default.trim,
            template: None,
            model: Model::of(plan, "gpt-4o", &self.tokens),
            limit: None,
            known: Known {
                summaries: &[],
                state: self.state.as_deref(),
                now_ms: self.now_ms,
                ..Known::default()
            },
        };
        let mut memories = Memories {
            tokens: &mut self.tokens,
            terms: &mut self.terms,
            digests: &mut self.digests,
        };
        trim::trim(&job, &mut memories).ok()
    }
}

/// Every case.
pub(super) fn all() -> Vec<Case> {
    let said = |seed| speech(MESSAGE, 20_000 + seed);
    let mut cases: Vec<Case> = vec![
        ("trim/100 messages seen", seen(RELEVANT, 100, &said)),
        (
            "trim/100 messages seen, 20 chunks",
            seen(CONTEXT, 100, &retrieved),
        ),
        ("trim/100 messages seen, summary", seen(SUMMARY, 100, &said)),
        ("parse/100 messages", parse(100)),
        ("parse and trim/100 messages, 200 tokens new", new(MESSAGE)),
        (
            "parse and trim/100 messages, 4000 tokens new",
            new(20 * MESSAGE),
        ),
    ];
    for messages in LENGTHS {
        let mut add = |how: &str, trim: &str| {
            let name = format!("whole request/{messages} messages, {how}");
            cases.push((Box::leak(name.into_boxed_str()), request(trim, messages)));
        };
        add("not trimmed", r#""mode":"off""#);
        add("trimmed", RELEVANT);
    }
    cases
}

/// Trims a conversation of which everything has been seen and counted before.
fn seen(trim: &str, messages: usize, last: &dyn Fn(usize) -> String) -> Box<dyn FnMut()> {
    let mut trimmer = Trimmer::after(&config(trim), messages);
    let bodies = (0..LAST).map(|seed| chat(messages, &last(seed)));
    let requests: Vec<Request<'static>> = bodies
        .filter_map(|body| format().parse(Box::leak(body.into_boxed_str())).ok())
        .collect();
    let mut turn = 0;
    for request in &requests {
        trimmer.trim(request);
    }
    Box::new(move || {
        turn += 1;
        if let Some(request) = requests.get(turn % LAST) {
            black_box(trimmer.trim(black_box(request)));
        }
    })
}

fn parse(messages: usize) -> Box<dyn FnMut()> {
    let body = chat(messages, &speech(MESSAGE, 1));
    Box::new(move || {
        let _ = black_box(format().parse(black_box(&body)));
    })
}

/// A conversation whose last message is another each time.
struct Growing {
    /// All but the last message's number, and what stands behind it.
    front: String,
    back: String,
    turn: u64,
}

impl Growing {
    /// Of so many messages, the last of so many bytes.
    fn of(messages: usize, bytes: usize) -> Growing {
        let body = chat(messages, "|");
        let (front, back) = body.split_once('|').unwrap_or((&body, ""));
        Growing {
            front: front.to_owned(),
            back: format!("{}{back}", speech(bytes, 1)),
            turn: 0,
        }
    }

    fn next(&mut self) -> String {
        self.turn += 1;
        format!("{}{} {}", self.front, self.turn, self.back)
    }
}

/// Reads and trims a conversation whose last message is new.
fn new(bytes: usize) -> Box<dyn FnMut()> {
    let mut trimmer = Trimmer::after(&config(RELEVANT), 100);
    let mut growing = Growing::of(100, bytes);
    Box::new(move || {
        let body = growing.next();
        if let Ok(request) = format().parse(black_box(&body)) {
            black_box(trimmer.trim(&request));
        }
    })
}

/// A request's whole life, its last message new.
fn request(trim: &str, messages: usize) -> Box<dyn FnMut()> {
    let mut vm = Plan::parse(config(trim).as_bytes(), &|_| None)
        .ok()
        .map(|plan| {
            let tokens = Tokens::load(&plan.encodings());
            Vm::new(Rc::new(plan), tokens)
        });
    let mut growing = Growing::of(messages, MESSAGE);
    Box::new(move || {
        if let Some(vm) = vm.as_mut() {
            black_box(whole(vm, growing.next().as_bytes()));
        }
    })
}
