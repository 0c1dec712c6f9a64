//! Many at once: two Envoys and two sidecars on one budget, and a sidecar that is killed under
//! load.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use sluice_tests::load::{Connection, post};
use sluice_tests::process::eventually;
use sluice_tests::provider::Config;
use sluice_tests::requests::{CHAT, chat};
use sluice_tests::stack::{Setup, Stack};
use tokio::task::JoinSet;

/// A chat request told apart by its number, whose answer may have `max_tokens`.
fn numbered(number: u64, max_tokens: u64) -> Vec<u8> {
    let mut body = chat(&format!(
        "Question {number:06}: what are your opening hours?"
    ));
    body["max_tokens"] = json!(max_tokens);
    let headers = [("authorization", "Bearer sk-test"), ("x-tenant", "acme")];
    post(CHAT.path, &headers, &body.to_string())
}

/// What one connection was answered.
#[derive(Debug, Default)]
struct Answers {
    answered: u64,
    refused: u64,
    /// Of the refused, those that said when to come again.
    told: u64,
    /// Anything else.
    other: Vec<String>,
    last: u16,
}

/// Sends `requests` requests over `connections` connections, in turn to each address; `progress`
/// counts the answers.
fn send(
    addresses: &[SocketAddr],
    (requests, connections): (u64, usize),
    max_tokens: u64,
    progress: &Arc<AtomicU64>,
) -> JoinSet<anyhow::Result<Answers>> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for index in 0..connections {
        let address = addresses[index % addresses.len()];
        let (next, progress) = (next.clone(), progress.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut answers = Answers::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return Ok(answers);
                }
                let answer = connection.send(&numbered(number, max_tokens)).await?;
                answers.last = answer.status;
                match answer.status {
                    200 => answers.answered += 1,
                    429 => {
                        answers.refused += 1;
                        let after = answer.header("retry-after");
                        let after = after.and_then(|after| after.parse::<u64>().ok());
                        answers.told += u64::from(after.is_some_and(|after| after >= 1));
                    }
                    status => answers.other.push(format!("{status} for {number}")),
                }
                progress.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_envoys_and_two_sidecars_keep_one_budget_within_the_stated_bound() {
    const REQUESTS: u64 = 10_000;
    const CONNECTIONS: usize = 200;
    // A prompt has 16 to 18 tokens; an answer 60, of which only 20 are reserved: so every request
    // in flight when the budget runs out passes it by 40 and what its prompt was underestimated.
    const ANSWER: u64 = 60;
    const RESERVED: u64 = 20;
    const PROMPT: u64 = 20;
    const LIMIT: u64 = REQUESTS / 2 * (PROMPT + ANSWER);
    let mut setup = Setup::with(json!({
        "budgets": [{"per": "tenant", "tokens": LIMIT, "every": "month", "over": "reject"}],
        "reserve": {"output_tokens": RESERVED, "hold": "2m"},
        // A busy machine must not look like a sidecar that is down.
        "sidecar": {"timeout": "10s"},
    }));
    setup.provider = Config {
        answer_tokens: Some(ANSWER),
        ..Config::default()
    };
    setup.envoys = 2;
    setup.concurrency = 1;
    setup.sidecars = 2;
    setup.redis = true;
    let stack = Stack::start(setup).await.unwrap();
    let addresses: Vec<_> = stack.envoys.iter().map(|envoy| envoy.address()).collect();

    let load = (REQUESTS, CONNECTIONS);
    let mut tasks = send(&addresses, load, ANSWER, &Arc::default());
    let mut all = Answers::default();
    while let Some(answers) = tasks.join_next().await {
        let answers = answers.unwrap().unwrap();
        assert!(
            answers.last == 429,
            "the last answer on every connection is a refusal: {answers:?}"
        );
        all.answered += answers.answered;
        all.refused += answers.refused;
        all.told += answers.told;
        all.other.extend(answers.other);
    }
    assert_eq!(all.other, [""; 0], "no other status than 200 and 429");
    assert_eq!(all.answered + all.refused, REQUESTS);
    assert_eq!(
        all.told, all.refused,
        "every refusal says when to come again"
    );

    let mut usage = 0;
    let booked = eventually(Duration::from_secs(30), async || {
        let mut requests = 0;
        usage = 0;
        for sidecar in &stack.sidecars {
            let report = sidecar.report("model").await;
            let report = report.map_err(|error| format!("{error:#}"))?;
            requests += report.total.requests;
            usage += report.total.tokens.total();
        }
        if requests == REQUESTS {
            Ok(())
        } else {
            Err(format!("{requests} of {REQUESTS} in the ledgers"))
        }
    });
    booked.await.unwrap();
    assert_eq!(stack.differences().await.unwrap(), [""; 0]);
    assert_eq!(stack.provider().stats().total.requests, all.answered);

    // Stated in the sidecar's budgets: Σ (actual − reserved) over the requests that were not
    // settled: one in flight per connection, and as many that were answered just before. An
    // estimate of the prompt is at the least an eighth of its bytes and its seven fixed tokens.
    let prompt_at_least = 7 + "Question 000000: what are your opening hours?".len() as u64 / 8;
    let most_per_request = (PROMPT + ANSWER) - (prompt_at_least + RESERVED);
    let bound = 2 * CONNECTIONS as u64 * most_per_request;
    assert!(
        usage <= LIMIT + bound,
        "{usage} tokens used of {LIMIT}, at most {bound} over are stated"
    );
    // It did run out, and not before its time: what is left is less than a request would reserve.
    assert!(usage + PROMPT + RESERVED > LIMIT, "{usage} of {LIMIT}");
    for envoy in &stack.envoys {
        let metrics = envoy.metrics().await.unwrap();
        for failed in ["failed", "nonsense", "skipped"] {
            assert_eq!(metrics.sum("sluice.sidecar", &[("result", failed)]), 0);
        }
    }
    stack.check_no_trap().await.unwrap();
}

/// Settlements that the sidecar did not take.
async fn failed_settlements(stack: &Stack) -> anyhow::Result<u64> {
    let metrics = stack.envoy().metrics().await?;
    Ok(metrics.sum("sluice.settle", &[("result", "failed")]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_killed_under_load_loses_no_record_and_fails_no_request() {
    const REQUESTS: u64 = 4_000;
    const KILLS: u64 = 3;
    let mut setup = Setup::with(json!({
        "budgets": [{"per": "tenant", "tokens": 2_000_000_000, "every": "month", "over": "reject"}],
        "sidecar": {"on_failure": "open", "timeout": "2s"},
    }));
    setup.provider = Config {
        answer_tokens: Some(30),
        // 16 connections then send some 800 requests a second, of which the filter's queue holds
        // those of several seconds.
        ttft_ms: 20,
        ..Config::default()
    };
    let mut stack = Stack::start(setup).await.unwrap();
    let progress = Arc::default();
    let load = (REQUESTS, 16);
    let mut tasks = send(&[stack.envoy().address()], load, 30, &progress);

    let mut before = BTreeSet::new();
    for kill in 1..=KILLS {
        let due = REQUESTS * kill / (KILLS + 1);
        let reached = eventually(Duration::from_secs(30), async || {
            match progress.load(Ordering::Relaxed) {
                answers if answers >= due => Ok(()),
                answers => Err(format!("{answers} answers")),
            }
        });
        reached.await.unwrap();
        let ids = stack.sidecar().records().unwrap();
        before.extend(ids.into_iter().map(|record| record.id));
        let failed = failed_settlements(&stack).await.unwrap();
        stack.sidecars[0].kill();
        // Only a settlement that meets the dead sidecar shows anything.
        let met = eventually(
            Duration::from_secs(20),
            async || match failed_settlements(&stack).await {
                Ok(now) if now > failed => Ok(()),
                other => Err(format!("{other:?} failed settlements, {failed} before")),
            },
        );
        met.await.unwrap();
        stack.sidecars[0].restart().await.unwrap();
    }
    assert!(!before.is_empty(), "nothing was booked before the kill");

    let mut answered = 0;
    while let Some(answers) = tasks.join_next().await {
        let answers = answers.unwrap().unwrap();
        assert_eq!(answers.other, [""; 0], "no request fails");
        assert_eq!(answers.refused, 0, "no request is refused");
        answered += answers.answered;
    }
    assert_eq!(answered, REQUESTS);

    // The filter's pauses double with every failure; the longest is 15 s.
    let mut dropped = 0;
    let settled = eventually(Duration::from_secs(60), async || {
        let metrics = stack.envoy().metrics().await;
        let metrics = metrics.map_err(|error| format!("{error:#}"))?;
        dropped = metrics.sum("sluice.settle_dropped_records", &[]);
        let report = stack.sidecar().report("model").await;
        let booked = report.map_err(|error| format!("{error:#}"))?.total.requests;
        if booked + dropped == REQUESTS {
            Ok(())
        } else {
            Err(format!(
                "{booked} booked and {dropped} dropped of {REQUESTS}"
            ))
        }
    });
    settled.await.unwrap();
    assert_eq!(dropped, 0, "it was back long before the filter gives up");
    let records = stack.sidecar().records().unwrap();
    let after: BTreeSet<_> = records.iter().map(|record| record.id.clone()).collect();
    assert_eq!(after.len(), records.len(), "every record once");
    assert_eq!(
        before.difference(&after).count(),
        0,
        "what was in the ledger before a kill is there after it"
    );
    assert_eq!(stack.differences().await.unwrap(), [""; 0]);
    stack.check_no_trap().await.unwrap();
}
