//! Retrieved chunks: the best go on, and what is no field of upstream's never reaches it.

use serde_json::{Value, json};
use sluice_tests::requests::{CHAT, MESSAGES, chat};
use sluice_tests::stack::{Setup, Stack};

use super::{TALKING, booked, left_out, post, sent, trimming};

const QUESTION: &str = "How long does a refund to my card take?";

/// What was retrieved; the third and the fifth answer the question.
const RETRIEVED: [&str; 6] = [
    "Parcels leave the depot at six in the morning and are tracked from there to the door.",
    "The router's firmware is renewed at night; hold the button until the light turns green.",
    "A refund to a credit card takes five working days after we have the parcel back.",
    "Seats can be added to a subscription at any time and are charged from the next month on.",
    "How long a refund takes hangs on the bank: a card is credited within a week, no longer.",
    "A password has twelve letters at least, and none that was used before is taken again.",
];

fn context(mode: &str) -> Value {
    json!({"mode": mode, "context": {"markers": [{"tag": "document"}], "top_k": 2}})
}

fn marked() -> String {
    let documents: String = RETRIEVED
        .iter()
        .map(|text| format!("<document>\n{text}\n</document>\n"))
        .collect();
    format!("Answer from these documents.\n\n{documents}\nQuestion: {QUESTION}")
}

fn stand(seen: &str) -> Vec<usize> {
    (0..RETRIEVED.len())
        .filter(|&at| seen.contains(RETRIEVED[at]))
        .collect()
}

#[tokio::test]
async fn of_marked_chunks_the_best_go_on() {
    let stack = Stack::start(trimming(&context("on"))).await.unwrap();
    for (at, api) in TALKING.into_iter().enumerate() {
        let answer = post(&stack.client(), api, &api.request(&marked())).await;
        assert!(left_out(&answer) > 40, "{}", left_out(&answer));
        let seen = sent(&stack).json().to_string();
        assert_eq!(stand(&seen), [2, 4], "{seen}");
        assert_eq!(seen.matches("<document>").count(), 2, "{seen}");
        assert!(seen.contains("Answer from these documents.") && seen.contains(QUESTION));
        let records = booked(&stack, at + 1).await;
        assert!(records[at].saved.trim.0 > 0, "{:?}", records[at]);
    }
}

/// With chunks in a field of its own.
fn with_field(mut body: Value, field: Value) -> Value {
    body["sluice_context"] = field;
    body
}

#[tokio::test]
async fn chunks_of_the_field_stand_in_the_prompt_and_the_field_is_gone() {
    let stack = Stack::start(trimming(&context("on"))).await.unwrap();
    for (at, api) in TALKING.into_iter().enumerate() {
        let chunks: Vec<Value> = RETRIEVED.iter().map(|text| json!({"text": text})).collect();
        let body = with_field(api.request(QUESTION), json!(chunks));
        let answer = post(&stack.client(), api, &body).await;
        assert!(left_out(&answer) > 40, "{}", left_out(&answer));
        let seen = sent(&stack);
        assert_eq!(seen.json().get("sluice_context"), None);
        let text = String::from_utf8(seen.body.to_vec()).unwrap();
        assert_eq!(stand(&text), [2, 4], "{text}");
        assert!(text.contains(r#"<document index=\"3\">"#), "{text}");
        booked(&stack, at + 1).await;
    }
}

#[tokio::test]
async fn a_field_that_cannot_be_read_is_refused_by_its_name() {
    for trim in [context("on"), json!({"mode": "on"})] {
        let stack = Stack::start(trimming(&trim)).await.unwrap();
        let bad = json!([{"text": RETRIEVED[0]}, {"score": 1}]);
        let body = with_field(chat(QUESTION), bad.clone());
        let refused = stack.client().post(CHAT.path, &body).await.unwrap();
        assert_eq!(refused.status, 400, "{}", refused.text());
        let error = &refused.json()["error"];
        assert_eq!(
            (&error["code"], &error["type"]),
            (&json!("invalid_context"), &json!("invalid_request_error"))
        );
        let told = error["message"].as_str().unwrap();
        assert!(
            told.contains("sluice_context") && told.contains("[1]"),
            "{told}"
        );
        let body = with_field(MESSAGES.request(QUESTION), bad);
        let refused = stack.client().post(MESSAGES.path, &body).await.unwrap();
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert_eq!(refused.json()["error"]["type"], "invalid_request_error");
        assert_eq!(stack.provider().stats().http_requests, 0);
        booked(&stack, 2).await;
    }
}

#[tokio::test]
async fn in_a_dry_run_all_chunks_go_on_and_the_field_is_gone_all_the_same() {
    let stack = Stack::start(trimming(&context("dry"))).await.unwrap();
    let body = with_field(chat(QUESTION), json!(RETRIEVED));
    let answer = post(&stack.client(), CHAT, &body).await;
    assert_eq!(left_out(&answer), 0);
    let seen = sent(&stack).json();
    assert_eq!(seen.get("sluice_context"), None);
    assert_eq!(stand(&seen.to_string()), [0, 1, 2, 3, 4, 5]);
    // Marked ones go as they came.
    let body = chat(&marked());
    let answer = post(&stack.client(), CHAT, &body).await;
    assert_eq!(left_out(&answer), 0);
    assert_eq!(sent(&stack).body, body.to_string());
    for record in booked(&stack, 2).await {
        assert_eq!(record.saved.trim.0, 0, "{record:?}");
        assert!(record.would_save.trim.0 > 0, "{record:?}");
    }
}

#[tokio::test]
async fn a_budget_has_room_for_a_request_of_whose_chunks_few_may_stay() {
    let chunk = |at: usize| format!("Depot {at} has its own rules for parcel {at}. ").repeat(20);
    let chunks: Vec<String> = (0..30).map(chunk).collect();
    let body = with_field(chat(QUESTION), json!(chunks));
    let budget = json!([{"per": "tenant", "tokens": 2500, "every": "day", "over": "reject"}]);
    for (mode, status) in [("on", 200), ("dry", 429)] {
        let config = json!({"trim": context(mode), "budgets": budget});
        let stack = Stack::start(Setup::with(config)).await.unwrap();
        let answer = stack.client().post(CHAT.path, &body).await.unwrap();
        assert_eq!(answer.status, status, "{mode}: {}", answer.text());
        assert_eq!(left_out(&answer) > 4000, status == 200);
        booked(&stack, 1).await;
    }
}
