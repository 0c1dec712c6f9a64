use proptest::prelude::*;

use super::super::{Question, Verdict, judge};
use super::*;

fn audit(different: bool, rate: f64) -> Judged {
    Judged { different, rate }
}

/// Plays `count` hits of probabilities like those of a cache (thick near 1), each false with a
/// probability of its own, and returns the share of false ones among the last half of the audits
/// and where the threshold ends.
fn play(count: usize, rate: f64, false_at: impl Fn(f64) -> f64) -> (f64, f64) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut found = Found::default();
    let (mut audits, mut wrong) = (0_u32, 0_u32);
    for n in 0..count {
        let x: f64 = rng.f64();
        let probability = 1.0 - 0.5 * x * x * x;
        if probability.min(0.995) < found.threshold() {
            continue;
        }
        let different = rng.f64() < false_at(probability);
        found = found.after(audit(different, rate));
        if n > count / 2 {
            audits += 1;
            wrong += u32::from(different);
        }
    }
    (
        f64::from(wrong) / f64::from(audits.max(1)),
        found.threshold(),
    )
}

#[test]
fn the_rate_is_held_whatever_the_probabilities_are_worth() {
    // Honest, three times too sure, and twice too modest.
    for (worth, rate) in [
        (1.0, 0.02),
        (3.0, 0.02),
        (3.0, 0.05),
        (0.5, 0.01),
        (0.5, 0.005),
    ] {
        let (held, at) = play(400_000, rate, |p| (worth * (1.0 - p)).min(1.0));
        assert!(
            (held - rate).abs() < rate * 0.15,
            "{worth} {rate}: {held} at {at}"
        );
        assert!(at > BOUNDS.0 && at < BOUNDS.1, "{worth} {rate}: {at}");
    }
}

#[test]
fn a_route_that_changes_is_followed() {
    let mut found = Found::default();
    let mut rng = fastrand::Rng::with_seed(3);
    let mut at = Vec::new();
    for worth in [1.0, 4.0, 1.0] {
        for _ in 0..100_000 {
            let probability = 1.0 - 0.5 * rng.f64().powi(3);
            if probability >= found.threshold() {
                let different = rng.f64() < worth * (1.0 - probability);
                found = found.after(audit(different, 0.02));
            }
        }
        at.push(found.threshold());
    }
    assert!(at[1] > at[0] + 0.01 && at[2] < at[1] - 0.01, "{at:?}");
    assert!((found.estimate().unwrap() - 0.02).abs() < 0.03);
}

#[test]
fn where_nothing_is_right_only_equal_terms_are_told_and_where_all_is_the_rest_is() {
    let (all, none) = (|_| 1.0, |_| 0.0);
    assert!((play(10_000, 0.02, all).1 - 0.995).abs() < 1e-9);
    assert!((play(100_000, 0.02, none).1 - 0.9).abs() < 1e-9);
    let question = Question::read("How do I reset my password?");
    let Verdict::Probability(same) = judge(&question, &question, 1.0, None) else {
        panic!("refused");
    };
    let highest = (0..100).fold(Found::default(), |it, _| it.after(audit(true, 0.02)));
    assert!(same >= highest.threshold() as f32);
}

proptest! {
    #[test]
    fn no_audits_and_no_state_lead_out_of_the_bounds(
        audits in proptest::collection::vec((any::<bool>(), -1.0_f64..2.0), 0..300),
        text in ".{0,40}",
    ) {
        let mut found = Found::decode(&text).unwrap_or_default();
        for (different, rate) in audits {
            let next = found.after(audit(different, rate));
            prop_assert!(next.logit.is_finite());
            prop_assert!((BOUNDS.0..=BOUNDS.1).contains(&next.threshold()));
            prop_assert!((0.0..=1.0).contains(&next.estimate));
            // The one moves it up, the other down.
            let rises = next.threshold() - found.threshold();
            prop_assert_eq!(different, rises > 0.0 || different && rises == 0.0);
            prop_assert_eq!(Found::decode(&next.encode()), Some(next));
            found = next;
        }
    }
}

#[test]
fn what_is_no_threshold_is_not_taken() {
    for text in [
        "",
        "NaN 1 1 0.1",
        "inf 1 1 0",
        "1 1 1",
        "1 1 1 0.1 9",
        "1 -1 1 0",
        "1 1 1 1.5",
    ] {
        assert_eq!(Found::decode(text), None, "{text}");
    }
    let far = Found::decode("900 1 1 0.1").unwrap();
    assert!((far.threshold() - 0.995).abs() < 1e-9);
}

#[test]
fn more_audits_than_can_be_counted_overflow_nothing() {
    let mut found = Found::decode(&format!("1 {} 0 0.5", u64::MAX)).unwrap();
    for different in [true, false, true] {
        found = found.after(audit(different, 0.02));
    }
    assert_eq!(found.audits(), u64::MAX);
    assert!((0.0..=1.0).contains(&found.estimate));
}

#[test]
fn routes_beyond_the_bound_share_one() {
    let thresholds = Thresholds::default();
    for n in 0..ROUTES + 50 {
        thresholds.judged(&format!("route{n}"), audit(true, 0.02), false);
    }
    assert_eq!(thresholds.all().len(), ROUTES + 1);
    let (own, shared) = (thresholds.of("route7"), thresholds.of("another"));
    assert_eq!((own.audits(), shared.audits()), (1, 50));
    assert_eq!(thresholds.of("route1030"), shared);
}

#[test]
fn they_survive_a_restart_and_a_damaged_file_does_not_matter() {
    let data = tempfile::tempdir().unwrap();
    let thresholds = Thresholds::open(data.path(), "r1");
    thresholds.judged("chat", audit(true, 0.02), false);
    thresholds.judged("", audit(false, 0.02), false);
    thresholds.save().unwrap();
    let again = Thresholds::open(data.path(), "r1");
    assert_eq!(again.all(), thresholds.all());
    assert_eq!(read_thresholds(data.path()).unwrap(), thresholds.all());
    let other = Thresholds::open(data.path(), "r2");
    assert!(other.all().is_empty(), "another model's");
    assert!(again.of("chat").threshold() > f64::from(DEFAULT_THRESHOLD));
    let opened = |text: &str| {
        let text = format!(r#"{{"made_by":"{RULES}:r1","routes":{text}}}"#);
        std::fs::write(file(data.path()), text).unwrap();
        Thresholds::open(data.path(), "r1").all()
    };
    assert!(opened(r#"[["chat",{"logit":1e999}]]"#).is_empty());
    let wild = opened(r#"[["chat",{"logit":1.0,"estimate":7.0}],["",{"logit":1.0}]]"#);
    assert_eq!(wild.len(), 1);
}

#[test]
fn what_the_others_found_does_not_undo_what_they_have_not_heard() {
    let thresholds = Thresholds::default();
    thresholds.judged("chat", audit(true, 0.02), true);
    let own = thresholds.of("chat");
    thresholds.adopt("chat", Found::default());
    assert_eq!(thresholds.of("chat"), own);
    assert_eq!(thresholds.untold()["chat"], [audit(true, 0.02)]);
    thresholds.judged("chat", audit(false, 0.02), true);
    thresholds.told("chat", 1);
    assert_eq!(thresholds.untold()["chat"], [audit(false, 0.02)]);
    thresholds.told("chat", 1);
    thresholds.adopt("chat", Found::default());
    assert_eq!(thresholds.of("chat"), Found::default());
    assert_eq!(thresholds.inner().waiting, 0);
}
