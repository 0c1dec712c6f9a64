//! A model writes what a conversation left out: the sidecar asks it through Envoy's own listener, as the
//! tenant whose conversation it is.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_tests::client::Client;
use sluice_tests::conversations::Conversation;
use sluice_tests::door::Door;
use sluice_tests::process::eventually;
use sluice_tests::provider::Seen;
use sluice_tests::requests::CHAT;
use sluice_tests::stack::{Setup, Stack};

use super::{booked, left_out, messages, post, sent, turn};

const OPENS: &str = "<earlier_conversation note=\"summary; the rest is left out\">\n";

/// Without a discount for what it has seen a provider's prompt is chosen anew at each turn.
async fn start(redis: bool) -> Stack {
    let door = Door::open().await.unwrap();
    let mut setup = Setup::with(json!({
        "models": {"gpt-4o": {"cached_input": null}},
        "trim": {"mode": "on", "history": {
            "keep": "summary", "tokens": 900,
            "summary": {"tokens": 240, "writer": "sidecar", "model": "gpt-4o-mini"},
        }},
        "routes": [{"name": "summaries", "match": {"headers": {"x-purpose": "summary"}}, "trim": {"mode": "off"}}],
        "serve": {"summaries": {
            "url": format!("{}{}", door.url(), CHAT.path),
            "headers": {"x-tenant": "{tenant}", "x-purpose": "summary", "authorization": "env:WRITER"},
        }},
    }));
    setup
        .environment
        .insert("WRITER".to_owned(), "Bearer sk-writer".to_owned());
    setup.redis = redis;
    let stack = Stack::start(setup).await.unwrap();
    door.leads_to(stack.envoy().address()).unwrap();
    stack
}

fn acme(stack: &Stack) -> Client {
    let client = stack.client().with("x-tenant", "acme");
    client.with("x-conversation-id", "talk-3")
}

/// Waits until the sidecar says so.
async fn told(stack: &Stack, series: &str) {
    eventually(Duration::from_secs(20), async || {
        let metrics = stack.sidecar().client().get("/metrics").await;
        let text = metrics.map_err(|error| error.to_string())?.text();
        match text.contains(&format!("{series}\n")) {
            true => Ok(()),
            false => Err(format!("expected {series}")),
        }
    })
    .await
    .unwrap();
}

/// The request by which the text was ordered, and what the stand-in says to it: always the same.
async fn writing(stack: &Stack) -> (Seen, String) {
    let seen = sent(stack);
    let client = Client::new(stack.provider().url());
    let answer = client.with("authorization", "Bearer sk-writer");
    let answer = answer
        .post_bytes(CHAT.path, seen.body.to_vec())
        .await
        .unwrap();
    let answer: Value = serde_json::from_str(&answer.text()).unwrap();
    let text = answer["choices"][0]["message"]["content"].as_str();
    (seen, text.unwrap().trim().to_owned())
}

async fn a_conversation_has_its_text(stack: &Stack) {
    let conversation = Conversation::support(3);
    let first = turn(CHAT, &conversation, 20);
    let answer = post(&acme(stack), CHAT, &first).await;
    assert!(left_out(&answer) > 1000, "{}", left_out(&answer));
    told(stack, "sluice_summaries_total{result=\"written\"} 1").await;

    // The writer's call is the tenant's, in the ledger with its price, and as it was sent.
    let records = booked(stack, 2).await;
    let [own, written] = records.as_slice() else {
        unreachable!("there are two")
    };
    assert_eq!(
        (own.tenant.as_str(), own.model.as_str()),
        ("acme", "gpt-4o")
    );
    let whose = (
        written.tenant.as_str(),
        written.model.as_str(),
        written.route.as_str(),
    );
    assert_eq!(whose, ("acme", "gpt-4o-mini", "summaries"));
    assert!(
        written.cost.unwrap().0 > 0 && written.cost < own.cost,
        "{written:?}"
    );
    // It costs less than this turn has saved.
    assert!(
        written.cost.unwrap() < own.saved.trim,
        "{written:?} {own:?}"
    );
    let seen = sent(stack);
    assert_eq!(seen.header("authorization"), Some("Bearer sk-writer"));
    let body = seen.json();
    assert_eq!(
        (&body["model"], &body["max_tokens"]),
        (&json!("gpt-4o-mini"), &json!(160))
    );
    let record = body["messages"][1]["content"].as_str().unwrap();
    let kept = stack.provider().requests(2)[1].json();
    let said = |message: &&Value| message["role"] == "user" && !messages(&kept).contains(message);
    let gone: Vec<&Value> = messages(&first).iter().filter(said).collect();
    assert!(gone.len() > 5, "{gone:?}");
    // The first that stays has the extract in front.
    let whole = gone
        .iter()
        .filter(|one| record.contains(one["content"].as_str().unwrap().trim()));
    assert!(whole.count() + 1 >= gone.len(), "{record}");

    // Once more, beside Envoy: what it was answered.
    let (_, text) = writing(stack).await;
    assert!(!text.is_empty());
    let second = turn(CHAT, &conversation, 21);
    post(&acme(stack), CHAT, &second).await;
    let seen = sent_by_client(stack);
    let seen = seen.to_string();
    let note = json!(format!("{OPENS}{text}\n</earlier_conversation>")).to_string();
    assert!(seen.contains(note.trim_matches('"')), "{note} in {seen}");
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(metrics.sum("sluice.trim_summary", &[("result", "used")]), 1);
    assert_eq!(metrics.sum("sluice.trim_summary", &[("result", "lost")]), 0);
    assert_eq!(metrics.sum("sluice.trim_unmet", &[("result", "price")]), 0);

    // Nobody else is told of it.
    let globex = stack.client().with("x-tenant", "globex");
    let globex = globex.with("x-conversation-id", "talk-3");
    post(&globex, CHAT, &second).await;
    assert!(
        !sent_by_client(stack)
            .to_string()
            .contains("note=\\\"summary;")
    );

    let logs = format!("{}{}", stack.sidecar().log(), stack.envoy().log());
    for secret in [&text, "sk-writer", "<conversation>"] {
        assert!(!logs.contains(secret), "{secret} in {logs}");
    }
    stack.check_no_trap().await.unwrap();
}

/// The newest request that is no writer's.
fn sent_by_client(stack: &Stack) -> Value {
    let seen = stack.provider().requests(5);
    let mut bodies = seen.iter().map(Seen::json);
    bodies.find(|body| body["model"] == "gpt-4o").unwrap()
}

#[tokio::test]
async fn what_was_left_out_is_written_through_envoy_and_goes_out_with_the_next_choice() {
    a_conversation_has_its_text(&start(false).await).await;
}

#[tokio::test]
async fn on_redis_it_is_the_same() {
    a_conversation_has_its_text(&start(true).await).await;
}

#[tokio::test]
async fn where_the_model_does_not_write_conversations_go_on_with_extracts() {
    let mut setup = Setup::with(json!({
        "models": {"gpt-4o": {"cached_input": null}},
        "trim": {"mode": "on", "history": {
            "keep": "summary", "tokens": 900,
            "summary": {"tokens": 240, "writer": "sidecar", "model": "gpt-4o-mini"},
        }},
    }));
    // Nobody listens there.
    let nobody = json!({"summaries": {"url": "http://127.0.0.1:1/v1/chat/completions"}});
    setup.config["serve"] = nobody;
    let stack = Stack::start(setup).await.unwrap();
    let conversation = Conversation::support(3);
    for (at, number) in [20, 21].into_iter().enumerate() {
        post(&acme(&stack), CHAT, &turn(CHAT, &conversation, number)).await;
        stack.settled(at + 1).await.unwrap();
        let seen = sent(&stack).json().to_string();
        assert!(seen.contains("note=\\\"extract;"), "{seen}");
    }
    told(&stack, "sluice_summaries_total{result=\"failed\"} 1").await;
    stack.check_no_trap().await.unwrap();
}
