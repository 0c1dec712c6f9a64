//! A stored response as the typed events that the API would have streamed.

use crate::formats::openai::MAX_DELTA;
use crate::json::{self, JsonStr, Object, ObjectWriter, split_escaped};
use crate::sse::SseEvent;

/// The stream, from `response.created` to `response.completed`. None when the response holds items
/// that this version cannot tell as events (those of hosted tools) or has not ended well.
pub(super) fn replay(answer: &str) -> Option<Vec<u8>> {
    let answer = json::minify(answer);
    let response = Object::parse(&answer).ok()?;
    (response.get("status")? == r#""completed""#).then_some(())?;
    let items = json::array(response.get("output")?).ok()?;
    let mut events = Events::default();
    let started = reset(
        &answer,
        &response,
        &[
            ("status", r#""in_progress""#),
            ("output", "[]"),
            ("usage", "null"),
            ("completed_at", "null"),
        ],
    );
    for kind in ["response.created", "response.in_progress"] {
        events.send(kind, |event| event.raw("response", &started));
    }
    for (index, raw) in items.into_iter().enumerate() {
        item(&mut events, index as u64, raw)?;
    }
    events.send("response.completed", |event| event.raw("response", &answer));
    Some(events.out)
}

/// `raw` with those of the fields that it has set to what they were at the start.
fn reset(raw: &str, fields: &Object<'_>, start: &[(&str, &str)]) -> String {
    let edits: Vec<_> = start
        .iter()
        .copied()
        .filter(|(key, _)| fields.get(key).is_some())
        .collect();
    json::set_fields(raw, fields, &edits)
}

#[derive(Default)]
struct Events {
    number: u64,
    out: Vec<u8>,
}

impl Events {
    fn send(&mut self, kind: &str, fill: impl FnOnce(ObjectWriter) -> ObjectWriter) {
        let event = ObjectWriter::new()
            .str("type", kind)
            .int("sequence_number", self.number);
        SseEvent::write(&mut self.out, kind, &fill(event).end());
        self.number += 1;
    }
}

/// Where a text stands: the members that its events carry.
struct Place<'a> {
    item_id: &'a str,
    output_index: u64,
    /// Name of the inner index and its value.
    part: Option<(&'static str, u64)>,
}

impl Place<'_> {
    fn fill(&self, event: ObjectWriter) -> ObjectWriter {
        let event = event
            .raw("item_id", self.item_id)
            .int("output_index", self.output_index);
        match self.part {
            Some((name, index)) => event.int(name, index),
            None => event,
        }
    }
}

/// How the text of one kind of item or part is called in its events.
struct Text<'a> {
    /// `response.output_text`: events `.delta` and `.done`.
    event: &'static str,
    /// Member of `.done` that holds the whole.
    whole: &'static str,
    text: JsonStr<'a>,
    /// `logprobs`, in the events that have it.
    logprobs: Option<&'a str>,
}

impl Text<'_> {
    fn send(&self, events: &mut Events, place: &Place<'_>) {
        let scored = self.logprobs.is_some_and(|raw| raw != "[]");
        let max = if scored { usize::MAX } else { MAX_DELTA };
        let delta = format!("{}.delta", self.event);
        for piece in split_escaped(self.text.escaped(), max) {
            events.send(&delta, |event| {
                place
                    .fill(event)
                    .str("delta", piece)
                    .maybe("logprobs", self.logprobs)
            });
        }
        events.send(&format!("{}.done", self.event), |event| {
            place
                .fill(event)
                .raw(self.whole, self.text.raw())
                .maybe("logprobs", self.logprobs)
        });
    }
}

fn item(events: &mut Events, index: u64, raw: &str) -> Option<()> {
    let item = Object::parse(raw).ok()?;
    let kind = item.str("type")?.text();
    let started = reset(
        raw,
        &item,
        &[
            ("status", r#""in_progress""#),
            ("content", "[]"),
            ("summary", "[]"),
            ("arguments", "\"\""),
            ("input", "\"\""),
        ],
    );
    events.send("response.output_item.added", |event| {
        event.int("output_index", index).raw("item", &started)
    });
    let place = Place {
        // Some compatible upstreams give function calls no id of their own.
        item_id: item.get("id").unwrap_or("\"\""),
        output_index: index,
        part: None,
    };
    match &*kind {
        "message" => parts(events, &place, item.get("content")?, "content_index")?,
        "reasoning" => {
            parts(
                events,
                &place,
                item.set("summary").unwrap_or("[]"),
                "summary_index",
            )?;
            parts(
                events,
                &place,
                item.set("content").unwrap_or("[]"),
                "content_index",
            )?;
        }
        "function_call" => Text {
            event: "response.function_call_arguments",
            whole: "arguments",
            text: item.str("arguments")?,
            logprobs: None,
        }
        .send(events, &place),
        "custom_tool_call" => Text {
            event: "response.custom_tool_call_input",
            whole: "input",
            text: item.str("input")?,
            logprobs: None,
        }
        .send(events, &place),
        _ => return None,
    }
    events.send("response.output_item.done", |event| {
        event.int("output_index", index).raw("item", raw)
    });
    Some(())
}

/// The parts of a message or of reasoning.
fn parts(events: &mut Events, item: &Place<'_>, raw: &str, index: &'static str) -> Option<()> {
    for (at, raw) in json::array(raw).ok()?.into_iter().enumerate() {
        let part = Object::parse(raw).ok()?;
        let (event, key) = match part.str("type")?.text().as_ref() {
            "output_text" => ("response.output_text", "text"),
            "refusal" => ("response.refusal", "refusal"),
            "summary_text" => ("response.reasoning_summary_text", "text"),
            "reasoning_text" => ("response.reasoning_text", "text"),
            _ => return None,
        };
        let part_event = if index == "summary_index" {
            "response.reasoning_summary_part"
        } else {
            "response.content_part"
        };
        let place = Place {
            part: Some((index, at as u64)),
            ..*item
        };
        let started = reset(
            raw,
            &part,
            &[(key, "\"\""), ("annotations", "[]"), ("logprobs", "[]")],
        );
        events.send(&format!("{part_event}.added"), |event| {
            place.fill(event).raw("part", &started)
        });
        let text = Text {
            event,
            whole: key,
            text: part.str(key)?,
            logprobs: (event == "response.output_text")
                .then(|| part.set("logprobs").unwrap_or("[]")),
        };
        text.send(events, &place);
        let notes = part.set("annotations").unwrap_or("[]");
        for (at, note) in json::array(notes).ok()?.into_iter().enumerate() {
            events.send("response.output_text.annotation.added", |event| {
                place
                    .fill(event)
                    .int("annotation_index", at as u64)
                    .raw("annotation", note)
            });
        }
        events.send(&format!("{part_event}.done"), |event| {
            place.fill(event).raw("part", raw)
        });
    }
    Some(())
}
