//! What a cached answer costs: how small it gets, and what a million of them take. A program of its
//! own, because it reads the size of its process.
#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test's helpers; figures of a few digits"
)]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use sluice::cache::{CacheStore, Entry, Found, Key, MemoryCache};
use sluice_wire::{EntryHead, Usage, Usd};

const NOW: u64 = 1_700_000_000_000;
/// English and code, as answers are.
const TEXTS: &str = concat!(
    include_str!("../../README.md"),
    include_str!("../../docs/budgets.md"),
    include_str!("../../docs/deploying.md"),
    include_str!("../../docs/development.md"),
);

/// Numbers that repeat with the seed.
fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 16
}

/// A chat answer of a provider, with some `len` bytes of text from a random place.
fn answer(state: &mut u64, len: usize) -> String {
    let starts: Vec<usize> = TEXTS.char_indices().map(|(at, _)| at).collect();
    let cut = |at: u64| starts[usize::try_from(at).unwrap() % (starts.len() - len)];
    let at = cut(random(state));
    let end = (at + len..).find(|&it| TEXTS.is_char_boundary(it)).unwrap();
    let (one, two, tokens) = (random(state), random(state), len / 4);
    // In the order in which the provider writes it.
    format!(
        concat!(
            r#"{{"id":"chatcmpl-{:012x}{:012x}","object":"chat.completion","created":17{:08},"#,
            r#""model":"gpt-4.1-mini-2025-04-14","choices":[{{"index":0,"message":{{"#,
            r#""role":"assistant","content":{},"refusal":null,"annotations":[]}},"#,
            r#""logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{},"#,
            r#""completion_tokens":{},"total_tokens":{},"#,
            r#""prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"#,
            r#""completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"#,
            r#""accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}},"#,
            r#""service_tier":"default","system_fingerprint":"fp_{:010x}"}}"#
        ),
        one,
        two,
        one % 50_000_000,
        serde_json::Value::from(&TEXTS[at..end]),
        one % 4_000,
        tokens,
        one % 4_000 + tokens as u64,
        two % (1 << 40),
    )
}

fn entry(body: String) -> Entry {
    Entry {
        stored_ms: NOW,
        built_ms: NOW - 1_700,
        fresh_ms: NOW + 600_000,
        stale_ms: NOW + 900_000,
        keep_ms: NOW + 900_000,
        token: (NOW - 1_700) * 1_000,
        tags: Vec::new(),
        head: EntryHead {
            format: "openai_chat".to_owned(),
            model: "gpt-4.1-mini".to_owned(),
            tier: Some("medium".to_owned()),
            usage: Usage {
                prompt: 812,
                completion: 240,
                ..Usage::default()
            },
            cost: Some(Usd(1_234_000)),
            ..EntryHead::default()
        },
        body: Bytes::from(body),
    }
}

/// µs for one of `count`, the best of five rounds: other programs only ever make it longer.
fn best(count: usize, mut round: impl FnMut()) -> f64 {
    let rounds = (0..5).map(|_| {
        let started = Instant::now();
        round();
        started.elapsed().as_secs_f64() * 1e6 / count as f64
    });
    rounds.fold(f64::INFINITY, f64::min)
}

/// One way to pack: share of the plain size, µs to pack one, µs to unpack it.
fn tried(
    plain: &[Vec<u8>],
    pack: &mut dyn FnMut(&[u8]) -> Vec<u8>,
    unpack: &mut dyn FnMut(&[u8], usize) -> Vec<u8>,
) -> (f64, f64, f64) {
    let packed: Vec<Vec<u8>> = plain.iter().map(|it| pack(it)).collect();
    let sum = |list: &[Vec<u8>]| list.iter().map(Vec::len).sum::<usize>() as f64;
    let share = sum(&packed) / sum(plain);
    let pack_us = best(plain.len(), || {
        plain.iter().for_each(|it| drop(black_box(pack(it))));
    });
    let unpack_us = best(plain.len(), || {
        for (packed, plain) in packed.iter().zip(plain) {
            assert!(unpack(packed, plain.len()) == *plain);
        }
    });
    (share, pack_us, unpack_us)
}

/// `cargo test --release -p sluice --test footprint -- --ignored --nocapture packing`
#[test]
#[ignore = "long run"]
fn packing_halves_an_answer_in_microseconds() {
    println!("answer, bytes: way, share of the plain size, µs to pack, µs to unpack");
    for len in [70, 500, 1_500, 3_500, 7_500] {
        let mut state = 7;
        let entries: Vec<Entry> = (0..500).map(|_| entry(answer(&mut state, len))).collect();
        let plain: Vec<Vec<u8>> = entries.iter().map(|it| it.body.to_vec()).collect();
        let bytes = plain.iter().map(Vec::len).sum::<usize>() / plain.len();
        let show = |way: &str, (share, pack, unpack): (f64, f64, f64)| {
            println!("{bytes:>5}: {way:<12} {share:.2} {pack:6.1} {unpack:6.1}");
        };
        show(
            "lz4",
            tried(&plain, &mut lz4_flex::block::compress, &mut |it, len| {
                lz4_flex::block::decompress(it, len).unwrap()
            }),
        );
        for level in [1, 3, 6] {
            let mut pack = zstd::bulk::Compressor::new(level).unwrap();
            let mut unpack = zstd::bulk::Decompressor::new().unwrap();
            let outcome = tried(
                &plain,
                &mut |it| pack.compress(it).unwrap(),
                &mut |it, len| unpack.decompress(it, len).unwrap(),
            );
            show(&format!("zstd {level}"), outcome);
        }
        // With everything that an entry is made of: head, checksum, dictionary.
        let packed: Vec<Vec<u8>> = entries.iter().map(|it| it.encode().unwrap()).collect();
        let pack_us = best(entries.len(), || {
            entries.iter().for_each(|it| drop(black_box(it.encode())));
        });
        let unpack_us = best(entries.len(), || {
            packed
                .iter()
                .for_each(|it| drop(black_box(Entry::decode(it).unwrap())));
        });
        let share = packed.iter().map(Vec::len).sum::<usize>() as f64
            / plain.iter().map(Vec::len).sum::<usize>() as f64;
        show("entry", (share, pack_us, unpack_us));
        assert!(share < 0.55, "{share}");
    }
}

/// Bytes that the process has in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn key(n: u64) -> Key {
    let mut state = n;
    let words = [(); 4].map(|()| random(&mut state) ^ random(&mut state) << 32);
    let digits: String = words.iter().map(|it| format!("{it:016x}")).collect();
    digits.parse().unwrap()
}

/// `cargo test --release -p sluice --test footprint -- --ignored --nocapture million`
#[test]
#[ignore = "long run"]
fn a_million_answers_cost_what_is_charged_and_no_more_time_than_ten_thousand() {
    let cache = MemoryCache::new(4 << 30, NOW - 10_000);
    let mut state = 1;
    let samples: Vec<Entry> = (0..1_000).map(|_| entry(answer(&mut state, 580))).collect();
    let packed = samples
        .iter()
        .map(|it| it.encode().unwrap().len())
        .sum::<usize>() as f64
        / 1e3;
    let before = resident();
    let (mut kept, mut medians) = (0_u64, Vec::new());
    println!(
        "answers: bytes each, charged, get p50 µs, p99 µs, sweep ms (packed: {packed:.0} bytes)"
    );
    for count in [10_000, 100_000, 1_000_000] {
        while kept < count {
            let mut entry = samples[usize::try_from(kept % 1_000).unwrap()].clone();
            entry.token += kept;
            cache.put(key(kept), entry).now_or_never().unwrap().unwrap();
            kept += 1;
        }
        cache.settle_down();
        let layer = &cache.layers()[0];
        assert_eq!(layer.entries, Some(count));
        let each = (resident() - before) as f64 / count as f64;
        let charged = layer.bytes.unwrap() as f64 / count as f64;
        let mut took: Vec<u128> = (0..100_000)
            .map(|_| {
                let key = key(random(&mut state) % count);
                let started = Instant::now();
                let found = cache.get(key, NOW).now_or_never().unwrap().unwrap();
                let took = started.elapsed().as_nanos();
                assert!(matches!(found, Found::Entry(_)));
                took
            })
            .collect();
        took.sort_unstable();
        let at = |share: usize| took[took.len() * share / 100] as f64 / 1e3;
        let started = Instant::now();
        cache.sweep(NOW);
        let sweep = started.elapsed().as_millis();
        println!(
            "{count:>7}: {each:.0} {charged:.0} {:.1} {:.1} {sweep}",
            at(50),
            at(99)
        );
        medians.push(at(50));
        if count == 1_000_000 {
            assert!(each <= 1.3 * packed + 400.0, "{each} for {packed}");
            assert!((charged / each - 1.0).abs() < 0.1, "{charged} for {each}");
        }
    }
    assert!(medians[2] < 3.0 * medians[0], "{medians:?}");
}
