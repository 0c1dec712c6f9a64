//! Requests that are relayed: to a real listener, over real sockets where it matters.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use flate2::write::GzEncoder;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sluice_core::exchange::{Digest, Sealer};
use sluice_wire::{Attempt, RelayRequest, header, limit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt;

use crate::common::{NOW, SECRET, Sidecar, frame, post};

const PATH: &str = "/v1/chat/completions?beta=1";
/// Bodies of the two attempts.
const TRIMMED: &[u8] = b"{\"messages\":[]}";
const WHOLE: &[u8] = b"{\"messages\":[1]}";

/// A request as the listener saw it.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    headers: axum::http::HeaderMap,
    body: Bytes,
}

type Answers = Arc<dyn Fn(&Seen) -> Response + Send + Sync>;

/// A listener in the place of Envoy, and what it was asked.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    async fn new(answers: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let state = (seen.clone(), Arc::new(answers) as Answers);
        let router = Router::new().fallback(serve).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Upstream { address, seen }
    }

    fn sidecar(&self) -> Sidecar {
        Sidecar::new(&relays_to(self.address))
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn relays_to(address: SocketAddr) -> Value {
    json!({"relay": {"url": format!("http://{address}"), "timeout": "60s"}})
}

async fn serve(
    State((seen, answers)): State<(Arc<Mutex<Vec<Seen>>>, Answers)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let one = Seen {
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    };
    seen.lock().unwrap().push(one.clone());
    answers(&one)
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Two attempts of a caller's request, and their frame's body.
fn request() -> (RelayRequest, Vec<u8>) {
    let attempt = |body: &[u8], seal: &str| Attempt {
        len: body.len() as u64,
        digest: Digest::of(body).hex(),
        headers: vec![pair(header::ATTEMPT, seal)],
    };
    let relay = RelayRequest {
        path: PATH.to_owned(),
        authority: "api.example".to_owned(),
        headers: vec![
            pair("authorization", "Bearer sk-caller"),
            pair("x-sluice-tier", "small"),
            pair("content-length", "9999"),
            pair("connection", "close, X-Secret"),
            pair("x-secret", "of this hop"),
        ],
        attempts: vec![attempt(TRIMMED, "seal-0"), attempt(WHOLE, "seal-1")],
    };
    (relay, [TRIMMED, WHOLE].concat())
}

/// What opens the relay to a frame, at that time.
fn token(frame: &[u8], now_ms: u64) -> String {
    let head = frame.split(|byte| *byte == b'\n').next().unwrap();
    let token = Sealer::new(SECRET).relay_token(head, now_ms * 1000);
    format!("Bearer {token}")
}

/// The filter's call with that frame.
fn call(frame: Vec<u8>) -> Request {
    let token = token(&frame, NOW);
    let mut call = post("/v1/relay", frame);
    let headers = call.headers_mut();
    headers.insert("authorization", token.parse().unwrap());
    call
}

/// The same of [`request`].
pub(crate) fn relayed() -> Request {
    let (head, body) = request();
    call(frame(&head, &body))
}

async fn send(sidecar: &Sidecar, (head, body): &(RelayRequest, Vec<u8>)) -> Response {
    let call = call(frame(head, body));
    sidecar.router.clone().oneshot(call).await.unwrap()
}

async fn told(response: Response) -> (StatusCode, Option<String>, Bytes) {
    let attempt = response.headers().get(header::ATTEMPT);
    let attempt = attempt.map(|it| it.to_str().unwrap().to_owned());
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, attempt, body)
}

/// What upstream says of messages that it does not take.
fn refusal(message: &str) -> Value {
    json!({"error": {
        "message": message, "type": "invalid_request_error", "param": "messages", "code": null
    }})
}

fn json_of(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (
        status,
        [("content-type", "application/json")],
        body.to_string(),
    )
        .into_response()
}

/// Refuses what was trimmed.
fn strict(seen: &Seen) -> Response {
    match &seen.body[..] == TRIMMED {
        true => json_of(400, &refusal("[] is too short - 'messages'")),
        false => json_of(200, &json!({"ok": true})),
    }
}

#[tokio::test]
async fn an_attempt_that_is_answered_is_the_only_one_and_goes_as_the_caller_sent_it() {
    let upstream = Upstream::new(|_| {
        let body = json!({"ok": true}).to_string();
        ([("x-request-id", "r1"), ("keep-alive", "timeout=5")], body).into_response()
    })
    .await;
    let sidecar = upstream.sidecar();
    let response = send(&sidecar, &request()).await;
    assert_eq!(response.headers()["x-request-id"], "r1");
    assert!(!response.headers().contains_key("keep-alive"));
    let (status, attempt, body) = told(response).await;
    assert_eq!((status.as_u16(), attempt.as_deref()), (200, Some("0")));
    assert_eq!(&body[..], br#"{"ok":true}"#);
    let seen = upstream.seen();
    assert_eq!((seen.len(), &seen[0].body[..]), (1, TRIMMED));
    assert_eq!(seen[0].path, PATH);
    let headers = &seen[0].headers;
    for (name, value) in [
        ("host", "api.example"),
        ("authorization", "Bearer sk-caller"),
        ("x-sluice-tier", "small"),
        (header::ATTEMPT, "seal-0"),
        ("content-length", "15"),
    ] {
        assert_eq!(headers[name], value);
    }
    assert!(!headers.contains_key("connection") && !headers.contains_key("x-secret"));
    assert!(!format!("{headers:?}").contains(SECRET), "the filter's own");
}

#[tokio::test]
async fn where_messages_are_refused_the_request_goes_once_more_as_it_came() {
    let upstream = Upstream::new(strict).await;
    let sidecar = upstream.sidecar();
    let (status, attempt, body) = told(send(&sidecar, &request()).await).await;
    assert_eq!((status.as_u16(), attempt.as_deref()), (200, Some("1")));
    assert_eq!(&body[..], br#"{"ok":true}"#);
    let seen = upstream.seen();
    assert_eq!((seen.len(), &seen[1].body[..]), (2, WHOLE));
    assert_eq!(seen[1].headers[header::ATTEMPT], "seal-1");
    let metrics = sidecar.metrics().await;
    assert!(
        metrics.contains(r#"sluice_relays_total{result="second"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn other_refusals_and_the_last_one_are_passed_on_as_they_are() {
    let long = "x".repeat(200_000);
    for (status, body) in [
        (
            400,
            refusal("This model's maximum context length is 8192 tokens."),
        ),
        (429, refusal("messages")),
        (401, refusal("messages")),
        (500, refusal("messages")),
        // Too long to be judged.
        (400, refusal(&format!("messages {long}"))),
    ] {
        let answer = body.clone();
        let upstream = Upstream::new(move |_| json_of(status, &answer)).await;
        let (found, attempt, text) = told(send(&upstream.sidecar(), &request()).await).await;
        assert_eq!((found.as_u16(), attempt.as_deref()), (status, Some("0")));
        assert_eq!(text, body.to_string(), "{status}");
        assert_eq!(upstream.seen().len(), 1, "{status}");
    }
    let upstream = Upstream::new(|_| json_of(400, &refusal("[] is too short"))).await;
    let (status, attempt, text) = told(send(&upstream.sidecar(), &request()).await).await;
    assert_eq!((status.as_u16(), attempt.as_deref()), (400, Some("1")));
    assert_eq!(text, refusal("[] is too short").to_string());
    assert_eq!(upstream.seen().len(), 2, "once more, and no more");
}

#[tokio::test]
async fn a_compressed_refusal_is_read_and_passed_on_compressed() {
    let gzip = |text: String| {
        use std::io::Write;
        let mut out = GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap()
    };
    for (message, attempts) in [("[] is too short", 2), ("messages: prompt is too long", 1)] {
        let bytes = gzip(refusal(message).to_string());
        let answer = bytes.clone();
        let upstream = Upstream::new(move |_| {
            (
                StatusCode::BAD_REQUEST,
                [("content-encoding", "gzip")],
                answer.clone(),
            )
                .into_response()
        })
        .await;
        let (_, _, text) = told(send(&upstream.sidecar(), &request()).await).await;
        assert_eq!(upstream.seen().len(), attempts, "{message}");
        assert_eq!(text, bytes);
    }
}

#[tokio::test]
async fn a_stream_is_passed_on_piece_by_piece_and_not_read_ahead() {
    const PIECE: usize = 1 << 20;
    let (sends, sent) = mpsc::unbounded_channel();
    let sends = Mutex::new(Some(sends));
    let upstream = Upstream::new(move |_| {
        let sends = sends.lock().unwrap().take().unwrap();
        let pieces = stream::iter(0..64).map(move |n| {
            sends.send(n).unwrap();
            Ok::<_, std::io::Error>(vec![b'x'; PIECE])
        });
        Body::from_stream(pieces).into_response()
    })
    .await;
    let mut body = send(&upstream.sidecar(), &request()).await.into_body();
    let mut sent = sent;
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(!first.is_empty());
    // All would be here at once, if somebody kept it.
    let mut ahead = 0;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(300), sent.recv()).await {
        ahead += 1;
    }
    assert!((1..32).contains(&ahead), "{ahead} of 64 MiB, nobody reads");
    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!(first.len() + rest.len(), 64 * PIECE);
}

/// Tells when it is dropped.
struct Gone(Option<oneshot::Sender<()>>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_upstream() {
    let (gone, is_gone) = oneshot::channel();
    let gone = Mutex::new(Some(Gone(Some(gone))));
    let upstream = Upstream::new(move |_| {
        let gone = gone.lock().unwrap().take();
        let first = stream::iter([Ok::<_, std::io::Error>("data: 1\n\n")]);
        // Never a second one; it is dropped when the connection is.
        let never = stream::pending().map(move |it| {
            let _ = &gone;
            it
        });
        Body::from_stream(first.chain(never)).into_response()
    })
    .await;
    let sidecar = upstream.sidecar();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let app = sidecar.app.clone();
    let serving = tokio::spawn(sluice::server::serve(listener, app, async {
        let _ = stopped.await;
    }));
    let (head, body) = request();
    let body = frame(&head, &body);
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let call = format!(
        "POST /v1/relay HTTP/1.1\r\nhost: sidecar\r\nauthorization: {}\r\n\
         x-sluice-wire: {}\r\ncontent-length: {}\r\n\r\n",
        token(&body, NOW),
        sluice_wire::VERSION,
        body.len()
    );
    client.write_all(call.as_bytes()).await.unwrap();
    client.write_all(&body).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"data: 1\n\n\r\n") {
        assert!(client.read_buf(&mut answer).await.unwrap() > 0);
    }
    let head = String::from_utf8_lossy(&answer);
    assert!(head.contains("x-sluice-attempt: 0"), "{head}");
    drop(client);
    let ended = tokio::time::timeout(Duration::from_secs(10), is_gone).await;
    ended.expect("upstream goes on").unwrap();
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_listener_that_is_not_there_or_breaks_off_is_an_error_without_an_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sidecar = Sidecar::new(&relays_to(address));
    let breaks = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200").await.unwrap();
    });
    for _ in 0..2 {
        let (status, attempt, body) = told(send(&sidecar, &request()).await).await;
        assert_eq!((status.as_u16(), attempt), (502, None));
        let text = String::from_utf8_lossy(&body);
        assert!(
            text.contains("serve.relay") && !text.contains("sk-caller"),
            "{text}"
        );
    }
    breaks.await.unwrap();
    // One that breaks off later breaks the answer off.
    let (breaks, broken) = oneshot::channel::<()>();
    let broken = Mutex::new(Some(broken));
    let upstream = Upstream::new(move |_| {
        let broken = broken.lock().unwrap().take().unwrap();
        let first = stream::iter([Ok("data: 1\n\n")]);
        let then = stream::once(async {
            broken.await.unwrap();
            Err(std::io::Error::other("gone"))
        });
        Body::from_stream(first.chain(then)).into_response()
    })
    .await;
    let response = send(&upstream.sidecar(), &request()).await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    breaks.send(()).unwrap();
    body.collect().await.unwrap_err();
}

#[tokio::test]
async fn a_relay_that_is_not_what_it_says_is_refused_with_the_fields_name() {
    let upstream = Upstream::new(strict).await;
    let sidecar = upstream.sidecar();
    let with = |change: &dyn Fn(&mut RelayRequest)| {
        let (mut head, body) = request();
        change(&mut head);
        (head, body)
    };
    let short = (request().0, b"short".to_vec());
    let mut none = with(&|it| it.attempts.clear());
    none.1.clear();
    for (asked, part) in [
        (none, "attempts: expected one or two, found 0"),
        (
            with(&|it| it.attempts.push(Attempt::default())),
            "attempts: expected one or two, found 3",
        ),
        (
            with(&|it| it.path = "http://elsewhere/".to_owned()),
            "path: expected a path",
        ),
        (
            with(&|it| it.attempts[0].len = 3),
            "body: expected 19 bytes of attempts, found 31",
        ),
        (with(&|it| it.attempts[0].len = u64::MAX), "body: expected"),
        (short, "body: expected 31 bytes of attempts, found 5"),
        (
            with(&|it| it.headers = vec![pair("a", "b"); limit::RELAY_HEADERS]),
            "attempts[0].headers: expected at most 100 in all, found 101",
        ),
        (
            with(&|it| {
                it.attempts[1]
                    .headers
                    .push(pair("x", "secret\r\nhost: evil"))
            }),
            r#"attempts[1].headers: \"x\": expected a header"#,
        ),
        (
            with(&|it| it.headers.push(pair(":path", "secret"))),
            r#"attempts[0].headers: \":path\""#,
        ),
        (
            with(&|it| it.attempts[1].digest = Digest::of(b"secret").hex()),
            "attempts[1].digest: expected the body's",
        ),
    ] {
        let (status, _, text) = told(send(&sidecar, &asked).await).await;
        let text = String::from_utf8_lossy(&text);
        assert_eq!(
            (status.as_u16(), text.contains(part)),
            (400, true),
            "{part} in {text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }
    assert_eq!(upstream.seen().len(), 0);
    let (status, _, text) = told(send(&Sidecar::new(&json!({})), &request()).await).await;
    let text = String::from_utf8_lossy(&text);
    assert_eq!(
        (status.as_u16(), text.contains("serve.relay")),
        (404, true),
        "{text}"
    );
}

#[tokio::test]
async fn a_path_or_host_that_reads_as_another_elsewhere_is_not_sent() {
    let upstream = Upstream::new(strict).await;
    let sidecar = upstream.sidecar();
    let send = async |change: &dyn Fn(&mut RelayRequest)| {
        let mut asked = request();
        change(&mut asked.0);
        told(send(&sidecar, &asked).await).await
    };
    for path in [
        "",
        "*",
        "v1/chat",
        "//evil.example/v1/chat",
        "http://evil.example/",
        "/a b",
        "/a\r\nhost: evil",
        "/a\0",
        "/v1/../admin",
        "/v1/%2E%2e/admin",
        "/v1/./chat",
        "/v1/..",
        "/v1\\..\\admin",
        "/v1#x",
        "/v1?a#x",
    ] {
        let (status, _, text) = send(&|it| it.path = path.to_owned()).await;
        let text = String::from_utf8_lossy(&text);
        let named = text.contains("path: expected a path");
        assert_eq!((status.as_u16(), named), (400, true), "{path:?}: {text}");
    }
    for host in [
        "",
        "api\r\nx-a: b",
        "user@evil.example",
        "api/path",
        "a b",
        "api?x",
        "http://api",
    ] {
        let (status, _, text) = send(&|it| it.authority = host.to_owned()).await;
        let text = String::from_utf8_lossy(&text);
        let named = text.contains("authority: expected a host");
        assert_eq!((status.as_u16(), named), (400, true), "{host:?}: {text}");
    }
    assert_eq!(upstream.seen().len(), 0);
    for (path, host) in [("/v1/..a/.b?x=/../", "api:8443"), ("/v1/%2fa", "[::1]:1")] {
        let (status, ..) = send(&|it| (it.path, it.authority) = (path.into(), host.into())).await;
        assert_eq!(status, 200, "{path}");
        assert_eq!(upstream.seen().last().unwrap().path, path);
        assert_eq!(upstream.seen().last().unwrap().headers["host"], host);
    }
}

#[tokio::test]
async fn the_relay_opens_to_the_request_that_a_token_was_made_for_and_for_a_minute() {
    let upstream = Upstream::new(strict).await;
    let sidecar = upstream.sidecar();
    let (head, body) = request();
    let bytes = frame(&head, &body);
    let other = {
        let mut head = head.clone();
        head.path.push('2');
        frame(&head, &body)
    };
    let good = token(&bytes, NOW);
    let forged = Sealer::new("another").relay_token(b"{}", NOW * 1000);
    for (token, bytes, wanted) in [
        ("Bearer operator-token".to_owned(), &bytes, 401),
        ("Bearer sk-caller".to_owned(), &bytes, 401),
        // Who has it may ask for all else, but it does not travel where this does.
        (format!("Bearer {SECRET}"), &bytes, 401),
        (format!("Bearer {forged}"), &bytes, 401),
        (format!("{good}0"), &bytes, 401),
        (token(&bytes, NOW - 61_000), &bytes, 401),
        (token(&bytes, NOW + 2_000), &bytes, 401),
        (good.clone(), &other, 403),
        (good.clone(), &b"\n{}".to_vec(), 403),
        (good.clone(), &Vec::new(), 403),
    ] {
        let mut call = post("/v1/relay", bytes.clone());
        call.headers_mut()
            .insert("authorization", token.parse().unwrap());
        let (status, attempt, text) =
            told(sidecar.router.clone().oneshot(call).await.unwrap()).await;
        assert_eq!((status.as_u16(), attempt), (wanted, None), "{text:?}");
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn what_is_no_frame_is_refused_without_a_word_of_what_stands_in_it() {
    let upstream = Upstream::new(strict).await;
    let sidecar = upstream.sidecar();
    let mut odd = vec![
        b"{}".to_vec(),
        br#"{"path":"/","authority":"a","headers":"Bearer sk-caller","attempts":[]}
"#
        .to_vec(),
        br#"{"path":"/","authority":"a","headers":[["a","b","sk-caller"]],"attempts":[]}
"#
        .to_vec(),
        br#"{"path":7,"sk-caller
"#
        .to_vec(),
        b"\xff\n".to_vec(),
    ];
    let (head, body) = request();
    let whole = frame(&head, &body);
    odd.extend((0..whole.len()).map(|len| whole[..len].to_vec()));
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let mut damaged = whole.clone();
        for _ in 0..=rng.usize(..3) {
            let at = rng.usize(..damaged.len());
            damaged[at] = rng.u8(..);
        }
        odd.push(damaged);
    }
    for bytes in odd {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let answer = sidecar.router.clone().oneshot(call(bytes)).await.unwrap();
        let (status, attempt, text) = told(answer).await;
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("sk-caller"), "{text}");
        // Damage may leave what could have been sent.
        let sent = attempt.is_some() || status == 400;
        assert!(sent, "{status} {text} for {shown}");
    }
}

#[tokio::test]
async fn an_answer_says_nothing_in_our_name_and_leads_nowhere() {
    let upstream = Upstream::new(|_| {
        let headers = [
            ("location", "http://127.0.0.1:1/elsewhere"),
            ("x-sluice-attempt", "1"),
            ("x-sluice-cost", "0"),
            ("connection", "x-inner"),
            ("x-inner", "of this hop"),
        ];
        (StatusCode::TEMPORARY_REDIRECT, headers, "there").into_response()
    })
    .await;
    let response = send(&upstream.sidecar(), &request()).await;
    let names: Vec<_> = response
        .headers()
        .keys()
        .map(|name| name.as_str())
        .collect();
    assert!(!names.contains(&"x-sluice-cost") && !names.contains(&"x-inner"));
    let (status, attempt, body) = told(response).await;
    assert_eq!((status.as_u16(), attempt.as_deref()), (307, Some("0")));
    assert_eq!(&body[..], b"there");
    assert_eq!(upstream.seen().len(), 1, "nobody goes where it leads");
}

/// A listener that says these bytes to each request, and hangs up.
async fn says(answers: Vec<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            // Both bodies end so.
            while !asked.ends_with(b"]}") {
                assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
            }
            stream.write_all(answer).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_a_whole_one() {
    let refused = br#"HTTP/1.1 400 Bad Request
content-length: 900

{"error":{"message":"roles","type":"invalid_request_error","param":"messages"}}"#;
    for answer in [
        // Where they end, nobody could say.
        &b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n"[..],
        b"HTTP/1.0 200 OK\r\n\r\ndata: 1\n\n",
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n{}",
        // A refusal that is not whole says nothing, of the second attempt least of all.
        refused,
        // Two lengths, or none that is one.
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nab",
    ] {
        let sidecar = Sidecar::new(&relays_to(says(vec![answer]).await));
        let (status, attempt, _) = told(send(&sidecar, &request()).await).await;
        assert_eq!((status.as_u16(), attempt), (502, None), "{answer:?}");
    }
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\ndata: 1\n\n"[..],
        b"HTTP/1.0 200 OK\r\ncontent-length: 90\r\n\r\ndata: 1\n\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n",
    ] {
        let sidecar = Sidecar::new(&relays_to(says(vec![answer]).await));
        let response = send(&sidecar, &request()).await;
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap_err();
    }
    for answer in [
        &b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sluice-cost: 0\r\n\r\n",
    ] {
        let sidecar = Sidecar::new(&relays_to(says(vec![answer]).await));
        let (status, attempt, body) = told(send(&sidecar, &request()).await).await;
        assert_eq!((status.as_u16(), attempt.as_deref()), (200, Some("0")));
        assert_eq!(&body[..], b"ok");
    }
}
