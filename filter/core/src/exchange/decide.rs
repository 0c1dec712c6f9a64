//! What could be done with a request: the size to expect, the models that may answer, each with its
//! key, its charges and its body.

use sluice_wire::{CacheResult, Over, Usage};

use super::facts::{CacheWish, Facts, Option_};
use super::guard::Then;
use super::inputs::Inputs;
use super::{Effects, Host, Label, Vm};
use crate::config::{Mode, Plan, RoutePlan};
use crate::formats::{self, ApiError, ErrorKind, Request};
use crate::json;
use crate::policy::budget::{self, Expected};
use crate::policy::cache_key::{self, KeyInput};
use crate::policy::choice::{self, Ask, Choice, NotAllowed};
use crate::policy::route;
use crate::tokens::Extent;

/// Fills in the options: which models may answer, under which keys, at whose expense.
pub(super) fn decide(
    facts: &mut Facts,
    request: &Request<'_>,
    vm: &mut Vm,
    (host, effects): (&mut dyn Host, &mut Effects),
) -> Result<(), ApiError> {
    let plan = vm.plan.clone();
    let route = facts.route(&plan);
    facts.model_asked = request.model.clone().into_owned();
    facts.stream = request.stream;
    facts.stream_usage = request.stream_usage;
    facts.usage_edit = if facts.may_touch {
        facts.format.ask_usage(request)
    } else {
        None
    };
    facts.extent = Extent::of(request, facts.format.name());
    facts.look_for_work(request, route);
    measure(facts, request, vm, false);

    let usage = Usage {
        prompt: facts.expected.prompt,
        completion: facts.expected.completion,
        ..Usage::default()
    };
    let caller = facts.caller.clone();
    let tier_asked = facts.tier_asked.clone();
    let ask = Ask {
        caller: &caller,
        format: facts.format,
        request,
        tier: tier_asked.as_deref(),
        expected: &usage,
    };

    // The way it would go, and the way to the small tier where a limit may ask for that.
    let mut first = choice::as_asked(request);
    let mut small = None;
    if route.route.mode != Mode::Off && choice::routable(&plan, route, &ask) {
        let score = route::score(request).value;
        facts.score = Some(score);
        let routed = choice::tier_for(route, ask.tier, score)
            .map(|tier| choice::in_tier(&plan, route, &ask, tier));
        match (route.route.mode, routed) {
            (Mode::On, Some(routed)) => first = routed,
            (_, Some(routed)) => {
                facts.dry_model = Some(routed.model).filter(|model| *model != facts.model_asked)
            }
            (_, None) => {}
        }
        if route.route.mode == Mode::On {
            small = Some(choice::in_tier(&plan, route, &ask, 0));
        }
    }
    let smaller = small.as_ref().filter(|small| **small != first);
    facts.watch_spending(smaller.is_some(), vm, (host, effects));
    if facts.guarded.then == Then::Small {
        first = small.clone().unwrap_or(first);
    }
    facts.look_for_limit(route, &plan);
    let over = over_input_limit(facts, request, (route, &first), vm, effects)?;
    if facts.over_question_limit(request, route, vm)? || over {
        // Without a smaller tier there is nowhere to send it: it goes as it is and is counted.
        first = small.clone().unwrap_or(first);
    }
    if route.mode == Mode::On {
        first = choice::allowed(&plan, route, &ask, first)
            .map_err(|refused| not_allowed(&refused, &facts.model_asked))?;
        small = small.and_then(|small| choice::allowed(&plan, route, &ask, small).ok());
    }
    facts.question = question(facts, request, route);
    facts.inputs = Inputs::of(facts, request, route);
    facts.options = vec![option(facts, request, route, &plan, first)];
    if let Some(small) = small
        && facts.options.iter().all(|option| option.choice != small)
        && facts
            .options
            .iter()
            .flat_map(|option| &option.charges)
            .any(|charge| charge.over == Over::SmallTier)
    {
        let small = option(facts, request, route, &plan, small);
        facts.options.push(small);
    }
    facts.look_to_trim(request, route, (&plan, &vm.tokens))?;
    let takes_apart = facts.inputs.as_ref().is_some_and(Inputs::several);
    let takes_apart = takes_apart && route.cache.mode == Mode::On;
    if takes_apart || facts.trim.acts || facts.options.iter().any(Option_::estimated) {
        facts.body = request.body.to_owned();
    }
    facts.cache = match (route.cache.mode, plan.sidecar.is_some()) {
        (Mode::Off, _) | (_, false) => CacheResult::Off,
        _ if facts.options.iter().all(|option| option.key.is_none()) => CacheResult::Bypass,
        _ if facts.cache_wish != CacheWish::Use => CacheResult::Bypass,
        _ if facts.under.is_some() => CacheResult::Refresh,
        _ => CacheResult::Miss,
    };
    Ok(())
}

/// Finds out the size to expect, exact or by bounds and ratio: with nothing left out, and with what
/// is sure to be.
fn measure(facts: &mut Facts, request: &Request<'_>, vm: &mut Vm, exact: bool) {
    let plan = vm.plan.clone();
    // A chunk is as long as it counts: by bytes only where nothing is counted.
    let model = plan.model(&facts.model_asked).filter(|_| exact);
    let encoding = model.and_then(|(_, model)| model.encoding);
    let tokens = &vm.tokens;
    let counted = |text: &str| tokens.count_text(encoding?, text);
    let len = |text: &str| counted(text).unwrap_or(text.len() as u64);
    let put_in = facts.put_in(request, facts.route(&plan), &len);
    facts.expected = expect(facts, request, (&put_in.whole, exact), vm);
    facts.reserve = match &put_in.at_most {
        Some(at_most) => expect(facts, request, (at_most, exact), vm),
        None => facts.expected,
    };
}

/// The size to expect with `put_in` in the prompt beside what is the client's.
fn expect(
    facts: &Facts,
    request: &Request<'_>,
    (put_in, exact): (&str, bool),
    vm: &mut Vm,
) -> Expected {
    vm.serve(&facts.caller.tenant);
    let asked = facts.model_asked.as_str();
    let model = vm
        .plan
        .model(asked)
        .map(|(name, model)| (name.to_owned(), model.encoding));
    let name = model.as_ref().map_or(asked, |(name, _)| name.as_str());
    let extent = Extent {
        text_bytes: facts.extent.text_bytes + put_in.len() as u64,
        ..facts.extent
    };
    let estimate = vm.tokens.estimate(name, extent.text_bytes) + extent.fixed;
    let limit = request
        .output_limit
        .unwrap_or(u64::MAX)
        .min(vm.plan.reserve.output_tokens);
    let completion = match facts.format.kind() {
        formats::Kind::Generation => limit.saturating_mul(request.choices.max(1)),
        formats::Kind::Embedding | formats::Kind::Retrieval => 0,
    };
    let Some(encoding) = model.and_then(|(_, encoding)| encoding) else {
        // Without a vocabulary the estimate is the best there is.
        return Expected {
            prompt: estimate,
            prompt_at_most: estimate,
            completion,
        };
    };
    let counted = if exact {
        let put_in = vm.tokens.count_text(encoding, put_in).unwrap_or(0);
        let counted = vm.tokens.count(encoding, request, facts.format.name());
        counted.map(|counted| counted.saturating_add(put_in))
    } else {
        None
    };
    match counted {
        Some(prompt) => Expected {
            prompt,
            prompt_at_most: prompt,
            completion,
        },
        None => Expected {
            prompt: estimate,
            prompt_at_most: extent.bounds().1.max(estimate),
            completion,
        },
    }
}

/// Holds the prompt against its limit. True: over, and to go to the small tier.
fn over_input_limit(
    facts: &mut Facts,
    request: &Request<'_>,
    (route, first): (&RoutePlan, &Choice),
    vm: &mut Vm,
    effects: &mut Effects,
) -> Result<bool, ApiError> {
    let (Some(limits), Some(limit)) = (&route.trim.input, facts.trim.limit) else {
        return Ok(false);
    };
    if facts.expected.prompt_at_most <= limit {
        return Ok(false);
    }
    // The bound is not enough: only now is it worth counting.
    measure(facts, request, vm, true);
    let found = facts.expected.prompt;
    if found <= limit {
        return Ok(false);
    }
    let found = facts
        .trimmed_to_limit(request, route, &first.model, vm)
        .unwrap_or(found);
    if found <= limit {
        return Ok(false);
    }
    let word = match limits.over {
        Over::Reject => "reject",
        Over::SmallTier => "small_tier",
        Over::Shadow => "shadow",
    };
    let dry = route.trim.mode == Mode::Dry;
    let action = if dry { "dry" } else { word };
    effects.count(vm, ("input_limit", &[(Label::Action, action)]), 1);
    match limits.over {
        _ if dry => Ok(false),
        Over::Shadow => Ok(false),
        Over::SmallTier => Ok(true),
        Over::Reject => Err(ApiError {
            kind: ErrorKind::InvalidRequest,
            message: format!("This prompt has {found} tokens; at most {limit} are allowed."),
            code: "prompt_too_long",
        }),
    }
}

fn not_allowed(refused: &NotAllowed, model: &str) -> ApiError {
    ApiError {
        kind: ErrorKind::Forbidden,
        message: format!(
            "The model `{model}` is not allowed here. Allowed: {}.",
            refused.allowed.join(", ")
        ),
        code: "model_not_allowed",
    }
}

/// What is asked, where it may be compared with other questions.
fn question(facts: &Facts, request: &Request<'_>, route: &RoutePlan) -> Option<String> {
    let semantic = route.cache.semantic.filter(|_| facts.format.has_turns())?;
    let text = request.question()?;
    // A character has at most four bytes: what is far too long is not unescaped.
    if text.text_len() > semantic.max_chars * 4 {
        return None;
    }
    let text = text.text();
    let fits = text.chars().nth(semantic.max_chars).is_none();
    (fits && !text.trim().is_empty()).then(|| text.into_owned())
}

/// A choice with its key and its charges.
fn option(
    facts: &Facts,
    request: &Request<'_>,
    route: &RoutePlan,
    plan: &Plan,
    choice: Choice,
) -> Option_ {
    let cache = &route.cache;
    // Both providers sample at 1 where nothing is said; vectors and searches are not sampled.
    let temperature = match facts.format.kind() {
        formats::Kind::Generation => request.temperature.unwrap_or(1.0),
        formats::Kind::Embedding | formats::Kind::Retrieval => 0.0,
    };
    let cool = temperature <= cache.max_temperature;
    let wanted =
        cache.mode != Mode::Off && plan.sidecar.is_some() && facts.cache_wish != CacheWish::Bypass;
    let input = KeyInput {
        scope: cache.scope,
        tenant: &facts.caller.tenant,
        format: facts.format,
        request,
        headers: &facts.headers,
        key_headers: &cache.headers,
        model: &choice.model,
        output_limit: choice.cap.or(request.output_limit),
        policies: &facts.policies(route),
    };
    let keyed = wanted && cool && facts.format.cacheable(request);
    let key = match keyed {
        true => cache_key::exact(&input),
        false => None,
    };
    let inputs = match (&facts.inputs, &key) {
        (Some(inputs), Some(_)) => inputs.keys(&input),
        _ => Vec::new(),
    };
    let question = facts.question.as_ref().and_then(|_| request.question());
    let scope = question
        .filter(|_| key.is_some())
        .and_then(|question| cache_key::scope(&input, (&route.name, question)));
    let expected = Expected {
        completion: choice.cap.map_or(facts.reserve.completion, |cap| {
            facts
                .reserve
                .completion
                .min(cap.saturating_mul(request.choices.max(1)))
        }),
        ..facts.reserve
    };
    let mut charges = match facts.format.kind().asks_a_model() {
        true => budget::charges(plan, &facts.caller, &choice.model, &expected),
        false => Vec::new(),
    };
    if route.mode == Mode::Dry {
        for charge in &mut charges {
            charge.over = Over::Shadow;
        }
    }
    let body = edited(facts, request, (&choice, None));
    Option_ {
        choice,
        key,
        scope,
        inputs,
        charges,
        body,
    }
}

/// The body as a choice sends it, with another `input` where there is one; None where nothing
/// changes.
fn edited(
    facts: &Facts,
    request: &Request<'_>,
    (choice, input): (&Choice, Option<String>),
) -> Option<Vec<u8>> {
    let mut edits: Vec<(&str, String)> = Vec::new();
    edits.extend(input.map(|input| ("input", input)));
    if choice.model != facts.model_asked {
        let model = serde_json::Value::from(choice.model.as_str());
        edits.push(("model", model.to_string()));
    }
    if let Some(cap) = choice.cap {
        let field = facts.format.output_limit_field(request);
        edits.push((field, cap.to_string()));
    }
    if let Some(edit) = &facts.usage_edit {
        edits.push((edit.field, edit.json.clone()));
    }
    if edits.is_empty() {
        return None;
    }
    let edits: Vec<_> = edits
        .iter()
        .map(|(field, json)| (*field, json.as_str()))
        .collect();
    Some(json::set_fields(request.body, &request.fields, &edits).into_bytes())
}

/// The body without the inputs that are known. None where there is no saying which these are.
pub(super) fn without_known(facts: &Facts) -> Option<Vec<u8>> {
    let request = facts.format.parse_again(&facts.body).ok()?;
    let input = facts
        .inputs
        .as_ref()?
        .asked(&facts.format.batch(&request)?)?;
    edited(facts, &request, (&facts.option()?.choice, Some(input)))
}

/// Counts the prompt exactly and renews the options' charges: the sidecar (or the local counters)
/// found a limit too near for an estimate.
pub(super) fn recount(facts: &mut Facts, vm: &mut Vm) {
    let body = std::mem::take(&mut facts.body);
    if let Ok(request) = facts.format.parse_again(&body) {
        measure(facts, &request, vm, true);
        let plan = vm.plan.clone();
        let route = facts.route(&plan);
        let options = facts
            .options
            .iter()
            .map(|old| option(facts, &request, route, &plan, old.choice.clone()))
            .collect();
        facts.options = options;
    }
    // Nothing is more exact than this, also where it stayed an estimate.
    for charge in facts
        .options
        .iter_mut()
        .flat_map(|option| &mut option.charges)
    {
        charge.at_most = charge.reserve;
    }
    facts.body = body;
}
