//! The sidecar from outside: its API, its stores on a real Redis, its binary, its certificates.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod api;
mod audits;
mod binary;
mod budgets;
mod cache;
mod calibrate;
mod coalescing;
mod commands;
mod common;
mod conversations;
mod embeddings;
mod layers;
mod mtls;
mod one_ledger;
mod properties;
mod relay;
mod relevance;
mod semantic;
mod semantic_shared;
mod servers;
mod shared;
mod summaries;
mod tuning;
