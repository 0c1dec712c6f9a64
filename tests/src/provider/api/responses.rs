//! OpenAI `/v1/responses`.

use serde_json::{Value, json};

use super::{Call, content, json_reply, shape, told, tool_choice, tools};
use crate::provider::compose::{Ask, Said, compose, seed};
use crate::provider::models::Sold;
use crate::provider::reply::{Body, Event, Refusal, Reply};
use crate::provider::tokens::Prompt;
use sluice_wire::Usage;

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = call.body;
    let fits = |sold| matches!(sold, Sold::Chat | Sold::Reasoning);
    let (model, sold) = call.model("v1/responses", fits)?;
    call.check_temperature(2.0)?;
    if let Some(previous) = body["previous_response_id"].as_str() {
        let message = format!("Previous response with id '{previous}' not found.");
        let refusal = Refusal::invalid("previous_response_id", message);
        return Err(refusal.code("previous_response_not_found"));
    }
    let read = read(call)?;
    let mut usage = call.openai_usage(&model, &read.prompt);
    call.check_window(&model, usage.prompt)?;
    let said = compose(&Ask {
        seed: seed(body),
        last_user: read.last_user,
        tool_result: read.tool_result,
        tools: tools(body, "/name", "/parameters")?,
        choice: tool_choice(body, "/name"),
        shape: shape(&body["text"]["format"], "/schema", &read.all)?,
        limit: call.count("max_output_tokens")?,
        stop: Vec::new(),
        reasoning: sold == Sold::Reasoning,
        claude: false,
        fixed_tokens: call.state.config.answer_tokens,
    });
    usage.completion = said.tokens as u64;
    usage.reasoning = said.reasoning as u64;
    let item = item(call, &said);
    let whole = |status: &str, output: Value, usage: Value| {
        json!({
            "id": call.id("resp_"),
            "object": "response",
            "created_at": super::super::now_secs(),
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": match status {
                "incomplete" => json!({"reason": "max_output_tokens"}),
                _ => Value::Null,
            },
            "instructions": body["instructions"],
            "max_output_tokens": body["max_output_tokens"],
            "model": model,
            "output": output,
            "parallel_tool_calls": true,
            "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null},
            "store": body.get("store").cloned().unwrap_or(json!(true)),
            "temperature": body.get("temperature").cloned().unwrap_or(json!(1.0)),
            "text": body.get("text").cloned().unwrap_or(json!({"format": {"type": "text"}})),
            "tool_choice": body.get("tool_choice").cloned().unwrap_or(json!("auto")),
            "tools": body.get("tools").cloned().unwrap_or(json!([])),
            "top_p": body.get("top_p").cloned().unwrap_or(json!(1.0)),
            "truncation": "disabled",
            "usage": usage,
            "user": null,
            "metadata": {},
        })
    };
    let status = if said.cut { "incomplete" } else { "completed" };
    let last = whole(status, json!([item]), usage_json(&usage));
    if !call.stream() {
        return Ok(json_reply(model, usage, last));
    }
    let first = whole("in_progress", json!([]), Value::Null);
    let events = events(&said, &item, (first, last));
    Ok(Reply {
        model,
        usage,
        body: Body::Events(events),
    })
}

fn usage_json(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total(),
    })
}

fn item(call: &Call<'_>, said: &Said) -> Value {
    let status = if said.cut { "incomplete" } else { "completed" };
    match &said.call {
        Some(name) => json!({
            "id": call.id("fc_"),
            "type": "function_call",
            "status": status,
            "call_id": call.id("call_"),
            "name": name,
            "arguments": said.text(),
        }),
        None => json!({
            "id": call.id("msg_"),
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [{
                "type": "output_text", "text": said.text(), "annotations": [], "logprobs": [],
            }],
        }),
    }
}

struct Read {
    prompt: Prompt,
    last_user: String,
    tool_result: Option<String>,
    all: String,
}

/// Counts like a chat: instructions are a system message, items are messages.
fn read(call: &Call<'_>) -> Result<Read, Refusal> {
    let body = call.body;
    let tokens = &call.state.tokens;
    let mut read = Read {
        prompt: Prompt::default(),
        last_user: String::new(),
        tool_result: None,
        all: String::new(),
    };
    if let Some(Value::Array(tools)) = body.get("tools") {
        tokens.add_tools(&mut read.prompt, tools);
    }
    if let Some(instructions) = body["instructions"].as_str() {
        read.prompt.overhead(3, "message");
        tokens.add(&mut read.prompt, "system");
        tokens.add(&mut read.prompt, instructions);
        read.all.push_str(instructions);
    }
    let items = match body.get("input") {
        Some(Value::String(text)) => vec![json!({"role": "user", "content": text})],
        Some(Value::Array(items)) if !items.is_empty() => items.clone(),
        _ => {
            return Err(Refusal::invalid(
                "input",
                "Missing required parameter: 'input'.",
            ));
        }
    };
    let mut calls = Vec::new();
    for item in &items {
        read.prompt.overhead(3, "message");
        read.tool_result = None;
        match item["type"].as_str() {
            Some("function_call") => {
                calls.push(item["call_id"].clone());
                for field in ["name", "arguments"] {
                    tokens.add(&mut read.prompt, item[field].as_str().unwrap_or_default());
                }
            }
            Some("function_call_output") => {
                if !calls.contains(&item["call_id"]) {
                    let message = format!(
                        "No tool call found for function call output with call_id {}.",
                        item["call_id"]
                    );
                    return Err(Refusal::invalid("input", message));
                }
                let text = content(call, &mut read.prompt, &item["output"])?;
                read.tool_result = Some(text);
            }
            Some("reasoning") => {}
            None | Some("message") => {
                let Some(role) = item["role"].as_str() else {
                    return Err(Refusal::invalid(
                        "input",
                        "Missing required parameter: 'input[].role'.",
                    ));
                };
                tokens.add(&mut read.prompt, role);
                let text = content(call, &mut read.prompt, &item["content"])?;
                read.all.push_str(&text);
                if role == "user" {
                    read.last_user = text;
                }
            }
            Some(other) => {
                return Err(Refusal::invalid(
                    "input",
                    format!("Invalid value: '{other}'."),
                ));
            }
        }
    }
    read.prompt.overhead(3, "reply");
    Ok(read)
}

fn events(said: &Said, item: &Value, ends: (Value, Value)) -> Vec<Event> {
    let (first, last) = ends;
    let whole = said.tokens as u64;
    let before = said.reasoning as u64;
    let mut list: Vec<(&'static str, Value, u64)> = vec![
        ("response.created", json!({"response": first}), before),
        ("response.in_progress", json!({"response": first}), before),
    ];
    let mut opened = item.clone();
    opened["status"] = json!("in_progress");
    let at = |mut more: Value| {
        more["output_index"] = json!(0);
        more["item_id"] = item["id"].clone();
        more
    };
    let text = said.text();
    let count = said.pieces.len();
    if said.call.is_some() {
        opened["arguments"] = json!("");
        list.push((
            "response.output_item.added",
            json!({"output_index": 0, "item": opened}),
            before,
        ));
        for (index, piece) in said.pieces.iter().enumerate() {
            let told = told(index, count, before, whole);
            list.push((
                "response.function_call_arguments.delta",
                at(json!({"delta": piece})),
                told,
            ));
        }
        let done = at(json!({"arguments": text, "name": item["name"]}));
        list.push(("response.function_call_arguments.done", done, whole));
    } else {
        opened["content"] = json!([]);
        list.push((
            "response.output_item.added",
            json!({"output_index": 0, "item": opened}),
            before,
        ));
        let part = |text: &str| {
            at(json!({"content_index": 0, "part": {
                "type": "output_text", "text": text, "annotations": [], "logprobs": [],
            }}))
        };
        list.push(("response.content_part.added", part(""), before));
        for (index, piece) in said.pieces.iter().enumerate() {
            let told = told(index, count, before, whole);
            let delta = at(json!({"content_index": 0, "delta": piece, "logprobs": []}));
            list.push(("response.output_text.delta", delta, told));
        }
        let done = at(json!({"content_index": 0, "text": text, "logprobs": []}));
        list.push(("response.output_text.done", done, whole));
        list.push(("response.content_part.done", part(&text), whole));
    }
    list.push((
        "response.output_item.done",
        json!({"output_index": 0, "item": item}),
        whole,
    ));
    let end = if said.cut {
        "response.incomplete"
    } else {
        "response.completed"
    };
    list.push((end, json!({"response": last}), whole));
    list.into_iter()
        .enumerate()
        .map(|(number, (name, mut data, told))| {
            data["sequence_number"] = json!(number);
            Event::typed(name, data, told)
        })
        .collect()
}
