//! HTTP: from a request to an endpoint, and from its reply, through faults and time, to bytes.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_wire::Usage;
use tokio::net::TcpListener;

use super::api::{Call, endpoint};
use super::faults::Fault;
use super::models::Sold;
use super::reply::{self, Refusal, Reply};
use super::tokens::hash;
use super::{Seen, State};
use crate::client::{TRAILER, with_trailer};

pub(super) async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let app = Router::new()
        .route("/_stats", get(stats))
        .route("/_requests", get(requests))
        .route("/_admin", post(admin))
        .route("/healthz", get(async || "ok"))
        .fallback(api)
        .with_state(state);
    let listener = listener.tap_io(|socket| {
        // Without it a stream's events wait for the client's acknowledgements; a socket that
        // cannot do it is only slower.
        let _ = socket.set_nodelay(true);
    });
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown)
        .await?;
    Ok(())
}

type Provider = Shared<Arc<State>>;

async fn stats(Shared(state): Provider) -> axum::Json<super::Stats> {
    axum::Json(state.books.stats())
}

#[derive(Deserialize)]
struct Last {
    n: Option<usize>,
}

async fn requests(Shared(state): Provider, Query(last): Query<Last>) -> axum::Json<Value> {
    let seen = state.last_seen(last.n.unwrap_or(10));
    let list = seen.iter().map(|seen| {
        json!({
            "method": seen.method,
            "path": seen.path,
            "headers": seen.headers,
            "body": String::from_utf8_lossy(&seen.body),
            "body_bytes": seen.body.len(),
        })
    });
    axum::Json(list.collect())
}

/// `POST /_admin`: `{"clear": true, "heal": true, "faults": [{…}]}`, each part optional.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admin {
    /// Forget books, requests, faults, prefixes.
    #[serde(default)]
    clear: bool,
    /// No more faults.
    #[serde(default)]
    heal: bool,
    /// Faults for coming requests.
    #[serde(default)]
    faults: Vec<Fault>,
}

async fn admin(Shared(state): Provider, axum::Json(admin): axum::Json<Admin>) -> StatusCode {
    if admin.clear {
        state.clear();
    }
    if admin.heal {
        state.faults.clear();
    }
    for fault in admin.faults {
        state.faults.add(fault);
    }
    StatusCode::NO_CONTENT
}

/// Everything else is the API's.
async fn api(Shared(state): Provider, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let number = state.number();
    let _arrived = state.books.arrived();
    let path = parts.uri.path().to_owned();
    let models_asked =
        parts.method == Method::GET && parts.headers.contains_key("anthropic-version");
    let anthropic = path.starts_with("/v1/messages") || models_asked;
    let refuse = |refusal: &Refusal| {
        state.books.error(refusal.status);
        refusal_response(refusal, anthropic, number)
    };
    let Ok(body) = Limited::new(body, state.config.max_body).collect().await else {
        return refuse(&Refusal::of_status(413));
    };
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = body.to_bytes();
    state.see(seen(&parts, &body, trailers));
    if let Some(refusal) = unauthorised(&parts.headers, &path) {
        return refuse(&refusal);
    }
    if parts.method == Method::GET {
        return match models(&state, &path, anthropic) {
            Some(models) => json_response(&models, number),
            None => refuse(&not_found(&path)),
        };
    }
    let Some(endpoint) = endpoint(&path).filter(|_| parts.method == Method::POST) else {
        return refuse(&not_found(&path));
    };
    let parsed: Result<Value, _> = serde_json::from_slice(&body);
    let named = parsed.as_ref().ok().and_then(|body| body["model"].as_str());
    let fault = match state
        .faults
        .hit(&path, named.unwrap_or_default(), &parts.headers)
    {
        Ok(fault) => fault,
        Err(error) => {
            let message = format!("header {}: {error}", super::FAULT_HEADER);
            return refuse(&Refusal::invalid("", message));
        }
    };
    if fault.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    }
    if fault.hang {
        std::future::pending::<()>().await;
    }
    if let Some(status) = fault.status {
        let mut response = refuse(&Refusal::of_status(status));
        if matches!(status, 429 | 503 | 529) {
            set(&mut response, "retry-after", "2");
        }
        more_headers(&mut response, &fault);
        return response;
    }
    if let (Some(least), Ok(body)) = (fault.messages_below, &parsed)
        && let Some(messages) = body["messages"].as_array().or(body["input"].as_array())
        && messages.len() < least
    {
        let message = "messages: a `tool_use` block has no `tool_result` immediately after it";
        return refuse(&Refusal::invalid("messages", message));
    }
    if path.starts_with("/v1/messages") && !parts.headers.contains_key("anthropic-version") {
        return refuse(&Refusal::invalid(
            "",
            "anthropic-version: header is required",
        ));
    }
    let answered = match &parsed {
        Ok(body @ Value::Object(_)) => endpoint(&Call {
            state: &state,
            body,
            owner: hash(key(&parts.headers)),
            number,
            now_ms: clock(&parts.headers).unwrap_or_else(|| state.prefixes.now_ms()),
        }),
        Ok(other) => Err(Refusal::invalid(
            "",
            format!("Expected a JSON object, but got {}.", kind(other)),
        )),
        Err(error) => Err(Refusal::invalid(
            "",
            format!("We could not parse the JSON body of your request: {error}"),
        )),
    };
    match answered {
        Ok(reply) => send(&state, reply, fault, accepted(&parts.headers), number).await,
        Err(refusal) => refuse(&refusal),
    }
}

fn seen(parts: &axum::http::request::Parts, body: &Bytes, trailers: HeaderMap) -> Seen {
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        (
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    Seen {
        method: parts.method.to_string(),
        path: parts
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned(),
        headers: parts.headers.iter().map(header).collect(),
        body: body.clone(),
        trailers,
    }
}

/// What the client says it is, for the prefix caches.
fn clock(headers: &HeaderMap) -> Option<u64> {
    let told = headers.get(super::CLOCK_HEADER)?;
    told.to_str().ok()?.parse().ok()
}

fn key(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let plain = headers
        .get("x-api-key")
        .and_then(|value| value.to_str().ok());
    bearer.or(plain).filter(|key| !key.trim().is_empty())
}

fn unauthorised(headers: &HeaderMap, path: &str) -> Option<Refusal> {
    let message = match key(headers) {
        None if path.starts_with("/v1/messages") => "x-api-key header is required",
        None => {
            "You didn't provide an API key. You need to provide your API key in an Authorization \
             header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        }
        Some(key) if key.starts_with("sk-invalid") => "Incorrect API key provided.",
        Some(_) => return None,
    };
    Some(Refusal {
        message: message.to_owned(),
        kind: "invalid_request_error",
        code: Some("invalid_api_key"),
        ..Refusal::of_status(401)
    })
}

fn not_found(path: &str) -> Refusal {
    Refusal {
        message: format!("Invalid URL ({path})"),
        kind: "invalid_request_error",
        ..Refusal::of_status(404)
    }
}

fn models(state: &State, path: &str, anthropic: bool) -> Option<Value> {
    let describe = |model: &str| match anthropic {
        true => json!({
            "type": "model", "id": model, "display_name": model, "created_at": "2025-10-01T00:00:00Z",
        }),
        false => json!({
            "id": model, "object": "model", "created": 1_759_276_800, "owned_by": "system",
        }),
    };
    let mine = |model: &str| {
        let sold = state.catalog.sold(model);
        sold.is_some() && (sold == Some(Sold::Anthropic)) == anthropic
    };
    let one = path.strip_prefix("/v1/models/");
    if let Some(model) = one {
        return mine(model).then(|| describe(model));
    }
    if path != "/v1/models" {
        return None;
    }
    let data: Vec<Value> = state
        .catalog
        .models()
        .filter(|model| mine(model))
        .map(describe)
        .collect();
    Some(match anthropic {
        true => json!({
            "first_id": data.first().map(|model| &model["id"]),
            "last_id": data.last().map(|model| &model["id"]),
            "has_more": false,
            "data": data,
        }),
        false => json!({"object": "list", "data": data}),
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// How an answer is compressed. Of two that a request likes as well the later is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Coding {
    Gzip,
    Brotli,
}

impl Coding {
    const ALL: [Coding; 2] = [Coding::Gzip, Coding::Brotli];

    fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
        }
    }

    fn encoder(self, out: Out) -> Box<dyn Write> {
        match self {
            Coding::Gzip => Box::new(GzEncoder::new(out, Compression::fast())),
            Coding::Brotli => Box::new(brotli::CompressorWriter::new(out, 4096, 4, 22)),
        }
    }
}

/// The coding that `accept-encoding` likes best (RFC 9110 §12.5.3).
fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    let weighed = accepted.split(',').filter_map(|item| {
        let (name, weight) = item.split_once(";q=").unwrap_or((item, "1"));
        let coding = Coding::ALL
            .into_iter()
            .find(|coding| coding.name() == name.trim())?;
        Some((weight.trim().parse().ok()?, coding))
    });
    let likes: Vec<(f32, Coding)> = weighed.filter(|(weight, _)| *weight > 0.0).collect();
    let best = likes
        .into_iter()
        .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    best.map(|(_, coding)| coding)
}

fn set(response: &mut Response, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        response.headers_mut().insert(name, value);
    }
}

fn more_headers(response: &mut Response, fault: &Fault) {
    for (name, value) in &fault.headers {
        set(response, name, value);
    }
    if fault.trailer {
        set(response, "trailer", TRAILER.0);
    }
}

fn json_response(value: &Value, number: u64) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    provider_headers(&mut response, "application/json", number);
    response
}

fn provider_headers(response: &mut Response, content_type: &str, number: u64) {
    let id = format!("req_{number:024x}");
    set(response, "content-type", content_type);
    set(response, "x-request-id", &id);
    set(response, "request-id", &id);
    set(response, "openai-version", "2020-10-01");
    set(response, "x-ratelimit-limit-requests", "10000");
    set(response, "x-ratelimit-remaining-requests", "9999");
}

fn refusal_response(refusal: &Refusal, anthropic: bool, number: u64) -> Response {
    let value = match anthropic {
        true => refusal.anthropic(&format!("req_{number:024x}")),
        false => refusal.openai(),
    };
    let mut response = json_response(&value, number);
    *response.status_mut() =
        StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// Books a request when its answer has gone out, or what went out of it when it broke off.
struct Booking {
    state: Arc<State>,
    model: String,
    usage: Usage,
    /// Completion tokens that went out.
    told: u64,
    whole: bool,
}

impl Drop for Booking {
    fn drop(&mut self) {
        let (state, model) = (&self.state, &self.model);
        // Nothing is billed for `count_tokens`.
        if self.usage == Usage::default() {
            return;
        }
        if self.whole {
            state.books.answered(&state.catalog, model, &self.usage);
        } else {
            let usage = Usage {
                completion: self.told,
                ..self.usage
            };
            state.books.aborted(&state.catalog, model, &usage);
        }
    }
}

/// A part of an answer on its way.
struct Chunk {
    bytes: Bytes,
    told: u64,
}

async fn send(
    state: &Arc<State>,
    reply: Reply,
    fault: Fault,
    coding: Option<Coding>,
    number: u64,
) -> Response {
    let Reply {
        model,
        usage,
        mut body,
    } = reply;
    if fault.omit_usage {
        reply::omit_usage(&mut body);
    }
    let mut booking = Booking {
        state: Arc::clone(state),
        model,
        usage,
        told: 0,
        whole: false,
    };
    let config = &state.config;
    let streamed = matches!(body, reply::Body::Events(_));
    wait(config.ttft_ms).await;
    let mut chunks = match (body, fault.garbage) {
        (_, true) => vec![Chunk {
            bytes: Bytes::from_static(b"\xff\xfe<html>{\"usage\": [}\ndata: \x00{"),
            told: usage.completion,
        }],
        (reply::Body::Json(value), _) => {
            wait(time_for(config.tokens_per_second, usage.completion)).await;
            vec![Chunk {
                bytes: value.to_string().into(),
                told: usage.completion,
            }]
        }
        (reply::Body::Events(events), _) => events
            .into_iter()
            .map(|event| Chunk {
                bytes: event.render().into(),
                told: event.told,
            })
            .collect(),
    };
    if let Some(coding) = coding {
        compress(&mut chunks, coding);
    }
    let plain = fault.reset_after_chunks.is_none()
        && fault.hang_after_chunks.is_none()
        && fault.cut_bytes.is_none()
        && !fault.trailer;
    let body = if !streamed && plain && chunks.len() == 1 {
        booking.whole = true;
        drop(booking);
        Body::from(chunks.remove(0).bytes)
    } else {
        Body::from_stream(outgoing(chunks, fault.clone(), booking))
    };
    let body = match fault.trailer {
        true => Body::new(with_trailer(body)),
        false => body,
    };
    let mut response = Response::new(body);
    let content_type = if streamed {
        "text/event-stream; charset=utf-8"
    } else {
        "application/json"
    };
    provider_headers(&mut response, content_type, number);
    if streamed {
        set(&mut response, "cache-control", "no-cache");
    }
    if let Some(coding) = coding {
        set(&mut response, "content-encoding", coding.name());
    }
    more_headers(&mut response, &fault);
    response
}

/// The chunks in time, with the fault's cuts, pauses and breaks.
fn outgoing(
    chunks: Vec<Chunk>,
    fault: Fault,
    booking: Booking,
) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> {
    let speed = booking.state.config.tokens_per_second;
    let mut parts: Vec<(Bytes, u64, usize)> = Vec::new();
    for (index, chunk) in chunks.into_iter().enumerate() {
        match fault.cut_bytes {
            None => parts.push((chunk.bytes, chunk.told, index)),
            Some(size) => {
                let mut bytes = chunk.bytes;
                while !bytes.is_empty() {
                    let part = bytes.split_to(size.max(1).min(bytes.len()));
                    parts.push((part, chunk.told, index));
                }
            }
        }
    }
    let parts = parts.into_iter();
    stream::unfold(
        (parts, booking, fault),
        move |(mut parts, mut booking, fault)| async move {
            let (bytes, told, index) = parts.next()?;
            if fault.reset_after_chunks.is_some_and(|after| index >= after) {
                // Let what was written go out first; an error ends the connection at once.
                wait(20).await;
                let broken = std::io::Error::other("the fault breaks the connection off");
                return Some((Err(broken), (Vec::new().into_iter(), booking, fault)));
            }
            if fault.hang_after_chunks.is_some_and(|after| index >= after) {
                std::future::pending::<()>().await;
            }
            wait(fault.chunk_delay_ms + time_for(speed, told.saturating_sub(booking.told))).await;
            if fault.cut_bytes.is_some() {
                // A turn of the scheduler makes the server send what it has: each cut is a packet.
                tokio::task::yield_now().await;
            }
            booking.told = told;
            // The client may close as soon as it has the last byte: the books must be right by then.
            booking.whole = parts.as_slice().is_empty();
            Some((Ok(bytes), (parts, booking, fault)))
        },
    )
}

async fn wait(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Milliseconds that so many tokens take.
fn time_for(tokens_per_second: u64, tokens: u64) -> u64 {
    match tokens_per_second {
        0 => 0,
        speed => tokens * 1000 / speed,
    }
}

/// What an encoder has given so far; clones share it.
#[derive(Clone, Default)]
struct Out(Rc<RefCell<Vec<u8>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One compressed stream over all chunks, flushed after each, as servers that compress events do.
fn compress(chunks: &mut [Chunk], coding: Coding) {
    let out = Out::default();
    let mut encoder = coding.encoder(out.clone());
    for chunk in chunks.iter_mut() {
        // Writing into memory cannot fail.
        let _ = encoder
            .write_all(&chunk.bytes)
            .and_then(|()| encoder.flush());
        chunk.bytes = out.0.take().into();
    }
    // Ends the stream.
    drop(encoder);
    if let Some(last) = chunks.last_mut() {
        last.bytes = [&last.bytes[..], &out.0.take()].concat().into();
    }
}
