//! `POST /v1/invalidate`: drop every answer that was built on something that has changed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invalidate {
    /// Whose answers: a tenant's, or (for operators) everyone's when there is none. A tenant's
    /// token means that tenant, whether it is named or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What they were built on, such as `doc:42`.
    pub tag: String,
}

/// It is done. Answers to requests that arrived at `at_ms` or before are not given out any more,
/// also those that are still being fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalidated {
    /// When it took effect, milliseconds since the epoch by the sidecar's clock.
    pub at_ms: u64,
    /// From when on it holds in every sidecar, whatever messages are lost: later than `at_ms` where
    /// sidecars keep a layer of their own in front of the shared store.
    pub everywhere_ms: u64,
}

/// A tag as it is kept with an answer: `tenant/tag`, or `/tag` where an answer is nobody's alone.
/// The slash in a tenant's name is escaped, so that no name can pass for another one's tag.
#[must_use]
pub fn scoped_tag(tenant: Option<&str>, tag: &str) -> String {
    let tenant = match tenant {
        None => Cow::Borrowed(""),
        Some(name) if name.contains(['/', '%']) => {
            Cow::Owned(name.replace('%', "%25").replace('/', "%2F"))
        }
        Some(name) => Cow::Borrowed(name),
    };
    format!("{tenant}/{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pairs_of_tenant_and_tag_are_written_alike() {
        let names = ["", "a", "a/", "a/b", "a%2Fb", "%", "/", "b"];
        let mut seen = std::collections::BTreeSet::new();
        for tenant in names {
            for tag in names {
                assert!(seen.insert(scoped_tag(Some(tenant), tag)), "{tenant} {tag}");
            }
        }
        assert_eq!(scoped_tag(None, "doc:42"), "/doc:42");
        assert_eq!(scoped_tag(Some("acme"), "doc:42"), "acme/doc:42");
    }
}
