//! `models`: what a model costs and how its tokens are counted.

use std::collections::BTreeMap;

use sluice_wire::Usd;

use super::Lower;
use crate::config::plan::{Model, Prefix, PrefixCache, Price};
use crate::config::raw;
use crate::tokens::Encoding;

/// Bytes per token where neither a vocabulary nor a ratio is given: about that of English prose
/// in today's vocabularies.
const BYTES_PER_TOKEN: f64 = 4.0;

/// Shortest front that OpenAI and most of Anthropic's models keep, and OpenAI's step.
const MIN_TOKENS: u64 = 1024;
const STEP: u64 = 128;

/// Both keep a front for five minutes after its last use. OpenAI forgets it within an hour at the
/// latest; Anthropic promises five minutes, to which some are added for clocks and long answers.
const LIFETIME_MS: u64 = 5 * 60_000;
const LONGEST_MS: u64 = 60 * 60_000;
const MARKED_LONGEST_MS: u64 = 10 * 60_000;

impl Lower<'_> {
    pub(super) fn models(&mut self, raw: &BTreeMap<String, raw::Model>) -> BTreeMap<String, Model> {
        raw.iter()
            .map(|(name, model)| (name.clone(), self.model(name, model)))
            .collect()
    }

    fn model(&mut self, name: &str, raw: &raw::Model) -> Model {
        let path = format!("models.{name}");
        let bytes_per_token = raw.bytes_per_token.unwrap_or(BYTES_PER_TOKEN);
        if !(0.25..=64.0).contains(&bytes_per_token) {
            self.fault(
                &format!("{path}.bytes_per_token"),
                format!("found {bytes_per_token}, expected 0.25 to 64"),
            );
        }
        let mut price = |field: &str, value: Option<f64>| match value {
            Some(dollars) if !(0.0..=1_000_000.0).contains(&dollars) => {
                self.fault(
                    &format!("{path}.{field}"),
                    format!("found {dollars}, expected dollars per million tokens, 0 to 1000000"),
                );
                None
            }
            value => value.map(|dollars| Usd::from_dollars(dollars / 1e6)),
        };
        let (input, output) = (price("input", raw.input), price("output", raw.output));
        let (cached, write) = (
            price("cached_input", raw.cached_input),
            price("cache_write", raw.cache_write),
        );
        let price = match (input, output) {
            (Some(input), output) if output.is_some() || raw.output.is_none() => Some(Price {
                input,
                cached_input: cached.unwrap_or(input),
                cache_write: write.unwrap_or(input),
                // An embedding model has no output to pay for.
                output: output.unwrap_or(Usd::ZERO),
            }),
            _ => None,
        };
        if price.is_none()
            && [raw.output, raw.cached_input, raw.cache_write]
                .iter()
                .any(Option::is_some)
            && raw.input.is_none()
        {
            self.fault(
                &format!("{path}.input"),
                "missing, expected dollars per million prompt tokens beside the other prices",
            );
        }
        let prefix = self.prefix(name, raw.prefix.as_ref(), price.as_ref());
        let encoding = raw.encoding.map(|encoding| match encoding {
            raw::Encoding::O200kBase => Encoding::O200kBase,
            raw::Encoding::Cl100kBase => Encoding::Cl100kBase,
        });
        Model {
            encoding,
            bytes_per_token,
            price,
            prefix,
        }
    }

    /// What is not said of a prefix cache is as its kind is documented; the kind is told by the
    /// prices, because a front that costs as much as the rest is not discounted, and only where the
    /// client decides what is written does writing have a price of its own.
    fn prefix(&mut self, name: &str, raw: Option<&raw::Prefix>, price: Option<&Price>) -> Prefix {
        let path = format!("models.{name}.prefix");
        let told = match price {
            Some(price) if price.cache_write > price.input => PrefixCache::Marked,
            Some(price) if price.cached_input < price.input => PrefixCache::Automatic,
            _ => PrefixCache::None,
        };
        let empty = raw::Prefix::default();
        let raw = raw.unwrap_or(&empty);
        let cache = raw.cache.unwrap_or(told);
        let (min_tokens, step, longest_ms) = match cache {
            PrefixCache::Marked => (marked_minimum(name), 1, MARKED_LONGEST_MS),
            PrefixCache::None | PrefixCache::Automatic => (MIN_TOKENS, STEP, LONGEST_MS),
        };
        let prefix = Prefix {
            cache,
            min_tokens: raw.min_tokens.map_or(min_tokens, |count| count.0),
            step: raw.step.map_or(step, |count| count.0),
            lifetime_ms: raw.lifetime.map_or(LIFETIME_MS, |millis| millis.0),
            longest_ms: raw.longest.map_or(longest_ms, |millis| millis.0),
        };
        if !(1..=1_000_000).contains(&prefix.min_tokens) {
            let found = format!("found {}, expected 1 to 1000000", prefix.min_tokens);
            self.fault(&format!("{path}.min_tokens"), found);
        }
        if !(1..=prefix.min_tokens.max(1)).contains(&prefix.step) {
            let found = format!("found {}, expected 1 to `min_tokens`", prefix.step);
            self.fault(&format!("{path}.step"), found);
        }
        if prefix.longest_ms < prefix.lifetime_ms {
            // A longer lifetime alone says that the front is kept for at least as long.
            let longest_ms = prefix.lifetime_ms;
            if raw.longest.is_none() {
                return Prefix {
                    longest_ms,
                    ..prefix
                };
            }
            self.fault(
                &format!("{path}.longest"),
                "shorter than `lifetime`, expected at least as long",
            );
        }
        prefix
    }
}

/// The least that the provider of a model with marked fronts keeps (Anthropic's documentation of
/// prompt caching, late 2025).
fn marked_minimum(name: &str) -> u64 {
    const MORE: [(&str, u64); 4] = [
        ("haiku-4-5", 4096),
        ("opus-4-5", 4096),
        ("3-5-haiku", 2048),
        ("3-haiku", 2048),
    ];
    let more = MORE.iter().find(|(model, _)| name.contains(model));
    more.map_or(MIN_TOKENS, |(_, tokens)| *tokens)
}
