//! What the host is to do after an event.

use std::fmt;

use sluice_wire::Settle;

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
    SetRequestHeader(String, String),
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
    /// Answer the client from here. The upstream is not asked.
    Respond {
        /// HTTP status.
        status: ReplyStatus,
        /// Headers, `content-type` included.
        headers: Vec<(String, String)>,
        /// Body.
        body: Vec<u8>,
    },
    /// Set a response header (replacing all of that name).
    SetResponseHeader(String, String),
    /// Remove a response header.
    RemoveResponseHeader(String),
    /// Replace the response bytes that the event was about (all buffered, or this chunk).
    /// `content-length` was removed or is set by a header effect.
    ReplaceResponseBody(Vec<u8>),
    /// Let the paused response go on.
    ResumeResponse,
    /// Filter state under `wasm.NAME`, for access logs.
    SetState(&'static str, String),
    /// Count something.
    Count(Metric),
    /// Hand to the queue that settles with the sidecar in the background. The bytes are those of
    /// the answer to store, empty where there is none.
    Settle(Box<Settle>, Vec<u8>),
    /// A debug line. Never a prompt, an answer or a key.
    Debug(String),
}

/// HTTP status of an answer of ours.
pub type ReplyStatus = u16;

/// An Envoy metric to change. Names carry their labels (`;name=value`), from bounded sets only.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// Add to a counter.
    Add(String, u64),
    /// Record into a histogram.
    Observe(String, u64),
}

impl Effects {
    /// Adds to the counter `sluice.NAME`.
    pub(super) fn count(&mut self, name: impl fmt::Display, amount: u64) {
        self.list
            .push(Effect::Count(Metric::Add(format!("sluice.{name}"), amount)));
    }

    /// An answer goes by that is not read, so that its usage is estimated.
    pub(super) fn unread(&mut self, reason: Unreadable) {
        self.count("unread_answer", 1);
        self.list
            .push(Effect::Debug(format!("answer not read: {reason}")));
    }

    /// Answers the client with an error of ours, in the shape of the API that it spoke.
    pub(super) fn respond_error(
        &mut self,
        format: &dyn Format,
        error: &ApiError,
        headers: Vec<(String, String)>,
    ) {
        let mut all = vec![("content-type".to_owned(), "application/json".to_owned())];
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
