//! Memory in front of a real Redis: what one sidecar changes is seen by the others, and what holds
//! while they cannot hear of it.

use redis::Commands;
use serde_json::{Value, json};

use crate::common::{NOW, OPERATOR, Redis, Sidecar, id, item, key, tagged, until, with_answer};

/// A sidecar with a layer, and the task that hears changes; it ends with the runtime.
async fn layered(redis: &Redis, ttl: &str) -> Sidecar {
    let sidecar = deaf(redis, ttl);
    let app = sidecar.app.clone();
    tokio::spawn(async move { app.listen().await });
    until("it subscribes", async || subscribed(&sidecar).await).await;
    sidecar
}

/// The same, that does not listen yet.
fn deaf(redis: &Redis, ttl: &str) -> Sidecar {
    Sidecar::new(&json!({
        "store": redis.url(),
        "cache": {"local": {"ttl": ttl}},
        "redis": {"timeout": "2s", "failures": 2, "pause": "50ms"},
    }))
}

async fn local(sidecar: &Sidecar) -> Value {
    let (status, listing) = sidecar
        .ask(("GET", "/v1/cache"), OPERATOR, &Value::Null)
        .await;
    assert_eq!(status, 200);
    listing["layers"][0].clone()
}

async fn subscribed(sidecar: &Sidecar) -> bool {
    local(sidecar).await["subscribed"] == json!(true)
}

async fn local_hits(sidecar: &Sidecar) -> u64 {
    local(sidecar).await["hits"].as_u64().unwrap()
}

/// Removes the answer behind the sidecars' backs, so that only a local layer can still have it.
fn steal(redis: &Redis, n: u8) {
    let mut client = redis.client().get_connection().unwrap();
    let () = client
        .del([b"sluice:c:".to_vec(), vec![n; 32]].concat())
        .unwrap();
}

#[tokio::test]
async fn an_answer_that_was_read_is_kept_here_for_its_local_life_and_no_longer() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = layered(&redis, "5s").await;
    sidecar
        .settle(vec![with_answer(item(1, 1), key(1), 1)], b"a")
        .await;
    assert!(sidecar.hit(key(1)).await.is_some());
    steal(&redis, 1);
    sidecar.advance(4_999);
    assert_eq!(sidecar.hit(key(1)).await.unwrap(), b"a");
    assert_eq!(local_hits(&sidecar).await, 1);
    sidecar.advance(1);
    assert_eq!(sidecar.hit(key(1)).await, None);
}

#[tokio::test]
async fn what_one_sidecar_puts_drops_or_invalidates_the_others_give_out_no_more() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (layered(&redis, "1h").await, layered(&redis, "1h").await);
    for n in 1..=3 {
        let answer = tagged(n, &format!("acme/doc:{n}"), 0, b"old");
        one.settle(vec![answer], b"old").await;
        for sidecar in [&one, &two, &one, &two] {
            assert_eq!(sidecar.hit(key(n)).await.unwrap(), b"old");
        }
    }
    assert_eq!((local_hits(&one).await, local_hits(&two).await), (3, 3));

    one.advance(1);
    let mut newer = tagged(1, "acme/doc:1", 1, b"new");
    newer.record.id = id(100);
    one.settle(vec![newer], b"new").await;
    assert_eq!(
        one.hit(key(1)).await.unwrap(),
        b"new",
        "at once where it was put"
    );
    until("the other one reads it anew", async || {
        two.hit(key(1)).await.is_some_and(|it| it == b"new")
    })
    .await;

    let path = format!("/v1/cache/{}", key(2));
    one.ask(("DELETE", &path), OPERATOR, &Value::Null).await;
    assert_eq!(one.hit(key(2)).await, None);
    until("dropped", async || two.hit(key(2)).await.is_none()).await;

    let ask = json!({"tag": "doc:3"});
    let (_, reply) = one.ask(("POST", "/v1/invalidate"), OPERATOR, &ask).await;
    assert_eq!(
        reply,
        json!({"at_ms": NOW + 1, "everywhere_ms": NOW + 3_600_001}),
        "an hour, should the message be lost"
    );
    assert_eq!(one.hit(key(3)).await, None);
    until("void", async || two.hit(key(3)).await.is_none()).await;

    assert!(two.hit(key(1)).await.is_some());
    one.ask(("DELETE", "/v1/cache"), OPERATOR, &Value::Null)
        .await;
    assert_eq!(one.hit(key(1)).await, None);
    until("cleared", async || two.hit(key(1)).await.is_none()).await;
}

#[tokio::test]
async fn what_a_later_lease_fetched_stays_on_both_levels() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (layered(&redis, "1h").await, layered(&redis, "1h").await);
    let fetched = |n: u128, at_ms| {
        let mut item = with_answer(item(n, 1), key(1), 5);
        item.record.at_ms = at_ms;
        item
    };
    one.settle(vec![fetched(1, NOW)], b"later").await;
    assert_eq!(two.hit(key(1)).await.unwrap(), b"later");
    two.settle(vec![fetched(2, NOW - 1)], b"early").await;
    for sidecar in [&one, &two] {
        assert_eq!(sidecar.hit(key(1)).await.unwrap(), b"later");
    }
}

#[tokio::test]
async fn without_a_subscription_nothing_is_kept_here() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let sidecar = deaf(&redis, "1h");
    sidecar
        .settle(vec![with_answer(item(1, 1), key(1), 1)], b"a")
        .await;
    assert!(sidecar.hit(key(1)).await.is_some());
    redis.kill();
    assert_eq!(sidecar.hit(key(1)).await, None);
}

#[tokio::test]
async fn a_layer_that_does_not_listen_any_more_is_not_used_while_redis_answers() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = deaf(&redis, "1h");
    let app = sidecar.app.clone();
    let listening = tokio::spawn(async move { app.listen().await });
    until("it subscribes", async || subscribed(&sidecar).await).await;
    sidecar
        .settle(vec![with_answer(item(1, 1), key(1), 1)], b"a")
        .await;
    assert!(sidecar.hit(key(1)).await.is_some());
    listening.abort();
    until("it is deaf", async || !subscribed(&sidecar).await).await;
    steal(&redis, 1);
    assert_eq!(sidecar.hit(key(1)).await, None);
}

#[tokio::test]
async fn a_tags_stamp_outlives_the_longest_answer_that_is_built_on_it() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = deaf(&redis, "1h");
    let mut client = redis.client().get_connection().unwrap();
    for (n, ttl_secs) in [(1, 60), (2, 7_200), (3, 600)] {
        let mut item = tagged(n, "acme/doc:1", u64::from(n), b"a");
        item.store.as_mut().unwrap().ttl_secs = ttl_secs;
        sidecar.advance(1);
        sidecar.settle(vec![item], b"a").await;
        for stamp in ["{sluice}:t:acme/doc:1", "{sluice}:t:/doc:1"] {
            let left: u64 = client.pttl(stamp).unwrap();
            let longest = ttl_secs.max(if n > 1 { 7_200 } else { 0 }) * 1_000;
            let slack = 86_400_000;
            assert!(
                (longest + slack - 60_000..=longest + slack).contains(&left),
                "{n}: {left}"
            );
        }
    }
}

#[tokio::test]
async fn a_lost_subscription_puts_the_layer_out_of_use_until_it_is_back_and_empty() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = layered(&redis, "1h").await;
    sidecar
        .settle(vec![with_answer(item(1, 1), key(1), 1)], b"a")
        .await;
    assert!(sidecar.hit(key(1)).await.is_some());
    steal(&redis, 1);
    assert!(sidecar.hit(key(1)).await.is_some(), "from the layer");
    let mut client = redis.client().get_connection().unwrap();
    let killed: u64 = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "pubsub"])
        .query(&mut client)
        .unwrap();
    assert_eq!(killed, 1);
    until("emptied", async || sidecar.hit(key(1)).await.is_none()).await;
    until("subscribed again", async || subscribed(&sidecar).await).await;
    assert_eq!(sidecar.hit(key(1)).await, None);
    let text = sidecar.metrics().await;
    assert!(text.contains("sluice_cache_local_subscribed 1"), "{text}");
}

#[tokio::test]
async fn while_redis_is_down_what_was_read_lately_still_answers() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let sidecar = layered(&redis, "5s").await;
    for n in 1..=2 {
        let answer = tagged(n, &format!("acme/doc:{n}"), 0, b"a");
        sidecar.settle(vec![answer], b"a").await;
        assert!(sidecar.hit(key(n)).await.is_some());
    }
    redis.kill();
    until("the loss is noticed", async || !subscribed(&sidecar).await).await;
    assert_eq!(sidecar.hit(key(1)).await.unwrap(), b"a");

    // An invalidation cannot be told to the others, and says so; here it holds all the same.
    let ask = json!({"tag": "doc:1"});
    let call = ("POST", "/v1/invalidate");
    let (status, reply) = sidecar.ask(call, OPERATOR, &ask).await;
    assert_eq!(status, 503, "{reply}");
    assert_eq!(reply["error"]["kind"], "store");
    assert_eq!(reply["error"]["retry"], true);
    assert_eq!(sidecar.hit(key(1)).await, None);
    assert!(sidecar.hit(key(2)).await.is_some());

    sidecar.advance(5_000);
    assert_eq!(sidecar.hit(key(2)).await, None);
}

#[tokio::test]
async fn a_stamp_that_redis_lost_costs_a_miss_and_never_a_void_answer() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = deaf(&redis, "1h");
    let answer = |n: u128, at_ms| {
        let mut item = tagged(1, "acme/doc:1", 0, b"a");
        item.record.id = id(n);
        item.record.at_ms = at_ms;
        item
    };
    sidecar.settle(vec![answer(1, NOW - 10)], b"a").await;
    assert!(sidecar.hit(key(1)).await.is_some());
    let mut client = redis.client().get_connection().unwrap();
    let () = client.del("{sluice}:t:acme/doc:1").unwrap();
    assert_eq!(sidecar.hit(key(1)).await, None);
    // The next answer on that tag brings the stamp back, and does not bring back what is older.
    let mut other = answer(2, NOW);
    other.store.as_mut().unwrap().key = key(2);
    sidecar.settle(vec![other], b"a").await;
    assert!(sidecar.hit(key(2)).await.is_some());
    assert_eq!(sidecar.hit(key(1)).await, None);
}
