//! Requests go to the tier that their prompt needs, and only what must change is changed.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use serde_json::{Value, json};
use sluice_tests::client::{Answer, Client};
use sluice_tests::envoy::ConfigAs;
use sluice_tests::requests::{CHAT, EASY, HARD, MESSAGES, RESPONSES, chat};
use sluice_tests::stack::{Setup, Stack, tiers};

fn routed() -> Setup {
    Setup::with(json!({"route": tiers()}))
}

async fn ok(client: &Client, path: &str, body: &Value) -> Answer {
    let answer = client.post(path, body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

#[tokio::test]
async fn an_easy_prompt_goes_to_the_small_tier_and_its_cluster_and_a_hard_one_does_not() {
    let stack = Stack::start(Setup {
        small_provider: true,
        config_as: ConfigAs::Text,
        ..routed()
    })
    .await
    .unwrap();
    let small = stack.small_provider.as_ref().unwrap();
    let easy = ok(&stack.client(), CHAT.path, &chat(EASY)).await;
    assert_eq!(easy.header("x-sluice-tier"), Some("small"));
    assert_eq!(easy.header("x-sluice-model"), Some("gpt-4o-mini"));
    assert_eq!(easy.json()["model"], "gpt-4o-mini");
    let seen = small.last_request().unwrap().json();
    assert_eq!(
        (&seen["model"], &seen["max_completion_tokens"]),
        (&json!("gpt-4o-mini"), &json!(256))
    );
    assert_eq!(stack.provider().stats().total.requests, 0);

    let hard = ok(&stack.client(), CHAT.path, &chat(HARD)).await;
    assert_ne!(hard.header("x-sluice-tier"), Some("small"));
    assert_eq!(small.stats().total.requests, 1);
    assert_eq!(stack.provider().stats().total.requests, 1);

    let records = stack.settled(2).await.unwrap();
    let (easy, hard) = (&records[0], &records[1]);
    assert_eq!(
        (
            easy.tier.as_str(),
            easy.model_asked.as_str(),
            easy.model.as_str()
        ),
        ("small", "gpt-4o", "gpt-4o-mini")
    );
    assert!(
        easy.score_milli.unwrap() < 300 && hard.score_milli.unwrap() >= 300,
        "{easy:?} {hard:?}"
    );
    assert!(easy.saved.route.0 > 0);
    assert_eq!(
        easy.as_asked.unwrap() - easy.cost.unwrap(),
        easy.saved.total()
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn only_the_model_and_the_limit_are_rewritten_in_place() {
    let stack = Stack::start(routed()).await.unwrap();
    let body = concat!(
        "{ \"zebra\" : 1.50e2,\t\"model\" : \"gpt-4o\" ,\r\n \"max_tokens\":4000, \"messages\" : [ {\"content\":",
        "\"Hello, \\u0077hat are your opening hours?\",\"role\":\"user\", \"x_unknown\":[null , true]} ],\"alpha\":{} }\n"
    );
    let answer = stack.client().post_bytes(CHAT.path, body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let expected = body
        .replace("\"gpt-4o\"", "\"gpt-4o-mini\"")
        .replace("4000", "256");
    let seen = stack.provider().last_request().unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.body), expected);
    assert_eq!(
        seen.header("content-length"),
        Some(expected.len().to_string().as_str())
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn an_output_limit_is_only_ever_lowered() {
    let stack = Stack::start(routed()).await.unwrap();
    let seen = async |change: Value| {
        let mut body = chat(EASY);
        sluice_tests::stack::merge(&mut body, change);
        ok(&stack.client(), CHAT.path, &body).await;
        stack.provider().last_request().unwrap().json()
    };
    assert_eq!(seen(json!({"max_tokens": 20})).await["max_tokens"], 20);
    assert_eq!(seen(json!({"max_tokens": 5000})).await["max_tokens"], 256);
    let newer = seen(json!({"max_completion_tokens": 5000})).await;
    assert_eq!(
        (&newer["max_completion_tokens"], newer.get("max_tokens")),
        (&json!(256), None)
    );
    let mut body = RESPONSES.request(EASY);
    ok(&stack.client(), RESPONSES.path, &body).await;
    assert_eq!(
        stack.provider().last_request().unwrap().json()["max_output_tokens"],
        256
    );
    body["max_output_tokens"] = json!(30);
    ok(&stack.client(), RESPONSES.path, &body).await;
    assert_eq!(
        stack.provider().last_request().unwrap().json()["max_output_tokens"],
        30
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn each_api_family_gets_its_own_models() {
    let stack = Stack::start(routed()).await.unwrap();
    ok(&stack.client(), MESSAGES.path, &MESSAGES.request(EASY)).await;
    let seen = stack.provider().last_request().unwrap().json();
    assert_eq!(
        (&seen["model"], &seen["max_tokens"]),
        (&json!("claude-haiku-4-5"), &json!(256))
    );
    // Medium and large name no model of Anthropic's: the request stays as it is.
    let hard = MESSAGES.request(HARD);
    ok(&stack.client(), MESSAGES.path, &hard).await;
    assert_eq!(stack.provider().last_request().unwrap().json(), hard);
    // No tier names a model that makes embeddings.
    let embed = json!({"model": "text-embedding-3-small", "input": EASY, "dimensions": 8});
    ok(&stack.client(), "/v1/embeddings", &embed).await;
    assert_eq!(stack.provider().last_request().unwrap().json(), embed);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_cheap_model_is_never_replaced_by_a_dearer_one() {
    let stack = Stack::start(routed()).await.unwrap();
    let mut body = chat(HARD);
    body["model"] = json!("gpt-4o-mini");
    ok(&stack.client(), CHAT.path, &body).await;
    assert_eq!(
        stack.provider().last_request().unwrap().json()["model"],
        "gpt-4o-mini"
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_tier_is_asked_for_by_trusted_callers_only() {
    let stack = Stack::start(routed()).await.unwrap();
    let stranger = stack.client().with("x-sluice-tier", "large");
    let answer = ok(&stranger, CHAT.path, &chat(EASY)).await;
    assert_eq!(
        answer.header("x-sluice-tier"),
        Some("small"),
        "a stranger's wish does not count"
    );
    let internal = stack.internal().with("x-sluice-tier", "large");
    let answer = ok(&internal, CHAT.path, &chat(EASY)).await;
    assert_eq!(answer.header("x-sluice-tier"), Some("large"));
    assert_eq!(
        stack.provider().last_request().unwrap().json()["model"],
        "gpt-4o"
    );
    let internal = stack.internal().with("x-sluice-tier", "small");
    let answer = ok(&internal, CHAT.path, &chat(HARD)).await;
    assert_eq!(answer.header("x-sluice-model"), Some("gpt-4o-mini"));
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_pinned_route_keeps_the_model_and_an_allow_list_bounds_a_tenant() {
    let config = json!({
        "route": tiers(),
        "routes": [{"name": "pinned", "match": {"headers": {"x-team": "ml"}}, "route": {"pin": true}}],
        "identity": {"allow": {"acme": ["gpt-4.1-mini"], "strict": ["claude-haiku-4-5"]}},
    });
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let team = stack.client().with("x-team", "ml");
    ok(&team, CHAT.path, &chat(EASY)).await;
    assert_eq!(stack.provider().last_request().unwrap().json(), chat(EASY));

    let acme = stack.client().with("x-tenant", "acme");
    for text in [EASY, HARD] {
        ok(&acme, CHAT.path, &chat(text)).await;
        assert_eq!(
            stack.provider().last_request().unwrap().json()["model"],
            "gpt-4.1-mini"
        );
    }
    let before = stack.provider().stats().http_requests;
    let strict = stack.client().with("x-tenant", "strict");
    let refused = strict.post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(refused.status, 403, "{}", refused.text());
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "model_not_allowed");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("claude-haiku-4-5"),
        "{error}"
    );
    assert_eq!(stack.provider().stats().http_requests, before);
    let records = stack.settled(4).await.unwrap();
    assert_eq!(records[0].route, "pinned");
    assert_eq!(records[3].outcome, sluice_wire::Outcome::Rejected);
    stack.check_no_trap().await.unwrap();
}
