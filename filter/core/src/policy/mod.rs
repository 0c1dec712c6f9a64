//! What is decided about a request, one module per lever or rule of the house.

/// Tiers.
pub mod route;
