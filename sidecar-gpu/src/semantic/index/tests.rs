use super::*;

const WIDE: Bounds = Bounds {
    entries: 100_000,
    bytes: 1 << 30,
};

fn key(n: u64) -> Key {
    format!("{n:064x}").parse().unwrap()
}

fn vector(rng: &mut fastrand::Rng) -> Vec<f32> {
    let vector: Vec<f32> = (0..384).map(|_| rng.f32() - 0.5).collect();
    unit(vector)
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

fn near(vector: &[f32], by: f32, rng: &mut fastrand::Rng) -> Vec<f32> {
    unit(vector.iter().map(|x| x + (rng.f32() - 0.5) * by).collect())
}

fn stored(scope: u64, at: u64) -> Stored {
    Stored {
        scope: key(scope),
        key: key(at),
        question: Arc::new(Question::read("What is your refund policy?")),
        until_ms: 1_000,
    }
}

fn found(index: &Index, scope: u64, vector: &[f32]) -> Vec<Key> {
    let found = index.search(&key(scope), &Row::of(vector), 0);
    found.into_iter().map(|near| near.key).collect()
}

#[test]
fn the_nearest_are_found_in_their_order_and_in_their_scope_only() {
    let mut rng = fastrand::Rng::with_seed(1);
    let index = Index::new(384, WIDE);
    let middle = vector(&mut rng);
    let mut cosines = Vec::new();
    for at in 0..2_000 {
        let other = match at % 4 {
            0 => near(&middle, 0.06, &mut rng),
            _ => vector(&mut rng),
        };
        let cosine: f32 = middle.iter().zip(&other).map(|(a, b)| a * b).sum();
        index.insert(stored(at % 2, at), &Row::of(&other));
        if at % 2 == 0 {
            cosines.push((cosine, key(at)));
        }
    }
    cosines.sort_by(|a, b| b.0.total_cmp(&a.0));
    let found = index.search(&key(0), &Row::of(&middle), 0);
    assert_eq!(found.len(), CANDIDATES);
    for (near, (cosine, _)) in found.iter().zip(&cosines) {
        assert!((near.cosine - cosine).abs() < 0.002, "{near:?} {cosine}");
    }
    assert!(index.search(&key(1), &Row::of(&middle), 0).is_empty());
    assert!(index.search(&key(2), &Row::of(&middle), 0).is_empty());
    assert!(
        index.search(&key(0), &Row::of(&middle), 1_000).is_empty(),
        "their answers are over"
    );
}

#[test]
fn what_is_removed_is_found_no_more_and_leaves_the_others_in_place() {
    let mut rng = fastrand::Rng::with_seed(2);
    let index = Index::new(384, WIDE);
    let vectors: Vec<_> = (0..50).map(|_| vector(&mut rng)).collect();
    for (at, vector) in (0..).zip(&vectors) {
        index.insert(stored(0, at), &Row::of(vector));
    }
    let mut gone = std::collections::HashSet::new();
    for _ in 0..40 {
        let at = rng.usize(..50);
        index.remove(&key(at as u64));
        gone.insert(at);
        for (other, vector) in vectors.iter().enumerate() {
            let expected = match gone.contains(&other) {
                true => vec![],
                false => vec![key(other as u64)],
            };
            assert_eq!(found(&index, 0, vector), expected);
        }
    }
    assert_eq!(index.size().entries, 50 - gone.len());
    index.expire(1_000);
    assert_eq!((index.size().entries, index.size().bytes), (0, 0));
    assert!(index.scopes().is_empty());
}

#[test]
fn the_least_recently_used_give_way_at_either_bound() {
    let mut rng = fastrand::Rng::with_seed(3);
    let vectors: Vec<_> = (0..20).map(|_| vector(&mut rng)).collect();
    let one = weight(&Question::read("What is your refund policy?"), 384);
    for bounds in [
        Bounds {
            entries: 10,
            ..WIDE
        },
        Bounds {
            bytes: one * 10,
            ..WIDE
        },
    ] {
        let index = Index::new(384, bounds);
        for (at, vector) in (0..).zip(&vectors) {
            index.insert(stored(0, at), &Row::of(vector));
            index.used(&key(0));
        }
        assert_eq!((index.size().entries, index.size().evicted), (10, 10));
        for (at, vector) in vectors.iter().enumerate() {
            let kept = at == 0 || at > 10;
            assert_eq!(found(&index, 0, vector).len(), usize::from(kept), "{at}");
        }
    }
}

#[test]
fn what_another_sidecar_kept_is_learnt_once_and_an_older_one_changes_nothing() {
    let mut rng = fastrand::Rng::with_seed(5);
    let index = Index::new(384, WIDE);
    let row = Row::of(&vector(&mut rng));
    assert!(index.learn(stored(0, 1), &row));
    assert!(!index.learn(stored(0, 1), &row));
    let with = |until_ms| Stored {
        until_ms,
        ..stored(0, 1)
    };
    assert!(!index.learn(with(999), &row));
    assert!(index.learn(with(1_001), &row));
    assert_eq!(index.size().entries, 1);
    index.clear();
    assert_eq!((index.size().entries, index.size().bytes), (0, 0));
    assert!(index.learn(stored(0, 1), &row));
}

#[test]
fn an_answer_that_is_stored_again_has_one_entry() {
    let mut rng = fastrand::Rng::with_seed(4);
    let index = Index::new(384, WIDE);
    let (before, after) = (vector(&mut rng), vector(&mut rng));
    index.insert(stored(0, 1), &Row::of(&before));
    index.insert(stored(0, 1), &Row::of(&after));
    assert_eq!(index.size().entries, 1);
    assert!(found(&index, 0, &before).is_empty());
    assert_eq!(found(&index, 0, &after), [key(1)]);
    index.insert(stored(0, 2), &Row::of(&[1.0; 8]));
    assert_eq!(index.size().entries, 1, "a vector of another model");
}
