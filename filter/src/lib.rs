//! The Envoy filter: host callbacks become events, effects become host calls. Nothing is decided
//! here.
#![expect(
    missing_docs,
    reason = "a module for Envoy and no library; the SDK's macro exports `_initialize`"
)]

mod env;
mod host;
mod root;
mod stream;
mod worker;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    // Envoy filters by its own level; what reaches it costs a host call, so debug lines are only
    // let through where somebody reads them (`Root` looks from time to time).
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|context_id| Box::new(root::Root::new(context_id)));
}}
