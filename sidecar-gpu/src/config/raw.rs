//! From the config as written to the config as validated.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use sluice_core::config::without_secret;

use super::summaries::{self, RawWriter};
use super::value::whole;
use super::{Env, Fault, Local, Patience, Secret, Semantic, Serve, Size, Span, Store, Tls, kind};
use crate::relay::Target;
use crate::store::{Address, FORMS};

/// Each holds a connection or a stream of one, and other calls need some too.
const MOST_WAITERS: u32 = 3000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
struct RawServe {
    listen: String,
    store: String,
    data: PathBuf,
    retention: Span,
    max_ledger: Option<Size>,
    cache: RawCache,
    semantic: Option<RawSemantic>,
    conversations: Size,
    #[serde(deserialize_with = "whole")]
    counters: u32,
    #[serde(deserialize_with = "whole")]
    waiters: u32,
    operators: Vec<String>,
    tenants: BTreeMap<String, String>,
    tls: Option<RawTls>,
    redis: RawPatience,
    relay: Option<RawRelay>,
    summaries: Option<RawWriter>,
    metrics: RawMetrics,
}

impl Default for RawServe {
    fn default() -> Self {
        RawServe {
            listen: "127.0.0.1:8089".to_owned(),
            store: "memory".to_owned(),
            data: PathBuf::from("sluice-data"),
            retention: Span(Duration::from_secs(90 * 86_400)),
            max_ledger: None,
            cache: RawCache::default(),
            semantic: None,
            conversations: Size(32 << 20),
            counters: 100_000,
            waiters: 2048,
            operators: Vec::new(),
            tenants: BTreeMap::new(),
            tls: None,
            redis: RawPatience::default(),
            relay: None,
            summaries: None,
            metrics: RawMetrics::default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
struct RawCache {
    memory: Size,
    local: Option<RawLocal>,
}

impl Default for RawCache {
    fn default() -> Self {
        RawCache {
            memory: Size(256 << 20),
            local: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
struct RawLocal {
    memory: Size,
    ttl: Span,
}

impl Default for RawLocal {
    fn default() -> Self {
        RawLocal {
            memory: Size(64 << 20),
            ttl: Span(Duration::from_secs(5)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
struct RawSemantic {
    model: PathBuf,
    #[serde(default = "one", deserialize_with = "whole")]
    threads: u32,
    #[serde(default = "questions", deserialize_with = "whole")]
    entries: u32,
    #[serde(default = "question_memory")]
    memory: Size,
    #[serde(default = "text_memory")]
    texts: Size,
    #[serde(default)]
    keep_answers: bool,
}

fn one() -> u32 {
    1
}

fn questions() -> u32 {
    100_000
}

fn question_memory() -> Size {
    Size(256 << 20)
}

/// Some 90,000 texts with vectors of 384 dimensions.
fn text_memory() -> Size {
    Size(64 << 20)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
struct RawTls {
    cert: PathBuf,
    key: PathBuf,
    #[serde(default)]
    client_ca: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
struct RawPatience {
    timeout: Span,
    #[serde(deserialize_with = "whole")]
    failures: u32,
    pause: Span,
    ca: Option<PathBuf>,
}

impl Default for RawPatience {
    fn default() -> Self {
        RawPatience {
            timeout: Span(Duration::from_millis(30)),
            failures: 5,
            pause: Span(Duration::from_secs(5)),
            ca: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
struct RawRelay {
    url: String,
    #[serde(default = "relay_timeout")]
    timeout: Span,
}

/// As long as a model may think before its first token.
fn relay_timeout() -> Span {
    Span(Duration::from_secs(300))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
struct RawMetrics {
    open: bool,
    #[serde(deserialize_with = "whole")]
    series: usize,
}

impl Default for RawMetrics {
    fn default() -> Self {
        RawMetrics {
            open: false,
            series: 1000,
        }
    }
}

/// What was wrong so far.
#[derive(Default)]
pub(super) struct Collector(Vec<Fault>);

impl Collector {
    pub(super) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault {
            path: path.into(),
            message: message.into(),
        });
    }

    /// `text`, or the environment variable that it names as `env:NAME`.
    pub(super) fn secret(&mut self, path: &str, text: &str, env: Env<'_>) -> Option<Secret> {
        let value = match text.strip_prefix("env:") {
            Some(name) => match env(name) {
                Some(value) => value,
                None => {
                    self.add(
                        path,
                        format!("expected a secret, found that the environment variable `{name}` is not set"),
                    );
                    return None;
                }
            },
            None => text.to_owned(),
        };
        if value.is_empty() {
            self.add(path, "expected a secret, found an empty one");
            return None;
        }
        Some(Secret::new(value))
    }

    pub(super) fn at_least<T: PartialOrd>(
        &mut self,
        (path, found): (&str, T),
        (least, words): (T, &str),
    ) {
        if found < least {
            self.add(path, format!("expected at least {words}, found less"));
        }
    }
}

/// The `serve` section and `sidecar.secret` of `document`.
pub(super) fn serve(document: &Value, env: Env<'_>) -> Result<Serve, Vec<Fault>> {
    let empty = Value::Object(Map::new());
    let section = match document.get("serve") {
        None | Some(Value::Null) => &empty,
        Some(section) => section,
    };
    let raw = section_of(section)?;
    let mut faults = Collector::default();

    let secret = match document.get("sidecar").and_then(|it| it.get("secret")) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => faults.secret("sidecar.secret", text, env),
        Some(other) => {
            faults.add(
                "sidecar.secret",
                format!("expected a string, found {}", kind(other)),
            );
            None
        }
    };
    let tls = raw.tls.map(|tls| Tls {
        cert: tls.cert,
        key: tls.key,
        client_ca: tls.client_ca,
    });
    let certificates = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if secret.is_none() && !certificates && faults.0.is_empty() {
        faults.add(
            "sidecar.secret",
            "expected a secret (or `serve.tls.client_ca`), found neither: anyone could spend budgets",
        );
    }

    let operators: Vec<Secret> = raw
        .operators
        .iter()
        .enumerate()
        .filter_map(|(index, text)| faults.secret(&format!("serve.operators[{index}]"), text, env))
        .collect();
    let tenants: BTreeMap<String, Secret> = raw
        .tenants
        .iter()
        .filter_map(|(tenant, text)| {
            let secret = faults.secret(&format!("serve.tenants.{tenant}"), text, env)?;
            Some((tenant.clone(), secret))
        })
        .collect();
    distinct(&mut faults, (&secret, &operators, &tenants));

    if raw
        .listen
        .rsplit_once(':')
        .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
    {
        faults.add(
            "serve.listen",
            format!("expected `HOST:PORT`, found `{}`", raw.listen),
        );
    }
    let store = store(&mut faults, &raw.store, env);
    faults.at_least(
        ("serve.retention", raw.retention.0),
        (
            Duration::from_secs(86_400),
            "`1d` (a retried settle must find its record)",
        ),
    );
    faults.at_least(
        ("serve.redis.timeout", raw.redis.timeout.0),
        (Duration::from_millis(1), "`1ms`"),
    );
    faults.at_least(("serve.redis.failures", raw.redis.failures), (1, "1"));
    if let Some(local) = &raw.cache.local {
        faults.at_least(
            ("serve.cache.local.ttl", local.ttl.0),
            (Duration::from_millis(1), "`1ms`"),
        );
        if store == Some(Store::Memory) {
            faults.add(
                "serve.cache.local",
                "expected a shared `serve.store` behind it, found `memory`",
            );
        }
    }
    let by_tls = |url: &Secret| Address::parse(url.expose()).is_some_and(|it| it.tls);
    if raw.redis.ca.is_some() && !matches!(&store, Some(Store::Redis(url)) if by_tls(url)) {
        faults.add(
            "serve.redis.ca",
            "expected a `serve.store` that is reached by TLS (`rediss://…`), found another",
        );
    }
    faults.at_least(("serve.counters", raw.counters), (100, "100"));
    faults.at_least(
        ("serve.conversations", raw.conversations.0),
        (1 << 20, "`1MiB`"),
    );
    if raw.waiters > MOST_WAITERS {
        faults.add(
            "serve.waiters",
            format!("expected at most {MOST_WAITERS}, found {}", raw.waiters),
        );
    }
    faults.at_least(("serve.metrics.series", raw.metrics.series), (10, "10"));
    if let Some(Size(bytes)) = raw.max_ledger {
        faults.at_least(("serve.max_ledger", bytes), (1 << 20, "`1MiB`"));
    }

    let relay = raw.relay.and_then(|relay| target(&mut faults, &relay));
    let summaries = raw
        .summaries
        .and_then(|raw| summaries::writer(&mut faults, &raw, env));
    let semantic = raw.semantic.map(|semantic| {
        if !(1..=64).contains(&semantic.threads) {
            let found = semantic.threads;
            faults.add(
                "serve.semantic.threads",
                format!("expected 1 to 64, found {found}"),
            );
        }
        faults.at_least(("serve.semantic.entries", semantic.entries), (1, "1"));
        faults.at_least(
            ("serve.semantic.memory", semantic.memory.0),
            (1 << 20, "`1MiB`"),
        );
        faults.at_least(
            ("serve.semantic.texts", semantic.texts.0),
            (1 << 20, "`1MiB`"),
        );
        if semantic.keep_answers && matches!(store, Some(Store::Redis(_))) {
            faults.add(
                "serve.semantic.keep_answers",
                "expected a `serve.store` of `memory`, found one that keeps answers by itself",
            );
        }
        Semantic {
            model: semantic.model,
            threads: semantic.threads as usize,
            entries: semantic.entries as usize,
            memory: semantic.memory.0,
            texts: semantic.texts.0,
            keep_answers: semantic.keep_answers,
        }
    });

    match store {
        Some(store) if faults.0.is_empty() => Ok(Serve {
            listen: raw.listen,
            store,
            data: raw.data,
            retention: raw.retention.0,
            max_ledger: raw.max_ledger.map(|Size(bytes)| bytes),
            cache_memory: raw.cache.memory.0,
            semantic,
            conversations: raw.conversations.0,
            waiters: usize::try_from(raw.waiters).unwrap_or(usize::MAX),
            cache_local: raw.cache.local.map(|local| Local {
                memory: local.memory.0,
                life: local.ttl.0,
            }),
            counters: usize::try_from(raw.counters).unwrap_or(usize::MAX),
            secret,
            operators,
            tenants,
            tls,
            redis: Patience {
                timeout: raw.redis.timeout.0,
                failures: raw.redis.failures,
                pause: raw.redis.pause.0,
            },
            redis_ca: raw.redis.ca,
            relay,
            summaries,
            metrics_open: raw.metrics.open,
            metrics_series: raw.metrics.series,
        }),
        _ => Err(faults.0),
    }
}

/// The section, or a fault per key: serde alone stops at the first.
fn section_of(section: &Value) -> Result<RawServe, Vec<Fault>> {
    let Value::Object(keys) = section else {
        return Err(vec![Fault {
            path: "serve".to_owned(),
            message: format!("expected a mapping, found {}", kind(section)),
        }]);
    };
    let read = |value: &Value| -> Result<RawServe, Fault> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            let path = match error.path().to_string().as_str() {
                "." => "serve".to_owned(),
                path => format!("serve.{path}"),
            };
            let message = without_secret(&path, error.into_inner().to_string());
            Fault { path, message }
        })
    };
    let faults: Vec<Fault> = keys
        .iter()
        .filter_map(|(key, value)| {
            let alone = Map::from_iter([(key.clone(), value.clone())]);
            read(&Value::Object(alone)).err()
        })
        .collect();
    if faults.is_empty() {
        read(section).map_err(|fault| vec![fault])
    } else {
        Err(faults)
    }
}

/// Credentials go there in plain, so it is on this machine.
fn target(faults: &mut Collector, relay: &RawRelay) -> Option<Target> {
    faults.at_least(
        ("serve.relay.timeout", relay.timeout.0),
        (Duration::from_secs(1), "`1s`"),
    );
    let address = relay.url.strip_prefix("http://");
    let address = address.and_then(|it| it.trim_end_matches('/').parse::<SocketAddr>().ok());
    let Some(address) = address.filter(|address| address.ip().is_loopback()) else {
        faults.add(
            "serve.relay.url",
            "expected a listener on this machine (`http://127.0.0.1:PORT`), found something else",
        );
        return None;
    };
    Some(Target {
        address,
        timeout: relay.timeout.0,
    })
}

fn store(faults: &mut Collector, text: &str, env: Env<'_>) -> Option<Store> {
    if text == "memory" {
        return Some(Store::Memory);
    }
    let url = faults.secret("serve.store", text, env)?;
    if Address::parse(url.expose()).is_some() {
        return Some(Store::Redis(url));
    }
    // Not quoted: what stands there may be a secret that was meant for another field.
    faults.add(
        "serve.store",
        format!("expected `memory`, {FORMS}, found something else"),
    );
    None
}

/// A token says who its holder is, so no two holders may share one.
fn distinct(
    faults: &mut Collector,
    (secret, operators, tenants): (&Option<Secret>, &[Secret], &BTreeMap<String, Secret>),
) {
    let mut seen = BTreeSet::new();
    let named = secret
        .iter()
        .map(|token| ("sidecar.secret".to_owned(), token))
        .chain(
            operators
                .iter()
                .enumerate()
                .map(|(index, token)| (format!("serve.operators[{index}]"), token)),
        )
        .chain(
            tenants
                .iter()
                .map(|(tenant, token)| (format!("serve.tenants.{tenant}"), token)),
        );
    for (path, token) in named {
        if !seen.insert(token.expose().to_owned()) {
            faults.add(
                path,
                "expected a token of its own, found one that another field has too",
            );
        }
    }
}
