//! XML-like tags: `<document index="1">…</document>`, as Anthropic advises.
//!
//! Tags are told by their names alone; the rest of the text need not be XML. Where the named tags
//! do not balance, nothing is found: a chunk that holds its own end tag cannot move the border.

use std::ops::Range;

use super::{Block, Group, MAX_CHUNKS, grouped, trimmed};
use crate::policy::trim::context::metadata::Metadata;

/// Longest start tag, in bytes.
const MAX_TAG: usize = 4096;
/// Most inner elements of a chunk that are read.
const MAX_CHILDREN: usize = 64;

/// Which tags.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// Name of a chunk's tag.
    pub name: String,
    /// Name of the tag that must enclose them.
    pub inside: Option<String>,
    /// Name of the inner tag that holds what the chunk says; other inner elements are metadata.
    pub text: Option<String>,
}

/// An element: its start tag's inside after the name, its content, and all of it.
struct Element {
    attributes: Range<usize>,
    content: Range<usize>,
    whole: Range<usize>,
}

impl Tag {
    pub(super) fn find(&self, text: &str) -> Option<Vec<Group>> {
        let regions: Vec<Range<usize>> = match &self.inside {
            Some(name) => elements(text, 0..text.len(), name)?
                .into_iter()
                .map(|one| one.content)
                .collect(),
            None => std::iter::once(0..text.len()).collect(),
        };
        let mut groups = Vec::new();
        for region in regions {
            let elements = elements(text, region, &self.name)?;
            let blocks = elements
                .iter()
                .map(|element| self.block(text, element))
                .collect();
            groups.extend(grouped(text, blocks, self.inside.is_some()));
        }
        Some(groups)
    }

    fn block(&self, text: &str, element: &Element) -> Block {
        let mut block = Block::plain(text, element.whole.clone(), element.content.clone());
        attributes(
            text.get(element.attributes.clone()).unwrap_or(""),
            &mut block.metadata,
        );
        let Some(name) = &self.text else {
            return block;
        };
        let inner = elements(text, element.content.clone(), name);
        if let Some(inner) = inner.as_ref().and_then(|list| list.first()) {
            block.inner = Some(trimmed(text, inner.content.clone()));
            for around in [
                element.content.start..inner.whole.start,
                inner.whole.end..element.content.end,
            ] {
                children(text.get(around).unwrap_or(""), &mut block.metadata);
            }
        }
        block
    }
}

/// The outermost elements of that name in `range`. None where its tags do not balance, or there are
/// too many.
fn elements(text: &str, range: Range<usize>, name: &str) -> Option<Vec<Element>> {
    let part = text.get(range.clone())?;
    let mut found: Vec<Element> = Vec::new();
    let mut depth = 0_usize;
    let mut open = (0..0, 0);
    for at in memchr::memchr_iter(b'<', part.as_bytes()) {
        let rest = part.get(at + 1..)?;
        let (closes, rest) = rest
            .strip_prefix('/')
            .map_or((false, rest), |rest| (true, rest));
        let Some(after) = rest
            .strip_prefix(name)
            .filter(|after| !after.starts_with(is_name))
        else {
            continue;
        };
        let start = range.start + (part.len() - after.len());
        if closes {
            depth = depth.checked_sub(1)?;
            let end = start + (after.len() - after.trim_start().strip_prefix('>')?.len());
            if depth == 0 {
                let (attributes, whole) = open.clone();
                let content = attributes.end + 1..range.start + at;
                found.push(Element {
                    attributes,
                    content,
                    whole: whole..end,
                });
                if found.len() > MAX_CHUNKS {
                    return None;
                }
            }
            continue;
        }
        let len = tag_end(after)?;
        if after.get(..len)?.ends_with('/') {
            continue;
        }
        if depth == 0 {
            open = (start..start + len, range.start + at);
        }
        depth += 1;
    }
    (depth == 0).then_some(found)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || "_-.:".contains(c)
}

/// Where the `>` of a start tag stands, quotes skipped.
fn tag_end(after: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in after.bytes().enumerate().take(MAX_TAG) {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

/// `name="value"`, `name='value'`, `name=value`.
fn attributes(mut rest: &str, into: &mut Metadata) {
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim().rsplit(char::is_whitespace).next().unwrap_or("");
        let after = after.trim_start();
        let (value, left) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => after
                .get(1..)
                .and_then(|inner| inner.split_once(quote))
                .unwrap_or(("", "")),
            _ => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        if !name.is_empty() {
            into.set_text(name, &unescaped(value));
        }
        rest = left;
    }
}

/// XML's five entities undone.
fn unescaped(value: &str) -> String {
    if !value.contains('&') {
        return value.to_owned();
    }
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ]
    .into_iter()
    .fold(value.to_owned(), |text, (entity, plain)| {
        text.replace(entity, plain)
    })
}

/// Elements without elements in them, as metadata: `<source>a.pdf</source>`.
fn children(text: &str, into: &mut Metadata) {
    let mut rest = text;
    for _ in 0..MAX_CHILDREN {
        let Some((_, after)) = rest.split_once('<') else {
            return;
        };
        rest = after;
        let Some((name, content)) = after.split_once('>') else {
            return;
        };
        let Some((value, end)) = content.split_once('<') else {
            return;
        };
        let closed = end.strip_prefix('/').and_then(|end| end.strip_prefix(name));
        if let Some(left) = closed.and_then(|end| end.strip_prefix('>'))
            && name.chars().all(is_name)
        {
            into.set_text(name, &unescaped(value.trim()));
            rest = left;
        }
    }
}
