//! Two worlds side by side, priced as providers price them: one in which nothing is ever left out,
//! one with the planner. The provider counts differently from us, forgets when it likes, and the
//! conversation ends whenever it likes.

use std::collections::HashMap;

use super::super::{Anew, Ask, Decision, Item, Sent, plan};
use crate::config::{Prefix, PrefixCache, Price};
use sluice_wire::Usd;

/// Blocks that Anthropic looks back from a mark.
const LOOK_BACK: usize = 20;

/// A piece of a conversation: as we count it and as the provider does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) item: Item,
    /// As the client sent it.
    pub(super) whole: u64,
    /// As it goes out where it stays.
    pub(super) sent: u64,
}

/// One request of a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    pub(super) pieces: Vec<Piece>,
    /// Where the current turn begins.
    pub(super) at: usize,
    pub(super) number: u32,
    pub(super) now_ms: u64,
    /// What the provider has forgotten: all that was not used for so long.
    pub(super) forgets_ms: u64,
    /// Fresh selections.
    pub(super) anew: Vec<(Vec<bool>, u64)>,
}

/// A prompt as the provider sees it: digest, tokens and mark of each block.
type Prompt = Vec<(u64, u64, bool)>;

/// The provider's memory of one world.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    seen: HashMap<u64, u64>,
}

/// What a conversation is charged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tariff {
    pub(super) price: Price,
    pub(super) prefix: Prefix,
    pub(super) margin_milli: u64,
    /// Our own marks are allowed.
    pub(super) marks: bool,
}

impl Memory {
    /// It knows this front from other conversations.
    pub(super) fn knows(&mut self, digest: u64, now_ms: u64) {
        self.seen
            .insert(super::super::digest::chain([digest])[1], now_ms);
    }

    /// Dollars of a prompt.
    pub(super) fn charge(&mut self, tariff: &Tariff, turn: &Turn, prompt: &Prompt) -> Usd {
        let forgotten = turn.now_ms.saturating_sub(turn.forgets_ms);
        self.seen.retain(|_, used| *used >= forgotten);
        let fronts = super::super::digest::chain(prompt.iter().map(|block| block.0));
        let mut lengths = vec![0];
        for block in prompt {
            lengths.push(lengths[lengths.len() - 1] + block.1);
        }
        let all = lengths[prompt.len()];
        let prefix = &tariff.prefix;
        let marks: Vec<usize> = (1..=prompt.len()).filter(|end| prompt[end - 1].2).collect();
        let ends: Vec<usize> = match prefix.cache {
            PrefixCache::None => return tariff.price.input.times(all),
            PrefixCache::Automatic => (1..=prompt.len()).collect(),
            PrefixCache::Marked => marks.clone(),
        };
        let readable = |end: &usize| match prefix.cache {
            PrefixCache::Marked => {
                let near = |mark: &usize| *mark >= *end && mark - end <= LOOK_BACK;
                marks.iter().any(near)
            }
            _ => true,
        };
        let held = (1..=prompt.len())
            .filter(|end| self.seen.contains_key(&fronts[*end]) && readable(end))
            .map(|end| discounted(prefix, lengths[end]))
            .max()
            .unwrap_or(0);
        let written = ends.last().map_or(0, |end| lengths[*end]);
        let written = if written < prefix.min_tokens {
            0
        } else {
            written
        };
        // What is read is used, and so are the entries within it.
        for end in (1..=prompt.len()).filter(|end| lengths[*end] <= held) {
            if let Some(used) = self.seen.get_mut(&fronts[end]) {
                *used = turn.now_ms;
            }
        }
        for end in ends {
            if prefix.cache == PrefixCache::Automatic || lengths[end] >= prefix.min_tokens {
                self.seen.insert(fronts[end], turn.now_ms);
            }
        }
        let price = &tariff.price;
        let (write, marked) = match prefix.cache {
            PrefixCache::Marked => (price.cache_write, written.saturating_sub(held)),
            _ => (price.input, 0),
        };
        price.cached_input.times(held)
            + write.times(marked)
            + price.input.times(all - held - marked)
    }
}

fn discounted(prefix: &Prefix, tokens: u64) -> u64 {
    match tokens < prefix.min_tokens {
        true => 0,
        false => tokens - (tokens - prefix.min_tokens) % prefix.step,
    }
}

/// A conversation in both worlds.
#[derive(Clone, Debug)]
pub(super) struct Worlds {
    tariff: Tariff,
    nothing: Memory,
    planned: Memory,
    pub(super) sent: Option<Sent>,
    pub(super) paid_for_nothing: Usd,
    pub(super) paid: Usd,
}

impl Worlds {
    pub(super) fn new(tariff: Tariff) -> Worlds {
        Worlds {
            tariff,
            nothing: Memory::default(),
            planned: Memory::default(),
            sent: None,
            paid_for_nothing: Usd::ZERO,
            paid: Usd::ZERO,
        }
    }

    /// Other conversations use the same front, in both worlds.
    pub(super) fn front_is_known(&mut self, front: &Piece, now_ms: u64) {
        self.nothing.knows(front.item.digest, now_ms);
        self.planned.knows(front.item.digest, now_ms);
        self.planned.knows(front.item.sent_digest, now_ms);
    }

    pub(super) fn turn(&mut self, turn: &Turn) -> Decision {
        let whole: Prompt = turn
            .pieces
            .iter()
            .map(|piece| (piece.item.digest, piece.whole, piece.item.mark.is_some()))
            .collect();
        self.paid_for_nothing += self.nothing.charge(&self.tariff, turn, &whole);
        let items: Vec<Item> = turn.pieces.iter().map(|piece| piece.item).collect();
        let anew: Vec<Anew<'_>> = turn
            .anew
            .iter()
            .map(|(keep, extra)| Anew {
                keep,
                extra: *extra,
            })
            .collect();
        let decision = plan(&Ask {
            items: &items,
            turn: turn.at,
            turns: turn.number,
            price: self.tariff.price,
            prefix: self.tariff.prefix,
            anew: &anew,
            limit: None,
            marks: self.tariff.marks,
            last: self.sent.as_ref(),
            going: None,
            now_ms: turn.now_ms,
            margin_milli: self.tariff.margin_milli,
        });
        let prompt = outgoing(turn, &decision);
        self.paid += self.planned.charge(&self.tariff, turn, &prompt);
        self.sent = Some(decision.sent.clone());
        decision
    }

    /// What the conversation saved so far; negative: what it cost more.
    pub(super) fn saved(&self) -> Usd {
        self.paid_for_nothing - self.paid
    }
}

/// The prompt that goes out, with a note in the place of what was first left out.
fn outgoing(turn: &Turn, decision: &Decision) -> Prompt {
    let extra = decision.sent.extra;
    let mut noted = extra == 0;
    let mut prompt = Prompt::new();
    for (at, piece) in turn.pieces.iter().enumerate() {
        if !decision.keep[at] {
            if !noted {
                noted = true;
                // The note tells of what was left out, and of nothing else.
                let text = format!("{:?}", decision.sent.dropped);
                let digest = text.bytes().fold(7, |sum: u64, byte| {
                    sum.wrapping_mul(31).wrapping_add(u64::from(byte))
                });
                prompt.push((digest, extra, false));
            }
            continue;
        }
        let mark = piece.item.mark.is_some() || decision.marks.contains(&at);
        prompt.push(match at >= decision.edited_from {
            true => (piece.item.sent_digest, piece.sent, mark),
            false => (piece.item.digest, piece.whole, mark),
        });
    }
    prompt
}
