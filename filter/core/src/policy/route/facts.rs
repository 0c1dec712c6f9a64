//! One pass over a bounded window of the request: what is there to see, counted.

use super::lexicon::Lexicon;
use super::rule::Hits;
use super::scan::{Grams, Scan, head};
use crate::formats::{Part, Request, Role};

/// Bytes read of the last user turn: its beginning (the task mostly stands there) and, of what
/// is longer, its end (where the question follows a document).
pub(super) const HEAD: usize = 3072;
pub(super) const TAIL: usize = 1024;

/// Bytes read of the system prompt.
const SYSTEM: usize = 512;

/// What the window shows. Counts are of the last user turn unless said otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Bytes of the last user turn in all, read or not.
    pub(super) bytes: f32,
    pub(super) words: f32,
    /// In words that are no numbers.
    pub(super) letters: f32,
    /// Words of more than eight letters.
    pub(super) long_words: f32,
    /// Words that begin with a capital.
    pub(super) capitals: f32,
    pub(super) lines: f32,
    pub(super) commas: f32,
    pub(super) quotes: f32,
    /// `__`, where a word is to be filled in.
    pub(super) blanks: f32,
    pub(super) brackets: f32,
    pub(super) numbers: f32,
    pub(super) sentences: f32,
    pub(super) questions: f32,
    pub(super) list_items: f32,
    /// Lines that begin `A.`, `B)`, `(C)`.
    pub(super) options: f32,
    /// Words and numbers before the first of them.
    pub(super) before_options: f32,
    pub(super) numbers_before_options: f32,
    /// `$5`, `20%`.
    pub(super) amounts: f32,
    /// `=`, `+`, `<`, `∑`, …
    pub(super) operators: f32,
    /// `\frac`, `\sum`, …
    pub(super) latex: f32,
    /// `{`, `;`, `()`, `::`, …
    pub(super) code_signs: f32,
    /// snake_case, camelCase.
    pub(super) identifiers: f32,
    pub(super) fences: f32,
    pub(super) indented: f32,
    /// Messages of user and assistant in all.
    pub(super) turns: f32,
    /// Bytes of all messages.
    pub(super) history_bytes: f32,
    pub(super) tool_results: f32,
    pub(super) tools: bool,
    pub(super) structured: bool,
    pub(super) media: f32,
    /// Bytes of the system prompt in all.
    pub(super) system_bytes: f32,
}

/// Reads the window of a request. Hits of the system prompt count like those of the user turn.
pub(super) fn of_request<G: Grams>(
    request: &Request<'_>,
    lexicon: &Lexicon,
    grams: G,
) -> (Facts, Hits, G) {
    let mut scan = Scan::new(lexicon, grams);
    let user = request.last_user();
    let texts: Vec<&str> = user
        .iter()
        .filter_map(|part| match part {
            Part::Text(text) => Some(text.escaped()),
            _ => None,
        })
        .collect();
    scan.window(&texts, true);
    let mut facts = std::mem::take(&mut scan.facts);
    facts.media = user
        .iter()
        .filter(|part| matches!(part, Part::Media(_)))
        .count() as f32;
    for message in &request.messages {
        match message.role {
            Role::Tool => facts.tool_results += 1.0,
            Role::User | Role::Assistant => facts.turns += 1.0,
        }
        facts.history_bytes += message.content.raw.len() as f32;
    }
    facts.tools = request.tools.is_some_and(|tools| tools.len() > 2);
    facts.structured = request.structured;
    let mut left = SYSTEM;
    for content in &request.system {
        for part in &content.parts {
            if let Part::Text(text) = part {
                let text = text.escaped();
                facts.system_bytes += text.len() as f32;
                let head = head(text, left);
                left -= head.len();
                scan.text(head, true);
            }
        }
    }
    (facts, scan.hits, scan.grams)
}

/// Reads the window of a bare prompt.
pub(super) fn of_prompt<G: Grams>(prompt: &str, lexicon: &Lexicon, grams: G) -> (Facts, Hits, G) {
    let mut scan = Scan::new(lexicon, grams);
    scan.window(&[prompt], false);
    scan.facts.turns = 1.0;
    scan.facts.history_bytes = prompt.len() as f32;
    (scan.facts, scan.hits, scan.grams)
}
