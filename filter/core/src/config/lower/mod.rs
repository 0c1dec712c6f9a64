//! Raw config → validated plan. A fault here is a value that reads well and makes no sense.
//!
//! One file per section of the config, with the section's name: a key is checked, and gets its
//! default, in the file of the section that it stands in. An override's `route`, `trim` and `cache`
//! go through the same code as the overall ones.

mod budgets;
mod cache;
mod guard;
mod identity;
mod limits;
mod models;
mod reserve;
mod route;
mod routes;
mod sidecar;
mod trim;
mod warnings;

use self::routes::Levers;
use super::Fault;
use super::plan::Plan;
use super::raw::Mode;
use super::read::Config;
use super::values::Millis;

struct Lower<'a> {
    faults: &'a mut Vec<Fault>,
    env: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
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
    };
    let models = lower.models(&raw.models);
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
    let ceiling = raw.mode.unwrap_or(Mode::On);
    let levers = Levers::of(raw);
    let default = lower.route_plan("", "", ceiling, &levers);
    let routes = lower.routes(&raw.routes, ceiling, &levers);
    lower.warn_about(&models, &default, &routes, sidecar.is_some(), raw);
    let warnings = lower.warnings;
    Plan {
        sidecar,
        models,
        identity,
        budgets,
        reserve,
        limits,
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
