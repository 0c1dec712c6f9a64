//! Embedding requests input by input, in memory, in Redis, and in Redis with memory in front.

use std::path::PathBuf;
use std::sync::Arc;

use redis::Commands;
use serde_json::{Value, json};
use sluice::config::Semantic;
use sluice::semantic::SemanticCache;
use sluice_engine::Echo;
use sluice_wire::{
    AdmitReply, AdmitRequest, CacheAsk, CacheResult, Frame, LeaseEnd, Over, Question, Release,
    Settle, StoreVectors, Vectors, Verdict, limit,
};

use crate::common::{
    NOW, OPERATOR, Redis, Sidecar, ask, charge, frame, item, key, plan, post, until,
};

/// Room for all that these tests keep.
const ROOM: u32 = 1 << 20;

/// Every kind of store, and the Redis beneath some.
async fn sidecars() -> (Vec<Sidecar>, Option<Redis>) {
    let redis = Redis::start();
    let mut all = vec![Sidecar::new(&json!({}))];
    if let Some(redis) = &redis {
        let patience = json!({"timeout": "2s"});
        all.push(Sidecar::new(
            &json!({"store": redis.url(), "redis": patience}),
        ));
        let layered = Sidecar::new(&json!({
            "store": redis.url(), "redis": patience, "cache": {"local": {"ttl": "1h"}},
        }));
        let app = layered.app.clone();
        tokio::spawn(async move { app.listen().await });
        until("it subscribes", async || {
            let text = layered.metrics().await;
            text.contains("sluice_cache_local_subscribed 1")
        })
        .await;
        all.push(layered);
    }
    (all, redis)
}

fn keys(inputs: &[u8]) -> Vec<u8> {
    inputs.iter().flat_map(|n| [*n; 32]).collect()
}

/// The exact key of a request for these inputs: that of no input.
fn whole(inputs: &[u8]) -> String {
    key(inputs.iter().fold(0, |sum: u8, n| sum.wrapping_add(*n)) | 0x80)
}

/// Request `n` for these inputs.
fn asks(n: u128, inputs: &[u8]) -> AdmitRequest {
    let mut plan = plan(Some(whole(inputs)), vec![]);
    plan.inputs = inputs.len() as u32;
    AdmitRequest {
        cache: CacheAsk {
            lease_ms: 30_000,
            vector_bytes: ROOM,
            ..CacheAsk::default()
        },
        ..ask(n, vec![plan])
    }
}

/// What request `n` brought for these inputs: of each a vector of its number, four times.
fn brought(n: u128, inputs: &[u8]) -> (Settle, Vec<u8>) {
    let mut settle = item(n, 1);
    settle.vectors = Some(StoreVectors {
        ttl_secs: 600,
        model: "m-1".to_owned(),
        len: 4,
        tokens: inputs.iter().map(|n| u32::from(*n) * 10).collect(),
        ..StoreVectors::default()
    });
    let bytes = inputs.iter().flat_map(|n| [*n; 36]).collect();
    (settle, bytes)
}

impl Sidecar {
    async fn inputs(&self, ask: &AdmitRequest, inputs: &[u8]) -> (AdmitReply, Vec<u8>) {
        let (status, body) = self.post("/v1/admit", frame(ask, &keys(inputs))).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let frame: Frame<AdmitReply, _> = Frame::decode(&body).unwrap();
        (frame.head, frame.body.to_vec())
    }

    async fn keep(&self, n: u128, inputs: &[u8]) {
        let (settle, bytes) = brought(n, inputs);
        assert_eq!(self.settle(vec![settle], &bytes).await.booked, 1);
    }

    async fn items(&self, result: &str) -> u64 {
        let name = format!("sluice_embedding_items_total{{source=\"api\",result=\"{result}\"}} ");
        let text = self.metrics().await;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&name));
        lines.next().map_or(0, |number| number.parse().unwrap())
    }
}

pub(crate) async fn keep(sidecar: &Sidecar, n: u128, inputs: &[u8]) {
    sidecar.keep(n, inputs).await;
}

/// How many of these are there.
pub(crate) async fn found_of(sidecar: &Sidecar, n: u128, inputs: &[u8]) -> usize {
    found(&sidecar.inputs(&asks(n, inputs), inputs).await.0).len()
}

fn found(reply: &AdmitReply) -> Vec<(u16, u32)> {
    let vectors = reply.vectors.clone().unwrap_or_default();
    vectors.found
}

#[tokio::test]
async fn what_is_there_is_told_and_all_of_it_is_a_hit() {
    let (sidecars, _redis) = sidecars().await;
    for (at, sidecar) in (1_u8..).zip(sidecars) {
        // Requests and inputs that no other sidecar on the same Redis had.
        let [a, b, c] = [at * 10, at * 10 + 1, at * 10 + 2];
        let n = u128::from(at) * 100;
        let (reply, body) = sidecar.inputs(&asks(n + 1, &[a, b]), &[a, b]).await;
        assert!(matches!(reply.verdict, Verdict::Go { lease: Some(_), .. }));
        assert_eq!((reply.vectors, body), (None, vec![]));
        sidecar.keep(n + 1, &[a, b]).await;
        sidecar.advance(5_000);

        let (reply, body) = sidecar.inputs(&asks(n + 2, &[c, b]), &[c, b]).await;
        assert!(matches!(reply.verdict, Verdict::Go { .. }), "{reply:?}");
        assert_eq!(
            reply.vectors,
            Some(Vectors {
                found: vec![(1, u32::from(b) * 10)],
                len: 4,
                model: "m-1".to_owned(),
                age_secs: 5,
            })
        );
        assert_eq!(body, [b; 4]);

        let (reply, body) = sidecar.inputs(&asks(n + 3, &[b, a]), &[b, a]).await;
        assert!(matches!(
            reply.verdict,
            Verdict::Hit {
                result: CacheResult::Hit,
                age_secs: 5,
                refresh: None,
                ..
            }
        ));
        assert_eq!(
            found(&reply),
            [(0, u32::from(b) * 10), (1, u32::from(a) * 10)]
        );
        assert_eq!(body, [[b; 4], [a; 4]].concat());
        assert_eq!(
            (sidecar.items("hit").await, sidecar.items("miss").await),
            (3, 3)
        );

        // In dry only which are there is asked.
        let mut dry = asks(n + 4, &[c, b]);
        dry.cache = CacheAsk::default();
        let (reply, body) = sidecar.inputs(&dry, &[c, b]).await;
        assert_eq!((found(&reply).len(), body.len()), (1, 0));

        // Both or none.
        let mut narrow = asks(n + 5, &[b, a]);
        (narrow.cache.vector_bytes, narrow.cache.lease_ms) = (7, 0);
        let (reply, _) = sidecar.inputs(&narrow, &[b, a]).await;
        assert!(matches!(reply.verdict, Verdict::Go { .. }));
        assert_eq!((reply.vectors, sidecar.items("no_room").await), (None, 2));

        sidecar.advance(595_000);
        let (reply, _) = sidecar.inputs(&asks(n + 6, &[b, a]), &[b, a]).await;
        assert_eq!(reply.vectors, None, "their time is over");
    }
}

#[tokio::test]
async fn a_hit_needs_no_budget_and_a_miss_keeps_its_lease_from_others() {
    let sidecar = Sidecar::new(&json!({}));
    let used_up = |n, inputs: &[u8]| {
        let mut ask = asks(n, inputs);
        ask.plans[0].charges = vec![charge(0, 1, Over::Reject)];
        ask
    };
    sidecar.keep(1, &[1, 2]).await;
    let (reply, _) = sidecar.inputs(&used_up(2, &[2, 1]), &[2, 1]).await;
    assert!(matches!(reply.verdict, Verdict::Hit { .. }), "{reply:?}");
    let (reply, _) = sidecar.inputs(&used_up(3, &[1, 3]), &[1, 3]).await;
    assert!(matches!(reply.verdict, Verdict::Over { .. }), "{reply:?}");
    assert_eq!(reply.vectors, None);

    // The refused one gave its lease back; of those that may go one does.
    until("its lease is free", async || {
        let (reply, _) = sidecar.inputs(&asks(4, &[1, 3]), &[1, 3]).await;
        matches!(reply.verdict, Verdict::Go { lease: Some(_), .. })
    })
    .await;
    let (reply, _) = sidecar.inputs(&asks(5, &[1, 3]), &[1, 3]).await;
    assert_eq!(reply.verdict, Verdict::Wait);
}

#[tokio::test]
async fn equal_requests_in_flight_wait_and_find_every_vector() {
    let (sidecars, _redis) = sidecars().await;
    for (n, sidecar) in (0..).step_by(100).zip(sidecars) {
        let (first, _) = sidecar.inputs(&asks(n + 1, &[1, 2]), &[1, 2]).await;
        let Verdict::Go {
            lease: Some(lease), ..
        } = first.verdict
        else {
            panic!("{first:?}");
        };
        let mut other = asks(n + 2, &[1, 2]);
        let (reply, _) = sidecar.inputs(&other, &[1, 2]).await;
        assert_eq!(reply.verdict, Verdict::Wait);
        other.cache.wait_ms = 60_000;
        let wait = sidecar.call(post("/v1/wait", frame(&other, &keys(&[1, 2]))));
        let leader = async {
            until("it waits", async || {
                sidecar.metrics().await.contains("sluice_waiting 1\n")
            })
            .await;
            let (mut settle, bytes) = brought(n + 1, &[1, 2]);
            settle.release = Some(Release {
                key: whole(&[1, 2]),
                lease,
                end: LeaseEnd::Stored,
            });
            sidecar.settle(vec![settle], &bytes).await;
        };
        let ((status, body), ()) = tokio::join!(wait, leader);
        assert_eq!(status, 200);
        let frame: Frame<AdmitReply, _> = Frame::decode(&body).unwrap();
        assert!(
            matches!(
                frame.head.verdict,
                Verdict::Hit {
                    result: CacheResult::Coalesced,
                    ..
                }
            ),
            "{:?}",
            frame.head
        );
        assert_eq!(frame.body, [[1_u8; 4], [2; 4]].concat());
        sidecar
            .ask(("DELETE", "/v1/cache"), OPERATOR, &Value::Null)
            .await;
    }
}

#[tokio::test]
async fn of_two_revisions_the_newer_counts_and_the_older_is_missing() {
    let sidecar = Sidecar::new(&json!({}));
    sidecar.keep(1, &[1, 2]).await;
    sidecar.advance(1_000);
    let (mut settle, bytes) = brought(2, &[3]);
    settle.vectors.as_mut().unwrap().model = "m-2".to_owned();
    sidecar.settle(vec![settle], &bytes).await;
    let (reply, body) = sidecar.inputs(&asks(3, &[1, 3, 2]), &[1, 3, 2]).await;
    assert!(matches!(reply.verdict, Verdict::Go { .. }));
    assert_eq!((found(&reply), body), (vec![(1, 30)], vec![3; 4]));
    assert_eq!(sidecar.items("revision").await, 2);
    // Another length is another revision, whatever it is called.
    sidecar.advance(1_000);
    let (mut settle, _) = brought(4, &[4]);
    let vectors = settle.vectors.as_mut().unwrap();
    (vectors.model, vectors.len) = ("m-2".to_owned(), 8);
    sidecar.settle(vec![settle], &[4; 40]).await;
    let (reply, _) = sidecar.inputs(&asks(5, &[3, 4]), &[3, 4]).await;
    assert_eq!(found(&reply), [(1, 40)]);
}

#[tokio::test]
async fn past_its_time_a_vector_serves_only_while_upstream_fails() {
    let sidecar = Sidecar::new(&json!({}));
    let (mut settle, bytes) = brought(1, &[1]);
    settle.vectors.as_mut().unwrap().stale_if_error_secs = 600;
    sidecar.settle(vec![settle], &bytes).await;
    sidecar.advance(900_000);
    assert_eq!(sidecar.inputs(&asks(2, &[1]), &[1]).await.0.vectors, None);
    let mut failing = asks(3, &[1]);
    failing.cache.failing = true;
    let (reply, body) = sidecar.inputs(&failing, &[1]).await;
    assert!(matches!(
        reply.verdict,
        Verdict::Hit {
            age_secs: 900,
            result: CacheResult::Stale,
            ..
        }
    ));
    assert_eq!(body, [1; 4]);
}

#[tokio::test]
async fn a_tag_voids_vectors_as_it_does_answers() {
    let (sidecars, _redis) = sidecars().await;
    for (n, sidecar) in (0..).step_by(100).zip(sidecars) {
        let (mut settle, bytes) = brought(n + 1, &[1, 2]);
        // A tag that no other sidecar on the same Redis has invalidated.
        let tag = format!("doc:{n}");
        settle.vectors.as_mut().unwrap().tags = vec![format!("acme/{tag}")];
        sidecar.settle(vec![settle], &bytes).await;
        sidecar.keep(n + 2, &[3]).await;
        let all = [1, 2, 3];
        assert_eq!(
            found(&sidecar.inputs(&asks(n + 3, &all), &all).await.0).len(),
            3
        );
        let tag = json!({"tenant": "acme", "tag": tag});
        sidecar
            .ask(("POST", "/v1/invalidate"), OPERATOR, &tag)
            .await;
        let mut later = asks(n + 4, &all);
        later.cache.lease_ms = 0;
        let (reply, _) = sidecar.inputs(&later, &all).await;
        assert_eq!(found(&reply), [(2, 30)]);
        sidecar
            .ask(("DELETE", "/v1/cache"), OPERATOR, &Value::Null)
            .await;
    }
}

#[tokio::test]
async fn a_damaged_vector_is_missing_and_counted() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = Sidecar::new(&json!({"store": redis.url(), "redis": {"timeout": "2s"}}));
    sidecar.keep(1, &[1, 2]).await;
    let mut client = redis.client().get_connection().unwrap();
    let name = [b"sluice:c:".to_vec(), vec![1; 32]].concat();
    let mut value: Vec<u8> = client.get(&name).unwrap();
    *value.last_mut().unwrap() ^= 1;
    let () = client.set(&name, value).unwrap();
    let (reply, body) = sidecar.inputs(&asks(2, &[1, 2]), &[1, 2]).await;
    assert_eq!((found(&reply), body), (vec![(1, 20)], vec![2; 4]));
    assert_eq!(sidecar.items("corrupt").await, 1);
    let left: Option<Vec<u8>> = client.get(&name).unwrap();
    assert_eq!(left, None, "what is damaged is dropped");
}

#[tokio::test]
async fn as_many_inputs_as_a_request_may_have_are_one_question_to_redis() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = Sidecar::new(&json!({"store": redis.url(), "redis": {"timeout": "2s"}}));
    let count = limit::INPUTS;
    let mut settle = item(1, 1);
    settle.vectors = Some(StoreVectors {
        ttl_secs: 600,
        model: "m".to_owned(),
        len: 64,
        tokens: vec![1; count],
        ..StoreVectors::default()
    });
    let bytes: Vec<u8> = (0..count)
        .flat_map(|n| [key_of(n).to_vec(), vec![n as u8; 64]].concat())
        .collect();
    sidecar.settle(vec![settle], &bytes).await;
    let calls = |name: &str| {
        let mut client = redis.client().get_connection().unwrap();
        let stats: String = redis::cmd("INFO")
            .arg("commandstats")
            .query(&mut client)
            .unwrap();
        let line = format!("cmdstat_{name}:calls=");
        let mut lines = stats.lines().filter_map(|it| it.strip_prefix(&line));
        let calls = lines.next().and_then(|it| it.split(',').next());
        calls.map_or(0, |it| it.parse::<u64>().unwrap())
    };
    let before = (calls("mget"), calls("get"));
    let mut ask = asks(2, &[]);
    ask.plans[0].key = Some(key(9));
    ask.plans[0].inputs = count as u32;
    let all: Vec<u8> = (0..count).flat_map(key_of).collect();
    let (status, body) = sidecar.post("/v1/admit", frame(&ask, &all)).await;
    assert_eq!(status, 200);
    let reply: Frame<AdmitReply, _> = Frame::decode(&body).unwrap();
    assert!(matches!(reply.head.verdict, Verdict::Hit { .. }));
    assert_eq!(
        (found(&reply.head).len(), reply.body.len()),
        (count, 64 * count)
    );
    let after = (calls("mget"), calls("get"));
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 0));
}

/// A key that no other number has, spread over the whole range.
fn key_of(n: usize) -> [u8; 32] {
    let mut key = [0; 32];
    let mut state = n as u64 + 1;
    for bytes in key.chunks_exact_mut(8) {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.copy_from_slice(&state.to_le_bytes());
    }
    key
}

#[tokio::test]
async fn inputs_that_are_not_what_they_say_are_refused_with_what_is_wrong() {
    let sidecar = Sidecar::new(&json!({}));
    let mut many = asks(1, &[]);
    many.plans[0].inputs = limit::INPUTS as u32 + 1;
    let long = vec![0; 32 * (limit::INPUTS + 1)];
    for (ask, body, part) in [
        (
            asks(1, &[1, 2]),
            keys(&[1]),
            "body: expected the keys of 2 inputs, found 32 bytes",
        ),
        (
            asks(1, &[1]),
            vec![0; 33],
            "expected the keys of 1 inputs, found 33 bytes",
        ),
        (asks(1, &[]), vec![0; 32], "expected the keys of 0 inputs"),
        (
            many,
            long,
            "plans[0].inputs: expected at most 2048, found 2049",
        ),
    ] {
        let (status, text) = sidecar.post("/v1/admit", frame(&ask, &body)).await;
        let text = String::from_utf8_lossy(&text);
        assert_eq!(
            (status.as_u16(), text.contains(part)),
            (400, true),
            "{part} in {text}"
        );
    }
    let (settle, bytes) = brought(1, &[1, 2]);
    let mut wide = settle.clone();
    wide.vectors.as_mut().unwrap().len = u32::MAX;
    let mut many = settle.clone();
    many.vectors.as_mut().unwrap().tokens = vec![1; limit::INPUTS + 1];
    for (settle, part) in [
        (
            wide,
            "items[0].vectors.tokens: expected 8589934654 bytes of vectors, found 72",
        ),
        (
            many,
            "items[0].vectors.tokens: expected at most 2048, found 2049",
        ),
        (item(1, 1), "72 bytes more"),
    ] {
        let (status, text) = sidecar.try_settle(vec![settle], &bytes).await;
        let text = String::from_utf8_lossy(&text);
        assert_eq!(
            (status.as_u16(), text.contains(part)),
            (400, true),
            "{part} in {text}"
        );
    }
}

#[tokio::test]
async fn a_vector_is_looked_into_like_an_answer() {
    let sidecar = Sidecar::new(&json!({}));
    sidecar.keep(1, &[7]).await;
    let path = format!("/v1/cache/{}", key(7));
    let (status, kept) = sidecar.ask(("GET", &path), OPERATOR, &Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&kept["entry"]["format"], &kept["entry"]["model"]),
        (&json!("vector"), &json!("m-1"))
    );
    assert_eq!(
        (&kept["body_bytes"], &kept["fresh_ms"]),
        (&json!(4), &json!(NOW + 600_000))
    );
}

#[tokio::test]
async fn the_semantic_caches_own_texts_are_counted_too() {
    let bounds = Semantic {
        model: PathBuf::new(),
        threads: 1,
        entries: 10,
        memory: 1 << 20,
        texts: 1 << 20,
        keep_answers: false,
    };
    let engine = Arc::new(Echo::new(8));
    let sidecar =
        Sidecar::with_questions(SemanticCache::with(engine, &bounds).unwrap(), &json!({}));
    for (n, text) in [(1, "Where is it?"), (2, "Where is it?"), (3, "Who is it?")] {
        let mut plan = plan(Some(key(n)), vec![]);
        plan.scope = Some(key(9));
        let mut ask = ask(u128::from(n), vec![plan]);
        ask.cache.question = Some(Question {
            text: text.to_owned(),
            max_ms: 10_000,
            ..Question::default()
        });
        sidecar.admit(&ask).await;
    }
    let text = sidecar.metrics().await;
    for line in [
        "sluice_embedding_items_total{source=\"internal\",result=\"hit\"} 1",
        "sluice_embedding_items_total{source=\"internal\",result=\"miss\"} 2",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
