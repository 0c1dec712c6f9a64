//! PubMedQA: questions about biomedical abstracts, whose parts are chunks as retrieval brings them.
//!
//! Each question's chunks stand among those of twenty others, shuffled; the best K stay. A question
//! with more than K chunks cannot have all of them found: what is possible is a row of its own.

use std::path::Path;

use anyhow::{Context as _, Result};
use sluice_core::policy::trim::rank::{self, Passage};
use sluice_core::policy::trim::terms::Terms;
use sluice_core::tokens::{Encoding, Tokens};

use crate::data::{self, Abstract};
use crate::row::{Row, percent};
use crate::vectors::Vectors;

/// Chunks that stay.
const KEPT: [usize; 3] = [3, 5, 8];

/// At which K the aims are.
const AIM_AT: usize = 5;

/// Questions whose chunks stand between.
const OTHERS: usize = 20;

/// Chunks that are held against a question.
struct Chunk<'a> {
    text: &'a str,
    terms: Terms,
    tokens: u64,
    /// Place of its question.
    of: usize,
}

/// The figures; none where the abstracts are absent.
pub(crate) fn measure(model: &Path, quick: bool) -> Result<Vec<Row>> {
    let mut abstracts = data::abstracts()?;
    abstracts.truncate(if quick { 50 } else { usize::MAX });
    if abstracts.is_empty() {
        return Ok(Vec::new());
    }
    let chunks = chunks(&abstracts)?;
    let questions = abstracts.iter().map(|it| it.question.as_str());
    let texts = chunks.iter().flatten().map(|chunk| chunk.text);
    let vectors = Vectors::of(model, texts.chain(questions).collect())?;
    let ranked = |vectors: Option<&Vectors>| -> Vec<Vec<&Chunk<'_>>> {
        let all = abstracts.iter().enumerate();
        let ranked = all.map(|(of, it)| ranked(&it.question, among(of, &chunks), vectors));
        ranked.collect()
    };
    let mut rows = report("words alone", &ranked(None), 88.0);
    if vectors.is_some() {
        rows.extend(report("with embeddings", &ranked(vectors.as_ref()), 96.0));
    }
    Ok(rows)
}

fn chunks(abstracts: &[Abstract]) -> Result<Vec<Vec<Chunk<'_>>>> {
    let tokens = Tokens::load(&[Encoding::O200kBase]);
    let chunk = |of: usize, text| {
        let count = tokens.count_text(Encoding::O200kBase, text);
        Ok(Chunk {
            text,
            terms: Terms::of(text),
            tokens: count.context("the vocabulary is not loaded")?,
            of,
        })
    };
    let all = abstracts.iter().enumerate();
    all.map(|(of, it)| it.chunks.iter().map(|text| chunk(of, text)).collect())
        .collect()
}

/// The chunks of the question at `of` and of [`OTHERS`], in an order that is always the same.
fn among<'c, 'a>(of: usize, chunks: &'c [Vec<Chunk<'a>>]) -> Vec<&'c Chunk<'a>> {
    let mut random = fastrand::Rng::with_seed(of as u64);
    let others = (0..chunks.len()).filter(|&other| other != of);
    let mut from = random.choose_multiple(others, OTHERS);
    from.push(of);
    let chunks = from.into_iter().filter_map(|from| chunks.get(from));
    let mut chunks: Vec<_> = chunks.flatten().collect();
    random.shuffle(&mut chunks);
    chunks
}

/// Best first.
fn ranked<'c, 'a>(
    question: &str,
    chunks: Vec<&'c Chunk<'a>>,
    vectors: Option<&Vectors>,
) -> Vec<&'c Chunk<'a>> {
    let passages = chunks.iter().map(|chunk| Passage {
        terms: &chunk.terms,
        similarity: vectors.and_then(|vectors| vectors.cosine(chunk.text, question)),
    });
    let passages: Vec<Passage<'_>> = passages.collect();
    let scores = rank::chunks(&Terms::of(question), &passages);
    let mut scored: Vec<_> = scores.into_iter().zip(chunks).collect();
    scored.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    scored.into_iter().map(|(_, chunk)| chunk).collect()
}

fn report(way: &str, ranked: &[Vec<&Chunk<'_>>], aim: f64) -> Vec<Row> {
    let mut rows = Vec::new();
    for most in KEPT {
        let case = format!("PubMedQA · {way} · K = {most}");
        let right = |of: usize, chunks: &[&Chunk<'_>]| {
            chunks.iter().filter(|chunk| chunk.of == of).count() as f64
        };
        let kept = |chunks: &'_ Vec<&'_ Chunk<'_>>| most.min(chunks.len());
        let shares = ranked.iter().enumerate().map(|(of, chunks)| {
            let found = right(of, chunks.get(..kept(chunks)).unwrap_or_default());
            (found, right(of, chunks))
        });
        let shares: Vec<(f64, f64)> = shares.collect();
        let mean = percent(shares.iter().map(|(found, all)| found / all));
        let possible = percent(shares.iter().map(|(_, all)| (most as f64 / all).min(1.0)));
        let sum = |of: fn(&(f64, f64)) -> f64| shares.iter().map(of).sum::<f64>();
        let pooled = 100.0 * sum(|it| it.0) / sum(|it| it.1).max(1.0);
        let tokens = ranked.iter().flat_map(|chunks| chunks.iter().take(most));
        let tokens = tokens.map(|chunk| chunk.tokens as f64).sum::<f64>();
        let tokens = tokens / ranked.len().max(1) as f64;
        let target = (most == AIM_AT).then_some(aim);
        rows.extend([
            Row::higher(format!("{case} · chunks found"), mean, "%").target(target),
            Row::higher(format!("{case} · possible"), possible, "%"),
            Row::higher(format!("{case} · chunks found, of all"), pooled, "%"),
            Row::lower(format!("{case} · prompt"), tokens, "tokens"),
        ]);
    }
    rows
}
