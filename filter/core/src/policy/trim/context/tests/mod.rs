//! Prompts as people build them, and prompts as nobody should.

mod given;
mod hostile;
mod prompts;
mod properties;

use super::filter::Filter;
use super::markers::{Array, Fence, List, Marker, Section, Split, Tag};
use super::*;
use crate::formats::{Format, OpenAiChat};

/// Scores by shared words; a token is a word.
#[derive(Default)]
pub(super) struct Words {
    /// What it was asked.
    pub(super) asked: Vec<(String, Rank, bool)>,
    /// Whether it knows meanings.
    pub(super) embeds: bool,
}

impl Judge for Words {
    fn scores(&mut self, ask: &Ask<'_>) -> Option<Vec<f32>> {
        self.asked
            .push((ask.question.to_owned(), ask.by, ask.current));
        if ask.by == Rank::Embeddings && !self.embeds {
            return None;
        }
        let words = |text: &str| -> Vec<String> {
            let words = text
                .split(|c: char| !c.is_alphanumeric())
                .map(str::to_lowercase);
            words.filter(|word| word.len() > 3).collect()
        };
        let asked = words(ask.question);
        let shared = |text: &&str| {
            words(text)
                .iter()
                .filter(|word| asked.contains(word))
                .count() as f32
        };
        Some(ask.chunks.iter().map(shared).collect())
    }

    fn tokens(&mut self, text: &str) -> u64 {
        text.split_whitespace().count() as u64
    }
}

pub(super) fn tag(name: &str) -> Marker {
    Marker::Tag(Tag {
        name: name.into(),
        inside: None,
        text: None,
    })
}

pub(super) fn top(k: usize, markers: Vec<Marker>) -> Policy {
    Policy {
        markers,
        top_k: Some(k),
        ..Policy::default()
    }
}

pub(super) fn split(by: &str, metadata: bool) -> Split {
    Split {
        by: by.into(),
        metadata,
    }
}

/// A chat request with one user message.
pub(super) fn chat(text: &str) -> String {
    serde_json::json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string()
}

/// The body after the policy.
pub(super) fn trimmed(format: &dyn Format, body: &str, policy: &Policy) -> String {
    let request = format.parse(body).unwrap();
    let found = Found::of(&request, Some(policy)).unwrap();
    found
        .choose(policy, &mut Words::default(), &[])
        .edits
        .apply(body)
}

/// The text of a user message after the policy.
pub(super) fn after(text: &str, policy: &Policy) -> String {
    let body = trimmed(&OpenAiChat, &chat(text), policy);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body["messages"][0]["content"].as_str().unwrap().to_owned()
}

/// What the chunks say.
pub(super) fn chunks(text: &str, markers: Vec<Marker>) -> Vec<String> {
    let body = chat(text);
    let request = OpenAiChat.parse(&body).unwrap();
    let found = Found::of(&request, Some(&top(1, markers))).unwrap();
    let chunks = found
        .retrievals
        .iter()
        .flat_map(|retrieval| &retrieval.chunks);
    chunks.map(|chunk| chunk.text.clone()).collect()
}
