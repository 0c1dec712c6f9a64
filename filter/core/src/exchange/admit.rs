//! Admission: the sidecar's word, or this process's counters, and then the request as it goes out.

use sluice_wire::{
    AdmitReply, AdmitRequest, Auto, CacheAsk, CacheResult, Frame, Question, Verdict, header, limit,
    path,
};

use super::decide::recount;
use super::facts::{CacheWish, Facts, Option_, Spare, Stored, Vain};
use super::{Effect, Effects, Exchange, Host, Label, Phase, Vm};
use crate::config::{Mode, OnFailure, Plan, Sidecar};
use crate::formats::{ApiError, ErrorKind};
use crate::policy::budget::{self, Local};

/// Longest wait of one call: a sidecar that stands still costs no more than this and the time for
/// an answer.
const STEP_MS: u32 = 2000;

/// Inputs that are looked up in a millisecond beyond the usual time: some KiB each, which are
/// fetched, sent and read.
const INPUTS_PER_MS: usize = 16;

/// How often a request asks on, beyond once a step.
const WAITS: u16 = 12;

/// Before it asks again where it waited at a sidecar that died: the next one may be the dead one
/// again until Envoy knows. Doubled each time.
const PAUSE_MS: u64 = 50;

/// How long it asks in vain before it goes by itself. Envoy leaves a dead sidecar alone after a
/// call or two; but where the other one was left alone just before, all go to the dead one until
/// that is over.
const VAIN_NS: u64 = 3_000_000_000;

/// How often a request asks for another's answer, however soon it is told to wait on.
fn most_waits(sidecar: &Sidecar) -> u16 {
    let steps = u16::try_from(sidecar.wait_ms / STEP_MS).unwrap_or(u16::MAX);
    WAITS.saturating_add(steps)
}

impl Facts {
    /// How long the lease holds that it asks for; 0: none.
    pub(super) fn lease_ms(&self, plan: &Plan) -> u32 {
        let cache = &self.route(plan).cache;
        match cache.mode == Mode::On && self.looks_up() && !self.alone {
            true => cache.lease_ms,
            false => 0,
        }
    }

    /// The question to look up, once.
    fn compare(&self, plan: &Plan) -> Option<Question> {
        let cache = &self.route(plan).cache;
        let semantic = cache.semantic?;
        let first = self.looks_up() && self.under.is_none() && !self.compared;
        let scoped = self.options.iter().any(|option| option.scope.is_some());
        let text = self.question.as_ref().filter(|_| first && scoped)?;
        Some(Question {
            text: text.clone(),
            max_ms: semantic.timeout_ms,
            threshold_milli: semantic.threshold_milli,
            // In dry they all go upstream, so that each can be audited at no cost.
            auto: semantic.auto.map(|auto| match cache.mode {
                Mode::Dry => Auto {
                    audit_ppm: 1_000_000,
                    ..auto
                },
                _ => auto,
            }),
        })
    }
}

impl Exchange {
    /// Asks whether the request may go and whether its answer is known.
    pub(super) fn admit(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        let plan = vm.plan.clone();
        let trims =
            facts.trim.ask.is_some() || facts.trim.conversation.is_some() && plan.sidecar.is_some();
        let nothing_to_ask = !trims
            && facts.options.iter().all(|option| {
                option.charges.is_empty()
                    && (option.key.is_none() || facts.cache_wish != CacheWish::Use)
            });
        if nothing_to_ask {
            self.go(vm, host, effects);
            return;
        }
        let Some(sidecar) = &plan.sidecar else {
            self.admit_locally(vm, host, effects);
            return;
        };
        // One that waited at a sidecar that died looks for another; how often is bounded, and says
        // nothing about the others.
        if facts.wait.is_none() && !vm.breaker.allows(sidecar, host.now_ns()) {
            effects.count(vm, ("sidecar", &[(Label::Result, "skipped")]), 1);
            self.without_sidecar(vm, host, effects);
            return;
        }
        self.call(path::ADMIT, vm, host, effects);
    }

    /// Asks the sidecar, now or once another request's answer is there.
    fn call(
        &mut self,
        path: &'static str,
        vm: &mut Vm,
        host: &mut dyn Host,
        effects: &mut Effects,
    ) {
        let plan = vm.plan.clone();
        let (Some(facts), Some(sidecar)) = (self.facts.as_mut(), &plan.sidecar) else {
            return;
        };
        let waits = path == path::WAIT;
        let wait_ms = match facts.wait {
            Some((until_ns, _)) if waits => until_ns.saturating_sub(host.now_ns()) / 1_000_000,
            _ => 0,
        };
        let wait_ms = u32::try_from(wait_ms).unwrap_or(u32::MAX).min(STEP_MS);
        let lookup = facts.looks_up();
        let question = facts.compare(&plan).filter(|_| !waits);
        facts.compared |= question.is_some();
        let compare_ms = question.as_ref().map_or(0, |question| question.max_ms);
        // Once: what was not known in time is at the next turn.
        let (relevance, texts) = match facts.trim.ask.take().filter(|_| !waits) {
            Some(ask) => (Some(ask.relevance), ask.texts),
            None => (None, Vec::new()),
        };
        let compare_ms = relevance
            .as_ref()
            .map_or(compare_ms, |it| it.max_ms.max(compare_ms));
        let request = AdmitRequest {
            id: facts.id.clone(),
            tenant: facts.caller.tenant.clone(),
            route: facts.route(&plan).name.clone(),
            hold_secs: plan.reserve.hold_secs,
            plans: facts
                .options
                .iter()
                .map(|option| sluice_wire::Plan {
                    key: option.key.clone().filter(|_| lookup),
                    scope: option.scope.clone().filter(|_| question.is_some()),
                    inputs: match lookup {
                        true => u32::try_from(option.inputs.len()).unwrap_or(u32::MAX),
                        false => 0,
                    },
                    charges: option.charges.clone(),
                })
                .collect(),
            cache: CacheAsk {
                lease_ms: facts.lease_ms(&plan),
                wait_ms,
                lease: facts.under.clone(),
                behind: vm.refreshes(facts),
                failing: facts.guarded.any_answer || facts.upstream_fails(vm, host),
                question,
                vector_bytes: facts.vector_room(&plan),
            },
            relevance,
            conversation: facts.trim.conversation.clone().filter(|_| !waits),
        };
        let mut keys = Vec::new();
        for option in facts.options.iter().filter(|_| lookup) {
            keys.extend(option.inputs.iter().flatten());
        }
        let inputs_ms = keys.len() / limit::KEY / INPUTS_PER_MS;
        keys.extend(texts);
        match (Frame {
            head: request,
            body: keys,
        })
        .encode()
        {
            Ok(body) => {
                self.phase = match waits {
                    true => Phase::Waiting,
                    false => Phase::Asked,
                };
                vm.waiting += usize::from(waits);
                effects.list.push(Effect::Call {
                    path,
                    body,
                    timeout_ms: sidecar
                        .timeout_ms
                        .saturating_add(wait_ms)
                        .saturating_add(compare_ms)
                        .saturating_add(u32::try_from(inputs_ms).unwrap_or(u32::MAX)),
                });
                effects.flow = super::Flow::Pause;
            }
            Err(_) => self.without_sidecar(vm, host, effects),
        }
    }

    /// The sidecar's answer, or none.
    pub(super) fn reply(
        &mut self,
        reply: Option<(u16, &[u8])>,
        vm: &mut Vm,
        host: &mut dyn Host,
        effects: &mut Effects,
    ) {
        let waited = match self.phase {
            Phase::Asked => false,
            Phase::Waiting => true,
            _ => return,
        };
        vm.waiting -= usize::from(waited);
        let read = reply.and_then(|(status, body)| {
            let frame = Frame::<AdmitReply, _>::decode(body)
                .ok()
                .filter(|_| status == 200)?;
            let known = |plan: u8| {
                self.facts
                    .as_ref()
                    .is_some_and(|facts| usize::from(plan) < facts.options.len())
            };
            match &frame.head.verdict {
                Verdict::Go { plan, .. } | Verdict::Hit { plan, .. } if !known(*plan) => None,
                // Nothing was looked up: a sidecar that says so again and again must not hold the
                // request.
                Verdict::Hit { plan, .. } if !self.looked_up(*plan) => None,
                Verdict::Over { rule, .. } if usize::from(*rule) >= vm.plan.budgets.len() => None,
                Verdict::Wait if !self.may_wait(&vm.plan) => None,
                _ if !self
                    .facts
                    .as_ref()
                    .is_some_and(|facts| facts.vectors_fit(&frame.head, frame.body, &vm.plan)) =>
                {
                    None
                }
                _ => Some(frame),
            }
        });
        let plan = vm.plan.clone();
        let Some(sidecar) = &plan.sidecar else { return };
        let Some(Frame { head, body }) = read else {
            if let Some(facts) = self.facts.as_mut() {
                facts.unheard |= facts.lease_ms(&vm.plan) > 0;
            }
            if self.waited_in_vain(waited, vm, (host, effects)) {
                return;
            }
            vm.breaker.failed(sidecar, host.now_ns());
            let result = match reply {
                Some(_) => "nonsense",
                None => "failed",
            };
            effects.count(vm, ("sidecar", &[(Label::Result, result)]), 1);
            self.without_sidecar(vm, host, effects);
            return;
        };
        vm.breaker.succeeded();
        effects.count(vm, ("sidecar", &[(Label::Result, "ok")]), 1);
        let rules = vm.plan.budgets.len();
        for rule in head.over.iter().filter(|rule| usize::from(**rule) < rules) {
            count_over(*rule, "pass", vm, effects);
        }
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        facts.vain = None;
        if head.similarities.is_some() {
            facts.trim.similarities = head.similarities.unwrap_or_default();
        }
        facts.trim.state = head.sent.or(facts.trim.state.take());
        if !head.summaries.is_empty() {
            facts.trim.summaries = head.summaries;
        }
        let vectors = head.vectors;
        match head.verdict {
            Verdict::Go {
                plan,
                lease,
                spare,
                audit,
            } => {
                facts.chosen = usize::from(plan);
                if let Some(lease) = lease {
                    facts.unheard = false;
                    facts.lease = facts
                        .option()
                        .and_then(|option| option.key.clone())
                        .map(|key| (key, lease));
                }
                // In dry none goes out, and nobody reads the answer of a refresh.
                let on = facts.route(&vm.plan).cache.mode == Mode::On && facts.under.is_none();
                let found = spare.filter(|_| on).map(|spare| Stored {
                    age_secs: spare.age_secs,
                    entry: spare.entry,
                    body,
                    vectors: None,
                });
                let audit = audit.filter(|_| facts.compared && facts.under.is_none());
                facts.spare = match found {
                    // Without it the audit could cost the client its answer.
                    Some(found) if audit.is_some() && !Spare::fits(&found, &vm.spares) => {
                        let result = (CacheResult::Semantic, None);
                        return self.hit(found, result, vm, (host, effects));
                    }
                    found => found.and_then(|found| Spare::hold(found, &vm.spares)),
                };
                if let Some(audit) = audit {
                    facts.audited(*audit, vm, effects);
                }
                if let Some(vectors) = vectors {
                    facts.partly(vectors, body, vm, effects);
                }
                self.go(vm, host, effects);
            }
            // Another one was faster, or upstream is to be spared.
            Verdict::Hit { .. } if facts.under.is_some() => self.superseded(effects),
            Verdict::Hit {
                plan,
                age_secs,
                entry,
                result,
                refresh,
            } => {
                facts.chosen = usize::from(plan);
                let found = Stored {
                    age_secs,
                    entry,
                    body,
                    vectors,
                };
                let result = match result.answers() {
                    true => result,
                    false => CacheResult::Hit,
                };
                self.hit(found, (result, refresh), vm, (host, effects));
            }
            Verdict::Wait => self.wait(vm, host, effects),
            Verdict::Count if facts.options.iter().any(Option_::estimated) => {
                recount(facts, vm);
                self.admit(vm, host, effects);
            }
            // It asked for more than there is.
            Verdict::Count => self.without_sidecar(vm, host, effects),
            Verdict::Over {
                rule,
                limit,
                used,
                reset_secs,
            } => self.over_budget((rule, limit, used, reset_secs), vm, (host, effects)),
        }
    }

    /// Waits for another request's answer, while there is time and room.
    fn wait(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        let plan = vm.plan.clone();
        let (Some(facts), Some(sidecar)) = (self.facts.as_mut(), &plan.sidecar) else {
            return;
        };
        if facts.under.is_some() {
            return self.superseded(effects);
        }
        let now_ns = host.now_ns();
        let whole = now_ns.saturating_add(u64::from(sidecar.wait_ms) * 1_000_000);
        let (until_ns, times) = facts.wait.unwrap_or((whole, 0));
        facts.wait = Some((until_ns, times.saturating_add(1)));
        if now_ns < until_ns && times < most_waits(sidecar) && vm.waiting < sidecar.waits {
            return self.call(path::WAIT, vm, host, effects);
        }
        effects.count(vm, ("wait", &[(Label::Result, "alone")]), 1);
        facts.alone = true;
        self.admit(vm, host, effects);
    }

    /// Another request refreshes the answer already, or there is nobody to keep a new one: nothing
    /// is to be done, and nobody reads this.
    fn superseded(&mut self, effects: &mut Effects) {
        if let Some(facts) = self.facts.as_mut() {
            facts.superseded = true;
        }
        let error = ApiError {
            kind: ErrorKind::Unavailable,
            message: "There is nothing to refresh.".into(),
            code: "refresh_superseded",
        };
        self.refuse(&error, Vec::new(), effects);
    }

    /// The sidecar that it waited at, or asked after it had waited, is gone or made no sense:
    /// another one may know more. Says whether it asks again, which it does in a moment.
    fn waited_in_vain(
        &mut self,
        waited: bool,
        vm: &mut Vm,
        (host, effects): (&mut dyn Host, &mut Effects),
    ) -> bool {
        let plan = vm.plan.clone();
        let (Some(facts), Some(sidecar)) = (self.facts.as_mut(), &plan.sidecar) else {
            return false;
        };
        let Some((until_ns, _)) = facts.wait else {
            return false;
        };
        let now_ns = host.now_ns();
        let vain = facts.vain.unwrap_or(Vain {
            times: 0,
            until_ns: until_ns.min(now_ns.saturating_add(VAIN_NS)),
            again_ns: now_ns,
        });
        let over = now_ns >= vain.until_ns || vm.waiting >= sidecar.waits;
        if waited {
            effects.count(vm, ("wait", &[(Label::Result, "failed")]), 1);
        } else if over {
            return false;
        }
        if over {
            facts.alone = true;
            self.admit(vm, host, effects);
            return true;
        }
        let pause_ms = PAUSE_MS << vain.times.min(16);
        let again_ns = now_ns.saturating_add(pause_ms * 1_000_000);
        facts.vain = Some(Vain {
            times: vain.times.saturating_add(1),
            again_ns: again_ns.min(vain.until_ns),
            ..vain
        });
        vm.waiting += 1;
        self.phase = Phase::Retrying;
        effects.list.push(Effect::Queue);
        effects.flow = super::Flow::Pause;
        true
    }

    /// One whose sidecar died looks whether it may ask again.
    pub(super) fn ask_again(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        let now_ns = host.now_ns();
        if facts.vain.is_some_and(|vain| now_ns < vain.again_ns) {
            effects.flow = super::Flow::Pause;
            return;
        }
        vm.waiting = vm.waiting.saturating_sub(1);
        facts.alone |= facts.vain.is_none_or(|vain| now_ns >= vain.until_ns);
        self.admit(vm, host, effects);
    }

    /// Whether it asked for a lease, so that it may be told to wait for another's.
    fn may_wait(&self, plan: &Plan) -> bool {
        self.facts.as_ref().is_some_and(|facts| {
            facts.lease_ms(plan) > 0 && facts.options.iter().any(|option| option.key.is_some())
        })
    }

    /// Whether the sidecar was asked for a stored answer to that plan.
    fn looked_up(&self, plan: u8) -> bool {
        self.facts.as_ref().is_some_and(|facts| {
            facts.looks_up()
                && facts
                    .options
                    .get(usize::from(plan))
                    .is_some_and(|option| option.key.is_some())
        })
    }

    fn without_sidecar(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        let plan = vm.plan.clone();
        let closed = plan
            .sidecar
            .as_ref()
            .is_some_and(|sidecar| sidecar.on_failure == OnFailure::Closed);
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        if facts.under.is_some() {
            return self.superseded(effects);
        }
        let budgeted = facts.format.kind().asks_a_model();
        if closed && budgeted && facts.route(&plan).mode == Mode::On {
            let error = ApiError {
                kind: ErrorKind::Unavailable,
                message: "Budgets cannot be checked at the moment; try again shortly.".into(),
                code: "budgets_unavailable",
            };
            self.refuse(&error, vec![("retry-after", "1".into())], effects);
            return;
        }
        if facts.cache == CacheResult::Miss {
            facts.cache = CacheResult::Bypass;
        }
        self.admit_locally(vm, host, effects);
    }

    fn admit_locally(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        for exact in [false, true] {
            let Some(facts) = self.facts.as_mut() else {
                return;
            };
            if exact {
                recount(facts, vm);
            }
            let plans: Vec<_> = facts
                .options
                .iter()
                .map(|option| option.charges.as_slice())
                .collect();
            let mut over = Vec::new();
            let decision = budget::reserve_locally(&plans, &mut over, host);
            if decision == Local::Count && !exact {
                continue;
            }
            for rule in over {
                count_over(rule, "pass", vm, effects);
            }
            match decision {
                Local::Go(plan) => {
                    facts.chosen = plan;
                    facts.reserved_locally = Some(host.now_ns() / 1_000_000_000);
                    self.go(vm, host, effects);
                }
                Local::Over {
                    rule,
                    limit,
                    used,
                    reset_secs,
                } => {
                    self.over_budget((rule, limit, used, reset_secs), vm, (host, effects));
                }
                Local::Count => self.go(vm, host, effects),
            }
            return;
        }
    }

    fn over_budget(
        &mut self,
        (rule, limit, used, reset_secs): (u16, u64, u64, u64),
        vm: &mut Vm,
        (host, effects): (&mut dyn Host, &mut Effects),
    ) {
        let Some(budget) = vm.plan.budgets.get(usize::from(rule)) else {
            self.send(host.now_ns(), vm, effects);
            return;
        };
        let (unit, window) = (budget.unit, budget.every.name());
        count_over(rule, "reject", vm, effects);
        let show = |amount: u64| match unit {
            sluice_wire::Unit::Tokens => format!("{amount} tokens"),
            sluice_wire::Unit::Usd => format!(
                "${}",
                sluice_wire::Usd(i64::try_from(amount).unwrap_or(i64::MAX))
            ),
        };
        let error = ApiError {
            kind: ErrorKind::RateLimited,
            message: format!(
                "This request would exceed the budget of {} per {window} ({} used or reserved). Try again in {reset_secs} s.",
                show(limit),
                show(used),
            ),
            code: "budget_exceeded",
        };
        let plain = |amount: u64| match unit {
            sluice_wire::Unit::Tokens => amount.to_string(),
            sluice_wire::Unit::Usd => {
                sluice_wire::Usd(i64::try_from(amount).unwrap_or(i64::MAX)).to_string()
            }
        };
        let names = match unit {
            sluice_wire::Unit::Tokens => [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ],
            sluice_wire::Unit::Usd => [
                "x-ratelimit-limit-dollars",
                "x-ratelimit-remaining-dollars",
                "x-ratelimit-reset-dollars",
            ],
        };
        let headers = vec![
            ("retry-after", reset_secs.max(1).to_string().into()),
            (names[0], plain(limit).into()),
            (names[1], plain(limit.saturating_sub(used)).into()),
            (names[2], format!("{reset_secs}s").into()),
        ];
        self.refuse(&error, headers, effects);
    }

    /// Sends the request upstream as the chosen option wants it.
    pub(super) fn send(&mut self, now_ns: u64, vm: &mut Vm, effects: &mut Effects) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        let trimmed = match facts.trim(now_ns, vm, effects) {
            Ok(trimmed) => trimmed,
            Err(error) => return self.refuse(&error, Vec::new(), effects),
        };
        self.phase = Phase::Sent;
        let unknown = facts.unknown_places();
        effects.items(vm, "miss", unknown);
        let part = facts.take_apart().or(trimmed);
        facts.body = String::new();
        facts.hiding = facts.usage_edit.is_some();
        let chosen = facts.chosen;
        let option = facts.options.get_mut(chosen);
        let body = option.and_then(|option| option.body.take());
        let body = part.or(body);
        let on = facts.route(&vm.plan).route.mode == Mode::On;
        if let Some(tier) = facts.tier(&vm.plan).filter(|_| on) {
            // Whatever came under these names was removed with the headers.
            let (tier, model) = (tier.to_owned(), facts.model().to_owned());
            effects
                .list
                .push(Effect::AddRequestHeader(header::TIER, tier.into()));
            effects
                .list
                .push(Effect::AddRequestHeader(header::MODEL, model.into()));
            effects.list.push(Effect::ClearRouteCache);
        }
        if facts.untrimmed.is_some() {
            effects.list.push(Effect::KeepRequest);
        }
        if let Some(body) = body {
            match facts.relay(&body, now_ns, vm) {
                Some(relay) => {
                    facts.relayed = true;
                    effects.relay(relay);
                }
                None => effects.list.push(Effect::ReplaceRequestBody(body)),
            }
        }
        effects.list.push(Effect::ResumeRequest);
    }
}

/// A budget was over its limit, and what came of it.
fn count_over(rule: u16, action: &str, vm: &mut Vm, effects: &mut Effects) {
    let labels = [(Label::Rule, &*rule.to_string()), (Label::Action, action)];
    effects.count(vm, ("budget_over", &labels), 1);
}
