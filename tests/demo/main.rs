//! `sluice-demo`: sample traffic through Envoy with Sluice, and what it saved.
//!
//! Starts a stand-in provider, the sidecar and Envoy on loopback, sends the traffic, waits until
//! every request is in the ledger, holds ledger, Envoy's metrics and the provider's books against
//! each other, and prints the savings.

mod summary;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use sluice_tests::client::Client;
use sluice_tests::envoy::{ConfigAs, Upstream};
use sluice_tests::figures::Report;
use sluice_tests::process::eventually;
use sluice_tests::provider::{self, Catalog};
use sluice_tests::stack::{Setup, Stack};
use sluice_tests::tools;
use sluice_tests::traffic::{self, Recorded};

use summary::{Sent, Summary};

/// Sends sample traffic through Envoy with Sluice and prints what it saved.
#[derive(Debug, Parser)]
#[command(name = "sluice-demo", version)]
struct Args {
    /// JSON lines to send: {id, prompt}, or {path?, headers?, body} [default: examples/traffic.jsonl]
    #[arg(long)]
    traffic: Option<PathBuf>,
    /// A real OpenAI-compatible provider, http(s)://HOST:PORT, in place of the stand-in.
    #[arg(long)]
    upstream: Option<String>,
    /// Environment variable with the key for --upstream.
    #[arg(long, default_value = "OPENAI_API_KEY")]
    key_env: String,
    /// Share of requests that exactly repeat an earlier one, mixed in at random: 30% or 0.3.
    #[arg(long)]
    repeats: Option<String>,
    /// Requests under way at a time.
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Decides which requests repeat.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Send no more than so many.
    #[arg(long)]
    limit: Option<usize>,
    /// Keep everything running afterwards, until Ctrl-C.
    #[arg(long)]
    serve: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let requests = requests(&args)?;
    let upstream = args.upstream.as_deref().map(upstream).transpose()?;
    let key = match &upstream {
        None => "sk-demo".to_owned(),
        Some(_) => std::env::var(&args.key_env)
            .with_context(|| format!("--upstream needs its key in {}", args.key_env))?,
    };
    let path = tools::root().join("examples/demo.yaml");
    let config = read_config(&path)?;
    let secrets = ["SLUICE_SECRET", "SLUICE_INTERNAL", "SLUICE_OPERATOR"];
    let environment: BTreeMap<String, String> =
        secrets.map(|name| (name.to_owned(), secret())).into();
    println!("starting the stand-in provider, the sidecar and Envoy …");
    let stack = Stack::start(Setup {
        provider: provider::Config {
            catalog: Catalog::priced_by(&config)?,
            ttft_ms: 20,
            tokens_per_second: 5000,
            ..provider::Config::default()
        },
        config,
        environment: environment.clone(),
        upstream,
        config_as: ConfigAs::Struct,
        ..Setup::default()
    })
    .await?;
    let client = stack
        .client()
        .with("authorization", &format!("Bearer {key}"))
        .with("x-internal-key", &environment["SLUICE_INTERNAL"]);
    println!("sending {} requests from {}", requests.len(), shown(&args));
    let sent = send(&client, requests, args.concurrency.max(1)).await;
    let report = settled(&stack, sent.reached).await?;
    stack.check_no_trap().await?;
    let summary = Summary {
        stack: &stack,
        sent: &sent,
        report: &report,
        operator: &environment["SLUICE_OPERATOR"],
        differences: stack.differences().await?,
    };
    let agreed = summary.print();
    if args.serve {
        eprintln!(
            "running until Ctrl-C; requests go to {}",
            stack.envoy().url()
        );
        tokio::signal::ctrl_c().await?;
    }
    Ok(if agreed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn shown(args: &Args) -> String {
    match &args.traffic {
        Some(path) => path.display().to_string(),
        None => "examples/traffic.jsonl".to_owned(),
    }
}

fn requests(args: &Args) -> anyhow::Result<Vec<Recorded>> {
    let sample = || tools::root().join("examples/traffic.jsonl");
    let path = args.traffic.clone().unwrap_or_else(sample);
    let text = std::fs::read_to_string(&path);
    let text = text.with_context(|| format!("--traffic {}", path.display()))?;
    let requests = traffic::read(&text).with_context(|| path.display().to_string())?;
    let share = args.repeats.as_deref().map_or(Ok(0.0), traffic::share);
    let share = share.context("--repeats")?;
    let limit = args.limit.unwrap_or(usize::MAX);
    let requests = traffic::repeated(requests, share, args.seed, limit);
    if requests.is_empty() {
        bail!("{}: expected requests, found none", path.display());
    }
    Ok(requests)
}

fn upstream(url: &str) -> anyhow::Result<Upstream> {
    let expected = || format!("--upstream: expected http(s)://HOST[:PORT], found `{url}`");
    let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => bail!(expected()),
    };
    // The requests' paths begin with /v1 already.
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix("/v1").unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().with_context(expected)?),
        None => (rest, if tls { 443 } else { 80 }),
    };
    if host.is_empty() || host.contains('/') {
        bail!(expected());
    }
    let host = host.to_owned();
    Ok(if tls {
        Upstream::Tls { host, port }
    } else {
        Upstream::Named { host, port }
    })
}

fn read_config(path: &std::path::Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    // YAML 1.1 reads `mode: on` as a boolean; 1.2 and Sluice's schema do not.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(&text, options).with_context(|| path.display().to_string())
}

/// 128 bits from the system's source of randomness, by way of the standard library's hash keys.
fn secret() -> String {
    let half = || RandomState::new().hash_one(Instant::now());
    format!("{:016x}{:016x}", half(), half())
}

async fn send(client: &Client, requests: Vec<Recorded>, concurrency: usize) -> Sent {
    let bar = ProgressBar::new(requests.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} ({per_sec})") {
        bar.set_style(style);
    }
    let begin = Instant::now();
    let answers = stream::iter(requests).map(async |request| {
        let mut client = client.clone();
        for (name, value) in &request.headers {
            client = client.with(name, value);
        }
        client.post(&request.path, &request.body).await
    });
    let mut answers = answers.buffer_unordered(concurrency);
    let mut sent = Sent::default();
    while let Some(answer) = answers.next().await {
        sent.count(answer);
        bar.inc(1);
    }
    bar.finish_and_clear();
    sent.took = begin.elapsed();
    sent
}

/// The report once every request is in the ledger, or as it is when that does not happen.
async fn settled(stack: &Stack, requests: u64) -> anyhow::Result<Report> {
    let by = "task,tier,cache,model,model:cache";
    let whole = eventually(Duration::from_secs(30), async || {
        let report = stack.sidecar().report(by).await;
        let report = report.map_err(|error| format!("{error:#}"))?;
        match report.total.requests {
            found if found == requests => Ok(report),
            found => Err(format!("{found} of {requests} requests are in the ledger")),
        }
    });
    match whole.await {
        Ok(report) => Ok(report),
        Err(error) => {
            println!("not everything was settled: {error:#}");
            stack.sidecar().report(by).await
        }
    }
}
