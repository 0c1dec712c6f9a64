//! What can go wrong at a provider, on demand.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};

/// One way to fail. Given as JSON in the request header [`HEADER`], or for the next requests by
/// `POST /_admin {"faults": [{…}]}`. Everything that is set happens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// How many requests it hits (by the admin endpoint only); 1 when not given, 0 for all.
    pub times: Option<u32>,
    /// Only requests whose path ends so.
    pub path: Option<String>,
    /// Only requests for this model.
    pub model: Option<String>,
    /// Refuse a request with fewer messages than that, as one whose messages do not fit together.
    pub messages_below: Option<usize>,
    /// Answer with this error status instead.
    pub status: Option<u16>,
    /// Accept the request and never answer.
    pub hang: bool,
    /// Wait before the answer's headers.
    pub delay_ms: u64,
    /// Wait before each chunk.
    pub chunk_delay_ms: u64,
    /// Answer 200 with bytes that are neither JSON nor events.
    pub garbage: bool,
    /// Break the connection off after so many chunks (events of a stream).
    pub reset_after_chunks: Option<usize>,
    /// Send nothing more after so many chunks, and keep the connection open.
    pub hang_after_chunks: Option<usize>,
    /// Cut what is sent into chunks of so many bytes, wherever that falls.
    pub cut_bytes: Option<usize>,
    /// Report no usage.
    pub omit_usage: bool,
    /// More response headers.
    pub headers: BTreeMap<String, String>,
    /// A trailer behind the answer, for a client that says `te: trailers`.
    pub trailer: bool,
}

/// Request header that carries a [`Fault`] as JSON.
pub const HEADER: &str = "x-provider-fault";

/// Faults that wait for their requests.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    waiting: Mutex<Vec<Fault>>,
}

impl Faults {
    pub(crate) fn add(&self, fault: Fault) {
        self.with(|waiting| waiting.push(fault));
    }

    pub(crate) fn clear(&self) {
        self.with(Vec::clear);
    }

    /// The fault that hits a request: its own header's, else the first that waits for it.
    pub(crate) fn hit(
        &self,
        path: &str,
        model: &str,
        headers: &HeaderMap,
    ) -> Result<Fault, serde_json::Error> {
        if let Some(header) = headers.get(HEADER) {
            return serde_json::from_slice(header.as_bytes());
        }
        Ok(self.with(|waiting| {
            let found = waiting.iter().position(|fault| {
                let path_fits = fault.path.as_deref().is_none_or(|end| path.ends_with(end));
                path_fits && fault.model.as_deref().is_none_or(|name| name == model)
            });
            let Some(found) = found else {
                return Fault::default();
            };
            let fault = waiting[found].clone();
            match fault.times.unwrap_or(1) {
                0 => {}
                1 => drop(waiting.remove(found)),
                times => waiting[found].times = Some(times - 1),
            }
            fault
        }))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Fault>) -> T) -> T {
        act(&mut self
            .waiting
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}
