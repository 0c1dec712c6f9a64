//! Sidecars on one Redis: what one has learnt the others know, and a threshold is theirs together.

use std::sync::Arc;

use redis::Commands;
use serde_json::json;
use sluice::config::Semantic;
use sluice::semantic::SemanticCache;
use sluice_engine::Echo;

use crate::common::{OPERATOR, Redis, Sidecar, key, tagged};
use crate::semantic::{REFUND, answers, asks, bounds, sidecar};

const PARAPHRASE: &str = "how do i reset my password";
const ANSWER: &[u8] =
    br#"{"id":"c1","choices":[{"index":0,"message":{"content":"By mail.","role":"assistant"}}]}"#;

fn on(redis: &Redis, bounds: &Semantic) -> Sidecar {
    let semantic = SemanticCache::with(Arc::new(Echo::new(384)), bounds).unwrap();
    Sidecar::with_questions(semantic, &json!({"store": redis.url()}))
}

fn stream(redis: &Redis) -> (redis::Connection, String) {
    let mut connection = redis.client().get_connection().unwrap();
    let mut keys: Vec<String> = connection.keys("sluice:semantic:q:*").unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    (connection, keys.remove(0))
}

impl Sidecar {
    async fn entries(&self) -> Option<i64> {
        self.metrics_value("sluice_semantic_entries").await
    }

    async fn answers_paraphrase(&self, n: u128) -> bool {
        let found = self.found(&asks((n, 2), 1, PARAPHRASE)).await;
        found.inspect(|body| assert_eq!(body, ANSWER)).is_some()
    }
}

#[tokio::test]
async fn a_question_that_one_learnt_is_answered_by_all_and_by_who_starts_later() {
    let Some(redis) = Redis::start() else { return };
    let (one, other) = (on(&redis, &bounds()), on(&redis, &bounds()));
    one.learn((1, 1), 1, (REFUND, ANSWER)).await;
    assert!(!other.answers_paraphrase(2).await);
    one.app.catch_up().await;
    other.app.catch_up().await;
    assert!(other.answers_paraphrase(3).await);
    assert!(
        other.found(&asks((4, 2), 2, PARAPHRASE)).await.is_none(),
        "in its scope only"
    );
    // Its own come back to it, and change nothing.
    one.app.catch_up().await;
    assert_eq!(
        one.metrics_value("sluice_semantic_shared_told").await,
        Some(1)
    );
    assert_eq!(
        one.metrics_value("sluice_semantic_shared_learnt").await,
        Some(0)
    );
    let later = on(&redis, &bounds());
    later.app.catch_up().await;
    assert!(later.answers_paraphrase(5).await);
    assert_eq!(
        later.metrics_value("sluice_semantic_shared_learnt").await,
        Some(1)
    );
}

#[tokio::test]
async fn what_is_no_question_is_counted_and_passed_over_and_the_stream_is_bounded() {
    let Some(redis) = Redis::start() else { return };
    let few = Semantic {
        entries: 10,
        ..bounds()
    };
    let one = on(&redis, &few);
    one.learn((1, 1), 1, (REFUND, ANSWER)).await;
    one.app.catch_up().await;
    let (mut connection, name) = stream(&redis);
    let add = |connection: &mut redis::Connection, field: &[u8], value: &[u8]| {
        let mut command = redis::cmd("XADD");
        command.arg(&name).arg("*").arg(field).arg(value);
        command.query::<String>(connection).unwrap();
    };
    let ttl: i64 = connection.pttl(&name).unwrap();
    assert!(ttl > 30 * 86_400_000, "{ttl}");
    add(&mut connection, b"q", b"garbage");
    add(&mut connection, b"\xff", b"");
    one.settle(vec![answers((2, 5), 2, (REFUND, ANSWER))], ANSWER)
        .await;
    crate::common::until("kept", async || one.entries().await == Some(2)).await;
    one.app.catch_up().await;
    let other = on(&redis, &few);
    other.app.catch_up().await;
    assert_eq!(
        other
            .metrics_value("sluice_semantic_shared_unreadable")
            .await,
        Some(2)
    );
    assert_eq!(other.entries().await, Some(2));
    assert!(other.answers_paraphrase(9).await);

    for n in 0..400_u32 {
        let text = format!("Where is order number {n} now?");
        let mut item = answers((1000 + u128::from(n), 1), 3, (&text, ANSWER));
        item.store.as_mut().unwrap().key = format!("{n:064x}");
        one.settle(vec![item], ANSWER).await;
        crate::common::until("kept", async || {
            one.metrics_value("sluice_semantic_shared_waiting").await == Some(1)
        })
        .await;
        one.app.catch_up().await;
    }
    let length: u64 = redis::cmd("XLEN")
        .arg(&name)
        .query(&mut connection)
        .unwrap();
    assert!(length < 300, "{length}: Redis trims whole nodes");
    assert_eq!(other.entries().await, Some(2));
    other.app.catch_up().await;
    assert_eq!(other.entries().await, Some(10));
}

#[tokio::test]
async fn a_threshold_is_moved_once_for_all_also_over_a_restart_of_redis() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (one, other) = (on(&redis, &bounds()), on(&redis, &bounds()));
    one.learn((1, 1), 1, (REFUND, ANSWER)).await;
    one.app.catch_up().await;
    other.app.catch_up().await;
    assert_eq!(one.audit((2, 2), "Not by mail.").await, "different");
    assert_eq!(other.audit((3, 3), "By mail.").await, "same");
    let alone = (
        one.threshold().await.unwrap(),
        other.threshold().await.unwrap(),
    );
    assert!(alone.0 > 0.98 && alone.1 < 0.98, "{alone:?}");
    for sidecar in [&one, &other, &one] {
        sidecar.app.catch_up().await;
    }
    let together = one.threshold().await.unwrap();
    assert_eq!(other.threshold().await, Some(together));
    assert!(together > 0.98 && together < alone.0, "{together}");
    assert_eq!(
        one.of_route("sluice_semantic_false_hit_estimate").await,
        Some(0.5)
    );

    // Nothing is told meanwhile, and what Redis lost comes from who knows it.
    assert_eq!(one.audit((4, 4), "Not by mail.").await, "different");
    let higher = one.threshold().await.unwrap();
    redis.kill();
    one.app.catch_up().await;
    assert_eq!(one.threshold().await, Some(higher));
    redis.restart();
    crate::common::until("the others hear of it", async || {
        one.app.catch_up().await;
        other.app.catch_up().await;
        other.threshold().await == Some(higher)
    })
    .await;
    assert_eq!(one.threshold().await, Some(higher));
}

/// An answer that is built on a document, with its question.
async fn learn_tagged(sidecar: &Sidecar, n: u8) {
    let mut item = tagged(n, "acme/doc:1", 0, ANSWER);
    let question = answers((1, 1), 1, (REFUND, ANSWER)).store.unwrap().question;
    item.store.as_mut().unwrap().question = question;
    sidecar.settle(vec![item], ANSWER).await;
    crate::common::until("kept", async || sidecar.entries().await == Some(1)).await;
}

#[tokio::test]
async fn an_invalidated_answer_takes_its_question_with_it_wherever_it_is_known() {
    let Some(redis) = Redis::start() else { return };
    let shared = (on(&redis, &bounds()), on(&redis, &bounds()));
    let memory = sidecar();
    for (one, other) in [(&shared.0, Some(&shared.1)), (&memory, None)] {
        learn_tagged(one, 1).await;
        one.app.catch_up().await;
        if let Some(other) = other {
            other.app.catch_up().await;
            assert!(other.answers_paraphrase(3).await);
        }
        assert!(one.answers_paraphrase(2).await);
        let invalidate = json!({"tenant": "acme", "tag": "doc:1"});
        let (status, _) = one
            .ask(("POST", "/v1/invalidate"), OPERATOR, &invalidate)
            .await;
        assert_eq!(status, 200);
        for sidecar in [Some(one), other].into_iter().flatten() {
            assert!(!sidecar.answers_paraphrase(4).await);
            assert!(sidecar.counted(r#"result="missing",reason="""#).await);
            assert_eq!(sidecar.entries().await, Some(0));
        }
    }
}

#[tokio::test]
async fn what_an_operator_drops_takes_its_question_with_it() {
    let Some(redis) = Redis::start() else { return };
    let one = on(&redis, &bounds());
    one.learn((1, 1), 1, (REFUND, ANSWER)).await;
    one.app.catch_up().await;
    one.ask(
        ("DELETE", &format!("/v1/cache/{}", key(1))),
        OPERATOR,
        &json!(null),
    )
    .await;
    assert_eq!(one.entries().await, Some(0));
    one.learn((2, 2), 1, (REFUND, ANSWER)).await;
    one.app.catch_up().await;
    one.ask(("DELETE", "/v1/cache"), OPERATOR, &json!(null))
        .await;
    assert_eq!(one.entries().await, Some(0));
    let later = on(&redis, &bounds());
    later.app.catch_up().await;
    assert_eq!(later.entries().await, Some(0));
}
