//! Which models the provider sells, through which endpoint, at what list price.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;
use sluice_wire::{Usage, Usd};

/// What a model is sold for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sold {
    /// `/v1/chat/completions` and `/v1/responses`.
    Chat,
    /// The same, thinking first.
    Reasoning,
    /// `/v1/completions`.
    Completions,
    /// `/v1/embeddings`; native dimensions.
    Embeddings(usize),
    /// `/v1/messages`.
    Anthropic,
}

/// Dollars per million tokens.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Price {
    input: Option<f64>,
    cached_input: Option<f64>,
    cache_write: Option<f64>,
    output: Option<f64>,
}

/// The models and their prices.
#[derive(Clone, Debug)]
pub struct Catalog {
    prices: BTreeMap<String, Price>,
}

/// Sold without being in a price table; such a table may price them.
const KNOWN: &[&str] = &[
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-4.1-nano",
    "gpt-4-turbo",
    "gpt-3.5-turbo",
    "gpt-3.5-turbo-instruct",
    "o3-mini",
    "o4-mini",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
    "claude-opus-4-5",
];

/// List prices in dollars per million tokens, late 2025: input, cached input, cache write, output.
const LIST: &[(&str, [f64; 4])] = &[
    ("gpt-4o", [2.50, 1.25, 2.50, 10.00]),
    ("gpt-4o-mini", [0.15, 0.075, 0.15, 0.60]),
    ("gpt-4.1", [2.00, 0.50, 2.00, 8.00]),
    ("gpt-4.1-mini", [0.40, 0.10, 0.40, 1.60]),
    ("gpt-4.1-nano", [0.10, 0.025, 0.10, 0.40]),
    ("gpt-4-turbo", [10.00, 10.00, 10.00, 30.00]),
    ("gpt-3.5-turbo", [0.50, 0.50, 0.50, 1.50]),
    ("gpt-3.5-turbo-instruct", [1.50, 1.50, 1.50, 2.00]),
    ("o3-mini", [1.10, 0.55, 1.10, 4.40]),
    ("o4-mini", [1.10, 0.275, 1.10, 4.40]),
    ("text-embedding-3-small", [0.02, 0.02, 0.02, 0.0]),
    ("text-embedding-3-large", [0.13, 0.13, 0.13, 0.0]),
    ("claude-sonnet-4-5", [3.0, 0.3, 3.75, 15.0]),
    ("claude-haiku-4-5", [1.0, 0.1, 1.25, 5.0]),
    ("claude-opus-4-5", [5.0, 0.5, 6.25, 25.0]),
];

impl Default for Catalog {
    fn default() -> Catalog {
        let prices = LIST
            .iter()
            .map(|&(model, [input, cached_input, cache_write, output])| {
                let price = Price {
                    input: Some(input),
                    cached_input: Some(cached_input),
                    cache_write: Some(cache_write),
                    output: Some(output),
                };
                (model.to_owned(), price)
            })
            .collect();
        Catalog { prices }
    }
}

impl Catalog {
    /// Reads a price table: `{MODEL: {input, cached_input, cache_write, output}}`, or a Sluice
    /// config with such a `models` section; dollars per million tokens. It replaces the list
    /// prices altogether, so that a model it does not name has no price.
    ///
    /// # Errors
    /// When the value is no such table.
    pub fn priced_by(table: &Value) -> anyhow::Result<Catalog> {
        let models = table.get("models").unwrap_or(table);
        let Value::Object(models) = models else {
            bail!("price table: expected an object by model, found {models}");
        };
        let prices = models
            .iter()
            .map(|(model, price)| {
                let price = Price::deserialize(price)
                    .with_context(|| format!("price table: models.{model}"))?;
                Ok((model.clone(), price))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Catalog { prices })
    }

    /// Every model, by name.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = KNOWN
            .iter()
            .copied()
            .chain(self.prices.keys().map(String::as_str))
            .collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter()
    }

    /// What a model is sold for; none when there is no such model.
    #[must_use]
    pub fn sold(&self, model: &str) -> Option<Sold> {
        if !KNOWN.contains(&model) && !self.prices.contains_key(model) {
            return None;
        }
        Some(if model.starts_with("claude") {
            Sold::Anthropic
        } else if model.starts_with("text-embedding-3-large") {
            Sold::Embeddings(3072)
        } else if model.contains("embedding") {
            Sold::Embeddings(1536)
        } else if model.ends_with("-instruct") {
            Sold::Completions
        } else if model.starts_with("o3") || model.starts_with("o4") {
            Sold::Reasoning
        } else {
            Sold::Chat
        })
    }

    /// Longest prompt in tokens.
    #[must_use]
    pub fn context_window(&self, model: &str) -> u64 {
        if model.starts_with("claude") || model.starts_with('o') {
            200_000
        } else if model.starts_with("gpt-4.1") {
            1_047_576
        } else if model.starts_with("gpt-3.5") {
            16_385
        } else if model.contains("embedding") {
            8_192
        } else {
            128_000
        }
    }

    /// The shortest front of a prompt that Anthropic remembers for a model (its documentation of
    /// prompt caching, late 2025).
    #[must_use]
    pub fn least_front(&self, model: &str) -> u64 {
        match model {
            _ if model.contains("haiku-4-5") || model.contains("opus-4-5") => 4096,
            _ if model.contains("haiku") => 2048,
            _ => 1024,
        }
    }

    /// What `usage` costs by list price; none when the price is not known.
    #[must_use]
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Usd> {
        let price = self.prices.get(model)?;
        let per_token = |dollars: Option<f64>| dollars.map(|d| Usd::from_dollars(d / 1e6));
        let input = per_token(price.input)?;
        let output = match usage.completion {
            0 => Usd::ZERO,
            _ => per_token(price.output)?,
        };
        let cached = per_token(price.cached_input).unwrap_or(input);
        let write = per_token(price.cache_write).unwrap_or(input);
        let fresh = usage
            .prompt
            .saturating_sub(usage.cached)
            .saturating_sub(usage.cache_write);
        Some(
            input.times(fresh)
                + cached.times(usage.cached)
                + write.times(usage.cache_write)
                + output.times(usage.completion),
        )
    }
}
