use sluice_wire::Over;

use super::*;

const NOW: u64 = 1_700_000_000_000;

fn charge(counter: &str, (limit, reserve, at_most): (u64, u64, u64), over: Over) -> Charge {
    Charge {
        rule: 7,
        counter: counter.to_owned(),
        window: Window::Hour,
        unit: Unit::Tokens,
        limit,
        reserve,
        at_most,
        over,
    }
}

fn ask(id: u128, now_ms: u64, charges: &[Charge]) -> Ask<'_> {
    Ask {
        id: Id(id),
        now_ms,
        hold_ms: 120_000,
        charges,
        last: false,
    }
}

fn spend(id: u128, at_ms: u64, amount: u64) -> Spend {
    Spend {
        id: Id(id),
        at_ms,
        counted: vec![Counted {
            counter: "tenant:a".to_owned(),
            window: Window::Hour,
            unit: Unit::Tokens,
            amount,
        }],
    }
}

fn level(store: &MemoryBudgets, now_ms: u64) -> (u64, u128) {
    store.level(("tenant:a", Window::Hour, Unit::Tokens), now_ms)
}

const GO: Decision = Decision::Go { over: Vec::new() };

#[test]
fn a_request_reserves_until_it_is_settled_with_what_it_used() {
    let store = MemoryBudgets::new(100);
    let charges = [charge("tenant:a", (100, 60, 60), Over::Reject)];
    assert_eq!(store.reserve_now(&ask(1, NOW, &charges)), GO);
    assert_eq!(level(&store, NOW), (0, 60));
    let second = store.reserve_now(&ask(2, NOW, &charges));
    assert_eq!(
        second,
        Decision::Reject(Overrun {
            rule: 7,
            limit: 100,
            used: 60,
            reset_secs: 2800,
        })
    );
    store.settle_now(NOW, &[spend(1, NOW, 25)]);
    assert_eq!(level(&store, NOW), (25, 25));
    assert_eq!(store.reserve_now(&ask(2, NOW, &charges)), GO);
}

#[test]
fn a_settlement_without_charges_releases() {
    let store = MemoryBudgets::new(100);
    let charges = [charge("tenant:a", (100, 60, 60), Over::Reject)];
    store.reserve_now(&ask(1, NOW, &charges));
    let released = Spend {
        counted: Vec::new(),
        ..spend(1, NOW, 0)
    };
    store.settle_now(NOW, &[released]);
    assert_eq!(level(&store, NOW), (0, 0));
}

#[test]
fn an_unsettled_reservation_lapses_after_its_hold() {
    let store = MemoryBudgets::new(100);
    let charges = [charge("tenant:a", (100, 60, 60), Over::Reject)];
    store.reserve_now(&ask(1, NOW, &charges));
    assert_eq!(level(&store, NOW + 119_999), (0, 60));
    assert_eq!(store.reserve_now(&ask(2, NOW + 120_000, &charges)), GO);
    assert_eq!(level(&store, NOW + 120_000), (0, 60));
}

#[test]
fn asking_again_with_the_same_id_replaces_the_reservation() {
    let store = MemoryBudgets::new(100);
    let charges = [charge("tenant:a", (100, 60, 60), Over::Reject)];
    for _ in 0..3 {
        assert_eq!(store.reserve_now(&ask(1, NOW, &charges)), GO);
    }
    assert_eq!(level(&store, NOW), (0, 60));
}

#[test]
fn only_an_estimate_near_the_limit_asks_for_an_exact_count() {
    let store = MemoryBudgets::new(100);
    let estimate = [charge("tenant:a", (100, 10, 40), Over::Reject)];
    assert_eq!(store.reserve_now(&ask(1, NOW, &estimate)), GO);
    store.settle_now(NOW, &[spend(1, NOW, 70)]);
    assert_eq!(store.reserve_now(&ask(2, NOW, &estimate)), Decision::Count);
    let exact = [charge("tenant:a", (100, 10, 10), Over::Reject)];
    assert_eq!(store.reserve_now(&ask(2, NOW, &exact)), GO);
    // A full counter refuses without making the filter count.
    store.settle_now(NOW, &[spend(2, NOW, 30)]);
    assert!(matches!(
        store.reserve_now(&ask(3, NOW, &estimate)),
        Decision::Reject(_)
    ));
}

#[test]
fn over_a_small_tier_budget_the_next_plan_is_asked_and_the_last_one_goes() {
    let store = MemoryBudgets::new(100);
    let charges = [charge("tenant:a", (100, 200, 200), Over::SmallTier)];
    let first = ask(1, NOW, &charges);
    assert_eq!(
        store.reserve_now(&first),
        Decision::SmallTier { over: vec![7] }
    );
    assert_eq!(level(&store, NOW), (0, 0));
    let last = Ask {
        last: true,
        ..first
    };
    assert_eq!(store.reserve_now(&last), Decision::Go { over: vec![7] });
    assert_eq!(level(&store, NOW), (0, 200));
}

#[test]
fn a_shadow_budget_only_tells() {
    let store = MemoryBudgets::new(100);
    let charges = [charge("tenant:a", (100, 200, 200), Over::Shadow)];
    assert_eq!(
        store.reserve_now(&ask(1, NOW, &charges)),
        Decision::Go { over: vec![7] }
    );
}

#[test]
fn one_refused_charge_reserves_none() {
    let store = MemoryBudgets::new(100);
    let charges = [
        charge("tenant:a", (100, 60, 60), Over::Reject),
        charge("task:b", (10, 60, 60), Over::Reject),
    ];
    assert!(matches!(
        store.reserve_now(&ask(1, NOW, &charges)),
        Decision::Reject(_)
    ));
    assert_eq!(level(&store, NOW), (0, 0));
}

#[test]
fn two_rules_on_one_counter_are_charged_once() {
    let store = MemoryBudgets::new(100);
    let charges = [
        charge("tenant:a", (50, 60, 60), Over::Shadow),
        charge("tenant:a", (100, 60, 60), Over::Reject),
    ];
    assert_eq!(
        store.reserve_now(&ask(1, NOW, &charges)),
        Decision::Go { over: vec![7] }
    );
    assert_eq!(level(&store, NOW), (0, 60));
    let mut twice = spend(1, NOW, 40);
    twice.counted.push(twice.counted[0].clone());
    store.settle_now(NOW, &[twice]);
    assert_eq!(level(&store, NOW), (40, 40));
}

#[test]
fn a_new_window_starts_empty_and_late_settlements_charge_their_own() {
    let store = MemoryBudgets::new(100);
    let charges = [charge("tenant:a", (100, 60, 60), Over::Reject)];
    store.reserve_now(&ask(1, NOW, &charges));
    let later = NOW + 3_600_000;
    store.settle_now(later, &[spend(1, NOW, 90)]);
    assert_eq!(level(&store, NOW), (90, 90));
    assert_eq!(level(&store, later), (0, 0));
}

#[test]
fn amounts_beyond_reason_neither_wrap_nor_panic() {
    let store = MemoryBudgets::new(100);
    let charges = [charge(
        "tenant:a",
        (u64::MAX, u64::MAX, u64::MAX),
        Over::Reject,
    )];
    for id in 0..40 {
        store.reserve_now(&ask(id, NOW, &charges));
    }
    for id in 0..40 {
        store.settle_now(NOW, &[spend(id, NOW, u64::MAX)]);
    }
    assert_eq!(level(&store, NOW), (CEILING, u128::from(CEILING)));
}

#[test]
fn a_full_store_gives_up_the_least_used_counters_and_keeps_the_spenders() {
    let store = MemoryBudgets::new(10);
    store.settle_now(NOW, &[spend(0, NOW, 1_000_000)]);
    for n in 0..500_u128 {
        let mut small = spend(n + 1, NOW, 5);
        small.counted[0].counter = format!("tenant:stranger{n}");
        store.settle_now(NOW, &[small]);
    }
    let gauges = store.gauges();
    assert_eq!((gauges.counters, gauges.untracked), (10, 0));
    assert!(gauges.evicted >= 490);
    assert_eq!(level(&store, NOW).0, 1_000_000);
}

#[test]
fn counters_with_reservations_do_not_give_way_and_the_newcomer_goes_untracked() {
    let store = MemoryBudgets::new(2);
    for n in 0..5_u128 {
        let charges = [charge(&format!("tenant:{n}"), (100, 60, 60), Over::Reject)];
        assert_eq!(store.reserve_now(&ask(n, NOW, &charges)), GO);
    }
    let gauges = store.gauges();
    assert_eq!(
        (gauges.counters, gauges.reservations, gauges.untracked),
        (2, 2, 3)
    );
}

#[test]
fn what_the_ledger_knows_is_charged_again_after_a_restart() {
    let store = MemoryBudgets::new(100);
    let counted = spend(1, NOW, 77).counted.remove(0);
    let (start, _) = Window::Hour.around(NOW / 1000);
    store.restore(NOW, &[(counted, start)]);
    assert_eq!(level(&store, NOW), (77, 77));
}

#[test]
fn an_id_is_thirty_two_hex_digits() {
    let text = "00000000000000000000000000000a0B";
    assert_eq!(text.parse(), Ok(Id(0xa0b)));
    assert_eq!(Id(0xa0b).to_string(), text.to_lowercase());
    for wrong in [
        "",
        "xyz",
        &"0".repeat(31),
        &"0".repeat(33),
        &"g".repeat(32),
        "+0000000000000000000000000000001",
    ] {
        assert!(wrong.parse::<Id>().is_err(), "{wrong}");
    }
}
