//! Templates: a route's, and that of a caller who may choose.

use serde_json::json;
use sluice_tests::requests::{CHAT, MESSAGES, RESPONSES, chat};
use sluice_tests::stack::{Setup, Stack};

use super::{booked, post, sent};

const QUESTION: &str = "When are you open on Sundays?";

fn setup() -> Setup {
    Setup::with(json!({
        "trim": {"mode": "on"},
        "templates": [{
            "name": "support",
            "system": "You answer customers of Acme.",
            "user": "From the documents:\n{{context}}\n\nQuestion: {{question}}",
        }],
    }))
}

#[tokio::test]
async fn a_trusted_callers_template_frames_the_question_and_a_strangers_word_does_nothing() {
    let stack = Stack::start(setup()).await.unwrap();
    let trusted = stack.internal().with("x-sluice-template", "support");
    let mut body = chat(QUESTION);
    body["sluice_context"] = json!(["We are open from ten to four on Sundays."]);
    post(&trusted, CHAT, &body).await;
    let seen = sent(&stack);
    assert_eq!(seen.header("x-sluice-template"), None);
    let seen = seen.json();
    let system = &seen["messages"][0];
    assert_eq!(system["content"], "You answer customers of Acme.");
    let user = seen["messages"][1]["content"].to_string();
    assert!(
        user.contains("From the documents:") && user.contains("ten to four"),
        "{user}"
    );
    assert!(user.contains(&format!("Question: {QUESTION}")), "{user}");
    assert_eq!(seen.get("sluice_context"), None);

    let stranger = stack.client().with("x-sluice-template", "support");
    let body = chat(QUESTION);
    post(&stranger, CHAT, &body).await;
    let seen = sent(&stack);
    assert_eq!(seen.header("x-sluice-template"), None);
    assert_eq!(seen.body, body.to_string());

    let unknown = stack.internal().with("x-sluice-template", "no such thing");
    post(&unknown, CHAT, &body).await;
    assert_eq!(sent(&stack).body, body.to_string());
    booked(&stack, 3).await;
}

#[tokio::test]
async fn a_template_stands_in_each_apis_own_place() {
    let stack = Stack::start(setup()).await.unwrap();
    let trusted = stack.internal().with("x-sluice-template", "support");
    post(&trusted, MESSAGES, &MESSAGES.request(QUESTION)).await;
    let seen = sent(&stack).json();
    assert!(
        seen["system"].to_string().contains("customers of Acme"),
        "{seen}"
    );
    assert!(
        seen["messages"][0].to_string().contains("Question: When"),
        "{seen}"
    );
    post(&trusted, RESPONSES, &RESPONSES.request(QUESTION)).await;
    let seen = sent(&stack).json();
    assert!(seen.to_string().contains("customers of Acme"), "{seen}");
    assert!(
        seen["input"].to_string().contains("Question: When"),
        "{seen}"
    );
    booked(&stack, 2).await;
}
