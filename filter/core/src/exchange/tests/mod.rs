//! One request through the machine, event by event; what the tests of its subjects share.

mod budgets;
mod cache;
mod coalescing;
mod compressed;
mod embeddings;
mod guard;
mod limits;
mod relay;
mod retrieval;
mod routing;
mod sealed;
mod semantic;
mod settling;
mod sidecar;
mod summaries;
mod trim;
mod trimming;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use sluice_wire::{
    AdmitReply, AdmitRequest, CacheResult, EntryHead, Frame, Outcome, Record, Settle, Usage, Usd,
    Verdict,
};

use super::*;
use crate::config::Plan;
use crate::tokens::Tokens;

const SECOND: u64 = 1_000_000_000;

/// The world, as far as an exchange sees it.
#[derive(Default)]
struct World {
    now_ns: u64,
    counters: HashMap<String, (u64, u64)>,
    words: HashSet<String>,
}

impl Host for World {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }

    fn count(&mut self, key: &str, window_start: u64, amount: i64, limit: u64) -> (u64, bool) {
        let (start, used) = self.counters.entry(key.to_owned()).or_default();
        if window_start > *start {
            (*start, *used) = (window_start, 0);
        }
        let before = *used;
        let after = before.saturating_add_signed(amount);
        if after > limit {
            return (before, false);
        }
        *used = after;
        (before, true)
    }

    fn first(&mut self, word: &str) -> bool {
        self.words.insert(word.to_owned())
    }
}

/// One request through the machine.
struct Run {
    vm: Vm,
    world: World,
    exchange: Exchange,
}

const MODELS: &str = r#""models":{
    "gpt-4o":{"input":2.5,"cached_input":1.25,"output":10},
    "gpt-4o-mini":{"input":0.15,"output":0.6}}"#;
const TIERS: &str = r#""tiers":[{"name":"small","below":0.99,"model":"gpt-4o-mini","max_tokens":64},{"name":"large","model":"gpt-4o"}]"#;
const SIDECAR: &str = r#""sidecar":{"cluster":"c"}"#;
const CACHED: &str =
    r#""cache":{},"budgets":[{"per":"tenant","tokens":1000,"every":"day","over":"reject"}]"#;

fn run(config: &str) -> Run {
    let plan = Plan::parse(format!("{{{MODELS},{config}}}").as_bytes(), &|_| None).unwrap();
    Run {
        vm: Vm::new(Rc::new(plan), Tokens::load(&[])),
        world: World {
            now_ns: 1_700_000_000 * SECOND,
            ..World::default()
        },
        exchange: Exchange::new(),
    }
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| (*name, *value)).collect()
}

const CHAT: [(&str, &str); 4] = [
    (":method", "POST"),
    (":path", "/v1/chat/completions"),
    (":authority", "api.example.com"),
    ("authorization", "Bearer sk-1"),
];

/// As [`run`], with a model whose tokens can be counted.
fn counting(config: &str) -> Run {
    let models = r#""models":{"gpt-4o":{"encoding":"o200k_base","input":2.5,"output":10}}"#;
    let plan = Plan::parse(format!("{{{models},{config}}}").as_bytes(), &|_| None).unwrap();
    let tokens = Tokens::load(&plan.encodings());
    Run {
        vm: Vm::new(Rc::new(plan), tokens),
        world: World::default(),
        exchange: Exchange::new(),
    }
}

/// Headers as a host keeps them.
fn as_kept(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

const BODY: &str = r#"{ "model": "gpt-4o", "zz": [1, 2],  "messages": [{"role":"user","content":"What is your refund policy?"}] }"#;

const ANSWER: &str = r#"{"id":"c1","object":"chat.completion","created":1,"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Thirty days."},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":10,"total_tokens":110}}"#;

impl Run {
    fn on(&mut self, event: Event<'_>) -> Effects {
        self.exchange.on(event, &mut self.vm, &mut self.world)
    }

    fn next(&mut self) -> &mut Self {
        self.exchange = Exchange::new();
        self
    }

    fn ask(&mut self, extra: &[(&str, &str)], body: &str) -> Effects {
        let mut all = CHAT.to_vec();
        all.extend(extra);
        self.ask_as(&all, body)
    }

    fn ask_as(&mut self, all: &[(&str, &str)], body: &str) -> Effects {
        let mut effects = self.on(Event::RequestHeaders {
            headers: &headers(all),
            end_of_stream: false,
        });
        if effects.flow == Flow::Pause {
            let more = self.on(Event::RequestBody {
                body: body.as_bytes(),
            });
            effects.list.extend(more.list);
        }
        effects
    }

    fn say(&mut self, verdict: Verdict, body: &[u8]) -> Effects {
        let frame = Frame {
            head: AdmitReply::of(verdict),
            body,
        }
        .encode()
        .unwrap();
        self.on(Event::Reply {
            status: 200,
            body: &frame,
        })
    }

    fn answer(&mut self, status: &str, body: &str) -> Effects {
        let head = headers(&[
            (":status", status),
            ("content-type", "application/json"),
            ("x-sluice-cost", "forged"),
        ]);
        let mut effects = self.on(Event::ResponseHeaders {
            headers: &head,
            end_of_stream: false,
        });
        effects.list.extend(
            self.on(Event::ResponseBody {
                chunk: body.as_bytes(),
                end_of_stream: true,
            })
            .list,
        );
        effects
    }

    fn done(&mut self) -> (Option<(Settle, Vec<u8>)>, Effects) {
        let effects = self.on(Event::Done);
        let settle = effects.list.iter().find_map(|effect| match effect {
            Effect::Settle(settle, answer) => Some(((**settle).clone(), answer.clone())),
            _ => None,
        });
        (settle, effects)
    }
}

impl Effects {
    fn call(&self) -> Option<AdmitRequest> {
        self.list.iter().find_map(|effect| match effect {
            Effect::Call { body, .. } => Some(Frame::decode(body).unwrap().head),
            _ => None,
        })
    }

    fn sent(&self) -> bool {
        self.list.contains(&Effect::ResumeRequest)
    }

    fn new_body(&self) -> Option<String> {
        self.list.iter().find_map(|effect| match effect {
            Effect::ReplaceRequestBody(body) => Some(String::from_utf8(body.clone()).unwrap()),
            _ => None,
        })
    }

    fn response(&self) -> Option<(u16, HashMap<String, String>, String)> {
        self.list.iter().find_map(|effect| match effect {
            Effect::Respond {
                status,
                headers,
                body,
            } => Some((
                *status,
                headers
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.clone().into_owned()))
                    .collect(),
                String::from_utf8(body.clone()).unwrap(),
            )),
            _ => None,
        })
    }

    fn set(&self, name: &str) -> Option<&str> {
        self.list.iter().find_map(|effect| match effect {
            Effect::AddResponseHeader(key, value)
            | Effect::AddRequestHeader(key, value)
            | Effect::SetRequestHeader(key, value)
                if *key == name =>
            {
                Some(value.as_ref())
            }
            _ => None,
        })
    }

    fn counted(&self, part: &str) -> u64 {
        let amounts = self.list.iter().filter_map(|effect| match effect {
            Effect::Count(Metric::Add(name, amount)) if name.contains(part) => Some(*amount),
            _ => None,
        });
        amounts.sum()
    }
}
