//! Equal requests in flight: one fetches the answer, the others wait for it; on one sidecar and on
//! two that share Redis.

use crate::common::{Redis, Sidecar, ask, charge, frame, item, key, plan, post, with_answer};
use axum::body::Body;
use axum::http::Request;
use futures_util::future::join_all;
use serde_json::json;
use sluice_wire::{
    AdmitReply, AdmitRequest, CacheAsk, CacheResult, Frame, Lease, LeaseEnd, Over, Release, Settle,
    Verdict,
};

const LEASE_MS: u32 = 15_000;

fn sidecar() -> Sidecar {
    Sidecar::new(&json!({}))
}

fn on(redis: &Redis) -> Sidecar {
    Sidecar::new(&json!({
        "store": redis.url(),
        "redis": {"timeout": "2s", "failures": 2, "pause": "50ms"},
    }))
}

fn cached(n: u128, wait_ms: u32) -> AdmitRequest {
    AdmitRequest {
        cache: CacheAsk {
            lease_ms: LEASE_MS,
            wait_ms,
            ..CacheAsk::default()
        },
        ..ask(n, vec![plan(Some(key(1)), Vec::new())])
    }
}

fn lease(reply: &AdmitReply) -> Lease {
    match &reply.verdict {
        Verdict::Go {
            lease: Some(lease), ..
        } => lease.clone(),
        other => panic!("{other:?}"),
    }
}

fn settled(n: u128, lease: Lease, (end, answer): (LeaseEnd, &[u8])) -> Settle {
    let item = match answer {
        b"" => item(n, 10),
        answer => with_answer(item(n, 10), key(1), answer.len() as u64),
    };
    Settle {
        release: Some(Release {
            key: key(1),
            lease,
            end,
        }),
        ..item
    }
}

impl Sidecar {
    fn wait_call(&self, ask: &AdmitRequest) -> Request<Body> {
        post("/v1/wait", frame(ask, b""))
    }

    async fn wait(&self, ask: &AdmitRequest) -> (AdmitReply, Vec<u8>) {
        let (status, body) = self.call(self.wait_call(ask)).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let frame: Frame<AdmitReply, _> = Frame::decode(&body).unwrap();
        (frame.head, frame.body.to_vec())
    }

    /// Returns once `n` wait here.
    async fn until_waiting(&self, n: usize) {
        let gauge = format!("sluice_waiting {n}\n");
        while !self.metrics().await.contains(&gauge) {
            tokio::task::yield_now().await;
        }
    }
}

fn result(reply: &AdmitReply) -> CacheResult {
    match reply.verdict {
        Verdict::Hit { result, .. } => result,
        ref other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn of_many_equal_requests_one_goes_and_the_others_get_its_answer() {
    let sidecar = sidecar();
    let (first, _) = sidecar.admit(&cached(0, 0)).await;
    let others: Vec<AdmitRequest> = (1..100).map(|n| cached(n, 60_000)).collect();
    for other in &others {
        assert_eq!(sidecar.admit(other).await.0.verdict, Verdict::Wait);
    }
    let waits = join_all(others.iter().map(|it| sidecar.wait(it)));
    let leader = async {
        sidecar.until_waiting(99).await;
        let done = settled(0, lease(&first), (LeaseEnd::Stored, b"the answer"));
        sidecar.settle(vec![done], b"the answer").await
    };
    let (answers, _) = tokio::join!(waits, leader);
    for (reply, body) in answers {
        assert_eq!(result(&reply), CacheResult::Coalesced);
        assert_eq!(body, b"the answer");
    }
    let (reply, _) = sidecar.admit(&cached(200, 0)).await;
    assert_eq!(result(&reply), CacheResult::Hit);
}

#[tokio::test]
async fn when_the_leader_fails_exactly_one_takes_over_and_the_rest_go_on_waiting() {
    let sidecar = sidecar();
    let (first, _) = sidecar.admit(&cached(0, 0)).await;
    let others: Vec<AdmitRequest> = (1..20).map(|n| cached(n, 60_000)).collect();
    let waits = others.iter().map(async |it| {
        let (reply, body) = sidecar.wait(it).await;
        if let Verdict::Go { .. } = reply.verdict {
            // The one that took over, once all others are seen to wait still.
            sidecar.until_waiting(18).await;
            let done = settled(1_000, lease(&reply), (LeaseEnd::Stored, b"second"));
            sidecar.settle(vec![done], b"second").await;
            return None;
        }
        Some((result(&reply), body))
    });
    let leader = async {
        sidecar.until_waiting(19).await;
        let done = settled(0, lease(&first), (LeaseEnd::Failed, b""));
        sidecar.settle(vec![done], b"").await
    };
    let (answers, _) = tokio::join!(join_all(waits), leader);
    let told: Vec<_> = answers.into_iter().flatten().collect();
    assert_eq!(told.len(), 18);
    for answer in told {
        assert_eq!(answer, (CacheResult::Coalesced, b"second".to_vec()));
    }
}

#[tokio::test]
async fn a_leader_that_is_slow_is_replaced_and_cannot_overwrite_its_successor() {
    let sidecar = sidecar();
    let (slow, _) = sidecar.admit(&cached(0, 0)).await;
    let waiting = cached(1, 60_000);
    let next = async {
        sidecar.until_waiting(1).await;
        sidecar.advance(u64::from(LEASE_MS));
    };
    let ((reply, _), ()) = tokio::join!(sidecar.wait(&waiting), next);
    let (slow, next) = (lease(&slow), lease(&reply));
    assert!(next.token > slow.token);
    let done = settled(1, next, (LeaseEnd::Stored, b"second"));
    sidecar.settle(vec![done], b"second").await;
    let late = settled(0, slow, (LeaseEnd::Stored, b"first"));
    sidecar.settle(vec![late], b"first").await;
    let (_, body) = sidecar.admit(&cached(2, 0)).await;
    assert_eq!(body, b"second");
    let metrics = sidecar.metrics().await;
    assert!(
        metrics.contains(r#"sluice_cache_stores_total{result="fenced"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_a_leader_that_was_given_up_brings_first_is_told_to_those_who_wait() {
    let sidecar = sidecar();
    let (slow, _) = sidecar.admit(&cached(0, 0)).await;
    sidecar.advance(u64::from(LEASE_MS));
    let (next, _) = sidecar.admit(&cached(1, 0)).await;
    let late = async {
        sidecar.until_waiting(1).await;
        let late = settled(0, lease(&slow), (LeaseEnd::Stored, b"first"));
        sidecar.settle(vec![late], b"first").await;
    };
    let waiting = cached(2, 60_000);
    let ((reply, body), ()) = tokio::join!(sidecar.wait(&waiting), late);
    assert_eq!(
        (result(&reply), body),
        (CacheResult::Coalesced, b"first".to_vec())
    );
    let done = settled(1, lease(&next), (LeaseEnd::Stored, b"second"));
    sidecar.settle(vec![done], b"second").await;
    assert_eq!(sidecar.admit(&cached(3, 0)).await.1, b"second");
}

#[tokio::test]
async fn nobody_waits_past_its_own_deadline_or_beyond_the_room_that_there_is() {
    let sidecar = Sidecar::new(&json!({"waiters": 1}));
    let (_leader, _) = sidecar.admit(&cached(0, 0)).await;
    let short = cached(1, 50);
    let (reply, _) = sidecar.wait(&short).await;
    assert_eq!(reply.verdict, Verdict::Wait, "once more, if it has time");
    let long = cached(2, 60_000);
    let full = async {
        sidecar.until_waiting(1).await;
        sidecar.wait(&cached(3, 60_000)).await
    };
    tokio::select! {
        (reply, _) = full => assert_eq!(reply.verdict, Verdict::go(0), "no seat is left"),
        (reply, _) = sidecar.wait(&long) => panic!("{reply:?}"),
    }
    let metrics = sidecar.metrics().await;
    for (how, count) in [("again", 1), ("full", 1)] {
        let line = format!(r#"sluice_waits_total{{result="{how}"}} {count}"#);
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert!(
        metrics.contains("sluice_waiting 0\n"),
        "those who left have no seat"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_to_be_shared_lets_all_go_at_once() {
    let sidecar = sidecar();
    let (first, _) = sidecar.admit(&cached(0, 0)).await;
    let others: Vec<AdmitRequest> = (1..10).map(|n| cached(n, 60_000)).collect();
    let leader = async {
        sidecar.until_waiting(9).await;
        let done = settled(0, lease(&first), (LeaseEnd::Uncacheable, b""));
        sidecar.settle(vec![done], b"").await
    };
    let (answers, _) = tokio::join!(join_all(others.iter().map(|it| sidecar.wait(it))), leader);
    for (reply, _) in answers {
        assert_eq!(reply.verdict, Verdict::go(0));
    }
}

#[tokio::test]
async fn a_request_that_a_budget_refuses_gives_its_lease_back() {
    let sidecar = sidecar();
    let poor = AdmitRequest {
        plans: vec![plan(Some(key(1)), vec![charge(10, 60, Over::Reject)])],
        ..cached(0, 0)
    };
    let (reply, _) = sidecar.admit(&poor).await;
    assert!(matches!(reply.verdict, Verdict::Over { .. }), "{reply:?}");
    // Given back behind the answer.
    while matches!(sidecar.admit(&cached(1, 0)).await.0.verdict, Verdict::Wait) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_that_counts_again_keeps_its_lease_under_its_own_id() {
    let sidecar = sidecar();
    let mut near = charge(100, 60, Over::Reject);
    near.at_most = 120;
    let plans = vec![plan(Some(key(1)), vec![near])];
    let first = AdmitRequest {
        plans,
        ..cached(0, 0)
    };
    assert_eq!(sidecar.admit(&first).await.0.verdict, Verdict::Count);
    assert_eq!(sidecar.admit(&cached(1, 0)).await.0.verdict, Verdict::Wait);
    let exact = AdmitRequest {
        plans: vec![plan(Some(key(1)), vec![charge(100, 60, Over::Reject)])],
        ..cached(0, 0)
    };
    lease(&sidecar.admit(&exact).await.0);
}

/// Stores a first answer that is fresh for 600 s and stale for 300 s more; then lets 650 s go by.
async fn stale(sidecar: &Sidecar) {
    let mut first = with_answer(item(900, 10), key(1), 3);
    if let Some(store) = &mut first.store {
        store.stale_secs = 300;
        store.stale_if_error_secs = 3600;
    }
    sidecar.settle(vec![first], b"old").await;
    sidecar.advance(650_000);
}

fn behind(n: u128) -> AdmitRequest {
    let mut ask = cached(n, 0);
    ask.cache.behind = true;
    ask
}

#[tokio::test]
async fn a_stale_answer_goes_out_at_once_and_one_request_refreshes_it() {
    let sidecar = sidecar();
    stale(&sidecar).await;
    let mut refresh = None;
    for n in 0..10 {
        let (reply, body) = sidecar.admit(&behind(n)).await;
        assert_eq!(
            (result(&reply), &body[..]),
            (CacheResult::Stale, &b"old"[..])
        );
        if let Verdict::Hit {
            refresh: Some(it), ..
        } = reply.verdict
        {
            assert!(refresh.is_none(), "exactly one");
            refresh = Some(it);
        }
    }
    // The refresh comes as a request of its own, under the lease.
    let lease_held = refresh.unwrap();
    let mut ask = behind(100);
    ask.cache.lease = Some(lease_held.clone());
    let (reply, _) = sidecar.admit(&ask).await;
    assert_eq!(lease(&reply), lease_held);
    let done = settled(100, lease_held, (LeaseEnd::Stored, b"new"));
    sidecar.settle(vec![done], b"new").await;
    let (reply, body) = sidecar.admit(&behind(101)).await;
    assert_eq!((result(&reply), &body[..]), (CacheResult::Hit, &b"new"[..]));
}

/// The lease to refresh behind a stale answer, if one is given out.
async fn refresh_of(sidecar: &Sidecar, n: u128) -> Option<Lease> {
    let (reply, body) = sidecar.admit(&behind(n)).await;
    assert_eq!(
        (result(&reply), &body[..]),
        (CacheResult::Stale, &b"old"[..])
    );
    match reply.verdict {
        Verdict::Hit { refresh, .. } => refresh,
        other => panic!("{other:?}"),
    }
}

fn failed_refresh(n: u128, lease: Lease) -> Settle {
    let mut failed = settled(n, lease, (LeaseEnd::Failed, b""));
    failed.record.cache = CacheResult::Refresh;
    failed.record.status = 503;
    failed
}

#[tokio::test]
async fn a_refresh_that_failed_is_not_tried_again_by_the_next_stale_hit() {
    let sidecar = sidecar();
    stale(&sidecar).await;
    let mut tries = 0;
    for n in 0..200 {
        if let Some(lease) = refresh_of(&sidecar, n).await {
            tries += 1;
            let failed = failed_refresh(1_000 + n, lease);
            sidecar.settle(vec![failed], b"").await;
        }
        sidecar.advance(100);
    }
    assert_eq!(tries, 5, "at 0, 1, 3, 7 and 15 of 20 seconds");
    // A request that has no stale answer to tell does not wait for that.
    sidecar.advance(600_000);
    lease(&sidecar.admit(&cached(300, 0)).await.0);
}

#[tokio::test]
async fn with_redis_all_sidecars_leave_an_upstream_alone_that_failed_to_refresh() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (on(&redis), on(&redis));
    stale(&one).await;
    two.advance(650_000);
    let mut pauses = Vec::new();
    for n in 0..3 {
        let lease = loop {
            if let Some(lease) = refresh_of(&one, n).await {
                break lease;
            }
        };
        let failed = failed_refresh(1_000 + n, lease);
        one.settle(vec![failed], b"").await;
        assert_eq!(refresh_of(&two, 100 + n).await, None);
        let mut asked = redis.client().get_connection().unwrap();
        let name = [&b"sluice:l:"[..], &[0x01; 32]].concat();
        let kept: String = redis::cmd("GET").arg(name).query(&mut asked).unwrap();
        let until_us: u64 = kept.rsplit_once(':').unwrap().1.parse().unwrap();
        let (secs, micros): (u64, u64) = redis::cmd("TIME").query(&mut asked).unwrap();
        pauses.push((until_us - secs * 1_000_000 - micros).div_ceil(1_000_000));
    }
    assert_eq!(pauses, [1, 2, 4]);
}

#[tokio::test]
async fn a_refresh_that_comes_once_another_is_done_finds_its_answer() {
    let sidecar = sidecar();
    stale(&sidecar).await;
    let refresh = |reply: AdmitReply| match reply.verdict {
        Verdict::Hit { refresh, .. } => refresh.unwrap(),
        other => panic!("{other:?}"),
    };
    let slow = refresh(sidecar.admit(&behind(0)).await.0);
    sidecar.advance(u64::from(LEASE_MS));
    let next = refresh(sidecar.admit(&behind(1)).await.0);
    let done = settled(100, next, (LeaseEnd::Stored, b"new"));
    sidecar.settle(vec![done], b"new").await;
    let mut late = behind(101);
    late.cache.lease = Some(slow);
    let (reply, _) = sidecar.admit(&late).await;
    assert_eq!(result(&reply), CacheResult::Hit, "and goes no further");
}

#[tokio::test]
async fn a_filter_whose_clock_is_ahead_does_not_fence_off_the_answers_to_come() {
    let sidecar = sidecar();
    let mut alone = with_answer(item(900, 10), key(1), 3);
    if let Some(store) = &mut alone.store {
        store.stale_if_error_secs = 3600;
    }
    alone.record.at_ms += 365 * 86_400_000;
    sidecar.settle(vec![alone], b"old").await;
    sidecar.advance(650_000);
    let (next, _) = sidecar.admit(&cached(0, 0)).await;
    let done = settled(0, lease(&next), (LeaseEnd::Stored, b"new"));
    sidecar.settle(vec![done], b"new").await;
    let (reply, body) = sidecar.admit(&cached(1, 0)).await;
    assert_eq!((result(&reply), &body[..]), (CacheResult::Hit, &b"new"[..]));
}

#[tokio::test]
async fn one_look_per_key_however_often_its_only_waiter_sits_down_again() {
    let sidecar = sidecar();
    let (_leader, _) = sidecar.admit(&cached(0, 0)).await;
    let tasks = tokio::runtime::Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    for _ in 0..50 {
        sidecar.wait(&cached(1, 1)).await;
    }
    // Longer than the longest pause between two looks.
    sidecar.wait(&cached(1, 1_000)).await;
    let alive = tasks.num_alive_tasks();
    assert!(alive <= before + 2, "{before} tasks became {alive}");
}

#[tokio::test]
async fn where_nothing_can_run_behind_an_answer_the_one_with_the_lease_goes_itself() {
    let sidecar = sidecar();
    stale(&sidecar).await;
    let (first, body) = sidecar.admit(&cached(0, 0)).await;
    lease(&first);
    assert!(matches!(first.verdict, Verdict::Go { spare: Some(_), .. }));
    assert_eq!(body, b"old", "in case upstream fails");
    let (reply, _) = sidecar.admit(&cached(1, 0)).await;
    assert_eq!(result(&reply), CacheResult::Stale);
}

#[tokio::test]
async fn while_upstream_fails_an_answer_past_its_stale_window_will_do() {
    let sidecar = sidecar();
    stale(&sidecar).await;
    sidecar.advance(1_000_000);
    let (reply, body) = sidecar.admit(&cached(0, 0)).await;
    assert!(
        matches!(reply.verdict, Verdict::Go { spare: Some(_), .. }),
        "{reply:?}"
    );
    assert_eq!(body, b"old");
    let mut failing = cached(1, 0);
    failing.cache.failing = true;
    let (reply, body) = sidecar.admit(&failing).await;
    assert_eq!(
        (result(&reply), &body[..]),
        (CacheResult::Stale, &b"old"[..])
    );
    sidecar.advance(3_600_000);
    let (reply, _) = sidecar.admit(&failing).await;
    assert_eq!(
        reply.verdict,
        Verdict::go(0),
        "past everything, and without a lease"
    );
}

#[tokio::test]
async fn a_refusal_that_is_remembered_is_told_with_its_status() {
    let sidecar = sidecar();
    let (first, _) = sidecar.admit(&cached(0, 0)).await;
    let mut refused = settled(0, lease(&first), (LeaseEnd::Stored, b"too long"));
    refused.store.as_mut().unwrap().entry.status = 400;
    sidecar.settle(vec![refused], b"too long").await;
    let (reply, body) = sidecar.admit(&cached(1, 0)).await;
    assert_eq!(result(&reply), CacheResult::Negative);
    let Verdict::Hit { entry, .. } = reply.verdict else {
        panic!()
    };
    assert_eq!((entry.status, &body[..]), (400, &b"too long"[..]));
}

#[tokio::test]
async fn with_redis_a_lease_and_its_answer_count_on_every_sidecar() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (on(&redis), on(&redis));
    let (first, _) = one.admit(&cached(0, 0)).await;
    let waiting = cached(1, 60_000);
    assert_eq!(two.admit(&waiting).await.0.verdict, Verdict::Wait);
    let leader = async {
        two.until_waiting(1).await;
        let done = settled(0, lease(&first), (LeaseEnd::Stored, b"shared"));
        one.settle(vec![done], b"shared").await;
    };
    let ((reply, body), ()) = tokio::join!(two.wait(&waiting), leader);
    assert_eq!(
        (result(&reply), &body[..]),
        (CacheResult::Coalesced, &b"shared"[..])
    );
}

#[tokio::test]
async fn with_redis_exactly_one_of_all_sidecars_takes_over_and_tokens_fence() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (on(&redis), on(&redis));
    let (first, _) = one.admit(&cached(0, 0)).await;
    let waits: Vec<AdmitRequest> = (1..9).map(|n| cached(n, 400)).collect();
    let (even, odd) = (
        join_all(waits.iter().step_by(2).map(|it| one.wait(it))),
        join_all(waits.iter().skip(1).step_by(2).map(|it| two.wait(it))),
    );
    let leader = async {
        one.until_waiting(4).await;
        two.until_waiting(4).await;
        let failed = settled(0, lease(&first), (LeaseEnd::Failed, b""));
        one.settle(vec![failed], b"").await;
    };
    let (even, odd, ()) = tokio::join!(even, odd, leader);
    let leases: Vec<Lease> = even
        .iter()
        .chain(&odd)
        .filter_map(|(reply, _)| match &reply.verdict {
            Verdict::Go { lease, .. } => lease.clone(),
            Verdict::Wait => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        leases.len(),
        1,
        "the others waited until their time was over"
    );
    assert!(leases[0].token > lease(&first).token);
    let done = settled(1, leases[0].clone(), (LeaseEnd::Stored, b"second"));
    two.settle(vec![done], b"second").await;
    let late = settled(50, lease(&first), (LeaseEnd::Stored, b"first"));
    one.settle(vec![late], b"first").await;
    assert_eq!(one.admit(&cached(60, 0)).await.1, b"second");
}

#[tokio::test]
async fn a_lease_that_ended_while_redis_was_away_is_free_soon_after_it_is_back() {
    let Some(redis) = Redis::start() else { return };
    // Time enough for a busy machine, but for the one call that meets a frozen Redis.
    let patience = json!({"timeout": "100ms", "failures": 1, "pause": "10ms"});
    let one = Sidecar::new(&json!({"store": redis.url(), "redis": patience}));
    let two = on(&redis);
    let (first, _) = one.admit(&cached(0, 0)).await;
    redis.freeze();
    let failed = settled(0, lease(&first), (LeaseEnd::Failed, b""));
    one.settle(vec![failed], b"").await;
    redis.thaw();
    assert_eq!(two.admit(&cached(1, 0)).await.0.verdict, Verdict::Wait);
    while two.admit(&cached(1, 0)).await.0.verdict == Verdict::Wait {
        one.app.catch_up().await;
    }
}

#[tokio::test]
async fn an_end_that_redis_refuses_does_not_keep_the_next_from_being_heard() {
    let Some(redis) = Redis::start() else { return };
    let patience = json!({"timeout": "100ms", "failures": 1, "pause": "10ms"});
    let one = Sidecar::new(&json!({"store": redis.url(), "redis": patience}));
    let two = on(&redis);
    let other = |n| AdmitRequest {
        plans: vec![plan(Some(key(2)), Vec::new())],
        ..cached(n, 0)
    };
    let (first, _) = one.admit(&cached(0, 0)).await;
    let (second, _) = one.admit(&other(1)).await;
    redis.freeze();
    let refused = settled(0, lease(&first), (LeaseEnd::Failed, b""));
    let mut heard = settled(1, lease(&second), (LeaseEnd::Failed, b""));
    heard.release.as_mut().unwrap().key = key(2);
    one.settle(vec![refused, heard], b"").await;
    redis.thaw();
    let mut client = redis.client().get_connection().unwrap();
    let name = [&b"sluice:l:"[..], &[0x01; 32]].concat();
    let drop = redis::cmd("DEL").arg(&name).query::<u64>(&mut client);
    let list = redis::cmd("LPUSH")
        .arg(&name)
        .arg("a")
        .query::<u64>(&mut client);
    assert_eq!((drop.unwrap(), list.unwrap()), (1, 1));
    assert_eq!(two.admit(&other(2)).await.0.verdict, Verdict::Wait);
    while two.admit(&other(2)).await.0.verdict == Verdict::Wait {
        one.app.catch_up().await;
    }
}

#[tokio::test]
async fn without_redis_each_sidecar_leases_by_itself() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (one, two) = (on(&redis), on(&redis));
    redis.kill();
    lease(&one.admit(&cached(0, 0)).await.0);
    assert_eq!(one.admit(&cached(1, 0)).await.0.verdict, Verdict::Wait);
    lease(&two.admit(&cached(2, 0)).await.0);
}
