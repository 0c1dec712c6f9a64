//! Sluice's sidecar: caches, shared budgets, ledger, and the command line.

pub mod budget;
pub mod cache;
pub mod config;
pub mod store;
