//! Anthropic's `cache_control` at the end of a message or of what stands before the messages, where
//! the planner wants a mark.

use super::splices::{Splices, span};
use crate::json::{self, Object};

const MARK: &str = r#""cache_control":{"type":"ephemeral"}"#;

/// Marks the last block of `raw`, a part of `body`: a message's `content`, the `system` prompt, or
/// `tools`. False, and nothing is changed, where it has no block that takes a mark: a text that is
/// empty, thinking, what already has one, what is no such value.
pub fn set(splices: &mut Splices, body: &str, raw: &str) -> bool {
    let Some(at) = span(body, raw) else {
        return false;
    };
    if raw.starts_with('"') {
        // A text by itself is short for a list of one block.
        if raw.len() > 2 {
            let block = format!(r#"[{{"type":"text","text":{raw},{MARK}}}]"#);
            splices.replace(at, block);
        }
        return raw.len() > 2;
    }
    let last = json::array(raw)
        .ok()
        .and_then(|blocks| blocks.last().copied());
    let Some(end) = last
        .filter(|block| takes_one(block))
        .and_then(|block| span(body, block))
    else {
        return false;
    };
    // Before the brace that closes the block, which has at least a type or a name.
    let brace = end.end - 1;
    splices.replace(brace..brace, format!(",{MARK}"));
    true
}

fn takes_one(block: &str) -> bool {
    let Ok(fields) = Object::parse(block) else {
        return false;
    };
    let is =
        |field: &str, value: &str| fields.str(field).is_some_and(|found| found.text() == value);
    !fields.is_empty()
        && fields.get("cache_control").is_none()
        && !is("type", "thinking")
        && !is("type", "redacted_thinking")
        && !is("text", "")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What becomes of a content; None: nothing.
    fn marked(content: &str) -> Option<String> {
        let body = format!(r#"{{"a": 1, "content": {content} , "z": []}}"#);
        let raw = Object::parse(&body).unwrap().get("content").unwrap();
        let mut splices = Splices::default();
        let done = set(&mut splices, &body, raw);
        assert_eq!(done, !splices.is_empty());
        let after = splices.apply(&body);
        let whole: Value = serde_json::from_str(&after).unwrap();
        assert!(after.starts_with(r#"{"a": 1, "content": "#) && after.ends_with(r#" , "z": []}"#));
        done.then(|| whole["content"].to_string())
    }

    #[test]
    fn the_last_block_gets_the_mark_and_every_other_byte_stays() {
        let expected =
            json!([{"type": "text", "text": "a\"b", "cache_control": {"type": "ephemeral"}}]);
        assert_eq!(marked(r#""a\"b""#).unwrap(), expected.to_string());
        assert_eq!(
            marked(r#"[ {"type": "text", "text": "a\"b" } ]"#).unwrap(),
            expected.to_string()
        );
        let result = marked(
            r#"[{"type":"text","text":"x"},{"type":"tool_result","tool_use_id":"t","content":[]}]"#,
        );
        let result: Value = serde_json::from_str(&result.unwrap()).unwrap();
        assert!(result[0].get("cache_control").is_none());
        assert_eq!(result[1]["cache_control"]["type"], "ephemeral");
    }

    #[test]
    fn what_takes_no_mark_stays_as_it_is() {
        for content in [
            r#""""#,
            "[]",
            "null",
            "[null]",
            "[{}]",
            r#"[{"type":"text","text":""}]"#,
            r#"[{"type":"thinking","thinking":"hm","signature":"s"}]"#,
            r#"[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]"#,
        ] {
            assert_eq!(marked(content), None, "{content}");
        }
        let mut splices = Splices::default();
        assert!(!set(&mut splices, r#"{"content": "a"}"#, "\"elsewhere\""));
    }
}
