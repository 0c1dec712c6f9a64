//! An embedding request input by input, and its answer vector by vector.

use std::borrow::Cow;

use sluice_wire::{Usage, limit};

use super::Request;
use crate::json::{self, Cursor, JsonStr, ListWriter, Object, ObjectWriter};
use crate::vectors::{self, Dtype};

/// The fields of which it is known what they do to a vector. A request with another one is not
/// taken apart.
const KNOWN: [&str; 5] = ["model", "input", "dimensions", "encoding_format", "user"];

/// A request whose inputs can be told one by one.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// In order.
    pub inputs: Vec<Input<'a>>,
    /// Numbers of a vector, where the request says it.
    pub dimensions: Option<u64>,
    /// The vectors are asked for in base64.
    pub base64: bool,
}

/// One input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// As it stands in the body.
    pub raw: &'a str,
    /// Of what it is: a text by its characters, however they are escaped, and tokens by their
    /// numbers. Nothing is normalised, because a model may tell apart whatever differs.
    pub digest: [u8; 32],
    /// How much of the prompt it is: its tokens, or bytes of text.
    pub weight: u64,
}

impl<'a> Batch<'a> {
    /// Reads OpenAI's request. None where what it asks for is not known, where parsers may read it
    /// in two ways, or where it has too many inputs.
    pub(super) fn read(request: &Request<'a>) -> Option<Batch<'a>> {
        let fields = &request.fields;
        for (at, (name, _)) in fields.iter().enumerate() {
            let again = fields.iter().take(at).any(|(before, _)| before == name);
            (KNOWN.contains(&name) && !again).then_some(())?;
        }
        let dimensions = match fields.set("dimensions") {
            None => None,
            Some(raw) => Some(raw.parse().ok()?),
        };
        let base64 = match fields.set("encoding_format") {
            None => false,
            Some(raw) => match &*JsonStr::new(raw)?.text() {
                "float" => false,
                "base64" => true,
                _ => return None,
            },
        };
        let inputs = inputs(fields.set("input")?)?;
        (1..=limit::INPUTS)
            .contains(&inputs.len())
            .then_some(Batch {
                inputs,
                dimensions,
                base64,
            })
    }
}

fn inputs(raw: &str) -> Option<Vec<Input<'_>>> {
    if raw.starts_with('"') {
        return Some(vec![text(raw)?]);
    }
    let mut list = Cursor::new(raw);
    list.enter(b'[').then_some(())?;
    let of_one = list.clone().peek()?.is_ascii_digit();
    if of_one {
        return Some(vec![tokens(raw)?]);
    }
    let mut inputs = Vec::new();
    while list.element() {
        let first = list.peek();
        let raw = list.value();
        inputs.push(match first? {
            b'"' => text(raw)?,
            b'[' => tokens(raw)?,
            _ => return None,
        });
    }
    Some(inputs)
}

fn text(raw: &str) -> Option<Input<'_>> {
    let escaped = JsonStr::new(raw)?.escaped();
    let text: Cow<'_, str> = match memchr::memchr(b'\\', escaped.as_bytes()) {
        None => escaped.into(),
        // A lone surrogate has no character.
        Some(_) => serde_json::from_str::<String>(raw).ok()?.into(),
    };
    let mut hash = blake3::Hasher::new();
    hash.update(b"text").update(text.as_bytes());
    Some(Input {
        raw,
        digest: *hash.finalize().as_bytes(),
        weight: text.len() as u64,
    })
}

fn tokens(raw: &str) -> Option<Input<'_>> {
    let mut hash = blake3::Hasher::new();
    hash.update(b"tokens");
    let mut ids = Cursor::new(raw);
    ids.enter(b'[').then_some(())?;
    let mut weight = 0;
    while ids.element() {
        let id: u32 = ids.value().parse().ok()?;
        hash.update(&id.to_le_bytes());
        weight += 1;
    }
    (weight > 0).then_some(Input {
        raw,
        digest: *hash.finalize().as_bytes(),
        weight,
    })
}

/// Why an answer is not read as a list of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoList {
    /// It is none, or not of vectors.
    Unreadable,
    /// It has another number of them than was asked for, or numbers them in another way.
    Count,
}

/// OpenAI's answer.
#[derive(Debug)]
pub struct List<'a> {
    body: &'a str,
    fields: Object<'a>,
    /// In the order of the inputs.
    told: Vec<Told<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Told<'a> {
    element: &'a str,
    index: Option<&'a str>,
    embedding: &'a str,
}

/// One of the vectors of an answer in the making.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// That with this number of a [`List`].
    Told(usize),
    /// One that is kept.
    Kept(&'a [u8]),
}

/// In which form vectors are told, and how they are kept.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Base64, or numbers.
    pub base64: bool,
    /// Width of what is kept.
    pub dtype: Dtype,
}

impl<'a> List<'a> {
    /// Reads an answer to so many inputs.
    ///
    /// # Errors
    /// See [`NoList`].
    pub fn read(body: &'a [u8], inputs: usize) -> Result<Self, NoList> {
        let body = std::str::from_utf8(body).map_err(|_| NoList::Unreadable)?;
        let fields = Object::parse(body).map_err(|_| NoList::Unreadable)?;
        let data = fields.get("data").unwrap_or("");
        let mut list = Cursor::new(data);
        if fields.set("error").is_some() || !list.enter(b'[') {
            return Err(NoList::Unreadable);
        }
        let mut told: Vec<Option<Told<'a>>> = vec![None; inputs];
        let mut count = 0;
        while list.element() {
            let element = Told::read(list.value()).ok_or(NoList::Unreadable)?;
            let at = match element.index {
                None => count,
                Some(raw) => raw.parse().map_err(|_| NoList::Count)?,
            };
            count += 1;
            match told.get_mut(at) {
                Some(place @ None) => *place = Some(element),
                _ => return Err(NoList::Count),
            }
        }
        let told: Option<Vec<_>> = told.into_iter().collect();
        let told = told.ok_or(NoList::Count)?;
        Ok(List { body, fields, told })
    }

    /// The vectors as they are kept, one after another, and the bytes of each. None where they
    /// cannot be read or are not of one length.
    #[must_use]
    pub fn vectors(&self, dtype: Dtype) -> Option<(Vec<u8>, usize)> {
        let mut out = Vec::new();
        let mut each = None;
        for told in &self.told {
            let count = vectors::read(told.embedding, dtype, &mut out)?;
            (*each.get_or_insert(count) == count).then_some(())?;
        }
        Some((out, each? * dtype.size()))
    }

    /// Whether each vector has so many numbers, or is none: null, or empty.
    #[must_use]
    pub fn fits(&self, numbers: usize) -> bool {
        let mut out = Vec::new();
        self.told.iter().all(|told| {
            out.clear();
            let count = vectors::read(told.embedding, Dtype::F32, &mut out);
            told.is_none() || count == Some(numbers)
        })
    }

    /// What upstream calls the model.
    #[must_use]
    pub fn model(&self) -> Option<Cow<'a, str>> {
        self.fields.str("model").map(JsonStr::text)
    }

    /// This answer, with `pieces` for its vectors and with so many prompt tokens more. Every other
    /// byte stays. None where a vector of another form cannot be read.
    #[must_use]
    pub fn joined(&self, pieces: &[Piece<'_>], form: Form, tokens: u64) -> Option<String> {
        let mut data = ListWriter::new();
        for (index, piece) in pieces.iter().enumerate() {
            data.push(&match piece {
                Piece::Kept(vector) => element(index, vector, form),
                Piece::Told(number) => self.told.get(*number)?.at(index, form)?,
            });
        }
        let data = data.end();
        let mut edits = vec![("data", data.as_str())];
        let usage = self.fields.object("usage").map(|usage| {
            let raw = self.fields.get("usage").unwrap_or("");
            let more: Vec<(&str, String)> = ["prompt_tokens", "total_tokens"]
                .into_iter()
                .filter_map(|name| {
                    Some((name, usage.count(name)?.saturating_add(tokens).to_string()))
                })
                .collect();
            let more: Vec<_> = more.iter().map(|(name, it)| (*name, it.as_str())).collect();
            json::set_fields(raw, &usage, &more)
        });
        edits.extend(usage.as_deref().map(|usage| ("usage", usage)));
        Some(json::set_fields(self.body, &self.fields, &edits))
    }
}

impl<'a> Told<'a> {
    fn read(element: &'a str) -> Option<Told<'a>> {
        let mut fields = Cursor::new(element);
        fields.enter(b'{').then_some(())?;
        let (mut index, mut embedding) = (None, None);
        while let Some(key) = fields.key() {
            let value = fields.value();
            match &*key {
                "index" => index = Some(value),
                "embedding" => embedding = Some(value),
                _ => {}
            }
        }
        Some(Told {
            element,
            index,
            embedding: embedding?,
        })
    }

    fn is_none(&self) -> bool {
        let inside = self.embedding.strip_prefix('[');
        let inside = inside.and_then(|it| it.strip_suffix(']'));
        self.embedding == "null" || inside.is_some_and(|it| it.trim().is_empty())
    }

    /// The element in another place of another list.
    fn at(&self, index: usize, form: Form) -> Option<String> {
        let index = index.to_string();
        let mut edits = Vec::new();
        edits.extend(self.index.map(|_| ("index", index.as_str())));
        let mut other = String::new();
        if self.embedding.starts_with('"') != form.base64 && !self.is_none() {
            let mut vector = Vec::new();
            vectors::read(self.embedding, Dtype::F32, &mut vector)?;
            vectors::write(&vector, Dtype::F32, form.base64, &mut other);
            edits.push(("embedding", &other));
        }
        let fields = Object::parse(self.element).ok()?;
        Some(json::set_fields(self.element, &fields, &edits))
    }
}

fn element(index: usize, vector: &[u8], form: Form) -> String {
    let mut embedding = String::new();
    vectors::write(vector, form.dtype, form.base64, &mut embedding);
    ObjectWriter::new()
        .str("object", "embedding")
        .int("index", index as u64)
        .raw("embedding", &embedding)
        .end()
}

/// An answer of nothing but vectors that are kept.
#[must_use]
pub fn answer<'v>(
    vectors: impl Iterator<Item = &'v [u8]>,
    form: Form,
    (model, usage): (&str, &Usage),
) -> String {
    let mut data = ListWriter::new();
    for (index, vector) in vectors.enumerate() {
        data.push(&element(index, vector, form));
    }
    let usage = ObjectWriter::new()
        .int("prompt_tokens", usage.prompt)
        .int("total_tokens", usage.prompt)
        .end();
    ObjectWriter::new()
        .str("object", "list")
        .raw("data", &data.end())
        .raw("model", &serde_json::Value::from(model).to_string())
        .raw("usage", &usage)
        .end()
}

#[cfg(test)]
mod tests;
