//! Milliseconds per batch of sentences, with the real model: `cargo bench -p sluice-engine`.
//!
//! The model is that of `cargo xtask setup model`, or what `SLUICE_MODEL` points to.

use std::env;
use std::hint::black_box;
use std::path::PathBuf;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sluice_engine::{LoadOptions, load};

/// About 14 tokens each.
const SENTENCES: [&str; 8] = [
    "How do I reset the PIN of my credit card abroad?",
    "Please summarise the attached contract in three short bullet points.",
    "What is the difference between a process and a thread in Linux?",
    "My parcel was delivered to the wrong address, what can I do?",
    "Translate the following paragraph into formal French, keeping names.",
    "Which of our customers in Berlin ordered more than twice last month?",
    "Write a short and polite reply that declines the meeting on Friday.",
    "Is it safe to take ibuprofen together with a cup of coffee?",
];

fn embed(criterion: &mut Criterion) {
    let default = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../target/models/all-MiniLM-L6-v2"
    );
    let folder = env::var_os("SLUICE_MODEL").map_or_else(|| default.into(), PathBuf::from);
    for threads in [1, 2] {
        let options = LoadOptions {
            threads,
            ..LoadOptions::default()
        };
        let engine = match load(&folder, &options) {
            Ok(engine) => engine,
            Err(error) => {
                eprintln!("{error}; `cargo xtask setup model` fetches the model");
                std::process::exit(1);
            }
        };
        let mut group = criterion.benchmark_group(format!("embed, threads={threads}"));
        group.sample_size(20);
        for batch in [1, 8, 32, 128] {
            let texts: Vec<_> = SENTENCES.iter().copied().cycle().take(batch).collect();
            group.bench_with_input(
                BenchmarkId::from_parameter(batch),
                &texts,
                |bencher, texts| {
                    bencher.iter(|| engine.embed(black_box(texts)));
                },
            );
        }
        let long = SENTENCES.join(" ").repeat(2);
        group.bench_function("one of 212 tokens", |bencher| {
            bencher.iter(|| engine.embed(black_box(&[&long])));
        });
        group.finish();
    }
}

criterion_group!(benches, embed);
criterion_main!(benches);
