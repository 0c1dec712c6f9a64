//! A conversation item by item, in the order of its array, with what ties the items together: what
//! a policy must know to leave some of them out.
//!
//! Made only where somebody asks: a request that is not trimmed does not pay for it.

use std::borrow::Cow;

use super::{Content, Part, Request, Role, content};
use crate::json::Cursor;
use crate::json::splices::span;

/// The field of a message by which a client says that it must not be trimmed (`true`); it is taken
/// out before the request goes on, whatever its value.
pub const PIN: &str = "sluice_pin";

/// The list of messages or input items that a request has.
#[derive(Clone, Debug)]
pub struct Conversation<'a> {
    /// Its items.
    pub items: Vec<Item<'a>>,
    /// `type` of a user message's part that is text.
    pub text_type: &'static str,
}

/// One element of the list.
#[derive(Clone, Debug)]
pub struct Item<'a> {
    /// Who speaks; None: the system or developer.
    pub role: Option<Role>,
    /// What is said; `raw` is the element as it stands.
    pub content: Content<'a>,
    /// What binds it to others.
    pub ties: Vec<Tie<'a>>,
    /// `name`, where the API has one and it is set.
    pub name: Option<Cow<'a, str>>,
    /// Its [`PIN`] field, where it has one: whether it is pinned.
    pub pin: Option<bool>,
}

/// What binds an item to others, or to its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tie<'a> {
    /// It calls a tool; the result comes in an item of its own.
    Call(Cow<'a, str>),
    /// It is the result of the call of that id.
    Result(Cow<'a, str>),
    /// It has an id of its own, by which others may name it.
    Id(Cow<'a, str>),
    /// It stands for, or answers, the item of that id, which may be in the list or upstream.
    Reference(Cow<'a, str>),
    /// It means nothing without the item after it.
    Next,
    /// It stays, whatever becomes of its neighbours.
    Stays,
    /// This version does not know what it is: it stays, and so does all around it.
    Unknown,
}

impl Item<'_> {
    /// Whether it stays whatever becomes of its neighbours.
    #[must_use]
    pub fn stays(&self) -> bool {
        self.role.is_none() || self.ties.contains(&Tie::Stays)
    }

    /// Whether this version knows what it is.
    #[must_use]
    pub fn known(&self) -> bool {
        !self.ties.contains(&Tie::Unknown)
    }
}

/// What ties an item that is an object, by what its fields say.
pub(super) type Ties = for<'a> fn(&Fields<'a>, &Content<'a>) -> Vec<Tie<'a>>;

/// Fields of an item, in order, values raw. The last of a name counts.
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Fields<'a> {
    /// The raw value of a field.
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, raw)| *raw)
    }

    /// The text of a field, where it is a string.
    pub(super) fn word(&self, key: &str) -> Option<Cow<'a, str>> {
        let raw = self.get(key)?;
        raw.starts_with('"')
            .then(|| content::word(&mut Cursor::new(raw)))
    }

    /// The objects in the array that a field is; for an element that is none, no fields.
    pub(super) fn objects(&self, key: &str) -> Vec<Fields<'a>> {
        let mut cursor = Cursor::new(self.get(key).unwrap_or(""));
        let mut objects = Vec::new();
        if cursor.enter(b'[') {
            while cursor.element() {
                objects.push(Fields::read(&mut cursor));
            }
        }
        objects
    }

    /// The fields of the object that a field is; none where it is no object.
    pub(super) fn object(&self, key: &str) -> Fields<'a> {
        Fields::read(&mut Cursor::new(self.get(key).unwrap_or("")))
    }

    /// Reads the value that the cursor stands before; one that is no object has no fields.
    fn read(cursor: &mut Cursor<'a>) -> Fields<'a> {
        let mut fields = Vec::new();
        if cursor.enter(b'{') {
            while let Some(key) = cursor.key() {
                fields.push((key, cursor.value()));
            }
        } else {
            cursor.value();
        }
        Fields(fields)
    }
}

/// The conversation under `field`; None where that is no array. Its items are the request's system
/// prompts and messages that stand there, in the order in which they do: they are not read again but
/// for what ties them.
pub(super) fn read<'a>(
    request: &Request<'a>,
    (field, text_type): (&'static str, &'static str),
    ties: Ties,
) -> Option<Conversation<'a>> {
    let list = request.fields.get(field)?;
    if !Cursor::new(list).enter(b'[') {
        return None;
    }
    let place = |content: &Content<'a>| span(list, content.raw).map(|place| place.start);
    let system = request.system.iter().map(|content| (None, content));
    let mut system = system
        .filter(|(_, content)| place(content).is_some())
        .peekable();
    let messages = request.messages.iter();
    let messages = messages.map(|message| (Some(message.role), &message.content));
    let mut messages = messages.peekable();
    let mut items = Vec::with_capacity(request.messages.len() + request.system.len());
    loop {
        let is_next = match (system.peek(), messages.peek()) {
            (Some((_, one)), Some((_, other))) => place(one) < place(other),
            (one, _) => one.is_some(),
        };
        let next = if is_next {
            system.next()
        } else {
            messages.next()
        };
        let Some((role, content)) = next else { break };
        items.push(item(role, content, ties));
    }
    Some(Conversation { items, text_type })
}

fn item<'a>(role: Option<Role>, content: &Content<'a>, ties: Ties) -> Item<'a> {
    let raw = content.raw;
    if role.is_some() && is_plain(content) {
        return Item {
            role,
            content: content.clone(),
            ties: Vec::new(),
            name: None,
            pin: None,
        };
    }
    let fields = Fields::read(&mut Cursor::new(raw));
    let ties = match raw.starts_with('{') {
        true => ties(&fields, content),
        false => vec![Tie::Unknown],
    };
    Item {
        role,
        ties,
        name: fields.word("name"),
        pin: fields.get(PIN).map(|raw| raw == "true"),
        content: content.clone(),
    }
}

/// Whether a message is a text and who says it, and nothing else, as JavaScript and Python write it:
/// most of a conversation is, and no API has a tie for it.
fn is_plain(content: &Content<'_>) -> bool {
    let [Part::Text(text)] = content.parts.as_slice() else {
        return false;
    };
    let place = span(content.raw, text.raw());
    let beside =
        place.and_then(|at| Some((content.raw.get(..at.start)?, content.raw.get(at.end..)?)));
    matches!(
        beside,
        Some((
            r#"{"role":"user","content":"#
                | r#"{"role":"assistant","content":"#
                | r#"{"role": "user", "content": "#
                | r#"{"role": "assistant", "content": "#,
            "}"
        ))
    )
}

/// The tie to a tool's call or result by its id; without an id nobody knows what it belongs to.
pub(super) fn by_id<'a>(
    id: Option<Cow<'a, str>>,
    tie: impl FnOnce(Cow<'a, str>) -> Tie<'a>,
) -> Tie<'a> {
    id.map_or(Tie::Unknown, tie)
}

/// [`Tie::Unknown`], where a part is of a kind that this version does not know.
pub(super) fn odd<'a>(content: &Content<'a>) -> Option<Tie<'a>> {
    let odd = |part: &Part<'_>| matches!(part, Part::Other(_));
    content.parts.iter().any(odd).then_some(Tie::Unknown)
}
