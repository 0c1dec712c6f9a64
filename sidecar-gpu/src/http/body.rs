//! Bodies of calls from the filter: version checked, bounded in size and time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::{ApiError, Kind};

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Refuses a filter of another protocol version.
pub(super) fn check_version(headers: &HeaderMap) -> Result<(), ApiError> {
    let found = headers.get(sluice_wire::header::WIRE);
    let ours = found
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.parse() == Ok(sluice_wire::VERSION));
    if ours {
        return Ok(());
    }
    let found = found.map_or("none".to_owned(), |value| format!("{value:?}"));
    Err(ApiError::new(
        Kind::Version,
        format!(
            "{}: expected {}, found {found}; filter and sidecar must be of one release",
            sluice_wire::header::WIRE,
            sluice_wire::VERSION
        ),
    ))
}

/// The whole body, at most `limit` bytes.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::new(
            Kind::TooLarge,
            format!("expected a body of at most {limit} bytes, found more"),
        )
    };
    // What declares its length is refused before it is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(PATIENCE, Limited::new(body, limit).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(ApiError::new(Kind::Malformed, format!("body: {error}"))),
        Err(_) => Err(ApiError::new(
            Kind::Slow,
            format!("expected the body within {PATIENCE:?}"),
        )),
    }
}
