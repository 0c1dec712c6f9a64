//! The config as people write it. Every field is optional here; [`super::plan`] decides.

mod context;
mod system;

use std::collections::BTreeMap;

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sluice_wire::{Over, Window};

pub(crate) use self::context::{Context, Fence, List, Marker, Tag, Template};
pub(crate) use self::system::{Between, Examples, System};
use super::plan::PrefixCache;
use super::values::{AutoOr, Bytes, Count, Millis, auto_or_decimal, decimal};
use crate::vectors::Dtype;

/// How far a lever goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Not at all.
    #[default]
    Off,
    /// Decides and counts what it would have saved; changes nothing.
    Dry,
    /// Acts.
    On,
}

/// YAML 1.1, which Envoy reads, makes booleans of `on` and `off`; both are taken.
impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Mode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("off, dry or on")
            }
            fn visit_bool<E: Error>(self, on: bool) -> Result<Mode, E> {
                Ok(if on { Mode::On } else { Mode::Off })
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<Mode, E> {
                match word {
                    "off" => Ok(Mode::Off),
                    "dry" => Ok(Mode::Dry),
                    "on" => Ok(Mode::On),
                    other => Err(E::unknown_variant(other, &["off", "dry", "on"])),
                }
            }
        }
        reader.deserialize_any(Word)
    }
}

/// What happens where something of ours fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The request goes on without it.
    #[default]
    Open,
    /// The request is refused.
    Closed,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Sidecar {
    pub(crate) cluster: String,
    pub(crate) timeout: Option<Millis>,
    pub(crate) wait: Option<Millis>,
    pub(crate) waits: Option<Count>,
    #[serde(default)]
    pub(crate) on_failure: OnFailure,
    pub(crate) secret: Option<String>,
    #[serde(default)]
    pub(crate) breaker: Breaker,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Breaker {
    pub(crate) failures: Option<Count>,
    pub(crate) pause: Option<Millis>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Model {
    pub(crate) encoding: Option<Encoding>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) bytes_per_token: Option<f64>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) input: Option<f64>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) cached_input: Option<f64>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) cache_write: Option<f64>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) output: Option<f64>,
    pub(crate) prefix: Option<Prefix>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Prefix {
    pub(crate) cache: Option<PrefixCache>,
    pub(crate) min_tokens: Option<Count>,
    pub(crate) step: Option<Count>,
    pub(crate) lifetime: Option<Millis>,
    pub(crate) longest: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    O200kBase,
    Cl100kBase,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Identity {
    pub(crate) hash_key: Option<String>,
    pub(crate) tenant: Option<Vec<Source>>,
    pub(crate) task: Option<Vec<Source>>,
    pub(crate) conversation: Option<Vec<Source>>,
    #[serde(default)]
    pub(crate) trust: Vec<Trust>,
    #[serde(default)]
    pub(crate) allow: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Source {
    Header(String),
    Jwt(Claim),
    KeyHash(bool),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a claim's name, or {claim: …, payload: …}")]
pub(crate) enum Claim {
    Name(String),
    Full(FullClaim),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct FullClaim {
    pub(crate) claim: String,
    pub(crate) payload: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Trust {
    Source(String),
    Header(TrustHeader),
    Jwt(TrustClaim),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct TrustHeader {
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct TrustClaim {
    pub(crate) claim: String,
    pub(crate) payload: Option<String>,
    pub(crate) value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Routing {
    pub(crate) mode: Option<Mode>,
    pub(crate) tiers: Option<Vec<Tier>>,
    pub(crate) pin: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Tier {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) below: Option<f64>,
    pub(crate) model: TierModel,
    pub(crate) max_tokens: Option<Count>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a model's name, or a map from API family (openai, anthropic, …) to a model's name"
)]
pub(crate) enum TierModel {
    Name(String),
    ByFamily(BTreeMap<String, String>),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Trimming {
    pub(crate) mode: Option<Mode>,
    pub(crate) input_tokens: Option<InputTokens>,
    pub(crate) context: Option<Context>,
    pub(crate) template: Option<String>,
    pub(crate) system: Option<System>,
    pub(crate) history: Option<History>,
    pub(crate) marks: Option<Mode>,
    pub(crate) retry: Option<Retry>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct InputTokens {
    pub(crate) limit: Option<Count>,
    #[serde(default = "reject")]
    pub(crate) over: Over,
    #[serde(default)]
    pub(crate) tenants: BTreeMap<String, Count>,
    #[serde(default)]
    pub(crate) models: BTreeMap<String, Count>,
}

fn reject() -> Over {
    Over::Reject
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct History {
    pub(crate) keep: Option<Keep>,
    pub(crate) tokens: Option<Count>,
    pub(crate) last: Option<Count>,
    pub(crate) embeddings: Option<Embeddings>,
    pub(crate) pin_first: Option<Count>,
    pub(crate) summary: Option<Summary>,
}

/// The digest of what does not stay.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Summary {
    pub(crate) tokens: Count,
    #[serde(default)]
    pub(crate) writer: SummaryWriter,
    pub(crate) model: Option<String>,
}

/// Who writes digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SummaryWriter {
    /// Nobody: they are extracts.
    #[default]
    Local,
    /// A model that the sidecar asks.
    Sidecar,
}

/// What stays of a conversation's past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// What was said last.
    Recent,
    /// What has to do with the current turn.
    #[default]
    Relevant,
    /// The same, and of the rest a digest.
    Summary,
}

/// Whether the sidecar compares meanings: `on`, `off`, or `{timeout: 50ms}`, which is `on`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Embeddings {
    pub(crate) mode: Option<Mode>,
    pub(crate) timeout: Option<Millis>,
}

impl<'de> Deserialize<'de> for Embeddings {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            mode: Option<Mode>,
            timeout: Option<Millis>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Embeddings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("on, off or a mapping, like {timeout: 50ms}")
            }
            fn visit_bool<E: Error>(self, on: bool) -> Result<Embeddings, E> {
                let mode = Mode::deserialize(on.into_deserializer())?;
                Ok(Embeddings::plain(mode))
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<Embeddings, E> {
                let mode = Mode::deserialize(word.into_deserializer())?;
                Ok(Embeddings::plain(mode))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Embeddings, A::Error> {
                let Fields { mode, timeout } =
                    Fields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Embeddings { mode, timeout })
            }
        }
        reader.deserialize_any(Either)
    }
}

impl Embeddings {
    fn plain(mode: Mode) -> Self {
        Embeddings {
            mode: Some(mode),
            timeout: None,
        }
    }
}

/// Whose budget a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Each tenant has its own.
    Tenant,
    /// Each task has its own.
    Task,
    /// Each model (the one that is used) has its own.
    Model,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Budget {
    pub(crate) per: Per,
    pub(crate) tokens: Option<Count>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) dollars: Option<f64>,
    pub(crate) every: Window,
    pub(crate) over: Over,
    /// Only for this tenant, task or model.
    pub(crate) only: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Reserve {
    pub(crate) output_tokens: Option<Count>,
    pub(crate) hold: Option<Millis>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Caching {
    pub(crate) mode: Option<Mode>,
    pub(crate) exact: Option<Exact>,
    pub(crate) semantic: Option<Semantic>,
    pub(crate) embedding: Option<Embedding>,
    pub(crate) scope: Option<Scope>,
    pub(crate) coalesce: Option<Coalesce>,
    pub(crate) negative: Option<Negative>,
    pub(crate) refresh: Option<Loopback>,
    pub(crate) headers: Option<Vec<String>>,
    pub(crate) tags: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Exact {
    pub(crate) ttl: Option<Millis>,
    pub(crate) stale: Option<Millis>,
    pub(crate) stale_if_error: Option<Millis>,
    pub(crate) max_answer: Option<Bytes>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) max_temperature: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Semantic {
    pub(crate) mode: Option<Mode>,
    #[serde(default, deserialize_with = "auto_or_decimal")]
    pub(crate) threshold: Option<AutoOr>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) audit: Option<f64>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) false_hits: Option<f64>,
    pub(crate) max_chars: Option<Count>,
    pub(crate) timeout: Option<Millis>,
}

impl Semantic {
    fn is_fixed(&self) -> bool {
        matches!(self.threshold, Some(AutoOr::Number(_)))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Embedding {
    pub(crate) mode: Option<Mode>,
    pub(crate) dtype: Option<Dtype>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Coalesce {
    pub(crate) mode: Option<Mode>,
    pub(crate) lease: Option<Millis>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Negative {
    pub(crate) mode: Option<Mode>,
    pub(crate) ttl: Option<Millis>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Loopback {
    pub(crate) cluster: String,
    pub(crate) timeout: Option<Millis>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Retry {
    pub(crate) cluster: String,
    pub(crate) timeout: Option<Millis>,
    #[serde(default)]
    pub(crate) streams: Streams,
}

/// What sends a trimmed request once more that upstream refuses, where it asks for a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Streams {
    /// The filter, by a call: the answer comes in one piece.
    #[default]
    Callout,
    /// The sidecar: the answer comes as it is made.
    Relay,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Guard {
    pub(crate) mode: Option<Mode>,
    pub(crate) misses: Option<Misses>,
    pub(crate) spend: Option<Spend>,
    pub(crate) backoff: Option<Backoff>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Misses {
    pub(crate) limit: Count,
    pub(crate) queue: Option<Count>,
    pub(crate) wait: Option<Millis>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Spend {
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) factor: Option<f64>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) floor: Option<f64>,
    #[serde(default, deserialize_with = "decimal")]
    pub(crate) ceiling: Option<f64>,
    pub(crate) over: Option<Vec<OverSpend>>,
}

/// What is done, first that can be, while too much is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverSpend {
    /// An answer past its stale window goes out where there is one.
    Stale,
    /// The request goes to the small tier.
    SmallTier,
    /// The request waits, as long and in such numbers as `misses` says.
    Queue,
    /// The request is refused.
    Reject,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Backoff {
    pub(crate) failures: Option<Count>,
    pub(crate) pause: Option<Millis>,
    pub(crate) longest: Option<Millis>,
}

/// Who shares cached answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A tenant with itself only.
    #[default]
    Tenant,
    /// All tenants with each other.
    Global,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Limits {
    pub(crate) request_body: Option<Bytes>,
    pub(crate) response_body: Option<Bytes>,
    #[serde(default)]
    pub(crate) on_failure: OnFailure,
}

/// What the requests of a route are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// Requests of the LLM APIs, each told by its path.
    #[default]
    Llm,
    /// A search service's JSON POSTs, whatever their path.
    Retrieval,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Route {
    pub(crate) name: String,
    #[serde(rename = "match")]
    pub(crate) matches: Match,
    #[serde(default)]
    pub(crate) kind: RouteKind,
    pub(crate) mode: Option<Mode>,
    pub(crate) route: Option<Routing>,
    pub(crate) trim: Option<Trimming>,
    pub(crate) cache: Option<Caching>,
    pub(crate) guard: Option<Guard>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(crate) struct Match {
    pub(crate) host: Option<String>,
    pub(crate) path: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}

/// `over`'s fields win; what it leaves out stays as in `base`.
pub(crate) fn overlay_routing(base: Option<&Routing>, over: Option<&Routing>) -> Option<Routing> {
    both(base, over, |base, over| Routing {
        mode: over.mode.or(base.mode),
        tiers: over.tiers.or(base.tiers),
        pin: over.pin.or(base.pin),
    })
}

pub(crate) fn overlay_trimming(
    base: Option<&Trimming>,
    over: Option<&Trimming>,
) -> Option<Trimming> {
    both(base, over, |base, over| Trimming {
        mode: over.mode.or(base.mode),
        marks: over.marks.or(base.marks),
        input_tokens: over.input_tokens.or(base.input_tokens),
        context: both(
            base.context.as_ref(),
            over.context.as_ref(),
            Context::overlaid,
        ),
        template: over.template.or(base.template),
        system: both(base.system.as_ref(), over.system.as_ref(), System::overlaid),
        history: both(
            base.history.as_ref(),
            over.history.as_ref(),
            overlay_history,
        ),
        retry: over.retry.or(base.retry),
    })
}

fn overlay_history(base: History, over: History) -> History {
    History {
        keep: over.keep.or(base.keep),
        tokens: over.tokens.or(base.tokens),
        last: over.last.or(base.last),
        pin_first: over.pin_first.or(base.pin_first),
        summary: over.summary.or(base.summary),
        embeddings: both(
            base.embeddings.as_ref(),
            over.embeddings.as_ref(),
            |base, over| Embeddings {
                // A route that sets a time means to use it.
                mode: over.mode.or(base.mode.filter(|_| over.timeout.is_none())),
                timeout: over.timeout.or(base.timeout),
            },
        ),
    }
}

pub(crate) fn overlay_caching(base: Option<&Caching>, over: Option<&Caching>) -> Option<Caching> {
    both(base, over, |base, over| Caching {
        mode: over.mode.or(base.mode),
        scope: over.scope.or(base.scope),
        semantic: both(
            base.semantic.as_ref(),
            over.semantic.as_ref(),
            |base, over| Semantic {
                mode: over.mode.or(base.mode),
                threshold: over.threshold.or(base.threshold),
                // What goes with `auto` ends where a route has a number instead.
                audit: over.audit.or(base.audit.filter(|_| !over.is_fixed())),
                false_hits: over
                    .false_hits
                    .or(base.false_hits.filter(|_| !over.is_fixed())),
                max_chars: over.max_chars.or(base.max_chars),
                timeout: over.timeout.or(base.timeout),
            },
        ),
        embedding: both(
            base.embedding.as_ref(),
            over.embedding.as_ref(),
            |base, over| Embedding {
                mode: over.mode.or(base.mode),
                dtype: over.dtype.or(base.dtype),
            },
        ),
        coalesce: both(
            base.coalesce.as_ref(),
            over.coalesce.as_ref(),
            |base, over| Coalesce {
                mode: over.mode.or(base.mode),
                lease: over.lease.or(base.lease),
            },
        ),
        negative: both(
            base.negative.as_ref(),
            over.negative.as_ref(),
            |base, over| Negative {
                mode: over.mode.or(base.mode),
                ttl: over.ttl.or(base.ttl),
            },
        ),
        refresh: over.refresh.or(base.refresh),
        headers: over.headers.or(base.headers),
        tags: over.tags.or(base.tags),
        exact: both(base.exact.as_ref(), over.exact.as_ref(), |base, over| {
            Exact {
                ttl: over.ttl.or(base.ttl),
                stale: over.stale.or(base.stale),
                stale_if_error: over.stale_if_error.or(base.stale_if_error),
                max_answer: over.max_answer.or(base.max_answer),
                max_temperature: over.max_temperature.or(base.max_temperature),
            }
        }),
    })
}

pub(crate) fn overlay_guard(base: Option<&Guard>, over: Option<&Guard>) -> Option<Guard> {
    both(base, over, |base, over| Guard {
        mode: over.mode.or(base.mode),
        misses: over.misses.or(base.misses),
        spend: both(base.spend.as_ref(), over.spend.as_ref(), |base, over| {
            Spend {
                factor: over.factor.or(base.factor),
                floor: over.floor.or(base.floor),
                ceiling: over.ceiling.or(base.ceiling),
                over: over.over.or(base.over),
            }
        }),
        backoff: over.backoff.or(base.backoff),
    })
}

fn both<T: Clone>(base: Option<&T>, over: Option<&T>, join: impl FnOnce(T, T) -> T) -> Option<T> {
    match (base, over) {
        (Some(base), Some(over)) => Some(join(base.clone(), over.clone())),
        (one, other) => other.or(one).cloned(),
    }
}
