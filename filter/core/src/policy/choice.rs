//! Which model answers: tier by score or request, family, allow-list, and never a dearer one.

use sluice_wire::Usage;

use super::identity::Caller;
use crate::config::{Mode, Plan, RoutePlan, Tier};
use crate::formats::{Format, Kind, Request};

/// A way to serve a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The model to ask.
    pub model: String,
    /// Index of its tier, if routing chose one.
    pub tier: Option<usize>,
    /// Limit on completion tokens to write into the request: lower than the client's own.
    pub cap: Option<u64>,
}

/// No model that the tenant may use can serve the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAllowed {
    /// Models that it may use.
    pub allowed: Vec<String>,
}

/// What was asked for, as far as routing looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// In which API.
    pub format: &'static dyn Format,
    /// The request.
    pub request: &'a Request<'a>,
    /// Tier that a trusted caller asked for.
    pub tier: Option<&'a str>,
    /// Expected usage, to compare prices.
    pub expected: &'a Usage,
}

/// The request as it was asked.
#[must_use]
pub fn as_asked(request: &Request<'_>) -> Choice {
    Choice {
        model: request.model.clone().into_owned(),
        tier: None,
        cap: None,
    }
}

/// Whether routing looks at such a request at all.
#[must_use]
pub fn routable(plan: &Plan, route: &RoutePlan, ask: &Ask<'_>) -> bool {
    ask.format.kind() == Kind::Generation
        && !route.route.pin
        && route.route.tiers.iter().any(|tier| tier.models.contains_key(ask.format.family()))
        // A model that nobody listed may be a fine-tune that nothing can stand in for.
        && plan.model(&ask.request.model).is_some()
}

/// The tier for a score, or the one asked for.
#[must_use]
pub fn tier_for(route: &RoutePlan, asked: Option<&str>, score: f32) -> Option<usize> {
    let tiers = &route.route.tiers;
    let named = asked.and_then(|name| tiers.iter().position(|tier| tier.name == name));
    named.or_else(|| tiers.iter().position(|tier| f64::from(score) < tier.below))
}

/// The choice for a tier: its model, unless that is dearer than the one asked for (a tier that a
/// trusted caller asked for by name is taken as it is).
#[must_use]
pub fn in_tier(plan: &Plan, route: &RoutePlan, ask: &Ask<'_>, tier: usize) -> Choice {
    let asked = ask.request.model.as_ref();
    let tiers = &route.route.tiers;
    let family = ask.format.family();
    let model_of = |tier: &Tier| tier.models.get(family).cloned();
    let Some((at, model)) = tiers
        .get(tier)
        .and_then(|found| Some((tier, model_of(found)?)))
    else {
        return as_asked(ask.request);
    };
    let named = ask.tier.is_some_and(|name| tiers[at].name == name);
    if model != asked && !named && dearer(plan, &model, asked, ask.expected) {
        // It stays as asked; if it happens to be another tier's model, that is its tier.
        let own = tiers
            .iter()
            .position(|tier| model_of(tier).as_deref() == Some(asked));
        return Choice {
            tier: own,
            ..as_asked(ask.request)
        };
    }
    // Below what the API takes, a good request would be refused.
    let least = ask.format.min_output_limit(ask.request);
    let cap = tiers[at]
        .max_tokens
        .map(|cap| cap.max(least))
        .filter(|cap| ask.request.output_limit.is_none_or(|limit| *cap < limit));
    Choice {
        model,
        tier: Some(at),
        cap,
    }
}

/// Whether `model` costs more than `asked` for such a request. Unknown prices are not dearer.
fn dearer(plan: &Plan, model: &str, asked: &str, expected: &Usage) -> bool {
    let price = |name: &str| plan.model(name).and_then(|(_, model)| model.price);
    match (price(model), price(asked)) {
        (Some(model), Some(asked)) => model.of(expected) > asked.of(expected),
        _ => false,
    }
}

/// Holds a choice against the tenant's list of models: the choice itself, else the nearest tier
/// below, else the nearest above, else what was asked for.
///
/// # Errors
/// [`NotAllowed`] when none of these may be used.
pub fn allowed(
    plan: &Plan,
    route: &RoutePlan,
    ask: &Ask<'_>,
    choice: Choice,
) -> Result<Choice, NotAllowed> {
    let list = plan.identity.allow.get(&ask.caller.tenant);
    // What asks no model needs no leave to ask it.
    let Some(list) = list.filter(|_| ask.format.kind().asks_a_model()) else {
        return Ok(choice);
    };
    let may = |model: &str| {
        list.iter().any(|name| {
            name == model || plan.model(model).is_some_and(|(listed, _)| listed == name)
        })
    };
    if may(&choice.model) {
        return Ok(choice);
    }
    if route.route.mode == Mode::On && routable(plan, route, ask) {
        let tiers = &route.route.tiers;
        let from = choice.tier.unwrap_or(tiers.len().saturating_sub(1));
        let order = (0..=from).rev().chain(from + 1..tiers.len());
        for tier in order {
            let other = in_tier(plan, route, ask, tier);
            if may(&other.model) {
                return Ok(other);
            }
        }
    }
    if may(&ask.request.model) {
        return Ok(as_asked(ask.request));
    }
    Err(NotAllowed {
        allowed: list.clone(),
    })
}
