//! The planner on these conversations, charged by the stand-in's own prefix caches: what the replay
//! does through Envoy, without it.

use sluice_core::config::{Prefix, PrefixCache, Price};
use sluice_core::policy::trim::planner::{Anew, Ask, Item, Mark, Sent, Why, plan};
use sluice_wire::{Usage, Usd};

use super::*;
use crate::provider::{Charges, Counting};

/// Conversations per tariff.
const CONVERSATIONS: u64 = 12;

/// Tokens of the past that a selection keeps.
const BUDGET: u64 = 2000;

/// A model's prices, its provider's cache, and what the client does about it.
#[derive(Clone, Copy, Debug)]
struct Tariff {
    name: &'static str,
    price: Price,
    prefix: Prefix,
    client: Marks,
    ours: bool,
}

fn tariffs() -> Vec<Tariff> {
    let price = |input: f64, cached: f64, write: f64| {
        let per_token = |dollars: f64| Usd::from_dollars(dollars / 1e6);
        Price {
            input: per_token(input),
            cached_input: per_token(cached),
            cache_write: per_token(write),
            output: per_token(4.0 * input),
        }
    };
    let automatic = Prefix {
        cache: PrefixCache::Automatic,
        min_tokens: 1024,
        step: 128,
        lifetime_ms: 300_000,
        longest_ms: 3_600_000,
    };
    let marked = Prefix {
        cache: PrefixCache::Marked,
        step: 1,
        longest_ms: 600_000,
        ..automatic
    };
    let openai = |name, price| Tariff {
        name,
        price,
        prefix: automatic,
        client: Marks::None,
        ours: false,
    };
    let claude = |name, client, ours| Tariff {
        name,
        price: price(3.0, 0.3, 3.75),
        prefix: marked,
        client,
        ours,
    };
    vec![
        openai("gpt-4o", price(2.5, 1.25, 2.5)),
        openai("gpt-4.1", price(2.0, 0.5, 2.0)),
        openai("nine tenths off", price(2.0, 0.2, 2.0)),
        claude("claude", Marks::None, false),
        claude("claude, our marks", Marks::None, true),
        claude("claude, the client's marks", Marks::FrontAndLast, false),
    ]
}

/// A request: its items, and the exchange of each (the system prompt: none).
struct Request {
    items: Vec<Item>,
    texts: Vec<String>,
    exchanges: Vec<Option<usize>>,
}

impl Request {
    /// The request of a turn, in pieces that are counted as the stand-in counts them.
    fn of(
        conversation: &Conversation,
        (turn, marks): (usize, Marks),
        charges: &Charges,
    ) -> Request {
        let mut request = Request {
            items: Vec::new(),
            texts: Vec::new(),
            exchanges: Vec::new(),
        };
        request.push(&conversation.system, None, charges);
        for (at, said) in conversation.turns.iter().enumerate().take(turn + 1) {
            request.push(&said.user, Some(at), charges);
            if at < turn {
                if let Some((arguments, result)) = &said.looked_up {
                    request.push(arguments, Some(at), charges);
                    request.push(result, Some(at), charges);
                }
                request.push(&said.answer, Some(at), charges);
            }
        }
        if marks == Marks::FrontAndLast {
            let last = request.items.len() - 1;
            for at in [0, last] {
                request.items[at].mark = Some(Mark::Short);
            }
        }
        request
    }

    fn push(&mut self, text: &str, exchange: Option<usize>, charges: &Charges) {
        let digest = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |digest: u64, byte| {
                (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        self.items.push(Item::plain(charges.count(text), digest));
        self.texts.push(text.to_owned());
        self.exchanges.push(exchange);
    }

    /// The last two exchanges, then the latest about the same topic, then the latest of all.
    fn selection(&self, conversation: &Conversation, budget: u64) -> Vec<bool> {
        let current = self.exchanges.last().copied().flatten().unwrap();
        let topic = conversation.turns[current].topic;
        let tokens = |exchange: usize| -> u64 {
            let items = self.items.iter().zip(&self.exchanges);
            let own = items.filter(|(_, of)| **of == Some(exchange));
            own.map(|(item, _)| item.tokens).sum()
        };
        let mut past: Vec<usize> = (0..current).rev().collect();
        let rank = |exchange: &usize| {
            let recent = current - exchange <= 2;
            (!recent, conversation.turns[*exchange].topic != topic)
        };
        past.sort_by_key(rank);
        let mut left = budget;
        let mut kept = vec![current];
        for exchange in past {
            if let Some(rest) = left.checked_sub(tokens(exchange)) {
                left = rest;
                kept.push(exchange);
            }
        }
        let stays = |of: &Option<usize>| of.is_none_or(|exchange| kept.contains(&exchange));
        self.exchanges.iter().map(stays).collect()
    }
}

/// Dollars of the prompts of a conversation, after each turn.
fn paid(tariff: &Tariff, prompts: impl Iterator<Item = (u64, Vec<(String, bool)>)>) -> Vec<Usd> {
    let charges = Charges::new(Counting::Exact, 300_000);
    let mut sum = Usd::ZERO;
    prompts
        .map(|(now_ms, prompt)| {
            let (all, cached, cache_write) = match tariff.prefix.cache {
                PrefixCache::Marked => charges.marked(&prompt, (1024, now_ms)),
                _ => charges.automatic(&prompt, now_ms),
            };
            sum += tariff.price.of(&Usage {
                prompt: all,
                cached,
                cache_write,
                ..Usage::default()
            });
            sum
        })
        .collect()
}

/// What goes out of a request.
fn outgoing(request: &Request, keep: &[bool], marks: &[usize]) -> Vec<(String, bool)> {
    let all = request.texts.iter().zip(&request.items).enumerate();
    let kept = all.filter(|(at, _)| keep[*at]);
    kept.map(|(at, (text, item))| (text.clone(), item.mark.is_some() || marks.contains(&at)))
        .collect()
}

/// Nothing, a sliding window, the planner.
struct Paid {
    nothing: Vec<Usd>,
    window: Vec<Usd>,
    planner: Vec<Usd>,
    /// Turns in which the planner began anew, and turns that missed something needed.
    cuts: usize,
    missed: usize,
}

fn replay(tariff: &Tariff, seed: u64) -> Paid {
    let conversation = Conversation::support(seed);
    let counts = Charges::new(Counting::Exact, 0);
    let mut now_ms = 0;
    let requests: Vec<(u64, Request)> = (0..TURNS)
        .map(|turn| {
            now_ms += conversation.turns[turn].pause_ms;
            (
                now_ms,
                Request::of(&conversation, (turn, tariff.client), &counts),
            )
        })
        .collect();
    let nothing = requests.iter().map(|(now_ms, request)| {
        let keep = vec![true; request.items.len()];
        (*now_ms, outgoing(request, &keep, &[]))
    });
    let window = requests
        .iter()
        .enumerate()
        .map(|(turn, (now_ms, request))| {
            let from = conversation.window(turn, BUDGET as usize);
            let keep: Vec<bool> = request
                .exchanges
                .iter()
                .map(|of| of.is_none_or(|exchange| exchange >= from))
                .collect();
            (*now_ms, outgoing(request, &keep, &[]))
        });
    let mut last: Option<Sent> = None;
    let (mut cuts, mut missed) = (0, 0);
    let planned: Vec<(u64, Vec<(String, bool)>)> = requests
        .iter()
        .enumerate()
        .map(|(turn, (now_ms, request))| {
            let wide = request.selection(&conversation, BUDGET);
            let narrow = request.selection(&conversation, BUDGET / 2);
            let mut items = request.items.clone();
            // What is needed is what even the narrow selection keeps.
            for (item, keep) in items.iter_mut().zip(&narrow) {
                item.needed = *keep;
            }
            let anew = [&wide, &narrow].map(|keep| Anew { keep, extra: 0 });
            let decision = plan(&Ask {
                items: &items,
                turn: items.len() - 1,
                turns: u32::try_from(turn).unwrap() + 1,
                price: tariff.price,
                prefix: tariff.prefix,
                anew: &anew,
                limit: None,
                marks: tariff.ours,
                last: last.as_ref(),
                going: None,
                now_ms: *now_ms,
                margin_milli: 20,
            });
            cuts += usize::from(decision.why == Why::Anew);
            missed += usize::from(decision.unmet.is_some());
            last = Some(decision.sent.clone());
            (*now_ms, outgoing(request, &decision.keep, &decision.marks))
        })
        .collect();
    Paid {
        nothing: paid(tariff, nothing),
        window: paid(tariff, window),
        planner: paid(tariff, planned.into_iter()),
        cuts,
        missed,
    }
}

#[test]
fn the_planner_is_never_dearer_than_doing_nothing_and_cheaper_than_a_window_in_all() {
    let last = |paid: &[Usd]| paid.last().copied().unwrap();
    for tariff in tariffs() {
        let (mut nothing, mut window, mut planner) = (Usd::ZERO, Usd::ZERO, Usd::ZERO);
        let (mut cuts, mut missed, mut dearer) = (0, 0, 0);
        for seed in 0..CONVERSATIONS {
            let paid = replay(&tariff, seed);
            for (turn, (nothing, planner)) in paid.nothing.iter().zip(&paid.planner).enumerate() {
                assert!(planner <= nothing, "{tariff:?} seed {seed} turn {turn}");
            }
            nothing += last(&paid.nothing);
            window += last(&paid.window);
            planner += last(&paid.planner);
            dearer += usize::from(last(&paid.window) > last(&paid.nothing));
            cuts += paid.cuts;
            missed += paid.missed;
        }
        println!(
            "{:<27} nothing ${:.4} window ${:.4} (dearer in {dearer}) planner ${:.4}; per \
             conversation {:.1} cuts, {:.1} turns without something needed",
            tariff.name,
            nothing.dollars(),
            window.dollars(),
            planner.dollars(),
            cuts as f64 / CONVERSATIONS as f64,
            missed as f64 / CONVERSATIONS as f64,
        );
        assert!(planner.0 < nothing.0 * 9 / 10, "{}", tariff.name);
    }
}

#[test]
fn a_conversation_is_as_long_as_it_says_and_the_same_each_time() {
    for seed in 0..20 {
        let conversation = Conversation::support(seed);
        let charges = Charges::new(Counting::Exact, 0);
        let system = charges.count(&conversation.system);
        assert!((700..3600).contains(&system), "{system}");
        assert_eq!(conversation.turns.len(), TURNS);
        let again = Conversation::support(seed);
        assert_eq!(conversation.openai(29, 0), again.openai(29, 0));
    }
}
