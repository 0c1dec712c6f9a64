//! JSON → raw config, section by section.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::raw::{
    Budget, Caching, Guard, Identity, Limits, Mode, Model, Reserve, Route, Routing, Sidecar,
    Template, Trimming,
};
use super::{Fault, structpb};
use crate::json::{self, Object};

/// The config's sections as they were written. What could not be read is absent, with a fault.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    pub(super) mode: Option<Mode>,
    pub(super) sidecar: Option<Sidecar>,
    pub(super) models: BTreeMap<String, Model>,
    pub(super) identity: Identity,
    pub(super) route: Option<Routing>,
    pub(super) trim: Option<Trimming>,
    /// With the index in the config.
    pub(super) templates: Vec<(usize, Template)>,
    /// With the index in the config.
    pub(super) budgets: Vec<(usize, Budget)>,
    pub(super) reserve: Reserve,
    pub(super) cache: Option<Caching>,
    pub(super) guard: Option<Guard>,
    pub(super) limits: Limits,
    /// With the index in the config.
    pub(super) routes: Vec<(usize, Route)>,
}

const SECTIONS: &str = "mode, sidecar, models, identity, route, trim, templates, budgets, reserve, cache, guard, limits, routes, serve";

pub(super) fn config(bytes: &[u8], faults: &mut Vec<Fault>) -> Config {
    let mut config = Config::default();
    let mut fault = |message: String| {
        faults.push(Fault {
            path: "(config)".into(),
            message,
        });
    };
    let text = match structpb::json_text(bytes) {
        Ok(text) => text,
        Err(error) => {
            fault(error.to_string());
            return config;
        }
    };
    let object = match Object::parse(&text) {
        Ok(object) => object,
        Err(error) => {
            fault(format!("expected a JSON object: {error}"));
            return config;
        }
    };
    let mut seen: Vec<&str> = Vec::new();
    for (name, raw) in object.iter() {
        // A fault in a section without a name has a place all the same.
        let path = if name.is_empty() { r#""""# } else { name };
        if seen.contains(&name) {
            faults.push(Fault {
                path: path.into(),
                message: "stands twice".into(),
            });
        }
        seen.push(name);
        match name {
            "mode" => config.mode = section(name, raw, faults),
            "sidecar" => config.sidecar = section(name, raw, faults),
            "models" => config.models = map(name, raw, faults),
            "identity" => config.identity = section(name, raw, faults).unwrap_or_default(),
            "route" => config.route = section(name, raw, faults),
            "trim" => config.trim = section(name, raw, faults),
            "templates" => config.templates = list(name, raw, faults),
            "budgets" => config.budgets = list(name, raw, faults),
            "reserve" => config.reserve = section(name, raw, faults).unwrap_or_default(),
            "cache" => config.cache = section(name, raw, faults),
            "guard" => config.guard = section(name, raw, faults),
            "limits" => config.limits = section(name, raw, faults).unwrap_or_default(),
            "routes" => config.routes = list(name, raw, faults),
            // The sidecar's own part; it checks it.
            "serve" => {}
            _ => faults.push(Fault {
                path: path.into(),
                message: format!("unknown section, expected one of: {SECTIONS}"),
            }),
        }
    }
    config
}

fn section<T: DeserializeOwned>(path: &str, raw: &str, faults: &mut Vec<Fault>) -> Option<T> {
    let mut reader = serde_json::Deserializer::from_str(raw);
    match serde_path_to_error::deserialize(&mut reader) {
        Ok(value) => Some(value),
        Err(error) => {
            let inner = error.path().to_string();
            let path = match inner.as_str() {
                "." => path.to_owned(),
                inner if inner.starts_with('[') => format!("{path}{inner}"),
                inner => format!("{path}.{inner}"),
            };
            let message = without_secret(&path, without_position(&error.into_inner()));
            faults.push(Fault { path, message });
            None
        }
    }
}

/// Where a value may be a secret.
const SECRETS: [&str; 5] = [
    "sidecar.secret",
    "serve.operators",
    "serve.tenants",
    "identity.hash_key",
    "identity.trust",
];

/// A message of serde's without the value that it quotes, if `path` is where secrets are: what kind
/// of value was found, and what is expected.
#[must_use]
pub fn without_secret(path: &str, message: String) -> String {
    // Also what stands where a section with secrets in it should.
    let secret = SECRETS
        .iter()
        .any(|secret| path.starts_with(secret) || secret.split('.').next() == Some(path));
    let quote = message.find(['"', '`']);
    match (quote, message.rfind(", expected")) {
        (Some(start), Some(end)) if secret && start < end => {
            format!("{}{}", message[..start].trim_end(), &message[end..])
        }
        _ => message,
    }
}

/// serde_json's message without "at line 1 column 7": the line is that of the section, and Envoy
/// re-wrote the text anyway.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn list<T: DeserializeOwned>(path: &str, raw: &str, faults: &mut Vec<Fault>) -> Vec<(usize, T)> {
    match json::array(raw) {
        Ok(elements) => elements
            .into_iter()
            .enumerate()
            .filter_map(|(index, raw)| {
                Some((index, section(&format!("{path}[{index}]"), raw, faults)?))
            })
            .collect(),
        Err(error) => {
            faults.push(Fault {
                path: path.into(),
                message: without_position(&error),
            });
            Vec::new()
        }
    }
}

fn map<T: DeserializeOwned>(path: &str, raw: &str, faults: &mut Vec<Fault>) -> BTreeMap<String, T> {
    match Object::parse(raw) {
        Ok(object) => object
            .iter()
            .filter_map(|(key, raw)| {
                Some((
                    key.to_owned(),
                    section(&format!("{path}.{key}"), raw, faults)?,
                ))
            })
            .collect(),
        Err(error) => {
            faults.push(Fault {
                path: path.into(),
                message: without_position(&error),
            });
            BTreeMap::new()
        }
    }
}
