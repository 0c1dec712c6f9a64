//! Sections between two lines of the prompt, their chunks told apart by a separator: what LangChain
//! and LlamaIndex make of documents that they stuff into a prompt.

use std::ops::Range;

use super::lines::lines;
use super::{Block, Group, MAX_CHUNKS, trimmed};
use crate::policy::trim::context::metadata::Metadata;

/// Longest name of a metadata line, in bytes.
const MAX_NAME: usize = 40;

/// Which sections.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// How the line above begins.
    pub after: String,
    /// How the line below begins.
    pub before: String,
    /// How its chunks are told apart.
    pub split: Split,
}

/// How chunks are told apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What stands between two.
    pub by: String,
    /// A piece that is nothing but `name: value` lines is the metadata of the piece behind it.
    pub metadata: bool,
}

impl Section {
    pub(super) fn find(&self, text: &str) -> Option<Vec<Group>> {
        let mut groups = Vec::new();
        let mut start = None;
        for line in lines(text) {
            match start {
                Some(from) if line.begins(&self.before) => {
                    groups.extend(pieces(text, from..line.start, &self.split)?);
                    start = None;
                }
                None if line.begins(&self.after) => start = Some((line.end() + 1).min(text.len())),
                _ => {}
            }
        }
        Some(groups)
    }
}

/// The chunks of a section. None where there are too many.
pub(super) fn pieces(text: &str, content: Range<usize>, split: &Split) -> Option<Option<Group>> {
    let part = text.get(content.clone()).unwrap_or("");
    let mut blocks: Vec<Block> = Vec::new();
    // Metadata of the next piece, and where it begins.
    let mut head: Option<(usize, Metadata)> = None;
    let mut at = content.start;
    for piece in part.split(split.by.as_str()) {
        let place = trimmed(text, at..at + piece.len());
        at += piece.len() + split.by.len();
        if place.is_empty() {
            continue;
        }
        if split.metadata
            && head.is_none()
            && let Some(metadata) = fields(text.get(place.clone()).unwrap_or(""))
        {
            head = Some((place.start, metadata));
            continue;
        }
        let (start, metadata) = head.take().unwrap_or((place.start, Metadata::default()));
        blocks.push(Block {
            metadata,
            ..Block::plain(text, start..place.end, place)
        });
        if blocks.len() > MAX_CHUNKS {
            return None;
        }
    }
    if let Some((start, _)) = head {
        let place = trimmed(text, start..content.end);
        blocks.push(Block::plain(text, place.clone(), place));
    }
    Some((!blocks.is_empty()).then_some(Group {
        blocks,
        enclosed: true,
    }))
}

/// The `name: value` lines that a piece consists of; None where it has others.
fn fields(piece: &str) -> Option<Metadata> {
    let mut metadata = Metadata::default();
    for line in piece.lines() {
        let (name, value) = line.split_once(':')?;
        let fits = |c: char| c.is_alphanumeric() || "_-. ".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
            return None;
        }
        metadata.set_text(name.trim(), value.trim());
    }
    Some(metadata)
}
