//! What a config may say and probably does not mean.

use std::collections::BTreeMap;

use super::Lower;
use crate::config::plan::{History, Matcher, Model, RoutePlan};
use crate::config::raw::{Keep, Mode, RouteKind};
use crate::config::read::Config;

impl Lower<'_> {
    pub(super) fn warn_about(
        &mut self,
        models: &BTreeMap<String, Model>,
        default: &RoutePlan,
        routes: &[(Matcher, RoutePlan)],
        sidecar: bool,
        raw: &Config,
    ) {
        for (name, model) in models {
            if model.price.is_none() {
                self.warnings.push(format!(
                    "models.{name}: no price; its cost is reported as unknown"
                ));
            }
        }
        let plans = || std::iter::once(default).chain(routes.iter().map(|(_, plan)| plan));
        let mut unlisted: Vec<&str> = plans()
            .flat_map(|plan| &plan.route.tiers)
            .flat_map(|tier| tier.models.values())
            .filter(|model| !models.contains_key(*model))
            .map(String::as_str)
            .collect();
        unlisted.sort_unstable();
        unlisted.dedup();
        for model in unlisted {
            self.warnings.push(format!(
                "route.tiers: model `{model}` is not in models; its cost is unknown"
            ));
        }
        if !sidecar && plans().any(|plan| plan.cache.mode != Mode::Off) {
            self.warnings
                .push("cache: there is no sidecar, so nothing is cached".into());
        }
        let past = |asks: fn(&History) -> bool| {
            plans().filter_map(|it| it.trim.history.as_ref()).any(asks)
        };
        if !sidecar && past(|history| history.embeddings_ms.is_some()) {
            self.warnings
                .push("trim.history.embeddings: there is no sidecar, so words decide alone".into());
        }
        if past(|history| history.writer.is_some() && history.keep != Keep::Summary) {
            self.warnings.push(
                "trim.history.summary.writer: without `keep: summary` there are no digests, so none is written".into(),
            );
        }
        if !sidecar && past(|history| history.writer.is_some()) {
            self.warnings.push(
                "trim.history.summary.writer: there is no sidecar, so digests are extracts".into(),
            );
        }
        let sealed = raw.sidecar.as_ref().is_some_and(|it| it.secret.is_some());
        if !sealed && plans().any(|plan| plan.trim.retry.is_some()) {
            self.warnings.push("trim.retry: without sidecar.secret nothing tells a request that goes once more from a stranger's, so none goes".into());
        }
        let stale_alone = |plan: &RoutePlan| {
            plan.cache.mode != Mode::Off
                && plan.cache.stale_secs > 0
                && plan.cache.refresh.is_none()
        };
        if plans().any(stale_alone) {
            self.warnings.push(
                "cache.exact.stale: without cache.refresh.cluster nothing runs behind an answer; one request per stale answer waits for upstream".into(),
            );
        }
        for (matcher, plan) in routes {
            if plan.kind == RouteKind::Retrieval && matcher.host.is_none() && matcher.path.is_none()
            {
                self.warnings.push(format!(
                    "routes: `{}` is of kind `retrieval` and matches by headers alone; who sends them asks a model without a budget",
                    plan.name
                ));
            }
            if plan.kind == RouteKind::Retrieval && plan.cache.mode == Mode::Off {
                self.warnings.push(format!(
                    "routes: `{}` is of kind `retrieval` and caches nothing; its requests are only counted",
                    plan.name
                ));
            }
        }
        if raw.mode == Some(Mode::Off) {
            self.warnings
                .push("mode: off; every request passes untouched and unaccounted".into());
        }
    }
}
