//! A trimmed request that upstream refuses for its messages goes out once more as it was.
//!
//! proxy-wasm cannot send a stream again. The host sends the untrimmed request as a call to a cluster
//! that is this Envoy's own listener, so that the route, its credentials and its host rewrites are its
//! lot as they were the first time; the answer takes the refusal's place. A streamed answer comes in
//! one piece then: a call has no streams, and holding the rare refused one costs the others nothing.
//! Where that is not good enough, such a request goes to the sidecar (`relay.rs`).
//!
//! That request carries a header that is sealed with its body and with all else that this filter
//! decides by. This filter, on that listener, lets it pass as it is, once. What is sealed otherwise, or
//! comes again, is a stranger's request like any other, but for one thing: it is not sent again, so
//! that a proxy in between that changes requests makes no circle.

use sluice_wire::{Outcome, header};

use super::facts::{Facts, Held};
use super::response::{is_plain, status};
use super::seal::{self, Digest, Seal};
use super::{Effect, Effects, Exchange, Flow, Headers, Host, Label, Phase, Vm};
use crate::formats::{Tap, refusal};

/// Most bytes of untrimmed requests that one VM holds. Past it a trimmed request goes out all the
/// same, and a refusal of it stands.
const MOST: usize = 16 << 20;

/// A request that is an attempt of one that this filter has decided about, if its body is the one
/// that its headers are sealed with.
#[derive(Debug)]
pub(super) struct Claim {
    headers: Headers,
    stamp: String,
    body: Digest,
}

impl Vm {
    /// What a request claims by headers that only a filter of ours can have sealed.
    pub(super) fn claim(&self, headers: &Headers, host: &dyn Host) -> Option<Claim> {
        let stamp = headers.get(header::ATTEMPT)?;
        let now_us = host.now_ns() / 1000;
        let bound = seal::bound_of(&self.naming, headers);
        let body = self.seal?.stamped(seal::ATTEMPT, (stamp, now_us), &bound)?;
        // A second one must not hide behind the first.
        let alone = headers.all(header::ATTEMPT).count() == 1;
        alone.then(|| Claim {
            headers: headers.clone(),
            stamp: stamp.to_owned(),
            body,
        })
    }

    /// What seals a request of now; None without a secret.
    pub(super) fn sealing(&self, now_ns: u64) -> Option<Seal> {
        Some(Seal {
            sealer: self.seal?,
            now_us: now_ns / 1000,
            naming: self.naming.clone(),
        })
    }
}

impl Exchange {
    /// Looks whether so much of a body is still the one that was claimed.
    pub(super) fn claimed_part(
        &mut self,
        buffered: usize,
        vm: &mut Vm,
        host: &mut dyn Host,
        effects: &mut Effects,
    ) {
        let Some(claim) = self.claim.as_ref() else {
            return;
        };
        if buffered as u64 > claim.body.len {
            self.unclaimed(vm, host, effects);
        } else {
            effects.flow = Flow::Pause;
        }
    }

    /// Lets a request pass whose body is the one that was claimed, and which comes for the first time.
    pub(super) fn claimed(
        &mut self,
        body: &[u8],
        vm: &mut Vm,
        host: &mut dyn Host,
        effects: &mut Effects,
    ) {
        let Some(claim) = self.claim.as_ref() else {
            return;
        };
        if Digest::of(body) != claim.body || !host.first(&claim.stamp) {
            return self.unclaimed(vm, host, effects);
        }
        // All was decided about it the first time, and what stands in our name is ours.
        self.claim = None;
        self.phase = Phase::Passing;
        effects
            .list
            .push(Effect::RemoveRequestHeader(header::ATTEMPT.into()));
        effects.list.push(Effect::ResumeRequest);
    }

    /// It is a request like any other.
    fn unclaimed(&mut self, vm: &mut Vm, host: &mut dyn Host, effects: &mut Effects) {
        let Some(claim) = self.claim.take() else {
            return;
        };
        self.phase = Phase::Passing;
        self.read_headers((&claim.headers, false), vm, host, effects);
        match self.phase {
            // What its body says comes next.
            Phase::Body => effects.flow = Flow::Continue,
            Phase::Passing => effects.list.push(Effect::ResumeRequest),
            _ => {}
        }
    }
}

impl Facts {
    /// The request as it would have gone out untrimmed, to be held where it may be sent again and
    /// there is room. The host is then to keep its headers.
    pub(super) fn untrimmed_of(&self, body: &[u8], vm: &Vm) -> Option<Held> {
        let retried = self.route(&vm.plan).trim.retry.is_some() && vm.seal.is_some();
        let retried = retried && !self.claimed;
        retried.then(|| Held::new(body, (&vm.untrimmed, MOST)))?
    }

    /// Whether an answer of that status is held to be judged.
    pub(super) fn may_retry(&self, headers: &Headers) -> bool {
        self.untrimmed.is_some() && refusal::may_blame_messages(self.status) && is_plain(headers)
    }
}

impl Exchange {
    /// Sends the untrimmed request, where the refusal in `body` blames the messages. Says whether it
    /// does.
    pub(super) fn try_untrimmed(
        &mut self,
        body: &[u8],
        now_ns: u64,
        vm: &mut Vm,
        effects: &mut Effects,
    ) -> bool {
        let Some(facts) = self.facts.as_mut() else {
            return false;
        };
        if facts.untrimmed.is_some() && !refusal::blames_messages(facts.status, body) {
            facts.untrimmed = None;
        }
        self.send_untrimmed(now_ns, vm, effects)
    }

    /// Sends the untrimmed request, where it is held. Says whether it does.
    pub(super) fn send_untrimmed(
        &mut self,
        now_ns: u64,
        vm: &mut Vm,
        effects: &mut Effects,
    ) -> bool {
        let plan = vm.plan.clone();
        let Some(facts) = self.facts.as_mut() else {
            return false;
        };
        let Some(untrimmed) = facts.untrimmed.take() else {
            return false;
        };
        let Some(retry) = &facts.route(&plan).trim.retry else {
            return false;
        };
        let Some(seal) = vm.sealing(now_ns) else {
            return false;
        };
        effects.list.push(Effect::Attempt {
            cluster: retry.by.cluster.clone(),
            timeout_ms: retry.by.timeout_ms,
            seal,
            body: untrimmed.to_vec(),
        });
        self.phase = Phase::Attempted;
        effects.flow = Flow::Pause;
        true
    }

    /// The untrimmed request's answer takes the place of the refusal, which stands where there is
    /// none.
    pub(super) fn attempt(
        &mut self,
        answer: Option<(&Headers, &[u8])>,
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        if self.phase != Phase::Attempted {
            return;
        }
        let plan = vm.plan.clone();
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        let answered = answer.map(|(headers, body)| (status(headers), headers, body));
        // What is no answer at all cannot be told as one.
        let answered = answered.filter(|(status, ..)| (200..600).contains(status));
        let result = match answered {
            Some((200..300, ..)) => "answered",
            Some(_) => "refused",
            None => "failed",
        };
        effects.count(vm, ("trim_retry", &[(Label::Result, result)]), 1);
        let Some((status, headers, body)) = answered else {
            effects.add_response_headers(facts.cost_headers(&plan));
            self.phase = Phase::Streaming;
            effects.list.push(Effect::ResumeResponse);
            return;
        };
        facts.untrim();
        facts.status = status;
        let mut shown = None;
        if status < 400 {
            facts.outcome = Outcome::Answered;
            shown = facts.read_attempt(headers, body, &plan);
        }
        let content_type = headers.get("content-type").unwrap_or("application/json");
        let mut all = vec![("content-type", content_type.to_owned().into())];
        let retry_after = headers.get("retry-after");
        all.extend(retry_after.map(|value| ("retry-after", value.to_owned().into())));
        all.extend(facts.answer_headers(&plan));
        all.extend(facts.cost_headers(&plan));
        self.phase = Phase::Local;
        effects.list.push(Effect::Respond {
            status,
            headers: all,
            body: shown.unwrap_or_else(|| body.to_vec()),
        });
        effects.flow = Flow::Pause;
    }
}

impl Facts {
    /// The client left before the second attempt was answered. That the first was refused is not all
    /// there is to book: upstream is at work on the request as it came.
    pub(super) fn leave_attempt(&mut self) {
        self.untrim();
        self.status = 0;
        self.outcome = Outcome::Aborted;
    }

    /// Reads a whole answer; the stream to show, where something in it is to be hidden.
    fn read_attempt(
        &mut self,
        headers: &Headers,
        body: &[u8],
        plan: &crate::config::Plan,
    ) -> Option<Vec<u8>> {
        let kind = headers.get("content-type").unwrap_or("");
        if kind.starts_with("text/event-stream") {
            let mut tap = Tap::new(self.format, self.hiding);
            let mut shown = tap.chunk(body).into_owned();
            shown.extend(tap.end());
            self.read(&tap.outcome());
            self.answer = self.assembled(&tap, plan);
            return Some(shown);
        }
        let answer = self.format.answer(body);
        self.read(&answer);
        if answer.complete && self.stores(plan, body.len()) {
            self.answer = Some(body.to_vec());
        }
        None
    }
}
