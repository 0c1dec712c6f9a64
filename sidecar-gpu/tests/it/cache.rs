//! The operators' API of the cache: look, drop, invalidate; who may; what is in flight meanwhile.

use serde_json::{Value, json};
use sluice_wire::Store;

use crate::common::{ACME, NOW, OPERATOR, Redis, SECRET, Sidecar, item, key, tagged, with_answer};

const INVALIDATE: (&str, &str) = ("POST", "/v1/invalidate");

/// A sidecar with the memory store, and one on Redis where there is one.
fn sidecars() -> (Vec<Sidecar>, Option<Redis>) {
    let redis = Redis::start();
    let mut patches = vec![json!({})];
    if let Some(redis) = &redis {
        let patience = json!({"timeout": "2s"});
        patches.push(json!({"store": redis.url(), "redis": patience}));
    }
    (patches.iter().map(Sidecar::new).collect(), redis)
}

#[tokio::test]
async fn an_invalidated_tag_voids_answers_kept_and_in_flight_but_not_later_ones() {
    let (sidecars, _redis) = sidecars();
    for sidecar in sidecars {
        sidecar.advance(10);
        sidecar
            .settle(
                vec![
                    tagged(1, "acme/doc:42", 0, b"old"),
                    tagged(2, "acme/doc:7", 0, b"other"),
                    tagged(3, "globex/doc:42", 0, b"globex"),
                ],
                b"oldotherglobex",
            )
            .await;
        assert_eq!(sidecar.hit(key(1)).await.unwrap(), b"old");
        let ask = json!({"tenant": "acme", "tag": "doc:42"});
        let (status, reply) = sidecar.ask(INVALIDATE, OPERATOR, &ask).await;
        assert_eq!(status, 200, "{reply}");
        assert_eq!(reply, json!({"at_ms": NOW + 10, "everywhere_ms": NOW + 10}));
        assert_eq!(sidecar.hit(key(1)).await, None);
        assert_eq!(sidecar.hit(key(2)).await.unwrap(), b"other");
        assert_eq!(sidecar.hit(key(3)).await.unwrap(), b"globex");

        // Asked before the change, answered after it.
        sidecar.advance(5);
        let mut late = tagged(1, "acme/doc:42", 10, b"late");
        late.record.id = crate::common::id(11);
        sidecar.settle(vec![late], b"late").await;
        assert_eq!(sidecar.hit(key(1)).await, None);

        let mut next = tagged(1, "acme/doc:42", 11, b"next");
        next.record.id = crate::common::id(12);
        sidecar.settle(vec![next], b"next").await;
        assert_eq!(sidecar.hit(key(1)).await.unwrap(), b"next");
        let text = sidecar.metrics().await;
        assert!(text.contains("sluice_cache_voided 3"), "{text}");
        assert!(
            text.contains("sluice_cache_stores_total{result=\"voided\"} 1"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_tag_without_a_tenant_is_everyones_and_only_an_operator_may_mean_everyone() {
    let (sidecars, _redis) = sidecars();
    for sidecar in sidecars {
        let items = || {
            vec![
                tagged(1, "acme/doc:1", 0, b"a"),
                tagged(2, "globex/doc:1", 0, b"g"),
                tagged(3, "/doc:1", 0, b"s"),
            ]
        };
        sidecar.settle(items(), b"ags").await;

        // A tenant's token means its tenant: everyone else's answers stay.
        let (status, _) = sidecar
            .ask(INVALIDATE, ACME, &json!({"tag": "doc:1"}))
            .await;
        assert_eq!(status, 200);
        assert_eq!(sidecar.hit(key(1)).await, None);
        assert!(sidecar.hit(key(2)).await.is_some());
        assert!(sidecar.hit(key(3)).await.is_some());
        for tag in ["/doc:1", "globex/doc:1"] {
            sidecar.ask(INVALIDATE, ACME, &json!({"tag": tag})).await;
            assert!(sidecar.hit(key(2)).await.is_some(), "{tag}");
            assert!(sidecar.hit(key(3)).await.is_some(), "{tag}");
        }
        let theirs = json!({"tenant": "globex", "tag": "doc:1"});
        let (status, _) = sidecar.ask(INVALIDATE, ACME, &theirs).await;
        assert_eq!(status, 403);
        assert!(sidecar.hit(key(2)).await.is_some());

        let (status, _) = sidecar
            .ask(INVALIDATE, OPERATOR, &json!({"tag": "doc:1"}))
            .await;
        assert_eq!(status, 200);
        for n in 1..=3 {
            assert_eq!(sidecar.hit(key(n)).await, None, "{n}");
        }
    }
}

#[tokio::test]
async fn the_token_of_a_tenant_without_a_name_does_not_mean_everyone() {
    let sidecar = Sidecar::new(&json!({"tenants": {"": "nobody", "acme": ACME}}));
    sidecar
        .settle(vec![tagged(1, "/doc:1", 0, b"a")], b"a")
        .await;
    let (status, _) = sidecar
        .ask(INVALIDATE, "nobody", &json!({"tag": "doc:1"}))
        .await;
    assert_eq!(status, 403);
    assert!(sidecar.hit(key(1)).await.is_some());
}

#[tokio::test]
async fn a_malformed_invalidation_is_refused_with_what_is_wrong() {
    let sidecar = Sidecar::new(&json!({}));
    for (body, part) in [
        (json!({}), "missing field `tag`"),
        (json!({"tag": ""}), "tag: expected 1 to 256 bytes, found 0"),
        (json!({"tag": "x".repeat(257)}), "found 257"),
        (
            json!({"tag": "x", "tenant": ""}),
            "tenant: expected 1 to 256",
        ),
        (
            json!({"tag": "x", "tenat": "acme"}),
            "unknown field `tenat`",
        ),
        (json!({"tag": "x".repeat(10_000)}), "at most 8192 bytes"),
    ] {
        let (_, reply) = sidecar.ask(INVALIDATE, OPERATOR, &body).await;
        let message = reply["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn an_operator_sees_what_is_kept_and_the_answer_only_on_demand() {
    let (sidecars, _redis) = sidecars();
    for sidecar in sidecars {
        let answer = b"{\"text\":\"confidential\"}";
        sidecar
            .settle(vec![tagged(1, "acme/doc:1", 0, answer)], answer)
            .await;
        let path = format!("/v1/cache/{}", key(1));
        let (status, kept) = sidecar.ask(("GET", &path), OPERATOR, &Value::Null).await;
        assert_eq!(status, 200, "{kept}");
        assert_eq!(kept["key"], key(1));
        assert_eq!(kept["age"], "fresh");
        assert_eq!(kept["built_ms"], NOW);
        assert_eq!(kept["fresh_ms"], NOW + 600_000);
        assert_eq!(kept["tags"], json!(["acme/doc:1"]));
        assert_eq!(kept["entry"]["model"], "gpt-4o-mini");
        assert_eq!(kept["body_bytes"], answer.len());
        assert!(!kept.to_string().contains("confidential"), "{kept}");

        let path = format!("{path}?body=true");
        let (_, kept) = sidecar.ask(("GET", &path), OPERATOR, &Value::Null).await;
        assert_eq!(kept["body"], std::str::from_utf8(answer).unwrap());

        let path = format!("/v1/cache/{}", key(9));
        let (status, _) = sidecar.ask(("GET", &path), OPERATOR, &Value::Null).await;
        assert_eq!(status, 404);
        let (status, _) = sidecar
            .ask(("GET", "/v1/cache/zz"), OPERATOR, &Value::Null)
            .await;
        assert_eq!(status, 400);
    }
}

#[tokio::test]
async fn one_answer_is_dropped_or_all_are_and_the_counts_tell() {
    let (sidecars, _redis) = sidecars();
    for sidecar in sidecars {
        let items = (1..=3)
            .map(|n| with_answer(item(u128::from(n), 1), key(n), 1))
            .collect();
        sidecar.settle(items, b"abc").await;
        for (n, dropped) in [(1, true), (1, false), (8, false)] {
            let path = format!("/v1/cache/{}", key(n));
            let (status, reply) = sidecar.ask(("DELETE", &path), OPERATOR, &Value::Null).await;
            assert_eq!((status.as_u16(), &reply["dropped"]), (200, &json!(dropped)));
        }
        assert_eq!(sidecar.hit(key(1)).await, None);
        assert!(sidecar.hit(key(2)).await.is_some());
        let (status, _) = sidecar
            .ask(("DELETE", "/v1/cache"), OPERATOR, &Value::Null)
            .await;
        assert_eq!(status, 200);
        assert_eq!(sidecar.hit(key(2)).await, None);
        assert_eq!(sidecar.hit(key(3)).await, None);

        let (_, listing) = sidecar
            .ask(("GET", "/v1/cache"), OPERATOR, &Value::Null)
            .await;
        let layer = &listing["layers"][0];
        assert_eq!(
            (&layer["hits"], &layer["misses"], &layer["stored"]),
            (&json!(1), &json!(3), &json!(3)),
            "{listing}"
        );
    }
}

#[tokio::test]
async fn only_operators_open_the_cache() {
    let sidecar = Sidecar::new(&json!({}));
    let one = format!("/v1/cache/{}", key(1));
    for call in [
        ("GET", "/v1/cache"),
        ("DELETE", "/v1/cache"),
        ("GET", &one),
        ("DELETE", &one),
    ] {
        for (token, status) in [("wrong", 401), (SECRET, 403), (ACME, 403)] {
            let (found, _) = sidecar.ask(call, token, &Value::Null).await;
            assert_eq!(found, status, "{call:?} with {token}");
        }
    }
    for (token, status) in [("wrong", 401), (SECRET, 403)] {
        let (found, _) = sidecar.ask(INVALIDATE, token, &json!({"tag": "x"})).await;
        assert_eq!(found, status, "{token}");
    }
}

#[tokio::test]
async fn an_answer_whose_tags_cannot_be_tracked_is_booked_and_not_kept() {
    let (sidecars, _redis) = sidecars();
    for sidecar in sidecars {
        let mut item = with_answer(item(1, 1), key(1), 1);
        item.store = Some(Store {
            tags: vec!["no scope".to_owned()],
            ..item.store.unwrap()
        });
        assert_eq!(sidecar.settle(vec![item], b"a").await.booked, 1);
        assert_eq!(sidecar.hit(key(1)).await, None);
        assert!(
            sidecar
                .metrics()
                .await
                .contains("sluice_cache_stores_total{result=\"refused\"} 1")
        );
    }
}
