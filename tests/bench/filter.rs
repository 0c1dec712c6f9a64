//! The filter in one Envoy worker, beside Envoy without it: requests per second, processor time,
//! latency, memory.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sluice_tests::canned::Canned;
use sluice_tests::envoy::Envoy;
use sluice_tests::footprint;
use sluice_tests::load::{self, Tally, Until};
use sluice_tests::prompts::{Novelty, Prompts, Shape};
use sluice_tests::sidecar::{self, Sidecar};
use sluice_tests::stack::{caching, config, merge, tiers};
use sluice_tests::tools;

use crate::Args;
use crate::floor::Floor;
use crate::latency::{self, Target};
use crate::rig::{CONNECTIONS, fill, idle, start};
use crate::row::{Row, median, quantile};

/// Requests after which a VM's memory has to have found its size, and after which it is looked at
/// again.
const WARM: u64 = 20_000;
const ALL: u64 = 200_000;

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Bare,
    /// No filter of ours, but the least that one costs.
    Floor(Floor),
    NoCallout,
    /// No callout, and the past of conversations is trimmed.
    Trimming,
    Miss,
    Hit,
}

impl Case {
    const ALL: [Case; 7] = [
        Case::Bare,
        Case::Floor(Floor::Reads),
        Case::Floor(Floor::Acts),
        Case::NoCallout,
        Case::Trimming,
        Case::Miss,
        Case::Hit,
    ];

    fn name(self) -> &'static str {
        match self {
            Case::Bare => "bare Envoy",
            Case::Floor(Floor::Reads) => "floor: a filter that only reads",
            Case::Floor(Floor::Acts) => "floor: that and our effects, computing nothing",
            Case::NoCallout => "no callout",
            Case::Trimming => "trimming, no callout",
            Case::Miss => "cache miss",
            Case::Hit => "cache hit",
        }
    }

    /// Known requests can all be hits; a request that misses was never seen; else a third is new,
    /// so that the filter's memory of token counts is neither cold nor all that is needed.
    fn novelty(self) -> Novelty {
        match self {
            Case::Bare | Case::Floor(_) | Case::NoCallout | Case::Trimming => Novelty::NewEvery(3),
            Case::Miss => Novelty::New,
            Case::Hit => Novelty::Known,
        }
    }

    /// The least share of bare Envoy's requests per second.
    fn target(self, shape: Shape) -> Option<f64> {
        match (self, shape) {
            (Case::NoCallout, Shape::Short) => Some(0.60),
            (Case::NoCallout, Shape::Long) => Some(0.45),
            (Case::NoCallout, Shape::Turns) => Some(0.40),
            (Case::Hit, _) => Some(0.50),
            (Case::Bare | Case::Floor(_) | Case::Trimming | Case::Miss, _) => None,
        }
    }
}

/// Everything that runs.
struct Rig {
    bare: Envoy,
    reads: Envoy,
    acts: Envoy,
    plain: Envoy,
    trimming: Envoy,
    cached: Envoy,
    sidecar: Sidecar,
    upstream: Canned,
    dir: tempfile::TempDir,
}

impl Rig {
    async fn start() -> anyhow::Result<Rig> {
        let dir = tempfile::Builder::new().prefix("sluice-bench-").tempdir()?;
        let upstream = Canned::start().await?;
        let sidecar = sidecar::Options {
            name: "sidecar".to_owned(),
            config: cached_config(),
            environment: Default::default(),
            listen: "127.0.0.1:0".to_owned(),
        };
        let sidecar = Sidecar::start(sidecar, dir.path()).await?;
        let at = (upstream.address(), sidecar.address());
        let with = async |name, config, floor: Option<Floor>| {
            let module = floor.map(|floor| floor.module(dir.path())).transpose()?;
            start(name, (config, module), at, dir.path()).await
        };
        Ok(Rig {
            bare: with("bare", None, None).await?,
            reads: with("floor-reads", Some(json!({})), Some(Floor::Reads)).await?,
            acts: with("floor-acts", Some(json!({})), Some(Floor::Acts)).await?,
            plain: with("no-callout", Some(plain_config()), None).await?,
            trimming: with("trimming", Some(trimming_config()), None).await?,
            cached: with("cached", Some(cached_config()), None).await?,
            sidecar,
            upstream,
            dir,
        })
    }

    fn envoy(&self, case: Case) -> &Envoy {
        match case {
            Case::Bare => &self.bare,
            Case::Floor(Floor::Reads) => &self.reads,
            Case::Floor(Floor::Acts) => &self.acts,
            Case::NoCallout => &self.plain,
            Case::Trimming => &self.trimming,
            Case::Miss | Case::Hit => &self.cached,
        }
    }
}

/// Routing and an input limit that 16 KB of text cannot be said to keep without counting.
fn plain_config() -> Value {
    let mut plain = config();
    let limit = json!({"limit": 8000, "over": "reject"});
    merge(
        &mut plain,
        json!({"sidecar": null, "route": tiers(), "trim": {"mode": "on", "input_tokens": limit}}),
    );
    plain
}

/// The same with a past of which some four of nineteen exchanges stay.
fn trimming_config() -> Value {
    let mut trimming = plain_config();
    let history = json!({"keep": "relevant", "tokens": 800});
    merge(&mut trimming, json!({"trim": {"history": history}}));
    trimming
}

/// The plain one with a budget and the exact cache, in one callout.
fn cached_config() -> Value {
    let mut cached = plain_config();
    let budget =
        json!({"per": "tenant", "tokens": "9_000_000_000_000", "every": "day", "over": "reject"});
    merge(
        &mut cached,
        json!({"sidecar": config()["sidecar"], "cache": caching(), "budgets": [budget]}),
    );
    cached
}

/// All figures.
pub(crate) async fn measure(args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let wanted = |part: &str| part.contains(&args.only);
    if wanted("module") {
        let module = fs::metadata(tools::filter()?)?.len();
        rows.push(Row::lower("module", module as f64 / 1e6, "MB").target(7.5));
    }
    let rig = Rig::start().await?;
    for shape in Shape::ALL {
        if wanted(shape.name()) {
            rows.extend(throughput(&rig, shape, args).await?);
        }
    }
    if wanted("latency") {
        rows.extend(latencies(&rig, args).await?);
        rows.extend(trimming_latencies(&rig, args).await?);
    }
    if wanted("memory") {
        rows.extend(memory(&rig, "VM memory", cached_config()).await?);
        let mut trimming = cached_config();
        merge(&mut trimming, json!({"trim": trimming_config()["trim"]}));
        rows.extend(memory(&rig, "VM memory, trimming", trimming).await?);
    }
    for envoy in [
        &rig.bare,
        &rig.reads,
        &rig.acts,
        &rig.plain,
        &rig.trimming,
        &rig.cached,
    ] {
        envoy.check_no_trap().await?;
    }
    Ok(rows)
}

/// One case of one shape.
struct Run {
    case: Case,
    prompts: Arc<Prompts>,
    rates: Vec<f64>,
    /// Microseconds of Envoy's processor time per request.
    costs: Vec<f64>,
}

async fn throughput(rig: &Rig, shape: Shape, args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut runs = Vec::new();
    let wanted = |case: &Case| *case == Case::Bare || case.name().contains(&args.case);
    for case in Case::ALL.into_iter().filter(wanted) {
        let prompts = Arc::new(Prompts::new(shape, case.novelty())?);
        if case == Case::Hit {
            fill(&rig.cached, &prompts).await?;
        }
        let (rates, costs) = (Vec::new(), Vec::new());
        runs.push(Run {
            case,
            prompts,
            rates,
            costs,
        });
    }
    // The first round is not counted: connections, V8's compiler, memories.
    for round in 0..=args.rounds {
        for run in &mut runs {
            let seconds = if round == 0 { 1.0 } else { args.seconds };
            let (rate, cost) = one(rig, run.case, &run.prompts, seconds).await?;
            if round > 0 {
                run.rates.push(rate);
                run.costs.push(cost);
            }
            eprintln!(
                "{}, {}: {rate:.0} requests/s, {cost:.0} µs of Envoy each",
                shape.name(),
                run.case.name()
            );
        }
    }
    let mut rows = Vec::new();
    let bare = runs.first().context("no case")?;
    let (bare_rate, bare_cost) = (median(&bare.rates), median(&bare.costs));
    for run in &runs {
        let name = format!("{} · {}", shape.name(), run.case.name());
        let (rate, cost) = (median(&run.rates), median(&run.costs));
        rows.push(Row::higher(name.clone(), rate, "requests/s"));
        if run.case != Case::Bare {
            let share = Row::higher(format!("{name} ÷ bare"), rate / bare_rate, "share");
            rows.push(share.target(run.case.target(shape)));
            let ratio = bare_cost / cost;
            rows.push(Row::higher(
                format!("{name} ÷ bare, by Envoy's processor time"),
                ratio,
                "share",
            ));
        }
    }
    let of = |case: Case| runs.iter().find(|run| run.case == case);
    if let (Some(plain), Some(trimming)) = (of(Case::NoCallout), of(Case::Trimming)) {
        let name = format!("{} · trimming ÷ the same without", shape.name());
        let rates = median(&trimming.rates) / median(&plain.rates);
        rows.push(Row::higher(name.clone(), rates, "share"));
        let costs = median(&plain.costs) / median(&trimming.costs);
        let name = format!("{name}, by Envoy's processor time");
        rows.push(Row::higher(name, costs, "share"));
        if shape == Shape::Turns {
            check_trims(&rig.trimming).await?;
        }
    }
    Ok(rows)
}

/// What is called trimming has to leave something out.
async fn check_trims(envoy: &Envoy) -> anyhow::Result<()> {
    if envoy.metrics().await?.sum("sluice.trimmed_tokens", &[]) == 0 {
        bail!("trimming: nothing was left out of any request");
    }
    Ok(())
}

async fn one(
    rig: &Rig,
    case: Case,
    prompts: &Arc<Prompts>,
    seconds: f64,
) -> anyhow::Result<(f64, f64)> {
    let envoy = rig.envoy(case);
    let asked = rig.upstream.requests();
    let before = footprint::cpu_seconds(envoy.id())?;
    let until = Until::Passed(Duration::from_secs_f64(seconds));
    let tally = load::closed(envoy.address(), prompts, CONNECTIONS, until).await?;
    let took = footprint::cpu_seconds(envoy.id())? - before;
    check(case, &tally, rig.upstream.requests() - asked)?;
    if case == Case::Miss {
        idle(&rig.sidecar).await?;
    }
    Ok((tally.rate(), took / tally.answers as f64 * 1e6))
}

/// A case has to be what it is called.
fn check(case: Case, tally: &Tally, upstream: u64) -> anyhow::Result<()> {
    let Tally {
        answers, ok, hits, ..
    } = *tally;
    let expected = if case == Case::Hit { answers } else { 0 };
    if answers == 0 || ok != answers || hits != expected || upstream != answers - hits {
        bail!(
            "{}: {answers} answers, {ok} of them 200, {hits} hits, {upstream} by the upstream",
            case.name()
        );
    }
    Ok(())
}

async fn latencies(rig: &Rig, args: &Args) -> anyhow::Result<Vec<Row>> {
    const CASES: [Case; 4] = [Case::Bare, Case::NoCallout, Case::Miss, Case::Hit];
    let mut targets: Vec<Target> = Vec::new();
    for case in CASES {
        let prompts = Arc::new(Prompts::new(Shape::Short, case.novelty())?);
        if case == Case::Hit {
            fill(&rig.cached, &prompts).await?;
        }
        targets.push((rig.envoy(case).address(), prompts));
    }
    eprintln!("latency: {} s at 100 requests/s each", args.latency);
    let load = (100, Duration::from_secs(args.latency));
    let seen = tokio::task::spawn_blocking(move || latency::measure(&targets, load)).await??;
    let of = |case: Case, share: f64| {
        let seen = seen.get(CASES.iter().position(|one| *one == case).unwrap_or(0));
        quantile(seen.map_or(&[], |seen| &seen.times), share)
    };
    let mut rows = Vec::new();
    for case in CASES {
        let name = format!("latency at 100/s · {}", case.name());
        rows.push(Row::lower(format!("{name} p50"), of(case, 0.5), "ms"));
        let in_all = (case == Case::Hit).then_some(2.0);
        rows.push(Row::lower(format!("{name} p99"), of(case, 0.99), "ms").target(in_all));
    }
    let added = |share| of(Case::NoCallout, share) - of(Case::Bare, share);
    let name = "latency at 100/s · added by no callout";
    rows.push(Row::lower(format!("{name} p50"), added(0.5), "ms"));
    rows.push(Row::lower(format!("{name} p99"), added(0.99), "ms").target(0.5));
    Ok(rows)
}

/// Conversations of twenty turns, trimmed and by the same filter without trimming.
async fn trimming_latencies(rig: &Rig, args: &Args) -> anyhow::Result<Vec<Row>> {
    const CASES: [Case; 3] = [Case::Bare, Case::NoCallout, Case::Trimming];
    let mut targets: Vec<Target> = Vec::new();
    for case in CASES {
        let prompts = Prompts::new(Shape::Turns, case.novelty())?;
        targets.push((rig.envoy(case).address(), Arc::new(prompts)));
    }
    eprintln!(
        "latency of 20 turns: {} s at 100 requests/s each",
        args.latency
    );
    let load = (100, Duration::from_secs(args.latency));
    let seen = tokio::task::spawn_blocking(move || latency::measure(&targets, load)).await??;
    check_trims(&rig.trimming).await?;
    let mut rows = Vec::new();
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let of = |at: usize| quantile(seen.get(at).map_or(&[], |seen| &seen.times), share);
        let (bare, plain, trimming) = (of(0), of(1), of(2));
        let row = |what: &str, value| {
            Row::lower(
                format!("latency of 20 turns at 100/s · {what} {name}"),
                value,
                "ms",
            )
        };
        rows.push(row("no callout", plain));
        rows.push(row("trimming", trimming));
        rows.push(row("added by no callout", plain - bare));
        rows.push(row("added by trimming to that", trimming - plain));
        let times = Row::lower(
            format!("latency of 20 turns at 100/s · trimming ÷ the same without, {name}"),
            trimming / plain,
            "times",
        );
        rows.push(times);
    }
    Ok(rows)
}

/// One VM over 200,000 requests of all sizes: every second one is new, the rest are hits.
async fn memory(rig: &Rig, name: &str, config: Value) -> anyhow::Result<Vec<Row>> {
    let at = (rig.upstream.address(), rig.sidecar.address());
    let place = name.replace([' ', ','], "-");
    let envoy = start(&place, (Some(config), None), at, rig.dir.path()).await?;
    let prompts = Arc::new(Prompts::mixed(&Shape::ALL, Novelty::NewEvery(2))?);
    let first = vm_megabytes(&envoy).await?;
    let resident = footprint::resident_bytes(envoy.id())?;
    let mut sent = 0;
    let mut sizes = Vec::new();
    for upto in [WARM, ALL] {
        let until = Until::Requests(upto - sent);
        let tally = load::closed(envoy.address(), &prompts, CONNECTIONS, until).await?;
        if tally.ok != tally.answers {
            bail!("memory: {} of {} were 200", tally.ok, tally.answers);
        }
        sent = upto;
        idle(&rig.sidecar).await?;
        let size = vm_megabytes(&envoy).await?;
        eprintln!("memory: {size:.2} MB after {sent} requests");
        sizes.push(size);
    }
    let (warm, last) = (sizes[0], sizes[1]);
    let grown = footprint::resident_bytes(envoy.id())? as f64 - resident as f64;
    envoy.check_no_trap().await?;
    Ok(vec![
        Row::lower(format!("{name} · at start"), first, "MB").target(48.0),
        Row::lower(format!("{name} · after 200,000 requests"), last, "MB").target(48.0),
        Row::lower(
            format!("{name} · growth from 20,000 to 200,000"),
            last - warm,
            "MB",
        )
        .target(1.049),
        Row::lower(
            format!("{name} · Envoy resident, growth over 200,000"),
            grown / 1e6,
            "MB",
        ),
    ])
}

/// What the filter says of its linear memory; it looks once a second.
async fn vm_megabytes(envoy: &Envoy) -> anyhow::Result<f64> {
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let bytes = envoy.metrics().await?.sum("sluice.vm_memory_bytes", &[]);
    if bytes == 0 {
        bail!("no gauge sluice.vm_memory_bytes");
    }
    Ok(bytes as f64 / 1e6)
}
