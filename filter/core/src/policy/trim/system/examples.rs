//! Few-shot examples in a system prompt: where each begins and ends.
//!
//! An example whose end nobody can tell is none: what comes after it may be what the prompt wants
//! most.

use std::ops::Range;

use crate::policy::trim::sentences::Fence;

/// What stands around an example, literally.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Marker {
    /// In front of it.
    pub open: String,
    /// Behind it.
    pub close: String,
}

/// What an example is called where it is numbered.
const HEADS: &[&str] = &[
    "example",
    "beispiel",
    "exemple",
    "ejemplo",
    "esempio",
    "exemplo",
    "voorbeeld",
    "пример",
    "示例",
    "例子",
    "例",
];

/// What is asked and what is answered, as prompts call it.
const LABELS: &[(&str, &str)] = &[
    ("input", "output"),
    ("q", "a"),
    ("question", "answer"),
    ("user", "assistant"),
    ("human", "assistant"),
    ("human", "ai"),
    ("customer", "agent"),
    ("query", "response"),
    ("prompt", "response"),
    ("text", "label"),
    ("sentence", "label"),
    ("eingabe", "ausgabe"),
    ("frage", "antwort"),
    ("entrée", "sortie"),
    ("pregunta", "respuesta"),
    ("вопрос", "ответ"),
    ("输入", "输出"),
    ("问", "答"),
];

/// The examples of a text, in order, apart from each other: of the first kind of which there are
/// two. One alone is none to choose from. Linear in the text for each marker.
#[must_use]
pub fn examples(text: &str, markers: &[Marker]) -> Vec<Range<usize>> {
    let marked = markers
        .iter()
        .map(|marker| between(text, &marker.open, &marker.close));
    let tagged = [("<example>", "</example>"), ("<example ", "</example>")];
    let tagged = tagged
        .iter()
        .map(|(open, close)| between(text, open, close));
    let lines = lines(text);
    let mut kinds = marked
        .chain(tagged)
        .chain([headed(&lines)])
        .chain(LABELS.iter().map(|labels| labelled(&lines, *labels)));
    kinds.find(|found| found.len() > 1).unwrap_or_default()
}

/// What stands between two marks, marks included.
fn between(text: &str, open: &str, close: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    if open.is_empty() || close.is_empty() {
        return found;
    }
    let find = |from: usize, what: &str| Some(from + text.get(from..)?.find(what)?);
    while let Some(start) = find(at, open) {
        let Some(end) = find(start + open.len(), close) else {
            break;
        };
        at = end + close.len();
        found.push(start..at);
    }
    found
}

/// A line of a text that is in no code fence.
struct Line<'a> {
    at: Range<usize>,
    text: &'a str,
    fenced: bool,
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut fence: Option<Fence> = None;
    let mut at = 0;
    let line = |raw: &'_ str| {
        let start = at;
        at += raw.len();
        let was = fence;
        fence = match fence {
            Some(open) if open.is_closed_by(raw) => None,
            Some(open) => Some(open),
            None => Fence::of(raw),
        };
        (start..at, was.or(fence).is_some())
    };
    let placed: Vec<_> = text.split_inclusive('\n').map(line).collect();
    let all = placed.into_iter().map(|(at, fenced)| Line {
        text: text.get(at.clone()).unwrap_or("").trim(),
        at,
        fenced,
    });
    all.collect()
}

/// Examples under numbered heads: "Example 1:", "### Example 2", "**Beispiel 3**". Each goes to the
/// next head or heading; the last, where no heading ends it, is as many paragraphs as those before
/// it are, and none where they differ.
fn headed(lines: &[Line<'_>]) -> Vec<Range<usize>> {
    let heads: Vec<usize> = (0..lines.len())
        .filter(|at| {
            lines
                .get(*at)
                .is_some_and(|line| !line.fenced && is_head(line.text))
        })
        .collect();
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut sizes: Vec<usize> = Vec::new();
    for (number, &head) in heads.iter().enumerate() {
        let level = lines.get(head).map_or(0, |line| heading(line.text));
        let next = heads.get(number + 1).copied();
        let within = lines
            .get(head + 1..next.unwrap_or(lines.len()))
            .unwrap_or(&[]);
        let ends = within.iter().position(|line| {
            let own = heading(line.text);
            !line.fenced && own > 0 && (level == 0 || own <= level)
        });
        let within = within.get(..ends.unwrap_or(within.len())).unwrap_or(&[]);
        let size = match (next.or(ends), sizes.as_slice()) {
            (Some(_), _) => within.len(),
            (None, [first, rest @ ..]) if rest.iter().all(|size| size == first) => {
                lines_of(within, *first)
            }
            (None, _) => continue,
        };
        let within = within.get(..size).unwrap_or(&[]);
        sizes.push(paragraphs(within));
        let end = within.iter().rev().find(|line| !line.text.is_empty());
        if let (Some(first), Some(last)) = (lines.get(head), end) {
            found.push(first.at.start..last.at.end);
        }
    }
    found
}

fn is_head(line: &str) -> bool {
    let line = line
        .trim_start_matches(['#', '*', '_', ' ', '[', '('])
        .to_lowercase();
    HEADS.iter().any(|head| {
        let Some(rest) = line.strip_prefix(head) else {
            return false;
        };
        let rest = rest.trim_start_matches([' ', '#', '_', '-']);
        let number = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letter = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_lowercase())
                .len();
        let label = if number > 0 { number } else { letter };
        let after = rest.get(label..).unwrap_or("").trim_end();
        // "Example 1 shows" is no head, nor is "examples".
        (number > 0 || letter == 1)
            && (after.trim_start_matches(['*', '_', ']', ')']).is_empty()
                || after.starts_with([':', '.', ')', ']', '*', '-', '：']))
    })
}

/// The level of a Markdown heading; 0 for any other line.
fn heading(line: &str) -> usize {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    match line.get(level..).is_some_and(|rest| rest.starts_with(' ')) && level <= 6 {
        true => level,
        false => 0,
    }
}

/// Paragraphs in lines; a fence is in one.
fn paragraphs(lines: &[Line<'_>]) -> usize {
    let mut count = 0;
    let mut inside = false;
    for line in lines {
        let blank = line.text.is_empty() && !line.fenced;
        count += usize::from(!blank && !inside);
        inside = !blank;
    }
    count
}

/// How many lines so many paragraphs take.
fn lines_of(lines: &[Line<'_>], wanted: usize) -> usize {
    let full = |end: &usize| paragraphs(lines.get(..*end).unwrap_or(&[])) > wanted;
    // Paragraphs do not get fewer with more lines.
    let (mut low, mut high) = (0, lines.len() + 1);
    while low < high {
        let middle = (low + high) / 2;
        match full(&middle) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low.saturating_sub(1)
}

/// Examples as pairs of labels: "Input: …", "Output: …". Each goes from the one label to the blank
/// line after the other. A pair whose answer is empty is a place to fill in.
fn labelled(lines: &[Line<'_>], (asks, answers): (&str, &str)) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut pair: Option<Pair> = None;
    for line in lines {
        let says = |label: &str| (!line.fenced).then(|| labels(line.text, label)).flatten();
        let blank = line.text.is_empty() && !line.fenced;
        if says(asks).is_some() {
            found.extend(pair.take().and_then(Pair::done));
            pair = Some(Pair {
                start: line.at.start,
                end: None,
                answered: false,
            });
        } else if let Some(open) = &mut pair {
            let answer = says(answers).filter(|_| open.end.is_none());
            if let Some(answer) = answer {
                (open.end, open.answered) = (Some(line.at.end), !answer.is_empty());
            } else if open.end.is_some() && blank {
                found.extend(pair.take().and_then(Pair::done));
            } else if open.end.is_some() {
                (open.end, open.answered) = (Some(line.at.end), true);
            }
        }
    }
    found.extend(pair.and_then(Pair::done));
    found
}

/// A pair of labels that is being read.
struct Pair {
    start: usize,
    /// End of the last line that is of the answer.
    end: Option<usize>,
    answered: bool,
}

impl Pair {
    fn done(self) -> Option<Range<usize>> {
        let end = self.end.filter(|_| self.answered)?;
        Some(self.start..end)
    }
}

/// What a line says after a label.
fn labels<'a>(line: &'a str, label: &str) -> Option<&'a str> {
    let line = line.trim_start_matches(['*', '_', '-', '#', '>', ' ']);
    let head = line.get(..label.len())?;
    if head.to_lowercase() != label {
        return None;
    }
    let rest = line.get(label.len()..)?.trim_start_matches(['*', '_', ' ']);
    let rest = rest.strip_prefix(':').or_else(|| rest.strip_prefix('：'))?;
    Some(rest.trim_start_matches(['*', '_', ' ']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let found = examples(text, &[]);
        found.iter().map(|at| text[at.clone()].trim_end()).collect()
    }

    #[test]
    fn tags_hold_examples() {
        assert_eq!(
            found("A\n<examples>\n<example>1\n\n1</example>\n<example>2</example>\n</examples>\nB"),
            ["<example>1\n\n1</example>", "<example>2</example>"]
        );
        assert_eq!(
            found("<example id=\"a\">1</example><example id=\"b\">2</example> <example "),
            [
                "<example id=\"a\">1</example>",
                "<example id=\"b\">2</example>"
            ]
        );
        assert!(found("one <example>alone</example>").is_empty());
    }

    #[test]
    fn markers_of_the_config_come_first() {
        let marker = Marker {
            open: "--- sample".into(),
            close: "--- end".into(),
        };
        let text = "--- sample a\n--- end\n--- sample b\n--- end\nInput: x\nOutput: y\n\nInput: x\nOutput: y";
        let found = examples(text, &[marker]);
        assert_eq!(found, [0..20, 21..41]);
    }

    #[test]
    fn heads_go_to_the_next_one_and_the_last_is_like_the_others() {
        let text = "Be brief.\n\nExample 1:\nIn\n\nOut\n\nExample 2:\nIn\n\nOut\n\nExample 3:\nIn\n\nOut\n\nNever swear.";
        assert_eq!(
            found(text),
            vec![
                "Example 1:\nIn\n\nOut",
                "Example 2:\nIn\n\nOut",
                "Example 3:\nIn\n\nOut"
            ]
        );
        // Nobody can tell where the last one ends.
        let text =
            "Example 1:\nIn\n\nExample 2:\nIn\n\nOut\n\nExample 3:\nIn\n\nOut\n\nNever swear.";
        assert_eq!(found(text), ["Example 1:\nIn", "Example 2:\nIn\n\nOut"]);
        let text = "## Example A\n### Input\nx\n## Example B\ny\n\nz\n# Rules\nNever swear.";
        assert_eq!(
            found(text),
            ["## Example A\n### Input\nx", "## Example B\ny\n\nz"]
        );
        assert!(found("Example 1 shows how.\nExamples:\nExample 2 too.").is_empty());
    }

    #[test]
    fn labelled_pairs_end_with_their_answer() {
        let text = "Classify.\n\nInput: a\nOutput: b\n\nInput: c\nd\nOutput:\ne\n\nAnswer in one word.\n\nInput: {x}\nOutput:";
        assert_eq!(
            found(text),
            ["Input: a\nOutput: b", "Input: c\nd\nOutput:\ne"]
        );
        assert_eq!(
            found("**Q:** a\n**A:** b\n**Q:** c\n**A:** d\n"),
            ["**Q:** a\n**A:** b", "**Q:** c\n**A:** d"]
        );
        assert!(found("```\nInput: a\nOutput: b\n\nInput: a\nOutput: b\n```").is_empty());
    }

    proptest! {
        #[test]
        fn examples_are_apart_and_in_order(
            text in "((Example [1-3]:|Input: |Output: |<example>|</example>|#|```| |[a-c])\n?\n?){0,24}"
        ) {
            let mut at = 0;
            for one in examples(&text, &[]) {
                prop_assert!(at <= one.start && one.start < one.end);
                prop_assert!(text.get(one.clone()).is_some());
                at = one.end;
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>()) {
            let _ = examples(&text, &[]);
        }
    }
}
