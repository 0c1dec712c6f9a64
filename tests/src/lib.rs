//! End to end: a stand-in provider, a harness that starts Envoy, sidecars and Redis, and what the
//! demo, the benches and the tests share.

pub mod canned;
pub mod client;
pub mod conversations;
pub mod door;
pub mod envoy;
pub mod figures;
pub mod footprint;
pub mod load;
pub mod process;
pub mod prompts;
pub mod provider;
pub mod redis;
pub mod requests;
pub mod sidecar;
pub mod stack;
pub mod tools;
pub mod traffic;
