//! The harness itself: Envoy without the filter stands between client and provider.

use serde_json::json;
use sluice_tests::provider::Fault;
use sluice_tests::stack::{Setup, Stack};

fn bare() -> Setup {
    Setup {
        filter: false,
        sidecars: 0,
        ..Setup::default()
    }
}

#[tokio::test]
async fn bare_envoy_passes_answers_and_streams_on() {
    let stack = Stack::start(bare()).await.unwrap();
    let provider = stack.provider();
    let mut body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "What is a mortgage?"}]});
    let whole = stack
        .client()
        .post("/v1/chat/completions", &body)
        .await
        .unwrap();
    assert_eq!(whole.status, 200, "{}", whole.text());
    body["stream"] = json!(true);
    let streamed = stack
        .client()
        .post("/v1/chat/completions", &body)
        .await
        .unwrap();
    assert_eq!(whole.said(), streamed.said());
    assert_eq!(provider.last_request().unwrap().body, body.to_string());
    assert_eq!(provider.stats().total.requests, 2);
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(metrics.sum("cluster.provider.upstream_rq_2xx", &[]), 2);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn bare_envoy_shows_a_broken_stream_as_broken() {
    let stack = Stack::start(bare()).await.unwrap();
    stack.provider().fault(Fault {
        reset_after_chunks: Some(3),
        ..Fault::default()
    });
    let body =
        json!({"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "Hi"}]});
    let response = stack
        .client()
        .open("/v1/chat/completions", &body)
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap_err();
}

#[tokio::test]
async fn bare_envoy_takes_eight_megabytes() {
    let stack = Stack::start(bare()).await.unwrap();
    let text = "lorem ipsum ".repeat(700_000);
    let body =
        json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": text}]}).to_string();
    let answer = stack
        .client()
        .post_bytes("/v1/chat/completions", body.clone())
        .await
        .unwrap();
    // More tokens than the model reads; what counts is that all of it arrived.
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(
        stack
            .provider
            .as_ref()
            .unwrap()
            .last_request()
            .unwrap()
            .body,
        body
    );
}
