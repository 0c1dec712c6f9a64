//! The real binary: its commands, an orderly end, and a sudden one.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Error, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use sluice_wire::{AdmitReply, Frame, Over, Settle, SettleReply, SettleRequest, Verdict, Window};
use tokio::net::TcpStream;

use crate::common::{OPERATOR, Redis, SECRET, ask, charge, config_json, frame, item, plan};

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// A running `sluice serve`; killed when the test ends.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(config: &Path) -> Self {
        let mut child = Command::new(SLUICE)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line
            .trim_end()
            .strip_prefix("listening on http://")
            .unwrap_or_else(|| panic!("{line:?}"))
            .to_owned();
        Process {
            child,
            address,
            _stdout: stdout,
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Has ended already in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A data directory and a config file that points to it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new(patch: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { dir };
        let config = config_json(&place.data(), patch);
        std::fs::write(place.config(), config.to_string()).unwrap();
        place
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("sluice.json")
    }

    fn ids(&self) -> Vec<String> {
        let ledger = sluice::ledger::read(&self.data()).unwrap();
        let mut statement = ledger
            .prepare("SELECT lower(hex(id)) FROM records")
            .unwrap();
        let ids = statement.query_map([], |row| row.get(0)).unwrap();
        ids.map(Result::unwrap).collect()
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// `item`, arriving now.
pub(crate) fn fresh(n: u128, tokens: u64) -> Settle {
    let mut item = item(n, tokens);
    item.record.at_ms = now_ms();
    item.counted[0].window = Window::Month;
    item
}

pub(crate) fn request(path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "sidecar")
        .header("authorization", format!("Bearer {SECRET}"))
        .header("x-sluice-wire", sluice_wire::VERSION)
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

pub(crate) async fn connect(address: &str) -> Option<http1::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

/// `None` when the connection broke: nothing is known about the call then.
pub(crate) async fn call(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Option<(StatusCode, Bytes)> {
    sender.ready().await.ok()?;
    let response = sender.send_request(request).await.ok()?;
    let status = response.status();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, body))
}

/// Settles batches of one to four requests until the connection breaks; returns the ids that were
/// acknowledged. Ids begin at `base`.
async fn settle_until_broken(
    address: String,
    base: u128,
    acknowledged: Arc<AtomicU64>,
) -> Vec<u128> {
    let mut sender = connect(&address).await.unwrap();
    let mut sure = Vec::new();
    let mut next = base;
    loop {
        let ids: Vec<u128> = (next..next + 1 + next % 4).collect();
        next += ids.len() as u128;
        let items = ids.iter().map(|&n| fresh(n, 10)).collect();
        let body = frame(&SettleRequest { items }, b"");
        match call(&mut sender, request("/v1/settle", body)).await {
            Some((status, body)) => {
                assert_eq!(status, 200, "{body:?}");
                acknowledged.fetch_add(ids.len() as u64, Ordering::Relaxed);
                sure.extend(ids);
            }
            None => return sure,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_loses_no_acknowledged_record_and_books_none_twice() {
    let place = Place::new(&json!({}));
    let mut sure = BTreeSet::new();
    for (round, enough) in [(0_u128, 40), (1, 300), (2, 777)] {
        let mut process = Process::start(&place.config());
        let acknowledged = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let base = (round * 10 + client) << 64;
                let address = process.address.clone();
                tokio::spawn(settle_until_broken(address, base, acknowledged.clone()))
            })
            .collect();
        while acknowledged.load(Ordering::Relaxed) < enough {
            tokio::task::yield_now().await;
        }
        process.signal("-KILL");
        process.wait();
        for client in clients {
            sure.extend(client.await.unwrap());
        }
        let booked = place.ids();
        let distinct: BTreeSet<u128> = booked
            .iter()
            .map(|id| u128::from_str_radix(id, 16).unwrap())
            .collect();
        assert_eq!(distinct.len(), booked.len(), "none is booked twice");
        let lost: Vec<_> = sure.difference(&distinct).collect();
        assert!(lost.is_empty(), "lost after round {round}: {lost:?}");
    }

    // The filters retry what they are not sure of, and the budget is exactly what was booked.
    let process = Process::start(&place.config());
    let booked = place.ids().len() as u64;
    let again: Vec<Settle> = sure.iter().take(500).map(|&n| fresh(n, 10)).collect();
    let repeated = again.len() as u32;
    let mut sender = connect(&process.address).await.unwrap();
    let body = frame(&SettleRequest { items: again }, b"");
    let (_, body) = call(&mut sender, request("/v1/settle", body))
        .await
        .unwrap();
    let reply: Frame<SettleReply, _> = Frame::decode(&body).unwrap();
    assert_eq!(
        reply.head,
        SettleReply {
            booked: 0,
            repeated
        }
    );
    let mut full = charge(0, 1, Over::Reject);
    full.window = Window::Month;
    let body = frame(&ask(1, vec![plan(None, vec![full])]), b"");
    let (_, body) = call(&mut sender, request("/v1/admit", body)).await.unwrap();
    let reply: Frame<AdmitReply, _> = Frame::decode(&body).unwrap();
    match reply.head.verdict {
        Verdict::Over { used, .. } => assert_eq!(used, booked * 10),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_termination_answers_what_is_in_flight_and_flushes_the_ledger() {
    let place = Place::new(&json!({}));
    let mut process = Process::start(&place.config());
    let body = frame(
        &SettleRequest {
            items: vec![fresh(1, 10)],
        },
        b"",
    );
    // The head and half of the body, so that the call is in flight when the signal comes.
    let mut stream = std::net::TcpStream::connect(&process.address).unwrap();
    let (first, second) = body.split_at(body.len() / 2);
    write!(
        stream,
        "POST /v1/settle HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\n\
         x-sluice-wire: {}\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        sluice_wire::VERSION,
        body.len()
    )
    .unwrap();
    let mut answer = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    // The handler asks for the body only once it runs.
    answer.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 100"), "{line}");
    stream.write_all(first).unwrap();
    process.signal("-TERM");
    // New connections are refused from then on, which tells that the signal has arrived.
    while std::net::TcpStream::connect(&process.address).is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(second).unwrap();
    line.clear();
    answer.read_line(&mut line).unwrap();
    line.clear();
    answer.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    assert!(process.wait().success());
    assert_eq!(place.ids().len(), 1);
    let wal = place.data().join("ledger.sqlite3-wal");
    let left = std::fs::metadata(wal).map_or(0, |it| it.len());
    assert_eq!(left, 0, "the log was written back");
}

#[tokio::test]
async fn one_connection_serves_many_calls_by_either_http_version() {
    let place = Place::new(&json!({}));
    let process = Process::start(&place.config());
    let body = || frame(&ask(1, vec![plan(None, vec![])]), b"");
    let mut one = connect(&process.address).await.unwrap();
    for _ in 0..20 {
        let (status, _) = call(&mut one, request("/v1/admit", body())).await.unwrap();
        assert_eq!(status, 200);
    }
    // Prior knowledge: no upgrade, the preface comes first.
    let stream = TcpStream::connect(&process.address).await.unwrap();
    let (mut two, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    for _ in 0..20 {
        let request = Request::post(format!("http://{}/v1/admit", process.address))
            .header("authorization", format!("Bearer {SECRET}"))
            .header("x-sluice-wire", sluice_wire::VERSION)
            .body(Full::new(Bytes::from(body())))
            .unwrap();
        assert_eq!(two.send_request(request).await.unwrap().status(), 200);
    }
}

pub(crate) fn run(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(SLUICE)
        .args(args)
        .env("SLUICE_TOKEN", OPERATOR)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let written = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    // One that refuses its arguments reads nothing.
    let ended = |error: &Error| error.kind() == ErrorKind::BrokenPipe;
    assert!(written.as_ref().err().is_none_or(ended), "{written:?}");
    child.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn check_tells_each_fault_with_its_path_or_ends_with_zero() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good.yaml", "mode: on\nsidecar: {cluster: c, secret: s}\n");
    let output = run(&["check", &good], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bad = file(
        "bad.yaml",
        "mode: sideways\nsidecar: {cluster: c, secret: s}\nserve: {cache: {memory: much}}\n",
    );
    let output = run(&["check", &bad], "");
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("mode: "), "{lines:?}");
    assert!(lines[1].starts_with("serve.cache.memory: "), "{lines:?}");
    let output = run(&["serve", "--config", &bad], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("serve.cache.memory: "));
    assert_eq!(run(&["check", "no-such-file"], "").status.code(), Some(1));
}

#[test]
fn score_answers_line_by_line() {
    let output = run(&["score"], "{\"id\": \"q1\", \"prompt\": \"Hello\"}\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&line["id"], &line["tier"]),
        (&json!("q1"), &json!("small"))
    );
    assert_eq!(run(&["score"], "nonsense\n").status.code(), Some(1));
}

#[tokio::test]
async fn report_reads_the_file_beside_a_running_sidecar_and_asks_it_by_url() {
    let place = Place::new(&json!({}));
    let mut process = Process::start(&place.config());
    let mut sender = connect(&process.address).await.unwrap();
    let items = vec![fresh(1, 10), fresh(2, 20)];
    let body = frame(&SettleRequest { items }, b"");
    let (status, _) = call(&mut sender, request("/v1/settle", body))
        .await
        .unwrap();
    assert_eq!(status, 200);

    let config = place.config();
    let config = config.to_str().unwrap();
    let table = run(
        &["report", "--config", config, "--by", "task", "--from", "1h"],
        "",
    );
    assert!(table.status.success(), "{}", text(&table.stderr));
    assert!(
        text(&table.stdout).contains("support"),
        "{}",
        text(&table.stdout)
    );
    let url = format!("http://{}", process.address);
    let by_file = run(
        &[
            "report",
            "--config",
            config,
            "--by",
            "tenant:model",
            "--json",
        ],
        "",
    );
    let by_url = run(
        &["report", "--url", &url, "--by", "tenant:model", "--json"],
        "",
    );
    assert!(by_url.status.success(), "{}", text(&by_url.stderr));
    assert_eq!(text(&by_file.stdout), text(&by_url.stdout));
    let report: Value = serde_json::from_slice(&by_url.stdout).unwrap();
    assert_eq!(report["total"]["tokens"]["prompt"], 30);
    let twice = run(
        &[
            "report",
            "--config",
            config,
            "--url",
            &url,
            "--by",
            "tenant:model",
            "--json",
        ],
        "",
    );
    let twice: Value = serde_json::from_slice(&twice.stdout).unwrap();
    assert_eq!(twice["total"]["tokens"]["prompt"], 60, "ledgers are added");
    assert_eq!(twice["by"]["tenant:model"][0]["requests"], 4);
    assert_eq!(twice["total"]["cost"]["exact"], "0.0000000016");

    let tuning = run(&["report", "--cache", "--url", &url], "");
    assert!(tuning.status.success(), "{}", text(&tuning.stderr));
    assert!(text(&tuning.stdout).contains("not enough data"));
    let none = run(&["report", "--cache", "--data", "/nowhere"], "");
    assert!(text(&none.stderr).contains("every ten minutes"));

    let refused = run(&["report", "--url", &url, "--token", "wrong"], "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("401"),
        "{}",
        text(&refused.stderr)
    );
    process.signal("-TERM");
    assert!(process.wait().success());
    let saved = run(&["report", "--cache", "--config", config, "--json"], "");
    let saved: Value = serde_json::from_slice(&saved.stdout).unwrap();
    assert_eq!(saved["goal"]["changed"], 0.05);
}

#[tokio::test]
async fn report_shows_what_all_sidecars_on_a_redis_have_booked() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let patch = json!({"store": redis.url(), "redis": {"timeout": "2s"}});
    let places = [Place::new(&patch), Place::new(&patch)];
    for (place, n) in places.iter().zip(1..) {
        let mut process = Process::start(&place.config());
        let mut sender = connect(&process.address).await.unwrap();
        let items = vec![fresh(n, 10), fresh(n + 10, 10)];
        let body = frame(&SettleRequest { items }, b"");
        let (status, _) = call(&mut sender, request("/v1/settle", body))
            .await
            .unwrap();
        assert_eq!(status, 200);
        process.signal("-TERM");
        assert!(process.wait().success());
    }
    let configs = places.each_ref().map(|place| place.config());
    let config = configs[0].to_str().unwrap();
    let json = |args: &[&str]| -> Value {
        let output = run(&[&["report", "--json"], args].concat(), "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let shared = json(&["--config", config, "--records", "3"]);
    assert_eq!(shared["total"]["requests"], 4);
    assert_eq!(shared["records"].as_array().unwrap().len(), 3);
    // Both have ended, and said that nothing is missing.
    assert_eq!(shared["covers"]["complete"], true, "{shared}");
    let own = json(&["--config", config, "--scope", "local"]);
    assert_eq!(own["total"]["requests"], 2);
    let both = json(&["--config", config, "--config", configs[1].to_str().unwrap()]);
    assert_eq!(both["total"], shared["total"]);

    let process = Process::start(&configs[1]);
    let url = format!("http://{}", process.address);
    assert_eq!(json(&["--url", &url])["total"], shared["total"]);
    redis.kill();
    let table = run(&["report", "--config", config], "");
    assert!(table.status.success(), "{}", text(&table.stderr));
    assert!(
        text(&table.stdout).contains("INCOMPLETE"),
        "{}",
        text(&table.stdout)
    );
    assert_eq!(json(&["--url", &url])["covers"]["shared"], false);
}

#[test]
fn a_second_sidecar_on_the_same_data_says_so_and_ends() {
    let place = Place::new(&json!({}));
    let _first = Process::start(&place.config());
    let config = place.config();
    let second = run(
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--config",
            config.to_str().unwrap(),
        ],
        "",
    );
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another sidecar uses this directory"));
}
