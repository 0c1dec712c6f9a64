//! Tuning from outside: what is observed at admission and settling, per route, and where it shows.

use crate::common::{ACME, OPERATOR, Sidecar, ask, charge, item, key, plan, with_answer};
use serde_json::json;
use sluice::tuning::Tuning;
use sluice_wire::{AdmitRequest, CacheResult, Lease, Over, Verdict};

fn asking(n: u128, of: u8) -> AdmitRequest {
    AdmitRequest {
        route: "faq".to_owned(),
        ..ask(n, vec![plan(Some(key(of)), vec![])])
    }
}

fn answer(text: &str, n: u128) -> Vec<u8> {
    let message = json!({"role": "assistant", "content": text});
    let answer = json!({"id": format!("chatcmpl-{n}"), "choices": [{"message": message}]});
    answer.to_string().into_bytes()
}

/// Stores an answer as a request of route `faq`.
async fn store(sidecar: &Sidecar, (n, of): (u128, u8), body: &[u8]) {
    let mut item = with_answer(item(n, 1), key(of), body.len() as u64);
    item.record.route = "faq".to_owned();
    item.record.at_ms += n as u64;
    sidecar.settle(vec![item], body).await;
}

async fn tuning(sidecar: &Sidecar, query: &str) -> Tuning {
    let (status, body) = sidecar
        .get(&format!("/report/cache?{query}"), OPERATOR)
        .await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn re_asks_and_changed_answers_of_a_route_are_counted_where_they_pass() {
    let sidecar = Sidecar::new(&json!({}));
    for (n, text) in [(1, "Nine."), (2, "Nine. "), (3, "Ten.")] {
        sidecar.admit(&asking(n * 100, 1)).await;
        sidecar.admit(&asking(n * 100 + 1, 1)).await;
        store(&sidecar, (n, 1), &answer(text, n)).await;
        sidecar.advance(120_000);
    }
    // Not a client's: a refresh of what was answered stale, and a retry with exact counts.
    let mut refresh = asking(900, 1);
    refresh.cache.lease = Some(Lease {
        holder: crate::common::id(900),
        token: 1,
    });
    sidecar.admit(&refresh).await;
    let mut near = charge(100, 10, Over::Reject);
    near.at_most = 1000;
    let mut inexact = asking(901, 2);
    inexact.plans = vec![plan(Some(key(2)), vec![near])];
    assert_eq!(sidecar.admit(&inexact).await.0.verdict, Verdict::Count);

    let tuning = tuning(&sidecar, "").await;
    assert_eq!(tuning.routes.len(), 1);
    let route = &tuning.routes[0];
    assert_eq!((&*route.route, route.asks, route.reasks), ("faq", 6, 5));
    // `Nine. ` says what `Nine.` said, though its id is another.
    assert_eq!((route.replaced, route.changed), (2, 1));
    assert_eq!((route.ttl_secs, route.stale_secs), (Some(600), Some(0)));
    // 1 min: the second of each pair; 5 min: all but the first.
    assert_eq!((route.curve[0].hits, route.curve[1].hits), (3, 5));
    assert!(
        route
            .reason
            .as_deref()
            .unwrap()
            .contains("5 re-asks of 100")
    );
}

#[tokio::test]
async fn the_proposals_are_for_operators_and_keep_to_what_is_asked() {
    let sidecar = Sidecar::new(&json!({}));
    assert_eq!(sidecar.get("/report/cache", ACME).await.0, 403);
    let goal = tuning(&sidecar, "changed=2&caught=50").await.goal;
    assert_eq!((goal.changed, goal.caught), (0.02, 0.5));
    for query in ["changed=0", "caught=101", "changed=NaN", "colour=1"] {
        let (status, _) = sidecar
            .get(&format!("/report/cache?{query}"), OPERATOR)
            .await;
        assert_eq!(status, 400, "{query}");
    }
}

#[tokio::test]
async fn hits_their_age_and_what_they_saved_are_told_by_route() {
    let sidecar = Sidecar::new(&json!({}));
    let mut hit = item(1, 1);
    hit.record.route = "faq".to_owned();
    hit.record.cache = CacheResult::Hit;
    hit.record.age_secs = Some(30);
    hit.record.saved.cache = sluice_wire::Usd::from_dollars(0.25);
    let mut miss = item(2, 1);
    miss.record.route = "faq".to_owned();
    miss.record.cache = CacheResult::Miss;
    sidecar.settle(vec![hit.clone(), miss], b"").await;
    // A retry is counted once.
    sidecar.settle(vec![hit], b"").await;
    let text = sidecar.metrics().await;
    for part in [
        r#"sluice_route_cache_total{route="faq",result="hit"} 1"#,
        r#"sluice_route_cache_total{route="faq",result="miss"} 1"#,
        r#"sluice_route_saved_dollars_total{route="faq",lever="cache"} 0.25"#,
        r#"sluice_cache_hit_age_seconds_sum{route="faq"} 30"#,
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}
