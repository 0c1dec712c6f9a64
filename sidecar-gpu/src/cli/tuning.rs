//! `sluice report --cache` as tables.

use comfy_table::{CellAlignment, Table, presets};

use super::report::when;
use crate::tuning::{RouteTuning, Tuning};

/// The curves and proposals of all routes.
pub(super) fn show(tuning: &Tuning) -> String {
    let mut out = format!(
        "since {}; cached answers that changed meanwhile: at most {}, wanted of what the longest \
         such TTL catches: {}\n\n",
        when(tuning.since_ms),
        percent(tuning.goal.changed),
        percent(tuning.goal.caught)
    );
    if tuning.routes.is_empty() {
        out.push_str("not enough data: no request had a cache key\n");
    }
    for route in &tuning.routes {
        out.push_str(&show_route(route));
    }
    for it in &tuning.semantic {
        let estimate = it.false_hits.map_or("unknown".to_owned(), percent);
        out.push_str(&format!(
            "{}: questions in other words count as one from {:.3} on; {} audits, about {estimate} \
             of such answers are false\n",
            name(&it.route),
            it.threshold,
            it.audits
        ));
    }
    out
}

fn name(route: &str) -> String {
    match route {
        "" => "the defaults".to_owned(),
        name => format!("route {name}"),
    }
}

fn show_route(route: &RouteTuning) -> String {
    let name = name(&route.route);
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["ttl", "re-asks it catches", "share", "changed", "at most"]);
    let or_unknown = |share: Option<f64>| share.map_or("unknown".to_owned(), percent);
    for point in &route.curve {
        table.add_row([
            span(point.ttl_secs),
            point.hits.to_string(),
            percent(point.caught),
            or_unknown(point.changed),
            or_unknown(point.changed_at_most),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let now = match (route.ttl_secs, route.stale_secs) {
        (Some(ttl), Some(stale)) if stale > 0 => format!("{} and {} stale", span(ttl), span(stale)),
        (Some(ttl), _) => span(ttl),
        (None, _) => "nothing stored yet".to_owned(),
    };
    let proposed = match (&route.proposal, &route.reason) {
        (Some(it), _) if it.stale_secs > 0 => format!(
            "ttl {} (catches {}), stale {} (catches {} with it); at most {} changed",
            span(it.ttl_secs),
            percent(it.caught),
            span(it.stale_secs),
            percent(it.caught_with_stale),
            percent(it.changed_at_most)
        ),
        (Some(it), _) => format!(
            "ttl {} (catches {}); at most {} changed",
            span(it.ttl_secs),
            percent(it.caught),
            percent(it.changed_at_most)
        ),
        (None, reason) => format!("nothing: {}", reason.as_deref().unwrap_or_default()),
    };
    format!(
        "{name}: {} requests, {} of them re-asks; {} answers replaced an earlier one, {} of them \
         said something else\n{table}\nnow:      {now}\nproposed: {proposed}\n\n",
        route.asks, route.reasks, route.replaced, route.changed
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// As a config writes it.
fn span(secs: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let unit = units
        .into_iter()
        .find(|(unit, _)| secs > 0 && secs.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "s"));
    format!("{}{name}", secs / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::{Audited, Goal, Point, Proposal};

    #[test]
    fn a_route_is_shown_with_its_curve_and_what_is_proposed_or_why_nothing_is() {
        let mut route = RouteTuning {
            route: "faq".to_owned(),
            asks: 1200,
            reasks: 1000,
            replaced: 90,
            changed: 3,
            ttl_secs: Some(90),
            stale_secs: Some(60),
            curve: vec![
                Point {
                    ttl_secs: 3600,
                    hits: 800,
                    caught: 0.8,
                    changed: Some(0.012),
                    changed_at_most: Some(0.031),
                },
                Point {
                    ttl_secs: 86_400,
                    hits: 900,
                    caught: 0.9,
                    changed: None,
                    changed_at_most: None,
                },
            ],
            proposal: Some(Proposal {
                ttl_secs: 900,
                stale_secs: 2700,
                caught: 0.75,
                caught_with_stale: 0.8,
                changed_at_most: 0.031,
            }),
            reason: None,
        };
        let tuning = |route: &RouteTuning| Tuning {
            since_ms: 1_700_000_000_000,
            goal: Goal::default(),
            routes: vec![route.clone()],
            semantic: vec![Audited {
                route: String::new(),
                threshold: 0.9812,
                audits: 310,
                false_hits: Some(0.0213),
            }],
        };
        let text = show(&tuning(&route));
        for part in [
            "since 2023-11-14T22:13:20Z",
            "at most 5.0 %",
            "route faq: 1200 requests, 1000 of them re-asks",
            "unknown",
            "now:      90s and 1m stale",
            "the defaults: questions in other words count as one from 0.981 on; 310 audits, about 2.1 %",
            "proposed: ttl 15m (catches 75.0 %), stale 45m (catches 80.0 % with it); at most 3.1 % changed",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        route.proposal = None;
        route.reason = Some("not enough data: 3 re-asks of 100".to_owned());
        let text = show(&tuning(&route));
        assert!(
            text.contains("proposed: nothing: not enough data: 3"),
            "{text}"
        );
    }
}
