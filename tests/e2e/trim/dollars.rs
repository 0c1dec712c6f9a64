//! A conversation that is trimmed is never dearer than one that is not, and its front stays in the
//! provider's cache.

use std::process::Command;

use serde_json::{Value, json};
use sluice_tests::conversations::{Conversation, Marks};
use sluice_tests::requests::{Api, CHAT, MESSAGES};
use sluice_tests::sidecar::OPERATOR;
use sluice_tests::stack::{Setup, Stack};
use sluice_tests::tools;
use sluice_wire::{Trimmed, Usd};

use super::{booked, post, relevant, trimming, turn};

const TURNS: usize = 14;

/// Whose API the client speaks, and what it does about the provider's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    OpenAi,
    Anthropic(Marks),
}

impl Speaks {
    fn request(self, conversation: &Conversation, at: usize) -> (Api, Value) {
        let Speaks::Anthropic(marks) = self else {
            return (CHAT, turn(CHAT, conversation, at));
        };
        let (system, messages) = conversation.anthropic(at, (0, marks));
        let mut body = turn(MESSAGES, conversation, at);
        (body["system"], body["messages"]) = (system, json!(messages));
        (MESSAGES, body)
    }
}

/// What a conversation has cost after each turn, in picodollars, and the tokens that were read from
/// the provider's cache, both by the provider's own books.
async fn paid(stack: &Stack, seed: u64, speaks: Speaks) -> Paid {
    let conversation = Conversation::support(seed);
    let mut paid = Vec::new();
    for at in 0..TURNS {
        let (api, body) = speaks.request(&conversation, at);
        let envoy = &stack.envoys[at % stack.envoys.len()];
        let client = envoy
            .client()
            .with("x-conversation-id", &format!("talk-{seed}"));
        post(&client, api, &body).await;
        // The next turn is planned by what this one left behind.
        booked(stack, at + 1).await;
        let total = stack.provider().stats().total;
        paid.push((total.picodollars.unwrap(), total.cached));
    }
    paid
}

/// A conversation as it is and trimmed, turn by turn; it is never the dearer for that.
async fn both(trim: &Value, seed: u64, speaks: Speaks) -> (Paid, Paid, Stack) {
    let nothing = Stack::start(Setup::default()).await.unwrap();
    let nothing = paid(&nothing, seed, speaks).await;
    let stack = Stack::start(trimming(trim)).await.unwrap();
    let trimmed = paid(&stack, seed, speaks).await;
    for (turn, (trimmed, nothing)) in trimmed.iter().zip(&nothing).enumerate() {
        let told = format!("turn {turn} of {seed}: {trimmed:?} {nothing:?}");
        assert!(trimmed.0 <= nothing.0, "{told}");
    }
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(metrics.sum("sluice.trim_unmet", &[("result", "price")]), 0);
    (trimmed, nothing, stack)
}

/// In each turn from that one on something is read from the provider's cache: at least the system
/// prompt.
fn reads_from(turn: usize, paid: &Paid) {
    for (at, pair) in paid.windows(2).enumerate().skip(turn - 1) {
        assert!(pair[1].1 - pair[0].1 > 1000, "turn {}: {pair:?}", at + 1);
    }
}

/// Each turn's sums so far.
type Paid = Vec<(i64, u64)>;

/// Of what it would have cost, in thousandths.
fn share((trimmed, nothing): (&Paid, &Paid)) -> i64 {
    trimmed[TURNS - 1].0 * 1000 / nothing[TURNS - 1].0
}

#[tokio::test]
async fn over_many_turns_trimming_is_never_dearer_and_uses_the_prefix_that_openai_caches() {
    for seed in [0, 3] {
        let (trimmed, nothing, stack) = both(&relevant(), seed, Speaks::OpenAi).await;
        reads_from(1, &trimmed);
        let share = share((&trimmed, &nothing));
        assert!(share < 900, "{share}");
        let metrics = stack.envoy().metrics().await.unwrap();
        let extended = metrics.sum("sluice.trim", &[("action", "extended")]);
        assert!(extended > 0, "a selection goes on over several turns");
    }
}

/// What `sluice report` prints of all that the stack's sidecar has booked.
fn reported(stack: &Stack, json: bool) -> String {
    let mut command = Command::new(tools::sidecar().unwrap());
    command.args(["report", "--url", &stack.sidecar().url()]);
    command.env("SLUICE_TOKEN", OPERATOR);
    let output = command.args(json.then_some("--json")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_report_tells_what_was_trimmed_what_it_was_worth_and_what_discounts_it_lost() {
    let (trimmed, nothing, stack) = both(&relevant(), 3, Speaks::OpenAi).await;
    let records = booked(&stack, TURNS).await;
    let parts: Vec<Trimmed> = records.iter().filter_map(|record| record.trim).collect();
    let tokens: u64 = parts.iter().map(|part| part.tokens).sum();
    let gross: Usd = parts.iter().map(|part| part.gross).sum();
    let lost: Usd = parts.iter().map(|part| part.lost).sum();
    let net: Usd = records.iter().map(|record| record.saved.trim).sum();
    // gpt-4o's price.
    assert_eq!(gross, Usd(2_500_000).times(tokens));
    assert!(lost > Usd::ZERO, "{parts:?}");
    // By the provider's own books: what the same turns cost where nothing is trimmed.
    let paid_less = nothing[TURNS - 1].0 - trimmed[TURNS - 1].0;
    // The provider's cache goes in steps of 128 tokens, and counts may be one of them apart.
    let step = Usd(1_250_000).times(128);
    let apart = Usd(paid_less) - net;
    assert!(
        apart >= Usd::ZERO && apart <= step.times(parts.len() as u64),
        "{apart} of {net}"
    );

    let report: Value = serde_json::from_str(&reported(&stack, true)).unwrap();
    let total = &report["total"]["trim"];
    let told = (total["requests"].as_u64(), total["tokens"].as_u64());
    assert_eq!(told, (Some(parts.len() as u64), Some(tokens)));
    for (name, amount) in [("gross", gross), ("lost", lost), ("net", net)] {
        assert_eq!(total[name]["exact"], amount.to_string(), "{name}: {total}");
    }
    let line = format!(
        "trimmed: {tokens} prompt tokens of {} requests, $",
        parts.len()
    );
    let text = reported(&stack, false);
    assert!(text.contains(&line), "{text}");

    let metrics = stack.envoy().metrics().await.unwrap();
    let nano = |kind: &str| metrics.sum("sluice.trim_nanodollars", &[("kind", kind)]);
    assert_eq!(metrics.sum("sluice.trimmed_tokens", &[]), tokens);
    let counted = i128::from(nano("gross") + nano("spared")) - i128::from(nano("lost"));
    // Each turn's parts are rounded to the nanodollar.
    assert!((counted * 1000 - i128::from(net.0)).abs() <= 3 * 500 * TURNS as i128);
}

#[tokio::test]
async fn over_many_turns_trimming_is_never_dearer_than_what_a_client_of_anthropics_marks() {
    let marks = Speaks::Anthropic(Marks::FrontAndLast);
    let (trimmed, ..) = both(&relevant(), 3, marks).await;
    reads_from(1, &trimmed);
}

#[tokio::test]
async fn where_the_client_marks_nothing_the_filter_marks_what_it_sends() {
    let mut trim = relevant();
    trim["marks"] = json!("on");
    let (trimmed, nothing, _) = both(&trim, 3, Speaks::Anthropic(Marks::None)).await;
    assert_eq!(nothing[TURNS - 1].1, 0);
    // A mark is dearer at first, so it is paid from what was left out before.
    reads_from(6, &trimmed);
    let share = share((&trimmed, &nothing));
    assert!(share < 500, "{share}");
}

#[tokio::test]
async fn two_envoys_and_two_sidecars_on_one_redis_plan_a_conversation_as_one_of_each_does() {
    let one = Stack::start(trimming(&relevant())).await.unwrap();
    let one = paid(&one, 3, Speaks::OpenAi).await;
    let mut setup = trimming(&relevant());
    setup.redis = true;
    setup.sidecars = 2;
    setup.envoys = 2;
    let stack = Stack::start(setup).await.unwrap();
    assert_eq!(paid(&stack, 3, Speaks::OpenAi).await, one);
    for envoy in &stack.envoys {
        let metrics = envoy.metrics().await.unwrap();
        let left_out = metrics.sum("sluice.trimmed_tokens", &[]);
        assert!(left_out > 0, "each takes its turns");
    }
}
