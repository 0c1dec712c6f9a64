use super::*;
use crate::config::PrefixCache;

mod promise;
mod simulation;
mod ways;

/// Picodollars.
fn price(input: i64, cached_input: i64, cache_write: i64) -> Price {
    Price {
        input: Usd(input),
        cached_input: Usd(cached_input),
        cache_write: Usd(cache_write),
        output: Usd(4 * input),
    }
}

const AUTOMATIC: Prefix = Prefix {
    cache: PrefixCache::Automatic,
    min_tokens: 1024,
    step: 128,
    lifetime_ms: 300_000,
    longest_ms: 3_600_000,
};

const MARKED: Prefix = Prefix {
    cache: PrefixCache::Marked,
    step: 1,
    longest_ms: 600_000,
    ..AUTOMATIC
};
