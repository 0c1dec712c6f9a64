use futures_util::FutureExt;

use super::*;

const NOW: u64 = 1_700_000_000_000;
const LIFE: u64 = 15_000;

fn key(n: u8) -> Key {
    format!("{n:02x}").repeat(32).parse().unwrap()
}

fn taken(take: Take) -> Lease {
    match take {
        Take::Taken(lease) => lease,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_holds_a_lease_and_keeps_it_however_often_it_asks() {
    let leases = MemoryLeases::default();
    let first = taken(leases.take(key(1), Id(1), (NOW, LIFE)));
    assert_eq!(leases.take(key(1), Id(2), (NOW, LIFE)), Take::Busy);
    let again = taken(leases.take(key(1), Id(1), (NOW + LIFE - 1, LIFE)));
    assert_eq!(again, first);
    assert_eq!(
        leases.take(key(1), Id(2), (NOW + LIFE, LIFE)),
        Take::Busy,
        "prolonged"
    );
    taken(leases.take(key(2), Id(2), (NOW, LIFE)));
}

#[test]
fn a_slow_holder_loses_it_and_its_successor_has_a_higher_token() {
    let leases = MemoryLeases::default();
    let slow = taken(leases.take(key(1), Id(1), (NOW, LIFE)));
    let next = taken(leases.take(key(1), Id(2), (NOW + LIFE, LIFE)));
    assert!(next.token > slow.token);
    // What the slow one says when it wakes up does not end its successor's.
    assert!(!leases.end(key(1), slow, (LeaseEnd::Stored, NOW + LIFE)));
    assert!(leases.held(key(1), NOW + LIFE));
}

#[test]
fn tokens_rise_though_the_clock_steps_back() {
    let leases = MemoryLeases::default();
    let mut last = 0;
    for now in [NOW, NOW - 60_000, NOW - 60_000, NOW + 1] {
        let lease = taken(leases.take(key(1), Id(1), (now, LIFE)));
        assert!(lease.token > last);
        last = lease.token;
        leases.end(key(1), lease, (LeaseEnd::Failed, now));
    }
}

#[test]
fn after_a_failure_the_next_takes_over_and_after_an_answer_not_to_share_all_go() {
    let leases = MemoryLeases::default();
    let one = taken(leases.take(key(1), Id(1), (NOW, LIFE)));
    assert!(leases.end(key(1), one, (LeaseEnd::Failed, NOW)));
    let two = taken(leases.take(key(1), Id(2), (NOW, LIFE)));
    assert_eq!(
        leases.take(key(1), Id(3), (NOW, LIFE)),
        Take::Busy,
        "exactly one"
    );
    assert!(leases.end(key(1), two, (LeaseEnd::Uncacheable, NOW)));
    for id in 3..6 {
        assert_eq!(leases.take(key(1), Id(id), (NOW, LIFE)), Take::Open);
    }
    assert!(!leases.held(key(1), NOW));
    taken(leases.take(key(1), Id(6), (NOW + OPEN_MS, LIFE)));
}

/// One with a stale answer.
fn serving(id: u128) -> Taker {
    Taker {
        holder: Id(id),
        serves: true,
    }
}

#[test]
fn after_refreshes_that_failed_stale_answers_rest_longer_each_time_and_others_do_not() {
    let leases = MemoryLeases::default();
    let mut now = NOW;
    for rest in [1, 2, 4, 8, 16, 32, 60, 60].map(|secs| secs * 1_000) {
        let refresh = taken(leases.take(key(1), serving(1), (now, LIFE)));
        assert!(leases.end(key(1), refresh, (End::Rest, now)));
        let busy = leases.take(key(1), serving(2), (now + rest - 1, LIFE));
        assert_eq!(busy, Take::Busy, "{rest}");
        assert!(!leases.held(key(1), now), "nobody is to wait for it");
        now += rest;
    }
    // Without an answer to tell it goes at once; what it brings ends the row.
    let lead = taken(leases.take(key(1), Id(3), (now, LIFE)));
    assert!(leases.end(key(1), lead, (End::Rest, now)));
    let lead = taken(leases.take(key(1), Id(3), (now, LIFE)));
    assert!(leases.end(key(1), lead, (LeaseEnd::Stored, now)));
    let refresh = taken(leases.take(key(1), serving(1), (now, LIFE)));
    assert!(leases.end(key(1), refresh, (End::Rest, now)));
    taken(leases.take(key(1), serving(1), (now + REST_MS, LIFE)));
}

#[test]
fn a_holder_that_never_heard_its_token_can_end_its_lease_and_no_other() {
    let leases = MemoryLeases::default();
    taken(leases.take(key(1), Id(1), (NOW, LIFE)));
    let unheard = |id| Lease {
        holder: Id(id),
        token: 0,
    };
    assert!(!leases.end(key(1), unheard(2), (LeaseEnd::Failed, NOW)));
    assert!(leases.end(key(1), unheard(1), (LeaseEnd::Failed, NOW)));
}

#[test]
fn those_who_wait_hear_what_is_told_after_they_sat_down_and_their_number_is_bounded() {
    let waiting = Waiting::new(2);
    let mut one = waiting.sit(key(1)).unwrap();
    let mut two = waiting.sit(key(1)).unwrap();
    assert!(one.first() && !two.first());
    assert!(waiting.sit(key(2)).is_none(), "full");
    waiting.tell(key(2), Signal::Changed);
    assert!(one.next().now_or_never().is_none());
    waiting.tell(key(1), Signal::Changed);
    assert!(matches!(one.next().now_or_never(), Some(Signal::Changed)));
    assert!(matches!(two.next().now_or_never(), Some(Signal::Changed)));
    drop(one);
    assert_eq!(waiting.len(), 1);
    let mut three = waiting.sit(key(1)).unwrap();
    assert!(three.next().now_or_never().is_none(), "old news");
    drop((two, three));
    assert!(waiting.is_empty() && !waiting.anyone(key(1)));
}

#[test]
fn a_room_that_all_have_left_is_not_the_one_that_the_next_opens() {
    let waiting = Waiting::new(9);
    let one = waiting.sit(key(1)).unwrap();
    let (old, two) = (one.room(), waiting.sit(key(1)).unwrap());
    drop(one);
    assert!(waiting.is_open(key(1), old) && two.room() == old);
    drop(two);
    let three = waiting.sit(key(1)).unwrap();
    assert!(three.first() && !waiting.is_open(key(1), old));
    assert!(waiting.is_open(key(1), three.room()) && !waiting.is_open(key(2), three.room()));
}
