//! Anthropic `/v1/messages` and `/v1/messages/count_tokens`.

use serde_json::{Value, json};

use super::{Call, content, json_reply, scaled, told, tools};
use crate::provider::compose::{Ask, Choice, Said, Shape, compose, seed};
use crate::provider::models::Sold;
use crate::provider::reply::{Body, Event, Refusal, Reply};
use crate::provider::tokens::{Prompt, claude};
use sluice_wire::Usage;

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = call.body;
    let (model, _) = call.model("v1/messages", |sold| sold == Sold::Anthropic)?;
    let Some(limit) = call.count("max_tokens")? else {
        return Err(Refusal::invalid("max_tokens", "max_tokens: Field required"));
    };
    call.check_temperature(1.0)?;
    let read = read(call)?;
    let owner = call.owner_of(&model);
    let least = call.state.catalog.least_front(&model);
    let asked = call.asked(&owner);
    let (cached, cache_write) = call.state.prefixes.marked(asked, &read.prompt, least);
    let mut usage = Usage {
        prompt: claude(read.prompt.tokens.len()),
        cached,
        cache_write,
        ..Usage::default()
    };
    call.check_window(&model, usage.prompt)?;
    let said = compose(&Ask {
        seed: seed(body),
        last_user: read.last_user,
        tool_result: read.tool_result,
        tools: tools(body, "/name", "/input_schema")?,
        choice: choice(&body["tool_choice"]),
        shape: Shape::Text,
        limit: Some(limit),
        stop: call.stop("stop_sequences"),
        reasoning: false,
        claude: true,
        fixed_tokens: call.state.config.answer_tokens,
    });
    usage.completion = scaled(said.tokens, true).min(limit);
    let id = call.id("msg_01");
    let tool_id = call.id("toolu_01");
    let (reason, stop_sequence) = match &said {
        Said { cut: true, .. } => ("max_tokens", None),
        Said { call: Some(_), .. } => ("tool_use", None),
        Said {
            stopped: Some(at), ..
        } => ("stop_sequence", Some(at.clone())),
        _ => ("end_turn", None),
    };
    if call.stream() {
        let start = json!({
            "id": id, "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage_json(&usage, 1),
        });
        let end = json!({
            "delta": {"stop_reason": reason, "stop_sequence": stop_sequence},
            "usage": usage_json(&usage, usage.completion),
        });
        let events = events(&said, &tool_id, (start, end), usage.completion);
        return Ok(Reply {
            model,
            usage,
            body: Body::Events(events),
        });
    }
    let block = match &said.call {
        Some(name) => {
            // Cut arguments are no JSON; the API then gives what it could read, which is nothing.
            let input: Value = serde_json::from_str(&said.text()).unwrap_or_else(|_| json!({}));
            json!({"type": "tool_use", "id": tool_id, "name": name, "input": input})
        }
        None => json!({"type": "text", "text": said.text()}),
    };
    let value = json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [block],
        "stop_reason": reason,
        "stop_sequence": stop_sequence,
        "usage": usage_json(&usage, usage.completion),
    });
    Ok(json_reply(model, usage, value))
}

/// `/v1/messages/count_tokens`: free of charge.
pub(super) fn count(call: &Call<'_>) -> Result<Reply, Refusal> {
    let (model, _) = call.model("v1/messages/count_tokens", |sold| sold == Sold::Anthropic)?;
    let read = read(call)?;
    let value = json!({"input_tokens": claude(read.prompt.tokens.len())});
    Ok(json_reply(model, Usage::default(), value))
}

/// `input_tokens` leaves out what was read from or written to the cache.
fn usage_json(usage: &Usage, output: u64) -> Value {
    json!({
        "input_tokens": usage.prompt - usage.cached - usage.cache_write,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": output,
        "service_tier": "standard",
    })
}

fn choice(choice: &Value) -> Choice {
    match choice["type"].as_str() {
        Some("any") => Choice::Any,
        Some("none") => Choice::None,
        Some("tool") => Choice::Named(choice["name"].as_str().unwrap_or_default().to_owned()),
        _ => Choice::Auto,
    }
}

struct Read {
    prompt: Prompt,
    last_user: String,
    tool_result: Option<String>,
}

/// 4 tokens around each message, 7 for the whole; the rest is text, scaled to Claude's counts.
fn read(call: &Call<'_>) -> Result<Read, Refusal> {
    let Some(Value::Array(messages)) = call.body.get("messages") else {
        return Err(Refusal::invalid("messages", "messages: Field required"));
    };
    if messages.is_empty() {
        return Err(Refusal::invalid(
            "messages",
            "messages: at least one message is required",
        ));
    }
    let tokens = &call.state.tokens;
    let mut read = Read {
        prompt: Prompt::default(),
        last_user: String::new(),
        tool_result: None,
    };
    if let Some(Value::Array(tools)) = call.body.get("tools") {
        tokens.add_tools(&mut read.prompt, tools);
    }
    content(call, &mut read.prompt, &call.body["system"])?;
    let mut called = Vec::new();
    for message in messages {
        read.prompt.overhead(4, "message");
        let user = match message["role"].as_str() {
            Some("user") => true,
            Some("assistant") => false,
            other => {
                let message = format!(
                    "messages: Unexpected role \"{}\". Allowed roles are \"user\" or \"assistant\".",
                    other.unwrap_or("null")
                );
                return Err(Refusal::invalid("messages", message));
            }
        };
        read.tool_result = None;
        let blocks = match &message["content"] {
            Value::Array(blocks) => blocks.clone(),
            Value::String(text) => vec![json!({"type": "text", "text": text})],
            _ => {
                return Err(Refusal::invalid(
                    "messages",
                    "messages.content: Field required",
                ));
            }
        };
        let mut said = String::new();
        for block in blocks {
            match block["type"].as_str() {
                Some("tool_use") => {
                    called.push(block["id"].clone());
                    tokens.add(&mut read.prompt, block["name"].as_str().unwrap_or_default());
                    tokens.add(&mut read.prompt, &block["input"].to_string());
                    read.prompt.block(&block);
                }
                Some("tool_result") => {
                    if !called.contains(&block["tool_use_id"]) {
                        return Err(Refusal::invalid(
                            "messages",
                            "messages: unexpected `tool_use_id` found in `tool_result` blocks",
                        ));
                    }
                    let text = content(call, &mut read.prompt, &block["content"])?;
                    read.tool_result = Some(text);
                    read.prompt.block(&block);
                }
                _ => said.push_str(&content(call, &mut read.prompt, &json!([block]))?),
            }
        }
        if user && read.tool_result.is_none() {
            read.last_user = said;
        }
    }
    let marks = read.prompt.marks.len();
    if marks > 4 {
        let message =
            format!("A maximum of 4 blocks with cache_control may be provided. Found {marks}.");
        return Err(Refusal::invalid("messages", message));
    }
    read.prompt.overhead(7, "reply");
    Ok(read)
}

fn events(said: &Said, tool_id: &str, ends: (Value, Value), whole: u64) -> Vec<Event> {
    let (start, end) = ends;
    let mut events = vec![Event::typed(
        "message_start",
        json!({"message": start}),
        1.min(whole),
    )];
    let block = match &said.call {
        Some(name) => json!({"type": "tool_use", "id": tool_id, "name": name, "input": {}}),
        None => json!({"type": "text", "text": ""}),
    };
    events.push(Event::typed(
        "content_block_start",
        json!({"index": 0, "content_block": block}),
        1.min(whole),
    ));
    events.push(Event::typed("ping", json!({}), 1.min(whole)));
    for (at, piece) in said.pieces.iter().enumerate() {
        let delta = match said.call {
            Some(_) => json!({"type": "input_json_delta", "partial_json": piece}),
            None => json!({"type": "text_delta", "text": piece}),
        };
        let told = told(at, said.pieces.len(), 0, whole);
        events.push(Event::typed(
            "content_block_delta",
            json!({"index": 0, "delta": delta}),
            told,
        ));
    }
    events.push(Event::typed(
        "content_block_stop",
        json!({"index": 0}),
        whole,
    ));
    events.push(Event::typed("message_delta", end, whole));
    events.push(Event::typed("message_stop", json!({}), whole));
    events
}
