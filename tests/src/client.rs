//! A plain HTTP client for tests and the demo.

use std::io::Read;
use std::time::Duration;

use axum::body::HttpBody as Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// Sends requests to one base URL.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    http: reqwest::Client,
    headers: Vec<(String, String)>,
}

/// The trailer that is sent where one is. Its name has to be announced in the header `trailer`.
pub const TRAILER: (&str, &str) = ("x-checksum", "f00d");

/// A body and [`TRAILER`] behind it. It must not tell its length: only chunks have trailers.
pub(crate) fn with_trailer<B: Body>(body: B) -> impl Body<Data = B::Data, Error = B::Error> {
    let (name, value) = TRAILER;
    let name = HeaderName::from_static(name);
    let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
    body.with_trailers(std::future::ready(Some(Ok(trailers))))
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What came behind the body.
    pub trailers: HeaderMap,
}

/// What a client makes of a compressed body.
///
/// # Errors
/// When it is damaged, or of a coding that is neither gzip nor br.
pub fn unpacked(coding: &str, body: &[u8]) -> std::io::Result<String> {
    let mut reader: Box<dyn Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(body)),
        "br" => Box::new(brotli::Decompressor::new(body, 4096)),
        other => return Err(std::io::Error::other(format!("no decoder for {other}"))),
    };
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    Ok(text)
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// `event:`, if it has one.
    pub name: Option<String>,
    /// `data:`.
    pub data: String,
}

impl SseEvent {
    /// The data as JSON; null when it is none (`[DONE]`).
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_default()
    }
}

impl Client {
    /// A client of `base` (`http://HOST:PORT`), with a key that the stand-in accepts.
    #[must_use]
    pub fn new(base: impl Into<String>) -> Client {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60));
        Client {
            base: base.into(),
            // Without TLS there is nothing that could fail to initialise.
            http: http.build().unwrap_or_default(),
            headers: vec![("authorization".to_owned(), "Bearer sk-test".to_owned())],
        }
    }

    /// The same client with one more header on every request (in place of one of that name).
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Client {
        let mut client = self.clone();
        client.headers.retain(|(key, _)| key != name);
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// The same client without a header.
    #[must_use]
    pub fn without(&self, name: &str) -> Client {
        let mut client = self.clone();
        client.headers.retain(|(key, _)| key != name);
        client
    }

    /// A request with this client's headers (and, for Anthropic, the version that its API
    /// demands), to be changed and sent by the caller.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().unwrap_or(reqwest::Method::GET);
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if path.starts_with("/v1/messages") {
            request = request.header("anthropic-version", "2023-06-01");
        }
        request
    }

    /// POSTs bytes as `application/json`.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Bytes>) -> anyhow::Result<Answer> {
        let request = self.request("POST", path);
        let request = request.header("content-type", "application/json");
        Answer::of(request.body(body.into()).send().await?).await
    }

    /// POSTs JSON.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.post_bytes(path, body.to_string()).await
    }

    /// POSTs JSON in chunks and [`TRAILER`] behind them; takes trailers, too.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn post_with_trailer(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        let request = self.request("POST", path);
        let request = request.header("content-type", "application/json");
        let request = request
            .header("te", "trailers")
            .header("trailer", TRAILER.0);
        let chunk = std::future::ready(anyhow::Ok(body.to_string()));
        let body = reqwest::Body::wrap_stream(chunk.into_stream());
        let request = request.body(reqwest::Body::wrap(with_trailer(body)));
        Answer::of(request.send().await?).await
    }

    /// GETs.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        Answer::of(self.request("GET", path).send().await?).await
    }

    /// POSTs JSON and returns as soon as the answer's headers are there.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn open(&self, path: &str, body: &Value) -> anyhow::Result<reqwest::Response> {
        let request = self.request("POST", path);
        let request = request.header("content-type", "application/json");
        Ok(request.body(body.to_string()).send().await?)
    }
}

impl Answer {
    async fn of(response: reqwest::Response) -> anyhow::Result<Answer> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = reqwest::Body::from(response).collect().await?;
        Ok(Answer {
            status,
            headers,
            trailers: body.trailers().cloned().unwrap_or_default(),
            body: body.to_bytes(),
        })
    }

    /// A header's value, if it is there and text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as events.
    #[must_use]
    pub fn events(&self) -> Vec<SseEvent> {
        let text = self.text();
        let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
        blocks
            .map(|block| {
                let line = |field: &str| {
                    let mut lines = block.lines();
                    lines
                        .find_map(|line| line.strip_prefix(field))
                        .map(|v| v.trim_start().to_owned())
                };
                SseEvent {
                    name: line("event:"),
                    data: line("data:").unwrap_or_default(),
                }
            })
            .collect()
    }

    /// What a chat, completion, Responses or Messages answer says, streamed or not.
    #[must_use]
    pub fn said(&self) -> String {
        let at = |value: &Value, paths: &[&str]| {
            let found = paths.iter().find_map(|path| value.pointer(path)?.as_str());
            found.unwrap_or_default().to_owned()
        };
        let whole = self.json();
        if !whole.is_null() {
            return at(
                &whole,
                &[
                    "/choices/0/message/content",
                    "/choices/0/text",
                    "/output/0/content/0/text",
                    "/content/0/text",
                ],
            );
        }
        let events = self.events();
        let pieces = events.iter().map(|event| {
            let value = event.json();
            match value["type"].as_str() {
                Some("response.output_text.delta") => at(&value, &["/delta"]),
                Some("content_block_delta") => at(&value, &["/delta/text"]),
                Some(_) => String::new(),
                None => at(&value, &["/choices/0/delta/content", "/choices/0/text"]),
            }
        });
        pieces.collect()
    }
}
