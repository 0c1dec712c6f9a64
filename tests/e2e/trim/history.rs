//! What stays of a conversation's past.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluice_tests::conversations::Conversation;
use sluice_tests::requests::{Api, CHAT, MESSAGES};
use sluice_tests::stack::{Setup, Stack, merge};
use sluice_tests::tools;

use super::{TALKING, booked, chat, left_out, messages, post, relevant, sent, trimming, turn};

/// A request as a client with habits of its own would write it, and its messages so.
fn written(body: &Value) -> (String, Vec<String>) {
    let habits = |text: String| text.replace("\":", "\" : ").replace(" the ", " th\\u0065 ");
    let raw: Vec<String> = messages(body)
        .iter()
        .map(|message| habits(message.to_string()))
        .collect();
    let field = match body["input"].is_array() {
        true => "input",
        false => "messages",
    };
    let mut rest = body.clone();
    rest[field] = json!("HERE");
    let list = format!("[\n{}\n]", raw.join(",\n"));
    (habits(rest.to_string()).replace("\"HERE\"", &list), raw)
}

/// Ids of tool calls, and of results.
fn tools_of(messages: &[Value]) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut calls, mut results) = (BTreeSet::new(), BTreeSet::new());
    for message in messages {
        let parts = message["content"].as_array().into_iter().flatten();
        let openai = message["tool_calls"].as_array().into_iter().flatten();
        calls.extend(openai.filter_map(|call| call["id"].as_str()));
        results.extend(message["tool_call_id"].as_str());
        for part in parts.chain([message]) {
            match part["type"].as_str() {
                Some("tool_use") => calls.extend(part["id"].as_str()),
                Some("tool_result") => results.extend(part["tool_use_id"].as_str()),
                Some("function_call") => calls.extend(part["call_id"].as_str()),
                Some("function_call_output") => results.extend(part["call_id"].as_str()),
                _ => {}
            }
        }
    }
    (calls, results)
}

/// The last user messages of a conversation: those of turns that always stay.
fn last_asked(conversation: &Conversation, turn: usize) -> Vec<&str> {
    let turns = conversation.turns.iter().take(turn + 1).rev().take(3);
    turns.map(|turn| turn.user.as_str()).collect()
}

async fn shorter(stack: &Stack, api: Api, seed: u64, stream: bool) {
    const TURN: usize = 24;
    let conversation = Conversation::support(seed);
    let mut body = turn(api, &conversation, TURN);
    if stream {
        body["stream"] = json!(true);
    }
    let (text, raw) = written(&body);
    let what = format!("{} {seed} {stream}", api.name);
    let answer = stack.client().post_bytes(api.path, text).await.unwrap();
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    assert!(left_out(&answer) > 1000, "{what}: {}", left_out(&answer));
    let sent = sent(stack);
    let (seen, seen_json) = (String::from_utf8(sent.body.to_vec()).unwrap(), sent.json());
    let kept: Vec<usize> = (0..raw.len())
        .filter(|&at| seen.contains(&raw[at]))
        .collect();
    let of_client: Vec<Value> = kept
        .iter()
        .map(|&at| serde_json::from_str(&raw[at]).unwrap())
        .collect();
    assert_eq!(
        messages(&seen_json),
        of_client,
        "{what}: each as it came, in order"
    );
    assert!(kept.len() < raw.len() / 2, "{what}: {kept:?}");
    let in_full = seen_json.to_string();
    for line in conversation.system.lines() {
        assert!(in_full.contains(line), "{what}: {line}");
    }
    for asked in last_asked(&conversation, TURN) {
        assert!(in_full.contains(asked), "{what}: {asked}");
    }
    let (calls, results) = tools_of(messages(&seen_json));
    assert_eq!(calls, results, "{what}");
}

#[tokio::test]
async fn a_long_conversation_goes_out_without_what_has_nothing_to_do_with_its_turn() {
    let stack = Stack::start(trimming(&relevant())).await.unwrap();
    let mut count = 0;
    for api in TALKING {
        for (seed, stream) in [(1, false), (2, true)] {
            shorter(&stack, api, seed, stream).await;
            count += 1;
        }
    }
    for record in booked(&stack, count).await {
        assert!(record.saved.trim.0 > 0, "{record:?}");
        assert_eq!(record.would_save.trim.0, 0, "{record:?}");
        let saved = record.as_asked.unwrap() - record.cost.unwrap();
        assert_eq!(record.saved.trim, saved, "{record:?}");
    }
    let metrics = stack.envoy().metrics().await.unwrap();
    let anew = metrics.sum("sluice.trim", &[("action", "anew")]);
    assert_eq!(anew, count as u64);
}

#[tokio::test]
async fn what_was_looked_up_goes_out_with_its_call_or_not_at_all() {
    let stack = Stack::start(trimming(&relevant())).await.unwrap();
    let mut kept = 0;
    for seed in 0..10 {
        let conversation = Conversation::support(seed);
        for api in TALKING {
            let body = turn(api, &conversation, 25);
            let (all, _) = tools_of(messages(&body));
            post(&stack.client(), api, &body).await;
            let seen = sent(&stack).json();
            let (calls, results) = tools_of(messages(&seen));
            assert_eq!(calls, results, "{} {seed}", api.name);
            assert!(calls.len() < all.len(), "{} {seed}", api.name);
            kept += calls.len();
        }
    }
    assert!(kept > 0, "some calls stay");
    booked(&stack, 30).await;
}

#[tokio::test]
async fn without_a_sidecar_a_conversation_is_trimmed_as_well() {
    let stack = Stack::start(trimming(&relevant()).without_sidecar())
        .await
        .unwrap();
    let conversation = Conversation::support(1);
    let answer = post(&stack.client(), CHAT, &turn(CHAT, &conversation, 24)).await;
    assert!(left_out(&answer) > 1000, "{}", left_out(&answer));
    stack.check_no_trap().await.unwrap();
}

/// A thing said early on that nothing but its meaning finds again.
const EARLY: (&str, &str) = (
    "Our puppy Rex chewed through the leash again.",
    "Young dogs bite on things while their teeth come in; a rope toy helps.",
);
const LATE: &str = "Which kibble suits small canines best?";

/// The embedding model has time: a busy machine must not look like an unknown text.
fn meaning(embeddings: Value) -> Setup {
    let mut setup = trimming(&json!({
        "mode": "on",
        "history": {"keep": "relevant", "tokens": 260, "last": 1, "embeddings": embeddings},
    }));
    merge(
        &mut setup.config,
        json!({"serve": {"semantic": {"model": tools::model().unwrap()}}}),
    );
    setup
}

#[tokio::test]
async fn what_only_its_meaning_finds_stays_with_embeddings_and_not_without() {
    let others: Vec<(String, String)> = (0..20).map(super::exchange).collect();
    let others = others
        .iter()
        .map(|(user, answer)| (user.as_str(), answer.as_str()));
    let said: Vec<(&str, &str)> = [EARLY].into_iter().chain(others).collect();
    let body = chat(&said, LATE);
    for (embeddings, stays) in [(json!("off"), false), (json!({"timeout": "10s"}), true)] {
        let stack = Stack::start(meaning(embeddings)).await.unwrap();
        let answer = post(&stack.client(), CHAT, &body).await;
        assert!(left_out(&answer) > 500, "{}", left_out(&answer));
        let seen = sent(&stack).json().to_string();
        assert_eq!(seen.contains(EARLY.0), stays, "{seen}");
        assert_eq!(seen.contains(EARLY.1), stays, "{seen}");
        booked(&stack, 1).await;
    }
}

#[tokio::test]
async fn in_place_of_what_is_left_out_a_digest_of_it_stands_where_that_is_wanted() {
    let trim = json!({"mode": "on", "history": {
        "keep": "summary", "tokens": 900, "summary": {"tokens": 200},
    }});
    let stack = Stack::start(trimming(&trim)).await.unwrap();
    let conversation = Conversation::support(3);
    for (at, api) in [CHAT, MESSAGES].into_iter().enumerate() {
        let body = turn(api, &conversation, 24);
        let answer = post(&stack.client(), api, &body).await;
        assert!(left_out(&answer) > 1000, "{}", left_out(&answer));
        let seen = sent(&stack).json();
        let new = messages(&seen)
            .iter()
            .filter(|message| !messages(&body).contains(message));
        let new: Vec<&Value> = new.collect();
        // One message, or what stands before the first.
        let apart = seen["system"] != body["system"];
        assert!(new.len() + usize::from(apart) == 1, "{} {new:?}", api.name);
        booked(&stack, at + 1).await;
    }
}
