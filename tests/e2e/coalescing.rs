//! Equal requests in flight cost one upstream call, over workers and sidecars; stale answers and
//! refusals that are remembered.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_tests::client::{Answer, Client};
use sluice_tests::load::{Connection, post};
use sluice_tests::process::eventually;
use sluice_tests::provider::{Config, Fault};
use sluice_tests::requests::{CHAT, EASY, chat};
use sluice_tests::sidecar::Sidecar;
use sluice_tests::stack::{Setup, Stack, caching, merge};
use sluice_wire::CacheResult;
use tokio::task::JoinSet;

fn cached(change: Value) -> Setup {
    let mut setup = Setup::with(json!({"cache": caching()}));
    merge(&mut setup.config, json!({"cache": change}));
    setup
}

/// Two workers, two sidecars, one Redis.
fn shared() -> Setup {
    let mut setup = cached(json!({}));
    setup.sidecars = 2;
    setup.redis = true;
    setup
}

fn streamed(prompt: &str) -> Value {
    let mut body = chat(prompt);
    merge(&mut body, json!({"stream": true}));
    body
}

fn cache(answer: &Answer) -> &str {
    answer.header("x-sluice-cache").unwrap_or("no header")
}

/// The same request on so many connections at once; what each was answered, by `x-sluice-cache`,
/// and the different answers.
async fn crowd(stack: &Stack, size: usize) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let headers = [("authorization", "Bearer sk-test"), ("x-tenant", "acme")];
    let request = post(CHAT.path, &headers, &chat(EASY).to_string());
    let mut tasks = JoinSet::new();
    for _ in 0..size {
        let (address, request) = (stack.envoy().address(), request.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let answer = connection.send(&request).await?;
            let cache = answer.header("x-sluice-cache").unwrap_or("none");
            let body = String::from_utf8_lossy(answer.body).into_owned();
            anyhow::Ok((format!("{} {cache}", answer.status), body))
        });
    }
    let (mut results, mut bodies) = (BTreeMap::new(), BTreeMap::new());
    while let Some(answer) = tasks.join_next().await {
        let (result, body) = answer.unwrap().unwrap();
        *results.entry(result).or_default() += 1;
        *bodies.entry(body).or_default() += 1;
    }
    (results, bodies)
}

/// Waits until so many wait at the sidecars.
async fn waiting(sidecars: &[&Sidecar], count: u64) {
    let all = eventually(Duration::from_secs(30), async || {
        let mut waiting = 0;
        for sidecar in sidecars {
            let text = sidecar.client().get("/metrics").await.unwrap().text();
            let gauge = text
                .lines()
                .find_map(|line| line.strip_prefix("sluice_waiting "));
            waiting += gauge.and_then(|gauge| gauge.parse().ok()).unwrap_or(0);
        }
        match waiting {
            waiting if waiting >= count => Ok(()),
            waiting => Err(format!("{waiting} of {count} wait")),
        }
    });
    all.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_equal_requests_at_once_make_one_upstream_call() {
    let mut setup = shared();
    setup.provider = Config {
        ttft_ms: 4_000,
        ..Config::default()
    };
    let stack = Stack::start(setup).await.unwrap();
    let (results, bodies) = crowd(&stack, 500).await;
    assert_eq!(stack.provider().stats().http_requests, 1, "{results:?}");
    assert_eq!(bodies.len(), 1, "all have one answer: {results:?}");
    assert_eq!(results.get("200 miss"), Some(&1), "{results:?}");
    let coalesced = results.get("200 coalesced").copied().unwrap_or(0);
    let hits = results.get("200 hit").copied().unwrap_or(0);
    assert_eq!(coalesced + hits, 499, "{results:?}");
    assert!(coalesced > 400, "{results:?}");
    assert_eq!(stack.settled(500).await.unwrap().len(), 500);
    assert_eq!(stack.differences().await.unwrap(), [""; 0]);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leading_clients_stream_is_cut_one_follower_takes_over() {
    let mut setup = shared();
    setup.provider = Config {
        answer_tokens: Some(60),
        tokens_per_second: 20,
        ..Config::default()
    };
    let stack = Stack::start(setup).await.unwrap();
    let client = stack.client().with("x-tenant", "acme");
    let client = client.with("host", "llm.example.com");
    let mut leader = client.open(CHAT.path, &streamed(EASY)).await.unwrap();
    assert!(leader.chunk().await.unwrap().is_some(), "it has begun");
    let followers = crowd(&stack, 40);
    let cut = async {
        waiting(&stack.sidecars.iter().collect::<Vec<_>>(), 40).await;
        drop(leader);
    };
    let ((results, bodies), ()) = tokio::join!(followers, cut);
    assert_eq!(results.get("200 miss"), Some(&1), "{results:?}");
    assert_eq!(results.values().sum::<usize>(), 40);
    assert_eq!(bodies.len(), 1, "{results:?}");
    assert_eq!(stack.provider().stats().http_requests, 2);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_asked_for_a_stream_gets_one() {
    let mut setup = shared();
    setup.provider = Config {
        ttft_ms: 1_500,
        ..Config::default()
    };
    let stack = Stack::start(setup).await.unwrap();
    let ask = async |client: Client, number: usize| {
        let body = match number {
            0 => chat(EASY),
            _ => streamed(EASY),
        };
        client.post(CHAT.path, &body).await.unwrap()
    };
    let client = stack.client();
    let leader = ask(client.clone(), 0);
    let follower = async {
        let begun = eventually(Duration::from_secs(10), async || {
            match stack.provider().stats().http_requests {
                1 => Ok(()),
                count => Err(format!("{count} upstream")),
            }
        });
        begun.await.unwrap();
        ask(client.clone(), 1).await
    };
    let (leader, follower) = tokio::join!(leader, follower);
    assert_eq!((cache(&leader), cache(&follower)), ("miss", "coalesced"));
    assert_eq!(follower.header("content-type"), Some("text/event-stream"));
    assert_eq!(follower.said(), leader.said());
    assert_eq!(stack.provider().stats().http_requests, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_sidecar_is_killed_those_who_wait_there_are_admitted_at_the_other() {
    let mut setup = shared();
    setup.provider = Config {
        ttft_ms: 6_000,
        ..Config::default()
    };
    let mut stack = Stack::start(setup).await.unwrap();
    let mut victim = stack.sidecars.swap_remove(0);
    let started = Instant::now();
    let killed = async {
        // All but the leader wait, at either of the two.
        waiting(&[&victim, &stack.sidecars[0]], 99).await;
        victim.kill();
    };
    let ((results, _), ()) = tokio::join!(crowd(&stack, 100), killed);
    assert_eq!(results.values().sum::<usize>(), 100);
    assert!(
        results.keys().all(|result| result.starts_with("200 ")),
        "{results:?}"
    );
    // Also who meets the dead one more than once, until Envoy knows that it is gone.
    let upstream = stack.provider().stats().http_requests;
    assert_eq!(upstream, 1, "nobody goes by itself: {results:?}");
    let metrics = stack.envoy().metrics().await.unwrap();
    let failed = metrics.sum("sluice.wait", &[("result", "failed")]);
    assert!(failed > 10, "{failed} waited at the victim");
    assert!(
        started.elapsed() < Duration::from_secs(50),
        "nobody waits past its deadline"
    );
    stack.check_no_trap().await.unwrap();
}

/// Asks until the answer is said to be `wanted`.
async fn until(client: &Client, wanted: &str) -> Answer {
    let mut last = None;
    let asked = eventually(Duration::from_secs(30), async || {
        let answer = client.post(CHAT.path, &chat(EASY)).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let found = cache(&answer).to_owned();
        last = Some(answer);
        match found == wanted {
            true => Ok(()),
            false => Err(found),
        }
    });
    asked.await.unwrap();
    last.unwrap()
}

#[tokio::test]
async fn a_stale_answer_goes_out_at_once_and_exactly_one_refresh_runs_behind_it() {
    let setup = cached(json!({
        "exact": {"ttl": "2s", "stale": "10m"},
        "refresh": {"cluster": "sluice_self"},
    }));
    let stack = Stack::start(setup).await.unwrap();
    let client = stack.client().with("authorization", "Bearer sk-test-own");
    let first = client.post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(cache(&first), "miss");
    // The refresh takes its time; whoever asks meanwhile has the stale answer at once.
    stack.provider().fault(Fault {
        delay_ms: 3_000,
        ..Fault::default()
    });
    let stale = until(&client, "stale").await;
    assert_eq!(stale.body, first.body);
    for _ in 0..5 {
        let started = Instant::now();
        let again = client.post(CHAT.path, &chat(EASY)).await.unwrap();
        assert_eq!(cache(&again), "stale");
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    until(&client, "hit").await;
    assert_eq!(
        stack.provider().stats().http_requests,
        2,
        "exactly one refresh"
    );
    let refresh = stack.provider().last_request().unwrap();
    assert_eq!(refresh.header("authorization"), Some("Bearer sk-test-own"));
    assert_eq!(refresh.header("x-sluice-lease"), None);
    // A hit may be seen a moment before its record.
    let booked = eventually(Duration::from_secs(10), async || {
        let records = stack.sidecar().records().map_err(|it| it.to_string())?;
        let refreshes = records.iter().filter(|it| it.cache == CacheResult::Refresh);
        match refreshes.count() {
            1 => Ok(()),
            count => Err(format!("{count} refreshes are booked")),
        }
    });
    booked.await.unwrap();
    let settled = eventually(Duration::from_secs(10), async || {
        match stack.differences().await.unwrap() {
            none if none.is_empty() => Ok(()),
            some => Err(format!("{some:?}")),
        }
    });
    settled.await.unwrap();
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(metrics.sum("sluice.refresh", &[("result", "ok")]), 1);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn when_upstream_fails_an_answer_past_its_time_stands_in() {
    let setup = cached(json!({"exact": {"ttl": "1s", "stale_if_error": "1h"}}));
    let mut stack = Stack::start(setup).await.unwrap();
    let client = stack.client();
    let first = client.post(CHAT.path, &chat(EASY)).await.unwrap();
    stack.settled(1).await.unwrap();
    stack.provider().fault(Fault {
        times: Some(0),
        status: Some(500),
        ..Fault::default()
    });
    let stale = until(&client, "stale").await;
    assert_eq!((stale.status, &stale.body), (200, &first.body));
    assert!(stale.header("age").is_some());
    assert_eq!(stale.header("x-sluice-cost"), Some("0"));
    // Also in a stream's form, and also where there is no upstream at all.
    stack.provider = None;
    let streamed = client.post(CHAT.path, &streamed(EASY)).await.unwrap();
    assert_eq!(
        (streamed.status, cache(&streamed)),
        (200, "stale"),
        "{}",
        streamed.text()
    );
    assert_eq!(streamed.said(), first.said());
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_refusal_that_stands_is_told_again_without_upstream() {
    let stack = Stack::start(cached(json!({"negative": {"ttl": "1m"}})))
        .await
        .unwrap();
    let client = stack.client();
    let mut body = chat(EASY);
    body["model"] = json!("gpt-unknown");
    let first = client.post(CHAT.path, &body).await.unwrap();
    assert_eq!((first.status, cache(&first)), (404, "miss"));
    stack.settled(1).await.unwrap();
    let second = client.post(CHAT.path, &body).await.unwrap();
    assert_eq!((second.status, cache(&second)), (404, "negative"));
    assert_eq!(second.body, first.body);
    assert_eq!(stack.provider().stats().http_requests, 1);
    let other = client.with("authorization", "Bearer sk-test-other");
    let third = other.post(CHAT.path, &body).await.unwrap();
    assert_eq!(cache(&third), "miss", "a refusal is one tenant's");
    // A limit is never remembered as an answer.
    stack.provider().fault(Fault {
        status: Some(429),
        ..Fault::default()
    });
    let limited = client.post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(limited.status, 429);
    let answered = client.post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!((answered.status, cache(&answered)), (200, "miss"));
    stack.check_no_trap().await.unwrap();
}
