//! Raw config → validated plan. A fault here is a value that reads well and makes no sense.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sluice_wire::{Unit, Usd};

use super::Fault;
use super::plan::{
    BudgetRule, Caching, ClaimPath, HashKey, Identity, InputLimit, Limits, Matcher, Model, Plan,
    Price, Reserve, RoutePlan, Routing, Sidecar, Source, Tier, Trimming, Trust,
};
use super::raw::{self, Mode, overlay_caching, overlay_routing, overlay_trimming};
use super::read::Config;
use super::values::{Bytes, Count, Millis};
use crate::formats;
use crate::tokens::Encoding;

/// Bytes per token where neither a vocabulary nor a ratio is given: about that of English prose
/// in today's vocabularies.
const BYTES_PER_TOKEN: f64 = 4.0;

/// Where `jwt_authn` puts claims, unless the config says otherwise.
const JWT_PAYLOAD: &str = "jwt_payload";

/// Largest dollar budget: sums stay exact in 64 bits of picodollars.
const MAX_DOLLARS: f64 = 1_000_000.0;

struct Lower<'a> {
    faults: &'a mut Vec<Fault>,
    env: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

/// The plan, or None where a fault leaves nothing to build on.
pub(super) fn plan(
    raw: &Config,
    env: &dyn Fn(&str) -> Option<String>,
    faults: &mut Vec<Fault>,
) -> Option<Plan> {
    let mut lower = Lower {
        faults,
        env,
        warnings: Vec::new(),
    };
    let models = raw
        .models
        .iter()
        .map(|(name, model)| (name.clone(), lower.model(name, model)))
        .collect();
    let sidecar = raw.sidecar.as_ref().map(|sidecar| lower.sidecar(sidecar));
    let identity = lower.identity(
        &raw.identity,
        sidecar
            .as_ref()
            .and_then(|sidecar| sidecar.secret.as_deref()),
    );
    let mut budgets: Vec<_> = raw
        .budgets
        .iter()
        .filter_map(|(at, rule)| lower.budget(*at, rule))
        .collect();
    number_alike(&mut budgets);
    let reserve = Reserve {
        output_tokens: raw
            .reserve
            .output_tokens
            .map_or(256, |Count(tokens)| tokens),
        hold_secs: lower.within("reserve.hold", raw.reserve.hold, 120_000, 1000..=86_400_000)
            as u32
            / 1000,
    };
    // Envoy's buffers are bounded by its own limit; a gigabyte here would only hide a mistake.
    let bodies = 1..=1 << 30;
    let size = |size: Option<Bytes>, default| size.map_or(default, |size| size.0);
    let request = size(raw.limits.request_body, 8 << 20);
    let response = size(raw.limits.response_body, 4 << 20);
    for (path, value) in [
        ("limits.request_body", request),
        ("limits.response_body", response),
    ] {
        if !bodies.contains(&value) {
            lower.fault(path, format!("found {value} bytes, expected 1 to 1GiB"));
        }
    }
    let limits = Limits {
        request_body: request as usize,
        response_body: response as usize,
        on_failure: raw.limits.on_failure,
    };

    let ceiling = raw.mode.unwrap_or(Mode::On);
    let default = lower.route_plan("", "", ceiling, &Levers::of(raw));
    let mut routes: Vec<(Matcher, RoutePlan)> = Vec::new();
    for (at, route) in &raw.routes {
        let path = format!("routes[{at}]");
        let matcher = lower.matcher(&path, route);
        if routes.iter().any(|(_, other)| other.name == route.name) {
            lower.fault(
                &format!("{path}.name"),
                format!("found `{}` twice, expected names that differ", route.name),
            );
        }
        let levers = Levers {
            route: overlay_routing(raw.route.as_ref(), route.route.as_ref()),
            trim: overlay_trimming(raw.trim.as_ref(), route.trim.as_ref()),
            cache: overlay_caching(raw.cache.as_ref(), route.cache.as_ref()),
        };
        // What an override leaves as it is was reported where it stands.
        let own = (
            route.route.as_ref().is_some_and(|own| own.tiers.is_some()),
            route
                .trim
                .as_ref()
                .is_some_and(|own| own.input_tokens.is_some()),
            route.cache.is_some(),
        );
        let before = lower.faults.len();
        let plan = lower.route_plan(
            &format!("{path}."),
            &route.name,
            route.mode.unwrap_or(ceiling).min(ceiling),
            &levers,
        );
        let inherited = lower.faults.split_off(before).into_iter().filter(|fault| {
            let section = fault.path.trim_start_matches(&path).trim_start_matches('.');
            (section.starts_with("route") && own.0)
                || (section.starts_with("trim") && own.1)
                || (section.starts_with("cache") && own.2)
        });
        let inherited: Vec<_> = inherited.collect();
        lower.faults.extend(inherited);
        routes.push((matcher, plan));
    }
    lower.warn_about(&models, &default, &routes, sidecar.is_some(), raw);
    let warnings = lower.warnings;
    Some(Plan {
        sidecar,
        models,
        identity,
        budgets,
        reserve,
        limits,
        routes,
        default,
        warnings,
    })
}

struct Levers {
    route: Option<raw::Routing>,
    trim: Option<raw::Trimming>,
    cache: Option<raw::Caching>,
}

impl Levers {
    fn of(raw: &Config) -> Self {
        Levers {
            route: raw.route.clone(),
            trim: raw.trim.clone(),
            cache: raw.cache.clone(),
        }
    }
}

impl Lower<'_> {
    fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(Fault {
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// A secret: a literal, or `env:NAME` from the environment.
    fn secret(&mut self, path: &str, value: &str) -> Option<String> {
        let Some(name) = value.strip_prefix("env:") else {
            if value.is_empty() {
                self.fault(
                    path,
                    "found an empty secret, expected env:NAME or a literal",
                );
                return None;
            }
            return Some(value.to_owned());
        };
        match (self.env)(name) {
            Some(secret) if !secret.is_empty() => Some(secret),
            _ => {
                self.fault(path, format!("environment variable `{name}` is not set (in Envoy: list it in vm_config.environment_variables.host_env_keys)"));
                None
            }
        }
    }

    /// Milliseconds within a range, or the default.
    fn within(
        &mut self,
        path: &str,
        value: Option<Millis>,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        match value {
            Some(Millis(found)) if !range.contains(&found) => {
                self.fault(
                    path,
                    format!(
                        "found {found}ms, expected {}ms to {}ms",
                        range.start(),
                        range.end()
                    ),
                );
                default
            }
            Some(Millis(found)) => found,
            None => default,
        }
    }

    fn sidecar(&mut self, raw: &raw::Sidecar) -> Sidecar {
        if raw.cluster.is_empty() {
            self.fault(
                "sidecar.cluster",
                "found nothing, expected the name of an Envoy cluster",
            );
        }
        let secret = raw
            .secret
            .as_ref()
            .and_then(|secret| self.secret("sidecar.secret", secret));
        let failures = raw.breaker.failures.map_or(5, |Count(failures)| failures);
        if failures == 0 || failures > 1_000_000 {
            self.fault(
                "sidecar.breaker.failures",
                format!("found {failures}, expected 1 to 1000000"),
            );
        }
        Sidecar {
            cluster: raw.cluster.clone(),
            timeout_ms: self.within("sidecar.timeout", raw.timeout, 50, 1..=60_000) as u32,
            on_failure: raw.on_failure,
            secret,
            breaker_failures: failures as u32,
            breaker_pause_ns: self.within(
                "sidecar.breaker.pause",
                raw.breaker.pause,
                5000,
                1..=3_600_000,
            ) * 1_000_000,
        }
    }

    fn model(&mut self, name: &str, raw: &raw::Model) -> Model {
        let path = format!("models.{name}");
        let bytes_per_token = raw.bytes_per_token.unwrap_or(BYTES_PER_TOKEN);
        if !(0.25..=64.0).contains(&bytes_per_token) {
            self.fault(
                &format!("{path}.bytes_per_token"),
                format!("found {bytes_per_token}, expected 0.25 to 64"),
            );
        }
        let mut price = |field: &str, value: Option<f64>| match value {
            Some(dollars) if !(0.0..=1_000_000.0).contains(&dollars) => {
                self.fault(
                    &format!("{path}.{field}"),
                    format!("found {dollars}, expected dollars per million tokens, 0 to 1000000"),
                );
                None
            }
            value => value.map(|dollars| Usd::from_dollars(dollars / 1e6)),
        };
        let (input, output) = (price("input", raw.input), price("output", raw.output));
        let (cached, write) = (
            price("cached_input", raw.cached_input),
            price("cache_write", raw.cache_write),
        );
        let price = match (input, output) {
            (Some(input), output) if output.is_some() || raw.output.is_none() => Some(Price {
                input,
                cached_input: cached.unwrap_or(input),
                cache_write: write.unwrap_or(input),
                // An embedding model has no output to pay for.
                output: output.unwrap_or(Usd::ZERO),
            }),
            _ => None,
        };
        if price.is_none()
            && [raw.output, raw.cached_input, raw.cache_write]
                .iter()
                .any(Option::is_some)
            && raw.input.is_none()
        {
            self.fault(
                &format!("{path}.input"),
                "missing, expected dollars per million prompt tokens beside the other prices",
            );
        }
        let encoding = raw.encoding.map(|encoding| match encoding {
            raw::Encoding::O200kBase => Encoding::O200kBase,
            raw::Encoding::Cl100kBase => Encoding::Cl100kBase,
        });
        Model {
            encoding,
            bytes_per_token,
            price,
        }
    }

    fn identity(&mut self, raw: &raw::Identity, sidecar_secret: Option<&str>) -> Identity {
        let hash_secret = raw
            .hash_key
            .as_ref()
            .and_then(|key| self.secret("identity.hash_key", key));
        let tenant = match &raw.tenant {
            Some(sources) => self.sources("identity.tenant", sources),
            // Tenants are apart by default, also where nobody said who they are.
            None => vec![Source::KeyHash],
        };
        for source in &tenant {
            if let Source::Header(name) = source {
                self.warnings.push(format!(
                    "identity.tenant: header `{name}` is believed from every caller; unless something in front of this filter sets or strips it, anyone can be any tenant"
                ));
            }
        }
        let task = self.sources("identity.task", raw.task.as_deref().unwrap_or(&[]));
        let conversation = self.sources(
            "identity.conversation",
            raw.conversation.as_deref().unwrap_or(&[]),
        );
        let hashes = [&tenant, &task, &conversation]
            .iter()
            .any(|sources| sources.contains(&Source::KeyHash));
        let hash_key = hash_secret.as_deref().or(sidecar_secret);
        if hashes && hash_key.is_none() && raw.hash_key.is_none() {
            self.warnings.push("identity.hash_key: not set, and there is no sidecar.secret either: API keys are hashed without a secret key".into());
        }
        let hash_key = HashKey(blake3::derive_key(
            "sluice 2026 identity.hash_key",
            hash_key.unwrap_or("").as_bytes(),
        ));
        let trust = raw
            .trust
            .iter()
            .enumerate()
            .filter_map(|(at, trust)| self.trust(at, trust))
            .collect();
        Identity {
            hash_key,
            tenant,
            task,
            conversation,
            trust,
            allow: raw.allow.clone(),
        }
    }

    fn sources(&mut self, path: &str, raw: &[raw::Source]) -> Vec<Source> {
        let mut sources = Vec::new();
        for (at, source) in raw.iter().enumerate() {
            match source {
                raw::Source::Header(name) => match header_name(name) {
                    Some(name) => sources.push(Source::Header(name)),
                    None => self.fault(
                        &format!("{path}[{at}].header"),
                        format!("found `{name}`, expected a header's name"),
                    ),
                },
                raw::Source::Jwt(raw::Claim::Name(claim)) => {
                    sources.push(Source::Jwt(claim_path(claim, None)))
                }
                raw::Source::Jwt(raw::Claim::Full(full)) => {
                    sources.push(Source::Jwt(claim_path(
                        &full.claim,
                        full.payload.as_deref(),
                    )));
                }
                raw::Source::KeyHash(true) => sources.push(Source::KeyHash),
                raw::Source::KeyHash(false) => {}
            }
        }
        sources
    }

    fn trust(&mut self, at: usize, raw: &raw::Trust) -> Option<Trust> {
        let path = format!("identity.trust[{at}]");
        match raw {
            raw::Trust::Source(network) => {
                let trust = network_of(network);
                if trust.is_none() {
                    self.fault(
                        &format!("{path}.source"),
                        format!(
                            "found `{network}`, expected a network, like 10.0.0.0/8 or ::1/128"
                        ),
                    );
                }
                trust
            }
            raw::Trust::Header(header) => {
                let value = self.secret(&format!("{path}.header.value"), &header.value)?;
                let name = header_name(&header.name);
                if name.is_none() {
                    self.fault(
                        &format!("{path}.header.name"),
                        format!("found `{}`, expected a header's name", header.name),
                    );
                }
                Some(Trust::Header(name?, value))
            }
            raw::Trust::Jwt(jwt) => Some(Trust::Jwt(
                claim_path(&jwt.claim, jwt.payload.as_deref()),
                jwt.value.clone(),
            )),
        }
    }

    fn budget(&mut self, at: usize, raw: &raw::Budget) -> Option<BudgetRule> {
        let path = format!("budgets[{at}]");
        let (unit, limit) = match (raw.tokens, raw.dollars) {
            (Some(Count(tokens)), None) => (Unit::Tokens, tokens),
            (None, Some(dollars)) if dollars > 0.0 && dollars <= MAX_DOLLARS => {
                (Unit::Usd, Usd::from_dollars(dollars).0.unsigned_abs())
            }
            (None, Some(dollars)) => {
                self.fault(
                    &format!("{path}.dollars"),
                    format!("found {dollars}, expected more than 0, at most {MAX_DOLLARS}"),
                );
                return None;
            }
            (None, None) => {
                self.fault(
                    &path,
                    "found neither tokens nor dollars, expected one of them",
                );
                return None;
            }
            (Some(_), Some(_)) => {
                self.fault(
                    &path,
                    "found tokens and dollars, expected one of them (write two rules)",
                );
                return None;
            }
        };
        // 2^53: the shared store's scripts compare in doubles.
        if limit == 0 || (unit == Unit::Tokens && limit > 1 << 53) {
            self.fault(
                &format!("{path}.tokens"),
                format!("found {limit}, expected 1 to 2^53"),
            );
            return None;
        }
        Some(BudgetRule {
            per: raw.per,
            only: raw.only.clone(),
            unit,
            limit,
            every: raw.every,
            over: raw.over,
            series: 0,
        })
    }

    fn matcher(&mut self, path: &str, raw: &raw::Route) -> Matcher {
        if raw.name.is_empty()
            || raw.name.len() > 64
            || !raw
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            self.fault(
                &format!("{path}.name"),
                format!(
                    "found `{}`, expected 1 to 64 letters, digits, `-`, `_`, `.`",
                    raw.name
                ),
            );
        }
        let matches = &raw.matches;
        if matches.host.is_none() && matches.path.is_none() && matches.headers.is_empty() {
            self.fault(
                &format!("{path}.match"),
                "found nothing to match, expected host, path or headers",
            );
        }
        if let Some(host) = matches
            .host
            .as_ref()
            .filter(|host| host.trim_start_matches('*').contains('*') || host.is_empty())
        {
            self.fault(
                &format!("{path}.match.host"),
                format!("found `{host}`, expected a name or `*.` and a name"),
            );
        }
        if let Some(found) = matches
            .path
            .as_ref()
            .filter(|path| !path.starts_with('/') || path.trim_end_matches('*').contains('*'))
        {
            self.fault(
                &format!("{path}.match.path"),
                format!("found `{found}`, expected a path from `/` on, with `*` at its end only"),
            );
        }
        let headers = matches
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .collect();
        Matcher {
            host: matches.host.clone(),
            path: matches.path.clone(),
            headers,
        }
    }

    fn route_plan(&mut self, path: &str, name: &str, ceiling: Mode, levers: &Levers) -> RoutePlan {
        let mode = |own: Option<Mode>| own.unwrap_or(Mode::On).min(ceiling);
        let route = levers.route.as_ref().map(|raw| Routing {
            mode: mode(raw.mode),
            tiers: self.tiers(
                &format!("{path}route.tiers"),
                raw.tiers.as_deref().unwrap_or(&[]),
            ),
            pin: raw.pin.unwrap_or(false),
        });
        let trim = levers.trim.as_ref().map(|raw| Trimming {
            mode: mode(raw.mode),
            input: raw
                .input_tokens
                .as_ref()
                .map(|limit| self.input_limit(&format!("{path}trim.input_tokens"), limit)),
        });
        let cache = levers
            .cache
            .as_ref()
            .map(|raw| self.caching(&format!("{path}cache"), mode(raw.mode), raw));
        let trim = trim.unwrap_or_default();
        RoutePlan {
            name: name.to_owned(),
            mode: ceiling,
            digest: *blake3::hash(format!("{trim:?}").as_bytes()).as_bytes(),
            route: route.unwrap_or_default(),
            trim,
            cache: cache.unwrap_or_default(),
        }
    }

    fn tiers(&mut self, path: &str, raw: &[raw::Tier]) -> Vec<Tier> {
        let mut tiers: Vec<Tier> = Vec::new();
        if raw.is_empty() {
            self.fault(
                path,
                "found no tiers, expected at least one, smallest first",
            );
        }
        for (at, tier) in raw.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let last = at + 1 == raw.len();
            let below = match tier.below {
                None if last => f64::INFINITY,
                None => {
                    self.fault(
                        &format!("{path}.below"),
                        "missing, expected a score in [0,1] on every tier but the last",
                    );
                    1.0
                }
                Some(_) if last => {
                    self.fault(
                        &format!("{path}.below"),
                        "the last tier takes every other score, expected no `below`",
                    );
                    f64::INFINITY
                }
                Some(below) => {
                    let floor = tiers.last().map_or(0.0, |tier| tier.below);
                    if !(below > floor && below <= 1.0) {
                        self.fault(
                            &format!("{path}.below"),
                            format!("found {below}, expected more than {floor} and at most 1"),
                        );
                    }
                    below
                }
            };
            if tier.name.is_empty()
                || tier.name.len() > 32
                || !tier
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            {
                self.fault(
                    &format!("{path}.name"),
                    format!(
                        "found `{}`, expected 1 to 32 letters, digits, `-`, `_`",
                        tier.name
                    ),
                );
            }
            if tiers.iter().any(|other| other.name == tier.name) {
                self.fault(
                    &format!("{path}.name"),
                    format!("found `{}` twice, expected names that differ", tier.name),
                );
            }
            let max_tokens = tier.max_tokens.map(|Count(tokens)| tokens);
            if max_tokens == Some(0) {
                self.fault(&format!("{path}.max_tokens"), "found 0, expected 1 or more");
            }
            let models = match &tier.model {
                // Plain names are OpenAI's family, the one that most providers and servers speak.
                raw::TierModel::Name(model) => {
                    BTreeMap::from([("openai".to_owned(), model.clone())])
                }
                raw::TierModel::ByFamily(models) => models.clone(),
            };
            for (family, model) in &models {
                if !formats::ALL.is_empty()
                    && !formats::ALL.iter().any(|format| format.family() == family)
                {
                    self.fault(
                        &format!("{path}.model.{family}"),
                        "unknown API family, expected openai, openai-completions or anthropic",
                    );
                }
                if model.is_empty() {
                    self.fault(
                        &format!("{path}.model.{family}"),
                        "found nothing, expected a model's name",
                    );
                }
            }
            tiers.push(Tier {
                name: tier.name.clone(),
                below,
                models,
                max_tokens,
            });
        }
        tiers
    }

    fn input_limit(&mut self, path: &str, raw: &raw::InputTokens) -> InputLimit {
        let plain = |limits: &BTreeMap<String, Count>| {
            limits
                .iter()
                .map(|(name, Count(limit))| (name.clone(), *limit))
                .collect()
        };
        if raw.limit.is_none() && raw.tenants.is_empty() && raw.models.is_empty() {
            self.fault(path, "found no limit, expected limit, tenants or models");
        }
        InputLimit {
            limit: raw.limit.map(|Count(limit)| limit),
            tenants: plain(&raw.tenants),
            models: plain(&raw.models),
            over: raw.over,
        }
    }

    fn caching(&mut self, path: &str, mode: Mode, raw: &raw::Caching) -> Caching {
        let exact = raw.exact.clone().unwrap_or_default();
        let defaults = Caching::default();
        let ttl = self.within(
            &format!("{path}.exact.ttl"),
            exact.ttl,
            defaults.ttl_secs * 1000,
            1000..=30 * 86_400_000,
        );
        let max_answer = exact
            .max_answer
            .map_or(defaults.max_answer, |size| size.0 as usize);
        if !(1..=8 << 20).contains(&max_answer) {
            self.fault(
                &format!("{path}.exact.max_answer"),
                format!("found {max_answer} bytes, expected 1 to 8MiB"),
            );
        }
        let max_temperature = exact.max_temperature.unwrap_or(defaults.max_temperature);
        if !(0.0..=2.0).contains(&max_temperature) {
            self.fault(
                &format!("{path}.exact.max_temperature"),
                format!("found {max_temperature}, expected 0 to 2"),
            );
        }
        Caching {
            mode,
            scope: raw.scope.unwrap_or_default(),
            ttl_secs: ttl / 1000,
            max_answer,
            max_temperature,
        }
    }

    fn warn_about(
        &mut self,
        models: &BTreeMap<String, Model>,
        default: &RoutePlan,
        routes: &[(Matcher, RoutePlan)],
        sidecar: bool,
        raw: &Config,
    ) {
        for (name, model) in models {
            if model.price.is_none() {
                self.warnings.push(format!(
                    "models.{name}: no price; its cost is reported as unknown"
                ));
            }
        }
        let plans = || std::iter::once(default).chain(routes.iter().map(|(_, plan)| plan));
        let mut unlisted: Vec<&str> = plans()
            .flat_map(|plan| &plan.route.tiers)
            .flat_map(|tier| tier.models.values())
            .filter(|model| !models.contains_key(*model))
            .map(String::as_str)
            .collect();
        unlisted.sort_unstable();
        unlisted.dedup();
        for model in unlisted {
            self.warnings.push(format!(
                "route.tiers: model `{model}` is not in models; its cost is unknown"
            ));
        }
        if !sidecar && plans().any(|plan| plan.cache.mode != Mode::Off) {
            self.warnings
                .push("cache: there is no sidecar, so nothing is cached".into());
        }
        if raw.mode == Some(Mode::Off) {
            self.warnings
                .push("mode: off; every request passes untouched and unaccounted".into());
        }
    }
}

/// Gives rules that count the same thing in the same window counters of their own.
fn number_alike(budgets: &mut [BudgetRule]) {
    for at in 0..budgets.len() {
        let (before, rest) = budgets.split_at_mut(at);
        if let Some(rule) = rest.first_mut() {
            let alike = |other: &&BudgetRule| {
                (other.per, other.every, other.unit) == (rule.per, rule.every, rule.unit)
            };
            rule.series = before.iter().filter(alike).count() as u16;
        }
    }
}

fn header_name(name: &str) -> Option<String> {
    let token = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b));
    token.then(|| name.to_ascii_lowercase())
}

fn claim_path(claim: &str, payload: Option<&str>) -> ClaimPath {
    let payload = payload.unwrap_or(JWT_PAYLOAD).to_owned();
    ClaimPath(
        std::iter::once(payload)
            .chain(claim.split('.').map(str::to_owned))
            .collect(),
    )
}

fn network_of(text: &str) -> Option<Trust> {
    let (address, prefix) = text
        .split_once('/')
        .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.trim().parse().ok()?;
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= widest)?,
        None => widest,
    };
    Some(Trust::Source(address, prefix))
}
