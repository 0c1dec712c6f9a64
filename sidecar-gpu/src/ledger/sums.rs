//! Records as whole numbers by label set: what is added up in Redis, and read back exactly.

use std::collections::BTreeMap;

use sluice_wire::{CacheResult, Lever, Record};

use super::query::Dimension;
use crate::report::{ByLever, Money, Sums, Tokens, Trimming, UnknownPrices};

/// What the hourly sums tell records apart by, in the order in which label sets are written.
const BY: [Dimension; 8] = [
    Dimension::Tenant,
    Dimension::Task,
    Dimension::Route,
    Dimension::Endpoint,
    Dimension::Model,
    Dimension::Tier,
    Dimension::Cache,
    Dimension::Outcome,
];
/// Shown for a label that was given up because an hour had too many.
pub(super) const OTHER: &str = "other";

/// One label set. `None`: given up, because the hour had too many. What the cache did and how it
/// ended never are: the sums could not be read without them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels([Option<String>; 8]);

impl Labels {
    pub(super) fn of(record: &Record) -> Labels {
        let text = |it: &str| Some(it.to_owned());
        Labels([
            text(&record.tenant),
            text(&record.task),
            text(&record.route),
            text(&record.endpoint),
            text(&record.model),
            text(&record.tier),
            text(record.cache.name()),
            text(record.outcome.name()),
        ])
    }

    /// With the tenant alone, and without it: what an hour with too many label sets falls back to.
    pub(super) fn folded(&self) -> (Labels, Labels) {
        let [tenant, .., cache, outcome] = &self.0;
        let with = |tenant: Option<String>| {
            let (cache, outcome) = (cache.clone(), outcome.clone());
            Labels([tenant, None, None, None, None, None, cache, outcome])
        };
        (with(tenant.clone()), with(None))
    }

    pub(super) fn encode(&self) -> String {
        serde_json::json!(self.0).to_string()
    }

    pub(super) fn decode(text: &str) -> Option<Labels> {
        serde_json::from_str(text).ok().map(Labels)
    }

    pub(super) fn tenant(&self) -> Option<&str> {
        self.0[0].as_deref()
    }

    /// Whether some label was given up.
    pub(super) fn is_folded(&self) -> bool {
        self.0.contains(&None)
    }

    /// The value of `dimension` for a record of this label set in the hour that starts at
    /// `hour_secs`.
    pub(super) fn value(&self, dimension: Dimension, hour_secs: u64) -> String {
        match BY.iter().position(|it| *it == dimension) {
            Some(index) => self.0[index].as_deref().unwrap_or(OTHER).to_owned(),
            None => {
                let start = i64::try_from(hour_secs).ok();
                let start = start.and_then(|it| jiff::Timestamp::from_second(it).ok());
                let format = match dimension {
                    Dimension::Hour => "%Y-%m-%dT%H:00:00Z",
                    _ => "%Y-%m-%d",
                };
                // As in the ledger's file, a moment beyond the calendar has no name.
                start.map_or_else(String::new, |it| it.strftime(format).to_string())
            }
        }
    }
}

const MONEY: usize = 9;
const TRIM: usize = MONEY + 12;
const LEN: usize = TRIM + 4;
/// From [`MONEY`] on numbers are added up in two halves, because Redis's integers stop at 64 bits:
/// $9.2 million. Of what came later the counts are too: the index alone says how a number is kept.
const HALF: i128 = 1_000_000_000;

/// What a set of records with equal labels comes to: counts, tokens, money in picodollars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbers([i128; LEN]);

impl Numbers {
    pub(super) fn of(record: &Record) -> Numbers {
        let usage = &record.usage;
        let money = |it: Option<sluice_wire::Usd>| it.map_or(0, |usd| i128::from(usd.0));
        let mut all = [0; LEN];
        all[..MONEY].copy_from_slice(&[
            1,
            i128::from(record.estimated),
            i128::from(record.as_asked.is_none()),
            i128::from(record.cost.is_none()),
            i128::from(usage.prompt),
            i128::from(usage.cached),
            i128::from(usage.cache_write),
            i128::from(usage.completion),
            i128::from(usage.reasoning),
        ]);
        all[MONEY] = money(record.as_asked);
        all[MONEY + 1] = money(record.cost);
        for (index, lever) in Lever::ALL.into_iter().enumerate() {
            all[MONEY + 2 + index] = i128::from(record.saved.of(lever).0);
            all[MONEY + 7 + index] = i128::from(record.would_save.of(lever).0);
        }
        if let Some(trim) = record.trim {
            all[TRIM..].copy_from_slice(&[
                1,
                i128::from(trim.tokens),
                i128::from(trim.gross.0),
                i128::from(trim.lost.0),
            ]);
        }
        Numbers(all)
    }

    pub(super) fn add(&mut self, other: &Numbers) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum += value;
        }
    }

    /// The fields of the hash that holds the sums, and what to add to each. A number is `N`, the
    /// lower half of an amount `Nl`.
    pub(super) fn fields(&self) -> Vec<(String, i128)> {
        let mut fields = Vec::new();
        for (index, &value) in self.0.iter().enumerate() {
            if index < MONEY {
                fields.push((index.to_string(), value));
            } else {
                // Rounding towards zero: both halves have the sign of the whole.
                fields.push((index.to_string(), value / HALF));
                fields.push((format!("{index}l"), value % HALF));
            }
        }
        fields.retain(|(_, value)| *value != 0);
        fields
    }

    /// From the fields of a hash; `None` if they are not ours. What a later version adds up beside
    /// is left out.
    pub(super) fn read(fields: &BTreeMap<String, i64>) -> Option<Numbers> {
        let mut all = [0; LEN];
        for (name, &value) in fields {
            let (index, factor) = match name.strip_suffix('l') {
                Some(index) => (index, 1),
                None => (name.as_str(), 0),
            };
            let index: usize = index.parse().ok()?;
            let factor = if index >= MONEY && factor == 0 {
                HALF
            } else {
                1
            };
            if let Some(sum) = all.get_mut(index) {
                *sum += i128::from(value) * factor;
            }
        }
        Some(Numbers(all))
    }

    /// As a report shows it.
    pub(super) fn sums(&self, labels: &Labels) -> Sums {
        let count = |index: usize| u64::try_from(self.0[index]).unwrap_or(0);
        let money = |index: usize| Money(self.0[MONEY + index]);
        let levers = |from: usize| ByLever::new(std::array::from_fn(|it| money(from + it)));
        let tokens = Tokens {
            prompt: count(4),
            cached: count(5),
            cache_write: count(6),
            completion: count(7),
            reasoning: count(8),
        };
        let cache = labels.0[6].as_deref().unwrap_or_default();
        let answers = CacheResult::ALL
            .into_iter()
            .any(|it| it.answers() && it.name() == cache);
        let outcome = labels.0[7].clone().unwrap_or_default();
        let none = Tokens::default();
        let (tokens, tokens_from_cache) = if answers {
            (none, tokens)
        } else {
            (tokens, none)
        };
        Sums {
            requests: count(0),
            outcomes: [(outcome, count(0))].into(),
            cache_hits: if answers { count(0) } else { 0 },
            estimated: count(1),
            tokens,
            tokens_from_cache,
            as_asked: money(0),
            cost: money(1),
            saved: levers(2),
            would_save: levers(7),
            trim: Trimming::new(
                (count(TRIM), count(TRIM + 1)),
                (Money(self.0[TRIM + 2]), Money(self.0[TRIM + 3])),
            ),
            unknown_prices: UnknownPrices {
                as_asked: count(2),
                cost: count(3),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_adds_up_is_left_out_and_what_is_none_of_ours_refused() {
        let record = Record {
            trim: Some(sluice_wire::Trimmed {
                tokens: 3_000_000_000,
                gross: sluice_wire::Usd(i64::MAX),
                lost: sluice_wire::Usd(-7),
            }),
            ..Record::default()
        };
        let numbers = Numbers::of(&record);
        let fields = numbers.fields().into_iter();
        let mut fields: BTreeMap<String, i64> = fields
            .map(|(name, value)| (name, i64::try_from(value).unwrap()))
            .collect();
        assert_eq!(Numbers::read(&fields).as_ref(), Some(&numbers));
        fields.insert(format!("{LEN}l"), 5);
        assert_eq!(Numbers::read(&fields), Some(numbers));
        fields.insert("colour".to_owned(), 5);
        assert_eq!(Numbers::read(&fields), None);
    }
}
