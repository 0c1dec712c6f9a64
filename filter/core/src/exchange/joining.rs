//! Answers to embedding requests: their vectors, to be stored, and one answer of what was known and
//! what upstream says of the rest.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;
use sluice_wire::{Outcome, limit};

use super::facts::Facts;
use super::inputs::{Inputs, Known, piece};
use super::{Effect, Effects, Exchange, Label, Phase, Vm};
use crate::formats::batch::{List, NoList, Piece};
use crate::formats::{ApiError, ErrorKind};
use crate::policy::joins::Joins;

/// Longest name of a model that is kept with its vectors, bytes: each of them has it.
const LONGEST_MODEL: usize = 256;

/// Vectors to store.
#[derive(Debug)]
pub(super) struct Fresh {
    /// What upstream calls its model.
    pub(super) model: String,
    /// Bytes of each.
    pub(super) len: u32,
    /// Prompt tokens of each input.
    pub(super) tokens: Vec<u32>,
    /// Key, vector, key, vector, …
    pub(super) bytes: Vec<u8>,
}

/// Why an answer could not be joined with what was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unjoined {
    /// It is no list of vectors that is read here.
    Unreadable,
    /// Longer than an answer that is held.
    TooLong,
    /// Another number of vectors than was asked for.
    Count,
    /// Another model, or another revision of it: its vectors cannot stand beside those.
    Revision,
}

impl Unjoined {
    fn name(self) -> &'static str {
        match self {
            Unjoined::Unreadable => "unreadable",
            Unjoined::TooLong => "too_long",
            Unjoined::Count => "count",
            Unjoined::Revision => "revision",
        }
    }
}

impl From<NoList> for Unjoined {
    fn from(reason: NoList) -> Self {
        match reason {
            NoList::Unreadable => Unjoined::Unreadable,
            NoList::Count => Unjoined::Count,
        }
    }
}

impl Facts {
    /// Whether upstream was asked for a part, so that its answer is one.
    pub(super) fn in_part(&self) -> bool {
        self.inputs.as_ref().is_some_and(|it| it.known.is_some())
    }

    /// The upstream that it has its vectors from, by what is known of it: host, path, model. A query
    /// string is the client's, and tells no upstream from another.
    pub(super) fn embeds_at(&self) -> u64 {
        let path = self.headers.get(":path").unwrap_or_default();
        let path = path.split('?').next();
        let mut hasher = FxHasher::default();
        (self.headers.get(":authority"), path, self.model()).hash(&mut hasher);
        hasher.finish()
    }

    /// Takes the vectors of a whole answer, to be stored; says whether it did.
    pub(super) fn take_vectors(&mut self, plain: &[u8], joins: &mut Joins) -> bool {
        let Some(inputs) = self.inputs.take() else {
            return false;
        };
        let fresh = List::read(plain, inputs.places.len())
            .ok()
            .and_then(|list| self.fresh(&inputs, &list, &inputs.places));
        let (upstream, several) = (self.embeds_at(), inputs.places.len() > 1);
        match &fresh {
            Some(fresh) => joins.read(upstream, (&fresh.model, several), self.at_ns),
            None => joins.unread(upstream),
        }
        self.inputs = Some(inputs);
        self.fresh = fresh;
        self.fresh.is_some()
    }

    /// Prompt tokens of what upstream was asked for: its own count, or ours.
    fn prompt(&self) -> u64 {
        self.usage
            .map_or(self.expected.prompt, |usage| usage.prompt)
    }

    /// The vectors of `list`, which are those of `places`.
    fn fresh(&self, inputs: &Inputs, list: &List<'_>, places: &[u16]) -> Option<Fresh> {
        let keys = &self.option()?.inputs;
        let (vectors, len) = list.vectors(inputs.form.dtype)?;
        let tokens = inputs.tokens(places, self.prompt());
        let most = limit::VECTORS / (len + limit::KEY);
        let model = list.model().unwrap_or_default();
        (model.len() <= LONGEST_MODEL).then_some(())?;
        let mut fresh = Fresh {
            model: model.into_owned(),
            len: u32::try_from(len).ok()?,
            tokens: Vec::new(),
            bytes: Vec::new(),
        };
        let mut stored = vec![false; keys.len()];
        for ((number, tokens), vector) in places.iter().zip(tokens).zip(vectors.chunks_exact(len)) {
            let before = stored.get_mut(usize::from(*number))?;
            if !std::mem::replace(before, true) && fresh.tokens.len() < most {
                fresh.tokens.push(tokens);
                fresh
                    .bytes
                    .extend_from_slice(keys.get(usize::from(*number))?);
                fresh.bytes.extend_from_slice(vector);
            }
        }
        (!fresh.tokens.is_empty()).then_some(fresh)
    }

    /// One answer of what was known and what upstream says, whose usage was read.
    fn join(&mut self, plain: &[u8]) -> Result<String, Unjoined> {
        let Some(mut inputs) = self.inputs.take() else {
            return Err(Unjoined::Unreadable);
        };
        let places = inputs.missing();
        let Some(Known { vectors, bytes }) = inputs.known.take() else {
            return Err(Unjoined::Unreadable);
        };
        let list = List::read(plain, places.len())?;
        // Kept whatever follows: they are right by themselves, and the newest revision wins.
        self.fresh = self.fresh(&inputs, &list, &places);
        let numbers = vectors.len as usize / inputs.form.dtype.size();
        match &self.fresh {
            None if list.model().unwrap_or_default() != vectors.model => {
                return Err(Unjoined::Revision);
            }
            // One that is not kept, such as none for an empty text, stands in the whole as it would
            // have without the cache.
            None if !list.fits(numbers) => return Err(Unjoined::Unreadable),
            Some(fresh) if (fresh.len, &fresh.model) != (vectors.len, &vectors.model) => {
                return Err(Unjoined::Revision);
            }
            _ => {}
        }
        let tokens = inputs.tokens(&places, self.prompt());
        let (_, mut spared) = inputs.spared(&vectors);
        let mut seen = vec![false; places.len()];
        let mut pieces = Vec::with_capacity(inputs.places.len());
        for number in &inputs.places {
            pieces.push(match places.binary_search(number) {
                Err(_) => {
                    Piece::Kept(piece(&vectors, &bytes, *number).ok_or(Unjoined::Unreadable)?)
                }
                Ok(at) => {
                    // Upstream was asked for it once.
                    if seen
                        .get_mut(at)
                        .is_some_and(|seen| std::mem::replace(seen, true))
                    {
                        let again = tokens.get(at).copied().unwrap_or(0);
                        spared = spared.saturating_add(u64::from(again));
                    }
                    Piece::Told(at)
                }
            });
        }
        let joined = list.joined(&pieces, inputs.form, spared);
        let joined = joined.ok_or(Unjoined::Unreadable)?;
        self.from_cache = spared;
        self.inputs = Some(inputs);
        Ok(joined)
    }
}

impl Exchange {
    /// Puts the one answer in the place of upstream's, which is of a part.
    pub(super) fn answer_in_part(
        &mut self,
        plain: Option<&[u8]>,
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        let missing = facts.inputs.as_ref().map_or(0, |it| it.missing().len()) as u64;
        let places = facts.places();
        let joined = match plain {
            None => Err(Unjoined::TooLong),
            Some(plain) => {
                facts.read(&facts.format.answer(plain));
                facts.join(plain)
            }
        };
        match joined {
            Ok(joined) => {
                effects.items(vm, "hit", places.saturating_sub(missing));
                effects.items(vm, "miss", missing);
                effects
                    .list
                    .push(Effect::ReplaceResponseBody(joined.into_bytes()));
                effects.add_response_headers(facts.cost_headers(&vm.plan));
                self.phase = Phase::Streaming;
                effects.list.push(Effect::ResumeResponse);
            }
            Err(reason) => self.unjoined(reason, vm, effects),
        }
    }

    /// Upstream's answer to a part is none that is read: not a JSON answer, or in a coding of which
    /// there is no decoder.
    pub(super) fn unread_in_part(&mut self, vm: &mut Vm, effects: &mut Effects) {
        self.unjoined(Unjoined::Unreadable, vm, effects);
    }

    /// The client asked for more than upstream now answered, and never gets a part for the whole. It
    /// may try again: then upstream is asked for all of it.
    fn unjoined(&mut self, reason: Unjoined, vm: &mut Vm, effects: &mut Effects) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        facts.inputs = None;
        let labels = [(Label::Result, reason.name())];
        effects.count(vm, ("cache_unjoined", &labels), 1);
        vm.joins.failed(facts.embeds_at(), facts.at_ns);
        let error = ApiError {
            kind: ErrorKind::BadGateway,
            message: "The provider's answer cannot be joined with the vectors that are cached; try again."
                .into(),
            code: "embeddings_not_joined",
        };
        facts.status = error.kind.status();
        // Upstream did answer, and is paid for it.
        facts.outcome = Outcome::Aborted;
        facts.unread = true;
        facts.decoder = None;
        let mut headers = facts.answer_headers(&vm.plan);
        headers.extend(facts.cost_headers(&vm.plan));
        self.phase = Phase::Local;
        effects.respond_error(facts.format, &error, headers);
    }
}
