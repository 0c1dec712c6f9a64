//! Dollars of a finished request: as asked, as paid, and what each lever took off, in order.

use sluice_wire::{Savings, Trimmed, Usage, Usd};

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
    /// The prompt as upstream would have worked for it had trimming never left anything out of its
    /// conversation; None: trimming had no hand in it.
    pub untrimmed: Option<Prompt>,
    /// The prompt as trimming in mode `dry` would have left it; None: as it is.
    pub dry_trimmed: Option<Prompt>,
    /// Fetched behind a stale answer: nobody asked for it, it is what the cache costs.
    pub refresh: bool,
    /// Nothing is owed: refused, or upstream answered with an error.
    pub free: bool,
}

/// Prompt tokens, and what the provider's prefix cache does to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// All of them.
    pub tokens: u64,
    /// Read from the cache; part of `tokens`.
    pub cached: u64,
    /// Written to it; part of `tokens`.
    pub cache_write: u64,
}

impl Prompt {
    /// `usage` with this prompt instead of its own.
    fn of(self, usage: &Usage) -> Usage {
        Usage {
            prompt: self.tokens,
            cached: self.cached,
            cache_write: self.cache_write,
            ..*usage
        }
    }
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
    /// What trimming did, of which `saved.trim` is the net. None: it had no hand in it.
    pub trim: Option<Trimmed>,
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
///
/// What trimming saves is net of the discounts that the provider's prefix cache would have given:
/// in the turn in which a conversation is cut it may be negative.
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
            ..Bill::default()
        };
    }
    let prompt = |tokens| Usage {
        prompt: tokens,
        ..Usage::default()
    };
    let whole = |price: Price, usage: &Usage| price.of(usage) + price.of(&prompt(facts.from_cache));
    let untrimmed = facts.untrimmed.map_or(*usage, |prompt| prompt.of(usage));
    let as_asked = facts.asked.map(|price| whole(price, &untrimmed));
    let routed = facts.used.map(|price| whole(price, &untrimmed));
    // A hit costs nothing, whatever the model.
    let (cost, priced) = match facts.hit {
        true => (Some(Usd::ZERO), facts.used.or(facts.asked)),
        false => (facts.used.map(|price| price.of(usage)), facts.used),
    };
    let mut saved = Savings::default();
    if let (Some(as_asked), Some(routed)) = (as_asked, routed) {
        saved.route = as_asked - routed;
    }
    if let (Some(price), Some(cost)) = (priced, cost) {
        let trimmed = whole(price, usage);
        saved.trim = whole(price, &untrimmed) - trimmed;
        saved.cache = trimmed - cost;
    }
    let trim = facts.untrimmed.map(|untrimmed| {
        let tokens = untrimmed.tokens.saturating_sub(usage.prompt);
        let gross = priced.map_or(Usd::ZERO, |price| price.input.times(tokens));
        Trimmed {
            tokens,
            gross,
            // By what was booked, so that the two never say different things.
            lost: gross - saved.trim,
        }
    });
    let mut would_save = Savings::default();
    let mut left = cost;
    // After a hit there is nothing left to route or to trim.
    if let (false, Some(now)) = (facts.hit, cost) {
        let routed = facts.dry_routed.map_or(now, |price| price.of(usage));
        would_save.route = now - routed;
        let trimmed = facts.dry_trimmed.zip(facts.dry_routed.or(facts.used));
        let trimmed = trimmed.map_or(routed, |(prompt, price)| price.of(&prompt.of(usage)));
        would_save.trim = routed - trimmed;
        left = Some(trimmed);
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
        trim,
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
                    for untrimmed in [None, Some(0), Some(1000), Some(777_777)] {
                        let facts = Facts {
                            asked: discounted(),
                            used,
                            hit,
                            free,
                            from_cache: 13,
                            untrimmed: untrimmed.map(|tokens| Prompt {
                                tokens,
                                cached: tokens / 3,
                                cache_write: tokens / 7,
                            }),
                            ..Facts::default()
                        };
                        let bill = bill(&facts, &USAGE);
                        assert_eq!(Some(bill.saved.total()), bill.saved_total(), "{facts:?}");
                        let net = bill.trim.map_or(Usd::ZERO, |trim| trim.net());
                        assert_eq!(net, bill.saved.trim, "{facts:?}");
                    }
                }
            }
        }
    }

    /// GPT-4o's, with its discount on a front that the provider has seen.
    fn discounted() -> Option<Price> {
        price(2.5, 10.0).map(|price| Price {
            cached_input: Usd(price.input.0 / 2),
            ..price
        })
    }

    #[test]
    fn trimming_saves_what_the_whole_prompt_would_have_cost_net_of_lost_discounts() {
        let facts = Facts {
            asked: discounted(),
            used: discounted(),
            untrimmed: Some(Prompt {
                tokens: 4000,
                cached: 3840,
                cache_write: 0,
            }),
            ..Facts::default()
        };
        let bill = bill(&facts, &USAGE);
        // 3840 at half price and 160 at full price, against 1000 at full price; the answer is paid
        // for in both.
        assert_eq!(bill.as_asked, Some(Usd::from_dollars(0.0052 + 0.001)));
        assert_eq!(bill.saved.trim, Usd::from_dollars(0.0052 - 0.0025));
        assert_eq!(bill.saved.route, Usd::ZERO);
        assert_eq!(Some(bill.saved.total()), bill.saved_total());
        let of = |tokens, gross, lost| Trimmed {
            tokens,
            gross: Usd::from_dollars(gross),
            lost: Usd::from_dollars(lost),
        };
        // The discount on 3840 tokens, and none on what was sent.
        assert_eq!(bill.trim, Some(of(3000, 0.0075, 0.0048)));
        let cut = Facts {
            untrimmed: Some(Prompt {
                tokens: 1500,
                cached: 1408,
                cache_write: 0,
            }),
            ..facts
        };
        let bill = super::bill(&cut, &USAGE);
        assert_eq!(
            bill.saved.trim,
            Usd::from_dollars(0.00199 - 0.0025),
            "a cut that voids a discount costs more than it leaves out"
        );
        assert_eq!(bill.trim, Some(of(500, 0.00125, 0.00176)));
        assert_eq!(Some(bill.saved.total()), bill.saved_total());
        let none = Facts {
            untrimmed: None,
            ..facts
        };
        assert_eq!(super::bill(&none, &USAGE).trim, None);
        let free = Facts {
            free: true,
            ..facts
        };
        assert_eq!(super::bill(&free, &USAGE).trim, None, "nothing was saved");
    }

    #[test]
    fn a_surcharge_that_trimming_spares_is_a_discount_that_it_wins() {
        // Claude's, a quarter more for what is written to the cache.
        let marked = price(4.0, 20.0).map(|price| Price {
            cache_write: Usd(price.input.0 / 4 * 5),
            ..price
        });
        let facts = Facts {
            asked: marked,
            used: marked,
            untrimmed: Some(Prompt {
                tokens: 3000,
                cached: 0,
                cache_write: 2500,
            }),
            ..Facts::default()
        };
        let usage = Usage {
            cache_write: 500,
            ..USAGE
        };
        let trim = bill(&facts, &usage).trim.unwrap();
        assert_eq!((trim.tokens, trim.gross), (2000, Usd::from_dollars(0.008)));
        // A dollar per million on 2500 tokens, and on 500.
        assert_eq!(trim.lost, Usd::from_dollars(-0.002));
        let unpriced = Facts {
            asked: None,
            used: None,
            ..facts
        };
        let trim = bill(&unpriced, &usage).trim.unwrap();
        assert_eq!(
            (trim.tokens, trim.gross, trim.lost),
            (2000, Usd::ZERO, Usd::ZERO)
        );
    }

    #[test]
    fn routing_works_on_the_whole_prompt_and_the_cache_on_the_trimmed_one() {
        let facts = Facts {
            asked: price(2.5, 10.0),
            used: price(0.15, 0.6),
            hit: true,
            untrimmed: Some(Prompt {
                tokens: 3000,
                ..Prompt::default()
            }),
            ..Facts::default()
        };
        let bill = bill(&facts, &USAGE);
        assert_eq!(bill.as_asked, Some(Usd::from_dollars(0.0085)));
        assert_eq!(bill.saved.route, Usd::from_dollars(0.0085 - 0.00051));
        assert_eq!(bill.saved.trim, Usd::from_dollars(0.0003));
        assert_eq!(bill.saved.cache, Usd::from_dollars(0.00021));
        assert_eq!(Some(bill.saved.total()), bill.saved_total());
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
        let trimmed = Facts {
            dry_trimmed: Some(Prompt {
                tokens: 400,
                ..Prompt::default()
            }),
            ..facts
        };
        let bill = super::bill(&trimmed, &USAGE);
        assert_eq!(bill.would_save.route, Usd::from_dollars(0.0035 - 0.00021));
        assert_eq!(bill.would_save.trim, Usd::from_dollars(0.00009));
        assert_eq!(bill.would_save.cache, Usd::from_dollars(0.00012));
    }
}
