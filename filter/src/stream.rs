//! One request: callbacks in, effects out.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use proxy_wasm::hostcalls::dispatch_http_call;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType, StreamType};
use sluice_core::exchange::{Digest, Effect, Effects, Event, Exchange, Flow, Relay, Seal};
use sluice_wire::header;

use crate::host;
use crate::root::{call, reply_status};
use crate::worker::{Refresh, Worker, World};

/// Longest reply of the sidecar that is read: a cached answer and its head.
const REPLY_BYTES: usize = 16 << 20;

/// All of a buffer that Envoy holds, where the callback does not say how much that is.
const ALL: usize = u32::MAX as usize;

/// The request of one stream; the worker's queue knows it too, while it waits for its turn.
pub(crate) struct Stream(Rc<RefCell<Inner>>);

/// A request that the root acts for: in the worker's queue, or at an answer to a call that it made
/// there.
pub(crate) struct Queued(Weak<RefCell<Inner>>);

impl Queued {
    /// Tells it of its turn; says whether it goes on waiting.
    pub(crate) fn turn(&self) -> bool {
        let Some(inner) = self.0.upgrade() else {
            return false;
        };
        let Ok(mut inner) = inner.try_borrow_mut() else {
            return true;
        };
        // From the root's tick: what is done is done for the stream.
        if inner.over || host::act_for(inner.context_id).is_err() {
            return false;
        }
        inner.on(Event::Turn, In::Turn);
        inner.exchange.is_queued()
    }

    /// Tells it of the answer to a call that it made in a turn.
    pub(crate) fn answered(&self, token: u32, headers: usize, body: usize) {
        let Some(inner) = self.0.upgrade() else {
            return;
        };
        if let Ok(mut inner) = inner.try_borrow_mut()
            && host::act_for(inner.context_id).is_ok()
        {
            inner.on_http_call_response(token, (headers, body), In::Root);
        }
    }

    /// Whether the request is still there.
    pub(crate) fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }
}

struct Inner {
    context_id: u32,
    /// Itself, for the queue.
    me: Weak<RefCell<Inner>>,
    worker: Option<Rc<Worker>>,
    exchange: Exchange,
    /// The sidecar's answer that is waited for. Others are late.
    call: Option<u32>,
    /// The answer to the second attempt of the request that is waited for.
    attempt: Option<u32>,
    /// The request's headers as it goes upstream, where it may go there once more.
    kept: Vec<(String, String)>,
    /// The client said how long its body is, so that a new body needs a new length.
    has_length: bool,
    request_whole: bool,
    response_whole: bool,
    response_held: bool,
    over: bool,
}

/// Which callback the effects are carried out in: there, resuming means to return `Continue`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Request,
    Response,
    Elsewhere,
    /// The root's tick, which keeps its place in the queue.
    Turn,
    /// An answer that the root was told of.
    Root,
}

impl Stream {
    pub(crate) fn new(context_id: u32, worker: Option<Rc<Worker>>) -> Stream {
        Stream(Rc::new_cyclic(|me| {
            RefCell::new(Inner {
                context_id,
                me: me.clone(),
                worker,
                exchange: Exchange::new(),
                call: None,
                attempt: None,
                kept: Vec::new(),
                has_length: false,
                request_whole: false,
                response_whole: false,
                response_held: false,
                over: false,
            })
        }))
    }

    /// Acts on the request. It is never borrowed already: the host does not call back during a
    /// host call.
    fn with<T>(&self, fallback: T, act: impl FnOnce(&mut Inner) -> T) -> T {
        match self.0.try_borrow_mut() {
            Ok(mut inner) => act(&mut inner),
            Err(_) => fallback,
        }
    }
}

impl Inner {
    fn on(&mut self, event: Event<'_>, place: In) -> Action {
        let Some(worker) = self.worker.clone() else {
            return Action::Continue;
        };
        let flow = self.step(event, place, &worker);
        match flow {
            Flow::Continue => Action::Continue,
            Flow::Pause => Action::Pause,
        }
    }

    fn step(&mut self, event: Event<'_>, place: In, worker: &Worker) -> Flow {
        let effects = {
            // Never borrowed already: the host does not call back during a host call.
            let Ok(mut vm) = worker.vm.try_borrow_mut() else {
                return Flow::Continue;
            };
            self.exchange.on(event, &mut vm, &mut World::now(worker))
        };
        self.carry_out(effects, place, worker)
    }

    fn carry_out(&mut self, effects: Effects, place: In, worker: &Worker) -> Flow {
        let mut flow = effects.flow;
        let mut failed_call = false;
        for effect in effects.list {
            let (what, done) = match effect {
                Effect::SetRequestHeader(name, value) => (
                    "set_header",
                    host::set_header(MapType::HttpRequestHeaders, name, &value),
                ),
                Effect::AddRequestHeader(name, value) => (
                    "add_header",
                    host::add_header(MapType::HttpRequestHeaders, name, &value),
                ),
                Effect::RemoveRequestHeader(name) => (
                    "remove_header",
                    host::remove_header(MapType::HttpRequestHeaders, &name),
                ),
                Effect::Queue if place == In::Turn => continue,
                Effect::Queue => {
                    worker.queue(Queued(self.me.clone()));
                    continue;
                }
                Effect::Refresh {
                    cluster,
                    timeout_ms,
                    headers,
                    lease,
                } => (
                    "refresh",
                    refresh((cluster, timeout_ms), headers, lease)
                        .map(|refresh| worker.refresh(refresh)),
                ),
                Effect::KeepRequest => {
                    ("keep", request_headers().map(|headers| self.kept = headers))
                }
                Effect::Relay(relay) => ("set_body", self.relay(&relay)),
                Effect::Attempt {
                    cluster,
                    timeout_ms,
                    seal,
                    body,
                } => {
                    failed_call = !self.attempt((&cluster, timeout_ms), &seal, &body);
                    continue;
                }
                Effect::ReplaceRequestBody(body) => ("set_body", self.replace_request_body(&body)),
                Effect::ClearRouteCache => ("clear_route_cache", host::clear_route_cache()),
                Effect::ResumeRequest if place == In::Request => {
                    flow = Flow::Continue;
                    continue;
                }
                Effect::ResumeRequest => ("resume", host::resume(StreamType::HttpRequest)),
                Effect::Call {
                    path,
                    body,
                    timeout_ms,
                } => {
                    failed_call = !self.call((path, &body, timeout_ms), place, worker);
                    continue;
                }
                Effect::Respond {
                    status,
                    headers,
                    body,
                } => {
                    flow = Flow::Pause;
                    ("respond", host::respond(status, &headers, &body))
                }
                Effect::AddResponseHeader(name, value) => (
                    "add_header",
                    host::add_header(MapType::HttpResponseHeaders, name, &value),
                ),
                Effect::RemoveResponseHeader(name) => (
                    "remove_header",
                    host::remove_header(MapType::HttpResponseHeaders, &name),
                ),
                Effect::ReplaceResponseBody(body) => (
                    "set_body",
                    host::set_buffer(BufferType::HttpResponseBody, &body),
                ),
                Effect::ResumeResponse if place == In::Response => {
                    flow = Flow::Continue;
                    continue;
                }
                Effect::ResumeResponse => ("resume", host::resume(StreamType::HttpResponse)),
                Effect::SetState(value) => ("set_state", host::set_state("sluice", &value)),
                Effect::Count(metric) => {
                    worker.change(&metric);
                    continue;
                }
                Effect::Settle(settle, answer) => {
                    if let Ok(mut settler) = worker.settler.try_borrow_mut() {
                        settler.push(*settle, answer);
                    }
                    continue;
                }
                Effect::Debug(line) => {
                    if worker.debugs.get() {
                        log::debug!("{line}");
                    }
                    continue;
                }
            };
            if let Err(status) = done {
                worker.failed(what, status);
            }
        }
        if failed_call {
            // Said at once, so that a missing cluster does not hold a request.
            return self.step(Event::ReplyFailed, place, worker);
        }
        flow
    }

    fn replace_request_body(&self, body: &[u8]) -> host::Result<()> {
        host::set_buffer(BufferType::HttpRequestBody, body)?;
        if self.has_length {
            host::set_header(
                MapType::HttpRequestHeaders,
                "content-length",
                &body.len().to_string(),
            )?;
        }
        Ok(())
    }

    fn call(
        &mut self,
        (path, body, timeout_ms): (&str, &[u8], u32),
        place: In,
        worker: &Worker,
    ) -> bool {
        let plan = worker.vm.try_borrow().ok().map(|vm| vm.plan.clone());
        let Some(sidecar) = plan.as_ref().and_then(|plan| plan.sidecar.as_ref()) else {
            return false;
        };
        match call(
            sidecar,
            path,
            body,
            Duration::from_millis(u64::from(timeout_ms)),
        ) {
            Ok(token) => {
                self.call = Some(token);
                // The SDK brings an answer to the context in whose callback the call was made.
                if matches!(place, In::Turn | In::Root) {
                    worker.expect(token, Queued(self.me.clone()));
                }
                true
            }
            Err(reason) => {
                log::debug!("{path} was not sent: {reason}");
                false
            }
        }
    }

    /// Makes the request the relay's. Without the frame it is not to go there, nor anywhere with a
    /// word that opens the relay.
    fn relay(&self, relay: &Relay) -> host::Result<()> {
        let (frame, authorization) = relay.frame(&self.kept);
        self.replace_request_body(&frame)?;
        host::set_header(MapType::HttpRequestHeaders, "authorization", &authorization)
    }

    /// Sends the request that was kept once more; says whether it went.
    fn attempt(&mut self, (cluster, timeout_ms): (&str, u32), seal: &Seal, body: &[u8]) -> bool {
        let kept = std::mem::take(&mut self.kept);
        let sealed = seal.attempt(&kept, Digest::of(body));
        let own = kept.iter().map(|(name, value)| (&**name, &**value));
        let headers = own.chain([(header::ATTEMPT, &*sealed)]).collect();
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        match dispatch_http_call(cluster, headers, Some(body), Vec::new(), timeout) {
            Ok(token) => {
                self.attempt = Some(token);
                true
            }
            Err(status) => {
                log::debug!("second attempt was not sent: cluster {cluster}: {status:?}");
                false
            }
        }
    }

    /// The answer to the second attempt.
    fn attempted(&mut self, (headers, body): (usize, usize), place: In) {
        self.attempt = None;
        let read = || -> Option<_> {
            let few = headers > 0 && body <= REPLY_BYTES;
            let headers = few.then(|| host::headers(MapType::HttpCallResponseHeaders).ok())??;
            let body = host::buffer(BufferType::HttpCallResponseBody, body).ok()?;
            Some((headers, body))
        };
        match read() {
            Some((headers, body)) => self.on(
                Event::Attempt {
                    headers: &headers,
                    body: &body,
                },
                place,
            ),
            None => self.on(Event::ReplyFailed, place),
        };
    }

    /// The request's body, as it came or as far as it is held.
    fn request_body(&mut self, size: usize) -> Action {
        self.request_whole = true;
        match host::buffer(BufferType::HttpRequestBody, size) {
            Ok(body) => self.on(Event::RequestBody { body: &body }, In::Request),
            Err(status) => {
                // Read as empty, it passes untouched.
                if let Some(worker) = &self.worker {
                    worker.failed("get_body", status);
                }
                self.on(Event::RequestBody { body: b"" }, In::Request)
            }
        }
    }

    fn response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.response_whole |= end_of_stream;
        let chunk = match host::buffer(BufferType::HttpResponseBody, size) {
            Ok(chunk) => chunk,
            Err(status) => {
                if let Some(worker) = &self.worker {
                    worker.failed("get_body", status);
                }
                Vec::new()
            }
        };
        let action = self.on(
            Event::ResponseBody {
                chunk: &chunk,
                end_of_stream,
            },
            In::Response,
        );
        self.response_held = action == Action::Pause;
        action
    }

    /// Removes what somebody says in our name. We say nothing in trailers, and read nothing there.
    fn strip(&self, trailers: MapType) {
        let Ok(said) = host::headers(trailers) else {
            return;
        };
        for name in said.names_with(header::PREFIX) {
            if let (Err(status), Some(worker)) =
                (host::remove_header(trailers, name), self.worker.as_ref())
            {
                worker.failed("remove_header", status);
            }
        }
    }

    fn finish(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            self.on(Event::Done, In::Elsewhere);
            // Envoy gives up its call with it, and tells nobody.
            if let (Some(token), Some(worker)) = (self.call.take(), &self.worker) {
                worker.expected(token);
            }
        }
    }

    fn on_http_call_response(&mut self, token: u32, (headers, body): (usize, usize), place: In) {
        if self.attempt == Some(token) && !self.over {
            return self.attempted((headers, body), place);
        }
        if self.call != Some(token) || self.over {
            return;
        }
        self.call = None;
        let status = if headers == 0 { None } else { reply_status() };
        let reply = status.filter(|_| body <= REPLY_BYTES).and_then(|status| {
            Some((
                status,
                host::buffer(BufferType::HttpCallResponseBody, body).ok()?,
            ))
        });
        if let (Some((200, _)), Some(worker)) = (&reply, &self.worker)
            && let Ok(mut settler) = worker.settler.try_borrow_mut()
        {
            settler.reachable(host::now_ns());
        }
        match reply {
            Some((status, body)) => self.on(
                Event::Reply {
                    status,
                    body: &body,
                },
                place,
            ),
            None => self.on(Event::ReplyFailed, place),
        };
    }

    fn on_done(&mut self) -> bool {
        self.finish();
        true
    }

    fn on_http_request_headers(&mut self, end_of_stream: bool) -> Action {
        let headers = match host::headers(MapType::HttpRequestHeaders) {
            Ok(headers) => headers,
            Err(status) => {
                if let Some(worker) = self.worker.take() {
                    worker.failed("get_headers", status);
                }
                return Action::Continue;
            }
        };
        self.has_length = headers.get("content-length").is_some();
        self.request_whole = end_of_stream;
        self.on(
            Event::RequestHeaders {
                headers: &headers,
                end_of_stream,
            },
            In::Request,
        )
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.exchange.passes() {
            return Action::Continue;
        }
        if end_of_stream {
            return self.request_body(size);
        }
        self.on(Event::RequestBodyPart { buffered: size }, In::Request)
    }

    fn on_http_request_trailers(&mut self) -> Action {
        self.strip(MapType::HttpRequestTrailers);
        if self.request_whole || self.exchange.passes() {
            return Action::Continue;
        }
        // A body with trailers behind it ends without saying so.
        self.request_body(ALL)
    }

    fn on_http_response_headers(&mut self, end_of_stream: bool) -> Action {
        // Also of a request that passes: what an upstream says in our name is removed.
        let headers = match host::headers(MapType::HttpResponseHeaders) {
            Ok(headers) => headers,
            Err(status) => {
                if let Some(worker) = &self.worker {
                    worker.failed("get_headers", status);
                }
                return Action::Continue;
            }
        };
        self.response_whole = end_of_stream;
        self.on(
            Event::ResponseHeaders {
                headers: &headers,
                end_of_stream,
            },
            In::Response,
        )
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.exchange.passes() {
            return Action::Continue;
        }
        // Copied with every part of a long answer, its beginning would be copied hundreds of times.
        let holds = |worker: &Rc<Worker>| {
            let vm = worker.vm.try_borrow();
            vm.is_ok_and(|vm| self.exchange.holds(size, &vm))
        };
        if !end_of_stream && self.worker.as_ref().is_some_and(holds) {
            self.response_held = true;
            return Action::Pause;
        }
        self.response_body(size, end_of_stream)
    }

    fn on_http_response_trailers(&mut self) -> Action {
        self.strip(MapType::HttpResponseTrailers);
        if self.response_whole || self.exchange.passes() {
            return Action::Continue;
        }
        // Held, it is all there; streamed, every byte of it was seen.
        self.response_body(if self.response_held { ALL } else { 0 }, true)
    }

    fn on_log(&mut self) {
        self.finish();
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _trailers: usize) {
        self.with((), |it| {
            it.on_http_call_response(token, (headers, body), In::Elsewhere)
        })
    }

    fn on_done(&mut self) -> bool {
        self.with(true, |it| it.on_done())
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        self.with(Action::Continue, |it| {
            it.on_http_request_headers(end_of_stream)
        })
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.with(Action::Continue, |it| {
            it.on_http_request_body(size, end_of_stream)
        })
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.with(Action::Continue, |it| it.on_http_request_trailers())
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        self.with(Action::Continue, |it| {
            it.on_http_response_headers(end_of_stream)
        })
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.with(Action::Continue, |it| {
            it.on_http_response_body(size, end_of_stream)
        })
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.with(Action::Continue, |it| it.on_http_response_trailers())
    }

    fn on_log(&mut self) {
        self.with((), |it| it.on_log())
    }
}

/// The request as it was read, to go once more through this Envoy.
fn refresh(
    (cluster, timeout_ms): (String, u32),
    extra: Vec<(&'static str, String)>,
    (seal, lease): (Seal, String),
) -> host::Result<Refresh> {
    let mut headers = request_headers()?;
    let extra = extra.into_iter();
    headers.extend(extra.map(|(name, value)| (name.to_owned(), value)));
    let lease = seal.lease(&headers, &lease);
    headers.push((header::LEASE.to_owned(), lease));
    Ok(Refresh {
        cluster,
        timeout: Duration::from_millis(u64::from(timeout_ms)),
        headers,
        body: host::buffer(BufferType::HttpRequestBody, ALL)?,
    })
}

/// The request's headers. What belongs to its connection stays behind.
fn request_headers() -> host::Result<Vec<(String, String)>> {
    const LEFT: [&str; 8] = [
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "te",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
    ];
    let read = host::headers(MapType::HttpRequestHeaders)?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    Ok(read
        .iter()
        .filter_map(|(name, value)| Some((text(name)?.to_owned(), text(value)?.to_owned())))
        .filter(|(name, _)| !LEFT.contains(&name.as_str()))
        .collect())
}
