//! A request's past as exchanges, each of which is kept or left out whole: a user's turn with its
//! answer, its tools' calls and their results.
//!
//! What holds after any of them that need not stay is left out, for every API:
//! - system and developer messages stay, also where they stand between exchanges;
//! - a tool's call and its result stay or go together, and so does all that is between them;
//! - what is kept begins with a user's message, unless something else came first from the start,
//!   and roles alternate where they did before: an exchange starts with the user's messages in a
//!   row, however many, and ends with something else;
//! - a part (an image, a document, a block of reasoning) is never parted from its message.
//!
//! What this version cannot read stays, with its exchange.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::formats::{Conversation, Format, Item, Part, Request, Role, Tie};

/// Shortest id that is looked for in the current turn: words this long are no words by chance.
const SHORTEST_ID: usize = 6;

/// A conversation in exchanges.
#[derive(Clone, Debug)]
pub struct Turns<'a> {
    /// The request's body.
    pub body: &'a str,
    /// `type` of a user message's part that is text.
    pub text_type: &'static str,
    /// Messages or input items, in order.
    pub items: Vec<Item<'a>>,
    /// Oldest first; the last one is the current turn. What stands before the first stays.
    pub exchanges: Vec<Exchange>,
}

/// A user's turn and all that came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its items, by their index in [`Turns::items`].
    pub items: Range<usize>,
    /// It stays.
    pub must: bool,
    /// It is no exchange that ever was, but one made up to show the model what to do (OpenAI's
    /// `example_user` and `example_assistant`). It stays, as far as history goes.
    pub example: bool,
}

/// Exchanges of the past that stay wherever they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stay {
    /// So many of the first.
    pub first: usize,
    /// So many of the last, the current turn not counted.
    pub last: usize,
}

impl<'a> Turns<'a> {
    /// The exchanges of a request; None where there is no user's message to start one, or the API
    /// has no list of messages. Linear in the conversation but for a logarithm of its ids.
    #[must_use]
    pub fn of(request: &Request<'a>, format: &dyn Format, stay: Stay) -> Option<Turns<'a>> {
        Turns::in_order(request.body, format.conversation(request)?, stay)
    }

    /// The exchanges of a conversation, which stands in `body`.
    #[must_use]
    pub fn in_order(
        body: &'a str,
        conversation: Conversation<'a>,
        stay: Stay,
    ) -> Option<Turns<'a>> {
        let items = conversation.items;
        let starts = starts(&items);
        let first = *starts.first()?;
        let joined = joined(&items, &starts);
        let mut exchanges: Vec<Exchange> = Vec::with_capacity(starts.len());
        let ends = starts.iter().skip(1).copied().chain([items.len()]);
        for ((start, end), joins) in starts.iter().copied().zip(ends).zip(joined.joins) {
            match exchanges.last_mut().filter(|_| joins) {
                Some(before) => before.items.end = end,
                None => exchanges.push(Exchange {
                    items: start..end,
                    must: false,
                    example: false,
                }),
            }
        }
        let mut turns = Turns {
            body,
            text_type: conversation.text_type,
            items,
            exchanges,
        };
        debug_assert_eq!(
            turns.exchanges.first().map(|one| one.items.start),
            Some(first)
        );
        turns.mark(stay, &joined.stay);
        Some(turns)
    }

    /// The exchanges before the current turn.
    #[must_use]
    pub fn past(&self) -> &[Exchange] {
        self.exchanges.split_last().map_or(&[], |(_, past)| past)
    }

    /// The exchanges that are left out where `keep` is false, with their index; those that must stay
    /// are none of them, nor is one of which `keep` says nothing.
    pub fn dropped(&self, keep: &[bool]) -> impl Iterator<Item = (usize, &Exchange)> {
        let all = self.exchanges.iter().enumerate().zip(keep);
        all.filter(|((_, exchange), keep)| !(**keep || exchange.must))
            .map(|(exchange, _)| exchange)
    }

    /// The items that go where an exchange is left out: all of it but system messages and the like.
    pub fn going<'s>(&'s self, exchange: &Exchange) -> impl Iterator<Item = &'s Item<'a>> {
        let items = self.items.get(exchange.items.clone()).unwrap_or(&[]);
        items.iter().filter(|item| !item.stays())
    }

    /// Says which exchanges stay; `stay_items` are items that must, by index.
    fn mark(&mut self, stay: Stay, stay_items: &[usize]) {
        let mentioned = self.mentioned();
        let items = &self.items;
        let of = |exchange: &Exchange| items.get(exchange.items.clone()).unwrap_or(&[]);
        for (index, exchange) in self.exchanges.iter_mut().enumerate() {
            let own = of(exchange);
            exchange.example = is_example(own);
            exchange.must = exchange.example
                || mentioned.binary_search(&index).is_ok()
                || own.iter().any(|item| item.pin == Some(true))
                || own.iter().any(|item| !item.stays() && !item.known());
        }
        let mut at = 0;
        for item in stay_items {
            // Both are in order.
            while self
                .exchanges
                .get(at)
                .is_some_and(|exchange| exchange.items.end <= *item)
            {
                at += 1;
            }
            if let Some(exchange) = self.exchanges.get_mut(at) {
                exchange.must |= exchange.items.contains(item);
            }
        }
        let real = self.exchanges.iter_mut().filter(|one| !one.example);
        real.take(stay.first).for_each(|one| one.must = true);
        let last = stay.last.saturating_add(1);
        let last = self.exchanges.iter_mut().rev().take(last);
        last.for_each(|one| one.must = true);
    }

    /// Exchanges of the past that the current turn names by the id of a call or an item, in order.
    fn mentioned(&self) -> Vec<usize> {
        let Some((current, past)) = self.exchanges.split_last() else {
            return Vec::new();
        };
        let ties = |exchange: &Exchange| {
            let items = self.items.get(exchange.items.clone()).unwrap_or(&[]);
            items.iter().flat_map(|item| &item.ties)
        };
        let mut ids: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, exchange) in past.iter().enumerate() {
            let named = ties(exchange).filter_map(id);
            for id in named.filter(|id| id.len() >= SHORTEST_ID) {
                ids.entry(id).or_default().push(index);
            }
        }
        // Clients that number their calls anew in each turn name their own.
        let own = ties(current).filter(|tie| matches!(tie, Tie::Call(_) | Tie::Id(_)));
        for id in own.filter_map(id) {
            ids.remove(id);
        }
        let mut found = Vec::new();
        if ids.is_empty() {
            return found;
        }
        let items = self.items.get(current.items.clone()).unwrap_or(&[]);
        for part in items.iter().flat_map(|item| &item.content.parts) {
            // As text: a line's end before an id must not be read as its first letter.
            let said = match part {
                Part::Text(text) => text.text(),
                Part::ToolCall(raw) | Part::ToolResult(raw) | Part::Other(raw) => (*raw).into(),
                Part::Media(_) | Part::Tokens(_) => continue,
            };
            for word in said.split(|c: char| !is_of_id(c)) {
                if word.len() >= SHORTEST_ID {
                    // Once found it need not be found again.
                    found.extend(ids.remove(word).into_iter().flatten());
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The id that a tie is by.
fn id<'t>(tie: &'t Tie<'_>) -> Option<&'t str> {
    match tie {
        Tie::Call(id) | Tie::Result(id) | Tie::Id(id) | Tie::Reference(id) => Some(id),
        Tie::Next | Tie::Stays | Tie::Unknown => None,
    }
}

fn is_of_id(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// Whether items are one of the examples that OpenAI tells from what was said by the name of who
/// says it.
fn is_example(items: &[Item<'_>]) -> bool {
    let mut own = items.iter().filter(|item| !item.stays()).peekable();
    own.peek().is_some() && own.all(|item| item.name.as_deref().is_some_and(is_example_name))
}

/// Whether that is the name of one who speaks in an example.
pub(super) fn is_example_name(name: &str) -> bool {
    matches!(name, "example_user" | "example_assistant")
}

/// Where exchanges start: at a user's message after something that is not the user's.
fn starts(items: &[Item<'_>]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut after_user = false;
    let mut leads = false;
    for (index, item) in items.iter().enumerate() {
        if item.stays() {
            continue;
        }
        let user = item.role == Some(Role::User) && item.known();
        if user && !after_user && !leads {
            starts.push(index);
        }
        after_user = user;
        leads = item.ties.contains(&Tie::Next);
    }
    starts
}

/// Which exchanges are one, and which items must stay.
struct Joined {
    /// Of each exchange: whether it is one with that before it.
    joins: Vec<bool>,
    /// Items whose exchange must stay, in order.
    stay: Vec<usize>,
}

/// Follows the ties between items.
fn joined(items: &[Item<'_>], starts: &[usize]) -> Joined {
    // 0: before the first exchange, which stays.
    let place = |item: usize| starts.partition_point(|start| *start <= item);
    // Open spans of places, as what begins and ends at each.
    let mut depth = vec![0_i64; starts.len() + 2];
    let mut stay = Vec::new();
    let mut join = |one: usize, other: usize, stay: &mut Vec<usize>| {
        let (from, to) = (place(one.min(other)), place(one.max(other)));
        if from == 0 {
            stay.push(one.max(other));
        }
        // Each place from the second on is one with that before it.
        if let Some(begins) = depth.get_mut(from + 1) {
            *begins += 1;
        }
        if let Some(ends) = depth.get_mut(to + 1) {
            *ends -= 1;
        }
    };
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        for tie in &item.ties {
            if let Tie::Id(id) = tie {
                ids.insert(id, index);
            }
        }
    }
    // Per id: the calls that wait for a result, and the last that had one.
    let mut open: BTreeMap<&str, Calls> = BTreeMap::new();
    let mut reference = None;
    for (index, item) in items.iter().enumerate() {
        for tie in &item.ties {
            match tie {
                Tie::Call(id) => open.entry(id).or_default().waiting.push(index),
                Tie::Result(id) => match open.get_mut(id.as_ref()).and_then(Calls::answered) {
                    Some(call) => join(call, index, &mut stay),
                    // The call is upstream: it came by a reference, or is in a state that only
                    // upstream has.
                    None => match reference {
                        Some(call) => join(call, index, &mut stay),
                        None => stay.push(index),
                    },
                },
                Tie::Reference(id) => {
                    if let Some(named) = ids.get(id.as_ref()) {
                        join(*named, index, &mut stay);
                    }
                    reference = Some(index);
                }
                Tie::Id(_) | Tie::Next | Tie::Stays | Tie::Unknown => {}
            }
        }
    }
    stay.extend(open.into_values().flat_map(|calls| calls.waiting));
    stay.sort_unstable();
    let mut spans = 0;
    let joins = (1..=starts.len()).map(|place| {
        spans += depth.get(place).copied().unwrap_or(0);
        spans > 0
    });
    Joined {
        joins: joins.collect(),
        stay,
    }
}

/// Calls under one id; some clients use the same ids again in each turn.
#[derive(Default)]
struct Calls {
    waiting: Vec<usize>,
    last: Option<usize>,
}

impl Calls {
    /// The call that a result answers: the nearest that waits, else the one answered last.
    fn answered(&mut self) -> Option<usize> {
        self.last = self.waiting.pop().or(self.last);
        self.last
    }
}

#[cfg(test)]
mod tests;
