//! What Sluice does not touch leaves byte for byte as it came, and comes back so.

use serde_json::json;
use sluice_tests::requests::{APIS, CHAT, EASY, STREAMING, chat};
use sluice_tests::stack::{Setup, Stack, caching, tiers};

/// A body whose every byte is a choice that a parser and printer would not repeat.
fn peculiar() -> String {
    concat!(
        "{ \"zebra\" : 1.50e2,\t\"model\":\"gpt-4o\",\r\n \"messages\" : [ {\"content\":\"\\u0041\\/ caf\u{e9} \\ud83d\\ude00\",",
        "\"role\":\"user\", \"x_unknown\":[null , true]} ],\"seed\":7 , \"temperature\":0.70,\"alpha\":{} }\n"
    )
    .to_owned()
}

#[tokio::test]
async fn with_every_lever_off_bodies_headers_and_answers_pass_untouched_and_are_accounted() {
    let stack = Stack::start(Setup::default()).await.unwrap();
    let client = stack.client().with("accept-encoding", "gzip;q=0.5");
    let answer = client.post_bytes(CHAT.path, peculiar()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = stack.provider().last_request().unwrap();
    assert_eq!(seen.body, peculiar());
    assert_eq!(seen.header("accept-encoding"), Some("gzip;q=0.5"));
    assert_eq!(
        seen.header("content-length"),
        Some(peculiar().len().to_string().as_str())
    );
    assert!(
        !seen
            .headers
            .iter()
            .any(|(name, _)| name.starts_with("x-sluice-")),
        "{:?}",
        seen.headers
    );

    let mut sent = 1;
    for api in APIS {
        let body = api.request(EASY).to_string();
        let answer = client.post_bytes(api.path, body.clone()).await.unwrap();
        assert_eq!(answer.status, 200, "{}: {}", api.name, answer.text());
        assert_eq!(
            stack.provider().last_request().unwrap().body,
            body,
            "{}",
            api.name
        );
        sent += 1;
    }
    for api in STREAMING {
        let body = api.streamed(EASY).to_string();
        let answer = client.post_bytes(api.path, body.clone()).await.unwrap();
        assert_eq!(answer.status, 200, "{}: {}", api.name, answer.text());
        assert_eq!(
            stack.provider().last_request().unwrap().body,
            body,
            "{}: no usage is asked for",
            api.name
        );
        sent += 1;
    }
    let records = stack.settled(sent).await.unwrap();
    for record in &records {
        assert_eq!(record.model, record.model_asked);
        assert_eq!(record.saved.total(), sluice_wire::Usd::ZERO);
    }
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn what_is_no_llm_request_passes_through_active_levers() {
    let stack = Stack::start(Setup::with(json!({"route": tiers(), "cache": caching()})))
        .await
        .unwrap();
    let (client, provider) = (stack.client(), stack.provider());
    let models = client.get("/v1/models").await.unwrap();
    assert_eq!(models.status, 200);
    let bodies: [(&str, Vec<u8>); 8] = [
        ("/v1/files", peculiar().into_bytes()),
        ("/v1/chat/completions/extra", peculiar().into_bytes()),
        (CHAT.path, b"{\"model\": \"gpt-4o\", \"messages\": [".to_vec()),
        (CHAT.path, b"[1, 2, 3]".to_vec()),
        (CHAT.path, b"plain text".to_vec()),
        (CHAT.path, b"{\"model\": \"gpt-4o\", \"messages\": [{\"role\": \"user\", \"content\": \"\xff\xfe\"}]}".to_vec()),
        (CHAT.path, b"{}".to_vec()),
        (CHAT.path, Vec::new()),
    ];
    for (path, body) in bodies {
        let answer = client.post_bytes(path, body.clone()).await.unwrap();
        assert!(
            (400..500).contains(&answer.status),
            "the provider's own refusal, not {}",
            answer.status
        );
        let seen = provider.last_request().unwrap();
        assert_eq!((seen.path.as_str(), &seen.body[..]), (path, &body[..]));
    }
    // A compressed request cannot be read; it is the provider's to refuse.
    let request = client
        .request("POST", CHAT.path)
        .header("content-encoding", "gzip");
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
    let response = request.body(packed.clone()).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(provider.last_request().unwrap().body, packed);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn dry_levers_change_no_byte_and_tell_what_they_would_have_saved() {
    let mut route = tiers();
    route["mode"] = json!("dry");
    let mut cache = caching();
    cache["mode"] = json!("dry");
    let trim = json!({"mode": "dry", "input_tokens": {"limit": 10, "over": "reject"}});
    let stack = Stack::start(Setup::with(
        json!({"route": route, "cache": cache, "trim": trim}),
    ))
    .await
    .unwrap();
    let long = format!(
        "{EASY} Please look it up for the branch in Leeds, the one next to the market hall."
    );
    let body = chat(&long).to_string();
    for sent in 1..=2 {
        let answer = stack
            .client()
            .post_bytes(CHAT.path, body.clone())
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = stack.provider().last_request().unwrap();
        assert_eq!(seen.body, body);
        assert_eq!(seen.header("x-sluice-tier"), None);
        // The second must find the first one's answer: wait until it is stored.
        stack.settled(sent).await.unwrap();
    }
    let mut streamed = chat(&long);
    streamed["stream"] = json!(true);
    stack.client().post(CHAT.path, &streamed).await.unwrap();
    assert_eq!(
        stack.provider().last_request().unwrap().body,
        streamed.to_string()
    );
    let records = stack.settled(3).await.unwrap();
    assert_eq!(
        stack.provider().stats().total.requests,
        3,
        "nothing came from the cache"
    );
    for record in &records {
        assert_eq!(
            (record.saved.total().0, record.model.as_str()),
            (0, "gpt-4o")
        );
    }
    assert!(records[0].would_save.route.0 > 0, "{:?}", records[0]);
    assert_eq!(records[0].would_save.cache.0, 0, "{:?}", records[0]);
    assert!(records[1].would_save.cache.0 > 0, "{:?}", records[1]);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn mode_dry_caps_levers_that_are_on_and_mode_off_leaves_a_route_alone() {
    let routes = json!([{"name": "quiet", "match": {"path": "/v1/embeddings"}, "mode": "off"}]);
    let config = json!({"mode": "dry", "route": tiers(), "cache": caching(), "routes": routes,
        "budgets": [{"per": "tenant", "tokens": 1, "every": "day", "over": "reject"}]});
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let body = peculiar();
    let answer = stack
        .client()
        .post_bytes(CHAT.path, body.clone())
        .await
        .unwrap();
    assert_eq!(
        answer.status,
        200,
        "a dry budget rejects nothing: {}",
        answer.text()
    );
    assert_eq!(stack.provider().last_request().unwrap().body, body);
    let embed = json!({"model": "text-embedding-3-small", "input": "a", "dimensions": 8});
    assert_eq!(
        stack
            .client()
            .post("/v1/embeddings", &embed)
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(
        stack
            .client()
            .post_bytes(CHAT.path, body)
            .await
            .unwrap()
            .status,
        200
    );
    let records = stack.settled(2).await.unwrap();
    assert!(
        records.iter().all(|record| record.endpoint == CHAT.name),
        "{records:?}"
    );
    stack.check_no_trap().await.unwrap();
}
