//! Named templates: how a prompt is built from a fixed system text, retrieved chunks, what was said
//! before, and the question.
//!
//! What never changes stands first, so that a provider finds it in its cache. The user's text is a
//! frame around the question: what stands before the slot goes in front of the last user message,
//! what stands behind it goes to its end, and not a byte of the message itself changes. What fills a
//! slot is data: braces in it mean nothing.
//!
//! Memory is what is left of the conversation's past. It stays in messages, with its roles, its tool
//! calls and the provider's cached prefix; only where the slot [`Slot::Memory`] stands in the
//! user's text is it told there instead, and then only where it is nothing but text.

#[cfg(test)]
mod tests;

use std::ops::Range;

use rustc_hash::FxHashSet;
use serde::Deserialize;
use sluice_wire::Over;

use super::splices::{Splices, cuts, escaped, span};
use super::spoken::texts;
use crate::formats::{Content, Format, Message, Request, Role, SystemPlace};
use crate::json;

/// A template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// The system's text.
    pub system: Option<String>,
    /// What stands around the question.
    pub user: Frame,
    /// Most tokens of what fills a slot.
    pub limits: SlotLimits,
    /// What becomes of the client's own system prompt, where the template has one.
    pub client_system: ClientSystem,
    /// What happens to a question over its limit.
    pub over: Over,
}

/// Most tokens of what fills a slot; None: as many as there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotLimits {
    /// Chunks: those that do not fit are dropped, each whole.
    pub context: Option<u64>,
    /// The conversation's past: the oldest exchanges are dropped, each whole.
    pub memory: Option<u64>,
    /// The question, of which nothing is ever dropped.
    pub question: Option<u64>,
}

/// What becomes of the client's own system prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientSystem {
    /// It stays, behind the template's.
    #[default]
    Keep,
    /// It goes.
    Drop,
}

/// What stands around the question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    before: Vec<Piece>,
    behind: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Slot(Slot),
}

/// What is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `{{context}}`: retrieved chunks.
    Context,
    /// `{{memory}}`: what was said before.
    Memory,
    /// `{{question}}`: what the last user message says.
    Question,
}

impl Slot {
    /// As it is written.
    pub const ALL: [(&'static str, Slot); 3] = [
        ("context", Slot::Context),
        ("memory", Slot::Memory),
        ("question", Slot::Question),
    ];
}

/// The question is over its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("This question has {found} tokens; at most {limit} are allowed.")]
pub struct QuestionTooLong {
    /// Its tokens.
    pub found: u64,
    /// The limit.
    pub limit: u64,
    /// What is to happen.
    pub over: Over,
}

/// There is no user message with a text that the template could be put around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found no user message with a text, expected one that is the question")]
pub struct NoQuestion;

impl Frame {
    /// Reads the user's text of a template.
    ///
    /// # Errors
    /// What was found and what is expected, where a slot is unknown or the question does not stand
    /// there once.
    pub fn parse(text: &str) -> Result<Frame, String> {
        let mut frame = Frame::default();
        let mut questions = 0;
        for piece in pieces(text)? {
            match piece {
                Piece::Slot(Slot::Question) => questions += 1,
                piece if questions == 0 => frame.before.push(piece),
                piece => frame.behind.push(piece),
            }
        }
        if questions != 1 {
            return Err(format!(
                "found `{{{{question}}}}` {questions} times, expected it once"
            ));
        }
        Ok(frame)
    }

    /// Whether the slot stands in it; the question always does.
    #[must_use]
    pub fn has(&self, slot: Slot) -> bool {
        let mut pieces = self.before.iter().chain(&self.behind);
        slot == Slot::Question || pieces.any(|piece| *piece == Piece::Slot(slot))
    }
}

/// The text of a template in pieces. Braces around anything but a word are text.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        // Of three braces the last two open a slot.
        let at = at
            + rest
                .get(at + 2..)
                .map_or(0, |after| after.len() - after.trim_start_matches('{').len());
        let (before, after) = (
            rest.get(..at).unwrap_or(""),
            rest.get(at + 2..).unwrap_or(""),
        );
        plain.push_str(before);
        let word = after
            .split_once("}}")
            .map(|(word, after)| (word.trim(), after));
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .chars()
                    .all(|c| c.is_alphanumeric() || "_-.".contains(c))
        };
        let Some((word, after)) = word.filter(|(word, _)| is_word(word)) else {
            plain.push_str("{{");
            rest = after;
            continue;
        };
        let Some((_, slot)) = Slot::ALL.into_iter().find(|(name, _)| *name == word) else {
            return Err(format!(
                "found `{{{{{word}}}}}`, expected context, memory or question"
            ));
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Slot(slot));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// Whether a text can be a system's: it never changes.
///
/// # Errors
/// What was found and what is expected, where it has a slot.
pub fn fixed(text: &str) -> Result<(), String> {
    let is_text = |piece: &Piece| matches!(piece, Piece::Text(_));
    match pieces(text) {
        Ok(pieces) if pieces.iter().all(is_text) => Ok(()),
        _ => Err(
            "found a slot, expected a text that never changes; slots stand in `user`".to_owned(),
        ),
    }
}

impl Template {
    /// Names all that it says and does: what a cache key must have in it where a caller asked for
    /// it. (A route's own is in the route's digest.)
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(format!("{self:?}").as_bytes()).as_bytes()
    }

    /// The text that it puts around what fills its slots.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.system.clone().unwrap_or_default();
        for piece in self.user.before.iter().chain(&self.user.behind) {
            if let Piece::Text(own) = piece {
                text.push_str(own);
            }
        }
        text
    }

    /// Holds the question against its limit: as soon as the request is read, while it can still be
    /// refused or go another way.
    ///
    /// # Errors
    /// [`QuestionTooLong`].
    pub fn check(
        &self,
        request: &Request<'_>,
        tokens: &mut dyn FnMut(&str) -> u64,
    ) -> Result<(), QuestionTooLong> {
        let questions = asked(request);
        let (Some(limit), Some(question)) = (self.limits.question, questions.last()) else {
            return Ok(());
        };
        let found = texts(question)
            .iter()
            .map(|text| tokens(&text.text()))
            .sum();
        if found > limit {
            return Err(QuestionTooLong {
                found,
                limit,
                over: self.over,
            });
        }
        Ok(())
    }

    /// The edits that put the template around the request. `context`: the rendered chunks, or
    /// nothing; without a slot for them they stand in front of the frame. What is to be dropped of
    /// the conversation's past was dropped before.
    ///
    /// # Errors
    /// [`NoQuestion`].
    pub fn render(
        &self,
        request: &Request<'_>,
        format: &dyn Format,
        context: &str,
        tokens: &mut dyn FnMut(&str) -> u64,
    ) -> Result<Splices, NoQuestion> {
        let mut edits = Splices::default();
        let questions = asked(request);
        // Every prompt of a format without turns is a question of its own.
        let framed = match format.has_turns() {
            true => questions.get(questions.len().saturating_sub(1)..),
            false => Some(&*questions),
        };
        let framed = framed
            .filter(|framed| !framed.is_empty())
            .ok_or(NoQuestion)?;
        let list = match format.system_place() {
            SystemPlace::Message(list) | SystemPlace::Field(_, list) => list,
            SystemPlace::Prompt => "",
        };
        let memory = match framed {
            [question] if self.user.has(Slot::Memory) && format.has_turns() => {
                self.memory(request, question, tokens)
            }
            _ => None,
        };
        let told = memory.as_ref().map_or("", |memory| memory.text.as_str());
        for question in framed {
            self.frame(request, format, question, (context, told), &mut edits);
        }
        let mut gone: FxHashSet<*const u8> = FxHashSet::default();
        if self.client_system == ClientSystem::Drop {
            gone.extend(request.system.iter().map(|content| content.raw.as_ptr()));
        }
        if let Some(memory) = &memory {
            gone.extend(memory.messages.iter().map(|raw| raw.as_ptr()));
        }
        remove(request, list, &gone, &mut edits);
        self.put_system(request, format.system_place(), &mut edits);
        Ok(edits)
    }

    /// Puts the frame around a question.
    fn frame(
        &self,
        request: &Request<'_>,
        format: &dyn Format,
        question: &Content<'_>,
        (context, memory): (&str, &str),
        edits: &mut Splices,
    ) {
        let texts = texts(question);
        let place = |text: Option<&json::JsonStr<'_>>| {
            text.and_then(|text| span(request.body, text.escaped()))
        };
        let (Some(first), Some(last)) = (place(texts.first()), place(texts.last())) else {
            return;
        };
        let mut front = String::new();
        if format.system_place() == SystemPlace::Prompt
            && let Some(system) = &self.system
        {
            front = format!("{system}\n\n");
        }
        if !self.user.has(Slot::Context) && !context.is_empty() {
            front.push_str(&format!("{context}\n\n"));
        }
        front.push_str(&filled(&self.user.before, context, memory));
        edits.replace(first.start..first.start, escaped(&front));
        edits.replace(
            last.end..last.end,
            escaped(&filled(&self.user.behind, context, memory)),
        );
    }

    /// Puts the system's text in front of the client's.
    fn put_system(&self, request: &Request<'_>, place: SystemPlace, edits: &mut Splices) {
        let Some(text) = self.system.as_deref().map(escaped) else {
            return;
        };
        match place {
            SystemPlace::Message(list) => {
                if let Some(list) = request
                    .fields
                    .get(list)
                    .and_then(|raw| span(request.body, raw))
                {
                    let at = list.start + 1;
                    edits.replace(
                        at..at,
                        format!(r#"{{"role":"system","content":"{text}"}},"#),
                    );
                }
            }
            SystemPlace::Field(field, _) => {
                let drops = self.client_system == ClientSystem::Drop;
                put_field(request, field, (&text, drops), edits);
            }
            SystemPlace::Prompt => {}
        }
    }

    /// What was said before the question, where it is nothing but text: told from the oldest
    /// exchange on that fits.
    fn memory<'a>(
        &self,
        request: &Request<'a>,
        question: &Content<'a>,
        tokens: &mut dyn FnMut(&str) -> u64,
    ) -> Option<Memory<'a>> {
        let end = request
            .messages
            .iter()
            .position(|message| std::ptr::eq(message.content.raw, question.raw))?;
        let past = request.messages.get(..end)?;
        let lines: Vec<String> = past.iter().map(line).collect::<Option<_>>()?;
        let mut from = lines.len();
        let mut used = 0_u64;
        // Exchange by exchange, the newest first.
        while from > 0 {
            let start = past
                .get(..from)?
                .iter()
                .rposition(|message| message.role == Role::User)
                .unwrap_or(0);
            let exchange = lines.get(start..from)?.concat();
            used = used.saturating_add(self.limits.memory.map_or(0, |_| tokens(&exchange)));
            if self.limits.memory.is_some_and(|limit| used > limit) {
                break;
            }
            from = start;
        }
        Some(Memory {
            text: lines.get(from..)?.concat().trim_end().to_owned(),
            messages: past.iter().map(|message| message.content.raw).collect(),
        })
    }
}

/// The past as a text, and the messages that it was.
struct Memory<'a> {
    text: String,
    messages: Vec<&'a str>,
}

/// A message as a line of the memory; None where it is more than text.
fn line(message: &Message<'_>) -> Option<String> {
    let who = match message.role {
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::Tool => return None,
    };
    let said = texts(&message.content);
    let said: Vec<_> = said.iter().map(|text| text.text()).collect();
    if said.len() < message.content.parts.len() {
        return None;
    }
    Some(format!("{who}: {}\n", said.join("\n")))
}

/// The user messages with a text.
fn asked<'r, 'a>(request: &'r Request<'a>) -> Vec<&'r Content<'a>> {
    let users = request
        .messages
        .iter()
        .filter(|message| message.role == Role::User);
    users
        .map(|message| &message.content)
        .filter(|content| !texts(content).is_empty())
        .collect()
}

/// Pieces with their slots filled. A slot with nothing to fill takes the line ends behind it along.
fn filled(pieces: &[Piece], context: &str, memory: &str) -> String {
    let mut out = String::new();
    let mut was_empty = false;
    for piece in pieces {
        let fill = match piece {
            Piece::Text(text) if was_empty => text.trim_start_matches('\n'),
            Piece::Text(text) => text,
            Piece::Slot(Slot::Context) => context,
            Piece::Slot(Slot::Memory) => memory,
            Piece::Slot(Slot::Question) => "",
        };
        was_empty = fill.is_empty();
        out.push_str(fill);
    }
    out
}

/// Takes the elements out of the list in field `list` that stand where `gone` says.
fn remove(request: &Request<'_>, list: &str, gone: &FxHashSet<*const u8>, edits: &mut Splices) {
    let raw = request.fields.get(list).unwrap_or("");
    let elements = if raw.starts_with('[') {
        json::array(raw).unwrap_or_default()
    } else {
        Vec::new()
    };
    let stay: Vec<bool> = elements
        .iter()
        .map(|raw| !gone.contains(&raw.as_ptr()))
        .collect();
    let places: Option<Vec<Range<usize>>> =
        elements.iter().map(|raw| span(request.body, raw)).collect();
    if stay.contains(&false) {
        edits.cut(cuts(&places.unwrap_or_default(), &stay));
    }
}

/// Puts `text` (escaped) in front of what a field says, or in its place.
fn put_field(request: &Request<'_>, field: &str, (text, drops): (&str, bool), edits: &mut Splices) {
    let old = request.fields.get(field);
    let Some((old, place)) = old.and_then(|old| Some((old, span(request.body, old)?))) else {
        let at = request.body.find('{').map_or(0, |brace| brace + 1);
        return edits.replace(at..at, format!(r#""{field}":"{text}","#));
    };
    let at = place.start + 1;
    match old.as_bytes().first() {
        Some(b'"') if !drops => edits.replace(at..at, format!(r"{text}\n\n")),
        Some(b'[') if !drops => {
            let comma = if json::array(old).is_ok_and(|parts| parts.is_empty()) {
                ""
            } else {
                ","
            };
            edits.replace(
                at..at,
                format!(r#"{{"type":"text","text":"{text}"}}{comma}"#),
            );
        }
        _ => edits.replace(place, format!("\"{text}\"")),
    }
}
