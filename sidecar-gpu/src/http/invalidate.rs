//! `POST /v1/invalidate`: what was built on something that has changed is given out no more.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use sluice_wire::{Invalidate, Invalidated, limit, scoped_tag};

use super::auth::Viewer;
use super::{ApiError, Kind, body};
use crate::app::App;

/// Largest body: a tag and a tenant, escaped at worst.
const MAX_BODY: usize = 8 << 10;

pub(super) async fn invalidate(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Invalidated>, ApiError> {
    let (parts, body) = request.into_parts();
    let viewer = app.auth.viewer(&parts.headers)?;
    let bytes = body::read(body, MAX_BODY).await?;
    let asked: Invalidate = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::new(Kind::Malformed, error.to_string()))?;
    for (field, text) in [("tag", Some(&asked.tag)), ("tenant", asked.tenant.as_ref())] {
        if let Some(text) = text.filter(|it| it.is_empty() || it.len() > limit::TAG) {
            let message = format!(
                "{field}: expected 1 to {} bytes, found {}",
                limit::TAG,
                text.len()
            );
            return Err(ApiError::new(Kind::Malformed, message));
        }
    }
    let (who, tenant) = match (viewer, asked.tenant) {
        (Viewer::Operator, tenant) => ("an operator", tenant),
        (Viewer::Tenant(own), _) if own.is_empty() => {
            return Err(ApiError::new(
                Kind::Forbidden,
                "expected the token of a tenant with a name: without one it would mean everyone",
            ));
        }
        (Viewer::Tenant(own), Some(other)) if own != other => {
            return Err(ApiError::new(
                Kind::Forbidden,
                "tenant: expected the token's own, found another",
            ));
        }
        (Viewer::Tenant(own), _) => ("its tenant", Some(own)),
    };
    let tag = scoped_tag(tenant.as_deref(), &asked.tag);
    let at_ms = app.clock.now_ms();
    let everywhere_ms = app.cache.invalidate(&tag, at_ms).await?;
    log::info!(target: "sluice::audit", "cache: {who} invalidated tag {tag:?}");
    Ok(Json(Invalidated {
        at_ms,
        everywhere_ms,
    }))
}
