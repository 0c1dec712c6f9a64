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

pub mod filter;
pub mod given;
pub mod markers;
mod metadata;
mod near;
mod question;
mod select;
mod sentences;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;

use self::filter::Filter;
pub use self::given::FIELD;
use self::markers::{Group, MAX_CHUNKS, Marker};
pub use self::metadata::{Metadata, Value};
use super::splices::{Splices, cuts, span};
use super::spoken::texts as texts_of;
use crate::formats::{Content, Request, Role};
use crate::json::{JsonStr, Offsets};

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
    /// How relevant each chunk is, higher is more. `by` is never [`Rank::Given`]; None where it
    /// cannot tell so: [`Rank::Bm25`] is then asked for.
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

/// The chunks of one message, or of the request's own field.
#[derive(Clone, Debug)]
pub struct Retrieval<'a> {
    /// Names the message by its bytes.
    pub message: u64,
    /// It is what the current turn is about.
    pub current: bool,
    /// What is asked.
    pub question: String,
    /// In the order of the text.
    pub chunks: Vec<Chunk>,
    /// Where they stand; nowhere, where they were given.
    texts: Vec<Text<'a>>,
}

/// A text with chunks in it.
#[derive(Clone, Debug)]
struct Text<'a> {
    string: JsonStr<'a>,
    text: Cow<'a, str>,
    groups: Vec<Group>,
    /// Index of its first chunk in the retrieval.
    first: usize,
}

/// The chunks of a message that were kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// [`Retrieval::message`].
    pub message: u64,
    /// How many there were.
    pub of: usize,
    /// Their indices, in order.
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
        if !markers.is_empty() {
            for content in &request.system {
                let asked = || last.and_then(|at| asked_from(request, markers, at));
                retrievals.extend(Retrieval::of(content, markers, || {
                    (asked().unwrap_or_default(), true)
                }));
            }
            for (at, message) in request.messages.iter().enumerate() {
                if message.role == Role::User {
                    let asked = || asks(request, markers, (at, last));
                    retrievals.extend(Retrieval::of(&message.content, markers, asked));
                }
            }
        }
        let mut field = Vec::new();
        if let Some(raw) = request.fields.get(FIELD) {
            field = given::places(request);
            let question = last.and_then(|at| asked_from(request, markers, at));
            retrievals.push(Retrieval {
                message: key(raw),
                current: true,
                question: question.unwrap_or_default(),
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
                kept: pick.kept(),
            });
        }
        chosen
    }

    /// Keeps everything: what is sent where nothing may be trimmed. The field is taken out and its
    /// chunks rendered all the same, because no provider knows it.
    #[must_use]
    pub fn whole(&self) -> Chosen {
        let mut chosen = self.without_field();
        let given = self
            .retrievals
            .iter()
            .find(|retrieval| retrieval.texts.is_empty());
        chosen.given = given.map(|retrieval| given::render(retrieval, &Pick::all(retrieval)));
        chosen
    }

    fn without_field(&self) -> Chosen {
        let mut chosen = Chosen::default();
        for place in &self.field {
            chosen.edits.replace(place.clone(), "");
        }
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

impl<'a> Retrieval<'a> {
    /// The chunks of a content, where it has any; `asked`: the question, and whether it is the
    /// current one.
    fn of(
        content: &Content<'a>,
        markers: &[Marker],
        asked: impl FnOnce() -> (String, bool),
    ) -> Option<Retrieval<'a>> {
        let mut chunks = Vec::new();
        let mut texts = Vec::new();
        for string in texts_of(content) {
            let text = string.text();
            let mut groups = markers::find(markers, &text);
            let first = chunks.len();
            for block in groups.iter_mut().flat_map(|group| &mut group.blocks) {
                let says = match &block.inner {
                    Some(inner) => text.get(inner.clone()).unwrap_or("").to_owned(),
                    None => std::mem::take(&mut block.text),
                };
                chunks.push(Chunk::new(says, std::mem::take(&mut block.metadata)));
            }
            if !groups.is_empty() {
                texts.push(Text {
                    string,
                    text,
                    groups,
                    first,
                });
            }
        }
        if chunks.is_empty() || chunks.len() > MAX_CHUNKS {
            return None;
        }
        let (question, current) = asked();
        Some(Retrieval {
            message: key(content.raw),
            current,
            question,
            chunks,
            texts,
        })
    }
}

/// What the message at `at` asks; where it only brings chunks, what the next user message asks. And
/// whether that is `last`, the current one.
fn asks(
    request: &Request<'_>,
    markers: &[Marker],
    (at, last): (usize, Option<usize>),
) -> (String, bool) {
    let users = request
        .messages
        .iter()
        .enumerate()
        .skip(at)
        .filter(|(_, message)| message.role == Role::User);
    for (at, _) in users.take(2) {
        if let Some(question) = asked_from(request, markers, at) {
            return (question, Some(at) == last);
        }
    }
    (String::new(), Some(at) == last)
}

/// What the message at `at` asks itself.
fn asked_from(request: &Request<'_>, markers: &[Marker], at: usize) -> Option<String> {
    let message = request.messages.get(at)?;
    let mut asked = String::new();
    for string in texts_of(&message.content) {
        let text = string.text();
        let groups = markers::find(markers, &text);
        let ends = groups.first().zip(groups.last());
        let chunks = ends.map(|(first, last)| first.extent().start..last.extent().end);
        let found = question::question(&text, chunks);
        if !asked.is_empty() && !found.is_empty() {
            asked.push('\n');
        }
        asked.push_str(&found);
    }
    Some(asked).filter(|asked| !asked.trim().is_empty())
}

fn key(raw: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(raw.as_bytes())
}

/// Which chunks of a retrieval stay, in which order, and what of them goes.
struct Pick {
    /// In the order in which they are to stand.
    ranked: Vec<usize>,
    stays: Vec<bool>,
    /// They stand in the order of `ranked`.
    reorder: bool,
    /// Parts of each chunk's text that go.
    extra: Vec<Vec<Range<usize>>>,
}

impl Pick {
    fn new(ranked: Vec<usize>, retrieval: &Retrieval<'_>, policy: &Policy) -> Pick {
        let mut pick = Pick {
            reorder: policy.order == Order::Rank,
            ..Pick::all(retrieval)
        };
        pick.stays = vec![false; retrieval.chunks.len()];
        for &at in &ranked {
            if let Some(stays) = pick.stays.get_mut(at) {
                *stays = true;
            }
        }
        if policy.extra {
            let one = |(chunk, stays): (&Chunk, &bool)| match stays {
                true => sentences::extra(&chunk.text, &retrieval.question),
                false => Vec::new(),
            };
            pick.extra = retrieval.chunks.iter().zip(&pick.stays).map(one).collect();
        }
        pick.ranked = ranked;
        if !pick.reorder {
            pick.ranked.sort_unstable();
        }
        pick
    }

    fn all(retrieval: &Retrieval<'_>) -> Pick {
        let chunks = retrieval.chunks.len();
        Pick {
            ranked: (0..chunks).collect(),
            stays: vec![true; chunks],
            reorder: false,
            extra: vec![Vec::new(); chunks],
        }
    }

    fn kept(&self) -> Vec<usize> {
        let mut kept = self.ranked.clone();
        kept.sort_unstable();
        kept
    }

    /// Whether anything goes. A new order alone saves nothing, and voids what a provider has
    /// cached.
    fn saves(&self, retrieval: &Retrieval<'_>) -> bool {
        self.ranked.len() < retrieval.chunks.len()
            || self.extra.iter().any(|ranges| !ranges.is_empty())
    }

    fn extra(&self, chunk: usize) -> &[Range<usize>] {
        self.extra.get(chunk).map_or(&[], Vec::as_slice)
    }
}

/// A change to a text, in places of the text.
enum Change {
    Cut(Range<usize>),
    /// What stands there becomes what stands at the second range, less the third.
    Move(Range<usize>, Range<usize>, Vec<Range<usize>>),
}

impl Text<'_> {
    /// Adds the edits of the body that leave the kept chunks.
    fn edit(&self, body: &str, pick: &Pick, edits: &mut Splices) {
        let mut changes = Vec::new();
        let mut first = self.first;
        for group in &self.groups {
            self.changes(group, first, pick, &mut changes);
            first += group.blocks.len();
        }
        let mut places: Vec<usize> = Vec::new();
        for change in &changes {
            let ranges: Vec<&Range<usize>> = match change {
                Change::Cut(at) => vec![at],
                Change::Move(to, from, less) => [to, from].into_iter().chain(less).collect(),
            };
            places.extend(
                ranges
                    .into_iter()
                    .flat_map(|range| [range.start, range.end]),
            );
        }
        places.sort_unstable();
        places.dedup();
        let offsets = Offsets::of(self.string, &places);
        let escaped = self.string.escaped();
        let Some(place) = span(body, escaped) else {
            return;
        };
        let map = |range: &Range<usize>| offsets.get(range.start)..offsets.get(range.end);
        let within = |range: Range<usize>| place.start + range.start..place.start + range.end;
        for change in changes {
            match change {
                Change::Cut(at) => edits.replace(within(map(&at)), ""),
                Change::Move(to, from, less) => {
                    let less: Vec<_> = less.iter().map(map).collect();
                    edits.replace(within(map(&to)), without(escaped, map(&from), &less));
                }
            }
        }
    }

    /// What changes in a group, whose chunks are numbered from `first`.
    fn changes(&self, group: &Group, first: usize, pick: &Pick, changes: &mut Vec<Change>) {
        let numbers = first..first + group.blocks.len();
        let wholes: Vec<Range<usize>> = group
            .blocks
            .iter()
            .map(|block| block.whole.clone())
            .collect();
        let stays: Vec<bool> = pick.stays.get(numbers.clone()).unwrap_or(&[]).to_vec();
        let mut gone = cuts(&wholes, &stays);
        if !group.enclosed && !stays.contains(&true) {
            gone = gone.into_iter().map(|cut| self.with_line(cut)).collect();
        }
        changes.extend(gone.into_iter().map(Change::Cut));
        // Which chunk stands in the place of which.
        let ranked = pick
            .ranked
            .iter()
            .copied()
            .filter(|at| numbers.contains(at));
        for (slot, number) in numbers
            .clone()
            .filter(|at| pick.stays.get(*at) == Some(&true))
            .zip(ranked)
        {
            let (Some(to), Some(from)) = (
                group.blocks.get(slot - first),
                group.blocks.get(number - first),
            ) else {
                continue;
            };
            // What is escaped in the text (JSON) is never cut inside.
            let start = from.inner.as_ref().map_or(0, |inner| inner.start);
            let less = pick.extra(number).iter().filter(|_| from.inner.is_some());
            let less = less.map(|range| start + range.start..start + range.end);
            if slot == number {
                changes.extend(less.map(Change::Cut));
            } else {
                changes.push(Change::Move(
                    to.whole.clone(),
                    from.whole.clone(),
                    less.collect(),
                ));
            }
        }
    }

    /// A cut of whole lines takes the end of the last line with it.
    fn with_line(&self, cut: Range<usize>) -> Range<usize> {
        let before = self.text.get(..cut.start).unwrap_or("");
        let behind = self.text.get(cut.end..).unwrap_or("");
        let rest = behind.trim_start_matches([' ', '\t', '\r']);
        match rest.strip_prefix('\n') {
            Some(next) if before.is_empty() || before.ends_with('\n') => {
                cut.start..self.text.len() - next.len()
            }
            _ => cut,
        }
    }
}

/// The `range` of `text` without the ranges `less` in it, which are in order.
fn without(text: &str, range: Range<usize>, less: &[Range<usize>]) -> String {
    let mut out = String::with_capacity(range.len());
    let mut from = range.start;
    for cut in less {
        out.push_str(text.get(from..cut.start).unwrap_or(""));
        from = cut.end;
    }
    out.push_str(text.get(from..range.end).unwrap_or(""));
    out
}
