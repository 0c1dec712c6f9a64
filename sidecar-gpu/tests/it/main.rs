//! The sidecar from outside: its API, its stores on a real Redis, its binary, its certificates.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod api;
mod binary;
mod budgets;
mod coalescing;
mod common;
mod mtls;
mod one_ledger;
mod semantic;
mod shared;
mod tuning;
