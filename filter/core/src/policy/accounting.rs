//! Dollars of a finished request: as asked, as paid, and what each lever took off, in order.

use sluice_wire::{Savings, Usage, Usd};

use crate::config::Price;

/// What accounting needs to know of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Prices of the requested model.
    pub asked: Option<Price>,
    /// Prices of the model that was used.
    pub used: Option<Price>,
    /// Prices of the model that dry routing would have used.
    pub dry_routed: Option<Price>,
    /// Answered from cache.
    pub hit: bool,
    /// A cache in mode `dry` knew the answer.
    pub dry_hit: bool,
    /// Nothing is owed: refused, or upstream answered with an error.
    pub free: bool,
}

/// The dollars of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bill {
    /// As asked: requested model, untouched prompt, no cache. None: price unknown.
    pub as_asked: Option<Usd>,
    /// As paid. None: price unknown.
    pub cost: Option<Usd>,
    /// Taken off, by lever. Sums to `as_asked - cost` where both are known.
    pub saved: Savings,
    /// What levers in mode `dry` would have taken off on top.
    pub would_save: Savings,
}

impl Bill {
    /// `as_asked - cost`, where both are known.
    #[must_use]
    pub fn saved_total(&self) -> Option<Usd> {
        Some(self.as_asked? - self.cost?)
    }
}

/// Each lever works on what the one before it left (route, trim, cache, batch, offload).
///
/// The requested model is taken to need as many tokens as the one that answered: what it would
/// have said is unknowable, and a shorter answer by our output cap is not booked as a saving.
#[must_use]
pub fn bill(facts: &Facts, usage: &Usage) -> Bill {
    if facts.free {
        return Bill { as_asked: Some(Usd::ZERO), cost: Some(Usd::ZERO), ..Bill::default() };
    }
    let as_asked = facts.asked.map(|price| price.of(usage));
    let routed = facts.used.map(|price| price.of(usage));
    // A hit costs nothing, whatever the model.
    let cost = if facts.hit { Some(Usd::ZERO) } else { routed };
    let mut saved = Savings::default();
    if let (Some(as_asked), Some(routed)) = (as_asked, routed) {
        saved.route = as_asked - routed;
    }
    if facts.hit {
        saved.cache = routed.or(as_asked).unwrap_or(Usd::ZERO);
    }
    let mut would_save = Savings::default();
    let mut left = cost;
    if let (Some(now), Some(dry)) = (left, facts.dry_routed) {
        // After a hit there is nothing left to route.
        if !facts.hit {
            would_save.route = now - dry.of(usage);
            left = Some(dry.of(usage));
        }
    }
    if facts.dry_hit {
        would_save.cache = left.unwrap_or(Usd::ZERO);
    }
    Bill { as_asked, cost, saved, would_save }
}
