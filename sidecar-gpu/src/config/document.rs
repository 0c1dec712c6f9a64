//! Config text → a tree, and where in the text each of its values stands.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use serde_path_to_error::{Path, Segment, Track};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Spanned, UserMessageFormatter};

use super::{Fault, WHOLE};

/// What aliases may expand to. No config comes near; an alias bomb does at once.
const MAX_ALIASED: usize = 20_000;

/// Twice as deep as any config. In a debug build, 64 levels overflow a test thread's 2 MiB of stack.
const MAX_DEPTH: usize = 16;

/// A config file, read and not yet understood.
pub(super) struct Document {
    /// Where a key stands twice, its last value.
    pub(super) tree: Value,
    /// The keys that stand twice.
    pub(super) duplicates: Vec<Fault>,
    /// By path.
    places: BTreeMap<String, Place>,
}

/// A line and a column, both from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64, u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.0, self.1)
    }
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        Place(location.line(), location.column())
    }
}

impl Document {
    /// Reads JSON. It is YAML too, but `serde_json` words its errors better.
    pub(super) fn of_json(text: &str) -> Result<Self, Fault> {
        serde_json::from_str(text)
            .map(Document::of)
            .map_err(|error| Fault {
                path: WHOLE.to_owned(),
                message: error.to_string(),
            })
    }

    /// Reads YAML. `on` stays a word; so does `.nan`, which each field refuses with what it expects.
    pub(super) fn of_yaml(text: &str) -> Result<Self, Fault> {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            non_finite_float_policy: NonFiniteFloatPolicy::AsString,
            // Found here, all of them, with their paths.
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIASED },
            // A fault is one line, and what stands around it may be secret.
            with_snippet: false,
        };
        let mut track = Track::new();
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| {
            Spanned::deserialize(serde_path_to_error::Deserializer::new(reader, &mut track))
        })
        .map(Document::of)
        .map_err(|error| Fault {
            path: path_of(&track.path()),
            message: message_of(&error),
        })
    }

    fn of(root: Spanned<Node>) -> Self {
        let mut document = Document {
            tree: Value::Null,
            duplicates: Vec::new(),
            places: BTreeMap::new(),
        };
        document.tree = document.value(String::new(), root);
        document
    }

    fn value(&mut self, path: String, node: Spanned<Node>) -> Value {
        let value = match node.value {
            Node::Scalar(value) => value,
            Node::List(elements) => elements
                .into_iter()
                .enumerate()
                .map(|(at, element)| self.value(format!("{path}[{at}]"), element))
                .collect(),
            Node::Mapping(entries) => {
                let mut map = Map::new();
                for (key, node) in entries {
                    let path = match path.as_str() {
                        "" => key.clone(),
                        path => format!("{path}.{key}"),
                    };
                    if map.contains_key(&key) {
                        let first = self.places.get(&path);
                        let first =
                            first.map_or(String::new(), |place| format!("; the first: {place}"));
                        self.duplicates.push(Fault {
                            path: path.clone(),
                            message: format!("found a duplicate key, expected it once{first}"),
                        });
                    }
                    let value = self.value(path, node);
                    map.insert(key, value);
                }
                Value::Object(map)
            }
        };
        if node.referenced.line() > 0 {
            self.places.insert(path, node.referenced.into());
        }
        value
    }

    /// The faults in the order of the text, each with its place.
    pub(super) fn placed(&self, faults: Vec<Fault>) -> Vec<Fault> {
        let mut placed: Vec<_> = faults
            .into_iter()
            .map(|fault| (self.place(&fault.path), fault))
            .collect();
        placed.sort_by_key(|(place, _)| *place);
        placed
            .into_iter()
            .map(|(place, fault)| Fault {
                message: with_place(fault.message, place),
                path: fault.path,
            })
            .collect()
    }

    /// Where the field stands, or what should have it. JSON has no places.
    fn place(&self, mut path: &str) -> Option<Place> {
        loop {
            match self.places.get(path) {
                Some(place) => return Some(*place),
                None if path.is_empty() => return None,
                None => path = path.rfind(['.', '[']).map_or("", |end| &path[..end]),
            }
        }
    }
}

fn with_place(message: String, place: Option<Place>) -> String {
    match place {
        Some(place) => format!("{message} ({place})"),
        None => message,
    }
}

/// What is wrong, in words without Rust's types, and the place in the form of the other faults.
fn message_of(error: &serde_saphyr::Error) -> String {
    let message = error.render_with_formatter(&UserMessageFormatter);
    let place = error.location().map(Place::from);
    match place.and_then(|place| message.strip_suffix(&format!(" at {place}"))) {
        Some(alone) => with_place(alone.to_owned(), place),
        // Of an alias it tells several places.
        None => message,
    }
}

/// The path as the config's other faults write it. [`Spanned`] reads each value as the field
/// `value` of a mapping of its own: every other segment is that.
fn path_of(path: &Path) -> String {
    let mut text = String::new();
    for segment in path.iter().skip(1).step_by(2) {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } if text.is_empty() => text.push_str(key),
            Segment::Map { key } => text.push_str(&format!(".{key}")),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    if text.is_empty() {
        WHOLE.to_owned()
    } else {
        text
    }
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    /// In the order of the text; a key may stand twice.
    Mapping(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping, a list, text, a number, a boolean or null")
            }

            fn visit_unit<E: Error>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
                Number::from_f64(value)
                    .map(|number| Node::Scalar(number.into()))
                    .ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = access.next_element()? {
                    elements.push(element);
                }
                Ok(Node::List(elements))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Mapping(entries))
            }
        }
        reader.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests;
