//! `identity`: who asks, who is believed, and which models they may use.

use std::net::IpAddr;

use super::Lower;
use crate::config::plan::{ClaimPath, HashKey, Identity, Source, Trust};
use crate::config::raw;

/// Where `jwt_authn` puts claims, unless the config says otherwise.
const JWT_PAYLOAD: &str = "jwt_payload";

impl Lower<'_> {
    pub(super) fn identity(
        &mut self,
        raw: &raw::Identity,
        sidecar_secret: Option<&str>,
    ) -> Identity {
        let hash_secret = raw
            .hash_key
            .as_ref()
            .and_then(|key| self.secret("identity.hash_key", key));
        let tenant = match &raw.tenant {
            Some(sources) => self.sources("identity.tenant", sources),
            // Tenants are apart by default, also where nobody said who they are.
            None => vec![Source::KeyHash],
        };
        for source in &tenant {
            if let Source::Header(name) = source {
                self.warnings.push(format!(
                    "identity.tenant: header `{name}` is believed from every caller; unless something in front of this filter sets or strips it, anyone can be any tenant"
                ));
            }
        }
        let task = self.sources("identity.task", raw.task.as_deref().unwrap_or(&[]));
        let conversation = self.sources(
            "identity.conversation",
            raw.conversation.as_deref().unwrap_or(&[]),
        );
        let hashes = [&tenant, &task, &conversation]
            .iter()
            .any(|sources| sources.contains(&Source::KeyHash));
        let hash_key = hash_secret.as_deref().or(sidecar_secret);
        if hashes && hash_key.is_none() && raw.hash_key.is_none() {
            self.warnings.push("identity.hash_key: not set, and there is no sidecar.secret either: API keys are hashed without a secret key".into());
        }
        let hash_key = HashKey(blake3::derive_key(
            "sluice 2026 identity.hash_key",
            hash_key.unwrap_or("").as_bytes(),
        ));
        let trust = raw
            .trust
            .iter()
            .enumerate()
            .filter_map(|(at, trust)| self.trust(at, trust))
            .collect();
        Identity {
            hash_key,
            tenant,
            task,
            conversation,
            trust,
            allow: raw.allow.clone(),
        }
    }

    fn sources(&mut self, path: &str, raw: &[raw::Source]) -> Vec<Source> {
        let mut sources = Vec::new();
        for (at, source) in raw.iter().enumerate() {
            match source {
                raw::Source::Header(name) => match header_name(name) {
                    Some(name) => sources.push(Source::Header(name)),
                    None => self.fault(
                        &format!("{path}[{at}].header"),
                        format!("found `{name}`, expected a header's name"),
                    ),
                },
                raw::Source::Jwt(raw::Claim::Name(claim)) => {
                    sources.push(Source::Jwt(claim_path(claim, None)))
                }
                raw::Source::Jwt(raw::Claim::Full(full)) => {
                    sources.push(Source::Jwt(claim_path(
                        &full.claim,
                        full.payload.as_deref(),
                    )));
                }
                raw::Source::KeyHash(true) => sources.push(Source::KeyHash),
                raw::Source::KeyHash(false) => {}
            }
        }
        sources
    }

    fn trust(&mut self, at: usize, raw: &raw::Trust) -> Option<Trust> {
        let path = format!("identity.trust[{at}]");
        match raw {
            raw::Trust::Source(network) => {
                let trust = network_of(network);
                if trust.is_none() {
                    self.fault(
                        &format!("{path}.source"),
                        format!(
                            "found `{network}`, expected a network, like 10.0.0.0/8 or ::1/128"
                        ),
                    );
                }
                trust
            }
            raw::Trust::Header(header) => {
                let value = self.secret(&format!("{path}.header.value"), &header.value)?;
                let name = header_name(&header.name);
                if name.is_none() {
                    self.fault(
                        &format!("{path}.header.name"),
                        format!("found `{}`, expected a header's name", header.name),
                    );
                }
                Some(Trust::Header(name?, value))
            }
            raw::Trust::Jwt(jwt) => Some(Trust::Jwt(
                claim_path(&jwt.claim, jwt.payload.as_deref()),
                jwt.value.clone(),
            )),
        }
    }
}

fn header_name(name: &str) -> Option<String> {
    let token = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b));
    token.then(|| name.to_ascii_lowercase())
}

fn claim_path(claim: &str, payload: Option<&str>) -> ClaimPath {
    let payload = payload.unwrap_or(JWT_PAYLOAD).to_owned();
    ClaimPath(
        std::iter::once(payload)
            .chain(claim.split('.').map(str::to_owned))
            .collect(),
    )
}

fn network_of(text: &str) -> Option<Trust> {
    let (address, prefix) = text
        .split_once('/')
        .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.trim().parse().ok()?;
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= widest)?,
        None => widest,
    };
    Some(Trust::Source(address, prefix))
}
