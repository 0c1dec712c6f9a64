//! What fails or does not: one VM under one config, and the requests that it gets.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use sluice_core::config::Plan;
use sluice_core::exchange::Vm;
use sluice_core::tokens::Tokens;

use crate::damage::{Corpus, damaged};
use crate::kept::latin1;
use crate::life::{World, live};

/// Everything that it takes to run it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Round {
    #[serde(with = "latin1")]
    config: Vec<u8>,
    /// The config may change nothing.
    dry: bool,
    pub(crate) requests: Vec<Request>,
}

/// What one request's life is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Of the events, their order, the sidecar's verdicts.
    pub(crate) seed: u64,
    #[serde(with = "latin1")]
    pub(crate) body: Vec<u8>,
    /// What the sidecar has in its cache.
    #[serde(with = "latin1")]
    pub(crate) cached: Vec<u8>,
    /// What upstream says.
    #[serde(with = "latin1")]
    pub(crate) answer: Vec<u8>,
}

impl Request {
    fn random(rng: &mut Rng, corpus: &Corpus) -> Request {
        let one_of = |list: &[Vec<u8>], rng: &mut Rng| list[rng.usize(..list.len())].clone();
        if rng.u8(..4) == 0 {
            // By chance alone a question would hardly meet an answer to it.
            let body = match rng.bool() {
                true => one_of(&corpus.embeddings.0, rng),
                false => {
                    let inputs: Vec<_> = (0..rng.u8(1..6)).map(|_| rng.u8(..9)).collect();
                    let inputs: Vec<_> = inputs.iter().map(u8::to_string).collect();
                    format!(r#"{{"input":{inputs:?},"model":"text-embedding-3-small"}}"#).into()
                }
            };
            return Request {
                seed: rng.u64(..),
                body: damaged(&body, rng),
                cached: one_of(&corpus.answers, rng),
                answer: damaged(&one_of(&corpus.embeddings.1, rng), rng),
            };
        }
        if rng.u8(..4) == 0 {
            let body = conversation(rng);
            return Request {
                seed: rng.u64(..),
                body: match rng.bool() {
                    true => damaged(body.as_bytes(), rng),
                    false => body.into(),
                },
                cached: one_of(&corpus.answers, rng),
                answer: one_of(&corpus.answers, rng),
            };
        }
        Request {
            seed: rng.u64(..),
            body: damaged(&one_of(&corpus.bodies, rng), rng),
            cached: one_of(&corpus.answers, rng),
            answer: damaged(&one_of(&corpus.answers, rng), rng),
        }
    }
}

/// How a turn of a conversation begins.
pub(crate) const CHAT: &str = r#"{"model":"gpt-4o","max_tokens":9,"#;

/// A turn of one of two conversations: what some requests of a round have in common.
fn conversation(rng: &mut Rng) -> String {
    let about = ["router", "invoice"][rng.usize(..2)];
    let mut messages = String::new();
    for at in 0..rng.usize(..40) {
        let said = format!("Number {at} of my {about}, and more of it. ").repeat(1 + at % 5);
        messages.push_str(&format!(
            r#"{{"role":"user","content":"{said}"}},{{"role":"assistant","content":"It is {at}."}},"#
        ));
    }
    let more = [
        "",
        r#""sluice_context":["one","two"],"#,
        r#""stream":true,"#,
    ][rng.usize(..3)];
    let pin = ["", r#","sluice_pin":true"#][rng.usize(..2)];
    format!(
        r#"{CHAT}{more}"messages":[{messages}{{"role":"user","content":"And the {about}?"{pin}}}]}}"#
    )
}

impl Round {
    pub(crate) fn random(seed: u64, configs: &[(String, bool)], corpus: &Corpus) -> Round {
        let mut rng = Rng::with_seed(seed);
        let (config, dry) = &configs[rng.usize(..configs.len())];
        // Short ones meet a VM that is new, long ones what piles up in it.
        let length = [1, 10, 100][rng.usize(..3)];
        let requests = (0..length).map(|_| Request::random(&mut rng, corpus));
        Round {
            config: config.clone().into_bytes(),
            dry: *dry,
            requests: requests.collect(),
        }
    }

    /// A config alone.
    pub(crate) fn of_config(config: Vec<u8>) -> Round {
        Round {
            config,
            dry: false,
            requests: Vec::new(),
        }
    }

    /// Panics where something fails.
    pub(crate) fn run(&self) {
        let plan = match Plan::parse(&self.config, &|_| None) {
            Ok(plan) => plan,
            Err(faults) => {
                assert!(self.requests.is_empty(), "{faults}");
                assert!(!faults.0.is_empty());
                assert!(faults.0.iter().all(|fault| !fault.path.is_empty()));
                return;
            }
        };
        if self.requests.is_empty() {
            return;
        }
        let tokens = Tokens::load(&plan.encodings());
        let mut vm = Vm::new(Rc::new(plan), tokens);
        let mut world = World::default();
        for request in &self.requests {
            let changed = live(request, &mut vm, &mut world);
            // What only we know is gone in every mode, or upstream would refuse it.
            let ours = memchr::memmem::find(&request.body, b"sluice_").is_some();
            let dry = self.dry && !ours;
            assert!(!(dry && changed), "what is dry changes nothing");
        }
    }

    /// The panic, where something fails.
    pub(crate) fn outcome(&self) -> std::thread::Result<()> {
        catch_unwind(AssertUnwindSafe(|| self.run()))
    }

    /// Less of it that fails, too: without every request that it does not take.
    pub(crate) fn shrunk(&self) -> Round {
        // Each of these panics is the one that was told already.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let mut small = self.clone();
        for at in (0..small.requests.len()).rev() {
            let mut smaller = small.clone();
            smaller.requests.remove(at);
            if smaller.outcome().is_err() {
                small = smaller;
            }
        }
        std::panic::set_hook(hook);
        small
    }
}
