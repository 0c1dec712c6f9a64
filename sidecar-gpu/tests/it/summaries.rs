//! Texts that a model writes of what conversations leave out: by a stand-in for the endpoint, in this
//! process and on a real Redis.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sluice_wire::{Order, Settle, Verdict, Written, limit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::binary::Place;
use crate::common::{NOW, OPERATOR, Redis, SECRET, Sidecar, ask, frame, key, plan, until};
use crate::conversations::told;

const PATH: &str = "/v1/chat/completions?of=summaries";

/// A request as the endpoint saw it.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Value,
}

impl Seen {
    /// What the model is asked to write down.
    fn said(&self) -> &str {
        self.body["messages"][1]["content"].as_str().unwrap()
    }
}

type SeenSoFar = Arc<Mutex<Vec<Seen>>>;
type Answers = Arc<dyn Fn(&Seen) -> Response + Send + Sync>;

/// A model behind chat completions, and what it was asked.
struct Endpoint {
    address: SocketAddr,
    seen: SeenSoFar,
    /// Each answer takes one of these.
    leave: Arc<Semaphore>,
}

impl Endpoint {
    async fn new(answers: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        let endpoint = Endpoint::slow(answers).await;
        endpoint.leave.add_permits(1000);
        endpoint
    }

    /// Answers nothing until it is let.
    async fn slow(answers: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: SeenSoFar = Arc::default();
        let leave = Arc::new(Semaphore::new(0));
        let state = (seen.clone(), leave.clone(), Arc::new(answers) as Answers);
        let router = Router::new().fallback(serve).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Endpoint {
            address,
            seen,
            leave,
        }
    }

    fn config(&self, more: Value) -> Value {
        let mut summaries = json!({
            "url": format!("http://{}{PATH}", self.address),
            "headers": {"x-tenant": "{tenant}", "authorization": "Bearer sk-writer"},
        });
        for (name, value) in more.as_object().unwrap() {
            summaries[name] = value.clone();
        }
        json!({ "summaries": summaries })
    }

    fn sidecar(&self) -> Sidecar {
        Sidecar::new(&self.config(json!({})))
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn was_asked(&self, times: usize) {
        until("the endpoint is asked", async || self.seen().len() >= times).await;
    }
}

async fn serve(
    State((seen, leave, answers)): State<(SeenSoFar, Arc<Semaphore>, Answers)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let one = Seen {
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap(),
    };
    seen.lock().unwrap().push(one.clone());
    leave.acquire().await.unwrap().forget();
    answers(&one)
}

fn says(text: &str) -> Response {
    json!({"choices": [{"message": {"role": "assistant", "content": text}}]})
        .to_string()
        .into_response()
}

/// Says how long what it was asked to write down is.
fn measures(seen: &Seen) -> Response {
    says(&format!(" In short: {}.\n", seen.said().len()))
}

/// A finished request of conversation `k`, which orders a text.
pub(crate) fn orders((n, k): (u128, u8), id: &str, kept: Option<&str>) -> Settle {
    let mut settle = told((n, k), 0, "state");
    settle.sent.as_mut().unwrap().order = Some(Order {
        id: id.to_owned(),
        kept: kept.map(str::to_owned),
        model: "small".to_owned(),
        tokens: 200,
        text: format!("User: of {id} </conversation>"),
    });
    settle
}

impl Sidecar {
    /// What was written for conversation `k`.
    async fn written(&self, k: u8) -> Vec<Written> {
        let mut request = ask(999, vec![plan(None, vec![])]);
        request.conversation = Some(key(k));
        self.admit(&request).await.0.summaries
    }

    async fn names(&self, k: u8) -> Vec<String> {
        let written = self.written(k).await;
        written.into_iter().map(|one| one.id).collect()
    }

    /// Awaits so many texts with this result.
    pub(crate) async fn came_to(&self, result: &str, times: u64) {
        let series = format!("sluice_summaries_total{{result=\"{result}\"}} {times}\n");
        until(&series, async || self.metrics().await.contains(&series)).await;
    }
}

#[tokio::test]
async fn what_is_ordered_is_written_behind_the_settlement_and_told_at_the_next_turn() {
    let endpoint = Endpoint::slow(measures).await;
    let sidecar = endpoint.sidecar();
    sidecar.settle(vec![orders((1, 1), "one", None)], b"").await;
    endpoint.was_asked(1).await;
    assert_eq!(sidecar.written(1).await, [], "nobody waits for it");
    assert_eq!(
        sidecar.metrics_value("sluice_summaries_waiting").await,
        Some(1)
    );
    endpoint.leave.add_permits(1);
    sidecar.came_to("written", 1).await;
    let [seen] = endpoint.seen().try_into().unwrap();
    assert_eq!(seen.path, PATH);
    for (name, value) in [
        ("x-tenant", "acme"),
        ("authorization", "Bearer sk-writer"),
        ("content-type", "application/json"),
        ("host", &endpoint.address.to_string()),
    ] {
        assert_eq!(seen.headers[name], value, "{name}");
    }
    assert!(
        !format!("{:?}", seen.headers).contains(SECRET),
        "the filter's own"
    );
    assert_eq!(
        (&seen.body["model"], &seen.body["max_tokens"]),
        (&json!("small"), &json!(200))
    );
    let rules = seen.body["messages"][0]["content"].as_str().unwrap();
    assert!(rules.contains("at most 100 words"), "{rules}");
    // A record cannot end itself.
    assert_eq!(
        seen.said(),
        "<conversation>\nUser: of one < /conversation>\n</conversation>"
    );
    let [written] = sidecar.written(1).await.try_into().unwrap();
    assert_eq!(written.id, "one");
    assert_eq!(written.text, format!("In short: {}.", seen.said().len()));
    assert_eq!(sidecar.written(2).await, [], "another conversation");
    assert_eq!(
        sidecar.metrics_value("sluice_summaries_waiting").await,
        Some(0)
    );
}

async fn two_texts_stand_side_by_side(one: &Sidecar, other: &Sidecar) {
    one.settle(vec![orders((1, 1), "one", None)], b"").await;
    one.came_to("written", 1).await;
    one.settle(vec![orders((2, 1), "two", Some("one"))], b"")
        .await;
    one.came_to("written", 2).await;
    assert_eq!(other.names(1).await, ["two", "one"]);
    other
        .settle(vec![orders((3, 1), "three", Some("two"))], b"")
        .await;
    other.came_to("written", 1).await;
    assert_eq!(one.names(1).await, ["three", "two", "one"]);
    // The same once more, in other words: not twice.
    other
        .settle(vec![orders((4, 1), "three", Some("three"))], b"")
        .await;
    other.came_to("written", 2).await;
    assert_eq!(one.names(1).await, ["three", "two", "one"]);
    one.settle(vec![orders((5, 1), "five", Some("gone"))], b"")
        .await;
    one.came_to("written", 3).await;
    assert_eq!(other.names(1).await, ["five", "three", "two"]);
    // A turn that wants none written loses none.
    other.settle(vec![told((6, 1), 1, "later")], b"").await;
    assert_eq!(other.names(1).await, ["five", "three", "two"]);
}

#[tokio::test]
async fn the_newest_text_stands_beside_the_one_that_the_conversation_goes_on_with() {
    let endpoint = Endpoint::new(measures).await;
    let sidecar = endpoint.sidecar();
    let again = endpoint.sidecar();
    sidecar.settle(vec![orders((1, 1), "one", None)], b"").await;
    sidecar.came_to("written", 1).await;
    sidecar
        .settle(vec![orders((2, 1), "two", Some("one"))], b"")
        .await;
    sidecar.came_to("written", 2).await;
    assert_eq!(sidecar.names(1).await, ["two", "one"]);
    assert_eq!(again.names(1).await, [""; 0], "of this process alone");
    // It lives as long as the conversation does.
    for n in 3..6 {
        sidecar.advance(200_000);
        let mut turn = told((n, 1), 0, "state");
        turn.record.at_ms = NOW + 1_000_000;
        sidecar.settle(vec![turn], b"").await;
    }
    assert_eq!(sidecar.names(1).await, ["two", "one"]);
    sidecar.advance(300_000);
    assert_eq!(sidecar.names(1).await, [""; 0], "its time is over");
}

fn on(redis: &Redis, endpoint: &Endpoint) -> Value {
    let mut config = endpoint.config(json!({}));
    config["store"] = redis.url().into();
    config["redis"] = json!({"timeout": "2s", "failures": 2, "pause": "50ms"});
    config
}

#[tokio::test]
async fn on_one_redis_any_sidecar_tells_what_another_had_written() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let endpoint = Endpoint::new(measures).await;
    let config = on(&redis, &endpoint);
    let (one, two) = (Sidecar::new(&config), Sidecar::new(&config));
    two_texts_stand_side_by_side(&one, &two).await;

    let mut connection = redis.client().get_connection().unwrap();
    let name = [b"sluice:summaries:", &[1; 32][..]].concat();
    let mut life = || -> i64 { redis::Commands::pttl(&mut connection, &name).unwrap() };
    assert!((1..=300_000).contains(&life()));
    // Who asks for it keeps it.
    let mut connection = redis.client().get_connection().unwrap();
    let () = redis::Commands::pexpire(&mut connection, &name, 5_000).unwrap();
    assert_eq!(two.names(1).await, ["five", "three", "two"]);
    assert!(life() > 250_000);

    // What another program wrote there is not told, and written over.
    for value in [
        &b"short"[..],
        b"0000000000000009{\"id\":1}",
        b"x00000000000000000[]",
    ] {
        let () = redis::Commands::set(&mut connection, &name, value).unwrap();
        assert_eq!(one.names(1).await, [""; 0]);
    }
    one.settle(vec![orders((7, 1), "seven", None)], b"").await;
    one.came_to("written", 4).await;
    assert_eq!(two.names(1).await, ["seven"]);

    redis.kill();
    assert_eq!(one.names(1).await, [""; 0]);
    two.settle(vec![orders((8, 1), "eight", None)], b"").await;
    // What it costs is remembered by nobody.
    two.came_to("dropped", 1).await;
}

#[tokio::test]
async fn in_one_process_the_texts_of_a_conversation_are_as_on_redis() {
    let endpoint = Endpoint::new(measures).await;
    let sidecar = endpoint.sidecar();
    sidecar.settle(vec![orders((1, 1), "one", None)], b"").await;
    sidecar.came_to("written", 1).await;
    for (times, (n, id, kept, there)) in (2..).zip([
        (2, "two", Some("one"), &["two", "one"][..]),
        (3, "three", Some("two"), &["three", "two", "one"]),
        (4, "three", Some("three"), &["three", "two", "one"]),
        (5, "five", Some("gone"), &["five", "three", "two"]),
        // What it goes on with stays, though a newer one is there.
        (6, "six", Some("two"), &["six", "two", "five"]),
    ]) {
        sidecar.settle(vec![orders((n, 1), id, kept)], b"").await;
        sidecar.came_to("written", times).await;
        assert_eq!(sidecar.names(1).await, there);
    }
}

#[tokio::test]
async fn what_no_model_writes_changes_nothing_and_is_counted() {
    let answers = |seen: &Seen| match seen.said().split(' ').nth(2) {
        Some("refused") => (axum::http::StatusCode::TOO_MANY_REQUESTS, "no").into_response(),
        Some("nonsense") => "<html>".into_response(),
        Some("choiceless") => json!({"choices": []}).to_string().into_response(),
        Some("silent") => says(" \n"),
        Some("endless") => says(&"x".repeat(limit::SUMMARY + 1)),
        Some("huge") => says(&"x".repeat(1 << 20)),
        _ => measures(seen),
    };
    let endpoint = Endpoint::new(answers).await;
    let sidecar = endpoint.sidecar();
    sidecar
        .settle(vec![orders((1, 1), "good", None)], b"")
        .await;
    sidecar.came_to("written", 1).await;
    for (n, id, result, times) in [
        (2, "refused", "failed", 1),
        (3, "nonsense", "failed", 2),
        (4, "huge", "failed", 3),
        (5, "choiceless", "unusable", 1),
        (6, "silent", "unusable", 2),
        (7, "endless", "unusable", 3),
    ] {
        sidecar.settle(vec![orders((n, 1), id, None)], b"").await;
        sidecar.came_to(result, times).await;
        assert_eq!(sidecar.names(1).await, ["good"], "{id}");
    }
    // A tenant whose name would end a header has no request sent in another's name.
    let mut odd = orders((8, 1), "odd", None);
    odd.record.tenant = "acme\r\nx-tenant: globex".to_owned();
    sidecar.settle(vec![odd], b"").await;
    sidecar.came_to("failed", 4).await;
    assert_eq!(endpoint.seen().len(), 7);
    // Nobody listens there.
    let nobody = json!({"summaries": {"url": "http://127.0.0.1:1/v1/chat/completions"}});
    let alone = Sidecar::new(&nobody);
    alone.settle(vec![orders((1, 1), "one", None)], b"").await;
    alone.came_to("failed", 1).await;
}

#[tokio::test]
async fn a_model_that_takes_too_long_is_left() {
    let endpoint = Endpoint::slow(measures).await;
    let sidecar = Sidecar::new(&endpoint.config(json!({"timeout": "1s"})));
    sidecar.settle(vec![orders((1, 1), "one", None)], b"").await;
    sidecar.came_to("late", 1).await;
    assert_eq!(sidecar.names(1).await, [""; 0]);
}

#[tokio::test]
async fn so_many_at_once_so_many_that_wait_and_the_rest_are_dropped() {
    let endpoint = Endpoint::slow(measures).await;
    let bounds = json!({"concurrency": 1, "queue": 2});
    let sidecar = Sidecar::new(&endpoint.config(bounds));
    let all = (1..=5).map(|n| orders((u128::from(n), n), "text", None));
    sidecar.settle(all.collect(), b"").await;
    sidecar.came_to("dropped", 2).await;
    // One at a time for a conversation, whatever room there is.
    endpoint.was_asked(1).await;
    endpoint.leave.add_permits(1);
    sidecar.came_to("written", 1).await;
    sidecar
        .settle(vec![orders((6, 2), "again", None)], b"")
        .await;
    sidecar.came_to("dropped", 3).await;
    endpoint.was_asked(2).await;
    assert_eq!(endpoint.seen().len(), 2, "the third waits its turn");
    endpoint.leave.add_permits(2);
    sidecar.came_to("written", 3).await;
    for k in 1..=3 {
        assert_eq!(sidecar.names(k).await, ["text"]);
    }
    assert_eq!(sidecar.names(4).await, [""; 0]);
    endpoint.leave.add_permits(1);
    sidecar
        .settle(vec![orders((7, 2), "again", None)], b"")
        .await;
    sidecar.came_to("written", 4).await;
    assert_eq!(
        sidecar.names(2).await,
        ["again", "text"],
        "its turn is over"
    );
}

#[tokio::test]
async fn when_the_sidecar_ends_what_is_being_written_is_kept_and_what_waits_is_dropped() {
    let endpoint = Endpoint::slow(measures).await;
    let sidecar = Sidecar::new(&endpoint.config(json!({"concurrency": 1})));
    let all = (1..=3).map(|n| orders((u128::from(n), n), "text", None));
    sidecar.settle(all.collect(), b"").await;
    endpoint.was_asked(1).await;
    let app = sidecar.app.clone();
    let leaving = tokio::spawn(async move { app.leave().await });
    // It takes no more from when it begins to leave.
    until("it leaves", async || {
        sidecar
            .settle(vec![orders((9, 9), "late", None)], b"")
            .await;
        sidecar.metrics().await.contains("result=\"dropped\"")
    })
    .await;
    assert!(!leaving.is_finished(), "one is still being written");
    endpoint.leave.add_permits(1);
    leaving.await.unwrap();
    sidecar.came_to("written", 1).await;
    sidecar.came_to("dropped", 3).await;
    assert_eq!(endpoint.seen().len(), 1);
}

#[tokio::test]
async fn a_settlement_that_comes_twice_has_nothing_written_twice() {
    let endpoint = Endpoint::new(measures).await;
    let sidecar = endpoint.sidecar();
    for _ in 0..2 {
        sidecar.settle(vec![orders((1, 1), "one", None)], b"").await;
    }
    sidecar.settle(vec![orders((2, 2), "two", None)], b"").await;
    sidecar.came_to("written", 2).await;
    assert_eq!(endpoint.seen().len(), 2);
}

#[tokio::test]
async fn without_a_writer_an_order_is_counted_and_the_turn_is_told_all_the_same() {
    let sidecar = Sidecar::new(&json!({}));
    sidecar.settle(vec![orders((1, 1), "one", None)], b"").await;
    sidecar.came_to("no_writer", 1).await;
    let mut request = ask(2, vec![plan(None, vec![])]);
    request.conversation = Some(key(1));
    let (reply, _) = sidecar.admit(&request).await;
    assert_eq!(reply.verdict, Verdict::go(0));
    assert_eq!(
        (reply.sent.as_deref(), reply.summaries.len()),
        (Some("state"), 0)
    );
}

#[tokio::test]
async fn an_order_with_more_than_it_may_have_is_refused_with_the_fields_name() {
    let sidecar = Sidecar::new(&json!({}));
    let long = |bytes: usize| "x".repeat(bytes + 1);
    type Set = fn(&mut Order, String);
    let cases: [(&str, usize, Set); 4] = [
        ("id", limit::SUMMARY_ID, |order, text| order.id = text),
        ("kept", limit::SUMMARY_ID, |order, text| {
            order.kept = Some(text)
        }),
        ("model", 256, |order, text| order.model = text),
        ("text", limit::ORDER, |order, text| order.text = text),
    ];
    for (field, most, set) in cases {
        let mut settle = orders((1, 1), "one", None);
        set(
            settle.sent.as_mut().unwrap().order.as_mut().unwrap(),
            long(most),
        );
        let (status, text) = sidecar.try_settle(vec![settle], b"").await;
        let text = String::from_utf8_lossy(&text);
        let fault = format!(
            "items[0].sent.order.{field}: expected at most {most} bytes, found {}",
            most + 1
        );
        assert_eq!(
            (status.as_u16(), text.contains(&fault)),
            (400, true),
            "{text}"
        );
    }
}

/// What was said, what was written, who writes and by which key: none of it is told to who looks on.
#[tokio::test]
async fn nothing_of_a_conversation_or_its_text_is_in_the_log_at_any_level_or_in_a_metric() {
    let answers = |seen: &Seen| match seen.said().contains("refuse") {
        true => (axum::http::StatusCode::BAD_REQUEST, "Krokus").into_response(),
        false => says("Krokus, in short."),
    };
    let endpoint = Endpoint::new(answers).await;
    let place = Place::new(&endpoint.config(json!({})));
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(place.config())
        .env("RUST_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = child.stderr.take().unwrap();
    let log = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).map(|_| text)
    });
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let address = line
        .trim_end()
        .strip_prefix("listening on http://")
        .unwrap();

    let said = |n: u128, text: &str| {
        let mut settle = orders((n, 1), "Krokus-id", Some("Krokus-kept"));
        let order = settle.sent.as_mut().unwrap().order.as_mut().unwrap();
        order.text = format!("User: Krokus, {text}");
        settle
    };
    for (n, text, result) in [(1, "write", "written"), (2, "refuse", "failed")] {
        let items = vec![said(n, text)];
        let body = frame(&sluice_wire::SettleRequest { items }, b"");
        let (status, _) = call(address, "POST /v1/settle", (SECRET, body)).await;
        assert_eq!(status, 200);
        let series = format!("sluice_summaries_total{{result=\"{result}\"}} 1\n");
        until(&series, async || {
            let (_, metrics) = call(address, "GET /metrics", (OPERATOR, Vec::new())).await;
            assert!(!metrics.contains("Krokus") && !metrics.contains("sk-writer"));
            metrics.contains(&series)
        })
        .await;
    }
    let status = Command::new("kill").arg(child.id().to_string()).status();
    assert!(status.unwrap().success() && child.wait().unwrap().success());
    let log = log.join().unwrap().unwrap();
    assert!(
        log.contains("no text was written: the endpoint answered 400"),
        "{log}"
    );
    for word in ["Krokus", "sk-writer", "User:", "In short"] {
        assert!(!log.contains(word), "{word} in {log}");
    }
}

/// The status and the body of one call over a connection of its own.
async fn call(address: &str, what: &str, (token, body): (&str, Vec<u8>)) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{what} HTTP/1.1\r\nhost: s\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         x-sluice-wire: {}\r\ncontent-length: {}\r\n\r\n",
        sluice_wire::VERSION,
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), &body].concat())
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[test]
fn a_writer_that_makes_no_sense_is_refused_with_the_fields_name() {
    let good = json!({"url": "http://127.0.0.1:10000/v1/chat/completions"});
    let faults = |patch: Value| {
        let mut writer = good.clone();
        for (name, value) in patch.as_object().unwrap() {
            writer[name] = value.clone();
        }
        let config =
            json!({"sidecar": {"cluster": "c", "secret": "s"}, "serve": {"summaries": writer}});
        let env = |name: &str| (name == "KEY").then(|| "sk-{tenant}".to_owned());
        sluice::config::parse(&config.to_string(), true, &env).map(|config| config.serve.summaries)
    };
    let writer = faults(json!({"headers": {"a": "for {tenant}", "b": "env:KEY"}}))
        .unwrap()
        .unwrap();
    let values: Vec<_> = writer
        .headers
        .iter()
        .map(|one| one.value("acme").unwrap())
        .collect();
    assert_eq!(values, ["for acme", "sk-{tenant}"]);
    assert!(!format!("{writer:?}").contains("sk-"));
    assert_eq!(
        (writer.concurrency, writer.queue, writer.timeout.as_secs()),
        (4, 256, 60)
    );
    for (patch, path, told) in [
        (
            json!({"url": "https://127.0.0.1:1/v1"}),
            "url",
            "on this machine",
        ),
        (
            json!({"url": "http://10.0.0.1:1/v1"}),
            "url",
            "on this machine",
        ),
        (
            json!({"url": "http://localhost:1/v1"}),
            "url",
            "on this machine",
        ),
        (
            json!({"url": "http://127.0.0.1:1"}),
            "url",
            "/v1/chat/completions",
        ),
        (
            json!({"url": "http://k@127.0.0.1:1/v1"}),
            "url",
            "on this machine",
        ),
        (
            json!({"timeout": "10ms"}),
            "timeout",
            "at least `1s`, found less",
        ),
        (json!({"concurrency": 0}), "concurrency", "1 to 64, found 0"),
        (json!({"queue": 5000}), "queue", "1 to 4096, found 5000"),
        (
            json!({"headers": {"a b": "x"}}),
            "headers.a b",
            "a header's name",
        ),
        (
            json!({"headers": {"host": "x"}}),
            "headers.host",
            "about the body or the connection",
        ),
        (
            json!({"headers": {"a": "x\ny"}}),
            "headers.a",
            "control characters",
        ),
        (
            json!({"headers": {"a": "env:NONE"}}),
            "headers.a",
            "`NONE` is not set",
        ),
        (json!({"model": "m"}), "model", "unknown field"),
    ] {
        let sluice::config::Faults(found) = faults(patch.clone()).unwrap_err();
        let [fault] = found.as_slice() else {
            panic!("{patch}: {found:?}")
        };
        assert!(
            fault.path.starts_with("serve.summaries"),
            "{patch}: {fault}"
        );
        assert!(
            fault.to_string().contains(path) && fault.message.contains(told),
            "{patch}: {fault}"
        );
        assert!(!fault.message.contains("k@"), "{fault}");
    }
}
