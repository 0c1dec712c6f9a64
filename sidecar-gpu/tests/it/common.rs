//! What the sidecar's tests share: configs, frames, calls, and a real Redis.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sluice::App;
use sluice::clock::Clock;
use sluice::config::{self, Serve};
use sluice::semantic::SemanticCache;
use sluice_wire::{
    AdmitReply, AdmitRequest, Charge, Counted, EntryHead, Frame, Over, Plan, Record, Settle,
    SettleReply, SettleRequest, Store, Unit, Usage, Usd, Verdict, Window,
};
use tower::ServiceExt;

pub(crate) const SECRET: &str = "filter-secret";
pub(crate) const OPERATOR: &str = "operator-token";
pub(crate) const ACME: &str = "acme-token";
pub(crate) const NOW: u64 = 1_700_000_000_000;

/// A config as JSON, with `serve` changed by `patch`.
pub(crate) fn config_json(data: &Path, patch: &Value) -> Value {
    let mut serve = json!({
        "data": data,
        "operators": [OPERATOR],
        "tenants": {"acme": ACME, "globex": "globex-token"},
    });
    for (key, value) in patch.as_object().unwrap() {
        serve[key] = value.clone();
    }
    json!({"sidecar": {"cluster": "sidecar", "secret": SECRET}, "serve": serve})
}

pub(crate) fn serve_config(data: &Path, patch: &Value) -> Serve {
    let text = config_json(data, patch).to_string();
    config::parse(&text, true, &|_| None).unwrap().serve
}

/// A sidecar without a socket, in virtual time.
pub(crate) struct Sidecar {
    pub(crate) app: Arc<App>,
    pub(crate) router: Router,
    now: Arc<AtomicU64>,
    /// Removed when the test ends; `None` when the test keeps it.
    _data: Option<tempfile::TempDir>,
}

impl Sidecar {
    pub(crate) fn new(patch: &Value) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut sidecar = Sidecar::at(data.path(), patch);
        sidecar._data = Some(data);
        sidecar
    }

    pub(crate) fn at(data: &Path, patch: &Value) -> Self {
        let now = Arc::new(AtomicU64::new(NOW));
        let clock = Clock::Manual(now.clone());
        let app = App::open(serve_config(data, patch), clock).unwrap();
        Sidecar::of(app, now)
    }

    /// Compares questions by `semantic`.
    pub(crate) fn with_questions(semantic: SemanticCache, patch: &Value) -> Self {
        let data = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(NOW));
        let clock = Clock::Manual(now.clone());
        let config = serve_config(data.path(), patch);
        let app = App::open_with(config, clock, Some(semantic)).unwrap();
        let mut sidecar = Sidecar::of(app, now);
        sidecar._data = Some(data);
        sidecar
    }

    fn of(app: Arc<App>, now: Arc<AtomicU64>) -> Self {
        Sidecar {
            router: sluice::app(app.clone()),
            app,
            now,
            _data: None,
        }
    }

    pub(crate) fn advance(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> (StatusCode, Vec<u8>) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, body.to_vec())
    }

    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        self.call(post(path, body)).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> (StatusCode, Vec<u8>) {
        let request = Request::get(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .unwrap();
        self.call(request).await
    }

    /// An operator's or tenant's call, with JSON both ways.
    pub(crate) async fn ask(
        &self,
        (method, path): (&str, &str),
        token: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(match body {
                Value::Null => String::new(),
                body => body.to_string(),
            }))
            .unwrap();
        let (status, body) = self.call(request).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The answer kept under `key`, if there is one that is fresh.
    pub(crate) async fn hit(&self, key: String) -> Option<Vec<u8>> {
        let (reply, body) = self.admit(&ask(999, vec![plan(Some(key), vec![])])).await;
        matches!(reply.verdict, Verdict::Hit { .. }).then_some(body)
    }

    pub(crate) async fn report(&self, query: &str) -> sluice::report::Report {
        let (status, body) = self.get(&format!("/report?{query}"), OPERATOR).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    pub(crate) async fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics", OPERATOR).await;
        assert_eq!(status, 200);
        String::from_utf8(body).unwrap()
    }

    /// One of the metrics without labels.
    pub(crate) async fn metrics_value(&self, name: &str) -> Option<i64> {
        let text = self.metrics().await;
        let mut values = text.lines().filter_map(|line| line.split_once(' '));
        values.find(|(known, _)| *known == name)?.1.parse().ok()
    }

    pub(crate) async fn admit(&self, ask: &AdmitRequest) -> (AdmitReply, Vec<u8>) {
        let (status, body) = self.post("/v1/admit", frame(ask, b"")).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let frame: Frame<AdmitReply, _> = Frame::decode(&body).unwrap();
        (frame.head, frame.body.to_vec())
    }

    pub(crate) async fn settle(&self, items: Vec<Settle>, answers: &[u8]) -> SettleReply {
        let (status, body) = self.try_settle(items, answers).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let frame: Frame<SettleReply, _> = Frame::decode(&body).unwrap();
        frame.head
    }

    pub(crate) async fn try_settle(
        &self,
        items: Vec<Settle>,
        answers: &[u8],
    ) -> (StatusCode, Vec<u8>) {
        self.post("/v1/settle", frame(&SettleRequest { items }, answers))
            .await
    }
}

/// A filter's call.
pub(crate) fn post(path: &str, body: Vec<u8>) -> Request<Body> {
    Request::post(path)
        .header("authorization", format!("Bearer {SECRET}"))
        .header("x-sluice-wire", sluice_wire::VERSION.to_string())
        .body(Body::from(body))
        .unwrap()
}

pub(crate) fn frame<H: serde::Serialize>(head: &H, body: &[u8]) -> Vec<u8> {
    Frame { head, body }.encode().unwrap()
}

pub(crate) fn id(n: u128) -> String {
    format!("{n:032x}")
}

pub(crate) fn key(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

/// A charge on `tenant:acme` by the day.
pub(crate) fn charge(limit: u64, reserve: u64, over: Over) -> Charge {
    Charge {
        rule: 0,
        counter: "tenant:acme".to_owned(),
        window: Window::Day,
        unit: Unit::Tokens,
        limit,
        reserve,
        at_most: reserve,
        over,
    }
}

pub(crate) fn ask(n: u128, plans: Vec<Plan>) -> AdmitRequest {
    AdmitRequest {
        id: id(n),
        tenant: "acme".to_owned(),
        hold_secs: 120,
        plans,
        ..AdmitRequest::default()
    }
}

pub(crate) fn plan(key: Option<String>, charges: Vec<Charge>) -> Plan {
    Plan {
        key,
        charges,
        ..Plan::default()
    }
}

/// A finished request of tenant acme that used `tokens`, at [`NOW`].
pub(crate) fn item(n: u128, tokens: u64) -> Settle {
    Settle {
        record: Record {
            id: id(n),
            at_ms: NOW,
            tenant: "acme".to_owned(),
            task: "support".to_owned(),
            endpoint: "openai_chat".to_owned(),
            model_asked: "gpt-4o".to_owned(),
            model: "gpt-4o-mini".to_owned(),
            usage: Usage {
                prompt: tokens,
                ..Usage::default()
            },
            as_asked: Some(Usd(1_000)),
            cost: Some(Usd(400)),
            ..Record::default()
        },
        counted: vec![Counted {
            counter: "tenant:acme".to_owned(),
            window: Window::Day,
            unit: Unit::Tokens,
            amount: tokens,
        }],
        ..Settle::default()
    }
}

/// `item` with an answer of `len` bytes to keep under `key` for ten minutes.
pub(crate) fn with_answer(mut item: Settle, key: String, len: u64) -> Settle {
    item.store = Some(Store {
        key,
        ttl_secs: 600,
        entry: EntryHead {
            format: "openai_chat".to_owned(),
            model: "gpt-4o-mini".to_owned(),
            cost: Some(Usd(400)),
            ..EntryHead::default()
        },
        len,
        ..Store::default()
    });
    item
}

/// `item` with an answer that is built on `tag`, whose request arrived `ms` after [`NOW`].
pub(crate) fn tagged(n: u8, tag: &str, ms: u64, answer: &[u8]) -> Settle {
    let mut item = with_answer(item(u128::from(n), 1), key(n), answer.len() as u64);
    item.record.at_ms = NOW + ms;
    if let Some(store) = &mut item.store {
        store.tags = vec![tag.to_owned()];
    }
    item
}

/// Awaits what another task or process brings about; fails after ten seconds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let started = std::time::Instant::now();
    while !is().await {
        assert!(started.elapsed().as_secs() < 10, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// A `redis-server` on a socket of its own, ended with the test.
pub(crate) struct Redis {
    child: Child,
    dir: Arc<tempfile::TempDir>,
}

impl Redis {
    /// None, with a line that says so, where `redis-server` is not installed.
    pub(crate) fn start() -> Option<Self> {
        Redis::start_in(Arc::new(tempfile::tempdir().unwrap()), &[])
    }

    /// [`Redis::start`] with more of its options.
    pub(crate) fn start_with(options: &[String]) -> Option<Self> {
        Redis::start_in(Arc::new(tempfile::tempdir().unwrap()), options)
    }

    fn start_in(dir: Arc<tempfile::TempDir>, options: &[String]) -> Option<Self> {
        let spawned = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--maxmemory", "64mb", "--dir"])
            .arg(dir.path())
            .arg("--unixsocket")
            .arg(dir.path().join("redis.sock"))
            .args(options)
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                assert!(
                    std::env::var_os("SLUICE_REQUIRE_ALL").is_none(),
                    "this test needs redis-server: {error}"
                );
                eprintln!("SKIPPED: this test needs redis-server: {error}");
                return None;
            }
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap().to_lowercase().contains("ready to accept")),
            "redis-server ended before it was ready"
        );
        // Keep reading, or Redis would block on a full pipe some day.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Redis { child, dir })
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.dir.path().join("redis.sock").display())
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).unwrap()
    }

    /// Ends the server; [`Redis::restart`] brings it back, empty.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        let mut fresh = Redis::start_in(self.dir.clone(), &[]).unwrap();
        std::mem::swap(self, &mut fresh);
        // `fresh` is the old one now, which has ended; dropping it kills nothing.
    }

    /// Stops answering without closing connections, as a machine does that hangs.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Ended already after `kill`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
