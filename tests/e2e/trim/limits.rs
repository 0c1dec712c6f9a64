//! The limit on a prompt counts what goes out.

use serde_json::{Value, json};
use sluice_tests::requests::CHAT;
use sluice_tests::stack::{Setup, Stack, tiers};
use sluice_wire::Outcome;

use super::{booked, chatter, left_out, post, sent};

const LIMIT: u64 = 800;

fn limited(over: &str) -> Value {
    json!({
        "mode": "on",
        "history": {"keep": "relevant", "tokens": 500},
        "input_tokens": {"limit": LIMIT, "over": over},
    })
}

/// With a question that is too long by itself.
fn endless() -> Value {
    let mut body = chatter(30);
    let last = body["messages"].as_array().unwrap().len() - 1;
    body["messages"][last]["content"] =
        json!("And when does the shop open on Mondays? ".repeat(100));
    body
}

#[tokio::test]
async fn a_prompt_over_its_limit_passes_trimmed_and_is_refused_where_that_is_not_enough() {
    let stack = Stack::start(Setup::with(json!({"trim": limited("reject")})))
        .await
        .unwrap();
    let answer = post(&stack.client(), CHAT, &chatter(30)).await;
    let prompt = answer.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(prompt <= LIMIT, "{prompt}");
    assert!(prompt + left_out(&answer) > 2 * LIMIT, "{prompt}");

    let refused = stack.client().post(CHAT.path, &endless()).await.unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(left_out(&refused), 0, "nothing was sent");
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "prompt_too_long");
    assert!(
        error["message"].as_str().unwrap().contains("at most 800"),
        "{error}"
    );
    assert_eq!(stack.provider().stats().http_requests, 1);
    let records = booked(&stack, 2).await;
    assert_eq!(records[1].outcome, Outcome::Rejected);
    assert_eq!(records[1].saved.trim.0, 0);
}

#[tokio::test]
async fn what_is_refused_for_a_budget_says_that_nothing_was_trimmed() {
    let budget = json!([{"per": "tenant", "tokens": 1000, "every": "day", "over": "reject"}]);
    let config = json!({"trim": limited("reject"), "budgets": budget});
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let refused = stack.client().post(CHAT.path, &chatter(30)).await.unwrap();
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(left_out(&refused), 0);
    let record = &booked(&stack, 1).await[0];
    assert_eq!((record.outcome, record.trim), (Outcome::Rejected, None));
}

#[tokio::test]
async fn what_is_too_long_even_trimmed_goes_to_the_small_tier_where_that_is_set() {
    let config = json!({"trim": limited("small_tier"), "route": tiers()});
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let large = stack.internal().with("x-sluice-tier", "large");
    let answer = post(&large, CHAT, &chatter(30)).await;
    assert_eq!(answer.header("x-sluice-tier"), Some("large"));
    assert!(left_out(&answer) > LIMIT, "{}", left_out(&answer));
    let answer = post(&large, CHAT, &endless()).await;
    assert_eq!(answer.header("x-sluice-tier"), Some("small"));
    assert_eq!(sent(&stack).json()["model"], "gpt-4o-mini");
    assert!(
        left_out(&answer) > 0,
        "what is too long is trimmed all the same"
    );
    for record in booked(&stack, 2).await {
        assert!(record.saved.trim.0 > 0, "{record:?}");
    }
}
