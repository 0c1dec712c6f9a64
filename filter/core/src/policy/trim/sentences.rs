//! A text's sentences, in any script, for choosing among them: none is ever cut.
//!
//! Ends are those of Unicode's sentence terminals (UAX #29), less the full stops of abbreviations,
//! initials and numbers; lists, headings and table rows end with their line. A fenced code block is
//! one piece.

use std::ops::Range;

/// A piece of a text that is kept or left out whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// Where it stands, without white space around it.
    pub at: Range<usize>,
    /// It is code, a table or the like, not prose.
    pub verbatim: bool,
}

/// English, and what its business letters use of other languages; lower case, without the stop.
/// "etc" and units end sentences too, and what follows tells then.
const ABBREVIATIONS: &[&str] = &[
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "rev", "gen", "col", "lt", "sgt", "capt",
    "hon", "gov", "sen", "rep", "pres", "vs", "viz", "cf", "eg", "e.g", "ie", "i.e", "approx",
    "ca", "no", "nos", "nr", "fig", "figs", "eq", "sec", "ch", "vol", "pp", "ed", "eds", "al",
    "dept", "univ", "ext", "tel", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept",
    "oct", "nov", "dec", "bzw", "z.b", "d.h", "usw", "art", "abs", "mme", "mlle", "sra", "dra",
];

/// A line this long, in bytes, was perhaps wrapped rather than ended: most who wrap do so at 72 to
/// 100 columns.
const WRAPPED: usize = 60;

/// The sentences of a text, in order. Linear in its length.
#[must_use]
pub fn sentences(text: &str) -> Vec<Sentence> {
    let mut found = Vec::new();
    let mut fence: Option<(usize, Fence)> = None;
    let mut prose: Option<usize> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        if let Some((opened, mark)) = fence {
            if mark.is_closed_by(line) {
                push(text, opened..at, true, &mut found);
                fence = None;
            }
            continue;
        }
        let opens = Fence::of(line);
        let kind = Line::of(line);
        if opens.is_some() || kind != Line::Prose {
            // What is told by the line ends with it, and what ran on before it ends here.
            prose_of(text, prose.take(), start, &mut found);
        }
        match (opens, kind) {
            (Some(mark), _) => fence = Some((start, mark)),
            (None, Line::Blank) => {}
            (None, Line::Row) => push(text, start..at, true, &mut found),
            (None, Line::Alone) => prose_of(text, Some(start), at, &mut found),
            (None, Line::Item | Line::Prose) => prose = prose.or(Some(start)),
        }
    }
    prose_of(text, prose, at, &mut found);
    if let Some((opened, _)) = fence {
        push(text, opened..at, true, &mut found);
    }
    found
}

/// What a line is as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Blank,
    /// A heading or a rule: nothing goes on in the next line.
    Alone,
    /// A row of a table.
    Row,
    /// It starts an item of a list.
    Item,
    Prose,
}

impl Line {
    fn of(line: &str) -> Line {
        let text = line.trim();
        match text.as_bytes().first() {
            None => Line::Blank,
            Some(b'|') => Line::Row,
            Some(b'#') => Line::Alone,
            _ if is_rule(text) => Line::Alone,
            _ if list_mark(text).is_some() => Line::Item,
            _ => Line::Prose,
        }
    }
}

/// Whether a line is nothing but a repeated sign: a rule, or what underlines a heading.
fn is_rule(text: &str) -> bool {
    let mut signs = text.bytes().filter(|byte| *byte != b' ');
    let first = signs.next();
    matches!(first, Some(b'-' | b'=' | b'*' | b'_' | b'~' | b'+'))
        && text.len() >= 3
        && signs.all(|byte| Some(byte) == first)
}

/// Length of the mark that starts an item of a list: `- `, `* `, `• `, `1. `, `2) `, `(a) `.
pub(super) fn list_mark(text: &str) -> Option<usize> {
    let mark = text.find(char::is_whitespace)?;
    let word = text.get(..mark)?;
    let label = word.trim_start_matches('(').trim_end_matches(['.', ')']);
    let numbered = label.len() < word.len()
        && !label.is_empty()
        && label.len() <= 3
        && (label.bytes().all(|byte| byte.is_ascii_digit()) || label.len() == 1);
    (matches!(word, "-" | "*" | "+" | "•" | "–" | "—" | "·") || numbered).then_some(mark + 1)
}

/// A fence of Markdown: its sign and how often it stands there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fence(u8, usize);

impl Fence {
    /// The fence that a line opens.
    pub(super) fn of(line: &str) -> Option<Fence> {
        let text = line.trim_start();
        let sign = *text.as_bytes().first()?;
        let length = text.bytes().take_while(|byte| *byte == sign).count();
        let info = text.get(length..).unwrap_or("");
        // "```code``` in one line" is none.
        let fence = length >= 3 && (sign == b'~' || sign == b'`' && !info.contains('`'));
        fence.then_some(Fence(sign, length))
    }

    /// Whether a line closes it.
    pub(super) fn is_closed_by(self, line: &str) -> bool {
        let text = line.trim();
        text.len() >= self.1 && text.bytes().all(|byte| byte == self.0)
    }
}

fn push(text: &str, at: Range<usize>, verbatim: bool, found: &mut Vec<Sentence>) {
    let Some(piece) = text.get(at.clone()) else {
        return;
    };
    let start = at.start + piece.len() - piece.trim_start().len();
    let end = start + piece.trim().len();
    if start < end {
        found.push(Sentence {
            at: start..end,
            verbatim,
        });
    }
}

/// Splits running text from `start` to `end`.
fn prose_of(text: &str, start: Option<usize>, end: usize, found: &mut Vec<Sentence>) {
    let Some((start, prose)) = start.and_then(|start| Some((start, text.get(start..end)?))) else {
        return;
    };
    let skip = |from: usize| {
        let rest = prose.get(from..).unwrap_or("");
        from + rest.len() - rest.trim_start().len()
    };
    let mut from = skip(0);
    let mut line = 0;
    let mut chars = prose.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        let Some(kind) = Stop::of(char) else { continue };
        let mut after = at + char.len_utf8();
        if kind == Stop::Line {
            let wrapped = at - line >= WRAPPED;
            line = after;
            let rest = prose.get(after..).unwrap_or("");
            if goes_on(rest, wrapped) {
                continue;
            }
        }
        // "?!", "...", and the quotes and brackets that close with the sentence.
        while let Some(&(next, more)) = chars.peek() {
            let closes = is_closing(more) || Stop::of(more).is_some_and(|stop| stop != Stop::Line);
            if kind == Stop::Line || !closes {
                break;
            }
            after = next + more.len_utf8();
            chars.next();
        }
        let rest = prose.get(after..).unwrap_or("");
        let spaced = rest.is_empty() || rest.starts_with(char::is_whitespace);
        let ends = match kind {
            Stop::Wide | Stop::Line => true,
            Stop::Mark => spaced,
            Stop::Full => spaced && ends_at(prose.get(from..at).unwrap_or(""), rest),
        };
        if ends {
            push(text, start + from..start + after, false, found);
            from = skip(after);
        }
    }
    push(text, start + from..end, false, found);
}

/// What ends a sentence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// A full stop, which has other uses.
    Full,
    /// Other marks of scripts with spaces.
    Mark,
    /// Marks of scripts that set no space after them.
    Wide,
    /// The end of a line, perhaps.
    Line,
}

impl Stop {
    fn of(char: char) -> Option<Stop> {
        Some(match char {
            '.' => Stop::Full,
            '\n' => Stop::Line,
            // Latin; Arabic, Urdu; Devanagari; Armenian; Ethiopic; Burmese; Khmer.
            '!' | '?' | '…' | '؟' | '۔' | '।' | '॥' | '։' | '።' | '፧' | '፨' | '။' | '។' | '៕' => {
                Stop::Mark
            }
            '。' | '！' | '？' | '｡' | '．' | '‼' | '⁇' | '⁈' | '⁉' => Stop::Wide,
            _ => return None,
        })
    }
}

fn is_closing(char: char) -> bool {
    matches!(
        char,
        '"' | '\''
            | ')'
            | ']'
            | '}'
            | '”'
            | '’'
            | '»'
            | '」'
            | '』'
            | '）'
            | '】'
            | '》'
            | '*'
            | '_'
    )
}

/// Whether a sentence goes on in the next line: what was wrapped does, an item of a list, or a line
/// that begins anew, does not.
fn goes_on(rest: &str, wrapped: bool) -> bool {
    let rest = rest.trim_start();
    let first = rest.chars().next();
    list_mark(rest).is_none() && (wrapped || first.is_none_or(char::is_lowercase))
}

/// Whether a full stop after `before` ends a sentence that `rest` does not go on with.
fn ends_at(before: &str, rest: &str) -> bool {
    let next = rest.trim_start().chars().next();
    if next.is_some_and(char::is_lowercase) {
        return false;
    }
    let word = before.rsplit(char::is_whitespace).next().unwrap_or("");
    let word = word.trim_start_matches(|char: char| !char.is_alphanumeric());
    // The number of an item, or of a thing ("No. 5" is an abbreviation's).
    if before.len() == word.len() && word.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let mut letters = word.chars();
    let initial = letters.next().is_some_and(char::is_uppercase) && letters.next().is_none();
    // "J. Smith", but "vitamin C." ends where nothing with a capital follows.
    if initial && word != "I" && next.is_some_and(char::is_uppercase) {
        return false;
    }
    let longest = 6;
    word.len() > longest || !ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str) -> Vec<&str> {
        let found = sentences(text);
        found.iter().map(|one| &text[one.at.clone()]).collect()
    }

    #[test]
    fn prose_is_split_at_its_ends_and_nowhere_else() {
        let text = "Dr. J. Smith paid $3.50 on Jan. 5, e.g. for No. 7. Was it late?! \
                    \"Yes.\" He said so… Then it ended.";
        assert_eq!(
            split(text),
            [
                "Dr. J. Smith paid $3.50 on Jan. 5, e.g. for No. 7.",
                "Was it late?!",
                "\"Yes.\"",
                "He said so…",
                "Then it ended."
            ]
        );
    }

    #[test]
    fn scripts_without_spaces_have_sentences_too() {
        assert_eq!(
            split("我住在柏林。你呢？「好的！」他说。"),
            ["我住在柏林。", "你呢？", "「好的！」", "他说。"]
        );
        assert_eq!(split("मैं घर गया। वह आया।"), ["मैं घर गया।", "वह आया।"]);
        assert_eq!(split("ما اسمك؟ أنا علي."), ["ما اسمك؟", "أنا علي."]);
    }

    #[test]
    fn lists_headings_and_wrapped_lines_are_told_apart() {
        let text =
            "# Plan\nWe go\non foot.\n\n1. Pack the bag\n2. Leave at 9.30\n   sharp\n- then rest";
        assert_eq!(
            split(text),
            [
                "# Plan",
                "We go\non foot.",
                "1. Pack the bag",
                "2. Leave at 9.30\n   sharp",
                "- then rest"
            ]
        );
    }

    #[test]
    fn code_and_tables_are_pieces_of_their_own() {
        let text =
            "See:\n```rust\nfn a() {}\n\nlet b = 1. + 2.;\n```\n| a. | b |\n|---|---|\nDone.";
        let found = sentences(text);
        assert_eq!(found.len(), 5, "{:?}", split(text));
        let verbatim: Vec<_> = found.iter().map(|one| one.verbatim).collect();
        assert_eq!(verbatim, [false, true, true, true, false]);
        assert_eq!(split("a\n```\nnever closed. At all.").len(), 2);
    }

    proptest! {
        #[test]
        fn nothing_but_white_space_is_lost(text in "[a-zA-Z0-9 .!?\n`|#*。！é\u{300}-]{0,200}") {
            let found = sentences(&text);
            let mut at = 0;
            for one in &found {
                prop_assert!(at <= one.at.start && one.at.start < one.at.end);
                prop_assert!(text[at..one.at.start].trim().is_empty());
                at = one.at.end;
            }
            prop_assert!(text[at..].trim().is_empty());
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>()) {
            let _ = sentences(&text);
        }
    }
}
