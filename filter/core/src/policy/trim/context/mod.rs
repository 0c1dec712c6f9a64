//! Retrieved chunks: where they stand in a prompt, which of them are sent.
//!
//! Chunks are found by [`Marker`]s in the texts of user and system messages, or given in the
//! request's own field [`FIELD`]. Those of one message are one retrieval: they are filtered by
//! their metadata, near-duplicates dropped, the rest ranked against what that message asks, the
//! best kept. A message of the past is so cut in the same way at every turn, by its own question
//! and not by the current one, and the conversation keeps its prefix.
//!
//! What no marker found is never touched; what is dropped goes with its marker and its separator;
//! every other byte of the body stays. Lists keep their numbers, so that `[3]` in an answer means
//! the same source as without trimming.

mod cut;
pub mod filter;
pub mod given;
pub mod markers;
mod metadata;
mod near;
mod question;
mod retrieval;
mod select;
mod sentences;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::ops::Range;
use std::rc::Rc;

use serde::Deserialize;

use self::cut::Pick;
use self::filter::Filter;
pub use self::given::FIELD;
use self::markers::Marker;
pub use self::metadata::{Metadata, Value};
pub use self::retrieval::Retrieval;
use super::splices::Splices;
use crate::formats::{Request, Role};

/// How chunks are chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// How they are found; of two that overlap the earlier counts.
    pub markers: Vec<Marker>,
    /// Most of one message.
    pub top_k: Option<usize>,
    /// Most tokens of the chunks of one message. The best one stays even where it has more.
    pub tokens: Option<u64>,
    /// Which may be used at all.
    pub filter: Option<Filter>,
    /// Jaccard index from which one is dropped as a copy of one before it.
    pub duplicates: Option<f64>,
    /// What tells which are better.
    pub rank: Rank,
    /// Score below which one is dropped; on the scale of what ranks. One without a score stays.
    pub min_score: Option<f64>,
    /// In which order those that stay stand.
    pub order: Order,
    /// Sentences that have nothing to do with the question are dropped from those that stay.
    pub extra: bool,
}

impl Policy {
    /// With no more tokens than `tokens`: what a template leaves room for.
    #[must_use]
    pub fn within(&self, tokens: Option<u64>) -> Policy {
        Policy {
            tokens: self.tokens.into_iter().chain(tokens).min(),
            ..self.clone()
        }
    }
}

/// What tells which chunks are better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rank {
    /// The score that they came with.
    Given,
    /// Words.
    Bm25,
    /// Meaning, as the sidecar's embeddings tell it; words where it does not.
    Embeddings,
    /// All of these that are known.
    #[default]
    Mix,
}

/// In which order chunks stand that stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// As they came.
    #[default]
    Original,
    /// The best first.
    Rank,
}

/// What is needed from outside to choose.
pub trait Judge {
    /// How relevant each chunk is, higher is more: by words, by the cosine of embeddings, or by all
    /// that is known of both (`by` is never [`Rank::Given`]). None where it cannot tell so:
    /// [`Rank::Bm25`] is then asked for.
    fn scores(&mut self, ask: &Ask<'_>) -> Option<Vec<f32>>;

    /// Tokens of a text.
    fn tokens(&mut self, text: &str) -> u64;
}

/// Chunks to be scored.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What is asked; empty where nothing is.
    pub question: &'a str,
    /// What the chunks say.
    pub chunks: &'a [&'a str],
    /// The index of each in [`Retrieval::chunks`]: some may have been dropped before.
    pub indices: &'a [usize],
    /// [`Retrieval::message`].
    pub message: u64,
    /// By what.
    pub by: Rank,
    /// It is the current question. What the sidecar knows of similarities is about this one only.
    pub current: bool,
}

/// A chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// What it says.
    pub text: String,
    /// The score that it came with.
    pub score: Option<f64>,
    /// What else is known about it.
    pub metadata: Metadata,
}

impl Chunk {
    fn new(text: String, metadata: Metadata) -> Chunk {
        let score = metadata.get("score").and_then(Value::number);
        Chunk {
            text,
            score,
            metadata,
        }
    }
}

/// The chunks of a message that were kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// [`Retrieval::message`].
    pub message: u64,
    /// How many there were.
    pub of: usize,
    /// Their indices, in the order in which they stand.
    pub kept: Vec<usize>,
}

/// What to send.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chosen {
    /// Changes to the body. The field [`FIELD`] is taken out by them.
    pub edits: Splices,
    /// The chunks of the field, rendered; None where there is no such field.
    pub given: Option<String>,
    /// What was kept, message by message; for the log, and to be shown again at the next turn.
    pub selections: Vec<Selection>,
}

/// All chunks of a request.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    body: &'a str,
    /// In the order of the prompt, system first; what was given in the field comes last.
    pub retrievals: Vec<Retrieval<'a>>,
    /// Where the field stands.
    field: Vec<Range<usize>>,
}

impl<'a> Found<'a> {
    /// Finds the chunks of a request of an API that generates. Without a policy only the field is
    /// looked at.
    ///
    /// # Errors
    /// [`given::Unreadable`] where the field is not what it should be.
    pub fn of(
        request: &Request<'a>,
        policy: Option<&Policy>,
    ) -> Result<Found<'a>, given::Unreadable> {
        let mut retrievals = Vec::new();
        let markers = policy.map_or(&[][..], |policy| &policy.markers);
        let last = request
            .messages
            .iter()
            .rposition(|message| message.role == Role::User);
        // Asked for by many, read once.
        let current: OnceCell<Rc<str>> = OnceCell::new();
        let asked = || last.map_or_else(String::new, |at| retrieval::asked(request, markers, at));
        let current = || -> Rc<str> { current.get_or_init(|| asked().into()).clone() };
        let asked_at = |at: usize, own: String| match retrieval::next_user(request, at) {
            _ if !own.is_empty() => (own.into(), Some(at) == last),
            Some(next) if Some(next) == last => (current(), true),
            Some(next) => (retrieval::asked(request, markers, next).into(), false),
            None => (own.into(), Some(at) == last),
        };
        if !markers.is_empty() {
            for content in &request.system {
                retrievals.extend(Retrieval::of(content, markers, |_| (current(), true)));
            }
            for (at, message) in request.messages.iter().enumerate() {
                if message.role == Role::User {
                    let asked = |own| asked_at(at, own);
                    retrievals.extend(Retrieval::of(&message.content, markers, asked));
                }
            }
        }
        let mut field = Vec::new();
        if let Some(raw) = request.fields.get(FIELD) {
            field = given::places(request);
            retrievals.push(Retrieval {
                message: retrieval::key(raw),
                current: true,
                question: current(),
                chunks: given::chunks(raw)?,
                texts: Vec::new(),
            });
        }
        Ok(Found {
            body: request.body,
            retrievals,
            field,
        })
    }

    /// Chooses by the policy. `earlier`: what was kept of this conversation's messages before;
    /// a message of the past is cut as it was then.
    pub fn choose(&self, policy: &Policy, judge: &mut dyn Judge, earlier: &[Selection]) -> Chosen {
        let mut chosen = self.without_field();
        for retrieval in &self.retrievals {
            let known = earlier
                .iter()
                .find(|one| !retrieval.current && one.is_of(retrieval));
            let ranked = match known {
                Some(known) => known.kept.clone(),
                None => select::select(retrieval, policy, judge),
            };
            let pick = Pick::new(ranked, retrieval, policy);
            if retrieval.texts.is_empty() {
                chosen.given = Some(given::render(retrieval, &pick));
            } else if pick.saves(retrieval) {
                for text in &retrieval.texts {
                    text.edit(self.body, &pick, &mut chosen.edits);
                }
            }
            chosen.selections.push(Selection {
                message: retrieval.message,
                of: retrieval.chunks.len(),
                kept: pick.ranked,
            });
        }
        chosen
    }

    /// Keeps everything: what is sent where nothing may be trimmed. The field is taken out and its
    /// chunks rendered all the same, because no provider knows it.
    #[must_use]
    pub fn whole(&self) -> Chosen {
        let mut chosen = self.without_field();
        let given = self.given();
        chosen.given = given.map(|retrieval| given::render(retrieval, &Pick::all(retrieval)));
        chosen
    }

    /// So many of the field's chunks, the longest by `len`, rendered: whichever are chosen have no
    /// more to say than these. None where it has no more than that.
    #[must_use]
    pub fn longest(&self, most: usize, len: &dyn Fn(&str) -> u64) -> Option<String> {
        let given = self.given().filter(|it| it.chunks.len() > most)?;
        let mut pick = Pick::all(given);
        let len = |at: &usize| given.chunks.get(*at).map(|chunk| len(&chunk.text));
        pick.ranked.sort_by_cached_key(|at| Reverse(len(at)));
        pick.ranked.truncate(most);
        Some(given::render(given, &pick))
    }

    /// The chunks of the field.
    fn given(&self) -> Option<&Retrieval<'a>> {
        self.retrievals
            .iter()
            .find(|retrieval| retrieval.texts.is_empty())
    }

    fn without_field(&self) -> Chosen {
        let mut chosen = Chosen::default();
        chosen.edits.cut(self.field.iter().cloned());
        chosen
    }
}

impl Selection {
    fn is_of(&self, retrieval: &Retrieval<'_>) -> bool {
        self.message == retrieval.message
            && self.of == retrieval.chunks.len()
            && self.kept.iter().all(|at| *at < self.of)
    }
}
