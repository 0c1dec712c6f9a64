//! Raw config → validated plan. A fault here is a value that reads well and makes no sense.
//!
//! One file per section of the config, with the section's name: a key is checked, and gets its
//! default, in the file of the section that it stands in. An override's `route`, `trim` and `cache`
//! go through the same code as the overall ones.

mod budgets;
mod cache;
mod context;
mod guard;
mod history;
mod identity;
mod limits;
mod models;
mod reserve;
mod route;
mod routes;
mod sidecar;
mod system;
mod templates;
mod trim;
mod warnings;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::routes::Levers;
use super::Fault;
use super::plan::{Loopback, Plan, Price};
use super::raw::Mode;
use super::read::Config;
use super::values::Millis;
use crate::policy::trim::template::Template;

struct Lower<'a> {
    faults: &'a mut Vec<Fault>,
    env: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
    templates: BTreeMap<String, Arc<Template>>,
    /// Of the models that have one.
    prices: BTreeMap<String, Price>,
}

/// The plan; of use only where no fault was found.
pub(super) fn plan(
    raw: &Config,
    env: &dyn Fn(&str) -> Option<String>,
    faults: &mut Vec<Fault>,
) -> Plan {
    let mut lower = Lower {
        faults,
        env,
        warnings: Vec::new(),
        templates: BTreeMap::new(),
        prices: BTreeMap::new(),
    };
    let models = lower.models(&raw.models);
    let priced = models.iter();
    let priced = priced.filter_map(|(name, model)| Some((name.clone(), model.price?)));
    lower.prices = priced.collect();
    let sidecar = raw.sidecar.as_ref().map(|sidecar| lower.sidecar(sidecar));
    let identity = lower.identity(
        &raw.identity,
        sidecar
            .as_ref()
            .and_then(|sidecar| sidecar.secret.as_deref()),
    );
    let budgets = lower.budgets(&raw.budgets);
    let reserve = lower.reserve(&raw.reserve);
    let limits = lower.limits(&raw.limits);
    lower.templates(&raw.templates);
    let ceiling = raw.mode.unwrap_or(Mode::On);
    let levers = Levers::of(raw);
    let default = lower.route_plan("", "", ceiling, &levers);
    let routes = lower.routes(&raw.routes, ceiling, &levers);
    lower.warn_about(&models, &default, &routes, sidecar.is_some(), raw);
    let (warnings, templates) = (lower.warnings, lower.templates);
    Plan {
        sidecar,
        models,
        identity,
        budgets,
        reserve,
        limits,
        templates,
        routes,
        default,
        warnings,
    }
}

impl Lower<'_> {
    fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(Fault {
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// A secret: a literal, or `env:NAME` from the environment.
    fn secret(&mut self, path: &str, value: &str) -> Option<String> {
        let Some(name) = value.strip_prefix("env:") else {
            if value.is_empty() {
                self.fault(
                    path,
                    "found an empty secret, expected env:NAME or a literal",
                );
                return None;
            }
            return Some(value.to_owned());
        };
        match (self.env)(name) {
            Some(secret) if !secret.is_empty() => Some(secret),
            _ => {
                self.fault(path, format!("environment variable `{name}` is not set (in Envoy: list it in vm_config.environment_variables.host_env_keys)"));
                None
            }
        }
    }

    /// Whether a part of a lever is on; it follows the lever where that is `dry`.
    fn switch(&mut self, path: &str, mode: Option<Mode>) -> bool {
        if mode == Some(Mode::Dry) {
            self.fault(
                path,
                "found `dry`, expected `on` or `off`: it is dry where its lever is",
            );
        }
        matches!(mode, None | Some(Mode::On))
    }

    /// A cluster that is this Envoy's own listener.
    fn loopback(&mut self, path: &str, cluster: &str, timeout: Option<Millis>) -> Loopback {
        if cluster.is_empty() {
            self.fault(
                &format!("{path}.cluster"),
                "found nothing, expected the name of an Envoy cluster",
            );
        }
        let path = format!("{path}.timeout");
        Loopback {
            cluster: cluster.to_owned(),
            timeout_ms: self.within(&path, timeout, 120_000, 100..=3_600_000) as u32,
        }
    }

    /// Milliseconds within a range, or the default.
    fn within(
        &mut self,
        path: &str,
        value: Option<Millis>,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        match value {
            Some(Millis(found)) if !range.contains(&found) => {
                self.fault(
                    path,
                    format!(
                        "found {found}ms, expected {}ms to {}ms",
                        range.start(),
                        range.end()
                    ),
                );
                default
            }
            Some(Millis(found)) => found,
            None => default,
        }
    }
}
