//! `/v1/cache`: operators look into the cache, and drop from it. What they did is logged without
//! what was in it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use sluice_wire::EntryHead;

use super::{ApiError, Kind};
use crate::app::App;
use crate::cache::{Age, Found, Key, Layer};

/// `GET /v1/cache`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// Where answers are kept, the nearest first.
    pub layers: Vec<Layer>,
}

/// `GET /v1/cache/KEY`: an answer as it is kept. Times are in milliseconds since the epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Its key.
    pub key: String,
    /// `fresh`, `stale` (served while it is refreshed) or `spare` (only if upstream fails).
    pub age: String,
    /// When the request arrived that it answers.
    pub built_ms: u64,
    /// When it was stored.
    pub stored_ms: u64,
    /// Until when it is fresh.
    pub fresh_ms: u64,
    /// Until when it is served stale.
    pub stale_ms: u64,
    /// Until when it is kept.
    pub keep_ms: u64,
    /// Fencing token of the lease that it was fetched under.
    pub token: u64,
    /// What it was built on, with whose it is.
    pub tags: Vec<String>,
    /// What is known about it.
    pub entry: EntryHead,
    /// Bytes of the answer.
    pub body_bytes: usize,
    /// Bytes that it takes as it is kept.
    pub stored_bytes: usize,
    /// The answer, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// What was dropped.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Dropped {
    dropped: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    #[serde(default)]
    body: bool,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<Listing>, ApiError> {
    app.auth.operator(&headers)?;
    Ok(Json(Listing {
        layers: app.cache.layers(),
    }))
}

pub(super) async fn entry(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Kept>, ApiError> {
    app.auth.operator(&headers)?;
    let Query(asked) = asked.map_err(|error| ApiError::new(Kind::Malformed, error.body_text()))?;
    let key = parse(&key)?;
    let now_ms = app.clock.now_ms();
    let entry = match app.cache.get(key, now_ms).await? {
        Found::Entry(entry) => entry,
        Found::Miss => return Err(ApiError::new(Kind::NotFound, "no answer is kept there")),
        Found::Corrupt => {
            let message = "what is kept there is no answer of this version's, or damaged";
            return Err(ApiError::new(Kind::NotFound, message));
        }
    };
    if asked.body {
        log::info!(target: "sluice::audit", "cache: read the answer of {key}");
    }
    let stored_bytes = entry
        .encode()
        .map_err(|error| ApiError::new(Kind::Internal, error.to_string()))?
        .len();
    Ok(Json(Kept {
        key: key.to_string(),
        age: match entry.age(now_ms) {
            Age::Fresh => "fresh",
            Age::Stale => "stale",
            Age::Spare | Age::Over => "spare",
        }
        .to_owned(),
        built_ms: entry.built_ms,
        stored_ms: entry.stored_ms,
        fresh_ms: entry.fresh_ms,
        stale_ms: entry.stale_ms,
        keep_ms: entry.keep_ms,
        token: entry.token,
        tags: entry.tags.clone(),
        entry: entry.head.clone(),
        body_bytes: entry.body.len(),
        stored_bytes,
        body: asked
            .body
            .then(|| String::from_utf8_lossy(&entry.body).into_owned()),
    }))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Dropped>, ApiError> {
    app.auth.operator(&headers)?;
    let key = parse(&key)?;
    let dropped = app.cache.remove(key).await?;
    if let Some(semantic) = &app.semantic {
        semantic.gone(&key);
    }
    log::info!(target: "sluice::audit", "cache: dropped {key}");
    Ok(Json(Dropped { dropped }))
}

pub(super) async fn clear(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<Dropped>, ApiError> {
    app.auth.operator(&headers)?;
    app.cache.clear().await?;
    if let Some(semantic) = &app.semantic {
        semantic.clear().await?;
    }
    log::info!(target: "sluice::audit", "cache: dropped everything");
    Ok(Json(Dropped { dropped: true }))
}

fn parse(key: &str) -> Result<Key, ApiError> {
    key.parse()
        .map_err(|error| ApiError::new(Kind::Malformed, format!("key: {error}")))
}
