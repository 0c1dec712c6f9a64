//! Where chunks stand in a prompt: one file per kind of marker.
//!
//! What is not clearly marked is not found: a text whose marks do not balance, or whose numbering
//! leaves a doubt, has no chunks. Every finder is one pass over the text, and stops at
//! [`MAX_CHUNKS`].

mod fence;
mod json;
mod lines;
mod list;
mod section;
mod tag;

use std::ops::Range;

pub use fence::Fence;
pub use json::Array;
pub(super) use json::chunk;
pub use list::List;
pub use section::{Section, Split};
pub use tag::Tag;

use super::metadata::Metadata;

/// Most chunks of one message that are told apart; one with more is left alone. Retrieval gives
/// tens.
pub const MAX_CHUNKS: usize = 1024;

/// A kind of mark that chunks have.
#[derive(Clone, Debug, PartialEq)]
pub enum Marker {
    /// `<document …>…</document>`.
    Tag(Tag),
    /// `[1] …` or `1. …` below a heading.
    List(List),
    /// Between fences with a label.
    Fence(Fence),
    /// Between two lines of the prompt.
    Section(Section),
    /// A JSON array in the text.
    Json(Array),
}

/// A chunk where it stands in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// With its mark.
    pub whole: Range<usize>,
    /// What it says, where that stands there as it is; None where it is escaped.
    pub inner: Option<Range<usize>>,
    /// What it says, where it is escaped.
    pub text: String,
    /// What its mark tells.
    pub metadata: Metadata,
}

impl Block {
    /// A chunk that says what stands at `inner`.
    fn plain(text: &str, whole: Range<usize>, inner: Range<usize>) -> Block {
        Block {
            whole,
            inner: Some(trimmed(text, inner)),
            text: String::new(),
            metadata: Metadata::default(),
        }
    }
}

/// Chunks with nothing but separators between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// In the order of the text; never empty.
    pub blocks: Vec<Block>,
    /// The text around it needs it even when it is empty: an array, a list in an enclosing tag.
    pub enclosed: bool,
}

impl Group {
    /// From the first block to the last.
    pub(super) fn extent(&self) -> Range<usize> {
        let ends = self.blocks.first().zip(self.blocks.last());
        ends.map_or(0..0, |(first, last)| first.whole.start..last.whole.end)
    }
}

impl Marker {
    /// The chunks in `text` that have this mark.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<Group> {
        let groups = match self {
            Marker::Tag(tag) => tag.find(text),
            Marker::List(list) => list.find(text),
            Marker::Fence(fence) => fence.find(text),
            Marker::Section(section) => section.find(text),
            Marker::Json(array) => array.find(text),
        };
        groups.unwrap_or_default()
    }
}

/// The chunks in `text`: of marks that overlap, those of the earlier marker count.
#[must_use]
pub fn find(markers: &[Marker], text: &str) -> Vec<Group> {
    let mut found: Vec<Group> = Vec::new();
    for marker in markers {
        let mut free: Vec<Group> = marker.find(text);
        free.retain(|group| !overlaps(&found, group));
        found.extend(free);
        found.sort_by_key(|group| group.extent().start);
    }
    if found.iter().map(|group| group.blocks.len()).sum::<usize>() > MAX_CHUNKS {
        return Vec::new();
    }
    found
}

/// Whether `group` overlaps one of `found`, which are in order.
fn overlaps(found: &[Group], group: &Group) -> bool {
    let extent = group.extent();
    let after = found.partition_point(|other| other.extent().end <= extent.start);
    found
        .get(after)
        .is_some_and(|other| other.extent().start < extent.end)
}

/// Blocks into groups: what stands between two of one group is white space.
fn grouped(text: &str, blocks: Vec<Block>, enclosed: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut end = None;
    for block in blocks {
        let between = end.and_then(|end| text.get(end..block.whole.start));
        end = Some(block.whole.end);
        match groups.last_mut() {
            Some(group) if between.is_some_and(|text| text.trim().is_empty()) => {
                group.blocks.push(block)
            }
            _ => groups.push(Group {
                blocks: vec![block],
                enclosed,
            }),
        }
    }
    groups
}

/// `range` of `text` without white space at its ends.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = text.get(range.clone()).unwrap_or("");
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}
