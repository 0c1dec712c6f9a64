//! What 200 support conversations of thirty turns cost through real Envoy, at a provider that
//! discounts the front of a prompt that it has seen: as they are, with a naive sliding window of the
//! client's own, and with the filter's planner.
//!
//! Half hours pass in milliseconds. The stand-in goes by the client's clock (a request header), so
//! that its charges are the same in every run. The filter goes by Envoy's, so pauses are waited out
//! at a thousandth of their length, and the config tells it of a provider that forgets a thousand
//! times as fast. It may then take a pause for a little longer than the stand-in does, as it would
//! with a provider of its own clock; that the stand-in forgets after ten minutes, and the filter's
//! certainty begins after an hour, is room enough.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use sluice_tests::conversations::{Conversation, Marks, TURNS};
use sluice_tests::envoy::Envoy;
use sluice_tests::load::{self, Connection};
use sluice_tests::provider::{self, CLOCK_HEADER, Catalog, Provider};
use sluice_tests::sidecar::{self, Sidecar};
use sluice_tests::stack::{config, merge};
use sluice_wire::{Usage, Usd};

use crate::Args;
use crate::rig::start;
use crate::row::Row;

/// Conversations of a case, and how many go on at once.
const CONVERSATIONS: u64 = 200;
const QUICK: u64 = 20;
const AT_ONCE: usize = 50;

/// Tokens of the past that the window holds and the planner's selections aim at.
const BUDGET: usize = 2000;

/// The stand-in forgets a front so long after its last use: within what OpenAI says, and longer than
/// Anthropic promises.
const KEPT_MS: u64 = 8 * 60_000;

/// A model and what its client does about the provider's cache.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    model: &'static str,
    marks: Marks,
    /// The filter may set marks.
    ours: bool,
}

const CASES: &[Case] = &[
    Case {
        name: "gpt-4o, half off",
        model: "gpt-4o",
        marks: Marks::None,
        ours: false,
    },
    Case {
        name: "gpt-4.1, three quarters off",
        model: "gpt-4.1",
        marks: Marks::None,
        ours: false,
    },
    Case {
        name: "claude, marked by the client",
        model: "claude-sonnet-4-5",
        marks: Marks::FrontAndLast,
        ours: false,
    },
    Case {
        name: "claude, marked by nobody",
        model: "claude-sonnet-4-5",
        marks: Marks::None,
        ours: false,
    },
    Case {
        name: "claude, marked by the filter",
        model: "claude-sonnet-4-5",
        marks: Marks::None,
        ours: true,
    },
];

/// What happens to a conversation on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Nothing,
    Window,
    Planner,
}

impl Case {
    fn anthropic(&self) -> bool {
        self.model.starts_with("claude")
    }

    /// The filter's config; one token of answer, because answers cost the same in every arm.
    fn config(&self, arm: Arm) -> Value {
        let mut config = config();
        let prefix = json!({"lifetime": "300ms", "longest": "3600ms"});
        let marked = json!({"lifetime": "300ms", "longest": "600ms"});
        let models = json!({
            "gpt-4o": {"prefix": prefix},
            "gpt-4.1": {"encoding": "o200k_base", "input": 2.0, "cached_input": 0.5, "output": 8.0,
                        "prefix": prefix},
            "claude-sonnet-4-5": {"prefix": marked},
        });
        merge(&mut config, json!({"models": models}));
        if arm == Arm::Planner {
            let marks = if self.ours { "on" } else { "off" };
            let history = json!({"keep": "relevant", "tokens": BUDGET});
            merge(
                &mut config,
                json!({"trim": {"mode": "on", "history": history, "marks": marks}}),
            );
        }
        config
    }

    /// The request of a turn.
    fn request(&self, conversation: &Conversation, (turn, from): (usize, usize)) -> Value {
        if !self.anthropic() {
            return json!({
                "model": self.model,
                "max_tokens": 1,
                "messages": conversation.openai(turn, from),
            });
        }
        let (system, messages) = conversation.anthropic(turn, (from, self.marks));
        json!({"model": self.model, "max_tokens": 1, "system": system, "messages": messages})
    }

    fn usage(&self, answer: &Value) -> Usage {
        let usage = &answer["usage"];
        let count = |path: &str| usage.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        if !self.anthropic() {
            return Usage {
                prompt: count("/prompt_tokens"),
                cached: count("/prompt_tokens_details/cached_tokens"),
                completion: count("/completion_tokens"),
                ..Usage::default()
            };
        }
        let (cached, cache_write) = (
            count("/cache_read_input_tokens"),
            count("/cache_creation_input_tokens"),
        );
        Usage {
            prompt: count("/input_tokens") + cached + cache_write,
            cached,
            cache_write,
            completion: count("/output_tokens"),
            ..Usage::default()
        }
    }
}

/// What a conversation has cost after each turn.
type Paid = Vec<Usd>;

/// A running case: Envoy in front of the provider.
struct Rig {
    envoy: Envoy,
    _sidecar: Sidecar,
    _provider: Provider,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn start(case: &Case, arm: Arm) -> anyhow::Result<Rig> {
        let dir = tempfile::Builder::new().prefix("sluice-bench-").tempdir()?;
        let provider = Provider::start(provider::Config {
            prefix_ms: KEPT_MS,
            ..provider::Config::default()
        });
        let provider = provider.await?;
        let config = case.config(arm);
        let sidecar = sidecar(&config, dir.path()).await?;
        let at = (provider.address(), sidecar.address());
        let envoy = start("replay", (Some(config), None), at, dir.path()).await?;
        Ok(Rig {
            envoy,
            _sidecar: sidecar,
            _provider: provider,
            _dir: dir,
        })
    }
}

async fn sidecar(config: &Value, dir: &Path) -> anyhow::Result<Sidecar> {
    let options = sidecar::Options {
        name: "sidecar".to_owned(),
        config: config.clone(),
        environment: Default::default(),
        listen: "127.0.0.1:0".to_owned(),
    };
    Sidecar::start(options, dir).await
}

/// All figures.
pub(crate) async fn measure(args: &Args) -> anyhow::Result<Vec<Row>> {
    let conversations = if args.rounds > 1 {
        CONVERSATIONS
    } else {
        QUICK
    };
    let mut rows = Vec::new();
    for case in CASES.iter().filter(|case| case.name.contains(&args.case)) {
        rows.extend(compare(case, conversations).await?);
    }
    Ok(rows)
}

async fn compare(case: &Case, conversations: u64) -> anyhow::Result<Vec<Row>> {
    let nothing = replay(case, (Arm::Nothing, conversations)).await?;
    let window = replay(case, (Arm::Window, conversations)).await?;
    let planner = replay(case, (Arm::Planner, conversations)).await?;
    let dollars = |paid: &[Paid]| -> f64 {
        paid.iter()
            .filter_map(|paid| paid.last())
            .copied()
            .sum::<Usd>()
            .dollars()
    };
    let row =
        |what: &str, value: f64, unit| Row::lower(format!("{} · {what}", case.name), value, unit);
    Ok(vec![
        row("nothing", dollars(&nothing), "dollars"),
        row("sliding window", dollars(&window), "dollars"),
        row("planner", dollars(&planner), "dollars").target(dollars(&nothing)),
        row(
            "window dearer than nothing",
            dearer(&window, &nothing),
            "conversations",
        ),
        row(
            "planner dearer than nothing",
            dearer(&planner, &nothing),
            "conversations",
        )
        .target(0.0),
    ])
}

/// Conversations that cost more at the end of any turn.
fn dearer(paid: &[Paid], nothing: &[Paid]) -> f64 {
    let both = paid.iter().zip(nothing);
    let more = both.filter(|(paid, nothing)| {
        let mut turns = paid.iter().zip(nothing.iter());
        turns.any(|(paid, nothing)| paid > nothing)
    });
    more.count() as f64
}

async fn replay(case: &Case, (arm, conversations): (Arm, u64)) -> anyhow::Result<Vec<Paid>> {
    eprintln!("{}: {arm:?}, {conversations} conversations", case.name);
    let rig = Rig::start(case, arm).await?;
    let seeds: Vec<u64> = (0..conversations).collect();
    let mut paid = Vec::new();
    for some in seeds.chunks(AT_ONCE) {
        let at = rig.envoy.address();
        paid.extend(try_join_all(some.iter().map(|seed| converse((case, arm), *seed, at))).await?);
    }
    rig.envoy.check_no_trap().await?;
    Ok(paid)
}

/// One conversation, by a client with a key of its own.
async fn converse((case, arm): (&Case, Arm), seed: u64, at: SocketAddr) -> anyhow::Result<Paid> {
    let conversation = Conversation::support(seed);
    let catalog = Catalog::default();
    let mut connection = Connection::open(at).await?;
    let (path, key) = match case.anthropic() {
        true => ("/v1/messages", ("x-api-key", format!("sk-{seed}"))),
        false => (
            "/v1/chat/completions",
            ("authorization", format!("Bearer sk-{seed}")),
        ),
    };
    let id = format!("conversation-{seed}");
    let mut clock_ms = 0;
    let mut sum = Usd::ZERO;
    let mut paid = Vec::with_capacity(TURNS);
    for (turn, said) in conversation.turns.iter().enumerate() {
        clock_ms += said.pause_ms;
        tokio::time::sleep(Duration::from_micros(said.pause_ms)).await;
        let from = match arm {
            Arm::Window => conversation.window(turn, BUDGET),
            Arm::Nothing | Arm::Planner => 0,
        };
        let body = case.request(&conversation, (turn, from)).to_string();
        let clock = clock_ms.to_string();
        let headers = [
            (key.0, key.1.as_str()),
            ("anthropic-version", "2023-06-01"),
            ("x-conversation-id", &id),
            (CLOCK_HEADER, &clock),
        ];
        let answer = connection.send(&load::post(path, &headers, &body)).await?;
        if answer.status != 200 {
            bail!("conversation {seed}, turn {turn}: {}", answer.head);
        }
        let usage = case.usage(&serde_json::from_slice(answer.body)?);
        let cost = catalog.cost(case.model, &usage);
        sum += cost.context("a model without a price")?;
        paid.push(sum);
    }
    Ok(paid)
}
