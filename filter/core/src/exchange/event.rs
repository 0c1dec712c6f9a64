//! What happens to a request, as its host (Envoy, a test, the fuzzer) tells it.

use std::fmt;
use std::ops::Range;

/// Header names (lower case, pseudo-headers included) and values, in order: places in one buffer,
/// which is the host's own where it has one, so that a request's headers cost no copy each.
#[derive(Clone, Default)]
pub struct Headers {
    bytes: Vec<u8>,
    pairs: Vec<(Range<usize>, Range<usize>)>,
}

impl fmt::Debug for Headers {
    /// Names alone: values are credentials, and paths may be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.iter().map(|(name, _)| String::from_utf8_lossy(name));
        f.debug_list().entries(names).finish()
    }
}

impl Headers {
    /// Names and values at these places in `bytes`. One that lies outside reads as empty.
    #[must_use]
    pub fn new(bytes: Vec<u8>, pairs: Vec<(Range<usize>, Range<usize>)>) -> Headers {
        Headers { bytes, pairs }
    }

    /// The first value of `name` (lower case), if it is UTF-8.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.iter().find(|(key, _)| *key == name.as_bytes())?;
        std::str::from_utf8(value).ok()
    }

    /// All values of `name` (lower case): a second one must not hide behind the first.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = move |(key, value): (&[u8], _)| (key == name.as_bytes()).then_some(value);
        self.iter().filter_map(named)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let at = |place: &Range<usize>| self.bytes.get(place.clone()).unwrap_or_default();
        self.pairs
            .iter()
            .map(move |(name, value)| (at(name), at(value)))
    }

    /// The names that begin with `prefix`.
    pub fn names_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let names = self.iter().map(|(name, _)| name);
        names
            .filter(move |name| name.starts_with(prefix.as_bytes()))
            .filter_map(|name| std::str::from_utf8(name).ok())
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut headers = Headers::default();
        let put = |bytes: &mut Vec<u8>, part: &[u8]| {
            bytes.extend_from_slice(part);
            bytes.len() - part.len()..bytes.len()
        };
        for (name, value) in pairs {
            let name = put(&mut headers.bytes, name.as_ref().as_bytes());
            let value = put(&mut headers.bytes, value.as_ref());
            headers.pairs.push((name, value));
        }
        headers
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
    /// The answer to [`Effect::Attempt`](super::Effect::Attempt), whole. Where there is none,
    /// [`Event::ReplyFailed`] is told.
    Attempt {
        /// Its headers.
        headers: &'a Headers,
        /// Its body.
        body: &'a [u8],
    },
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
    /// A request that [`Effect::Queue`](super::Effect::Queue) put into the queue may look whether it
    /// is its turn.
    Turn,
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

    /// Whether no worker of this process was asked of this word within the last minute; see
    /// [`seen::first`](crate::seen::first). A host that remembers nothing takes it for the first time.
    fn first(&mut self, _word: &str) -> bool {
        true
    }
}
