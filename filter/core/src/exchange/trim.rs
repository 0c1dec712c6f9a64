//! Trimming in a request's life: what is asked of the sidecar for it, the body that goes out, and
//! what the ledger and the conversation's next turn are told.

use std::sync::Arc;

use sluice_wire::{Order, Remember, Similarity, Usage, Written};

use super::facts::Facts;
use super::{Effect, Effects, Label, Vm};
use crate::config::{Mode, Plan, RoutePlan};
use crate::formats::{ApiError, ErrorKind, Kind, Part, Request};
use crate::policy::accounting::Prompt;
use crate::policy::identity;
use crate::policy::trim::context::FIELD;
use crate::policy::trim::planner::{Nothing, Unmet, Why};
use crate::policy::trim::template::Template;
use crate::policy::trim::{self, Job, Known, Memories, Model, Trimmed};
use crate::tokens::Tokens;

/// Seconds for which a conversation is remembered: longer than any provider keeps its prefix, so that
/// what it saved is not forgotten over lunch.
const REMEMBERED_SECS: u32 = 6 * 3600;

/// What trimming knows of a request.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// There is something to do.
    pub(super) acts: bool,
    /// The template that a trusted caller asked for.
    pub(super) template: Option<Arc<Template>>,
    /// Most prompt tokens.
    pub(super) limit: Option<u64>,
    /// What the sidecar is still to be asked.
    pub(super) ask: Option<trim::Asked>,
    /// Names the conversation, with one model.
    pub(super) conversation: Option<String>,
    /// What the sidecar answered.
    pub(super) similarities: Vec<Similarity>,
    /// What was to be remembered at the turn before.
    pub(super) state: Option<String>,
    /// What was written of what the conversation leaves out.
    pub(super) summaries: Vec<Written>,
    /// What came of it.
    pub(super) done: Option<Done>,
}

/// Texts that are put into the prompt beside the client's messages: chunks that came in their field,
/// and the template.
#[derive(Debug, Default)]
pub(super) struct PutIn {
    /// All of them.
    pub(super) whole: String,
    /// The longest that they can be with what stays of the chunks, where not all may.
    pub(super) at_most: Option<String>,
}

/// What came of trimming a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    /// Prompt tokens that were left out; in mode `dry`: that would have been.
    left_out: u64,
    /// What went out is not the request with nothing left out.
    cut: bool,
    /// What went out is not what the client's messages measure.
    other: bool,
    /// Prompt tokens of what went out by our count, where the conversation was planned, so that the
    /// provider's cache is known as far as it can be.
    planned: Option<u64>,
    nothing: Nothing,
    state: Option<String>,
    /// What is to be written of what was left out; paid for in `state`.
    order: Option<Order>,
}

impl Facts {
    /// Finds out what has to be known for what there is to trim.
    pub(super) fn look_to_trim(
        &mut self,
        request: &Request<'_>,
        route: &RoutePlan,
        (plan, tokens): (&Plan, &Tokens),
    ) -> Result<(), ApiError> {
        let policy = &route.trim;
        if self.trim.acts && policy.mode == Mode::On && request.fields.get(FIELD).is_some() {
            trim::context::Found::of(request, None).map_err(|fault| unusable(&fault.into()))?;
        }
        let history = policy.history.is_some();
        let Some(first) = self.options.first().filter(|_| self.trim.acts) else {
            return Ok(());
        };
        if history && policy.mode == Mode::On {
            self.trim.conversation = Some(self.conversation(request, route, &first.choice.model));
        }
        if plan.sidecar.is_some() {
            self.trim.ask =
                trim::asked(&self.job(request, route, (plan, &first.choice.model, tokens)));
        }
        Ok(())
    }

    /// Finds out whether there is anything to do: something is configured, or a field of ours is to
    /// go.
    pub(super) fn look_for_work(&mut self, request: &Request<'_>, route: &RoutePlan) {
        let policy = &route.trim;
        self.trim.acts = policy.mode != Mode::Off
            && self.format.kind() == Kind::Generation
            && (policy.history.is_some()
                || policy.context.is_some()
                || policy.system.is_some()
                || self.template(route).is_some()
                || request.fields.get(FIELD).is_some()
                || trim::edits::may_be_pinned(request.body));
    }

    /// What is put into the prompt beside the client's messages.
    pub(super) fn put_in(
        &self,
        request: &Request<'_>,
        route: &RoutePlan,
        len: &dyn Fn(&str) -> u64,
    ) -> PutIn {
        if !self.trim.acts {
            return PutIn::default();
        }
        let has_chunks = request.fields.get(FIELD).is_some();
        let found = has_chunks.then(|| trim::context::Found::of(request, None).ok());
        let found = found.flatten();
        let template = self.template(route).map(Template::text).unwrap_or_default();
        let and_template = |chunks: String| chunks + &template;
        let policy = route.trim.context.as_ref();
        let top_k = policy.filter(|_| route.trim.mode == Mode::On);
        let longest = found.as_ref().zip(top_k.and_then(|policy| policy.top_k));
        PutIn {
            at_most: longest.and_then(|(found, most)| found.longest(most, len).map(and_template)),
            whole: and_template(found.and_then(|it| it.whole().given).unwrap_or_default()),
        }
    }

    /// The limit on the prompt, where there is one.
    pub(super) fn look_for_limit(&mut self, route: &RoutePlan, plan: &Plan) {
        let limits = route.trim.input.as_ref();
        let Some(limits) = limits.filter(|_| route.trim.mode != Mode::Off) else {
            return;
        };
        // A dated snapshot has its model's limit, unless it has one of its own.
        let asked = self.model_asked.as_str();
        let listed = match limits.models.contains_key(asked) {
            true => asked,
            false => plan.model(asked).map_or(asked, |(name, _)| name),
        };
        self.trim.limit = limits.of(&self.caller.tenant, listed);
    }

    /// Digest of what changes the request beyond its model and output limit.
    pub(super) fn policies(&self, route: &RoutePlan) -> [u8; 32] {
        match &self.trim.template {
            None => route.digest,
            Some(template) => {
                let mut hash = blake3::Hasher::new();
                hash.update(&route.digest).update(&template.digest());
                *hash.finalize().as_bytes()
            }
        }
    }

    /// Names what the provider may hold the beginning of: a conversation with one model.
    fn conversation(&self, request: &Request<'_>, route: &RoutePlan, model: &str) -> String {
        let mut hash = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(b"sluice conversation v1");
        for name in [&self.caller.tenant, &route.name, model, self.format.name()] {
            part(name.as_bytes());
        }
        let id = self.caller.conversation.as_str();
        part(id.as_bytes());
        // What is said at its beginning stays as long as it lasts; marks for a cache move.
        let first = request.messages.first().map(|message| &message.content);
        let system = request.system.iter().filter(|_| id.is_empty());
        // An id that another caller made up is not enough to be taken for this one.
        let first = first.filter(|_| id.is_empty() || self.caller.tenant == identity::ANONYMOUS);
        for one in system.chain(first).flat_map(|one| &one.parts) {
            if let Part::Text(text) = one {
                part(text.escaped().as_bytes());
            }
        }
        hash.finalize().to_hex().to_string()
    }

    /// The template that the request goes into: none in a dry run.
    fn template<'r>(&'r self, route: &'r RoutePlan) -> Option<&'r Template> {
        let template = self.trim.template.as_ref().or(route.trim.template.as_ref());
        template
            .filter(|_| route.trim.mode == Mode::On)
            .map(Arc::as_ref)
    }

    fn job<'j>(
        &'j self,
        request: &'j Request<'j>,
        route: &'j RoutePlan,
        (plan, name, tokens): (&'j Plan, &'j str, &Tokens),
    ) -> Job<'j> {
        Job {
            request,
            format: self.format,
            policy: &route.trim,
            template: self.template(route),
            model: Model::of(plan, name, tokens),
            limit: self.trim.limit.filter(|_| route.trim.mode == Mode::On),
            known: Known::default(),
        }
    }

    /// Holds the question against the limit of its template. True: over, and to go to the small tier.
    pub(super) fn over_question_limit(
        &self,
        request: &Request<'_>,
        route: &RoutePlan,
        vm: &Vm,
    ) -> Result<bool, ApiError> {
        let Some(template) = self.template(route) else {
            return Ok(false);
        };
        let asked = vm.plan.model(&self.model_asked);
        let mut count = |text: &str| {
            let encoding = asked.and_then(|(_, model)| model.encoding);
            let exact = encoding.and_then(|encoding| vm.tokens.count_text(encoding, text));
            let name = asked.map_or(self.model_asked.as_str(), |(name, _)| name);
            exact.unwrap_or_else(|| vm.tokens.estimate(name, text.len() as u64))
        };
        let Err(over) = template.check(request, &mut count) else {
            return Ok(false);
        };
        match over.over {
            sluice_wire::Over::Shadow => Ok(false),
            sluice_wire::Over::SmallTier => Ok(true),
            sluice_wire::Over::Reject => Err(ApiError {
                kind: ErrorKind::InvalidRequest,
                message: over.to_string(),
                code: "question_too_long",
            }),
        }
    }

    /// Prompt tokens that would go out of a prompt that is over its limit, by words alone and as if
    /// nothing had gone out before; None where nothing is trimmed.
    pub(super) fn trimmed_to_limit(
        &self,
        request: &Request<'_>,
        route: &RoutePlan,
        model: &str,
        vm: &mut Vm,
    ) -> Option<u64> {
        if route.trim.mode != Mode::On || !self.trim.acts {
            return None;
        }
        let plan = vm.plan.clone();
        let job = self.job(request, route, (&plan, model, &vm.tokens));
        trim::trim(&job, &mut vm.memories())
            .ok()
            .map(|trimmed| trimmed.after)
    }

    /// Trims the chosen option's body. What goes out, where that is not the option's own.
    pub(super) fn trim(
        &mut self,
        now_ns: u64,
        vm: &mut Vm,
        effects: &mut Effects,
    ) -> Result<Option<Vec<u8>>, ApiError> {
        vm.serve(&self.caller.tenant);
        let plan = vm.plan.clone();
        let Some(option) = self.options.get(self.chosen).filter(|_| self.trim.acts) else {
            return Ok(None);
        };
        let route = self.route(&plan);
        let own = option
            .body
            .as_deref()
            .and_then(|body| std::str::from_utf8(body).ok());
        let Ok(request) = self.format.parse_again(own.unwrap_or(&self.body)) else {
            return Ok(None);
        };
        // What is known is of the conversation with the model that was asked about. A turn that comes
        // at once may be faster than the sidecar is told of the one before; its connection, and so
        // its worker, are mostly the same.
        let conversation = self.trim.conversation.as_ref().filter(|_| self.chosen == 0);
        let own = conversation.and_then(|conversation| vm.conversations.get(conversation));
        let told = self.trim.state.as_deref().filter(|_| self.chosen == 0);
        let state = trim::newer(own.as_deref(), told).map(str::to_owned);
        let job = Job {
            known: Known {
                similarities: &self.trim.similarities,
                state: state.as_deref(),
                summaries: match self.chosen {
                    0 => &self.trim.summaries,
                    _ => &[],
                },
                now_ms: now_ns / 1_000_000,
            },
            ..self.job(&request, route, (&plan, &option.choice.model, &vm.tokens))
        };
        let trimmed = match trim::trim(&job, &mut vm.memories()) {
            Ok(trimmed) => trimmed,
            Err(fault) if route.trim.mode == Mode::On => return Err(unusable(&fault)),
            Err(fault) => {
                effects
                    .list
                    .push(Effect::Debug(format!("not trimmed: {fault}")));
                return Ok(None);
            }
        };
        effects.trimmed(&trimmed, route.trim.mode, vm);
        let on = route.trim.mode == Mode::On;
        let done = Done {
            cut: on && trimmed.body.is_some(),
            other: on && trimmed.body.is_some() || trimmed.whole.is_some(),
            left_out: trimmed.before.saturating_sub(trimmed.after),
            planned: trimmed.planned,
            nothing: trimmed.nothing,
            state: trimmed.state.filter(|_| self.chosen == 0),
            order: trimmed.order.filter(|_| self.chosen == 0),
        };
        let body = match route.trim.mode {
            Mode::On => trimmed.body.map(String::into_bytes),
            Mode::Off | Mode::Dry => None,
        };
        let whole = trimmed.whole.map(String::into_bytes);
        let untrimmed =
            || self.untrimmed_of(whole.as_deref().unwrap_or(request.body.as_bytes()), vm);
        self.untrimmed = body.as_ref().and_then(|_| untrimmed());
        self.trim.done = Some(done);
        Ok(body.or(whole))
    }

    /// Nothing was trimmed after all.
    pub(super) fn untrim(&mut self) {
        self.trim.done = None;
    }

    /// Prompt tokens that were left out.
    pub(super) fn left_out(&self, plan: &Plan) -> u64 {
        let on = self.route(plan).trim.mode == Mode::On && !self.cache.answers();
        self.trim
            .done
            .as_ref()
            .filter(|_| on)
            .map_or(0, |done| done.left_out)
    }

    /// What went out is not the request with nothing left out: what upstream has against it says
    /// nothing of that one.
    pub(super) fn is_cut(&self) -> bool {
        self.trim.done.as_ref().is_some_and(|done| done.cut)
    }

    /// The prompt that went out is that of the client's messages.
    pub(super) fn is_as_measured(&self) -> bool {
        self.trim.done.as_ref().is_none_or(|done| !done.other)
    }

    /// The prompt as it would have been with nothing left out, and as it would be with what a dry run
    /// would leave out.
    pub(super) fn prompts(&self, plan: &Plan, usage: &Usage) -> (Option<Prompt>, Option<Prompt>) {
        let Some(done) = self.trim.done.as_ref().filter(|_| !self.cache.answers()) else {
            return (None, None);
        };
        match self.route(plan).trim.mode {
            Mode::On => (done.untrimmed(usage), None),
            Mode::Dry if done.left_out > 0 => (None, Some(done.dry(usage))),
            Mode::Off | Mode::Dry => (None, None),
        }
    }

    /// Upstream has taken the request: this worker remembers it for the conversation's next turn.
    pub(super) fn taken(&self, vm: &mut Vm) {
        if let (Some(conversation), Some(done)) = (&self.trim.conversation, &self.trim.done)
            && let Some(state) = &done.state
        {
            vm.conversations.put(conversation, state);
        }
    }

    /// What the conversation's next turn wants told, whichever worker serves it, once upstream has
    /// answered.
    pub(super) fn remember(&mut self) -> Option<Remember> {
        let done = self.trim.done.as_mut()?;
        let state = done.state.take()?;
        let conversation = self.trim.conversation.take()?;
        Some(Remember {
            conversation,
            state,
            ttl_secs: REMEMBERED_SECS,
            order: done.order.take(),
        })
    }
}

impl Done {
    fn untrimmed(&self, usage: &Usage) -> Option<Prompt> {
        let same = self.nothing.held == self.nothing.sent_held;
        match self.planned {
            Some(_) if self.left_out == 0 && same => None,
            Some(sent) => Some(self.nothing.prompt(sent, usage)),
            None if self.left_out == 0 => None,
            // What stood before it was read as it would have been.
            None => Some(Prompt {
                tokens: usage.prompt.saturating_add(self.left_out),
                cached: usage.cached,
                cache_write: usage.cache_write,
            }),
        }
    }

    fn dry(&self, usage: &Usage) -> Prompt {
        let tokens = usage.prompt.saturating_sub(self.left_out);
        let held = match self.planned {
            Some(_) => self.nothing.sent_held,
            None => usage.cached,
        };
        let cached = usage.cached.min(held).min(tokens);
        Prompt {
            tokens,
            cached,
            cache_write: usage.cache_write.min(tokens - cached),
        }
    }
}

impl Effects {
    /// Tells what was trimmed: never a text.
    fn trimmed(&mut self, trimmed: &Trimmed, mode: Mode, vm: &mut Vm) {
        let how = match (mode, trimmed.why) {
            (Mode::Dry, _) => "dry",
            _ if trimmed.after >= trimmed.before => "whole",
            _ if trimmed.kept.is_none() => "texts",
            (_, Some(Why::Whole) | None) => "texts",
            (_, Some(Why::Extended)) => "extended",
            (_, Some(Why::Mended)) => "mended",
            (_, Some(Why::Anew)) => "anew",
        };
        self.count(vm, ("trim", &[(Label::Action, how)]), 1);
        let left_out = trimmed.before.saturating_sub(trimmed.after);
        if left_out > 0 {
            self.count(vm, ("trimmed_tokens", &[(Label::Action, how)]), left_out);
        }
        if let Some(unmet) = trimmed.unmet {
            let what = match unmet {
                Unmet::Needed => "needed",
                Unmet::Price => "price",
            };
            self.count(vm, ("trim_unmet", &[(Label::Result, what)]), 1);
        }
        let texts = trimmed.texts;
        for (result, is) in [
            ("used", texts.used),
            ("lost", texts.lost),
            ("ordered", trimmed.order.is_some()),
        ] {
            if is && mode == Mode::On {
                self.count(vm, ("trim_summary", &[(Label::Result, result)]), 1);
            }
        }
        if trimmed.system_cut && mode == Mode::On {
            self.count(vm, ("system_prompt_cut", &[]), 1);
        }
        self.list.push(Effect::Debug(format!(
            "trim {how}: {} of {} tokens, messages {:?}",
            trimmed.after, trimmed.before, trimmed.kept
        )));
    }
}

fn unusable(fault: &trim::Fault) -> ApiError {
    ApiError {
        kind: ErrorKind::InvalidRequest,
        message: fault.to_string(),
        code: "invalid_context",
    }
}

impl Vm {
    /// What trimming remembers.
    fn memories(&mut self) -> Memories<'_> {
        Memories {
            tokens: &mut self.tokens,
            terms: &mut self.terms,
            digests: &mut self.digests,
        }
    }
}
