//! Streams of Anthropic Messages: typed events in, usage and the whole message out.

use super::{Counts, is_end};
use crate::formats::{Answer, MAX_ASSEMBLED, Show, StreamReader, content, openai};
use crate::json::{self, JsonStr, ListWriter, Object};
use crate::sse::SseEvent;

/// Most content blocks of a message that are assembled.
const MAX_BLOCKS: usize = 1024;

/// Reads a stream of typed events.
#[derive(Debug, Default)]
pub(super) struct Reader {
    counts: Counts,
    /// `message_delta` told the whole answer's tokens.
    counted: bool,
    text_bytes: u64,
    /// `message_stop` came.
    stopped: bool,
    /// An error came, or something that is no event of this API.
    failed: bool,
    /// Something came that this version cannot add up, or too much.
    lost: bool,
    kept: usize,
    /// The message of `message_start`, raw.
    message: String,
    /// Members of the `delta`s of `message_delta`, raw, and of their `usage`.
    delta: Vec<(String, String)>,
    usage: Vec<(String, String)>,
    stop_reason: String,
    blocks: Vec<Block>,
}

/// A content block in the making.
#[derive(Debug, Default)]
struct Block {
    /// As it started, raw.
    start: String,
    /// Members that grew, escaped.
    texts: Vec<(&'static str, String)>,
    /// The input of a tool as escaped JSON in pieces.
    input: Option<String>,
    /// Raw citations.
    citations: Vec<String>,
    stopped: bool,
}

impl Reader {
    fn keep(&mut self, bytes: usize) -> bool {
        self.kept = self.kept.saturating_add(bytes);
        if self.kept > MAX_ASSEMBLED {
            self.lose();
        }
        !self.lost
    }

    fn lose(&mut self) {
        self.lost = true;
        self.blocks = Vec::new();
        self.message = String::new();
    }

    fn read(&mut self, kind: &str, event: &Object<'_>) -> Option<()> {
        match kind {
            "message_start" => {
                let raw = event.get("message")?;
                let message = Object::parse(raw).ok()?;
                if let Some(usage) = message.set("usage") {
                    self.counts = self.counts.then(Counts::of(usage));
                }
                if self.keep(raw.len()) {
                    self.message = raw.to_owned();
                }
            }
            "content_block_start" => {
                let raw = event.get("content_block")?;
                if !self.keep(raw.len()) {
                    return Some(());
                }
                // Blocks come in the order of their index.
                if event.count("index") != Some(self.blocks.len() as u64)
                    || self.blocks.len() == MAX_BLOCKS
                {
                    self.lose();
                    return Some(());
                }
                self.blocks.push(Block {
                    start: raw.to_owned(),
                    ..Block::default()
                });
            }
            "content_block_delta" => {
                let delta = event.object("delta")?;
                for key in ["text", "thinking", "partial_json"] {
                    self.text_bytes += openai::string_bytes(delta.get(key).unwrap_or(""));
                }
                if !self.keep(event.get("delta")?.len()) {
                    return Some(());
                }
                let block = self.block(event)?;
                if block.add(&delta).is_none() {
                    self.lose();
                }
            }
            "content_block_stop" if !self.lost => self.block(event)?.stopped = true,
            "message_delta" => {
                let delta = event.object("delta")?;
                if let Some(usage) = event.object("usage") {
                    let raw = event.get("usage").unwrap_or("");
                    self.counts = self.counts.then(Counts::of(raw));
                    self.counted = true;
                    self.keep(raw.len());
                    merge(&mut self.usage, &usage);
                }
                if let Some(reason) = delta.set("stop_reason") {
                    self.stop_reason = reason.to_owned();
                }
                self.keep(event.get("delta").unwrap_or("").len());
                merge(&mut self.delta, &delta);
                // Members that later versions put beside these belong to the message as well,
                // but we cannot know where.
                let known = |key: &str| matches!(key, "type" | "delta" | "usage");
                if event
                    .iter()
                    .any(|(key, value)| !known(key) && value != "null")
                {
                    self.lose();
                }
            }
            "message_stop" => self.stopped = true,
            "error" => self.failed = true,
            // Pings, and events that a later version adds.
            _ => {}
        }
        Some(())
    }

    fn block(&mut self, event: &Object<'_>) -> Option<&mut Block> {
        let index = usize::try_from(event.count("index")?).ok()?;
        self.blocks.get_mut(index)
    }
}

/// Keeps the members of `object`; a later value replaces an earlier one, `null` does not.
fn merge(kept: &mut Vec<(String, String)>, object: &Object<'_>) {
    for (key, value) in object.iter() {
        match kept.iter_mut().find(|(name, _)| name == key) {
            Some(_) if value == "null" => {}
            Some((_, old)) => value.clone_into(old),
            None => kept.push((key.to_owned(), value.to_owned())),
        }
    }
}

impl Block {
    /// Adds a delta; None when this version does not know it.
    fn add(&mut self, delta: &Object<'_>) -> Option<()> {
        let grow = |block: &mut Block, key: &'static str| {
            let piece = delta.str(key)?.escaped();
            match block.texts.iter_mut().find(|(name, _)| *name == key) {
                Some((_, text)) => text.push_str(piece),
                None => block.texts.push((key, piece.to_owned())),
            }
            Some(())
        };
        match delta.str("type")?.text().as_ref() {
            "text_delta" => grow(self, "text"),
            "thinking_delta" => grow(self, "thinking"),
            "signature_delta" => grow(self, "signature"),
            "input_json_delta" => {
                let piece = delta.str("partial_json")?.escaped();
                self.input.get_or_insert_default().push_str(piece);
                Some(())
            }
            "citations_delta" => {
                self.citations.push(delta.get("citation")?.to_owned());
                Some(())
            }
            _ => None,
        }
    }

    /// The whole block.
    fn json(&self) -> Option<String> {
        self.stopped.then_some(())?;
        let fields = Object::parse(&self.start).ok()?;
        let mut edits: Vec<(&str, String)> = Vec::new();
        for (key, text) in &self.texts {
            // What the block started with comes first; it is empty as a rule.
            let start = fields.str(key).map_or("", JsonStr::escaped);
            edits.push((key, format!("\"{start}{text}\"")));
        }
        if let Some(escaped) = self.input.as_deref().filter(|input| !input.is_empty()) {
            let input: String = serde_json::from_str(&format!("\"{escaped}\"")).ok()?;
            Object::parse(&input).ok()?;
            edits.push(("input", json::minify(&input).into_owned()));
        }
        if !self.citations.is_empty() {
            let mut list = ListWriter::new();
            for citation in &self.citations {
                list.push(citation);
            }
            edits.push(("citations", list.end()));
        }
        let edits: Vec<_> = edits
            .iter()
            .map(|(key, json)| (*key, json.as_str()))
            .collect();
        Some(json::set_fields(&self.start, &fields, &edits))
    }
}

impl StreamReader for Reader {
    fn event(&mut self, event: &SseEvent<'_>) -> Show {
        let read = content::fields(&event.data).ok().and_then(|fields| {
            let kind = fields.str("type")?.text();
            self.read(&kind, &fields)
        });
        self.failed |= read.is_none();
        Show::Pass
    }

    fn outcome(&self) -> Answer {
        Answer {
            usage: self.counts.usage(),
            // `message_start` counts the prompt, and what there is of an answer by then.
            usage_so_far: !self.counted,
            complete: self.stopped && !self.failed && is_end(&self.stop_reason),
            text_bytes: self.text_bytes,
        }
    }

    fn assemble(&self) -> Option<String> {
        if !self.stopped || self.failed || self.lost {
            return None;
        }
        let message = Object::parse(&self.message).ok()?;
        let mut content = ListWriter::new();
        for block in &self.blocks {
            content.push(&block.json()?);
        }
        let content = content.end();
        let start = message.set("usage").unwrap_or("{}");
        let counts: Vec<_> = self
            .usage
            .iter()
            .filter(|(_, value)| value != "null")
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let usage = json::set_fields(start, &Object::parse(start).ok()?, &counts);
        let mut edits = vec![("content", content.as_str()), ("usage", usage.as_str())];
        edits.extend(
            self.delta
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        );
        Some(json::set_fields(&self.message, &message, &edits))
            .filter(|answer| Object::parse(answer).is_ok())
    }
}
