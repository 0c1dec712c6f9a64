//! Words and requests that this filter sealed, damaged on their way: none passes but what was sealed,
//! and that once.

use std::collections::HashSet;
use std::rc::Rc;

use fastrand::Rng;
use sluice_core::config::Plan;
use sluice_core::exchange::{
    Digest, Effect, Effects, Event, Exchange, Flow, Headers, Host, Sealer, Vm,
};
use sluice_core::tokens::Tokens;
use sluice_wire::{AdmitReply, Frame, RelayRequest, Verdict};

use crate::damage::damaged;
use crate::seeds;

const NOW_US: u64 = 1_700_000_000_000_000;
const CONFIG: &str = r#"{"sidecar":{"cluster":"c","secret":"s"},
    "trim":{"history":{"keep":"recent","tokens":9,"last":0},"retry":{"cluster":"self","streams":"relay"}}}"#;
const REFUSAL: &[u8] =
    br#"{"error":{"message":"roles","type":"invalid_request_error","param":"messages"}}"#;

#[derive(Default)]
struct World(HashSet<String>);

impl Host for World {
    fn now_ns(&self) -> u64 {
        NOW_US * 1000
    }
    fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }
    fn count(&mut self, _: &str, _: u64, _: i64, _: u64) -> (u64, bool) {
        (0, true)
    }
    fn first(&mut self, word: &str) -> bool {
        self.0.insert(word.to_owned())
    }
}

/// One worker, and the requests that come to it.
struct Worker {
    vm: Vm,
    world: World,
    exchange: Exchange,
}

type Pairs = Vec<(String, String)>;

impl Worker {
    fn new() -> Worker {
        let plan = Plan::parse(CONFIG.as_bytes(), &|_| None).unwrap();
        Worker {
            vm: Vm::new(Rc::new(plan), Tokens::load(&[])),
            world: World::default(),
            exchange: Exchange::new(),
        }
    }

    fn on(&mut self, event: Event<'_>) -> Effects {
        self.exchange.on(event, &mut self.vm, &mut self.world)
    }

    fn come(&mut self, headers: &Pairs, body: &[u8]) -> Effects {
        self.exchange = Exchange::new();
        let headers: Headers = headers.iter().map(|(name, value)| (name, value)).collect();
        let mut effects = self.on(Event::RequestHeaders {
            headers: &headers,
            end_of_stream: false,
        });
        if effects.flow == Flow::Pause {
            for buffered in [body.len() / 2, body.len()] {
                effects
                    .list
                    .extend(self.on(Event::RequestBodyPart { buffered }).list);
            }
            effects
                .list
                .extend(self.on(Event::RequestBody { body }).list);
        }
        effects
    }

    fn go(&mut self) -> Effects {
        let head = AdmitReply::of(Verdict::go(0));
        let frame = Frame { head, body: b"" }.encode().unwrap();
        self.on(Event::Reply {
            status: 200,
            body: &frame,
        })
    }
}

fn pairs(extra: &[(&str, &str)]) -> Pairs {
    let usual = [
        (":method", "POST"),
        (":path", "/v1/chat/completions"),
        (":authority", "api"),
        ("authorization", "Bearer sk-1"),
    ];
    let all = usual.iter().chain(extra);
    all.map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

fn body(stream: bool) -> String {
    let said = "Where are the parcels? ".repeat(30);
    let turn =
        format!(r#"{{"role":"user","content":"{said}"}},{{"role":"assistant","content":"x"}},"#);
    format!(
        r#"{{"model":"m","stream":{stream},"messages":[{turn}{{"role":"user","content":"Well?"}}]}}"#
    )
}

/// A request that was refused, as it is sent once more.
fn attempt() -> (Pairs, Vec<u8>) {
    let mut worker = Worker::new();
    worker.come(&pairs(&[]), body(false).as_bytes());
    worker.go();
    let head = [(":status", "400"), ("content-type", "application/json")];
    worker.on(Event::ResponseHeaders {
        headers: &head.into_iter().collect(),
        end_of_stream: false,
    });
    let refused = worker.on(Event::ResponseBody {
        chunk: REFUSAL,
        end_of_stream: true,
    });
    let sent = refused.list.into_iter().find_map(|effect| match effect {
        Effect::Attempt { seal, body, .. } => Some((seal, body)),
        _ => None,
    });
    let (seal, body) = sent.unwrap();
    let mut headers = pairs(&[]);
    let sealed = seal.attempt(&headers, Digest::of(&body));
    headers.push(("x-sluice-attempt".into(), sealed));
    (headers, body)
}

/// One header and its value, or nothing, is another one.
fn meddle(headers: &mut Pairs, rng: &mut Rng) {
    let text = |value: &str, rng: &mut Rng| {
        String::from_utf8_lossy(&damaged(value.as_bytes(), rng)).into_owned()
    };
    let at = rng.usize(..headers.len());
    match rng.u8(..5) {
        0 => headers[at].1 = text(&headers[at].1.clone(), rng),
        1 => drop(headers.remove(at)),
        2 => {
            let twin = headers[at].clone();
            headers.push((twin.0, text(&twin.1, rng)));
        }
        3 => headers.push(("x-sluice-tier".into(), "large".into())),
        _ => {}
    }
}

/// What a word is bound to, as whoever seals it sees it.
fn same(one: &Pairs, other: &Pairs) -> bool {
    let sorted = |pairs: &Pairs| {
        let mut pairs = pairs.clone();
        for (name, value) in &mut pairs {
            // The word itself is read as it stands.
            if name != "x-sluice-attempt" {
                *value = value.trim_ascii().to_owned();
            }
        }
        pairs.sort();
        pairs
    };
    sorted(one) == sorted(other)
}

#[test]
fn of_attempts_only_what_was_sealed_passes_and_that_once() {
    let (headers, body) = attempt();
    let mut passed = 0;
    for seed in seeds().take(2_000) {
        let mut rng = Rng::with_seed(seed);
        let mut worker = Worker::new();
        let (mut other, mut sent) = (headers.clone(), body.clone());
        for _ in 0..rng.usize(..3) {
            meddle(&mut other, &mut rng);
        }
        if rng.bool() {
            sent = damaged(&sent, &mut rng);
        }
        for turn in 0..2 {
            let effects = worker.come(&other, &sent);
            let passes = [
                Effect::RemoveRequestHeader("x-sluice-attempt".into()),
                Effect::ResumeRequest,
            ];
            let passes = effects.list == passes;
            let wanted = turn == 0 && same(&other, &headers) && sent == body;
            assert_eq!(passes, wanted, "SLUICE_FUZZ_SEED={seed}: {other:?}");
            passed += u32::from(passes);
            let open = |effect: &Effect| {
                matches!(
                    effect,
                    Effect::ResumeRequest | Effect::Respond { .. } | Effect::Call { .. }
                )
            };
            let done = effects.flow == Flow::Continue || effects.list.iter().any(open);
            assert!(done, "SLUICE_FUZZ_SEED={seed}: it is left hanging");
            worker.on(Event::Done);
        }
    }
    assert!(passed > 100, "it must get there: {passed}");
}

#[test]
fn a_relays_word_and_frame_are_read_whatever_became_of_them() {
    let mut worker = Worker::new();
    worker.come(&pairs(&[]), body(true).as_bytes());
    let sent = worker
        .go()
        .list
        .into_iter()
        .find_map(|effect| match effect {
            Effect::Relay(relay) => Some(relay),
            _ => None,
        });
    let (frame, authorization) = sent.unwrap().frame(&pairs(&[]));
    let token = authorization.strip_prefix("Bearer ").unwrap();
    let head = frame.split(|byte| *byte == b'\n').next().unwrap();
    let sealer = Sealer::new("s");
    assert_eq!(sealer.relay_head(token, NOW_US), Some(Digest::of(head)));
    for seed in seeds().take(20_000) {
        let mut rng = Rng::with_seed(seed);
        let other = damaged(token.as_bytes(), &mut rng);
        let other = String::from_utf8_lossy(&other);
        let now = NOW_US.saturating_add_signed(rng.i64(-90_000_000..90_000_000));
        if sealer.relay_head(&other, now).is_some() {
            let young = (NOW_US - 1_000_000..=NOW_US + 60_000_000).contains(&now);
            assert!(young && other == token, "SLUICE_FUZZ_SEED={seed}: {other}");
        }
        let other = damaged(&frame, &mut rng);
        if let Ok(read) = Frame::<RelayRequest, _>::decode(&other) {
            let all = read.head.body_len();
            assert!(read.head.attempts.iter().all(|it| it.len <= all));
            let shown = format!("{:?}", read.head);
            assert!(!shown.contains("sk-1"), "SLUICE_FUZZ_SEED={seed}: {shown}");
        }
    }
}
