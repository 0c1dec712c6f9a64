//! Which refusals of an upstream stand: the same request would be refused again.

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

/// Whether an error answer says that the request itself is at fault (too long a context, an invalid
/// schema or parameter, an unknown model, a content policy), so that an equal one need not be sent.
///
/// By OpenAI's `{"error": {message, type, param, code}}` (API reference, "Error codes"), Anthropic's
/// `{"type": "error", "error": {type, message}}` (API reference, "Errors"), and vLLM's
/// `{"object": "error", message, type, code}`. What is none of these does not stand.
#[must_use]
pub fn stands(status: u16, body: &[u8]) -> bool {
    if !may_stand(status) {
        return false;
    }
    let Some(object) = std::str::from_utf8(body)
        .ok()
        .and_then(|text| Object::parse(text).ok())
    else {
        return false;
    };
    let error = match object.object("error") {
        Some(error) => error,
        None if object.read::<String>("object").as_deref() == Some("error") => object,
        None => return false,
    };
    let word = |name: &str| {
        let word: Option<String> = error.read(name);
        word.unwrap_or_default().to_ascii_lowercase()
    };
    let (kind, code, message) = (word("type"), word("code"), word("message"));
    if kind.is_empty() && code.is_empty() {
        return false;
    }
    let passing = |text: &str| PASSING.iter().any(|word| text.contains(word));
    if passing(&kind) || passing(&code) || passing(&message) {
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
