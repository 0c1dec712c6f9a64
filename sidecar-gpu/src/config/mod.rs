//! The sidecar's part of the shared config: `serve` and `sidecar.secret`, read and validated once.
//!
//! The file is the filter's too. Its other sections are validated by the filter's own code, so
//! that the two cannot disagree about what a config means.

mod document;
#[cfg(test)]
mod mutations;
mod raw;
mod summaries;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sluice_core::config::{Mode, Plan, RoutePlan, Streams, Trimming};
use sluice_core::policy::trim::context::Rank;

use document::Document;

use crate::relay::Target;

pub use sluice_core::config::{Fault, Faults};
pub use summaries::{Header, Writer};
pub use value::{Secret, Size, Span};

/// Looks an environment variable up; a test passes its own.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's environment.
#[must_use]
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The sidecar's validated config.
#[derive(Clone, Debug)]
pub struct Serve {
    /// Address to listen on, `HOST:PORT`.
    pub listen: String,
    /// Where budgets and cached answers are shared.
    pub store: Store,
    /// Directory of the ledger.
    pub data: PathBuf,
    /// How long ledger records are kept.
    pub retention: Duration,
    /// Largest size of the ledger in bytes; beyond it settling is refused (503). None: the disk's.
    pub max_ledger: Option<u64>,
    /// Bytes of cached answers kept in memory, where they are not shared.
    pub cache_memory: u64,
    /// The semantic cache; None: there is none.
    pub semantic: Option<Semantic>,
    /// Bytes kept in memory of what filters remember of conversations, where it is not shared.
    pub conversations: u64,
    /// Most requests that wait here for another's answer.
    pub waiters: usize,
    /// What is kept in memory of answers that are shared; nothing without.
    pub cache_local: Option<Local>,
    /// Most budget counters kept in memory.
    pub counters: usize,
    /// What filters show (`sidecar.secret`).
    pub secret: Option<Secret>,
    /// Tokens that may see everything.
    pub operators: Vec<Secret>,
    /// Tokens that may see their own tenant, by tenant.
    pub tenants: BTreeMap<String, Secret>,
    /// Certificates; plain HTTP without.
    pub tls: Option<Tls>,
    /// How patient the sidecar is with Redis.
    pub redis: Patience,
    /// Where requests are relayed to; None: none are.
    pub relay: Option<Target>,
    /// Who writes down what conversations leave out; None: nobody.
    pub summaries: Option<Writer>,
    /// Certificate authorities, PEM, that vouch for Redis instead of the system's.
    pub redis_ca: Option<PathBuf>,
    /// Whether `/metrics` is open to everyone.
    pub metrics_open: bool,
    /// Most series of a metric that is labelled by tenant and task.
    pub metrics_series: usize,
}

/// The model that questions are compared by, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semantic {
    /// Folder of the embedding model.
    pub model: PathBuf,
    /// Threads that it works on.
    pub threads: usize,
    /// Most questions kept.
    pub entries: usize,
    /// Most bytes that they take.
    pub memory: u64,
    /// Most bytes that the vectors of the texts take that requests are trimmed by.
    pub texts: u64,
    /// Whether their answers are written down when the sidecar ends, for the next start.
    pub keep_answers: bool,
}

/// Where budgets and cached answers are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In this process.
    Memory,
    /// In Redis, at this URL (which may hold a password).
    Redis(Secret),
}

/// A layer of memory in front of the shared cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Bytes of answers kept.
    pub memory: u64,
    /// How long one is kept: what a change elsewhere may take to be seen here, at the most.
    pub life: Duration,
}

/// Files of the listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Certificate authorities, PEM: who shows a certificate of theirs is a filter.
    pub client_ca: Option<PathBuf>,
}

/// How long one call may take, and when calls are no longer tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Longest wait for one answer on the request path.
    pub timeout: Duration,
    /// Failures in a row after which calls are no longer tried.
    pub failures: u32,
    /// How long they are not.
    pub pause: Duration,
}

/// The path of what is wrong with the document as a whole.
const WHOLE: &str = "(config)";

fn whole(message: impl Into<String>) -> Faults {
    Faults(vec![Fault {
        path: WHOLE.to_owned(),
        message: message.into(),
    }])
}

/// What a config file holds.
#[derive(Debug)]
pub struct Config {
    /// The sidecar's part.
    pub serve: Serve,
    /// The filter's part.
    pub plan: Plan,
}

impl Config {
    /// What reads well and probably does not mean what it says.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.plan.warnings.clone();
        let any = |asks: fn(&RoutePlan) -> bool| {
            let routes = self.plan.routes.iter().map(|(_, route)| route);
            std::iter::once(&self.plan.default).chain(routes).any(asks)
        };
        let mut warn = |warning: &str| warnings.push(warning.to_owned());
        let model = self.serve.semantic.is_some();
        if !model && any(|route| route.cache.mode != Mode::Off && route.cache.semantic.is_some()) {
            warn(
                "cache.semantic: without serve.semantic the sidecar has no model to compare \
                 questions by, and all of them are misses",
            );
        }
        if !model && any(|route| route.trim.mode != Mode::Off && ranks_by_meaning(&route.trim)) {
            warn(
                "trim.context.rank: without serve.semantic the sidecar has no model to compare \
                 chunks by, and words rank them",
            );
        }
        if self.serve.relay.is_none()
            && any(|route| route.trim.mode != Mode::Off && relays(&route.trim))
        {
            warn(
                "trim.retry.streams: without serve.relay the sidecar sends nothing, and each trimmed \
                 stream goes out untrimmed after a call in vain",
            );
        }
        if self.serve.summaries.is_none()
            && any(|route| route.trim.mode != Mode::Off && has_texts_written(&route.trim))
        {
            warn(
                "trim.history.summary.writer: without serve.summaries the sidecar has nobody to write \
                 digests, and they are extracts, though their price is taken off what was saved",
            );
        }
        if !model && any(|route| route.trim.mode != Mode::Off && compares_the_past(&route.trim)) {
            warn(
                "trim.history.embeddings: without serve.semantic the sidecar has no model to \
                 compare the past by, and words decide alone",
            );
        }
        warnings
    }
}

/// Whether the past is to be compared with the question by meaning.
fn compares_the_past(trim: &Trimming) -> bool {
    let history = trim.history.as_ref();
    history.is_some_and(|history| history.embeddings_ms.is_some())
}

/// Whether a model is to write digests.
fn has_texts_written(trim: &Trimming) -> bool {
    let history = trim.history.as_ref();
    history.is_some_and(|history| history.writer.is_some())
}

/// Whether streams are to go through the sidecar.
fn relays(trim: &Trimming) -> bool {
    let retry = trim.retry.as_ref();
    retry.is_some_and(|retry| retry.streams == Streams::Relay)
}

/// Whether chunks are to be ranked by meaning alone: a mix takes what there is.
fn ranks_by_meaning(trim: &Trimming) -> bool {
    let context = trim.context.as_ref();
    context.is_some_and(|context| context.rank == Rank::Embeddings)
}

/// Reads and validates the config file at `path`.
///
/// # Errors
/// Every fault found.
pub fn read(path: &Path, env: Env<'_>) -> Result<Config, Faults> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| whole(format!("{}: {error}", path.display())))?;
    parse(&text, path.extension().is_some_and(|it| it == "json"), env)
}

/// What a value is, where the value itself may be a secret or the whole document.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// Validates the config in `text`, JSON or else YAML.
///
/// # Errors
/// Every fault found.
pub fn parse(text: &str, json: bool, env: Env<'_>) -> Result<Config, Faults> {
    let document = if json {
        Document::of_json(text)
    } else {
        Document::of_yaml(text)
    };
    let document = document.map_err(|fault| Faults(vec![fault]))?;
    if !document.tree.is_object() {
        let Faults(faults) = whole(format!(
            "expected a mapping of sections, found {}",
            kind(&document.tree)
        ));
        return Err(Faults(document.placed(faults)));
    }
    let serve = raw::serve(&document.tree, env);
    let plan = Plan::parse(document.tree.to_string().as_bytes(), env);
    match (serve, plan) {
        (Ok(serve), Ok(plan)) if document.duplicates.is_empty() => Ok(Config { serve, plan }),
        (serve, plan) => {
            let mut faults = plan.err().map_or_else(Vec::new, |Faults(list)| list);
            for fault in serve.err().unwrap_or_default() {
                // Both read `sidecar.secret`.
                if !faults.iter().any(|known| known.path == fault.path) {
                    faults.push(fault);
                }
            }
            faults.extend(document.duplicates.iter().cloned());
            Err(Faults(document.placed(faults)))
        }
    }
}

#[cfg(test)]
mod tests;
