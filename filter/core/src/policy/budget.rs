//! What a request draws on which budget, and the decision where no sidecar keeps them.

use sluice_wire::{Charge, Counted, Over, Unit, Usage};

use super::identity::Caller;
use crate::config::{BudgetRule, Per, Plan, Price};
use crate::exchange::Host;

/// What is known of a request's size before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Prompt tokens, estimated or counted.
    pub prompt: u64,
    /// Upper bound of `prompt`; equal to it once it is counted.
    pub prompt_at_most: u64,
    /// Completion tokens, all choices together.
    pub completion: u64,
}

/// The draws on every budget that concerns this caller and model.
#[must_use]
pub fn charges(plan: &Plan, caller: &Caller, model: &str, expected: &Expected) -> Vec<Charge> {
    let price = plan.model(model).and_then(|(_, model)| model.price);
    let mut charges = Vec::new();
    for (index, rule) in plan.budgets.iter().enumerate() {
        let Some(counter) = counter(plan, rule, caller, model) else {
            continue;
        };
        let Ok(index) = u16::try_from(index) else {
            break;
        };
        let prompt = |tokens| Usage {
            prompt: tokens,
            completion: expected.completion,
            ..Usage::default()
        };
        charges.push(Charge {
            rule: index,
            counter,
            window: rule.every,
            unit: rule.unit,
            limit: rule.limit,
            reserve: amount(rule.unit, price.as_ref(), &prompt(expected.prompt)),
            at_most: amount(rule.unit, price.as_ref(), &prompt(expected.prompt_at_most)),
            over: rule.over,
        });
    }
    charges
}

/// What the same budgets are charged once the usage is known.
#[must_use]
pub fn counted(charges: &[Charge], price: Option<&Price>, usage: &Usage) -> Vec<Counted> {
    charges
        .iter()
        .map(|charge| Counted {
            counter: charge.counter.clone(),
            window: charge.window,
            unit: charge.unit,
            amount: amount(charge.unit, price, usage),
        })
        .collect()
}

/// A usage in a budget's unit. An unknown price draws nothing on a dollar budget; the config is
/// warned of models without one.
fn amount(unit: Unit, price: Option<&Price>, usage: &Usage) -> u64 {
    match unit {
        Unit::Tokens => usage.total(),
        Unit::Usd => price.map_or(0, |price| u64::try_from(price.of(usage).0).unwrap_or(0)),
    }
}

/// Whose counter a rule means, if it concerns this request.
fn counter(plan: &Plan, rule: &BudgetRule, caller: &Caller, model: &str) -> Option<String> {
    let (kind, name) = match rule.per {
        Per::Tenant => ("tenant", caller.tenant.as_str()),
        Per::Task => ("task", caller.task.as_str()),
        // The config's name, so that dated snapshots share; what it does not list shares one
        // counter, because a client must not be able to make counters without end.
        Per::Model => ("model", plan.model(model).map_or("other", |(name, _)| name)),
    };
    let concerned = !name.is_empty() && rule.only.as_deref().is_none_or(|only| only == name);
    // Window and unit are part of the store's key; two rules that are alike in all of these (one
    // warns, one stops) each need a counter of their own. Labels hold no colon.
    concerned.then(|| match rule.series {
        0 => format!("{kind}:{name}"),
        series => format!("{kind}:{name}:{series}"),
    })
}

/// The decision where budgets are kept per Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// Go on with this plan (index); everything is reserved.
    Go(usize),
    /// Count the prompt exactly and ask again.
    Count,
    /// Refused.
    Over {
        /// The rule.
        rule: u16,
        /// Its limit.
        limit: u64,
        /// Used and reserved.
        used: u64,
        /// Seconds until the window ends.
        reset_secs: u64,
    },
}

/// Reserves in this process's shared counters. The same order of decisions as the sidecar's
/// (`sluice_wire::AdmitRequest`). Names rules that are over without stopping the request in `over`.
pub fn reserve_locally(plans: &[&[Charge]], over: &mut Vec<u16>, host: &mut dyn Host) -> Local {
    let now_secs = host.now_ns() / 1_000_000_000;
    'plans: for (index, charges) in plans.iter().enumerate() {
        let last = index + 1 == plans.len();
        let mut reserved: Vec<&Charge> = Vec::new();
        for charge in *charges {
            let (start, end) = charge.window.around(now_secs);
            let (used, added) =
                host.count(&key(charge), start, signed(charge.reserve), charge.limit);
            if added {
                reserved.push(charge);
            }
            if used.saturating_add(charge.at_most) <= charge.limit {
                continue;
            }
            if charge.at_most != charge.reserve && charge.over != Over::Shadow {
                release(&reserved, now_secs, host);
                return Local::Count;
            }
            if added {
                continue;
            }
            match charge.over {
                Over::Reject => {
                    release(&reserved, now_secs, host);
                    return Local::Over {
                        rule: charge.rule,
                        limit: charge.limit,
                        used,
                        reset_secs: end - now_secs,
                    };
                }
                Over::SmallTier if !last => {
                    release(&reserved, now_secs, host);
                    over.push(charge.rule);
                    continue 'plans;
                }
                Over::SmallTier | Over::Shadow => {
                    over.push(charge.rule);
                    host.count(&key(charge), start, signed(charge.reserve), u64::MAX);
                    reserved.push(charge);
                }
            }
        }
        return Local::Go(index);
    }
    Local::Go(0)
}

/// Replaces what was reserved at `admitted_secs` by what was used.
pub fn settle_locally(
    charges: &[Charge],
    counted: &[Counted],
    admitted_secs: u64,
    host: &mut dyn Host,
) {
    for (charge, counted) in charges.iter().zip(counted) {
        let (start, _) = charge.window.around(admitted_secs);
        host.count(
            &key(charge),
            start,
            signed(counted.amount).saturating_sub(signed(charge.reserve)),
            u64::MAX,
        );
    }
}

fn release(reserved: &[&Charge], now_secs: u64, host: &mut dyn Host) {
    for charge in reserved {
        let (start, _) = charge.window.around(now_secs);
        host.count(&key(charge), start, -signed(charge.reserve), u64::MAX);
    }
}

fn key(charge: &Charge) -> String {
    let unit = match charge.unit {
        Unit::Tokens => "tokens",
        Unit::Usd => "usd",
    };
    format!("{}|{}|{unit}", charge.counter, charge.window.name())
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
