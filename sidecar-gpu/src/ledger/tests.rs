use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use sluice_wire::{
    CacheResult, Counted, Outcome, Record, Savings, Settle, Trimmed, Unit, Usage, Usd, Window,
};

use super::*;
use crate::report::{Money, Trimming};

const NOW: u64 = 1_700_000_000_000;

fn options(data: &Path) -> Options {
    Options {
        data: data.to_owned(),
        retention: Duration::from_secs(86_400),
        max_bytes: None,
    }
}

fn open(data: &Path) -> (Ledger, Used) {
    Ledger::open(&options(data), NOW).unwrap()
}

fn item(id: u128) -> Settle {
    Settle {
        record: Record {
            id: format!("{id:032x}"),
            at_ms: NOW,
            tenant: "acme".to_owned(),
            task: "support".to_owned(),
            endpoint: "openai_chat".to_owned(),
            model_asked: "gpt-4o".to_owned(),
            model: "gpt-4o-mini".to_owned(),
            usage: Usage {
                prompt: 10,
                completion: 5,
                ..Usage::default()
            },
            as_asked: Some(Usd(500)),
            cost: Some(Usd(200)),
            saved: Savings {
                route: Usd(300),
                ..Savings::default()
            },
            ..Record::default()
        },
        counted: vec![Counted {
            counter: "tenant:acme".to_owned(),
            window: Window::Day,
            unit: Unit::Tokens,
            amount: 15,
        }],
        ..Settle::default()
    }
}

fn at(now_ms: u64) -> Booking {
    Booking {
        now_ms,
        alone: false,
    }
}

fn batch(ids: std::ops::Range<u128>) -> Arc<Vec<Settle>> {
    Arc::new(ids.map(item).collect())
}

fn report(data: &Path, by: &str) -> crate::report::Report {
    let query = Query {
        by: Query::breakdowns(by).unwrap(),
        ..Query::default()
    };
    super::query(&mut read(data).unwrap(), &query).unwrap()
}

#[tokio::test]
async fn a_record_is_booked_once_however_often_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    assert_eq!(ledger.book(batch(0..3), at(NOW)).await.unwrap(), [true; 3]);
    let again = Arc::new(vec![item(2), item(3), item(3)]);
    assert_eq!(
        ledger.book(again, at(NOW)).await.unwrap(),
        [false, true, false]
    );
    let total = report(dir.path(), "").total;
    assert_eq!((total.requests, total.tokens.prompt), (4, 40));
    assert_eq!((total.as_asked, total.cost), (Money(2000), Money(800)));
    assert_eq!(total.saved.route, Money(1200));
}

#[tokio::test]
async fn batches_that_wait_together_share_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    // Another writer holds the database while the batches gather.
    let other = Connection::open(ledger.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting: Vec<_> = (0..50)
        .map(|n| ledger.book(batch(n..n + 1), at(NOW)))
        .collect();
    let waiting = futures_util::future::join_all(waiting);
    let release = async {
        tokio::task::yield_now().await;
        other.execute_batch("COMMIT").unwrap();
    };
    let (booked, ()) = tokio::join!(waiting, release);
    assert!(booked.iter().all(|it| it.as_ref().unwrap() == &[true]));
    let commits = ledger.stats().commits.load(Ordering::Relaxed);
    assert!(commits <= 10, "{commits} transactions for 50 batches");
    assert_eq!(report(dir.path(), "").total.requests, 50);
}

#[tokio::test]
async fn a_restart_keeps_records_and_tells_what_budgets_were_charged() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, used) = open(dir.path());
    assert!(used.is_empty());
    let sidecar = ledger.sidecar().to_owned();
    ledger.book(batch(0..4), at(NOW)).await.unwrap();
    ledger.close().await;
    assert!(matches!(
        ledger.book(batch(9..10), at(NOW)).await,
        Err(LedgerError::Closed)
    ));
    drop(ledger);

    let (ledger, used) = open(dir.path());
    assert_eq!(ledger.sidecar(), sidecar);
    assert_eq!(ledger.book(batch(0..4), at(NOW)).await.unwrap(), [false; 4]);
    assert_eq!(used.len(), 1);
    assert_eq!(
        (used[0].0.amount, used[0].1),
        (60, NOW / 1000 / 86_400 * 86_400)
    );
    drop(ledger);
    let (_, used) = Ledger::open(&options(dir.path()), NOW + 86_400_000).unwrap();
    assert!(used.is_empty(), "the window is over");
}

#[tokio::test]
async fn a_second_sidecar_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_ledger, _) = open(dir.path());
    assert!(matches!(
        Ledger::open(&options(dir.path()), NOW),
        Err(OpenError::InUse(_))
    ));
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let other = Connection::open(ledger.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = ledger.book(batch(0..2), at(NOW)).await;
    assert!(
        matches!(refused, Err(LedgerError::Database(_))),
        "{refused:?}"
    );
    assert!(ledger.stats().failing.load(Ordering::Relaxed));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(ledger.book(batch(0..2), at(NOW)).await.unwrap(), [true; 2]);
    assert!(!ledger.stats().failing.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_full_ledger_refuses_and_loses_nothing_that_it_booked() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options {
        max_bytes: Some(1 << 20),
        ..options(dir.path())
    };
    let (ledger, _) = Ledger::open(&small, NOW).unwrap();
    let mut booked = 0;
    let error = loop {
        match ledger.book(batch(booked..booked + 100), at(NOW)).await {
            Ok(_) => booked += 100,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("full"), "{error}");
    assert!(booked >= 1000, "{booked}");
    assert_eq!(u128::from(report(dir.path(), "").total.requests), booked);
}

#[tokio::test]
async fn records_past_their_retention_are_pruned_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    ledger.book(batch(0..6000), at(NOW)).await.unwrap();
    let later = NOW + 2 * 86_400_000;
    ledger.book(batch(6000..6010), at(later)).await.unwrap();
    assert_eq!(ledger.prune(later).await.unwrap(), 5000);
    assert_eq!(ledger.prune(later).await.unwrap(), 1000);
    assert_eq!(ledger.prune(later).await.unwrap(), 0);
    assert_eq!(report(dir.path(), "").total.requests, 10);
}

#[tokio::test]
async fn the_number_of_a_pruned_record_is_not_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    ledger.book(batch(0..3), at(NOW)).await.unwrap();
    let later = NOW + 2 * 86_400_000;
    assert_eq!(ledger.prune(later).await.unwrap(), 3);
    ledger.close().await;
    drop(ledger);
    let (ledger, _) = open(dir.path());
    assert_eq!(feed::last(&read(dir.path()).unwrap()).unwrap(), 3);
    ledger.book(batch(3..5), at(later)).await.unwrap();
    let entries = feed::after(&read(dir.path()).unwrap(), "it", (3, 9)).unwrap();
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(numbers, [4, 5]);
}

#[tokio::test]
async fn a_record_is_read_back_as_it_was_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let mut item = item(7);
    let record = &mut item.record;
    (record.cache, record.age_secs) = (CacheResult::Stale, Some(90));
    (record.outcome, record.score_milli) = (Outcome::UpstreamError, Some(437));
    record.would_save.batch = Usd(-5);
    record.trim = Some(Trimmed {
        tokens: 900,
        gross: Usd(4500),
        lost: Usd(-7),
    });
    record.cost = None;
    let booking = Booking {
        now_ms: NOW + 1,
        alone: true,
    };
    ledger
        .book(Arc::new(vec![item.clone()]), booking)
        .await
        .unwrap();
    let entries = feed::after(&read(dir.path()).unwrap(), "it", (0, 9)).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].booked.record, item.record);
    assert_eq!(entries[0].booked.booked_ms, NOW + 1);
    assert!(entries[0].alone);
}

/// Makes the file in `data` one that an earlier version had made.
fn age(data: &Path, version: usize) {
    let added = ["alone age_secs", "trim_tokens trim_gross trim_lost"];
    let old = Connection::open(database(data)).unwrap();
    for column in added[version - 1..].iter().flat_map(|it| it.split(' ')) {
        let drop = format!("ALTER TABLE records DROP COLUMN {column}");
        old.execute_batch(&drop).unwrap();
    }
    let version = i64::try_from(version).unwrap();
    old.pragma_update(None, "user_version", version).unwrap();
}

#[tokio::test]
async fn a_ledger_of_an_earlier_version_is_read_as_it_is_and_brought_up_to_date() {
    for version in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = open(dir.path());
        ledger.book(batch(0..2), at(NOW)).await.unwrap();
        ledger.close().await;
        drop(ledger);
        age(dir.path(), version);
        let alone = || -> Vec<bool> {
            let entries = feed::after(&read(dir.path()).unwrap(), "it", (0, 9)).unwrap();
            assert!(entries.iter().all(|it| it.booked.record.trim.is_none()));
            entries.iter().map(|entry| entry.alone).collect()
        };
        // Nobody knows any more whether another sidecar was asked about what the first booked.
        let first = version == 1;
        assert_eq!(alone(), [first, first]);
        let before = report(dir.path(), "tenant,day");
        assert_eq!((before.total.requests, before.total.trim.requests), (2, 0));

        let (ledger, _) = open(dir.path());
        assert_eq!(
            ledger.book(batch(1..3), at(NOW)).await.unwrap(),
            [false, true]
        );
        assert_eq!(alone(), [first, first, false]);
        let total = report(dir.path(), "").total;
        assert_eq!((total.requests, total.as_asked), (3, Money(1500)));
    }
}

#[tokio::test]
async fn tokens_trimmed_and_discounts_lost_are_summed_where_they_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let mut items: Vec<Settle> = (0..3).map(item).collect();
    for (item, (tokens, gross, lost)) in items.iter_mut().zip([(300, 900, 100), (50, 150, 250)]) {
        let trim = Trimmed {
            tokens,
            gross: Usd(gross),
            lost: Usd(lost),
        };
        (item.record.trim, item.record.saved.trim) = (Some(trim), trim.net());
    }
    items[1].record.task = "chat".to_owned();
    ledger.book(Arc::new(items), at(NOW)).await.unwrap();
    let report = report(dir.path(), "task");
    let sums = |count, gross, lost| Trimming::new(count, (Money(gross), Money(lost)));
    assert_eq!(report.total.trim, sums((2, 350), 1050, 350));
    assert_eq!(report.total.trim.net, report.total.saved.trim);
    let chat = report.by["task"].iter().find(|it| it.key["task"] == "chat");
    let chat = chat.unwrap().sums.trim;
    assert_eq!((chat, chat.net), (sums((1, 50), 150, 250), Money(-100)));
}

#[test]
fn a_ledger_of_a_later_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let connection = Connection::open(database(dir.path())).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let newer = |error| matches!(error, OpenError::Newer { found: 99, .. });
    assert!(newer(
        Ledger::open(&options(dir.path()), NOW).err().unwrap()
    ));
    assert!(newer(read(dir.path()).err().unwrap()));
}

#[tokio::test]
async fn sums_pass_what_sixty_four_bits_hold() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let rich: Vec<Settle> = (0..4)
        .map(|id| {
            let mut item = item(id);
            item.record.as_asked = Some(Usd(i64::MAX));
            item.record.cost = Some(Usd(i64::MIN));
            item
        })
        .collect();
    ledger.book(Arc::new(rich), at(NOW)).await.unwrap();
    let total = report(dir.path(), "").total;
    assert_eq!(total.as_asked, Money(i128::from(i64::MAX) * 4));
    assert_eq!(total.cost, Money(i128::from(i64::MIN) * 4));
}

#[tokio::test]
async fn breakdowns_add_up_and_unknown_prices_are_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let mut items: Vec<Settle> = (0..3).map(item).collect();
    items[1].record.model = "mystery".to_owned();
    items[1].record.as_asked = None;
    items[1].record.cost = None;
    items[1].record.saved = Savings::default();
    items[2].record.cache = CacheResult::Hit;
    items[2].record.at_ms = NOW + 86_400_000;
    items[2].record.outcome = Outcome::Aborted;
    ledger.book(Arc::new(items), at(NOW)).await.unwrap();

    let report = report(dir.path(), "model,tenant:day,cache");
    let models = &report.by["model"];
    assert_eq!(models.len(), 2);
    assert_eq!(models[0].key["model"], "gpt-4o-mini");
    assert_eq!((models[0].sums.requests, models[0].sums.cache_hits), (2, 1));
    assert_eq!(models[1].sums.unknown_prices.cost, 1);
    assert_eq!(models[1].sums.cost, Money(0));
    let days: Vec<&str> = report.by["tenant:day"]
        .iter()
        .map(|row| row.key["day"].as_str())
        .collect();
    assert_eq!(days, ["2023-11-14", "2023-11-15"]);
    assert_eq!(report.total.tokens.prompt, 20, "what went upstream");
    assert_eq!(report.total.tokens_from_cache.prompt, 10);
    assert_eq!(report.total.outcomes["aborted"], 1);
    let summed: u64 = report.by["cache"].iter().map(|row| row.sums.requests).sum();
    assert_eq!(summed, report.total.requests);
}

#[tokio::test]
async fn a_query_keeps_to_its_time_and_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let mut items: Vec<Settle> = (0..4).map(item).collect();
    for (index, item) in items.iter_mut().enumerate() {
        item.record.at_ms = NOW + index as u64;
    }
    items[3].record.tenant = "globex".to_owned();
    ledger.book(Arc::new(items), at(NOW)).await.unwrap();
    let count = |query: Query| {
        super::query(&mut read(dir.path()).unwrap(), &query)
            .unwrap()
            .total
            .requests
    };
    let between = Query {
        from_ms: Some(NOW + 1),
        to_ms: Some(NOW + 3),
        ..Query::default()
    };
    assert_eq!(count(between), 2);
    let acme = Query {
        tenant: Some("acme".to_owned()),
        ..Query::default()
    };
    assert_eq!(count(acme), 3);
    let injected = Query {
        tenant: Some("' OR 1 --".to_owned()),
        ..Query::default()
    };
    assert_eq!(count(injected), 0);
}

#[test]
fn unknown_dimensions_are_refused_with_the_known_ones() {
    let error = Query::breakdowns("task,colour").unwrap_err();
    assert!(
        error.contains("found `colour`") && error.contains("endpoint"),
        "{error}"
    );
    assert!(Query::breakdowns(&"task,".repeat(17)).is_err());
    assert_eq!(Query::breakdowns("").unwrap(), Vec::<Vec<Dimension>>::new());
}
