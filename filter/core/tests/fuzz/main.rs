//! Random lives of requests: events in any order, bodies and configs with random damage, streams
//! cut anywhere, sidecars that answer anything. Nothing may panic, hang or be told twice.
//!
//! `SLUICE_FUZZ_SECONDS` sets how long it runs (default 3), `SLUICE_FUZZ_SEED` where it starts
//! (default: anywhere, and it says where). What it starts from are the formats' fixtures and
//! `tests/corpus/`. What failed is kept in `tests/failures/` with all that it takes to fail again,
//! and is run every time from then on: it is committed with the mend.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod kept;
mod life;
mod round;
mod sealed;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use damage::{Corpus, damaged};
use fastrand::Rng;
use round::Round;
use sluice_core::config::Plan;

const MODELS: &str = r#""models":{"gpt-4o":{"encoding":"o200k_base","input":2.5,"cached_input":1.25,"output":10},
    "gpt-4o-mini":{"encoding":"o200k_base","input":0.15,"output":0.6},
    "text-embedding-3-small":{"encoding":"cl100k_base","input":0.02},
    "claude-haiku-4-5":{"bytes_per_token":3.6,"input":1,"cached_input":0.1,"cache_write":1.25,"output":5}}"#;
const ROUTE: &str = r#""route":{"tiers":[{"name":"small","below":0.3,"model":{"openai":"gpt-4o-mini","anthropic":"claude-haiku-4-5"},"max_tokens":64},
    {"name":"large","model":"gpt-4o","max_tokens":1024}]}"#;
const BUDGETS: &str = r#""budgets":[{"per":"tenant","tokens":20000,"every":"minute","over":"reject"},
    {"per":"model","dollars":1,"every":"day","over":"small_tier"},{"per":"tenant","tokens":9000,"every":"minute","over":"shadow"}]"#;
const TRIM: &str = r#""trim":{"input_tokens":{"limit":300,"over":"small_tier"}}"#;
const TRUST: &str = r#""identity":{"trust":[{"header":{"name":"x-key","value":"k"}}],"allow":{"anonymous":["gpt-4o","gpt-4o-mini","text-embedding-3-small"]}}"#;

/// Configs, and whether they are dry: may change nothing.
fn configs() -> Vec<(String, bool)> {
    let all = format!("{MODELS},{ROUTE},{BUDGETS},{TRIM},{TRUST},\"cache\":{{}}");
    let strict =
        r#""sidecar":{"cluster":"c","on_failure":"closed","breaker":{"failures":2,"pause":"1s"}}"#;
    let narrow = r#""limits":{"request_body":"2KiB","response_body":"1KiB","on_failure":"closed"}"#;
    let search = r#""routes":[{"name":"search","match":{"path":"/search*"},"kind":"retrieval","cache":{"headers":["x-key"],"tags":["t"]}}]"#;
    let caching = r#""cache":{"exact":{"stale":"5m","stale_if_error":"1h"},"negative":{},"refresh":{"cluster":"self"}}"#;
    let guard = r#""guard":{"misses":{"limit":1,"queue":2,"wait":"2s"},"backoff":{"failures":2,"pause":"1s"},
        "spend":{"factor":2,"floor":0.0001,"ceiling":0.01,"over":["stale","small_tier","queue","reject"]}}"#;
    let sealed = r#""sidecar":{"cluster":"c","secret":"s","wait":"2s","waits":2}"#;
    let trims = r#""trim":{"history":{"keep":"summary","tokens":60,"last":0,"summary":{"tokens":50,"writer":"sidecar","model":"gpt-4o-mini"},"embeddings":"on"},"marks":"on","retry":{"cluster":"self"},
        "system":{"tokens":20,"minify":true},"context":{"markers":[{"json":{}},{"tag":"d"}],"top_k":1,"rank":"mix"},"input_tokens":{"limit":900,"over":"small_tier"}},
        "templates":[{"name":"long","system":"LONG","user":"{{context}} {{memory}} {{question}}"}]"#;
    let alone = trims
        .replace(r#","embeddings":"on""#, "")
        .replace(r#""retry":{"cluster":"self"},"#, "");
    let dry = alone.replace(r#""trim":{"#, r#""trim":{"mode":"dry","#);
    vec![
        (
            format!("{{{MODELS},{ROUTE},{BUDGETS},{TRUST},{caching},{sealed},{trims}}}"),
            false,
        ),
        (format!("{{{MODELS},{BUDGETS},{TRUST},{alone}}}"), false),
        (
            format!(r#"{{{MODELS},{dry},"sidecar":{{"cluster":"c"}}}}"#),
            true,
        ),
        (
            format!("{{{MODELS},{ROUTE},{BUDGETS},{TRUST},{caching},{guard},{sealed},{search}}}"),
            false,
        ),
        (format!(r#"{{{all},"sidecar":{{"cluster":"c"}}}}"#), false),
        (format!("{{{all},{strict},{search}}}"), false),
        (format!("{{{all},{narrow}}}"), false),
        (
            format!(r#"{{{all},"mode":"dry","sidecar":{{"cluster":"c"}},{search}}}"#),
            true,
        ),
        (format!("{{{MODELS}}}"), true),
        (String::new(), true),
    ]
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Seeds from a random one on, or from the one that is asked for.
fn seeds() -> impl Iterator<Item = u64> {
    // Of a length that is easily typed.
    let first = from_env("SLUICE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SLUICE_FUZZ_SEED={first}");
    (0..).map(move |number| first.wrapping_add(number))
}

/// Runs a round; one that fails is kept, as small as it still fails.
fn run(seed: u64, round: &Round) {
    if let Err(panic) = round.outcome() {
        let file = kept::keep(seed, &round.shrunk());
        eprintln!(
            "SLUICE_FUZZ_SEED={seed} failed and is kept as {}",
            file.display()
        );
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn nothing_that_ever_failed_fails_again() {
    for file in kept::all() {
        println!("{}", file.display());
        kept::read(&file).run();
    }
}

#[test]
fn no_sequence_of_events_panics_hangs_or_is_told_twice() {
    let seconds = from_env("SLUICE_FUZZ_SECONDS").unwrap_or(3);
    let (corpus, configs) = (Corpus::load(), configs());
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut lives = 0;
    for seed in seeds().take_while(|_| Instant::now() < deadline) {
        let round = Round::random(seed, &configs, &corpus);
        run(seed, &round);
        lives += round.requests.len();
    }
    let joined = life::JOINED.load(Ordering::Relaxed);
    println!("{lives} lives in {seconds} s, {joined} answers joined");
    let (trimmed, attempted) = (&life::TRIMMED, &life::ATTEMPTED);
    let trimmed = trimmed.load(Ordering::Relaxed);
    let attempted = attempted.load(Ordering::Relaxed);
    println!("{trimmed} trimmed, {attempted} sent again");
    assert!(lives > 100, "it must get somewhere: {lives} lives");
    assert!(
        (joined > 0 && trimmed > 0 && attempted > 0) || lives < 30_000,
        "it must get there too: {lives} lives"
    );
}

#[test]
fn no_config_panics() {
    let route = r#""routes":[{"name":"a","match":{"host":"*.x"}},{"name":"b","match":{"path":"/b*"},"kind":"retrieval","cache":{"headers":["x-a"],"tags":["t"]}}]"#;
    let config = format!(
        r#"{{{MODELS},{ROUTE},{BUDGETS},{TRIM},{TRUST},"cache":{{"exact":{{"ttl":"10m"}}}},"sidecar":{{"cluster":"c"}},{route}}}"#
    );
    assert!(Plan::parse(config.as_bytes(), &|_| None).is_ok());
    for seed in seeds().take(20_000) {
        let config = damaged(config.as_bytes(), &mut Rng::with_seed(seed));
        run(seed, &Round::of_config(config));
    }
}
