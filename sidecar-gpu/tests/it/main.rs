//! The sidecar from outside: its API, its stores on a real Redis, its binary, its certificates.

mod api;
mod budgets;
mod common;
mod shared;
