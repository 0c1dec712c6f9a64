//! The sidecar's HTTP API: for the filter with the shared secret or a client certificate, for
//! people and scrapers with a token of their own.

mod admit;
mod auth;
mod body;
mod error;
mod pages;
mod settle;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};

pub use auth::{Auth, ClientCertificate};
pub use error::{ApiError, Kind};
pub use pages::moment;

use crate::app::App;

/// All routes over `app`. Tests call it without a socket.
pub fn app(app: Arc<App>) -> Router {
    Router::new()
        .route(sluice_wire::path::ADMIT, post(admit::admit))
        .route(sluice_wire::path::WAIT, post(admit::wait))
        .route(sluice_wire::path::SETTLE, post(settle::settle))
        .route("/report", get(pages::report))
        .route("/report/cache", get(pages::tuning))
        .route("/metrics", get(pages::metrics))
        .route("/healthz", get(pages::healthz))
        .route("/readyz", get(pages::readyz))
        .fallback(async || ApiError::new(Kind::NotFound, "no such path"))
        .method_not_allowed_fallback(async || {
            (
                StatusCode::METHOD_NOT_ALLOWED,
                ApiError::new(Kind::NotFound, "this path has another method"),
            )
        })
        .with_state(app)
}
