//! The texts of a request before any message is left out: its chunks, its system prompt.

use std::rc::Rc;

use sluice_wire::Similarity;
use xxhash_rust::xxh3::xxh3_128;

use super::count::{Counted, shorter};
use super::meaning::{current, similarity};
use super::state::State;
use super::{Fault, Job, Memories, parsed};
use crate::formats::{Part, Request};
use crate::policy::trim::context::{self, Chosen, Found, Judge, Rank, Selection};
use crate::policy::trim::rank::{self, Passage};
use crate::policy::trim::splices::Splices;
use crate::policy::trim::system::{self, Measures};
use crate::policy::trim::terms::Terms;

/// What is made of the texts of a request before any message is left out, step by step: each counts
/// again what it left, and is undone where that is no less.
#[derive(Default)]
pub(super) struct Steps {
    /// The body so far; None: nothing has changed.
    pub(super) body: Option<String>,
    /// Chunks for the template.
    pub(super) given: Option<String>,
    pub(super) selections: Vec<Selection>,
    /// The cap took text out of the system prompt.
    pub(super) system_cut: bool,
}

impl Steps {
    /// Chooses chunks.
    pub(super) fn chunks(
        &mut self,
        (job, found, state): (&Job<'_>, &Found<'_>, &Option<State>),
        (before, pins, similarities): (&Counted<'_, '_>, &Splices, &[Similarity]),
        memories: &mut Memories<'_>,
    ) -> Result<(), Fault> {
        let Some(policy) = &job.policy.context else {
            return Ok(());
        };
        if found.retrievals.is_empty() {
            return Ok(());
        }
        let earlier = state.as_ref().map(State::selections).unwrap_or_default();
        let mut judge = Chunks {
            job,
            memories,
            similarities,
            chunks: current(found).map_or(0, |one| one.chunks.len()),
        };
        let room = job.template.and_then(|template| template.limits.context);
        let chosen = found.choose(&policy.within(room), &mut judge, &earlier);
        self.selections.clone_from(&chosen.selections);
        let (body, given) = placed(job, pins, chosen)?;
        // Those for the template are not in the body, where they could be counted.
        if given.is_some() || shorter(job, body.as_deref(), before, memories) {
            (self.body, self.given) = (body, given);
        }
        Ok(())
    }

    /// Shortens the system prompt.
    pub(super) fn system(
        &mut self,
        job: &Job<'_>,
        (client, question): (&Request<'_>, Option<&str>),
        memories: &mut Memories<'_>,
    ) {
        let Some(policy) = &job.policy.system else {
            return;
        };
        let chunked = self.body.take();
        let request = parsed(job.format, chunked.as_deref());
        let before = request.as_ref().unwrap_or(client);
        let asked = match question {
            Some(question) => question.to_owned(),
            None => before.last_user().iter().filter_map(text_of).collect(),
        };
        let question = Terms::of(&asked);
        let scores = |texts: &[&str]| {
            let terms: Vec<Terms> = texts.iter().map(|text| Terms::of(text)).collect();
            let passages = terms.iter().map(|terms| Passage {
                terms,
                similarity: None,
            });
            rank::chunks(&question, &passages.collect::<Vec<_>>())
        };
        let tokens = &*memories.tokens;
        let measures = Measures {
            count: &|text| job.tokens_of(text, tokens),
            scores: Some(&scores),
        };
        let shortened = system::shorten(before, job.format, policy, measures);
        let body = (!shortened.splices.is_empty()).then(|| shortened.splices.apply(before.body));
        let is_shorter = body.is_some() && {
            let before = Counted::of(job, before, memories);
            shorter(job, body.as_deref(), &before, memories)
        };
        self.system_cut = is_shorter && shortened.cut;
        self.body = body.filter(|_| is_shorter).or(chunked);
    }
}

/// The text of a part.
fn text_of(part: &Part<'_>) -> Option<String> {
    match part {
        Part::Text(text) => Some(text.text().into_owned()),
        _ => None,
    }
}

/// The body with the chunks that were chosen: those that came in the field stand in the prompt, and
/// what upstream does not know is gone, the `pins` too. None where nothing changes. A template has a place of its own
/// for such chunks: they come apart then.
pub(super) fn placed(
    job: &Job<'_>,
    pins: &Splices,
    chosen: Chosen,
) -> Result<(Option<String>, Option<String>), Fault> {
    let mut edits = chosen.edits;
    edits.extend(pins.clone());
    let apart = match chosen.given {
        Some(given) if job.template.is_none() => {
            edits.extend(context::given::place(job.request, job.format, &given)?);
            None
        }
        given => given,
    };
    let body = (!edits.is_empty()).then(|| edits.apply(job.request.body));
    Ok((body, apart))
}

/// Scores chunks.
struct Chunks<'j, 'm, 't> {
    job: &'j Job<'j>,
    memories: &'m mut Memories<'t>,
    similarities: &'j [Similarity],
    /// How many the current question has.
    chunks: usize,
}

impl Judge for Chunks<'_, '_, '_> {
    fn scores(&mut self, ask: &context::Ask<'_>) -> Option<Vec<f32>> {
        let known = if ask.current { self.similarities } else { &[] };
        let is_known = known.iter().any(|one| one.cosine().is_some());
        if ask.by == Rank::Embeddings && !is_known {
            return None;
        }
        let mut read = |text: &str| {
            let key = self.memories.tokens.own(xxh3_128(text.as_bytes()));
            self.memories.terms.get(key, || Terms::of(text))
        };
        let question = read(ask.question);
        let terms: Vec<Rc<Terms>> = ask.chunks.iter().map(|text| read(text)).collect();
        let passages = terms.iter().zip(ask.indices).map(|(terms, at)| Passage {
            terms,
            similarity: match ask.by {
                Rank::Bm25 => None,
                _ => similarity(known, *at, self.chunks),
            },
        });
        Some(rank::chunks(&question, &passages.collect::<Vec<_>>()))
    }

    fn tokens(&mut self, text: &str) -> u64 {
        self.job.tokens_of(text, self.memories.tokens)
    }
}
