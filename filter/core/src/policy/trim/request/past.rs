//! The past of a request with a list of messages: what of it is chosen, and what of that pays.

use std::ops::Range;
use std::rc::Rc;

use sluice_wire::{Order, Similarity, Usd};

use super::count::Counted;
use super::meaning::similarity;
use super::writing::{Memo, Note, Texts};
use super::{Job, Memories, parsed};
use crate::config::{History, Keep, Prefix, PrefixCache, Price};
use crate::formats::{self, Content, Digest, Part, Request, Role};
use crate::json::Object;
use crate::policy::trim::history::{self, Past};
use crate::policy::trim::planner::{self, Anew, Decision, Item, Mark, Sent, Why};
use crate::policy::trim::rank::{self, Passage};
use crate::policy::trim::splices::{Splices, span};
use crate::policy::trim::summary;
use crate::policy::trim::template::Slot;
use crate::policy::trim::terms::{self, Terms};
use crate::policy::trim::turns::{Exchange, Stay, Turns};
use crate::policy::trim::{edits, marks, spoken};

/// Thousandths by which our counts may differ from the provider's, where the tokenizer is known and
/// where it is guessed.
const MARGINS: (u64, u64) = (20, 150);

/// Of the tokens that the past may take, one in so many is for what is needed at least: what else
/// was chosen may be missing from a selection that goes on.
const NEEDED: u64 = 2;

/// Where the price is not known a token is a token.
const UNPRICED: Price = Price {
    input: Usd(1),
    cached_input: Usd(1),
    cache_write: Usd(1),
    output: Usd(1),
};

/// A request with a list of messages, as the planner and the selection see it.
pub(super) struct Conversation<'a> {
    /// Of the request with nothing left out.
    pub(super) turns: Turns<'a>,
    /// What stands before the messages, then each of them.
    pub(super) items: Vec<Item>,
    /// Digests of every byte of the same.
    digests: Vec<u128>,
}

/// A selection, as the planner weighs it.
struct Fresh {
    /// By item: whether it stays.
    keep: Vec<bool>,
    note: Option<Note>,
}

/// What is left out.
pub(super) struct Decided {
    pub(super) plan: Decision,
    /// By exchange: whether it stays.
    keep: Vec<bool>,
    pub(super) note: Option<Note>,
    /// What is to be remembered of written texts, and what came of them.
    pub(super) memo: Memo,
    pub(super) texts: Texts,
    /// What a model is to write.
    pub(super) order: Option<Order>,
}

impl Decided {
    /// Indices of the messages that go out, where not all do.
    pub(super) fn kept(&self) -> Option<Vec<usize>> {
        let messages = self.plan.keep.iter().skip(1);
        let kept: Vec<usize> = messages
            .enumerate()
            .filter_map(|(at, keep)| keep.then_some(at))
            .collect();
        (kept.len() + 1 < self.plan.keep.len()).then_some(kept)
    }
}

impl<'a> Conversation<'a> {
    /// `client`: the request with nothing left out, with its conversation where that was read;
    /// `outgoing`: the same with its texts edited.
    pub(super) fn of(
        job: &Job<'_>,
        (client, conversation): (&Counted<'_, 'a>, Option<formats::Conversation<'a>>),
        outgoing: &Counted<'_, '_>,
    ) -> Option<Conversation<'a>> {
        let turns = whole_turns(job, client.request, conversation)?;
        let own = pieces(&turns.items, client)?;
        let edited = match std::ptr::eq(client, outgoing) {
            true => None,
            false => {
                let edited = job.format.conversation(outgoing.request)?;
                Some(pieces(&edited.items, outgoing)?)
            }
        };
        let sent = edited.as_ref().unwrap_or(&own);
        // Where examples were left out the messages are not the same; nor is then what was sent
        // before.
        if own.len() != sent.len() {
            return None;
        }
        let items: Vec<Item> = own
            .iter()
            .zip(sent)
            .map(|(own, sent)| Item {
                tokens: own.tokens,
                digest: own.digest.said,
                sent_tokens: sent.tokens.min(own.tokens),
                sent_digest: sent.digest.said,
                needed: true,
                mark: own.mark,
            })
            .collect();
        let digests = own.iter().map(|own| own.digest.all).collect();
        Some(Conversation {
            turns,
            items,
            digests,
        })
    }

    /// What goes out. `known`: the question where it was told from chunks, and how near the last of
    /// the past's exchanges are to it.
    pub(super) fn decide(
        &mut self,
        job: &Job<'_>,
        known: (Option<String>, &[Similarity]),
        last: Option<(&Sent, &Memo)>,
        memories: &mut Memories<'_>,
    ) -> Decided {
        let texts = self.texts(job, memories);
        let going = self.last_note(job, (last, &texts), memories);
        let mut selections = self.fresh(job, known, memories);
        if selections.is_empty() && self.is_edited() {
            // All of it, with its texts edited.
            selections.push(vec![true; self.turns.past().len()]);
        }
        let fresh: Vec<Fresh> = selections
            .into_iter()
            .map(|keep| {
                let text = self.fitting(&keep, &texts);
                Fresh {
                    keep: self.by_item(&keep),
                    note: self.noted(job, (&keep, text), memories),
                }
            })
            .collect();
        let anew = fresh.iter().map(|fresh| Anew {
            keep: &fresh.keep,
            extra: fresh.note.as_ref().map_or(0, |note| note.tokens),
        });
        let anew: Vec<Anew<'_>> = anew.collect();
        let current = self.turns.exchanges.last();
        let margin = self.margin(job);
        // A past that is told as text has no front that a provider could know.
        let told = job
            .template
            .is_some_and(|template| template.user.has(Slot::Memory));
        let prefix = match job.model.price {
            Some(_) if !told => job.model.prefix,
            _ => Prefix {
                cache: PrefixCache::None,
                ..job.model.prefix
            },
        };
        let plan_of = |anew: &[Anew<'_>]| {
            planner::plan(&planner::Ask {
                items: &self.items,
                turn: current.map_or(0, |current| current.items.start + 1),
                turns: u32::try_from(self.turns.exchanges.len()).unwrap_or(u32::MAX),
                price: job.model.price.unwrap_or(UNPRICED),
                prefix,
                anew,
                limit: job.limit,
                marks: job.policy.marks,
                last: last.map(|(sent, _)| sent),
                going: going.going,
                now_ms: job.known.now_ms,
                margin_milli: margin,
            })
        };
        // All that there is room for, where that pays; less only where nothing else does.
        let mut plan = plan_of(anew.get(..1).unwrap_or_default());
        if plan.why == Why::Whole {
            plan = plan_of(&anew);
        }
        let keep = self.by_exchange(&plan.keep);
        let note = match (plan.why, plan.anew) {
            (Why::Whole, _) => None,
            (_, Some(chosen)) => fresh.into_iter().nth(chosen).and_then(|fresh| fresh.note),
            (_, None) => self.noted(job, (&keep, going.text), memories),
        };
        if let (Some(note), Some(_)) = (&note, going.going) {
            plan.sent.extra = note.tokens;
        }
        let mut memo = self.memo(note.as_ref(), last.map(|(_, memo)| memo));
        let ordered = note.as_ref().and_then(|_| {
            let balance = plan.sent.balance;
            self.order(job, (&keep, &texts), (balance, &mut memo), memories)
        });
        let order = ordered.map(|ordered| {
            // It is as good as spent.
            plan.sent.balance = plan.sent.balance - ordered.cost;
            ordered.order
        });
        Decided {
            texts: Texts {
                used: memo.has_text(),
                lost: going.is_lost(),
            },
            plan,
            keep,
            note,
            memo,
            order,
        }
    }

    /// Thousandths by which tokens may be miscounted.
    pub(super) fn margin(&self, job: &Job<'_>) -> u64 {
        match job.model.counting {
            Some(counting) if counting.own() => MARGINS.0,
            _ => MARGINS.1,
        }
    }

    /// Chooses what stays of the past, in as much room as there is and in half of it; nothing where
    /// all of it stays. Says of each item whether it is needed.
    fn fresh(
        &mut self,
        job: &Job<'_>,
        known: (Option<String>, &[Similarity]),
        memories: &mut Memories<'_>,
    ) -> Vec<Vec<bool>> {
        let Some(history) = &job.policy.history else {
            return Vec::new();
        };
        let past: Vec<Past> = self.turns.past().iter().map(|one| self.past(one)).collect();
        let whole = past
            .iter()
            .fold(0_u64, |sum, one| sum.saturating_add(one.tokens));
        let all = self
            .items
            .iter()
            .fold(0_u64, |sum, one| sum.saturating_add(one.sent_tokens));
        let rest = all.saturating_sub(whole);
        let note = match history.keep {
            Keep::Summary => history.digest,
            Keep::Recent | Keep::Relevant => 0,
        };
        let room = job
            .limit
            .map_or(u64::MAX, |limit| limit.saturating_sub(rest));
        let budget = history.tokens.min(room);
        if whole <= budget {
            return Vec::new();
        }
        let budget = budget.saturating_sub(note);
        let scores = match history.keep {
            Keep::Recent => Vec::new(),
            Keep::Relevant | Keep::Summary => self.scores(known, memories),
        };
        let within = |budget: u64| match history.keep {
            Keep::Recent => history::recent(&past, budget),
            Keep::Relevant | Keep::Summary => history::relevant(&past, &scores, budget),
        };
        // What is in more places than can be remembered cannot go on at the next turn: less of it.
        let kept = |mut budget: u64| loop {
            let keep = within(budget);
            if budget == 0 || gaps(&self.by_item(&keep)) <= planner::MAX_RANGES {
                return keep;
            }
            budget /= 2;
        };
        // What is needed is not all that there is room for, or every turn would choose anew.
        let (keep, less) = (kept(budget), kept(budget / NEEDED));
        // What fills a gap in the one may have no room in the other.
        let needed: Vec<bool> = keep
            .iter()
            .zip(&less)
            .map(|(one, other)| *one && *other)
            .collect();
        let by_item = self.by_item(&needed);
        for (item, needed) in self.items.iter_mut().zip(by_item) {
            item.needed = needed;
        }
        vec![keep, less]
    }

    /// An exchange of the past, as far as the choice needs it.
    pub(super) fn past(&self, exchange: &Exchange) -> Past {
        let items = self.turns.items.iter().zip(self.items.iter().skip(1));
        let own = items.skip(exchange.items.start).take(exchange.items.len());
        let going = own.filter(|(item, _)| !item.stays());
        Past {
            tokens: going.fold(0, |sum, (_, item)| sum.saturating_add(item.sent_tokens)),
            must: exchange.must || self.is_marked(exchange),
        }
    }

    /// Whether a text of what stays is another than the client's.
    fn is_edited(&self) -> bool {
        let mut items = self.items.iter();
        items.any(|item| item.sent_digest != item.digest)
    }

    /// Whether the client marked something of an exchange for the provider's cache.
    fn is_marked(&self, exchange: &Exchange) -> bool {
        let own = self.items.iter().skip(exchange.items.start + 1);
        own.take(exchange.items.len())
            .any(|item| item.mark.is_some())
    }

    fn scores(
        &self,
        (question, similarities): (Option<String>, &[Similarity]),
        memories: &mut Memories<'_>,
    ) -> Vec<f32> {
        let current = self
            .turns
            .exchanges
            .last()
            .map_or(0..0, |one| one.items.clone());
        let question = question.unwrap_or_else(|| said(&self.turns, current, true));
        let past = self.turns.past();
        let terms: Vec<Rc<Terms>> = past
            .iter()
            .map(|one| {
                let said = || Terms::of(&said(&self.turns, one.items.clone(), false));
                let key = memories.tokens.own(self.digest(&one.items));
                memories.terms.get(key, said)
            })
            .collect();
        let passages = terms.iter().enumerate().map(|(at, terms)| Passage {
            terms,
            similarity: similarity(similarities, at, past.len()),
        });
        rank::conversation(&Terms::of(&question), &passages.collect::<Vec<_>>())
    }

    /// Digest of every byte of messages in a row.
    fn digest(&self, items: &Range<usize>) -> u128 {
        let own = self.digests.iter().skip(items.start + 1).take(items.len());
        terms::key(own.copied())
    }

    /// A digest of what is left out. It depends on nothing else, so that it stays the same as long as
    /// the same is left out.
    pub(super) fn extract(
        &self,
        job: &Job<'_>,
        (keep, most): (&[bool], u64),
        memories: &mut Memories<'_>,
    ) -> Option<String> {
        let tokens = &*memories.tokens;
        let count = |text: &str| job.tokens_of(text, tokens);
        let by = job.model.counting;
        let by = by.map_or(0, |by| by.scale_milli << 2 | (by.encoding as u64 + 1));
        let salt = most.rotate_left(32) ^ by;
        memories.digests.get(&self.turns, keep, salt, || {
            summary::of_dropped(&self.turns, (keep, None), most, &count)
        })
    }

    /// Of each item whether it stays, by exchange of the past. What belongs to none stays.
    fn by_item(&self, keep: &[bool]) -> Vec<bool> {
        let mut by_item = vec![true; self.items.len()];
        for (exchange, keep) in self.turns.past().iter().zip(keep) {
            for at in exchange.items.clone().filter(|_| !*keep) {
                let stays = self.turns.items.get(at).is_none_or(|item| item.stays());
                if let Some(slot) = by_item.get_mut(at + 1) {
                    *slot = stays;
                }
            }
        }
        by_item
    }

    /// Of each exchange whether it stays: where anything of it does.
    pub(super) fn by_exchange(&self, keep: &[bool]) -> Vec<bool> {
        let of = |exchange: &Exchange| {
            let mut going = exchange.items.clone().filter(|at| {
                let item = self.turns.items.get(*at);
                item.is_some_and(|item| !item.stays())
            });
            going.any(|at| keep.get(at + 1).copied().unwrap_or(true))
        };
        self.turns.exchanges.iter().map(of).collect()
    }

    /// The body as decided; None where it cannot be made.
    pub(super) fn body(
        &self,
        job: &Job<'_>,
        decided: &Decided,
        outgoing: &Counted<'_, '_>,
    ) -> Option<String> {
        let (client, edited) = (self.turns.body, outgoing.request.body);
        let from = decided.plan.edited_from;
        if std::ptr::eq(client, edited) || from > self.turns.items.len() {
            return Some(dropping(&self.turns, decided));
        }
        let stay = job.policy.history.as_ref().map(stay_of).unwrap_or_default();
        let edited = Turns::of(outgoing.request, job.format, stay)?;
        if from == 0 {
            return Some(dropping(&edited, decided));
        }
        // What went out unedited stays so, for the provider's cache.
        let mut mixed = Splices::default();
        let both = self.turns.items.iter().zip(&edited.items).skip(from - 1);
        for (own, edited) in both.filter(|(own, edited)| own.content.raw != edited.content.raw) {
            mixed.replace(span(client, own.content.raw)?, edited.content.raw);
        }
        let mixed = mixed.apply(client);
        let mixed = job.format.parse(&mixed).ok()?;
        let turns = Turns::of(&mixed, job.format, stay)?;
        Some(dropping(&turns, decided))
    }
}

/// In how many places something is left out.
fn gaps(keep: &[bool]) -> usize {
    let follows = keep.iter().zip(keep.iter().skip(1));
    let first = keep.first().is_some_and(|keep| !keep);
    usize::from(first) + follows.filter(|(one, next)| **one && !**next).count()
}

/// The turns of the request with nothing left out. The pins are gone from it: what stays for them is
/// told by the client's own, whose conversation that is. Where they are one, so are the bodies.
fn whole_turns<'a>(
    job: &Job<'_>,
    whole: &Request<'a>,
    conversation: Option<formats::Conversation<'a>>,
) -> Option<Turns<'a>> {
    let stay = job.policy.history.as_ref().map(stay_of).unwrap_or_default();
    if let Some(conversation) = conversation {
        return Turns::in_order(whole.body, conversation, stay);
    }
    let mut turns = Turns::of(whole, job.format, stay)?;
    if let Some(own) = Turns::of(job.request, job.format, stay) {
        let both = turns.exchanges.iter_mut().zip(&own.exchanges);
        both.for_each(|(exchange, own)| exchange.must |= own.must);
    }
    Some(turns)
}

/// The body without what is left out.
fn dropping(turns: &Turns<'_>, decided: &Decided) -> String {
    let note = decided.note.as_ref().map(|note| note.text.as_str());
    edits::dropping(turns, &decided.keep, note).apply(turns.body)
}

/// The body with the marks for the provider's cache that the planner wants in it.
pub(super) fn with_marks(job: &Job<'_>, body: String, plan: &Decision) -> String {
    if plan.marks.is_empty() {
        return body;
    }
    let mut splices = Splices::default();
    if let Some(request) = parsed(job.format, Some(&body))
        && let Some(conversation) = job.format.conversation(&request)
    {
        for &mark in &plan.marks {
            // The messages before it that went out too.
            let at = plan
                .keep
                .iter()
                .take(mark)
                .skip(1)
                .filter(|keep| **keep)
                .count();
            let content = || {
                Object::parse(conversation.items.get(at)?.content.raw)
                    .ok()?
                    .get("content")
            };
            let raw = match mark {
                0 => request.fields.set("system").or(request.fields.set("tools")),
                _ => content(),
            };
            if let Some(raw) = raw {
                marks::set(&mut splices, request.body, raw);
            }
        }
    }
    splices.apply(&body)
}

/// What the planner knows of a part of the request.
struct Piece {
    tokens: u64,
    digest: Digest,
    mark: Option<Mark>,
}

/// What stands before the messages, then each of them, which are `items`. None where the API tells
/// otherwise than the count does.
fn pieces(items: &[formats::Item<'_>], counted: &Counted<'_, '_>) -> Option<Vec<Piece>> {
    let Counted {
        request,
        digests,
        each,
    } = counted;
    let listed = items.iter().filter(|item| item.role.is_none()).count();
    let apart = request.system.len().checked_sub(listed)?;
    let known = |tokens: &[u64], digests: &[Digest]| -> Vec<(u64, Digest)> {
        tokens
            .iter()
            .copied()
            .zip(digests.iter().copied())
            .collect()
    };
    let system = known(&each.system, &digests.system);
    let (front, system) = system.split_at_checked(apart)?;
    let mut system = system.iter().copied();
    let messages = known(&each.messages, &digests.messages);
    let mut messages = messages.iter().copied();
    let tools = digests.tools.map(|digest| (each.tools, digest));
    let marks = request.system.iter().take(apart).map(marked);
    let marks = marks.chain(request.tools.map(marked_json));
    let mut first = Piece {
        tokens: 0,
        digest: Digest::default(),
        mark: marks.flatten().max(),
    };
    for (tokens, digest) in tools.into_iter().chain(front.iter().copied()) {
        first.tokens += tokens;
        first.digest.said = first.digest.said.rotate_left(1) ^ digest.said;
    }
    let mut pieces = Vec::with_capacity(items.len() + 1);
    pieces.push(first);
    for item in items {
        let (tokens, digest) = match item.role {
            None => system.next(),
            Some(_) => messages.next(),
        }?;
        pieces.push(Piece {
            tokens,
            digest,
            mark: marked(&item.content),
        });
    }
    Some(pieces)
}

/// The client's `cache_control` in a piece of the request: beside its texts, which are most of it.
fn marked(content: &Content<'_>) -> Option<Mark> {
    let [Part::Text(text)] = content.parts.as_slice() else {
        return marked_json(content.raw);
    };
    let Some(text) = span(content.raw, text.escaped()) else {
        return marked_json(content.raw);
    };
    let before = content.raw.get(..text.start).and_then(marked_json);
    before.max(content.raw.get(text.end..).and_then(marked_json))
}

fn marked_json(raw: &str) -> Option<Mark> {
    memchr::memmem::find(raw.as_bytes(), b"\"cache_control\"")?;
    let hour = memchr::memmem::find(raw.as_bytes(), b"\"1h\"").is_some();
    Some(if hour { Mark::Hour } else { Mark::Short })
}

/// What is said in items; `asked`: by the user alone.
pub(super) fn said(turns: &Turns<'_>, items: Range<usize>, asked: bool) -> String {
    let mut all = String::new();
    for item in turns.items.get(items).unwrap_or(&[]) {
        if asked && item.role != Some(Role::User) {
            continue;
        }
        for text in spoken::texts(&item.content) {
            if !all.is_empty() {
                all.push('\n');
            }
            all.push_str(&text.text());
        }
    }
    all
}

/// Exchanges that stay wherever they stand.
pub(super) fn stay_of(history: &History) -> Stay {
    Stay {
        first: history.pin_first,
        last: history.last,
    }
}

/// The bytes in which items stand.
pub(super) fn raw_of<'a>(turns: &Turns<'a>, items: Range<usize>) -> &'a str {
    let raw = |at: usize| span(turns.body, turns.items.get(at)?.content.raw);
    let ends = raw(items.start).zip(items.end.checked_sub(1).and_then(raw));
    let within = ends.and_then(|(first, last)| turns.body.get(first.start..last.end));
    within.unwrap_or("")
}
