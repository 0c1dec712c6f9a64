//! A prompt's text without white space that says nothing.
//!
//! What goes, and why that is safe:
//! - white space at the ends of lines and of the text, and the `\r` of line ends: two spaces at a
//!   line's end are a line break in Markdown, and the line breaks anyway;
//! - of several blank lines all but one; in Markdown and in prose they part no more than one does;
//! - indentation that every line has (a prompt written inside a program), or every line but a
//!   first that is a sentence;
//! - the second space after a sentence;
//! - the padding of Markdown tables' cells, which is not theirs by the specification;
//! - white space between the tokens of JSON that stands alone in its lines.
//!
//! What stays as it is: code fences, `<pre>`, `<code>` and `<example>` (there white space may be
//! the point), the indentation of one line against another (lists, YAML, code), blank lines between
//! indented ones, and rules such as `=====`, because a prompt may speak of them as they stand.
//!
//! The same text gives the same text, and a minified one itself, so the provider's prefix cache
//! holds.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json;
use crate::policy::trim::sentences::Fence;

/// What is taken out may show more to take out, as where JSON became one line.
const ROUNDS: usize = 4;

/// Elements whose text is left alone.
const TAGS: &[(&str, &str)] = &[
    ("<pre", "</pre>"),
    ("<code", "</code>"),
    ("<example>", "</example>"),
    ("<example ", "</example>"),
];

/// The text, minified. Linear in its length.
#[must_use]
pub fn minify(text: &str) -> Cow<'_, str> {
    let mut now = Cow::Borrowed(text);
    for _ in 0..ROUNDS {
        let next = lines(&dedented(&now));
        if next.len() >= now.len() {
            break;
        }
        now = Cow::Owned(next);
    }
    now
}

/// Without the indentation that all lines have; a first one that is a sentence, and so no key that
/// the others hang on, need not: it follows the quotes of a program.
fn dedented(text: &str) -> Cow<'_, str> {
    let mut shared: Option<&str> = None;
    let first = text.lines().next().unwrap_or("");
    let apart = !first.starts_with([' ', '\t']) && first.trim_end().ends_with(['.', '!', '?']);
    let lines = text.lines().skip(usize::from(apart));
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let own = indentation(line);
        let common = shared.map_or(own, |shared| common(shared, own));
        shared = Some(common);
        if common.is_empty() {
            return Cow::Borrowed(text);
        }
    }
    let Some(shared) = shared.filter(|_| !has_verbatim(text)) else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        out.push_str(line.strip_prefix(shared).unwrap_or(line));
    }
    Cow::Owned(out)
}

/// Whether there is anything in which indentation may be the point.
fn has_verbatim(text: &str) -> bool {
    text.lines()
        .any(|line| Fence::of(line).is_some() || tag(line).is_some())
}

fn indentation(line: &str) -> &str {
    let end = line.len() - line.trim_start_matches([' ', '\t']).len();
    line.get(..end).unwrap_or("")
}

fn common<'a>(one: &'a str, other: &str) -> &'a str {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b);
    one.get(..same.count()).unwrap_or("")
}

/// What ends a stretch that is left alone.
enum Until {
    Fence(Fence),
    Tag(&'static str),
}

/// The element that a line opens and does not close; what closes it.
fn tag(line: &str) -> Option<&'static str> {
    let close = |&(open, close): &(&str, &'static str)| {
        let at = line.find(open)?;
        let closed = line.get(at..).is_some_and(|rest| rest.contains(close));
        (!closed).then_some(close)
    };
    TAGS.iter().find_map(close)
}

fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut verbatim: Option<Until> = None;
    let mut blank = 0_usize;
    let mut indented = false;
    // Bytes from the end at which JSON may be tried again: what is in brackets that hold none, or
    // that are never closed, is not tried bracket by bracket.
    let mut tries = usize::MAX;
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = next_line(rest);
        if let Some(until) = &verbatim {
            out.push_str(line);
            let ends = match until {
                Until::Fence(fence) => fence.is_closed_by(line),
                Until::Tag(close) => line.contains(close),
            };
            if ends {
                verbatim = None;
            }
            rest = after;
            continue;
        }
        if line.trim().is_empty() {
            blank += 1;
            rest = after;
            continue;
        }
        let is_indented = line.starts_with(['\t']) || line.starts_with("    ");
        let kept = match (out.is_empty(), indented && is_indented) {
            (true, _) => 0,
            (_, true) => blank,
            (_, false) => blank.min(1),
        };
        out.extend(std::iter::repeat_n('\n', kept));
        (blank, indented) = (0, is_indented);
        verbatim = Fence::of(line)
            .map(Until::Fence)
            .or_else(|| tag(line).map(Until::Tag));
        if verbatim.is_some() {
            out.push_str(line);
            rest = after;
            continue;
        }
        if let Some((block, after)) = json_block(rest, &mut tries) {
            out.push_str(&json::minify(block));
            out.push('\n');
            rest = after;
        } else if let Some((table, after)) = table(rest) {
            out.push_str(&table);
            rest = after;
        } else {
            let line = line.trim_end();
            out.push_str(&if is_indented {
                Cow::Borrowed(line)
            } else {
                single_spaced(line)
            });
            out.push('\n');
            rest = after;
        }
    }
    if verbatim.is_none() {
        out.truncate(out.trim_end().len());
    }
    out
}

/// The first line with its end, and what comes after it.
fn next_line(text: &str) -> (&str, &str) {
    let end = memchr::memchr(b'\n', text.as_bytes()).map_or(text.len(), |at| at + 1);
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// JSON of several lines that begins here and ends with a line, and what comes after it.
fn json_block<'a>(text: &'a str, tries: &mut usize) -> Option<(&'a str, &'a str)> {
    if text.len() > *tries || !text.starts_with(['{', '[']) {
        return None;
    }
    let end = json_end(text);
    *tries = end.map_or(0, |end| text.len() - end);
    let (block, after) = text.split_at_checked(end?)?;
    let (tail, after) = next_line(after);
    let several = block.contains('\n') && tail.trim().is_empty();
    let valid = several && serde_json::from_str::<&RawValue>(block).is_ok();
    valid.then_some((block, after))
}

/// Where the brackets that open here are closed, as far as counting tells.
fn json_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// A Markdown table that begins here, its cells without padding, and what comes after it. GitHub
/// Flavored Markdown, 4.10: cells are trimmed, and the delimiter row has as many as the header.
fn table(text: &str) -> Option<(String, &str)> {
    let (header, mut rest) = next_line(text);
    let (delimiters, _) = next_line(rest);
    let columns = cells(header)?.len();
    let delimiters = cells(delimiters)?;
    let is_delimiter = |cell: &&str| {
        let dashes = cell.trim_start_matches(':').trim_end_matches(':');
        !dashes.is_empty() && dashes.bytes().all(|byte| byte == b'-')
    };
    if delimiters.len() != columns || !delimiters.iter().all(is_delimiter) {
        return None;
    }
    let mut out = row(header, &cells(header)?, false);
    for number in 1.. {
        let (line, after) = next_line(rest);
        let Some(cells) = cells(line).filter(|cells| cells.len() == columns) else {
            break;
        };
        out.push_str(&row(line, &cells, number == 1));
        rest = after;
    }
    Some((out, rest))
}

/// A row of a table, where that is shorter.
fn row(line: &str, cells: &[&str], delimiters: bool) -> String {
    let mut out = String::from("|");
    for cell in cells {
        match delimiters {
            true => {
                let (left, right) = (cell.starts_with(':'), cell.ends_with(':'));
                out.push_str(if left { ":" } else { "" });
                out.push_str("---");
                out.push_str(if right { ":" } else { "" });
            }
            false => {
                out.push(' ');
                out.push_str(cell);
                out.push_str(if cell.is_empty() { "" } else { " " });
            }
        }
        out.push('|');
    }
    let line = line.trim_end();
    let mut out = if out.len() < line.len() {
        out
    } else {
        line.to_owned()
    };
    out.push('\n');
    out
}

/// The cells of a row that has a bar at each end; None for any other line.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim_end().strip_prefix('|')?.strip_suffix('|')?;
    let mut cells = Vec::new();
    let (mut from, mut escaped) = (0, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'|' if !escaped => {
                cells.push(inner.get(from..at)?.trim());
                from = at + 1;
            }
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    // A bar that is escaped ends no row.
    (!escaped).then_some(())?;
    cells.push(inner.get(from..)?.trim());
    Some(cells)
}

/// Prose with one space after each sentence. A line with code, quotes or columns is left alone.
fn single_spaced(line: &str) -> Cow<'_, str> {
    if !line.contains("  ") || line.contains(['`', '"', '\t', '|', '\'', '“']) {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut before = ' ';
    let mut spaces = false;
    for char in line.chars() {
        let second = char == ' ' && before == ' ' && spaces;
        if char == ' ' && before != ' ' {
            spaces = matches!(before, '.' | '!' | '?');
        }
        if !second {
            out.push(char);
        }
        before = char;
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prompt_written_inside_a_program_loses_what_the_program_added() {
        let text = "You are a helper.  Be kind.   \r\n\n\n\n    Rules:\n      - one  \n        - nested\n\n\n    Done.\n    ";
        assert_eq!(
            minify(text),
            "You are a helper. Be kind.\n\nRules:\n  - one\n    - nested\n\nDone."
        );
    }

    #[test]
    fn code_and_examples_are_left_alone() {
        for inside in [
            "```py\ndef f():  \n\n\n    return  1\n```",
            "~~~\n a  \n\n\n b\n~~~",
            "<pre>\n x  \n\n\n y\n</pre>",
            "<example id=\"1\">\nIn:  a  \n\n\nOut: b\n</example>",
            "a:\n    b: 1\n\n\n    c:   2",
            "=====\nA  B\n=====",
            "Say \"yes.  no\".",
            "{ \"not\": json,\n  \"at\" all }",
            "Fill in {name}.\n{\n  {{slot}}\n}",
        ] {
            assert_eq!(minify(inside), inside);
        }
    }

    #[test]
    fn json_that_stands_alone_is_written_short() {
        assert_eq!(
            minify("Answer so:\n{\n  \"a\": [1,  2],\n  \"b\": \"x  y\"\n}\nNothing else."),
            "Answer so:\n{\"a\":[1,2],\"b\":\"x  y\"}\nNothing else."
        );
        // Within a line it may be anything.
        assert_eq!(minify("See { \"a\": 1 } there."), "See { \"a\": 1 } there.");
    }

    #[test]
    fn tables_lose_their_padding() {
        assert_eq!(
            minify(
                "| Name    | Price |\n|:--------|------:|\n| a \\| b  | 1     |\n|         | 2     |\nend"
            ),
            "| Name | Price |\n|:---|---:|\n| a \\| b | 1 |\n| | 2 |\nend"
        );
        let none = "| a    | b |\n| c    | d |";
        assert_eq!(minify(none), none);
    }

    #[test]
    fn many_open_brackets_take_no_longer_than_they_are_long() {
        let open = "[\n".repeat(100_000);
        let closed = format!("{open}x\n{}", "]\n".repeat(100_000));
        for text in [open, closed] {
            assert_eq!(minify(&text).len(), text.len() - 1);
        }
    }

    /// Everything that is no white space, in order.
    fn ink(text: &str) -> String {
        text.chars().filter(|char| !char.is_whitespace()).collect()
    }

    proptest! {
        #[test]
        fn nothing_but_white_space_goes(text in "([ \t]{0,5}[a-z{}\\[\\]\"`.<>/|:#1-]{0,6}[ ]{0,3}\r?\n){0,12}") {
            let short = minify(&text);
            prop_assert!(short.len() <= text.len());
            let dashes = |text: &str| ink(text).replace('-', "");
            prop_assert_eq!(dashes(&short), dashes(&text));
        }

        #[test]
        fn what_is_minified_stays_as_it_is(text in "([ ]{0,5}[a-z{}\\[\\]\"`.,<>/|:1-]{0,6}[ ]{0,3}\r?\n){0,12}") {
            let once = minify(&text).into_owned();
            prop_assert_eq!(minify(&once), once.as_str());
        }

        #[test]
        fn any_text_is_minified_without_a_panic(text in any::<String>()) {
            prop_assert!(minify(&text).len() <= text.len());
        }
    }
}
