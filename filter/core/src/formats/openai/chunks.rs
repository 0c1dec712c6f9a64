//! Streams of chat and legacy completions: chunks in, usage and the whole answer out.

use sluice_wire::Usage;

use super::{string_bytes, text_bytes, usage};
use crate::formats::{Answer, MAX_ASSEMBLED, Show, StreamReader, content};
use crate::json::{self, Cursor, JsonStr, ListWriter, Object, ObjectWriter};
use crate::sse::SseEvent;

/// Most choices and most tool calls of a choice that are assembled (the API allows 128 choices).
const MAX_LIST: usize = 128;

/// Most top-level fields of a chunk that are kept.
const MAX_HEAD: usize = 32;

/// Which of the two APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::formats) enum Flavour {
    Chat,
    Completions,
}

impl Flavour {
    /// Whether the choice ended by itself (`finish_reason`, raw): not by a limit or filter.
    pub(in crate::formats) fn is_end(self, finish_reason: &str) -> bool {
        match self {
            Flavour::Chat => matches!(
                finish_reason,
                r#""stop""# | r#""tool_calls""# | r#""function_call""#
            ),
            Flavour::Completions => finish_reason == r#""stop""#,
        }
    }
}

/// Reads a stream of chunks.
#[derive(Debug)]
pub(in crate::formats) struct ChunkReader {
    flavour: Flavour,
    hide_usage: bool,
    usage: Option<Usage>,
    text_bytes: u64,
    /// `[DONE]` came.
    done: bool,
    /// Something came that cannot be told without streaming, or too much.
    lost: bool,
    /// Something came that is no chunk, or an error.
    failed: bool,
    /// Bytes kept below.
    kept: usize,
    usage_json: Option<String>,
    /// Top-level fields, keys escaped, values raw.
    head: Vec<(String, String)>,
    choices: Vec<Choice>,
}

#[derive(Debug, Default)]
struct Choice {
    index: u64,
    /// String fields of the message; None: `null` so far.
    texts: Vec<(String, Option<String>)>,
    calls: Vec<Call>,
    function_call: Option<Call>,
    finish: Option<String>,
}

/// A tool call; all but `kind` escaped or raw JSON.
#[derive(Debug, Default)]
struct Call {
    id: String,
    kind: String,
    name: String,
    input: String,
}

impl Call {
    /// The call's inner object.
    fn inner(&self, input: &str) -> String {
        ObjectWriter::new()
            .str("name", &self.name)
            .str(input, &self.input)
            .end()
    }
}

impl ChunkReader {
    pub(in crate::formats) fn new(flavour: Flavour, hide_usage: bool) -> Self {
        ChunkReader {
            flavour,
            hide_usage,
            usage: None,
            text_bytes: 0,
            done: false,
            lost: false,
            failed: false,
            kept: 0,
            usage_json: None,
            head: Vec::new(),
            choices: Vec::new(),
        }
    }

    /// Gives up assembling; what was kept is dropped.
    fn lose(&mut self) {
        self.lost = true;
        self.head = Vec::new();
        for choice in &mut self.choices {
            // How each choice ended still counts.
            *choice = Choice {
                index: choice.index,
                finish: choice.finish.take(),
                ..Choice::default()
            };
        }
    }

    /// Makes room for more bytes; false once nothing is kept any more.
    fn keep(&mut self, bytes: usize) -> bool {
        self.kept = self.kept.saturating_add(bytes);
        if self.kept > MAX_ASSEMBLED && !self.lost {
            self.lose();
        }
        !self.lost
    }

    /// Keeps a chunk's top-level fields. The first that is not empty counts for what names the
    /// answer (Azure's first chunk has no id), the last for the rest.
    fn head(&mut self, chunk: &Object<'_>) {
        for (key, value) in chunk.iter() {
            if matches!(key, "object" | "choices" | "usage" | "obfuscation") || self.lost {
                continue;
            }
            let empty = |value: &str| matches!(value, "null" | "\"\"" | "0");
            let names = matches!(key, "id" | "created" | "model");
            let full = self.head.len() == MAX_HEAD;
            let bytes = match self.head.iter_mut().find(|(name, _)| name == key) {
                Some((_, old)) if old == value || empty(value) || (names && !empty(old)) => 0,
                Some((_, old)) => {
                    value.clone_into(old);
                    value.len()
                }
                None if full => {
                    self.lose();
                    0
                }
                None => {
                    self.head.push((key.to_owned(), value.to_owned()));
                    key.len() + value.len()
                }
            };
            self.keep(bytes);
        }
    }

    /// The choice of that index.
    fn choice(&mut self, index: u64) -> Option<usize> {
        if let Some(at) = self.choices.iter().position(|known| known.index == index) {
            return Some(at);
        }
        if self.choices.len() == MAX_LIST {
            self.failed = true;
            return None;
        }
        self.choices.push(Choice {
            index,
            ..Choice::default()
        });
        Some(self.choices.len() - 1)
    }

    fn read_choice(&mut self, raw: &str) {
        let mut cursor = Cursor::new(raw);
        if !cursor.enter(b'{') {
            self.failed = true;
            return;
        }
        let (mut index, mut delta, mut text, mut finish, mut logprobs) = (0, "", "", "", "null");
        while let Some(key) = cursor.key() {
            let value = cursor.value();
            match &*key {
                "index" => index = json::count(value).unwrap_or(0),
                "delta" => delta = value,
                "text" => text = value,
                "finish_reason" => finish = value,
                "logprobs" => logprobs = value,
                _ => {}
            }
        }
        self.text_bytes += match self.flavour {
            Flavour::Chat => text_bytes(delta),
            Flavour::Completions => string_bytes(text),
        };
        if logprobs != "null" {
            self.lose();
        }
        let Some(at) = self.choice(index) else {
            return;
        };
        if finish.starts_with('"')
            && let Some(choice) = self.choices.get_mut(at)
        {
            choice.finish = Some(finish.to_owned());
        }
        if !self.keep(delta.len() + text.len()) {
            return;
        }
        let kept = self.choices.get_mut(at).and_then(|choice| {
            if self.flavour == Flavour::Completions {
                choice.text("text", text)
            } else {
                choice.delta(delta)
            }
        });
        if kept.is_none() {
            self.lose();
        }
    }

    fn choice_json(&self, choice: &Choice) -> Option<String> {
        let finish = choice.finish.as_deref()?;
        let text = |name: &str| {
            let (_, text) = choice.texts.iter().find(|(key, _)| key == name)?;
            text.as_deref()
        };
        if self.flavour == Flavour::Completions {
            return Some(
                ObjectWriter::new()
                    .str("text", text("text").unwrap_or(""))
                    .int("index", choice.index)
                    .raw("logprobs", "null")
                    .raw("finish_reason", finish)
                    .end(),
            );
        }
        let quoted = |name: &str| match text(name) {
            Some(text) => format!("\"{text}\""),
            None => "null".to_owned(),
        };
        let mut message = ObjectWriter::new()
            .str("role", "assistant")
            .raw("content", &quoted("content"))
            .raw("refusal", &quoted("refusal"));
        for (key, text) in &choice.texts {
            if let (false, Some(text)) = (matches!(key.as_str(), "content" | "refusal"), text) {
                message = message.named(key, &format!("\"{text}\""));
            }
        }
        if !choice.calls.is_empty() {
            let mut calls = ListWriter::new();
            for call in &choice.calls {
                let (kind, input) = match call.kind.as_str() {
                    "" | "function" => ("function", "arguments"),
                    "custom" => ("custom", "input"),
                    _ => return None,
                };
                let json = ObjectWriter::new()
                    .raw("id", Some(call.id.as_str()).filter(|id| !id.is_empty())?)
                    .str("type", kind)
                    .raw(kind, &call.inner(input));
                calls.push(&json.end());
            }
            message = message.raw("tool_calls", &calls.end());
        }
        if let Some(call) = &choice.function_call {
            message = message.raw("function_call", &call.inner("arguments"));
        }
        Some(
            ObjectWriter::new()
                .int("index", choice.index)
                .raw("message", &message.end())
                .raw("logprobs", "null")
                .raw("finish_reason", finish)
                .end(),
        )
    }
}

impl Choice {
    /// Appends to a string field; None when `value` is neither string nor null.
    fn text(&mut self, name: &str, value: &str) -> Option<()> {
        let piece = match value {
            "null" | "" => None,
            _ => Some(JsonStr::new(value)?.escaped()),
        };
        let at = match self.texts.iter().position(|(key, _)| key == name) {
            Some(at) => at,
            None if self.texts.len() < MAX_HEAD => {
                self.texts.push((name.to_owned(), None));
                self.texts.len() - 1
            }
            None => return None,
        };
        if let (Some(piece), Some((_, text))) = (piece, self.texts.get_mut(at)) {
            text.get_or_insert_default().push_str(piece);
        }
        Some(())
    }

    /// Adds a delta; None when it holds something that cannot be added up.
    fn delta(&mut self, delta: &str) -> Option<()> {
        let mut cursor = Cursor::new(delta);
        if !cursor.enter(b'{') {
            return (delta.is_empty() || delta == "null").then_some(());
        }
        while let Some(key) = cursor.key() {
            match &*key {
                "role" => {
                    let role = cursor.value();
                    matches!(role, r#""assistant""# | "null" | "\"\"").then_some(())?;
                }
                "tool_calls" if cursor.enter(b'[') => {
                    while cursor.element() {
                        self.call(cursor.value())?;
                    }
                }
                "function_call" if cursor.peek() == Some(b'{') => {
                    let call = self.function_call.get_or_insert_default();
                    call.inner_delta(cursor.value())?;
                }
                key => match cursor.value() {
                    "[]" | "{}" => {}
                    value => self.text(key, value)?,
                },
            }
        }
        Some(())
    }

    /// Adds to a tool call.
    fn call(&mut self, raw: &str) -> Option<()> {
        let fields = Object::parse(raw).ok()?;
        let index = usize::try_from(fields.count("index")?).ok()?;
        if index >= MAX_LIST {
            return None;
        }
        if self.calls.len() <= index {
            self.calls.resize_with(index + 1, Call::default);
        }
        let call = self.calls.get_mut(index)?;
        for (key, value) in fields.iter() {
            match key {
                "index" => {}
                "id" => {
                    if call.id.is_empty() && value != "null" {
                        call.id = JsonStr::new(value)?.raw().to_owned();
                    }
                }
                "type" => {
                    if value != "null" {
                        call.kind = JsonStr::new(value)?.text().into_owned();
                    }
                }
                "function" | "custom" if value != "null" => call.inner_delta(value)?,
                _ => matches!(value, "null" | "{}" | "[]").then_some(())?,
            }
        }
        Some(())
    }
}

impl Call {
    fn inner_delta(&mut self, raw: &str) -> Option<()> {
        let mut cursor = Cursor::new(raw);
        cursor.enter(b'{').then_some(())?;
        while let Some(key) = cursor.key() {
            let value = cursor.value();
            if value == "null" {
                continue;
            }
            let piece = JsonStr::new(value)?.escaped();
            match &*key {
                // The name comes whole; some upstreams repeat it in every chunk.
                "name" if self.name.is_empty() => self.name = piece.to_owned(),
                "name" => {}
                "arguments" | "input" => self.input.push_str(piece),
                _ => return None,
            }
        }
        Some(())
    }
}

impl StreamReader for ChunkReader {
    fn event(&mut self, event: &SseEvent<'_>) -> Show {
        if event.data.trim() == "[DONE]" {
            self.done = true;
            return Show::Pass;
        }
        let Ok(chunk) = content::fields(&event.data) else {
            self.failed = true;
            return Show::Pass;
        };
        self.failed |= chunk.set("error").is_some() || event.name == "error";
        let mut empty = true;
        let mut choices = Cursor::new(chunk.get("choices").unwrap_or(""));
        if choices.enter(b'[') {
            while choices.element() {
                empty = false;
                self.read_choice(choices.value());
            }
        }
        let reported = chunk.set("usage").and_then(|raw| Some((raw, usage(raw)?)));
        if let Some((raw, usage)) = reported {
            self.usage = Some(usage);
            if self.keep(raw.len()) {
                self.usage_json = Some(raw.to_owned());
            }
        }
        self.head(&chunk);
        if self.hide_usage && empty && reported.is_some() {
            Show::Hide
        } else {
            Show::Pass
        }
    }

    fn outcome(&self) -> Answer {
        let ended = |choice: &Choice| {
            choice
                .finish
                .as_deref()
                .is_some_and(|reason| self.flavour.is_end(reason))
        };
        Answer {
            usage: self.usage,
            // Some upstreams count with every chunk.
            usage_so_far: !self.done && self.choices.iter().any(|choice| choice.finish.is_none()),
            complete: self.done
                && !self.failed
                && !self.choices.is_empty()
                && self.choices.iter().all(ended),
            text_bytes: self.text_bytes,
        }
    }

    fn assemble(&self) -> Option<String> {
        if self.lost || self.failed || !self.done || self.choices.is_empty() {
            return None;
        }
        let mut order: Vec<&Choice> = self.choices.iter().collect();
        order.sort_by_key(|choice| choice.index);
        let mut choices = ListWriter::new();
        for (index, choice) in order.into_iter().enumerate() {
            if choice.index != index as u64 {
                return None;
            }
            choices.push(&self.choice_json(choice)?);
        }
        let field = |name: &str| {
            let (_, value) = self.head.iter().find(|(key, _)| key == name)?;
            Some(value.as_str())
        };
        let object = match self.flavour {
            Flavour::Chat => "chat.completion",
            Flavour::Completions => "text_completion",
        };
        let mut answer = ObjectWriter::new()
            .raw("id", field("id")?)
            .str("object", object)
            .raw("created", field("created")?)
            .raw("model", field("model")?)
            .raw("choices", &choices.end())
            .maybe("usage", self.usage_json.as_deref());
        for (key, value) in &self.head {
            if !matches!(key.as_str(), "id" | "created" | "model") {
                answer = answer.named(key, value);
            }
        }
        // Pieces of valid JSON were put together; that the whole is valid is made sure of, because
        // it will be answered to others.
        Some(answer.end()).filter(|answer| Object::parse(answer).is_ok())
    }
}
