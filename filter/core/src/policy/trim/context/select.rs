//! Which chunks of a retrieval stay: filter, near-duplicates, rank, Top-K within the token limit.

use std::cmp::Ordering;

use super::{Ask, Chunk, Judge, Order, Policy, Rank, Retrieval, near};

/// Reciprocal rank fusion's constant: Cormack, Clarke, Büttcher, "Reciprocal rank fusion outperforms
/// Condorcet and individual rank learning methods", SIGIR 2009.
const FUSION: f64 = 60.0;

/// The chunks that stay, the best first.
pub(super) fn select(
    retrieval: &Retrieval<'_>,
    policy: &Policy,
    judge: &mut dyn Judge,
) -> Vec<usize> {
    let chunks = &retrieval.chunks;
    let mut left: Vec<usize> = (0..chunks.len()).collect();
    if let Some(filter) = &policy.filter {
        left.retain(|at| {
            chunks
                .get(*at)
                .is_some_and(|chunk| filter.holds(&chunk.metadata))
        });
    }
    if let Some(threshold) = policy.duplicates {
        let is_copy = near::duplicates(&texts(chunks, &left), threshold);
        let mut is_copy = is_copy.into_iter();
        left.retain(|_| is_copy.next() != Some(true));
    }
    let fits = policy.top_k.is_none_or(|k| left.len() <= k) && policy.tokens.is_none();
    let ordered = policy.order == Order::Original;
    // One alone stays however long it is.
    if policy.min_score.is_none() && (left.len() < 2 || fits && ordered) {
        return left;
    }
    let (scores, by) = scores(retrieval, &left, policy.rank, judge);
    let mut ranked: Vec<(usize, Option<f64>)> = left.into_iter().zip(scores).collect();
    if let Some(least) = policy.min_score.filter(|_| by == policy.rank) {
        ranked.retain(|(_, score)| score.is_none_or(|score| score >= least));
    }
    // Stable: equals stay as they came.
    ranked.sort_by(|(_, one), (_, other)| descending(*one, *other));
    within(ranked.into_iter().map(|(at, _)| at), chunks, policy, judge)
}

fn texts<'c>(chunks: &'c [Chunk], of: &[usize]) -> Vec<&'c str> {
    let text = |at: &usize| chunks.get(*at).map(|chunk| chunk.text.as_str());
    of.iter().filter_map(text).collect()
}

/// Higher first, the unknown last.
fn descending(one: Option<f64>, other: Option<f64>) -> Ordering {
    let value = |score: Option<f64>| {
        score
            .filter(|score| !score.is_nan())
            .unwrap_or(f64::NEG_INFINITY)
    };
    value(other).total_cmp(&value(one))
}

/// A score for each of `of`, and what it was made by.
fn scores(
    retrieval: &Retrieval<'_>,
    of: &[usize],
    by: Rank,
    judge: &mut dyn Judge,
) -> (Vec<Option<f64>>, Rank) {
    let given = || -> Vec<Option<f64>> {
        of.iter()
            .map(|at| retrieval.chunks.get(*at).and_then(|chunk| chunk.score))
            .collect()
    };
    if by == Rank::Given && given().iter().any(Option::is_some) {
        return (given(), Rank::Given);
    }
    let texts = texts(&retrieval.chunks, of);
    let mut ask = |by| {
        let ask = Ask {
            question: &retrieval.question,
            chunks: &texts,
            indices: of,
            message: retrieval.message,
            by,
            current: retrieval.current,
        };
        let scores = judge.scores(&ask).filter(|scores| scores.len() == of.len());
        scores.map(|scores| {
            scores
                .into_iter()
                .map(|score| Some(f64::from(score)))
                .collect::<Vec<_>>()
        })
    };
    let wanted = if by == Rank::Given { Rank::Bm25 } else { by };
    let (found, by) = match ask(wanted) {
        Some(found) => (found, wanted),
        None => (
            ask(Rank::Bm25).unwrap_or_else(|| vec![None; of.len()]),
            Rank::Bm25,
        ),
    };
    match by {
        // Where some have none, it is not known how these compare.
        Rank::Mix if given().iter().all(Option::is_some) => (fused(&[found, given()]), Rank::Mix),
        by => (found, by),
    }
}

/// Scores on scales that cannot be compared, made one by their ranks.
fn fused(lists: &[Vec<Option<f64>>]) -> Vec<Option<f64>> {
    let len = lists.first().map_or(0, Vec::len);
    let mut sums = vec![0.0; len];
    for scores in lists {
        let mut order: Vec<usize> = (0..len).collect();
        let score = |at: &usize| scores.get(*at).copied().flatten();
        order.sort_by(|one, other| descending(score(one), score(other)));
        let mut rank = 0;
        let mut last = None;
        for (place, at) in order.iter().enumerate() {
            // Equals share the better rank.
            if last != Some(score(at)) {
                (rank, last) = (place, Some(score(at)));
            }
            if let Some(sum) = sums.get_mut(*at) {
                *sum += 1.0 / (FUSION + 1.0 + rank as f64);
            }
        }
    }
    sums.into_iter().map(Some).collect()
}

/// The first of `ranked` that fit, up to K; one that is too long is passed over, except that the
/// best stays where none fits: a prompt without its context would be another question.
fn within(
    ranked: impl Iterator<Item = usize>,
    chunks: &[Chunk],
    policy: &Policy,
    judge: &mut dyn Judge,
) -> Vec<usize> {
    let mut kept = Vec::new();
    let mut best = None;
    let mut used = 0_u64;
    for at in ranked {
        if policy.top_k.is_some_and(|k| kept.len() >= k) {
            break;
        }
        best = best.or(Some(at));
        if let Some(limit) = policy.tokens {
            let text = chunks.get(at).map_or("", |chunk| chunk.text.as_str());
            let tokens = judge.tokens(text);
            if used.saturating_add(tokens) > limit {
                continue;
            }
            used += tokens;
        }
        kept.push(at);
    }
    if kept.is_empty() {
        kept.extend(best);
    }
    kept
}
