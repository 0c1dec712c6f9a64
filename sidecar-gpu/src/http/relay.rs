//! `POST /v1/relay`: a request that is sent, and once more as it came where upstream refuses its
//! messages. Nothing of it is logged.

use std::sync::Arc;

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sluice_wire::{Frame, RelayRequest, header, limit};

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
    app.auth
        .relayed(&parts.headers, &parts.extensions, now_ms)?;
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
    let attempts = check(&bytes)?;
    let answer = relay.send(attempts).await;
    drop(room);
    answer.map_err(failed)
}

fn check(bytes: &Bytes) -> Result<Vec<Attempt>, ApiError> {
    let fault =
        |path: &str, message: String| ApiError::new(Kind::Malformed, format!("{path}: {message}"));
    let frame: Frame<RelayRequest, &[u8]> =
        Frame::decode(bytes).map_err(|error| ApiError::new(Kind::Malformed, error.to_string()))?;
    let head = frame.head;
    let found = head.attempts.len();
    if !matches!(found, 1..=2) {
        return Err(fault(
            "attempts",
            format!("expected one or two, found {found}"),
        ));
    }
    if !head.path.starts_with('/') || head.path.parse::<axum::http::Uri>().is_err() {
        return Err(fault(
            "path",
            "expected a path, found something else".to_owned(),
        ));
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
        attempts.push(Attempt {
            uri: head.path.clone(),
            headers,
            // As long as the body together, which was checked.
            body: rest.split_to(attempt.len as usize),
        });
    }
    Ok(attempts)
}
