//! Ledger, Envoy's metrics, headers and the provider's own books tell the same, to the token.

use serde_json::{Value, json};
use sluice_tests::client::{TRAILER, unpacked};
use sluice_tests::provider::Fault;
use sluice_tests::requests::{CHAT, EASY, MESSAGES, STREAMING, chat};
use sluice_tests::stack::{INTERNAL, Setup, Stack, caching, tiers};
use sluice_tests::{tools, traffic};
use sluice_wire::{CacheResult, Outcome, Usd};

#[tokio::test]
async fn over_the_sample_traffic_every_book_agrees_and_every_saving_adds_up() {
    let config = json!({"route": tiers(), "cache": caching(), "models": {"gpt-4.1": {"encoding": "o200k_base", "input": 2, "cached_input": 0.5, "output": 8}}});
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let text = std::fs::read_to_string(tools::root().join("examples/traffic.jsonl")).unwrap();
    let requests = traffic::read(&text).unwrap();
    let (mut costs, mut saved) = (Usd::ZERO, Usd::ZERO);
    let read = |value: Option<&str>| Usd::from_dollars(value.unwrap().parse().unwrap());
    // Twice, the second time with everything settled: then whatever can be stored is.
    for pass in 1..=2 {
        for request in &requests {
            let mut client = stack.internal();
            for (name, value) in &request.headers {
                client = client.with(name, value);
            }
            let answer = client.post(&request.path, &request.body).await.unwrap();
            assert_eq!(answer.status, 200, "{}: {}", request.body, answer.text());
            if request.body["stream"] != true {
                costs += read(answer.header("x-sluice-cost"));
                saved += read(answer.header("x-sluice-saved"));
            }
        }
        stack.settled(requests.len() * pass).await.unwrap();
    }
    let records = stack.settled(requests.len() * 2).await.unwrap();
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    let mut whole = (Usd::ZERO, Usd::ZERO);
    for record in &records {
        assert_eq!(record.outcome, Outcome::Answered, "{record:?}");
        assert!(!record.estimated, "{record:?}");
        let (as_asked, cost) = (record.as_asked.unwrap(), record.cost.unwrap());
        assert_eq!(as_asked - cost, record.saved.total(), "{record:?}");
        if record.cache == CacheResult::Hit {
            assert_eq!(cost, Usd::ZERO);
        }
        if !record.stream {
            whole.0 += cost;
            whole.1 += record.saved.total();
        }
    }
    assert_eq!(
        (costs, saved),
        whole,
        "the headers tell what the ledger tells"
    );
    assert!(
        records
            .iter()
            .filter(|record| record.cache == CacheResult::Hit)
            .count()
            >= 60
    );
    for tenant in ["acme", "globex", "initech", "umbrella", "hooli"] {
        assert!(
            records.iter().any(|record| record.tenant == tenant),
            "{tenant}"
        );
    }
    for task in ["support", "coding", "extraction", "analysis", "research"] {
        assert!(records.iter().any(|record| record.task == task), "{task}");
    }
    assert!(records.iter().any(|record| record.conversation == "hr-881"));
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_dry_run_is_exact_on_what_providers_compress_for_official_clients() {
    let config = json!({"mode": "dry", "route": tiers(), "cache": caching()});
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let mut streamed = CHAT.streamed(EASY);
    streamed["stream_options"] = json!({"include_usage": true});
    let requests = [
        (CHAT.path, chat(EASY)),
        (CHAT.path, streamed),
        (MESSAGES.path, MESSAGES.request(EASY)),
        (MESSAGES.path, MESSAGES.streamed(EASY)),
    ];
    let mut sent = 0;
    // As httpx asks, without and with its optional decoders.
    for (accepted, coding) in [("gzip, deflate", "gzip"), ("gzip, deflate, br, zstd", "br")] {
        let client = stack.client().with("accept-encoding", accepted);
        for (path, body) in &requests {
            // Cut into packets that begin and end anywhere.
            stack.provider().fault(Fault {
                cut_bytes: Some(37),
                ..Fault::default()
            });
            let answer = client.post(path, body).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let seen = stack.provider().last_request().unwrap();
            assert_eq!(seen.header("accept-encoding"), Some(accepted));
            assert_eq!(seen.body, body.to_string());
            // Gzip's checksum and the ends of both tell that no byte is another.
            assert_eq!(answer.header("content-encoding"), Some(coding));
            let text = unpacked(coding, &answer.body).unwrap();
            let told = match body["stream"] == true {
                true => text.ends_with("\n\n") && text.contains("usage"),
                false => serde_json::from_str::<Value>(&text).unwrap()["usage"].is_object(),
            };
            assert!(told, "{text}");
            sent += 1;
            let record = &stack.settled(sent).await.unwrap()[sent - 1];
            assert_eq!(
                (record.estimated, record.outcome),
                (false, Outcome::Answered),
                "{path} {coding}: {record:?}"
            );
        }
    }
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    // What was stored is read again, whoever asks and however: the second half would have hit.
    for record in &stack.settled(sent).await.unwrap()[requests.len()..] {
        assert!(record.would_save.cache > Usd::ZERO, "{record:?}");
    }
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn usage_is_asked_for_upstream_and_hidden_from_clients_that_did_not_ask() {
    // Any lever that is on makes accounting exact on streams, too.
    let stack = Stack::start(Setup::with(json!({"cache": caching()})))
        .await
        .unwrap();
    let stream = CHAT.streamed(EASY);
    let answer = stack.client().post(CHAT.path, &stream).await.unwrap();
    let seen = stack.provider().last_request().unwrap().json();
    assert_eq!(seen["stream_options"]["include_usage"], true);
    let text = answer.text();
    let last = answer.events().pop().unwrap();
    assert_eq!(last.data, "[DONE]");
    for event in answer.events() {
        assert!(
            event.data == "[DONE]" || event.json()["choices"][0].is_object(),
            "no usage chunk: {text}"
        );
    }

    let mut asked = CHAT.streamed("And on Sundays?");
    asked["stream_options"] = json!({"include_usage": true, "x_future": 1});
    let answer = stack.client().post(CHAT.path, &asked).await.unwrap();
    assert_eq!(stack.provider().last_request().unwrap().json(), asked);
    let events = answer.events();
    assert!(events[events.len() - 2].json()["usage"]["completion_tokens"].is_u64());

    let mut refused = CHAT.streamed("And on holidays?");
    refused["stream_options"] = json!({"include_usage": false, "x_future": 1});
    stack.client().post(CHAT.path, &refused).await.unwrap();
    let seen = stack.provider().last_request().unwrap().json();
    assert_eq!(
        seen["stream_options"],
        json!({"include_usage": true, "x_future": 1})
    );
    stack.settled(3).await.unwrap();
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn streams_are_read_right_however_they_are_cut() {
    let stack = Stack::start(Setup::with(json!({"route": tiers()})))
        .await
        .unwrap();
    let mut sent = 0;
    for api in STREAMING {
        for cut in [1, 2, 3, 7, 64] {
            let text = format!("Was heißt „Öffnungszeiten“ auf 日本語? ({cut}) 🙂");
            stack.provider().fault(Fault {
                cut_bytes: Some(cut),
                ..Fault::default()
            });
            let answer = stack
                .client()
                .post(api.path, &api.streamed(&text))
                .await
                .unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let said = answer.said();
            assert!(
                said.len() > 20 && !said.contains('\u{fffd}'),
                "{}: {said}",
                api.name
            );
            sent += 1;
        }
    }
    let records = stack.settled(sent).await.unwrap();
    assert!(
        records
            .iter()
            .all(|record| !record.estimated && record.outcome == Outcome::Answered)
    );
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn cached_written_and_reasoning_tokens_are_priced_as_the_provider_prices_them() {
    let stack = Stack::start(Setup::default()).await.unwrap();
    let manual =
        "Close each valve clockwise until it stops, then turn it back by a quarter. ".repeat(120);
    for question in ["How?", "Which way?"] {
        let body = json!({"model": "gpt-4o", "messages": [
            {"role": "system", "content": manual}, {"role": "user", "content": question},
        ]});
        stack.client().post(CHAT.path, &body).await.unwrap();
        let mut body = MESSAGES.request(question);
        body["system"] =
            json!([{"type": "text", "text": manual, "cache_control": {"type": "ephemeral"}}]);
        body["stream"] = json!(question == "Which way?");
        stack.client().post(MESSAGES.path, &body).await.unwrap();
    }
    let mut thinking = chat("Solve x^2 = 49.");
    thinking["model"] = json!("o4-mini");
    stack.client().post(CHAT.path, &thinking).await.unwrap();
    let records = stack.settled(5).await.unwrap();
    let sum = |figure: fn(&sluice_wire::Usage) -> u64| {
        records
            .iter()
            .map(|record| figure(&record.usage))
            .sum::<u64>()
    };
    assert!(
        sum(|usage| usage.cached) > 2000
            && sum(|usage| usage.cache_write) > 1000
            && sum(|usage| usage.reasoning) >= 64
    );
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn an_unknown_price_is_unknown_and_missing_usage_is_an_estimate() {
    let stack = Stack::start(Setup::with(json!({"cache": caching()})))
        .await
        .unwrap();
    let mut body = chat(EASY);
    body["model"] = json!("gpt-4-turbo");
    let answer = stack.client().post(CHAT.path, &body).await.unwrap();
    assert_eq!(
        (
            answer.status,
            answer.header("x-sluice-cost"),
            answer.header("x-sluice-saved")
        ),
        (200, Some("unknown"), Some("unknown"))
    );
    stack.provider().fault(Fault {
        omit_usage: true,
        ..Fault::default()
    });
    let answer = stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("x-sluice-cost")),
        (200, Some("unknown"))
    );
    let records = stack.settled(2).await.unwrap();
    assert_eq!(
        (records[0].cost, records[0].as_asked, records[0].estimated),
        (None, None, false)
    );
    let guess = &records[1];
    assert!(guess.estimated && guess.cost.is_some(), "{guess:?}");
    let honest = stack.provider().stats().models["gpt-4o"].clone();
    let near = |guess: u64, honest: u64| guess.abs_diff(honest) * 2 <= honest;
    assert!(
        near(guess.usage.prompt, honest.prompt) && near(guess.usage.completion, honest.completion),
        "{guess:?} {honest:?}"
    );
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(
        metrics.sum("sluice.unpriced", &[]),
        1,
        "{:?}",
        metrics.about("sluice")
    );
    assert_eq!(metrics.sum("sluice.estimated", &[]), 1);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn control_headers_of_strangers_and_of_upstreams_are_removed() {
    let stack = Stack::start(Setup::with(json!({"route": tiers()})))
        .await
        .unwrap();
    let forged = [
        "x-sluice-task",
        "x-sluice-tier",
        "x-sluice-cache",
        "x-sluice-model",
        "x-sluice-deadline",
        "x-sluice-anything",
    ];
    let mut stranger = stack.client();
    for name in forged {
        stranger = stranger.with(name, "forged");
    }
    let lying = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    stack.provider().fault(Fault {
        headers: [
            lying("x-sluice-cost", "1000"),
            lying("x-sluice-cache", "hit"),
            lying("x-sluice-other", "x"),
            lying("x-plain", "kept"),
        ]
        .into(),
        ..Fault::default()
    });
    let answer = stranger.post(CHAT.path, &chat(EASY)).await.unwrap();
    let seen = stack.provider().last_request().unwrap();
    for (name, value) in &seen.headers {
        assert!(
            !(name.starts_with("x-sluice-") && value == "forged"),
            "{name} reached the provider"
        );
    }
    assert_ne!(answer.header("x-sluice-cost"), Some("1000"));
    assert_ne!(answer.header("x-sluice-cache"), Some("hit"));
    assert_eq!(
        (answer.header("x-sluice-other"), answer.header("x-plain")),
        (None, Some("kept"))
    );
    // Also where the request is none of ours.
    stack.provider().fault(Fault {
        path: Some("/v1/messages/count_tokens".to_owned()),
        headers: [lying("x-sluice-cost", "1000")].into(),
        ..Fault::default()
    });
    let answer = stranger
        .post("/v1/messages/count_tokens", &MESSAGES.request(EASY))
        .await
        .unwrap();
    assert_eq!((answer.status, answer.header("x-sluice-cost")), (200, None));
    assert!(
        stack
            .provider()
            .last_request()
            .unwrap()
            .header("x-sluice-task")
            .is_none()
    );
    let internal = stack
        .internal()
        .with("x-sluice-task", "support")
        .with("x-conversation-id", "c-7");
    internal.post(CHAT.path, &chat(EASY)).await.unwrap();
    assert!(
        stack
            .provider()
            .last_request()
            .unwrap()
            .header("x-sluice-task")
            .is_none(),
        "a provider has no use for it"
    );
    let records = stack.settled(2).await.unwrap();
    assert_eq!(
        (records[0].task.as_str(), records[1].task.as_str()),
        ("", "support")
    );
    assert_eq!(records[1].conversation, "c-7");
    assert!(records[0].tenant.starts_with("key-") && !records[0].tenant.contains("sk-test"));
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn metrics_are_labelled_and_access_logs_tell_each_requests_cost() {
    let stack = Stack::start(Setup::with(json!({"route": tiers(), "cache": caching()})))
        .await
        .unwrap();
    for sent in 1..=2 {
        stack.client().post(CHAT.path, &chat(EASY)).await.unwrap();
        stack.settled(sent).await.unwrap();
    }
    let text = stack.envoy().prometheus().await.unwrap();
    let series = |name: &str, labels: &[&str]| {
        let found = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")));
        let found: Vec<&str> = found
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .collect();
        assert!(
            !found.is_empty(),
            "{name} {labels:?} in:\n{}",
            text.lines()
                .filter(|l| l.contains("sluice"))
                .collect::<Vec<_>>()
                .join("\n")
        );
    };
    series(
        "sluice_requests",
        &[
            "model=\"gpt-4o-mini\"",
            "tier=\"small\"",
            "cache=\"miss\"",
            "outcome=\"answered\"",
        ],
    );
    series(
        "sluice_requests",
        &["model=\"gpt-4o-mini\"", "cache=\"hit\""],
    );
    series(
        "sluice_tokens",
        &["kind=\"prompt\"", "model=\"gpt-4o-mini\""],
    );
    series("sluice_saved_nanodollars", &["lever=\"route\""]);
    series("sluice_saved_nanodollars", &["lever=\"cache\""]);

    let log = sluice_tests::process::eventually(std::time::Duration::from_secs(20), async || {
        let log = stack.envoy().access_log();
        if log.len() == 2 {
            Ok(log)
        } else {
            Err(format!("{log:?}"))
        }
    });
    let log = log.await.unwrap();
    let records = stack.settled(2).await.unwrap();
    for (line, record) in log.iter().zip(&records) {
        let state = format!(
            "model=gpt-4o-mini tier=small cache={} tokens={} cost_usd={} saved_usd={}",
            record.cache.name(),
            record.usage.total(),
            record.cost.unwrap(),
            record.saved.total(),
        );
        assert_eq!(line["sluice"], state, "{line}");
    }
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn reports_are_scoped_to_their_reader_and_survive_a_kill() {
    let serve = json!({"operators": ["test-operator"], "tenants": {"acme": "acme-token"}});
    let mut stack = Stack::start(Setup::with(json!({"serve": serve})))
        .await
        .unwrap();
    for (tenant, requests) in [("acme", 2), ("globex", 3)] {
        for _ in 0..requests {
            let client = stack.client().with("x-tenant", tenant);
            assert_eq!(
                client.post(CHAT.path, &chat(EASY)).await.unwrap().status,
                200
            );
        }
    }
    stack.settled(5).await.unwrap();
    stack.sidecars[0].kill();
    stack.sidecars[0].restart().await.unwrap();
    let sidecar = &stack.sidecars[0];
    assert_eq!(sidecar.report("tenant").await.unwrap().total.requests, 5);
    let reader = |token: &str| {
        sidecar
            .client()
            .with("authorization", &format!("Bearer {token}"))
    };
    let own: Value = reader("acme-token")
        .get("/report?by=tenant")
        .await
        .unwrap()
        .json();
    assert_eq!(own["total"]["requests"], 2, "{own}");
    assert!(!own.to_string().contains("globex"), "{own}");
    assert_eq!(reader("wrong").get("/report").await.unwrap().status, 401);
    assert_eq!(
        reader("test-secret").get("/report").await.unwrap().status,
        403,
        "the filter's secret opens no report"
    );
    assert_eq!(reader(INTERNAL.1).get("/report").await.unwrap().status, 401);
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn with_trailers_on_either_side_a_request_is_routed_cached_and_accounted_as_without() {
    let config = json!({"route": tiers(), "cache": caching()});
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let client = stack.client().with("te", "trailers");
    let mut sent = 0;
    for (api, stream) in STREAMING.iter().flat_map(|api| [(api, false), (api, true)]) {
        for (asks_with, answers_with) in [(true, false), (false, true), (true, true)] {
            let mut body = api.request(&format!("{EASY} {stream} {asks_with} {answers_with}"));
            body["stream"] = json!(stream);
            stack.provider().fault(Fault {
                trailer: answers_with,
                ..Fault::default()
            });
            let answer = match asks_with {
                true => client.post_with_trailer(api.path, &body).await.unwrap(),
                false => client.post(api.path, &body).await.unwrap(),
            };
            let shown = format!("{body}: {}", answer.text());
            assert_eq!(answer.status, 200, "{shown}");
            assert_eq!(answer.header("x-sluice-cache"), Some("miss"), "{shown}");
            let seen = stack.provider().last_request().unwrap();
            for (trailers, sent) in [
                (seen.trailers, asks_with),
                (answer.trailers.clone(), answers_with),
            ] {
                let trailer = trailers.get(TRAILER.0).map(|value| value.as_bytes());
                assert_eq!(trailer, sent.then_some(TRAILER.1.as_bytes()), "{shown}");
            }
            sent += 1;
            stack.settled(sent).await.unwrap();
            let again = client.post_with_trailer(api.path, &body).await.unwrap();
            assert_eq!(again.header("x-sluice-cache"), Some("hit"), "{shown}");
            assert_eq!(again.said(), answer.said(), "{shown}");
            sent += 1;
        }
    }
    for record in stack.settled(sent).await.unwrap() {
        assert_eq!(record.outcome, Outcome::Answered, "{record:?}");
        assert!(!record.estimated, "{record:?}");
    }
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    stack.check_no_trap().await.unwrap();
}
