//! Whatever fails, the outcome is the declared one, soon, and the filter lives on.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

mod fake_sidecar;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fake_sidecar::{FakeSidecar, Manner};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sluice_tests::provider::{Config, Fault};
use sluice_tests::requests::{CHAT, EASY, MESSAGES, chat};
use sluice_tests::stack::{Setup, Stack, caching, tiers};
use sluice_wire::Outcome;
use tokio::net::TcpListener;

/// An address where nobody listens.
async fn nowhere() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A stack whose sidecar is whatever listens at `at`.
async fn with_sidecar_at(at: SocketAddr, sidecar: Value) -> Stack {
    let budgets = json!([{"per": "tenant", "tokens": 1_000_000, "every": "day", "over": "reject"}]);
    Stack::start(Setup {
        sidecar_at: Some(at),
        concurrency: 1,
        ..Setup::with(json!({"sidecar": sidecar, "cache": caching(), "budgets": budgets}))
    })
    .await
    .unwrap()
}

/// A busy machine may make anything take this long; a hang takes longer.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn without_its_sidecar_a_request_goes_on_or_is_refused_as_configured() {
    let stack = with_sidecar_at(nowhere().await, json!({"timeout": "200ms"})).await;
    let begin = Instant::now();
    let answer = stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-sluice-cache"), Some("bypass"));
    assert!(begin.elapsed() < SOON);
    stack.check_no_trap().await.unwrap();
    drop(stack);

    let stack = with_sidecar_at(
        nowhere().await,
        json!({"timeout": "200ms", "on_failure": "closed"}),
    )
    .await;
    let answer = stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1")),
        "{}",
        answer.text()
    );
    assert_eq!(answer.json()["error"]["code"], "budgets_unavailable");
    let answer = stack
        .client()
        .post(MESSAGES.path, &MESSAGES.request(EASY))
        .await
        .unwrap();
    assert_eq!(
        (answer.status, &answer.json()["type"]),
        (503, &json!("error"))
    );
    assert_eq!(stack.provider().stats().http_requests, 0);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_sidecar_that_hangs_costs_its_timeout_and_then_is_left_alone_for_a_while() {
    let fake = FakeSidecar::start(Manner::Hang).await;
    let sidecar = json!({"timeout": "100ms", "breaker": {"failures": 3, "pause": "1h"}});
    let stack = with_sidecar_at(fake.address, sidecar).await;
    for number in 0..8 {
        let begin = Instant::now();
        let answer = stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
        assert_eq!(answer.status, 200, "request {number}");
        let took = begin.elapsed();
        assert!(took < SOON, "request {number} took {took:?}");
        assert!(
            number >= 3 || took >= Duration::from_millis(90),
            "request {number} took {took:?}"
        );
    }
    assert_eq!(
        fake.admits(),
        3,
        "after three failures in a row nothing is asked"
    );
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(
        metrics.sum("sluice.sidecar", &[("result", "skipped")]),
        5,
        "{:?}",
        metrics.about("sluice")
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn after_the_pause_one_request_tries_and_a_healthy_sidecar_is_used_again() {
    let fake = FakeSidecar::start(Manner::Status(500)).await;
    let sidecar = json!({"timeout": "2s", "breaker": {"failures": 2, "pause": "300ms"}});
    let stack = with_sidecar_at(fake.address, sidecar).await;
    let ask = async || stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
    for _ in 0..4 {
        assert_eq!(ask().await.status, 200);
    }
    let before = fake.admits();
    fake.behave(Manner::Go);
    sluice_tests::process::eventually(Duration::from_secs(20), async || {
        assert_eq!(ask().await.status, 200);
        let admits = fake.admits();
        // One probe, and then everyone: more than one more.
        if admits >= before + 3 {
            Ok(())
        } else {
            Err(format!("{admits} calls"))
        }
    })
    .await
    .unwrap();
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_sidecar_that_talks_nonsense_is_as_good_as_none() {
    let manners = [
        Manner::Status(404),
        Manner::Status(426),
        Manner::Body(Vec::new()),
        Manner::Body(b"\n".to_vec()),
        Manner::Body(b"{}\n".to_vec()),
        Manner::Body(b"\xff\xfe\x00garbage".to_vec()),
        Manner::Body(b"{\"verdict\":{\"go\":{\"plan\":9}}}\n".to_vec()),
        Manner::Body(b"{\"verdict\":{\"over\":{\"rule\":9,\"limit\":1,\"used\":1,\"reset_secs\":1}}}\n".to_vec()),
        Manner::Body(b"{\"verdict\":{\"hit\":{\"plan\":7,\"age_secs\":1,\"entry\":{\"format\":\"x\",\"model\":\"y\",\"usage\":{}}}}}\n{}".to_vec()),
        Manner::Body(b"{\"verdict\":\"count\"}\n".to_vec()),
        Manner::Body(vec![b'['; 3 << 20]),
        Manner::Close,
    ];
    let fake = FakeSidecar::start(Manner::Go).await;
    let sidecar = json!({"timeout": "2s", "breaker": {"failures": 1000, "pause": "1s"}});
    let stack = with_sidecar_at(fake.address, sidecar).await;
    for manner in manners {
        let shown = format!("{manner:?}").chars().take(100).collect::<String>();
        fake.behave(manner);
        let begin = Instant::now();
        let answer = stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
        assert_eq!(answer.status, 200, "{shown}: {}", answer.text());
        assert!(begin.elapsed() < SOON, "{shown} took {:?}", begin.elapsed());
        stack.check_no_trap().await.unwrap();
    }
}

#[tokio::test]
async fn upstream_errors_reach_the_client_as_they_are_and_cost_nothing() {
    let stack = Stack::start(Setup::with(json!({"route": tiers(), "cache": caching()})))
        .await
        .unwrap();
    let mut sent = 0;
    for status in [400, 401, 404, 413, 429, 500, 503, 529] {
        for body in [chat(EASY), CHAT.streamed(EASY)] {
            stack.provider().fault(Fault {
                status: Some(status),
                ..Fault::default()
            });
            let answer = stack.client().post(CHAT.path, &body).await.unwrap();
            assert_eq!(answer.status, status);
            assert!(
                answer.json()["error"]["message"].is_string(),
                "{}",
                answer.text()
            );
            let retry = matches!(status, 429 | 503 | 529).then_some("2");
            assert_eq!(answer.header("retry-after"), retry);
            sent += 1;
        }
    }
    for record in stack.settled(sent).await.unwrap() {
        assert_eq!(
            (record.outcome, record.cost.map(|usd| usd.0)),
            (Outcome::UpstreamError, Some(0)),
            "{record:?}"
        );
    }
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_an_upstream_error() {
    let stack = Stack::start(Setup {
        upstream: Some(sluice_tests::envoy::Upstream::Plain(nowhere().await)),
        ..Setup::with(json!({"cache": caching()}))
    })
    .await
    .unwrap();
    let answer = stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(answer.status, 503);
    let records = stack.settled(1).await.unwrap();
    assert_eq!(
        (records[0].outcome, records[0].status),
        (Outcome::UpstreamError, 503)
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_aborted_in_the_ledger_and_frees_its_reservation() {
    let budgets = json!([{"per": "tenant", "tokens": 3000, "every": "month", "over": "reject"}]);
    let stack = Stack::start(Setup::with(json!({"budgets": budgets, "cache": caching()})))
        .await
        .unwrap();
    // Ten reservations of 256 and more would not fit; what ten stumps used does.
    for sent in 1..=10 {
        stack.provider().fault(Fault {
            reset_after_chunks: Some(6),
            ..Fault::default()
        });
        let response = stack
            .client()
            .open(CHAT.path, &CHAT.streamed(EASY))
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "request {sent}");
        response.bytes().await.unwrap_err();
        stack.settled(sent).await.unwrap();
    }
    let records = stack.settled(10).await.unwrap();
    let honest = stack.provider().stats().aborted;
    assert_eq!(honest.requests, 10);
    for record in &records {
        assert_eq!(
            (record.outcome, record.estimated),
            (Outcome::Aborted, true),
            "{record:?}"
        );
        assert!(
            record.usage.prompt > 0 && record.usage.completion > 0 && record.usage.completion < 30,
            "{record:?}"
        );
        assert!(record.cost.unwrap().0 > 0);
    }
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_is_aborted_in_the_ledger() {
    let stack = Stack::start(Setup {
        provider: Config {
            tokens_per_second: 20,
            ..Config::default()
        },
        ..Setup::with(json!({"cache": caching()}))
    })
    .await
    .unwrap();
    // In the middle of a stream.
    let response = stack
        .client()
        .open(CHAT.path, &CHAT.streamed(EASY))
        .await
        .unwrap();
    let mut chunks = response.bytes_stream();
    for _ in 0..3 {
        chunks.next().await.unwrap().unwrap();
    }
    drop(chunks);
    // While the answer is awaited.
    let client = stack.client();
    let waiting =
        tokio::spawn(async move { client.post(CHAT.path, &chat("And on Sundays?")).await });
    sluice_tests::process::eventually(Duration::from_secs(20), async || {
        let seen = stack
            .provider()
            .last_request()
            .map(|seen| seen.json()["messages"].to_string());
        match seen {
            Some(seen) if seen.contains("Sundays") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    waiting.abort();
    let records = stack.settled(2).await.unwrap();
    for record in &records {
        assert_eq!(record.outcome, Outcome::Aborted, "{record:?}");
        assert!(record.usage.prompt > 0, "{record:?}");
    }
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_while_the_sidecar_is_asked_owes_nothing() {
    let fake = FakeSidecar::start(Manner::Hang).await;
    let stack = with_sidecar_at(fake.address, json!({"timeout": "60s"})).await;
    let client = stack.client();
    let waiting = tokio::spawn(async move { client.post(CHAT.path, &chat(EASY)).await });
    sluice_tests::process::eventually(Duration::from_secs(20), async || {
        if fake.admits() == 1 {
            Ok(())
        } else {
            Err("the sidecar was not asked".to_owned())
        }
    })
    .await
    .unwrap();
    waiting.abort();
    fake.behave(Manner::Go);
    assert_eq!(
        stack
            .client()
            .post(CHAT.path, &chat(EASY))
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(stack.provider().stats().http_requests, 1);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_killed_sidecar_loses_no_settled_record_and_comes_back_into_use() {
    let sidecar = json!({"timeout": "1s", "breaker": {"failures": 2, "pause": "200ms"}});
    let mut stack = Stack::start(Setup::with(json!({"sidecar": sidecar, "cache": caching()})))
        .await
        .unwrap();
    for number in 0..20 {
        stack
            .client()
            .post(CHAT.path, &chat(&format!("{EASY} {number}")))
            .await
            .unwrap();
    }
    let before = stack.settled(20).await.unwrap();
    stack.sidecars[0].kill();
    for number in 20..25 {
        let answer = stack
            .client()
            .post(CHAT.path, &chat(&format!("{EASY} {number}")))
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let ids = |records: &[sluice_wire::Record]| -> BTreeSet<String> {
        records.iter().map(|record| record.id.clone()).collect()
    };
    let kept = stack.sidecars[0].records().unwrap();
    assert_eq!(ids(&kept), ids(&before), "the file holds what was settled");
    stack.sidecars[0].restart().await.unwrap();
    // What could not be settled meanwhile is retried: booked once, or counted as dropped.
    sluice_tests::process::eventually(Duration::from_secs(30), async || {
        let booked = stack.sidecars[0]
            .records()
            .map_err(|error| error.to_string())?
            .len() as u64;
        let metrics = stack
            .envoy()
            .metrics()
            .await
            .map_err(|error| error.to_string())?;
        let dropped = metrics.sum("sluice.settle_dropped_records", &[]);
        if booked + dropped == 25 {
            Ok(())
        } else {
            Err(format!(
                "{booked} booked, {dropped} dropped: {:?}",
                metrics.about("settle")
            ))
        }
    })
    .await
    .unwrap();
    let booked = stack.sidecars[0].records().unwrap();
    assert_eq!(ids(&booked).len(), booked.len(), "none is booked twice");
    stack.check_no_trap().await.unwrap();
}
