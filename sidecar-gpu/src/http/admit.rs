//! `POST /v1/admit`: the answer from cache, or a reservation, or a refusal; `POST /v1/wait`: the
//! same, once another request's answer is there.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sluice_wire::{AdmitReply, AdmitRequest, Frame, Relevance, Verdict, limit};

use super::{ApiError, Kind, body};
use crate::admission::{self, Asked, Decided, Way, Wording};
use crate::app::App;
use crate::budget::MAX_HOLD_SECS;
use crate::cache::Key;
use crate::lease::Lease;
use crate::relevance::Comparison;

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
        Decided::Wait(..) => (AdmitReply::of(Verdict::Wait), Vec::new()),
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
    let asked: u64 = head.plans.iter().map(|plan| u64::from(plan.inputs)).sum();
    let texts_len = head.relevance.as_ref().map_or(0, Relevance::body_len);
    let found = frame.body.len();
    if found as u64 != head.body_len() {
        let texts = match texts_len {
            0 => String::new(),
            bytes => format!(" and {bytes} bytes of texts"),
        };
        let message = format!("expected the keys of {asked} inputs{texts}, found {found} bytes");
        return Err(fault("body", message));
    }
    // Both fit, as they are as long as the body together.
    let (keys, texts) = frame.body.split_at(found - texts_len as usize);
    let mut keys = keys
        .as_chunks::<{ limit::KEY }>()
        .0
        .iter()
        .map(|bytes| Key::new(*bytes));
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
    let conversation = head.conversation.as_deref().map(str::parse).transpose();
    let conversation = conversation.map_err(|error| fault("conversation", error))?;
    let relevance = head
        .relevance
        .map(|relevance| comparison(relevance, (head.tenant, texts)))
        .transpose()
        .map_err(|(field, message)| fault(&format!("relevance.{field}"), message))?;
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
        relevance: relevance.map(Arc::new),
        conversation,
    };
    Ok((asked, Duration::from_millis(u64::from(cache.wait_ms))))
}

/// The texts of a tenant's request, cut out of the body; or the field at fault, and what is wrong.
fn comparison(
    relevance: Relevance,
    (tenant, mut rest): (String, &[u8]),
) -> Result<Comparison, (String, String)> {
    let fault = |field: &str, (expected, found): (String, usize)| {
        let message = format!("expected {expected}, found {found}");
        Err((field.to_owned(), message))
    };
    let Relevance {
        question,
        lens,
        max_ms,
    } = relevance;
    let most = |bytes: usize| format!("at most {bytes} bytes");
    if question.len() > limit::TEXT {
        return fault("question", (most(limit::TEXT), question.len()));
    }
    if lens.len() > limit::TEXTS {
        let expected = format!("at most {} texts", limit::TEXTS);
        return fault("lens", (expected, lens.len()));
    }
    if rest.len() > limit::TEXTS_BYTES {
        let expected = format!("{} in all", most(limit::TEXTS_BYTES));
        return fault("lens", (expected, rest.len()));
    }
    let mut texts = Vec::with_capacity(lens.len());
    for (index, len) in lens.into_iter().enumerate() {
        let field = format!("lens[{index}]");
        let len = len as usize;
        if len > limit::TEXT {
            return fault(&field, (most(limit::TEXT), len));
        }
        // As long as all together, which was checked.
        let (text, more) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        rest = more;
        match std::str::from_utf8(text) {
            Ok(text) => texts.push(text.to_owned()),
            Err(error) => {
                let message = format!("expected a text in UTF-8, found {error}");
                return Err((field, message));
            }
        }
    }
    Ok(Comparison {
        tenant,
        question,
        texts,
        patience: Duration::from_millis(u64::from(max_ms)),
    })
}
