//! Sluice's sidecar: caches, shared budgets, ledger, and the command line.

mod admission;
pub mod app;
pub mod budget;
pub mod cache;
pub mod calibrate;
pub mod cli;
pub mod clock;
pub mod config;
mod conversations;
pub mod http;
mod inputs;
pub mod lease;
pub mod ledger;
pub mod metrics;
pub mod relay;
mod relevance;
pub mod report;
pub mod semantic;
pub mod server;
pub mod store;
mod summaries;
mod text;
mod tls;
pub mod tuning;

pub use app::App;
pub use http::app;
pub use server::run;
