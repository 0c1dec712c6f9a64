//! One request through the machine, with random events, and what must be true of its effects.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use flate2::Compression;
use flate2::write::GzEncoder;
use sluice_core::exchange::{Effect, Event, Exchange, Flow, Headers, Host, Metric, Vm};
use sluice_wire::{
    AdmitReply, AdmitRequest, Audit, CacheResult, EntryHead, Frame, Lease, Outcome, Similarity,
    Spare, Usage, Vectors, Verdict, Written, limit,
};

use crate::damage::damaged;
use crate::round::{CHAT, Request};

#[derive(Default)]
pub(crate) struct World {
    now_ns: u64,
    counters: HashMap<String, (u64, u64)>,
    /// What conversations wanted told, as the sidecar has it.
    states: HashMap<String, String>,
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

fn verdict(rng: &mut Rng) -> Verdict {
    let plan = rng.u8(..3);
    let lease = |rng: &mut Rng| {
        rng.bool().then(|| Lease {
            holder: format!("{:032x}", rng.u128(..)),
            token: rng.u64(..),
        })
    };
    match rng.u8(..8) {
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
                "retrieval",
                "none",
            ];
            let entry = EntryHead {
                format: formats[rng.usize(..5)].into(),
                model: "gpt-4o".into(),
                status: [200, 200, 400, 404][rng.usize(..4)],
                usage: Usage {
                    prompt: rng.u64(..),
                    completion: rng.u64(..1 << 40),
                    ..Usage::default()
                },
                ..EntryHead::default()
            };
            if rng.u8(..3) == 0 {
                let age_secs = rng.u64(..);
                return Verdict::Go {
                    plan,
                    lease: lease(rng),
                    spare: Some(Spare { age_secs, entry }),
                    audit: rng.bool().then(Box::<Audit>::default),
                };
            }
            Verdict::Hit {
                plan,
                age_secs: rng.u64(..),
                entry,
                result: CacheResult::ALL[rng.usize(..CacheResult::ALL.len())],
                refresh: lease(rng),
            }
        }
        3 => Verdict::Go {
            plan,
            lease: lease(rng),
            spare: None,
            audit: rng.bool().then(Box::<Audit>::default),
        },
        4 | 5 => Verdict::Wait,
        _ => Verdict::go(plan),
    }
}

/// What a sidecar may know of the inputs that it was asked for, and their vectors: of as many numbers
/// as the fixtures' answers have.
fn vectors(call: &[u8], head: &mut AdmitReply, rng: &mut Rng) -> Option<Vec<u8>> {
    let asked = Frame::<AdmitRequest, _>::decode(call).ok()?.head;
    let inputs = asked.plans.first()?.inputs;
    let told = "text-embedding-ada-002";
    let models = [told, told, told, ""];
    let mut vectors = Vectors {
        len: [12, 12, 12, 8, 6][rng.usize(..5)],
        model: models[rng.usize(..models.len())].into(),
        ..Vectors::default()
    };
    let all = rng.bool();
    let numbers = (0..inputs).filter(|_| all || rng.bool());
    vectors.found = numbers.map(|number| (number as u16, 7)).collect();
    let bytes = vectors.found.len() * vectors.len as usize;
    let bytes = bytes * usize::from(asked.cache.vector_bytes > 0);
    let whole = vectors.found.len() == inputs as usize;
    (!vectors.found.is_empty()).then_some(())?;
    if whole && rng.u8(..8) > 0 {
        head.verdict = Verdict::Hit {
            plan: 0,
            age_secs: 1,
            entry: EntryHead::default(),
            result: CacheResult::Hit,
            refresh: None,
        };
    } else if !whole {
        head.verdict = Verdict::go(0);
    }
    head.vectors = Some(vectors);
    Some(
        std::iter::repeat_with(|| rng.u8(..60))
            .take(bytes)
            .collect(),
    )
}

const PATHS: [&str; 7] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/search?k=1",
    "/other",
];

/// Requests that went out shorter than they came, and those sent again as they came, ever.
pub(crate) static TRIMMED: AtomicU64 = AtomicU64::new(0);
pub(crate) static ATTEMPTED: AtomicU64 = AtomicU64::new(0);

/// A refusal that blames what was left out.
const BLAMES: &[u8] = br#"{"error":{"message":"messages must not end so","type":"invalid_request_error","param":"messages","code":null}}"#;

/// Answers to a part that were joined with what was known, ever.
pub(crate) static JOINED: AtomicU64 = AtomicU64::new(0);

/// What has happened to one request.
#[derive(Default)]
struct Told {
    resumed: u32,
    responded: u32,
    settled: u32,
    calls: u32,
    /// A stored answer stood in for upstream's.
    stood_in: bool,
    /// It was refused and is sent once more.
    attempts: u32,
    attempted: bool,
    /// What the sidecar is to remember.
    remember: Option<(String, String)>,
    /// The last call's frame.
    call: Vec<u8>,
    /// What goes upstream, where that is not what came.
    sent: Option<Vec<u8>>,
    changed: bool,
}

impl Told {
    fn hear(&mut self, effects: &[Effect], sent: &[u8]) {
        for effect in effects {
            match effect {
                Effect::ResumeRequest => self.resumed += 1,
                Effect::Respond { .. } if self.resumed > 0 && !self.stood_in => {
                    self.stood_in = true;
                }
                Effect::Respond { .. } => self.responded += 1,
                Effect::Call { body, .. } => {
                    self.calls += 1;
                    self.call.clone_from(body);
                }
                Effect::Attempt { body, .. } => {
                    (self.attempts, self.attempted) = (self.attempts + 1, true);
                    ATTEMPTED.fetch_add(1, Ordering::Relaxed);
                    assert!(self.sent.as_ref() != Some(body), "it is another one");
                }
                Effect::Count(Metric::Add(name, _)) if name.contains("trimmed_tokens") => {
                    TRIMMED.fetch_add(1, Ordering::Relaxed);
                }
                Effect::ReplaceRequestBody(body) => {
                    self.changed = true;
                    self.sent = Some(body.clone());
                    let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes);
                    assert!(
                        read(sent).is_err() || read(body).is_ok(),
                        "valid JSON stays valid JSON"
                    );
                }
                Effect::SetRequestHeader(..) | Effect::AddRequestHeader(..) => self.changed = true,
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
                    if let Some(sent) = &settle.sent {
                        assert!(sent.state.len() <= limit::STATE);
                        self.remember = Some((sent.conversation.clone(), sent.state.clone()));
                    }
                    assert_eq!(settle.body_len(), answer.len() as u64);
                    let part = record.cache == CacheResult::Partial;
                    if part && (record.status, record.outcome) == (200, Outcome::Answered) {
                        JOINED.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(!record.cache.answers() || settle.store.is_none());
                }
                _ => {}
            }
        }
        assert!(
            self.resumed + self.responded <= 1,
            "a request goes on once or is answered once"
        );
        assert!(self.attempts <= 1, "it is sent again once");
        // Thirteen waits, each of which may end in an admission, and a recount.
        assert!(
            self.settled <= 1 && self.calls <= 30,
            "{} calls",
            self.calls
        );
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
    request: &'a Request,
    embeds: bool,
    /// Nothing goes wrong beside the answer's own bytes: by chance alone an answer to a part would
    /// hardly come so far.
    calm: bool,
}

impl Life<'_> {
    fn on(&mut self, event: Event<'_>) -> (Flow, usize) {
        let effects = self.exchange.on(event, self.vm, self.world);
        self.told.hear(&effects.list, &self.request.body);
        (effects.flow, effects.list.len())
    }

    /// Anything at any time.
    fn disorderly(&mut self, rng: &mut Rng, headers: &Headers) {
        for _ in 0..rng.usize(..12) {
            let head = AdmitReply {
                over: vec![rng.u16(..)],
                summaries: vec![Written {
                    id: "0123456789abcdef:0-2".to_owned(),
                    text: "</earlier_conversation>".to_owned(),
                }],
                ..AdmitReply::of(verdict(rng))
            };
            let frame = damaged(&Frame { head, body: b"{}" }.encode().unwrap(), rng);
            let end_of_stream = rng.bool();
            let request = self.request;
            self.world.now_ns += rng.u64(..2_000_000_000);
            self.on(match rng.u8(..10) {
                9 => Event::Attempt {
                    headers,
                    body: &request.answer,
                },
                8 => Event::Turn,
                0 => Event::RequestHeaders {
                    headers,
                    end_of_stream,
                },
                1 => Event::RequestBodyPart {
                    buffered: rng.usize(..10_000),
                },
                2 => Event::RequestBody {
                    body: &request.body,
                },
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
                    chunk: &request.answer,
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
    fn request(&mut self, rng: &mut Rng, headers: &Headers) {
        let (flow, _) = self.on(Event::RequestHeaders {
            headers,
            end_of_stream: false,
        });
        if flow == Flow::Continue || self.told.responded > 0 {
            return;
        }
        let body = &self.request.body;
        let mut seen = 0;
        while seen < body.len() && self.told.open() {
            seen = (seen + 1 + rng.usize(..4096)).min(body.len());
            self.on(Event::RequestBodyPart { buffered: seen });
        }
        if self.told.open() {
            self.on(Event::RequestBody { body });
        }
        let mut answered = 0;
        loop {
            if self.exchange.is_queued() {
                self.world.now_ns += rng.u64(..3_000_000_000);
                self.on(Event::Turn);
            } else if answered < self.told.calls && self.told.open() {
                answered = self.told.calls;
                self.sidecar_says(rng);
            } else {
                break;
            }
        }
        assert!(!self.told.open(), "no request is left hanging");
    }

    /// Something, nothing, or nonsense.
    fn sidecar_says(&mut self, rng: &mut Rng) {
        let mut head = AdmitReply::of(match self.calm {
            true => Verdict::go(0),
            false => verdict(rng),
        });
        let told = vectors(&self.told.call, &mut head, rng);
        self.knows(&mut head, rng);
        let body = told.as_ref().unwrap_or(&self.request.cached);
        let frame = Frame { head, body }.encode().unwrap();
        match rng.u8(..8) {
            0 if !self.calm => self.on(Event::ReplyFailed),
            1 if !self.calm => self.on(Event::Reply {
                status: 200,
                body: &damaged(&frame, rng),
            }),
            _ => self.on(Event::Reply {
                status: 200,
                body: &frame,
            }),
        };
    }

    /// What the sidecar knows of the conversation, or nonsense.
    fn knows(&self, head: &mut AdmitReply, rng: &mut Rng) {
        let Ok(asked) = Frame::<AdmitRequest, _>::decode(&self.told.call[..]) else {
            return;
        };
        let state = asked.head.conversation.as_ref();
        let state = state.and_then(|name| self.world.states.get(name)).cloned();
        head.sent = match rng.u8(..4) {
            0 => state.map(|state| {
                let odd = damaged(state.as_bytes(), rng);
                String::from_utf8_lossy(&odd).into_owned()
            }),
            _ => state,
        };
        let texts = asked.head.relevance.map_or(0, |asked| asked.lens.len());
        let some = texts + [0, 0, 0, 1, 100][rng.usize(..5)];
        let told = rng.bool();
        let similarities = (0..some).map(|_| Similarity::of(rng.f32() * 4.0 - 2.0));
        head.similarities = told.then(|| similarities.collect());
    }

    /// What comes of sending it once more.
    fn attempt(&mut self, rng: &mut Rng) {
        let kind = ["application/json", "text/event-stream", "text/plain"][rng.usize(..3)];
        let status = ["200", "200", "400", "503", ""][rng.usize(..5)];
        let head: Headers = [(":status", status), ("content-type", kind)]
            .into_iter()
            .collect();
        let body = damaged(&self.request.answer, rng);
        match rng.u8(..4) {
            0 => drop(self.on(Event::ReplyFailed)),
            // The client leaves.
            1 => {}
            _ => drop(self.on(Event::Attempt {
                headers: &head,
                body: &body,
            })),
        }
    }

    /// An answer from upstream, possibly broken off.
    fn response(&mut self, rng: &mut Rng) {
        let sent = self.told.sent.as_ref().unwrap_or(&self.request.body);
        let fitting = embeddings(sent, rng).filter(|_| self.calm || self.embeds && rng.u8(..4) > 0);
        let answer = fitting.as_ref().unwrap_or(&self.request.answer);
        let kind = match rng.u8(..4) {
            0 if !self.calm => {
                ["text/plain", "text/event-stream", "application/json"][rng.usize(..3)]
            }
            _ if answer.starts_with(b"{") => "application/json",
            _ => "text/event-stream",
        };
        let blames = !self.calm && rng.u8(..6) == 0;
        let (coding, answer) = match rng.u8(..6) {
            _ if blames => ("identity", BLAMES.to_vec()),
            0 if !self.calm => ("gzip", damaged(&gzip(answer), rng)),
            1 if !self.calm => ("br", damaged(&br(answer), rng)),
            _ => ("identity", answer.clone()),
        };
        let status = match self.calm {
            true => "200",
            false if blames => ["400", "422"][rng.usize(..2)],
            false => ["200", "200", "200", "429", "500", "x"][rng.usize(..6)],
        };
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
        while at < answer.len() && (self.calm || rng.u8(..100) != 0) {
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
                self.told.stood_in
                    || self.told.attempted
                    || !(flow == Flow::Pause && end_of_stream),
                "the end of an answer is never held"
            );
        }
    }
}

/// What an upstream says to an embedding request.
fn embeddings(sent: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    let body: serde_json::Value = serde_json::from_slice(sent).ok()?;
    let inputs = match body.get("input")? {
        serde_json::Value::Array(list) if !list.iter().any(|it| it.is_number()) => list.len(),
        _ => 1,
    };
    let element = |index| serde_json::json!({"object": "embedding", "index": index, "embedding": [0.5, -1e-20, index]});
    let data: Vec<_> = (0..inputs).map(element).collect();
    let answer = serde_json::json!({
        "object": "list", "data": data, "model": "text-embedding-ada-002",
        "usage": {"prompt_tokens": inputs, "total_tokens": inputs},
    });
    let answer = answer.to_string().into_bytes();
    Some(match rng.u8(..8) {
        0 => damaged(&answer, rng),
        _ => answer,
    })
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

/// One life, from its headers to its end; whether anything of the request was changed.
pub(crate) fn live(request: &Request, vm: &mut Vm, world: &mut World) -> bool {
    let rng = &mut Rng::with_seed(request.seed);
    world.now_ns += rng.u64(..2_000_000_000);
    let embeds = request.body.starts_with(br#"{"input":"#) && rng.u8(..4) > 0;
    if embeds && rng.u8(..4) == 0 {
        // Whom no part is asked of for up to a day is asked again.
        world.now_ns += rng.u64(..200_000_000_000_000);
    }
    let path = match embeds {
        true => "/v1/embeddings",
        false if request.body.starts_with(CHAT.as_bytes()) => PATHS[0],
        false => PATHS[rng.usize(..PATHS.len())],
    };
    let calm = embeds && rng.bool();
    // What goes wrong elsewhere says nothing of its upstream.
    let host = if calm { "calm" } else { "h" };
    let mut head = vec![(":method", "POST"), (":path", path), (":authority", host)];
    let extra = [
        ("x-key", "k"),
        ("x-sluice-tier", "large"),
        ("x-sluice-cache", "refresh"),
        ("cache-control", "no-cache"),
        ("x-sluice-tags", "a, b,, c"),
        ("x-sluice-lease", "00:7:1"),
        ("x-sluice-attempt", "1:1"),
        ("x-sluice-template", "long"),
        ("content-length", "99999999999999999999"),
    ];
    head.extend(extra.into_iter().filter(|_| !calm && rng.u8(..5) == 0));
    let headers: Headers = head.into_iter().collect();
    let mut life = Life {
        exchange: Exchange::new(),
        vm,
        world,
        told: Told::default(),
        request,
        embeds,
        calm,
    };
    if !calm && rng.u8(..4) == 0 {
        life.disorderly(rng, &headers);
    } else {
        life.request(rng, &headers);
        if life.told.responded == 0 && (calm || rng.u8(..10) != 0) {
            life.response(rng);
            if life.told.attempted {
                life.attempt(rng);
            }
        }
    }
    life.on(Event::Done);
    let states = &mut life.world.states;
    states.extend(life.told.remember.take());
    let (_, late) = life.on(Event::ReplyFailed);
    assert_eq!(late, 0, "nothing happens after the end");
    let counters = &life.world.counters;
    let upstream = counters
        .iter()
        .filter(|(key, _)| key.starts_with("misses|"));
    for (key, (_, left)) in upstream {
        assert_eq!(*left, 0, "{key}: who is gone is not counted");
    }
    life.told.changed
}
