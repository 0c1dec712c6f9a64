//! Sections between fences: lines of three or more equal signs (`` ``` ``, `---`, `===`, `"""`).
//!
//! The label stands on the opening line or on the line before it. A section is closed by a line of
//! at least as many signs, as in CommonMark, so shorter fences may stand inside.

use super::lines::{Line, lines};
use super::section::{Split, pieces};
use super::{Block, Group, MAX_CHUNKS, grouped};

/// Which fences.
#[derive(Clone, Debug, PartialEq)]
pub struct Fence {
    /// The sign that they are made of.
    pub sign: char,
    /// How many at least.
    pub signs: usize,
    /// How the label begins, in whatever case.
    pub label: String,
    /// How a section holds several chunks; None: it is one.
    pub split: Option<Split>,
}

impl Fence {
    /// The sign and its number of a fence line; None where it is none.
    #[must_use]
    pub fn line(fence: &str) -> Option<(char, usize)> {
        let sign = fence
            .chars()
            .next()
            .filter(|sign| sign.is_ascii_punctuation())?;
        let signs = fence.len();
        (signs >= 3 && fence.chars().all(|other| other == sign)).then_some((sign, signs))
    }

    pub(super) fn find(&self, text: &str) -> Option<Vec<Group>> {
        let mut blocks = Vec::new();
        let mut groups = Vec::new();
        let mut open: Option<Open> = None;
        // The last line that is not blank, outside of fences.
        let mut before: Option<Line<'_>> = None;
        for line in lines(text) {
            let fence = self.signs(&line);
            match (&open, fence) {
                (None, Some((signs, label))) => {
                    let above = before.filter(|line| label.is_empty() && self.is_label(line.text));
                    open = Some(Open {
                        start: above.map_or(line.start, |line| line.start),
                        content: (line.end() + 1).min(text.len()),
                        signs,
                        labelled: above.is_some() || (!label.is_empty() && self.is_label(label)),
                    });
                    before = None;
                }
                (Some(section), Some((signs, ""))) if signs >= section.signs => {
                    if section.labelled {
                        let content = section.content..line.start.max(section.content);
                        match &self.split {
                            Some(split) => groups.extend(pieces(text, content, split)?),
                            None => {
                                blocks.push(Block::plain(text, section.start..line.end(), content))
                            }
                        }
                        if blocks.len() + groups.len() > MAX_CHUNKS {
                            return None;
                        }
                    }
                    open = None;
                }
                (None, None) if !line.is_blank() => before = Some(line),
                _ => {}
            }
        }
        groups.extend(grouped(text, blocks, false));
        open.is_none().then_some(groups)
    }

    /// How many signs a fence line has, and what stands behind them.
    fn signs<'a>(&self, line: &Line<'a>) -> Option<(usize, &'a str)> {
        let bare = line.text.trim();
        let rest = bare.trim_start_matches(self.sign);
        let signs = bare.len() - rest.len();
        (signs >= self.signs.max(1)).then_some((signs, rest.trim()))
    }

    fn is_label(&self, text: &str) -> bool {
        let text = text.trim_start().get(..self.label.len());
        text.is_some_and(|text| text.eq_ignore_ascii_case(&self.label))
    }
}

struct Open {
    start: usize,
    content: usize,
    signs: usize,
    labelled: bool,
}
