//! What a conversation's last turn wanted told: in this process, in Redis, and while that is away.

use serde_json::{Value, json};
use sluice_wire::{AdmitRequest, Over, Remember, Settle, Verdict, limit};

use crate::common::{NOW, Redis, Sidecar, ask, charge, item, key, plan, with_answer};

/// A request of conversation `k`.
fn continues(n: u128, k: u8) -> AdmitRequest {
    AdmitRequest {
        conversation: Some(key(k)),
        ..ask(n, vec![plan(None, vec![])])
    }
}

/// A finished request of conversation `k` that arrived `ms` after [`NOW`].
pub(crate) fn told((n, k): (u128, u8), ms: u64, state: &str) -> Settle {
    let mut settle = Settle {
        sent: Some(Remember {
            conversation: key(k),
            state: state.to_owned(),
            ttl_secs: 300,
            order: None,
        }),
        ..item(n, 1)
    };
    settle.record.at_ms = NOW + ms;
    settle
}

impl Sidecar {
    /// What the last turn of conversation `k` wanted told.
    async fn last(&self, k: u8) -> Option<String> {
        let (reply, _) = self.admit(&continues(999, k)).await;
        assert_eq!(reply.verdict, Verdict::go(0));
        reply.sent
    }

    async fn conversations(&self, series: &str) -> bool {
        let text = self.metrics().await;
        text.contains(&format!("sluice_conversation_{series}\n"))
    }
}

async fn a_conversation_goes_on(sidecar: &Sidecar, other: &Sidecar) {
    assert_eq!(sidecar.last(1).await, None);
    sidecar.settle(vec![told((1, 1), 0, "one")], b"").await;
    assert_eq!(other.last(1).await.as_deref(), Some("one"));
    assert_eq!(other.last(2).await, None, "another conversation");
    // Both turns arrived before either was settled: the later one counts.
    sidecar.advance(10);
    other.advance(10);
    let turns = vec![told((3, 1), 7, "three"), told((2, 1), 3, "two")];
    other.settle(turns, b"").await;
    assert_eq!(sidecar.last(1).await.as_deref(), Some("three"));
    sidecar.settle(vec![told((4, 1), 3, "two")], b"").await;
    assert_eq!(sidecar.last(1).await.as_deref(), Some("three"));
    // A clock that is ahead does not keep the next turn out.
    sidecar
        .settle(vec![told((5, 1), 1 << 40, "four")], b"")
        .await;
    sidecar.settle(vec![told((6, 1), 20, "five")], b"").await;
    assert_eq!(sidecar.last(1).await.as_deref(), Some("five"));
    sidecar.settle(vec![told((7, 1), 20, "")], b"").await;
    assert_eq!(sidecar.last(1).await, None, "forgotten");
}

#[tokio::test]
async fn the_next_turn_is_told_what_the_last_one_that_arrived_wanted_told() {
    let sidecar = Sidecar::new(&json!({}));
    a_conversation_goes_on(&sidecar, &sidecar).await;
    assert!(
        sidecar
            .conversations(r#"writes_total{result="stored"} 5"#)
            .await
    );
    assert!(
        sidecar
            .conversations(r#"writes_total{result="overtaken"} 2"#)
            .await
    );
    sidecar.settle(vec![told((8, 3), 10, "x")], b"").await;
    sidecar.advance(299_999);
    assert_eq!(sidecar.last(3).await.as_deref(), Some("x"));
    sidecar.advance(1);
    assert_eq!(sidecar.last(3).await, None, "its time is over");
}

fn on(redis: &Redis) -> Value {
    json!({
        "store": redis.url(),
        "redis": {"timeout": "2s", "failures": 2, "pause": "50ms"},
    })
}

#[tokio::test]
async fn on_one_redis_any_sidecar_tells_it_and_one_that_is_away_is_as_a_first_turn() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (one, two) = (Sidecar::new(&on(&redis)), Sidecar::new(&on(&redis)));
    a_conversation_goes_on(&one, &two).await;
    two.settle(vec![told((8, 3), 10, "x")], b"").await;
    let mut connection = redis.client().get_connection().unwrap();
    let name = [b"sluice:conversation:", &[3; 32][..]].concat();
    let life: i64 = redis::Commands::pttl(&mut connection, &name).unwrap();
    assert!((1..=300_000).contains(&life), "{life}");

    // What another program wrote there is not told, and written over.
    for (value, shown) in [(&b"short"[..], None), (b"0000000000000001\xff", None)] {
        let () = redis::Commands::set(&mut connection, &name, value).unwrap();
        assert_eq!(one.last(3).await.as_deref(), shown);
    }
    assert!(one.conversations(r#"reads_total{result="error"} 2"#).await);
    one.settle(vec![told((9, 3), 10, "y")], b"").await;
    assert_eq!(one.last(3).await.as_deref(), Some("y"));

    redis.kill();
    let mut request = continues(10, 3);
    request.plans = vec![plan(Some(key(1)), vec![charge(100, 60, Over::Reject)])];
    let (reply, _) = one.admit(&request).await;
    assert_eq!((reply.verdict, reply.sent), (Verdict::go(0), None));
    one.settle(vec![told((10, 3), 10, "z")], b"").await;
    assert!(one.conversations(r#"writes_total{result="error"} 1"#).await);
}

#[tokio::test]
async fn a_cached_answer_is_told_nothing_of_the_conversation() {
    let sidecar = Sidecar::new(&json!({}));
    let stored = with_answer(told((1, 1), 0, "one"), key(9), 2);
    sidecar.settle(vec![stored], b"ok").await;
    let mut request = continues(2, 1);
    request.plans = vec![plan(Some(key(9)), vec![])];
    let (reply, body) = sidecar.admit(&request).await;
    assert!(matches!(reply.verdict, Verdict::Hit { .. }), "{reply:?}");
    assert_eq!((reply.sent, body), (None, b"ok".to_vec()));
}

#[tokio::test]
async fn many_conversations_take_no_more_than_their_bytes() {
    let sidecar = Sidecar::new(&json!({"conversations": "1MiB"}));
    let state = "x".repeat(limit::STATE);
    for batch in 0..20 {
        let items = (0..100).map(|n| {
            let n = batch * 100 + n;
            let mut settle = told((n + 1, 0), 0, &state);
            settle.sent.as_mut().unwrap().conversation = format!("{n:064x}");
            settle
        });
        sidecar.settle(items.collect(), b"").await;
    }
    let bytes = sidecar.metrics_value("sluice_conversation_bytes").await;
    assert!((1..=1 << 20).contains(&bytes.unwrap()), "{bytes:?}");
    let mut newest = continues(1, 0);
    newest.conversation = Some(format!("{:064x}", 1999));
    assert_eq!(sidecar.admit(&newest).await.0.sent, Some(state));
}

#[tokio::test]
async fn a_state_that_is_too_long_or_nobodys_is_refused_with_the_fields_name() {
    let sidecar = Sidecar::new(&json!({}));
    let long = told((1, 1), 0, &"x".repeat(limit::STATE + 1));
    let mut nobodys = told((1, 1), 0, "x");
    nobodys.sent.as_mut().unwrap().conversation = "acme".to_owned();
    let most = limit::STATE;
    let too_long = format!(
        "items[0].sent.state: expected at most {most} bytes, found {}",
        most + 1
    );
    let unnamed = "items[0].sent.conversation: expected 64 hex digits".to_owned();
    for (settle, part) in [(long, too_long), (nobodys, unnamed)] {
        let (status, text) = sidecar.try_settle(vec![settle], b"").await;
        let text = String::from_utf8_lossy(&text);
        assert_eq!(
            (status.as_u16(), text.contains(&part)),
            (400, true),
            "{text}"
        );
    }
}
