//! The long run: memory that grows with the number of requests shows only after many.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sluice_tests::canned::Canned;
use sluice_tests::envoy::Upstream;
use sluice_tests::footprint;
use sluice_tests::load::{self, Until};
use sluice_tests::process::eventually;
use sluice_tests::prompts::{Novelty, Prompts, Shape};
use sluice_tests::stack::{Setup, Stack, caching, tiers};

/// Linear memory and the sidecar's resident memory, in bytes, once all of `requests` are booked.
async fn sizes(stack: &Stack, requests: u64) -> (u64, u64) {
    let mut vm = 0;
    let booked = eventually(Duration::from_secs(120), async || {
        let report = stack.sidecar().report("model").await;
        let booked = report.map_err(|error| format!("{error:#}"))?.total.requests;
        let metrics = stack.envoy().metrics().await;
        let metrics = metrics.map_err(|error| format!("{error:#}"))?;
        vm = metrics.sum("sluice.vm_memory_bytes", &[]);
        let dropped = metrics.sum("sluice.settle_dropped_records", &[]);
        if booked + dropped == requests && vm > 0 {
            Ok(())
        } else {
            Err(format!("{booked} booked, {dropped} dropped of {requests}"))
        }
    });
    booked.await.unwrap();
    let resident = footprint::resident_bytes(stack.sidecar().id()).unwrap();
    eprintln!("after {requests} requests: VM {vm}, sidecar {resident} bytes");
    (vm, resident)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long run"]
async fn two_hundred_thousand_requests_leave_vm_and_sidecar_as_large_as_they_were() {
    const WARM: u64 = 50_000;
    const ALL: u64 = 200_000;
    let upstream = Canned::start().await.unwrap();
    let mut setup = Setup::with(json!({
        "route": tiers(),
        "trim": {"mode": "on", "input_tokens": {"limit": 8000, "over": "reject"}},
        "cache": caching(),
        "budgets": [{"per": "tenant", "tokens": 9_000_000_000_u64, "every": "month", "over": "reject"}],
        // Small enough to be full when the warm-up is over.
        "serve": {"cache": {"memory": "8MiB"}},
    }));
    setup.upstream = Some(Upstream::Plain(upstream.address()));
    let stack = Stack::start(setup).await.unwrap();
    // Half of them new, so that everything that remembers has something to forget.
    let prompts = Arc::new(Prompts::mixed(&Shape::ALL, Novelty::NewEvery(2)).unwrap());
    let mut sizes_at = Vec::new();
    let mut sent = 0;
    for upto in [WARM, ALL] {
        let until = Until::Requests(upto - sent);
        let address = stack.envoy().address();
        let tally = load::closed(address, &prompts, 32, until).await.unwrap();
        assert_eq!(tally.ok, tally.answers, "no request fails");
        assert!(tally.hits > 0 && tally.hits < tally.answers);
        sent = upto;
        sizes_at.push(sizes(&stack, sent).await);
    }
    let ((vm_warm, warm), (vm_all, all)) = (sizes_at[0], sizes_at[1]);
    assert!(vm_all <= 48 << 20, "{vm_all} bytes of linear memory");
    assert!(vm_all <= vm_warm + (1 << 20), "{vm_warm} grew to {vm_all}");
    // The allocator's and SQLite's own pages move a little.
    assert!(all <= warm + (16 << 20), "{warm} grew to {all}");
    stack.check_no_trap().await.unwrap();
}
