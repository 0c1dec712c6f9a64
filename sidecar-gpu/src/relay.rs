//! Sends a request's attempts to a listener of Envoy on this machine, one after the other while
//! upstream refuses its messages, and streams the answer of the one that counts.
//!
//! Each attempt has a connection of its own: on loopback it costs some 50 µs, no answer can be mixed
//! up with another's, and a client that leaves ends it, which cancels the request all the way up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use sluice_core::coding::{Decoder, MOST_MEMORY, Memory};
use sluice_core::formats::refusal;
use sluice_wire::header::PREFIX;
use sluice_wire::limit;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Requests that are relayed at once; more are refused.
const MOST: usize = 1024;
/// KiB of bodies that are held at once until upstream begins to answer; more are refused.
const BODIES_KIB: u32 = 512 * 1024;
/// How long a connection on this machine may take.
const CONNECT: Duration = Duration::from_secs(1);
/// Bytes that the head of an answer may have.
const HEAD: usize = 64 << 10;
/// Bytes of a refusal that are read to judge it. One that is longer is passed on.
const REFUSAL: usize = 64 << 10;

/// Where attempts go, and how patient that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// A listener on this machine.
    pub address: SocketAddr,
    /// Longest wait for the head of an answer, and for the next part of its body.
    pub timeout: Duration,
}

/// One attempt, ready to be sent.
pub(crate) struct Attempt {
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer of upstream's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    /// As many as may be are on their way.
    #[error("expected at most {MOST} requests and {BODIES_KIB} KiB to relay at once, found more")]
    Busy,
    /// The listener is not there, or the connection broke before an answer came, or it is one of which
    /// nobody could say whether it is whole.
    #[error("the listener at `serve.relay`: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("no answer from the listener at `serve.relay` within {0:?}")]
    Slow(Duration),
}

/// The way to the listener.
pub(crate) struct Relay {
    target: Target,
    room: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// A connection that ends with this, and with it what it carries.
pub(crate) struct Line {
    _sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// An answer whose body is still to come, and what keeps it coming.
pub(crate) struct Answer {
    pub(crate) head: Parts,
    pub(crate) body: Incoming,
    pub(crate) line: Line,
}

impl Relay {
    pub(crate) fn new(target: Target) -> Self {
        Relay {
            target,
            room: Arc::new(Semaphore::new(MOST)),
            bodies: Arc::new(Semaphore::new(BODIES_KIB as usize)),
        }
    }

    /// Room for a body of `bytes` (unknown: the largest) until upstream begins to answer.
    pub(crate) fn body_room(&self, bytes: Option<u64>) -> Result<OwnedSemaphorePermit, RelayError> {
        let most = limit::RELAY_BODY as u64;
        let kib = bytes.unwrap_or(most).min(most) / 1024 + 1;
        let kib = u32::try_from(kib).unwrap_or(BODIES_KIB);
        let room = self.bodies.clone().try_acquire_many_owned(kib);
        room.map_err(|_| RelayError::Busy)
    }

    /// The answer of the first attempt whose messages upstream does not refuse, or of the last; and
    /// its number.
    pub(crate) async fn send(
        &self,
        attempts: Vec<Attempt>,
    ) -> Result<(usize, Response<Body>), RelayError> {
        let room = self.room.clone();
        let room = room.try_acquire_owned().map_err(|_| RelayError::Busy)?;
        let last = attempts.len().saturating_sub(1);
        for (number, attempt) in attempts.into_iter().enumerate() {
            let mut answer = ask(self.target, attempt).await?;
            let mut begun = Vec::new();
            if number < last && refusal::may_blame_messages(answer.head.status.as_u16()) {
                // Also of one that comes byte by byte.
                let beginning = timeout(self.target.timeout, beginning(&mut answer.body)).await;
                let slow = |_| RelayError::Slow(self.target.timeout);
                let (frames, whole) = beginning.map_err(slow)??;
                if whole && blames_messages(&answer.head, &frames) {
                    continue;
                }
                begun = frames;
            }
            return Ok((number, self.told(answer, begun, room)));
        }
        Err(RelayError::Broken("there was no attempt".to_owned()))
    }

    /// The answer for the client: what was read of it, then the rest as it comes. Whoever drops it
    /// ends the line.
    fn told(
        &self,
        answer: Answer,
        begun: Vec<Frame<Bytes>>,
        room: OwnedSemaphorePermit,
    ) -> Response<Body> {
        let Answer {
            mut head,
            body,
            line,
        } = answer;
        strip(&mut head.headers);
        // What is said in our name is the sidecar's to say.
        let ours = head
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with(PREFIX));
        for name in ours.cloned().collect::<Vec<_>>() {
            head.headers.remove(name);
        }
        let patience = self.target.timeout;
        let begun = stream::iter(begun).map(Ok::<_, BoxError>);
        let rest = stream::unfold(Some((body, line, room)), move |state| async move {
            let (mut body, line, room) = state?;
            match timeout(patience, body.frame()).await {
                Ok(Some(Ok(frame))) => Some((Ok(frame), Some((body, line, room)))),
                Ok(Some(Err(error))) => Some((Err(error.into()), None)),
                Ok(None) => None,
                Err(_) => Some((Err(RelayError::Slow(patience).into()), None)),
            }
        });
        Response::from_parts(head, Body::new(StreamBody::new(begun.chain(rest))))
    }
}

/// The answer of a listener to one request, as far as its head.
pub(crate) async fn ask(target: Target, attempt: Attempt) -> Result<Answer, RelayError> {
    let broken = |error: &dyn std::fmt::Display| RelayError::Broken(error.to_string());
    let Target {
        address,
        timeout: patience,
    } = target;
    let stream = timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| RelayError::Slow(CONNECT))?;
    let stream = stream.map_err(|error| broken(&error))?;
    stream.set_nodelay(true).map_err(|error| broken(&error))?;
    let line = Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = line.map_err(|error| broken(&error))?;
    let driver = tokio::spawn(async move {
        // What went wrong is told where the answer is awaited.
        let _ = connection.await;
    });
    let mut request = Request::post(attempt.uri)
        .body(Full::new(attempt.body))
        .map_err(|error| broken(&error))?;
    *request.headers_mut() = attempt.headers;
    let asked = sender.send_request(request);
    let line = Line {
        _sender: sender,
        driver,
    };
    match timeout(patience, asked).await {
        Ok(Ok(answer)) => {
            let (head, body) = answer.into_parts();
            if !says_its_end(&head, &body) {
                let message = "expected an answer that says where it ends, found none";
                return Err(RelayError::Broken(message.to_owned()));
            }
            Ok(Answer { head, body, line })
        }
        Ok(Err(error)) => Err(broken(&error)),
        Err(_) => Err(RelayError::Slow(patience)),
    }
}

/// Reads a refusal, so long as it is short; whether that is all of it.
async fn beginning(body: &mut Incoming) -> Result<(Vec<Frame<Bytes>>, bool), RelayError> {
    let mut frames = Vec::new();
    let mut bytes = 0;
    while bytes <= REFUSAL {
        match body.frame().await {
            Some(Ok(frame)) => {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                frames.push(frame);
            }
            Some(Err(error)) => return Err(RelayError::Broken(error.to_string())),
            None => return Ok((frames, true)),
        }
    }
    Ok((frames, false))
}

/// Whether an answer that breaks off would be known to: one that ends with its connection, as those of
/// HTTP/1.0 may, would pass for whole.
fn says_its_end(head: &Parts, body: &Incoming) -> bool {
    body.size_hint().exact().is_some() || head.headers.contains_key(header::TRANSFER_ENCODING)
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Headers that are about a connection, not about what goes over it (RFC 9110 §7.6.1), and those
/// that follow from the body.
const OF_THE_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter();
    let named = named.filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> = named
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in &OF_THE_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// The headers of an attempt for `authority`; or the name of the one at fault.
pub(crate) fn headers(
    authority: &str,
    pairs: impl Iterator<Item = (String, String)>,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let parsed = HeaderName::try_from(name.as_str());
        let (Ok(parsed), Ok(mut value)) = (parsed, HeaderValue::try_from(value)) else {
            return Err(name);
        };
        value.set_sensitive(true);
        headers.append(parsed, value);
    }
    strip(&mut headers);
    let host = HeaderValue::try_from(authority).map_err(|_| "host".to_owned())?;
    headers.insert(header::HOST, host);
    Ok(headers)
}

/// Whether a whole refusal says that the messages are at fault.
fn blames_messages(head: &Parts, frames: &[Frame<Bytes>]) -> bool {
    let mut bytes = BytesMut::new();
    for data in frames.iter().filter_map(Frame::data_ref) {
        bytes.extend_from_slice(data);
    }
    let coding = head.headers.get(header::CONTENT_ENCODING);
    let coding = coding.map_or(Ok(""), HeaderValue::to_str);
    let Ok(coding) = coding else { return false };
    let plain = match Decoder::new(coding, &Memory::new(MOST_MEMORY)) {
        Ok(None) => Some(bytes.to_vec()),
        Ok(Some(decoder)) => decoder
            .whole(&bytes, 16 * REFUSAL, &mut |_| {})
            .ok()
            .flatten(),
        Err(_) => None,
    };
    plain.is_some_and(|body| refusal::blames_messages(head.status.as_u16(), &body))
}
