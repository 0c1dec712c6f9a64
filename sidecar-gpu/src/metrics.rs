//! What `/metrics` shows. Labels that grow with tenants and tasks stop at a stated cap.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use sluice_wire::{CacheResult, Lever, Record, Usd};

use crate::relevance::Tally;
use crate::semantic::{Found, Told};

/// Label values of the largest family per tenant and task: five levers, or five kinds of tokens.
const KINDS: usize = 5;
/// Longest label value taken from a request.
const MAX_LABEL: usize = 64;
/// Most rules that are told apart in `sluice_budget_over_total`.
const MAX_RULES: u16 = 100;
/// Most routes that are told apart.
const MAX_ROUTES: usize = 100;
/// What stands for every label value beyond a cap.
const OTHER: &str = "other";

type Count = Counter<u64>;
type Dollars = Counter<f64, AtomicU64>;

/// One label with a value from a set of ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Word {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rule {
    rule: String,
    result: &'static str,
}

/// Who embeds, and what was known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Item {
    source: &'static str,
    result: &'static str,
}

/// A result and, of some, the reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reasoned {
    result: &'static str,
    reason: &'static str,
}

/// Tenant, task, and what is told apart for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Whose {
    tenant: String,
    task: String,
    kind: &'static str,
}

/// A route and what the cache did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteResult {
    route: String,
    result: &'static str,
}

/// A route and a lever.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLever {
    route: String,
    lever: &'static str,
}

/// A route alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// Ages of answers: 1 s to about 12 days, each bound four times the last.
fn ages() -> Histogram {
    Histogram::new((0..11).map(|power| f64::from(1 << (2 * power))))
}

/// All metrics of one sidecar.
pub struct Metrics {
    registry: Registry,
    admits: Family<Word, Count>,
    lookups: Family<Word, Count>,
    items: Family<Item, Count>,
    settled: Family<Word, Count>,
    refused: Family<Word, Count>,
    stored: Family<Word, Count>,
    leases: Family<Word, Count>,
    waits: Family<Word, Count>,
    overs: Family<Rule, Count>,
    compared: Family<Reasoned, Count>,
    compared_stores: Family<Word, Count>,
    audits: Family<RouteResult, Count>,
    thresholds: Family<Route, Gauge<f64, AtomicU64>>,
    false_hits: Family<Route, Gauge<f64, AtomicU64>>,
    compared_seconds: Histogram,
    texts: Family<Word, Count>,
    texts_seconds: Histogram,
    conversation_reads: Family<Word, Count>,
    conversation_writes: Family<Word, Count>,
    relays: Family<Word, Count>,
    summaries: Family<Word, Count>,
    admit_seconds: Histogram,
    settle_seconds: Histogram,
    requests: Family<Whose, Count>,
    tokens: Family<Whose, Count>,
    tokens_from_cache: Family<Whose, Count>,
    cost: Family<Whose, Dollars>,
    saved: Family<Whose, Dollars>,
    unknown: Family<Whose, Count>,
    route_cache: Family<RouteResult, Count>,
    route_saved: Family<RouteLever, Dollars>,
    hit_age: Family<Route, Histogram, fn() -> Histogram>,
    /// Routes that have series of their own.
    routes: Mutex<HashSet<String>>,
    /// Tenants and tasks that have series of their own.
    whose: Mutex<HashSet<(String, String)>>,
    whose_cap: usize,
    gauges: Vec<(&'static str, Gauge<i64>)>,
}

/// A number that is read when metrics are asked for: name, help, value.
pub type Reading = (&'static str, &'static str, i64);

impl Metrics {
    /// Metrics whose families by tenant and task have at most `series` series (and those of
    /// `other`); `readings` names what [`Metrics::encode`] will be given.
    #[must_use]
    pub fn new(series: usize, readings: &[Reading]) -> Self {
        let mut registry = Registry::with_prefix("sluice");
        let mut gauges = Vec::with_capacity(readings.len());
        for &(name, help, _) in readings {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauges.push((name, gauge));
        }
        // 50 µs to about 1.6 s.
        let buckets = || (0..16).map(|power| 50e-6 * f64::from(1 << power));
        let mut metrics = Metrics {
            registry,
            admits: Family::default(),
            lookups: Family::default(),
            items: Family::default(),
            settled: Family::default(),
            refused: Family::default(),
            stored: Family::default(),
            leases: Family::default(),
            waits: Family::default(),
            overs: Family::default(),
            compared: Family::default(),
            compared_stores: Family::default(),
            audits: Family::default(),
            thresholds: Family::default(),
            false_hits: Family::default(),
            compared_seconds: Histogram::new(buckets()),
            texts: Family::default(),
            texts_seconds: Histogram::new(buckets()),
            conversation_reads: Family::default(),
            conversation_writes: Family::default(),
            relays: Family::default(),
            summaries: Family::default(),
            admit_seconds: Histogram::new(buckets()),
            settle_seconds: Histogram::new(buckets()),
            requests: Family::default(),
            tokens: Family::default(),
            tokens_from_cache: Family::default(),
            cost: Family::default(),
            saved: Family::default(),
            unknown: Family::default(),
            route_cache: Family::default(),
            route_saved: Family::default(),
            hit_age: Family::new_with_constructor(ages),
            routes: Mutex::default(),
            whose: Mutex::default(),
            whose_cap: (series / KINDS).max(1),
            gauges,
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let it = &mut self.registry;
        it.register("admits", "Admissions by verdict", self.admits.clone());
        it.register(
            "cache_lookups",
            "Cache look-ups by result",
            self.lookups.clone(),
        );
        it.register(
            "embedding_items",
            "Texts to embed, for clients and for the semantic cache, by what was known of them",
            self.items.clone(),
        );
        it.register(
            "cache_stores",
            "Answers to store by result",
            self.stored.clone(),
        );
        it.register(
            "semantic_lookups",
            "Look-ups by meaning, by result and by the guard that refused the nearest",
            self.compared.clone(),
        );
        it.register(
            "semantic_stores",
            "Questions to keep by result",
            self.compared_stores.clone(),
        );
        it.register(
            "semantic_audits",
            "Audited answers by meaning, by route and by what the two answers say",
            self.audits.clone(),
        );
        it.register(
            "semantic_threshold",
            "Probability from which two questions count as one, of routes where it finds itself",
            self.thresholds.clone(),
        );
        it.register(
            "semantic_false_hit_estimate",
            "Share of false answers by meaning, smoothed over about 200 audits, by route",
            self.false_hits.clone(),
        );
        it.register_with_unit(
            "semantic_lookup",
            "Time of a look-up by meaning",
            Unit::Seconds,
            self.compared_seconds.clone(),
        );
        it.register(
            "relevance_texts",
            "Texts that were to be compared with a question, by what was known of them in time",
            self.texts.clone(),
        );
        it.register_with_unit(
            "relevance",
            "Time to compare a request's texts",
            Unit::Seconds,
            self.texts_seconds.clone(),
        );
        it.register(
            "conversation_reads",
            "Questions for what a conversation's last turn wanted told, by result",
            self.conversation_reads.clone(),
        );
        it.register(
            "conversation_writes",
            "What turns of conversations wanted told, by result",
            self.conversation_writes.clone(),
        );
        it.register(
            "relays",
            "Requests relayed, by the attempt that was answered",
            self.relays.clone(),
        );
        it.register(
            "summaries",
            "Texts that were to be written of conversations, by result",
            self.summaries.clone(),
        );
        it.register("leases", "Leases asked for by result", self.leases.clone());
        it.register(
            "waits",
            "Waits for another request's answer by how they ended",
            self.waits.clone(),
        );
        it.register(
            "settled",
            "Settled requests: booked, or repeated by a retry",
            self.settled.clone(),
        );
        it.register(
            "refused",
            "Calls refused, by kind of error",
            self.refused.clone(),
        );
        it.register(
            "budget_over",
            "Requests over a budget, by rule, and what came of it",
            self.overs.clone(),
        );
        it.register_with_unit(
            "admit",
            "Time to answer an admit",
            Unit::Seconds,
            self.admit_seconds.clone(),
        );
        it.register_with_unit(
            "settle",
            "Time to answer a settle",
            Unit::Seconds,
            self.settle_seconds.clone(),
        );
        it.register(
            "requests",
            "Settled requests by tenant, task and outcome",
            self.requests.clone(),
        );
        it.register(
            "tokens",
            "Tokens of requests that went upstream, by tenant, task and kind",
            self.tokens.clone(),
        );
        it.register(
            "tokens_from_cache",
            "Tokens of answers that came from cache, by tenant, task and kind",
            self.tokens_from_cache.clone(),
        );
        it.register(
            "cost_dollars",
            "Dollars as asked and as paid, where the price is known, by tenant and task",
            self.cost.clone(),
        );
        it.register("saved_dollars", "Dollars saved (never falling: a lever that cost more is left out) by tenant, task and lever", self.saved.clone());
        it.register(
            "unknown_prices",
            "Requests without a known price, by tenant and task",
            self.unknown.clone(),
        );
        it.register(
            "route_cache",
            "Settled requests by route and what the cache did, where that lever is on",
            self.route_cache.clone(),
        );
        it.register(
            "route_saved_dollars",
            "Dollars saved (never falling: a lever that cost more is left out) by route and lever",
            self.route_saved.clone(),
        );
        it.register_with_unit(
            "cache_hit_age",
            "Age of the answers that were given from cache, by route",
            Unit::Seconds,
            self.hit_age.clone(),
        );
    }

    /// An admit was answered.
    pub fn admitted(&self, verdict: &'static str, took: Duration) {
        self.admits.get_or_create(&Word { result: verdict }).inc();
        self.admit_seconds.observe(took.as_secs_f64());
    }

    /// How many questions of the semantic cache had a vector, and how many were embedded, since the
    /// start.
    pub fn embedded(&self, (hits, misses): (u64, u64)) {
        for (result, number) in [("hit", hits), ("miss", misses)] {
            let source = "internal";
            let counter = self.items.get_or_create(&Item { source, result });
            counter.inner().fetch_max(number, Ordering::Relaxed);
        }
    }

    /// A key was looked up.
    pub fn looked_up(&self, result: &'static str) {
        self.lookups.get_or_create(&Word { result }).inc();
    }

    /// Texts to embed were looked up.
    pub fn items(&self, source: &'static str, result: &'static str, number: u64) {
        if number > 0 {
            self.items
                .get_or_create(&Item { source, result })
                .inc_by(number);
        }
    }

    /// A question was looked up by meaning.
    pub fn compared(&self, told: Told, took: Duration) {
        let Told { result, reason } = told;
        self.compared
            .get_or_create(&Reasoned { result, reason })
            .inc();
        self.compared_seconds.observe(took.as_secs_f64());
    }

    /// A question was to be kept.
    pub fn compared_stored(&self, result: &'static str) {
        self.compared_stores.get_or_create(&Word { result }).inc();
    }

    /// A request's texts were compared.
    pub(crate) fn texts_compared(&self, tally: Tally, took: Duration) {
        for (result, number) in [
            ("known", tally.known),
            ("embedded", tally.embedded),
            ("late", tally.late),
            ("dropped", tally.dropped),
            ("unasked", tally.unasked),
            ("error", tally.failed),
        ] {
            self.texts(result, number);
        }
        self.texts_seconds.observe(took.as_secs_f64());
    }

    /// So many texts were to be compared.
    pub(crate) fn texts(&self, result: &'static str, number: u64) {
        if number > 0 {
            self.texts.get_or_create(&Word { result }).inc_by(number);
        }
    }

    /// A conversation's last turn was asked for.
    pub(crate) fn conversation_read(&self, result: &'static str) {
        self.conversation_reads
            .get_or_create(&Word { result })
            .inc();
    }

    /// What a turn of a conversation wanted told was to be kept.
    pub(crate) fn conversation_written(&self, result: &'static str) {
        self.conversation_writes
            .get_or_create(&Word { result })
            .inc();
    }

    /// A request was relayed, or could not be.
    pub(crate) fn relayed(&self, result: &'static str) {
        self.relays.get_or_create(&Word { result }).inc();
    }

    /// A text was to be written of a conversation.
    pub(crate) fn summary(&self, result: &'static str) {
        self.summaries.get_or_create(&Word { result }).inc();
    }

    /// An audit was judged, or could not be.
    pub fn audited(&self, route: &str, result: &'static str) {
        let route = self.route(route);
        self.audits
            .get_or_create(&RouteResult { route, result })
            .inc();
    }

    /// Where the thresholds of routes are. Routes beyond the cap are not told: they have no one
    /// threshold.
    pub fn thresholds(&self, all: &[(String, Found)]) {
        for (name, found) in all {
            let route = self.route(name);
            // The one that those beyond share has no name to show.
            if name.starts_with('\0') || route == OTHER && name != OTHER {
                continue;
            }
            let label = Route { route };
            self.thresholds.get_or_create(&label).set(found.threshold());
            if let Some(estimate) = found.estimate() {
                self.false_hits.get_or_create(&label).set(estimate);
            }
        }
    }

    /// An answer was to be stored.
    pub fn stored(&self, result: &'static str) {
        self.stored.get_or_create(&Word { result }).inc();
    }

    /// A lease was asked for.
    pub fn leased(&self, result: &'static str) {
        self.leases.get_or_create(&Word { result }).inc();
    }

    /// A wait for another request's answer ended.
    pub fn waited(&self, result: &'static str) {
        self.waits.get_or_create(&Word { result }).inc();
    }

    /// A call was refused.
    pub fn refused(&self, kind: &'static str) {
        self.refused.get_or_create(&Word { result: kind }).inc();
    }

    /// A rule was over its limit.
    pub fn over(&self, rule: u16, result: &'static str) {
        let rule = if rule < MAX_RULES {
            rule.to_string()
        } else {
            OTHER.to_owned()
        };
        self.overs.get_or_create(&Rule { rule, result }).inc();
    }

    /// A batch was settled.
    pub fn settled(&self, (booked, repeated): (u32, u32), took: Duration) {
        let add = |result, by: u32| {
            self.settled
                .get_or_create(&Word { result })
                .inc_by(u64::from(by))
        };
        add("booked", booked);
        add("repeated", repeated);
        self.settle_seconds.observe(took.as_secs_f64());
    }

    /// A request was booked.
    pub fn booked(&self, record: &Record) {
        let (tenant, task) = self.whose(&record.tenant, &record.task);
        let of = |kind| Whose {
            tenant: tenant.clone(),
            task: task.clone(),
            kind,
        };
        self.requests
            .get_or_create(&of(record.outcome.name()))
            .inc();
        let usage = &record.usage;
        let tokens_of = match record.cache.answers() {
            true => &self.tokens_from_cache,
            false => &self.tokens,
        };
        for (kind, tokens) in [
            ("prompt", usage.prompt),
            ("cached", usage.cached),
            ("cache_write", usage.cache_write),
            ("completion", usage.completion),
            ("reasoning", usage.reasoning),
        ] {
            if tokens > 0 {
                tokens_of.get_or_create(&of(kind)).inc_by(tokens);
            }
        }
        for (kind, amount) in [("as_asked", record.as_asked), ("paid", record.cost)] {
            match amount {
                Some(usd) => add(&self.cost, &of(kind), usd),
                None => {
                    self.unknown.get_or_create(&of(kind)).inc();
                }
            }
        }
        for lever in Lever::ALL {
            let saved = record.saved.of(lever);
            if saved != Usd::ZERO {
                add(&self.saved, &of(lever.name()), saved);
            }
        }
        self.booked_on_route(record);
    }

    fn booked_on_route(&self, record: &Record) {
        let route = self.route(&record.route);
        if record.cache != CacheResult::Off {
            let labels = RouteResult {
                route: route.clone(),
                result: record.cache.name(),
            };
            self.route_cache.get_or_create(&labels).inc();
        }
        for lever in Lever::ALL {
            let saved = record.saved.of(lever);
            if saved > Usd::ZERO {
                let labels = RouteLever {
                    route: route.clone(),
                    lever: lever.name(),
                };
                let dollars = saved.dollars();
                self.route_saved.get_or_create(&labels).inc_by(dollars);
            }
        }
        if let Some(age) = record.age_secs {
            let label = Route { route };
            self.hit_age.get_or_create(&label).observe(age as f64);
        }
    }

    /// Label of a route: its own while there is room, else `other`.
    fn route(&self, route: &str) -> String {
        let route = crate::text::cut(route, MAX_LABEL).to_owned();
        let mut known = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&route) {
            return route;
        }
        if known.len() < MAX_ROUTES {
            known.insert(route.clone());
            return route;
        }
        OTHER.to_owned()
    }

    /// Labels of a tenant and a task: their own while there is room, else `other`.
    fn whose(&self, tenant: &str, task: &str) -> (String, String) {
        let cut = |text: &str| crate::text::cut(text, MAX_LABEL).to_owned();
        let pair = (cut(tenant), cut(task));
        let mut known = self.whose.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&pair) {
            return pair;
        }
        if known.len() < self.whose_cap {
            known.insert(pair.clone());
            return pair;
        }
        (OTHER.to_owned(), OTHER.to_owned())
    }

    /// Everything in OpenMetrics' text format.
    ///
    /// # Errors
    /// None that are known: it writes to a string.
    pub fn encode(&self, readings: &[Reading]) -> Result<String, fmt::Error> {
        for (name, _, value) in readings {
            if let Some((_, gauge)) = self.gauges.iter().find(|(known, _)| known == name) {
                gauge.set(*value);
            }
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Counters only rise, so a negative amount (a lever that cost more) is left to the ledger.
fn add(family: &Family<Whose, Dollars>, whose: &Whose, amount: Usd) {
    if amount > Usd::ZERO {
        family.get_or_create(whose).inc_by(amount.dollars());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tenant: &str, task: &str) -> Record {
        Record {
            tenant: tenant.to_owned(),
            task: task.to_owned(),
            as_asked: Some(Usd::from_dollars(2.0)),
            ..Record::default()
        }
    }

    #[test]
    fn tenants_and_tasks_beyond_the_cap_are_counted_under_other() {
        let metrics = Metrics::new(10, &[]);
        for n in 0..50 {
            metrics.booked(&record(&format!("tenant{n}"), "chat"));
        }
        metrics.booked(&record("tenant0", "chat"));
        let text = metrics.encode(&[]).unwrap();
        assert!(
            text.contains(
                r#"sluice_requests_total{tenant="tenant0",task="chat",kind="answered"} 2"#
            ),
            "{text}"
        );
        assert!(
            text.contains(
                r#"sluice_requests_total{tenant="other",task="other",kind="answered"} 48"#
            ),
            "{text}"
        );
        assert_eq!(text.matches("sluice_requests_total{").count(), 3);
    }

    #[test]
    fn label_values_that_clients_choose_cannot_break_the_format() {
        let metrics = Metrics::new(100, &[]);
        metrics.booked(&record("a\"} 1\nevil 9", &"ü".repeat(100)));
        let text = metrics.encode(&[]).unwrap();
        assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
        assert!(!text.contains(&"ü".repeat(33)));
    }

    #[test]
    fn an_unknown_price_is_counted_apart_and_not_as_zero() {
        let metrics = Metrics::new(100, &[]);
        metrics.booked(&record("a", "b"));
        let text = metrics.encode(&[]).unwrap();
        assert!(
            text.contains(r#"sluice_unknown_prices_total{tenant="a",task="b",kind="paid"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"sluice_cost_dollars_total{tenant="a",task="b",kind="as_asked"} 2"#),
            "{text}"
        );
        assert!(!text.contains(r#"sluice_cost_dollars_total{tenant="a",task="b",kind="paid"}"#));
    }

    #[test]
    fn what_the_cache_does_is_told_by_route_up_to_a_cap() {
        let metrics = Metrics::new(100, &[]);
        let mut record = record("a", "b");
        record.cache = CacheResult::Semantic;
        record.age_secs = Some(90);
        record.saved.cache = Usd::from_dollars(0.5);
        record.saved.trim = Usd::from_dollars(-0.5);
        for n in 0..120 {
            record.route = format!("route{n}");
            metrics.booked(&record);
        }
        record.cache = CacheResult::Off;
        record.age_secs = None;
        metrics.booked(&record);
        let text = metrics.encode(&[]).unwrap();
        for part in [
            r#"sluice_route_cache_total{route="route0",result="semantic"} 1"#,
            r#"sluice_route_cache_total{route="other",result="semantic"} 20"#,
            r#"sluice_route_saved_dollars_total{route="other",lever="cache"} 10.5"#,
            r#"sluice_cache_hit_age_seconds_bucket{le="64.0",route="other"} 0"#,
            r#"sluice_cache_hit_age_seconds_bucket{le="256.0",route="other"} 20"#,
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains(r#"lever="trim""#), "counters only rise");
        assert!(!text.contains(r#"result="off""#), "not looked up");
        assert_eq!(text.matches("sluice_route_cache_total{").count(), 101);
    }
}
