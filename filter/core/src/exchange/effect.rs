//! What the host is to do after an event.

use std::borrow::Cow;
use std::rc::Rc;

use sluice_wire::{Settle, header};

use super::facts::Facts;
use super::{Label, Relay, Seal, Vm};
use crate::coding::Unreadable;
use crate::formats::{ApiError, Format};

/// Whether the request or response that the event was about may go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// Pass it on.
    #[default]
    Continue,
    /// Hold it (and buffer its body) until an effect resumes it.
    Pause,
}

/// Everything to do after one event, in order, and then how to return.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// In order.
    pub list: Vec<Effect>,
    /// How to return from the event.
    pub flow: Flow,
}

/// One thing for the host to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Set a request header (replacing all of that name).
    SetRequestHeader(&'static str, Cow<'static, str>),
    /// Add a request header of which it is known that there is none: cheaper than setting it.
    AddRequestHeader(&'static str, Cow<'static, str>),
    /// Remove a request header.
    RemoveRequestHeader(String),
    /// Replace the whole buffered request body. `content-length` is adjusted by the host.
    ReplaceRequestBody(Vec<u8>),
    /// Choose the route again, because request headers changed.
    ClearRouteCache,
    /// Let the paused request go on.
    ResumeRequest,
    /// POST `body` to the sidecar and tell the answer as [`Event::Reply`](super::Event::Reply).
    Call {
        /// Path on the sidecar.
        path: &'static str,
        /// The frame.
        body: Vec<u8>,
        /// Milliseconds to wait.
        timeout_ms: u32,
    },
    /// Put the request into the worker's queue: [`Event::Turn`](super::Event::Turn) is told of it now
    /// and then, in the order of arrival, as long as [`Exchange::is_queued`](super::Exchange::is_queued).
    Queue,
    /// Send the request, as it was read and with its whole body, to a cluster that is this Envoy's
    /// own listener, behind the answer that goes out now. Nobody waits for what comes of it.
    Refresh {
        /// The cluster.
        cluster: String,
        /// Milliseconds that it may take.
        timeout_ms: u32,
        /// Headers to add; those of ours were removed.
        headers: Vec<(&'static str, String)>,
        /// Makes the last header of all of them: [`Seal::lease`] of this.
        lease: (Seal, String),
    },
    /// Keep the request's headers as they are now, for [`Effect::Relay`] and [`Effect::Attempt`].
    KeepRequest,
    /// Send the kept request, with another body, to a cluster that is this Envoy's own listener, and
    /// tell the answer as [`Event::Attempt`](super::Event::Attempt).
    Attempt {
        /// The cluster.
        cluster: String,
        /// Milliseconds that it may take.
        timeout_ms: u32,
        /// Makes the header to add of those that were kept: [`Seal::attempt`].
        seal: Seal,
        /// The body.
        body: Vec<u8>,
    },
    /// Replace the request's body and `authorization` with those of this relay's frame, made of the
    /// kept headers.
    Relay(Relay),
    /// Answer the client from here. What upstream said, if anything, is not told.
    Respond {
        /// HTTP status.
        status: ReplyStatus,
        /// Headers, `content-type` included.
        headers: Vec<Header>,
        /// Body.
        body: Vec<u8>,
    },
    /// Add a response header of which it is known that there is none.
    AddResponseHeader(&'static str, Cow<'static, str>),
    /// Remove a response header.
    RemoveResponseHeader(String),
    /// Replace the response bytes that the event was about (all buffered, or this chunk).
    /// `content-length` was removed or is set by a header effect.
    ReplaceResponseBody(Vec<u8>),
    /// Let the paused response go on.
    ResumeResponse,
    /// Filter state under `wasm.sluice`, for access logs: `key=value` pairs.
    SetState(String),
    /// Count something.
    Count(Metric),
    /// Hand to the queue that settles with the sidecar in the background. The bytes are those to
    /// store, an answer's or vectors', empty where there are none.
    Settle(Box<Settle>, Vec<u8>),
    /// A debug line. Never a prompt, an answer or a key.
    Debug(String),
}

/// A header of ours.
pub type Header = (&'static str, Cow<'static, str>);

/// Tells of an answer for which nothing went upstream.
pub(super) const NOTHING_TRIMMED: Header = (header::TOKENS_TRIMMED, Cow::Borrowed("0"));

/// HTTP status of an answer of ours.
pub type ReplyStatus = u16;

/// An Envoy metric to change. Names carry their labels (`;name=value;`), from bounded sets only, and
/// are made once per VM: the same name is the same allocation.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// Add to a counter.
    Add(Rc<str>, u64),
    /// Record into a histogram.
    Observe(Rc<str>, u64),
}

impl Effects {
    /// Adds to the counter `sluice.FAMILY` with these labels.
    pub(super) fn count(
        &mut self,
        vm: &mut Vm,
        (family, labels): (&str, &[(Label, &str)]),
        amount: u64,
    ) {
        let name = vm.names.get(family, labels);
        self.list.push(Effect::Count(Metric::Add(name, amount)));
    }

    /// Headers of ours; what upstream said under these names was removed with its headers.
    pub(super) fn add_response_headers(&mut self, headers: impl IntoIterator<Item = Header>) {
        let headers = headers.into_iter();
        self.list
            .extend(headers.map(|(name, value)| Effect::AddResponseHeader(name, value)));
    }

    /// An answer goes by that is not read, so that its usage is estimated.
    pub(super) fn unread(&mut self, facts: &mut Facts, vm: &mut Vm, reason: Unreadable) {
        facts.unread = true;
        self.count(vm, ("unread_answer", &[]), 1);
        self.list
            .push(Effect::Debug(format!("answer not read: {reason}")));
    }

    /// Answers the client with an error of ours instead of asking upstream: nothing was sent, and so
    /// nothing left out.
    pub(super) fn refuse(
        &mut self,
        format: &dyn Format,
        error: &ApiError,
        mut headers: Vec<Header>,
    ) {
        headers.push(NOTHING_TRIMMED);
        self.respond_error(format, error, headers);
    }

    /// Answers the client with an error of ours, in the shape of the API that it spoke.
    pub(super) fn respond_error(
        &mut self,
        format: &dyn Format,
        error: &ApiError,
        headers: Vec<Header>,
    ) {
        let mut all = vec![("content-type", "application/json".into())];
        all.extend(headers);
        let body = format.error(error).into_bytes();
        self.list.push(Effect::Respond {
            status: error.kind.status(),
            headers: all,
            body,
        });
        self.flow = Flow::Pause;
    }
}
