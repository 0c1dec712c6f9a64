//! What upstream refuses for what was left out goes out once more as it came.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_tests::client::{Answer, Client};
use sluice_tests::conversations::Conversation;
use sluice_tests::process::eventually;
use sluice_tests::provider::{Fault, Provider, Seen};
use sluice_tests::requests::{Api, CHAT};
use sluice_tests::stack::{Setup, Stack, caching, merge, tiers};
use sluice_wire::Outcome;
use tokio::task::JoinSet;

use super::{TALKING, booked, left_out, messages, post, relevant, sent, trimming, turn};

const KEY: &str = "Bearer sk-test-own";
const TURN: usize = 24;

fn retrying(cluster: &str) -> Setup {
    let mut trim = relevant();
    merge(&mut trim, json!({"retry": {"cluster": cluster}}));
    trimming(&trim)
}

/// The provider refuses every request with fewer messages than that.
fn refuse_below(provider: &Provider, messages: usize) {
    provider.fault(Fault {
        times: Some(0),
        messages_below: Some(messages),
        ..Fault::default()
    });
}

fn request(api: Api, stream: bool) -> Value {
    let mut body = turn(api, &Conversation::support(1), TURN);
    let limit = api.limit.unwrap();
    body[limit] = json!(200);
    if stream {
        body["stream"] = json!(true);
    }
    body
}

/// The two requests that a provider was sent, the first first.
fn two(provider: &Provider) -> [Seen; 2] {
    let mut seen = provider.requests(9);
    seen.reverse();
    assert_eq!(provider.stats().http_requests, 2);
    seen.try_into().unwrap()
}

async fn send(stack: &Stack, api: Api, body: &Value) -> Answer {
    let client = stack.client().with("authorization", KEY);
    client.post(api.path, body).await.unwrap()
}

/// A whole stream, as each API ends one.
fn check_stream(api: Api, answer: &Answer) {
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("text/event-stream"), "{kind}");
    let events = answer.events();
    assert!(events.len() > 3, "{}", answer.text());
    let last = events.last().unwrap();
    match api.name {
        "openai.chat" => assert_eq!(last.data, "[DONE]"),
        "openai.responses" => assert_eq!(last.json()["type"], "response.completed"),
        _ => assert_eq!(last.json()["type"], "message_stop"),
    }
    for event in &events[..events.len() - 1] {
        assert!(event.json().is_object(), "{event:?}");
    }
}

async fn goes_out_again(api: Api, stream: bool) {
    let stack = Stack::start(retrying("sluice_self")).await.unwrap();
    let body = request(api, stream);
    let all = messages(&body).len();
    refuse_below(stack.provider(), all);
    let answer = send(&stack, api, &body).await;
    let what = format!("{} {stream}", api.name);
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    assert_eq!(left_out(&answer), 0, "{what}");
    assert_ne!(answer.said(), "", "{what}");
    if stream {
        check_stream(api, &answer);
    }
    let [first, second] = two(stack.provider());
    assert!(messages(&first.json()).len() < all, "{what}");
    assert_eq!(messages(&second.json()), messages(&body), "{what}");
    if !stream {
        assert_eq!(second.body, body.to_string(), "{what}");
    }
    for seen in [&first, &second] {
        assert_eq!(seen.header("authorization"), Some(KEY), "{what}");
        let ours: Vec<_> = seen
            .headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-sluice"))
            .collect();
        assert!(ours.is_empty(), "{what}: {ours:?}");
    }
    assert_eq!(first.path, second.path);
    let records = booked(&stack, 1).await;
    let record = &records[0];
    assert_eq!(
        (record.status, record.outcome),
        (200, Outcome::Answered),
        "{what}"
    );
    assert_eq!((record.saved.trim.0, record.stream), (0, stream), "{what}");
    assert_eq!(record.as_asked, record.cost, "{what}");
    assert!(!record.estimated, "{what}");
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(
        metrics.sum("sluice.trim_retry", &[("result", "answered")]),
        1
    );
    // It is what the request as it came is answered.
    stack.provider().heal();
    let direct = Client::new(stack.provider().url());
    let direct = direct.post(api.path, &body).await.unwrap();
    assert_eq!(answer.said(), direct.said(), "{what}");
}

#[tokio::test]
async fn a_refused_request_goes_out_once_more_as_it_came() {
    for api in TALKING {
        goes_out_again(api, false).await;
    }
}

#[tokio::test]
async fn a_refused_stream_goes_out_once_more_as_it_came() {
    for api in TALKING {
        goes_out_again(api, true).await;
    }
}

/// A request is refused for its messages, in upstream's words.
async fn is_refused(stack: &Stack, stream: bool) {
    let refused = send(stack, CHAT, &request(CHAT, stream)).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let told = refused.json()["error"]["message"].to_string();
    assert!(told.contains("tool_use"), "{told}");
}

#[tokio::test]
async fn what_is_refused_as_it_came_too_is_refused_for_that() {
    let stack = Stack::start(retrying("sluice_self")).await.unwrap();
    refuse_below(stack.provider(), 1000);
    for (at, stream) in [false, true].into_iter().enumerate() {
        is_refused(&stack, stream).await;
        assert_eq!(stack.provider().stats().http_requests, 2 * (at as u64 + 1));
        let records = booked(&stack, at + 1).await;
        assert_eq!((records[at].status, records[at].saved.trim.0), (400, 0));
        assert_eq!(records[at].cost.unwrap().0, 0);
    }
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(
        metrics.sum("sluice.trim_retry", &[("result", "refused")]),
        2
    );
}

#[tokio::test]
async fn without_a_way_to_send_it_again_the_refusal_stands() {
    let stack = Stack::start(retrying("nowhere")).await.unwrap();
    refuse_below(stack.provider(), 1000);
    for (at, stream) in [false, true].into_iter().enumerate() {
        is_refused(&stack, stream).await;
        assert_eq!(stack.provider().stats().http_requests, at as u64 + 1);
        let records = booked(&stack, at + 1).await;
        assert_eq!((records[at].status, records[at].cost.unwrap().0), (400, 0));
    }
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(metrics.sum("sluice.trim_retry", &[("result", "failed")]), 2);
}

#[tokio::test]
async fn other_refusals_and_those_of_untrimmed_requests_stand() {
    let stack = Stack::start(retrying("sluice_self")).await.unwrap();
    for (at, status) in [400, 401, 429, 500].into_iter().enumerate() {
        stack.provider().fault(Fault {
            status: Some(status),
            ..Fault::default()
        });
        let refused = send(&stack, CHAT, &request(CHAT, false)).await;
        assert_eq!(refused.status, status, "{}", refused.text());
        assert_eq!(stack.provider().stats().http_requests, at as u64 + 1);
    }
    refuse_below(stack.provider(), 3);
    let short = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello."}]});
    let refused = send(&stack, CHAT, &short).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(stack.provider().stats().http_requests, 5);
    booked(&stack, 5).await;
}

#[tokio::test]
async fn a_strangers_word_that_it_is_a_second_attempt_does_nothing() {
    let stack = Stack::start(retrying("sluice_self")).await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_us = now.unwrap().as_micros();
    let forged = format!("{now_us}:{}", "0123456789abcdef".repeat(4));
    for (at, word) in ["1", "", &forged].into_iter().enumerate() {
        let client = stack.client().with("x-sluice-attempt", word);
        let answer = post(&client, CHAT, &request(CHAT, false)).await;
        assert!(left_out(&answer) > 1000, "{word}");
        assert_eq!(sent(&stack).header("x-sluice-attempt"), None);
        booked(&stack, at + 1).await;
    }
}

#[tokio::test]
async fn the_second_attempt_takes_the_tiers_way_too_and_its_answer_is_cached() {
    let mut setup = retrying("sluice_self");
    setup.small_provider = true;
    merge(
        &mut setup.config,
        json!({"route": tiers(), "cache": caching()}),
    );
    let stack = Stack::start(setup).await.unwrap();
    let small = stack.small_provider.as_ref().unwrap();
    let body = request(CHAT, false);
    refuse_below(small, messages(&body).len());
    let client = stack.internal().with("x-sluice-tier", "small");
    let answer = post(&client, CHAT, &body).await;
    assert_eq!(answer.header("x-sluice-tier"), Some("small"));
    assert_eq!(left_out(&answer), 0);
    assert_eq!(stack.provider().stats().http_requests, 0);
    let [_, second] = two(small);
    assert_eq!(messages(&second.json()), messages(&body));
    assert_eq!(second.json()["model"], "gpt-4o-mini");
    booked(&stack, 1).await;
    let again = post(&client, CHAT, &body).await;
    assert_eq!(again.header("x-sluice-cache"), Some("hit"));
    assert_eq!(
        (again.body, left_out_of(&answer)),
        (answer.body.clone(), Some("0"))
    );
    booked(&stack, 2).await;
}

fn left_out_of(answer: &Answer) -> Option<&str> {
    answer.header("x-sluice-tokens-trimmed")
}

/// A refusal of the first request, and what happens to the second.
fn refuse_first_then(provider: &Provider, then: Fault) {
    provider.fault(Fault {
        messages_below: Some(1000),
        ..Fault::default()
    });
    provider.fault(then);
}

#[tokio::test]
async fn what_the_second_attempt_is_answered_is_the_answer_also_where_it_is_an_error() {
    let mut setup = retrying("sluice_self");
    let retry = json!({"trim": {"retry": {"timeout": "1s"}}});
    merge(&mut setup.config, retry);
    let stack = Stack::start(setup).await.unwrap();
    let status = |status| Fault {
        status: Some(status),
        ..Fault::default()
    };
    let silent = Fault {
        hang: true,
        ..Fault::default()
    };
    for (at, (fault, told)) in [(status(429), 429), (status(500), 500), (silent, 504)]
        .into_iter()
        .enumerate()
    {
        let stream = at % 2 == 1;
        refuse_first_then(stack.provider(), fault);
        let answer = send(&stack, CHAT, &request(CHAT, stream)).await;
        assert_eq!(answer.status, told, "{}", answer.text());
        let waits = answer.header("retry-after");
        assert_eq!(waits, (told == 429).then_some("2"));
        let record = booked(&stack, at + 1).await.pop().unwrap();
        assert_eq!(
            (record.status, record.outcome),
            (told, Outcome::UpstreamError)
        );
        assert_eq!((record.cost.unwrap().0, record.saved.trim.0), (0, 0));
    }
}

#[tokio::test]
async fn where_the_second_answer_breaks_off_the_refusal_stands() {
    let stack = Stack::start(retrying("sluice_self")).await.unwrap();
    let broken = Fault {
        reset_after_chunks: Some(2),
        ..Fault::default()
    };
    refuse_first_then(stack.provider(), broken);
    let refused = send(&stack, CHAT, &request(CHAT, true)).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let told = refused.json()["error"]["message"].to_string();
    assert!(told.contains("tool_use"), "{told}");
    booked(&stack, 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_goes_out_again_is_booked_once_and_owes_the_prompt() {
    let stack = Stack::start(retrying("sluice_self")).await.unwrap();
    refuse_first_then(
        stack.provider(),
        Fault {
            hang: true,
            ..Fault::default()
        },
    );
    let client = stack.client();
    let sent = client.request("POST", CHAT.path);
    let sent = sent.header("content-type", "application/json");
    let sent = sent.body(request(CHAT, false).to_string()).send();
    let left = async {
        let second = eventually(Duration::from_secs(20), async || {
            match stack.provider().stats().http_requests {
                2 => Ok(()),
                count => Err(format!("{count} requests")),
            }
        });
        second.await.unwrap();
    };
    tokio::select! {
        _ = sent => unreachable!("nobody answers it"),
        () = left => {}
    }
    let record = stack.settled(1).await.unwrap().pop().unwrap();
    assert_eq!(
        (record.status, record.outcome),
        (0, Outcome::Aborted),
        "{record:?}"
    );
    assert!(record.estimated && record.usage.prompt > 5000, "{record:?}");
    assert!(
        record.cost.unwrap().0 > 0 && record.saved.trim.0 == 0,
        "{record:?}"
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_are_refused_at_once_all_go_out_again() {
    let stack = Stack::start(retrying("sluice_self")).await.unwrap();
    refuse_below(stack.provider(), messages(&request(CHAT, false)).len());
    let mut tasks = JoinSet::new();
    for number in 0..60 {
        let client = stack.client();
        tasks.spawn(async move {
            let mut body = request(CHAT, number % 2 == 1);
            body["user"] = json!(format!("user-{number}"));
            let answer = client.post(CHAT.path, &body).await.unwrap();
            (answer.status, left_out(&answer), answer.said())
        });
    }
    let mut said = BTreeSet::new();
    while let Some(answer) = tasks.join_next().await {
        let (status, left_out, text) = answer.unwrap();
        assert_eq!((status, left_out), (200, 0));
        said.insert(text);
    }
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(stack.provider().stats().http_requests, 120);
    booked(&stack, 60).await;
}

#[tokio::test]
async fn a_long_body_goes_out_again_whole() {
    let stack = Stack::start(retrying("sluice_self")).await.unwrap();
    let mut body = request(CHAT, false);
    // The model's window is long enough.
    body["model"] = json!("gpt-4.1-mini");
    let filler = "All work and no play makes Jack a dull boy. ".repeat(700);
    for message in body["messages"].as_array_mut().unwrap().iter_mut().skip(1) {
        if message["role"] == "assistant" && message["content"].is_string() {
            message["content"] = json!(format!(
                "{} {filler}{filler}{filler}{filler}",
                message["content"]
            ));
        }
    }
    assert!(body.to_string().len() > 3_000_000);
    refuse_below(stack.provider(), messages(&body).len());
    let answer = post(&stack.client(), CHAT, &body).await;
    assert_eq!(left_out(&answer), 0);
    let [_, second] = two(stack.provider());
    assert_eq!(second.body, body.to_string());
    booked(&stack, 1).await;
}
