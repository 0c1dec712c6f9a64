//! The chunks of one message, and what that message asks.

use std::borrow::Cow;
use std::rc::Rc;

use super::markers::{self, Group, MAX_CHUNKS, Marker};
use super::{Chunk, question};
use crate::formats::{Content, Request, Role};
use crate::json::JsonStr;
use crate::policy::trim::spoken::texts;

/// The chunks of one message, or of the request's own field.
#[derive(Clone, Debug)]
pub struct Retrieval<'a> {
    /// Names the message by its bytes.
    pub message: u64,
    /// It is what the current turn is about.
    pub current: bool,
    /// What is asked.
    pub question: Rc<str>,
    /// In the order of the text.
    pub chunks: Vec<Chunk>,
    /// Where they stand; nowhere, where they were given.
    pub(super) texts: Vec<Text<'a>>,
}

/// A text with chunks in it.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    pub(super) string: JsonStr<'a>,
    pub(super) text: Cow<'a, str>,
    pub(super) groups: Vec<Group>,
    /// Index of its first chunk in the retrieval.
    pub(super) first: usize,
}

impl<'a> Retrieval<'a> {
    /// The chunks of a content, where it has any. `asked` makes of what the content asks itself
    /// (maybe nothing) the question, and says whether that is the current one.
    pub(super) fn of(
        content: &Content<'a>,
        markers: &[Marker],
        asked: impl FnOnce(String) -> (Rc<str>, bool),
    ) -> Option<Retrieval<'a>> {
        let mut chunks = Vec::new();
        let mut texts = Vec::new();
        let mut own = Vec::new();
        for mut text in read(content, markers) {
            own.push(text.asks());
            text.first = chunks.len();
            for block in text.groups.iter_mut().flat_map(|group| &mut group.blocks) {
                let says = match &block.inner {
                    Some(inner) => text.text.get(inner.clone()).unwrap_or("").to_owned(),
                    None => std::mem::take(&mut block.text),
                };
                chunks.push(Chunk::new(says, std::mem::take(&mut block.metadata)));
            }
            if text.first < chunks.len() {
                texts.push(text);
            }
        }
        if chunks.is_empty() || chunks.len() > MAX_CHUNKS {
            return None;
        }
        let (question, current) = asked(question::joined(&own));
        Some(Retrieval {
            message: key(content.raw),
            current,
            question,
            chunks,
            texts,
        })
    }
}

impl Text<'_> {
    /// What is asked around its chunks.
    fn asks(&self) -> String {
        let ends = self.groups.first().zip(self.groups.last());
        let chunks = ends.map(|(first, last)| first.extent().start..last.extent().end);
        question::question(&self.text, chunks)
    }
}

/// The texts of a content with their chunks.
fn read<'a>(content: &Content<'a>, markers: &[Marker]) -> impl Iterator<Item = Text<'a>> {
    texts(content).into_iter().map(|string| {
        let text = string.text();
        let groups = markers::find(markers, &text);
        Text {
            string,
            text,
            groups,
            first: 0,
        }
    })
}

/// What the user message at `at` asks, around its chunks; empty where it only brings them.
pub(super) fn asked(request: &Request<'_>, markers: &[Marker], at: usize) -> String {
    let texts = request
        .messages
        .get(at)
        .map(|message| read(&message.content, markers));
    let own: Vec<String> = texts
        .into_iter()
        .flatten()
        .map(|text| text.asks())
        .collect();
    question::joined(&own)
}

/// The user message after the one at `at`: where one message brings chunks, the next one asks.
pub(super) fn next_user(request: &Request<'_>, at: usize) -> Option<usize> {
    let behind = request.messages.iter().enumerate().skip(at + 1);
    let mut users = behind.filter(|(_, message)| message.role == Role::User);
    users.next().map(|(at, _)| at)
}

/// Names a message, or the field.
pub(super) fn key(raw: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(raw.as_bytes())
}
