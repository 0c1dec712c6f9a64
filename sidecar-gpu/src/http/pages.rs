//! What people and scrapers read: `/report`, `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::auth::Viewer;
use super::{ApiError, Kind};
use crate::app::App;
use crate::ledger::{self, shared};
use crate::report::Report;
use crate::tuning::{Audited, Goal, Tuning};

/// How long a report may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most records that a report shows.
const MAX_RECORDS: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    by: Option<String>,
    from: Option<String>,
    to: Option<String>,
    scope: Option<Scope>,
    records: Option<usize>,
}

/// Whose records a report is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    /// This sidecar's ledger.
    Local,
    /// What all sidecars on the same Redis have published.
    Shared,
}

pub(super) async fn report(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Report>, ApiError> {
    let viewer = app.auth.viewer(&headers)?;
    let malformed = |message: String| ApiError::new(Kind::Malformed, message);
    let Query(asked) = asked.map_err(|error| malformed(error.body_text()))?;
    let now_ms = app.clock.now_ms();
    let time = |name: &str, text: Option<String>| {
        text.map(|text| moment(&text, now_ms))
            .transpose()
            .map_err(|error| malformed(format!("{name}: {error}")))
    };
    let query = ledger::Query {
        from_ms: time("from", asked.from)?,
        to_ms: time("to", asked.to)?,
        tenant: match viewer {
            Viewer::Operator => None,
            Viewer::Tenant(tenant) => Some(tenant),
        },
        by: ledger::Query::breakdowns(asked.by.as_deref().unwrap_or("task,model,endpoint"))
            .map_err(|error| malformed(format!("by: {error}")))?,
        records: asked.records.unwrap_or(0),
    };
    if query.records > MAX_RECORDS {
        let found = query.records;
        let message = format!("records: expected at most {MAX_RECORDS}, found {found}");
        return Err(malformed(message));
    }
    let publisher = match (asked.scope, &app.publisher) {
        (Some(Scope::Shared), None) => {
            let message = "scope: `shared` needs a `serve.store` of Redis";
            return Err(malformed(message.to_owned()));
        }
        (Some(Scope::Local), _) => None,
        (_, publisher) => publisher.as_ref(),
    };
    let busy = || ApiError::new(Kind::Busy, "other reports are being made");
    let permit = tokio::time::timeout(PATIENCE, app.reports.clone().acquire_owned())
        .await
        .map_err(|_| busy())?
        .map_err(|_| busy())?;
    let Some(publisher) = publisher else {
        return local(&app, query, permit).await.map(Json);
    };
    match shared::report(publisher.reader(), &query, now_ms).await {
        Ok(report) => Ok(Json(report)),
        Err(reason) => {
            let mut report = local(&app, query, permit).await?;
            // An error may name our machines.
            let reason = match report.tenant {
                None => reason.as_str(),
                Some(_) => "it is away",
            };
            report.covers.leave_out(publisher.others(), reason);
            Ok(Json(report))
        }
    }
}

/// The report of this sidecar's own ledger.
async fn local(
    app: &App,
    query: ledger::Query,
    permit: OwnedSemaphorePermit,
) -> Result<Report, ApiError> {
    let data = app.config.data.clone();
    let outcome = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut connection = ledger::read(&data).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + PATIENCE;
        connection
            .progress_handler(100_000, Some(move || Instant::now() > deadline))
            .and_then(|()| ledger::query(&mut connection, &query))
            .map_err(|error| format!("{error} (a narrower `from` and `to` may help)"))
    })
    .await
    .map_err(|error| ApiError::new(Kind::Internal, error.to_string()))?;
    outcome.map_err(|error| ApiError::new(Kind::Ledger, error))
}

/// What a proposal is to keep to, in percent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Aim {
    changed: Option<f64>,
    caught: Option<f64>,
}

/// How long answers should be kept, from what this sidecar has seen. Routes are not a tenant's own.
pub(super) async fn tuning(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    aim: Result<Query<Aim>, QueryRejection>,
) -> Result<Json<Tuning>, ApiError> {
    app.auth.operator(&headers)?;
    let malformed = |message: String| ApiError::new(Kind::Malformed, message);
    let Query(aim) = aim.map_err(|error| malformed(error.body_text()))?;
    let goal = Goal::percent(aim.changed, aim.caught).map_err(malformed)?;
    let found = app.semantic.as_ref().map(|it| it.thresholds());
    Ok(Json(Tuning {
        semantic: Audited::of(found.unwrap_or_default()),
        ..app.observer.report(goal)
    }))
}

/// A moment as milliseconds since the epoch: `2026-01-31`, `2026-01-31T12:00:00Z`, seconds since
/// the epoch, or a span back from now: `24h`, `7d`.
///
/// # Errors
/// What was expected and what was found.
pub fn moment(text: &str, now_ms: u64) -> Result<u64, String> {
    if let Ok(secs) = text.parse::<u64>() {
        return Ok(secs.saturating_mul(1000));
    }
    if let Ok(span) = text.parse::<crate::config::Span>() {
        let back = u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
        return Ok(now_ms.saturating_sub(back));
    }
    let millis = if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        Some(moment.as_millisecond())
    } else if let Ok(date) = text.parse::<jiff::civil::Date>() {
        date.to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|it| it.timestamp().as_millisecond())
    } else {
        None
    };
    millis.and_then(|it| u64::try_from(it).ok()).ok_or_else(|| {
        format!(
            "expected a moment like `2026-01-31`, `2026-01-31T12:00:00Z`, seconds since the epoch \
             or `24h` ago, found `{text}`"
        )
    })
}

pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if !app.config.metrics_open {
        app.auth.operator(&headers)?;
    }
    if let Some(semantic) = &app.semantic {
        app.metrics.thresholds(&semantic.thresholds());
    }
    let text = app
        .metrics
        .encode(&app.readings())
        .map_err(|error| ApiError::new(Kind::Internal, error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// The process runs and answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Calls will be served. Redis being away does not count: its fallback is declared.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let ready = app.ready();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({"ready": ready, "ledger": if ready { "ok" } else { "failing" }});
    (status, Json(body)).into_response()
}
