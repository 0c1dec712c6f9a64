//! Searches behind the filter: equal ones cost the search service one, whatever their spelling.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use sluice_tests::client::{Answer, Client};
use sluice_tests::envoy::Upstream;
use sluice_tests::process::eventually;
use sluice_tests::requests::{CHAT, EASY, chat};
use sluice_tests::stack::{Setup, Stack, caching, merge, tiers};
use sluice_wire::{CacheResult, Usage, Usd};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const PATH: &str = "/collections/docs/points/query";

/// A search service: every answer tells which request it was, and what it was asked.
struct Search {
    address: SocketAddr,
    heard: Arc<Heard>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    requests: AtomicU64,
    fails: AtomicBool,
}

impl Search {
    async fn start() -> Search {
        let heard = Arc::new(Heard::default());
        let app = Router::new().fallback(answer).with_state(heard.clone());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Search {
            address,
            heard,
            task,
        }
    }

    fn requests(&self) -> u64 {
        self.heard.requests.load(Ordering::SeqCst)
    }

    fn fails(&self, fails: bool) {
        self.heard.fails.store(fails, Ordering::SeqCst);
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(heard): State<Arc<Heard>>, uri: Uri, body: String) -> impl IntoResponse {
    let serial = heard.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    if heard.fails.load(Ordering::SeqCst) {
        let error = json!({"status": {"error": "shard is down"}});
        return (StatusCode::INTERNAL_SERVER_ERROR, json, error.to_string());
    }
    let points = json!([{"id": serial, "score": 0.5, "payload": {"asked": body}}]);
    let found = json!({"result": {"points": points}, "uri": uri.to_string(), "status": "ok"});
    (StatusCode::OK, json, found.to_string())
}

/// The filter in front of it, with levers and budgets that an LLM request would meet.
async fn stack(search: &Search, exact: Value) -> Stack {
    let route = json!({
        "name": "search",
        "match": {"path": "/collections/*"},
        "kind": "retrieval",
        "cache": {"exact": exact, "headers": ["X-Index"], "refresh": {"cluster": "sluice_self"}},
    });
    let mut setup = Setup::with(json!({
        "cache": caching(),
        "route": tiers(),
        "budgets": [{"per": "tenant", "tokens": 10, "every": "day", "over": "reject"}],
        "routes": [route],
    }));
    merge(
        &mut setup.config,
        json!({"limits": {"on_failure": "closed"}}),
    );
    setup.upstream = Some(Upstream::Plain(search.address));
    Stack::start(setup).await.unwrap()
}

fn cache(answer: &Answer) -> &str {
    answer.header("x-sluice-cache").unwrap_or("no header")
}

/// Sends and waits until it is settled, so that the next request can find its answer.
async fn ask(
    stack: &Stack,
    client: &Client,
    (path, body): (&str, &str),
    sent: &mut usize,
) -> Answer {
    let answer = client.post_bytes(path, body.to_owned()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    *sent += 1;
    stack.settled(*sent).await.unwrap();
    answer
}

const QUERY: &str =
    r#"{"query":[0.25,-1.5e-3],"filter":{"must":[{"key":"city","match":"Köln"}]},"limit":5}"#;

#[tokio::test]
async fn an_equal_search_is_answered_from_cache_and_a_different_one_is_not() {
    let search = Search::start().await;
    let stack = stack(&search, json!({"ttl": "10m"})).await;
    let client = stack.client().with("x-tenant", "acme");
    let mut sent = 0;
    let first = ask(&stack, &client, (PATH, QUERY), &mut sent).await;
    assert_eq!(cache(&first), "miss");
    assert_eq!(
        first.json()["result"]["points"][0]["payload"]["asked"],
        QUERY
    );
    let same = [
        QUERY,
        r#"{"limit":5,"filter":{"must":[{"match":"Köln","key":"city"}]},"query":[0.25,-1.5e-3]}"#,
        "{ \"query\": [0.25,\n -1.5e-3], \"filter\": {\"must\": [{\"key\":\t\"city\", \"match\": \"K\\u00f6ln\"}]}, \"limit\": 5 }\r\n",
    ];
    for body in same {
        let again = ask(&stack, &client, (PATH, body), &mut sent).await;
        assert_eq!((cache(&again), &again.body), ("hit", &first.body), "{body}");
        assert_eq!(again.header("content-type"), Some("application/json"));
        assert_eq!(again.header("x-sluice-cost"), Some("0"));
    }
    assert_eq!(search.requests(), 1);

    let other = client.with("x-tenant", "globex");
    let blue = client.with("x-index", "blue");
    let query_string = format!("{PATH}?consistency=all");
    let other_limit = QUERY.replace('5', "6");
    let different = [
        ("tenant", &other, PATH, QUERY),
        ("a header that counts", &blue, PATH, QUERY),
        ("query string", &client, query_string.as_str(), QUERY),
        (
            "collection",
            &client,
            "/collections/mail/points/query",
            QUERY,
        ),
        ("body", &client, PATH, other_limit.as_str()),
    ];
    for (what, client, path, body) in different {
        for wanted in ["miss", "hit"] {
            let answer = ask(&stack, client, (path, body), &mut sent).await;
            assert_eq!(cache(&answer), wanted, "{what}");
            let found = answer.json();
            assert_eq!(
                (
                    &found["uri"],
                    &found["result"]["points"][0]["payload"]["asked"]
                ),
                (&json!(path), &json!(body))
            );
        }
    }
    assert_eq!(search.requests(), 6);

    // Lines of JSON are no JSON: they pass as they came, though an LLM's request would be refused.
    let lines = "{\"index\":\"docs\"}\n{\"query\":{}}\n";
    let passed = client.post_bytes(PATH, lines).await.unwrap();
    assert_eq!((passed.status, cache(&passed)), (200, "no header"));
    assert_eq!(
        passed.json()["result"]["points"][0]["payload"]["asked"],
        lines
    );
    let refused = client.post(CHAT.path, &chat(EASY)).await.unwrap();
    assert_eq!(refused.status, 429, "the budget is for LLM requests");

    let records = stack.settled(sent + 1).await.unwrap();
    for record in records.iter().filter(|record| record.route == "search") {
        assert_eq!(
            (record.endpoint.as_str(), record.estimated),
            ("retrieval", false)
        );
        assert_eq!(
            (record.usage, record.cost),
            (Usage::default(), Some(Usd::ZERO))
        );
    }
    let metrics = stack.envoy().metrics().await.unwrap();
    let searches = [("endpoint", "retrieval"), ("cache", "hit")];
    assert_eq!(metrics.sum("sluice.requests", &searches), 8);
    assert_eq!(metrics.sum("sluice.unpriced", &[("model", "none")]), 0);
    stack.check_no_trap().await.unwrap();
}

/// Asks until the answer is said to be `wanted`.
async fn until(client: &Client, wanted: &str) -> Answer {
    let asked = eventually(Duration::from_secs(30), async || {
        let answer = client.post_bytes(PATH, QUERY).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match cache(&answer) == wanted {
            true => Ok(answer),
            false => Err(cache(&answer).to_owned()),
        }
    });
    asked.await.unwrap()
}

/// Which of the service's answers it is.
fn serial(answer: &Answer) -> u64 {
    let id = &answer.json()["result"]["points"][0]["id"];
    id.as_u64().unwrap_or(0)
}

#[tokio::test]
async fn a_stale_search_goes_out_at_once_and_is_refreshed_behind_its_answer() {
    let search = Search::start().await;
    let stack = stack(&search, json!({"ttl": "2s", "stale": "10m"})).await;
    let client = stack.client();
    let first = client.post_bytes(PATH, QUERY).await.unwrap();
    assert_eq!((cache(&first), serial(&first)), ("miss", 1));
    let stale = until(&client, "stale").await;
    assert_eq!(stale.body, first.body);
    let fresh = until(&client, "hit").await;
    assert!(serial(&fresh) > 1, "asked anew, and nobody waited for it");
    // A hit may be seen a moment before its record.
    let booked = eventually(Duration::from_secs(20), async || {
        let records = stack.sidecar().records().map_err(|it| it.to_string())?;
        match records.iter().any(|it| it.cache == CacheResult::Refresh) {
            true => Ok(()),
            false => Err("no refresh is booked".to_owned()),
        }
    });
    booked.await.unwrap();
    let records = stack.sidecar().records().unwrap();
    assert_eq!(
        records
            .iter()
            .filter(|it| it.cache == CacheResult::Miss)
            .count(),
        1
    );
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn a_search_past_its_time_stands_in_for_a_service_that_fails_and_for_no_other() {
    let search = Search::start().await;
    let stack = stack(&search, json!({"ttl": "1s", "stale_if_error": "1h"})).await;
    let client = stack.client();
    let mut sent = 0;
    let first = ask(&stack, &client, (PATH, QUERY), &mut sent).await;
    assert_eq!((cache(&first), serial(&first)), ("miss", 1));
    search.fails(true);
    let stale = until(&client, "stale").await;
    assert_eq!((stale.status, &stale.body), (200, &first.body));
    let other = client.post_bytes(PATH, "{}").await.unwrap();
    assert_eq!((other.status, cache(&other)), (500, "miss"));
    search.fails(false);
    let fresh = until(&client, "miss").await;
    assert!(serial(&fresh) > 1, "a service that works is asked");
    stack.check_no_trap().await.unwrap();
}
