//! Errors of the API, turned into HTTP in one place.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is not what the API takes. 400.
    Malformed,
    /// No token, or an unknown one. 401.
    Unauthorized,
    /// A known token that may not do this. 403.
    Forbidden,
    /// No such path. 404.
    NotFound,
    /// The body did not come in time. 408.
    Slow,
    /// The body is longer than the API takes. 413.
    TooLarge,
    /// Another version of the protocol. 426.
    Version,
    /// Too much at once, or another sidecar is at it. 503.
    Busy,
    /// The ledger cannot be written or read. 503.
    Ledger,
    /// The shared store did not do what was asked. 503.
    Store,
    /// There is no answer of upstream's to pass on. 502.
    Upstream,
    /// A fault of ours. 500.
    Internal,
}

impl Kind {
    /// The word for it in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Malformed => "malformed",
            Kind::Unauthorized => "unauthorized",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not_found",
            Kind::Slow => "slow",
            Kind::TooLarge => "too_large",
            Kind::Version => "version",
            Kind::Busy => "busy",
            Kind::Ledger => "ledger",
            Kind::Store => "store",
            Kind::Upstream => "upstream",
            Kind::Internal => "internal",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Kind::Malformed => StatusCode::BAD_REQUEST,
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Slow => StatusCode::REQUEST_TIMEOUT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Version => StatusCode::UPGRADE_REQUIRED,
            Kind::Busy | Kind::Ledger | Kind::Store => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Upstream => StatusCode::BAD_GATEWAY,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retry(self) -> bool {
        matches!(
            self,
            Kind::Slow | Kind::Busy | Kind::Ledger | Kind::Store | Kind::Upstream
        )
    }

    fn source(self) -> &'static str {
        match self {
            Kind::Busy | Kind::Ledger | Kind::Store | Kind::Internal => "sidecar",
            Kind::Upstream => "upstream",
            _ => "client",
        }
    }
}

/// An error as it is answered: `{"error": {kind, source, retry, message}}`.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// What kind.
    pub kind: Kind,
    /// What was expected, and what was found. No key, prompt or answer.
    pub message: String,
}

impl ApiError {
    /// An error of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        ApiError {
            kind,
            message: message.into(),
        }
    }
}

impl From<crate::store::StoreError> for ApiError {
    fn from(error: crate::store::StoreError) -> Self {
        ApiError::new(Kind::Store, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {
            "kind": self.kind.name(),
            "source": self.kind.source(),
            "retry": self.kind.retry(),
            "message": self.message,
        }});
        let mut response = (
            self.kind.status(),
            [(header::CONTENT_TYPE, "application/json")],
            body.to_string(),
        )
            .into_response();
        let headers = response.headers_mut();
        match self.kind {
            Kind::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Kind::Busy | Kind::Ledger | Kind::Store => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Kind::Version => {
                headers.insert(
                    sluice_wire::header::WIRE,
                    HeaderValue::from(sluice_wire::VERSION),
                );
            }
            _ => {}
        }
        response
    }
}
