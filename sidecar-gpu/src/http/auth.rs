//! Who calls: a filter, an operator, or a tenant's reader.

use axum::http::{Extensions, HeaderMap, header};
use sluice_core::exchange::{Digest, Sealer};
use subtle::{Choice, ConstantTimeEq};

use super::{ApiError, Kind};
use crate::config::{Secret, Serve};

/// Stands in a request's extensions when its connection showed a certificate of the config's
/// `serve.tls.client_ca`.
#[derive(Clone, Copy, Debug)]
pub struct ClientCertificate;

/// The tokens that are known.
#[derive(Debug)]
pub struct Auth {
    secret: Option<Secret>,
    operators: Vec<Secret>,
    tenants: Vec<(String, Secret)>,
}

/// Who may look at what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Viewer {
    /// Everything.
    Operator,
    /// What is this tenant's.
    Tenant(String),
}

impl Auth {
    /// The tokens of `config`.
    #[must_use]
    pub fn new(config: &Serve) -> Self {
        Auth {
            secret: config.secret.clone(),
            operators: config.operators.clone(),
            tenants: config
                .tenants
                .iter()
                .map(|(tenant, token)| (tenant.clone(), token.clone()))
                .collect(),
        }
    }

    /// Lets a filter in.
    pub(super) fn filter(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<(), ApiError> {
        if extensions.get::<ClientCertificate>().is_some() {
            return Ok(());
        }
        let token = bearer(headers)?;
        if self.is_filter(token) {
            Ok(())
        } else if self.viewer_of(token).is_some() {
            Err(ApiError::new(
                Kind::Forbidden,
                "this token is for reports; the filter's is `sidecar.secret`",
            ))
        } else {
            Err(unknown())
        }
    }

    /// Lets a filter's relayed request in, by a word that its secret made a moment ago, for a frame
    /// with the head that is returned. Neither the secret nor a certificate does it: the request
    /// passes routes that may lead elsewhere, so what opens the relay opens it to one request.
    pub(super) fn relayed(&self, headers: &HeaderMap, now_ms: u64) -> Result<Digest, ApiError> {
        let token = std::str::from_utf8(bearer(headers)?).ok();
        let sealer = self.secret.as_ref().map(|it| Sealer::new(it.expose()));
        let head = sealer
            .zip(token)
            .and_then(|(sealer, token)| sealer.relay_head(token, now_ms.saturating_mul(1000)));
        head.ok_or_else(unknown)
    }

    /// Lets an operator or a tenant's reader in. The filter's secret lies on every proxy, so it
    /// opens no report.
    pub(super) fn viewer(&self, headers: &HeaderMap) -> Result<Viewer, ApiError> {
        let token = bearer(headers)?;
        match self.viewer_of(token) {
            Some(viewer) => Ok(viewer),
            None if self.is_filter(token) => Err(ApiError::new(
                Kind::Forbidden,
                "the filter's secret opens no report; use a token of `serve.operators` or `serve.tenants`",
            )),
            None => Err(unknown()),
        }
    }

    /// Lets an operator in.
    pub(super) fn operator(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        match self.viewer(headers)? {
            Viewer::Operator => Ok(()),
            Viewer::Tenant(_) => Err(ApiError::new(
                Kind::Forbidden,
                "expected a token of `serve.operators`, found a tenant's",
            )),
        }
    }

    fn is_filter(&self, token: &[u8]) -> bool {
        self.secret
            .as_ref()
            .is_some_and(|secret| same(secret, token).into())
    }

    fn viewer_of(&self, token: &[u8]) -> Option<Viewer> {
        // All are compared, so that the time tells nothing about which one came near.
        let mut operator = Choice::from(0);
        for known in &self.operators {
            operator |= same(known, token);
        }
        let mut tenant = None;
        for (name, known) in &self.tenants {
            if same(known, token).into() {
                tenant = Some(name);
            }
        }
        if operator.into() {
            Some(Viewer::Operator)
        } else {
            tenant.cloned().map(Viewer::Tenant)
        }
    }
}

/// Equal, in a time that depends on the lengths alone.
fn same(known: &Secret, token: &[u8]) -> Choice {
    known.expose().as_bytes().ct_eq(token)
}

fn bearer(headers: &HeaderMap) -> Result<&[u8], ApiError> {
    let missing = || {
        ApiError::new(
            Kind::Unauthorized,
            "expected `authorization: Bearer …`, found none",
        )
    };
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, token) = value.as_bytes().split_at_checked(7).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case(b"bearer ") {
        Ok(token)
    } else {
        Err(missing())
    }
}

fn unknown() -> ApiError {
    ApiError::new(Kind::Unauthorized, "the token is not known here")
}
