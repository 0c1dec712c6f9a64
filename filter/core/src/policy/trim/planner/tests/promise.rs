//! The promise, held against conversations at random and as bad as they can be.

use super::simulation::{Piece, Tariff, Turn, Worlds};
use super::*;

/// A conversation that goes on as the dice say.
struct Client {
    dice: fastrand::Rng,
    pieces: Vec<Piece>,
    /// First item of every turn.
    turns: Vec<usize>,
    now_ms: u64,
    pattern: Pattern,
    margin_milli: u64,
    prefix: Prefix,
    /// Sizes of user turns and answers go up to here.
    size: u64,
    /// Tokens of history that a fresh selection keeps.
    budget: u64,
}

/// Where the client sets marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    Nowhere,
    Front,
    Last,
    FrontAndLast,
    /// Front and last, from the third turn on.
    Late,
}

const PATTERNS: [Pattern; 5] = [
    Pattern::Nowhere,
    Pattern::Front,
    Pattern::Last,
    Pattern::FrontAndLast,
    Pattern::Late,
];

impl Client {
    fn new(seed: u64, pattern: Pattern, tariff: &Tariff) -> Client {
        let mut dice = fastrand::Rng::with_seed(seed);
        let size = *dice.choice(&[3, 40, 200, 600, 3000]).unwrap();
        let budget = *dice.choice(&[0, 100, 500, 2000]).unwrap();
        let mut client = Client {
            dice,
            pieces: Vec::new(),
            turns: Vec::new(),
            now_ms: 1_000_000_000,
            pattern,
            margin_milli: tariff.margin_milli,
            prefix: tariff.prefix,
            size,
            budget,
        };
        let front = *client
            .dice
            .choice(&[5, 300, 890, 1000, 1023, 1024, 1100, 1500, 3000])
            .unwrap();
        client.push(front);
        client
    }

    /// A piece of so many tokens by our count; some lose a part before they go out.
    fn push(&mut self, tokens: u64) {
        let digest = self.dice.u64(..);
        let cut = match self.dice.u8(..8) {
            0 => self.dice.u64(..=tokens),
            1 => self.dice.u64(..=tokens.min(20)),
            _ => 0,
        };
        let mut count = |tokens: u64| {
            let error = tokens * self.margin_milli / 1000;
            self.dice.u64(tokens - error..=tokens + error)
        };
        let (kept, gone) = (count(tokens - cut), count(cut));
        let item = Item {
            tokens,
            digest,
            sent_tokens: tokens - cut,
            sent_digest: if cut == 0 { digest } else { digest ^ 1 },
            ..Item::default()
        };
        self.pieces.push(Piece {
            item,
            whole: kept + gone,
            sent: kept,
        });
    }

    fn tokens(&mut self) -> u64 {
        1 + self.dice.u64(..self.size)
    }

    /// The next request.
    fn turn(&mut self) -> Turn {
        if !self.turns.is_empty() {
            let answers = if self.dice.u8(..4) == 0 { 3 } else { 1 };
            for _ in 0..answers {
                let tokens = 2 * self.tokens();
                self.push(tokens);
            }
        }
        self.turns.push(self.pieces.len());
        let tokens = self.tokens();
        self.push(tokens);
        let pause = *self
            .dice
            .choice(&[
                2_000, 60_000, 299_999, 300_001, 590_000, 610_000, 1_800_000, 3_599_000, 3_601_000,
            ])
            .unwrap();
        self.now_ms += pause;
        self.mark();
        let needed = self.dice.bool();
        let number = u32::try_from(self.turns.len()).unwrap();
        let anew = [self.selection(self.budget), self.selection(self.budget / 2)];
        for (at, piece) in self.pieces.iter_mut().enumerate() {
            piece.item.needed = needed && anew[0].0[at];
        }
        Turn {
            pieces: self.pieces.clone(),
            at: self.turns[self.turns.len() - 1],
            number,
            now_ms: self.now_ms,
            forgets_ms: self.forgets_ms(),
            anew: anew.into(),
        }
    }

    /// After how long the provider forgets, today.
    fn forgets_ms(&mut self) -> u64 {
        let prefix = &self.prefix;
        let (least, most) = (prefix.lifetime_ms, prefix.longest_ms);
        *self
            .dice
            .choice(&[least, (least + most) / 2, most])
            .unwrap()
    }

    fn mark(&mut self) {
        let (front, last) = match self.pattern {
            Pattern::Nowhere => (false, false),
            Pattern::Front => (true, false),
            Pattern::Last => (false, true),
            Pattern::FrontAndLast => (true, true),
            Pattern::Late => (self.turns.len() > 2, self.turns.len() > 2),
        };
        let end = self.pieces.len() - 1;
        for (at, piece) in self.pieces.iter_mut().enumerate() {
            let marked = (front && at == 0) || (last && at == end);
            piece.item.mark = marked.then_some(Mark::Short);
        }
    }

    /// The front, the last turn, and of the turns before it some.
    fn selection(&mut self, budget: u64) -> (Vec<bool>, u64) {
        let mut keep = vec![false; self.pieces.len()];
        keep[0] = true;
        let ends = self
            .turns
            .iter()
            .skip(1)
            .copied()
            .chain([self.pieces.len()]);
        let turns: Vec<(usize, usize)> = self.turns.iter().copied().zip(ends).collect();
        let recent = self.dice.bool();
        let mut left = budget;
        for (age, (from, to)) in turns.into_iter().rev().enumerate() {
            let tokens: u64 = self.pieces[from..to]
                .iter()
                .map(|piece| piece.item.tokens)
                .sum();
            let wanted = recent || self.dice.bool();
            if age == 0 || (wanted && tokens <= left) {
                keep[from..to].fill(true);
                left = left.saturating_sub(if age == 0 { 0 } else { tokens });
            }
        }
        let dropped = keep.contains(&false);
        let extra = if dropped && self.dice.u8(..4) == 0 {
            12
        } else {
            0
        };
        (keep, extra)
    }
}

/// Every kind of discount; Anthropic with and without marks of the client's and of ours.
fn tariffs() -> Vec<(Tariff, Pattern)> {
    let mut all = Vec::new();
    for margin_milli in [0, 20, 100] {
        for cached in [1000, 500, 250, 100, 0] {
            let tariff = Tariff {
                price: price(1000, cached, 1000),
                prefix: AUTOMATIC,
                margin_milli,
                marks: false,
            };
            all.push((tariff, Pattern::Nowhere));
        }
        for pattern in PATTERNS {
            for (marks, min_tokens) in [(false, 1024), (true, 1024), (true, 4096)] {
                let tariff = Tariff {
                    price: price(1000, 100, 1250),
                    prefix: Prefix {
                        min_tokens,
                        ..MARKED
                    },
                    margin_milli,
                    marks,
                };
                all.push((tariff, pattern));
            }
        }
    }
    all
}

#[test]
fn at_the_end_of_no_turn_has_a_conversation_cost_more_than_if_nothing_had_been_left_out() {
    let mut saved = Vec::new();
    for (tariff, pattern) in tariffs() {
        let (mut nothing, mut planned) = (Usd::ZERO, Usd::ZERO);
        for seed in 0..120 {
            let mut client = Client::new(seed, pattern, &tariff);
            let mut worlds = Worlds::new(tariff);
            if client.dice.bool() {
                worlds.front_is_known(&client.pieces[0], client.now_ms);
            }
            for number in 0..24 {
                let turn = client.turn();
                let decision = worlds.turn(&turn);
                let at = format!(
                    "saved {} {tariff:?} {pattern:?} seed {seed} turn {number}: {decision:?} {turn:?}",
                    worlds.saved().0
                );
                assert!(worlds.saved() >= Usd::ZERO, "{} {at}", worlds.saved());
                let balance = decision.sent.balance;
                assert!(balance >= Usd::ZERO && balance <= worlds.saved(), "{at}");
                assert_ne!(decision.unmet, Some(Unmet::Price), "{at}");
            }
            nothing += worlds.paid_for_nothing;
            planned += worlds.paid;
        }
        saved.push((tariff, pattern, 1.0 - planned.dollars() / nothing.dollars()));
    }
    for (tariff, pattern, saved) in saved {
        let Price { cached_input, .. } = tariff.price;
        println!(
            "{:?} cached {} min {} marks {} {pattern:?} margin {}: {:.1}%",
            tariff.prefix.cache,
            cached_input.0,
            tariff.prefix.min_tokens,
            tariff.marks,
            tariff.margin_milli,
            saved * 100.0
        );
        assert!(saved > 0.05 || cached_input.0 == 0, "{saved}");
    }
}
