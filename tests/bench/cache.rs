//! What a client waits for a cached answer: the same request again, and the same question in words
//! that were never sent before. Real Envoy, sidecar and embedding model.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use sluice_tests::canned::Canned;
use sluice_tests::envoy::Envoy;
use sluice_tests::load::Connection;
use sluice_tests::process::eventually;
use sluice_tests::prompts::{Novelty, Prompts, Shape};
use sluice_tests::sidecar::{self, Sidecar};
use sluice_tests::stack::{caching, config, merge};
use sluice_tests::tools;

use crate::Args;
use crate::latency::{self, Seen, Source, Target};
use crate::paraphrases::{self, Paraphrases};
use crate::rig::{fill, idle, start};
use crate::row::{Row, quantile};

/// Requests a second.
const EXACT: u32 = 100;
const SEMANTIC: u32 = 30;

/// Seconds of paraphrases before those that count: connections, V8's compiler, the model's memory.
const WARM: u64 = 2;

/// Least share of paraphrases that have to be semantic hits, or another thing was measured.
const SHARE: f64 = 0.95;

struct Rig {
    bare: Envoy,
    cached: Envoy,
    sidecar: Sidecar,
    _upstream: Canned,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn start() -> anyhow::Result<Rig> {
        let dir = tempfile::Builder::new().prefix("sluice-bench-").tempdir()?;
        let upstream = Canned::start().await?;
        // The semantic cache as it is without a word about it: its own time to answer in.
        let mut config = config();
        merge(&mut config, json!({"cache": caching()}));
        let semantic = json!({
            "cache": {"semantic": {}},
            "serve": {"semantic": {"model": tools::model()?}},
        });
        merge(&mut config, semantic);
        let sidecar = sidecar::Options {
            name: "sidecar".to_owned(),
            config: config.clone(),
            environment: Default::default(),
            listen: "127.0.0.1:0".to_owned(),
        };
        let sidecar = Sidecar::start(sidecar, dir.path()).await?;
        let at = (upstream.address(), sidecar.address());
        Ok(Rig {
            bare: start("bare", (None, None), at, dir.path()).await?,
            cached: start("cached", (Some(config), None), at, dir.path()).await?,
            sidecar,
            _upstream: upstream,
            _dir: dir,
        })
    }

    /// `source` to both Envoys in the same seconds: what the bare one and the other came to.
    async fn beside(
        &self,
        source: Arc<dyn Source>,
        (rate, time): (u32, Duration),
    ) -> anyhow::Result<(Seen, Seen)> {
        let bare: Arc<dyn Source> = Arc::new(Prompts::new(Shape::Short, Novelty::Known)?);
        let targets: [Target; 2] = [(self.bare.address(), bare), (self.cached.address(), source)];
        let run = move || latency::measure(&targets, (rate, time));
        let mut seen = tokio::task::spawn_blocking(run).await??;
        match (seen.pop(), seen.pop()) {
            (Some(cached), Some(bare)) => Ok((bare, cached)),
            _ => bail!("a target was not measured"),
        }
    }
}

/// All figures.
pub(crate) async fn measure(args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let rig = Rig::start().await?;
    let time = Duration::from_secs(args.latency);
    if "exact".contains(&args.only) {
        rows.extend(exact(&rig, time).await?);
    }
    if "semantic".contains(&args.only) {
        rows.extend(semantic(&rig, time).await?);
    }
    for envoy in [&rig.bare, &rig.cached] {
        envoy.check_no_trap().await?;
    }
    Ok(rows)
}

fn rows(name: &str, (bare, cached): (&Seen, &Seen), target: f64) -> Vec<Row> {
    let of = |what: &str, seen: &Seen, share: f64| {
        let case = format!("{name} · {what}p{:.0}", share * 100.0);
        Row::lower(case, quantile(&seen.times, share), "ms")
    };
    vec![
        of("", cached, 0.5),
        of("", cached, 0.99).target(target),
        of("bare Envoy beside it ", bare, 0.5),
        of("bare Envoy beside it ", bare, 0.99),
    ]
}

async fn exact(rig: &Rig, time: Duration) -> anyhow::Result<Vec<Row>> {
    let prompts = Arc::new(Prompts::new(Shape::Short, Novelty::Known)?);
    fill(&rig.cached, &prompts).await?;
    idle(&rig.sidecar).await?;
    eprintln!("exact hits: {} s at {EXACT} requests/s", time.as_secs());
    let (bare, cached) = rig.beside(prompts, (EXACT, time)).await?;
    if cached.cache.keys().any(|cache| cache != "hit") {
        bail!("exact hits: x-sluice-cache was {:?}", cached.cache);
    }
    let name = format!("exact hit at {EXACT}/s");
    Ok(rows(&name, (&bare, &cached), 2.0))
}

async fn semantic(rig: &Rig, time: Duration) -> anyhow::Result<Vec<Row>> {
    learn(rig).await?;
    idle(&rig.sidecar).await?;
    let paraphrases = Arc::new(Paraphrases::new());
    let warm = Duration::from_secs(WARM);
    let needed = u64::from(SEMANTIC) * (WARM + time.as_secs());
    if needed > paraphrases.count() {
        bail!(
            "--latency {}: {needed} paraphrases; there are {}",
            time.as_secs(),
            paraphrases.count()
        );
    }
    eprintln!(
        "semantic hits: {} s at {SEMANTIC} requests/s",
        time.as_secs()
    );
    rig.beside(paraphrases.clone(), (SEMANTIC, warm)).await?;
    let (bare, cached) = rig.beside(paraphrases, (SEMANTIC, time)).await?;
    let hits = cached.cache.get("semantic").copied().unwrap_or(0);
    let share = hits as f64 / cached.times.len().max(1) as f64;
    eprintln!("semantic hits: x-sluice-cache was {:?}", cached.cache);
    if share < SHARE {
        bail!("of the paraphrases {share:.3} were semantic hits, expected {SHARE}");
    }
    let name = format!("semantic hit at {SEMANTIC}/s");
    let mut rows = rows(&name, (&bare, &cached), 40.0);
    rows.push(Row::higher(format!("{name} · share of all"), share, "share").target(SHARE));
    Ok(rows)
}

/// Asks every question once, and waits until the sidecar knows them all.
async fn learn(rig: &Rig) -> anyhow::Result<()> {
    let address: SocketAddr = rig.cached.address();
    let mut connection = Connection::open(address).await?;
    let mut questions = 0;
    for request in paraphrases::questions() {
        let answer = connection.send(&request).await?;
        if answer.status != 200 || answer.header("x-sluice-cache") != Some("miss") {
            bail!("a question for the first time: {}", answer.head);
        }
        questions += 1;
    }
    let gauge = format!("sluice_semantic_entries {questions}\n");
    eventually(Duration::from_secs(20), async || {
        let metrics = rig.sidecar.client().get("/metrics").await;
        let text = metrics.map_err(|error| error.to_string())?.text();
        match text.contains(&gauge) {
            true => Ok(()),
            false => Err(format!("expected {gauge}")),
        }
    })
    .await
}
