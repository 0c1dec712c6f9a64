//! The answer's way: held to put its cost into headers, or streamed with an eye on its usage.

use std::borrow::Cow;

use sluice_wire::{CacheResult, Outcome, Usd, header};

use super::effect::NOTHING_TRIMMED;
use super::facts::Facts;
use super::{Effect, Effects, Exchange, Flow, Header, Headers, Phase, Vm};
use crate::coding::{Decoder, Unreadable};
use crate::config::{Mode, Plan, Scope};
use crate::formats::{Answer, Tap, UsageScan, refusal};

/// What a header says that is true of an answer's very bytes alone.
const OF_THE_BYTES: [&str; 7] = [
    "content-length",
    "content-encoding",
    "etag",
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
];

impl Exchange {
    pub(super) fn response_headers(
        &mut self,
        headers: &Headers,
        (end_of_stream, now_ns): (bool, u64),
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
                facts.lease = facts.holds(self.phase, &vm.plan);
                vm.lets_go(self.phase, facts.route);
                facts.status = status(headers);
                facts.outcome = Outcome::UpstreamError;
                facts.upstream_failed = true;
                effects.add_response_headers([NOTHING_TRIMMED]);
                self.phase = Phase::Streaming;
            }
            return;
        };
        if facts.relayed && self.relay_failed(headers, now_ns, vm, effects) {
            return;
        }
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        facts.status = status(headers);
        facts.hear((facts.status, retry_after_ns(headers)), vm, now_ns);
        // What was to be audited is as good as ever, whatever upstream has against the request.
        let audited = facts.audit.is_some() && facts.status >= 400;
        if (audited || matches!(facts.status, 429 | 500..)) && facts.spare.is_some() {
            facts.upstream_failed = true;
            if self.stand_in(vm, effects) {
                if !audited {
                    effects.count(vm, ("stale_if_error", &[]), 1);
                }
                return;
            }
        }
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        // It would take memory for as long as the answer lasts.
        facts.spare = None;
        effects.add_response_headers(facts.answer_headers(&vm.plan));
        self.phase = Phase::Streaming;
        if !facts.may_retry(headers) {
            // It would take memory too.
            facts.untrimmed = None;
        }
        if !(200..300).contains(&facts.status) {
            // No vectors are in it.
            facts.inputs = None;
        }
        if facts.status >= 400 {
            facts.outcome = Outcome::UpstreamError;
            let held = facts.remembers(headers, &vm.plan) || facts.may_retry(headers);
            if held && !end_of_stream {
                self.phase = Phase::Held;
                effects.flow = Flow::Pause;
            } else {
                effects.add_response_headers(facts.cost_headers(&vm.plan));
            }
            return;
        }
        facts.taken(vm);
        if end_of_stream {
            facts.outcome = Outcome::Answered;
            if facts.in_part() {
                self.unread_in_part(vm, effects);
            }
            return;
        }
        let content_type = headers
            .get("content-type")
            .unwrap_or("")
            .to_ascii_lowercase();
        // Of several lines the last would be the outermost; no upstream writes more than one.
        let coding = headers.get("content-encoding").unwrap_or("");
        facts.decoder = match Decoder::new(coding, &vm.decoders) {
            Ok(decoder) => decoder,
            Err(_) if facts.in_part() => return self.unread_in_part(vm, effects),
            Err(reason) => return effects.unread(facts, vm, reason),
        };
        if facts.in_part() {
            if !content_type.contains("json") {
                return self.unread_in_part(vm, effects);
            }
            // Another answer takes its place, plain and of other bytes.
            for name in OF_THE_BYTES {
                if headers.get(name).is_some() {
                    effects.list.push(Effect::RemoveResponseHeader(name.into()));
                }
            }
        }
        if content_type.starts_with("text/event-stream") {
            // Nothing can be hidden in what an upstream compressed though it was asked not to.
            let hides = facts.hiding && facts.decoder.is_none();
            facts.tap = Some(Tap::new(facts.format, hides));
            if hides {
                effects
                    .list
                    .push(Effect::RemoveResponseHeader("content-length".into()));
            }
        } else if content_type.contains("json") {
            let length = headers
                .get("content-length")
                .and_then(|length| length.parse::<usize>().ok());
            let long = length.is_some_and(|length| length > vm.plan.limits.response_body);
            if long && facts.in_part() {
                self.answer_in_part(None, vm, effects);
            } else if long {
                facts.scan = Some(UsageScan::new());
            } else {
                self.phase = Phase::Held;
                effects.flow = Flow::Pause;
            }
        } else {
            facts.decoder = None;
        }
    }

    pub(super) fn response_body(
        &mut self,
        chunk: &[u8],
        (end_of_stream, now_ns): (bool, u64),
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        match self.phase {
            Phase::Held => self.held_body(chunk, (end_of_stream, now_ns), vm, effects),
            Phase::Streaming => self.streaming_body(chunk, end_of_stream, vm, effects),
            // The relay's error stays where it is until there is an answer to take its place.
            Phase::Attempted => effects.flow = Flow::Pause,
            _ => {}
        }
    }

    fn held_body(
        &mut self,
        all: &[u8],
        (end_of_stream, now_ns): (bool, u64),
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        if end_of_stream && self.try_untrimmed(all, now_ns, vm, effects) {
            return;
        }
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        if !end_of_stream {
            if all.len() <= vm.plan.limits.response_body {
                effects.flow = Flow::Pause;
                return;
            }
            if facts.in_part() {
                return self.answer_in_part(None, vm, effects);
            }
            // Longer than we hold: on it goes, watched for its usage only. An error costs nothing.
            if facts.outcome == Outcome::UpstreamError {
                effects.add_response_headers(facts.cost_headers(&vm.plan));
            }
            facts.scan = Some(UsageScan::new());
            self.phase = Phase::Streaming;
            effects.list.push(Effect::ResumeResponse);
            self.streaming_body(all, false, vm, effects);
            return;
        }
        if facts.outcome == Outcome::UpstreamError {
            // Upstream refused what we made of the request: that says nothing of the request.
            let own = !facts.is_cut();
            if own && refusal::stands(facts.status, all) && all.len() <= facts.longest(&vm.plan) {
                facts.answer = Some(all.to_vec());
            }
            effects.add_response_headers(facts.cost_headers(&vm.plan));
            self.phase = Phase::Streaming;
            effects.list.push(Effect::ResumeResponse);
            return;
        }
        facts.outcome = Outcome::Answered;
        let mut scan = UsageScan::new();
        let plain = match facts.decoder.take() {
            None => Ok(Some(Cow::Borrowed(all))),
            Some(decoder) => decoder
                .whole(all, vm.plan.limits.response_body, &mut |part| {
                    scan.push(part)
                })
                .map(|plain| plain.map(Cow::Owned)),
        };
        if facts.in_part() {
            return match plain {
                Ok(plain) => self.answer_in_part(plain.as_deref(), vm, effects),
                Err(_) => self.unread_in_part(vm, effects),
            };
        }
        match plain {
            Ok(Some(plain)) => {
                let answer = facts.format.answer(&plain);
                facts.read(&answer);
                // Decoded, so that it serves any client; without it a dry cache would find nothing.
                let whole = answer.complete && facts.stores(&vm.plan, 0);
                let taken = whole && facts.take_vectors(&plain, &mut vm.joins);
                if whole && !taken && facts.stores(&vm.plan, plain.len()) {
                    facts.answer = Some(plain.into_owned());
                }
            }
            // Longer than we hold once it is plain.
            Ok(None) => facts.scanned(&scan),
            Err(reason) => effects.unread(facts, vm, reason),
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
        if facts.decoder.is_some() {
            if let Err(reason) = facts.decode(chunk, end_of_stream) {
                effects.unread(facts, vm, reason);
            }
        } else if let Some(tap) = facts.tap.as_mut() {
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
        } else if let Some(scan) = facts.scan.as_mut() {
            scan.push(chunk);
        }
        if !end_of_stream {
            return;
        }
        if let Some(scan) = facts.scan.take() {
            facts.scanned(&scan);
        }
        if facts.outcome == Outcome::Aborted {
            facts.outcome = Outcome::Answered;
        }
        if let Some(tap) = facts.tap.take()
            && facts.outcome == Outcome::Answered
        {
            facts.answer = facts.assembled(&tap, &vm.plan);
        }
    }
}

/// An amount as headers and access logs show it.
pub(super) fn dollars(amount: Option<Usd>) -> Cow<'static, str> {
    amount.map_or("unknown".into(), |usd| usd.to_string().into())
}

/// How long upstream asks to be left alone: `retry-after` in seconds (RFC 9110 §10.2.3; a date is
/// not read), or OpenAI's `retry-after-ms`.
fn retry_after_ns(headers: &Headers) -> Option<u64> {
    let number = |name: &str| headers.get(name)?.trim().parse::<u64>().ok();
    number("retry-after-ms")
        .map(|ms| ms.saturating_mul(1_000_000))
        .or_else(|| Some(number("retry-after")?.saturating_mul(1_000_000_000)))
}

/// An answer's bytes are what it says.
pub(super) fn is_plain(headers: &Headers) -> bool {
    let coding = headers.get("content-encoding");
    coding.is_none_or(|coding| coding.eq_ignore_ascii_case("identity"))
}

pub(super) fn status(headers: &Headers) -> u16 {
    headers
        .get(":status")
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

impl Facts {
    pub(super) fn read(&mut self, answer: &Answer) {
        if answer.usage.is_some() {
            (self.usage, self.usage_so_far) = (answer.usage, answer.usage_so_far);
        }
        self.text_bytes = answer.text_bytes;
    }

    /// Takes the usage that a scan came upon.
    fn scanned(&mut self, scan: &UsageScan) {
        self.usage = scan.usage().and_then(|usage| self.format.usage(usage));
    }

    /// Reads on in a compressed answer that streams to the client as it comes.
    fn decode(&mut self, chunk: &[u8], end_of_stream: bool) -> Result<(), Unreadable> {
        let Facts {
            decoder: Some(decoder),
            tap,
            scan,
            ..
        } = self
        else {
            return Ok(());
        };
        let mut read = decoder.push(chunk, &mut |plain| {
            if let Some(tap) = tap {
                tap.chunk(plain);
            }
            if let Some(scan) = scan {
                scan.push(plain);
            }
            Ok(())
        });
        if end_of_stream {
            read = read.and_then(|()| decoder.end());
            tap.as_mut().map(Tap::end);
        }
        if let Some(outcome) = tap.as_ref().map(Tap::outcome) {
            self.read(&outcome);
        }
        if read.is_err() {
            // What it told of its usage may be wrong; how long its text was is good for an estimate.
            self.usage = None;
            (self.decoder, self.tap, self.scan) = (None, None, None);
        }
        read
    }

    /// Whether a refusal is held, because it may be one to remember.
    fn remembers(&self, headers: &Headers, plan: &Plan) -> bool {
        let cache = &self.route(plan).cache;
        // What is unknown to one tenant's key may be known to another's.
        let shared = cache.scope == Scope::Global && self.status == 404;
        cache.negative_secs > 0
            && cache.mode == Mode::On
            && refusal::may_stand(self.status)
            // What is wrong with a part says nothing of the whole.
            && self.cache != CacheResult::Partial
            && !shared
            && self.option().is_some_and(|option| option.key.is_some())
            && is_plain(headers)
            && headers
                .get("content-type")
                .is_some_and(|kind| kind.contains("json"))
    }

    /// A streamed answer as one, where it came whole and is to be stored.
    pub(super) fn assembled(&self, tap: &Tap, plan: &Plan) -> Option<Vec<u8>> {
        let whole = tap.outcome().complete && self.stores(plan, 0);
        let answer = tap.assemble().filter(|_| whole)?.into_bytes();
        (answer.len() <= self.longest(plan)).then_some(answer)
    }

    /// Longest answer that is stored.
    pub(super) fn longest(&self, plan: &Plan) -> usize {
        self.route(plan).cache.max_answer
    }

    /// Whether an answer of that length is to be stored.
    pub(super) fn stores(&self, plan: &Plan, len: usize) -> bool {
        self.status == 200
            && self.option().is_some_and(|option| option.key.is_some())
            && len <= self.route(plan).cache.max_answer
    }

    /// What every answer tells: tier, model, cache, trimmed tokens.
    pub(super) fn answer_headers(&self, plan: &Plan) -> Vec<Header> {
        let mut headers: Vec<Header> = vec![
            (header::MODEL, self.model().to_owned().into()),
            (header::CACHE, self.cache.name().into()),
            (
                header::TOKENS_TRIMMED,
                self.left_out(plan).to_string().into(),
            ),
        ];
        if let Some(tier) = self.tier(plan) {
            headers.push((header::TIER, tier.to_owned().into()));
        }
        // A model's name comes from a client, and a header is one line of visible ASCII.
        headers.retain(|(_, value)| {
            !value.is_empty() && value.bytes().all(|b| (0x20..0x7f).contains(&b))
        });
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
        self.usage.is_some() || self.status >= 400 || !self.format.kind().asks_a_model()
    }
}
