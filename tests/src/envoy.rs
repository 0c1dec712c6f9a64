//! Envoy, started from a config of the test's own, and what it tells by its admin port.

mod bootstrap;
mod metrics;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::client::Client;
use crate::process::{Process, START, eventually};
use crate::tools;

pub use metrics::{Metric, Metrics};

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tells Envoys apart, in logs and as their node id.
    pub name: String,
    /// The filter's config; none: Envoy without the filter.
    pub filter: Option<Value>,
    /// How the config reaches the filter.
    pub config_as: ConfigAs,
    /// In place of the filter that is shipped.
    pub module: Option<PathBuf>,
    /// What the filter's VM sees as its environment.
    pub environment: BTreeMap<String, String>,
    /// Worker threads.
    pub concurrency: u32,
    /// Where requests go that no tier claims.
    pub upstream: Upstream,
    /// Where a tier's requests go.
    pub tiers: BTreeMap<String, Upstream>,
    /// Sidecars; empty: the cluster has no host.
    pub sidecars: Vec<SocketAddr>,
    /// `per_connection_buffer_limit_bytes`.
    pub buffer: u32,
    /// Seconds that a request may stand still.
    pub idle_secs: u64,
    /// Keeps an access log.
    pub logged: bool,
}

/// How the config reaches the filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfigAs {
    /// As people write it: a protobuf Struct, whose numbers are all floats.
    #[default]
    Struct,
    /// As a string of JSON.
    Text,
}

/// A provider as Envoy reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Plain HTTP.
    Plain(SocketAddr),
    /// HTTPS, checked against the system's certificate authorities.
    Tls {
        /// Name, for DNS, SNI and the `host` header.
        host: String,
        /// Usually 443.
        port: u16,
    },
    /// HTTP by name.
    Named {
        /// Name, for DNS and the `host` header.
        host: String,
        /// Port.
        port: u16,
    },
}

impl Options {
    /// One worker, no filter, everything to `upstream`.
    #[must_use]
    pub fn new(upstream: Upstream) -> Options {
        Options {
            name: "envoy".to_owned(),
            filter: None,
            config_as: ConfigAs::default(),
            module: None,
            environment: BTreeMap::new(),
            concurrency: 1,
            upstream,
            tiers: BTreeMap::new(),
            sidecars: Vec::new(),
            buffer: 16 << 20,
            idle_secs: 300,
            logged: true,
        }
    }
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    options: Options,
    dir: PathBuf,
}

impl Envoy {
    /// Starts it and waits until it takes requests.
    ///
    /// # Errors
    /// When it is not there, refuses its config or is not ready in time.
    pub async fn start(options: &Options, dir: &Path) -> anyhow::Result<Envoy> {
        let file = |end: &str| file(options, dir, end);
        let (config, admin_path) = (file(".json"), file(".admin"));
        write_listener(options, dir)?;
        let own = file(".own.json");
        place(&own, &bootstrap::own_endpoint(None))?;
        let text = bootstrap::bootstrap(options, &file(".listener.json"), &own)?.to_string();
        std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let mut command = Command::new(tools::envoy()?);
        command.arg("-c").arg(&config);
        command.arg("--admin-address-path").arg(&admin_path);
        command.args(["--concurrency", &options.concurrency.to_string()]);
        command.args(["--disable-hot-restart", "--log-level", "warning"]);
        command.args(["--component-log-level", "wasm:info"]);
        command.args(["--drain-time-s", "1", "--parent-shutdown-time-s", "2"]);
        let mut process = Process::start(&options.name, &mut command, dir)?;
        let admin = process
            .until(async |_| std::fs::read_to_string(&admin_path).ok()?.parse().ok())
            .await?;
        let client = Client::new(format!("http://{admin}"));
        let ready = async |_: &mut Process| {
            let ready = client.get("/ready").await.ok()?;
            (ready.status == 200).then_some(())
        };
        process.until(ready).await?;
        // Ready means that listeners are warm; a filter that refused its config shows here.
        let address = listener(&client).await;
        let address = address.with_context(|| format!("Envoy's log:\n{}", process.log()))?;
        place(&own, &bootstrap::own_endpoint(Some(address)))?;
        let known = async |_: &mut Process| {
            let clusters = client.get("/clusters").await.ok()?.text();
            clusters
                .contains(&format!("sluice_self::{address}::"))
                .then_some(())
        };
        process.until(known).await?;
        Ok(Envoy {
            process,
            address,
            admin,
            options: options.clone(),
            dir: dir.to_path_buf(),
        })
    }

    /// Gives the filter another config, as a control plane would; whether Envoy took it.
    ///
    /// # Errors
    /// When Envoy says nothing about it in time.
    pub async fn reload(&mut self, filter: Value) -> anyhow::Result<bool> {
        let updates = async |envoy: &Envoy| -> anyhow::Result<(u64, u64)> {
            let metrics = envoy.metrics().await?;
            let count =
                |what: &str| metrics.sum(&format!("listener_manager.lds.update_{what}"), &[]);
            Ok((count("success"), count("rejected")))
        };
        let before = updates(self).await?;
        self.options.filter = Some(filter);
        write_listener(&self.options, &self.dir)?;
        eventually(START, async || {
            let after = updates(self).await.map_err(|error| format!("{error:#}"))?;
            if after == before {
                return Err("no word of the new listener".to_owned());
            }
            Ok(after.0 > before.0)
        })
        .await
    }

    /// Where it takes requests.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where its admin interface is.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.url())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its access log: one JSON object a request. Flushed every second by Envoy.
    #[must_use]
    pub fn access_log(&self) -> Vec<Value> {
        let path = file(&self.options, &self.dir, ".access");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Its counters and gauges at this moment.
    ///
    /// # Errors
    /// When the admin interface does not answer.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        let admin = Client::new(self.admin_url());
        let answer = admin.get("/stats?format=json").await?;
        Ok(Metrics::parse(&answer.json()))
    }

    /// `/stats/prometheus` as text.
    ///
    /// # Errors
    /// When the admin interface does not answer.
    pub async fn prometheus(&self) -> anyhow::Result<String> {
        let admin = Client::new(self.admin_url());
        Ok(admin.get("/stats/prometheus").await?.text())
    }

    /// Fails when a VM of the filter has crashed since Envoy's start.
    ///
    /// # Errors
    /// Then, with what the log says of it.
    pub async fn check_no_trap(&self) -> anyhow::Result<()> {
        let crashed = self.metrics().await?.crashes();
        let log = self.log();
        let words = [
            "Proxy-Wasm plugin in-VM backtrace",
            "panicked at",
            "Uncaught RuntimeError",
            "vm_failed",
        ];
        let told: Vec<&str> = log
            .lines()
            .filter(|line| words.iter().any(|word| line.contains(word)))
            .collect();
        if crashed > 0 || !told.is_empty() {
            bail!("the filter crashed ({crashed} VMs):\n{}", told.join("\n"));
        }
        Ok(())
    }
}

fn file(options: &Options, dir: &Path, end: &str) -> PathBuf {
    dir.join(format!("{}{end}", options.name))
}

/// Puts the listener's file in its place: Envoy watches for that.
fn write_listener(options: &Options, dir: &Path) -> anyhow::Result<()> {
    let wasm = match (&options.filter, &options.module) {
        (Some(_), None) => Some(tools::filter()?),
        (Some(_), Some(module)) => Some(module.clone()),
        (None, _) => None,
    };
    let listener = bootstrap::listener(options, wasm.as_deref(), &file(options, dir, ".access"));
    place(&file(options, dir, ".listener.json"), &listener)
}

/// Writes a file and moves it into place, so that it is never seen half.
fn place(path: &Path, value: &Value) -> anyhow::Result<()> {
    let half = path.with_extension("half");
    std::fs::write(&half, value.to_string())
        .and_then(|()| std::fs::rename(&half, path))
        .with_context(|| format!("writing {}", path.display()))
}

async fn listener(admin: &Client) -> anyhow::Result<SocketAddr> {
    let listeners = admin.get("/listeners?format=json").await?.json();
    let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let (host, port) = (socket["address"].as_str(), socket["port_value"].as_u64());
    let (Some(host), Some(port)) = (host, port) else {
        bail!("Envoy has no listener: {listeners}");
    };
    Ok(format!("{host}:{port}").parse()?)
}
