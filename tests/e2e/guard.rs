//! The guard in real Envoy: requests upstream at once, upstreams that fail, and what a cache that is
//! gone costs with it and without.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_tests::load::{Connection, post};
use sluice_tests::provider::{Config, Fault};
use sluice_tests::requests::{CHAT, chat};
use sluice_tests::stack::{Setup, Stack, caching};
use tokio::task::JoinSet;

/// `requests` requests over `connections` connections, of which `distinct` differ; answers by
/// status and, where it was refused, our code.
async fn load(
    stack: &Stack,
    (requests, connections): (usize, usize),
    distinct: usize,
) -> BTreeMap<String, usize> {
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        let address = stack.envoy().address();
        tasks.spawn(async move {
            let mut socket = Connection::open(address).await?;
            let mut results: Vec<String> = Vec::new();
            for number in (connection..requests).step_by(connections) {
                let body = chat(&format!(
                    "Question {}: your opening hours?",
                    number % distinct
                ));
                let headers = [("authorization", "Bearer sk-test"), ("x-tenant", "acme")];
                let request = post(CHAT.path, &headers, &body.to_string());
                let answer = socket.send(&request).await?;
                let said: Value = serde_json::from_slice(answer.body).unwrap_or_default();
                let code = said["error"]["code"].as_str().unwrap_or("");
                if answer.status != 200 && !code.is_empty() {
                    anyhow::ensure!(answer.header("retry-after").is_some(), "{}", answer.head);
                }
                results.push(format!("{} {code}", answer.status).trim_end().to_owned());
            }
            anyhow::Ok(results)
        });
    }
    let mut all = BTreeMap::new();
    while let Some(results) = tasks.join_next().await {
        for result in results.unwrap().unwrap() {
            *all.entry(result).or_default() += 1;
        }
    }
    all
}

fn slow() -> Config {
    Config {
        ttft_ms: 200,
        ..Config::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_limit_requests_wait_and_all_are_answered() {
    let mut setup = Setup::with(json!({
        "guard": {"misses": {"limit": 3, "queue": 100, "wait": "30s"}},
    }));
    setup.provider = slow();
    let stack = Stack::start(setup).await.unwrap();
    let results = load(&stack, (40, 40), 40).await;
    assert_eq!(results, BTreeMap::from([("200".to_owned(), 40)]));
    let stats = stack.provider().stats();
    assert_eq!(stats.total.requests, 40);
    assert_eq!(stats.most_at_once, 3, "over both workers");
    let metrics = stack.envoy().metrics().await.unwrap();
    assert!(metrics.sum("sluice.guard_misses", &[("action", "queue")]) >= 30);
    stack.settled(40).await.unwrap();
    assert_eq!(stack.differences().await.unwrap(), [""; 0]);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_does_not_hammer_an_upstream_that_fails() {
    let setup = Setup::with(json!({
        "guard": {"backoff": {"failures": 5, "pause": "1m", "longest": "1m"}},
    }));
    let stack = Stack::start(setup).await.unwrap();
    stack.provider().fault(Fault {
        times: Some(0),
        status: Some(500),
        ..Fault::default()
    });
    let results = load(&stack, (300, 10), 300).await;
    let upstream = stack.provider().stats().http_requests;
    // Five per worker, and what was under way by then.
    assert!(upstream <= 2 * 5 + 10, "{upstream} upstream: {results:?}");
    let refused = results.get("503 upstream_backoff").copied().unwrap_or(0);
    assert_eq!(refused as u64 + upstream, 300, "{results:?}");
    stack.check_no_trap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_gone_costs_a_bounded_amount_with_the_guard_and_the_whole_without() {
    const REQUESTS: usize = 600;
    let mut spent = BTreeMap::new();
    for guarded in [false, true] {
        let mut config = json!({"cache": caching()});
        if guarded {
            config["guard"] = json!({"misses": {"limit": 4, "queue": 4, "wait": "1s"}});
        }
        let mut setup = Setup::with(config);
        setup.provider = slow();
        let mut stack = Stack::start(setup).await.unwrap();
        // Warm: every question is known.
        load(&stack, (40, 8), 40).await;
        stack.settled(40).await.unwrap();
        let warm = load(&stack, (REQUESTS, 60), 40).await;
        assert_eq!(warm, BTreeMap::from([("200".to_owned(), REQUESTS)]));
        assert_eq!(
            stack.provider().stats().total.requests,
            40,
            "all of it from cache"
        );

        stack.provider().clear();
        stack.sidecars[0].kill();
        let results = load(&stack, (REQUESTS, 60), 40).await;
        let stats = stack.provider().stats();
        println!(
            "cache gone, guard {guarded}: {} of {REQUESTS} upstream, {} at once, ${}; {results:?}",
            stats.total.requests,
            stats.most_at_once,
            stats.total.dollars.as_deref().unwrap_or("?"),
        );
        assert_eq!(results.values().sum::<usize>(), REQUESTS);
        match guarded {
            false => assert_eq!(results.get("200"), Some(&REQUESTS)),
            true => {
                assert!(stats.most_at_once <= 4);
                let refused = results.get("503 too_many_requests_upstream").copied();
                assert_eq!(
                    results.get("200").copied().unwrap_or(0) + refused.unwrap_or(0),
                    REQUESTS,
                    "{results:?}"
                );
            }
        }
        spent.insert(guarded, stats.total.picodollars.unwrap());
        stack.check_no_trap().await.unwrap();
    }
    assert!(spent[&true] * 3 < spent[&false], "{spent:?}");
}
