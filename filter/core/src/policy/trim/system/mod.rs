//! The system prompt: minified, with the few-shot examples that matter, and within its cap.
//!
//! In this order, each step only where it is configured:
//! 1. [`minify`](minify::minify): white space that says nothing goes;
//! 2. examples: the `top_k` that have most to do with the question stay, in their order;
//! 3. the cap: over it, more examples go, the least relevant first; then whole paragraphs, and of
//!    the last one that fits in part whole sentences, out of the middle (or from the end, as
//!    configured), where a mark says so. Never half a sentence: where not even one fits, the prompt
//!    goes as it is and is said to be [over](Shortened::over).
//!
//! Out of the middle, because who the model is stands at the beginning of a prompt and how to
//! answer at its end, and models heed both best (Liu et al., "Lost in the Middle", 2023).
//!
//! All but the choice of examples depends on the prompt alone, so that it stays the same from
//! request to request and the provider's prefix cache holds. Examples that are chosen anew for each
//! question void it from the first of them on: whoever turns that on should let the planner weigh
//! it.

mod cap;
pub mod examples;
pub mod minify;

use std::collections::BTreeSet;
use std::ops::Range;

use super::edits::leaving;
use super::splices::{Splices, escaped, span};
use super::turns::is_example_name;
use crate::formats::{Format, Item, Part, Request};
use crate::json::JsonStr;
pub use cap::Cut;
pub use examples::Marker;

/// What is done with system prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemPrompt {
    /// Most tokens of all system and developer messages of a request together.
    pub tokens: Option<u64>,
    /// Where it is cut.
    pub cut: Cut,
    /// White space is taken out.
    pub minify: bool,
    /// Few-shot examples.
    pub examples: Option<Examples>,
}

/// What is done with few-shot examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examples {
    /// Most that stay.
    pub top_k: usize,
    /// What marks them, besides the forms that are known.
    pub markers: Vec<Marker>,
}

/// Scores of texts, one each.
pub type Scores<'m> = &'m dyn Fn(&[&str]) -> Vec<f32>;

/// What measures a prompt.
#[derive(Clone, Copy)]
pub struct Measures<'m> {
    /// Tokens of a text.
    pub count: &'m dyn Fn(&str) -> u64,
    /// How much each of the texts has to do with the question, higher is more; without it the
    /// first are the best.
    pub scores: Option<Scores<'m>>,
}

impl std::fmt::Debug for Measures<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measures").finish_non_exhaustive()
    }
}

/// What became of a system prompt.
#[derive(Clone, Debug, Default)]
pub struct Shortened {
    /// The changes to the body; none where nothing is shorter.
    pub splices: Splices,
    /// Examples that were left out.
    pub examples: usize,
    /// The cap took text out: worth a warning, because its author did not mean that.
    pub cut: bool,
    /// It is over the cap still.
    pub over: bool,
}

/// Shortens the system prompt of a request, wherever its API has it.
#[must_use]
pub fn shorten(
    request: &Request<'_>,
    format: &dyn Format,
    plan: &SystemPrompt,
    measures: Measures<'_>,
) -> Shortened {
    let items = match plan.examples {
        Some(_) => format.conversation(request).map(|found| found.items),
        None => None,
    };
    let mut prompt = Prompt::of(request, items.as_deref().unwrap_or(&[]));
    if plan.minify {
        for text in &mut prompt.texts {
            text.now = minify::minify(&text.now).into_owned();
        }
    }
    let mut shortened = Shortened::default();
    if let Some(examples) = &plan.examples {
        prompt.find(&examples.markers);
        let least = match plan.tokens {
            Some(cap) => prompt.tokens(measures.count).saturating_sub(cap),
            None => 0,
        };
        shortened.examples = prompt.choose(examples.top_k, least, measures);
    }
    if let Some(cap) = plan.tokens
        && prompt.tokens(measures.count) > cap
    {
        shortened.cut = prompt.cut(cap, plan.cut, measures.count);
        shortened.over = !shortened.cut;
    }
    shortened.splices = prompt.splices(request.body);
    shortened
}

/// A text of a system prompt, as it came and as it is now.
struct Text<'a> {
    raw: JsonStr<'a>,
    now: String,
}

/// An example: in a text, or messages of its own.
struct Example {
    place: Place,
    /// What it says.
    text: String,
}

enum Place {
    /// A range of the text of that index.
    Text(usize, Range<usize>),
    /// Items of the conversation.
    Items(Range<usize>),
}

struct Prompt<'r, 'a> {
    texts: Vec<Text<'a>>,
    items: &'r [Item<'a>],
    /// Whether each item stays.
    stays: Vec<bool>,
    examples: Vec<Example>,
}

impl<'r, 'a> Prompt<'r, 'a> {
    fn of(request: &Request<'a>, items: &'r [Item<'a>]) -> Prompt<'r, 'a> {
        // Examples in messages of their own are no text of the prompt, whatever their role.
        let front = items.iter().take(before(items));
        let apart = front.filter(|item| is_example(item));
        let apart: BTreeSet<_> = apart.map(|item| item.content.raw.as_ptr()).collect();
        let own = request
            .system
            .iter()
            .filter(|content| !apart.contains(&content.raw.as_ptr()));
        let texts = own.flat_map(|content| &content.parts).filter_map(text);
        Prompt {
            texts: texts.collect(),
            stays: vec![true; items.len()],
            items,
            examples: Vec::new(),
        }
    }

    /// Finds the examples, in the messages in front and in the texts.
    fn find(&mut self, markers: &[Marker]) {
        let front = before(self.items);
        let mut at = 0;
        while at < front {
            let one = self.items.get(at..front).unwrap_or(&[]);
            let (asks, answers) = example_of(one);
            let length = asks + answers;
            if asks > 0 && answers > 0 {
                let texts = one.iter().take(length).flat_map(|item| &item.content.parts);
                let texts: Vec<_> = texts.filter_map(text).map(|text| text.now).collect();
                self.examples.push(Example {
                    place: Place::Items(at..at + length),
                    text: texts.join("\n"),
                });
            }
            at += length.max(1);
        }
        for (index, text) in self.texts.iter().enumerate() {
            for at in examples::examples(&text.now, markers) {
                self.examples.push(Example {
                    text: text.now.get(at.clone()).unwrap_or("").to_owned(),
                    place: Place::Text(index, at),
                });
            }
        }
    }

    /// Leaves out all but the best `top_k` examples, and more of the worst until they make up for
    /// `least` tokens; says how many.
    fn choose(&mut self, top_k: usize, least: u64, measures: Measures<'_>) -> usize {
        let texts: Vec<&str> = self.examples.iter().map(|one| one.text.as_str()).collect();
        if texts.len() <= top_k && least == 0 || texts.is_empty() {
            return 0;
        }
        let scores = measures
            .scores
            .map_or_else(Vec::new, |scores| scores(&texts));
        let score = |at: usize| scores.get(at).copied().unwrap_or(0.0);
        let mut order: Vec<usize> = (0..texts.len()).collect();
        // Worst first; of equals the later.
        order.sort_by(|one, other| {
            let by_score = score(*one).total_cmp(&score(*other));
            by_score.then(other.cmp(one))
        });
        let surplus = texts.len().saturating_sub(top_k);
        let mut gone = vec![false; texts.len()];
        let mut saved = 0;
        for (number, at) in order.into_iter().enumerate() {
            if number >= surplus && saved >= least {
                break;
            }
            // Only what stands in the prompt's own text makes it shorter.
            if let Some(Example {
                place: Place::Text(..),
                text,
            }) = self.examples.get(at)
            {
                saved += (measures.count)(text);
            } else if number >= surplus {
                continue;
            }
            if let Some(gone) = gone.get_mut(at) {
                *gone = true;
            }
        }
        let mut ranges: Vec<Vec<Range<usize>>> = self.texts.iter().map(|_| Vec::new()).collect();
        for (example, _) in self.examples.iter().zip(&gone).filter(|(_, gone)| **gone) {
            match &example.place {
                Place::Items(items) => {
                    let stays = self.stays.get_mut(items.clone()).unwrap_or(&mut []);
                    stays.fill(false);
                }
                Place::Text(text, at) => {
                    if let Some(ranges) = ranges.get_mut(*text) {
                        ranges.push(at.clone());
                    }
                }
            }
        }
        for (text, ranges) in self.texts.iter_mut().zip(ranges) {
            if !ranges.is_empty() {
                text.now = without(&text.now, &ranges);
            }
        }
        gone.iter().filter(|gone| **gone).count()
    }

    fn tokens(&self, count: &dyn Fn(&str) -> u64) -> u64 {
        self.texts.iter().map(|text| count(&text.now)).sum()
    }

    /// Cuts to the cap; false, and no change, where not even a sentence fits.
    fn cut(&mut self, tokens: u64, place: Cut, count: &dyn Fn(&str) -> u64) -> bool {
        let texts: Vec<&str> = self.texts.iter().map(|text| text.now.as_str()).collect();
        let Some(cut) = cap::cut(&texts, tokens, place, count) else {
            return false;
        };
        for (text, cut) in self.texts.iter_mut().zip(cut) {
            text.now = cut;
        }
        true
    }

    /// The changes to the body.
    fn splices(&self, body: &str) -> Splices {
        let mut splices = Splices::default();
        if self.stays.contains(&false) {
            splices.extend(leaving(body, self.items, &self.stays));
        }
        for text in &self.texts {
            // An empty text is refused by some APIs.
            if text.now.len() < text.raw.text_len()
                && !text.now.is_empty()
                && let Some(at) = span(body, text.raw.raw())
            {
                splices.replace(at, format!("\"{}\"", escaped(&text.now)));
            }
        }
        splices
    }
}

fn text<'a>(part: &Part<'a>) -> Option<Text<'a>> {
    match part {
        Part::Text(raw) => Some(Text {
            raw: *raw,
            now: raw.text().into_owned(),
        }),
        _ => None,
    }
}

/// How many items stand before what was said for the first time: system messages and examples.
fn before(items: &[Item<'_>]) -> usize {
    let first = items
        .iter()
        .position(|item| !(item.stays() || is_example(item)));
    first.unwrap_or(items.len())
}

fn is_example(item: &Item<'_>) -> bool {
    item.name.as_deref().is_some_and(is_example_name)
}

/// How many items ask and how many answer in the example that begins here; of one that calls tools
/// nobody knows where it ends.
fn example_of(items: &[Item<'_>]) -> (usize, usize) {
    let run = |from: usize, name: &str| {
        let items = items.iter().skip(from);
        let own = |item: &&Item<'_>| item.name.as_deref() == Some(name) && item.ties.is_empty();
        items.take_while(own).count()
    };
    let asks = run(0, "example_user");
    (asks, run(asks, "example_assistant"))
}

/// A text without some ranges, which are in order, and the blank lines after each.
fn without(text: &str, ranges: &[Range<usize>]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    for at in ranges {
        let done = text.len() - rest.len();
        let Some(before) = at.start.checked_sub(done).and_then(|end| rest.get(..end)) else {
            // It lies in the blank lines after the one before, as none does.
            continue;
        };
        out.push_str(before);
        if !(out.is_empty() || out.ends_with('\n')) {
            out.push('\n');
        }
        rest = text
            .get(at.end..)
            .unwrap_or("")
            .trim_start_matches(['\n', '\r']);
    }
    out.push_str(rest);
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests;
