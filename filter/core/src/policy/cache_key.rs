//! What makes two requests the same. Every input is named here; there is no default.

use crate::config::Scope;
use crate::exchange::Headers;
use crate::formats::{Format, Request};
use crate::json::JsonStr;
use crate::vectors::Dtype;

/// Changes when the meaning of a key changes: old entries are then never found.
const VERSION: &str = "sluice exact v1";
/// The same for [`scope`].
const SCOPE_VERSION: &str = "sluice scope v1";
/// The same for [`inputs`].
const INPUT_VERSION: &str = "sluice input v1";

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

/// The keys of an embedding request's inputs, each by its digest: whatever else bears on a vector is
/// in all of them, `batch` being what the request says of it and how it is kept. How vectors are told
/// does not.
#[must_use]
pub fn inputs(
    input: &KeyInput<'_>,
    batch: (Option<u64>, Dtype),
    digests: &[[u8; 32]],
) -> Vec<[u8; 32]> {
    let mut hash = Parts::of(input, INPUT_VERSION, None);
    let (dimensions, dtype) = batch;
    let dimensions = dimensions.map(|it| it.to_string()).unwrap_or_default();
    hash.part("dimensions", dimensions.as_bytes());
    hash.part("dtype", dtype.name().as_bytes());
    let all = hash.0.finalize();
    let key = |digest: &[u8; 32]| *blake3::keyed_hash(all.as_bytes(), digest).as_bytes();
    digests.iter().map(key).collect()
}

fn digest(input: &KeyInput<'_>, version: &str, apart: Option<(&str, &str)>) -> Option<String> {
    let mut hash = Parts::of(input, version, apart.map(|(route, _)| route));
    let mut but_the_question = |name: &str, value: &[u8]| match apart
        .and_then(|(_, question)| around(value, question.as_bytes()))
    {
        Some((before, after)) => {
            hash.part("before", before);
            hash.part("after", after);
        }
        None => hash.part(name, value),
    };
    let whole = input.format.key_parts(input.request, &mut but_the_question);
    whole.then(|| hash.0.finalize().to_hex().to_string())
}

/// Labelled, length-prefixed parts.
struct Parts(blake3::Hasher);

impl Parts {
    fn part(&mut self, name: &str, value: &[u8]) {
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value);
    }

    /// What every key has, whatever is said in the body.
    fn of(input: &KeyInput<'_>, version: &str, route: Option<&str>) -> Parts {
        let mut parts = Parts(blake3::Hasher::new());
        parts.part("version", version.as_bytes());
        if let Some(route) = route {
            parts.part("route", route.as_bytes());
        }
        match input.scope {
            Scope::Tenant => parts.part("tenant", input.tenant.as_bytes()),
            Scope::Global => parts.part("global", b""),
        }
        parts.part("format", input.format.name().as_bytes());
        parts.part("model", input.model.as_bytes());
        let limit = input.output_limit.map(|limit| limit.to_string());
        parts.part("output_limit", limit.unwrap_or_default().as_bytes());
        parts.part("policies", input.policies);
        let first = |name: &str| input.headers.all(name).next().unwrap_or_default();
        parts.part("authority", &first(":authority").to_ascii_lowercase());
        parts.part("path", first(":path"));
        for name in input.format.key_headers() {
            parts.part(name, first(name));
        }
        for name in input.key_headers {
            parts.part("header", name.as_bytes());
            // All of its values: an absent header is no empty one, and a second one counts.
            for value in input.headers.all(name) {
                parts.part("header value", value);
            }
        }
        parts
    }
}

/// What stands around `part` where it is a piece of `whole`, the same bytes and not equal ones.
fn around<'a>(whole: &'a [u8], part: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    Some((whole.get(..start)?, whole.get(end..)?))
}

#[cfg(test)]
mod tests;
