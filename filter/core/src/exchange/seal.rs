//! What only one who knows the sidecar's secret can say: short words beside which their keyed hash
//! stands, so that the secret itself need not travel where it might be read.

/// Hex digits of a seal: 128 bits.
const SEAL: usize = 32;
/// Oldest moment that is believed, in microseconds.
const OLDEST_US: u64 = 60_000_000;

/// Makes seals and knows its own.
#[derive(Clone, Copy, Debug)]
pub struct Sealer([u8; 32]);

impl Sealer {
    /// Of that secret.
    #[must_use]
    pub fn new(secret: &str) -> Sealer {
        let key = blake3::derive_key("sluice 2026 lease header", secret.as_bytes());
        Sealer(key)
    }

    /// What stands beside `what`.
    #[must_use]
    pub(super) fn seal(&self, what: &str) -> String {
        let hash = blake3::keyed_hash(&self.0, what.as_bytes());
        hash.to_hex()[..SEAL].to_owned()
    }

    /// Whether `seal` is the one of `what`, compared in time that does not depend on where they
    /// differ.
    pub(super) fn is(&self, what: &str, seal: &str) -> bool {
        blake3::hash(self.seal(what).as_bytes()) == blake3::hash(seal.as_bytes())
    }

    /// A moment and the seal of it, good for a minute, for one purpose.
    pub(super) fn stamp(&self, purpose: &str, now_us: u64) -> String {
        format!("{now_us}:{}", self.seal(&format!("{purpose} {now_us}")))
    }

    /// Whether it is such a stamp, and not too old.
    pub(super) fn is_stamp(&self, purpose: &str, stamp: &str, now_us: u64) -> bool {
        let stamped = || {
            let (moment, seal) = stamp.split_once(':')?;
            let young = now_us.abs_diff(moment.parse().ok()?) <= OLDEST_US;
            (young && self.is(&format!("{purpose} {moment}"), seal)).then_some(())
        };
        stamped().is_some()
    }

    /// A word that opens the sidecar's relay for a minute: a request that a missing route leads
    /// elsewhere gives no more away.
    #[must_use]
    pub fn relay_token(&self, now_us: u64) -> String {
        format!("relay:{}", self.stamp("relay", now_us))
    }

    /// Whether it is such a word, and not too old.
    #[must_use]
    pub fn is_relay_token(&self, token: &str, now_us: u64) -> bool {
        let stamp = token.strip_prefix("relay:");
        stamp.is_some_and(|stamp| self.is_stamp("relay", stamp, now_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_token_opens_for_a_minute_and_only_with_the_same_secret() {
        let (sealer, now) = (Sealer::new("s"), 1_700_000_000_000_000);
        let token = sealer.relay_token(now);
        assert!(!token.contains("Bearer s"), "{token}");
        assert!(sealer.is_relay_token(&token, now + OLDEST_US));
        assert!(!sealer.is_relay_token(&token, now + OLDEST_US + 1));
        assert!(!Sealer::new("t").is_relay_token(&token, now));
        let (head, _) = token.rsplit_once(':').unwrap();
        for forged in [
            "",
            "relay:",
            "relay:1",
            head,
            &format!("{head}:"),
            &token[1..],
        ] {
            assert!(!sealer.is_relay_token(forged, now), "{forged}");
        }
        let other = format!("relay:{now}:{}", sealer.seal(&format!("attempt {now}")));
        assert!(
            !sealer.is_relay_token(&other, now),
            "a seal of something else"
        );
    }
}
