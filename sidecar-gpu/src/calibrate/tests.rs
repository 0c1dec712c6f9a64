use super::*;

const NAMES: [&str; 3] = ["small", "medium", "large"];

fn names(tiers: usize) -> Vec<String> {
    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    names.drain(1..=3 - tiers);
    names
}

/// Requests whose small answer is right as often as they are easy, and whose large answer nearly
/// always is.
fn made(count: usize, seed: u64) -> Vec<Label> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..count)
        .map(|_| {
            let score = rng.f64();
            let right = |chance: f64, draw: f64| Some(f64::from(u8::from(draw < chance)));
            Label {
                score,
                quality: vec![
                    right(0.97 - 0.7 * score * score, rng.f64()),
                    right(0.95, rng.f64()),
                ],
                spend: vec![1.0, 20.0],
            }
        })
        .collect()
}

fn goal(quality: Option<f64>, spend: Option<f64>) -> Goal {
    Goal {
        quality,
        spend,
        confidence: 0.8,
    }
}

/// Spend and quality of `below` on other requests of the same kind.
fn elsewhere(below: f64) -> (f64, f64) {
    let labels = made(100_000, 99);
    let (mut spend, mut quality, mut largest) = (0.0, 0.0, 0.0);
    for label in &labels {
        let tier = usize::from(label.score >= below);
        spend += label.spend[tier];
        quality += label.quality[tier].unwrap();
        largest += label.quality[1].unwrap();
    }
    (spend / (20.0 * labels.len() as f64), quality / largest)
}

#[test]
fn a_floor_is_kept_on_requests_that_were_not_labelled() {
    let (mut kept, mut spent) = (0, 0.0);
    for seed in 0..10 {
        let found = calibrate(&made(500, seed), &names(2), goal(Some(0.95), None)).unwrap();
        let (spend, quality) = elsewhere(found.chosen.below[0]);
        kept += usize::from(quality >= 0.945);
        spent += spend / 10.0;
        assert!(found.chosen.quality >= 0.95);
        assert!((found.held_out.quality - 0.95).abs() < 0.04, "{found:?}");
        assert!((found.chosen.spend - spend).abs() < 0.05, "{found:?}");
    }
    assert!(kept >= 8, "{kept} of 10");
    // All to the large tier spends 1.
    assert!(spent < 0.6, "{spent}");
}

#[test]
fn a_surer_choice_keeps_more_and_spends_more() {
    let labels = made(400, 1);
    let spend = |confidence| {
        let goal = Goal {
            confidence,
            ..goal(Some(0.95), None)
        };
        calibrate(&labels, &names(2), goal).unwrap().chosen.spend
    };
    assert!(spend(0.5) < spend(0.99));
}

#[test]
fn a_ceiling_is_kept_and_used() {
    let found = calibrate(&made(500, 2), &names(2), goal(None, Some(0.4))).unwrap();
    assert!(
        found.chosen.spend <= 0.4 && found.chosen.spend > 0.35,
        "{found:?}"
    );
    let (low, high) = found.chosen.quality_95;
    assert!(low < found.chosen.quality && found.chosen.quality < high);
    assert!((found.chosen.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
}

#[test]
fn what_cannot_be_had_is_told_with_what_can() {
    let labels = made(500, 3);
    let told = |goal| calibrate(&labels, &names(2), goal).unwrap_err().to_string();
    let apart = told(goal(Some(0.99), Some(0.2)));
    assert!(
        apart.contains("within 20.0% of the spend: the cheapest"),
        "{apart}"
    );
    let dear = told(goal(None, Some(0.01)));
    assert!(dear.contains("the cheapest spend 5.0%"), "{dear}");
    let few = calibrate(&labels[..49], &names(2), goal(Some(0.9), None));
    assert_eq!(few, Err(Unmet::TooFew(49)));
    let one_sided: Vec<Label> = labels
        .iter()
        .map(|label| Label {
            quality: vec![label.quality[0], None],
            ..label.clone()
        })
        .collect();
    let unlabelled = calibrate(&one_sided, &names(2), goal(Some(0.9), None));
    assert_eq!(unlabelled, Err(Unmet::Unlabelled("large".to_owned())));
    let worthless: Vec<Label> = labels
        .iter()
        .map(|label| Label {
            quality: vec![Some(1.0), Some(0.0)],
            ..label.clone()
        })
        .collect();
    let worthless = calibrate(&worthless, &names(2), goal(Some(0.9), None));
    assert_eq!(worthless, Err(Unmet::Worthless(0.0)));
}

#[test]
fn answers_of_one_tier_each_do_nearly_as_well_as_pairs() {
    let pairs = made(2_000, 4);
    let single: Vec<Label> = pairs
        .iter()
        .enumerate()
        .map(|(at, label)| {
            let mut label = label.clone();
            label.quality[at % 2] = None;
            label
        })
        .collect();
    let by = |labels: &[Label]| {
        let found = calibrate(labels, &names(2), goal(Some(0.95), None)).unwrap();
        elsewhere(found.chosen.below[0])
    };
    let (pairs, single) = (by(&pairs), by(&single));
    assert!((pairs.0 - single.0).abs() < 0.15, "{pairs:?} {single:?}");
    assert!(single.1 > 0.935, "{single:?}");
}

#[test]
fn a_tier_in_between_is_used_where_it_pays_and_left_empty_where_it_does_not() {
    let with_medium = |right: f64, spend: f64| -> Vec<Label> {
        let mut rng = fastrand::Rng::with_seed(5);
        made(600, 5)
            .into_iter()
            .map(|mut label| {
                let right = rng.f64() < right;
                label.quality.insert(1, Some(f64::from(u8::from(right))));
                label.spend.insert(1, spend);
                label
            })
            .collect()
    };
    let shares = |labels: &[Label]| {
        let found = calibrate(labels, &names(3), goal(Some(0.95), None)).unwrap();
        assert!(found.chosen.below[0] < found.chosen.below[1], "{found:?}");
        found.chosen.shares
    };
    // Nearly as good as large at a twentieth of its price, and useless.
    assert!(shares(&with_medium(0.94, 1.1))[1] > 0.2);
    assert!(shares(&with_medium(0.0, 20.0))[1] < 0.05);
}

#[test]
fn the_curve_rises_from_the_least_spend_to_the_most() {
    let found = calibrate(&made(300, 6), &names(2), goal(Some(0.9), None)).unwrap();
    let curve = &found.curve;
    assert!(curve.len() > 5);
    assert!((curve[0].spend - 0.05).abs() < 1e-9 && curve[0].shares[0] > 0.999);
    assert!(curve.windows(2).all(|pair| pair[0].spend < pair[1].spend));
    assert!(
        curve
            .windows(2)
            .all(|pair| pair[0].quality <= pair[1].quality)
    );
}

#[test]
fn the_same_labels_choose_the_same() {
    let labels = made(200, 7);
    let by = || calibrate(&labels, &names(2), goal(Some(0.9), None));
    assert_eq!(by(), by());
}
