//! `POST /v1/relay`: a request that is sent, and once more as it came where upstream refuses its
//! messages. Nothing of it is logged.

use std::sync::Arc;

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sluice_core::exchange::Digest;
use sluice_wire::{Frame, FrameError, RelayRequest, header, limit};

use super::{ApiError, Kind, body};
use crate::app::App;
use crate::relay::{self, Attempt, RelayError};

pub(super) async fn relay(State(app): State<Arc<App>>, request: Request) -> Response {
    match answer(&app, request).await {
        Ok((number, mut response)) => {
            app.metrics.relayed(match number {
                0 => "first",
                _ => "second",
            });
            let name = HeaderName::from_static(header::ATTEMPT);
            response
                .headers_mut()
                .insert(name, HeaderValue::from(number));
            response
        }
        Err(error) => {
            app.metrics.refused(error.kind.name());
            error.into_response()
        }
    }
}

async fn answer(app: &Arc<App>, request: Request) -> Result<(usize, Response), ApiError> {
    let (parts, body) = request.into_parts();
    let now_ms = app.clock.now_ms();
    let opened = app.auth.relayed(&parts.headers, now_ms)?;
    body::check_version(&parts.headers)?;
    let Some(relay) = &app.relay else {
        let message = "this sidecar has no `serve.relay` to send requests to";
        return Err(ApiError::new(Kind::NotFound, message));
    };
    let failed = |error: RelayError| {
        app.metrics.relayed("error");
        let kind = match error {
            RelayError::Busy => Kind::Busy,
            RelayError::Broken(_) | RelayError::Slow(_) => Kind::Upstream,
        };
        ApiError::new(kind, error.to_string())
    };
    let room = relay.body_room(body.size_hint().exact()).map_err(failed)?;
    let bytes = body::read(body, limit::RELAY_BODY).await?;
    let attempts = check(&bytes, opened)?;
    let answer = relay.send(attempts).await;
    drop(room);
    answer.map_err(failed)
}

/// The attempts of a frame, where it is the one that the token was made for. Nothing of what stands in
/// it is told: it is a caller's.
fn check(bytes: &Bytes, opened: Digest) -> Result<Vec<Attempt>, ApiError> {
    let fault =
        |path: &str, message: String| ApiError::new(Kind::Malformed, format!("{path}: {message}"));
    let head = bytes.split(|byte| *byte == b'\n').next();
    if head.map(Digest::of) != Some(opened) {
        let message = "expected the request that the token was made for, found another";
        return Err(ApiError::new(Kind::Forbidden, message));
    }
    let frame: Frame<RelayRequest, &[u8]> = Frame::decode(bytes).map_err(|error| match error {
        FrameError::NoHead => ApiError::new(Kind::Malformed, error.to_string()),
        // Its text quotes what it found.
        FrameError::Json(error) => fault(
            "head",
            format!(
                "expected a relay's, found none at column {}",
                error.column()
            ),
        ),
    })?;
    let head = frame.head;
    let found = head.attempts.len();
    if !matches!(found, 1..=2) {
        return Err(fault(
            "attempts",
            format!("expected one or two, found {found}"),
        ));
    }
    if !is_path(&head.path) {
        let message = "expected a path without dot segments, found something else";
        return Err(fault("path", message.to_owned()));
    }
    let authority = head.authority.parse::<Authority>();
    if !authority.is_ok_and(|it| it.as_str() == head.authority && !head.authority.contains('@')) {
        let message = "expected a host, found something else";
        return Err(fault("authority", message.to_owned()));
    }
    let (expected, found) = (head.body_len(), frame.body.len());
    if expected != found as u64 {
        let message = format!("expected {expected} bytes of attempts, found {found}");
        return Err(fault("body", message));
    }
    let mut rest = bytes.slice_ref(frame.body);
    let mut attempts = Vec::with_capacity(head.attempts.len());
    for (index, attempt) in head.attempts.into_iter().enumerate() {
        let at = format!("attempts[{index}].headers");
        let found = head.headers.len() + attempt.headers.len();
        if found > limit::RELAY_HEADERS {
            let most = limit::RELAY_HEADERS;
            return Err(fault(
                &at,
                format!("expected at most {most} in all, found {found}"),
            ));
        }
        let pairs = head.headers.iter().cloned().chain(attempt.headers);
        let headers = relay::headers(&head.authority, pairs)
            // Its value may be a secret.
            .map_err(|name| {
                fault(
                    &at,
                    format!("{name:?}: expected a header, found none that can be sent"),
                )
            })?;
        // As long as the body together, which was checked.
        let body = rest.split_to(attempt.len as usize);
        if Digest::of(&body).hex() != attempt.digest {
            let at = format!("attempts[{index}].digest");
            let message = "expected the body's, found another";
            return Err(fault(&at, message.to_owned()));
        }
        attempts.push(Attempt {
            uri: head.path.clone(),
            headers,
            body,
        });
    }
    Ok(attempts)
}

/// Path and query of a request as one proxy hands it to the next: nothing in it reads as a host, and
/// no proxy makes another path of it than the one before.
fn is_path(path: &str) -> bool {
    let plain = path.split('?').next().unwrap_or(path);
    let dots = plain.split('/').any(|segment| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(segment.as_str(), "." | "..")
    });
    path.starts_with('/')
        && !path.starts_with("//")
        && !dots
        && !plain.contains('\\')
        && !path.contains('#')
        && path.parse::<Uri>().is_ok()
}
