//! The validated config: what the policies read. Nothing here can be out of range.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use sluice_wire::{Auto, Over, Unit, Usage, Usd, Window};

use super::raw::{Keep, Mode, OnFailure, OverSpend, Per, RouteKind, Scope, Streams};
use crate::exchange::Headers;
use crate::policy::trim::context;
use crate::policy::trim::system::SystemPrompt;
use crate::policy::trim::template::Template;
use crate::tokens::Encoding;
use crate::vectors::Dtype;

/// The whole config, validated.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sidecar to call, if there is one.
    pub sidecar: Option<Sidecar>,
    /// Models by the name that requests use.
    pub models: BTreeMap<String, Model>,
    /// Who is who.
    pub identity: Identity,
    /// Budgets, in the config's order; a rule's index names it on the wire.
    pub budgets: Vec<BudgetRule>,
    /// How much to reserve, and for how long.
    pub reserve: Reserve,
    /// Bounds on bodies.
    pub limits: Limits,
    /// Templates by name.
    pub templates: BTreeMap<String, Arc<Template>>,
    /// Overrides, first match first.
    pub routes: Vec<(Matcher, RoutePlan)>,
    /// For requests that no override matches.
    pub default: RoutePlan,
    /// Things that work but are probably not meant.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Index of the first override that matches a request; None is the defaults.
    #[must_use]
    pub fn route_index(&self, headers: &Headers) -> Option<usize> {
        self.routes
            .iter()
            .position(|(matcher, _)| matcher.matches(headers))
    }

    /// The settings of that index.
    #[must_use]
    pub fn route_at(&self, index: Option<usize>) -> &RoutePlan {
        index
            .and_then(|index| self.routes.get(index))
            .map_or(&self.default, |(_, route)| route)
    }

    /// Whether a request may have to wait for its turn on some route.
    #[must_use]
    pub fn queues(&self) -> bool {
        let routes = self.routes.iter().map(|(_, route)| route);
        routes.chain([&self.default]).any(|route| {
            let guard = &route.guard;
            guard.mode == Mode::On && (guard.misses.is_some() || guard.spend.is_some())
        })
    }

    /// The model of that name; a dated snapshot (`gpt-4o-2024-08-06`, `claude-…-20250929`) is its
    /// undated model where it is not listed itself. The name is the config's.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<(&str, &Model)> {
        let found = self
            .models
            .get_key_value(name)
            .or_else(|| self.models.get_key_value(undated(name)?))?;
        Some((found.0.as_str(), found.1))
    }

    /// The vocabularies that the config's models name.
    #[must_use]
    pub fn encodings(&self) -> Vec<Encoding> {
        let mut encodings: Vec<_> = self
            .models
            .values()
            .filter_map(|model| model.encoding)
            .collect();
        encodings.sort_unstable();
        encodings.dedup();
        encodings
    }
}

/// `gpt-4o` of `gpt-4o-2024-08-06` and `claude-haiku-4-5` of `claude-haiku-4-5-20251001`.
fn undated(name: &str) -> Option<&str> {
    ["-dddd-dd-dd", "-dddddddd"].into_iter().find_map(|date| {
        let (model, suffix) = name.split_at_checked(name.len().checked_sub(date.len())?)?;
        let fits = suffix.bytes().zip(date.bytes()).all(|(b, d)| {
            if d == b'd' {
                b.is_ascii_digit()
            } else {
                b == d
            }
        });
        fits.then_some(model)
    })
}

/// How to reach the sidecar.
#[derive(Clone)]
pub struct Sidecar {
    /// Envoy's cluster.
    pub cluster: String,
    /// Longest wait for an admission.
    pub timeout_ms: u32,
    /// Longest wait for another request's answer.
    pub wait_ms: u32,
    /// Most requests of one worker that wait so.
    pub waits: usize,
    /// What happens without it.
    pub on_failure: OnFailure,
    /// Shared secret. Absent where a client certificate does its work.
    pub secret: Option<String>,
    /// Failed calls in a row after which it is left alone.
    pub breaker_failures: u32,
    /// For how long.
    pub breaker_pause_ns: u64,
}

impl fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sidecar")
            .field("cluster", &self.cluster)
            .field("timeout_ms", &self.timeout_ms)
            .field("wait_ms", &self.wait_ms)
            .field("waits", &self.waits)
            .field("on_failure", &self.on_failure)
            .field("secret", &self.secret.as_ref().map(|_| "***"))
            .field("breaker_failures", &self.breaker_failures)
            .field("breaker_pause_ns", &self.breaker_pause_ns)
            .finish()
    }
}

/// A model's tokenizer and prices.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its vocabulary, if we have it.
    pub encoding: Option<Encoding>,
    /// First guess at bytes per token where it is not counted.
    pub bytes_per_token: f64,
    /// Prices, if known.
    pub price: Option<Price>,
    /// What its provider discounts of a prompt whose front it has seen before.
    pub prefix: Prefix,
}

/// A provider's prefix cache for a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// What gets into it.
    pub cache: PrefixCache,
    /// Shortest front that it keeps, in tokens.
    pub min_tokens: u64,
    /// Beyond that, its entries are multiples of so many tokens apart.
    pub step: u64,
    /// It certainly keeps a front for so long after it was last used.
    pub lifetime_ms: u64,
    /// It certainly has forgotten a front after so long.
    pub longest_ms: u64,
}

/// What gets into a provider's prefix cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixCache {
    /// There is none, or it earns no discount.
    #[default]
    None,
    /// Every prompt (OpenAI).
    Automatic,
    /// What `cache_control` marks (Anthropic).
    Marked,
}

/// Prices per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Prompt tokens.
    pub input: Usd,
    /// Prompt tokens read from the provider's prefix cache.
    pub cached_input: Usd,
    /// Prompt tokens written to it.
    pub cache_write: Usd,
    /// Completion tokens.
    pub output: Usd,
}

impl Price {
    /// Nothing, for what no model answers.
    pub const FREE: Price = Price {
        input: Usd::ZERO,
        cached_input: Usd::ZERO,
        cache_write: Usd::ZERO,
        output: Usd::ZERO,
    };

    /// What `usage` costs.
    #[must_use]
    pub fn of(&self, usage: &Usage) -> Usd {
        let plain = usage
            .prompt
            .saturating_sub(usage.cached)
            .saturating_sub(usage.cache_write);
        self.input.times(plain)
            + self.cached_input.times(usage.cached)
            + self.cache_write.times(usage.cache_write)
            + self.output.times(usage.completion)
    }
}

/// Who is who.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Key of the hash that stands for API keys.
    pub hash_key: HashKey,
    /// Sources of the tenant, best first.
    pub tenant: Vec<Source>,
    /// Sources of the task.
    pub task: Vec<Source>,
    /// Sources of the conversation.
    pub conversation: Vec<Source>,
    /// Callers whose control headers count.
    pub trust: Vec<Trust>,
    /// Models that a tenant may use; a tenant that is not listed may use all.
    pub allow: BTreeMap<String, Vec<String>>,
}

/// Key of the hash that stands for API keys. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u8; 32]);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(***)")
    }
}

/// Where a label comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A request header (lower case).
    Header(String),
    /// A claim that `jwt_authn` verified.
    Jwt(ClaimPath),
    /// The keyed hash of the API key.
    KeyHash,
}

/// Where Envoy's `jwt_authn` put a claim: the key of `payload_in_metadata`, then the claim's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(pub Vec<String>);

/// A caller whose control headers count.
#[derive(Clone, PartialEq, Eq)]
pub enum Trust {
    /// It comes from this network (address, prefix length).
    Source(IpAddr, u8),
    /// It knows a secret: header (lower case), value.
    Header(String, String),
    /// A verified claim has this value.
    Jwt(ClaimPath, String),
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trust::Source(address, prefix) => write!(f, "Source({address}/{prefix})"),
            Trust::Header(name, _) => write!(f, "Header({name}: ***)"),
            Trust::Jwt(path, value) => write!(f, "Jwt({path:?} = {value})"),
        }
    }
}

/// One budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRule {
    /// Whose.
    pub per: Per,
    /// Only of this tenant, task or model.
    pub only: Option<String>,
    /// What is counted.
    pub unit: Unit,
    /// Limit per window, in `unit`.
    pub limit: u64,
    /// Window.
    pub every: Window,
    /// What happens over the limit.
    pub over: Over,
    /// How many rules before it count the same thing in the same window.
    pub series: u16,
}

/// How much to reserve, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// Completion tokens expected where no smaller limit is set.
    pub output_tokens: u64,
    /// Seconds after which an unsettled reservation lapses.
    pub hold_secs: u32,
}

/// Bounds on bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request body that is read.
    pub request_body: usize,
    /// Longest response body that is held to put figures into headers; a longer one streams.
    pub response_body: usize,
    /// What happens to a longer request: on untouched, or 413.
    pub on_failure: OnFailure,
}

/// Which requests an override is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    /// `api.example.com` or `*.example.com`.
    pub host: Option<String>,
    /// `/v1/chat/completions` or `/v1/*`.
    pub path: Option<String>,
    /// Header (lower case) and value; `*` for any.
    pub headers: Vec<(String, String)>,
}

impl Matcher {
    fn matches(&self, headers: &Headers) -> bool {
        let host = headers.get(":authority").unwrap_or("");
        let host = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let path = headers.get(":path").unwrap_or("");
        let path = path.split('?').next().unwrap_or(path);
        self.host
            .as_ref()
            .is_none_or(|pattern| match pattern.strip_prefix('*') {
                Some(suffix) => host.len() > suffix.len() && ends_with_ignore_case(host, suffix),
                None => host.eq_ignore_ascii_case(pattern),
            })
            && self
                .path
                .as_ref()
                .is_none_or(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => path.starts_with(prefix),
                    None => path == pattern,
                })
            && self.headers.iter().all(|(name, value)| {
                headers
                    .get(name)
                    .is_some_and(|found| value == "*" || found == value)
            })
    }
}

fn ends_with_ignore_case(text: &str, suffix: &str) -> bool {
    let (text, suffix) = (text.as_bytes(), suffix.as_bytes());
    text.len() >= suffix.len() && text[text.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
}

/// The levers' settings for a set of requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutePlan {
    /// The override's name; empty for the defaults.
    pub name: String,
    /// What its requests are.
    pub kind: RouteKind,
    /// Overall ceiling: budgets and accounting follow it.
    pub mode: Mode,
    /// Routing.
    pub route: Routing,
    /// Trimming.
    pub trim: Trimming,
    /// Caching.
    pub cache: Caching,
    /// What holds spending where caches do not.
    pub guard: Guard,
    /// Digest of what changes a request beyond its model and output limit; part of every cache key.
    pub digest: [u8; 32],
}

/// Settings of the routing lever.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// Effective mode.
    pub mode: Mode,
    /// Tiers, smallest first.
    pub tiers: Vec<Tier>,
    /// The model stays as asked.
    pub pin: bool,
}

/// A tier.
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Name.
    pub name: String,
    /// Scores below this go here (the last tier: all others).
    pub below: f64,
    /// Model by API family.
    pub models: BTreeMap<String, String>,
    /// Cap on completion tokens.
    pub max_tokens: Option<u64>,
}

/// Settings of the trimming lever.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trimming {
    /// Effective mode.
    pub mode: Mode,
    /// Limit on prompt tokens.
    pub input: Option<InputLimit>,
    /// How retrieved chunks are chosen; None: all are sent.
    pub context: Option<context::Policy>,
    /// The template that requests are put into, unless a trusted caller asks for another.
    pub template: Option<Arc<Template>>,
    /// Where a request goes once more, as it was, when upstream refuses it trimmed; None: the refusal
    /// stands.
    pub retry: Option<Retry>,
    /// How the system prompt is shortened.
    pub system: Option<SystemPrompt>,
    /// What stays of a conversation's past; None: all of it.
    pub history: Option<History>,
    /// `cache_control` may be set where a conversation has saved what writing to the cache costs
    /// and its client sets none.
    pub marks: bool,
}

/// What stays of a conversation's past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// By what it is chosen.
    pub keep: Keep,
    /// Tokens that the past may take, what always stays included.
    pub tokens: u64,
    /// Exchanges before the current turn that always stay.
    pub last: usize,
    /// Longest time that the sidecar may take to compare meanings, in milliseconds; None: words
    /// decide alone.
    pub embeddings_ms: Option<u32>,
    /// Exchanges of the beginning that always stay.
    pub pin_first: usize,
    /// Most tokens of the digest of what does not stay.
    pub digest: u64,
    /// Who writes texts that take its place; None: nobody.
    pub writer: Option<Writer>,
}

/// A model that writes down in fewer words what conversations leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its name.
    pub model: String,
    /// Its prices.
    pub price: Price,
}

/// A limit on prompt tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputLimit {
    /// For tenants and models that are not named below.
    pub limit: Option<u64>,
    /// By tenant; wins over `models`.
    pub tenants: BTreeMap<String, u64>,
    /// By requested model.
    pub models: BTreeMap<String, u64>,
    /// What happens over it.
    pub over: Over,
}

impl InputLimit {
    /// The limit for a request, the most specific first: tenant, model, general.
    #[must_use]
    pub fn of(&self, tenant: &str, model: &str) -> Option<u64> {
        self.tenants
            .get(tenant)
            .or_else(|| self.models.get(model))
            .copied()
            .or(self.limit)
    }
}

/// Settings of the caching lever.
#[derive(Clone, Debug, PartialEq)]
pub struct Caching {
    /// Effective mode.
    pub mode: Mode,
    /// Who shares.
    pub scope: Scope,
    /// Seconds an answer stays fresh.
    pub ttl_secs: u64,
    /// Seconds beyond, in which it goes out while one request refreshes it.
    pub stale_secs: u64,
    /// Seconds beyond `ttl_secs`, in which it may stand in for an upstream that fails.
    pub stale_if_error_secs: u64,
    /// How long one request may take to fetch an answer that others wait for; 0: nobody waits.
    pub lease_ms: u32,
    /// Seconds that a deterministic refusal is remembered; 0: it is not.
    pub negative_secs: u64,
    /// Where a stale answer is refreshed behind the one that went out; None: the request with the
    /// lease goes upstream itself.
    pub refresh: Option<Loopback>,
    /// Longest answer stored, in bytes.
    pub max_answer: usize,
    /// Requests with a higher temperature are not cached.
    pub max_temperature: f64,
    /// Answers to questions that ask the same; None: only to equal requests.
    pub semantic: Option<Semantic>,
    /// Embedding requests are looked up input by input, and their vectors kept so wide; None: as a
    /// whole.
    pub embedding: Option<Dtype>,
    /// Request headers (lower case) that are in the key beside those of the format; in order.
    pub headers: Vec<String>,
    /// Tags of every answer, for all tenants: invalidating one drops them.
    pub tags: Vec<String>,
}

impl Default for Caching {
    fn default() -> Self {
        Caching {
            mode: Mode::Off,
            scope: Scope::Tenant,
            ttl_secs: 600,
            stale_secs: 0,
            stale_if_error_secs: 0,
            lease_ms: 30_000,
            negative_secs: 0,
            refresh: None,
            max_answer: 256 << 10,
            max_temperature: 1.0,
            semantic: None,
            embedding: Some(Dtype::F32),
            headers: Vec::new(),
            tags: Vec::new(),
        }
    }
}

/// When a question is answered with the answer to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semantic {
    /// Thousandths of the probability that both ask the same, from which they count as one; None:
    /// the sidecar's.
    pub threshold_milli: Option<u16>,
    /// The sidecar finds the threshold by audits.
    pub auto: Option<Auto>,
    /// Longest question that is compared, in characters.
    pub max_chars: usize,
    /// Longest time that a look-up may take.
    pub timeout_ms: u32,
}

/// How a request goes once more through this Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loopback {
    /// Cluster that is this Envoy's own listener.
    pub cluster: String,
    /// Longest time that it may take.
    pub timeout_ms: u32,
}

/// How a trimmed request that upstream refuses goes once more as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How it goes by a call.
    pub by: Loopback,
    /// What sends those that ask for a stream.
    pub streams: Streams,
}

/// What holds spending where caches fail or hit rates collapse.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guard {
    /// Effective mode.
    pub mode: Mode,
    /// Bound on requests upstream at once, per route and Envoy.
    pub misses: Option<Misses>,
    /// Bound on dollars per minute, per route and Envoy.
    pub spend: Option<Spend>,
    /// When an upstream that fails is left alone.
    pub backoff: Option<Backoff>,
}

/// Bound on requests upstream at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misses {
    /// At once, in one Envoy.
    pub limit: u64,
    /// Requests of one worker that wait for their turn.
    pub queue: usize,
    /// How long they do.
    pub wait_ns: u64,
}

impl Default for Misses {
    fn default() -> Self {
        Misses {
            limit: u64::MAX,
            queue: 256,
            wait_ns: 10_000_000_000,
        }
    }
}

/// Bound on dollars per minute.
#[derive(Clone, Debug, PartialEq)]
pub struct Spend {
    /// How many times the trailing rate is too much.
    pub factor: f64,
    /// Dollars per minute that are never too much.
    pub floor: Usd,
    /// Dollars per minute that always are.
    pub ceiling: Option<Usd>,
    /// What is done, the first that can be.
    pub over: Vec<OverSpend>,
}

/// When an upstream that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Failures in a row.
    pub failures: u32,
    /// First pause; doubles with each probe that fails.
    pub pause_ns: u64,
    /// Longest pause, also where upstream asks for a longer one.
    pub longest_ns: u64,
}
