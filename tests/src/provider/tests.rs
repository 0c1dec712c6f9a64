//! The stand-in keeps the promises that everything else is measured by.

use serde_json::{Value, json};

use super::*;
use crate::client::unpacked;

async fn provider() -> Provider {
    Provider::start(Config::default()).await.unwrap()
}

async fn post(provider: &Provider, path: &str, body: &Value) -> reqwest::Response {
    reqwest::Client::new()
        .post(format!("{}{path}", provider.url()))
        .bearer_auth("sk-test")
        .header("anthropic-version", "2023-06-01")
        .json(body)
        .send()
        .await
        .unwrap()
}

fn chat(text: &str) -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": text}]})
}

fn events(stream: &str) -> Vec<Value> {
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn prompt_tokens_follow_the_cookbook() {
    let provider = provider().await;
    // The cookbook's example for gpt-4o: 124 tokens.
    let body = json!({"model": "gpt-4o", "messages": [
        {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
        {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
        {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
        {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
        {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
        {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
    ]});
    let answer: Value = post(&provider, "/v1/chat/completions", &body)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(answer["usage"]["prompt_tokens"], 124);
}

#[tokio::test]
async fn completion_tokens_are_those_of_the_text() {
    let provider = provider().await;
    let answer: Value = post(&provider, "/v1/chat/completions", &chat("Explain DNS."))
        .await
        .json()
        .await
        .unwrap();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let counted = tiktoken_rs::o200k_base_singleton()
        .encode_ordinary(text)
        .len();
    assert_eq!(answer["usage"]["completion_tokens"], counted);
    assert!(counted > 100, "an explanation runs to some length: {text}");
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says_in_single_tokens() {
    let provider = provider().await;
    for (path, body) in [
        ("/v1/chat/completions", chat("Warum ist der Himmel blau? 🌤")),
        (
            "/v1/completions",
            json!({"model": "gpt-3.5-turbo-instruct", "prompt": "Once upon", "max_tokens": 50}),
        ),
        (
            "/v1/responses",
            json!({"model": "gpt-4o", "input": "Tell me about tides."}),
        ),
        (
            "/v1/messages",
            json!({"model": "claude-haiku-4-5", "max_tokens": 500, "messages": [{"role": "user", "content": "Tell me about tides."}]}),
        ),
    ] {
        let whole: Value = post(&provider, path, &body).await.json().await.unwrap();
        let mut streamed = body.clone();
        streamed["stream"] = json!(true);
        let stream = post(&provider, path, &streamed).await.text().await.unwrap();
        let texts = [
            "/choices/0/message/content",
            "/choices/0/text",
            "/output/0/content/0/text",
            "/content/0/text",
        ];
        let text = texts
            .iter()
            .find_map(|at| whole.pointer(at))
            .unwrap()
            .as_str()
            .unwrap();
        let said: String = events(&stream)
            .iter()
            .filter_map(|event| match event["type"].as_str() {
                Some("response.output_text.delta") => event["delta"].as_str(),
                Some("content_block_delta") => event["delta"]["text"].as_str(),
                Some(_) => None,
                None => event
                    .pointer("/choices/0/delta/content")
                    .or(event.pointer("/choices/0/text"))?
                    .as_str(),
            })
            .collect();
        assert_eq!(said, text, "{path}");
        assert_eq!(
            stream.ends_with("data: [DONE]\n\n"),
            path.contains("completions"),
            "{path}"
        );
    }
    let stats = provider.stats();
    assert_eq!(stats.total.requests, 8);
    assert_eq!(stats.aborted.requests, 0);
}

#[tokio::test]
async fn usage_in_a_stream_comes_only_when_it_is_asked_for() {
    let provider = provider().await;
    let mut body = chat("Hello there");
    body["stream"] = json!(true);
    let plain = post(&provider, "/v1/chat/completions", &body)
        .await
        .text()
        .await
        .unwrap();
    assert!(!plain.contains("usage"), "{plain}");
    body["stream_options"] = json!({"include_usage": true});
    let stream = post(&provider, "/v1/chat/completions", &body)
        .await
        .text()
        .await
        .unwrap();
    let events = events(&stream);
    let (last, others) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        last["usage"]["prompt_tokens"],
        provider.stats().total.prompt / 2
    );
    assert!(
        others
            .iter()
            .all(|event| event["usage"].is_null() && event.get("usage").is_some())
    );
}

#[tokio::test]
async fn a_limit_cuts_the_answer_to_a_prefix_of_the_whole() {
    let provider = provider().await;
    let mut body = chat("Explain tides in detail");
    let whole: Value = post(&provider, "/v1/chat/completions", &body)
        .await
        .json()
        .await
        .unwrap();
    body["max_tokens"] = json!(11);
    let cut: Value = post(&provider, "/v1/chat/completions", &body)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(cut["usage"]["completion_tokens"], 11);
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    let text = |answer: &Value| {
        answer["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(text(&whole).starts_with(&text(&cut)));
}

#[tokio::test]
async fn long_prompts_seen_before_are_discounted_in_steps_of_128() {
    let provider = provider().await;
    let manual = "Every valve is closed by turning it clockwise until it stops. ".repeat(120);
    let ask = |question: &str| {
        json!({"model": "gpt-4o", "messages": [
            {"role": "system", "content": manual},
            {"role": "user", "content": question},
        ]})
    };
    let cached = async |question: &str| {
        let answer: Value = post(&provider, "/v1/chat/completions", &ask(question))
            .await
            .json()
            .await
            .unwrap();
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(cached("How?").await, 0);
    let second = cached("Which way?").await;
    assert!(second >= 1024 && second % 128 == 0, "{second}");
    let stats = provider.stats();
    assert_eq!(stats.total.cached, second);
    let list = stats.total.prompt as i64 * 2_500_000 - second as i64 * 1_250_000
        + stats.total.completion as i64 * 10_000_000;
    assert_eq!(stats.total.picodollars, Some(list));
}

const MINUTE: u64 = 60_000;

/// Sends a request at that time, and tells what was read from the prefix cache and written to it.
async fn discount(provider: &Provider, path: &str, (body, at): (&Value, u64)) -> (u64, u64) {
    let before = provider.stats().total;
    let answer = reqwest::Client::new()
        .post(format!("{}{path}", provider.url()))
        .bearer_auth("sk-test")
        .header("anthropic-version", "2023-06-01")
        .header(CLOCK_HEADER, at)
        .json(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let after = provider.stats().total;
    (
        after.cached - before.cached,
        after.cache_write - before.cache_write,
    )
}

/// About 1,400 tokens.
fn manual() -> String {
    "Every valve is closed by turning it clockwise until it stops. ".repeat(120)
}

#[tokio::test]
async fn a_prefix_is_forgotten_a_while_after_its_last_use() {
    let provider = provider().await;
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": manual()}]});
    let read = async |at: u64| {
        let asked = (&body, at * MINUTE);
        discount(&provider, "/v1/chat/completions", asked).await.0 > 0
    };
    assert!(!read(100).await);
    assert!(read(105).await);
    assert!(read(110).await, "using it keeps it");
    assert!(!read(116).await);
}

/// A conversation of so many exchanges with Claude, with marks at these messages.
fn marked(exchanges: usize, marks: &[usize]) -> Value {
    let mut messages = Vec::new();
    for at in 0..2 * exchanges - 1 {
        let mut block = json!({"type": "text", "text": format!("message {at}")});
        if marks.contains(&at) {
            block["cache_control"] = json!({"type": "ephemeral"});
        }
        let role = if at % 2 == 0 { "user" } else { "assistant" };
        messages.push(json!({"role": role, "content": [block]}));
    }
    json!({"model": "claude-sonnet-4-5", "max_tokens": 5, "system": manual(), "messages": messages})
}

#[tokio::test]
async fn claude_reads_up_to_a_mark_what_an_earlier_mark_wrote() {
    let provider = provider().await;
    let ask = async |body: &Value| discount(&provider, "/v1/messages", (body, MINUTE)).await;
    assert_eq!(ask(&marked(1, &[])).await, (0, 0), "nothing without a mark");
    let (read, first) = ask(&marked(1, &[0])).await;
    assert_eq!(read, 0);
    assert!(first > 1024, "{first}");
    let (read, more) = ask(&marked(2, &[2])).await;
    assert_eq!(read, first, "found looking back from a later mark");
    assert!((1..40).contains(&more), "{more}");
    // Of the twenty blocks that end at message 21, message 2 is the first.
    assert_eq!(ask(&marked(12, &[21])).await.0, first + more);
    provider.clear();
    ask(&marked(1, &[0])).await;
    assert_eq!(ask(&marked(12, &[22])).await.0, 0, "too far to look back");
    assert_eq!(ask(&marked(12, &[0])).await.0, first, "it is there still");
}

#[tokio::test]
async fn claude_neither_reads_nor_writes_what_is_too_short_and_takes_four_marks() {
    let provider = provider().await;
    let mut body = marked(1, &[0]);
    body["model"] = json!("claude-haiku-4-5");
    for _ in 0..2 {
        assert_eq!(
            discount(&provider, "/v1/messages", (&body, 1)).await,
            (0, 0)
        );
    }
    let refused = post(&provider, "/v1/messages", &marked(3, &[0, 1, 2, 3, 4])).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("Found 5"));
}

#[tokio::test]
async fn reasoning_counts_as_completion() {
    let provider = provider().await;
    let mut body = chat("Solve x^2 = 49.");
    body["model"] = json!("o4-mini");
    let answer: Value = post(&provider, "/v1/chat/completions", &body)
        .await
        .json()
        .await
        .unwrap();
    let usage = &answer["usage"];
    let reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
        .as_u64()
        .unwrap();
    assert!(reasoning >= 64 && usage["completion_tokens"].as_u64().unwrap() > reasoning);
    body["max_tokens"] = json!(50);
    assert_eq!(
        post(&provider, "/v1/chat/completions", &body)
            .await
            .status(),
        400
    );
}

#[tokio::test]
async fn errors_have_the_providers_status_and_shape() {
    let provider = provider().await;
    let message = json!([{"role": "user", "content": "Hi"}]);
    for (path, body, status) in [
        (
            "/v1/chat/completions",
            json!({"model": "gpt-none", "messages": message}),
            404,
        ),
        (
            "/v1/chat/completions",
            json!({"model": "claude-haiku-4-5", "messages": message}),
            404,
        ),
        (
            "/v1/completions",
            json!({"model": "gpt-4o", "prompt": "Hi"}),
            404,
        ),
        ("/v1/chat/completions", json!({"model": "gpt-4o"}), 400),
        (
            "/v1/chat/completions",
            json!({"model": "gpt-4o", "messages": message, "max_tokens": 0}),
            400,
        ),
        (
            "/v1/chat/completions",
            json!({"model": "gpt-4o", "messages": message, "temperature": 3}),
            400,
        ),
        (
            "/v1/chat/completions",
            json!({"model": "gpt-4o", "messages": [{"role": "tool", "content": "x"}]}),
            400,
        ),
        (
            "/v1/messages",
            json!({"model": "claude-haiku-4-5", "messages": message}),
            400,
        ),
        (
            "/v1/messages",
            json!({"model": "gpt-4o", "messages": message, "max_tokens": 5}),
            404,
        ),
        (
            "/v1/embeddings",
            json!({"model": "text-embedding-3-small", "input": ""}),
            400,
        ),
        ("/v1/none", json!({}), 404),
    ] {
        let response = post(&provider, path, &body).await;
        assert_eq!(response.status(), status, "{path} {body}");
        let error: Value = response.json().await.unwrap();
        assert!(error["error"]["message"].is_string(), "{error}");
        let anthropic = path == "/v1/messages";
        assert_eq!(error["type"] == "error", anthropic, "{error}");
    }
    let bare = reqwest::Client::new().post(format!("{}/v1/chat/completions", provider.url()));
    let response = bare.json(&chat("Hi")).send().await.unwrap();
    assert_eq!(response.status(), 401);
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["code"], "invalid_api_key");
    assert_eq!(provider.stats().total.requests, 0, "errors are free");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_one_over_the_window_400() {
    let small = Config {
        max_body: 1000,
        ..Config::default()
    };
    let small = Provider::start(small).await.unwrap();
    assert_eq!(
        post(&small, "/v1/chat/completions", &chat(&"x ".repeat(1000)))
            .await
            .status(),
        413
    );
    let provider = provider().await;
    let response = post(
        &provider,
        "/v1/chat/completions",
        &chat(&"word ".repeat(129_000)),
    )
    .await;
    assert_eq!(response.status(), 400);
    assert!(
        response
            .text()
            .await
            .unwrap()
            .contains("maximum context length")
    );
}

#[tokio::test]
async fn faults_hit_as_many_requests_as_they_are_told() {
    let provider = provider().await;
    provider.fault(Fault {
        status: Some(429),
        times: Some(2),
        path: Some("/chat/completions".to_owned()),
        ..Fault::default()
    });
    let embed = json!({"model": "text-embedding-3-small", "input": "a", "dimensions": 8});
    assert_eq!(
        post(&provider, "/v1/embeddings", &embed).await.status(),
        200
    );
    for _ in 0..2 {
        let response = post(&provider, "/v1/chat/completions", &chat("Hi")).await;
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
    }
    assert_eq!(
        post(&provider, "/v1/chat/completions", &chat("Hi"))
            .await
            .status(),
        200
    );
    assert_eq!(provider.stats().errors[&429], 2);
}

#[tokio::test]
async fn a_broken_stream_is_booked_as_far_as_it_went() {
    let provider = provider().await;
    provider.fault(Fault {
        reset_after_chunks: Some(6),
        ..Fault::default()
    });
    let mut body = chat("Explain tides");
    body["stream"] = json!(true);
    let response = post(&provider, "/v1/chat/completions", &body).await;
    assert_eq!(response.status(), 200);
    response.text().await.unwrap_err();
    let stats = provider.stats();
    assert_eq!((stats.total.requests, stats.aborted.requests), (0, 1));
    assert_eq!(stats.aborted.completion, 5, "the role, then five tokens");
}

#[tokio::test]
async fn cuts_and_compression_change_no_byte_of_the_answer() {
    let provider = provider().await;
    let mut body = chat("Was heißt „Größe“? ✂️");
    body["stream"] = json!(true);
    let plain = post(&provider, "/v1/chat/completions", &body)
        .await
        .text()
        .await
        .unwrap();
    provider.fault(Fault {
        cut_bytes: Some(3),
        ..Fault::default()
    });
    let cut = post(&provider, "/v1/chat/completions", &body)
        .await
        .text()
        .await
        .unwrap();
    let text = |stream: &str| -> Vec<Value> {
        events(stream)
            .iter()
            .map(|event| event["choices"].clone())
            .collect()
    };
    assert_eq!(text(&cut), text(&plain));
    for (accepted, coding) in [
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("br;q=0.9, gzip", "gzip"),
        ("gzip;q=0, br;q=0.1", "br"),
    ] {
        let response = reqwest::Client::new()
            .post(format!("{}/v1/chat/completions", provider.url()))
            .bearer_auth("sk-test")
            .header("accept-encoding", accepted)
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["content-encoding"], coding);
        let packed = response.bytes().await.unwrap();
        assert_eq!(text(&unpacked(coding, &packed).unwrap()), text(&plain));
    }
}

#[tokio::test]
async fn what_was_sent_is_kept_byte_for_byte() {
    let provider = provider().await;
    let body = "{ \"model\" :\"gpt-4o\", \"zebra\": 1e2,\n\"messages\":[{\"role\":\"user\",\"content\":\"\\u0041\"}] }";
    let request =
        reqwest::Client::new().post(format!("{}/v1/chat/completions?a=b", provider.url()));
    let response = request.bearer_auth("sk-1").body(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = provider.last_request().unwrap();
    assert_eq!(
        (seen.body.as_ref(), seen.path.as_str()),
        (body.as_bytes(), "/v1/chat/completions?a=b")
    );
    assert_eq!(seen.header("authorization"), Some("Bearer sk-1"));
    let told: Value = reqwest::get(format!("{}/_requests?n=1", provider.url()))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(told[0]["body"], body);
}

#[test]
fn a_model_without_a_price_has_no_cost_and_a_table_may_be_a_config() {
    let config = json!({"mode": "on", "models": {"gpt-4o": {"encoding": "o200k_base", "input": 2.5, "output": 10}}});
    let catalog = Catalog::priced_by(&config).unwrap();
    let usage = sluice_wire::Usage {
        prompt: 3,
        cached: 1,
        completion: 2,
        ..Default::default()
    };
    assert_eq!(
        catalog.cost("gpt-4o", &usage).unwrap().to_string(),
        "0.0000275"
    );
    assert_eq!(catalog.cost("gpt-4o-mini", &usage), None);
    assert!(Catalog::priced_by(&json!({"models": [1]})).is_err());
}
