//! Random lives of requests: events in any order, bodies and configs with random damage, streams
//! cut anywhere, sidecars that answer anything. Nothing may panic, hang or be told twice.
//!
//! `SLUICE_FUZZ_SECONDS` sets how long it runs (default 3), `SLUICE_FUZZ_SEED` where it starts. What
//! it starts from are the formats' fixtures and `tests/corpus/`, which also keeps every input that
//! ever failed: a failure prints its seed and writes its body there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use flate2::Compression;
use flate2::write::GzEncoder;
use sluice_core::config::Plan;
use sluice_core::exchange::{Effect, Event, Exchange, Flow, Headers, Host, Vm};
use sluice_core::tokens::Tokens;
use sluice_wire::{AdmitReply, CacheResult, EntryHead, Frame, Usage, Verdict};

const MODELS: &str = r#""models":{"gpt-4o":{"encoding":"o200k_base","input":2.5,"cached_input":1.25,"output":10},
    "gpt-4o-mini":{"encoding":"o200k_base","input":0.15,"output":0.6},
    "claude-haiku-4-5":{"bytes_per_token":3.6,"input":1,"cached_input":0.1,"cache_write":1.25,"output":5}}"#;
const ROUTE: &str = r#""route":{"tiers":[{"name":"small","below":0.3,"model":{"openai":"gpt-4o-mini","anthropic":"claude-haiku-4-5"},"max_tokens":64},
    {"name":"large","model":"gpt-4o","max_tokens":1024}]}"#;
const BUDGETS: &str = r#""budgets":[{"per":"tenant","tokens":20000,"every":"minute","over":"reject"},
    {"per":"model","dollars":1,"every":"day","over":"small_tier"},{"per":"tenant","tokens":9000,"every":"minute","over":"shadow"}]"#;
const TRIM: &str = r#""trim":{"input_tokens":{"limit":300,"over":"small_tier"}}"#;
const TRUST: &str = r#""identity":{"trust":[{"header":{"name":"x-key","value":"k"}}],"allow":{"anonymous":["gpt-4o","gpt-4o-mini"]}}"#;

/// A plan, and whether it may change anything.
struct Setup {
    plan: Rc<Plan>,
    dry: bool,
}

fn setups() -> Vec<Setup> {
    let all = format!("{MODELS},{ROUTE},{BUDGETS},{TRIM},{TRUST},\"cache\":{{}}");
    let strict =
        r#""sidecar":{"cluster":"c","on_failure":"closed","breaker":{"failures":2,"pause":"1s"}}"#;
    let narrow = r#""limits":{"request_body":"2KiB","response_body":"1KiB","on_failure":"closed"}"#;
    let configs = [
        (format!(r#"{{{all},"sidecar":{{"cluster":"c"}}}}"#), false),
        (format!("{{{all},{strict}}}"), false),
        (format!("{{{all},{narrow}}}"), false),
        (
            format!(r#"{{{all},"mode":"dry","sidecar":{{"cluster":"c"}}}}"#),
            true,
        ),
        (format!("{{{MODELS}}}"), true),
        (String::new(), true),
    ];
    let parse = |(json, dry): (String, bool)| Setup {
        plan: Rc::new(Plan::parse(json.as_bytes(), &|_| None).unwrap()),
        dry,
    };
    configs.into_iter().map(parse).collect()
}

#[derive(Default)]
struct World {
    now_ns: u64,
    counters: HashMap<String, (u64, u64)>,
}

impl Host for World {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }

    fn count(&mut self, key: &str, window: u64, amount: i64, limit: u64) -> (u64, bool) {
        let (start, used) = self.counters.entry(key.to_owned()).or_default();
        if window > *start {
            (*start, *used) = (window, 0);
        }
        let before = *used;
        let after = before.saturating_add_signed(amount);
        if after > limit {
            return (before, false);
        }
        *used = after;
        (before, true)
    }
}

struct Corpus {
    bodies: Vec<Vec<u8>>,
    answers: Vec<Vec<u8>>,
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn corpus() -> Corpus {
    let mut paths = Vec::new();
    files(&root().join("fixtures"), &mut paths);
    files(&root().join("corpus"), &mut paths);
    paths.sort();
    let mut corpus = Corpus {
        bodies: Vec::new(),
        answers: Vec::new(),
    };
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.contains("request") || path.starts_with(root().join("corpus")) {
            corpus.bodies.push(bytes);
        } else {
            corpus.answers.push(bytes);
        }
    }
    assert!(
        corpus.bodies.len() >= 5 && corpus.answers.len() >= 5,
        "the fixtures are there"
    );
    corpus
}

const SNIPPETS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\\ud800",
    "null",
    "1e999",
    "-0",
    ",",
    ":",
    "\u{0}",
    "\u{feff}",
    "data: ",
    "\n\n",
    "\r\n",
    "event: x\n",
    "\"model\":\"gpt-4o\",",
    "\"stream\":true,",
    "\"max_tokens\":0,",
    "\"n\":99999999999,",
    "\"usage\":{",
    "[DONE]",
    "\"messages\":[],",
    "\"tools\":[{}],",
    "\"temperature\":1e308,",
    "\"stream_options\":{\"include_usage\":true},",
];

/// Bytes with random damage; most lives get none or a little.
fn damaged(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..[0, 0, 1, 1, 2, 8][rng.usize(..6)] {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..6) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 => bytes.truncate(at),
            2 => {
                let snippet = SNIPPETS[rng.usize(..SNIPPETS.len())];
                bytes.splice(at..at, snippet.bytes());
            }
            3 => {
                let end = (at + rng.usize(..32)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + rng.usize(..64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let deep = rng.usize(..400);
                bytes.splice(at..at, std::iter::repeat_n(b'[', deep));
            }
        }
    }
    bytes
}

fn verdict(rng: &mut Rng) -> Verdict {
    let plan = rng.u8(..3);
    match rng.u8(..6) {
        0 => Verdict::Count,
        1 => Verdict::Over {
            rule: rng.u16(..4),
            limit: rng.u64(..),
            used: rng.u64(..),
            reset_secs: rng.u64(..),
        },
        2 => {
            let formats = [
                "openai.chat",
                "anthropic.messages",
                "openai.responses",
                "none",
            ];
            let entry = EntryHead {
                format: formats[rng.usize(..4)].into(),
                model: "gpt-4o".into(),
                tier: None,
                usage: Usage {
                    prompt: rng.u64(..),
                    completion: rng.u64(..1 << 40),
                    ..Usage::default()
                },
                cost: None,
            };
            Verdict::Hit {
                plan,
                age_secs: rng.u64(..),
                entry,
            }
        }
        _ => Verdict::Go { plan },
    }
}

const PATHS: [&str; 6] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/other",
];

/// What has happened to one request.
#[derive(Default)]
struct Told {
    resumed: u32,
    responded: u32,
    settled: u32,
    calls: u32,
    changed: bool,
}

impl Told {
    fn hear(&mut self, effects: &[Effect], sent: &[u8]) {
        for effect in effects {
            match effect {
                Effect::ResumeRequest => self.resumed += 1,
                Effect::Respond { .. } => self.responded += 1,
                Effect::Call { .. } => self.calls += 1,
                Effect::ReplaceRequestBody(body) => {
                    self.changed = true;
                    let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes);
                    assert!(
                        read(sent).is_err() || read(body).is_ok(),
                        "valid JSON stays valid JSON"
                    );
                }
                Effect::SetRequestHeader(..) => self.changed = true,
                Effect::Settle(settle, answer) => {
                    self.settled += 1;
                    let record = &settle.record;
                    if let (Some(as_asked), Some(cost)) = (record.as_asked, record.cost) {
                        // Amounts at the end of the range saturate; real ones never get there.
                        let real = record.usage.total() < 1 << 40;
                        assert!(
                            !real || record.saved.total() == as_asked - cost,
                            "{record:?}"
                        );
                    }
                    assert_eq!(
                        settle.store.as_ref().map_or(0, |store| store.len),
                        answer.len() as u64
                    );
                    assert!(record.cache != CacheResult::Hit || settle.store.is_none());
                }
                _ => {}
            }
        }
        assert!(
            self.resumed + self.responded <= 1,
            "a request goes on once or is answered once"
        );
        assert!(self.settled <= 1 && self.calls <= 4);
    }

    fn open(&self) -> bool {
        self.resumed + self.responded == 0
    }
}

/// One request with the world around it.
struct Life<'a> {
    exchange: Exchange,
    vm: &'a mut Vm,
    world: &'a mut World,
    told: Told,
    body: Vec<u8>,
}

impl Life<'_> {
    fn on(&mut self, event: Event<'_>) -> (Flow, usize) {
        let effects = self.exchange.on(event, self.vm, self.world);
        self.told.hear(&effects.list, &self.body);
        (effects.flow, effects.list.len())
    }

    /// Anything at any time.
    fn disorderly(&mut self, rng: &mut Rng, corpus: &Corpus, headers: &Headers) {
        for _ in 0..rng.usize(..12) {
            let head = AdmitReply {
                verdict: verdict(rng),
                over: vec![rng.u16(..)],
            };
            let frame = damaged(&Frame { head, body: b"{}" }.encode().unwrap(), rng);
            let answer = &corpus.answers[rng.usize(..corpus.answers.len())];
            let end_of_stream = rng.bool();
            let body = self.body.clone();
            self.on(match rng.u8(..8) {
                0 => Event::RequestHeaders {
                    headers,
                    end_of_stream,
                },
                1 => Event::RequestBodyPart {
                    buffered: rng.usize(..10_000),
                },
                2 => Event::RequestBody { body: &body },
                3 => Event::Reply {
                    status: [200, 500][rng.usize(..2)],
                    body: &frame,
                },
                4 => Event::ReplyFailed,
                5 => Event::ResponseHeaders {
                    headers,
                    end_of_stream,
                },
                6 => Event::ResponseBody {
                    chunk: answer,
                    end_of_stream,
                },
                _ if rng.u8(..8) == 0 => Event::Done,
                _ => Event::ResponseBody {
                    chunk: b"",
                    end_of_stream,
                },
            });
        }
    }

    /// Headers, body, replies: until it is on its way or answered.
    fn request(&mut self, rng: &mut Rng, corpus: &Corpus, headers: &Headers) {
        let (flow, _) = self.on(Event::RequestHeaders {
            headers,
            end_of_stream: false,
        });
        if flow == Flow::Continue || self.told.responded > 0 {
            return;
        }
        let body = self.body.clone();
        let mut seen = 0;
        while seen < body.len() && self.told.open() {
            seen = (seen + 1 + rng.usize(..4096)).min(body.len());
            self.on(Event::RequestBodyPart { buffered: seen });
        }
        if self.told.open() {
            self.on(Event::RequestBody { body: &body });
        }
        let mut answered = 0;
        while answered < self.told.calls && self.told.open() {
            answered = self.told.calls;
            let head = AdmitReply {
                verdict: verdict(rng),
                over: vec![],
            };
            let body = &corpus.answers[rng.usize(..corpus.answers.len())];
            let frame = Frame { head, body }.encode().unwrap();
            match rng.u8(..8) {
                0 => self.on(Event::ReplyFailed),
                1 => self.on(Event::Reply {
                    status: 200,
                    body: &damaged(&frame, rng),
                }),
                _ => self.on(Event::Reply {
                    status: 200,
                    body: &frame,
                }),
            };
        }
        assert!(!self.told.open(), "no request is left hanging");
    }

    /// An answer from upstream, possibly broken off.
    fn response(&mut self, rng: &mut Rng, corpus: &Corpus) {
        let answer = &corpus.answers[rng.usize(..corpus.answers.len())];
        let kind = match rng.u8(..4) {
            0 => ["text/plain", "text/event-stream", "application/json"][rng.usize(..3)],
            _ if answer.starts_with(b"{") => "application/json",
            _ => "text/event-stream",
        };
        let (coding, answer) = match rng.u8(..6) {
            0 => ("gzip", gzip(answer)),
            1 => ("br", br(answer)),
            _ => ("identity", answer.clone()),
        };
        let answer = damaged(&answer, rng);
        let status = ["200", "200", "200", "429", "500", "x"][rng.usize(..6)];
        let head = [
            (":status", status),
            ("content-type", kind),
            ("content-encoding", coding),
            ("x-sluice-cost", "1"),
        ];
        let head: Headers = head.into_iter().collect();
        let (mut flow, _) = self.on(Event::ResponseHeaders {
            headers: &head,
            end_of_stream: false,
        });
        let (mut from, mut at) = (0, 0);
        let stride = [3, 200, 5000][rng.usize(..3)];
        while at < answer.len() && rng.u8(..100) != 0 {
            at = (at + 1 + rng.usize(..stride)).min(answer.len());
            let chunk = if flow == Flow::Pause {
                &answer[..at]
            } else {
                &answer[from..at]
            };
            from = at;
            let end_of_stream = at == answer.len() && rng.u8(..8) != 0;
            (flow, _) = self.on(Event::ResponseBody {
                chunk,
                end_of_stream,
            });
            assert!(
                !(flow == Flow::Pause && end_of_stream),
                "the end of an answer is never held"
            );
        }
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn br(plain: &[u8]) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 1, 22);
    encoder.write_all(plain).unwrap();
    encoder.into_inner()
}

/// One life, from its headers to its end.
fn live(rng: &mut Rng, setup: &Setup, vm: &mut Vm, world: &mut World, corpus: &Corpus) {
    let body = damaged(&corpus.bodies[rng.usize(..corpus.bodies.len())], rng);
    world.now_ns += rng.u64(..2_000_000_000);
    let mut head = vec![
        (":method", "POST"),
        (":path", PATHS[rng.usize(..PATHS.len())]),
        (":authority", "h"),
    ];
    let extra = [
        ("x-key", "k"),
        ("x-sluice-tier", "large"),
        ("x-sluice-cache", "refresh"),
        ("cache-control", "no-cache"),
        ("content-length", "99999999999999999999"),
    ];
    head.extend(extra.into_iter().filter(|_| rng.u8(..5) == 0));
    let headers: Headers = head.into_iter().collect();
    let mut life = Life {
        exchange: Exchange::new(),
        vm,
        world,
        told: Told::default(),
        body,
    };
    if rng.u8(..4) == 0 {
        life.disorderly(rng, corpus, &headers);
    } else {
        life.request(rng, corpus, &headers);
        if life.told.responded == 0 && rng.u8(..10) != 0 {
            life.response(rng, corpus);
        }
    }
    assert!(
        !(setup.dry && life.told.changed),
        "what is dry changes nothing"
    );
    life.on(Event::Done);
    let (_, late) = life.on(Event::ReplyFailed);
    assert_eq!(late, 0, "nothing happens after the end");
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

#[test]
fn no_sequence_of_events_panics_hangs_or_is_told_twice() {
    let seconds = from_env("SLUICE_FUZZ_SECONDS", 3);
    let first = from_env("SLUICE_FUZZ_SEED", 1);
    let (corpus, setups) = (corpus(), setups());
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let vm = |setup: &Setup| Vm::new(setup.plan.clone(), Tokens::load(&setup.plan.encodings()));
    let mut worlds: Vec<_> = setups
        .iter()
        .map(|setup| (vm(setup), World::default()))
        .collect();
    let mut lives = 0_u64;
    while Instant::now() < deadline {
        let seed = first + lives;
        let mut rng = Rng::with_seed(seed);
        let which = rng.usize(..setups.len());
        let (vm, world) = &mut worlds[which];
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            live(&mut rng, &setups[which], vm, world, &corpus);
        }));
        if let Err(panic) = caught {
            keep(seed, setups.len(), &corpus);
            std::panic::resume_unwind(panic);
        }
        lives += 1;
    }
    println!("{lives} lives in {seconds} s, from seed {first}");
    assert!(lives > 100, "it must get somewhere: {lives} lives");
}

/// Writes the body of a life that failed into the corpus.
fn keep(seed: u64, setups: usize, corpus: &Corpus) {
    let mut rng = Rng::with_seed(seed);
    rng.usize(..setups);
    let body = damaged(&corpus.bodies[rng.usize(..corpus.bodies.len())], &mut rng);
    let dir = root().join("corpus");
    let file = dir.join(format!("failed-{seed}.json"));
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&file, body))
        .unwrap();
    eprintln!("seed {seed} failed; its body is kept as {}", file.display());
}

#[test]
fn no_config_panics() {
    let route = r#""routes":[{"name":"a","match":{"host":"*.x"}}]"#;
    let config = format!(
        r#"{{{MODELS},{ROUTE},{BUDGETS},{TRIM},{TRUST},"cache":{{"exact":{{"ttl":"10m"}}}},"sidecar":{{"cluster":"c"}},{route}}}"#
    );
    assert!(Plan::parse(config.as_bytes(), &|_| None).is_ok());
    for seed in 0..20_000 {
        let mut rng = Rng::with_seed(seed);
        let json = damaged(config.as_bytes(), &mut rng);
        if let Err(faults) = Plan::parse(&json, &|_| None) {
            assert!(!faults.0.is_empty() && faults.0.iter().all(|fault| !fault.path.is_empty()));
        }
    }
}
