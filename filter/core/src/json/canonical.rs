//! One form for all texts of one JSON value, to be hashed: keys sorted at every depth, no white
//! space, every string escaped in the same way. Numbers stay as they were written: a parser may
//! tell `1` from `1.0`, and none is asked here.

use super::Cursor;

/// Deepest nesting that has a canonical form. Sorting copies an object once per level around it at
/// the worst, so this also bounds the work.
pub const MAX_DEPTH: usize = 64;

/// The canonical form of `json`, which must be valid; itself valid JSON.
///
/// None where there is no one value to speak of: a key stands twice in one object (parsers differ
/// in which they take), or a string is no text (lone surrogates). None also past [`MAX_DEPTH`].
///
/// ```
/// use sluice_core::json::canonical;
/// let one = canonical(r#"{"top_k": 5, "filter": {"b": [1, 2.50], "a": "\u00e9\/"}}"#);
/// assert_eq!(one.as_deref(), Some(r#"{"filter":{"a":"é/","b":[1,2.50]},"top_k":5}"#));
/// assert_eq!(canonical(r#"{"a": 1, "a": 1}"#), None);
/// ```
#[must_use]
pub fn canonical(json: &str) -> Option<String> {
    let mut at = Cursor::new(json);
    let mut out = String::with_capacity(json.len());
    let mut open: Vec<Level> = Vec::new();
    loop {
        match at.peek()? {
            bracket @ (b'{' | b'[') => {
                if open.len() == MAX_DEPTH {
                    return None;
                }
                at.enter(bracket);
                out.push(char::from(bracket));
                open.push(Level::new(bracket, out.len()));
            }
            b'"' => push_string(at.value(), &mut out)?,
            _ => out.push_str(at.value()),
        }
        // On to the next value, out of every array and object that ends before it.
        loop {
            let Some(level) = open.last_mut() else {
                return Some(out);
            };
            if level.next(&mut at, &mut out)? {
                break;
            }
            open.pop();
        }
    }
}

/// An array or object that is not at its end.
struct Level {
    /// Where its inside begins in the output.
    start: usize,
    /// An object's members so far; None for an array.
    members: Option<Vec<Member>>,
}

/// `"key":value` in the output.
struct Member {
    start: usize,
    key_end: usize,
    end: usize,
}

impl Level {
    fn new(bracket: u8, start: usize) -> Level {
        Level {
            start,
            members: (bracket == b'{').then(Vec::new),
        }
    }

    /// Goes to its next value, whose key is written where it has one. False at its end, which is
    /// written.
    fn next(&mut self, at: &mut Cursor<'_>, out: &mut String) -> Option<bool> {
        let first = out.len() == self.start;
        let Some(members) = &mut self.members else {
            let more = at.element();
            match more {
                true if first => {}
                true => out.push(','),
                false => out.push(']'),
            }
            return Some(more);
        };
        if let Some(member) = members.last_mut() {
            member.end = out.len();
        }
        if at.peek() == Some(b'"') {
            if !first {
                out.push(',');
            }
            let start = out.len();
            push_string(at.value(), out)?;
            members.push(Member {
                start,
                key_end: out.len(),
                end: 0,
            });
            out.push(':');
            return Some(true);
        }
        at.leave();
        sort(self.start, members, out)?;
        out.push('}');
        Some(false)
    }
}

/// Puts the members of the object whose inside begins at `start` in the order of their keys. None
/// where one stands twice.
fn sort(start: usize, members: &mut [Member], out: &mut String) -> Option<()> {
    let key = |member: &Member| out.get(member.start..member.key_end).unwrap_or("");
    if members.is_sorted_by(|one, next| key(one) < key(next)) {
        return Some(());
    }
    members.sort_unstable_by(|one, other| key(one).cmp(key(other)));
    if members.windows(2).any(|two| key(&two[0]) == key(&two[1])) {
        return None;
    }
    let mut sorted = String::with_capacity(out.len() - start);
    for member in members {
        if !sorted.is_empty() {
            sorted.push(',');
        }
        sorted.push_str(out.get(member.start..member.end).unwrap_or(""));
    }
    out.truncate(start);
    out.push_str(&sorted);
    Some(())
}

/// Writes a string literal as serde_json would write its text. None where it has no text.
fn push_string(raw: &str, out: &mut String) -> Option<()> {
    // Without a backslash there is nothing that could be written in another way.
    if memchr::memchr(b'\\', raw.as_bytes()).is_none() {
        out.push_str(raw);
        return Some(());
    }
    let text: String = serde_json::from_str(raw).ok()?;
    out.push_str(&serde_json::to_string(&text).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// A JSON value, and a text of it with other orders, white space and escapes.
    fn text(value: &Value, rng: &mut fastrand::Rng) -> String {
        let mut out = String::new();
        write(value, rng, &mut out);
        out
    }

    fn write(value: &Value, rng: &mut fastrand::Rng, out: &mut String) {
        let space = |rng: &mut fastrand::Rng| ["", "", " ", "\n\t", "\r\n  "][rng.usize(..5)];
        out.push_str(space(rng));
        match value {
            Value::String(text) => write_string(text, rng, out),
            Value::Array(list) => {
                out.push('[');
                for (index, value) in list.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    write(value, rng, out);
                }
                out.push(']');
            }
            Value::Object(map) => {
                let mut members: Vec<_> = map.iter().collect();
                rng.shuffle(&mut members);
                out.push('{');
                for (index, (key, value)) in members.into_iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(space(rng));
                    write_string(key, rng, out);
                    out.push_str(space(rng));
                    out.push(':');
                    write(value, rng, out);
                }
                out.push('}');
            }
            plain => out.push_str(&plain.to_string()),
        }
        out.push_str(space(rng));
    }

    fn write_string(text: &str, rng: &mut fastrand::Rng, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            let must = c < ' ' || matches!(c, '"' | '\\');
            if must || rng.u8(..4) == 0 {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04X}"));
                }
            } else {
                out.push(c);
            }
        }
        out.push('"');
    }

    /// Values of a small alphabet, so that equal ones are met.
    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ab]{0,2}",
            Just("é".to_owned()),
            Just("e\u{301}".to_owned()),
            Just("\"\\/\n\u{7f}😀\u{2028}".to_owned()),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-2..3i64).prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_text_of_a_value_has_one_form_and_it_reads_as_that_value(
            value in values(), seeds in any::<[u64; 2]>(),
        ) {
            let [one, other] = seeds.map(|seed| text(&value, &mut fastrand::Rng::with_seed(seed)));
            let form = canonical(&one);
            prop_assert_eq!(&form, &canonical(&other), "{} and {}", one, other);
            let form = form.unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&form).unwrap(), value);
            prop_assert_eq!(canonical(&form), Some(form));
        }

        #[test]
        fn two_forms_are_equal_where_and_only_where_the_values_are(
            one in values(), other in values(), seed in any::<u64>(),
        ) {
            let rng = &mut fastrand::Rng::with_seed(seed);
            let forms = [canonical(&text(&one, rng)), canonical(&text(&other, rng))];
            prop_assert_eq!(forms[0] == forms[1], one == other);
        }
    }

    #[test]
    fn numbers_count_as_they_are_written() {
        let forms = [
            "1",
            "1.0",
            "1e0",
            "10e-1",
            "-0",
            "0",
            "12345678901234567890123",
        ];
        for (at, one) in forms.iter().enumerate() {
            assert_eq!(canonical(&format!("[ {one} ]")), Some(format!("[{one}]")));
            assert!(!forms[..at].contains(one));
        }
    }

    #[test]
    fn what_is_not_one_value_has_no_form() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"\u0061":1}"#,
            r#"[{"x":{"b":0,"a":1,"b":2}}]"#,
            r#""\ud800""#,
            r#"{"\udc00":1}"#,
            "",
        ] {
            assert_eq!(canonical(json), None, "{json}");
        }
    }

    #[test]
    fn depth_costs_no_stack_and_has_an_end() {
        let arrays = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects =
            |depth: usize| format!("{}1{}", "{\"b\":".repeat(depth), ",\"a\":0}".repeat(depth));
        for deep in [arrays, objects] as [fn(usize) -> String; 2] {
            assert!(canonical(&deep(MAX_DEPTH)).is_some());
            assert_eq!(canonical(&deep(MAX_DEPTH + 1)), None);
            assert_eq!(canonical(&deep(1_000_000)), None);
        }
    }
}
