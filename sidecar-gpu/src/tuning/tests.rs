use super::*;

const NOW: u64 = 1_700_000_000_000;

fn key(n: u64) -> Key {
    format!("{n:064x}").parse().unwrap()
}

fn observer() -> (Observer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Observer::open(dir.path(), NOW), dir)
}

fn at(secs: u64) -> u64 {
    NOW + secs * 1000
}

fn stored(answer: u32) -> Stored<'static> {
    Stored {
        route: "chat",
        answer,
        ttl_secs: 600,
        stale_secs: 60,
    }
}

fn route(observer: &Observer) -> RouteTuning {
    observer.report(Goal::default()).routes.remove(0)
}

#[test]
fn each_ttl_is_played_through_as_a_cache_of_its_own() {
    let (observer, _dir) = observer();
    for secs in [0, 50, 100, 400, 1000, 200_000, 500_000] {
        observer.asked("chat", &key(1), at(secs));
    }
    let route = route(&observer);
    // The last one is beyond the horizon of two days.
    assert_eq!((route.asks, route.reasks), (7, 4));
    let hits: Vec<u64> = route.curve.iter().map(|point| point.hits).collect();
    // 1 min: 50; fetched at 100, 400 and 1000. 5 min: 50, 100; fetched at 400. 15 min: 50, 100, 400.
    assert_eq!(hits, [1, 2, 3, 4, 4, 4]);
}

#[test]
fn a_steady_route_is_given_the_ttl_that_catches_most_and_a_stale_window_up_to_the_longest() {
    let (observer, _dir) = observer();
    // Asked every four minutes for a day, fetched every two hours, never changing.
    for n in 0..40 {
        for minute in (0..1440).step_by(4) {
            observer.asked("chat", &key(n), at(minute * 60 + n));
            if minute % 120 == 0 {
                observer.stored(&key(n), stored(7), at(minute * 60 + n));
            }
        }
    }
    let route = route(&observer);
    assert_eq!((route.ttl_secs, route.stale_secs), (Some(600), Some(60)));
    assert_eq!((route.replaced, route.changed), (40 * 11, 0));
    let proposal = route.proposal.unwrap();
    assert_eq!(route.curve[0].hits, 0, "none within a minute");
    // No answer was older than two hours when it was replaced: nothing is known of a day. An hour
    // catches 14 of 15, which is more than nine tenths of what six do.
    assert_eq!(route.curve[5].changed, None);
    assert_eq!(proposal.ttl_secs + proposal.stale_secs, 21_600);
    assert_eq!(proposal.ttl_secs, 3600);
    assert!(proposal.changed_at_most < 0.01, "{proposal:?}");
    assert!(proposal.caught > 0.9 && proposal.caught_with_stale >= proposal.caught);
}

#[test]
fn answers_that_change_every_hour_are_not_kept_longer_than_that() {
    let (observer, _dir) = observer();
    for n in 0..100 {
        for secs in (0..36_000).step_by(20) {
            observer.asked("chat", &key(n), at(secs));
            // Refreshed at many intervals; what is said changes with the hour.
            if secs % (60 * (1 + n)) == 0 {
                observer.stored(&key(n), stored((secs / 3600) as u32), at(secs));
            }
        }
    }
    let route = route(&observer);
    let known = route.curve[..5].iter();
    let changed: Vec<f64> = known.map(|it| it.changed.unwrap()).collect();
    let grows = |pair: &[f64]| pair[0] < pair[1] + 1e-9;
    assert!(changed.windows(2).all(grows), "{changed:?}");
    assert!(changed[1] < 0.06 && changed[4] > 0.5, "{changed:?}");
    let goal = |changed| Goal {
        changed,
        ..Goal::default()
    };
    let ttl = |changed| {
        let route = observer.report(goal(changed)).routes.remove(0);
        route.proposal.map(|it| it.ttl_secs + it.stale_secs)
    };
    assert_eq!(ttl(0.01), None);
    assert_eq!(ttl(0.2), Some(900));
    assert_eq!(ttl(0.6), Some(3600));
    let reason = observer.report(goal(0.01)).routes.remove(0).reason;
    assert!(reason.unwrap().contains("under 1.0 %"));
}

#[test]
fn too_little_is_said_to_be_too_little() {
    let (observer, _dir) = observer();
    for n in 0..99 {
        observer.asked("chat", &key(n), NOW);
        observer.asked("chat", &key(n), at(5));
    }
    let reason = route(&observer).reason.unwrap();
    assert_eq!(reason, "not enough data: 99 re-asks of 100");
    observer.asked("chat", &key(0), at(6));
    let reason = route(&observer).reason.unwrap();
    assert_eq!(reason, "not enough data: 0 replaced answers of 50");
    assert_eq!(route(&observer).curve[0].changed, None);
    // Replaced when they were old: nothing is known of older ones yet.
    for n in 0..50 {
        observer.stored(&key(n), stored(1), NOW);
        observer.stored(&key(n), stored(1), at(30));
    }
    assert!(route(&observer).curve[0].changed_at_most.unwrap() < 0.08);
    observer.asked("chat", &key(0), at(400));
    assert_eq!(route(&observer).curve[2].changed, None);
}

#[test]
fn a_route_that_is_not_told_is_that_of_the_answer() {
    let (observer, _dir) = observer();
    observer.asked("", &key(1), NOW);
    observer.stored(&key(1), stored(1), NOW);
    observer.asked("", &key(1), at(1));
    let report = observer.report(Goal::default());
    let asks = |name: &str| {
        let mut routes = report.routes.iter();
        routes.find(|it| it.route == name).map(|it| it.asks)
    };
    assert_eq!((asks(""), asks("chat")), (Some(1), Some(1)));
}

#[test]
fn keys_and_routes_beyond_their_bounds_thin_the_sample_and_not_the_shares() {
    let (observer, _dir) = observer();
    for n in 0..200_000 {
        observer.asked("chat", &key(n), NOW);
        observer.asked("chat", &key(n), at(120));
        if n % 2 == 0 {
            observer.asked("chat", &key(n), at(130));
        }
    }
    let route = route(&observer);
    assert!(observer.inner().keys.len() <= KEYS);
    assert!(observer.sample.load(Ordering::Relaxed) < u64::MAX / 2);
    // Of three re-asks two come after two minutes: a TTL of one minute catches the third.
    let share = route.curve[0].caught;
    assert!((share - 1.0 / 3.0).abs() < 0.01, "{share}");
    for n in 0..9000 {
        observer.asked(&format!("route{}", n / 30), &key(n), at(140));
    }
    let routes = observer.report(Goal::default()).routes;
    assert_eq!(routes.len(), ROUTES + 1);
    // Where few keys are asked for within the horizon, more of them are watched again.
    let thin = observer.sample.load(Ordering::Relaxed);
    for n in 0..2_000_000 {
        observer.asked("chat", &key(1_000_000 + n), at(1_000_000 + n * 10));
        if observer.sample.load(Ordering::Relaxed) != thin {
            break;
        }
    }
    assert!(observer.sample.load(Ordering::Relaxed) > thin);
}

#[test]
fn counts_survive_a_restart_and_old_ones_fade() {
    let (observer, dir) = observer();
    for secs in 0..HALVE + 1 {
        observer.asked("chat", &key(1), at(secs));
    }
    let counted = route(&observer);
    assert_eq!(counted.reasks, HALVE / 2);
    observer.save().unwrap();
    let again = Observer::open(dir.path(), at(9));
    assert_eq!(
        again.report(Goal::default()),
        observer.report(Goal::default())
    );
    assert_eq!(
        read(dir.path(), Goal::default()).unwrap(),
        observer.report(Goal::default())
    );
    std::fs::write(file(dir.path()), "damaged").unwrap();
    assert!(
        Observer::open(dir.path(), NOW)
            .report(Goal::default())
            .routes
            .is_empty()
    );
}
