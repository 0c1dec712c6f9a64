//! One ledger over all sidecars on a Redis: what any of them reports is what all have booked, to
//! the picodollar, whatever was killed, flushed or away in between.

use std::sync::Arc;

use crate::common::{ACME, NOW, OPERATOR, Redis, Sidecar, item};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use redis::Commands;
use serde_json::{Value, json};
use sluice::config::Store;
use sluice::ledger::Booking;
use sluice::ledger::shared::Publisher;
use sluice::report::Report;
use sluice::store::Link;
use sluice_wire::{CacheResult, Outcome, Record, Savings, Settle, Trimmed, Usage, Usd};

const BY: &str = "by=task,model,tenant,tier:route,cache,outcome,day,hour,endpoint:cache:tenant";
const HOUR_MS: u64 = 3_600_000;

fn patch(redis: &Redis) -> Value {
    json!({
        "store": redis.url(),
        // A loaded test machine is no reason to fall back.
        "redis": {"timeout": "2s", "failures": 2, "pause": "1ms"},
    })
}

/// Requests of all kinds, with ids from `first` on.
fn items(first: u128, count: usize) -> Vec<Settle> {
    let small = || -9_999_999_999_999_i64..9_999_999_999_999;
    let price = prop_oneof![Just(i64::MAX), small()].prop_map(Usd);
    let price = proptest::option::weighted(0.8, price).boxed();
    let saved = prop_oneof![Just(i64::MIN), small()].prop_map(Usd);
    let labels = ("[ab]", "[a-c]?", "(gpt|own)-[1-3]", "[\"'ü,]?");
    let money = (price.clone(), price, proptest::array::uniform4(saved));
    let kinds = (0..CacheResult::ALL.len(), 0..4_usize, any::<bool>());
    let numbers = (0..5 * HOUR_MS, 0..1_000_000_u64, 0..9_u64);
    let trim = (0..1_000_000_000_000_u64, small(), small());
    let trim = trim.prop_map(|(tokens, gross, lost)| Trimmed {
        tokens,
        gross: Usd(gross),
        lost: Usd(lost),
    });
    let numbers = (numbers, proptest::option::of(trim));
    let one = (labels, money, kinds, numbers);
    let all = proptest::collection::vec(one, count);
    // The seed is fixed: what differs between runs is not what is tested here.
    let mut runner = TestRunner::deterministic();
    let drawn = all.new_tree(&mut runner).unwrap().current();
    let outcomes = [
        Outcome::Answered,
        Outcome::Rejected,
        Outcome::UpstreamError,
        Outcome::Aborted,
    ];
    let drawn = drawn.into_iter().enumerate();
    drawn
        .map(|(index, (labels, money, kinds, (numbers, trim)))| Settle {
            record: Record {
                id: format!("{:032x}", first + index as u128),
                at_ms: NOW + numbers.0,
                tenant: labels.0,
                task: labels.1,
                model: labels.2,
                route: labels.3,
                endpoint: "openai_chat".to_owned(),
                cache: CacheResult::ALL[kinds.0],
                outcome: outcomes[kinds.1],
                estimated: kinds.2,
                as_asked: money.0,
                cost: money.1,
                saved: Savings {
                    route: money.2[0],
                    cache: money.2[1],
                    ..Savings::default()
                },
                trim,
                would_save: Savings {
                    trim: money.2[2],
                    offload: money.2[3],
                    ..Savings::default()
                },
                usage: Usage {
                    prompt: numbers.1,
                    cached: numbers.2,
                    completion: numbers.1 / 7,
                    ..Usage::default()
                },
                ..Record::default()
            },
            ..Settle::default()
        })
        .collect()
}

/// Books in the sidecar's file only: what a kill before publishing leaves.
async fn book(sidecar: &Sidecar, items: Vec<Settle>) {
    let booking = Booking {
        now_ms: NOW,
        alone: false,
    };
    let booked = sidecar.app.ledger().book(Arc::new(items), booking);
    assert!(booked.await.unwrap().iter().all(|new| *new));
}

/// Publishes all that is booked.
async fn publish(sidecar: &Sidecar) {
    loop {
        sidecar.app.catch_up().await;
        let waiting = sidecar.metrics_value("sluice_ledger_unpublished").await;
        let failing = sidecar.metrics_value("sluice_ledger_publish_failing").await;
        if (waiting, failing) == (Some(0), Some(0)) {
            return;
        }
    }
}

/// What the files of `sidecars` hold together.
async fn files(sidecars: &[&Sidecar], query: &str) -> Report {
    let mut sum: Option<Report> = None;
    for sidecar in sidecars {
        let own = sidecar.report(&format!("{query}&scope=local")).await;
        match &mut sum {
            None => sum = Some(own),
            Some(sum) => sum.add(own),
        }
    }
    sum.unwrap()
}

fn assert_same(shared: &Report, files: &Report) {
    assert!(shared.covers.shared, "{:?}", shared.covers);
    assert_eq!(shared.total, files.total);
    assert_eq!(shared.by, files.by);
}

#[tokio::test]
async fn any_sidecar_reports_what_all_have_booked_to_the_picodollar() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (Sidecar::new(&patch(&redis)), Sidecar::new(&patch(&redis)));
    book(&one, items(0, 500)).await;
    book(&two, items(1000, 300)).await;
    // Retries that reach the other sidecar too are booked once.
    for sidecar in [&one, &two, &one] {
        sidecar
            .settle(vec![item(9001, 5), item(9002, 6)], b"")
            .await;
    }
    publish(&one).await;
    publish(&two).await;
    let files = files(&[&one, &two], BY).await;
    assert_eq!(files.total.requests, 802);
    let most = i128::from(i64::MAX);
    assert!(files.total.as_asked.0 > 10 * most);
    assert!(
        files.total.saved.total.0 < -10 * most,
        "levers may cost more"
    );
    assert!(files.total.trim.requests > 100 && files.total.trim.lost.0 != 0);
    for sidecar in [&one, &two] {
        let shared = sidecar.report(BY).await;
        assert_same(&shared, &files);
        assert!(shared.covers.complete, "{:?}", shared.covers);
        assert_eq!(shared.covers.sidecars.len(), 2);
    }
    // Nothing new, nothing twice.
    publish(&one).await;
    assert_same(&two.report(BY).await, &files);
}

#[tokio::test]
async fn what_a_killed_sidecar_had_not_published_is_published_by_its_successor() {
    let Some(redis) = Redis::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let killed = Sidecar::at(data.path(), &patch(&redis));
    book(&killed, items(0, 300)).await;
    publish(&killed).await;
    book(&killed, items(1000, 200)).await;
    drop(killed);
    let successor = Sidecar::at(data.path(), &patch(&redis));
    publish(&successor).await;
    let files = files(&[&successor], BY).await;
    assert_eq!(files.total.requests, 500);
    let other = Sidecar::new(&patch(&redis));
    assert_same(&other.report(BY).await, &files);
}

#[tokio::test]
async fn a_batch_that_is_sent_again_counts_once() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = Sidecar::new(&patch(&redis));
    let config = sidecar.app.config();
    let Store::Redis(url) = &config.store else {
        panic!("{:?}", config.store)
    };
    let link = Arc::new(Link::new(url, config.redis).unwrap());
    // What it believes to be published is what a sidecar believes that did not hear the answer.
    let behind = Publisher::new(link, sidecar.app.ledger(), config.retention);
    // It has sent these batches; their number is no surprise.
    behind.skipped_to(u64::MAX).await;
    for round in 0..4_u128 {
        assert!(behind.publish(NOW).await.unwrap());
        book(&sidecar, items(round * 1000, 200)).await;
        publish(&sidecar).await;
        assert!(behind.publish(NOW).await.unwrap());
    }
    assert_same(&sidecar.report(BY).await, &files(&[&sidecar], BY).await);
}

#[tokio::test]
async fn a_redis_that_hangs_is_told_when_it_is_back() {
    let Some(redis) = Redis::start() else { return };
    let mut patch = patch(&redis);
    patch["redis"]["timeout"] = json!("10ms");
    let sidecar = Sidecar::new(&patch);
    book(&sidecar, items(0, 200)).await;
    redis.freeze();
    sidecar.app.catch_up().await;
    let failing = sidecar.metrics_value("sluice_ledger_publish_failing");
    assert_eq!(failing.await, Some(1));
    redis.thaw();
    publish(&sidecar).await;
    assert_same(&sidecar.report(BY).await, &files(&[&sidecar], BY).await);
}

#[tokio::test]
async fn a_redis_that_was_flushed_is_told_everything_anew() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (one, two) = (Sidecar::new(&patch(&redis)), Sidecar::new(&patch(&redis)));
    book(&one, items(0, 400)).await;
    book(&two, items(1000, 200)).await;
    publish(&one).await;
    publish(&two).await;
    let mut client = redis.client().get_connection().unwrap();
    let () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
    let files = files(&[&one, &two], BY).await;
    // One of them has come, the other not yet.
    publish(&one).await;
    assert_eq!(two.report("").await.total.requests, 400);
    publish(&two).await;
    assert_same(&one.report(BY).await, &files);

    redis.kill();
    redis.restart();
    publish(&one).await;
    publish(&two).await;
    assert_same(&two.report(BY).await, &files);
}

#[tokio::test]
async fn a_redis_that_went_back_to_an_older_state_is_told_what_it_lost() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = Sidecar::new(&patch(&redis));
    let mut client = redis.client().get_connection().unwrap();
    book(&sidecar, items(0, 200)).await;
    publish(&sidecar).await;
    let keys: Vec<String> = client.keys("{sluice}:l:*").unwrap();
    let mut state: Vec<(String, Vec<u8>)> = Vec::new();
    for key in keys {
        let value = redis::cmd("DUMP").arg(&key).query(&mut client).unwrap();
        state.push((key, value));
    }
    book(&sidecar, items(1000, 300)).await;
    publish(&sidecar).await;
    let () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
    for (key, value) in state {
        let mut restore = redis::cmd("RESTORE");
        let () = restore
            .arg(key)
            .arg(0)
            .arg(value)
            .query(&mut client)
            .unwrap();
    }
    publish(&sidecar).await;
    assert_same(&sidecar.report(BY).await, &files(&[&sidecar], BY).await);
}

#[tokio::test]
async fn an_id_that_two_sidecars_booked_while_redis_was_away_is_summed_once() {
    for one_first in [true, false] {
        let Some(mut redis) = Redis::start() else {
            return;
        };
        let (one, two) = (Sidecar::new(&patch(&redis)), Sidecar::new(&patch(&redis)));
        publish(&one).await;
        publish(&two).await;
        redis.kill();
        one.settle(vec![item(1, 10), item(2, 20)], b"").await;
        two.settle(vec![item(2, 20), item(3, 30)], b"").await;
        redis.restart();
        let (first, second) = if one_first {
            (&one, &two)
        } else {
            (&two, &one)
        };
        publish(first).await;
        publish(second).await;
        // A filter that never heard of it asks again, at either.
        first.settle(vec![item(2, 20)], b"").await;
        publish(first).await;
        let total = second.report("").await.total;
        assert_eq!((total.requests, total.tokens.prompt), (3, 60));
        let both = files(&[&one, &two], "").await;
        assert_eq!(both.total.requests, 4, "each file keeps what it booked");
    }
}

#[tokio::test]
async fn what_one_booked_alone_and_another_with_redis_is_summed_once() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (Sidecar::new(&patch(&redis)), Sidecar::new(&patch(&redis)));
    let alone = Booking {
        now_ms: NOW,
        alone: true,
    };
    for (n, alone_first) in [(1, true), (2, false)] {
        // Only the first could not reach Redis; its filter tried again at the second.
        let items = Arc::new(vec![item(n, 10)]);
        one.app.ledger().book(items, alone).await.unwrap();
        if alone_first {
            publish(&one).await;
        }
        two.settle(vec![item(n, 10)], b"").await;
        publish(&two).await;
        publish(&one).await;
        assert_eq!(u128::from(one.report("").await.total.requests), n);
    }
}

/// What may happen between two reports.
#[derive(Clone, Copy, Debug)]
enum Event {
    Settle(usize),
    /// One turn, that may be cut short by whatever comes next.
    Publish(usize),
    Kill(usize),
    Flush,
    StopRedis,
    StartRedis,
}

fn events(runner: &mut TestRunner) -> Vec<Event> {
    let event = prop_oneof![
        4 => (0..3_usize).prop_map(Event::Settle),
        4 => (0..3_usize).prop_map(Event::Publish),
        1 => (0..3_usize).prop_map(Event::Kill),
        1 => Just(Event::Flush),
        1 => Just(Event::StopRedis),
        2 => Just(Event::StartRedis),
    ];
    let events = proptest::collection::vec(event, 40);
    events.new_tree(runner).unwrap().current()
}

#[tokio::test]
async fn whatever_happens_the_sums_are_those_of_all_files_in_the_end() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..8 {
        let Some(mut redis) = Redis::start() else {
            return;
        };
        let patch = patch(&redis);
        let data = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let open = |n: usize| Some(Sidecar::at(data[n].path(), &patch));
        let mut sidecars: [_; 3] = std::array::from_fn(open);
        let (mut up, mut first) = (true, 0);
        let events = events(&mut runner);
        for event in &events {
            match *event {
                Event::Settle(n) => {
                    let sidecar = sidecars[n].as_ref().unwrap();
                    let mut items = items(first, 150);
                    // Retries of what it has booked.
                    items.extend(items[..20].to_vec());
                    sidecar.settle(items, b"").await;
                    first += 1000;
                }
                Event::Publish(n) => sidecars[n].as_ref().unwrap().app.catch_up().await,
                Event::Kill(n) => {
                    sidecars[n] = None;
                    sidecars[n] = open(n);
                }
                Event::Flush if up => {
                    let mut client = redis.client().get_connection().unwrap();
                    let () = redis::cmd("FLUSHALL").query(&mut client).unwrap();
                }
                Event::StopRedis if up => {
                    redis.kill();
                    up = false;
                }
                Event::StartRedis if !up => {
                    redis.restart();
                    up = true;
                }
                Event::Flush | Event::StopRedis | Event::StartRedis => {}
            }
        }
        if !up {
            redis.restart();
        }
        let sidecars = sidecars.each_ref().map(|it| it.as_ref().unwrap());
        for sidecar in sidecars {
            publish(sidecar).await;
        }
        let files = files(&sidecars, BY).await;
        let shared = sidecars[0].report(BY).await;
        assert_eq!(shared.total, files.total, "{events:?}");
        assert_same(&shared, &files);
        assert!(shared.covers.complete, "{:?}", shared.covers);
    }
}

#[tokio::test]
async fn tenants_see_their_own_sums_and_records_of_all_sidecars() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (Sidecar::new(&patch(&redis)), Sidecar::new(&patch(&redis)));
    let mut foreign = item(2, 20);
    foreign.record.tenant = "globex".to_owned();
    one.settle(vec![item(1, 10), foreign.clone()], b"").await;
    foreign.record.id = crate::common::id(3);
    two.settle(vec![foreign, item(4, 40)], b"").await;
    publish(&one).await;
    publish(&two).await;
    let all = one.report("by=tenant&records=9").await;
    assert_eq!((all.total.requests, all.records.len()), (4, 4));
    let (status, body) = one.get("/report?by=tenant&records=9", ACME).await;
    assert_eq!(status, 200);
    let own: Report = serde_json::from_slice(&body).unwrap();
    assert!(own.covers.shared);
    assert_eq!((own.total.requests, own.total.tokens.prompt), (2, 50));
    assert_eq!(own.by["tenant"].len(), 1);
    assert_eq!(own.by["tenant"][0].key["tenant"], "acme");
    let shown: Vec<&str> = own.records.iter().map(|it| &*it.record.tenant).collect();
    assert_eq!(shown, ["acme", "acme"]);
    assert_ne!(own.records[0].sidecar, own.records[1].sidecar);
    assert_eq!(
        own.records[0].record.id,
        crate::common::id(4),
        "latest first"
    );
    let (status, _) = one.get("/report?records=1001", OPERATOR).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn label_sets_and_records_beyond_their_caps_keep_the_sums_exact() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = Sidecar::new(&patch(&redis));
    let many = (0..10_500_u128).map(|n| {
        let mut item = item(n, 1);
        item.record.task = format!("task{}", n % 1200);
        // Tenants that are many only late: the first have their own sums by then.
        if n >= 9000 {
            item.record.tenant = format!("tenant{n}");
        }
        item
    });
    book(&sidecar, many.collect()).await;
    publish(&sidecar).await;
    let shared = sidecar.report("by=task,tenant").await;
    let files = files(&[&sidecar], "by=tenant").await;
    assert_eq!(shared.total, files.total);
    let of = |report: &Report, tenant: &str| {
        let mut rows = report.by["tenant"].iter();
        rows.find(|row| row.key["tenant"] == tenant)
            .map_or(0, |row| row.sums.requests)
    };
    assert_eq!(
        of(&shared, "acme"),
        9000,
        "a tenant is kept longer than its tasks"
    );
    assert_eq!(of(&shared, "tenant9000"), 1);
    assert_eq!(of(&shared, "other"), 1500 - 999, "beyond twice the cap");
    assert_eq!(shared.by["task"].len(), 1000 + 1, "and `other`");
    assert!(shared.covers.notes[0].contains("`other`"), "{shared:?}");
    let mut client = redis.client().get_connection().unwrap();
    let kept: u64 = redis::cmd("XLEN")
        .arg("{sluice}:l:stream")
        .query(&mut client)
        .unwrap();
    assert!((10_000..10_200).contains(&kept), "{kept}");
}

#[tokio::test]
async fn without_redis_a_report_is_the_sidecars_own_and_says_what_it_lacks() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (one, two) = (Sidecar::new(&patch(&redis)), Sidecar::new(&patch(&redis)));
    one.settle(vec![item(1, 10)], b"").await;
    two.settle(vec![item(2, 20)], b"").await;
    publish(&two).await;
    publish(&one).await;
    redis.kill();
    let report = one.report("").await;
    assert_eq!(report.total.requests, 1);
    let covers = report.covers;
    assert!(!covers.shared && !covers.complete, "{covers:?}");
    assert_eq!(covers.sidecars[0].sidecar, one.app.ledger().sidecar());
    assert_eq!(covers.missing, [two.app.ledger().sidecar()]);
    assert_eq!(covers.notes.len(), 1);
    let own = one.report("scope=local").await.covers;
    assert!(own.complete && own.missing.is_empty(), "{own:?}");
}

#[tokio::test]
async fn a_report_says_how_far_each_sidecar_has_published() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (Sidecar::new(&patch(&redis)), Sidecar::new(&patch(&redis)));
    publish(&one).await;
    publish(&two).await;
    book(&two, items(0, 10)).await;
    one.advance(60_000);
    publish(&one).await;
    let covers = one.report("").await.covers;
    assert!(!covers.complete, "{covers:?}");
    for it in &covers.sidecars {
        let late = it.sidecar == two.app.ledger().sidecar();
        assert_eq!(it.lag_secs, Some(if late { 60 } else { 0 }));
        assert_eq!(it.until_ms, Some(if late { NOW } else { NOW + 60_000 }));
    }
    publish(&two).await;
    two.advance(60_000);
    publish(&two).await;
    assert!(one.report("").await.covers.complete);
}

#[tokio::test]
async fn a_query_within_an_hour_is_answered_for_the_whole_hour_and_says_so() {
    let Some(redis) = Redis::start() else { return };
    let sidecar = Sidecar::new(&patch(&redis));
    let hour = NOW / HOUR_MS * HOUR_MS;
    let times = [hour - 1, hour, hour + HOUR_MS - 1, hour + HOUR_MS];
    let items = times.iter().zip(0..).map(|(at_ms, n)| {
        let mut item = item(n, 1);
        item.record.at_ms = *at_ms;
        item
    });
    book(&sidecar, items.collect()).await;
    publish(&sidecar).await;
    let (from, to) = (hour / 1000 + 600, hour / 1000 + 1200);
    let report = sidecar.report(&format!("from={from}&to={to}")).await;
    assert_eq!(report.total.requests, 2);
    assert_eq!(
        (report.from_ms, report.to_ms),
        (Some(hour), Some(hour + HOUR_MS))
    );
    let own = format!("from={from}&to={to}&scope=local");
    assert_eq!(sidecar.report(&own).await.total.requests, 0);
}

#[tokio::test]
async fn an_older_copy_of_a_ledger_loses_none_of_what_it_books() {
    let Some(redis) = Redis::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::at(data.path(), &patch(&redis));
    book(&sidecar, items(0, 5)).await;
    sidecar.app.ledger().close().await;
    drop(sidecar);
    let copy = tempfile::tempdir().unwrap();
    let file = |data: &std::path::Path| sluice::ledger::database(data);
    std::fs::copy(file(data.path()), file(copy.path())).unwrap();
    let sidecar = Sidecar::at(data.path(), &patch(&redis));
    book(&sidecar, items(1000, 5)).await;
    publish(&sidecar).await;
    drop(sidecar);
    // That its numbers were given before it hears only once it has given them anew.
    let older = Sidecar::at(copy.path(), &patch(&redis));
    book(&older, items(2000, 7)).await;
    publish(&older).await;
    book(&older, items(3000, 4)).await;
    publish(&older).await;
    assert_eq!(older.report("").await.total.requests, 5 + 5 + 7 + 4);
    assert_eq!(older.report("scope=local").await.total.requests, 5 + 7 + 4);
}

#[tokio::test]
async fn the_shared_scope_needs_a_redis() {
    let sidecar = Sidecar::new(&json!({}));
    let (status, _) = sidecar.get("/report?scope=shared", OPERATOR).await;
    assert_eq!(status, 400);
    let covers = sidecar.report("").await.covers;
    assert!(!covers.shared && covers.complete);
}
