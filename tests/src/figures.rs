//! The same figures from three sides (ledger, Envoy's metrics, provider's books), and whether they
//! agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Deserializer};
use sluice_wire::{CacheResult, Lever, Usd};

use crate::envoy::Metrics;
use crate::provider::{Account, Stats};

/// What `GET /report` answers, as far as the demo and the tests read it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Report {
    /// Over everything.
    pub total: Sums,
    /// By breakdown.
    #[serde(default)]
    pub by: BTreeMap<String, Vec<Row>>,
}

impl Report {
    /// The lines of a breakdown; none where it was not asked for.
    #[must_use]
    pub fn rows(&self, by: &str) -> &[Row] {
        self.by.get(by).map_or(&[], Vec::as_slice)
    }
}

/// One line of a breakdown.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Row {
    /// What it is about, by dimension.
    pub key: BTreeMap<String, String>,
    /// Its sums.
    #[serde(flatten)]
    pub sums: Sums,
}

/// What a set of requests came to.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Sums {
    /// Requests.
    pub requests: u64,
    /// Requests by outcome.
    #[serde(default)]
    pub outcomes: BTreeMap<String, u64>,
    /// Requests answered from cache.
    pub cache_hits: u64,
    /// Requests whose tokens are estimates.
    pub estimated: u64,
    /// Their tokens.
    pub tokens: Tokens,
    /// Dollars as asked.
    pub as_asked: Money,
    /// Dollars as paid.
    pub cost: Money,
    /// Dollars by lever, and `total`.
    pub saved: BTreeMap<String, Money>,
}

impl Sums {
    /// What a lever saved.
    #[must_use]
    pub fn saved_by(&self, lever: Lever) -> Money {
        self.saved.get(lever.name()).copied().unwrap_or_default()
    }
}

/// Tokens by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Tokens {
    /// Prompt tokens, those below included.
    pub prompt: u64,
    /// Read from the provider's prefix cache.
    pub cached: u64,
    /// Written to it.
    pub cache_write: u64,
    /// Completion tokens, reasoning included.
    pub completion: u64,
    /// Reasoning tokens.
    pub reasoning: u64,
}

impl Tokens {
    fn add(&mut self, other: &Tokens) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.cache_write += other.cache_write;
        self.completion += other.completion;
        self.reasoning += other.reasoning;
    }

    fn of(account: &Account) -> Tokens {
        Tokens {
            prompt: account.prompt,
            cached: account.cached,
            cache_write: account.cache_write,
            completion: account.completion,
            reasoning: account.reasoning,
        }
    }

    /// Prompt and completion tokens.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.prompt + self.completion
    }
}

/// Picodollars; in the report as `{"exact": "0.25", …}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(pub i128);

impl Money {
    /// In dollars.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / Usd::PER_DOLLAR as f64
    }
}

/// Dollars with six decimals: a small model's answer costs a few hundred-thousandths.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.dollars())
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Money, D::Error> {
        #[derive(Deserialize)]
        struct Shown {
            exact: String,
        }
        let shown = Shown::deserialize(from)?;
        exact(&shown.exact)
            .ok_or_else(|| serde::de::Error::custom(format!("no dollars: {}", shown.exact)))
    }
}

/// Reads plain decimal dollars with up to twelve decimals.
fn exact(text: &str) -> Option<Money> {
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.len() > 12 {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let fraction: i128 = format!("{fraction:0<12}").parse().ok()?;
    Some(Money(
        sign * (whole * i128::from(Usd::PER_DOLLAR) + fraction),
    ))
}

/// The figures of one model that one side tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Requests that the provider answered.
    pub requests: u64,
    /// Their tokens.
    pub tokens: Tokens,
    /// What they cost; none where a side does not tell.
    pub cost: Option<Money>,
}

/// Upstream figures by model, from the ledgers' reports. The breakdown [`BREAKDOWN`] must be in
/// each. Cached answers took nothing from the provider.
#[must_use]
pub fn of_ledger(reports: &[Report]) -> BTreeMap<String, Told> {
    let mut models: BTreeMap<String, Told> = BTreeMap::new();
    for row in reports.iter().flat_map(|report| report.rows(BREAKDOWN)) {
        let answered = row
            .sums
            .outcomes
            .get("answered")
            .copied()
            .unwrap_or_default();
        if row.key.get("cache").is_some_and(|cache| from_cache(cache)) || answered == 0 {
            continue;
        }
        let model = row.key.get("model").cloned().unwrap_or_default();
        let told = models.entry(model).or_default();
        told.requests += answered;
        told.tokens.add(&row.sums.tokens);
        let cost = told.cost.unwrap_or_default().0 + row.sums.cost.0;
        told.cost = Some(Money(cost));
    }
    models
}

/// Whether what the cache did, by its name, is to answer.
fn from_cache(name: &str) -> bool {
    let mut answering = CacheResult::ALL.into_iter().filter(|it| it.answers());
    answering.any(|it| it.name() == name)
}

/// The breakdown that [`of_ledger`] reads.
pub const BREAKDOWN: &str = "model:cache";

/// Upstream figures by model, from the provider's books.
#[must_use]
pub fn of_provider(stats: &[Stats]) -> BTreeMap<String, Told> {
    let mut models: BTreeMap<String, Told> = BTreeMap::new();
    for (model, account) in stats.iter().flat_map(|stats| &stats.models) {
        let told = models.entry(model.clone()).or_default();
        told.requests += account.requests;
        told.tokens.add(&Tokens::of(account));
        let cost =
            told.cost.unwrap_or_default().0 + i128::from(account.picodollars.unwrap_or_default());
        told.cost = Some(Money(cost));
    }
    models
}

/// Upstream figures by model, from Envoy's counters. They do not tell cache writes apart, and
/// dollars only rounded.
#[must_use]
pub fn of_metrics(envoys: &[Metrics]) -> BTreeMap<String, Told> {
    let label = |metric: &crate::envoy::Metric, name: &str| {
        metric.labels.get(name).cloned().unwrap_or_default()
    };
    let mut models: BTreeMap<String, Told> = BTreeMap::new();
    for metric in envoys.iter().flat_map(Metrics::ours) {
        let told = |models: &mut BTreeMap<String, Told>, add: &dyn Fn(&mut Told)| {
            add(models.entry(label(metric, "model")).or_default());
        };
        if metric.name == "sluice.requests"
            && label(metric, "outcome") == "answered"
            && !from_cache(&label(metric, "cache"))
        {
            told(&mut models, &|told| told.requests += metric.value);
        }
        if metric.name != "sluice.tokens" || label(metric, "source") != "upstream" {
            continue;
        }
        told(&mut models, &|told| {
            let tokens = &mut told.tokens;
            match label(metric, "kind").as_str() {
                "prompt" => tokens.prompt += metric.value,
                "prompt_cached" => tokens.cached += metric.value,
                "prompt_cache_write" => tokens.cache_write += metric.value,
                "completion" => tokens.completion += metric.value,
                "reasoning" => tokens.reasoning += metric.value,
                _ => {}
            }
        });
    }
    models
}

/// Where the three sides differ; empty when they agree to the token (and ledger and provider to
/// the picodollar).
#[must_use]
pub fn differences(
    ledger: &BTreeMap<String, Told>,
    provider: &BTreeMap<String, Told>,
    metrics: &BTreeMap<String, Told>,
) -> Vec<String> {
    let models: BTreeSet<&String> = ledger
        .keys()
        .chain(provider.keys())
        .chain(metrics.keys())
        .collect();
    let mut found = Vec::new();
    for model in models {
        let side = |side: &BTreeMap<String, Told>| side.get(model).copied().unwrap_or_default();
        let (ledger, provider, metrics) = (side(ledger), side(provider), side(metrics));
        let tells_writes = metrics.tokens.cache_write > 0;
        let figures = |told: &Told, cost: bool| -> Vec<(&'static str, i128)> {
            let tokens = &told.tokens;
            let mut list = vec![
                ("requests", told.requests.into()),
                ("prompt tokens", tokens.prompt.into()),
                ("cached prompt tokens", tokens.cached.into()),
                ("completion tokens", tokens.completion.into()),
                ("reasoning tokens", tokens.reasoning.into()),
            ];
            if cost || tells_writes {
                list.push(("cache-write tokens", tokens.cache_write.into()));
            }
            if cost {
                list.push(("picodollars", told.cost.unwrap_or_default().0));
            }
            list
        };
        let mut compare = |one: (&str, &Told), two: (&str, &Told), cost: bool| {
            for ((name, left), (_, right)) in
                figures(one.1, cost).into_iter().zip(figures(two.1, cost))
            {
                if left != right {
                    found.push(format!(
                        "{model}: {left} {name} by the {}, {right} by the {}",
                        one.0, two.0
                    ));
                }
            }
        };
        compare(("ledger", &ledger), ("provider", &provider), true);
        compare(("ledger", &ledger), ("metrics", &metrics), false);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(prompt: u64, cost: Option<i128>) -> BTreeMap<String, Told> {
        let tokens = Tokens {
            prompt,
            ..Tokens::default()
        };
        let told = Told {
            requests: 1,
            tokens,
            cost: cost.map(Money),
        };
        BTreeMap::from([("m".to_owned(), told)])
    }

    #[test]
    fn one_token_or_one_picodollar_is_a_difference() {
        assert_eq!(
            differences(&side(5, Some(7)), &side(5, Some(7)), &side(5, None)),
            [""; 0]
        );
        assert_eq!(
            differences(&side(5, Some(7)), &side(5, Some(8)), &side(5, None)).len(),
            1
        );
        assert_eq!(
            differences(&side(5, Some(7)), &side(5, Some(7)), &side(4, None)).len(),
            1
        );
        assert_eq!(
            differences(&side(5, Some(7)), &BTreeMap::new(), &side(5, None)).len(),
            3
        );
    }

    #[test]
    fn money_is_read_exactly() {
        assert_eq!(exact("-12.500000000001"), Some(Money(-12_500_000_000_001)));
        assert_eq!(exact("3"), Some(Money(3_000_000_000_000)));
        assert_eq!(exact("0.0000000000001"), None);
    }
}
