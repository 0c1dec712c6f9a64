//! Hostile bodies, garbage, sizes past every limit, bad configs: declared outcomes, and no trap.

use serde_json::{Value, json};
use sluice_tests::provider::Fault;
use sluice_tests::requests::{CHAT, EASY, MESSAGES, chat};
use sluice_tests::stack::{Setup, Stack, caching, tiers};

#[tokio::test]
async fn garbage_from_upstream_passes_as_it_is() {
    let stack = Stack::start(Setup::with(json!({"route": tiers(), "cache": caching()})))
        .await
        .unwrap();
    for body in [
        chat(EASY),
        CHAT.streamed(EASY),
        MESSAGES.request(EASY),
        MESSAGES.streamed(EASY),
    ] {
        let path = if body.get("max_tokens").is_some() {
            MESSAGES.path
        } else {
            CHAT.path
        };
        stack.provider().fault(Fault {
            garbage: true,
            ..Fault::default()
        });
        let answer = stack.client().post(path, &body).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(
            answer.body.starts_with(b"\xff\xfe<html>"),
            "{:?}",
            answer.body
        );
    }
    for record in stack.settled(4).await.unwrap() {
        assert!(record.estimated, "{record:?}");
    }
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn hostile_bodies_cost_no_vm() {
    let limits = json!({"request_body": "8MiB", "response_body": "4MiB", "on_failure": "open"});
    let config = json!({"route": tiers(), "cache": caching(), "limits": limits, "trim": {"mode": "on", "input_tokens": {"limit": 50_000_000, "over": "reject"}}});
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let quoted = |text: &str| {
        json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": text}]})
            .to_string()
            .into_bytes()
    };
    let nested = |open: &str, close: &str, depth: usize| {
        format!(
            "{{\"model\":\"gpt-4o\",\"messages\":{}1{}}}",
            open.repeat(depth),
            close.repeat(depth)
        )
        .into_bytes()
    };
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("one byte", vec![b'{']),
        ("zeros", vec![0; 100_000]),
        ("100,000 arrays deep", nested("[", "]", 100_000)),
        ("100,000 objects deep", nested("{\"a\":", "}", 100_000)),
        ("100,000 messages", format!("{{\"model\":\"gpt-4o\",\"messages\":[{}1]}}", "{\"role\":\"user\",\"content\":\"a\"},".repeat(100_000)).into_bytes()),
        ("a run of one letter", quoted(&"a".repeat(2_000_000))),
        ("control characters", quoted(&"\u{1}\u{7f}\u{202e}".repeat(10_000))),
        ("lone surrogates", br#"{"model":"gpt-4o","messages":[{"role":"user","content":"\ud800\udc00\ud800 \udfff"}]}"#.to_vec()),
        ("huge numbers", br#"{"model":"gpt-4o","max_tokens":1e400,"n":99999999999999999999,"temperature":-1e-400,"messages":[{"role":"user","content":"Hi"}]}"#.to_vec()),
        ("fields twice", br#"{"model":"gpt-4o","model":"gpt-4o-mini","stream":true,"stream":"yes","messages":[],"messages":[{"role":"user","content":"Hi"}]}"#.to_vec()),
        ("7.9 MB", quoted(&"lorem ipsum dolor ".repeat(440_000))),
        ("9 MB", quoted(&"lorem ipsum dolor ".repeat(500_000))),
    ];
    for (name, body) in bodies {
        for path in [
            CHAT.path,
            MESSAGES.path,
            "/v1/responses",
            "/v1/completions",
            "/v1/embeddings",
        ] {
            if body.len() > 1_000_000 && path != CHAT.path {
                continue;
            }
            let answer = stack.client().post_bytes(path, body.clone()).await.unwrap();
            assert!(
                (200..500).contains(&answer.status),
                "{name} on {path}: {} {}",
                answer.status,
                answer.text()
            );
        }
        stack.check_no_trap().await.unwrap();
    }
    let answer = stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("x-sluice-tier")),
        (200, Some("small")),
        "business as usual"
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_body_over_the_limit_passes_unread_or_is_refused_as_configured() {
    let big = chat(&"lorem ipsum ".repeat(20_000)).to_string();
    for (on_failure, expected) in [("open", 200), ("closed", 413)] {
        let limits =
            json!({"request_body": "64KiB", "response_body": "4MiB", "on_failure": on_failure});
        let stack = Stack::start(Setup::with(json!({"route": tiers(), "limits": limits})))
            .await
            .unwrap();
        let answer = stack
            .client()
            .post_bytes(CHAT.path, big.clone())
            .await
            .unwrap();
        assert_eq!(answer.status, expected, "{}", answer.text());
        // The same without a declared length.
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(
            big.clone()
                .into_bytes()
                .chunks(10_000)
                .map(|part| Ok::<_, std::io::Error>(part.to_vec()))
                .collect::<Vec<_>>(),
        ));
        let response = stack
            .client()
            .request("POST", CHAT.path)
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), expected);
        if expected == 413 {
            let error: Value = response.json().await.unwrap();
            assert_eq!(error["error"]["code"], "request_too_large");
            assert_eq!(stack.provider().stats().http_requests, 0);
        } else {
            for seen in stack.provider().requests(2) {
                assert_eq!(seen.body, big);
            }
        }
        stack.check_no_trap().await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_over_the_limit_streams_through_and_is_accounted() {
    let limits = json!({"request_body": "8MiB", "response_body": "16KiB", "on_failure": "open"});
    let stack = Stack::start(Setup::with(json!({"cache": caching(), "limits": limits})))
        .await
        .unwrap();
    let texts: Vec<String> = (0..40)
        .map(|number| format!("sentence number {number}"))
        .collect();
    let body = json!({"model": "text-embedding-3-small", "input": texts});
    // Once with a length that tells it, once without.
    for cut_bytes in [None, Some(5000)] {
        stack.provider().fault(Fault {
            cut_bytes,
            ..Fault::default()
        });
        let answer = stack.client().post("/v1/embeddings", &body).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body.len() > 500_000);
        assert_eq!(answer.json()["data"].as_array().unwrap().len(), 40);
    }
    stack.settled(2).await.unwrap();
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_compressed_answer_is_prevented_by_asking_for_a_plain_one() {
    let stack = Stack::start(Setup::with(json!({"cache": caching()})))
        .await
        .unwrap();
    let client = stack.client().with("accept-encoding", "gzip, br");
    let answer = client.post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("content-encoding")),
        (200, None)
    );
    stack.settled(1).await.unwrap();
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_bad_config_is_refused_with_the_path_of_its_fault() {
    for (change, path) in [
        (
            json!({"route": {"tiers": [{"name": "small", "below": 1.3, "model": "gpt-4o-mini"}]}}),
            "route.tiers",
        ),
        (
            json!({"cache": {"exact": {"ttl": "soon"}}}),
            "cache.exact.ttl",
        ),
        (json!({"batch": {"mode": "on"}}), "batch"),
        (
            json!({"sidecar": {"secret": "env:NOT_SET_ANYWHERE"}}),
            "sidecar.secret",
        ),
    ] {
        let setup = Setup {
            sidecars: 0,
            ..Setup::with(change)
        };
        let error = format!("{:#}", Stack::start(setup).await.unwrap_err());
        assert!(error.contains(path), "expected {path} in: {error}");
    }
}

#[tokio::test]
async fn a_bad_config_on_reload_leaves_the_last_good_one_in_force() {
    let mut stack = Stack::start(Setup::with(json!({"route": tiers()})))
        .await
        .unwrap();
    let tier = async |stack: &Stack| {
        let answer = stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.header("x-sluice-tier").map(str::to_owned)
    };
    assert_eq!(tier(&stack).await.as_deref(), Some("small"));
    let mut bad = stack.config.clone();
    bad["route"]["tiers"][0]["below"] = json!(7);
    assert!(!stack.envoys[0].reload(bad).await.unwrap(), "refused");
    assert!(
        stack.envoy().log().contains("route.tiers[0].below"),
        "{}",
        stack.envoy().log()
    );
    for _ in 0..8 {
        assert_eq!(
            tier(&stack).await.as_deref(),
            Some("small"),
            "on every worker"
        );
    }
    let mut good = stack.config.clone();
    good["route"]["pin"] = json!(true);
    assert!(
        stack.envoys[0].reload(good).await.unwrap(),
        "{}",
        stack.envoy().log()
    );
    // Connections of the old listener drain; a new client has none.
    assert_eq!(tier(&stack).await, None);
    stack.check_no_trap().await.unwrap();
}
