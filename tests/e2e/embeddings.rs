//! Embeddings behind the filter: an input that was embedded before is not embedded again, whatever
//! batch it comes in, and the client cannot tell.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sluice_tests::client::{Answer, Client};
use sluice_tests::envoy::Upstream;
use sluice_tests::process::eventually;
use sluice_tests::stack::{Setup, Stack, caching, merge};
use sluice_wire::{CacheResult, Outcome};
use tokio::net::TcpListener;

const PATH: &str = "/v1/embeddings";

fn body(input: Value) -> Value {
    json!({"model": "text-embedding-3-small", "input": input, "dimensions": 16})
}

fn cache(answer: &Answer) -> &str {
    answer.header("x-sluice-cache").unwrap_or("no header")
}

/// An answer with its vectors as numbers of 32 bits, however they are told.
fn plain(answer: &Answer) -> Value {
    let mut answer = answer.json();
    for element in answer["data"].as_array_mut().unwrap() {
        let vector: Vec<f32> = match &element["embedding"] {
            Value::String(text) => STANDARD
                .decode(text)
                .unwrap()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect(),
            list => serde_json::from_value(list.clone()).unwrap(),
        };
        element["embedding"] = json!(vector);
    }
    answer
}

/// Sends and waits until it is settled, so that the next request can find its vectors.
async fn ask(stack: &Stack, client: &Client, body: &Value, sent: &mut usize) -> Answer {
    let answer = client.post(PATH, body).await.unwrap();
    *sent += 1;
    stack.settled(*sent).await.unwrap();
    answer
}

#[tokio::test]
async fn a_batch_pays_only_for_the_inputs_that_are_new() {
    for redis in [false, true] {
        let mut setup = Setup::with(json!({"cache": caching()}));
        setup.redis = redis;
        // Each worker sees a whole answer before it asks for a part.
        setup.concurrency = 1;
        let stack = Stack::start(setup).await.unwrap();
        let client = stack.client().with("x-tenant", "acme");
        let direct = Client::new(stack.provider().url());
        let mut sent = 0;
        let first = ask(
            &stack,
            &client,
            &body(json!(["lost card", "new pin"])),
            &mut sent,
        )
        .await;
        assert_eq!(cache(&first), "miss", "{}", first.text());

        let mixed = body(json!([
            "new pin",
            "interest",
            "lost card",
            "interest",
            "fees"
        ]));
        let part = ask(&stack, &client, &mixed, &mut sent).await;
        assert_eq!(
            (part.status, cache(&part)),
            (200, "partial"),
            "{}",
            part.text()
        );
        let seen = stack.provider().last_request().unwrap();
        assert_eq!(
            seen.json(),
            body(json!(["interest", "fees"])),
            "redis: {redis}"
        );
        assert_eq!(
            seen.header("content-length"),
            Some(seen.body.len().to_string().as_str())
        );

        let mut coded = mixed.clone();
        coded["encoding_format"] = json!("base64");
        let hit = ask(&stack, &client, &coded, &mut sent).await;
        assert_eq!(cache(&hit), "hit");
        assert!(hit.json()["data"][0]["embedding"].is_string());
        assert_eq!(hit.header("x-sluice-cost"), Some("0"));
        let other = client.with("x-tenant", "globex");
        let strange = ask(&stack, &other, &body(json!("fees")), &mut sent).await;
        assert_eq!(cache(&strange), "miss", "another tenant's");

        let records = stack.settled(sent).await.unwrap();
        assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
        let [whole, part_of, all, _] = records.as_slice() else {
            unreachable!("{records:?}");
        };
        assert_eq!(part_of.cache, CacheResult::Partial);
        let spared = part_of.as_asked.unwrap() - part_of.cost.unwrap();
        assert_eq!(part_of.saved.cache, spared);
        assert!(part_of.usage.prompt > 0 && spared >= whole.cost.unwrap());
        assert_eq!(
            (all.saved.cache, all.cost.unwrap().0),
            (part_of.as_asked.unwrap(), 0)
        );
        let metrics = stack.envoy().metrics().await.unwrap();
        let items = |result| metrics.sum("sluice.cache_items", &[("result", result)]);
        assert_eq!((items("hit"), items("miss")), (3 + 5, 2 + 2 + 1));
        let text = stack
            .sidecar()
            .client()
            .get("/metrics")
            .await
            .unwrap()
            .text();
        for line in [
            r#"sluice_embedding_items_total{source="api",result="hit"} 6"#,
            r#"sluice_embedding_items_total{source="api",result="miss"} 5"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }

        // As the provider itself answers, without anything between.
        let whole = direct.post(PATH, &mixed).await.unwrap();
        for told in [&part, &hit] {
            assert_eq!(plain(told), plain(&whole));
        }
        stack.check_no_trap().await.unwrap();
    }
}

#[tokio::test]
async fn three_hundred_inputs_are_kept_and_told_at_once() {
    let mut setup = Setup::with(json!({"cache": caching()}));
    setup.concurrency = 1;
    let stack = Stack::start(setup).await.unwrap();
    let client = stack.client();
    let mut sent = 0;
    let inputs = |from: usize| -> Vec<String> {
        (from..from + 300)
            .map(|n| format!("passage number {n}"))
            .collect()
    };
    let request = |from| json!({"model": "text-embedding-3-small", "input": inputs(from), "encoding_format": "base64"});
    let first = ask(&stack, &client, &request(0), &mut sent).await;
    assert_eq!((first.status, cache(&first)), (200, "miss"));
    let again = ask(&stack, &client, &request(0), &mut sent).await;
    assert_eq!(cache(&again), "hit");
    assert_eq!(again.json(), first.json(), "base64 is base64");
    let moved = ask(&stack, &client, &request(10), &mut sent).await;
    assert_eq!((moved.status, cache(&moved)), (200, "partial"));
    let seen = stack.provider().last_request().unwrap().json();
    assert_eq!(seen["input"].as_array().unwrap().len(), 10);
    assert_eq!(moved.json()["data"].as_array().unwrap().len(), 300);
    assert_eq!(
        moved.json()["data"][0]["embedding"],
        first.json()["data"][10]["embedding"]
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_used_up_budget_does_not_refuse_what_costs_nothing() {
    let mut setup = Setup::with(json!({"cache": caching()}));
    let budget = json!([{"per": "tenant", "tokens": 4, "every": "day", "over": "reject"}]);
    merge(&mut setup.config, json!({"budgets": budget}));
    let stack = Stack::start(setup).await.unwrap();
    let client = stack.client();
    let mut sent = 0;
    let first = ask(
        &stack,
        &client,
        &body(json!("one two three four")),
        &mut sent,
    )
    .await;
    assert_eq!(first.status, 200, "{}", first.text());
    let more = ask(
        &stack,
        &client,
        &body(json!(["one two three four", "five"])),
        &mut sent,
    )
    .await;
    assert_eq!(more.status, 429, "{}", more.text());
    let again = ask(
        &stack,
        &client,
        &body(json!(["one two three four"])),
        &mut sent,
    )
    .await;
    assert_eq!((again.status, cache(&again)), (200, "hit"));
}

/// A provider that may leave out the last vector.
async fn forgetful() -> (SocketAddr, Arc<AtomicBool>) {
    async fn answer(State(forgets): State<Arc<AtomicBool>>, body: String) -> impl IntoResponse {
        let body: Value = serde_json::from_str(&body).unwrap();
        let inputs = body["input"].as_array().unwrap().len();
        let told = inputs - usize::from(forgets.load(Ordering::SeqCst));
        let element =
            |index| json!({"object": "embedding", "index": index, "embedding": [0.5, -0.25]});
        let data: Vec<Value> = (0..told).map(element).collect();
        let usage = json!({"prompt_tokens": inputs, "total_tokens": inputs});
        let answer = json!({"object": "list", "data": data, "model": "m", "usage": usage});
        (
            [(header::CONTENT_TYPE, "application/json")],
            answer.to_string(),
        )
    }
    let forgets = Arc::new(AtomicBool::new(false));
    let app = Router::new().fallback(answer).with_state(forgets.clone());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, forgets)
}

#[tokio::test]
async fn a_short_answer_to_a_part_is_an_error_and_the_next_try_asks_for_all() {
    let (address, forgets) = forgetful().await;
    let mut setup = Setup::with(json!({"cache": caching()}));
    setup.upstream = Some(Upstream::Plain(address));
    setup.concurrency = 1;
    let stack = Stack::start(setup).await.unwrap();
    let client = stack.client();
    let mut sent = 0;
    let request = |input| json!({"model": "text-embedding-3-small", "input": input});
    ask(&stack, &client, &request(json!(["a", "z"])), &mut sent).await;

    forgets.store(true, Ordering::SeqCst);
    let short = ask(&stack, &client, &request(json!(["a", "b", "c"])), &mut sent).await;
    assert_eq!(short.status, 502, "{}", short.text());
    assert_eq!(short.json()["error"]["code"], "embeddings_not_joined");
    assert_eq!(cache(&short), "partial");

    forgets.store(false, Ordering::SeqCst);
    let whole = ask(&stack, &client, &request(json!(["a", "b", "c"])), &mut sent).await;
    assert_eq!(
        (whole.status, cache(&whole)),
        (200, "miss"),
        "{}",
        whole.text()
    );
    assert_eq!(whole.json()["data"].as_array().unwrap().len(), 3);
    let again = ask(&stack, &client, &request(json!(["c", "b"])), &mut sent).await;
    assert_eq!(cache(&again), "hit");

    let records = stack.settled(sent).await.unwrap();
    let failed = &records[1];
    assert_eq!((failed.status, failed.outcome), (502, Outcome::Aborted));
    assert!(failed.cost.unwrap().0 > 0, "the provider is paid for it");
    eventually(Duration::from_secs(20), async || {
        let metrics = stack.envoy().metrics().await.map_err(|it| it.to_string())?;
        match metrics.sum("sluice.cache_unjoined", &[("result", "count")]) {
            1 => Ok(()),
            other => Err(format!("{other} unjoined")),
        }
    })
    .await
    .unwrap();
    stack.check_no_trap().await.unwrap();
}
