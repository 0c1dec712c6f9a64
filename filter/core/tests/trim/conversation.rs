//! Conversations made up at random, as clients of each API have them, and as they should not.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// The APIs whose requests are lists of turns.
pub(crate) const FORMATS: [&str; 3] = ["openai.chat", "openai.responses", "anthropic.messages"];

/// A request made up.
pub(crate) struct Made {
    pub(crate) format: &'static str,
    /// The field with the items.
    pub(crate) field: &'static str,
    pub(crate) body: Value,
    /// It is one that the API refuses, or that this version cannot read in places.
    pub(crate) odd: bool,
    /// Ids that only one turn has.
    pub(crate) ids: Vec<String>,
}

impl Made {
    pub(crate) fn items(&self) -> &Vec<Value> {
        self.body[self.field].as_array().unwrap()
    }
}

const WORDS: &[&str] = &[
    "the invoice of 14 March",
    "日本語の文。",
    "\"quoted\" \\ and / slashes",
    "line\nbreak\ttab",
    "{\"role\":\"user\"}, [1, 2]",
    "\"sluice_pin\": true",
    "🦀 naïve café",
    "\u{0}\u{1f}\u{7f}\u{2028}",
    "tool_use_id call_id",
    "ends here.",
    "```\ncode {}\n```",
];

/// What makes them up.
pub(crate) struct Maker {
    rng: Rng,
    made: usize,
    /// Ids are counted from the beginning in each turn, as some clients do.
    again: bool,
    in_turn: usize,
    /// What upstream stores is only named (Responses).
    refers: bool,
    /// Ids that stand nowhere but in their own turn.
    ids: Vec<String>,
}

impl Maker {
    pub(crate) fn new(rng: &mut Rng) -> Maker {
        Maker {
            again: rng.u8(..5) == 0,
            refers: rng.u8(..5) == 0,
            rng: rng.fork(),
            made: 0,
            in_turn: 0,
            ids: Vec::new(),
        }
    }

    /// A request of one of the APIs.
    pub(crate) fn request(mut self) -> Made {
        let format = FORMATS[self.rng.usize(..FORMATS.len())];
        let mut items = self.before(format);
        for last in (0..self.rng.usize(1..9)).rev().map(|left| left == 0) {
            self.in_turn = 0;
            items.extend(self.turn(format, last));
            if last && self.chance(3) && !self.ids.is_empty() {
                let id = &self.ids[self.rng.usize(..self.ids.len())];
                let asks = format!("What did {id}, say?");
                items.push(json!({"role": "user", "content": asks}));
            }
            if self.chance(8) && format != "anthropic.messages" {
                items.push(json!({"role": "system", "content": self.text()}));
            }
        }
        let odd = self.chance(3);
        if odd {
            for _ in 0..self.rng.usize(1..4) {
                self.damage(&mut items);
            }
        }
        for item in &mut items {
            if self.chance(10)
                && let Some(fields) = item.as_object_mut()
            {
                let pins = [
                    json!(true),
                    json!(true),
                    json!(false),
                    json!({"a": [1, "}"]}),
                ];
                fields.insert("sluice_pin".into(), pins[self.rng.usize(..4)].clone());
            }
        }
        let field = match format {
            "openai.responses" => "input",
            _ => "messages",
        };
        let mut body = json!({"model": "gpt-4o", field: items, "stream": self.rng.bool()});
        let more = body.as_object_mut().unwrap();
        if format == "anthropic.messages" {
            more.insert("max_tokens".into(), json!(64));
            if self.chance(2) {
                more.insert("system".into(), json!(self.text()));
            }
        }
        if format == "openai.responses" && self.chance(4) {
            more.insert("previous_response_id".into(), json!("resp_1"));
        }
        Made {
            format,
            field,
            body,
            odd,
            ids: self.ids,
        }
    }

    fn chance(&mut self, one_in: u8) -> bool {
        self.rng.u8(..one_in) == 0
    }

    /// Words that stand nowhere else.
    fn text(&mut self) -> String {
        self.made += 1;
        let one = WORDS[self.rng.usize(..WORDS.len())];
        let other = WORDS[self.rng.usize(..WORDS.len())];
        format!("{one} {other} <{}>", self.made)
    }

    fn id(&mut self, kind: &str) -> String {
        self.made += 1;
        self.in_turn += 1;
        match self.again {
            true => format!("{kind}_{}", self.in_turn),
            false => {
                let id = format!("{kind}_{:08}", self.made);
                self.ids.push(id.clone());
                id
            }
        }
    }

    /// An id of an item, which no client gives twice.
    fn item_id(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}_{:08}x", self.made)
    }

    /// What comes before the first turn.
    fn before(&mut self, format: &str) -> Vec<Value> {
        let mut items = Vec::new();
        if format == "anthropic.messages" {
            return items;
        }
        for _ in 0..self.rng.usize(..3) {
            let role = ["system", "developer"][self.rng.usize(..2)];
            items.push(json!({"role": role, "content": self.text()}));
        }
        if format == "openai.chat" && self.chance(5) {
            for name in ["example_user", "example_assistant"] {
                let role = name.trim_start_matches("example_");
                items.push(json!({"role": role, "name": name, "content": self.text()}));
            }
        }
        if format == "openai.chat" && self.chance(8) {
            items.push(json!({"role": "assistant", "content": self.text()}));
        }
        items
    }

    fn turn(&mut self, format: &str, last: bool) -> Vec<Value> {
        match format {
            "openai.chat" => self.chat(last),
            "openai.responses" => self.responses(last),
            _ => self.anthropic(last),
        }
    }

    fn chat(&mut self, last: bool) -> Vec<Value> {
        let mut items = vec![self.chat_user()];
        if self.chance(8) {
            items.push(self.chat_user());
        }
        for _ in 0..self.rng.usize(..3) {
            if self.chance(6) {
                let name = self.item_id("function");
                let call = json!({"name": name, "arguments": self.text()});
                items.push(json!({"role": "assistant", "content": null, "function_call": call}));
                items.push(json!({"role": "function", "name": name, "content": self.text()}));
                continue;
            }
            let ids: Vec<_> = (0..self.rng.usize(1..4)).map(|_| self.id("call")).collect();
            let calls: Vec<_> = ids.iter().map(|id| self.chat_call(id)).collect();
            items.push(json!({"role": "assistant", "content": null, "tool_calls": calls}));
            let mut results: Vec<_> = ids
                .iter()
                .map(|id| json!({"role": "tool", "tool_call_id": id, "content": self.text()}))
                .collect();
            self.rng.shuffle(&mut results);
            items.extend(results);
        }
        if !last || self.chance(4) {
            items.push(match self.rng.u8(..3) {
                0 => {
                    json!({"role": "assistant", "content": [{"type": "text", "text": self.text()}]})
                }
                1 => json!({"role": "assistant", "content": null, "refusal": self.text()}),
                _ => json!({"role": "assistant", "content": self.text()}),
            });
        }
        items
    }

    fn chat_call(&mut self, id: &str) -> Value {
        match self.chance(4) {
            true => {
                json!({"id": id, "type": "custom", "custom": {"name": "c", "input": self.text()}})
            }
            false => {
                json!({"id": id, "type": "function", "function": {"name": "f", "arguments": self.text()}})
            }
        }
    }

    fn chat_user(&mut self) -> Value {
        match self.chance(3) {
            true => json!({"role": "user", "content": [
                {"type": "text", "text": self.text()},
                {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{}", self.item_id("AAAA"))}}
            ]}),
            false => json!({"role": "user", "content": self.text()}),
        }
    }

    fn responses(&mut self, last: bool) -> Vec<Value> {
        let mut items = vec![match self.chance(3) {
            true => json!({"type": "message", "role": "user", "content": [
                {"type": "input_image", "detail": "auto", "image_url": "https://a.example/a.png"},
                {"type": "input_text", "text": self.text()}
            ]}),
            false => json!({"role": "user", "content": self.text()}),
        }];
        for _ in 0..self.rng.usize(..3) {
            self.hosted(&mut items);
            if self.chance(2) {
                let id = self.item_id("rs");
                let reasoning = json!({"type": "reasoning", "id": id, "summary": [], "encrypted_content": self.text()});
                self.stored(reasoning, &mut items);
            }
            let ids: Vec<_> = (0..self.rng.usize(1..4)).map(|_| self.id("call")).collect();
            let custom = self.chance(4);
            for id in &ids {
                let item = self.item_id("fc");
                let call = match custom {
                    true => {
                        json!({"type": "custom_tool_call", "id": item, "call_id": id, "name": "c", "input": self.text()})
                    }
                    false => {
                        json!({"type": "function_call", "id": item, "call_id": id, "name": "f", "arguments": self.text(), "status": "completed"})
                    }
                };
                self.stored(call, &mut items);
            }
            for id in &ids {
                let kind = ["function_call_output", "custom_tool_call_output"][usize::from(custom)];
                items.push(json!({"type": kind, "call_id": id, "output": self.text()}));
            }
        }
        if !last || self.chance(4) {
            let answer = match self.chance(2) {
                true => json!({"role": "assistant", "content": self.text()}),
                false => {
                    let id = self.item_id("msg");
                    json!({"type": "message", "id": id, "role": "assistant", "status": "completed",
                        "content": [{"type": "output_text", "text": self.text(), "annotations": [], "logprobs": []}]})
                }
            };
            self.stored(answer, &mut items);
        }
        items
    }

    /// An item that upstream may have stored: then it is only named.
    fn stored(&mut self, item: Value, items: &mut Vec<Value>) {
        let id = item.get("id").filter(|_| self.refers);
        items.push(match id {
            Some(id) => json!({"type": "item_reference", "id": id}),
            None => item,
        });
    }

    /// What upstream's own tools leave behind.
    fn hosted(&mut self, items: &mut Vec<Value>) {
        match self.rng.u8(..8) {
            0 => {
                let id = self.item_id("ws");
                items.push(
                    json!({"type": "web_search_call", "id": id, "status": "completed",
                    "action": {"type": "search", "query": self.text()}}),
                );
            }
            1 => {
                let id = self.item_id("mcpl");
                items.push(
                    json!({"type": "mcp_list_tools", "id": id, "server_label": "s", "tools": []}),
                );
            }
            2 => {
                let id = self.item_id("cmp");
                items.push(
                    json!({"type": "compaction", "id": id, "encrypted_content": self.text()}),
                );
            }
            _ => {}
        }
    }

    fn anthropic(&mut self, last: bool) -> Vec<Value> {
        let mut items = vec![match self.chance(3) {
            true => json!({"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": self.item_id("AAAA")}},
                {"type": "text", "text": self.text(), "cache_control": {"type": "ephemeral"}}
            ]}),
            false => json!({"role": "user", "content": self.text()}),
        }];
        let rounds = self.rng.usize(..3);
        for _ in 0..rounds {
            let mut said = Vec::new();
            if self.chance(2) {
                said.push(json!({"type": "thinking", "thinking": self.text(), "signature": self.item_id("sig")}));
            }
            if self.chance(4) {
                let id = self.id("srvtoolu");
                said.push(json!({"type": "server_tool_use", "id": id, "name": "web_search", "input": {"query": self.text()}}));
                said.push(
                    json!({"type": "web_search_tool_result", "tool_use_id": id, "content": []}),
                );
            }
            let ids: Vec<_> = (0..self.rng.usize(1..4))
                .map(|_| self.id("toolu"))
                .collect();
            for id in &ids {
                said.push(
                    json!({"type": "tool_use", "id": id, "name": "f", "input": {"a": self.text()}}),
                );
            }
            items.push(json!({"role": "assistant", "content": said}));
            let mut results: Vec<_> = ids
                .iter()
                .map(|id| json!({"type": "tool_result", "tool_use_id": id, "content": self.text()}))
                .collect();
            self.rng.shuffle(&mut results);
            if self.chance(4) {
                results.push(json!({"type": "text", "text": self.text()}));
            }
            items.push(json!({"role": "user", "content": results}));
        }
        if !last || self.chance(4) {
            items.push(json!({"role": "assistant", "content": self.text()}));
        }
        items
    }

    /// Makes a list of items into one that clients should not send.
    fn damage(&mut self, items: &mut Vec<Value>) {
        let at = self.rng.usize(..=items.len());
        let other = self.rng.usize(..=items.len());
        match self.rng.u8(..6) {
            0 => {
                let odd = [
                    json!(null),
                    json!(7),
                    json!("text"),
                    json!([{"role": "user"}]),
                    json!({}),
                    json!({"role": "stranger", "content": "x"}),
                    json!({"role": ["user"], "content": {"a": 1}}),
                    json!({"role": "user"}),
                    json!({"role": "user", "content": null}),
                    json!({"role": "user", "content": [7, "x", {"type": "hologram"}]}),
                    json!({"type": "no_such_item", "id": "x_1"}),
                    json!({"role": "tool", "content": "no id"}),
                    json!({"role": "assistant", "tool_calls": {"id": 1}}),
                ];
                items.insert(at, odd[self.rng.usize(..odd.len())].clone());
            }
            1 if at < items.len() => {
                items.remove(at);
            }
            2 if at < items.len() && other < items.len() => items.swap(at, other),
            3 if at < items.len() => {
                // A result that comes late.
                let item = items.remove(at);
                items.insert((at + self.rng.usize(..4)).min(items.len()), item);
            }
            4 if at < items.len() => {
                let copy = items[at].clone();
                items.insert(other, copy);
            }
            _ => {
                let said = json!({"role": "assistant", "content": self.text()});
                items.insert(0, said);
            }
        }
    }
}

/// JSON as careless clients write it: white space and escapes where nobody needs them.
pub(crate) fn loose(value: &Value, rng: &mut Rng) -> String {
    let mut out = String::new();
    write(value, rng, &mut out);
    out
}

fn space(rng: &mut Rng, out: &mut String) {
    for _ in 0..[0, 0, 0, 1, 3][rng.usize(..5)] {
        out.push([' ', '\n', '\t', '\r'][rng.usize(..4)]);
    }
}

fn write(value: &Value, rng: &mut Rng, out: &mut String) {
    space(rng, out);
    match value {
        Value::Object(fields) => object(fields, rng, out),
        Value::Array(list) => {
            out.push('[');
            for (at, one) in list.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(one, rng, out);
            }
            out.push(']');
        }
        Value::String(text) => string(text, rng, out),
        plain => out.push_str(&plain.to_string()),
    }
    space(rng, out);
}

fn object(fields: &Map<String, Value>, rng: &mut Rng, out: &mut String) {
    out.push('{');
    for (at, (key, value)) in fields.iter().enumerate() {
        out.push_str(if at > 0 { "," } else { "" });
        space(rng, out);
        string(key, rng, out);
        space(rng, out);
        out.push(':');
        write(value, rng, out);
    }
    out.push('}');
}

fn string(text: &str, rng: &mut Rng, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        if rng.u8(..40) == 0 {
            let mut units = [0; 2];
            for unit in char.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            let quoted = Value::from(char.to_string()).to_string();
            out.push_str(&quoted[1..quoted.len() - 1]);
        }
    }
    out.push('"');
}
