//! One request, trimmed: its chunks, its past, and what of that pays, put together.
//!
//! ```text
//! whole    the request as upstream takes it with nothing left out: our own fields gone
//! edited   the same with chunks chosen
//! turns    exchanges ─► scores ─► a fresh selection ─► the planner: whole, extended or anew
//! body     what is kept, edited from where the planner says, in the template
//! ```
//!
//! Everything is counted before and after; what saves nothing is not done.

use std::ops::Range;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use sluice_wire::{Relevance, Similarity, Usd, limit};

use super::context::{Chosen, Found, Judge, Rank, Selection};
use super::history::{self, Past};
use super::planner::{self, Anew, Decision, Item, Mark, Nothing, Sent, Unmet, Why};
use super::rank::{self, Passage};
use super::splices::{Splices, span};
use super::spoken;
use super::summary::{self, DigestMemory};
use super::system::{self, Measures};
use super::template::{Slot, Template};
use super::terms::{TermMemory, Terms};
use super::turns::{Exchange, Stay, Turns};
use super::{context, edits, identity, marks};
use crate::config::{self, History, Keep, Plan, Prefix, PrefixCache, Price, Trimming};
use crate::formats::{self, Format, Part, Request, Role};
use crate::json::Object;
use crate::tokens::{Each, Encoding, Tokens};

/// Thousandths by which our counts may differ from the provider's, where the tokenizer is known and
/// where it is guessed.
const MARGINS: (u64, u64) = (20, 150);

/// Of the tokens that the past may take, one in so many is for what is needed at least: what else
/// was chosen may be missing from a selection that goes on.
const NEEDED: u64 = 2;

/// Where the price is not known a token is a token.
const UNPRICED: Price = Price {
    input: Usd(1),
    cached_input: Usd(1),
    cache_write: Usd(1),
    output: Usd(1),
};

/// Messages of the past whose chunks are remembered.
const SELECTIONS: usize = 8;

/// How a request is to be trimmed.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The request, as the client sent it.
    pub request: &'a Request<'a>,
    /// Its API.
    pub format: &'static dyn Format,
    /// The route's settings.
    pub policy: &'a Trimming,
    /// The template around it, if any.
    pub template: Option<&'a Template>,
    /// Where it goes.
    pub model: Model<'a>,
    /// Most prompt tokens.
    pub limit: Option<u64>,
    /// What was found out about it.
    pub known: Known<'a>,
}

/// The model that answers.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// Its name in the config, or as it was asked for.
    pub name: &'a str,
    /// How its tokens are counted; None: by what its usage taught.
    pub counting: Option<Counting>,
    /// Its prices, if known.
    pub price: Option<Price>,
    /// Its provider's prefix cache.
    pub prefix: Prefix,
}

/// A vocabulary to count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// Which.
    pub encoding: Encoding,
    /// Tokens for a thousand of that vocabulary's: 1000 where it is the model's own. Another's counts
    /// are off by much the same everywhere, where bytes are off by the kind of text.
    pub scale_milli: u64,
}

/// Bytes of English that a token of the built-in vocabularies is of, roughly (OpenAI's rule of thumb is
/// four characters): what another model's bytes per token are held against.
const BYTES_PER_TOKEN: f64 = 4.2;

impl<'a> Model<'a> {
    /// The model of that name; `tokens` has the vocabularies that are loaded.
    #[must_use]
    pub fn of(plan: &'a Plan, name: &'a str, tokens: &Tokens) -> Model<'a> {
        let Some((name, model)) = plan.model(name) else {
            return Model {
                name,
                counting: None,
                price: None,
                prefix: Prefix::default(),
            };
        };
        Model {
            name,
            counting: Counting::of(model, tokens),
            price: model.price,
            prefix: model.prefix,
        }
    }
}

impl Counting {
    /// By the model's own vocabulary, else by another that is loaded.
    fn of(model: &config::Model, tokens: &Tokens) -> Option<Counting> {
        if let Some(encoding) = model.encoding {
            return Some(Counting {
                encoding,
                scale_milli: 1000,
            });
        }
        let scale = BYTES_PER_TOKEN / model.bytes_per_token.max(0.1) * 1000.0;
        Some(Counting {
            encoding: tokens.any()?,
            scale_milli: (scale as u64).max(1),
        })
    }

    fn own(self) -> bool {
        self.scale_milli == 1000
    }

    fn scaled(self, tokens: u64) -> u64 {
        (tokens.saturating_mul(self.scale_milli) / 1000).max(tokens.min(1))
    }
}

/// What was found out about a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// How near the texts of [`Asked`] are to the question, in their order; fewer where it was not
    /// asked.
    pub similarities: &'a [Similarity],
    /// [`Trimmed::state`] of the turn before.
    pub state: Option<&'a str>,
    /// Milliseconds since the epoch.
    pub now_ms: u64,
}

/// What a VM remembers of earlier requests.
#[derive(Debug)]
pub struct Memories<'m> {
    /// Counts.
    pub tokens: &'m mut Tokens,
    /// Terms.
    pub terms: &'m mut TermMemory,
    /// Digests of what was left out.
    pub digests: &'m mut DigestMemory,
}

/// A request, trimmed.
#[derive(Clone, Debug, Default)]
pub struct Trimmed {
    /// The body with nothing left out, where that is not the client's own: fields that upstream does
    /// not know are gone, what came in them stands in the prompt, and all of it in the template.
    pub whole: Option<String>,
    /// The body with less in it; None: nothing is left out of `whole`.
    pub body: Option<String>,
    /// Prompt tokens by our count, with nothing left out.
    pub before: u64,
    /// Prompt tokens by our count, as it goes out.
    pub after: u64,
    /// Indices of the messages or input items that go out, where not all do.
    pub kept: Option<Vec<usize>>,
    /// Why it goes out as it does.
    pub why: Option<Why>,
    /// What was not to be had for what the conversation saved.
    pub unmet: Option<Unmet>,
    /// Prompt tokens that the planner counted, where there was something to plan.
    pub planned: Option<u64>,
    /// The request had nothing ever been left out.
    pub nothing: Nothing,
    /// What to remember of the conversation.
    pub state: Option<String>,
    /// The cap took text out of the system prompt, which its author did not mean.
    pub system_cut: bool,
}

/// A request that cannot be made into one that upstream takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The client's chunks.
    #[error(transparent)]
    Unreadable(#[from] context::given::Unreadable),
    /// There is no place for them.
    #[error(transparent)]
    NoPlace(#[from] context::given::NoPlace),
    /// There is nothing that the template could be put around.
    #[error("the template of this route: {0}")]
    NoQuestion(#[from] super::template::NoQuestion),
}

/// What a conversation's next turn wants told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// What went out.
    sent: Sent,
    /// Chunks of its last messages: message, of how many, which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chunks: Vec<(u64, usize, Vec<usize>)>,
}

/// Of two states of one conversation the one of its later turn.
#[must_use]
pub fn newer<'s>(one: Option<&'s str>, other: Option<&'s str>) -> Option<&'s str> {
    let at = |state: &str| serde_json::from_str::<State>(state).map_or(0, |it| it.sent.at_ms);
    match (one, other) {
        (Some(one), Some(other)) if at(other) > at(one) => Some(other),
        (one, other) => one.or(other),
    }
}

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
fn current<'f, 'a>(found: &'f Found<'a>) -> Option<&'f context::Retrieval<'a>> {
    found.retrievals.iter().rev().find(|one| one.current)
}

/// At most so many bytes of a text, cut between characters.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at));
    text.get(..end.unwrap_or(0)).unwrap_or("")
}

/// What is said in items; `asked`: by the user alone.
fn said(turns: &Turns<'_>, items: Range<usize>, asked: bool) -> String {
    let mut all = String::new();
    for item in turns.items.get(items).unwrap_or(&[]) {
        if asked && item.role != Some(Role::User) {
            continue;
        }
        for text in spoken::texts(&item.content) {
            if !all.is_empty() {
                all.push('\n');
            }
            all.push_str(&text.text());
        }
    }
    all
}

/// Exchanges that stay wherever they stand.
fn stay_of(history: &History) -> Stay {
    Stay {
        first: history.pin_first,
        last: history.last,
    }
}

/// The bytes in which items stand.
fn raw_of<'a>(turns: &Turns<'a>, items: Range<usize>) -> &'a str {
    let raw = |at: usize| span(turns.body, turns.items.get(at)?.content.raw);
    let ends = raw(items.start).zip(items.end.checked_sub(1).and_then(raw));
    let within = ends.and_then(|(first, last)| turns.body.get(first.start..last.end));
    within.unwrap_or("")
}

/// Trims a request, or says why nothing is left out of it.
///
/// Takes time in the length of what is new in it; old messages are known by their hashes.
///
/// # Errors
/// [`Fault`], where what the client gave in fields of ours cannot be put into the prompt.
pub fn trim(job: &Job<'_>, memories: &mut Memories<'_>) -> Result<Trimmed, Fault> {
    let request = job.request;
    let found = Found::of(request, job.policy.context.as_ref())?;
    let state: Option<State> = job
        .known
        .state
        .and_then(|state| serde_json::from_str(state).ok());
    let (whole_body, whole_given) = placed(job, found.whole())?;
    let whole_request = parsed(job.format, whole_body.as_deref());
    let client = Counted::of(job, whole_request.as_ref().unwrap_or(request), memories);

    let mut steps = Steps::default();
    let similar = Similar::of(job, &found);
    steps.chunks((job, &found, &state), (&client, similar.chunks), memories)?;
    let question = current(&found).map(|one| one.question.to_string());
    steps.system(job, (client.request, question.as_deref()), memories);
    let edited_request = parsed(job.format, steps.body.as_deref());
    let edited = edited_request
        .as_ref()
        .map(|request| Counted::of(job, request, memories));
    let outgoing = edited.as_ref().unwrap_or(&client);

    let mut trimmed = Trimmed {
        before: client.each.total(),
        after: outgoing.each.total(),
        system_cut: steps.system_cut,
        ..Trimmed::default()
    };
    let mut body = steps.body.clone();
    let mut planned = false;
    if let Some(mut conversation) = Conversation::of(job, &client, outgoing) {
        let known = (question, similar.past);
        let last = state.as_ref().map(|state| &state.sent);
        let decided = conversation.decide(job, known, last, memories);
        trimmed.after = decided.plan.tokens.saturating_add(client.each.once);
        trimmed.planned = Some(decided.plan.tokens);
        trimmed.why = Some(decided.plan.why);
        trimmed.unmet = decided.plan.unmet;
        trimmed.nothing = decided.plan.nothing;
        trimmed.kept = decided.kept();
        trimmed.state = State::of(decided.plan.sent.clone(), steps.selections).told();
        planned = !decided.plan.marks.is_empty() || trimmed.kept.is_some();
        let sent = conversation.body(job, &decided, outgoing);
        body = sent.map(|body| with_marks(job, body, &decided.plan));
        if decided.note.is_some()
            && let Some(request) = parsed(job.format, body.as_deref())
        {
            // Within a message it may count otherwise than by itself.
            trimmed.after = count(job, &request, memories.tokens).total();
        }
    }
    if job.template.is_some() {
        let given = steps.given.or_else(|| whole_given.clone());
        let tokens = &*memories.tokens;
        let body_framed = framed(job, body.or_else(|| whole_body.clone()), given, tokens)?;
        let whole_framed = framed(job, whole_body, whole_given, tokens)?;
        let mut counted = |body: &Option<String>| {
            let request = parsed(job.format, body.as_deref());
            request.map_or(0, |request| count(job, &request, memories.tokens).total())
        };
        (trimmed.before, trimmed.after) = (counted(&whole_framed), counted(&body_framed));
        (trimmed.whole, body) = (whole_framed, body_framed);
        planned = false;
    } else {
        trimmed.whole = whole_body;
    }
    // What the planner decided stands, as the next turn is told of it: it is cheaper even where it is
    // no shorter.
    if trimmed.after >= trimmed.before && !planned {
        (body, trimmed.after) = (None, trimmed.before);
    }
    trimmed.body = body;
    Ok(trimmed)
}

/// A request and its tokens.
struct Counted<'r, 'a> {
    request: &'r Request<'a>,
    each: Each,
}

impl<'r, 'a> Counted<'r, 'a> {
    fn of(job: &Job<'_>, request: &'r Request<'a>, memories: &mut Memories<'_>) -> Self {
        Counted {
            request,
            each: count(job, request, memories.tokens),
        }
    }
}

/// What is made of the texts of a request before any message is left out, step by step: each counts
/// again what it left, and is undone where that is no less.
#[derive(Default)]
struct Steps {
    /// The body so far; None: nothing has changed.
    body: Option<String>,
    /// Chunks for the template.
    given: Option<String>,
    selections: Vec<Selection>,
    /// The cap took text out of the system prompt.
    system_cut: bool,
}

impl Steps {
    /// Chooses chunks.
    fn chunks(
        &mut self,
        (job, found, state): (&Job<'_>, &Found<'_>, &Option<State>),
        (before, similarities): (&Counted<'_, '_>, &[Similarity]),
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
        let (body, given) = placed(job, chosen)?;
        // Those for the template are not in the body, where they could be counted.
        if given.is_some() || shorter(job, body.as_deref(), before, memories) {
            (self.body, self.given) = (body, given);
        }
        Ok(())
    }

    /// Shortens the system prompt.
    fn system(
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

/// Whether a body has fewer tokens.
fn shorter(
    job: &Job<'_>,
    body: Option<&str>,
    before: &Counted<'_, '_>,
    memories: &mut Memories<'_>,
) -> bool {
    let request = parsed(job.format, body);
    request
        .is_some_and(|request| count(job, &request, memories.tokens).total() < before.each.total())
}

/// The body with the chunks that were chosen: those that came in the field stand in the prompt, and
/// what upstream does not know is gone. None where nothing changes. A template has a place of its own
/// for such chunks: they come apart then.
fn placed(job: &Job<'_>, chosen: Chosen) -> Result<(Option<String>, Option<String>), Fault> {
    let mut edits = chosen.edits;
    edits.extend(edits::unpinned(job.request, job.format));
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

/// A body, the client's own where it is None, in the template.
fn framed(
    job: &Job<'_>,
    body: Option<String>,
    given: Option<String>,
    tokens: &Tokens,
) -> Result<Option<String>, Fault> {
    let text = body.as_deref().unwrap_or(job.request.body);
    let (Some(template), Some(request)) = (job.template, parsed(job.format, Some(text))) else {
        return Ok(body);
    };
    let given = given.unwrap_or_default();
    let mut count = |text: &str| job.tokens_of(text, tokens);
    let edits = template.render(&request, job.format, &given, &mut count)?;
    Ok(Some(edits.apply(text)))
}

fn parsed<'b>(format: &dyn Format, body: Option<&'b str>) -> Option<Request<'b>> {
    format.parse(body?).ok()
}

fn count(job: &Job<'_>, request: &Request<'_>, tokens: &mut Tokens) -> Each {
    let format = job.format.name();
    let exact = job
        .model
        .counting
        .and_then(|by| Some((by, tokens.each(by.encoding, request, format)?)));
    let exact = exact.map(|(by, each)| each.map(|tokens| by.scaled(tokens)));
    exact.unwrap_or_else(|| tokens.estimate_each(job.model.name, request, format))
}

impl State {
    fn of(sent: Sent, mut selections: Vec<Selection>) -> State {
        let skipped = selections.len().saturating_sub(SELECTIONS);
        let chunks = selections
            .drain(skipped..)
            .map(|one| (one.message, one.of, one.kept));
        State {
            sent,
            chunks: chunks.collect(),
        }
    }

    fn selections(&self) -> Vec<Selection> {
        let one = |(message, of, kept): &(u64, usize, Vec<usize>)| Selection {
            message: *message,
            of: *of,
            kept: kept.clone(),
        };
        self.chunks.iter().map(one).collect()
    }

    /// As it is kept. Chunks are remembered as far as there is room; without them those of the past
    /// are chosen anew, by words.
    fn told(mut self) -> Option<String> {
        loop {
            let told = serde_json::to_string(&self).ok()?;
            if told.len() <= limit::STATE {
                return Some(told);
            }
            if self.chunks.is_empty() {
                return None;
            }
            self.chunks.remove(0);
        }
    }
}

/// Similarities by what they are of.
#[derive(Clone, Copy, Debug)]
struct Similar<'a> {
    /// Of the last of the past's exchanges.
    past: &'a [Similarity],
    /// Of the last of the current question's chunks.
    chunks: &'a [Similarity],
}

impl<'a> Similar<'a> {
    /// As [`asked`] asked for them: the past's, then the chunks'.
    fn of(job: &Job<'a>, found: &Found<'_>) -> Similar<'a> {
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
fn similarity(known: &[Similarity], at: usize, of: usize) -> Option<f32> {
    let at = (at + known.len()).checked_sub(of)?;
    known.get(at)?.cosine()
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
        let question = self
            .memories
            .terms
            .get(ask.question, || Terms::of(ask.question));
        let terms: Vec<Rc<Terms>> = ask
            .chunks
            .iter()
            .map(|text| self.memories.terms.get(text, || Terms::of(text)))
            .collect();
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

impl Job<'_> {
    /// Tokens of a text.
    fn tokens_of(&self, text: &str, tokens: &Tokens) -> u64 {
        let exact = self
            .model
            .counting
            .and_then(|by| Some(by.scaled(tokens.count_text(by.encoding, text)?)));
        exact.unwrap_or_else(|| tokens.estimate(self.model.name, text.len() as u64))
    }
}

/// A request with a list of messages, as the planner and the selection see it.
struct Conversation<'a> {
    /// Of the request with nothing left out.
    turns: Turns<'a>,
    /// What stands before the messages, then each of them.
    items: Vec<Item>,
}

/// A selection, as the planner weighs it.
struct Fresh {
    /// By item: whether it stays.
    keep: Vec<bool>,
    /// Tokens of the note.
    extra: u64,
    note: Option<String>,
}

/// What is left out.
struct Decided {
    plan: Decision,
    /// By exchange: whether it stays.
    keep: Vec<bool>,
    note: Option<String>,
}

impl Decided {
    /// Indices of the messages that go out, where not all do.
    fn kept(&self) -> Option<Vec<usize>> {
        let messages = self.plan.keep.iter().skip(1);
        let kept: Vec<usize> = messages
            .enumerate()
            .filter_map(|(at, keep)| keep.then_some(at))
            .collect();
        (kept.len() + 1 < self.plan.keep.len()).then_some(kept)
    }
}

impl<'a> Conversation<'a> {
    /// `client`: the request with nothing left out; `outgoing`: the same with its texts edited.
    fn of(
        job: &Job<'_>,
        client: &Counted<'_, 'a>,
        outgoing: &Counted<'_, '_>,
    ) -> Option<Conversation<'a>> {
        let turns = whole_turns(job, client.request)?;
        let own = pieces(&turns.items, client)?;
        let edited = match std::ptr::eq(client, outgoing) {
            true => None,
            false => {
                let edited = job.format.conversation(outgoing.request)?;
                Some(pieces(&edited.items, outgoing)?)
            }
        };
        let sent = edited.as_ref().unwrap_or(&own);
        // Where examples were left out the messages are not the same; nor is then what was sent
        // before.
        if own.len() != sent.len() {
            return None;
        }
        let items: Vec<Item> = own
            .iter()
            .zip(sent)
            .map(|(own, sent)| Item {
                tokens: own.tokens,
                digest: own.digest,
                sent_tokens: sent.tokens.min(own.tokens),
                sent_digest: sent.digest,
                needed: true,
                mark: own.mark,
            })
            .collect();
        Some(Conversation { turns, items })
    }

    /// What goes out. `known`: the question where it was told from chunks, and how near the last of
    /// the past's exchanges are to it.
    fn decide(
        &mut self,
        job: &Job<'_>,
        known: (Option<String>, &[Similarity]),
        last: Option<&Sent>,
        memories: &mut Memories<'_>,
    ) -> Decided {
        let mut selections = self.fresh(job, known, memories);
        if selections.is_empty() && self.is_edited() {
            // All of it, with its texts edited.
            selections.push(vec![true; self.turns.past().len()]);
        }
        let fresh: Vec<Fresh> = selections
            .into_iter()
            .map(|keep| {
                let note = self.note(job, &keep, memories);
                let count = |note: &String| job.tokens_of(note, memories.tokens);
                Fresh {
                    keep: self.by_item(&keep),
                    extra: note.as_ref().map_or(0, count),
                    note,
                }
            })
            .collect();
        let anew = fresh.iter().map(|fresh| Anew {
            keep: &fresh.keep,
            extra: fresh.extra,
        });
        let anew: Vec<Anew<'_>> = anew.collect();
        let current = self.turns.exchanges.last();
        let margin = match job.model.counting {
            Some(counting) if counting.own() => MARGINS.0,
            _ => MARGINS.1,
        };
        // A past that is told as text has no front that a provider could know.
        let told = job
            .template
            .is_some_and(|template| template.user.has(Slot::Memory));
        let prefix = match job.model.price {
            Some(_) if !told => job.model.prefix,
            _ => Prefix {
                cache: PrefixCache::None,
                ..job.model.prefix
            },
        };
        let plan_of = |anew: &[Anew<'_>]| {
            planner::plan(&planner::Ask {
                items: &self.items,
                turn: current.map_or(0, |current| current.items.start + 1),
                turns: u32::try_from(self.turns.exchanges.len()).unwrap_or(u32::MAX),
                price: job.model.price.unwrap_or(UNPRICED),
                prefix,
                anew,
                limit: job.limit,
                marks: job.policy.marks,
                last,
                now_ms: job.known.now_ms,
                margin_milli: margin,
            })
        };
        // All that there is room for, where that pays; less only where nothing else does.
        let mut plan = plan_of(anew.get(..1).unwrap_or_default());
        if plan.why == Why::Whole {
            plan = plan_of(&anew);
        }
        let keep = self.by_exchange(&plan.keep);
        let note = match (plan.why, plan.anew) {
            (Why::Whole, _) => None,
            (_, Some(chosen)) => fresh.into_iter().nth(chosen).and_then(|fresh| fresh.note),
            (_, None) => self.note(job, &keep, memories),
        };
        Decided { plan, keep, note }
    }

    /// Chooses what stays of the past, in as much room as there is and in half of it; nothing where
    /// all of it stays. Says of each item whether it is needed.
    fn fresh(
        &mut self,
        job: &Job<'_>,
        known: (Option<String>, &[Similarity]),
        memories: &mut Memories<'_>,
    ) -> Vec<Vec<bool>> {
        let Some(history) = &job.policy.history else {
            return Vec::new();
        };
        let past: Vec<Past> = self.turns.past().iter().map(|one| self.past(one)).collect();
        let whole = past
            .iter()
            .fold(0_u64, |sum, one| sum.saturating_add(one.tokens));
        let all = self
            .items
            .iter()
            .fold(0_u64, |sum, one| sum.saturating_add(one.sent_tokens));
        let rest = all.saturating_sub(whole);
        let note = match history.keep {
            Keep::Summary => history.digest,
            Keep::Recent | Keep::Relevant => 0,
        };
        let room = job
            .limit
            .map_or(u64::MAX, |limit| limit.saturating_sub(rest));
        let budget = history.tokens.min(room);
        if whole <= budget {
            return Vec::new();
        }
        let budget = budget.saturating_sub(note);
        let scores = match history.keep {
            Keep::Recent => Vec::new(),
            Keep::Relevant | Keep::Summary => self.scores(known, memories),
        };
        let within = |budget: u64| match history.keep {
            Keep::Recent => history::recent(&past, budget),
            Keep::Relevant | Keep::Summary => history::relevant(&past, &scores, budget),
        };
        // What is in more places than can be remembered cannot go on at the next turn: less of it.
        let kept = |mut budget: u64| loop {
            let keep = within(budget);
            if budget == 0 || gaps(&self.by_item(&keep)) <= planner::MAX_RANGES {
                return keep;
            }
            budget /= 2;
        };
        // What is needed is not all that there is room for, or every turn would choose anew.
        let (keep, less) = (kept(budget), kept(budget / NEEDED));
        // What fills a gap in the one may have no room in the other.
        let needed: Vec<bool> = keep
            .iter()
            .zip(&less)
            .map(|(one, other)| *one && *other)
            .collect();
        let by_item = self.by_item(&needed);
        for (item, needed) in self.items.iter_mut().zip(by_item) {
            item.needed = needed;
        }
        vec![keep, less]
    }

    /// An exchange of the past, as far as the choice needs it.
    fn past(&self, exchange: &Exchange) -> Past {
        let items = self.turns.items.iter().zip(self.items.iter().skip(1));
        let own = items.skip(exchange.items.start).take(exchange.items.len());
        let going = own.filter(|(item, _)| !item.stays());
        Past {
            tokens: going.fold(0, |sum, (_, item)| sum.saturating_add(item.sent_tokens)),
            must: exchange.must || self.is_marked(exchange),
        }
    }

    /// Whether a text of what stays is another than the client's.
    fn is_edited(&self) -> bool {
        let mut items = self.items.iter();
        items.any(|item| item.sent_digest != item.digest)
    }

    /// Whether the client marked something of an exchange for the provider's cache.
    fn is_marked(&self, exchange: &Exchange) -> bool {
        let own = self.items.iter().skip(exchange.items.start + 1);
        own.take(exchange.items.len())
            .any(|item| item.mark.is_some())
    }

    fn scores(
        &self,
        (question, similarities): (Option<String>, &[Similarity]),
        memories: &mut Memories<'_>,
    ) -> Vec<f32> {
        let current = self
            .turns
            .exchanges
            .last()
            .map_or(0..0, |one| one.items.clone());
        let question = question.unwrap_or_else(|| said(&self.turns, current, true));
        let past = self.turns.past();
        let terms: Vec<Rc<Terms>> = past
            .iter()
            .map(|one| {
                let raw = raw_of(&self.turns, one.items.clone());
                let said = || Terms::of(&said(&self.turns, one.items.clone(), false));
                memories.terms.get(raw, said)
            })
            .collect();
        let passages = terms.iter().enumerate().map(|(at, terms)| Passage {
            terms,
            similarity: similarity(similarities, at, past.len()),
        });
        rank::conversation(&Terms::of(&question), &passages.collect::<Vec<_>>())
    }

    /// A digest of what is left out, where the policy wants one. It depends on nothing else, so that
    /// it stays the same as long as the same is left out.
    fn note(&self, job: &Job<'_>, keep: &[bool], memories: &mut Memories<'_>) -> Option<String> {
        let history = job.policy.history.as_ref()?;
        let most = (history.keep == Keep::Summary).then_some(history.digest)?;
        let tokens = &*memories.tokens;
        let count = |text: &str| job.tokens_of(text, tokens);
        let by = job.model.counting;
        let by = by.map_or(0, |by| by.scale_milli << 2 | (by.encoding as u64 + 1));
        let salt = most.rotate_left(32) ^ by;
        memories.digests.get(&self.turns, keep, salt, || {
            summary::of_dropped(&self.turns, (keep, None), most, &count)
        })
    }

    /// Of each item whether it stays, by exchange of the past. What belongs to none stays.
    fn by_item(&self, keep: &[bool]) -> Vec<bool> {
        let mut by_item = vec![true; self.items.len()];
        for (exchange, keep) in self.turns.past().iter().zip(keep) {
            for at in exchange.items.clone().filter(|_| !*keep) {
                let stays = self.turns.items.get(at).is_none_or(|item| item.stays());
                if let Some(slot) = by_item.get_mut(at + 1) {
                    *slot = stays;
                }
            }
        }
        by_item
    }

    /// Of each exchange whether it stays: where anything of it does.
    fn by_exchange(&self, keep: &[bool]) -> Vec<bool> {
        let of = |exchange: &Exchange| {
            let mut going = exchange.items.clone().filter(|at| {
                let item = self.turns.items.get(*at);
                item.is_some_and(|item| !item.stays())
            });
            going.any(|at| keep.get(at + 1).copied().unwrap_or(true))
        };
        self.turns.exchanges.iter().map(of).collect()
    }

    /// The body as decided; None where it cannot be made.
    fn body(&self, job: &Job<'_>, decided: &Decided, outgoing: &Counted<'_, '_>) -> Option<String> {
        let (client, edited) = (self.turns.body, outgoing.request.body);
        let from = decided.plan.edited_from;
        if std::ptr::eq(client, edited) || from > self.turns.items.len() {
            return Some(dropping(&self.turns, decided));
        }
        let stay = job.policy.history.as_ref().map(stay_of).unwrap_or_default();
        let edited = Turns::of(outgoing.request, job.format, stay)?;
        if from == 0 {
            return Some(dropping(&edited, decided));
        }
        // What went out unedited stays so, for the provider's cache.
        let mut mixed = Splices::default();
        let both = self.turns.items.iter().zip(&edited.items).skip(from - 1);
        for (own, edited) in both.filter(|(own, edited)| own.content.raw != edited.content.raw) {
            mixed.replace(span(client, own.content.raw)?, edited.content.raw);
        }
        let mixed = mixed.apply(client);
        let mixed = job.format.parse(&mixed).ok()?;
        let turns = Turns::of(&mixed, job.format, stay)?;
        Some(dropping(&turns, decided))
    }
}

/// In how many places something is left out.
fn gaps(keep: &[bool]) -> usize {
    let follows = keep.iter().zip(keep.iter().skip(1));
    let first = keep.first().is_some_and(|keep| !keep);
    usize::from(first) + follows.filter(|(one, next)| **one && !**next).count()
}

/// The turns of the request with nothing left out. The pins are gone from it: what stays for them is
/// told by the client's own.
fn whole_turns<'a>(job: &Job<'_>, whole: &Request<'a>) -> Option<Turns<'a>> {
    let stay = job.policy.history.as_ref().map(stay_of).unwrap_or_default();
    let mut turns = Turns::of(whole, job.format, stay)?;
    if !std::ptr::eq(whole.body, job.request.body)
        && let Some(own) = Turns::of(job.request, job.format, stay)
    {
        let both = turns.exchanges.iter_mut().zip(&own.exchanges);
        both.for_each(|(exchange, own)| exchange.must |= own.must);
    }
    Some(turns)
}

/// The body without what is left out.
fn dropping(turns: &Turns<'_>, decided: &Decided) -> String {
    edits::dropping(turns, &decided.keep, decided.note.as_deref()).apply(turns.body)
}

/// The body with the marks for the provider's cache that the planner wants in it.
fn with_marks(job: &Job<'_>, body: String, plan: &Decision) -> String {
    if plan.marks.is_empty() {
        return body;
    }
    let mut splices = Splices::default();
    if let Some(request) = parsed(job.format, Some(&body))
        && let Some(conversation) = job.format.conversation(&request)
    {
        for &mark in &plan.marks {
            // The messages before it that went out too.
            let at = plan
                .keep
                .iter()
                .take(mark)
                .skip(1)
                .filter(|keep| **keep)
                .count();
            let content = || {
                Object::parse(conversation.items.get(at)?.content.raw)
                    .ok()?
                    .get("content")
            };
            let raw = match mark {
                0 => request.fields.set("system").or(request.fields.set("tools")),
                _ => content(),
            };
            if let Some(raw) = raw {
                marks::set(&mut splices, request.body, raw);
            }
        }
    }
    splices.apply(&body)
}

/// What the planner knows of a part of the request.
struct Piece {
    tokens: u64,
    digest: u64,
    mark: Option<Mark>,
}

/// What stands before the messages, then each of them, which are `items`. None where the API tells
/// otherwise than the count does.
fn pieces(items: &[formats::Item<'_>], counted: &Counted<'_, '_>) -> Option<Vec<Piece>> {
    let Counted { request, each } = counted;
    let listed = items.iter().filter(|item| item.role.is_none()).count();
    let apart = request.system.len().checked_sub(listed)?;
    let mut system = each.system.iter().copied();
    let mut messages = each.messages.iter().copied();
    let mut front = Vec::from_iter(request.tools);
    front.extend(request.system.iter().take(apart).map(|content| content.raw));
    let system_digests = request.system.iter().take(apart);
    let digests = system_digests.map(|content| identity::of(None, content));
    let digests = request
        .tools
        .map(identity::of_raw)
        .into_iter()
        .chain(digests);
    let mut pieces = vec![Piece {
        tokens: each.tools + system.by_ref().take(apart).sum::<u64>(),
        digest: digests.fold(0, |digest: u64, one| digest.rotate_left(1) ^ one),
        mark: front.iter().filter_map(|raw| marked(raw)).max(),
    }];
    for item in items {
        let tokens = match item.role {
            None => system.next(),
            Some(_) => messages.next(),
        };
        let raw = item.content.raw;
        pieces.push(Piece {
            tokens: tokens?,
            digest: identity::of(item.role, &item.content),
            mark: marked(raw),
        });
    }
    Some(pieces)
}

/// The client's `cache_control` in a piece of the request.
fn marked(raw: &str) -> Option<Mark> {
    memchr::memmem::find(raw.as_bytes(), b"\"cache_control\"")?;
    let hour = memchr::memmem::find(raw.as_bytes(), b"\"1h\"").is_some();
    Some(if hour { Mark::Hour } else { Mark::Short })
}
