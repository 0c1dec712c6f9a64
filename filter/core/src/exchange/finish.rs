//! The end: the ledger record, the budgets' actual charge, the answer to store, the metrics.

use sluice_wire::{CacheResult, EntryHead, Lever, Outcome, Record, Settle, Store, Usage, Usd};

use super::facts::Facts;
use super::{Effect, Effects, Exchange, Host, Metric, Phase, Vm};
use crate::config::{Plan, Price};
use crate::policy::accounting::{self, Bill};
use crate::policy::budget;

impl Exchange {
    pub(super) fn done(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        if phase == Phase::Asked {
            vm.breaker.abandoned();
        }
        let Some(mut facts) = self.facts.take() else {
            return;
        };
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
        let plan = vm.plan.clone();
        // The client left while the sidecar was asked: nothing went upstream.
        let sent = !matches!(phase, Phase::Asked);
        let estimated = facts.estimate_usage(sent, vm);
        if !estimated && facts.cache != CacheResult::Hit && facts.outcome == Outcome::Answered {
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
        let record = facts.record(&plan, &bill, estimated);
        metrics(&record, &plan, effects);
        effects
            .list
            .push(Effect::SetState("sluice.model", record.model.clone()));
        effects
            .list
            .push(Effect::SetState("sluice.tier", record.tier.clone()));
        effects.list.push(Effect::SetState(
            "sluice.cache",
            record.cache.name().to_owned(),
        ));
        effects
            .list
            .push(Effect::SetState("sluice.cost", dollars(record.cost)));
        effects.list.push(Effect::SetState(
            "sluice.saved",
            dollars(bill.saved_total()),
        ));
        effects.list.push(Effect::SetState(
            "sluice.tokens",
            record.usage.total().to_string(),
        ));

        // A hit and a refusal reserved nothing and draw nothing.
        let draws = facts.cache != CacheResult::Hit && facts.outcome != Outcome::Rejected;
        let charges = facts
            .option()
            .filter(|_| draws)
            .map(|option| option.charges.clone())
            .unwrap_or_default();
        let price = plan.model(facts.model()).and_then(|(_, model)| model.price);
        let owed = if free(&facts) {
            Usage::default()
        } else {
            usage
        };
        let counted = budget::counted(&charges, price.as_ref(), &owed);
        if let Some(reserved_secs) = facts.reserved_locally {
            budget::settle_locally(&charges, &counted, reserved_secs, host);
        }
        if plan.sidecar.is_some() {
            let route = facts.route(&plan);
            let answer = facts.answer.take().unwrap_or_default();
            let store = facts
                .option()
                .and_then(|option| option.key.clone())
                .filter(|_| !answer.is_empty());
            let store = store.map(|key| Store {
                key,
                ttl_secs: route.cache.ttl_secs,
                entry: EntryHead {
                    format: facts.format.name().to_owned(),
                    model: facts.model().to_owned(),
                    tier: facts.tier(&plan).map(str::to_owned),
                    usage,
                    cost: bill.cost,
                },
                len: answer.len() as u64,
            });
            effects.list.push(Effect::Settle(
                Box::new(Settle {
                    record,
                    counted,
                    store,
                }),
                answer,
            ));
        }
    }
}

impl Facts {
    /// Puts an estimate where upstream reported nothing; says whether it did.
    fn estimate_usage(&mut self, sent: bool, vm: &Vm) -> bool {
        if self.usage.is_some() || !sent || free(self) {
            return false;
        }
        let model = vm
            .plan
            .model(self.model())
            .map_or(self.model(), |(name, _)| name);
        self.usage = Some(Usage {
            prompt: self.expected.prompt,
            completion: if self.text_bytes == 0 {
                0
            } else {
                vm.tokens.estimate(model, self.text_bytes)
            },
            ..Usage::default()
        });
        true
    }

    /// The dollars, as far as they are known by now.
    pub(super) fn bill(&self, plan: &Plan) -> Bill {
        let price =
            |name: &str| -> Option<Price> { plan.model(name).and_then(|(_, model)| model.price) };
        let facts = accounting::Facts {
            asked: price(&self.model_asked),
            used: price(self.model()),
            dry_routed: self.dry_model.as_deref().and_then(price),
            hit: self.cache == CacheResult::Hit,
            dry_hit: self.dry_hit,
            free: free(self),
        };
        accounting::bill(&facts, &self.usage.unwrap_or_default())
    }

    fn record(&self, plan: &Plan, bill: &Bill, estimated: bool) -> Record {
        Record {
            id: self.id.clone(),
            at_ms: self.at_ns / 1_000_000,
            tenant: self.caller.tenant.clone(),
            task: self.caller.task.clone(),
            conversation: self.caller.conversation.clone(),
            route: self.route(plan).name.clone(),
            endpoint: self.format.name().to_owned(),
            model_asked: bounded(&self.model_asked),
            model: bounded(self.model()),
            tier: self.tier(plan).unwrap_or_default().to_owned(),
            score_milli: self.score.map(|score| (score * 1000.0).round() as u16),
            stream: self.stream,
            status: self.status,
            outcome: self.outcome,
            cache: self.cache,
            usage: self.usage.unwrap_or_default(),
            estimated,
            as_asked: bill.as_asked,
            cost: bill.cost,
            saved: bill.saved,
            would_save: bill.would_save,
        }
    }
}

/// Nothing is owed: refused by us, refused by upstream.
fn free(facts: &Facts) -> bool {
    matches!(facts.outcome, Outcome::Rejected | Outcome::UpstreamError)
}

/// A model's name as the ledger keeps it: the client chose it.
fn bounded(name: &str) -> String {
    name.chars().take(128).collect()
}

fn dollars(amount: Option<Usd>) -> String {
    amount.map_or_else(|| "unknown".to_owned(), |usd| usd.to_string())
}

fn metrics(record: &Record, plan: &Plan, effects: &mut Effects) {
    // From the config, so that no client can make names without end.
    let model = plan.model(&record.model).map_or("other", |(name, _)| name);
    let tier = if record.tier.is_empty() {
        "none"
    } else {
        record.tier.as_str()
    };
    let (cache, outcome) = (record.cache.name(), record.outcome.name());
    let endpoint = &record.endpoint;
    effects.count(
        format_args!("requests;endpoint={endpoint};model={model};tier={tier};cache={cache};outcome={outcome};"),
        1,
    );
    // Tokens that upstream worked for; those of a cached answer are told apart.
    let source = if record.cache == CacheResult::Hit {
        "cache"
    } else {
        "upstream"
    };
    let usage = &record.usage;
    for (kind, tokens) in [
        ("prompt", usage.prompt),
        ("prompt_cached", usage.cached),
        ("completion", usage.completion),
        ("reasoning", usage.reasoning),
    ] {
        if tokens > 0 {
            effects.count(
                format_args!("tokens;model={model};source={source};kind={kind};"),
                tokens,
            );
        }
    }
    let nano = |usd: Usd| u64::try_from(usd.0).unwrap_or(0).saturating_add(500) / 1000;
    match (record.as_asked, record.cost) {
        (Some(as_asked), Some(cost)) => {
            effects.count(
                format_args!("spend_as_asked_nanodollars;model={model};"),
                nano(as_asked),
            );
            effects.count(format_args!("spend_nanodollars;model={model};"), nano(cost));
        }
        _ => effects.count(format_args!("unpriced;model={model};"), 1),
    }
    if record.estimated {
        effects.count(format_args!("estimated;model={model};"), 1);
    }
    for lever in Lever::ALL {
        for (name, saved) in [
            ("saved_nanodollars", record.saved.of(lever)),
            ("would_save_nanodollars", record.would_save.of(lever)),
        ] {
            if saved > Usd::ZERO {
                effects.count(format_args!("{name};lever={};", lever.name()), nano(saved));
            }
        }
    }
    if outcome == "answered" && usage.total() > 0 {
        effects.list.push(Effect::Count(Metric::Observe(
            format!("sluice.request_tokens;model={model};"),
            usage.total(),
        )));
    }
}
