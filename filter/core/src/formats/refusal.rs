//! What an upstream's refusal says of the request: that an equal one would be refused again, or that
//! its messages are not what the API takes.

use crate::json::Object;

/// Words in an error that speak of something that may be otherwise in a moment, or for another
/// caller. Anthropic answers an empty balance, and OpenAI a hard limit on billing, with 400.
const PASSING: [&str; 17] = [
    "billing",
    "credit",
    "balance",
    "quota",
    "rate limit",
    "rate_limit",
    "capacity",
    "overloaded",
    "timeout",
    "timed out",
    "try again",
    "temporar",
    "unavailable",
    "permission",
    "organization",
    "api key",
    "authentication",
];

/// Words in an error that says that a request is too long.
const TOO_LONG: [&str; 6] = [
    "context_length",
    "context length",
    "context window",
    "too long",
    "too large",
    "too many tokens",
];

/// Fields of a request that hold what is said in it.
const MESSAGES: [&str; 5] = ["messages", "input", "system", "instructions", "prompt"];

/// Words in an error that speak of what is said in a request, where no field is named.
const OF_MESSAGES: [&str; 9] = [
    "message",
    "role",
    " turn",
    "tool_use",
    "tool_result",
    "tool_call",
    "function call",
    "function_call",
    "content block",
];

/// What an error answer tells, in small letters.
struct Refusal {
    kind: String,
    code: String,
    message: String,
    param: Option<String>,
}

impl Refusal {
    /// By OpenAI's `{"error": {message, type, param, code}}` (API reference, "Error codes"),
    /// Anthropic's `{"type": "error", "error": {type, message}}` (API reference, "Errors"), and
    /// vLLM's `{"object": "error", message, type, code}`. None: it is none of these.
    fn read(body: &[u8]) -> Option<Refusal> {
        let object = Object::parse(std::str::from_utf8(body).ok()?).ok()?;
        let error = match object.object("error") {
            Some(error) => error,
            None if object.read::<String>("object").as_deref() == Some("error") => object,
            None => return None,
        };
        let word = |name: &str| Some(error.read::<String>(name)?.to_ascii_lowercase());
        Some(Refusal {
            kind: word("type").unwrap_or_default(),
            code: word("code").unwrap_or_default(),
            message: word("message").unwrap_or_default(),
            param: word("param").filter(|param| !param.is_empty()),
        })
    }

    /// Whether it speaks of something that may be otherwise in a moment, or for another caller.
    fn passes(&self) -> bool {
        let texts = [&self.kind, &self.code, &self.message];
        texts.into_iter().any(|text| has(text, &PASSING))
    }
}

fn has(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// Whether an error answer to a request that was trimmed says that its messages are at fault, so
/// that the request as it came may fare better: a tool's result without its call, roles that do not
/// alternate, no message of the user's.
///
/// It errs towards yes: a refusal costs nothing, and one that trimming brought about is ours to mend.
/// Not for what is too long, though (413 among it): the request as it came is longer still.
#[must_use]
pub fn blames_messages(status: u16, body: &[u8]) -> bool {
    if !may_blame_messages(status) {
        return false;
    }
    let Some(refusal) = Refusal::read(body).filter(|refusal| !refusal.passes()) else {
        return false;
    };
    let Refusal {
        code,
        message,
        param,
        ..
    } = &refusal;
    if has(code, &TOO_LONG) || has(message, &TOO_LONG) {
        return false;
    }
    match param {
        Some(param) => {
            let field = param.split(['.', '[']).next().unwrap_or(param);
            MESSAGES.contains(&field)
        }
        None => has(message, &OF_MESSAGES),
    }
}

/// Whether a status is one of those that refusals of messages come with.
#[must_use]
pub fn may_blame_messages(status: u16) -> bool {
    matches!(status, 400 | 422)
}

/// Whether an error answer says that the request itself is at fault (too long a context, an invalid
/// schema or parameter, an unknown model, a content policy), so that an equal one need not be sent.
///
/// What is not in the shape of a known API does not stand.
#[must_use]
pub fn stands(status: u16, body: &[u8]) -> bool {
    if !may_stand(status) {
        return false;
    }
    let Some(refusal) = Refusal::read(body).filter(|refusal| !refusal.passes()) else {
        return false;
    };
    let Refusal {
        kind,
        code,
        message,
        ..
    } = &refusal;
    if kind.is_empty() && code.is_empty() {
        return false;
    }
    // An unknown path, file or batch is not the request's body.
    status != 404 || code.contains("model") || message.contains("model")
}

/// Whether a status is one of those that refusals that stand come with.
#[must_use]
pub fn may_stand(status: u16) -> bool {
    matches!(status, 400 | 404 | 413 | 422)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openai(kind: &str, code: &str, message: &str) -> String {
        serde_json::json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
            .to_string()
    }

    fn anthropic(kind: &str, message: &str) -> String {
        serde_json::json!({"type": "error", "error": {"type": kind, "message": message}})
            .to_string()
    }

    #[test]
    fn what_is_wrong_with_the_request_itself_stands() {
        let invalid = "invalid_request_error";
        for (status, body) in [
            (400, openai(invalid, "context_length_exceeded", "This model's maximum context length is 128000 tokens.")),
            (400, openai(invalid, "invalid_json_schema", "Invalid schema for response_format 'x'")),
            (400, openai(invalid, "content_policy_violation", "Your request was rejected by our safety system.")),
            (404, openai(invalid, "model_not_found", "The model `gpt-9` does not exist or you do not have access to it.")),
            (400, anthropic(invalid, "prompt is too long: 210000 tokens > 200000 maximum")),
            (404, anthropic("not_found_error", "model: claude-9")),
            (413, anthropic("request_too_large", "Request exceeds the maximum size")),
            (400, r#"{"object":"error","message":"max_tokens must be at least 1","type":"BadRequestError","code":400}"#.to_owned()),
        ] {
            assert!(stands(status, body.as_bytes()), "{status} {body}");
        }
    }

    fn at_fault(param: &str, message: &str) -> String {
        serde_json::json!({"error": {
            "message": message, "type": "invalid_request_error", "param": param, "code": null
        }})
        .to_string()
    }

    #[test]
    fn messages_are_blamed_by_their_field_or_by_what_is_said_of_them() {
        let invalid = "invalid_request_error";
        for body in [
            at_fault("messages.[3].role", "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."),
            at_fault("messages", "[] is too short - 'messages'"),
            at_fault("input[2]", "No tool call found for function call output with call_id call_1."),
            openai(invalid, "", "An assistant message with 'tool_calls' must be followed by tool messages."),
            anthropic(invalid, "messages.2: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1."),
            anthropic(invalid, "messages: roles must alternate between \"user\" and \"assistant\""),
            openai("", "400", "Please ensure that function call turn comes immediately after a user turn."),
            r#"{"object":"error","message":"Conversation roles must alternate user/assistant/user","type":"BadRequestError","param":null,"code":400}"#.to_owned(),
        ] {
            assert!(blames_messages(400, body.as_bytes()), "{body}");
            assert!(blames_messages(422, body.as_bytes()), "{body}");
            for status in [200, 401, 404, 413, 429, 500] {
                assert!(!blames_messages(status, body.as_bytes()), "{status} {body}");
            }
        }
    }

    #[test]
    fn what_the_request_as_it_came_would_fare_no_better_with_blames_no_message() {
        let invalid = "invalid_request_error";
        for body in [
            at_fault(
                "temperature",
                "Unsupported value in messages: 'temperature' does not support 0.2",
            ),
            at_fault(
                "messages",
                "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
            ),
            openai(
                invalid,
                "context_length_exceeded",
                "Your messages are over the limit.",
            ),
            anthropic(
                invalid,
                "prompt is too long: 210000 tokens > 200000 maximum",
            ),
            anthropic(invalid, "max_tokens: 9000 > 8192, which is the maximum"),
            anthropic(invalid, "Your credit balance is too low to send a message."),
            openai(
                invalid,
                "invalid_json_schema",
                "Invalid schema for response_format 'x'",
            ),
            r#"{"detail":"messages"}"#.to_owned(),
            r#"{"error":"messages"}"#.to_owned(),
            "messages".to_owned(),
            String::new(),
        ] {
            assert!(!blames_messages(400, body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn what_may_be_otherwise_in_a_moment_or_for_another_does_not() {
        let invalid = "invalid_request_error";
        for (status, body) in [
            (
                400,
                anthropic(
                    invalid,
                    "Your credit balance is too low to access the Anthropic API.",
                ),
            ),
            (
                400,
                openai(
                    invalid,
                    "billing_hard_limit_reached",
                    "Billing hard limit has been reached",
                ),
            ),
            (
                404,
                openai(
                    invalid,
                    "unknown_url",
                    "Unknown request URL: POST /v1/chat. ",
                ),
            ),
            (
                429,
                openai("tokens", "rate_limit_exceeded", "Rate limit reached"),
            ),
            (
                401,
                openai(invalid, "invalid_api_key", "Incorrect API key provided"),
            ),
            (
                400,
                openai(
                    invalid,
                    "unsupported_value",
                    "Your organization must be verified to stream this model.",
                ),
            ),
            (403, anthropic("permission_error", "not allowed")),
            (500, openai("server_error", "", "The server had an error")),
            (400, "upstream connect error".to_owned()),
            (400, r#"{"detail":"what a proxy said"}"#.to_owned()),
            (400, r#"{"error":"text"}"#.to_owned()),
            (
                400,
                r#"{"error":{"message":"says nothing of its kind"}}"#.to_owned(),
            ),
        ] {
            assert!(!stands(status, body.as_bytes()), "{status} {body}");
        }
    }
}
