//! A trimmed request for a stream goes to the sidecar, where the config says so, which sends it, and
//! once more as it was where upstream refuses its messages. So it streams all the same.
//!
//! The sidecar sends each attempt to this Envoy's own listener, sealed, and this filter lets it pass
//! there. Whether an answer is upstream's, and of which attempt, the sidecar says in
//! [`header::ATTEMPT`]; where it does not, the relay failed, and the request goes once more by a call.
//! No request fails that would have been answered without a relay.

use std::fmt;

use sluice_wire::{Attempt, Outcome, RelayRequest, VERSION, header, limit, path};

use super::facts::Facts;
use super::response::status;
use super::seal::{Digest, Seal};
use super::{Effect, Effects, Exchange, Headers, Label, Vm};
use crate::config::Streams;

/// Most bytes of both bodies: the sidecar takes no longer frame, and the request's headers are in it.
const MOST: usize = limit::RELAY_BODY - (128 << 10);

/// A request for the relay, but for its headers.
#[derive(Clone, PartialEq)]
pub struct Relay {
    seal: Seal,
    /// Trimmed, and as it was.
    bodies: [Vec<u8>; 2],
}

impl fmt::Debug for Relay {
    /// Nothing of what is said in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lens = self.bodies.each_ref().map(Vec::len);
        f.debug_struct("Relay").field("lens", &lens).finish()
    }
}

impl Relay {
    /// What the sidecar is sent for a request with these headers, and the `authorization` that opens
    /// its relay to that. Not the secret: a missing route leads the request to a provider.
    #[must_use]
    pub fn frame(&self, headers: &[(String, String)]) -> (Vec<u8>, String) {
        let named = |wanted: &str| {
            let mut named = headers.iter().filter(|(name, _)| name == wanted);
            named.next().map(|(_, value)| value.clone())
        };
        let attempt = |body: &Vec<u8>| {
            let digest = Digest::of(body);
            let seal = self.seal.attempt(headers, digest);
            Attempt {
                len: digest.len,
                digest: digest.hex(),
                headers: vec![(header::ATTEMPT.to_owned(), seal)],
            }
        };
        let head = RelayRequest {
            path: named(":path").unwrap_or_default(),
            authority: named(":authority").unwrap_or_default(),
            headers: headers
                .iter()
                .filter(|(name, _)| !name.starts_with(':'))
                .cloned()
                .collect(),
            attempts: self.bodies.iter().map(attempt).collect(),
        };
        // Without a head the sidecar refuses, and the request goes by a call.
        let mut frame = serde_json::to_vec(&head).unwrap_or_default();
        let token = self.seal.sealer.relay_token(&frame, self.seal.now_us);
        frame.push(b'\n');
        for body in &self.bodies {
            frame.extend_from_slice(body);
        }
        (frame, format!("Bearer {token}"))
    }
}

impl Facts {
    /// The request for the sidecar's relay, where it is to go there with this trimmed body.
    pub(super) fn relay(&self, trimmed: &[u8], now_ns: u64, vm: &Vm) -> Option<Relay> {
        let untrimmed = self.untrimmed.as_ref().filter(|_| self.stream)?;
        let retry = self.route(&vm.plan).trim.retry.as_ref()?;
        let wanted = retry.streams == Streams::Relay && vm.sidecar_is_well();
        let fits = trimmed.len().saturating_add(untrimmed.len()) <= MOST;
        (wanted && fits).then_some(())?;
        Some(Relay {
            seal: vm.sealing(now_ns)?,
            bodies: [trimmed.to_vec(), untrimmed.to_vec()],
        })
    }
}

impl Effects {
    /// Sends the request, whose headers are kept, to the sidecar instead of upstream.
    pub(super) fn relay(&mut self, relay: Relay) {
        self.list.push(Effect::Relay(relay));
        for (name, value) in [
            (":path", path::RELAY.to_owned()),
            ("content-type", "application/octet-stream".to_owned()),
        ] {
            self.list.push(Effect::SetRequestHeader(name, value.into()));
        }
        // Whatever came under these names was removed with the headers.
        for (name, value) in [
            (header::WIRE, VERSION.to_string()),
            (header::RELAY, "1".to_owned()),
        ] {
            self.list.push(Effect::AddRequestHeader(name, value.into()));
        }
        self.list.push(Effect::ClearRouteCache);
    }
}

impl Exchange {
    /// Looks which attempt of a relayed request is answered. True: none, and the request goes once
    /// more by a call.
    pub(super) fn relay_failed(
        &mut self,
        headers: &Headers,
        now_ns: u64,
        vm: &mut Vm,
        effects: &mut Effects,
    ) -> bool {
        let Some(facts) = self.facts.as_mut().filter(|facts| facts.relayed) else {
            return false;
        };
        let result = match headers.get(header::ATTEMPT) {
            Some("0") => "first",
            Some("1") => "second",
            _ => "failed",
        };
        effects.count(vm, ("trim_relay", &[(Label::Result, result)]), 1);
        if result == "second" {
            facts.untrim();
        }
        if result != "failed" {
            facts.untrimmed = None;
            return false;
        }
        facts.status = status(headers);
        facts.outcome = Outcome::UpstreamError;
        facts.upstream_failed = true;
        let told = facts.answer_headers(&vm.plan);
        let sent = self.send_untrimmed(now_ns, vm, effects);
        if sent {
            effects.add_response_headers(told);
        }
        sent
    }
}
