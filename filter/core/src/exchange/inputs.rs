//! Embedding requests input by input: which are looked up, what is answered with those that are
//! known, and what goes upstream without them.

use rustc_hash::FxHashMap;
use sluice_wire::{AdmitReply, CacheResult, Usage, Vectors, Verdict};

use super::decide::without_known;
use super::facts::{CacheWish, Facts, Held};
use super::{Effects, Label, Vm};
use crate::config::{Mode, Plan, RoutePlan};
use crate::formats::Request;
use crate::formats::batch::{self, Batch, Form};
use crate::policy::cache_key::{self, KeyInput};
use crate::vectors::{LONGEST_OURS, LONGEST_TOLD};

/// Most bytes of vectors that a VM holds while upstream is asked for others.
const HELD: usize = 8 << 20;

/// Bytes of an element of an answer beside its vector, and of an answer beside its elements,
/// generously.
const ELEMENT: usize = 128;
const ANSWER: usize = 1024;

/// The inputs of a request, each of which has a vector of its own.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Digests of the different ones.
    pub(super) digests: Vec<[u8; 32]>,
    /// How much of the prompt each of these is.
    weights: Vec<u64>,
    /// Which of them stands at each place of the request.
    pub(super) places: Vec<u16>,
    dimensions: Option<u64>,
    pub(super) form: Form,
    pub(super) known: Option<Known>,
    /// How many are known was counted already.
    counted: bool,
}

/// What upstream is not asked for.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) vectors: Vectors,
    pub(super) bytes: Held,
}

impl Inputs {
    /// The inputs of a request that is looked up one by one.
    pub(super) fn of(facts: &Facts, request: &Request<'_>, route: &RoutePlan) -> Option<Inputs> {
        let dtype = route.cache.embedding?;
        let looked_up = route.cache.mode != Mode::Off
            && facts.cache_wish != CacheWish::Bypass
            && facts.under.is_none();
        let batch = looked_up.then(|| facts.format.batch(request)).flatten()?;
        let mut inputs = Inputs {
            digests: Vec::new(),
            weights: Vec::new(),
            places: Vec::with_capacity(batch.inputs.len()),
            dimensions: batch.dimensions,
            form: Form {
                base64: batch.base64,
                dtype,
            },
            known: None,
            counted: false,
        };
        let mut seen = FxHashMap::default();
        for input in &batch.inputs {
            let next = inputs.digests.len();
            let number = *seen.entry(input.digest).or_insert(next);
            if number == next {
                inputs.digests.push(input.digest);
                inputs.weights.push(input.weight);
            }
            inputs.places.push(u16::try_from(number).ok()?);
        }
        Some(inputs)
    }

    /// Whether one may be known and another not.
    pub(super) fn several(&self) -> bool {
        self.digests.len() > 1
    }

    /// The keys of the different inputs.
    pub(super) fn keys(&self, input: &KeyInput<'_>) -> Vec<[u8; 32]> {
        let batch = (self.dimensions, self.form.dtype);
        cache_key::inputs(input, batch, &self.digests)
    }

    /// Most bytes of vectors of which an answer can be made that is no longer than `longest`.
    pub(super) fn room(&self, longest: usize) -> u32 {
        let size = self.form.dtype.size();
        let numbers = match self.form.base64 {
            // Four characters for three of its four bytes.
            true => longest / 16 * 3,
            false => longest / LONGEST_OURS,
        };
        u32::try_from(numbers.saturating_mul(size)).unwrap_or(u32::MAX)
    }

    /// Whether the sidecar's vectors are what it was asked for, with `asked` bytes of room.
    fn takes(&self, vectors: &Vectors, body: &[u8], asked: u32) -> bool {
        let found = &vectors.found;
        let len = vectors.len as usize;
        let bytes = found.len().saturating_mul(len);
        let rises = found.windows(2).all(|two| two[0].0 < two[1].0);
        let last = found.last().map(|(number, _)| usize::from(*number));
        rises
            && last.is_some_and(|last| last < self.digests.len())
            && len > 0
            && len.is_multiple_of(self.form.dtype.size())
            && body.len() == if asked == 0 { 0 } else { bytes }
    }

    /// Where a number's vector stands among those that were found.
    pub(super) fn found_at(vectors: &Vectors, number: u16) -> Option<usize> {
        vectors.found.binary_search_by_key(&number, |it| it.0).ok()
    }

    /// How many places have a vector that was found, and what they took.
    pub(super) fn spared(&self, vectors: &Vectors) -> (u64, u64) {
        let tokens = |number: &u16| {
            let at = Inputs::found_at(vectors, *number)?;
            vectors.found.get(at).map(|it| u64::from(it.1))
        };
        let spared = self.places.iter().filter_map(tokens);
        spared.fold((0, 0), |(count, sum), tokens| {
            (count + 1, tokens.saturating_add(sum))
        })
    }

    /// Bytes that an answer may have: every vector told by us, or (`asked` of them) by upstream.
    fn longest(&self, vectors: &Vectors, asked: usize) -> usize {
        let numbers = vectors.len as usize / self.form.dtype.size();
        let (told, ours) = match self.form.base64 {
            // Four characters for three of its four bytes.
            true => (6, 6),
            false => (LONGEST_TOLD, LONGEST_OURS),
        };
        let of = |count: usize, number: usize| {
            let each = numbers.saturating_mul(number).saturating_add(ELEMENT);
            count.saturating_mul(each)
        };
        of(self.places.len().saturating_sub(asked), ours)
            .saturating_add(of(asked, told))
            .saturating_add(ANSWER)
    }

    /// The answer where all are there.
    pub(super) fn answer(
        &self,
        (vectors, body): (&Vectors, &[u8]),
        model: &str,
        longest: usize,
    ) -> Option<Vec<u8>> {
        if self.longest(vectors, 0) > longest {
            return None;
        }
        let pieces: Option<Vec<_>> = self
            .places
            .iter()
            .map(|number| piece(vectors, body, *number))
            .collect();
        let model = match vectors.model.as_str() {
            "" => model,
            known => known,
        };
        let told = (model, &self.usage(vectors));
        Some(batch::answer(pieces?.into_iter(), self.form, told).into_bytes())
    }

    /// What the provider would have counted where all are there.
    pub(super) fn usage(&self, vectors: &Vectors) -> Usage {
        Usage {
            prompt: self.spared(vectors).1,
            ..Usage::default()
        }
    }

    /// The numbers that upstream is asked for, in order.
    pub(super) fn missing(&self) -> Vec<u16> {
        let known = self.known.as_ref().map(|known| &known.vectors);
        let is_known = |number| known.is_some_and(|it| Inputs::found_at(it, number).is_some());
        let all = 0..u16::try_from(self.digests.len()).unwrap_or(u16::MAX);
        all.filter(|number| !is_known(*number)).collect()
    }

    /// The `input` of the request without those that are known.
    pub(super) fn asked(&self, batch: &Batch<'_>) -> Option<String> {
        (batch.inputs.len() == self.places.len()).then_some(())?;
        let missing = self.missing();
        let mut raw = Vec::with_capacity(missing.len());
        // Numbers are given in the order in which inputs first stand there.
        let mut next = 0;
        for (place, input) in self.places.iter().zip(&batch.inputs) {
            if *place == next {
                next += 1;
                raw.extend(missing.binary_search(place).is_ok().then_some(input.raw));
            }
        }
        Some(format!("[{}]", raw.join(",")))
    }

    /// How much of the prompt such inputs are together.
    fn weight(&self, numbers: &[u16]) -> u128 {
        let weights = numbers
            .iter()
            .filter_map(|it| self.weights.get(usize::from(*it)));
        weights.map(|it| u128::from(*it)).sum()
    }

    /// Of `whole` prompt tokens those of the inputs that upstream is asked for, rounded up.
    fn share(&self, whole: u64) -> u64 {
        let all = self.weight(&self.places);
        let asked = self.weight(&self.missing());
        u64::try_from((u128::from(whole) * asked).div_ceil(all.max(1))).unwrap_or(whole)
    }

    /// Prompt tokens of each of the inputs that upstream was asked for, `places` in its order: they
    /// sum to `whole`, and are to each other as the inputs are long.
    pub(super) fn tokens(&self, places: &[u16], whole: u64) -> Vec<u32> {
        let all = self.weight(places);
        let mut before = (0_u128, 0_u64);
        let mut tokens = Vec::with_capacity(places.len());
        for number in places {
            let weights = before.0 + self.weight(&[*number]);
            let sum = u64::try_from(u128::from(whole) * weights / all.max(1)).unwrap_or(whole);
            tokens.push(u32::try_from(sum - before.1).unwrap_or(u32::MAX));
            before = (weights, sum);
        }
        tokens
    }
}

/// The vector of a number among those that were found.
pub(super) fn piece<'v>(vectors: &Vectors, body: &'v [u8], number: u16) -> Option<&'v [u8]> {
    let (at, len) = (
        Inputs::found_at(vectors, number)?,
        usize::try_from(vectors.len).ok()?,
    );
    body.get(at * len..(at + 1) * len)
}

impl Facts {
    /// Most bytes of vectors to be told; 0 where none is.
    pub(super) fn vector_room(&self, plan: &Plan) -> u32 {
        match (&self.inputs, self.route(plan).cache.mode) {
            (Some(inputs), Mode::On) => inputs.room(plan.limits.response_body),
            _ => 0,
        }
    }

    /// Whether what a reply tells of vectors is what was asked for.
    pub(super) fn vectors_fit(&self, reply: &AdmitReply, body: &[u8], plan: &Plan) -> bool {
        let Some(vectors) = &reply.vectors else {
            return true;
        };
        let (number, all) = match &reply.verdict {
            Verdict::Go { plan, spare, .. } if spare.is_none() => (*plan, false),
            Verdict::Hit { plan, .. } => (*plan, true),
            _ => return false,
        };
        let asked = |inputs: &Inputs| {
            let option = self.options.get(usize::from(number));
            option.is_some_and(|option| !option.inputs.is_empty())
                && self.looks_up()
                && inputs.takes(vectors, body, self.vector_room(plan))
                && (!all || vectors.found.len() == inputs.digests.len())
        };
        self.inputs.as_ref().is_some_and(asked)
    }

    /// Some inputs are known: upstream is asked for the others alone, where the answer can be held.
    pub(super) fn partly(
        &mut self,
        vectors: Vectors,
        body: &[u8],
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        let plan = vm.plan.clone();
        let upstream = self.embeds_at();
        let on = self.route(&plan).cache.mode == Mode::On;
        let Some(inputs) = self.inputs.as_mut() else {
            return;
        };
        let (places, tokens) = inputs.spared(&vectors);
        if !on {
            self.dry_from_cache = tokens;
            inputs.counted = true;
            let missing = inputs.places.len() as u64 - places;
            effects.items(vm, "miss", missing);
            return effects.items(vm, "dry_hit", places);
        }
        let asked = inputs.digests.len().saturating_sub(vectors.found.len());
        let fits = inputs.longest(&vectors, asked) <= plan.limits.response_body;
        if asked > 0
            && fits
            && vm
                .joins
                .may(upstream, (&vectors.model, asked > 1), self.at_ns)
            && let Some(bytes) = Held::new(body, (&vm.vectors, HELD))
        {
            inputs.known = Some(Known { vectors, bytes });
        }
    }

    /// The body without what is known, where that is to be sent.
    pub(super) fn take_apart(&mut self) -> Option<Vec<u8>> {
        self.inputs.as_ref()?.known.as_ref()?;
        let body = without_known(self);
        let inputs = self.inputs.as_mut()?;
        match &body {
            // It goes as a whole.
            None => inputs.known = None,
            Some(_) => {
                self.cache = CacheResult::Partial;
                self.expected.prompt = inputs.share(self.expected.prompt);
            }
        }
        body
    }

    /// An answer of vectors alone.
    pub(super) fn tell_vectors(
        &self,
        vectors: (&Vectors, &[u8]),
        plan: &Plan,
    ) -> Option<(Vec<u8>, &'static str)> {
        let inputs = self.inputs.as_ref()?;
        let answer = inputs.answer(vectors, self.model(), plan.limits.response_body)?;
        Some((answer, "application/json"))
    }

    /// How many vectors the request is answered with.
    pub(super) fn places(&self) -> u64 {
        self.inputs.as_ref().map_or(0, |it| it.places.len() as u64)
    }

    /// How many of them are asked upstream because none is known, where that was looked up and is
    /// not counted yet.
    pub(super) fn unknown_places(&self) -> u64 {
        let asked = self.looks_up() && self.option().is_some_and(|it| !it.inputs.is_empty());
        match &self.inputs {
            Some(inputs) if asked && inputs.known.is_none() && !inputs.counted => self.places(),
            _ => 0,
        }
    }
}

impl Effects {
    /// Counts inputs by what the cache knew of them.
    pub(super) fn items(&mut self, vm: &mut Vm, result: &str, amount: u64) {
        if amount > 0 {
            self.count(vm, ("cache_items", &[(Label::Result, result)]), amount);
        }
    }
}
