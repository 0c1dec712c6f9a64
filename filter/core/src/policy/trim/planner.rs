//! Decides in dollars whether and where a conversation is cut: after the selection, before the edit.
//!
//! A provider sells the front of a prompt that it has seen before at a discount: OpenAI by itself,
//! Anthropic up to where `cache_control` marked it. Leaving out an early message voids the discount
//! from there on, so a shorter prompt can be the dearer one. [`plan`] prices the ways to send a
//! request and takes the one that is cheapest over this turn and the next, among those that keep
//! this promise:
//!
//! **At the end of every turn the conversation has cost no more than if nothing had ever been left
//! out of it.**
//!
//! # Why it holds
//!
//! Prices per token: `i` plain, `c` read from the provider's cache, `w` written to it (`w = i` where
//! the provider caches by itself). Discounts begin at `m` tokens and go in steps of `s`. `N` is the
//! request as the client made it, `X` what is sent; `D = N - X` tokens are left out.
//!
//! *One turn.* What the provider holds of `N` in the world where nothing was ever left out is at
//! most what the client sent last (`f` tokens); what it holds of `X` is at least the front that `X`
//! shares with what was sent last. Either the provider still holds both or neither, because both
//! were sent at the same time; up to [`Prefix::longest_ms`] nobody knows which, so the worse of the
//! two counts. Where it holds both, with `D₁` of the left-out tokens within `f`, `D₂` behind `f`
//! within what is written, `D₃` behind that, and `q` tokens of `X` within `f` that have to be read
//! anew because `X` left its old front,
//!
//! ```text
//! nothing - X  >=  c·D₁ + w·D₂ + i·D₃ - (w - c)·(q + s - 1)
//! ```
//!
//! since two lengths that differ by `d` differ by at most `d + s - 1` once both are rounded down to
//! a step; where `X`'s front may be shorter than `m` and so earns nothing, the front's own length
//! stands in for `s - 1`. Where it holds neither, `f` is what stands before the messages, which other
//! conversations may have sent, edited alike: it is held in both worlds or in none. The lower
//! bound on what a turn saves is the lesser of the two, with every `D` taken smaller and every `q`
//! greater by the counts' margin of error. The sum of these bounds is the conversation's
//! [`Sent::balance`]: never more than what was really saved.
//!
//! *All turns.* A way to send is *payable* when balance and bound together are not negative, and
//! what it begins can go on for ever: sending the same selection and all that is new has, in every
//! later turn, a bound that is not negative. Then `q = 0` and all of `D` is within `f`, so that this
//! is `c·D >= (w - c)·(s - 1)`, with `m` for `s` while the selection is shorter than `m`; `D` stays
//! as it is, and the selection only grows. While a discount is out of reach even for the whole, no
//! such condition is needed: in the turn in which it comes within reach `f` is still below `m`, and
//! sending the whole costs what nothing would. So, by induction: at first nothing has been left out,
//! and sending the whole costs the same as doing nothing; later the last selection can be extended.
//! In each turn something is payable, and something payable is sent.
//!
//! What is taken for granted: a conversation grows at its end, its client's last `cache_control`
//! mark does not move backwards, nobody else sends the same messages to the same account, completion
//! tokens are the same either way, and the state is not lost between turns. Where a client goes back
//! and edits, the whole new request is assumed to be cached in the other world; the balance pays
//! for it in the books, and where it cannot, the cheapest way goes out and [`Decision::unmet`] says
//! so.

mod digest;
mod world;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use sluice_wire::{Usage, Usd};

use self::world::{Way, World};
use crate::config::{Prefix, Price};
use crate::policy::accounting::Prompt;

/// Ranges of left-out items that a state can hold; a selection with more is not sent. A tenth of a
/// conversation of 300 exchanges, chosen by what it says, is in some thirty places.
pub const MAX_RANGES: usize = 96;

/// Turns that a client can go back and still be recognised.
const MAX_TURNS: usize = 4;

/// Marks that Anthropic takes in one request.
const MAX_MARKS: usize = 4;

/// A piece of the request in the order in which the provider reads it: what stands before the
/// messages (tools, system prompt) as one item, then every message or input item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Prompt tokens as the client sent it, what surrounds it included.
    pub tokens: u64,
    /// Digest of it as the client sent it.
    pub digest: u64,
    /// Prompt tokens as it goes out where it stays; no more than `tokens`.
    pub sent_tokens: u64,
    /// Digest of it as it goes out where it stays; the same text must give the same in every turn.
    pub sent_digest: u64,
    /// It may not be missing from what is sent.
    pub needed: bool,
    /// The client marked a block of it with `cache_control`.
    pub mark: Option<Mark>,
}

impl Item {
    /// One that goes out as it is.
    #[must_use]
    pub fn plain(tokens: u64, digest: u64) -> Item {
        Item {
            tokens,
            digest,
            sent_tokens: tokens,
            sent_digest: digest,
            ..Item::default()
        }
    }
}

/// A client's `cache_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// `{"type": "ephemeral"}`: five minutes.
    Short,
    /// With `"ttl": "1h"`.
    Hour,
}

/// A fresh selection.
#[derive(Clone, Copy, Debug)]
pub struct Anew<'a> {
    /// By item: whether it stays.
    pub keep: &'a [bool],
    /// Tokens that come in for what is left out: a note, a digest.
    pub extra: u64,
}

/// Tokens that come in where the last selection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Going {
    /// With what was chosen last and all that is new.
    pub extended: u64,
    /// These are the words that were sent last: the provider may hold them.
    pub held: bool,
    /// With what is needed again too.
    pub mended: u64,
}

/// What is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The request.
    pub items: &'a [Item],
    /// Where the current turn begins in `items`.
    pub turn: usize,
    /// Turns so far, the current one included.
    pub turns: u32,
    /// The model's prices.
    pub price: Price,
    /// The provider's prefix cache for that model.
    pub prefix: Prefix,
    /// Fresh selections to choose from; none that leaves out what is `needed`.
    pub anew: &'a [Anew<'a>],
    /// Most prompt tokens; the promise does not hold for a request that would be refused as it is.
    pub limit: Option<u64>,
    /// Whether marks of our own may be set where the client sets none.
    pub marks: bool,
    /// What was sent last in this conversation to this model with this API key.
    pub last: Option<&'a Sent>,
    /// What comes in where the last selection goes on, where that is not what [`Sent`] says.
    pub going: Option<Going>,
    /// Milliseconds since the epoch.
    pub now_ms: u64,
    /// Thousandths by which token counts may be wrong.
    pub margin_milli: u64,
}

/// What was sent last in a conversation: at most 3 KiB of JSON, and nothing of the texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The ends of the request: all of it, then where its turn began, then where earlier turns did.
    pub ends: Vec<End>,
    /// Ranges of items that were left out.
    pub dropped: Vec<(u32, u32)>,
    /// From this item on, what was kept went out edited.
    pub edited_from: u32,
    /// Tokens that came in for what was left out.
    pub extra: u64,
    /// Items that end in a mark of the client's, or of ours where `own`.
    pub marks: Vec<u32>,
    /// The marks are ours.
    pub own: bool,
    /// What the conversation has saved so far at least.
    pub balance: Usd,
    /// Pauses between turns.
    pub pauses: u32,
    /// Of these, pauses within [`Prefix::lifetime_ms`].
    pub short_pauses: u32,
}

/// A place up to which a later request is compared with this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u64, u64)", into = "(u32, u64, u64)")]
pub struct End {
    /// Items before it.
    pub items: u32,
    /// Digest of them as the client sent them.
    pub client: u64,
    /// Digest of them as they went out.
    pub sent: u64,
}

impl From<(u32, u64, u64)> for End {
    fn from((items, client, sent): (u32, u64, u64)) -> End {
        End {
            items,
            client,
            sent,
        }
    }
}

impl From<End> for (u32, u64, u64) {
    fn from(end: End) -> (u32, u64, u64) {
        (end.items, end.client, end.sent)
    }
}

/// Why a request goes out as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// As the client sent it: leaving something out would not pay.
    Whole,
    /// The last selection and all that is new.
    Extended,
    /// The last selection, what is needed again, and all that is new.
    Mended,
    /// A fresh selection.
    Anew,
}

/// What could not be had for what the conversation has saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// Something needed is missing: to bring it back would be dearer than doing nothing.
    Needed,
    /// It may be dearer than doing nothing: the client changed what it had sent.
    Price,
}

/// What one way to send the request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub why: Why,
    /// Prompt tokens.
    pub tokens: u64,
    /// Expected dollars of the prompt.
    pub cost: Usd,
    /// What it saves against doing nothing at least; negative: what it may cost more.
    pub saves: Usd,
    /// It keeps the promise.
    pub payable: bool,
    /// Marks of our own are in it.
    pub marked: bool,
}

/// How a request goes out.
#[derive(Clone, Debug)]
pub struct Decision {
    /// By item: whether it stays.
    pub keep: Vec<bool>,
    /// Which selection of [`Ask::anew`] it is.
    pub anew: Option<usize>,
    /// From this item on, what is kept goes out edited.
    pub edited_from: usize,
    /// Why.
    pub why: Why,
    /// What was not to be had.
    pub unmet: Option<Unmet>,
    /// Expected dollars of the prompt.
    pub cost: Usd,
    /// Expected dollars of the prompt had nothing ever been left out.
    pub cost_of_nothing: Usd,
    /// Prompt tokens by our count.
    pub tokens: u64,
    /// Items at whose last block a mark is to be set.
    pub marks: Vec<usize>,
    /// What to remember.
    pub sent: Sent,
    /// The request had nothing ever been left out.
    pub nothing: Nothing,
    /// Every way that was priced.
    pub candidates: Vec<Candidate>,
}

/// A request in the world where nothing was ever left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nothing {
    /// Prompt tokens.
    pub tokens: u64,
    /// Of these, those that the provider reads from its cache if it still holds them.
    pub held: u64,
    /// Of these, those within the client's marks.
    pub marked: u64,
    /// Of what is sent, the tokens that the provider reads from its cache if it still holds them.
    pub sent_held: u64,
    /// How probable it is that the provider still holds them, in thousandths.
    pub odds_milli: u64,
}

impl Nothing {
    /// The prompt as the ledger has it, where the one that went out, of `sent` tokens by our count,
    /// came to `usage`: what was read from the cache of it tells whether the provider still held it.
    #[must_use]
    pub fn prompt(&self, sent: u64, usage: &Usage) -> Prompt {
        let held = match self.sent_held {
            0 => self.odds_milli >= 500,
            // Half of it, because counts differ from the provider's.
            sent_held => usage.cached >= sent_held / 2,
        };
        let tokens = usage
            .prompt
            .saturating_add(self.tokens.saturating_sub(sent));
        let cached = if held { self.held } else { 0 }.min(tokens);
        Prompt {
            tokens,
            cached,
            cache_write: self.marked.min(tokens).saturating_sub(cached),
        }
    }
}

/// Decides how a request goes out.
///
/// Linear in items and selections. The promise and its proof are the module's.
#[must_use]
pub fn plan(ask: &Ask<'_>) -> Decision {
    let world = World::of(ask);
    let ways = world.ways();
    let candidates: Vec<Candidate> = ways.iter().map(|way| world.price(way)).collect();
    // Of equals the first, which leaves out least.
    let best = (0..ways.len()).min_by_key(|&at| rank(&world, &ways[at], &candidates[at]));
    let best = best.unwrap_or(0);
    let (way, candidate) = (&ways[best], candidates[best]);
    let unmet = match () {
        () if !candidate.payable => Some(Unmet::Price),
        () if !way.fits(ask.items) => Some(Unmet::Needed),
        () => None,
    };
    Decision {
        keep: way.keep.clone(),
        anew: way.anew,
        edited_from: way.edited_from,
        why: way.why,
        unmet,
        cost: candidate.cost,
        cost_of_nothing: world.cost_of_nothing(),
        tokens: candidate.tokens,
        marks: way.marks.clone(),
        sent: world.sent(way, candidate.saves),
        nothing: world.nothing(way),
        candidates,
    }
}

/// What makes one way worse than another, the gravest first.
fn rank(world: &World<'_>, way: &Way, candidate: &Candidate) -> (bool, bool, bool, Usd, u64) {
    let over = world
        .ask
        .limit
        .is_some_and(|limit| candidate.tokens > limit);
    (
        over,
        !candidate.payable,
        !way.fits(world.ask.items),
        world.up_to_the_next(way, candidate.cost),
        candidate.tokens,
    )
}
