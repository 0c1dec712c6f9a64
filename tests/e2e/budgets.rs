//! Budgets hold, are told of in the API's own words, and get back what was not used.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test's helper cannot do fails the test"
)]

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use sluice_tests::client::Client;
use sluice_tests::provider::{Config, Counting, Fault};
use sluice_tests::requests::{CHAT, EASY, HARD, MESSAGES, chat};
use sluice_tests::stack::{Setup, Stack, tiers};
use sluice_wire::Outcome;

fn budget(per: &str, tokens: u64, over: &str) -> Value {
    json!([{"per": per, "tokens": tokens, "every": "month", "over": over}])
}

/// A request whose answer has at most 50 tokens, told apart by its number.
fn small(number: usize) -> Value {
    let mut body = chat(&format!("Question {number}: what are your opening hours?"));
    body["max_tokens"] = json!(50);
    body
}

/// Sends `small` requests one after another until one is refused, each when the one before it is
/// settled.
async fn until_refused(stack: &Stack, client: &Client) {
    for number in 0..200 {
        let answer = client.post(CHAT.path, &small(number)).await.unwrap();
        match answer.status {
            200 => {}
            429 => return,
            other => panic!("{other}: {}", answer.text()),
        }
        if !stack.sidecars.is_empty() {
            stack.settled(number + 1).await.unwrap();
        }
    }
    panic!("200 requests and no end");
}

#[tokio::test]
async fn over_a_budget_the_answer_is_429_in_the_apis_shape_with_the_usual_headers() {
    let stack = Stack::start(Setup::with(
        json!({"budgets": budget("tenant", 10, "reject")}),
    ))
    .await
    .unwrap();
    let refused = stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(refused.status, 429, "{}", refused.text());
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "budget_exceeded");
    assert!(
        error["message"].as_str().unwrap().contains("10 tokens"),
        "{error}"
    );
    let number = |name: &str| {
        refused
            .header(name)
            .unwrap_or_default()
            .trim_end_matches('s')
            .parse::<u64>()
    };
    assert!(number("retry-after").unwrap() >= 1);
    assert_eq!(number("x-ratelimit-limit-tokens"), Ok(10));
    assert_eq!(number("x-ratelimit-remaining-tokens"), Ok(10));
    assert!(number("x-ratelimit-reset-tokens").unwrap() <= 31 * 86_400);

    let refused = stack
        .client()
        .post(MESSAGES.path, &MESSAGES.request(EASY))
        .await
        .unwrap();
    assert_eq!(refused.status, 429);
    let error = refused.json();
    assert_eq!(
        (&error["type"], &error["error"]["type"]),
        (&json!("error"), &json!("rate_limit_error"))
    );
    let mut streamed = chat(EASY);
    streamed["stream"] = json!(true);
    let refused = stack.client().post(CHAT.path, &streamed).await.unwrap();
    assert_eq!(
        (refused.status, refused.header("content-type")),
        (429, Some("application/json"))
    );

    assert_eq!(
        stack.provider().stats().http_requests,
        0,
        "nothing was sent upstream"
    );
    let records = stack.settled(3).await.unwrap();
    for record in &records {
        assert_eq!((record.outcome, record.status), (Outcome::Rejected, 429));
        assert_eq!(
            (record.usage.total(), record.cost.map(|usd| usd.0)),
            (0, Some(0))
        );
    }
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_prompt_over_its_limit_is_400_by_the_tightest_limit_that_applies() {
    let trim = json!({"mode": "on", "input_tokens": {
        "limit": 100, "over": "reject", "tenants": {"acme": 20}, "models": {"gpt-4.1-mini": 1000},
    }});
    let stack = Stack::start(Setup::with(json!({"trim": trim})))
        .await
        .unwrap();
    let client = stack.client().with("x-tenant", "globex");
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(12);
    let refused = client.post(CHAT.path, &chat(&long)).await.unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text());
    let error = &refused.json()["error"];
    assert_eq!(
        (&error["code"], &error["type"]),
        (&json!("prompt_too_long"), &json!("invalid_request_error"))
    );
    // 12 sentences of 10 tokens, 7 around them: the count is exact where it decides.
    assert!(
        error["message"].as_str().unwrap().contains("at most 100"),
        "{error}"
    );
    assert_eq!(
        client.post(CHAT.path, &chat(EASY)).await.unwrap().status,
        200
    );
    let acme = stack.client().with("x-tenant", "acme");
    let refused = acme.post(CHAT.path, &chat("Tell me what the opening hours are on Saturday before Easter in Leeds, and when the car park closes.")).await.unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text());
    let refused = client
        .post(MESSAGES.path, &MESSAGES.request(&long.repeat(3)))
        .await
        .unwrap();
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["type"], "invalid_request_error");
    assert_eq!(stack.provider().stats().http_requests, 1);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn over_a_soft_budget_requests_move_to_the_small_tier() {
    let config = json!({"route": tiers(), "budgets": budget("task", 600, "small_tier")});
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let client = stack.internal().with("x-sluice-task", "research");
    for _ in 0..4 {
        assert_eq!(
            client.post(CHAT.path, &chat(HARD)).await.unwrap().status,
            200
        );
    }
    let last = client.post(CHAT.path, &chat(HARD)).await.unwrap();
    assert_eq!(
        (last.status, last.header("x-sluice-tier")),
        (200, Some("small"))
    );
    assert_eq!(
        stack.provider().last_request().unwrap().json()["model"],
        "gpt-4o-mini"
    );
    let other = stack.internal().with("x-sluice-task", "coding");
    let other = other.post(CHAT.path, &chat(HARD)).await.unwrap();
    assert_ne!(
        other.header("x-sluice-tier"),
        Some("small"),
        "another task has its own budget"
    );
    let metrics = stack.envoy().metrics().await.unwrap();
    assert!(
        metrics.sum("sluice.budget_over", &[]) > 0,
        "{:?}",
        metrics.about("sluice")
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn over_a_shadow_budget_requests_pass_and_are_counted() {
    let stack = Stack::start(Setup::with(
        json!({"budgets": budget("model", 10, "shadow")}),
    ))
    .await
    .unwrap();
    for number in 0..3 {
        assert_eq!(
            stack
                .client()
                .post(CHAT.path, &small(number))
                .await
                .unwrap()
                .status,
            200
        );
    }
    let metrics = stack.envoy().metrics().await.unwrap();
    assert!(
        metrics.sum("sluice.budget_over", &[("rule", "0")]) >= 3,
        "{:?}",
        metrics.about("sluice")
    );
    stack.check_no_trap().await.unwrap();
}

/// The largest reservation of one `small` request.
const RESERVATION: u64 = 20 + 50;

#[tokio::test]
async fn what_was_used_takes_the_place_of_what_was_reserved() {
    let limit = 1000;
    let stack = Stack::start(Setup::with(
        json!({"budgets": budget("tenant", limit, "reject")}),
    ))
    .await
    .unwrap();
    let acme = stack.client().with("x-tenant", "acme");
    until_refused(&stack, &acme).await;
    let used = stack.provider().stats().total.tokens();
    assert!(used <= limit, "{used} of {limit} tokens");
    // An unused rest of a reservation must have come back, or it would have ended far earlier.
    assert!(used + RESERVATION > limit, "{used} of {limit} tokens");
    let globex = stack.client().with("x-tenant", "globex");
    assert_eq!(
        globex.post(CHAT.path, &small(0)).await.unwrap().status,
        200,
        "tenants do not share"
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn upstream_errors_give_their_reservation_back() {
    let stack = Stack::start(Setup::with(
        json!({"budgets": budget("tenant", 1000, "reject")}),
    ))
    .await
    .unwrap();
    stack.provider().fault(Fault {
        status: Some(500),
        times: Some(40),
        ..Fault::default()
    });
    for number in 0..40 {
        assert_eq!(
            stack
                .client()
                .post(CHAT.path, &small(number))
                .await
                .unwrap()
                .status,
            500,
            "request {number}"
        );
        // Its settlement is under way; the next one must not race it.
        stack.settled(number + 1).await.unwrap();
    }
    assert_eq!(
        stack
            .client()
            .post(CHAT.path, &small(40))
            .await
            .unwrap()
            .status,
        200
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn without_a_sidecar_each_envoy_keeps_the_budget_over_all_its_workers() {
    let limit = 1500;
    let setup =
        Setup::with(json!({"budgets": budget("tenant", limit, "reject")})).without_sidecar();
    let stack = Stack::start(setup).await.unwrap();
    let client = stack.client();
    let statuses: Vec<u16> = stream::iter(0..80)
        .map(|number| {
            let client = client.clone();
            async move { client.post(CHAT.path, &small(number)).await.unwrap().status }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [200, 429].contains(status)),
        "{statuses:?}"
    );
    let used = stack.provider().stats().total.tokens();
    assert!(used <= limit, "{used} of {limit} tokens");
    // A few last ones may have been refused while others still held their reservations.
    until_refused(&stack, &client).await;
    let used = stack.provider().stats().total.tokens();
    assert!(
        used <= limit && used + RESERVATION > limit,
        "{used} of {limit} tokens"
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn requests_that_reserve_their_whole_answer_never_pass_a_shared_budget() {
    // Half of what the requests would take. Each reserves its whole possible answer
    // (`max_tokens` is below `reserve.output_tokens`) and its prompt, of which the estimate is
    // above the count: then the stated bound of the overshoot is zero.
    let limit: u64 = 45_000;
    let stack = Stack::start(Setup {
        envoys: 2,
        sidecars: 2,
        redis: true,
        provider: Config {
            counting: Counting::Exact,
            ..Config::default()
        },
        ..Setup::with(json!({"budgets": budget("tenant", limit, "reject"), "reserve": {"output_tokens": 256, "hold": "2m"}}))
    })
    .await
    .unwrap();
    let clients: Vec<Client> = stack
        .envoys
        .iter()
        .map(|envoy| envoy.client().with("x-tenant", "acme"))
        .collect();
    let requests = 1_500;
    let statuses: Vec<u16> = stream::iter(0..requests)
        .map(|number| {
            let client = clients[number % 2].clone();
            async move {
                client
                    .post(CHAT.path, &small(number % 997))
                    .await
                    .unwrap()
                    .status
            }
        })
        .buffer_unordered(64)
        .collect()
        .await;
    let count = |status| statuses.iter().filter(|&&found| found == status).count();
    let (passed, refused) = (count(200), count(429));
    assert_eq!(
        passed + refused,
        requests,
        "nothing else happens: {statuses:?}"
    );
    assert!(
        passed > 300 && refused > 300,
        "{passed} passed, {refused} were refused"
    );
    let used = stack.provider().stats().total.tokens();
    assert!(used <= limit, "{used} of {limit} tokens");
    // What was still reserved when the last ones came is all that may be left over.
    assert!(used + 64 * RESERVATION > limit, "{used} of {limit} tokens");
    stack.settled(requests).await.unwrap();
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    stack.check_no_trap().await.unwrap();
}
