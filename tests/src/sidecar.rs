//! The sidecar as a process of its own, and what it tells of its ledger.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sluice_wire::Record;

use crate::client::Client;
use crate::figures::Report;
use crate::process::{Process, eventually};
use crate::tools;

/// The token that the harness's configs give to operators.
pub const OPERATOR: &str = "test-operator";

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tells sidecars apart; its ledger lies in a folder of that name.
    pub name: String,
    /// The config, shared with the filter.
    pub config: Value,
    /// Environment variables that the config names.
    pub environment: BTreeMap<String, String>,
    /// Where to listen; port 0 takes a free one.
    pub listen: String,
}

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    process: Process,
    options: Options,
    dir: PathBuf,
    address: SocketAddr,
}

impl Sidecar {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// When it was not built, refuses its config or is not ready in time.
    pub async fn start(mut options: Options, dir: &Path) -> anyhow::Result<Sidecar> {
        let data = dir.join(&options.name);
        if !options.config["serve"].is_object() {
            options.config["serve"] = json!({});
        }
        let serve = &mut options.config["serve"];
        serve["data"] = json!(data);
        if serve.get("operators").is_none() {
            serve["operators"] = json!([OPERATOR]);
        }
        let config = dir.join(format!("{}.json", options.name));
        std::fs::write(&config, options.config.to_string())
            .with_context(|| format!("writing {}", config.display()))?;
        let mut command = Command::new(tools::sidecar()?);
        command.arg("serve").arg("--config").arg(&config);
        command.args(["--listen", &options.listen]);
        command.envs(&options.environment).env("RUST_LOG", "info");
        let mut process = Process::start(&options.name, &mut command, dir)?;
        let address = process
            .until(async |process| address(&process.log()))
            .await?;
        let client = Client::new(format!("http://{address}"));
        process
            .until(async |_| {
                let ready = client.get("/readyz").await.ok()?;
                (ready.status == 200).then_some(())
            })
            .await?;
        Ok(Sidecar {
            process,
            options,
            dir: dir.to_path_buf(),
            address,
        })
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it without its knowing: connections stay, and nothing is answered.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.process.signal("STOP")
    }

    /// Lets it go on after [`Sidecar::pause`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn go_on(&self) -> anyhow::Result<()> {
        self.process.signal("CONT")
    }

    /// Starts it again at the same address with the same ledger, after [`Sidecar::kill`].
    ///
    /// # Errors
    /// As [`Sidecar::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let mut options = self.options.clone();
        options.listen = self.address.to_string();
        *self = Sidecar::start(options, &self.dir.clone()).await?;
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// An operator's client.
    #[must_use]
    pub fn client(&self) -> Client {
        let token = self.options.config["serve"]["operators"][0]
            .as_str()
            .unwrap_or(OPERATOR);
        let token = match token.strip_prefix("env:") {
            Some(name) => self
                .options
                .environment
                .get(name)
                .map_or("", String::as_str),
            None => token,
        };
        Client::new(self.url()).with("authorization", &format!("Bearer {token}"))
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

    /// `GET /report?by=…`, over this sidecar's own ledger.
    ///
    /// # Errors
    /// When it does not answer, or not with a report.
    pub async fn report(&self, by: &str) -> anyhow::Result<Report> {
        let answer = self
            .client()
            .get(&format!("/report?by={by}&scope=local"))
            .await?;
        if answer.status != 200 {
            bail!("/report answered {}: {}", answer.status, answer.text());
        }
        serde_json::from_slice(&answer.body).with_context(|| answer.text())
    }

    /// Every record of the ledger, in the order of booking, straight from its file: also that of a
    /// sidecar that was killed.
    ///
    /// # Errors
    /// When the file is no ledger.
    pub fn records(&self) -> anyhow::Result<Vec<Record>> {
        records(&self.dir.join(&self.options.name))
    }

    /// Waits until the ledger holds `count` records and returns them in the order of arrival.
    ///
    /// # Errors
    /// When it does not within 20 seconds.
    pub async fn settled(&self, count: usize) -> anyhow::Result<Vec<Record>> {
        settled(&[self], count).await
    }
}

/// Waits until the ledgers of these sidecars hold `count` records together and returns them in the order
/// of arrival.
///
/// # Errors
/// When they do not within 20 seconds.
pub async fn settled(sidecars: &[&Sidecar], count: usize) -> anyhow::Result<Vec<Record>> {
    eventually(Duration::from_secs(20), async || {
        let mut all = Vec::new();
        for sidecar in sidecars {
            all.extend(sidecar.records().map_err(|error| format!("{error:#}"))?);
        }
        if all.len() == count {
            // Each of Envoy's workers settles in its own time.
            all.sort_by_key(|record| record.at_ms);
            Ok(all)
        } else {
            Err(format!(
                "{} records in the ledger, expected {count}",
                all.len()
            ))
        }
    })
    .await
}

/// The address that a sidecar says it listens on.
fn address(log: &str) -> Option<SocketAddr> {
    let mut words = log.split(|letter: char| letter.is_whitespace() || letter == '/');
    words.find_map(|word| {
        let word = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let address: SocketAddr = word.parse().ok()?;
        (address.port() > 0).then_some(address)
    })
}

fn records(data: &Path) -> anyhow::Result<Vec<Record>> {
    use rusqlite::{Connection, OpenFlags};
    let path = data.join("ledger.sqlite3");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let mut statement = connection.prepare("SELECT * FROM records ORDER BY seq")?;
    let rows = statement.query_map([], |row| {
        let word = |column: &str| row.get::<_, String>(column).map(Value::from);
        let count = |column: &str| row.get::<_, i64>(column);
        let money = |column: &str| row.get::<_, Option<i64>>(column);
        let savings = |prefix: &str| -> rusqlite::Result<Value> {
            let mut levers = json!({});
            for lever in ["route", "trim", "cache", "batch", "offload"] {
                levers[lever] = json!(count(&format!("{prefix}_{lever}"))?);
            }
            Ok(levers)
        };
        let trim = match money("trim_tokens")? {
            Some(tokens) => json!({
                "tokens": tokens,
                "gross": count("trim_gross")?,
                "lost": count("trim_lost")?,
            }),
            None => Value::Null,
        };
        let id: Vec<u8> = row.get("id")?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(json!({
            "id": id,
            "at_ms": count("at_ms")?,
            "tenant": word("tenant")?,
            "task": word("task")?,
            "conversation": word("conversation")?,
            "route": word("route")?,
            "endpoint": word("endpoint")?,
            "model_asked": word("model_asked")?,
            "model": word("model")?,
            "tier": word("tier")?,
            "score_milli": money("score_milli")?,
            "stream": count("stream")? != 0,
            "status": count("status")?,
            "outcome": word("outcome")?,
            "cache": word("cache")?,
            "usage": {
                "prompt": count("prompt")?,
                "cached": count("cached")?,
                "cache_write": count("cache_write")?,
                "completion": count("completion")?,
                "reasoning": count("reasoning")?,
            },
            "estimated": count("estimated")? != 0,
            "as_asked": money("as_asked")?,
            "cost": money("cost")?,
            "saved": savings("saved")?,
            "trim": trim,
            "would_save": savings("would")?,
        }))
    })?;
    let mut records = Vec::new();
    for row in rows {
        records.push(serde_json::from_value(row?)?);
    }
    Ok(records)
}
