//! The semantic cache's index in one scope: clustered vectors, as many as a tenant could have.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use sluice::cache::Key;
use sluice::semantic::{Bounds, Index, Question, Row as Vector, Stored};

use crate::answers::{NOW, key};
use crate::row::{Row, quantile};

/// Of all-MiniLM-L6-v2.
const DIMENSIONS: usize = 384;
/// Look-ups that are timed.
const LOOK_UPS: usize = 200;
/// Questions about one thing.
const CLUSTER: u64 = 20;
/// How far they are apart: cosines of about 0.8.
const SPREAD: f32 = 0.5;

/// Times and recall at each size.
pub(crate) fn measure(quick: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let counts: &[u64] = if quick { &[10_000] } else { &[10_000, 100_000] };
    for &count in counts {
        eprintln!("index of {count} questions");
        let mut random = fastrand::Rng::with_seed(count);
        let mut vectors: Vec<Vec<f32>> = Vec::new();
        let mut middle = Vec::new();
        for n in 0..count {
            if n % CLUSTER == 0 {
                middle = near(&[0.0; DIMENSIONS], &mut random);
            }
            vectors.push(near(&middle, &mut random));
        }
        let scope = key(u64::MAX);
        let question = Arc::new(Question::read("What is your refund policy?"));
        let index = Index::new(
            DIMENSIONS,
            Bounds {
                entries: usize::MAX,
                bytes: usize::MAX,
            },
        );
        let started = Instant::now();
        for (n, vector) in (0..).zip(&vectors) {
            let stored = Stored {
                scope,
                key: key(n),
                question: question.clone(),
                until_ms: NOW + 1,
            };
            index.insert(stored, &Vector::of(vector));
        }
        let built = started.elapsed().as_secs_f64();
        let (mut times, mut found, mut there) = (Vec::new(), 0, 0);
        for _ in 0..LOOK_UPS {
            let about = random.usize(..vectors.len());
            let asked = near(&vectors[about], &mut random);
            let row = Vector::of(&asked);
            let started = Instant::now();
            let nearest = index.search(&scope, &row, NOW);
            times.push(started.elapsed().as_secs_f64() * 1e3);
            let expected = exact(&vectors, &asked, nearest.len());
            there += expected.len();
            found += nearest
                .iter()
                .filter(|it| expected.contains(&it.key))
                .count();
        }
        times.sort_unstable_by(f64::total_cmp);
        let name = format!("index of {count} questions");
        rows.push(Row::lower(
            format!("{name} · look-up p50"),
            quantile(&times, 50.0),
            "ms",
        ));
        rows.push(Row::lower(
            format!("{name} · look-up p99"),
            quantile(&times, 99.0),
            "ms",
        ));
        rows.push(Row::lower(format!("{name} · building"), built, "s"));
        let missed = 1.0 - found as f64 / there.max(1) as f64;
        rows.push(Row::lower(
            format!("{name} · of the nearest missed"),
            missed,
            "share",
        ));
    }
    rows
}

/// A vector of length 1 near `middle`.
fn near(middle: &[f32], random: &mut fastrand::Rng) -> Vec<f32> {
    // Of a random step's 384 parts each is about so long.
    let part = SPREAD * (3.0 / DIMENSIONS as f32).sqrt();
    let mut step = || (random.f32() * 2.0 - 1.0) * part;
    let mut vector: Vec<f32> = middle.iter().map(|x| x + step()).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

/// The keys of the `most` nearest by the whole numbers.
fn exact(vectors: &[Vec<f32>], asked: &[f32], most: usize) -> HashSet<Key> {
    let cosine = |vector: &Vec<f32>| vector.iter().zip(asked).map(|(a, b)| a * b).sum::<f32>();
    let mut all: Vec<(f32, u64)> = vectors.iter().map(cosine).zip(0..).collect();
    all.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    all.into_iter().take(most).map(|(_, n)| key(n)).collect()
}
