//! Sluice's decisions: bytes in, effects out.
//!
//! No clock, no I/O, no randomness, no globals: the same code runs in the Envoy filter, in native
//! tests, in the fuzzers and in the sidecar's command line.

pub mod coding;
pub mod config;
pub mod counters;
pub mod exchange;
pub mod formats;
pub mod json;
pub mod policy;
pub mod seen;
pub mod settler;
pub mod sse;
pub mod tokens;
pub mod vectors;
