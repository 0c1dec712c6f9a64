//! Precision and recall on recorded questions: cosine alone, with the guards, with the check.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use sluice::semantic::{DEFAULT_THRESHOLD, Question, Refusal, Verdict, Vocabulary, judge};

use crate::data::{self, Intent, Labelled};
use crate::report::{Report, Share};
use crate::vectors::{Vectors, dot};

/// Cosines below which no index would bring a candidate.
const NEAR: f32 = 0.7;

/// Answers of the stream that are given from cosine alone, for comparison.
const COSINES: [f32; 4] = [0.9, 0.94, 0.97, 0.98];

/// Thresholds of the probability.
const THRESHOLDS: [f32; 6] = [0.9, 0.95, 0.97, 0.98, 0.985, 0.99];

/// Measures what is present.
pub(crate) fn measure(folder: Option<&Path>, shown: usize, json: bool) -> Result<()> {
    let mut report = Report::new(json, shown);
    time(&mut report);
    let Some(folder) = folder else {
        report.say("skipped: precision and recall need SLUICE_VECTORS (docs/semantic-cache.md)");
        return report.finish();
    };
    let vectors = Vectors::read(folder)?;
    let words = crate::vectors::vocabulary(folder)?;
    if let Some(pairs) = data::labelled()? {
        quora(&pairs, &vectors, &words, &mut report)?;
    }
    if let Some(intents) = data::intents()? {
        stream(&intents, &vectors, &words, &mut report)?;
    }
    report.finish()
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
    cosine: f32,
    verdict: Verdict,
}

impl Judged<'_> {
    fn same(&self) -> bool {
        self.pair.label == 1
    }

    /// Below every threshold where a guard refuses.
    fn probability(&self) -> f32 {
        match self.verdict {
            Verdict::Probability(probability) if self.cosine >= NEAR => probability,
            _ => -1.0,
        }
    }
}

fn quora(
    pairs: &[Labelled],
    vectors: &Vectors,
    words: &Vocabulary,
    report: &mut Report,
) -> Result<()> {
    let read: Vec<(Question, Question)> = pairs
        .iter()
        .map(|pair| (Question::read(&pair.a), Question::read(&pair.b)))
        .collect();
    let mut judged = Vec::with_capacity(pairs.len());
    for (pair, (a, b)) in pairs.iter().zip(&read) {
        let cosine = vectors.cosine(&pair.a, &pair.b)?;
        judged.push(Judged {
            pair,
            cosine,
            verdict: judge(a, b, cosine, Some(words)),
        });
    }
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    for cosine in [0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98] {
        report.curve(
            &format!("Quora · cosine ≥ {cosine}"),
            share(&all, |one| one.cosine >= cosine),
        );
    }
    for cosine in [0.85, 0.9, 0.92, 0.94, 0.96] {
        report.curve(
            &format!("Quora · guards, cosine ≥ {cosine}"),
            share(&all, |one| one.cosine >= cosine && one.probability() >= 0.0),
        );
    }
    for threshold in THRESHOLDS {
        report.curve(
            &format!("Quora · guards and check ≥ {threshold}"),
            share(&all, |one| one.probability() >= threshold),
        );
    }
    for half in 0..2 {
        let part: Vec<&Judged<'_>> = judged
            .iter()
            .filter(|one| usize::from(one.pair.a.len() as u8 ^ hash(&one.pair.a)) % 2 == half)
            .collect();
        report.curve(
            &format!("Quora, half {} · default, {DEFAULT_THRESHOLD}", half + 1),
            share(&part, |one| one.probability() >= DEFAULT_THRESHOLD),
        );
    }
    reasons(&judged, report);
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
    Ok(())
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
                        && one.verdict == Verdict::Refused(reason)
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
fn stream(
    intents: &[Intent],
    vectors: &Vectors,
    words: &Vocabulary,
    report: &mut Report,
) -> Result<()> {
    let order = shuffled(intents.len());
    let rows: Vec<&[f32]> = order
        .iter()
        .map(|at| vectors.of(&intents[*at].text))
        .collect::<Result<_>>()?;
    let read: Vec<Question> = order
        .iter()
        .map(|at| Question::read(&intents[*at].text))
        .collect();
    let intent = |at: usize| intents[order[at]].label.as_str();
    let mut by_cosine = [(0, 0); COSINES.len()];
    let mut by_check = [(0, 0); THRESHOLDS.len()];
    for at in 0..rows.len() {
        let mut near: Vec<(f32, usize)> = rows[..at]
            .iter()
            .enumerate()
            .map(|(other, row)| (dot(row, rows[at]), other))
            .filter(|(cosine, _)| *cosine >= NEAR)
            .collect();
        near.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        near.truncate(8);
        let Some(&(cosine, nearest)) = near.first() else {
            continue;
        };
        for (threshold, count) in COSINES.iter().zip(&mut by_cosine) {
            if cosine >= *threshold {
                count.0 += usize::from(intent(nearest) == intent(at));
                count.1 += 1;
            }
        }
        let best = near
            .iter()
            .filter_map(|(cosine, other)| {
                match judge(&read[*other], &read[at], *cosine, Some(words)) {
                    Verdict::Probability(probability) => Some((probability, *other)),
                    Verdict::Refused(_) => None,
                }
            })
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((probability, other)) = best else {
            continue;
        };
        for (threshold, count) in THRESHOLDS.iter().zip(&mut by_check) {
            if probability >= *threshold {
                count.0 += usize::from(intent(other) == intent(at));
                count.1 += 1;
            }
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
            all: rows.len(),
        };
        report.stream(&format!("BANKING77 · {name}"), share);
    }
    Ok(())
}

/// The same shuffled order each time.
fn shuffled(length: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    order
}
