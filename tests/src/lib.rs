//! End to end: a stand-in provider, a harness that starts Envoy, sidecars and Redis, and what the
//! demo and the tests share.

pub mod provider;
