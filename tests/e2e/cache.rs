//! Exact repeats are answered from cache, whole or streamed, and nothing else is.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use std::time::Duration;

use serde_json::{Value, json};
use sluice_tests::client::{Answer, Client};
use sluice_tests::process::eventually;
use sluice_tests::provider::Fault;
use sluice_tests::requests::{APIS, Api, CHAT, EASY, STREAMING, chat};
use sluice_tests::stack::{Setup, Stack, caching, merge};

async fn cached() -> Stack {
    Stack::start(Setup::with(json!({"cache": caching()})))
        .await
        .unwrap()
}

/// Sends and waits until it is settled, so that the next request can find its answer. `sent`
/// counts what this stack's ledger holds.
async fn ask(
    stack: &Stack,
    client: &Client,
    (path, body): (&str, &Value),
    sent: &mut usize,
) -> Answer {
    let answer = client.post(path, body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    *sent += 1;
    stack.settled(*sent).await.unwrap();
    answer
}

fn cache(answer: &Answer) -> &str {
    answer.header("x-sluice-cache").unwrap_or("no header")
}

#[tokio::test]
async fn a_repeat_is_answered_with_the_same_bytes_at_no_cost() {
    let stack = cached().await;
    let mut sent = 0;
    for (number, api) in APIS.iter().enumerate() {
        let body = api.request(EASY);
        let first = ask(&stack, &stack.client(), (api.path, &body), &mut sent).await;
        assert_eq!(cache(&first), "miss", "{}", api.name);
        let second = ask(&stack, &stack.client(), (api.path, &body), &mut sent).await;
        assert_eq!(cache(&second), "hit", "{}", api.name);
        match api.name {
            // Made of vectors, which are kept as numbers: `embeddings.rs` looks at these.
            "openai.embeddings" => assert_eq!(second.json()["usage"], first.json()["usage"]),
            name => assert_eq!(second.body, first.body, "{name}"),
        }
        assert_eq!(second.header("content-type"), Some("application/json"));
        assert!(second.header("age").is_some());
        assert_eq!(second.header("x-sluice-cost"), Some("0"), "{}", api.name);
        assert_eq!(
            second.header("x-sluice-saved"),
            first.header("x-sluice-cost"),
            "{}",
            api.name
        );
        assert_eq!(stack.provider().stats().total.requests, number as u64 + 1);
    }
    let records = stack.settled(sent).await.unwrap();
    for pair in records.chunks(2) {
        assert_eq!(
            pair[1].usage, pair[0].usage,
            "a hit tells the tokens that it did not take"
        );
        assert_eq!(
            (pair[1].cost.unwrap().0, pair[1].saved.cache),
            (0, pair[0].cost.unwrap())
        );
    }
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn an_answer_is_replayed_in_the_way_that_the_client_asks_for() {
    let stack = cached().await;
    let mut sent = 0;
    for api in STREAMING {
        for first_streamed in [false, true] {
            let text = format!("{EASY} ({first_streamed})");
            let (whole, streamed) = (api.request(&text), api.streamed(&text));
            let order = if first_streamed {
                [&streamed, &whole, &streamed]
            } else {
                [&whole, &streamed, &whole]
            };
            let mut said = Vec::new();
            for (number, body) in order.into_iter().enumerate() {
                let answer = ask(&stack, &stack.client(), (api.path, body), &mut sent).await;
                let name = format!(
                    "{}, streamed first: {first_streamed}, request {number}",
                    api.name
                );
                assert_eq!(
                    cache(&answer),
                    if number == 0 { "miss" } else { "hit" },
                    "{name}"
                );
                let kind = answer.header("content-type").unwrap();
                assert_eq!(
                    kind.starts_with("text/event-stream"),
                    body["stream"] == true,
                    "{name}"
                );
                if body["stream"] == true {
                    check_stream(&api, &answer, &name);
                }
                said.push(answer.said());
            }
            assert!(
                said[0].len() > 10 && said.iter().all(|text| *text == said[0]),
                "{}: {said:?}",
                api.name
            );
        }
    }
    assert_eq!(
        stack.provider().stats().total.requests,
        STREAMING.len() as u64 * 2
    );
    stack.check_no_trap().await.unwrap();
}

/// The form that the API promises, and no usage where nobody asked for it.
fn check_stream(api: &Api, answer: &Answer, name: &str) {
    let events = answer.events();
    let last = events.last().unwrap();
    match api.name {
        "openai.chat" | "openai.completions" => {
            assert_eq!(last.data, "[DONE]", "{name}");
            // Upstream was asked for usage and says `null` until its end: that may be seen.
            assert!(
                events.iter().all(|event| event.json()["usage"].is_null()),
                "{name}: {}",
                answer.text()
            );
            let finish: Vec<Value> = events
                .iter()
                .map(|event| event.json()["choices"][0]["finish_reason"].clone())
                .collect();
            assert_eq!(
                finish.iter().filter(|reason| reason.is_string()).count(),
                1,
                "{name}"
            );
        }
        "openai.responses" => {
            assert_eq!(
                events[0].name.as_deref(),
                Some("response.created"),
                "{name}"
            );
            assert_eq!(last.name.as_deref(), Some("response.completed"), "{name}");
            for (number, event) in events.iter().enumerate() {
                assert_eq!(event.json()["sequence_number"], number, "{name}");
            }
        }
        _ => {
            assert_eq!(events[0].name.as_deref(), Some("message_start"), "{name}");
            assert_eq!(last.name.as_deref(), Some("message_stop"), "{name}");
        }
    }
}

#[tokio::test]
async fn usage_ends_a_replayed_stream_only_for_clients_that_asked() {
    let stack = cached().await;
    let mut sent = 0;
    let whole = ask(&stack, &stack.client(), (CHAT.path, &chat(EASY)), &mut sent).await;
    let mut body = CHAT.streamed(EASY);
    body["stream_options"] = json!({"include_usage": true});
    let answer = ask(&stack, &stack.client(), (CHAT.path, &body), &mut sent).await;
    assert_eq!(cache(&answer), "hit");
    let events = answer.events();
    let usage = &events[events.len() - 2].json();
    assert_eq!(
        (&usage["choices"], &usage["usage"]),
        (&json!([]), &whole.json()["usage"])
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_tool_call_is_replayed_as_json_and_as_a_stream() {
    let stack = cached().await;
    let mut sent = 0;
    let mut body = chat("What is the weather in Lisbon?");
    body["tools"] = json!([{"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]);
    let whole = ask(&stack, &stack.client(), (CHAT.path, &body), &mut sent)
        .await
        .json();
    let call = &whole["choices"][0]["message"]["tool_calls"][0];
    body["stream"] = json!(true);
    let streamed = ask(&stack, &stack.client(), (CHAT.path, &body), &mut sent).await;
    assert_eq!(cache(&streamed), "hit");
    let (mut id, mut name, mut arguments, mut finish) =
        (String::new(), String::new(), String::new(), Value::Null);
    for event in streamed.events() {
        let choice = &event.json()["choices"][0];
        let delta = &choice["delta"]["tool_calls"][0];
        id.push_str(delta["id"].as_str().unwrap_or_default());
        name.push_str(delta["function"]["name"].as_str().unwrap_or_default());
        arguments.push_str(delta["function"]["arguments"].as_str().unwrap_or_default());
        if choice["finish_reason"].is_string() {
            finish = choice["finish_reason"].clone();
        }
    }
    assert_eq!(
        (json!(id), json!(name), json!(arguments)),
        (
            call["id"].clone(),
            call["function"]["name"].clone(),
            call["function"]["arguments"].clone()
        )
    );
    assert_eq!(finish, "tool_calls");
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn tenants_never_see_each_others_answers_unless_the_scope_is_global() {
    let stack = cached().await;
    let mut sent = 0;
    let body = chat(EASY);
    let tenant = |name: &str| stack.client().with("x-tenant", name);
    let first = ask(&stack, &tenant("acme"), (CHAT.path, &body), &mut sent).await;
    let other = ask(&stack, &tenant("globex"), (CHAT.path, &body), &mut sent).await;
    assert_eq!((cache(&first), cache(&other)), ("miss", "miss"));
    let keyed = stack.client().with("authorization", "Bearer sk-other");
    let strangers = ask(&stack, &stack.client(), (CHAT.path, &body), &mut sent).await;
    let others = ask(&stack, &keyed, (CHAT.path, &body), &mut sent).await;
    assert_eq!(
        (cache(&strangers), cache(&others)),
        ("miss", "miss"),
        "keys are tenants too"
    );
    let again = ask(&stack, &tenant("acme"), (CHAT.path, &body), &mut sent).await;
    assert_eq!(cache(&again), "hit");
    drop(stack);

    let mut global = caching();
    global["scope"] = json!("global");
    let stack = Stack::start(Setup::with(json!({"cache": global})))
        .await
        .unwrap();
    let tenant = |name: &str| stack.client().with("x-tenant", name);
    let mut sent = 0;
    ask(&stack, &tenant("acme"), (CHAT.path, &body), &mut sent).await;
    let other = ask(&stack, &tenant("globex"), (CHAT.path, &body), &mut sent).await;
    assert_eq!(cache(&other), "hit");
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn callers_may_bypass_and_refresh_what_is_stored() {
    let stack = cached().await;
    let mut sent = 0;
    let body = chat(EASY);
    let first = ask(&stack, &stack.client(), (CHAT.path, &body), &mut sent).await;
    let no_store = stack.client().with("cache-control", "max-age=0, no-store");
    let bypassed = ask(&stack, &no_store, (CHAT.path, &body), &mut sent).await;
    assert_eq!(cache(&bypassed), "bypass");
    let stranger = stack.client().with("x-sluice-cache", "bypass");
    let hit = ask(&stack, &stranger, (CHAT.path, &body), &mut sent).await;
    assert_eq!(
        (cache(&hit), &hit.body),
        ("hit", &first.body),
        "a stranger's control header does not count"
    );
    let internal = stack.internal().with("x-sluice-cache", "bypass");
    assert_eq!(
        cache(&ask(&stack, &internal, (CHAT.path, &body), &mut sent).await),
        "bypass"
    );
    let refresh = stack.internal().with("x-sluice-cache", "refresh");
    let fresh = ask(&stack, &refresh, (CHAT.path, &body), &mut sent).await;
    assert_eq!(cache(&fresh), "bypass");
    let hit = ask(&stack, &stack.client(), (CHAT.path, &body), &mut sent).await;
    assert_eq!(
        (cache(&hit), &hit.body),
        ("hit", &fresh.body),
        "the refreshed answer took the old one's place"
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn errors_cut_answers_hot_samples_and_long_answers_are_not_stored() {
    let stack = Stack::start(Setup::with(json!({"cache": {
        "mode": "on", "exact": {"ttl": "10m", "max_answer": "2KiB", "max_temperature": 0.5},
    }})))
    .await
    .unwrap();
    let mut sent = 0;
    let twice = async |change: Value, sent: &mut usize| -> (String, String) {
        let mut body = chat(EASY);
        body["temperature"] = json!(0);
        merge(&mut body, change);
        let first = ask(&stack, &stack.client(), (CHAT.path, &body), sent).await;
        let second = ask(&stack, &stack.client(), (CHAT.path, &body), sent).await;
        (cache(&first).to_owned(), cache(&second).to_owned())
    };
    let pair = |first: &str, second: &str| (first.to_owned(), second.to_owned());
    assert_eq!(
        twice(json!({"max_tokens": 5}), &mut sent).await,
        pair("miss", "miss"),
        "cut by its limit"
    );
    assert_eq!(
        twice(json!({"temperature": 0.9}), &mut sent).await,
        pair("bypass", "bypass"),
        "too hot"
    );
    assert_eq!(
        twice(json!({"temperature": null}), &mut sent).await,
        pair("bypass", "bypass"),
        "not set is the provider's 1"
    );
    assert_eq!(
        twice(json!({"n": 8}), &mut sent).await,
        pair("miss", "miss"),
        "longer than 2 KiB"
    );
    assert_eq!(
        twice(json!({"n": 8, "stream": true}), &mut sent).await,
        pair("miss", "miss"),
        "longer than 2 KiB"
    );
    assert_eq!(
        twice(json!({"temperature": 0.2}), &mut sent).await,
        pair("miss", "hit")
    );

    stack.provider().fault(Fault {
        status: Some(500),
        ..Fault::default()
    });
    let mut body = chat("What is the meaning of a 500?");
    body["temperature"] = json!(0);
    assert_eq!(
        stack.client().post(CHAT.path, &body).await.unwrap().status,
        500
    );
    sent += 1;
    stack.settled(sent).await.unwrap();
    assert_eq!(
        cache(&ask(&stack, &stack.client(), (CHAT.path, &body), &mut sent).await),
        "miss"
    );

    let mut broken = CHAT.streamed("What is half a stream worth?");
    broken["temperature"] = json!(0);
    stack.provider().fault(Fault {
        reset_after_chunks: Some(5),
        ..Fault::default()
    });
    stack.client().post(CHAT.path, &broken).await.unwrap_err();
    sent += 1;
    stack.settled(sent).await.unwrap();
    broken["stream"] = json!(false);
    assert_eq!(
        cache(&ask(&stack, &stack.client(), (CHAT.path, &broken), &mut sent).await),
        "miss"
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn answers_age_and_are_forgotten_after_their_time() {
    let mut brief = caching();
    brief["exact"]["ttl"] = json!("1s");
    let stack = Stack::start(Setup::with(json!({"cache": brief})))
        .await
        .unwrap();
    let mut sent = 0;
    let body = chat(EASY);
    ask(&stack, &stack.client(), (CHAT.path, &body), &mut sent).await;
    let gone = eventually(Duration::from_secs(20), async || {
        let answer = stack
            .client()
            .post(CHAT.path, &body)
            .await
            .map_err(|error| error.to_string())?;
        if cache(&answer) == "miss" {
            Ok(())
        } else {
            Err(cache(&answer).to_owned())
        }
    });
    gone.await.unwrap();
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn two_envoys_and_sidecars_share_what_redis_holds() {
    let stack = Stack::start(Setup {
        envoys: 2,
        sidecars: 2,
        redis: true,
        ..Setup::with(json!({"cache": caching()}))
    })
    .await
    .unwrap();
    let mut sent = 0;
    let body = chat(EASY);
    let (one, two) = (stack.envoys[0].client(), stack.envoys[1].client());
    let first = ask(&stack, &one, (CHAT.path, &body), &mut sent).await;
    // Redis may learn of it a moment after the ledger.
    eventually(Duration::from_secs(20), async || {
        let answer = two
            .post(CHAT.path, &body)
            .await
            .map_err(|error| error.to_string())?;
        match cache(&answer) {
            "hit" => Ok(answer),
            other => Err(other.to_owned()),
        }
    })
    .await
    .unwrap();
    let answer = two.post(CHAT.path, &body).await.unwrap();
    assert_eq!(
        (cache(&answer), answer.json()["choices"].clone()),
        ("hit", first.json()["choices"].clone())
    );
    stack.check_no_trap().await.unwrap();
}
