//! Bytes per token of each model, corrected as its reported usage comes in.

use std::collections::BTreeMap;

use super::DEFAULT_BYTES_PER_TOKEN;

/// Models whose ratio is kept. Further ones use the default; the config's come first.
const MODELS: usize = 256;

/// Tokens' worth of trust in the first guess: after about so many reported tokens, observation
/// weighs as much as the guess did.
const PRIOR_TOKENS: f64 = 2000.0;

/// What is left of older evidence after each report; about the last hundred count.
const DECAY: f64 = 0.99;

/// Ratios outside are a provider's or a request's oddity, not a tokenizer.
const SANE: std::ops::RangeInclusive<f64> = 1.0..=8.0;

/// Decayed sums and not a mean of ratios, so that a long prompt teaches more than a short one.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    bytes: f64,
    tokens: f64,
}

impl Ratio {
    fn of(bytes_per_token: f64) -> Ratio {
        Ratio {
            bytes: sane(bytes_per_token) * PRIOR_TOKENS,
            tokens: PRIOR_TOKENS,
        }
    }

    fn value(self) -> f64 {
        sane(self.bytes / self.tokens)
    }
}

fn sane(ratio: f64) -> f64 {
    if ratio.is_finite() {
        ratio.clamp(*SANE.start(), *SANE.end())
    } else {
        DEFAULT_BYTES_PER_TOKEN
    }
}

#[derive(Debug, Default)]
pub(super) struct Ratios {
    models: BTreeMap<String, Ratio>,
}

impl Ratios {
    pub(super) fn set(&mut self, model: &str, bytes_per_token: f64) {
        if let Some(ratio) = self.entry(model) {
            *ratio = Ratio::of(bytes_per_token);
        }
    }

    pub(super) fn estimate(&self, model: &str, bytes: u64) -> u64 {
        let ratio = self
            .models
            .get(model)
            .map_or(DEFAULT_BYTES_PER_TOKEN, |ratio| ratio.value());
        (bytes as f64 / ratio).ceil() as u64
    }

    pub(super) fn learn(&mut self, model: &str, bytes: u64, tokens: u64) {
        if bytes == 0 || tokens == 0 {
            return;
        }
        // Clamped before it is added, so that one absurd report cannot outweigh a hundred.
        let bytes = bytes as f64;
        let tokens = bytes / sane(bytes / tokens as f64);
        if let Some(ratio) = self.entry(model) {
            ratio.bytes = ratio.bytes * DECAY + bytes;
            ratio.tokens = ratio.tokens * DECAY + tokens;
        }
    }

    fn entry(&mut self, model: &str) -> Option<&mut Ratio> {
        if !self.models.contains_key(model) {
            if self.models.len() >= MODELS {
                return None;
            }
            self.models
                .insert(model.to_owned(), Ratio::of(DEFAULT_BYTES_PER_TOKEN));
        }
        self.models.get_mut(model)
    }
}
