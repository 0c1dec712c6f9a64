//! The life of one request as a state machine: events in, effects out.
//!
//! ```text
//! RequestHeaders ─► who, which API, which route ─► hold the body · an attempt of ours: pass
//! RequestBody    ─► score, limits, keys, charges ─► Call admit | decide locally
//! Reply          ─► hit: Respond · stale: Respond and Refresh · wait: Call wait · over: Respond 429
//!                   count: Call again · go: what the guard says, then edit and resume
//! Turn           ─► one that the guard made wait, or whose sidecar died, tries again
//! Response…      ─► usage, cost, headers; hidden usage chunk
//! Done           ─► Settle: ledger record, budgets, answer to store
//! ```

mod admit;
mod conversations;
mod decide;
mod effect;
mod event;
mod facts;
mod finish;
mod guard;
mod hit;
mod inputs;
mod joining;
mod names;
mod refresh;
mod relay;
mod request;
mod response;
mod retry;
mod seal;
#[cfg(test)]
mod tests;
mod trim;
mod vm;

pub use effect::{Effect, Effects, Flow, Header, Metric, ReplyStatus};
pub use event::{Event, Headers, Host};
pub use names::{Label, metric_name};
pub use relay::Relay;
pub use seal::{Digest, Seal, Sealer};
pub use vm::Vm;

use facts::Facts;

/// One request on its way.
#[derive(Debug, Default)]
pub struct Exchange {
    phase: Phase,
    /// Present from the moment that a request is known to be ours.
    facts: Option<Box<Facts>>,
    /// Present while it is to be seen whether it is an attempt of ours.
    claim: Option<Box<retry::Claim>>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing seen.
    #[default]
    New,
    /// Not ours: everything passes.
    Passing,
    /// Its headers are those of an attempt of ours; the body is held until it is whole.
    Claimed,
    /// The body is held until it is whole.
    Body,
    /// The sidecar was asked.
    Asked,
    /// The sidecar was asked for another request's answer, and takes its time.
    Waiting,
    /// The guard makes it wait for its turn.
    Queued,
    /// The sidecar that it waited at is gone; it asks again in a moment.
    Retrying,
    /// Sent upstream.
    Sent,
    /// The answer is held until it is whole.
    Held,
    /// It was refused, and is sent once more as it was before it was trimmed.
    Attempted,
    /// The answer streams through.
    Streaming,
    /// Answered from here; the response callbacks see our own answer.
    Local,
    /// Over.
    Done,
}

impl Exchange {
    /// A request of which nothing has been seen.
    #[must_use]
    pub fn new() -> Exchange {
        Exchange::default()
    }

    /// Whether nothing that is still to come is read or changed, so that its bytes need not be
    /// copied out of the host. [`Event::Done`] is told all the same.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self.phase, Phase::Passing | Phase::Local | Phase::Done)
    }

    /// Whether it waits for a turn to try again, so that it is to be told of its turns.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        matches!(self.phase, Phase::Queued | Phase::Retrying)
    }

    /// Whether an answer of which so many bytes are held goes on being held, so that they need
    /// not be copied out of the host for [`Event::ResponseBody`] yet.
    #[must_use]
    pub fn holds(&self, buffered: usize, vm: &Vm) -> bool {
        self.phase == Phase::Held && buffered <= vm.plan.limits.response_body
    }

    /// What to do after an event. Never fails and never panics, in whatever order events come: one
    /// that does not fit the phase passes.
    pub fn on(&mut self, event: Event<'_>, vm: &mut Vm, host: &mut dyn Host) -> Effects {
        let mut effects = Effects::default();
        match event {
            Event::RequestHeaders {
                headers,
                end_of_stream,
            } => {
                self.request_headers(headers, end_of_stream, vm, host, &mut effects);
            }
            Event::RequestBodyPart { buffered } => {
                self.claimed_part(buffered, vm, host, &mut effects);
                self.request_body_part(buffered, vm, &mut effects)
            }
            Event::RequestBody { body } => {
                self.claimed(body, vm, host, &mut effects);
                self.request_body(body, vm, host, &mut effects);
            }
            Event::Reply { status, body } => {
                self.reply(Some((status, body)), vm, host, &mut effects)
            }
            Event::ReplyFailed if self.phase == Phase::Attempted => {
                self.attempt(None, vm, &mut effects);
            }
            Event::ReplyFailed => self.reply(None, vm, host, &mut effects),
            Event::Attempt { headers, body } => {
                self.attempt(Some((headers, body)), vm, &mut effects);
            }
            Event::ResponseHeaders {
                headers,
                end_of_stream,
            } => {
                let now = (end_of_stream, host.now_ns());
                self.response_headers(headers, now, vm, &mut effects);
            }
            Event::ResponseBody {
                chunk,
                end_of_stream,
            } => {
                let now = (end_of_stream, host.now_ns());
                self.response_body(chunk, now, vm, &mut effects);
            }
            Event::Turn => match self.phase {
                Phase::Queued => self.turn(vm, host, &mut effects),
                Phase::Retrying => self.ask_again(vm, host, &mut effects),
                _ => {}
            },
            Event::Done => self.done(vm, host, &mut effects),
        }
        effects
    }
}
