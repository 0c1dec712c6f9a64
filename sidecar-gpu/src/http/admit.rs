//! `POST /v1/admit`: the answer from cache, or a reservation, or a refusal; `POST /v1/wait`: the
//! same, once another request's answer is there.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sluice_wire::{AdmitReply, AdmitRequest, Frame, Verdict, limit};

use super::{ApiError, Kind, body};
use crate::admission::{self, Asked, Decided, Way, Wording};
use crate::app::App;
use crate::budget::MAX_HOLD_SECS;
use crate::cache::Key;
use crate::lease::Lease;

/// Most charges of one plan.
const MAX_CHARGES: usize = 64;
/// Longest name of a counter.
const MAX_COUNTER: usize = 512;

pub(super) async fn admit(State(app): State<Arc<App>>, request: Request) -> Response {
    let started = Instant::now();
    let decided = match read(&app, request).await {
        Ok((asked, _)) => {
            let decided = admission::decide(&app, &asked).await;
            asked.observe(&app, &decided);
            decided
        }
        Err(error) => return refuse(&app, error),
    };
    let (name, response) = (decided.name(), told(&app, decided));
    app.metrics.admitted(name, started.elapsed());
    response
}

pub(super) async fn wait(State(app): State<Arc<App>>, request: Request) -> Response {
    match read(&app, request).await {
        Ok((asked, patience)) => told(&app, admission::wait(&app, &asked, patience).await),
        Err(error) => refuse(&app, error),
    }
}

fn refuse(app: &App, error: ApiError) -> Response {
    app.metrics.refused(error.kind.name());
    error.into_response()
}

fn told(app: &App, decided: Decided) -> Response {
    let (head, entries) = match decided {
        Decided::Reply(reply, entries) => (*reply, entries),
        Decided::Wait(..) => {
            (AdmitReply::of(Verdict::Wait), Vec::new())
        }
    };
    let body = match entries.as_slice() {
        [] => Cow::Borrowed(&[][..]),
        [entry] => Cow::Borrowed(&*entry.body),
        vectors => vectors.iter().flat_map(|it| &it.body).copied().collect(),
    };
    match (Frame { head, body }).encode() {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Err(error) => refuse(app, ApiError::new(Kind::Internal, error.to_string())),
    }
}

/// A call of a filter, and how long it would wait.
async fn read(app: &App, request: Request) -> Result<(Asked, Duration), ApiError> {
    let (parts, body) = request.into_parts();
    app.auth.filter(&parts.headers, &parts.extensions)?;
    body::check_version(&parts.headers)?;
    let bytes = body::read(body, limit::ADMIT_BODY).await?;
    check(&bytes)
}

fn check(bytes: &[u8]) -> Result<(Asked, Duration), ApiError> {
    let fault =
        |path: &str, message: String| ApiError::new(Kind::Malformed, format!("{path}: {message}"));
    let frame: Frame<AdmitRequest, _> =
        Frame::decode(bytes).map_err(|error| ApiError::new(Kind::Malformed, error.to_string()))?;
    let head = frame.head;
    let id = head.id.parse().map_err(|error| fault("id", error))?;
    if !matches!(head.plans.len(), 1..=2) {
        let found = head.plans.len();
        return Err(fault(
            "plans",
            format!("expected one or two, found {found}"),
        ));
    }
    let mut plans = Vec::with_capacity(head.plans.len());
    let (keys, odd) = frame.body.as_chunks::<{ limit::KEY }>();
    let asked: usize = head.plans.iter().map(|plan| plan.inputs as usize).sum();
    if !odd.is_empty() || keys.len() != asked {
        let found = frame.body.len();
        let message = format!("expected the keys of {asked} inputs, found {found} bytes");
        return Err(fault("body", message));
    }
    let mut keys = keys.iter().map(|bytes| Key::new(*bytes));
    for (index, plan) in head.plans.into_iter().enumerate() {
        let charges = format!("plans[{index}].charges");
        if plan.charges.len() > MAX_CHARGES {
            let found = plan.charges.len();
            let message = format!("expected at most {MAX_CHARGES}, found {found}");
            return Err(fault(&charges, message));
        }
        if let Some(long) = plan
            .charges
            .iter()
            .find(|it| it.counter.len() > MAX_COUNTER)
        {
            let found = long.counter.len();
            let message = format!("counter: expected at most {MAX_COUNTER} bytes, found {found}");
            return Err(fault(&charges, message));
        }
        let key = plan.key.as_deref().map(str::parse).transpose();
        let key = key.map_err(|error| fault(&format!("plans[{index}].key"), error))?;
        let scope = plan.scope.as_deref().map(str::parse).transpose();
        let scope = scope.map_err(|error| fault(&format!("plans[{index}].scope"), error))?;
        if plan.inputs as usize > limit::INPUTS {
            let message = format!("expected at most {}, found {}", limit::INPUTS, plan.inputs);
            return Err(fault(&format!("plans[{index}].inputs"), message));
        }
        plans.push(Way {
            key,
            scope,
            inputs: keys.by_ref().take(plan.inputs as usize).collect(),
            charges: plan.charges,
        });
    }
    let cache = head.cache;
    let under = cache.lease.as_ref().map(Lease::try_from).transpose();
    let under = under.map_err(|error| fault("cache.lease.holder", error))?;
    let question = cache.question.map(|question| Wording {
        text: question.text,
        patience: Duration::from_millis(u64::from(question.max_ms)),
        threshold: question
            .threshold_milli
            .map(|milli| f32::from(milli) / 1000.0),
        auto: question.auto,
    });
    let asked = Asked {
        id,
        hold_ms: u64::from(head.hold_secs.min(MAX_HOLD_SECS)) * 1000,
        route: head.route,
        plans,
        question,
        lease_ms: u64::from(cache.lease_ms),
        under,
        behind: cache.behind,
        failing: cache.failing,
        vector_bytes: cache.vector_bytes,
    };
    Ok((asked, Duration::from_millis(u64::from(cache.wait_ms))))
}
