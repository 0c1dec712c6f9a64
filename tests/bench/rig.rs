//! What the benches start, and how they wait for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sluice_tests::envoy::{self, Envoy, Upstream};
use sluice_tests::footprint;
use sluice_tests::load::{self, Until};
use sluice_tests::process::eventually;
use sluice_tests::prompts::{POOL, Prompts};
use sluice_tests::sidecar::Sidecar;

/// Connections of a closed loop.
pub(crate) const CONNECTIONS: usize = 32;

/// An Envoy of one worker that writes no access log.
pub(crate) async fn start(
    name: &str,
    (filter, module): (Option<Value>, Option<PathBuf>),
    (upstream, sidecar): (SocketAddr, SocketAddr),
    dir: &Path,
) -> anyhow::Result<Envoy> {
    let options = envoy::Options {
        name: name.to_owned(),
        filter,
        module,
        sidecars: vec![sidecar],
        logged: false,
        ..envoy::Options::new(Upstream::Plain(upstream))
    };
    Envoy::start(&options, dir).await
}

/// Sends every request of a pool until all are answered from the cache.
pub(crate) async fn fill(envoy: &Envoy, prompts: &Arc<Prompts>) -> anyhow::Result<()> {
    let pool = POOL as u64;
    eventually(Duration::from_secs(20), async || {
        let until = Until::Requests(pool);
        let tally = load::closed(envoy.address(), prompts, CONNECTIONS, until).await;
        let hits = tally.map_err(|error| format!("{error:#}"))?.hits;
        if hits == pool {
            Ok(())
        } else {
            Err(format!("{hits} hits of {pool}"))
        }
    })
    .await
}

/// Waits until the sidecar has booked what there was, so that no round pays for the one before.
pub(crate) async fn idle(sidecar: &Sidecar) -> anyhow::Result<()> {
    let mut last = f64::NAN;
    eventually(Duration::from_secs(20), async || {
        let now = footprint::cpu_seconds(sidecar.id()).map_err(|error| error.to_string())?;
        let used = now - last;
        last = now;
        if used < 0.001 {
            Ok(())
        } else {
            Err(format!("the sidecar used {used:.3} s"))
        }
    })
    .await
}
