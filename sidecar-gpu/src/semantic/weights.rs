//! Written by `cargo run --release --example semantic -- train`; see docs/semantic-cache.md.

use super::check::FEATURES;

/// What each feature adds to the logit, in the order of the features.
pub(super) const WEIGHTS: [f32; FEATURES] = [
    -2.4,  // distance
    -0.89, // small_words
    -0.39, // pointing_words
    -1.0,  // little_shared
    -1.04, // length
];

/// The logit of two questions that do not differ.
pub(super) const BIAS: f32 = 5.74;
