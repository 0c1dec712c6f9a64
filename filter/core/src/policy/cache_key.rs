//! What makes two requests the same. Every input is named here; there is no default.

use crate::config::Scope;
use crate::exchange::Headers;
use crate::formats::{Format, Request};
use crate::json::JsonStr;

/// Changes when the meaning of a key changes: old entries are then never found.
const VERSION: &str = "sluice exact v1";
/// The same for [`scope`].
const SCOPE_VERSION: &str = "sluice scope v1";

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
    digest(input, VERSION, None)
}

/// What must be equal before two questions are compared by meaning: the route, and all that is in
/// the exact key but the text of `question`, which is a part of the request.
#[must_use]
pub fn scope(input: &KeyInput<'_>, (route, question): (&str, JsonStr<'_>)) -> Option<String> {
    digest(input, SCOPE_VERSION, Some((route, question.raw())))
}

fn digest(input: &KeyInput<'_>, version: &str, apart: Option<(&str, &str)>) -> Option<String> {
    let mut hash = blake3::Hasher::new();
    let mut part = |name: &str, value: &[u8]| {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(&(value.len() as u64).to_le_bytes());
        hash.update(value);
    };
    part("version", version.as_bytes());
    if let Some((route, _)) = apart {
        part("route", route.as_bytes());
    }
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
    let mut but_the_question = |name: &str, value: &[u8]| match apart
        .and_then(|(_, question)| around(value, question.as_bytes()))
    {
        Some((before, after)) => {
            part("before", before);
            part("after", after);
        }
        None => part(name, value),
    };
    let whole = input.format.key_parts(input.request, &mut but_the_question);
    whole.then(|| hash.finalize().to_hex().to_string())
}

/// What stands around `part` where it is a piece of `whole`, the same bytes and not equal ones.
fn around<'a>(whole: &'a [u8], part: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    Some((whole.get(..start)?, whole.get(end..)?))
}

#[cfg(test)]
mod tests;
