//! What happens to a request, as its host (Envoy, a test, the fuzzer) tells it.

/// Header names (lower case, pseudo-headers included) and values, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl Headers {
    /// The first value of `name` (lower case), if it is UTF-8.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Headers(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

/// One thing that happened. Events of a request come in order; a reply may come late or never.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The request's headers. With `end_of_stream` there is no body.
    RequestHeaders {
        /// All of them.
        headers: &'a Headers,
        /// No body follows.
        end_of_stream: bool,
    },
    /// More of the request's body arrived; `buffered` is what is held so far, this part included.
    /// Only its size is told, because a body is read once, when it is whole.
    RequestBodyPart {
        /// Bytes held so far.
        buffered: usize,
    },
    /// The request's whole body.
    RequestBody {
        /// Its bytes.
        body: &'a [u8],
    },
    /// The sidecar answered the call that [`Effect::Call`](super::Effect::Call) asked for.
    Reply {
        /// HTTP status.
        status: u16,
        /// The frame.
        body: &'a [u8],
    },
    /// The call failed: it could not be sent, timed out, or was reset.
    ReplyFailed,
    /// Upstream's response headers.
    ResponseHeaders {
        /// All of them.
        headers: &'a Headers,
        /// No body follows.
        end_of_stream: bool,
    },
    /// A part of the response's body. While the exchange pauses the response
    /// ([`Flow::Pause`](super::Flow::Pause)), `chunk` is everything held so far; else it is the new part.
    ResponseBody {
        /// The bytes.
        chunk: &'a [u8],
        /// It is the last.
        end_of_stream: bool,
    },
    /// The request is over, however it ended; always the last event, exactly once.
    Done,
}

/// What the world looks like at the moment of an event.
pub trait Host {
    /// Nanoseconds since the epoch.
    fn now_ns(&self) -> u64;

    /// A property of the request, by Envoy's attribute path (`["source", "address"]`).
    fn property(&self, path: &[&str]) -> Option<Vec<u8>>;

    /// Adds to a counter that all workers of this process share, unless the sum would pass
    /// `limit`; returns the counter's value before the call, and whether it was added.
    ///
    /// A counter whose `window_start` (seconds since the epoch) is older than the given one starts
    /// at zero. `amount` may be negative (a release); the counter stops at zero.
    fn count(&mut self, key: &str, window_start: u64, amount: i64, limit: u64) -> (u64, bool);
}
