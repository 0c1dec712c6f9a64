//! `routes`: which requests an override is for, and the levers as it leaves them.

use super::Lower;
use crate::config::Fault;
use crate::config::plan::{Matcher, RoutePlan};
use crate::config::raw::{
    self, Mode, RouteKind, overlay_caching, overlay_guard, overlay_routing, overlay_trimming,
};
use crate::config::read::Config;

/// The levers' sections, overall or with an override laid over them.
pub(super) struct Levers {
    route: Option<raw::Routing>,
    trim: Option<raw::Trimming>,
    cache: Option<raw::Caching>,
    guard: Option<raw::Guard>,
}

impl Levers {
    pub(super) fn of(raw: &Config) -> Self {
        Levers {
            route: raw.route.clone(),
            trim: raw.trim.clone(),
            cache: raw.cache.clone(),
            guard: raw.guard.clone(),
        }
    }
}

impl Lower<'_> {
    /// The overrides, each with its index in the config, over the levers of `base`.
    pub(super) fn routes(
        &mut self,
        raw: &[(usize, raw::Route)],
        ceiling: Mode,
        base: &Levers,
    ) -> Vec<(Matcher, RoutePlan)> {
        let mut routes: Vec<(Matcher, RoutePlan)> = Vec::new();
        for (at, route) in raw {
            let path = format!("routes[{at}]");
            let matcher = self.matcher(&path, route);
            if routes.iter().any(|(_, other)| other.name == route.name) {
                self.fault(
                    &format!("{path}.name"),
                    format!("found `{}` twice, expected names that differ", route.name),
                );
            }
            let levers = Levers {
                route: overlay_routing(base.route.as_ref(), route.route.as_ref()),
                trim: overlay_trimming(base.trim.as_ref(), route.trim.as_ref()),
                cache: overlay_caching(base.cache.as_ref(), route.cache.as_ref()),
                guard: overlay_guard(base.guard.as_ref(), route.guard.as_ref()),
            };
            let levers = match route.kind {
                RouteKind::Llm => levers,
                RouteKind::Retrieval => self.of_retrieval(&path, route, levers),
            };
            let before = self.faults.len();
            let sections = format!("{path}.");
            let mut plan = self.route_plan(
                &sections,
                &route.name,
                route.mode.unwrap_or(ceiling).min(ceiling),
                &levers,
            );
            plan.kind = route.kind;
            let (told, found) = self.faults.split_at(before);
            let own: Vec<Fault> = found
                .iter()
                .filter(|fault| {
                    !told
                        .iter()
                        .any(|other| is_inherited(fault, &sections, other))
                })
                .cloned()
                .collect();
            self.faults.truncate(before);
            self.faults.extend(own);
            routes.push((matcher, plan));
        }
        routes
    }

    /// The levers that a search has: no model is chosen, no prompt cut, and a refusal is in no
    /// shape that says whether it stands. What is set overall is for others.
    fn of_retrieval(&mut self, path: &str, raw: &raw::Route, levers: Levers) -> Levers {
        let own = raw.cache.as_ref();
        for (section, is_set) in [
            ("route", raw.route.is_some()),
            ("trim", raw.trim.is_some()),
            (
                "cache.negative",
                own.is_some_and(|cache| cache.negative.is_some()),
            ),
        ] {
            if is_set {
                self.fault(
                    &format!("{path}.{section}"),
                    "found on a route of kind `retrieval`, expected none",
                );
            }
        }
        Levers {
            route: None,
            trim: None,
            cache: levers.cache.map(|cache| raw::Caching {
                negative: None,
                ..cache
            }),
            guard: levers.guard,
        }
    }

    fn matcher(&mut self, path: &str, raw: &raw::Route) -> Matcher {
        if raw.name.is_empty()
            || raw.name.len() > 64
            || !raw
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            self.fault(
                &format!("{path}.name"),
                format!(
                    "found `{}`, expected 1 to 64 letters, digits, `-`, `_`, `.`",
                    raw.name
                ),
            );
        }
        let matches = &raw.matches;
        if matches.host.is_none() && matches.path.is_none() && matches.headers.is_empty() {
            self.fault(
                &format!("{path}.match"),
                "found nothing to match, expected host, path or headers",
            );
        }
        if let Some(host) = matches
            .host
            .as_ref()
            .filter(|host| host.trim_start_matches('*').contains('*') || host.is_empty())
        {
            self.fault(
                &format!("{path}.match.host"),
                format!("found `{host}`, expected a name or `*.` and a name"),
            );
        }
        if let Some(found) = matches
            .path
            .as_ref()
            .filter(|path| !path.starts_with('/') || path.trim_end_matches('*').contains('*'))
        {
            self.fault(
                &format!("{path}.match.path"),
                format!("found `{found}`, expected a path from `/` on, with `*` at its end only"),
            );
        }
        let headers = matches
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .collect();
        Matcher {
            host: matches.host.clone(),
            path: matches.path.clone(),
            headers,
        }
    }

    pub(super) fn route_plan(
        &mut self,
        path: &str,
        name: &str,
        ceiling: Mode,
        levers: &Levers,
    ) -> RoutePlan {
        let mode = |own: Option<Mode>| own.unwrap_or(Mode::On).min(ceiling);
        let route = levers
            .route
            .as_ref()
            .map(|raw| self.routing(&format!("{path}route"), mode(raw.mode), raw));
        let trim = levers
            .trim
            .as_ref()
            .map(|raw| self.trimming(&format!("{path}trim"), mode(raw.mode), raw));
        let cache = levers
            .cache
            .as_ref()
            .map(|raw| self.caching(&format!("{path}cache"), mode(raw.mode), raw));
        let guard = levers
            .guard
            .as_ref()
            .map(|raw| self.guard(&format!("{path}guard"), mode(raw.mode), raw));
        let trim = trim.unwrap_or_default();
        RoutePlan {
            name: name.to_owned(),
            kind: RouteKind::Llm,
            mode: ceiling,
            digest: *blake3::hash(format!("{trim:?}").as_bytes()).as_bytes(),
            route: route.unwrap_or_default(),
            trim,
            cache: cache.unwrap_or_default(),
            guard: guard.unwrap_or_default(),
        }
    }
}

/// Whether the `fault` below the override at `path` is `told`, a fault of an overall section, again:
/// that fault itself, or what is missing because that section could not be read.
fn is_inherited(fault: &Fault, path: &str, told: &Fault) -> bool {
    let Some(overall) = fault.path.strip_prefix(path) else {
        return false;
    };
    if told.path == overall {
        return told.message == fault.message;
    }
    told.path.starts_with(overall) || overall.starts_with(&told.path)
}
