//! The fingerprint of an answer: equal for answers that say the same.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

/// Fields that differ from one answer to the next whatever it says.
const VOLATILE: [&str; 9] = [
    "id",
    "created",
    "created_at",
    "completed_at",
    "system_fingerprint",
    "service_tier",
    "usage",
    "call_id",
    "model",
];

/// Longest answer that is read: a longer one would hold up the calls beside it.
const MAX_BYTES: usize = 256 << 10;

/// A hash of what the answer says: its JSON without ids, times and usage, with runs of white space
/// as one. Of other bytes, a hash of them; of very long answers, none.
#[must_use]
pub fn fingerprint(body: &[u8]) -> Option<u32> {
    if body.len() > MAX_BYTES {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    match serde_json::from_slice(body) {
        Ok(value) => add(&value, true, &mut hasher),
        Err(_) => body.hash(&mut hasher),
    }
    Some((hasher.finish() >> 32) as u32)
}

fn add(value: &Value, ours: bool, hasher: &mut DefaultHasher) {
    match value {
        Value::Object(fields) => {
            '{'.hash(hasher);
            for (name, value) in fields {
                if ours && VOLATILE.contains(&name.as_str()) {
                    continue;
                }
                name.hash(hasher);
                // A tool's arguments are the model's words, whatever they are named.
                add(value, ours && name != "input", hasher);
            }
        }
        Value::Array(items) => {
            '['.hash(hasher);
            items.len().hash(hasher);
            for item in items {
                add(item, ours, hasher);
            }
        }
        Value::String(text) => {
            for word in text.split_whitespace() {
                word.hash(hasher);
            }
            '"'.hash(hasher);
        }
        other => other.to_string().hash(hasher),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_say_the_same_have_the_same_fingerprint() {
        let one = br#"{"id":"a","created":1,"choices":[{"message":{"content":"Nine to  five.\n","tool_calls":[{"id":"x","function":{"arguments":"{\"id\":1}"}}]}}],"usage":{"total_tokens":9}}"#;
        let same = br#"{"id":"b","created":2,"choices":[{"message":{"content":"Nine to five.","tool_calls":[{"id":"y","function":{"arguments":"{\"id\":1}"}}]}}],"usage":{"total_tokens":8}}"#;
        let other = br#"{"id":"b","created":2,"choices":[{"message":{"content":"Nine to six.","tool_calls":[{"id":"y","function":{"arguments":"{\"id\":1}"}}]}}],"usage":{"total_tokens":8}}"#;
        assert_eq!(fingerprint(one), fingerprint(same));
        assert_ne!(fingerprint(one), fingerprint(other));
        let call =
            |id: u8| format!(r#"{{"content":[{{"type":"tool_use","input":{{"id":{id}}}}}]}}"#);
        assert_ne!(
            fingerprint(call(1).as_bytes()),
            fingerprint(call(2).as_bytes())
        );
        assert_ne!(fingerprint(b"not JSON"), fingerprint(b"not  JSON"));
        assert_eq!(fingerprint(&vec![b' '; MAX_BYTES + 1]), None);
    }
}
