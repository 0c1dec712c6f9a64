//! What only one who knows the sidecar's secret can say: short words beside which their keyed hash
//! stands, so that the secret itself need not travel where it might be read.
//!
//! A word is of one purpose, one moment, certain bytes and certain headers. Whoever reads it on its
//! way can say it again for the same request alone, and only while it is young.

use std::collections::BTreeSet;
use std::fmt;

use sluice_wire::header;

use super::Headers;
use crate::config::{Identity, Source, Trust};

/// Hex digits of a seal: 128 bits.
const SEAL: usize = 32;
/// How long a word is good, in microseconds.
const OLDEST_US: u64 = 60_000_000;
/// How far ahead the clock may be that it was made by: the sidecar's knows milliseconds.
const AHEAD_US: u64 = 1_000_000;

/// Purposes. A seal for one is none for another.
pub(super) const ATTEMPT: &str = "attempt";
pub(super) const LEASE: &str = "lease";
const RELAY: &str = "relay";

/// Makes seals and knows its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sealer([u8; 32]);

impl fmt::Debug for Sealer {
    /// The key is as good as the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(***)")
    }
}

/// Bytes, by their length and digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// How many there are.
    pub len: u64,
    /// BLAKE3.
    hash: blake3::Hash,
}

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Digest {
            len: bytes.len() as u64,
            hash: blake3::hash(bytes),
        }
    }

    /// 64 hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.hash.to_hex().to_string()
    }
}

impl Sealer {
    /// Of that secret.
    #[must_use]
    pub fn new(secret: &str) -> Sealer {
        let key = blake3::derive_key("sluice 2026 lease header", secret.as_bytes());
        Sealer(key)
    }

    /// What stands beside these parts of a word. Each is hashed with its length, so that what ends
    /// one cannot begin the next.
    #[must_use]
    pub(super) fn seal(&self, purpose: &str, parts: &[&[u8]]) -> String {
        let mut hash = blake3::Hasher::new_keyed(&self.0);
        for part in [purpose.as_bytes()].iter().chain(parts) {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().to_hex()[..SEAL].to_owned()
    }

    /// Whether `seal` is that one, compared in time that does not depend on where they differ.
    pub(super) fn is(&self, purpose: &str, parts: &[&[u8]], seal: &str) -> bool {
        blake3::hash(self.seal(purpose, parts).as_bytes()) == blake3::hash(seal.as_bytes())
    }

    /// A moment, bytes and the seal of both with `context`.
    pub(super) fn stamp(
        &self,
        purpose: &str,
        (now_us, digest): (u64, Digest),
        context: &[u8],
    ) -> String {
        let word = format!("{now_us}:{}:{}", digest.len, digest.hex());
        let seal = self.seal(purpose, &[word.as_bytes(), context]);
        format!("{word}:{seal}")
    }

    /// The bytes that a stamp is of, where it is one and not too old.
    pub(super) fn stamped(
        &self,
        purpose: &str,
        (stamp, now_us): (&str, u64),
        context: &[u8],
    ) -> Option<Digest> {
        let (word, seal) = stamp.rsplit_once(':')?;
        let mut parts = word.split(':');
        let mut part = || parts.next();
        let (moment, len, digest) = (part()?, part()?, part()?);
        let moment: u64 = moment.parse().ok()?;
        let young =
            now_us.saturating_sub(moment) <= OLDEST_US && moment.saturating_sub(now_us) <= AHEAD_US;
        // What is not written as we write it has another seal.
        let ours = young && self.is(purpose, &[word.as_bytes(), context], seal);
        ours.then_some(())?;
        Some(Digest {
            len: len.parse().ok()?,
            hash: blake3::Hash::from_hex(digest).ok()?,
        })
    }

    /// A word that opens the sidecar's relay to a frame with that head, for a minute: a request that
    /// a missing route leads elsewhere gives no more away.
    #[must_use]
    pub fn relay_token(&self, head: &[u8], now_us: u64) -> String {
        let stamp = self.stamp(RELAY, (now_us, Digest::of(head)), b"");
        format!("relay:{stamp}")
    }

    /// The head that such a word is for, where it is one and not too old.
    #[must_use]
    pub fn relay_head(&self, token: &str, now_us: u64) -> Option<Digest> {
        let stamp = token.strip_prefix("relay:")?;
        self.stamped(RELAY, (stamp, now_us), b"")
    }
}

/// What a filter decides by, apart from the body: where a request goes, whose it is, and what stands
/// in it in our name. In a word for a request it is bound to these.
const DECIDE: [&str; 7] = [
    ":method",
    ":path",
    ":authority",
    "content-type",
    "authorization",
    "api-key",
    "x-api-key",
];

/// Seals a request, whose headers the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    pub(super) sealer: Sealer,
    pub(super) now_us: u64,
    /// Headers that name a caller, beside the usual ones.
    pub(super) naming: Vec<String>,
}

impl Seal {
    /// The value of [`header::ATTEMPT`] for a request with these headers and that body.
    #[must_use]
    pub fn attempt(&self, headers: &[(String, String)], body: Digest) -> String {
        let bound = self.bound(headers);
        self.sealer.stamp(ATTEMPT, (self.now_us, body), &bound)
    }

    /// The value of [`header::LEASE`] for a request with these headers under that lease.
    #[must_use]
    pub fn lease(&self, headers: &[(String, String)], lease: &str) -> String {
        let seal = self
            .sealer
            .seal(LEASE, &[lease.as_bytes(), &self.bound(headers)]);
        format!("{lease}:{seal}")
    }

    fn bound(&self, headers: &[(String, String)]) -> [u8; 32] {
        let pairs = headers.iter();
        let pairs = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        bound(&self.naming, pairs)
    }
}

/// The headers by which `identity` knows a caller.
pub(super) fn naming(identity: &Identity) -> Vec<String> {
    let sources = [&identity.tenant, &identity.task, &identity.conversation];
    let sources = sources.into_iter().flatten();
    let named = sources.filter_map(|source| match source {
        Source::Header(name) => Some(name),
        Source::Jwt(_) | Source::KeyHash => None,
    });
    let trusts = identity.trust.iter().filter_map(|trust| match trust {
        Trust::Header(name, _) => Some(name),
        Trust::Source(..) | Trust::Jwt(..) => None,
    });
    named.chain(trusts).cloned().collect()
}

/// Digest of the headers that a word is bound to. Several of one name are as good as one with commas,
/// which proxies make of them.
fn bound<'h>(
    naming: &[String],
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
) -> [u8; 32] {
    let ours = headers.clone().map(|(name, _)| name).filter(|name| {
        let seals = [header::ATTEMPT, header::LEASE].map(str::as_bytes);
        name.starts_with(header::PREFIX.as_bytes()) && !seals.contains(name)
    });
    let naming = naming.iter().map(String::as_bytes);
    let names: BTreeSet<&[u8]> = DECIDE
        .iter()
        .map(|name| name.as_bytes())
        .chain(naming)
        .chain(ours)
        .collect();
    let mut hash = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for name in names {
        let values = headers.clone().filter(|(key, _)| *key == name);
        let values: Vec<&[u8]> = values.map(|(_, value)| value.trim_ascii()).collect();
        part(name);
        part(&values.join(&b','));
    }
    *hash.finalize().as_bytes()
}

/// [`bound`], of a request as it came.
pub(super) fn bound_of(naming: &[String], headers: &Headers) -> [u8; 32] {
    bound(naming, headers.iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000;
    const HEAD: &[u8] = b"{}";

    fn sealer() -> Sealer {
        Sealer::new("s3cret")
    }

    #[test]
    fn a_word_is_good_for_a_minute_with_the_same_secret_and_purpose() {
        let token = sealer().relay_token(HEAD, NOW);
        assert!(!token.contains("s3cret"), "{token}");
        let read = |sealer: Sealer, token: &str, now| sealer.relay_head(token, now);
        for now in [NOW - AHEAD_US, NOW, NOW + OLDEST_US] {
            assert_eq!(read(sealer(), &token, now), Some(Digest::of(HEAD)));
        }
        for now in [0, NOW - AHEAD_US - 1, NOW + OLDEST_US + 1, u64::MAX] {
            assert_eq!(read(sealer(), &token, now), None, "{now}");
        }
        assert_eq!(read(Sealer::new("t"), &token, NOW), None);
        let other = sealer().stamp(ATTEMPT, (NOW, Digest::of(HEAD)), b"");
        assert_eq!(read(sealer(), &format!("relay:{other}"), NOW), None);
    }

    #[test]
    fn no_word_is_good_that_differs_in_a_byte_or_in_how_it_is_written() {
        let token = sealer().relay_token(HEAD, NOW);
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] ^= 1;
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(sealer().relay_head(&forged, NOW), None, "{forged}");
            assert_eq!(sealer().relay_head(&token[..at], NOW), None);
        }
        let (word, seal) = token.rsplit_once(':').unwrap();
        for forged in [
            format!("{token} "),
            format!("{token}0"),
            format!("{word}:{}", seal.to_uppercase()),
            token.replace("relay:", "relay:0"),
            token.replace("relay:", "relay:+"),
            token.replace(':', "::"),
            format!("{word}:0:{seal}"),
        ] {
            assert_eq!(sealer().relay_head(&forged, NOW), None, "{forged}");
        }
    }

    #[test]
    fn what_ends_one_part_begins_no_other() {
        let seal = |parts: &[&[u8]]| sealer().seal("p", parts);
        let parts: [&[&[u8]]; 5] = [
            &[b"ab", b"c"],
            &[b"a", b"bc"],
            &[b"abc"],
            &[b"abc", b""],
            &[],
        ];
        let seals: BTreeSet<_> = parts.map(seal).into_iter().collect();
        assert_eq!(seals.len(), parts.len());
        assert_ne!(sealer().seal("p", &[b"a"]), sealer().seal("pa", &[]));
    }

    #[test]
    fn neither_key_nor_secret_is_shown() {
        let shown = format!("{:?}", sealer());
        assert_eq!(shown, "Sealer(***)");
    }

    #[test]
    fn a_word_is_bound_to_place_caller_and_what_stands_in_our_name() {
        let headers: Vec<(&str, &str)> = vec![
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "api"),
            ("content-type", "application/json"),
            ("authorization", "Bearer sk-1"),
            ("x-tenant", "acme"),
            ("x-sluice-tier", "small"),
            ("x-request-id", "1"),
        ];
        let of = |headers: &[(&str, &str)]| {
            let headers: Headers = headers.iter().copied().collect();
            bound_of(&["x-tenant".to_owned()], &headers)
        };
        let whole = of(&headers);
        for at in 0..headers.len() {
            let free = headers[at].0 == "x-request-id";
            let mut other = headers.clone();
            other[at].1 = "other";
            assert_eq!(of(&other) == whole, free, "{other:?}");
            other.remove(at);
            assert_eq!(of(&other) == whole, free, "{other:?}");
        }
        for more in ["x-api-key", "api-key", "x-sluice-model", "authorization"] {
            let mut other = headers.clone();
            other.push((more, "v"));
            assert_ne!(of(&other), whole, "{more}");
        }
        let mut same = headers.clone();
        same.reverse();
        same.push((header::ATTEMPT, "1:2"));
        assert_eq!(of(&same), whole, "in whatever order, and not to itself");
        let twice = [("x-api-key", "a"), ("x-api-key", "b")];
        assert_eq!(
            of(&twice),
            of(&[("x-api-key", "a,b")]),
            "as proxies write it"
        );
    }
}
