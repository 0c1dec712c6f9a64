//! A trimmed request that upstream refuses goes once more as it was: by a call, and where a stream is
//! asked for by the sidecar's relay, so that it streams.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use serde_json::{Value, json};
use sluice_tests::client::{Answer, Client};
use sluice_tests::door::Door;
use sluice_tests::provider::{FAULT_HEADER, Fault, Seen};
use sluice_tests::requests::CHAT;
use sluice_tests::stack::{Setup, Stack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Messages of [`long`]; what is left of them when it is trimmed are fewer.
const MESSAGES: usize = 5;

async fn start(streams: &str) -> Stack {
    start_seen(streams).await.0
}

/// The same, and the way by which the sidecar goes to Envoy.
async fn start_seen(streams: &str) -> (Stack, Door) {
    let door = Door::open().await.unwrap();
    let stack = Stack::start(Setup::with(json!({
        "trim": {
            "mode": "on",
            "history": {"keep": "recent", "tokens": 20, "last": 0},
            "retry": {"cluster": "sluice_self", "streams": streams},
        },
        "serve": {"relay": {"url": door.url()}},
    })))
    .await
    .unwrap();
    door.leads_to(stack.envoy().address()).unwrap();
    (stack, door)
}

/// A client whose requests upstream refuses with fewer than so many messages.
fn refused_below(stack: &Stack, messages: usize, fault: Fault) -> Client {
    let fault = Fault {
        messages_below: Some(messages),
        ..fault
    };
    let fault = serde_json::to_string(&fault).unwrap();
    stack
        .client()
        .with(FAULT_HEADER, &fault)
        .with("x-tenant", "acme")
}

fn long(stream: bool) -> Value {
    let turn = |role: &str, text: &str| json!({"role": role, "content": text.repeat(30)});
    json!({"model": "gpt-4o", "stream": stream, "messages": [
        turn("user", "Where are the parcels? "),
        turn("assistant", "They are at sea. "),
        turn("user", "What is the weather there? "),
        turn("assistant", "It rains all day. "),
        {"role": "user", "content": "Thank you. And the sum of two and two?"},
    ]})
}

fn messages(seen: &Seen) -> usize {
    seen.json()["messages"].as_array().unwrap().len()
}

/// Upstream saw the trimmed request and then the one that the client sent.
fn saw_both(stack: &Stack, sent: &Value) {
    // The newest first.
    let seen = stack.provider().requests(2);
    assert_eq!(seen.len(), 2, "{seen:?}");
    let (whole, trimmed) = (&seen[0], &seen[1]);
    assert!(messages(trimmed) < MESSAGES, "{trimmed:?}");
    assert_eq!(whole.json()["messages"], sent["messages"]);
    for seen in [trimmed, whole] {
        assert_eq!(seen.header("authorization"), Some("Bearer sk-test"));
        let mut names = seen.headers.iter().map(|(name, _)| name);
        let ours = names.find(|name| name.starts_with("x-sluice-"));
        assert_eq!(ours, None, "{:?}", seen.headers);
    }
}

fn is_untrimmed(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-sluice-tokens-trimmed"), Some("0"));
    assert_eq!(answer.header("x-sluice-attempt"), None);
    assert!(!answer.said().is_empty(), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_stream_comes_as_it_is_made_from_the_second_attempt() {
    let stack = start("relay").await;
    let client = refused_below(&stack, MESSAGES, Fault::default());
    let answer = client.post(CHAT.path, &long(true)).await.unwrap();
    is_untrimmed(&answer);
    assert_eq!(answer.events().last().unwrap().data, "[DONE]");
    saw_both(&stack, &long(true));

    // Upstream never ends this one: what there is of it reaches the client.
    let stuck = refused_below(
        &stack,
        MESSAGES,
        Fault {
            hang_after_chunks: Some(2),
            ..Fault::default()
        },
    );
    let mut open = stuck.open(CHAT.path, &long(true)).await.unwrap();
    assert_eq!(open.status(), 200);
    let first = open.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"data: "), "{first:?}");
    drop(open);

    let records = stack.settled(2).await.unwrap();
    assert!(
        records
            .iter()
            .all(|record| record.saved.total() == sluice_wire::Usd::ZERO)
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_refused_is_relayed_trimmed_and_booked_so() {
    let stack = start("relay").await;
    let client = refused_below(&stack, 0, Fault::default());
    let answer = client.post(CHAT.path, &long(true)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let trimmed: u64 = answer
        .header("x-sluice-tokens-trimmed")
        .unwrap()
        .parse()
        .unwrap();
    assert!(trimmed > 0);
    assert_eq!(stack.provider().stats().http_requests, 1);
    let seen = stack.provider().last_request().unwrap();
    assert!(messages(&seen) < MESSAGES, "{seen:?}");
    assert!(stack.settled(1).await.unwrap()[0].saved.total() > sluice_wire::Usd::ZERO);
    assert_eq!(stack.differences().await.unwrap(), [""; 0]);
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(metrics.sum("sluice.trim_relay", &[("result", "first")]), 1);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_relayed_goes_once_more_by_a_call() {
    for (streams, stream) in [("relay", false), ("callout", false), ("callout", true)] {
        let stack = start(streams).await;
        let client = refused_below(&stack, MESSAGES, Fault::default());
        let answer = client.post(CHAT.path, &long(stream)).await.unwrap();
        is_untrimmed(&answer);
        saw_both(&stack, &long(stream));
        stack.check_no_trap().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_sidecar_gone_every_client_gets_its_answer() {
    let mut stack = start("relay").await;
    let client = refused_below(&stack, MESSAGES, Fault::default());
    stack.sidecars[0].kill();
    // More than fail before the sidecar is left alone.
    for _ in 0..8 {
        let answer = client.post(CHAT.path, &long(true)).await.unwrap();
        is_untrimmed(&answer);
    }
    stack.check_no_trap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_relay_leads_nowhere_every_client_gets_its_answer() {
    let stack = Stack::start(Setup::with(json!({
        "trim": {
            "mode": "on",
            "history": {"keep": "recent", "tokens": 20, "last": 0},
            "retry": {"cluster": "sluice_self", "streams": "relay"},
        },
    })))
    .await
    .unwrap();
    let client = refused_below(&stack, MESSAGES, Fault::default());
    for _ in 0..2 {
        let answer = client.post(CHAT.path, &long(true)).await.unwrap();
        is_untrimmed(&answer);
    }
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(metrics.sum("sluice.trim_relay", &[("result", "failed")]), 2);
    assert_eq!(
        metrics.sum("sluice.trim_retry", &[("result", "answered")]),
        2
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_headers_open_no_way_to_the_sidecar_and_past_the_filter() {
    let stack = start("relay").await;
    let stranger = stack
        .client()
        .with("x-sluice-relay", "1")
        .with("x-sluice-attempt", "1:0");
    let answer = stranger.post("/v1/relay", &long(true)).await.unwrap();
    assert_eq!(
        answer.status, 404,
        "upstream's word, which knows no such path"
    );
    assert_eq!(stack.provider().stats().http_requests, 1);
    let answer = stranger.post(CHAT.path, &long(false)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_ne!(answer.header("x-sluice-tokens-trimmed"), Some("0"));
    let seen = stack.provider().last_request().unwrap();
    assert!(messages(&seen) < MESSAGES, "it was trimmed as any other");
    assert_eq!(seen.header("x-sluice-attempt"), None);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_somebody_saw_and_says_again_is_a_strangers() {
    let (stack, door) = start_seen("relay").await;
    let client = refused_below(&stack, MESSAGES, Fault::default());
    let answer = client.post(CHAT.path, &long(true)).await.unwrap();
    is_untrimmed(&answer);
    let attempts = door.came();
    assert_eq!(attempts.len(), 2, "each has a connection of its own");
    for (number, attempt) in attempts.iter().enumerate() {
        let head = String::from_utf8_lossy(attempt);
        assert!(head.contains("x-sluice-attempt: "), "{head}");
        let mut again = TcpStream::connect(stack.envoy().address()).await.unwrap();
        again.write_all(attempt).await.unwrap();
        let mut told = Vec::new();
        while !told.windows(4).any(|it| it == b"\r\n\r\n") {
            assert!(again.read_buf(&mut told).await.unwrap() > 0);
        }
        let told = String::from_utf8_lossy(&told);
        assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
        let seen = stack.provider().requests(9);
        assert_eq!(seen.len(), 3 + number, "once, and not sent again");
        assert!(messages(&seen[0]) < MESSAGES, "it was trimmed as any other");
    }
    // Both were booked.
    stack.settled(3).await.unwrap();
    stack.check_no_trap().await.unwrap();
}
