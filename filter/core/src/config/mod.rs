//! The config: raw JSON → validated [`Plan`], or every fault with its path.
//!
//! A section is read on its own, so that one typing error does not hide the faults of the others.

mod lower;
#[cfg(test)]
mod mutations;
mod plan;
mod raw;
mod read;
mod structpb;
#[cfg(test)]
mod tests;
mod values;

use std::fmt::{self, Write};

pub use plan::{
    Backoff, BudgetRule, Caching, ClaimPath, Guard, HashKey, History, Identity, InputLimit, Limits,
    Loopback, Matcher, Misses, Model, Plan, Prefix, PrefixCache, Price, Reserve, Retry, RoutePlan,
    Routing, Sidecar, Source, Spend, Tier, Trimming, Trust, Writer,
};
pub use raw::{Keep, Mode, OnFailure, OverSpend, Per, RouteKind, Scope, Streams};
pub use read::without_secret;

/// One thing that is wrong with a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where: `budgets[0].tokens`.
    pub path: String,
    /// What was found and what is expected.
    pub message: String,
}

/// One line, though what it quotes from the config may have more.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { path, message } = self;
        for c in format!("{path}: {message}").chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Everything that is wrong with a config; never empty. One line per fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

impl Plan {
    /// Reads and checks a config: JSON, or a `Struct` in the form that Envoy hands to a plug-in.
    /// `env` looks up the `NAME` of `env:NAME` secrets.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn parse(config: &[u8], env: &dyn Fn(&str) -> Option<String>) -> Result<Plan, Faults> {
        let mut faults = Vec::new();
        let raw = read::config(config, &mut faults);
        let plan = lower::plan(&raw, env, &mut faults);
        if faults.is_empty() {
            Ok(plan)
        } else {
            Err(Faults(faults))
        }
    }
}
