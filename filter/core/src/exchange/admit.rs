//! Admission: the sidecar's word, or this process's counters, and then the request as it goes out.

use sluice_wire::{
    AdmitReply, AdmitRequest, CacheResult, EntryHead, Frame, Outcome, Verdict, header, path,
};

use super::decide::recount;
use super::facts::{CacheWish, Option_};
use super::{Effect, Effects, Exchange, Host, Label, Phase, Vm};
use crate::config::{Mode, OnFailure};
use crate::formats::{ApiError, ErrorKind};
use crate::policy::budget::{self, Local};

impl Exchange {
    /// Asks whether the request may go and whether its answer is known.
    pub(super) fn admit(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        let plan = vm.plan.clone();
        let nothing_to_ask = facts.options.iter().all(|option| {
            option.charges.is_empty()
                && (option.key.is_none() || facts.cache_wish != CacheWish::Use)
        });
        if nothing_to_ask {
            self.send(vm, effects);
            return;
        }
        let Some(sidecar) = &plan.sidecar else {
            self.admit_locally(vm, host, effects);
            return;
        };
        if !vm.breaker.allows(sidecar, host.now_ns()) {
            effects.count(vm, ("sidecar", &[(Label::Result, "skipped")]), 1);
            self.without_sidecar(vm, host, effects);
            return;
        }
        let lookup = facts.looks_up();
        let request = AdmitRequest {
            id: facts.id.clone(),
            tenant: facts.caller.tenant.clone(),
            hold_secs: plan.reserve.hold_secs,
            plans: facts
                .options
                .iter()
                .map(|option| sluice_wire::Plan {
                    key: option.key.clone().filter(|_| lookup),
                    charges: option.charges.clone(),
                })
                .collect(),
            ..AdmitRequest::default()
        };
        match (Frame {
            head: request,
            body: b"",
        })
        .encode()
        {
            Ok(body) => {
                self.phase = Phase::Asked;
                effects.list.push(Effect::Call {
                    path: path::ADMIT,
                    body,
                    timeout_ms: sidecar.timeout_ms,
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
        if self.phase != Phase::Asked {
            return;
        }
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
                _ => Some(frame),
            }
        });
        let plan = vm.plan.clone();
        let Some(sidecar) = &plan.sidecar else { return };
        let Some(Frame { head, body }) = read else {
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
        match head.verdict {
            Verdict::Go { plan, .. } => {
                facts.chosen = usize::from(plan);
                self.send(vm, effects);
            }
            Verdict::Hit {
                plan,
                age_secs,
                entry,
                ..
            } => {
                facts.chosen = usize::from(plan);
                self.hit(&entry, body, age_secs, vm, host, effects);
            }
            // Nothing was asked for that could make us wait.
            Verdict::Wait => self.without_sidecar(vm, host, effects),
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
            } => self.over_budget(rule, limit, used, reset_secs, vm, effects),
        }
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

    /// Answers from the cache, if the stored answer can be told in the way that the client asked.
    fn hit(
        &mut self,
        entry: &EntryHead,
        answer: &[u8],
        age_secs: u64,
        vm: &mut Vm,
        host: &mut dyn Host,
        effects: &mut Effects,
    ) {
        let plan = vm.plan.clone();
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        let dry = facts.route(&plan).cache.mode == Mode::Dry;
        let told = match std::str::from_utf8(answer) {
            _ if dry || entry.format != facts.format.name() => None,
            Ok(text) if facts.stream => facts
                .format
                .replay(text, facts.stream_usage)
                .map(|sse| (sse, "text/event-stream")),
            Ok(_) => Some((answer.to_vec(), "application/json")),
            Err(_) => None,
        };
        facts.dry_hit = dry;
        let Some((body, content_type)) = told else {
            // Nothing was reserved: ask once more, without a key.
            facts.asked_plainly = true;
            self.admit(vm, host, effects);
            return;
        };
        facts.cache = CacheResult::Hit;
        facts.status = 200;
        facts.outcome = Outcome::Answered;
        facts.usage = Some(entry.usage);
        facts.body = String::new();
        let mut headers = vec![
            ("content-type", content_type.into()),
            ("age", age_secs.to_string().into()),
        ];
        headers.extend(facts.answer_headers(&plan));
        headers.extend(facts.cost_headers(&plan));
        self.phase = Phase::Local;
        effects.list.push(Effect::Respond {
            status: 200,
            headers,
            body,
        });
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
        if closed && facts.route(&plan).mode == Mode::On {
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
                    self.send(vm, effects);
                }
                Local::Over {
                    rule,
                    limit,
                    used,
                    reset_secs,
                } => {
                    self.over_budget(rule, limit, used, reset_secs, vm, effects);
                }
                Local::Count => self.send(vm, effects),
            }
            return;
        }
    }

    fn over_budget(
        &mut self,
        rule: u16,
        limit: u64,
        used: u64,
        reset_secs: u64,
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        let Some(budget) = vm.plan.budgets.get(usize::from(rule)) else {
            self.send(vm, effects);
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
    pub(super) fn send(&mut self, vm: &Vm, effects: &mut Effects) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        self.phase = Phase::Sent;
        facts.body = String::new();
        facts.hiding = facts.usage_edit.is_some();
        let chosen = facts.chosen;
        if let Some(body) = facts
            .options
            .get_mut(chosen)
            .and_then(|option| option.body.take())
        {
            effects.list.push(Effect::ReplaceRequestBody(body));
        }
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
        effects.list.push(Effect::ResumeRequest);
    }
}

/// A budget was over its limit, and what came of it.
fn count_over(rule: u16, action: &str, vm: &mut Vm, effects: &mut Effects) {
    let labels = [(Label::Rule, &*rule.to_string()), (Label::Action, action)];
    effects.count(vm, ("budget_over", &labels), 1);
}
