//! What it costs to have texts compared with a question: a request's admission in this process, with
//! the model of `SLUICE_MODEL` on one thread. Prints the rows that `cargo xtask bench` reads:
//!
//! ```text
//! SLUICE_MODEL=target/models/all-MiniLM-L6-v2 cargo run --release --package sluice --example relevance
//! ```

use std::time::Instant;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sluice::App;
use sluice::clock::Clock;
use sluice_wire::{AdmitReply, AdmitRequest, Frame, Plan, Relevance, Similarity, VERSION};
use tower::ServiceExt as _;

/// Requests of a kind that are timed.
const TIMES: usize = 50;
/// Words of a short text, about 14 tokens, and of a long one, about 200.
const SHORT: usize = 11;
const LONG: usize = 160;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let model = std::env::var("SLUICE_MODEL").context("SLUICE_MODEL: a folder is expected")?;
    let data = tempfile::tempdir()?;
    let config = json!({
        "sidecar": {"cluster": "sidecar", "secret": "secret"},
        "serve": {"data": data.path(), "semantic": {"model": model}},
    });
    let config = sluice::config::parse(&config.to_string(), true, &|_| None)?;
    let sidecar = Sidecar(sluice::app(App::open(config.serve, Clock::System)?));
    let mut rows = Vec::new();
    rows.push(row("no texts, p50", sidecar.median(&[], 0).await?, "ms"));
    for (name, words) in [("14 tokens", SHORT), ("200 tokens", LONG)] {
        let old = texts(100, words, name);
        sidecar.compare(&old, 600_000).await?;
        let known = sidecar.median(&old, 1_000).await?;
        rows.push(row(format!("100 known texts of {name}, p50"), known, "ms"));

        let new = texts(50, words, &format!("{name}, all"));
        let (took, told) = sidecar.compare(&new, 600_000).await?;
        ensure!(told == 50, "{told} of 50 were told");
        rows.push(row(
            format!("50 new texts of {name}, unhurried"),
            took,
            "ms",
        ));

        let late = texts(50, words, &format!("{name}, late"));
        let started = Instant::now();
        let (took, told) = sidecar.compare(&late, 50).await?;
        rows.push(row(format!("50 new texts of {name} in 50 ms"), took, "ms"));
        rows.push(row(
            format!("50 new texts of {name} in 50 ms, in time"),
            f64::from(told),
            "texts",
        ));
        while sidecar.compare(&late, 0).await?.1 < 50 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let behind = started.elapsed().as_secs_f64() * 1e3;
        rows.push(row(
            format!("50 new texts of {name}, until all are known"),
            behind,
            "ms",
        ));
    }
    println!("{}", Value::from_iter(rows));
    Ok(())
}

fn row(case: impl Into<String>, value: f64, unit: &str) -> Value {
    json!({"case": format!("relevance · {}", case.into()), "value": value, "unit": unit, "better": "lower"})
}

/// So many texts of so many words, no two alike.
fn texts(count: usize, words: usize, seed: &str) -> Vec<String> {
    const WORDS: [&str; 16] = [
        "parcel", "refund", "invoice", "customer", "delivery", "late", "please", "number",
        "account", "change", "order", "monday", "address", "return", "broken", "thanks",
    ];
    let mut random = fastrand::Rng::with_seed(seed.bytes().map(u64::from).sum());
    let mut word = || WORDS[random.usize(..WORDS.len())];
    let mut text = |n: usize| {
        let words: Vec<&str> = (0..words).map(|_| word()).collect();
        format!("{seed} {n} {}", words.join(" "))
    };
    (0..count).map(&mut text).collect()
}

struct Sidecar(Router);

impl Sidecar {
    /// Milliseconds of an admission, and how many of its texts were told.
    async fn compare(&self, texts: &[String], max_ms: u32) -> anyhow::Result<(f64, u32)> {
        let head = AdmitRequest {
            id: format!("{:032x}", 1),
            tenant: "acme".to_owned(),
            hold_secs: 60,
            plans: vec![Plan::default()],
            relevance: (!texts.is_empty()).then(|| Relevance {
                question: "When will my refund come?".to_owned(),
                lens: texts.iter().map(|text| text.len() as u32).collect(),
                max_ms,
            }),
            ..AdmitRequest::default()
        };
        let body = Frame {
            head,
            body: texts.concat(),
        };
        let request = Request::post("/v1/admit")
            .header("authorization", "Bearer secret")
            .header(sluice_wire::header::WIRE, VERSION)
            .body(Body::from(body.encode()?))?;
        let started = Instant::now();
        let response = self.0.clone().oneshot(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let took = started.elapsed().as_secs_f64() * 1e3;
        ensure!(
            status == 200,
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        let reply: Frame<AdmitReply, _> = Frame::decode(&body)?;
        let all = reply.head.similarities.iter().flatten();
        let told = all.filter(|it| **it != Similarity::UNKNOWN).count();
        Ok((took, u32::try_from(told)?))
    }

    async fn median(&self, texts: &[String], max_ms: u32) -> anyhow::Result<f64> {
        let mut times = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            times.push(self.compare(texts, max_ms).await?.0);
        }
        times.sort_unstable_by(f64::total_cmp);
        Ok(times[TIMES / 2])
    }
}
