//! The edits that leave the kept chunks of a retrieval, and nothing else changed.

use std::ops::Range;

use super::markers::Group;
use super::retrieval::{Retrieval, Text};
use super::{Chunk, Order, Policy, sentences};
use crate::json::Offsets;
use crate::policy::trim::splices::{Splices, cuts, span};

/// Which chunks of a retrieval stay, in which order, and what of them goes.
pub(super) struct Pick {
    /// In the order in which they are to stand.
    pub(super) ranked: Vec<usize>,
    /// The place of each chunk in `ranked`.
    places: Vec<usize>,
    stays: Vec<bool>,
    /// They stand in the order of `ranked`.
    reorder: bool,
    /// Parts of each chunk's text that go.
    extra: Vec<Vec<Range<usize>>>,
}

impl Pick {
    pub(super) fn new(ranked: Vec<usize>, retrieval: &Retrieval<'_>, policy: &Policy) -> Pick {
        let mut pick = Pick {
            reorder: policy.order == Order::Rank,
            ..Pick::all(retrieval)
        };
        pick.stays = vec![false; retrieval.chunks.len()];
        for &at in &ranked {
            if let Some(stays) = pick.stays.get_mut(at) {
                *stays = true;
            }
        }
        if policy.extra {
            let one = |(chunk, stays): (&Chunk, &bool)| match stays {
                true => sentences::extra(&chunk.text, &retrieval.question),
                false => Vec::new(),
            };
            pick.extra = retrieval.chunks.iter().zip(&pick.stays).map(one).collect();
        }
        pick.ranked = ranked;
        if !pick.reorder {
            pick.ranked.sort_unstable();
        }
        for (place, at) in pick.ranked.iter().enumerate() {
            if let Some(of) = pick.places.get_mut(*at) {
                *of = place;
            }
        }
        pick
    }

    pub(super) fn all(retrieval: &Retrieval<'_>) -> Pick {
        let chunks = retrieval.chunks.len();
        Pick {
            ranked: (0..chunks).collect(),
            places: (0..chunks).collect(),
            stays: vec![true; chunks],
            reorder: false,
            extra: vec![Vec::new(); chunks],
        }
    }

    /// Whether anything goes. A new order alone saves nothing, and voids what a provider has
    /// cached.
    pub(super) fn saves(&self, retrieval: &Retrieval<'_>) -> bool {
        self.ranked.len() < retrieval.chunks.len()
            || self.extra.iter().any(|ranges| !ranges.is_empty())
    }

    pub(super) fn extra(&self, chunk: usize) -> &[Range<usize>] {
        self.extra.get(chunk).map_or(&[], Vec::as_slice)
    }
}

/// A change to a text, in places of the text.
enum Change {
    Cut(Range<usize>),
    /// What stands there becomes what stands at the second range, less the third.
    Move(Range<usize>, Range<usize>, Vec<Range<usize>>),
}

impl Text<'_> {
    /// Adds the edits of the body that leave the kept chunks.
    pub(super) fn edit(&self, body: &str, pick: &Pick, edits: &mut Splices) {
        let mut changes = Vec::new();
        let mut first = self.first;
        for group in &self.groups {
            self.changes(group, first, pick, &mut changes);
            first += group.blocks.len();
        }
        let mut places: Vec<usize> = Vec::new();
        for change in &changes {
            let ranges: Vec<&Range<usize>> = match change {
                Change::Cut(at) => vec![at],
                Change::Move(to, from, less) => [to, from].into_iter().chain(less).collect(),
            };
            places.extend(
                ranges
                    .into_iter()
                    .flat_map(|range| [range.start, range.end]),
            );
        }
        places.sort_unstable();
        places.dedup();
        let offsets = Offsets::of(self.string, &places);
        let escaped = self.string.escaped();
        let Some(place) = span(body, escaped) else {
            return;
        };
        let map = |range: &Range<usize>| offsets.get(range.start)..offsets.get(range.end);
        let within = |range: Range<usize>| place.start + range.start..place.start + range.end;
        for change in changes {
            match change {
                Change::Cut(at) => edits.replace(within(map(&at)), ""),
                Change::Move(to, from, less) => {
                    let less: Vec<_> = less.iter().map(map).collect();
                    edits.replace(within(map(&to)), without(escaped, map(&from), &less));
                }
            }
        }
    }

    /// What changes in a group, whose chunks are numbered from `first`.
    fn changes(&self, group: &Group, first: usize, pick: &Pick, changes: &mut Vec<Change>) {
        let numbers = first..first + group.blocks.len();
        let wholes: Vec<Range<usize>> = group
            .blocks
            .iter()
            .map(|block| block.whole.clone())
            .collect();
        let stays: Vec<bool> = pick.stays.get(numbers.clone()).unwrap_or(&[]).to_vec();
        let mut gone = cuts(&wholes, &stays);
        if !group.enclosed && !stays.contains(&true) {
            gone = gone.into_iter().map(|cut| self.with_line(cut)).collect();
        }
        changes.extend(gone.into_iter().map(Change::Cut));
        // Which chunk stands in the place of which.
        let kept: Vec<usize> = numbers
            .filter(|at| pick.stays.get(*at) == Some(&true))
            .collect();
        let mut ranked = kept.clone();
        ranked.sort_by_key(|at| pick.places.get(*at));
        for (slot, number) in kept.into_iter().zip(ranked) {
            let (Some(to), Some(from)) = (
                group.blocks.get(slot - first),
                group.blocks.get(number - first),
            ) else {
                continue;
            };
            // What is escaped in the text (JSON) is never cut inside.
            let start = from.inner.as_ref().map_or(0, |inner| inner.start);
            let less = pick.extra(number).iter().filter(|_| from.inner.is_some());
            let less = less.map(|range| start + range.start..start + range.end);
            if slot == number {
                changes.extend(less.map(Change::Cut));
            } else {
                changes.push(Change::Move(
                    to.whole.clone(),
                    from.whole.clone(),
                    less.collect(),
                ));
            }
        }
    }

    /// A cut of whole lines takes the end of the last line with it.
    fn with_line(&self, cut: Range<usize>) -> Range<usize> {
        let before = self.text.get(..cut.start).unwrap_or("");
        let behind = self.text.get(cut.end..).unwrap_or("");
        let rest = behind.trim_start_matches([' ', '\t', '\r']);
        match rest.strip_prefix('\n') {
            Some(next) if before.is_empty() || before.ends_with('\n') => {
                cut.start..self.text.len() - next.len()
            }
            _ => cut,
        }
    }
}

/// The `range` of `text` without the ranges `less` in it, which are in order.
pub(super) fn without(text: &str, range: Range<usize>, less: &[Range<usize>]) -> String {
    let mut out = String::with_capacity(range.len());
    let mut from = range.start;
    for cut in less {
        out.push_str(text.get(from..cut.start).unwrap_or(""));
        from = cut.end;
    }
    out.push_str(text.get(from..range.end).unwrap_or(""));
    out
}
