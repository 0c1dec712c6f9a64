//! Precision and recall on recorded questions, looked up as the sidecar does (index, guards, check):
//! cosine alone, with the guards, with the check.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use sluice::cache::Key;
use sluice::semantic::{
    Bounds, DEFAULT_THRESHOLD, Index, Near, Question, Refusal, Row, Stored, Verdict, Vocabulary,
    judge,
};

use crate::data::{self, Intent, Labelled};
use crate::report::{Report, Share};
use crate::vectors::{Model, Vectors};

/// Answers of the stream that are given from cosine alone, for comparison.
const COSINES: [f32; 4] = [0.9, 0.94, 0.97, 0.98];

/// Thresholds of the probability.
const THRESHOLDS: [f32; 6] = [0.9, 0.95, 0.97, 0.98, 0.985, 0.99];

/// Measures what is present.
pub(crate) fn measure(model: &Path, shown: usize, json: bool) -> Result<()> {
    let mut report = Report::new(json, shown);
    time(&mut report);
    let sets = data::labelled()?;
    let intents = data::intents()?.unwrap_or_default();
    if sets.is_empty() && intents.is_empty() {
        return report.finish();
    }
    if !model.is_dir() {
        report.say(&format!(
            "skipped: no model in {} (cargo xtask setup model)",
            model.display()
        ));
        return report.finish();
    }
    let model = Model::open(model)?;
    let pairs = sets.iter().flat_map(|(_, pairs)| pairs);
    let texts = pairs.flat_map(|pair| [&*pair.a, &*pair.b]);
    let vectors = model.embed(texts.chain(intents.iter().map(|intent| &*intent.text)))?;
    for (name, pairs) in &sets {
        let judged = look_up(pairs, &model, &vectors)?;
        labelled(name, &judged, &mut report);
    }
    if !intents.is_empty() {
        stream(&intents, &model, &vectors, &mut report)?;
    }
    report.finish()
}

/// An index that forgets nothing.
fn index(model: &Model) -> Index {
    Index::new(
        model.dimensions(),
        Bounds {
            entries: usize::MAX,
            bytes: usize::MAX,
        },
    )
}

fn key(at: usize) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(at as u64).to_be_bytes());
    Key::new(key)
}

/// The number that a key was made of.
fn place(key: &Key) -> usize {
    let (first, _) = key.bytes().split_at(8);
    first
        .iter()
        .fold(0, |place, byte| place << 8 | usize::from(*byte))
}

/// Stores the first question of each pair in a scope of its own and looks the second up there, so
/// that questions whose likeness nobody has labelled do not count.
fn look_up<'a>(pairs: &'a [Labelled], model: &Model, vectors: &Vectors) -> Result<Vec<Judged<'a>>> {
    let index = index(model);
    for (at, pair) in pairs.iter().enumerate() {
        let stored = stored((at, at), &pair.a);
        index.insert(stored, &Row::of(vectors.of(&pair.a)?));
    }
    let judge = |(at, pair): (usize, &'a Labelled)| {
        let near = index.search(&key(at), &Row::of(vectors.of(&pair.b)?), 0);
        let asked = Question::read(&pair.b);
        let found = near.first();
        Ok(Judged {
            pair,
            cosine: found.map_or(-1.0, |near| near.cosine),
            verdict: found
                .map(|near| judge(&near.question, &asked, near.cosine, Some(&model.words))),
        })
    };
    pairs.iter().enumerate().map(judge).collect()
}

fn stored((scope, at): (usize, usize), text: &str) -> Stored {
    Stored {
        scope: key(scope),
        key: key(at),
        question: Arc::new(Question::read(text)),
        until_ms: u64::MAX,
    }
}

/// What a question and a candidate cost, on generated pairs.
fn time(report: &mut Report) {
    let pairs = crate::train::pairs(&[]);
    let began = Instant::now();
    let read: Vec<(Question, Question)> = pairs
        .iter()
        .map(|pair| (Question::read(&pair.a), Question::read(&pair.b)))
        .collect();
    let reading = began.elapsed().as_secs_f64() * 1e6 / (2 * pairs.len()) as f64;
    let began = Instant::now();
    let verdicts: Vec<Verdict> = read.iter().map(|(a, b)| judge(a, b, 0.97, None)).collect();
    let comparing = began.elapsed().as_secs_f64() * 1e6 / pairs.len() as f64;
    report.row("time to read a question", reading, "µs");
    report.row("time of one comparison", comparing, "µs");
    for same in [true, false] {
        let of = pairs
            .iter()
            .zip(&verdicts)
            .filter(|(pair, _)| pair.same == same);
        let all = of.clone().count().max(1) as f64;
        let share = |count: usize| count as f64 / all * 100.0;
        let refused = of
            .clone()
            .filter(|(_, one)| matches!(one, Verdict::Refused(_)));
        let hits = of.clone().filter(
            |(_, one)| matches!(one, Verdict::Probability(one) if *one >= DEFAULT_THRESHOLD),
        );
        report.say(&format!(
            "generated pairs, {}, cosine 0.97: refused {:.0}%, hits {:.0}%",
            if same {
                "one question"
            } else {
                "a small word or more changed"
            },
            share(refused.count()),
            share(hits.count()),
        ));
    }
}

struct Judged<'a> {
    pair: &'a Labelled,
    /// Negative where the index brought no candidate.
    cosine: f32,
    verdict: Option<Verdict>,
}

impl Judged<'_> {
    fn same(&self) -> bool {
        self.pair.label == 1
    }

    /// Below every threshold where a guard refuses.
    fn probability(&self) -> f32 {
        match self.verdict {
            Some(Verdict::Probability(probability)) => probability,
            _ => -1.0,
        }
    }
}

fn labelled(name: &str, judged: &[Judged<'_>], report: &mut Report) {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    for cosine in [0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98] {
        report.curve(
            &format!("{name} · cosine ≥ {cosine}"),
            share(&all, |one| one.cosine >= cosine),
        );
    }
    for cosine in [0.85, 0.9, 0.92, 0.94, 0.96] {
        report.curve(
            &format!("{name} · guards, cosine ≥ {cosine}"),
            share(&all, |one| one.cosine >= cosine && one.probability() >= 0.0),
        );
    }
    for threshold in THRESHOLDS {
        report.curve(
            &format!("{name} · guards and check ≥ {threshold}"),
            share(&all, |one| one.probability() >= threshold),
        );
    }
    for half in 0..2 {
        let part: Vec<&Judged<'_>> = judged
            .iter()
            .filter(|one| usize::from(one.pair.a.len() as u8 ^ hash(&one.pair.a)) % 2 == half)
            .collect();
        report.curve(
            &format!("{name}, half {} · default, {DEFAULT_THRESHOLD}", half + 1),
            share(&part, |one| one.probability() >= DEFAULT_THRESHOLD),
        );
    }
    reasons(judged, report);
    let mut false_hits: Vec<&Judged<'_>> = judged
        .iter()
        .filter(|one| !one.same() && one.probability() >= DEFAULT_THRESHOLD)
        .collect();
    false_hits.sort_by(|a, b| b.probability().total_cmp(&a.probability()));
    report.say(&format!(
        "\nhits at the default threshold that the labels call false, {} in all:",
        false_hits.len()
    ));
    for one in false_hits.into_iter().take(report.shown) {
        report.say(&format!(
            "  {:.3}  {}  |  {}",
            one.probability(),
            one.pair.a,
            one.pair.b
        ));
    }
}

/// Enough to divide texts into halves.
fn hash(text: &str) -> u8 {
    text.bytes()
        .fold(7_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
        .to_be_bytes()[0]
}

fn share(judged: &[&Judged<'_>], hit: impl Fn(&Judged<'_>) -> bool) -> Share {
    let hits: Vec<&&Judged<'_>> = judged.iter().filter(|one| hit(one)).collect();
    Share {
        right: hits.iter().filter(|one| one.same()).count(),
        hits: hits.len(),
        all: judged.iter().filter(|one| one.same()).count(),
    }
}

/// What the guards refuse of what plain cosine would take.
fn reasons(judged: &[Judged<'_>], report: &Report) {
    report.say("\nrefused with a cosine of 0.9 or more (other, same by the labels):");
    for reason in Refusal::ALL {
        let refused = |same: bool| {
            judged
                .iter()
                .filter(|one| {
                    one.cosine >= 0.9
                        && one.same() == same
                        && one.verdict == Some(Verdict::Refused(reason))
                })
                .count()
        };
        let (other, same) = (refused(false), refused(true));
        if other + same > 0 {
            report.say(&format!("  {:<10}{other:>5}{same:>5}", reason.name()));
        }
    }
}

/// Replays the customer questions: each is looked up among all before it.
fn stream(intents: &[Intent], model: &Model, vectors: &Vectors, report: &mut Report) -> Result<()> {
    let order = shuffled(intents.len());
    let intent = |at: usize| intents[order[at]].label.as_str();
    let index = index(model);
    let mut by_cosine = [(0, 0); COSINES.len()];
    let mut by_check = [(0, 0); THRESHOLDS.len()];
    for (at, of) in order.iter().enumerate() {
        let text = &intents[*of].text;
        let (row, asked) = (Row::of(vectors.of(text)?), Question::read(text));
        let near = index.search(&key(0), &row, 0);
        index.insert(stored((0, at), text), &row);
        let count = |counts: &mut [(usize, usize)], thresholds: &[f32], found: (f32, usize)| {
            for (threshold, count) in thresholds.iter().zip(counts) {
                if found.0 >= *threshold {
                    count.0 += usize::from(intent(found.1) == intent(at));
                    count.1 += 1;
                }
            }
        };
        if let Some(near) = near.first() {
            count(&mut by_cosine, &COSINES, (near.cosine, place(&near.key)));
        }
        if let Some(best) = best(&near, &asked, &model.words) {
            count(&mut by_check, &THRESHOLDS, best);
        }
    }
    let named = COSINES
        .map(|cosine| format!("cosine ≥ {cosine}"))
        .into_iter()
        .zip(by_cosine)
        .chain(
            THRESHOLDS
                .map(|one| format!("guards and check ≥ {one}"))
                .into_iter()
                .zip(by_check),
        );
    for (name, (right, hits)) in named {
        let share = Share {
            right,
            hits,
            all: order.len(),
        };
        report.stream(&format!("BANKING77 · {name}"), share);
    }
    Ok(())
}

/// The likeliest of the candidates, the nearer of two equals.
fn best(near: &[Near], asked: &Question, words: &Vocabulary) -> Option<(f32, usize)> {
    let judged = near.iter().rev().filter_map(|near| {
        match judge(&near.question, asked, near.cosine, Some(words)) {
            Verdict::Probability(probability) => Some((probability, place(&near.key))),
            Verdict::Refused(_) => None,
        }
    });
    judged.max_by(|a, b| a.0.total_cmp(&b.0))
}

/// The same shuffled order each time.
fn shuffled(length: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    order
}
