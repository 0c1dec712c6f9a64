//! What is asked in a prompt that also holds chunks.

use std::ops::Range;

/// Most of a text that is taken as the question, in bytes: its end, where people put it.
const MAX_QUESTION: usize = 4096;

/// How lines that hold the question begin, in small letters.
const LABELS: [&str; 9] = [
    "question:",
    "query:",
    "user question:",
    "user query:",
    "user:",
    "human:",
    "input:",
    "q:",
    "<question>",
];

/// Fewest letters that a question has: what is shorter is a heading or `Answer:`.
const MIN_LETTERS: usize = 12;

/// The question in a text whose chunks stand within `chunks`: behind the last label that names it;
/// else what stands behind the chunks, or before them where that says nothing. Empty where nothing
/// is asked.
pub(super) fn question(text: &str, chunks: Option<Range<usize>>) -> String {
    let Some(chunks) = chunks else {
        return tail(text).to_owned();
    };
    let behind = text.get(chunks.end..).unwrap_or("");
    let before = text.get(..chunks.start).unwrap_or("");
    for part in [behind, before] {
        if let Some(found) = labelled(part) {
            return tail(found).to_owned();
        }
    }
    let says = |part: &&str| {
        part.chars()
            .filter(|c| c.is_alphabetic())
            .take(MIN_LETTERS)
            .count()
            == MIN_LETTERS
    };
    let found = [behind, before].into_iter().find(says);
    found.map_or_else(String::new, |part| tail(part.trim()).to_owned())
}

/// What is asked in several texts of one message, of which some ask nothing.
pub(super) fn joined(asked: &[String]) -> String {
    let asked: Vec<&str> = asked
        .iter()
        .map(|text| text.trim())
        .filter(|text| !text.is_empty())
        .collect();
    tail(&asked.join("\n")).to_owned()
}

/// What stands behind the last label, up to a line that asks for the answer.
fn labelled(part: &str) -> Option<&str> {
    let mut found = None;
    let mut at = 0;
    for line in part.split_inclusive('\n') {
        let bare = line.trim_start();
        let label = LABELS.iter().find(|label| {
            bare.get(..label.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(label))
        });
        if let Some(label) = label {
            found = Some(at + (line.len() - bare.len()) + label.len());
        }
        at += line.len();
    }
    let rest = part.get(found?..)?.trim();
    let rest = match rest.rsplit_once('\n') {
        Some((head, last)) if last.trim_end().ends_with(':') && last.len() < 40 => head,
        _ => rest,
    };
    Some(rest.trim()).filter(|rest| !rest.is_empty())
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(MAX_QUESTION);
    let start = (start..=text.len()).find(|at| text.is_char_boundary(*at));
    start.and_then(|start| text.get(start..)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        let start = text.find("CHUNK").unwrap();
        let end = text.rfind("CHUNK").unwrap() + 5;
        question(text, Some(start..end))
    }

    #[test]
    fn a_question_stands_behind_its_label_or_around_the_chunks() {
        for (text, expected) in [
            (
                "Use the context to answer the question at the end.\n\nCHUNK\n\nQuestion: What is covered?\nHelpful Answer:",
                "What is covered?",
            ),
            (
                "Context information is below.\n---\nCHUNK\n---\nGiven the context, answer the query.\nQuery: Who wrote it?\nAnswer: ",
                "Who wrote it?",
            ),
            (
                "CHUNK CHUNK\n\nWhich of these documents is the newest?",
                "Which of these documents is the newest?",
            ),
            (
                "Which of these documents is the newest?\n\nCHUNK\n\nAnswer:",
                "Which of these documents is the newest?",
            ),
            (
                "Question: Is it\non two lines?\n\nCHUNK",
                "Is it\non two lines?",
            ),
            ("CHUNK", ""),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        assert_eq!(question("What then?", None), "What then?");
    }

    #[test]
    fn a_long_question_is_known_by_its_end() {
        let long = format!("CHUNK {} ü?", "é".repeat(5000));
        let found = of(&long);
        assert!(
            found.len() <= MAX_QUESTION && found.ends_with("é ü?"),
            "{}",
            found.len()
        );
    }
}
