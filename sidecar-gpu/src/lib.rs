//! Sluice's sidecar: caches, shared budgets, ledger, and the command line.

pub mod config;
