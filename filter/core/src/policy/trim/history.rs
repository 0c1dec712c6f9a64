//! Which exchanges of a conversation's past stay within a budget of tokens.

use std::cmp::Reverse;

/// An exchange, as far as the choice needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Tokens that it takes.
    pub tokens: u64,
    /// It stays whatever the budget is.
    pub must: bool,
}

/// The sliding window: what was said last, without a gap but for what always stays.
///
/// One answer each, oldest first: whether it stays. What must stay does, and is paid from `budget`
/// (tokens) first.
#[must_use]
pub fn recent(past: &[Past], budget: u64) -> Vec<bool> {
    let mut chosen = Chosen::of(past, budget);
    let newest_first = past.iter().enumerate().rev();
    for (at, _) in newest_first.filter(|(_, past)| !past.must) {
        if !chosen.take(at) {
            break;
        }
    }
    chosen.keep
}

/// What scores highest: the best first, each that still fits, of equals the later one.
///
/// `scores`: one each, of [`rank::conversation`](super::rank::conversation); what has none is
/// taken last. Answers as [`recent`] does.
#[must_use]
pub fn relevant(past: &[Past], scores: &[f32], budget: u64) -> Vec<bool> {
    let mut chosen = Chosen::of(past, budget);
    let score = |at: usize| scores.get(at).copied().unwrap_or(f32::NEG_INFINITY);
    let optional = past.iter().enumerate().filter(|(_, past)| !past.must);
    let mut best_first: Vec<usize> = optional.map(|(at, _)| at).collect();
    best_first.sort_unstable_by(|&one, &other| {
        let by_score = score(other).total_cmp(&score(one));
        by_score.then(Reverse(one).cmp(&Reverse(other)))
    });
    for at in best_first {
        chosen.take(at);
    }
    chosen.keep
}

/// A choice in the making.
struct Chosen<'a> {
    past: &'a [Past],
    keep: Vec<bool>,
    /// Tokens.
    left: u64,
}

impl<'a> Chosen<'a> {
    /// What must stay.
    fn of(past: &'a [Past], budget: u64) -> Self {
        let must = past.iter().filter(|past| past.must);
        let taken = must.fold(0_u64, |sum, past| sum.saturating_add(past.tokens));
        Chosen {
            past,
            keep: past.iter().map(|past| past.must).collect(),
            left: budget.saturating_sub(taken),
        }
    }

    /// Whether the one at `at` fits; it then stays.
    fn take(&mut self, at: usize) -> bool {
        let (Some(past), Some(keep)) = (self.past.get(at), self.keep.get_mut(at)) else {
            return false;
        };
        let Some(left) = self.left.checked_sub(past.tokens) else {
            return false;
        };
        (self.left, *keep) = (left, true);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(tokens: &[u64]) -> Vec<Past> {
        let past = |&tokens| Past {
            tokens,
            must: false,
        };
        tokens.iter().map(past).collect()
    }

    fn kept(keep: &[bool]) -> Vec<usize> {
        (0..keep.len()).filter(|&at| keep[at]).collect()
    }

    #[test]
    fn the_window_ends_at_the_first_exchange_that_does_not_fit() {
        let past = past(&[1, 50, 30, 20]);
        assert_eq!(kept(&recent(&past, 60)), [2, 3]);
        assert_eq!(kept(&recent(&past, 101)), [0, 1, 2, 3]);
        assert_eq!(kept(&recent(&past, 0)), [0; 0]);
    }

    #[test]
    fn what_scores_highest_stays_and_gaps_are_filled_with_what_fits() {
        let past = past(&[10, 50, 30, 20]);
        assert_eq!(kept(&relevant(&past, &[0.1, 0.9, 0.5, 0.2], 75)), [1, 3]);
        assert_eq!(kept(&relevant(&past, &[0.1, 0.9, 0.5, 0.2], 85)), [1, 2]);
    }

    #[test]
    fn of_equal_scores_the_later_exchange_stays() {
        let past = past(&[10, 10, 10]);
        assert_eq!(kept(&relevant(&past, &[0.0, 0.0, 0.0], 10)), [2]);
        assert_eq!(kept(&relevant(&past, &[], 20)), [1, 2]);
    }

    #[test]
    fn what_must_stay_does_and_is_paid_first() {
        let mut past = past(&[40, 10, 10, 10]);
        past[0].must = true;
        assert_eq!(kept(&recent(&past, 55)), [0, 3]);
        assert_eq!(kept(&relevant(&past, &[0.0, 1.0, 0.5, 0.2], 55)), [0, 1]);
        // Also past the budget.
        assert_eq!(kept(&recent(&past, 5)), [0]);
        assert_eq!(kept(&relevant(&past, &[0.0, 1.0, 0.5, 0.2], 5)), [0]);
    }

    #[test]
    fn scores_that_are_no_numbers_and_tokens_past_counting_choose_something_within_the_budget() {
        let past = past(&[u64::MAX, 3, u64::MAX, 4]);
        let scores = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -f32::NAN];
        assert_eq!(kept(&relevant(&past, &scores, 7)), [1, 3]);
    }

    proptest::proptest! {
        #[test]
        fn no_choice_passes_its_budget_and_none_leaves_room_for_another(
            past in proptest::collection::vec((0..100_u64, proptest::bool::weighted(0.1)), 0..40),
            scores in proptest::collection::vec(-1_f32..1.0, 0..40),
            budget in 0..1000_u64,
        ) {
            let past: Vec<_> = past.into_iter().map(|(tokens, must)| Past { tokens, must }).collect();
            let musts: u64 = past.iter().filter(|past| past.must).map(|past| past.tokens).sum();
            for keep in [recent(&past, budget), relevant(&past, &scores, budget)] {
                assert_eq!(keep.len(), past.len());
                let taken: u64 = past.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(past, _)| past.tokens).sum();
                assert!(taken <= budget.max(musts));
                assert!(past.iter().zip(&keep).all(|(past, keep)| *keep || !past.must));
            }
            let keep = relevant(&past, &scores, budget);
            let taken: u64 = past.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(past, _)| past.tokens).sum();
            let mut left_out = past.iter().zip(&keep).filter(|(_, keep)| !**keep);
            assert!(left_out.all(|(past, _)| taken + past.tokens > budget));
        }
    }
}
