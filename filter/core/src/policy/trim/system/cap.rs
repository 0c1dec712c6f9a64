//! A prompt within its cap: whole paragraphs and sentences of it, and a mark where something is
//! missing.

use std::ops::Range;

use crate::policy::trim::sentences::{Fence, sentences};

/// What stands where text was cut out: a model should not take the halves for one.
const MARK: &str = "[…]";

/// Where a prompt that is too long is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Its middle goes.
    #[default]
    Middle,
    /// Its end goes.
    End,
}

/// The texts, cut so that all together are at most `cap` tokens; None where not even a sentence
/// fits. Counts each paragraph once, and the sentences of one.
pub(super) fn cut(
    texts: &[&str],
    cap: u64,
    place: Cut,
    count: &dyn Fn(&str) -> u64,
) -> Option<Vec<String>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    for (text, one) in texts.iter().enumerate() {
        blocks.extend(paragraphs(one).into_iter().map(|piece| Block {
            tokens: count(piece) + 1,
            text,
            piece,
        }));
    }
    // Every text may end with a mark.
    let marks = (count(MARK) + 2) * texts.len() as u64;
    let kept = keep(&blocks, cap.checked_sub(marks)?, (place, count));
    if kept.iter().all(|kept| kept.is_empty()) {
        return None;
    }
    let text = |index: usize| {
        let start = blocks.partition_point(|block| block.text < index);
        let own = blocks.iter().zip(&kept).skip(start);
        joined(own.take_while(|(block, _)| block.text == index))
    };
    Some((0..texts.len()).map(text).collect())
}

/// A paragraph of one of the texts.
struct Block<'a> {
    text: usize,
    piece: &'a str,
    tokens: u64,
}

/// What of each block stays: all, nothing, or its first or last sentences.
fn keep(
    blocks: &[Block<'_>],
    mut left: u64,
    (place, count): (Cut, &dyn Fn(&str) -> u64),
) -> Vec<Range<usize>> {
    let mut kept: Vec<Range<usize>> = blocks.iter().map(|_| 0..0).collect();
    let (mut head, mut tail) = (0, blocks.len());
    // Tokens taken from the head and from the tail: they grow alike.
    let (mut first, mut last) = (0, 0);
    while head < tail {
        let from_head = place == Cut::End || first <= last;
        let at = if from_head { head } else { tail - 1 };
        let (Some(block), Some(kept)) = (blocks.get(at), kept.get_mut(at)) else {
            break;
        };
        if block.tokens > left {
            *kept = part_of(block.piece, (left, from_head), count);
            break;
        }
        *kept = 0..block.piece.len();
        left -= block.tokens;
        match from_head {
            true => (head, first) = (head + 1, first + block.tokens),
            false => (tail, last) = (tail - 1, last + block.tokens),
        }
    }
    kept
}

/// The paragraphs of a text, without the blank lines between them; a code fence is in one.
fn paragraphs(text: &str) -> Vec<&str> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut fence: Option<Fence> = None;
    let mut open = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let blank = fence.is_none() && line.trim().is_empty();
        fence = match fence {
            Some(fence) if fence.is_closed_by(line) => None,
            Some(fence) => Some(fence),
            None => Fence::of(line),
        };
        match found.last_mut().filter(|_| open) {
            _ if blank => {}
            Some(last) => last.end = at,
            None => found.push(start..at),
        }
        open = !blank;
    }
    let pieces = found.into_iter().filter_map(|at| text.get(at));
    pieces.map(str::trim_end).collect()
}

/// The first or last sentences of a paragraph that fit in so many tokens.
fn part_of(block: &str, (left, first): (u64, bool), count: &dyn Fn(&str) -> u64) -> Range<usize> {
    let mut all = sentences(block);
    // Of code, tables and the like no part says anything.
    if all.iter().any(|one| one.verbatim) {
        return 0..0;
    }
    if !first {
        all.reverse();
    }
    let mut tokens = 0;
    let mut kept: Option<Range<usize>> = None;
    for one in all {
        tokens += count(block.get(one.at.clone()).unwrap_or("")) + 1;
        if tokens > left {
            break;
        }
        kept = Some(match kept {
            Some(kept) => kept.start.min(one.at.start)..kept.end.max(one.at.end),
            None => one.at,
        });
    }
    kept.unwrap_or(0..0)
}

/// A text of what stays of its blocks, with a mark where something does not.
fn joined<'b>(blocks: impl Iterator<Item = (&'b Block<'b>, &'b Range<usize>)>) -> String {
    let mut pieces: Vec<&str> = Vec::new();
    for (block, kept) in blocks {
        let piece = block.piece.get(kept.clone()).unwrap_or("");
        let before = kept.start > 0 && !piece.is_empty();
        let after = kept.end < block.piece.len();
        for (piece, there) in [(MARK, before), (piece, !piece.is_empty()), (MARK, after)] {
            let twice = piece == MARK && pieces.last() == Some(&MARK);
            if there && !twice {
                pieces.push(piece);
            }
        }
    }
    pieces.join("\n\n")
}
