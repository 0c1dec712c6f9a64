//! Who asks: tenant, task, conversation, and whether the caller's control headers count.

use std::net::IpAddr;

use sluice_wire::header;

use crate::config::{ClaimPath, HashKey, Identity, Source, Trust};
use crate::exchange::{Headers, Host};

/// Longest label that is kept as it is.
const MAX_LABEL: usize = 64;

/// Tenant of callers that no source names.
pub const ANONYMOUS: &str = "anonymous";

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Who pays. Never empty.
    pub tenant: String,
    /// What for; empty when not stated.
    pub task: String,
    /// Conversation; empty when not stated.
    pub conversation: String,
    /// Control headers (`x-sluice-*`) count.
    pub trusted: bool,
}

/// Finds out who asks, in an API of that family. With `vouched` a filter of ours sent it, so that
/// its control headers count.
#[must_use]
pub fn identify(
    identity: &Identity,
    (family, vouched): (&str, bool),
    headers: &Headers,
    host: &dyn Host,
) -> Caller {
    let trusted = vouched
        || identity
            .trust
            .iter()
            .any(|trust| trusts(trust, headers, host));
    let label = |sources: &[Source]| {
        sources.iter().find_map(|source| {
            let value = match source {
                // A control header of a stranger is as good as absent.
                Source::Header(name) if name.starts_with(header::PREFIX) && !trusted => None,
                Source::Header(name) => headers.get(name).map(str::to_owned),
                Source::Jwt(path) => claim(path, host),
                Source::KeyHash => api_key(family, headers)
                    .map(|key| format!("key-{}", keyed_hash(&identity.hash_key, key))),
            };
            value
                .filter(|value| !value.trim().is_empty())
                .map(|value| label(value.trim(), &identity.hash_key))
        })
    };
    Caller {
        tenant: label(&identity.tenant).unwrap_or_else(|| ANONYMOUS.to_owned()),
        task: label(&identity.task).unwrap_or_default(),
        conversation: label(&identity.conversation).unwrap_or_default(),
        trusted,
    }
}

/// The caller's API key: the one that its upstream looks at first, so that a second one beside it
/// makes nobody another tenant. Anthropic's is `x-api-key`; others take a bearer token, Azure
/// `api-key`.
fn api_key<'h>(family: &str, headers: &'h Headers) -> Option<&'h str> {
    let order = match family {
        "anthropic" => ["x-api-key", "authorization", "api-key"],
        _ => ["authorization", "api-key", "x-api-key"],
    };
    let mut keys = order.into_iter().filter_map(|name| {
        let value = headers.get(name)?;
        let key = match value.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case("bearer ") => &value[7..],
            _ => value,
        };
        Some(key.trim())
    });
    keys.find(|key| !key.is_empty())
}

/// 64 bits of a keyed BLAKE3: enough to tell tenants apart, useless to get the key back.
fn keyed_hash(key: &HashKey, value: &str) -> String {
    blake3::keyed_hash(&key.0, value.as_bytes()).to_hex()[..16].to_owned()
}

/// `value` as a label: short and plain as it is, anything else as its hash, so that two values
/// never become one label.
fn label(value: &str, key: &HashKey) -> String {
    let plain = value.len() <= MAX_LABEL
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.@/+=".contains(&b));
    if plain {
        value.to_owned()
    } else {
        format!("hash-{}", keyed_hash(key, value))
    }
}

fn claim(path: &ClaimPath, host: &dyn Host) -> Option<String> {
    let mut full = vec![
        "metadata",
        "filter_metadata",
        "envoy.filters.http.jwt_authn",
    ];
    full.extend(path.0.iter().map(String::as_str));
    String::from_utf8(host.property(&full)?).ok()
}

fn trusts(trust: &Trust, headers: &Headers, host: &dyn Host) -> bool {
    match trust {
        Trust::Source(network, prefix) => host
            .property(&["source", "address"])
            .and_then(|address| ip(&address))
            .is_some_and(|ip| within(ip, *network, *prefix)),
        Trust::Header(name, secret) => {
            let mut values = headers.all(name);
            values
                .next()
                .is_some_and(|value| values.next().is_none() && same(value, secret.as_bytes()))
        }
        Trust::Jwt(path, wanted) => claim(path, host).is_some_and(|found| found == *wanted),
    }
}

/// Compares without telling by its duration how much was right.
fn same(found: &[u8], wanted: &[u8]) -> bool {
    blake3::hash(found) == blake3::hash(wanted)
}

/// The address of Envoy's `source.address`: `10.0.0.1:4711`, `[::1]:4711`.
fn ip(address: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(address).ok()?;
    text.parse::<std::net::SocketAddr>()
        .map(|socket| socket.ip())
        .or_else(|_| text.parse())
        .ok()
}

fn within(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    // An IPv4 client on a dual-stack listener shows as ::ffff:a.b.c.d.
    let bits = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 4),
        IpAddr::V6(ip) => (ip.to_bits(), 6),
    };
    let ((ip, ip_family), (network, network_family)) = (bits(ip), bits(network));
    let mask = if prefix == 0 {
        0
    } else {
        u128::MAX << (128 - u32::from(prefix))
    };
    ip_family == network_family && ip & mask == network & mask
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::Plan;

    #[derive(Default)]
    struct Properties(HashMap<String, Vec<u8>>);

    impl Host for Properties {
        fn now_ns(&self) -> u64 {
            0
        }
        fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
            self.0.get(&path.join("/")).cloned()
        }
        fn count(&mut self, _: &str, _: u64, _: i64, _: u64) -> (u64, bool) {
            (0, true)
        }
    }

    fn identity(json: &str) -> Identity {
        Plan::parse(format!("{{\"identity\":{json}}}").as_bytes(), &|_| None)
            .unwrap()
            .identity
    }

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| (*name, *value)).collect()
    }

    #[test]
    fn the_first_source_that_is_present_names_the_tenant() {
        let identity =
            identity(r#"{"tenant":[{"header":"X-Tenant"},{"jwt":"org.name"},{"key_hash":true}]}"#);
        let mut host = Properties::default();
        let who = |pairs: &[(&str, &str)], host: &Properties| {
            identify(&identity, ("openai", false), &headers(pairs), host).tenant
        };
        assert_eq!(who(&[], &host), ANONYMOUS);
        let key = who(&[("authorization", "Bearer sk-1")], &host);
        assert!(key.starts_with("key-") && !key.contains("sk-1"));
        assert_eq!(
            key,
            who(&[("x-api-key", "sk-1")], &host),
            "the same key is the same tenant on every API"
        );
        assert_ne!(key, who(&[("authorization", "Bearer sk-2")], &host));
        host.0.insert(
            "metadata/filter_metadata/envoy.filters.http.jwt_authn/jwt_payload/org/name".into(),
            b"globex".to_vec(),
        );
        assert_eq!(who(&[("authorization", "Bearer sk-1")], &host), "globex");
        assert_eq!(who(&[("x-tenant", "acme")], &host), "acme");
        assert_eq!(
            who(&[("x-tenant", " ")], &host),
            "globex",
            "an empty header is absent"
        );
    }

    #[test]
    fn a_second_key_beside_the_one_that_counts_makes_no_other_tenant() {
        let identity = identity(r#"{"tenant":[{"key_hash":true}]}"#);
        let host = Properties::default();
        let who = |family: &str, pairs: &[(&str, &str)]| {
            identify(&identity, (family, false), &headers(pairs), &host).tenant
        };
        let real = ("x-api-key", "sk-ant-1");
        let alone = who("anthropic", &[real]);
        for other in ["", "Bearer ", "Bearer anything", "sk-2"] {
            assert_eq!(who("anthropic", &[("authorization", other), real]), alone);
        }
        let real = ("authorization", "Bearer sk-1");
        let alone = who("openai", &[real]);
        assert_eq!(who("openai", &[("x-api-key", "sk-2"), real]), alone);
        let azure = who("openai", &[("authorization", " "), ("api-key", "k")]);
        assert_eq!(azure, who("openai", &[("api-key", "k")]));
        assert_ne!(azure, ANONYMOUS);
    }

    #[test]
    fn values_that_are_no_plain_labels_stay_apart() {
        let identity = identity(r#"{"tenant":[{"header":"x-tenant"}]}"#);
        let who = |value: &str| {
            identify(
                &identity,
                ("openai", false),
                &headers(&[("x-tenant", value)]),
                &Properties::default(),
            )
            .tenant
        };
        let labels = [
            "a b",
            "a_b",
            "a;b",
            "a\u{e4}b",
            &"x".repeat(65),
            &"x".repeat(66),
        ]
        .map(who);
        for (i, a) in labels.iter().enumerate() {
            assert!(a.len() <= MAX_LABEL && !a.contains([';', ' ']), "{a}");
            assert!(labels.iter().skip(i + 1).all(|b| a != b), "{labels:?}");
        }
    }

    #[test]
    fn networks_secrets_and_claims_are_trusted_and_nothing_else() {
        let identity = identity(
            r#"{"trust":[{"source":"10.0.0.0/8"},{"header":{"name":"x-key","value":"s3cret"}},{"jwt":{"claim":"role","value":"platform"}}]}"#,
        );
        let trusted = |pairs: &[(&str, &str)], host: &Properties| {
            identify(&identity, ("openai", false), &headers(pairs), host).trusted
        };
        let at = |address: &str| {
            Properties(HashMap::from([(
                "source/address".to_owned(),
                address.as_bytes().to_vec(),
            )]))
        };
        assert!(trusted(&[], &at("10.1.2.3:80")));
        assert!(trusted(&[], &at("[::ffff:10.1.2.3]:80")));
        assert!(!trusted(&[], &at("11.1.2.3:80")));
        assert!(
            !trusted(&[], &at("[a00::1]:80")),
            "an IPv6 address is not in an IPv4 network"
        );
        assert!(!trusted(&[], &at("garbage")));
        assert!(trusted(&[("x-key", "s3cret")], &Properties::default()));
        assert!(!trusted(&[("x-key", "s3cre")], &Properties::default()));
        assert!(!trusted(
            &[("x-key", "no"), ("x-key", "s3cret")],
            &Properties::default()
        ));
        let claim =
            "metadata/filter_metadata/envoy.filters.http.jwt_authn/jwt_payload/role".to_owned();
        assert!(trusted(
            &[],
            &Properties(HashMap::from([(claim.clone(), b"platform".to_vec())]))
        ));
        assert!(!trusted(
            &[],
            &Properties(HashMap::from([(claim, b"guest".to_vec())]))
        ));
    }

    #[test]
    fn a_strangers_control_header_names_no_task() {
        let identity = identity(
            r#"{"task":[{"header":"x-sluice-task"}],"trust":[{"header":{"name":"x-key","value":"k"}}]}"#,
        );
        let task = |pairs: &[(&str, &str)]| {
            identify(
                &identity,
                ("openai", false),
                &headers(pairs),
                &Properties::default(),
            )
            .task
        };
        assert_eq!(task(&[("x-sluice-task", "support")]), "");
        assert_eq!(
            task(&[("x-sluice-task", "support"), ("x-key", "k")]),
            "support"
        );
    }
}
