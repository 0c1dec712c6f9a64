//! What the sidecar is asked of meaning before a request is trimmed, and whose its answers are.

use sluice_wire::{Relevance, Similarity, limit};

use super::Job;
use super::past::{raw_of, said, stay_of};
use crate::config::{History, Keep, Trimming};
use crate::policy::trim::context::{self, Found, Rank};
use crate::policy::trim::turns::Turns;

/// Texts to be compared with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// For the head of an admit.
    pub relevance: Relevance,
    /// The texts, one after another.
    pub texts: Vec<u8>,
}

/// What the sidecar is to be asked before a request is trimmed; None where its answer could change
/// nothing.
#[must_use]
pub fn asked(job: &Job<'_>) -> Option<Asked> {
    let (history_ms, chunks) = wanted(job.policy);
    if history_ms.is_none() && !chunks {
        return None;
    }
    let mut texts: Vec<String> = Vec::new();
    let found = Found::of(job.request, job.policy.context.as_ref()).ok();
    let current = found.as_ref().and_then(current);
    let mut max_ms = 0;
    let mut question = current.map(|one| one.question.to_string());
    let by_meaning = |history: &&History| history.keep != Keep::Recent;
    if let (Some(ms), Some(history)) = (history_ms, job.policy.history.as_ref().filter(by_meaning))
        && let Some(turns) = Turns::of(job.request, job.format, stay_of(history))
    {
        let past = turns.past();
        let bytes: usize = past
            .iter()
            .map(|one| raw_of(&turns, one.items.clone()).len())
            .sum();
        // Fewer bytes than that are fewer tokens than the budget: all of it stays anyhow.
        if bytes as u64 > history.tokens {
            question = question
                .or_else(|| Some(said(&turns, turns.exchanges.last()?.items.clone(), true)));
            texts.extend(
                past.iter()
                    .map(|one| said(&turns, one.items.clone(), false)),
            );
            max_ms = ms;
        }
    }
    if chunks && let Some(current) = current {
        texts.extend(current.chunks.iter().map(|chunk| chunk.text.clone()));
        max_ms = max_ms.max(CHUNKS_MS);
    }
    let question = question.filter(|question| !question.trim().is_empty())?;
    if texts.is_empty() {
        return None;
    }
    // The newest, and those that were retrieved, are what counts most.
    let skipped = texts.len().saturating_sub(limit::TEXTS);
    let texts = texts.split_off(skipped);
    let each = (limit::TEXTS_BYTES / texts.len()).min(limit::TEXT);
    let texts: Vec<&str> = texts.iter().map(|text| cut(text, each)).collect();
    Some(Asked {
        relevance: Relevance {
            question: cut(&question, limit::TEXT).to_owned(),
            lens: texts.iter().map(|text| text.len() as u32).collect(),
            max_ms,
        },
        texts: texts.concat().into_bytes(),
    })
}

/// Longest time for chunks, in milliseconds, where history has none of its own.
const CHUNKS_MS: u32 = 60;

/// What the sidecar compares by the policy: the past, in at most so many milliseconds, and chunks.
fn wanted(policy: &Trimming) -> (Option<u32>, bool) {
    let history = policy.history.as_ref().and_then(|one| one.embeddings_ms);
    let chunks = policy
        .context
        .as_ref()
        .is_some_and(|context| match context.rank {
            Rank::Embeddings => true,
            Rank::Mix => history.is_some(),
            Rank::Given | Rank::Bm25 => false,
        });
    (history, chunks)
}

/// The chunks that the current question is about.
pub(super) fn current<'f, 'a>(found: &'f Found<'a>) -> Option<&'f context::Retrieval<'a>> {
    found.retrievals.iter().rev().find(|one| one.current)
}

/// At most so many bytes of a text, cut between characters.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at));
    text.get(..end.unwrap_or(0)).unwrap_or("")
}

/// Similarities by what they are of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Similar<'a> {
    /// Of the last of the past's exchanges.
    pub(super) past: &'a [Similarity],
    /// Of the last of the current question's chunks.
    pub(super) chunks: &'a [Similarity],
}

impl<'a> Similar<'a> {
    /// As [`asked`] asked for them: the past's, then the chunks'.
    pub(super) fn of(job: &Job<'a>, found: &Found<'_>) -> Similar<'a> {
        let (_, wanted) = wanted(job.policy);
        let chunks = current(found)
            .filter(|_| wanted)
            .map_or(0, |one| one.chunks.len());
        let all = job.known.similarities;
        let (past, chunks) = all.split_at(all.len().saturating_sub(chunks));
        Similar { past, chunks }
    }
}

/// Of `of` things the similarity of the one at `at`, where `known` are those of the last.
pub(super) fn similarity(known: &[Similarity], at: usize, of: usize) -> Option<f32> {
    let at = (at + known.len()).checked_sub(of)?;
    known.get(at)?.cosine()
}
