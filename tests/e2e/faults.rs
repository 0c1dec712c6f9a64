//! The fault matrix: what breaks under load costs no request that would have succeeded without
//! Sluice, and no record.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_tests::load::{Connection, post};
use sluice_tests::process::eventually;
use sluice_tests::provider::{Config, Fault};
use sluice_tests::redis::Redis;
use sluice_tests::requests::{CHAT, chat};
use sluice_tests::stack::{Setup, Stack, caching, merge};
use tokio::task::JoinSet;

/// Requests of one step, over so many connections; a third of them are repeats.
const REQUESTS: usize = 240;
const CONNECTIONS: usize = 16;

/// Longest that any request may take. One that waits at a sidecar that stands still has its next
/// answer after three seconds; the rest is for a busy machine.
const LONGEST: Duration = Duration::from_secs(6);

/// Statuses of a step's requests.
type Results = BTreeMap<u16, usize>;

/// Starts the load of a step; what it asks is new in each.
fn load(stack: &Stack, step: &'static str) -> JoinSet<anyhow::Result<(Results, Duration)>> {
    let mut tasks = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let address = stack.envoy().address();
        tasks.spawn(async move {
            let mut socket = Connection::open(address).await?;
            let (mut results, mut longest) = (Results::new(), Duration::ZERO);
            for number in (connection..REQUESTS).step_by(CONNECTIONS) {
                let body = chat(&format!("{step} {}: your opening hours?", number * 2 / 3));
                let headers = [("authorization", "Bearer sk-test"), ("x-tenant", "acme")];
                let started = Instant::now();
                let request = post(CHAT.path, &headers, &body.to_string());
                let status = socket.send(&request).await?.status;
                longest = longest.max(started.elapsed());
                *results.entry(status).or_default() += 1;
            }
            Ok((results, longest))
        });
    }
    tasks
}

async fn ended(step: &str, mut tasks: JoinSet<anyhow::Result<(Results, Duration)>>) -> Results {
    let (mut all, mut longest) = (Results::new(), Duration::ZERO);
    while let Some(done) = tasks.join_next().await {
        let (results, slowest) = done.unwrap().unwrap();
        longest = longest.max(slowest);
        for (status, count) in results {
            *all.entry(status).or_default() += count;
        }
    }
    println!("{step}: {all:?}, the slowest {longest:?}");
    assert!(longest < LONGEST, "{step}: {longest:?}");
    all
}

/// Waits until the provider has had a few of a step's requests, so that a fault comes in the middle.
async fn under_way(stack: &Stack, before: u64) {
    let reached = eventually(Duration::from_secs(30), async || {
        match stack.provider().stats().http_requests - before {
            count if count >= 20 => Ok(()),
            count => Err(format!("{count} upstream")),
        }
    });
    reached.await.unwrap();
}

const ALL_ANSWERED: [(u16, usize); 1] = [(200, REQUESTS)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_costs_no_request_that_would_have_succeeded_and_no_record() {
    let mut setup = Setup::with(json!({
        "cache": caching(),
        "budgets": [{"per": "tenant", "tokens": 2_000_000_000, "every": "month", "over": "reject"}],
        "sidecar": {"timeout": "1s", "wait": "30s", "breaker": {"failures": 5, "pause": "500ms"}},
    }));
    merge(
        &mut setup.config,
        json!({"serve": {"redis": {"timeout": "100ms", "failures": 3, "pause": "200ms"}}}),
    );
    setup.sidecars = 2;
    setup.redis = true;
    // Long enough for a fault to come in the middle of a step.
    setup.provider = Config {
        ttft_ms: 40,
        ..Config::default()
    };
    let mut stack = Stack::start(setup).await.unwrap();
    let mut sent = 0;

    let steps: [(&str, &[&str]); 4] = [
        ("redis slow", &["CLIENT PAUSE 700 ALL"]),
        ("redis flushed", &["FLUSHALL"]),
        (
            "redis full",
            &[
                "CONFIG SET maxmemory-policy noeviction",
                "CONFIG SET maxmemory 1",
            ],
        ),
        ("redis healed", &["CONFIG SET maxmemory 0"]),
    ];
    for (step, commands) in steps {
        let before = stack.provider().stats().http_requests;
        let tasks = load(&stack, step);
        under_way(&stack, before).await;
        let redis = stack.redis.as_ref().unwrap();
        for command in commands {
            redis.command(command).await.unwrap();
        }
        assert_eq!(
            ended(step, tasks).await,
            Results::from(ALL_ANSWERED),
            "{step}"
        );
        sent += REQUESTS;
    }

    let step = "redis stopped";
    let before = stack.provider().stats().http_requests;
    let tasks = load(&stack, step);
    under_way(&stack, before).await;
    let mut redis = stack.redis.take().unwrap();
    let address = redis.address();
    redis.kill();
    assert_eq!(
        ended(step, tasks).await,
        Results::from(ALL_ANSWERED),
        "{step}"
    );
    sent += REQUESTS;
    stack.redis = Some(Redis::start_at(stack.dir(), address).await.unwrap());

    let step = "sidecar paused";
    let before = stack.provider().stats().http_requests;
    let tasks = load(&stack, step);
    under_way(&stack, before).await;
    stack.sidecars[0].pause().unwrap();
    assert_eq!(
        ended(step, tasks).await,
        Results::from(ALL_ANSWERED),
        "{step}"
    );
    stack.sidecars[0].go_on().unwrap();
    sent += REQUESTS;

    let step = "sidecar killed";
    let before = stack.provider().stats().http_requests;
    let tasks = load(&stack, step);
    under_way(&stack, before).await;
    stack.sidecars[1].kill();
    assert_eq!(
        ended(step, tasks).await,
        Results::from(ALL_ANSWERED),
        "{step}"
    );
    stack.sidecars[1].restart().await.unwrap();
    sent += REQUESTS;

    // What upstream breaks stays broken, for as many as it breaks and no more.
    const RESETS: usize = 12;
    let step = "upstream resetting";
    let before = stack.provider().stats().http_requests;
    let tasks = load(&stack, step);
    under_way(&stack, before).await;
    stack.provider().fault(Fault {
        times: Some(u32::try_from(RESETS).unwrap()),
        status: Some(500),
        ..Fault::default()
    });
    let results = ended(step, tasks).await;
    sent += REQUESTS;
    let failed: usize = results
        .iter()
        .filter(|(status, _)| **status != 200)
        .map(|(_, n)| n)
        .sum();
    assert_eq!(failed, RESETS, "{results:?}");

    let mut booked = Vec::new();
    let settled = eventually(Duration::from_secs(120), async || {
        booked.clear();
        for sidecar in &stack.sidecars {
            let records = sidecar.records().map_err(|error| format!("{error:#}"))?;
            booked.extend(records.into_iter().map(|record| record.id));
        }
        booked.sort_unstable();
        booked.dedup();
        match booked.len() {
            count if count == sent => Ok(()),
            count => Err(format!("{count} of {sent} booked")),
        }
    });
    settled.await.unwrap();
    stack.check_no_trap().await.unwrap();
}
