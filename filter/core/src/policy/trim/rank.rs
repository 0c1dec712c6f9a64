//! How much each past exchange, or each retrieved chunk, has to do with the question.
//!
//! Words count by BM25 (Robertson, Zaragoza: "The Probabilistic Relevance Framework: BM25 and
//! Beyond", Foundations and Trends in Information Retrieval 3(4), 2009), held against the texts at
//! hand; meaning by the cosine of embeddings, where it is known.

mod likeness;
#[cfg(test)]
mod tests;

use self::likeness::Likeness;
use super::terms::{Kind, Terms};

/// Saturation of repeated words and share of the length normalisation: the middle of the ranges
/// that Robertson and Zaragoza found good (1.2 to 2, 0.5 to 0.8).
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// What likeness to the exchange before counts beside the question where that points back, and to
/// the one before that: enough to find what both are about, not to drown the question.
const CARRIED: [f32; 2] = [0.5, 0.2];
/// A question of so few words says too little alone.
const FEW_WORDS: u32 = 1;
/// From so many words on a pronoun's meaning mostly stands in the question itself.
const MANY_WORDS: u32 = 5;

/// What a text gains of the score of one beside it: an answer follows its question, and a topic
/// lasts. It falls to an e-th over so many words (function words not counted) between the middles of
/// both, and nothing is gained from texts that are farther than the reach.
const BESIDE: f32 = 0.8;
/// The same of meaning: an embedding takes in the whole of a text, and what is beside a text of like
/// meaning is seldom as near.
const MEANING_BESIDE: f32 = 0.15;
const TOPIC_WORDS: f32 = 50.0;
const REACH: usize = 4;

/// What the newest exchange gains over the oldest: enough to choose among those that nothing else
/// tells apart.
const RECENCY: f32 = 0.005;

/// What the cosine of embeddings counts beside the words: in a conversation, where it tells less
/// (exchanges are short, and much is said of little), and among chunks.
const MEANING_OF_PAST: f32 = 0.45;
const MEANING_OF_CHUNKS: f32 = 1.0;

/// Chunks that come from one source answer one question ("closely associated documents tend to be
/// relevant to the same requests", van Rijsbergen, "Information Retrieval", 1979, chapter 3), though
/// only some of them have its words: each gains so much of its likeness to the best of so many.
const BEST: usize = 3;
const LIKE_THE_BEST: f32 = 2.5;

/// A text that is held against the question.
#[derive(Clone, Copy, Debug)]
pub struct Passage<'a> {
    /// What it is about.
    pub terms: &'a Terms,
    /// Cosine of its embedding and the question's, if known.
    pub similarity: Option<f32>,
}

/// Scores of a conversation's past exchanges, oldest first; higher has more to do with `question`.
///
/// They are finite, and comparable within one call only.
#[must_use]
pub fn conversation(question: &Terms, past: &[Passage<'_>]) -> Vec<f32> {
    let mut scores = with_neighbours(&words(question, past), past, BESIDE);
    if leans_back(question) {
        for (before, share) in past.iter().rev().zip(CARRIED) {
            let carried = words(before.terms, past);
            for (score, carried) in scores.iter_mut().zip(carried) {
                *score += share * carried;
            }
        }
    }
    if past.iter().any(|text| finite(text.similarity).is_some()) {
        let meaning = with_neighbours(&meaning(past), past, MEANING_BESIDE);
        scores = mixed(&scores, &meaning, MEANING_OF_PAST);
    }
    let newest = past.len().max(1) as f32;
    for (at, score) in scores.iter_mut().enumerate() {
        *score += RECENCY * at as f32 / newest;
    }
    scores
}

/// Scores of retrieved chunks; higher has more to do with `question`.
///
/// They are finite, and comparable within one call only.
#[must_use]
pub fn chunks(question: &Terms, chunks: &[Passage<'_>]) -> Vec<f32> {
    let mut scores = mixed(
        &words(question, chunks),
        &meaning(chunks),
        MEANING_OF_CHUNKS,
    );
    let mut best_first: Vec<usize> = (0..scores.len()).collect();
    best_first.sort_by(|&one, &other| by_score(&scores, other, one));
    let likeness = Likeness::among(chunks);
    let best = best_first.first().map_or(0.0, |&at| score(&scores, at));
    let mut gains = vec![0.0_f32; scores.len()];
    for &near in best_first.iter().take(BEST) {
        // What is second best by far says little of the source.
        let certain = (score(&scores, near).max(0.0) / best.max(f32::EPSILON)).powi(2);
        for (at, gain) in gains.iter_mut().enumerate().filter(|(at, _)| *at != near) {
            *gain = gain.max(certain * likeness.of(near, at));
        }
    }
    for (score, gain) in scores.iter_mut().zip(gains) {
        *score += LIKE_THE_BEST * gain;
    }
    scores
}

fn score(scores: &[f32], at: usize) -> f32 {
    scores.get(at).copied().unwrap_or(0.0)
}

fn by_score(scores: &[f32], one: usize, other: usize) -> std::cmp::Ordering {
    score(scores, one).total_cmp(&score(scores, other))
}

/// Whether a question is about something said before it: it is very short, or it is short, has a
/// pronoun and names nothing.
fn leans_back(question: &Terms) -> bool {
    let names = question.terms.iter().any(|term| term.kind == Kind::Name);
    question.length <= FEW_WORDS || question.points_back && question.length <= MANY_WORDS && !names
}

/// BM25 of each text, as a share of what a text could have at most.
///
/// Terms count as much as they are rare: names and numbers mostly are. To count them more than that
/// made no ranking better, and that of conversations worse, in which people call each other by name.
fn words(question: &Terms, texts: &[Passage<'_>]) -> Vec<f32> {
    // By text, in the order of the question's terms: which of them it has, and how often.
    let mut found: Vec<(u32, u16)> = Vec::with_capacity(texts.len() * 8);
    let mut ends = Vec::with_capacity(texts.len());
    for text in texts {
        shared(question, text.terms, &mut found);
        ends.push(found.len());
    }
    let mut with = vec![0_u32; question.terms.len()];
    for (term, _) in &found {
        if let Some(with) = with.get_mut(*term as usize) {
            *with += 1;
        }
    }
    let rare = with.iter().map(|&with| {
        let (with, without) = (with as f32, texts.len() as f32 - with as f32);
        (1.0 + (without + 0.5) / (with + 0.5)).ln()
    });
    let rare: Vec<f32> = rare.collect();
    let most: f32 = rare.iter().sum();
    let most = if most > 0.0 { most } else { 1.0 };
    let length: u64 = texts.iter().map(|text| u64::from(text.terms.length)).sum();
    let average = (length as f32 / texts.len().max(1) as f32).max(1.0);
    let mut start = 0;
    let scores = texts.iter().zip(ends).map(|(text, end)| {
        let own = found.get(start..end).unwrap_or_default();
        start = end;
        let long = 1.0 - B + B * text.terms.length as f32 / average;
        let score = own.iter().fold(0.0, |score, (term, count)| {
            let rare = rare.get(*term as usize).unwrap_or(&0.0);
            let count = f32::from(*count);
            // Without the usual K1 + 1, so that it is less than 1.
            score + rare * count / (count + K1 * long)
        });
        score / most
    });
    scores.collect()
}

/// Terms of the question that a text has: their place in the question and their count in the text.
/// As many looks as the shorter of the two has terms.
fn shared(question: &Terms, text: &Terms, found: &mut Vec<(u32, u16)>) {
    if question.terms.len() <= text.terms.len() {
        for (at, term) in (0..).zip(&question.terms) {
            let other = text.place(term.hash).and_then(|at| text.terms.get(at));
            found.extend(other.map(|other| (at, other.count)));
        }
    } else {
        for term in &text.terms {
            let at = question.place(term.hash);
            let at = at.and_then(|at| u32::try_from(at).ok());
            found.extend(at.map(|at| (at, term.count)));
        }
    }
}

/// Each text's score with what it gains from those beside it.
fn with_neighbours(own: &[f32], texts: &[Passage<'_>], gain: f32) -> Vec<f32> {
    let mut scores = own.to_vec();
    // What is left of a gain after half of each text: over several, their product.
    let half = |text: &Passage<'_>| (text.terms.length as f32 / -2.0 / TOPIC_WORDS).exp();
    let halves: Vec<f32> = texts.iter().map(half).collect();
    let left_after_half = |at: usize| halves.get(at).copied().unwrap_or(1.0);
    for (at, score) in own.iter().enumerate() {
        let mut left = gain * left_after_half(at);
        for beside in at + 1..(at + 1 + REACH).min(own.len()) {
            let half = left_after_half(beside);
            let gain = left * half;
            left = gain * half;
            let (other, gained) = (own.get(beside).copied().unwrap_or(0.0), gain * score);
            if let Some(one) = scores.get_mut(at) {
                *one += gain * other;
            }
            if let Some(other) = scores.get_mut(beside) {
                *other += gained;
            }
        }
    }
    scores
}

/// Cosines of the texts' embeddings and the question's. One that is unknown is taken for an average
/// one.
fn meaning(texts: &[Passage<'_>]) -> Vec<f32> {
    let known = || texts.iter().filter_map(|text| finite(text.similarity));
    let average = known().sum::<f32>() / known().count().max(1) as f32;
    let of = |text: &Passage<'_>| finite(text.similarity).unwrap_or(average);
    texts.iter().map(of).collect()
}

fn mixed(words: &[f32], meaning: &[f32], weight: f32) -> Vec<f32> {
    let both = words.iter().zip(meaning);
    both.map(|(words, meaning)| words + weight * meaning)
        .collect()
}

/// A similarity that is one: what comes over a network need not be.
fn finite(similarity: Option<f32>) -> Option<f32> {
    let finite = similarity.filter(|similarity| similarity.is_finite());
    finite.map(|similarity| similarity.clamp(-1.0, 1.0))
}
