//! What a stored answer takes of the process, and whether look-ups slow down as the store grows.

use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use futures_util::FutureExt as _;
use sluice::cache::{CacheStore, Entry, Found, MemoryCache};

use crate::answers::{NOW, answer, entry, key, random};
use crate::row::{Row, quantile};

/// Look-ups that are timed.
const LOOK_UPS: u64 = 100_000;
/// Answers among which the look-ups of the smallest store are, and of a part of the others'.
const FEW: u64 = 10_000;
/// By what share of the truth the store's own bookkeeping may be off.
const FALSE: f64 = 0.1;

/// Bytes each, and times, at each size.
pub(crate) fn measure(quick: bool) -> anyhow::Result<Vec<Row>> {
    let cache = MemoryCache::new(4 << 30, NOW - 10_000);
    let mut state = 1;
    let samples: Vec<Entry> = (0..1_000).map(|_| entry(answer(&mut state, 580))).collect();
    let mut packed = 0;
    for sample in &samples {
        packed += sample
            .encode()
            .context("an entry that cannot be kept")?
            .len();
    }
    let packed = packed as f64 / samples.len() as f64;
    let before = resident()?;
    let mut rows = vec![Row::lower("answer, packed", packed, "bytes")];
    let mut kept = 0;
    let counts: &[u64] = match quick {
        true => &[FEW, 100_000],
        false => &[FEW, 100_000, 1_000_000],
    };
    for &count in counts {
        eprintln!("{count} answers");
        for (n, sample) in (kept..count).zip(samples.iter().cycle()) {
            let mut entry = sample.clone();
            entry.token += n;
            let put = cache.put(key(n), entry).now_or_never();
            put.context("the memory store waits for nothing")??;
        }
        kept = count;
        cache.settle_down();
        let layer = cache.layers().into_iter().next().context("no layer")?;
        if layer.entries != Some(count) {
            bail!("{:?} answers are kept of {count}", layer.entries);
        }
        let each = resident()?.saturating_sub(before) as f64 / count as f64;
        let charged = layer.bytes.unwrap_or(0) as f64 / count as f64;
        ensure!(
            (charged / each - 1.0).abs() < FALSE,
            "an answer takes {each:.0} bytes and is charged {charged:.0}"
        );
        let name = format!("{count} answers in memory");
        let row = Row::lower(format!("{name} · each"), each, "bytes");
        rows.push(row.at_most(1.3 * packed + 400.0));
        rows.push(Row::lower(
            format!("{name} · each as charged"),
            charged,
            "bytes",
        ));
        let mut look_ups = |of: &str, among: u64| -> anyhow::Result<()> {
            let times = look_ups(&cache, &mut state, among)?;
            // One look-up in 64 does the store's housekeeping: what is below the 98th percentile did
            // not, what is above the 99th did.
            for percent in [50.0, 98.0, 99.0] {
                let case = format!("{name} · look-up{of} p{percent}");
                rows.push(Row::lower(case, quantile(&times, percent), "µs"));
            }
            Ok(())
        };
        look_ups("", count)?;
        if count > FEW {
            look_ups(&format!(" among {FEW} of them"), FEW)?;
        }
        let started = Instant::now();
        cache.sweep(NOW);
        let sweep = started.elapsed().as_secs_f64() * 1e3;
        rows.push(Row::lower(format!("{name} · sweep"), sweep, "ms"));
    }
    Ok(rows)
}

/// µs of each look-up of a random one of the first `among`, sorted.
fn look_ups(cache: &MemoryCache, state: &mut u64, among: u64) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..LOOK_UPS {
        let key = key(random(state) % among);
        let started = Instant::now();
        let found = cache.get(key, NOW).now_or_never();
        let took = started.elapsed();
        match found.context("the memory store waits for nothing")?? {
            Found::Entry(_) => times.push(took.as_secs_f64() * 1e6),
            other => bail!("an answer that was kept: {other:?}"),
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times)
}

/// Bytes that the process has in memory.
fn resident() -> anyhow::Result<usize> {
    let text = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: usize = kilobytes.context("no VmRSS")?.parse()?;
    Ok(kilobytes * 1024)
}
