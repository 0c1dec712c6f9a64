//! OpenAI `/v1/completions`, the legacy one.

use serde_json::{Value, json};

use super::{Call, json_reply, openai_usage_json, told};
use crate::provider::compose::{Ask, Choice, Said, Shape, compose, seed};
use crate::provider::models::Sold;
use crate::provider::reply::{Body, Event, Refusal, Reply};
use crate::provider::tokens::Prompt;

/// What the API does without `max_tokens`.
const DEFAULT_LIMIT: u64 = 16;

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = call.body;
    let (model, _) = call.model("v1/completions", |sold| sold == Sold::Completions)?;
    call.check_temperature(2.0)?;
    let limit = call.count("max_tokens")?.unwrap_or(DEFAULT_LIMIT);
    let choices = call.count("n")?.unwrap_or(1).min(8);
    let mut prompt = Prompt::default();
    let texts = prompts(call, &mut prompt)?;
    let mut usage = call.openai_usage(&model, &prompt);
    call.check_window(&model, usage.prompt)?;
    let mut said: Vec<Said> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        for choice in 0..choices {
            said.push(compose(&Ask {
                seed: seed(body).wrapping_add(index as u64 * 8 + choice),
                last_user: text.clone(),
                tool_result: None,
                tools: Vec::new(),
                choice: Choice::None,
                shape: Shape::Text,
                limit: Some(limit),
                stop: call.stop("stop"),
                reasoning: false,
                claude: false,
                fixed_tokens: call.state.config.answer_tokens,
            }));
        }
    }
    usage.completion = said.iter().map(|said| said.tokens as u64).sum();
    let head = json!({
        "id": call.id("cmpl-"),
        "object": "text_completion",
        "created": super::super::now_secs(),
        "model": model,
    });
    let choice = |index: usize, text: &str, finish: Option<&str>| json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish});
    if !call.stream() {
        let mut value = head;
        value["usage"] = openai_usage_json(&usage);
        value["choices"] = said
            .iter()
            .enumerate()
            .map(|(index, said)| choice(index, &said.text(), Some(finish(said))))
            .collect();
        return Ok(json_reply(model, usage, value));
    }
    let wants_usage = body["stream_options"]["include_usage"] == true;
    let chunk = |choices: Value, usage: Value| {
        let mut value = head.clone();
        value["choices"] = choices;
        if wants_usage {
            value["usage"] = usage;
        }
        value
    };
    let mut events = Vec::new();
    let mut before = 0;
    for (index, said) in said.iter().enumerate() {
        let whole = said.tokens as u64;
        for (at, piece) in said.pieces.iter().enumerate() {
            let told = before + told(at, said.pieces.len(), 0, whole);
            let choices = json!([choice(index, piece, None)]);
            events.push(Event::plain(chunk(choices, Value::Null), told));
        }
        before += whole;
        let choices = json!([choice(index, "", Some(finish(said)))]);
        events.push(Event::plain(chunk(choices, Value::Null), before));
    }
    if wants_usage {
        events.push(Event::plain(
            chunk(json!([]), openai_usage_json(&usage)),
            before,
        ));
    }
    events.push(Event::done(before));
    Ok(Reply {
        model,
        usage,
        body: Body::Events(events),
    })
}

fn finish(said: &Said) -> &'static str {
    if said.cut { "length" } else { "stop" }
}

/// The prompts: a text, texts, tokens, or lists of tokens.
fn prompts(call: &Call<'_>, prompt: &mut Prompt) -> Result<Vec<String>, Refusal> {
    let texts = texts(call, "prompt", prompt)?;
    if texts.len() > 16 {
        return Err(Refusal::invalid(
            "prompt",
            "Invalid 'prompt': the most is 16.",
        ));
    }
    Ok(texts)
}

/// A field that is a text, texts, tokens, or lists of tokens; the texts and all their tokens.
pub(super) fn texts(
    call: &Call<'_>,
    field: &str,
    prompt: &mut Prompt,
) -> Result<Vec<String>, Refusal> {
    let wrong = || {
        Refusal::invalid(
            field,
            format!("Invalid '{field}': expected a string, an array of strings or of tokens."),
        )
    };
    let ids = |list: &[Value]| -> Option<Vec<u32>> {
        list.iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
            .collect()
    };
    let decode = |ids: &[u32]| {
        let bytes = tiktoken_rs::o200k_base_singleton().decode_bytes(ids);
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    };
    let mut texts = Vec::new();
    match call.body.get(field) {
        Some(Value::String(text)) => {
            call.state.tokens.add(prompt, text);
            texts.push(text.clone());
        }
        Some(Value::Array(list)) if list.first().is_some_and(Value::is_u64) => {
            let list = ids(list).ok_or_else(wrong)?;
            texts.push(decode(&list));
            prompt.tokens.extend(list);
        }
        Some(Value::Array(list)) if !list.is_empty() => {
            for item in list {
                match item {
                    Value::String(text) => {
                        call.state.tokens.add(prompt, text);
                        texts.push(text.clone());
                    }
                    Value::Array(list) => {
                        let list = ids(list).ok_or_else(wrong)?;
                        texts.push(decode(&list));
                        prompt.tokens.extend(list);
                    }
                    _ => return Err(wrong()),
                }
            }
        }
        _ => return Err(wrong()),
    }
    if texts.iter().any(String::is_empty) {
        return Err(Refusal::invalid(
            field,
            format!("Invalid '{field}': input cannot be an empty string."),
        ));
    }
    Ok(texts)
}
