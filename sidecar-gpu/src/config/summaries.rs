//! `serve.summaries`: who writes down in fewer words what conversations leave out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use super::raw::Collector;
use super::value::whole;
use super::{Env, Secret, Span};

/// What a header's value may have in it for the tenant's name.
const TENANT: &str = "{tenant}";
/// Most texts that are written at once.
const MOST_AT_ONCE: u32 = 64;
/// Most that wait: 64 KiB each.
const MOST_WAITING: u32 = 4096;

/// Where texts are written, and how many at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// A listener on this machine.
    pub address: SocketAddr,
    /// The path of its chat completions, and the query.
    pub path: String,
    /// What is sent beside.
    pub headers: Vec<Header>,
    /// Longest time for one text.
    pub timeout: Duration,
    /// Most texts that are written at once.
    pub concurrency: usize,
    /// Most that wait for that.
    pub queue: usize,
}

/// A header of the writer's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: HeaderName,
    value: Secret,
    /// The tenant's name is put into the value.
    of_tenant: bool,
}

impl Header {
    /// Its value for a conversation of `tenant`; None where the tenant's name can be in no header.
    #[must_use]
    pub fn value(&self, tenant: &str) -> Option<HeaderValue> {
        let text = self.value.expose();
        let value = match self.of_tenant {
            true => HeaderValue::try_from(text.replace(TENANT, tenant)),
            false => HeaderValue::try_from(text),
        };
        let mut value = value.ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct RawWriter {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default = "timeout")]
    timeout: Span,
    #[serde(default = "concurrency", deserialize_with = "whole")]
    concurrency: u32,
    #[serde(default = "queue", deserialize_with = "whole")]
    queue: u32,
}

/// A long text of a slow model; nobody waits for it.
fn timeout() -> Span {
    Span(Duration::from_secs(60))
}

fn concurrency() -> u32 {
    4
}

fn queue() -> u32 {
    256
}

pub(super) fn writer(faults: &mut Collector, raw: &RawWriter, env: Env<'_>) -> Option<Writer> {
    faults.at_least(
        ("serve.summaries.timeout", raw.timeout.0),
        (Duration::from_secs(1), "`1s`"),
    );
    for (field, found, most) in [
        ("concurrency", raw.concurrency, MOST_AT_ONCE),
        ("queue", raw.queue, MOST_WAITING),
    ] {
        if !(1..=most).contains(&found) {
            faults.add(
                format!("serve.summaries.{field}"),
                format!("expected 1 to {most}, found {found}"),
            );
        }
    }
    let headers = raw
        .headers
        .iter()
        .filter_map(|(name, text)| header(faults, (name, text), env));
    let headers: Vec<Header> = headers.collect();
    let Some((address, path)) = endpoint(&raw.url) else {
        // Not quoted: there may be a secret in it.
        faults.add(
            "serve.summaries.url",
            "expected chat completions on this machine (`http://127.0.0.1:PORT/v1/chat/completions`), \
             found something else",
        );
        return None;
    };
    Some(Writer {
        address,
        path,
        headers,
        timeout: raw.timeout.0,
        concurrency: raw.concurrency as usize,
        queue: raw.queue as usize,
    })
}

/// What was said goes there in plain, so it is on this machine.
fn endpoint(url: &str) -> Option<(SocketAddr, String)> {
    let uri: Uri = url.parse().ok()?;
    let address: SocketAddr = uri.authority()?.as_str().parse().ok()?;
    let path = uri.path_and_query()?.as_str();
    let here = uri.scheme_str() == Some("http") && address.ip().is_loopback();
    (here && uri.path().len() > 1).then(|| (address, path.to_owned()))
}

fn header(faults: &mut Collector, (name, text): (&str, &str), env: Env<'_>) -> Option<Header> {
    let path = format!("serve.summaries.headers.{name}");
    let parsed = match HeaderName::try_from(name) {
        Ok(parsed) if !OURS.contains(&parsed.as_str()) => parsed,
        Ok(_) => {
            faults.add(
                path,
                "expected no header that is about the body or the connection, found one",
            );
            return None;
        }
        Err(_) => {
            faults.add(path, "expected a header's name, found something else");
            return None;
        }
    };
    let value = faults.secret(&path, text, env)?;
    if HeaderValue::try_from(value.expose()).is_err() {
        faults.add(
            path,
            "expected a header's value, found one with control characters",
        );
        return None;
    }
    Some(Header {
        name: parsed,
        value,
        // A secret is sent as it is.
        of_tenant: !text.starts_with("env:") && text.contains(TENANT),
    })
}

/// Headers that follow from the request.
const OURS: [&str; 5] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
];
