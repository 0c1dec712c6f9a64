//! Trimming beside the other levers, and what is in a request's own words.

use serde_json::{Value, json};
use sluice_tests::conversations::Conversation;
use sluice_tests::requests::CHAT;
use sluice_tests::stack::{Setup, Stack, caching, merge};

use super::{booked, chatter, left_out, messages, post, relevant, sent, trimming, turn};

#[tokio::test]
async fn a_trimmed_requests_answer_is_cached_for_the_request_as_it_came() {
    let config = json!({"trim": relevant(), "cache": caching()});
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let mut body = turn(CHAT, &Conversation::support(1), 24);
    // What a limit has cut is not kept.
    body["max_tokens"] = json!(200);
    let first = post(&stack.client(), CHAT, &body).await;
    assert!(left_out(&first) > 1000);
    let records = booked(&stack, 1).await;
    let again = post(&stack.client(), CHAT, &body).await;
    assert_eq!(again.header("x-sluice-cache"), Some("hit"));
    assert_eq!((left_out(&again), &again.body), (0, &first.body));
    let hit = &booked(&stack, 2).await[1];
    assert_eq!(hit.cost.unwrap().0, 0);
    assert_eq!(
        (hit.saved.cache, hit.saved.trim.0),
        (hit.as_asked.unwrap(), 0)
    );
    assert_eq!(hit.as_asked, records[0].cost, "what the kept answer took");
    // A past that differs is another request, also where it would be left out.
    let mut other = body.clone();
    other["messages"][1]["content"] = json!("Something else altogether.");
    let other = post(&stack.client(), CHAT, &other).await;
    assert_eq!(other.header("x-sluice-cache"), Some("miss"));
    booked(&stack, 3).await;
}

fn pinned() -> Value {
    let mut body = chatter(30);
    body["messages"][3]["sluice_pin"] = json!(true);
    body
}

#[tokio::test]
async fn a_pinned_message_stays_and_the_pin_goes_in_a_dry_run_too() {
    for (mode, cut) in [("on", true), ("dry", false)] {
        let trim = json!({"mode": mode, "history": {"keep": "recent", "tokens": 400}});
        let stack = Stack::start(trimming(&trim)).await.unwrap();
        let body = pinned();
        let answer = post(&stack.client(), CHAT, &body).await;
        assert_eq!(left_out(&answer) > 500, cut, "{}", left_out(&answer));
        let seen = sent(&stack).json();
        assert!(!seen.to_string().contains("sluice_pin"), "{seen}");
        assert_eq!(messages(&seen).len() < messages(&body).len(), cut);
        assert!(seen.to_string().contains("Parcel 1 went"), "{seen}");
        assert_eq!(seen.to_string().contains("Parcel 2 went"), !cut, "{seen}");
        booked(&stack, 1).await;
    }
}

#[tokio::test]
async fn chunks_are_chosen_in_a_conversation_whose_past_stays_whole() {
    let context = json!({"markers": [{"tag": "document"}], "top_k": 1});
    let rain = "It rains in Leeds for days. ".repeat(40);
    let hours = "The shop opens at ten on Sundays. ".repeat(40);
    let mut body = chatter(4);
    let question = body["messages"][9]["content"].as_str().unwrap();
    let text = format!("<document>{rain}</document>\n<document>{hours}</document>\n{question}");
    body["messages"][9]["content"] = json!(text);
    for history in [json!(null), json!({"tokens": 100_000})] {
        let mut trim = json!({"mode": "on", "context": context});
        merge(&mut trim, json!({"history": history}));
        let stack = Stack::start(trimming(&trim)).await.unwrap();
        let answer = post(&stack.client(), CHAT, &body).await;
        assert!(left_out(&answer) > 200, "{}", left_out(&answer));
        let seen = sent(&stack).json();
        let last = seen["messages"][9]["content"].as_str().unwrap();
        assert!(last.contains(&hours) && !last.contains("Leeds"), "{last}");
        assert_eq!(messages(&seen)[..9], messages(&body)[..9]);
        let records = booked(&stack, 1).await;
        assert!(records[0].saved.trim.0 > 0, "{:?}", records[0]);
    }
}

#[tokio::test]
async fn a_system_prompt_over_its_cap_is_cut_between_sentences_and_told_of() {
    let trim = json!({"mode": "on", "system": {"tokens": 300, "minify": true}});
    let stack = Stack::start(trimming(&trim)).await.unwrap();
    let conversation = Conversation::support(1);
    let body = turn(CHAT, &conversation, 3);
    let answer = post(&stack.client(), CHAT, &body).await;
    assert!(left_out(&answer) > 500, "{}", left_out(&answer));
    let seen = sent(&stack).json();
    let system = seen["messages"][0]["content"].as_str().unwrap();
    assert!(system.len() < conversation.system.len() / 2);
    assert!(
        system.starts_with("You are the support assistant"),
        "{system}"
    );
    assert_eq!(messages(&seen)[1..], messages(&body)[1..]);
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(metrics.sum("sluice.system_prompt_cut", &[]), 1);
    let records = booked(&stack, 1).await;
    assert!(records[0].saved.trim.0 > 0);
}

#[tokio::test]
async fn a_conversation_of_megabytes_is_trimmed_too() {
    let stack = Stack::start(trimming(&relevant())).await.unwrap();
    let body = chatter(8000);
    assert!(body.to_string().len() > 2_000_000);
    let answer = post(&stack.client(), CHAT, &body).await;
    assert!(left_out(&answer) > 500_000, "{}", left_out(&answer));
    assert!(messages(&sent(&stack).json()).len() < 100);
    booked(&stack, 1).await;
}
