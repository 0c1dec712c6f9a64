//! The answer's way: held to put its cost into headers, or streamed with an eye on its usage.

use std::borrow::Cow;

use sluice_wire::{Outcome, Usd, header};

use super::facts::Facts;
use super::{Effect, Effects, Exchange, Flow, Header, Headers, Phase, Vm};
use crate::config::Plan;
use crate::formats::{Answer, Tap, UsageScan};

impl Exchange {
    pub(super) fn response_headers(
        &mut self,
        headers: &Headers,
        end_of_stream: bool,
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        // Our own answer comes by here too.
        if self.phase == Phase::Local || self.phase == Phase::Done {
            return;
        }
        // What an upstream says in our name is not ours.
        for name in headers.names_with(header::PREFIX) {
            effects.list.push(Effect::RemoveResponseHeader(name.into()));
        }
        // Also an answer that came while the request was still held (an Envoy error): nothing was
        // asked upstream.
        let Some(facts) = self.facts.as_mut().filter(|_| self.phase == Phase::Sent) else {
            if let Some(facts) = self.facts.as_mut() {
                facts.status = status(headers);
                facts.outcome = Outcome::UpstreamError;
                self.phase = Phase::Streaming;
            }
            return;
        };
        facts.status = status(headers);
        effects.add_response_headers(facts.answer_headers(&vm.plan));
        self.phase = Phase::Streaming;
        if facts.status >= 400 {
            facts.outcome = Outcome::UpstreamError;
            effects.add_response_headers(facts.cost_headers(&vm.plan));
            return;
        }
        if end_of_stream {
            facts.outcome = Outcome::Answered;
            return;
        }
        let content_type = headers
            .get("content-type")
            .unwrap_or("")
            .to_ascii_lowercase();
        let readable = headers
            .get("content-encoding")
            .is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
        if !readable {
            effects.count(vm, ("unread_answer", &[]), 1);
        } else if content_type.starts_with("text/event-stream") {
            facts.tap = Some(Tap::new(facts.format, facts.hiding));
            if facts.hiding {
                effects
                    .list
                    .push(Effect::RemoveResponseHeader("content-length".into()));
            }
        } else if content_type.contains("json") {
            let length = headers
                .get("content-length")
                .and_then(|length| length.parse::<usize>().ok());
            if length.is_some_and(|length| length > vm.plan.limits.response_body) {
                facts.scan = Some(UsageScan::new());
            } else {
                self.phase = Phase::Held;
                effects.flow = Flow::Pause;
            }
        }
    }

    pub(super) fn response_body(
        &mut self,
        chunk: &[u8],
        end_of_stream: bool,
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        match self.phase {
            Phase::Held => self.held_body(chunk, end_of_stream, vm, effects),
            Phase::Streaming => self.streaming_body(chunk, end_of_stream, vm, effects),
            _ => {}
        }
    }

    fn held_body(&mut self, all: &[u8], end_of_stream: bool, vm: &mut Vm, effects: &mut Effects) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        if !end_of_stream {
            if all.len() <= vm.plan.limits.response_body {
                effects.flow = Flow::Pause;
                return;
            }
            // Longer than we hold: on it goes, watched for its usage only.
            let mut scan = UsageScan::new();
            scan.push(all);
            facts.scan = Some(scan);
            self.phase = Phase::Streaming;
            effects.list.push(Effect::ResumeResponse);
            return;
        }
        let answer = facts.format.answer(all);
        facts.read(&answer);
        facts.outcome = Outcome::Answered;
        if answer.complete && facts.stores(&vm.plan, all.len()) {
            facts.answer = Some(all.to_vec());
        }
        effects.add_response_headers(facts.cost_headers(&vm.plan));
        self.phase = Phase::Streaming;
        effects.list.push(Effect::ResumeResponse);
    }

    fn streaming_body(
        &mut self,
        chunk: &[u8],
        end_of_stream: bool,
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        if let Some(tap) = facts.tap.as_mut() {
            let mut shown = tap.chunk(chunk);
            if end_of_stream {
                let held = tap.end();
                if !held.is_empty() {
                    shown.to_mut().extend(held);
                }
            }
            if *shown != *chunk {
                effects
                    .list
                    .push(Effect::ReplaceResponseBody(shown.into_owned()));
            }
            let outcome = tap.outcome();
            facts.read(&outcome);
        }
        if let Some(scan) = facts.scan.as_mut() {
            scan.push(chunk);
        }
        if !end_of_stream {
            return;
        }
        if let Some(scan) = facts.scan.take() {
            facts.usage = scan.usage().and_then(|usage| facts.format.usage(usage));
        }
        if facts.outcome == Outcome::Aborted {
            facts.outcome = Outcome::Answered;
        }
        if let Some(tap) = facts.tap.take()
            && facts.outcome == Outcome::Answered
            && tap.outcome().complete
            && facts.stores(&vm.plan, 0)
        {
            let longest = facts.route(&vm.plan).cache.max_answer;
            facts.answer = tap
                .assemble()
                .map(String::into_bytes)
                .filter(|answer| answer.len() <= longest);
        }
    }
}

/// An amount as headers and access logs show it.
pub(super) fn dollars(amount: Option<Usd>) -> Cow<'static, str> {
    amount.map_or("unknown".into(), |usd| usd.to_string().into())
}

fn status(headers: &Headers) -> u16 {
    headers
        .get(":status")
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

impl Facts {
    fn read(&mut self, answer: &Answer) {
        self.usage = answer.usage.or(self.usage);
        self.text_bytes = answer.text_bytes;
    }

    /// Whether an answer of that length is to be stored.
    fn stores(&self, plan: &Plan, len: usize) -> bool {
        self.status == 200
            && self.option().is_some_and(|option| option.key.is_some())
            && len <= self.route(plan).cache.max_answer
    }

    /// What every answer tells: tier, model, cache, trimmed tokens.
    pub(super) fn answer_headers(&self, plan: &Plan) -> Vec<Header> {
        let mut headers: Vec<Header> = vec![
            (header::MODEL, self.model().to_owned().into()),
            (header::CACHE, self.cache.name().into()),
            (header::TOKENS_TRIMMED, "0".into()),
        ];
        if let Some(tier) = self.tier(plan) {
            headers.push((header::TIER, tier.to_owned().into()));
        }
        // A model's name comes from a client, and a header is one line of visible ASCII.
        headers.retain(|(_, value)| value.bytes().all(|b| (0x20..0x7f).contains(&b)));
        headers
    }

    /// What an answer tells once its usage is known.
    pub(super) fn cost_headers(&self, plan: &Plan) -> [Header; 2] {
        let bill = self.bill(plan);
        let show = |amount: Option<Usd>| dollars(amount.filter(|_| self.known()));
        [
            (header::COST, show(bill.cost)),
            (header::SAVED, show(bill.saved_total())),
        ]
    }

    /// Whether dollars can be told: upstream reported usage, or nothing is owed.
    fn known(&self) -> bool {
        self.usage.is_some() || self.status >= 400
    }
}
