//! `POST /v1/relay`: a request that is sent, and sent once more as it came where upstream refuses its
//! messages; for streams, which a filter cannot send again.
//!
//! The sidecar sends each attempt to a listener of the filter's own Envoy, so that routes, credentials
//! and clusters are those that the request would have had. The answer is the answer of one attempt as
//! it came, with [`crate::header::ATTEMPT`] saying which; without that header it is the sidecar's own
//! error.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A request and the ways to send it, best first. Their bodies follow the frame's head, one after
/// another.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRequest {
    /// Path and query.
    pub path: String,
    /// Host that it is for.
    pub authority: String,
    /// Headers of every attempt, the caller's credentials among them, and those that pick its route.
    /// Those of the hop (`connection`, `content-length`, …) are the sidecar's own.
    pub headers: Vec<(String, String)>,
    /// The attempts: one or two.
    pub attempts: Vec<Attempt>,
}

/// One attempt.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Bytes of its body.
    pub len: u64,
    /// BLAKE3 of its body, 64 hex digits. What opens the relay is sealed with the head, and so with it.
    pub digest: String,
    /// Headers of its own: [`crate::header::ATTEMPT`] among them, sealed, by which the filter on the
    /// way knows its like and lets the request pass as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

impl RelayRequest {
    /// Bytes that follow the head.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        let lens = self.attempts.iter().map(|attempt| attempt.len);
        lens.fold(0, u64::saturating_add)
    }
}

/// Names alone: values are credentials, and paths may be.
struct Names<'a>(&'a [(String, String)]);

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl fmt::Debug for RelayRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayRequest")
            .field("headers", &Names(&self.headers))
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("len", &self.len)
            .field("headers", &Names(&self.headers))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_told_apart_and_no_credential_is_shown() {
        let secret = |name: &str| (name.to_owned(), "Bearer sk-secret".to_owned());
        let relay = RelayRequest {
            path: "/v1/chat/completions?key=sk-secret".to_owned(),
            authority: "api".to_owned(),
            headers: vec![secret("authorization")],
            attempts: vec![
                Attempt {
                    len: 7,
                    digest: String::new(),
                    headers: vec![secret("x-sluice-attempt")],
                },
                Attempt {
                    len: u64::MAX,
                    digest: String::new(),
                    headers: vec![],
                },
            ],
        };
        assert_eq!(relay.body_len(), u64::MAX);
        let told = serde_json::to_string(&relay).unwrap();
        assert_eq!(serde_json::from_str::<RelayRequest>(&told).unwrap(), relay);
        let shown = format!("{relay:?}");
        assert!(shown.contains("authorization"), "{shown}");
        assert!(!shown.contains("sk-secret"), "{shown}");
    }
}
