//! `POST /v1/admit`: the answer from cache, or a reservation, or a refusal.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sluice_wire::{AdmitReply, AdmitRequest, CacheResult, Frame, Plan, Verdict, limit};

use super::{ApiError, Kind, body};
use crate::app::App;
use crate::budget::{Ask, Decision, Id, MAX_HOLD_SECS};
use crate::cache::{Age, Entry, Found, Key};

/// Most charges of one plan.
const MAX_CHARGES: usize = 64;
/// Longest name of a counter.
const MAX_COUNTER: usize = 512;

pub(super) async fn admit(State(app): State<Arc<App>>, request: Request) -> Response {
    let started = Instant::now();
    match answer(&app, request).await {
        Ok((verdict, bytes)) => {
            app.metrics.admitted(verdict, started.elapsed());
            ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
        }
        Err(error) => {
            app.metrics.refused(error.kind.name());
            error.into_response()
        }
    }
}

/// A request whose fields are checked.
struct Asked {
    id: Id,
    hold_ms: u64,
    plans: Vec<(Option<Key>, Plan)>,
    route: String,
    /// The key that a client asks for; none while a stale answer is refreshed for nobody.
    observed: Option<Key>,
}

async fn answer(app: &App, request: Request) -> Result<(&'static str, Vec<u8>), ApiError> {
    let (parts, body) = request.into_parts();
    app.auth.filter(&parts.headers, &parts.extensions)?;
    body::check_version(&parts.headers)?;
    let bytes = body::read(body, limit::ADMIT_BODY).await?;
    let asked = check(&bytes)?;
    let (name, reply, entry) = decide(app, &asked).await;
    // Who is told to count asks again.
    if let (Some(key), false) = (&asked.observed, name == "count") {
        app.observer.asked(&asked.route, key, app.clock.now_ms());
    }
    let body = entry.as_ref().map_or(&[][..], |entry| &entry.body);
    let frame = Frame { head: reply, body };
    let bytes = frame
        .encode()
        .map_err(|error| ApiError::new(Kind::Internal, error.to_string()))?;
    Ok((name, bytes))
}

fn check(bytes: &[u8]) -> Result<Asked, ApiError> {
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
        plans.push((key, plan));
    }
    Ok(Asked {
        id,
        hold_ms: u64::from(head.hold_secs.min(MAX_HOLD_SECS)) * 1000,
        route: head.route,
        observed: plans[0].0.filter(|_| head.cache.lease.is_none()),
        plans,
    })
}

type Answer = (&'static str, AdmitReply, Option<Arc<Entry>>);

async fn decide(app: &App, asked: &Asked) -> Answer {
    let now_ms = app.clock.now_ms();
    let mut over: Vec<u16> = Vec::new();
    let mut note = |rules: Vec<u16>, result| {
        for rule in rules {
            app.metrics.over(rule, result);
            if !over.contains(&rule) {
                over.push(rule);
            }
        }
    };
    for (plan, (index, (key, charges))) in (0_u8..).zip(asked.plans.iter().enumerate()) {
        if let Some(entry) = look_up(app, *key, now_ms).await {
            let age_secs = now_ms.saturating_sub(entry.stored_ms) / 1000;
            let verdict = Verdict::Hit {
                plan,
                age_secs,
                entry: entry.head.clone(),
                result: CacheResult::Hit,
                refresh: None,
            };
            return ("hit", AdmitReply { verdict, over }, Some(entry));
        }
        let charges = &charges.charges;
        let decision = if charges.is_empty() {
            Decision::Go { over: Vec::new() }
        } else {
            app.reserve(Ask {
                id: asked.id,
                now_ms,
                hold_ms: asked.hold_ms,
                charges,
                last: index + 1 == asked.plans.len(),
            })
            .await
        };
        let (name, verdict) = match decision {
            Decision::SmallTier { over: rules } => {
                note(rules, "small_tier");
                continue;
            }
            Decision::Go { over: rules } => {
                note(rules, "counted");
                ("go", Verdict::go(plan))
            }
            Decision::Count => ("count", Verdict::Count),
            Decision::Reject(it) => {
                app.metrics.over(it.rule, "rejected");
                let verdict = Verdict::Over {
                    rule: it.rule,
                    limit: it.limit,
                    used: it.used,
                    reset_secs: it.reset_secs,
                };
                ("over", verdict)
            }
        };
        return (name, AdmitReply { verdict, over }, None);
    }
    // The last plan never asks for a smaller one, so this is not reached.
    let plan = u8::try_from(asked.plans.len() - 1).unwrap_or(0);
    let verdict = Verdict::go(plan);
    ("go", AdmitReply { verdict, over }, None)
}

async fn look_up(app: &App, key: Option<Key>, now_ms: u64) -> Option<Arc<Entry>> {
    let (result, entry) = match app.cache.get(key?, now_ms).await {
        Ok(Found::Entry(entry)) if entry.age(now_ms) == Age::Fresh => ("hit", Some(entry)),
        Ok(Found::Entry(_)) => ("stale", None),
        Ok(Found::Miss) => ("miss", None),
        Ok(Found::Corrupt) => ("corrupt", None),
        Err(_) => ("error", None),
    };
    app.metrics.looked_up(result);
    entry
}
