//! The request's way in: whose it is and whether it is ours, until its body is whole.

use sluice_wire::header;

use super::decide::decide;
use super::facts::{CacheWish, Facts};
use super::trim::Trim;
use super::{Effect, Effects, Exchange, Flow, Header, Headers, Host, Phase, Vm};
use crate::config::{Mode, OnFailure, RouteKind};
use crate::formats::{self, ApiError, ErrorKind};
use crate::policy::{identity, tags};

impl Exchange {
    pub(super) fn request_headers(
        &mut self,
        headers: &Headers,
        end_of_stream: bool,
        vm: &mut Vm,
        host: &mut dyn Host,
        effects: &mut Effects,
    ) {
        if self.phase != Phase::New {
            return;
        }
        let claim = vm.claim(headers, host).filter(|_| !end_of_stream);
        if let Some(claim) = claim {
            self.claim = Some(Box::new(claim));
            self.phase = Phase::Claimed;
            effects.flow = Flow::Pause;
            return;
        }
        self.phase = Phase::Passing;
        self.read_headers((headers, end_of_stream), vm, host, effects);
    }

    /// Whose it is, and whether it is ours to read.
    pub(super) fn read_headers(
        &mut self,
        (headers, end_of_stream): (&Headers, bool),
        vm: &mut Vm,
        host: &mut dyn Host,
        effects: &mut Effects,
    ) {
        // Control headers are ours: a stranger's are removed, a trusted caller's are read here and
        // removed too, so that none reaches a provider.
        for name in headers.names_with(header::PREFIX) {
            effects.list.push(Effect::RemoveRequestHeader(name.into()));
        }
        if !effects.list.is_empty() {
            // A route that a stranger's header picked must not stand.
            effects.list.push(Effect::ClearRouteCache);
        }
        if headers.get(":method") != Some("POST") {
            return;
        }
        let index = vm.plan.route_index(headers);
        let plan = vm.plan.clone();
        let route = plan.route_at(index);
        let Some(format) = format(route.kind, headers) else {
            return;
        };
        if end_of_stream || route.mode == Mode::Off {
            return;
        }
        if let Some(length) = headers
            .get("content-length")
            .and_then(|length| length.parse().ok())
            && !self.fits(length, vm, effects, (format, route.mode))
        {
            return;
        }
        let under = vm.lease_of(headers, host);
        let vouched = (format.family(), under.is_some());
        let caller = identity::identify(&plan.identity, vouched, headers, host);
        let levers = [route.route.mode, route.trim.mode, route.cache.mode];
        let budgeted = format.kind().asks_a_model() && !plan.budgets.is_empty();
        let may_touch = route.mode == Mode::On && (levers.contains(&Mode::On) || budgeted);
        let mut codings = headers.all("accept-encoding");
        if may_touch && codings.any(|coding| coding != b"identity") {
            // A compressed answer could be neither accounted nor stored. Who names no coding gets
            // none from any provider.
            effects.list.push(Effect::SetRequestHeader(
                "accept-encoding",
                "identity".into(),
            ));
        }
        let control = |name: &str| {
            if caller.trusted {
                headers.get(name)
            } else {
                None
            }
        };
        let tier_asked = control(header::TIER).map(str::to_owned);
        let cache_wish = cache_wish(headers.get("cache-control"), control(header::CACHE));
        let listed = route.cache.headers.iter().map(String::as_str);
        let kept = [":authority", ":path"].iter().chain(format.key_headers());
        let needed = |name: &str| {
            route.cache.mode != Mode::Off || (name == ":authority" && route.guard.backoff.is_some())
        };
        let kept = kept
            .copied()
            .chain(listed)
            .filter(|name| needed(name))
            .flat_map(|name| headers.all(name).map(move |value| (name, value)))
            .collect();
        let template = control(header::TEMPLATE).and_then(|name| plan.templates.get(name.trim()));
        let tags = control(header::TAGS).map(tags::listed).unwrap_or_default();
        let id = match plan.sidecar {
            Some(_) => request_id(headers, vm, host),
            // Nobody is told of this request.
            None => String::new(),
        };
        let facts = Facts::new(id, host.now_ns(), format, caller);
        self.facts = Some(Box::new(Facts {
            route: index,
            headers: kept,
            tier_asked,
            cache_wish,
            may_touch,
            under,
            claimed: headers.all(header::ATTEMPT).next().is_some(),
            tags,
            trim: Trim {
                template: template.cloned(),
                ..Trim::default()
            },
            ..facts
        }));
        self.phase = Phase::Body;
        effects.flow = Flow::Pause;
    }

    pub(super) fn request_body_part(
        &mut self,
        buffered: usize,
        vm: &mut Vm,
        effects: &mut Effects,
    ) {
        if self.phase != Phase::Body {
            return;
        }
        let Some(facts) = self.facts.as_ref() else {
            return;
        };
        let of = (facts.format, facts.route(&vm.plan).mode);
        if self.fits(buffered, vm, effects, of) {
            effects.flow = Flow::Pause;
        } else if self.phase == Phase::Passing {
            effects.list.push(Effect::ResumeRequest);
        }
    }

    /// Whether a body of that size is read. If not, the declared outcome follows.
    fn fits(
        &mut self,
        size: usize,
        vm: &mut Vm,
        effects: &mut Effects,
        (format, mode): (&'static dyn formats::Format, Mode),
    ) -> bool {
        let limits = vm.plan.limits;
        if size <= limits.request_body {
            return true;
        }
        effects.count(vm, ("too_large", &[]), 1);
        self.phase = Phase::Passing;
        self.facts = None;
        if refuses(vm, (format, mode)) {
            let error = ApiError {
                kind: ErrorKind::TooLarge,
                message: format!(
                    "The request body is longer than the {} bytes that are accepted.",
                    limits.request_body
                ),
                code: "request_too_large",
            };
            self.phase = Phase::Local;
            effects.refuse(format, &error, Vec::new());
        }
        false
    }

    pub(super) fn request_body(
        &mut self,
        body: &[u8],
        vm: &mut Vm,
        host: &mut dyn Host,
        effects: &mut Effects,
    ) {
        if self.phase != Phase::Body {
            return;
        }
        let Some(mut facts) = self.facts.take() else {
            return;
        };
        let parsed = std::str::from_utf8(body)
            .map_err(|_| formats::NotThisApi("not UTF-8".into()))
            .and_then(|text| facts.format.parse(text));
        let request = match parsed {
            Ok(request) => request,
            Err(reason) => {
                effects
                    .list
                    .push(Effect::Debug(format!("passes untouched: {reason}")));
                effects.count(vm, ("unread", &[]), 1);
                if refuses(vm, (facts.format, facts.route(&vm.plan).mode)) {
                    self.facts = Some(facts);
                    let error = ApiError {
                        kind: ErrorKind::InvalidRequest,
                        message: format!("The request body cannot be read: {reason}."),
                        code: "request_unreadable",
                    };
                    return self.refuse(&error, Vec::new(), effects);
                }
                self.phase = Phase::Passing;
                effects.list.push(Effect::ResumeRequest);
                return;
            }
        };
        let decided = decide(&mut facts, &request, vm, (host, effects));
        self.facts = Some(facts);
        match decided {
            Ok(()) => self.admit(vm, host, effects),
            Err(error) => self.refuse(&error, Vec::new(), effects),
        }
    }

    /// Answers with an error of ours.
    pub(super) fn refuse(&mut self, error: &ApiError, headers: Vec<Header>, effects: &mut Effects) {
        self.phase = Phase::Local;
        let Some(facts) = self.facts.as_mut() else {
            return;
        };
        facts.status = error.kind.status();
        facts.outcome = sluice_wire::Outcome::Rejected;
        facts.body = String::new();
        effects.refuse(facts.format, error, headers);
    }
}

/// Whether a body that is not read is refused. In `dry` nothing is, nor what draws on no budget.
fn refuses(vm: &Vm, (format, mode): (&'static dyn formats::Format, Mode)) -> bool {
    let closed = vm.plan.limits.on_failure == OnFailure::Closed;
    closed && mode == Mode::On && format.kind().asks_a_model()
}

/// The format of a request on a route of that kind, if it is ours to read.
fn format(kind: RouteKind, headers: &Headers) -> Option<&'static dyn formats::Format> {
    match kind {
        // Whatever `content-encoding` says: an upstream may look past it, and so must we. A body
        // that really is compressed cannot be read, and is counted as such.
        RouteKind::Llm => formats::by_path(headers.get(":path")?),
        RouteKind::Retrieval => Some(&formats::Retrieval),
    }
}

/// 128 bits that no other request has: this VM's own salt and count. A client cannot choose it.
///
/// The salt is made of what the first request was met with: its moment, what tells its connection,
/// this Envoy and this VM apart, and Envoy's random id for it. Host calls are dear, so later
/// requests ask for nothing.
fn request_id(headers: &Headers, vm: &mut Vm, host: &dyn Host) -> String {
    let salt = *vm.salt.get_or_insert_with(|| {
        let mut hash = blake3::Hasher::new();
        hash.update(&host.now_ns().to_le_bytes());
        for path in [
            &["connection", "id"][..],
            &["source", "address"],
            &["xds", "node", "id"],
            &["plugin_vm_id"],
        ] {
            hash.update(&host.property(path).unwrap_or_default())
                .update(b"|");
        }
        hash.update(headers.get("x-request-id").unwrap_or("").as_bytes());
        *hash.finalize().as_bytes()
    });
    vm.requests += 1;
    let hash = blake3::keyed_hash(&salt, &vm.requests.to_le_bytes());
    hash.to_hex()[..32].to_owned()
}

/// RFC 9111 §5.2.1: `no-store` forbids storing, `no-cache` forbids answering from what is stored.
fn cache_wish(cache_control: Option<&str>, control: Option<&str>) -> CacheWish {
    let directive = |name: &str| {
        cache_control.is_some_and(|list| {
            list.split(',')
                .any(|item| item.trim().eq_ignore_ascii_case(name))
        })
    };
    match control {
        Some("bypass") => CacheWish::Bypass,
        _ if directive("no-store") => CacheWish::Bypass,
        Some("refresh") => CacheWish::Refresh,
        _ if directive("no-cache") => CacheWish::Refresh,
        _ => CacheWish::Use,
    }
}
