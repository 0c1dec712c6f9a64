//! Texts that a model writes of what is left out: which of those that are there stands in a note, and
//! what is to be written next.
//!
//! A text *covers* the exchanges that it was written of. Its name says which, with a digest of what they
//! say: in a conversation that reads otherwise it counts for nothing. What it does not cover is told by an
//! extract beside it.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use sluice_wire::{Order, Usd, limit};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::meaning::cut;
use super::past::Conversation;
use super::{Job, Memories};
use crate::config::{History, Keep, Writer};
use crate::formats::Role;
use crate::policy::trim::planner::{Going, Item, Sent};
use crate::policy::trim::turns::Exchange;
use crate::policy::trim::{spoken, summary};

/// Of what a note may take, a written text is to take so much, and the extract beside it the rest.
const SHARE: (u64, u64) = (2, 3);
/// Tokens of what stands around a written text in a note, at the most.
const FRAME: u64 = 24;
/// A text is written of no less than so many notes' worth of tokens.
const WORTH: u64 = 2;
/// Tokens of what the writer is told beside what was said, at the most.
const RULES: u64 = 300;
/// Thousandths by which the writer's tokens may be more than the conversation's model has them.
const OTHER_TOKENS: u64 = 150;
/// Tokens that each letter beyond ASCII may take with the writer more than with the conversation's model.
const WIDE_TOKENS: u64 = 2;
/// Bytes of one exchange that are told the writer: what is longer is a paste, and its beginning will do.
const LONGEST: usize = 8 * 1024;
/// How long a text that was ordered is waited for before another is, in milliseconds.
const PATIENCE_MS: u64 = 180_000;

/// What is remembered of a conversation's written texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memo {
    /// The text that went out last, by its digest, and a hash of the note that it stood in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent: Option<(u64, u64)>,
    /// The text that was ordered last, by its digest, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ordered: Option<(u64, u64)>,
}

impl Memo {
    pub(super) fn is_empty(&self) -> bool {
        *self == Memo::default()
    }

    /// A written text went out.
    pub(super) fn has_text(&self) -> bool {
        self.sent.is_some()
    }
}

/// A text that is there.
pub(super) struct Text<'k> {
    name: &'k str,
    digest: u64,
    covers: Vec<Range<usize>>,
    /// As the model wrote it, and as it stands in a note.
    plain: String,
    framed: String,
    /// Of `framed`.
    tokens: u64,
}

impl Text<'_> {
    fn covers(&self, exchange: &Exchange) -> bool {
        let own = &exchange.items;
        let mut covers = self.covers.iter();
        covers.any(|range| range.start <= own.start && own.end <= range.end)
    }
}

/// What comes in for what is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) text: String,
    pub(super) tokens: u64,
    /// Digest of the written text in it.
    of: Option<u64>,
}

/// How the last selection's note goes on.
pub(super) struct Last<'t> {
    /// The written text in it; None: there is none, or it is lost.
    pub(super) text: Option<&'t Text<'t>>,
    /// What the planner is to know, where that is not what it remembers.
    pub(super) going: Option<Going>,
}

impl Last<'_> {
    /// The text that went out last is not there any more.
    pub(super) fn is_lost(&self) -> bool {
        self.going.is_some_and(|going| !going.held)
    }
}

/// What of texts came of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// One that a model wrote went out.
    pub used: bool,
    /// The one that went out last is not there any more.
    pub lost: bool,
}

/// What is to be written, and what that costs.
pub(super) struct Ordered {
    pub(super) order: Order,
    pub(super) cost: Usd,
}

/// The settings, where texts are written.
fn writer<'j>(job: &Job<'j>) -> Option<(&'j History, &'j Writer)> {
    let history = job.policy.history.as_ref();
    let history = history.filter(|history| history.keep == Keep::Summary)?;
    Some((history, history.writer.as_ref()?))
}

impl Conversation<'_> {
    /// The texts that are there and fit into a note, of this conversation as it reads.
    pub(super) fn texts<'k>(&self, job: &Job<'k>, memories: &Memories<'_>) -> Vec<Text<'k>> {
        let Some((history, _)) = writer(job) else {
            return Vec::new();
        };
        let texts = job.known.summaries.iter().take(limit::SUMMARIES);
        let text = |written: &'k sluice_wire::Written| {
            let (digest, covers) = covered(&written.id, &self.items)?;
            let framed = summary::written(&written.text)?;
            let tokens = job.tokens_of(&framed, memories.tokens);
            (tokens <= history.digest).then(|| Text {
                name: &written.id,
                digest,
                covers,
                plain: written.text.clone(),
                framed,
                tokens,
            })
        };
        texts.filter_map(text).collect()
    }

    /// The note for what `keep` leaves out, with `text` in it.
    pub(super) fn noted(
        &self,
        job: &Job<'_>,
        (keep, text): (&[bool], Option<&Text<'_>>),
        memories: &mut Memories<'_>,
    ) -> Option<Note> {
        let history = job.policy.history.as_ref()?;
        let most = (history.keep == Keep::Summary).then_some(history.digest)?;
        let (note, of) = match text {
            None => (self.extract(job, (keep, most), memories)?, None),
            Some(text) => {
                // It is there for what is left out alone.
                self.turns.dropped(keep).next()?;
                let exchanges = self.turns.exchanges.iter();
                let rest = keep.iter().zip(exchanges);
                let rest = rest.map(|(keep, exchange)| *keep || text.covers(exchange));
                let rest: Vec<bool> = rest.collect();
                let room = most.saturating_sub(text.tokens);
                let note = match self.extract(job, (&rest, room), memories) {
                    Some(extract) => format!("{}\n{extract}", text.framed),
                    None => text.framed.clone(),
                };
                (note, Some(text.digest))
            }
        };
        Some(Note {
            tokens: job.tokens_of(&note, memories.tokens),
            text: note,
            of,
        })
    }

    /// The text that covers most of what `keep` leaves out, how many tokens it does not cover, and how
    /// many are left out.
    fn best<'t, 'k>(
        &self,
        keep: &[bool],
        texts: &'t [Text<'k>],
    ) -> (Option<&'t Text<'k>>, u64, u64) {
        let tokens = |covered: &dyn Fn(&Exchange) -> bool| {
            let own = self.turns.dropped(keep).map(|(_, exchange)| exchange);
            let own = own.filter(|exchange| covered(exchange));
            own.fold(0_u64, |sum, one| sum.saturating_add(self.past(one).tokens))
        };
        let all = tokens(&|_| true);
        let by = texts
            .iter()
            .map(|text| (text, tokens(&|exchange| text.covers(exchange))));
        // Of equals the newest, which comes first.
        let best = by.rev().max_by_key(|(_, covered)| *covered);
        match best.filter(|(_, covered)| *covered > 0) {
            Some((text, covered)) => (Some(text), all.saturating_sub(covered), all),
            None => (None, all, all),
        }
    }

    /// The text for a new selection: one that covers no less than half of it.
    pub(super) fn fitting<'t, 'k>(
        &self,
        keep: &[bool],
        texts: &'t [Text<'k>],
    ) -> Option<&'t Text<'k>> {
        let (best, uncovered, all) = self.best(keep, texts);
        best.filter(|_| uncovered <= all / 2)
    }

    /// How the note of the last selection goes on: with the text that stood in it, where that is there.
    pub(super) fn last_note<'t>(
        &self,
        job: &Job<'_>,
        (last, texts): (Option<(&Sent, &Memo)>, &'t [Text<'t>]),
        memories: &mut Memories<'_>,
    ) -> Last<'t> {
        let nothing = Last {
            text: None,
            going: None,
        };
        let Some((sent, (digest, hash))) = last.and_then(|(sent, memo)| Some((sent, memo.sent?)))
        else {
            return nothing;
        };
        let text = texts.iter().find(|text| text.digest == digest);
        let mut keep = vec![true; self.items.len()];
        for &(from, to) in &sent.dropped {
            let range = (from as usize).min(keep.len())..(to as usize).min(keep.len());
            keep.get_mut(range)
                .into_iter()
                .flatten()
                .for_each(|keep| *keep = false);
        }
        let keep = self.by_exchange(&keep);
        let note = self.noted(job, (&keep, text), memories);
        let tokens = note.as_ref().map_or(0, |note| note.tokens);
        let most = job.policy.history.as_ref().map_or(0, |one| one.digest);
        Last {
            text,
            going: Some(Going {
                extended: tokens,
                held: note.is_some_and(|note| xxh3_64(note.text.as_bytes()) == hash),
                // With less left out the extract is another.
                mended: most.max(tokens),
            }),
        }
    }

    /// What is to be remembered of the note that goes out.
    pub(super) fn memo(&self, note: Option<&Note>, last: Option<&Memo>) -> Memo {
        let sent = note.and_then(|note| Some((note.of?, xxh3_64(note.text.as_bytes()))));
        Memo {
            sent,
            ordered: last.and_then(|last| last.ordered),
        }
    }

    /// What a model is to write of what `keep` leaves out, where the texts that are there cover too
    /// little of it and the conversation has saved what that costs. `memo` then has it.
    pub(super) fn order(
        &self,
        job: &Job<'_>,
        (keep, texts): (&[bool], &[Text<'_>]),
        (balance, memo): (Usd, &mut Memo),
        memories: &Memories<'_>,
    ) -> Option<Ordered> {
        let (history, writer) = writer(job)?;
        job.model.price?;
        let least = history.digest.saturating_mul(WORTH);
        let (base, uncovered, _) = self.best(keep, texts);
        let waits = memo.ordered.is_some_and(|(digest, at_ms)| {
            let is_there = texts.iter().any(|text| text.digest == digest);
            !is_there && job.known.now_ms.saturating_sub(at_ms) < PATIENCE_MS
        });
        if waits || uncovered < least {
            return None;
        }
        let share = history.digest.saturating_mul(SHARE.0) / SHARE.1;
        let share = share.min(history.digest.saturating_sub(FRAME));
        let price = writer.price;
        // Counting takes longer than all else here: not where what is sure to be paid is too much.
        if balance < price.input.times(least) + price.output.times(share) {
            return None;
        }
        let (text, covers) = self.told(keep, base);
        let digest = digest(&self.items, &covers);
        let id = name(digest, &covers);
        let again = memo.ordered.is_some_and(|(known, _)| known == digest);
        if again || id.len() > limit::SUMMARY_ID {
            return None;
        }
        // Tools say much that is not told.
        let tokens = job.tokens_of(&text, memories.tokens);
        if tokens < least {
            return None;
        }
        let prompt = tokens.saturating_add(RULES);
        let other = prompt.saturating_mul(OTHER_TOKENS + self.margin(job)) / 1000;
        // Older vocabularies take two and three tokens for a letter that is not Latin.
        let wide = text.chars().filter(|letter| !letter.is_ascii()).count() as u64;
        let other = other.saturating_add(WIDE_TOKENS.saturating_mul(wide));
        let cost = price.input.times(prompt.saturating_add(other)) + price.output.times(share);
        if balance < cost {
            return None;
        }
        memo.ordered = Some((digest, job.known.now_ms));
        let kept = memo.sent.map(|(digest, _)| digest);
        let kept = texts.iter().find(|text| Some(text.digest) == kept);
        Some(Ordered {
            order: Order {
                id,
                kept: kept.map(|text| text.name.to_owned()),
                model: writer.model.clone(),
                tokens: u32::try_from(share).unwrap_or(u32::MAX),
                text,
            },
            cost,
        })
    }

    /// What the writer is told, the oldest first: `base`, and as much as there is room for of what it
    /// does not cover. What all of that covers.
    fn told(&self, keep: &[bool], base: Option<&Text<'_>>) -> (String, Vec<Range<usize>>) {
        let mut covers = base.map(|base| base.covers.clone()).unwrap_or_default();
        let mut told = match base {
            Some(base) => format!("What was written down so far:\n{}\n\n", base.plain),
            None => String::new(),
        };
        let dropped = self.turns.dropped(keep).map(|(_, exchange)| exchange);
        for exchange in dropped.filter(|one| base.is_none_or(|base| !base.covers(one))) {
            let said = self.lines(exchange);
            if told.len() + said.len() > limit::ORDER {
                break;
            }
            told.push_str(&said);
            covers.push(exchange.items.clone());
        }
        (told, merged(covers))
    }

    /// What was said in an exchange, with who said it. What tools said is not told.
    fn lines(&self, exchange: &Exchange) -> String {
        let mut lines = String::new();
        for item in self.turns.going(exchange) {
            let who = match item.role {
                Some(Role::User) => "User",
                Some(Role::Assistant) => "Assistant",
                Some(Role::Tool) | None => continue,
            };
            for text in spoken::texts(&item.content) {
                // What somebody says cannot begin as another's line does.
                let said = text.text().trim().replace('\n', "\n  ");
                lines.push_str(&format!("{who}: {said}\n"));
            }
        }
        match lines.len() > LONGEST {
            true => format!("{} […]\n", cut(&lines, LONGEST)),
            false => lines,
        }
    }
}

/// Ranges that rise and touch nowhere.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Digest of messages; the first of `items` is what stands before them.
fn digest(items: &[Item], covers: &[Range<usize>]) -> u64 {
    let mut hash = Xxh3::new();
    for range in covers {
        hash.update(&(range.start as u64).to_le_bytes());
        let own = items.iter().skip(range.start + 1).take(range.len());
        own.for_each(|item| hash.update(&item.digest.to_le_bytes()));
    }
    hash.digest()
}

/// The name of a text that covers these messages: `DIGEST:FROM-TO,FROM-TO`.
fn name(digest: u64, covers: &[Range<usize>]) -> String {
    let ranges = covers.iter().map(|it| format!("{}-{}", it.start, it.end));
    format!("{digest:016x}:{}", ranges.collect::<Vec<_>>().join(","))
}

/// What a text of that name covers, and its digest; None where these messages read otherwise.
fn covered(name: &str, items: &[Item]) -> Option<(u64, Vec<Range<usize>>)> {
    let (known, ranges) = name.split_once(':')?;
    let known = u64::from_str_radix(known, 16).ok()?;
    let mut covers: Vec<Range<usize>> = Vec::new();
    for range in ranges.split(',') {
        let (start, end) = range.split_once('-')?;
        let (start, end) = (start.parse().ok()?, end.parse().ok()?);
        let from = covers.last().map_or(0, |last| last.end);
        // A message more than there are would be no text of this request.
        if !(from <= start && start < end && end < items.len()) {
            return None;
        }
        covers.push(start..end);
    }
    (digest(items, &covers) == known).then_some((known, covers))
}

#[cfg(test)]
mod tests;
