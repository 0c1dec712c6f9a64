//! The request's way: headers, body, and what could be done with it.

use sluice_wire::{CacheResult, Over, Usage, header};

use super::facts::{CacheWish, Facts, Option_};
use super::{Effect, Effects, Exchange, Flow, Header, Headers, Host, Phase, Vm};
use crate::config::{Mode, OnFailure, Plan, RoutePlan};
use crate::formats::{self, ApiError, ErrorKind, Request};
use crate::json;
use crate::policy::budget::{self, Expected};
use crate::policy::cache_key::{self, KeyInput};
use crate::policy::choice::{self, Ask, Choice, NotAllowed};
use crate::policy::{identity, route};
use crate::tokens::Extent;

impl Exchange {
    pub(super) fn request_headers(
        &mut self,
        headers: &Headers,
        end_of_stream: bool,
        vm: &mut Vm,
        host: &mut dyn Host,
        effects: &mut Effects,
    ) {
        if self.phase != Phase::New {
            return;
        }
        self.phase = Phase::Passing;
        let caller = identity::identify(&vm.plan.identity, headers, host);
        // Control headers are ours: a stranger's are removed, a trusted caller's are read here and
        // removed too, so that none reaches a provider.
        for name in headers.names_with(header::PREFIX) {
            effects.list.push(Effect::RemoveRequestHeader(name.into()));
        }
        if !effects.list.is_empty() {
            // A route that a stranger's header picked must not stand.
            effects.list.push(Effect::ClearRouteCache);
        }
        let Some(format) = ours(headers) else { return };
        let index = vm.plan.route_index(headers);
        let plan = vm.plan.clone();
        let route = plan.route_at(index);
        if end_of_stream || route.mode == Mode::Off {
            return;
        }
        if let Some(length) = headers
            .get("content-length")
            .and_then(|length| length.parse().ok())
            && !self.fits(length, vm, effects, format)
        {
            return;
        }
        let levers = [route.route.mode, route.trim.mode, route.cache.mode];
        let may_touch =
            route.mode == Mode::On && (levers.contains(&Mode::On) || !plan.budgets.is_empty());
        if may_touch
            && headers
                .get("accept-encoding")
                .is_some_and(|it| it != "identity")
        {
            // A compressed answer could be neither accounted nor stored. Who names no coding gets
            // none from any provider.
            effects.list.push(Effect::SetRequestHeader(
                "accept-encoding",
                "identity".into(),
            ));
        }
        let control = |name: &str| {
            if caller.trusted {
                headers.get(name)
            } else {
                None
            }
        };
        let tier_asked = control(header::TIER).map(str::to_owned);
        let cache_wish = cache_wish(headers.get("cache-control"), control(header::CACHE));
        let kept = [":authority", ":path"].iter().chain(format.key_headers());
        let kept = kept
            .filter(|_| route.cache.mode != Mode::Off)
            .filter_map(|name| Some((name, headers.get(name)?)))
            .collect();
        let id = match plan.sidecar {
            Some(_) => request_id(headers, vm, host),
            // Nobody is told of this request.
            None => String::new(),
        };
        let facts = Facts::new(id, host.now_ns(), format, caller);
        self.facts = Some(Box::new(Facts {
            route: index,
            headers: kept,
            tier_asked,
            cache_wish,
            may_touch,
            ..facts
        }));
        self.phase = Phase::Body;
        effects.flow = Flow::Pause;
    }

    pub(super) fn request_body_part(
        &mut self,
        buffered: usize,
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        if self.phase != Phase::Body {
            return;
        }
        let Some(format) = self.facts.as_ref().map(|facts| facts.format) else {
            return;
        };
        if self.fits(buffered, vm, effects, format) {
            effects.flow = Flow::Pause;
        } else if self.phase == Phase::Passing {
            effects.list.push(Effect::ResumeRequest);
        }
    }

    /// Whether a body of that size is read. If not, the declared outcome follows.
    fn fits(
        &mut self,
        size: usize,
        vm: &mut Vm,
        effects: &mut Effects,
        format: &'static dyn formats::Format,
    ) -> bool {
        let limits = vm.plan.limits;
        if size <= limits.request_body {
            return true;
        }
        effects.count(vm, ("too_large", &[]), 1);
        self.phase = Phase::Passing;
        self.facts = None;
        if limits.on_failure == OnFailure::Closed {
            let error = ApiError {
                kind: ErrorKind::TooLarge,
                message: format!(
                    "The request body is longer than the {} bytes that are accepted.",
                    limits.request_body
                ),
                code: "request_too_large",
            };
            self.phase = Phase::Local;
            effects.respond_error(format, &error, Vec::new());
        }
        false
    }

    pub(super) fn request_body(
        &mut self,
        body: &[u8],
        vm: &mut Vm,
        host: &mut dyn Host,
        effects: &mut Effects,
    ) {
        if self.phase != Phase::Body {
            return;
        }
        let Some(mut facts) = self.facts.take() else {
            return;
        };
        let parsed = std::str::from_utf8(body)
            .map_err(|_| formats::NotThisApi("not UTF-8".into()))
            .and_then(|text| facts.format.parse(text));
        let request = match parsed {
            Ok(request) => request,
            Err(reason) => {
                effects
                    .list
                    .push(Effect::Debug(format!("passes untouched: {reason}")));
                effects.count(vm, ("unread", &[]), 1);
                self.phase = Phase::Passing;
                effects.list.push(Effect::ResumeRequest);
                return;
            }
        };
        let decided = decide(&mut facts, &request, vm, effects);
        self.facts = Some(facts);
        match decided {
            Ok(()) => self.admit(vm, host, effects),
            Err(error) => self.refuse(&error, Vec::new(), effects),
        }
    }

    /// Answers with an error of ours.
    pub(super) fn refuse(&mut self, error: &ApiError, headers: Vec<Header>, effects: &mut Effects) {
        self.phase = Phase::Local;
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        facts.status = error.kind.status();
        facts.outcome = sluice_wire::Outcome::Rejected;
        facts.body = String::new();
        effects.respond_error(facts.format, error, headers);
    }
}

/// The format of a request that is ours to read.
fn ours(headers: &Headers) -> Option<&'static dyn formats::Format> {
    let plain = headers
        .get("content-encoding")
        .is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
    if headers.get(":method") != Some("POST") || !plain {
        return None;
    }
    formats::by_path(headers.get(":path")?)
}

/// 128 bits that no other request has: this VM's own salt and count. A client cannot choose it.
///
/// The salt is made of what the first request was met with: its moment, what tells its connection,
/// this Envoy and this VM apart, and Envoy's random id for it. Host calls are dear, so later
/// requests ask for nothing.
fn request_id(headers: &Headers, vm: &mut Vm, host: &dyn Host) -> String {
    let salt = *vm.salt.get_or_insert_with(|| {
        let mut hash = blake3::Hasher::new();
        hash.update(&host.now_ns().to_le_bytes());
        for path in [
            &["connection", "id"][..],
            &["source", "address"],
            &["xds", "node", "id"],
            &["plugin_vm_id"],
        ] {
            hash.update(&host.property(path).unwrap_or_default())
                .update(b"|");
        }
        hash.update(headers.get("x-request-id").unwrap_or("").as_bytes());
        *hash.finalize().as_bytes()
    });
    vm.requests += 1;
    let hash = blake3::keyed_hash(&salt, &vm.requests.to_le_bytes());
    hash.to_hex()[..32].to_owned()
}

/// RFC 9111 §5.2.1: `no-store` forbids storing, `no-cache` forbids answering from what is stored.
fn cache_wish(cache_control: Option<&str>, control: Option<&str>) -> CacheWish {
    let directive = |name: &str| {
        cache_control.is_some_and(|list| {
            list.split(',')
                .any(|item| item.trim().eq_ignore_ascii_case(name))
        })
    };
    match control {
        Some("bypass") => CacheWish::Bypass,
        _ if directive("no-store") => CacheWish::Bypass,
        Some("refresh") => CacheWish::Refresh,
        _ if directive("no-cache") => CacheWish::Refresh,
        _ => CacheWish::Use,
    }
}

/// Fills in the options: which models may answer, under which keys, at whose expense.
fn decide(
    facts: &mut Facts,
    request: &Request<'_>,
    vm: &mut Vm,
    effects: &mut Effects,
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
    facts.expected = expect(facts, request, vm, false);

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
    if over_input_limit(facts, request, route, vm, effects)? {
        // Without a smaller tier there is nowhere to send it: it goes as it is and is counted.
        first = small.clone().unwrap_or(first);
    }
    if route.mode == Mode::On {
        first = choice::allowed(&plan, route, &ask, first)
            .map_err(|refused| not_allowed(&refused, &facts.model_asked))?;
        small = small.and_then(|small| choice::allowed(&plan, route, &ask, small).ok());
    }
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
    if facts.options.iter().any(Option_::estimated) {
        facts.body = request.body.to_owned();
    }
    facts.cache = match (route.cache.mode, plan.sidecar.is_some()) {
        (Mode::Off, _) | (_, false) => CacheResult::Off,
        _ if facts.options.iter().all(|option| option.key.is_none()) => CacheResult::Bypass,
        _ if facts.cache_wish != CacheWish::Use => CacheResult::Bypass,
        _ => CacheResult::Miss,
    };
    Ok(())
}

/// The size to expect, exact or by bounds and ratio.
pub(super) fn expect(facts: &Facts, request: &Request<'_>, vm: &mut Vm, exact: bool) -> Expected {
    let asked = facts.model_asked.as_str();
    let model = vm
        .plan
        .model(asked)
        .map(|(name, model)| (name.to_owned(), model.encoding));
    let name = model.as_ref().map_or(asked, |(name, _)| name.as_str());
    let estimate = vm.tokens.estimate(name, facts.extent.text_bytes) + facts.extent.fixed;
    let limit = request
        .output_limit
        .unwrap_or(u64::MAX)
        .min(vm.plan.reserve.output_tokens);
    let completion = match facts.format.kind() {
        formats::Kind::Generation => limit.saturating_mul(request.choices.max(1)),
        formats::Kind::Embedding => 0,
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
        vm.tokens.count(encoding, request, facts.format.name())
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
            prompt_at_most: facts.extent.bounds().1.max(estimate),
            completion,
        },
    }
}

/// Holds the prompt against its limit. True: over, and to go to the small tier.
fn over_input_limit(
    facts: &mut Facts,
    request: &Request<'_>,
    route: &RoutePlan,
    vm: &mut Vm,
    effects: &mut Effects,
) -> Result<bool, ApiError> {
    let Some(limits) = route
        .trim
        .input
        .as_ref()
        .filter(|_| route.trim.mode != Mode::Off)
    else {
        return Ok(false);
    };
    // A dated snapshot has its model's limit, unless it has one of its own.
    let asked = facts.model_asked.as_str();
    let listed = match limits.models.contains_key(asked) {
        true => asked,
        false => vm.plan.model(asked).map_or(asked, |(name, _)| name),
    };
    let Some(limit) = limits.of(&facts.caller.tenant, listed) else {
        return Ok(false);
    };
    if facts.expected.prompt_at_most <= limit {
        return Ok(false);
    }
    // The bound is not enough: only now is it worth counting.
    facts.expected = expect(facts, request, vm, true);
    let found = facts.expected.prompt;
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
    effects.count(vm, ("input_limit", &[("action", action)]), 1);
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

/// A choice with its key and its charges.
fn option(
    facts: &Facts,
    request: &Request<'_>,
    route: &RoutePlan,
    plan: &Plan,
    choice: Choice,
) -> Option_ {
    let cache = &route.cache;
    // Both providers sample at 1 where nothing is said; vectors are not sampled.
    let temperature = match facts.format.kind() {
        formats::Kind::Generation => request.temperature.unwrap_or(1.0),
        formats::Kind::Embedding => 0.0,
    };
    let cool = temperature <= cache.max_temperature;
    let wanted =
        cache.mode != Mode::Off && plan.sidecar.is_some() && facts.cache_wish != CacheWish::Bypass;
    let key = (wanted && cool && facts.format.cacheable(request)).then(|| {
        cache_key::exact(&KeyInput {
            scope: cache.scope,
            tenant: &facts.caller.tenant,
            format: facts.format,
            request,
            headers: &facts.headers,
            model: &choice.model,
            output_limit: choice.cap.or(request.output_limit),
            policies: &route.digest,
        })
    });
    let expected = Expected {
        completion: choice.cap.map_or(facts.expected.completion, |cap| {
            facts
                .expected
                .completion
                .min(cap.saturating_mul(request.choices.max(1)))
        }),
        ..facts.expected
    };
    let mut charges = budget::charges(plan, &facts.caller, &choice.model, &expected);
    if route.mode == Mode::Dry {
        for charge in &mut charges {
            charge.over = Over::Shadow;
        }
    }
    let body = edited(facts, request, &choice);
    Option_ {
        choice,
        key,
        charges,
        body,
    }
}

/// The body as a choice sends it; None where nothing changes.
fn edited(facts: &Facts, request: &Request<'_>, choice: &Choice) -> Option<Vec<u8>> {
    let mut edits: Vec<(&str, String)> = Vec::new();
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

/// Counts the prompt exactly and renews the options' charges: the sidecar (or the local counters)
/// found a limit too near for an estimate.
pub(super) fn recount(facts: &mut Facts, vm: &mut Vm) {
    let body = std::mem::take(&mut facts.body);
    if let Ok(request) = facts.format.parse(&body) {
        facts.expected = expect(facts, &request, vm, true);
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
