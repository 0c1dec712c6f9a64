//! The decision about a plan, given how full its counters are. The Redis script decides alike;
//! a property test holds the two together.

use sluice_wire::{Charge, Over};

use super::MAX_AMOUNT;

/// What a budget store decided about one plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Reserved. `over` names rules that are over without stopping the request.
    Go {
        /// Rule indices.
        over: Vec<u16>,
    },
    /// Decide again with exact counts. Nothing is reserved.
    Count,
    /// Refused. Nothing is reserved.
    Reject(Overrun),
    /// Go on to the small tier's plan. Nothing is reserved.
    SmallTier {
        /// Rule indices.
        over: Vec<u16>,
    },
}

/// The rule that refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overrun {
    /// Its index.
    pub rule: u16,
    /// Its limit.
    pub limit: u64,
    /// Used and reserved.
    pub used: u64,
    /// Seconds until the window ends.
    pub reset_secs: u64,
}

/// Decides about `charges`, whose counters stand at `levels` (used and reserved).
///
/// In this order: a counter that is full already needs no exact count to refuse; a limit that only
/// the upper bound of an estimate would pass asks for one; then `reject`, then `small_tier`.
pub(super) fn decide(charges: &[Charge], levels: &[u128], (now_ms, last): (u64, bool)) -> Decision {
    let over = |(charge, level): &(&Charge, &u128)| {
        *level + u128::from(charge.at_most.min(MAX_AMOUNT)) > u128::from(charge.limit)
    };
    let full = |(charge, level): &(&Charge, &u128)| {
        over(&(*charge, *level)) && **level >= u128::from(charge.limit)
    };
    let exact = |charge: &Charge| charge.at_most.min(MAX_AMOUNT) == charge.reserve.min(MAX_AMOUNT);
    let pairs = || charges.iter().zip(levels);

    let rejects = |(charge, _): &(&Charge, &u128)| charge.over == Over::Reject;
    if let Some(pair) = pairs().filter(rejects).find(full) {
        return Decision::Reject(Overrun::new(pair.0, *pair.1, now_ms));
    }
    if pairs().any(|pair| over(&pair) && !full(&pair) && !exact(pair.0)) {
        return Decision::Count;
    }
    if let Some(pair) = pairs().filter(rejects).find(over) {
        return Decision::Reject(Overrun::new(pair.0, *pair.1, now_ms));
    }
    let rules: Vec<u16> = pairs()
        .filter(over)
        .map(|(charge, _)| charge.rule)
        .collect();
    let smaller = pairs()
        .filter(over)
        .any(|(charge, _)| charge.over == Over::SmallTier);
    if smaller && !last {
        Decision::SmallTier { over: rules }
    } else {
        Decision::Go { over: rules }
    }
}

impl Overrun {
    pub(super) fn new(charge: &Charge, level: u128, now_ms: u64) -> Self {
        let now_secs = now_ms / 1000;
        Overrun {
            rule: charge.rule,
            limit: charge.limit,
            used: u64::try_from(level).unwrap_or(u64::MAX),
            reset_secs: charge.window.around(now_secs).1 - now_secs,
        }
    }
}
