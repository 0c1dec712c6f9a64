//! The sidecar's HTTP API: for the filter with the shared secret or a client certificate, for
//! people and scrapers with a token of their own.

mod admit;
mod auth;
mod body;
mod cache;
mod error;
mod invalidate;
mod pages;
mod relay;
mod settle;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use sluice_wire::path;

pub use auth::{Auth, ClientCertificate};
pub use cache::{Kept, Listing};
pub use error::{ApiError, Kind};
pub use pages::moment;

use crate::app::App;

/// All routes over `app`. Tests call it without a socket.
pub fn app(app: Arc<App>) -> Router {
    Router::new()
        .route(path::ADMIT, post(admit::admit))
        .route(path::WAIT, post(admit::wait))
        .route(path::SETTLE, post(settle::settle))
        .route(path::RELAY, post(relay::relay))
        .route(path::INVALIDATE, post(invalidate::invalidate))
        .route(path::CACHE, get(cache::list).delete(cache::clear))
        .route(
            &format!("{}/{{key}}", path::CACHE),
            get(cache::entry).delete(cache::remove),
        )
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
