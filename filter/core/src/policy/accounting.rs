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
    /// Prompt tokens that the cache answered beside those that upstream worked for.
    pub from_cache: u64,
    /// Of the prompt tokens that upstream worked for, those that a cache in mode `dry` knew.
    pub dry_from_cache: u64,
    /// Fetched behind a stale answer: nobody asked for it, it is what the cache costs.
    pub refresh: bool,
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
        return Bill {
            as_asked: Some(Usd::ZERO),
            cost: Some(Usd::ZERO),
            ..Bill::default()
        };
    }
    if facts.refresh {
        let cost = facts.used.map(|price| price.of(usage));
        return Bill {
            as_asked: Some(Usd::ZERO),
            cost,
            saved: Savings {
                cache: Usd::ZERO - cost.unwrap_or(Usd::ZERO),
                ..Savings::default()
            },
            would_save: Savings::default(),
        };
    }
    let prompt = |tokens| Usage {
        prompt: tokens,
        ..Usage::default()
    };
    let whole = |price: Price| price.of(usage) + price.of(&prompt(facts.from_cache));
    let as_asked = facts.asked.map(whole);
    let routed = facts.used.map(whole);
    // A hit costs nothing, whatever the model.
    let cost = match facts.hit {
        true => Some(Usd::ZERO),
        false => facts.used.map(|price| price.of(usage)),
    };
    let mut saved = Savings::default();
    if let (Some(as_asked), Some(routed)) = (as_asked, routed) {
        saved.route = as_asked - routed;
    }
    if facts.hit {
        saved.cache = routed.or(as_asked).unwrap_or(Usd::ZERO);
    } else if let (Some(routed), Some(cost)) = (routed, cost) {
        saved.cache = routed - cost;
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
    } else if let Some(price) = facts.dry_routed.or(facts.used) {
        // Upstream may count less than it did when they were stored.
        would_save.cache = price.of(&prompt(facts.dry_from_cache.min(usage.prompt)));
    }
    Bill {
        as_asked,
        cost,
        saved,
        would_save,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(input: f64, output: f64) -> Option<Price> {
        let per_token = |dollars: f64| Usd::from_dollars(dollars / 1e6);
        let input = per_token(input);
        Some(Price {
            input,
            cached_input: input,
            cache_write: input,
            output: per_token(output),
        })
    }

    const USAGE: Usage = Usage {
        prompt: 1000,
        cached: 0,
        cache_write: 0,
        completion: 100,
        reasoning: 0,
    };

    #[test]
    fn each_lever_works_on_what_the_one_before_it_left() {
        let facts = Facts {
            asked: price(2.5, 10.0),
            used: price(0.15, 0.6),
            hit: true,
            ..Facts::default()
        };
        let bill = bill(&facts, &USAGE);
        assert_eq!(bill.as_asked, Some(Usd::from_dollars(0.0035)));
        assert_eq!(bill.saved.route, Usd::from_dollars(0.0035 - 0.00021));
        assert_eq!(bill.saved.cache, Usd::from_dollars(0.00021));
        assert_eq!(Some(bill.saved.total()), bill.saved_total());
    }

    #[test]
    fn savings_always_sum_to_the_difference_where_both_prices_are_known() {
        for hit in [false, true] {
            for free in [false, true] {
                for used in [price(2.5, 10.0), price(0.15, 0.6), price(5.0, 20.0)] {
                    let facts = Facts {
                        asked: price(2.5, 10.0),
                        used,
                        hit,
                        free,
                        ..Facts::default()
                    };
                    let bill = bill(&facts, &USAGE);
                    assert_eq!(Some(bill.saved.total()), bill.saved_total(), "{facts:?}");
                }
            }
        }
    }

    #[test]
    fn a_refresh_is_what_the_cache_costs() {
        let facts = Facts {
            asked: price(2.5, 10.0),
            used: price(0.15, 0.6),
            refresh: true,
            ..Facts::default()
        };
        let bill = bill(&facts, &USAGE);
        assert_eq!(bill.as_asked, Some(Usd::ZERO));
        assert_eq!(bill.cost, Some(Usd::from_dollars(0.00021)));
        assert_eq!(bill.saved.cache, Usd::from_dollars(-0.00021));
        assert_eq!(Some(bill.saved.total()), bill.saved_total());
    }

    #[test]
    fn an_unknown_price_stays_unknown_and_a_hit_still_costs_nothing() {
        let unknown = bill(&Facts::default(), &USAGE);
        assert_eq!(
            (unknown.as_asked, unknown.cost, unknown.saved_total()),
            (None, None, None)
        );
        let hit = bill(
            &Facts {
                hit: true,
                used: price(1.0, 1.0),
                ..Facts::default()
            },
            &USAGE,
        );
        assert_eq!((hit.as_asked, hit.cost), (None, Some(Usd::ZERO)));
        assert_eq!(hit.saved.cache, Usd::from_dollars(0.0011));
    }

    #[test]
    fn what_the_cache_answers_of_a_request_is_its_saving_and_no_cost() {
        let facts = Facts {
            asked: price(2.5, 10.0),
            used: price(0.15, 0.6),
            from_cache: 3000,
            ..Facts::default()
        };
        let bill = bill(&facts, &USAGE);
        assert_eq!(bill.as_asked, Some(Usd::from_dollars(0.011)));
        assert_eq!(bill.cost, Some(Usd::from_dollars(0.00021)));
        assert_eq!(bill.saved.cache, Usd::from_dollars(0.00045));
        assert_eq!(Some(bill.saved.total()), bill.saved_total());
        let dry = Facts {
            from_cache: 0,
            dry_from_cache: 400,
            ..facts
        };
        let bill = super::bill(&dry, &USAGE);
        assert_eq!(bill.cost, Some(Usd::from_dollars(0.00021)));
        assert_eq!(bill.would_save.cache, Usd::from_dollars(0.00006));
        let more = Facts {
            dry_from_cache: 4000,
            ..dry
        };
        let bill = super::bill(&more, &USAGE);
        assert_eq!(
            bill.would_save.cache,
            Usd::from_dollars(0.00015),
            "no more than was paid for"
        );
    }

    #[test]
    fn dry_levers_would_save_one_after_the_other_too() {
        let facts = Facts {
            asked: price(2.5, 10.0),
            used: price(2.5, 10.0),
            dry_routed: price(0.15, 0.6),
            dry_hit: true,
            ..Facts::default()
        };
        let bill = bill(&facts, &USAGE);
        assert_eq!(bill.saved.total(), Usd::ZERO);
        assert_eq!(
            bill.would_save.total(),
            Usd::from_dollars(0.0035),
            "together no more than all"
        );
        assert_eq!(bill.would_save.cache, Usd::from_dollars(0.00021));
    }
}
