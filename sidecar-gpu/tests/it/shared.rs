//! The sidecar on a real Redis: shared budgets and answers, retries that reach another sidecar,
//! damaged values, and what happens while Redis is away.

use crate::common::{NOW, Redis, Sidecar, ask, charge, item, key, plan, with_answer};
use redis::Commands;
use serde_json::{Value, json};
use sluice::ledger::Booking;
use sluice_wire::{Over, SettleReply, Unit, Verdict, Window};

fn patch(redis: &Redis) -> Value {
    json!({
        "store": redis.url(),
        // A loaded test machine is no reason to fall back.
        "redis": {"timeout": "2s", "failures": 2, "pause": "50ms"},
    })
}

const COUNTER: (&str, Window, Unit) = ("tenant:acme", Window::Day, Unit::Tokens);

fn booked(booked: u32, repeated: u32) -> SettleReply {
    SettleReply { booked, repeated }
}

#[tokio::test]
async fn two_sidecars_share_budgets_and_answers() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (Sidecar::new(&patch(&redis)), Sidecar::new(&patch(&redis)));
    let budget = || plan(Some(key(1)), vec![charge(100, 60, Over::Reject)]);
    assert_eq!(
        one.admit(&ask(1, vec![budget()])).await.0.verdict,
        Verdict::go(0)
    );
    let (reply, _) = two.admit(&ask(2, vec![budget()])).await;
    assert!(
        matches!(reply.verdict, Verdict::Over { used: 60, .. }),
        "{reply:?}"
    );

    let answer = b"shared";
    one.settle(vec![with_answer(item(1, 20), key(1), 6)], answer)
        .await;
    let (reply, body) = two.admit(&ask(3, vec![budget()])).await;
    assert!(
        matches!(reply.verdict, Verdict::Hit { plan: 0, .. }),
        "{reply:?}"
    );
    assert_eq!(body, answer);
    let (reply, _) = two
        .admit(&ask(
            4,
            vec![plan(None, vec![charge(100, 60, Over::Reject)])],
        ))
        .await;
    assert_eq!(reply.verdict, Verdict::go(0), "20 used, 60 released");
}

#[tokio::test]
async fn a_retry_that_reaches_another_sidecar_charges_and_books_once() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (Sidecar::new(&patch(&redis)), Sidecar::new(&patch(&redis)));
    assert_eq!(one.settle(vec![item(1, 90)], b"").await, booked(1, 0));
    assert_eq!(
        two.settle(vec![item(1, 90), item(2, 5)], b"").await,
        booked(1, 1)
    );
    assert_eq!(one.settle(vec![item(1, 90)], b"").await, booked(0, 1));
    let mut requests = 0;
    for sidecar in [&one, &two] {
        requests += sidecar.report("scope=local").await.total.requests;
    }
    assert_eq!(requests, 2, "over both ledgers");
    let (reply, _) = two
        .admit(&ask(
            9,
            vec![plan(None, vec![charge(100, 10, Over::Reject)])],
        ))
        .await;
    assert!(
        matches!(reply.verdict, Verdict::Over { used: 95, .. }),
        "{reply:?}"
    );
}

#[tokio::test]
async fn what_another_sidecar_is_settling_is_answered_with_a_retry() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = Sidecar::new(&patch(&redis));
    let marker = format!("{{sluice}}:m:{}", crate::common::id(1));
    let mut client = redis.client().get_connection().unwrap();
    let () = client.set(&marker, "p:another").unwrap();
    let (status, _) = sidecar.try_settle(vec![item(1, 90), item(2, 5)], b"").await;
    assert_eq!(status, 503);
    // The other one was booked all the same, and the retry says so.
    let () = client.set(&marker, "d:another").unwrap();
    assert_eq!(
        sidecar.settle(vec![item(1, 90), item(2, 5)], b"").await,
        booked(0, 2)
    );
}

#[tokio::test]
async fn a_sidecar_whose_ledger_refuses_lets_another_book() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (Sidecar::new(&patch(&redis)), Sidecar::new(&patch(&redis)));
    let other = rusqlite::Connection::open(one.app.ledger().path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(one.try_settle(vec![item(1, 90)], b"").await.0, 503);
    assert_eq!(two.settle(vec![item(1, 90)], b"").await, booked(1, 0));
}

#[tokio::test]
async fn a_sidecar_that_died_between_ledger_and_redis_charges_on_the_retry() {
    let Some(redis) = Redis::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::at(data.path(), &patch(&redis));
    // Booked in the ledger, never told to Redis: what a kill in between leaves.
    let items = std::sync::Arc::new(vec![item(1, 90)]);
    let booking = Booking {
        now_ms: NOW,
        alone: false,
    };
    sidecar.app.ledger().book(items, booking).await.unwrap();
    assert_eq!(sidecar.settle(vec![item(1, 90)], b"").await, booked(0, 1));
    let (reply, _) = sidecar
        .admit(&ask(
            9,
            vec![plan(None, vec![charge(100, 20, Over::Reject)])],
        ))
        .await;
    assert!(
        matches!(reply.verdict, Verdict::Over { used: 90, .. }),
        "{reply:?}"
    );
}

#[tokio::test]
async fn a_value_that_is_no_entry_of_ours_is_a_miss_and_counted() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = Sidecar::new(&patch(&redis));
    let mut client = redis.client().get_connection().unwrap();
    let name = |n: u8| [b"sluice:c:".to_vec(), vec![n; 32]].concat();
    sidecar
        .settle(vec![with_answer(item(1, 1), key(1), 4)], b"good")
        .await;
    let mut damaged: Vec<u8> = client.get(name(1)).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    let () = client.set(name(1), damaged).unwrap();
    let () = client.set(name(2), "another program's").unwrap();
    let () = client.set(name(3), "").unwrap();
    let () = client.lpush(name(4), "a list").unwrap();
    for n in 1..=4 {
        let (reply, body) = sidecar
            .admit(&ask(9, vec![plan(Some(key(n)), vec![])]))
            .await;
        assert_eq!(
            (reply.verdict, body.len()),
            (Verdict::go(0), 0),
            "value {n}"
        );
    }
    let text = sidecar.metrics().await;
    assert!(
        text.contains("sluice_cache_lookups_total{result=\"corrupt\"} 4"),
        "{text}"
    );
    assert!(text.contains("sluice_redis_breaker_state 0"), "{text}");
    assert!(text.contains("sluice_cache_damaged 1"), "{text}");
    assert!(text.contains("sluice_cache_foreign 3"), "{text}");

    // Ours that is damaged is gone; another program's is its own until it is written over, and
    // what looks like a token in it fences nothing off.
    assert!(!client.exists::<_, bool>(name(1)).unwrap());
    for n in 2..=4 {
        assert!(client.exists::<_, bool>(name(n)).unwrap(), "value {n}");
    }
    let () = client
        .set(name(5), "SLC29007199254740991another version's")
        .unwrap();
    for n in 1..=5 {
        let answer = with_answer(item(100 + u128::from(n), 1), key(n), 4);
        sidecar.settle(vec![answer], b"good").await;
        assert_eq!(sidecar.hit(key(n)).await.unwrap(), b"good", "value {n}");
    }
}

#[tokio::test]
async fn while_redis_is_down_budgets_are_kept_here_and_told_later() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let sidecar = Sidecar::new(&patch(&redis));
    let budget = |reserve| plan(Some(key(1)), vec![charge(100, reserve, Over::Reject)]);
    sidecar.settle(vec![item(1, 50)], b"").await;
    redis.kill();

    // What was settled through this sidecar still counts.
    let (reply, _) = sidecar.admit(&ask(2, vec![budget(60)])).await;
    assert!(
        matches!(reply.verdict, Verdict::Over { used: 50, .. }),
        "{reply:?}"
    );
    let (reply, _) = sidecar.admit(&ask(3, vec![budget(30)])).await;
    assert_eq!(reply.verdict, Verdict::go(0));
    assert_eq!(sidecar.settle(vec![item(3, 30)], b"").await, booked(1, 0));
    assert_eq!(sidecar.app.local_budgets().level(COUNTER, NOW), (80, 80));
    let text = sidecar.metrics().await;
    assert!(text.contains("sluice_budget_fallbacks 2"), "{text}");
    assert!(text.contains("sluice_redis_outbox 1"), "{text}");
    assert!(!text.contains("sluice_redis_breaker_state 0"), "{text}");

    redis.restart();
    // The breaker lets one probe through after its pause; each settlement is one, until it closes.
    let mut tries = 0;
    while !sidecar
        .metrics()
        .await
        .contains("sluice_redis_breaker_state 0")
    {
        tries += 1;
        assert!(tries < 200, "the breaker never closed");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        sidecar
            .admit(&ask(100, vec![plan(Some(key(5)), vec![])]))
            .await;
    }
    sidecar.app.catch_up().await;
    assert!(sidecar.metrics().await.contains("sluice_redis_outbox 0"));
    // The restarted Redis was empty: it knows what the outbox told it, once.
    let (reply, _) = sidecar.admit(&ask(5, vec![budget(80)])).await;
    assert!(
        matches!(reply.verdict, Verdict::Over { used: 30, .. }),
        "{reply:?}"
    );
}

#[tokio::test]
async fn a_redis_that_hangs_costs_no_more_than_its_timeout() {
    let Some(redis) = Redis::start() else { return };
    let mut patch = patch(&redis);
    patch["redis"] = json!({"timeout": "30ms", "failures": 2, "pause": "1h"});
    let sidecar = Sidecar::new(&patch);
    let budget = || plan(Some(key(1)), vec![charge(100, 1, Over::Reject)]);
    redis.freeze();
    let started = std::time::Instant::now();
    for n in 0..50 {
        let (reply, _) = sidecar.admit(&ask(n, vec![budget()])).await;
        assert_eq!(reply.verdict, Verdict::go(0));
    }
    let took = started.elapsed();
    redis.thaw();
    // Two calls run into the timeout, then the breaker is open.
    assert!(took >= std::time::Duration::from_millis(60), "{took:?}");
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
    assert!(
        sidecar
            .metrics()
            .await
            .contains("sluice_redis_breaker_state 2")
    );
}
