//! `models`: what a model costs and how its tokens are counted.

use std::collections::BTreeMap;

use sluice_wire::Usd;

use super::Lower;
use crate::config::plan::{Model, Price};
use crate::config::raw;
use crate::tokens::Encoding;

/// Bytes per token where neither a vocabulary nor a ratio is given: about that of English prose
/// in today's vocabularies.
const BYTES_PER_TOKEN: f64 = 4.0;

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
        let encoding = raw.encoding.map(|encoding| match encoding {
            raw::Encoding::O200kBase => Encoding::O200kBase,
            raw::Encoding::Cl100kBase => Encoding::Cl100kBase,
        });
        Model {
            encoding,
            bytes_per_token,
            price,
        }
    }
}
