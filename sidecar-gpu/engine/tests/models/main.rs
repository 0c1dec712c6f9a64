//! Models from their folders: small random ones beside a plain computation, and the real default.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bert;
mod loader;
mod minilm;
mod tiny;
