//! One request, trimmed: its chunks, its past, and what of that pays, put together.
//!
//! ```text
//! whole    the request as upstream takes it with nothing left out: our own fields gone
//! edited   the same with chunks chosen
//! turns    exchanges ─► scores ─► a fresh selection ─► the planner: whole, extended or anew
//! body     what is kept, edited from where the planner says, in the template
//! ```
//!
//! Everything is counted before and after; what saves nothing is not done. `steps` edits texts, `past`
//! leaves messages out, `writing` says what a model writes of them, `meaning` what the sidecar is asked
//! before, `state` what the next turn is told.

mod count;
mod meaning;
mod past;
mod state;
mod steps;
mod writing;

use sluice_wire::{Order, Similarity, Written};

use self::count::{Counted, count};
use self::meaning::{Similar, current};
use self::past::{Conversation, with_marks};
use self::state::State;
use self::steps::{Steps, placed};
use super::context::{self, Found};
use super::edits;
use super::planner::{Nothing, Unmet, Why};
use super::splices::Splices;
use super::summary::DigestMemory;
use super::template::Template;
use super::terms::TermMemory;
use crate::config::Trimming;
use crate::formats::{Format, Request};
use crate::tokens::Tokens;

pub use self::count::{Counting, Model};
pub use self::meaning::{Asked, asked};
pub use self::state::newer;
pub use self::writing::Texts;

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

/// What was found out about a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// How near the texts of [`Asked`] are to the question, in their order; fewer where it was not
    /// asked.
    pub similarities: &'a [Similarity],
    /// [`Trimmed::state`] of the turn before.
    pub state: Option<&'a str>,
    /// The texts that were written of [`Trimmed::order`].
    pub summaries: &'a [Written],
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
    /// What a model is to write of what is left out; paid for in what is to be remembered.
    pub order: Option<Order>,
    /// What came of the texts that were written before.
    pub texts: Texts,
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
    let conversation = job.format.conversation(request);
    let pins = conversation.as_ref();
    let pins = pins.map_or_else(Splices::default, |it| edits::unpinned(request.body, it));
    let (whole_body, whole_given) = placed(job, &pins, found.whole())?;
    let whole_request = parsed(job.format, whole_body.as_deref());
    let client = Counted::of(job, whole_request.as_ref().unwrap_or(request), memories);

    let conversation = conversation.filter(|_| whole_body.is_none());
    let mut steps = Steps::default();
    let similar = Similar::of(job, &found);
    steps.chunks(
        (job, &found, &state),
        (&client, &pins, similar.chunks),
        memories,
    )?;
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
    if let Some(mut conversation) = Conversation::of(job, (&client, conversation), outgoing) {
        let known = (question, similar.past);
        let last = state.as_ref().map(|state| (&state.sent, &state.memo));
        let decided = conversation.decide(job, known, last, memories);
        trimmed.after = decided.plan.tokens.saturating_add(client.each.once);
        trimmed.planned = Some(decided.plan.tokens);
        trimmed.why = Some(decided.plan.why);
        trimmed.unmet = decided.plan.unmet;
        trimmed.nothing = decided.plan.nothing;
        trimmed.kept = decided.kept();
        let remembered = (decided.plan.sent.clone(), decided.memo);
        trimmed.state = State::of(remembered, steps.selections).told();
        trimmed.order.clone_from(&decided.order);
        trimmed.texts = decided.texts;
        planned = !decided.plan.marks.is_empty() || trimmed.kept.is_some();
        let sent = conversation.body(job, &decided, outgoing);
        body = sent.map(|body| with_marks(job, body, &decided.plan));
        // Within a message a note may count otherwise than by itself; a mark in what is counted as the
        // JSON that it is (tools, parts that are no text) adds to it.
        if (decided.note.is_some() || !decided.plan.marks.is_empty())
            && let Some(request) = parsed(job.format, body.as_deref())
        {
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
