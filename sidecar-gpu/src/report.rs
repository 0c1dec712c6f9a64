//! The report: what requests cost, what they would have cost as asked, and which lever saved what.
//!
//! Served as JSON by `/report` and printed as a table by `sluice report`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_wire::{Lever, Record, Usd};

/// Sums over all requests asked for, and by each breakdown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// From when on, milliseconds since the epoch, if bounded.
    pub from_ms: Option<u64>,
    /// Until before when, if bounded.
    pub to_ms: Option<u64>,
    /// The tenant that the caller may see; none: all.
    pub tenant: Option<String>,
    /// Over everything.
    pub total: Sums,
    /// By breakdown, as it was asked for (`task`, `tenant:model`).
    pub by: BTreeMap<String, Vec<Row>>,
    /// Breakdowns that were cut to their most expensive rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// Whose records these are, and up to when.
    #[serde(default)]
    pub covers: Covers,
    /// The latest records, where they were asked for, latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Booked>,
}

/// Whose records a report sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covers {
    /// What all sidecars have published, rather than the ledgers of `sidecars` themselves.
    pub shared: bool,
    /// Whether the sums have all that these sidecars have booked, but for the last seconds.
    pub complete: bool,
    /// Whose.
    pub sidecars: Vec<Published>,
    /// Sidecars that share their ledger and are not in this report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What else a reader must know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How far a sidecar has published what it booked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its name, the same after a restart.
    pub sidecar: String,
    /// All that it booked until then is in the sums, milliseconds since the epoch. None: its
    /// ledger was read itself; or it has never published all that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Seconds since then, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_secs: Option<u64>,
    /// Records that are not in the sums yet, at the most.
    #[serde(default)]
    pub pending: u64,
    /// It has ended in good order, with all that it booked in the sums.
    #[serde(default)]
    pub closed: bool,
}

/// One record as it was booked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Booked {
    /// When, milliseconds since the epoch.
    pub booked_ms: u64,
    /// Whose ledger it is in.
    pub sidecar: String,
    /// The record.
    #[serde(flatten)]
    pub record: Record,
}

/// One line of a breakdown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What the line is about, by dimension. An empty value means that none was stated.
    pub key: BTreeMap<String, String>,
    /// Its sums.
    #[serde(flatten)]
    pub sums: Sums,
}

/// What a set of requests came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Requests.
    pub requests: u64,
    /// Requests by [`sluice_wire::Outcome::name`].
    pub outcomes: BTreeMap<String, u64>,
    /// Requests answered from cache.
    pub cache_hits: u64,
    /// Requests whose tokens are estimates.
    pub estimated: u64,
    /// Tokens of requests that went upstream: what the provider counted.
    pub tokens: Tokens,
    /// Tokens of answers that came from cache: what was not spent again.
    pub tokens_from_cache: Tokens,
    /// What they would have cost as asked, where the price is known.
    pub as_asked: Money,
    /// What they did cost, where the price is known.
    pub cost: Money,
    /// What the levers saved.
    pub saved: ByLever,
    /// What levers in mode `dry` would have saved on top.
    pub would_save: ByLever,
    /// What trimming left out, and the discounts that it lost for that.
    #[serde(default)]
    pub trim: Trimming,
    /// Requests that the money above leaves out.
    pub unknown_prices: UnknownPrices,
}

/// Tokens by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// Requests without a known price. They are in no sum of money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownPrices {
    /// Of the model that was asked for.
    pub as_asked: u64,
    /// Of the model that was used.
    pub cost: u64,
}

impl Report {
    /// Adds the report of another sidecar's ledger over the same query.
    pub fn add(&mut self, other: Report) {
        self.total.add(&other.total);
        self.covers.add(other.covers);
        self.records.extend(other.records);
        self.records
            .sort_by_key(|it| std::cmp::Reverse(it.booked_ms));
        for (name, rows) in other.by {
            let ours = self.by.entry(name).or_default();
            let mut by_key: BTreeMap<_, Sums> =
                ours.drain(..).map(|it| (it.key, it.sums)).collect();
            for row in rows {
                by_key.entry(row.key).or_default().add(&row.sums);
            }
            ours.extend(by_key.into_iter().map(|(key, sums)| Row { key, sums }));
            sort(ours);
        }
        for name in other.cut {
            if !self.cut.contains(&name) {
                self.cut.push(name);
            }
        }
    }
}

impl Covers {
    /// This is one sidecar's own ledger, because the shared one could not be read for `reason`;
    /// `others` were there when it last could.
    pub(crate) fn leave_out(&mut self, others: Vec<String>, reason: &str) {
        self.complete = false;
        self.missing = others;
        self.notes.push(format!(
            "the ledger that all sidecars share could not be read ({reason}): this is one \
             sidecar's own"
        ));
    }

    fn add(&mut self, other: Covers) {
        self.shared |= other.shared;
        self.complete &= other.complete;
        self.sidecars.extend(other.sidecars);
        self.missing.extend(other.missing);
        let covered = |name: &String| self.sidecars.iter().any(|it| it.sidecar == *name);
        self.missing.retain(|name| !covered(name));
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
}

/// Most expensive as asked first; equal ones by name, so that a report is reproducible.
pub(crate) fn sort(rows: &mut [Row]) {
    rows.sort_by(|a, b| (b.sums.as_asked.cmp(&a.sums.as_asked)).then_with(|| a.key.cmp(&b.key)));
}

impl Sums {
    pub(crate) fn add(&mut self, other: &Sums) {
        self.requests += other.requests;
        for (outcome, requests) in &other.outcomes {
            *self.outcomes.entry(outcome.clone()).or_default() += requests;
        }
        self.cache_hits += other.cache_hits;
        self.estimated += other.estimated;
        self.tokens.add(&other.tokens);
        self.tokens_from_cache.add(&other.tokens_from_cache);
        self.as_asked.0 += other.as_asked.0;
        self.cost.0 += other.cost.0;
        self.saved.add(&other.saved);
        self.would_save.add(&other.would_save);
        self.trim.add(&other.trim);
        self.unknown_prices.as_asked += other.unknown_prices.as_asked;
        self.unknown_prices.cost += other.unknown_prices.cost;
    }
}

impl Tokens {
    fn add(&mut self, other: &Tokens) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.cache_write += other.cache_write;
        self.completion += other.completion;
        self.reasoning += other.reasoning;
    }
}

/// Dollars by lever, in the order in which savings are attributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ByLever {
    /// All levers together.
    pub total: Money,
    /// Tiered routing.
    pub route: Money,
    /// Trimming.
    pub trim: Money,
    /// Caching.
    pub cache: Money,
    /// Batching.
    pub batch: Money,
    /// Own hardware.
    pub offload: Money,
}

impl ByLever {
    /// From one amount per lever, in the order of [`Lever::ALL`].
    #[must_use]
    pub fn new(each: [Money; 5]) -> Self {
        let [route, trim, cache, batch, offload] = each;
        ByLever {
            total: Money(each.iter().map(|it| it.0).sum()),
            route,
            trim,
            cache,
            batch,
            offload,
        }
    }

    fn add(&mut self, other: &ByLever) {
        let each = Lever::ALL.map(|lever| Money(self.of(lever).0 + other.of(lever).0));
        *self = ByLever::new(each);
    }

    /// The share of one lever.
    #[must_use]
    pub fn of(&self, lever: Lever) -> Money {
        match lever {
            Lever::Route => self.route,
            Lever::Trim => self.trim,
            Lever::Cache => self.cache,
            Lever::Batch => self.batch,
            Lever::Offload => self.offload,
        }
    }
}

/// What trimming came to, over the requests of which its part is known: all that it had a hand in,
/// but for those that were booked before ledgers told it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trimming {
    /// These requests.
    pub requests: u64,
    /// Prompt tokens that were not sent.
    pub tokens: u64,
    /// What these cost at list price.
    pub gross: Money,
    /// Discounts of the provider's prefix cache that were lost for it, less the surcharges that were
    /// spared; see [`sluice_wire::Trimmed`].
    pub lost: Money,
    /// `gross - lost`: their part of what the lever saved.
    pub net: Money,
}

impl Trimming {
    /// From requests and tokens, and gross and lost.
    #[must_use]
    pub fn new((requests, tokens): (u64, u64), (gross, lost): (Money, Money)) -> Self {
        Trimming {
            requests,
            tokens,
            gross,
            lost,
            net: Money(gross.0 - lost.0),
        }
    }

    fn add(&mut self, other: &Trimming) {
        *self = Trimming::new(
            (self.requests + other.requests, self.tokens + other.tokens),
            (
                Money(self.gross.0 + other.gross.0),
                Money(self.lost.0 + other.lost.0),
            ),
        );
    }
}

/// A sum of money in picodollars; 128 bits, because a ledger's total passes what [`Usd`] holds.
///
/// In JSON it is `{"exact": "1.25", "number": 1.25}`: the string for sums, the number for charts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(pub i128);

#[derive(Serialize, Deserialize)]
struct Shown {
    exact: String,
    number: f64,
}

impl Money {
    /// In dollars, for display and charts.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / Usd::PER_DOLLAR as f64
    }

    /// Dollars rounded half away from zero to `decimals` (at most 12).
    #[must_use]
    pub fn rounded(self, decimals: u32) -> String {
        let decimals = decimals.min(12);
        let unit = 10_i128.pow(12 - decimals);
        let units = (self.0.abs() + unit / 2) / unit;
        let per = 10_i128.pow(decimals);
        let sign = if self.0 < 0 && units > 0 { "-" } else { "" };
        let width = decimals as usize;
        if width == 0 {
            format!("{sign}{units}")
        } else {
            format!("{sign}{}.{:0width$}", units / per, units % per)
        }
    }
}

/// Plain decimal dollars without trailing zeros.
impl std::fmt::Display for Money {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.rounded(12);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl std::str::FromStr for Money {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("expected dollars like `-12.000345`, found `{text}`");
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 12 || !all_digits(whole) || !all_digits(fraction) {
            return Err(fault());
        }
        let whole: i128 = whole.parse().map_err(|_| fault())?;
        let fraction: i128 = format!("{fraction:0<12}").parse().map_err(|_| fault())?;
        whole
            .checked_mul(i128::from(Usd::PER_DOLLAR))
            .and_then(|whole| whole.checked_add(fraction))
            .map(|amount| Money(sign * amount))
            .ok_or_else(fault)
    }
}

impl Serialize for Money {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Shown {
            exact: self.to_string(),
            number: self.dollars(),
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Shown::deserialize(from)?
            .exact
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_exactly_and_read_back() {
        for (amount, text) in [
            (0, "0"),
            (1, "0.000000000001"),
            (-12_500_000_000_000, "-12.5"),
            (100_000_000_000_000_000_000_000_000, "100000000000000"),
        ] {
            assert_eq!(Money(amount).to_string(), text);
            assert_eq!(text.parse(), Ok(Money(amount)));
            let json = serde_json::to_string(&Money(amount)).unwrap();
            assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), Money(amount));
        }
    }

    #[test]
    fn money_is_rounded_half_away_from_zero() {
        assert_eq!(Money(1_234_550_000_000).rounded(4), "1.2346");
        assert_eq!(Money(-1_234_550_000_000).rounded(4), "-1.2346");
        assert_eq!(Money(-1).rounded(2), "0.00");
        assert_eq!(Money(1_500_000_000_000).rounded(0), "2");
    }

    #[test]
    fn text_that_is_no_money_is_refused() {
        for text in ["", "-", ".5", "1.0000000000001", "1e3", "+1", "1,5"] {
            assert!(text.parse::<Money>().is_err(), "{text}");
        }
    }
}
