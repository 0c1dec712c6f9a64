//! A whole Sluice on loopback: stand-in provider, sidecars, Envoys, and Redis where wanted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sluice_wire::Record;
use tempfile::TempDir;

use crate::client::Client;
use crate::envoy::{self, ConfigAs, Envoy, Upstream};
use crate::figures::{self, differences};
use crate::provider::{self, Provider};
use crate::redis::Redis;
use crate::sidecar::{self, Sidecar};

/// The header and value by which the harness's configs trust a caller.
pub const INTERNAL: (&str, &str) = ("x-internal-key", "test-internal");

/// What to start. The default: the filter with every lever off, one sidecar, one Envoy of two
/// workers, one provider.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The config of filter and sidecar.
    pub config: Value,
    /// Environment variables that the config names.
    pub environment: BTreeMap<String, String>,
    /// How the provider behaves.
    pub provider: provider::Config,
    /// The small tier has a provider of its own.
    pub small_provider: bool,
    /// In place of the stand-in.
    pub upstream: Option<Upstream>,
    /// Envoy runs the filter.
    pub filter: bool,
    /// How the config reaches the filter.
    pub config_as: ConfigAs,
    /// In place of the filter that is shipped.
    pub module: Option<PathBuf>,
    /// Sidecars to start.
    pub sidecars: usize,
    /// In place of sidecars: whatever listens there, or nothing.
    pub sidecar_at: Option<SocketAddr>,
    /// Envoys to start.
    pub envoys: usize,
    /// Workers of each.
    pub concurrency: u32,
    /// The sidecars share a Redis.
    pub redis: bool,
    /// Envoy's buffer limit in bytes.
    pub buffer: u32,
    /// Seconds that a request may stand still in Envoy.
    pub idle_secs: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            config: config(),
            environment: BTreeMap::new(),
            provider: provider::Config::default(),
            small_provider: false,
            upstream: None,
            filter: true,
            config_as: ConfigAs::default(),
            module: None,
            sidecars: 1,
            sidecar_at: None,
            envoys: 1,
            concurrency: 2,
            redis: false,
            buffer: 16 << 20,
            idle_secs: 300,
        }
    }
}

impl Setup {
    /// The default with `change` merged into its config (RFC 7396: null removes).
    #[must_use]
    pub fn with(change: Value) -> Setup {
        let mut setup = Setup::default();
        merge(&mut setup.config, change);
        setup
    }

    /// The same without a sidecar: neither process nor config section.
    #[must_use]
    pub fn without_sidecar(mut self) -> Setup {
        self.sidecars = 0;
        if let Value::Object(config) = &mut self.config {
            config.remove("sidecar");
        }
        self
    }
}

/// The tests' config: prices, identities, trust; no lever, no budget. Its sidecar has time,
/// because a busy machine must not look like a failing sidecar.
#[must_use]
pub fn config() -> Value {
    json!({
        "mode": "on",
        "sidecar": {
            "cluster": "sluice_sidecar",
            "timeout": "10s",
            "on_failure": "open",
            "secret": "test-secret",
        },
        "models": {
            "gpt-4o": {"encoding": "o200k_base", "input": 2.50, "cached_input": 1.25, "output": 10.00},
            "gpt-4.1-mini": {"encoding": "o200k_base", "input": 0.40, "cached_input": 0.10, "output": 1.60},
            "gpt-4o-mini": {"encoding": "o200k_base", "input": 0.15, "cached_input": 0.075, "output": 0.60},
            "o4-mini": {"encoding": "o200k_base", "input": 1.10, "cached_input": 0.275, "output": 4.40},
            "gpt-3.5-turbo-instruct": {"encoding": "cl100k_base", "input": 1.50, "output": 2.00},
            "text-embedding-3-small": {"encoding": "cl100k_base", "input": 0.02},
            "claude-sonnet-4-5": {"bytes_per_token": 3.6, "input": 3, "cached_input": 0.3, "cache_write": 3.75, "output": 15},
            "claude-haiku-4-5": {"bytes_per_token": 3.6, "input": 1, "cached_input": 0.1, "cache_write": 1.25, "output": 5},
        },
        "identity": {
            "tenant": [{"header": "x-tenant"}, {"key_hash": true}],
            "task": [{"header": "x-sluice-task"}],
            "conversation": [{"header": "x-conversation-id"}],
            "trust": [{"header": {"name": INTERNAL.0, "value": INTERNAL.1}}],
        },
    })
}

/// The `route` section with the three usual tiers.
#[must_use]
pub fn tiers() -> Value {
    json!({
        "mode": "on",
        "tiers": [
            {"name": "small", "below": 0.3, "model": {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}, "max_tokens": 256},
            {"name": "medium", "below": 0.7, "model": "gpt-4.1-mini", "max_tokens": 512},
            {"name": "large", "model": "gpt-4o", "max_tokens": 1024},
        ],
    })
}

/// The `cache` section, on.
#[must_use]
pub fn caching() -> Value {
    json!({"mode": "on", "exact": {"ttl": "10m", "max_answer": "256KiB", "max_temperature": 1.0}, "scope": "tenant"})
}

/// JSON merge patch (RFC 7396).
pub fn merge(into: &mut Value, change: Value) {
    let Value::Object(fields) = change else {
        *into = change;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    if let Value::Object(object) = into {
        for (name, value) in fields {
            if value.is_null() {
                object.remove(&name);
            } else {
                merge(object.entry(name).or_insert(Value::Null), value);
            }
        }
    }
}

/// Everything that runs. It ends when dropped, Envoy first.
#[derive(Debug)]
pub struct Stack {
    /// Envoys.
    pub envoys: Vec<Envoy>,
    /// Sidecars.
    pub sidecars: Vec<Sidecar>,
    /// Redis.
    pub redis: Option<Redis>,
    /// The provider; none where another upstream was named.
    pub provider: Option<Provider>,
    /// The small tier's provider.
    pub small_provider: Option<Provider>,
    /// Config as it was used.
    pub config: Value,
    dir: TempDir,
}

impl Stack {
    /// Starts it all.
    ///
    /// # Errors
    /// When a part does not start; with the end of its log.
    pub async fn start(setup: Setup) -> anyhow::Result<Stack> {
        let dir = tempfile::Builder::new().prefix("sluice-").tempdir()?;
        let provider = match setup.upstream {
            None => Some(Provider::start(setup.provider.clone()).await?),
            Some(_) => None,
        };
        let small_provider = match setup.small_provider {
            true => Some(Provider::start(setup.provider.clone()).await?),
            false => None,
        };
        let redis = match setup.redis {
            true => Some(Redis::start(dir.path()).await?),
            false => None,
        };
        let mut config = setup.config.clone();
        if let Some(redis) = &redis {
            // Time enough: a busy machine must not look like a failing Redis, without which each
            // sidecar would count for itself.
            let mut shared = json!({"serve": {"redis": {"timeout": "10s"}}});
            merge(&mut shared, config);
            config = shared;
            merge(&mut config, json!({"serve": {"store": redis.url()}}));
        }
        let mut sidecars = Vec::new();
        let mut sidecar_addresses: Vec<SocketAddr> = setup.sidecar_at.into_iter().collect();
        if setup.sidecar_at.is_none() {
            for number in 0..setup.sidecars {
                let options = sidecar::Options {
                    name: format!("sidecar-{number}"),
                    config: config.clone(),
                    environment: setup.environment.clone(),
                    listen: "127.0.0.1:0".to_owned(),
                };
                let sidecar = Sidecar::start(options, dir.path()).await?;
                sidecar_addresses.push(sidecar.address());
                sidecars.push(sidecar);
            }
        }
        let upstream = match (&setup.upstream, &provider) {
            (Some(upstream), _) => upstream.clone(),
            (None, Some(provider)) => Upstream::Plain(provider.address()),
            (None, None) => anyhow::bail!("neither a provider nor another upstream"),
        };
        let mut envoys = Vec::new();
        for number in 0..setup.envoys {
            let mut options = envoy::Options::new(upstream.clone());
            options.name = format!("envoy-{number}");
            options.filter = setup.filter.then(|| config.clone());
            options.config_as = setup.config_as;
            options.module = setup.module.clone();
            options.environment = setup.environment.clone();
            options.concurrency = setup.concurrency;
            options.sidecars = sidecar_addresses.clone();
            options.buffer = setup.buffer;
            options.idle_secs = setup.idle_secs;
            if let Some(small) = &small_provider {
                options
                    .tiers
                    .insert("small".to_owned(), Upstream::Plain(small.address()));
            }
            envoys.push(Envoy::start(&options, dir.path()).await?);
        }
        Ok(Stack {
            envoys,
            sidecars,
            redis,
            provider,
            small_provider,
            config,
            dir,
        })
    }

    /// The first Envoy.
    ///
    /// # Panics
    /// When the setup asked for none.
    #[must_use]
    pub fn envoy(&self) -> &Envoy {
        &self.envoys[0]
    }

    /// The first sidecar.
    ///
    /// # Panics
    /// When the setup asked for none.
    #[must_use]
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecars[0]
    }

    /// The stand-in provider.
    ///
    /// # Panics
    /// When the setup named another upstream.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "a test that has no provider must not ask for it"
    )]
    pub fn provider(&self) -> &Provider {
        self.provider.as_ref().expect("the setup has a provider")
    }

    /// A client of the first Envoy, as a stranger.
    #[must_use]
    pub fn client(&self) -> Client {
        self.envoy().client()
    }

    /// A client of the first Envoy that the config trusts.
    #[must_use]
    pub fn internal(&self) -> Client {
        self.client().with(INTERNAL.0, INTERNAL.1)
    }

    /// Where logs and ledgers lie.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until the ledgers hold `count` records and returns them in the order of arrival.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn settled(&self, count: usize) -> anyhow::Result<Vec<Record>> {
        let sidecars: Vec<&Sidecar> = self.sidecars.iter().collect();
        sidecar::settled(&sidecars, count).await
    }

    /// Where ledger, provider and Envoy's metrics differ.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub async fn differences(&self) -> anyhow::Result<Vec<String>> {
        let mut reports = Vec::new();
        for sidecar in &self.sidecars {
            reports.push(sidecar.report(figures::BREAKDOWN).await?);
        }
        let mut metrics = Vec::new();
        for envoy in &self.envoys {
            metrics.push(envoy.metrics().await?);
        }
        let providers = self.provider.iter().chain(&self.small_provider);
        let stats: Vec<_> = providers.map(Provider::stats).collect();
        Ok(differences(
            &figures::of_ledger(&reports),
            &figures::of_provider(&stats),
            &figures::of_metrics(&metrics),
        ))
    }

    /// Fails when the filter has crashed in any Envoy.
    ///
    /// # Errors
    /// Then.
    pub async fn check_no_trap(&self) -> anyhow::Result<()> {
        for envoy in &self.envoys {
            envoy.check_no_trap().await?;
        }
        Ok(())
    }
}
