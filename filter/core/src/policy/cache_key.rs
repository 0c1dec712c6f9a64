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
    /// Its headers: `:authority`, `:path`, the format's `key_headers` and these count.
    pub headers: &'a Headers,
    /// Headers (lower case) that the route adds.
    pub key_headers: &'a [String],
    /// Model after routing.
    pub model: &'a str,
    /// Limit on output tokens after routing.
    pub output_limit: Option<u64>,
    /// Digest of the policies that change the request beyond model and limit.
    pub policies: &'a [u8; 32],
}

/// The exact-cache key: 64 hex digits of BLAKE3 over labelled, length-prefixed parts. None where the
/// format cannot tell what the request is.
#[must_use]
pub fn exact(input: &KeyInput<'_>) -> Option<String> {
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
    part(
        "output_limit",
        input
            .output_limit
            .map(|limit| limit.to_string())
            .unwrap_or_default()
            .as_bytes(),
    );
    part("policies", input.policies);
    let first = |name: &str| input.headers.all(name).next().unwrap_or_default();
    part("authority", &first(":authority").to_ascii_lowercase());
    part("path", first(":path"));
    for name in input.format.key_headers() {
        part(name, first(name));
    }
    for name in input.key_headers {
        part("header", name.as_bytes());
        // All of its values: an absent header is no empty one, and a second one counts.
        for value in input.headers.all(name) {
            part("header value", value);
        }
    }
    let whole = input.format.key_parts(input.request, &mut part);
    whole.then(|| hash.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests;
