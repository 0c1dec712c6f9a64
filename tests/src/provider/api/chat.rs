//! OpenAI `/v1/chat/completions`.

use serde_json::{Value, json};

use super::{Call, content, json_reply, openai_usage_json, shape, told, tool_choice, tools};
use crate::provider::compose::{Ask, Said, compose, seed};
use crate::provider::models::Sold;
use crate::provider::reply::{Body, Event, Refusal, Reply};
use crate::provider::tokens::Prompt;

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = call.body;
    let fits = |sold| matches!(sold, Sold::Chat | Sold::Reasoning);
    let (model, sold) = call.model("v1/chat/completions", fits)?;
    let reasoning = sold == Sold::Reasoning;
    call.check_temperature(2.0)?;
    let limit = limit(call, reasoning)?;
    let choices = call.count("n")?.unwrap_or(1);
    if choices > 8 {
        return Err(Refusal::invalid("n", "Invalid 'n': the most is 8."));
    }
    let read = read(call)?;
    let mut usage = call.openai_usage(&model, &read.prompt);
    call.check_window(&model, usage.prompt)?;
    let ask = Ask {
        seed: seed(body),
        last_user: read.last_user,
        tool_result: read.tool_result,
        tools: tools(body, "/function/name", "/function/parameters")?,
        choice: tool_choice(body, "/function/name"),
        shape: shape(&body["response_format"], "/json_schema/schema", &read.all)?,
        limit,
        stop: call.stop("stop"),
        reasoning,
        claude: false,
        fixed_tokens: call.state.config.answer_tokens,
    };
    let said: Vec<Said> = (0..choices)
        .map(|choice| {
            compose(&Ask {
                seed: ask.seed.wrapping_add(choice),
                ..ask.clone()
            })
        })
        .collect();
    usage.completion = said.iter().map(|said| said.tokens as u64).sum();
    usage.reasoning = said.iter().map(|said| said.reasoning as u64).sum();
    let head = json!({
        "id": call.id("chatcmpl-"),
        "created": super::super::now_secs(),
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_5a1b2c3d4e",
    });
    if call.stream() {
        let wants_usage = body["stream_options"]["include_usage"] == true;
        let events = events(
            call,
            &head,
            &said,
            wants_usage.then(|| openai_usage_json(&usage)),
        );
        return Ok(Reply {
            model,
            usage,
            body: Body::Events(events),
        });
    }
    let mut value = head;
    value["object"] = json!("chat.completion");
    value["usage"] = openai_usage_json(&usage);
    value["choices"] = said
        .iter()
        .enumerate()
        .map(|(index, said)| {
            json!({
                "index": index,
                "message": message(call, said, index),
                "logprobs": null,
                "finish_reason": finish(said),
            })
        })
        .collect();
    Ok(json_reply(model, usage, value))
}

fn limit(call: &Call<'_>, reasoning: bool) -> Result<Option<u64>, Refusal> {
    let old = call.count("max_tokens")?;
    let new = call.count("max_completion_tokens")?;
    if reasoning && old.is_some() {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. \
                       Use 'max_completion_tokens' instead.";
        return Err(Refusal::invalid("max_tokens", message).code("unsupported_parameter"));
    }
    if old.is_some() && new.is_some() {
        return Err(Refusal::invalid(
            "max_tokens",
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        ));
    }
    Ok(new.or(old))
}

struct Read {
    prompt: Prompt,
    last_user: String,
    tool_result: Option<String>,
    all: String,
}

/// Counts as OpenAI's cookbook does: 3 tokens around each message, its role and content, one for
/// a name, 3 for the start of the answer.
fn read(call: &Call<'_>) -> Result<Read, Refusal> {
    let Some(Value::Array(messages)) = call.body.get("messages") else {
        return Err(Refusal::invalid(
            "messages",
            "Missing required parameter: 'messages'.",
        ));
    };
    if messages.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1.";
        return Err(Refusal::invalid("messages", message).code("empty_array"));
    }
    let tokens = &call.state.tokens;
    let mut read = Read {
        prompt: Prompt::default(),
        last_user: String::new(),
        tool_result: None,
        all: String::new(),
    };
    if let Some(Value::Array(tools)) = call.body.get("tools") {
        tokens.add_tools(&mut read.prompt, tools);
    }
    let mut called = false;
    for (index, message) in messages.iter().enumerate() {
        let Some(role) = message["role"].as_str() else {
            let message = format!("Missing required parameter: 'messages[{index}].role'.");
            return Err(Refusal::invalid("messages", message));
        };
        read.prompt.overhead(3, "message");
        tokens.add(&mut read.prompt, role);
        if let Some(name) = message["name"].as_str() {
            read.prompt.overhead(1, "name");
            tokens.add(&mut read.prompt, name);
        }
        let text = content(call, &mut read.prompt, &message["content"])?;
        read.all.push_str(&text);
        read.tool_result = None;
        match role {
            "system" | "developer" => {}
            "user" => read.last_user = text,
            "assistant" => {
                let calls = message["tool_calls"].as_array();
                for made in calls.into_iter().flatten() {
                    called = true;
                    read.prompt.overhead(3, "call");
                    for part in ["name", "arguments"] {
                        let part = made["function"][part].as_str().unwrap_or_default();
                        tokens.add(&mut read.prompt, part);
                    }
                }
            }
            "tool" | "function" if called => read.tool_result = Some(text),
            "tool" | "function" => {
                return Err(Refusal::invalid(
                    "messages",
                    "Invalid parameter: messages with role 'tool' must be a response to a \
                     preceeding message with 'tool_calls'.",
                ));
            }
            other => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values are: 'system', 'developer', \
                     'user', 'assistant', 'tool'."
                );
                return Err(Refusal::invalid("messages", message));
            }
        }
    }
    read.prompt.overhead(3, "reply");
    Ok(read)
}

fn finish(said: &Said) -> &'static str {
    match said {
        Said { cut: true, .. } => "length",
        Said { call: Some(_), .. } => "tool_calls",
        _ => "stop",
    }
}

fn tool_id(call: &Call<'_>, index: usize) -> String {
    format!("{}{index}", call.id("call_"))
}

fn message(call: &Call<'_>, said: &Said, index: usize) -> Value {
    match &said.call {
        Some(name) => json!({
            "role": "assistant",
            "content": null,
            "refusal": null,
            "tool_calls": [{
                "id": tool_id(call, index),
                "type": "function",
                "function": {"name": name, "arguments": said.text()},
            }],
        }),
        None => json!({
            "role": "assistant",
            "content": said.text(),
            "refusal": null,
            "annotations": [],
        }),
    }
}

fn events(call: &Call<'_>, head: &Value, said: &[Said], usage: Option<Value>) -> Vec<Event> {
    let mut events = Vec::new();
    let mut before = 0;
    let chunk = |index: usize, delta: Value, finish: Option<&str>| {
        let mut value = head.clone();
        value["object"] = json!("chat.completion.chunk");
        value["choices"] = json!([{
            "index": index, "delta": delta, "logprobs": null, "finish_reason": finish,
        }]);
        if usage.is_some() {
            value["usage"] = Value::Null;
        }
        value
    };
    for (index, said) in said.iter().enumerate() {
        let whole = said.tokens as u64;
        let first = said.reasoning as u64;
        let opening = match &said.call {
            Some(name) => json!({"role": "assistant", "content": null, "tool_calls": [{
                "index": 0,
                "id": tool_id(call, index),
                "type": "function",
                "function": {"name": name, "arguments": ""},
            }]}),
            None => json!({"role": "assistant", "content": "", "refusal": null}),
        };
        events.push(Event::plain(chunk(index, opening, None), before + first));
        for (at, piece) in said.pieces.iter().enumerate() {
            let delta = match said.call {
                Some(_) => json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}),
                None => json!({"content": piece}),
            };
            let told = before + told(at, said.pieces.len(), first, whole);
            events.push(Event::plain(chunk(index, delta, None), told));
        }
        before += whole;
        events.push(Event::plain(
            chunk(index, json!({}), Some(finish(said))),
            before,
        ));
    }
    if let Some(usage) = usage {
        let mut value = head.clone();
        value["object"] = json!("chat.completion.chunk");
        value["choices"] = json!([]);
        value["usage"] = usage;
        events.push(Event::plain(value, before));
    }
    events.push(Event::done(before));
    events
}
