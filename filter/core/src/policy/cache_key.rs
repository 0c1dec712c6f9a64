//! What makes two requests the same. Every input is named here; there is no default.

use crate::config::Scope;
use crate::exchange::Headers;
use crate::formats::{Format, Request};

/// Changes when the meaning of a key changes: old entries are then never found.
const VERSION: &str = "sluice exact v1";

/// Everything that an exact key is made of.
#[derive(Clone, Copy, Debug)]
pub struct KeyInput<'a> {
    /// Who shares.
    pub scope: Scope,
    /// The tenant; part of the key unless the scope is global.
    pub tenant: &'a str,
    /// API format.
    pub format: &'static dyn Format,
    /// The request as the client sent it.
    pub request: &'a Request<'a>,
    /// Its headers: `:authority`, `:path` and the format's `key_headers` count.
    pub headers: &'a Headers,
    /// Model after routing.
    pub model: &'a str,
    /// Limit on output tokens after routing.
    pub output_limit: Option<u64>,
    /// Digest of the policies that change the request beyond model and limit.
    pub policies: &'a [u8; 32],
}

/// The exact-cache key: 64 hex digits of BLAKE3 over labelled, length-prefixed parts.
#[must_use]
pub fn exact(input: &KeyInput<'_>) -> String {
    let mut hash = blake3::Hasher::new();
    let mut part = |name: &str, value: &[u8]| {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(&(value.len() as u64).to_le_bytes());
        hash.update(value);
    };
    part("version", VERSION.as_bytes());
    match input.scope {
        Scope::Tenant => part("tenant", input.tenant.as_bytes()),
        Scope::Global => part("global", b""),
    }
    part("format", input.format.name().as_bytes());
    part("model", input.model.as_bytes());
    part("output_limit", input.output_limit.map(|limit| limit.to_string()).unwrap_or_default().as_bytes());
    part("policies", input.policies);
    part("authority", input.headers.get(":authority").unwrap_or("").to_ascii_lowercase().as_bytes());
    part("path", input.headers.get(":path").unwrap_or("").as_bytes());
    for name in input.format.key_headers() {
        part(name, input.headers.get(name).unwrap_or("").as_bytes());
    }
    // Every other field of the body, known or not, unless the format says that it does not matter.
    // A field that stands twice counts as it counts for the provider: by its last value.
    let limit_field = input.format.output_limit_field(input.request);
    let mut fields: Vec<(&str, &str)> = input
        .request
        .fields
        .iter()
        .filter(|(name, _)| *name != "model" && *name != limit_field && !input.format.not_in_key().contains(name))
        .filter_map(|(name, _)| Some((name, input.request.fields.get(name)?)))
        .collect();
    fields.sort_unstable();
    fields.dedup_by_key(|(name, _)| *name);
    for (name, value) in fields {
        part("field", name.as_bytes());
        part("value", value.as_bytes());
    }
    hash.finalize().to_hex().to_string()
}
