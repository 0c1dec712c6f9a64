//! The two budget stores decide alike, and neither lets concurrent requests pass a limit.

use std::sync::Arc;
use std::time::Duration;

use crate::common::Redis;
use proptest::prelude::*;
use sluice::budget::{Ask, BudgetStore, Decision, Id, MemoryBudgets, RedisBudgets, Spend};
use sluice::config::{Patience, Secret};
use sluice::store::Link;
use sluice_wire::{Charge, Counted, Over, Unit, Window};

fn redis_store(redis: &Redis) -> RedisBudgets {
    let patience = Patience {
        timeout: Duration::from_secs(10),
        failures: 5,
        pause: Duration::from_secs(5),
    };
    let link = Link::new(&Secret::new(redis.url()), patience).unwrap();
    RedisBudgets::new(Arc::new(link), "test".to_owned())
}

/// One step of a schedule.
#[derive(Clone, Debug)]
enum Step {
    Reserve {
        id: u8,
        charges: Vec<Charge>,
        last: bool,
        hold_ms: u64,
    },
    Settle {
        id: u8,
        counted: Vec<Counted>,
        late_ms: u64,
    },
    Wait(u64),
}

fn unit() -> impl Strategy<Value = Unit> {
    prop_oneof![Just(Unit::Tokens), Just(Unit::Usd)]
}

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![
        Just(Window::Minute),
        Just(Window::Hour),
        Just(Window::Month)
    ]
}

/// Small amounts that meet small limits, amounts that doubles cannot hold, and absurd ones.
fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0_u64..60,
        2 => 9_007_199_254_740_990_u64..9_007_199_254_741_100,
        1 => 999_999_999_990_u64..1_000_000_000_010,
        // Where the script's two halves carry: sums of exactly 2e12, 3e12, …
        2 => prop_oneof![Just(500_000_000_000), Just(1_500_000_000_000)],
        1 => prop_oneof![Just(u64::MAX), Just(1_000_000_000_000_000_000)],
    ]
}

fn limit() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0_u64..200,
        3 => 9_007_199_254_740_990_u64..9_007_199_254_741_300,
        2 => 999_999_999_990_u64..4_000_000_000_010,
        1 => Just(u64::MAX),
        1 => Just(9_000_000_000_000_000_000),
    ]
}

fn charge() -> impl Strategy<Value = Charge> {
    let over = prop_oneof![
        Just(Over::Reject),
        Just(Over::SmallTier),
        Just(Over::Shadow)
    ];
    (
        0_u16..5,
        0_u8..3,
        window(),
        unit(),
        limit(),
        amount(),
        any::<bool>(),
        over,
    )
        .prop_map(
            |(rule, counter, window, unit, limit, reserve, exact, over)| Charge {
                rule,
                counter: format!("tenant:{counter}:x"),
                window,
                unit,
                limit,
                reserve,
                at_most: if exact {
                    reserve
                } else {
                    reserve.saturating_add(30)
                },
                over,
            },
        )
}

fn counted() -> impl Strategy<Value = Counted> {
    (0_u8..3, window(), unit(), amount()).prop_map(|(counter, window, unit, amount)| Counted {
        counter: format!("tenant:{counter}:x"),
        window,
        unit,
        amount,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..20, prop::collection::vec(charge(), 1..4), any::<bool>(), 0_u64..90_000)
            .prop_map(|(id, charges, last, hold_ms)| Step::Reserve { id, charges, last, hold_ms }),
        4 => (0_u8..20, prop::collection::vec(counted(), 0..4), 0_u64..70_000)
            .prop_map(|(id, counted, late_ms)| Step::Settle { id, counted, late_ms }),
        2 => (0_u64..40_000).prop_map(Step::Wait),
    ]
}

#[test]
fn both_stores_decide_alike_on_random_schedules() {
    let Some(redis) = Redis::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = std::cell::RefCell::new(redis.client().get_connection().unwrap());
    let shared = runtime.block_on(async { redis_store(&redis) });
    let config = ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let schedule = prop::collection::vec(step(), 1..60);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&schedule, |steps| {
        redis::cmd("FLUSHALL")
            .exec(&mut *client.borrow_mut())
            .unwrap();
        let memory = MemoryBudgets::new(10_000);
        // Ten seconds before a minute, an hour and a month end together.
        let mut now_ms = 1_706_745_590_000;
        let mut settled = std::collections::HashSet::new();
        runtime.block_on(async {
            for step in &steps {
                match step {
                    Step::Wait(ms) => now_ms += ms,
                    Step::Reserve {
                        id,
                        charges,
                        last,
                        hold_ms,
                    } => {
                        let ask = Ask {
                            id: Id(u128::from(*id)),
                            now_ms,
                            hold_ms: *hold_ms,
                            charges,
                            last: *last,
                        };
                        let here = memory.reserve(ask).await.unwrap();
                        let there = shared.reserve(ask).await.unwrap();
                        prop_assert_eq!(here, there, "{:?} at {}", ask, now_ms);
                    }
                    Step::Settle {
                        id,
                        counted,
                        late_ms,
                    } => {
                        let spend = Spend {
                            id: Id(u128::from(*id)),
                            at_ms: now_ms - late_ms,
                            counted: counted.clone(),
                        };
                        // The ledger and the marker keep a second settlement from both.
                        if settled.insert(*id) {
                            let spends = [spend];
                            memory.settle(now_ms, &spends).await.unwrap();
                            shared.settle(now_ms, &spends).await.unwrap();
                        }
                    }
                }
            }
            Ok(())
        })
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

async fn never_over(store: Arc<dyn BudgetStore>) {
    const LIMIT: u64 = 10_000;
    let now_ms = 1_700_000_000_000;
    let tasks: Vec<_> = (0..200_u128)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut spent = 0;
                for round in 0..20_u128 {
                    let id = Id(task * 1000 + round);
                    let reserve = 5 + (task as u64 * 7 + round as u64) % 30;
                    let charges = [Charge {
                        rule: 0,
                        counter: "tenant:a".to_owned(),
                        window: Window::Day,
                        unit: Unit::Tokens,
                        limit: LIMIT,
                        reserve,
                        at_most: reserve,
                        over: Over::Reject,
                    }];
                    let ask = Ask {
                        id,
                        now_ms,
                        hold_ms: 60_000,
                        charges: &charges,
                        last: true,
                    };
                    match store.reserve(ask).await.unwrap() {
                        Decision::Go { .. } => {
                            let spend = Spend {
                                id,
                                at_ms: now_ms,
                                counted: vec![Counted {
                                    counter: "tenant:a".to_owned(),
                                    window: Window::Day,
                                    unit: Unit::Tokens,
                                    amount: reserve,
                                }],
                            };
                            store.settle(now_ms, &[spend]).await.unwrap();
                            spent += reserve;
                        }
                        Decision::Reject(it) => assert!(it.used <= LIMIT, "{it:?}"),
                        other => panic!("{other:?}"),
                    }
                }
                spent
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    assert!(total <= LIMIT, "{total} of {LIMIT}");
    assert!(
        total > LIMIT - 40,
        "{total} of {LIMIT}: the budget was used up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_tasks_never_pass_the_limit_in_memory() {
    never_over(Arc::new(MemoryBudgets::new(100))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_tasks_never_pass_the_limit_in_redis() {
    let Some(redis) = Redis::start() else { return };
    never_over(Arc::new(redis_store(&redis))).await;
}

/// What a refused request is told about `tenant:N`: used and reserved.
async fn level(store: &RedisBudgets, counter: &str) -> u64 {
    let charges = [exact(counter, 0, 1)];
    let ask = Ask {
        id: Id(999),
        now_ms: 1_700_000_000_000,
        hold_ms: 1,
        charges: &charges,
        last: true,
    };
    match store.reserve(ask).await.unwrap() {
        Decision::Reject(it) => it.used,
        other => panic!("{other:?}"),
    }
}

fn exact(counter: &str, limit: u64, amount: u64) -> Charge {
    Charge {
        rule: 0,
        counter: counter.to_owned(),
        window: Window::Day,
        unit: Unit::Usd,
        limit,
        reserve: amount,
        at_most: amount,
        over: Over::Reject,
    }
}

#[tokio::test]
async fn redis_adds_and_releases_exactly_beyond_what_its_doubles_hold() {
    let Some(redis) = Redis::start() else { return };
    let store = redis_store(&redis);
    let now_ms = 1_700_000_000_000;
    let pairs = [
        (1_500_000_000_000, 500_000_000_000),
        (999_999_999_999, 1),
        (2_000_000_000_001, 999_999_999_999),
        (9_007_199_254_740_993, 9_007_199_254_740_995),
        (1_000_000_000_000_000_000, 999_999_999_999_999_999),
    ];
    for (n, (a, b)) in pairs.into_iter().enumerate() {
        let counter = format!("tenant:{n}");
        let id = |which: u128| Id(n as u128 * 10 + which);
        for (which, amount) in [(1, a), (2, b)] {
            let charges = [exact(&counter, u64::MAX, amount)];
            let ask = Ask {
                id: id(which),
                now_ms,
                hold_ms: 60_000,
                charges: &charges,
                last: true,
            };
            store.reserve(ask).await.unwrap();
        }
        assert_eq!(level(&store, &counter).await, a + b, "reserved");
        let spend = |which, amount| Spend {
            id: id(which),
            at_ms: now_ms,
            counted: vec![Counted {
                counter: counter.clone(),
                window: Window::Day,
                unit: Unit::Usd,
                amount,
            }],
        };
        let release = Spend {
            counted: Vec::new(),
            ..spend(1, 0)
        };
        store.settle(now_ms, &[release]).await.unwrap();
        assert_eq!(level(&store, &counter).await, b, "one released");
        store
            .settle(now_ms, &[spend(2, a), spend(3, b)])
            .await
            .unwrap();
        assert_eq!(level(&store, &counter).await, a + b, "used");
    }
}
