//! Numbered lists below a heading: `[1] …`, `1. …`, `Source 1: …`.
//!
//! Numbers must follow each other. A line that looks like an item and has another number (a list
//! inside a chunk, a list of instructions behind it) leaves a doubt where chunks begin, and then
//! nothing is found; `before` says where the list ends.

use super::lines::{Line, lines};
use super::{Block, Group, MAX_CHUNKS};

/// Which lists.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// How the line above the list begins.
    pub after: String,
    /// How the line below it begins; without it the last item ends at its first blank line.
    pub before: Option<String>,
    /// How an item is numbered: what stands before the number, and behind it.
    pub number: (String, String),
}

impl List {
    /// The pieces of `[{n}]`: what stands around `{n}`. None where `{n}` does not stand there once,
    /// or nothing stands behind it.
    #[must_use]
    pub fn number(pattern: &str) -> Option<(String, String)> {
        let (before, behind) = pattern.split_once("{n}")?;
        let fits = !behind.trim().is_empty() && !behind.contains("{n}");
        fits.then(|| (before.to_owned(), behind.to_owned()))
    }

    pub(super) fn find(&self, text: &str) -> Option<Vec<Group>> {
        let mut groups = Vec::new();
        let mut open: Option<Open> = None;
        // The line above was a heading, blank lines aside.
        let mut headed = false;
        for line in lines(text) {
            let heads = line.begins(&self.after);
            let ends = self
                .before
                .as_ref()
                .is_some_and(|before| line.begins(before));
            if heads || ends {
                // A heading inside of a list that has an end: where is its end?
                if heads
                    && self.before.is_some()
                    && let Some(list) = &mut open
                {
                    list.doubt = true;
                }
                if let Some(list) = open.take() {
                    groups.push(list.close(text, self.before.is_some())?);
                }
                headed = heads;
                continue;
            }
            match (&mut open, self.item(&line)) {
                (Some(list), Some(item)) => list.item(&line, item),
                (Some(list), None) => list.line(&line),
                (None, Some(item)) if headed => open = Some(Open::new(&line, item)),
                (None, _) => headed &= line.is_blank(),
            }
        }
        if let Some(list) = open.filter(|_| self.before.is_none()) {
            groups.push(list.close(text, false)?);
        }
        Some(groups)
    }

    /// The item that a line begins.
    fn item(&self, line: &Line<'_>) -> Option<Item> {
        let (before, behind) = &self.number;
        let bare = line.text.trim_start();
        let numbered = bare.strip_prefix(before.as_str())?;
        let digits = numbered.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = numbered.split_at_checked(digits)?;
        let rest = rest.strip_prefix(behind.as_str())?;
        // `1.5 million` begins no item.
        if behind.ends_with(['.', ')'])
            && before.is_empty()
            && !rest.is_empty()
            && !rest.starts_with([' ', '\t'])
        {
            return None;
        }
        Some(Item {
            number: number.parse().ok().filter(|_| digits <= 6)?,
            indent: line.text.len() - bare.len(),
            text: line.end() - rest.len(),
        })
    }
}

/// The head of an item: where its text begins.
#[derive(Clone, Copy)]
struct Item {
    number: usize,
    indent: usize,
    text: usize,
}

/// A list that is being read.
struct Open {
    first: Item,
    items: Vec<Read>,
    /// Its numbering leaves a doubt, or there is too much of it.
    doubt: bool,
}

struct Read {
    start: usize,
    text: usize,
    /// End of the last line that is not blank.
    end: usize,
    /// The same, up to the first blank line.
    paragraph_end: usize,
    in_paragraph: bool,
}

impl Open {
    fn new(line: &Line<'_>, item: Item) -> Open {
        let mut list = Open {
            first: item,
            items: Vec::new(),
            doubt: false,
        };
        list.push(line, item);
        list
    }

    fn push(&mut self, line: &Line<'_>, item: Item) {
        self.items.push(Read {
            start: line.start,
            text: item.text,
            end: line.end(),
            paragraph_end: line.end(),
            in_paragraph: true,
        });
    }

    fn item(&mut self, line: &Line<'_>, item: Item) {
        if item.indent != self.first.indent {
            self.line(line);
        } else if item.number == self.first.number + self.items.len()
            && self.items.len() < MAX_CHUNKS
        {
            self.push(line, item);
        } else {
            self.doubt = true;
        }
    }

    fn line(&mut self, line: &Line<'_>) {
        let Some(item) = self.items.last_mut() else {
            return;
        };
        if line.is_blank() {
            item.in_paragraph = false;
        } else {
            item.end = line.end();
            if item.in_paragraph {
                item.paragraph_end = line.end();
            }
        }
    }

    /// None where there is a doubt. `bounded`: a line said where it ends.
    fn close(self, text: &str, bounded: bool) -> Option<Group> {
        if self.doubt {
            return None;
        }
        let last = self.items.len().saturating_sub(1);
        let block = |(at, item): (usize, Read)| {
            let end = if at < last || bounded {
                item.end
            } else {
                item.paragraph_end
            };
            Block::plain(text, item.start..end, item.text.min(end)..end)
        };
        let blocks = self.items.into_iter().enumerate().map(block).collect();
        Some(Group {
            blocks,
            enclosed: false,
        })
    }
}
