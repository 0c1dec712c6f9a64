//! The end: the ledger record, the budgets' actual charge, the answer to store, the metrics.

use std::borrow::Cow;
use std::fmt::Write as _;

use sluice_wire::{
    Answered, CacheResult, EntryHead, Lease, LeaseEnd, Lever, Outcome, Record, Release, Settle,
    Store, StoreVectors, Usage, Usd,
};

use super::facts::Facts;
use super::response::dollars;
use super::{Effect, Effects, Exchange, Host, Label, Metric, Phase, Vm};
use crate::config::{Plan, Price, Scope};
use crate::policy::accounting::{self, Bill};
use crate::policy::{budget, guard, tags};

impl Exchange {
    pub(super) fn done(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        let Some(mut facts) = self.facts.take() else {
            return;
        };
        vm.lets_go(phase, facts.route);
        facts.unguard(vm, host);
        // A body that never came whole was never decided about.
        let decided = !facts.options.is_empty() || facts.outcome == Outcome::Rejected;
        if !decided
            || matches!(
                phase,
                Phase::New | Phase::Passing | Phase::Done | Phase::Body
            )
        {
            return;
        }
        // Nobody asked, and nothing was spent: it is no request of anyone. What the sidecar may hold
        // for it lapses.
        if facts.superseded {
            return effects.count(vm, ("refresh_superseded", &[]), 1);
        }
        let plan = vm.plan.clone();
        // The client left while it was not sent yet: nothing went upstream.
        let sent = !matches!(
            phase,
            Phase::Asked | Phase::Waiting | Phase::Queued | Phase::Retrying
        );
        if phase == Phase::Attempted {
            facts.leave_attempt();
        }
        let estimated = facts.estimate_usage(sent, vm);
        let whole =
            !facts.cache.answers() && facts.cache != CacheResult::Partial && facts.is_as_measured();
        if !estimated && whole && facts.outcome == Outcome::Answered {
            let name = plan
                .model(facts.model())
                .map_or(facts.model(), |(name, _)| name)
                .to_owned();
            let prompt = facts
                .usage
                .unwrap_or_default()
                .prompt
                .saturating_sub(facts.extent.fixed);
            vm.tokens.learn(&name, facts.extent.text_bytes, prompt);
        }
        let usage = facts.usage.unwrap_or_default();
        let bill = facts.bill(&plan);
        facts.count(&bill, estimated, vm, effects);
        effects
            .list
            .push(Effect::SetState(facts.state(&plan, &bill, estimated)));

        // What came from a cache and what was refused draws nothing, and gives back what it held.
        let draws = !facts.cache.answers() && facts.outcome != Outcome::Rejected;
        let chosen = facts.chosen;
        let charges = match facts.options.get_mut(chosen) {
            Some(option) => std::mem::take(&mut option.charges),
            None => Vec::new(),
        };
        let price = plan.model(facts.model()).and_then(|(_, model)| model.price);
        let owed = if draws && !free(&facts) {
            usage
        } else {
            Usage::default()
        };
        let mut counted = budget::counted(&charges, price.as_ref(), &owed);
        if let Some(reserved_secs) = facts.reserved_locally {
            budget::settle_locally(&charges, &counted, reserved_secs, host);
        }
        if !draws {
            counted.clear();
        }
        if let Some(cost) = bill.cost
            && facts.route(&plan).guard.spend.is_some()
        {
            guard::spend(&facts.route(&plan).name, cost, host);
        }
        let remember = match facts.outcome {
            Outcome::Answered if sent && !facts.cache.answers() => facts.remember(),
            _ => None,
        };
        if plan.sidecar.is_some() {
            let route = facts.route(&plan);
            let mut answer = facts.answer.take().unwrap_or_default();
            let windows = match facts.status {
                400.. => (0, 0),
                _ => (route.cache.stale_secs, route.cache.stale_if_error_secs),
            };
            let store = facts
                .option()
                .and_then(|option| option.key.clone())
                .filter(|_| !answer.is_empty());
            let question = facts.question.take().filter(|_| facts.status == 200);
            let scope = facts.option().and_then(|option| option.scope.clone());
            let store = store.map(|key| Store {
                question: scope
                    .zip(question)
                    .map(|(scope, text)| Answered { scope, text }),
                key,
                ttl_secs: match facts.status {
                    400.. => route.cache.negative_secs,
                    _ => route.cache.ttl_secs,
                },
                // What was refused may be taken once its time is over.
                stale_secs: windows.0,
                stale_if_error_secs: windows.1,
                tags: tags::stored(&route.cache, &facts.caller.tenant, &facts.tags),
                entry: EntryHead {
                    format: facts.format.name().to_owned(),
                    model: facts.model().to_owned(),
                    tier: facts.tier(&plan).map(str::to_owned),
                    usage,
                    cost: bill.cost,
                    status: facts.status,
                },
                len: answer.len() as u64,
            });
            let vectors = facts.fresh.take().map(|fresh| {
                answer.extend(fresh.bytes);
                StoreVectors {
                    ttl_secs: route.cache.ttl_secs,
                    stale_if_error_secs: route.cache.stale_if_error_secs,
                    tags: tags::stored(&route.cache, &facts.caller.tenant, &facts.tags),
                    model: fresh.model,
                    len: fresh.len,
                    tokens: fresh.tokens,
                }
            });
            let stored = store.is_some() || vectors.is_some();
            let release = facts.release(phase, stored, &plan);
            let settle = Settle {
                audit: facts.audit.take().filter(|_| sent),
                record: facts.record(&plan, &bill, estimated),
                counted,
                store,
                vectors,
                release,
                sent: remember,
            };
            effects.list.push(Effect::Settle(Box::new(settle), answer));
        }
    }
}

impl Facts {
    /// The lease that it holds, with its key. One that is over while the sidecar is asked, or had no
    /// answer of it, may hold one that it never heard of.
    pub(super) fn holds(&self, phase: Phase, plan: &Plan) -> Option<(String, Lease)> {
        let unheard = || {
            let asking = matches!(phase, Phase::Asked | Phase::Waiting) && self.lease_ms(plan) > 0;
            let asked = asking || self.unheard;
            let holder = self.id.clone();
            let key = self.option().filter(|_| asked)?.key.clone()?;
            Some((key, Lease { holder, token: 0 }))
        };
        self.lease.clone().or_else(unheard)
    }

    /// The end of the lease that it holds.
    fn release(&self, phase: Phase, stored: bool, plan: &Plan) -> Option<Release> {
        let (key, lease) = self.holds(phase, plan)?;
        let end = match (self.outcome, self.status) {
            _ if stored => LeaseEnd::Stored,
            _ if self.upstream_failed || phase == Phase::Queued => LeaseEnd::Failed,
            // The audit was given up: upstream was not asked.
            _ if self.cache == CacheResult::Semantic => LeaseEnd::Failed,
            (Outcome::Answered, _) => LeaseEnd::Uncacheable,
            // What others wait for is still to be had: of one caller's bad key that all share it with,
            // and where a stale answer is.
            (Outcome::UpstreamError, status)
                if self.under.is_some()
                    || matches!(status, 401..=403)
                        && self.route(plan).cache.scope == Scope::Global =>
            {
                LeaseEnd::Failed
            }
            // Each caller's own matter, such as its key.
            (Outcome::UpstreamError, status) if !matches!(status, 408 | 409 | 429 | 500..) => {
                LeaseEnd::Uncacheable
            }
            _ => LeaseEnd::Failed,
        };
        Some(Release { key, lease, end })
    }

    /// Puts an estimate where upstream reported nothing, or not all; says whether it did.
    fn estimate_usage(&mut self, sent: bool, vm: &Vm) -> bool {
        let whole = self.usage.is_some() && !self.usage_so_far;
        if whole || !sent || free(self) || !self.format.kind().asks_a_model() {
            return false;
        }
        let model = vm
            .plan
            .model(self.model())
            .map_or(self.model(), |(name, _)| name);
        let completion = match self.text_bytes {
            // Of an answer that could not be read nothing is known but what was expected.
            0 if self.unread && self.outcome == Outcome::Answered => self.expected.completion,
            0 => 0,
            bytes => vm.tokens.estimate(model, bytes),
        };
        let reported = self.usage.unwrap_or(Usage {
            prompt: self.expected.prompt.saturating_sub(self.left_out(&vm.plan)),
            ..Usage::default()
        });
        self.usage = Some(Usage {
            completion: reported.completion.max(completion),
            ..reported
        });
        true
    }

    /// The dollars, as far as they are known by now.
    pub(super) fn bill(&self, plan: &Plan) -> Bill {
        let price = |name: &str| -> Option<Price> {
            match self.format.kind().asks_a_model() {
                true => plan.model(name).and_then(|(_, model)| model.price),
                false => Some(Price::FREE),
            }
        };
        let usage = self.usage.unwrap_or_default();
        let (untrimmed, dry_trimmed) = self.prompts(plan, &usage);
        let facts = accounting::Facts {
            asked: price(&self.model_asked),
            used: price(self.model()),
            dry_routed: self.dry_model.as_deref().and_then(price),
            hit: self.cache.answers(),
            refresh: self.cache == CacheResult::Refresh,
            dry_hit: self.dry_hit,
            from_cache: self.from_cache,
            dry_from_cache: self.dry_from_cache,
            free: free(self),
            untrimmed,
            dry_trimmed,
        };
        accounting::bill(&facts, &usage)
    }

    /// The ledger's record; labels move into it.
    fn record(&mut self, plan: &Plan, bill: &Bill, estimated: bool) -> Record {
        let caller = std::mem::take(&mut self.caller);
        Record {
            id: std::mem::take(&mut self.id),
            at_ms: self.at_ns / 1_000_000,
            tenant: caller.tenant,
            task: caller.task,
            conversation: caller.conversation,
            route: self.route(plan).name.clone(),
            endpoint: self.format.name().to_owned(),
            model_asked: bounded(&self.model_asked).to_owned(),
            model: bounded(self.model()).to_owned(),
            tier: self.tier(plan).unwrap_or_default().to_owned(),
            score_milli: self.score.map(|score| (score * 1000.0).round() as u16),
            stream: self.stream,
            status: self.status,
            outcome: self.outcome,
            cache: self.cache,
            age_secs: self.age_secs,
            usage: self.usage.unwrap_or_default(),
            estimated,
            as_asked: bill.as_asked,
            cost: bill.cost,
            saved: bill.saved,
            trim: bill.trim,
            would_save: bill.would_save,
        }
    }

    /// What access logs show, as logfmt: `model=gpt-4o-mini tier=small cache=miss tokens=110
    /// cost_usd=0.0001 saved_usd=0.0012`, and `estimated=true` where upstream did not say. One value, because each that is set costs Envoy as much
    /// as reading the request's headers does.
    fn state(&self, plan: &Plan, bill: &Bill, estimated: bool) -> String {
        let mut state = String::with_capacity(128);
        let total = self.usage.unwrap_or_default().total();
        // Writing to a String cannot fail.
        let _ = write!(
            state,
            "model={} tier={} cache={} tokens={total} cost_usd={} saved_usd={}",
            one_value(bounded(self.model())),
            one_value(self.tier(plan).unwrap_or("none")),
            self.cache.name(),
            dollars(bill.cost),
            dollars(bill.saved_total()),
        );
        if estimated {
            state.push_str(" estimated=true");
        }
        state
    }

    /// Envoy's counters and histograms.
    fn count(&self, bill: &Bill, estimated: bool, vm: &mut Vm, effects: &mut Effects) {
        let plan = vm.plan.clone();
        // From the config, so that no client can make names without end.
        let model = match self.format.kind().asks_a_model() {
            true => plan.model(self.model()).map_or("other", |(name, _)| name),
            false => "none",
        };
        let by_model = (Label::Model, model);
        let labels = [
            (Label::Endpoint, self.format.name()),
            by_model,
            (Label::Tier, self.tier(&plan).unwrap_or("none")),
            (Label::Cache, self.cache.name()),
            (Label::Outcome, self.outcome.name()),
        ];
        effects.count(vm, ("requests", &labels), 1);
        // Tokens that upstream worked for; those of a cached answer are told apart.
        let source = match self.cache.answers() {
            true => "cache",
            false => "upstream",
        };
        let usage = self.usage.unwrap_or_default();
        for (kind, tokens) in [
            ("prompt", usage.prompt),
            ("prompt_cached", usage.cached),
            ("completion", usage.completion),
            ("reasoning", usage.reasoning),
        ] {
            if tokens > 0 {
                let labels = [by_model, (Label::Source, source), (Label::Kind, kind)];
                effects.count(vm, ("tokens", &labels), tokens);
            }
        }
        if self.from_cache > 0 {
            let labels = [by_model, (Label::Source, "cache"), (Label::Kind, "prompt")];
            effects.count(vm, ("tokens", &labels), self.from_cache);
        }
        let nano = |usd: Usd| u64::try_from(usd.0).unwrap_or(0).saturating_add(500) / 1000;
        match (bill.as_asked, bill.cost) {
            (Some(as_asked), Some(cost)) => {
                let as_asked = nano(as_asked);
                effects.count(vm, ("spend_as_asked_nanodollars", &[by_model]), as_asked);
                effects.count(vm, ("spend_nanodollars", &[by_model]), nano(cost));
            }
            _ => effects.count(vm, ("unpriced", &[by_model]), 1),
        }
        if estimated {
            effects.count(vm, ("estimated", &[by_model]), 1);
        }
        for lever in Lever::ALL {
            for (name, saved) in [
                ("saved_nanodollars", bill.saved.of(lever)),
                ("would_save_nanodollars", bill.would_save.of(lever)),
            ] {
                if saved > Usd::ZERO {
                    effects.count(vm, (name, &[(Label::Lever, lever.name())]), nano(saved));
                }
            }
        }
        if let Some(trim) = bill.trim {
            // Counters cannot fall: what would take from one is another's, so that the net of all
            // three is what was booked.
            let spared = Usd::ZERO - trim.lost;
            for (kind, amount) in [
                ("gross", trim.gross),
                ("lost", trim.lost),
                ("spared", spared),
            ] {
                if amount > Usd::ZERO {
                    let labels = [(Label::Kind, kind)];
                    effects.count(vm, ("trim_nanodollars", &labels), nano(amount));
                }
            }
        }
        if self.outcome == Outcome::Answered && usage.total() > 0 {
            let name = vm.names.get("request_tokens", &[by_model]);
            let observed = Metric::Observe(name, usage.total());
            effects.list.push(Effect::Count(observed));
        }
    }
}

/// Nothing is owed: refused by us, refused by upstream.
fn free(facts: &Facts) -> bool {
    matches!(facts.outcome, Outcome::Rejected | Outcome::UpstreamError)
}

/// A name as logfmt has it: quoted and escaped where it would not be one value on one line, since a
/// client may have chosen it.
fn one_value(name: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    if !name.is_empty() && name.bytes().all(plain) {
        name.into()
    } else {
        // JSON leaves Unicode's own line ends as they are.
        let quoted = serde_json::Value::from(name).to_string();
        let quoted = quoted.replace('\u{2028}', "\\u2028");
        quoted.replace('\u{2029}', "\\u2029").into()
    }
}

/// A model's name as the ledger keeps it: the client chose it.
fn bounded(name: &str) -> &str {
    let end = name
        .char_indices()
        .nth(128)
        .map_or(name.len(), |(at, _)| at);
    name.get(..end).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_an_access_log_is_one_value_on_one_line() {
        assert_eq!(one_value("gpt-4o-mini"), "gpt-4o-mini");
        assert_eq!(one_value(""), r#""""#);
        assert_eq!(one_value("a tier=b"), r#""a tier=b""#);
        assert_eq!(one_value("a\n\"b\""), r#""a\n\"b\"""#);
        assert_eq!(one_value("a\u{2028}b"), r#""a\u2028b""#);
    }

    #[test]
    fn a_name_is_cut_after_128_characters_and_not_within_one() {
        assert_eq!(bounded("gpt-4o"), "gpt-4o");
        let long = "ü".repeat(200);
        assert_eq!(bounded(&long), "ü".repeat(128));
    }
}
