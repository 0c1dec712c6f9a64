//! The APIs that the stand-in speaks: one file each. A request body in, a [`Reply`] out.

mod chat;
mod completions;
mod embeddings;
mod messages;
mod responses;

use serde_json::{Value, json};

use super::State;
use super::compose::{Choice, Shape, Tool};
use super::models::Sold;
use super::prefixes::Asked;
use super::reply::{Body, Refusal, Reply};
use super::tokens::{Prompt, claude};
use sluice_wire::Usage;

/// One call of an endpoint.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) state: &'a State,
    pub(crate) body: &'a Value,
    /// Whose prefix cache it is: a hash of the API key.
    pub(crate) owner: u64,
    /// Different in every call.
    pub(crate) number: u64,
    /// The prefix caches' time.
    pub(crate) now_ms: u64,
}

/// An endpoint.
pub(crate) type Endpoint = fn(&Call<'_>) -> Result<Reply, Refusal>;

/// The endpoint of a path.
pub(crate) fn endpoint(path: &str) -> Option<Endpoint> {
    Some(match path {
        "/v1/chat/completions" => chat::answer,
        "/v1/completions" => completions::answer,
        "/v1/embeddings" => embeddings::answer,
        "/v1/responses" => responses::answer,
        "/v1/messages" => messages::answer,
        "/v1/messages/count_tokens" => messages::count,
        _ => return None,
    })
}

impl Call<'_> {
    /// The model, if it is sold here.
    fn model(
        &self,
        endpoint: &str,
        fits: impl Fn(Sold) -> bool,
    ) -> Result<(String, Sold), Refusal> {
        let Some(model) = self.body.get("model") else {
            return Err(Refusal::invalid(
                "model",
                "you must provide a model parameter",
            ));
        };
        let Some(model) = model.as_str() else {
            let message = format!("Invalid type for 'model': expected a string, but got {model}.");
            return Err(Refusal::invalid("model", message));
        };
        match self.state.catalog.sold(model) {
            None => Err(Refusal::unknown_model(model)),
            Some(sold) if fits(sold) => Ok((model.to_owned(), sold)),
            Some(_) => Err(Refusal::wrong_endpoint(model, endpoint)),
        }
    }

    /// A positive whole number, if the field is there.
    fn count(&self, field: &str) -> Result<Option<u64>, Refusal> {
        match self.body.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(count) if count > 0 => Ok(Some(count)),
                _ => Err(Refusal::invalid(
                    field,
                    format!("Invalid '{field}': expected a positive integer, but got {value}."),
                )),
            },
        }
    }

    /// Refuses a temperature outside of `0..=most`.
    fn check_temperature(&self, most: f64) -> Result<(), Refusal> {
        match self.body.get("temperature") {
            None | Some(Value::Null) => Ok(()),
            Some(value) => match value.as_f64() {
                Some(t) if (0.0..=most).contains(&t) => Ok(()),
                _ => Err(Refusal::invalid(
                    "temperature",
                    format!(
                        "Invalid 'temperature': expected a number from 0 to {most}, but got {value}."
                    ),
                )),
            },
        }
    }

    fn stream(&self) -> bool {
        self.body["stream"] == true
    }

    /// Stop sequences: a string or a list.
    fn stop(&self, field: &str) -> Vec<String> {
        match &self.body[field] {
            Value::String(stop) => vec![stop.clone()],
            Value::Array(list) => list
                .iter()
                .filter_map(|stop| stop.as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Refuses what is longer than the model can read.
    fn check_window(&self, model: &str, tokens: u64) -> Result<(), Refusal> {
        let most = self.state.catalog.context_window(model);
        if tokens <= most {
            return Ok(());
        }
        let message = format!(
            "This model's maximum context length is {most} tokens. However, your messages \
             resulted in {tokens} tokens. Please reduce the length of the messages."
        );
        Err(Refusal::invalid("messages", message).code("context_length_exceeded"))
    }

    /// An id as the providers make them: unique, so that a repeated answer shows.
    fn id(&self, prefix: &str) -> String {
        let mut dice = super::compose::Dice(self.number);
        format!("{prefix}{:016x}{:08x}", dice.next(), self.number)
    }

    /// Usage as OpenAI bills it.
    fn openai_usage(&self, model: &str, prompt: &Prompt) -> Usage {
        let owner = self.owner_of(model);
        Usage {
            prompt: prompt.tokens.len() as u64,
            cached: self.state.prefixes.automatic(self.asked(&owner), prompt),
            ..Usage::default()
        }
    }

    /// Whose prefix cache it is.
    fn owner_of(&self, model: &str) -> String {
        format!("{model} {}", self.owner)
    }

    fn asked<'o>(&self, owner: &'o str) -> Asked<'o> {
        Asked {
            owner,
            now_ms: self.now_ms,
        }
    }
}

/// Text of a content that is a string or a list of parts; other parts add to the count only.
fn content(call: &Call<'_>, prompt: &mut Prompt, content: &Value) -> Result<String, Refusal> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => {
            call.state.tokens.add(prompt, text);
            prompt.block(content);
            Ok(text.clone())
        }
        Value::Array(parts) => {
            let mut all = String::new();
            for part in parts {
                match part["type"].as_str() {
                    Some("text" | "input_text" | "output_text") => {
                        let Some(text) = part["text"].as_str() else {
                            return Err(Refusal::invalid(
                                "messages",
                                "Missing required parameter: 'text'.",
                            ));
                        };
                        call.state.tokens.add(prompt, text);
                        all.push_str(text);
                    }
                    Some("image_url" | "input_image" | "image") => {
                        let low = part["image_url"]["detail"] == "low" || part["detail"] == "low";
                        prompt.overhead(if low { 85 } else { 765 }, "image");
                    }
                    Some("input_audio" | "file" | "input_file" | "document") => {
                        call.state.tokens.add(prompt, &part.to_string());
                    }
                    Some("refusal" | "thinking" | "redacted_thinking") => {}
                    other => {
                        let message = format!("Invalid value: '{}'.", other.unwrap_or("null"));
                        return Err(Refusal::invalid("messages", message));
                    }
                }
                prompt.block(part);
            }
            Ok(all)
        }
        other => Err(Refusal::invalid(
            "messages",
            format!("Invalid type for content: expected a string or an array, but got {other}."),
        )),
    }
}

/// The list of tools; `name` and `schema` say where a definition keeps them.
fn tools(body: &Value, name: &str, schema: &str) -> Result<Vec<Tool>, Refusal> {
    let Some(Value::Array(list)) = body.get("tools") else {
        return Ok(Vec::new());
    };
    let mut tools = Vec::new();
    for tool in list {
        // Built-in tools (web search, …) have a type but no schema; the stand-in never calls them.
        let Some(name) = tool.pointer(name).and_then(Value::as_str) else {
            if tool
                .get("type")
                .is_some_and(|kind| kind != "function" && kind != "custom")
            {
                continue;
            }
            return Err(Refusal::invalid(
                "tools",
                "Missing required parameter: 'tools[].name'.",
            ));
        };
        tools.push(Tool {
            name: name.to_owned(),
            schema: tool
                .pointer(schema)
                .cloned()
                .unwrap_or_else(|| json!({"type": "object", "properties": {}})),
        });
    }
    Ok(tools)
}

/// OpenAI's `tool_choice`; `name` says where a named choice keeps the name.
fn tool_choice(body: &Value, name: &str) -> Choice {
    match &body["tool_choice"] {
        Value::String(word) if word == "none" => Choice::None,
        Value::String(word) if word == "required" => Choice::Any,
        choice => match choice.pointer(name).and_then(Value::as_str) {
            Some(name) => Choice::Named(name.to_owned()),
            None => Choice::Auto,
        },
    }
}

/// OpenAI's `response_format` (chat) or `text.format` (Responses).
fn shape(format: &Value, schema: &str, all_text: &str) -> Result<Shape, Refusal> {
    match format["type"].as_str() {
        Some("json_object") if !all_text.to_lowercase().contains("json") => Err(Refusal::invalid(
            "messages",
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
        )),
        Some("json_object") => Ok(Shape::JsonObject),
        Some("json_schema") => match format.pointer(schema) {
            Some(schema) => Ok(Shape::Schema(schema.clone())),
            None => Err(Refusal::invalid(
                "response_format",
                "Missing required parameter: 'response_format.json_schema.schema'.",
            )),
        },
        _ => Ok(Shape::Text),
    }
}

/// Usage as chat completions and legacy completions report it.
fn openai_usage_json(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total(),
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

/// Billed completion tokens after each of `pieces` pieces that make up `whole` tokens: rises to
/// exactly `whole` with the last.
fn told(piece: usize, pieces: usize, first: u64, whole: u64) -> u64 {
    let share = (piece as u64 + 1) * whole.saturating_sub(first) / pieces.max(1) as u64;
    (first + share).min(whole)
}

fn scaled(tokens: usize, for_claude: bool) -> u64 {
    if for_claude {
        claude(tokens)
    } else {
        tokens as u64
    }
}

fn json_reply(model: String, usage: Usage, value: Value) -> Reply {
    Reply {
        model,
        usage,
        body: Body::Json(value),
    }
}
