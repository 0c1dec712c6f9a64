//! The sidecar from outside: its API, its stores on a real Redis, its binary, its certificates.

mod api;
mod binary;
mod budgets;
mod common;
mod mtls;
mod shared;
