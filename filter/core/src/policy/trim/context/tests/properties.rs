//! What holds for any text.

use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_wire::Over;

use super::*;
use crate::formats::{AnthropicMessages, OpenAiCompletions, OpenAiResponses};
use crate::policy::trim::template::{ClientSystem, Frame, SlotLimits, Template};

fn marker() -> impl Strategy<Value = Marker> {
    let (sign, signs) = Fence::line("---").unwrap();
    prop_oneof![
        Just(tag("d")),
        Just(Marker::Tag(Tag {
            name: "d".into(),
            inside: Some("ds".into()),
            text: Some("t".into())
        })),
        Just(Marker::List(List {
            after: "C:".into(),
            before: None,
            number: List::number("[{n}]").unwrap()
        })),
        Just(Marker::List(List {
            after: "C:".into(),
            before: Some("Q:".into()),
            number: List::number("{n}.").unwrap()
        })),
        Just(Marker::Fence(Fence {
            sign,
            signs,
            label: "C".into(),
            split: None
        })),
        Just(Marker::Fence(Fence {
            sign,
            signs,
            label: "C".into(),
            split: Some(split("\n\n", true))
        })),
        Just(Marker::Section(Section {
            after: "C:".into(),
            before: "Q:".into(),
            split: split("\n\n", false)
        })),
        Just(Marker::Json(Array { after: None })),
        Just(Marker::Json(Array {
            after: Some("C:".into())
        })),
    ]
}

/// Pieces of which texts with marks are made.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<d>"),
        Just("</d>"),
        Just("<d n=\"1\">"),
        Just("<ds>"),
        Just("</ds>"),
        Just("<t>"),
        Just("</t>"),
        Just("C:\n"),
        Just("Q: what is this?\n"),
        Just("[1] "),
        Just("[2] "),
        Just("[3] "),
        Just("1. "),
        Just("2. "),
        Just("---\n"),
        Just("--- C\n"),
        Just("C\n---\n"),
        Just("k: v\n"),
        Just("\n"),
        Just("\n\n"),
        Just(" "),
        Just("[{\"text\": \"a é\"}, {\"text\": \"b\"}]"),
        Just("[\"x\", \"y\"]"),
        Just("["),
        Just("]"),
        Just("{\"text\": \"c\"}"),
        Just("alpha"),
        Just("beta. "),
        Just("Gamma é 😀 "),
        Just("\\"),
        Just("\""),
        Just("what"),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn policy() -> impl Strategy<Value = Policy> {
    (
        prop::collection::vec(marker(), 1..3),
        prop::option::of(1..4_usize),
        prop::option::of(0..6_u64),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(markers, top_k, tokens, dedupe, extra)| Policy {
            markers,
            top_k,
            tokens,
            duplicates: dedupe.then_some(0.9),
            extra,
            ..Policy::default()
        })
}

fn is_subsequence(part: &str, whole: &str) -> bool {
    let mut rest = whole.chars();
    part.chars().all(|c| rest.any(|other| other == c))
}

/// Kept chunks as they stand, and what stands around all of them.
fn found(text: &str, policy: &Policy) -> Vec<std::ops::Range<usize>> {
    let groups = markers::find(&policy.markers, text);
    groups
        .iter()
        .flat_map(|group| &group.blocks)
        .map(|block| block.whole.clone())
        .collect()
}

/// A message's content: a text, or parts of every kind, some of which are odd.
fn content() -> impl Strategy<Value = Value> {
    let part = prop_oneof![
        3 => text().prop_map(|text| json!({"type": "text", "text": text})),
        1 => text().prop_map(|text| json!({"type": "input_text", "text": text})),
        1 => text().prop_map(|text| json!({"type": "tool_result", "tool_use_id": "t", "content": text})),
        1 => text().prop_map(|text| json!({"type": "tool_result", "content": [{"type": "text", "text": text}]})),
        1 => text().prop_map(|text| json!({"type": "document", "source": {"type": "text", "data": text}})),
        1 => Just(json!({"type": "image_url", "image_url": {"url": "u"}})),
        1 => Just(json!({"type": "later", "content": [1, null]})),
        1 => Just(json!("bare")),
        1 => Just(json!(null)),
    ];
    prop_oneof![
        text().prop_map(Value::from),
        prop::collection::vec(part, 0..4).prop_map(Value::from),
        Just(json!(null)),
        Just(json!(7)),
    ]
}

/// A body of one of the APIs that generate.
fn body() -> impl Strategy<Value = (&'static dyn Format, String)> {
    let role = prop_oneof![
        Just("user"),
        Just("user"),
        Just("assistant"),
        Just("system"),
        Just("tool"),
        Just("odd")
    ];
    let message = prop_oneof![
        8 => (role, content()).prop_map(|(role, content)| json!({"role": role, "content": content})),
        1 => Just(json!({"type": "function_call_output", "call_id": "c", "output": "<d>x</d>"})),
        1 => Just(json!("bare")),
    ];
    let given = prop_oneof![
        2 => Just(None),
        1 => prop::collection::vec(text(), 0..4).prop_map(|texts| Some(json!(texts))),
        1 => Just(Some(json!([{"text": "a {{context}}", "score": 1}]))),
        1 => Just(Some(json!(5))),
    ];
    let texts = prop::collection::vec(text(), 1..3);
    (
        0..4_usize,
        prop::collection::vec(message, 0..6),
        content(),
        given,
        texts,
    )
        .prop_map(|(format, messages, system, given, texts)| {
            let (format, mut body): (&dyn Format, Value) = match format {
                0 => (&OpenAiChat, json!({"messages": messages, "model": "m"})),
                1 => (
                    &OpenAiResponses,
                    json!({"input": messages, "instructions": system}),
                ),
                2 => (
                    &AnthropicMessages,
                    json!({"messages": messages, "system": system, "max_tokens": 1}),
                ),
                _ => (&OpenAiCompletions, json!({"prompt": texts})),
            };
            if let Some(given) = given {
                body["sluice_context"] = given;
            }
            (format, body.to_string())
        })
}

/// Every string in a JSON value, in order.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().flat_map(strings).collect(),
        Value::Object(map) => map.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

proptest! {
    #[test]
    fn any_body_of_any_api_stays_one_and_has_no_field_of_ours((format, body) in body(), policy in policy(), frames in any::<bool>(), drops in any::<bool>()) {
        let request = format.parse(&body).unwrap();
        let Ok(found) = Found::of(&request, Some(&policy)) else {
            prop_assert!(body.contains("\"sluice_context\":5"));
            return Ok(());
        };
        let chosen = found.choose(&policy, &mut Words::default(), &[]);
        let sent = chosen.edits.apply(&body);
        let trimmed = format.parse(&sent).unwrap();
        prop_assert!(trimmed.fields.get(FIELD).is_none());
        prop_assert_eq!(trimmed.messages.len(), request.messages.len());
        prop_assert_eq!(trimmed.system.len(), request.system.len());
        let given = chosen.given.unwrap_or_default();
        let edits = if frames {
            let template = Template {
                name: "t".into(),
                system: Some("S".into()),
                user: Frame::parse("{{context}} {{memory}} {{question}} !").unwrap(),
                limits: SlotLimits::default(),
                client_system: if drops { ClientSystem::Drop } else { ClientSystem::Keep },
                over: Over::Reject,
            };
            let Ok(edits) = template.render(&trimmed, format, &given, &mut |text| text.len() as u64) else {
                return Ok(());
            };
            edits
        } else {
            let Ok(edits) = super::super::given::place(&trimmed, format, &given) else {
                return Ok(());
            };
            edits
        };
        let placed = edits.apply(&sent);
        let value = serde_json::from_str::<Value>(&placed);
        prop_assert!(value.is_ok(), "{}", placed);
        prop_assert!(format.parse(&placed).is_ok(), "{}", placed);
        if !given.is_empty() {
            prop_assert!(strings(&value.unwrap()).iter().any(|text| text.contains(&given)), "{}", placed);
        }
    }

    #[test]
    fn what_is_sent_is_a_part_of_what_came(text in text(), policy in policy()) {
        let out = after(&text, &policy);
        prop_assert!(is_subsequence(&out, &text), "{:?} of {:?}", out, text);
    }

    #[test]
    fn kept_chunks_stand_as_they_did_and_so_does_what_is_around_them(text in text(), policy in policy()) {
        let policy = Policy { extra: false, ..policy };
        let body = chat(&text);
        let request = OpenAiChat.parse(&body).unwrap();
        let chosen = Found::of(&request, Some(&policy)).unwrap().choose(&policy, &mut Words::default(), &[]);
        let out: serde_json::Value = serde_json::from_str(&chosen.edits.apply(&body)).unwrap();
        let out = out["messages"][0]["content"].as_str().unwrap();
        let wholes = found(&text, &policy);
        let kept = chosen.selections.first().map_or(Vec::new(), |selection| selection.kept.clone());
        let mut at = 0;
        for index in kept {
            let chunk = &text[wholes[index].clone()];
            let place = out[at..].find(chunk);
            prop_assert!(place.is_some(), "{:?} of {:?}", chunk, text);
            at += place.unwrap() + chunk.len();
        }
        // Outside of chunks only white space and commas go.
        let plain = |text: &str| text.chars().filter(|c| !c.is_whitespace() && *c != ',').collect::<String>();
        let mut around = String::new();
        let mut from = 0;
        for whole in &wholes {
            around += &text[from..whole.start];
            from = whole.end;
        }
        around += &text[from..];
        prop_assert!(is_subsequence(&plain(&around), &plain(out)), "{:?} of {:?}", out, text);
        if wholes.is_empty() {
            prop_assert_eq!(out, text.as_str());
        }
    }

    #[test]
    fn what_was_trimmed_is_not_trimmed_again(text in text(), policy in policy()) {
        let policy = Policy { extra: false, ..policy };
        let once = after(&text, &policy);
        // A list that was emptied within a tag is that tag's own chunk from then on.
        prop_assume!(!once.contains("[]") || text.contains("[]"));
        prop_assert_eq!(after(&once, &policy), once);
    }

    #[test]
    fn any_order_stands_each_kept_chunk_once(text in text(), policy in policy()) {
        let policy = Policy { order: Order::Rank, extra: false, ..policy };
        let out = after(&text, &policy);
        let mut one: Vec<char> = out.chars().filter(|c| c.is_alphanumeric()).collect();
        let mut other: Vec<char> = after(&text, &Policy { order: Order::Original, ..policy }).chars().filter(|c| c.is_alphanumeric()).collect();
        one.sort_unstable();
        other.sort_unstable();
        prop_assert_eq!(one, other);
    }

    #[test]
    fn the_cut_is_the_same_however_the_body_is_escaped(text in text(), policy in policy()) {
        let plain = chat(&text);
        let mut escaped = String::new();
        for c in plain.chars() {
            match c {
                '<' | 'é' | '😀' => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        escaped += &format!("\\u{unit:04x}");
                    }
                }
                c => escaped.push(c),
            }
        }
        let read = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap();
        prop_assert_eq!(read(&trimmed(&OpenAiChat, &plain, &policy)), read(&trimmed(&OpenAiChat, &escaped, &policy)));
    }
}
