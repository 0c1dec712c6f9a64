//! `trim.history`: what of a conversation's beginning stays, and what is told of what does not.

use super::Lower;
use crate::config::raw;
use crate::config::values::Count;

/// Most exchanges that may be set to stay; a history that long is kept by its tokens.
const MOST_EXCHANGES: u64 = 1000;
/// Tokens of a digest where nothing is said: a dozen sentences.
const DIGEST: u64 = 300;
/// Fewest tokens of a digest: its frame takes some twenty, a sentence as many.
const LEAST_DIGEST: u64 = 50;

impl Lower<'_> {
    pub(super) fn pin_first(&mut self, path: &str, raw: &raw::History) -> usize {
        let Count(found) = raw.pin_first.unwrap_or(Count(0));
        let range = 0..=MOST_EXCHANGES;
        self.whole(&format!("{path}.pin_first"), found, range) as usize
    }

    pub(super) fn digest(&mut self, path: &str, raw: &raw::History) -> u64 {
        let Count(found) = raw.summary.map_or(Count(DIGEST), |summary| summary.tokens);
        let range = LEAST_DIGEST..=u64::from(u32::MAX);
        self.whole(&format!("{path}.summary.tokens"), found, range)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{faults, parse};

    #[test]
    fn the_first_exchanges_and_a_digest_are_as_set() {
        let plan = parse(
            r#"{"trim":{"history":{"keep":"summary","tokens":500,"pin_first":1,"summary":{"tokens":"1_000"}}},
                "routes":[{"name":"a","match":{"path":"/a"},"trim":{"history":{"pin_first":2}}}]}"#,
        )
        .unwrap();
        let of = |history: Option<crate::config::History>| {
            let history = history.unwrap();
            (history.pin_first, history.digest)
        };
        assert_eq!(of(plan.default.trim.history), (1, 1000));
        assert_eq!(of(plan.routes[0].1.trim.history), (2, 1000));
        assert_ne!(plan.routes[0].1.digest, plan.default.digest);
        let plain = parse(r#"{"trim":{"history":{"tokens":500}}}"#).unwrap();
        assert_eq!(of(plain.default.trim.history), (0, 300));
    }

    #[test]
    fn a_fault_in_it_says_where() {
        for (config, path, told) in [
            (r#""pin_first":1001"#, "pin_first", "expected 0 to 1000"),
            (
                r#""keep":"summary","summary":{"tokens":49}"#,
                "summary.tokens",
                "expected 50",
            ),
            (r#""keep":"summary","summary":{}"#, "summary", "tokens"),
        ] {
            let found = faults(&format!(
                r#"{{"trim":{{"history":{{"tokens":500,{config}}}}}}}"#
            ));
            let [(at, message)] = found.as_slice() else {
                panic!("{config}: {found:?}")
            };
            assert_eq!(at, &format!("trim.history.{path}"));
            assert!(message.contains(told), "{message}");
        }
    }
}
