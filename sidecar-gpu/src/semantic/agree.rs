//! Whether two answers say the same: what an audit asks.
//!
//! An error here moves a threshold, and tells no one anything wrong.

use serde_json::Value;
use sluice_engine::{Batcher, EngineError};

use super::{Question, Refusal, Vocabulary, compare};
use crate::tuning::fingerprint;

/// Cosine from which two answers say the same. Of the 24 pairs in `agree/answers.tsv`, made by hand,
/// those that say the same are at 0.80 to 0.97, but for one at 0.67; the others at 0.21 to 0.67, but
/// for one at 0.80. Here an error is as likely either way.
const AGREE: f32 = 0.7;
/// Bytes of an answer that are compared by their words: in a longer one a number or a name beside
/// the point is usual.
const SHORT: usize = 100;
/// Bytes of an answer that are embedded, to begin with: about 256 tokens of English. What says
/// something else says so in its first sentences.
const EMBEDDED: usize = 1000;
/// Longest answer that is compared, bytes.
pub const MAX_ANSWER: usize = 256 << 10;

/// What an answer says.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    /// Calls of tools.
    calls: Vec<Value>,
}

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Both say the same.
    Same,
    /// They do not.
    Different,
    /// It cannot be told: one is no answer of text, or there is no model to ask.
    Unjudged,
}

impl Agreement {
    /// The word for it in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Agreement::Same => "same",
            Agreement::Different => "different",
            Agreement::Unjudged => "unjudged",
        }
    }
}

/// Compares two answers as the API gives them, `words` and the model behind `batcher` at hand.
pub(super) async fn agree(
    (one, other): (&[u8], &[u8]),
    batcher: &Batcher,
    words: Option<&Vocabulary>,
) -> Agreement {
    let (one, other) = match by_words((one, other), words) {
        Ok(agreement) => return agreement,
        Err(texts) => texts,
    };
    match (embed(batcher, &one).await, embed(batcher, &other).await) {
        (Ok(one), Ok(other)) => {
            let cosine: f32 = one.iter().zip(&other).map(|(a, b)| a * b).sum();
            match cosine >= AGREE {
                true => Agreement::Same,
                false => Agreement::Different,
            }
        }
        _ => Agreement::Unjudged,
    }
}

/// What their words tell, or the two texts, where that is not enough.
fn by_words(
    (one, other): (&[u8], &[u8]),
    words: Option<&Vocabulary>,
) -> Result<Agreement, (String, String)> {
    let (Some(a), Some(b)) = (said(one), said(other)) else {
        return Ok(Agreement::Unjudged);
    };
    if fingerprint(one) == fingerprint(other) {
        return Ok(Agreement::Same);
    }
    if calls(&a) != calls(&b) || a.text.is_empty() != b.text.is_empty() {
        return Ok(Agreement::Different);
    }
    if a.text == b.text {
        return Ok(Agreement::Same);
    }
    if yes_or_no(&a.text) != yes_or_no(&b.text) {
        return Ok(Agreement::Different);
    }
    if a.text.len().max(b.text.len()) <= SHORT {
        let refusal = compare(&Question::read(&a.text), &Question::read(&b.text), words);
        let tells = |refusal: Refusal| {
            matches!(
                refusal,
                Refusal::Number
                    | Refusal::Unit
                    | Refusal::Date
                    | Refusal::Negation
                    | Refusal::Name
                    | Refusal::Opposite
                    | Refusal::Code
            )
        };
        if refusal.is_some_and(tells) {
            return Ok(Agreement::Different);
        }
    }
    Err((a.text, b.text))
}

fn calls(said: &Said) -> Option<u32> {
    fingerprint(Value::from(said.calls.clone()).to_string().as_bytes())
}

/// An answer that begins with yes or no.
fn yes_or_no(text: &str) -> Option<bool> {
    let word = text.split(|c: char| !c.is_alphanumeric()).next()?;
    match word.to_ascii_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// What an answer of the chat, messages or responses API says; none where it says nothing or is none.
fn said(body: &[u8]) -> Option<Said> {
    if body.len() > MAX_ANSWER {
        return None;
    }
    let mut said = Said::default();
    collect(&serde_json::from_slice(body).ok()?, &mut said);
    let words: Vec<&str> = said.text.split_whitespace().collect();
    said.text = words.join(" ");
    (!said.text.is_empty() || !said.calls.is_empty()).then_some(said)
}

fn collect(value: &Value, said: &mut Said) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, said)),
        Value::Object(fields) => {
            match fields.get("type").and_then(Value::as_str) {
                Some("reasoning" | "thinking" | "redacted_thinking") => return,
                Some("tool_use" | "function_call" | "custom_tool_call") => {
                    return said.calls.push(value.clone());
                }
                _ => {}
            }
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("text" | "content" | "refusal", Value::String(text)) => {
                        said.text.push_str(text);
                        said.text.push('\n');
                    }
                    ("tool_calls" | "function_call", value) if !value.is_null() => {
                        said.calls.push(value.clone());
                    }
                    // Responses repeat their request's instructions beside the output.
                    ("choices" | "message" | "content" | "output", value) => collect(value, said),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// The vector of the beginning of a text, as much of it as the model takes.
async fn embed(batcher: &Batcher, text: &str) -> Result<Vec<f32>, EngineError> {
    let mut longest = EMBEDDED;
    loop {
        let head = crate::text::cut(text, longest).to_owned();
        match batcher.embed(vec![head]).await {
            // Of some scripts a token is a byte or two.
            Err(EngineError::TooLong { .. }) if longest > 100 => longest /= 2,
            answer => {
                let closed = || EngineError::Device("no vector".to_owned());
                return answer?.pop().ok_or_else(closed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
