use serde_json::{Value, json};

use super::*;
use crate::formats::{self, Request};
use crate::policy::trim::turns::Stay;

/// The list of messages after `keep`; None where nothing changes.
fn cut(format: &str, body: &str, keep: &[bool], note: Option<&str>) -> Option<String> {
    let format = formats::by_name(format).unwrap();
    let request = format.parse(body).unwrap();
    let turns = Turns::of(&request, format, Stay::default()).unwrap();
    let splices = dropping(&turns, keep, note);
    let changes = !splices.is_empty();
    let whole = splices.apply(body);
    assert!(serde_json::from_str::<Value>(&whole).is_ok(), "{whole}");
    let field = ["messages", "input"]
        .into_iter()
        .find(|field| request.fields.get(field).is_some())
        .unwrap();
    // All but the list stays byte for byte.
    let list = crate::json::Object::parse(&whole).unwrap();
    let list = list.get(field).unwrap();
    assert_eq!(
        whole,
        crate::json::set_fields(body, &request.fields, &[(field, list)])
    );
    changes.then(|| list.to_owned())
}

const CHAT: &str = "{\"messages\" : [ {\"role\":\"system\",\"content\":\"s\"},\n {\"role\":\"user\",  \"content\":\"1 \\u00e9\"}\t,
  {\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"2\"} ,
  {\"role\":\"assistant\",\"content\":\"b\"}, {\"role\": \"user\", \"content\" : \"3\"} ], \"model\":\"m\"}";

#[test]
fn what_is_kept_stays_byte_for_byte() {
    assert_eq!(
        cut("openai.chat", CHAT, &[false, true, true], None).unwrap(),
        "[ {\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"2\"} ,
  {\"role\":\"assistant\",\"content\":\"b\"}, {\"role\": \"user\", \"content\" : \"3\"} ]"
    );
    assert_eq!(
        cut("openai.chat", CHAT, &[false, false, false], None).unwrap(),
        "[ {\"role\":\"system\",\"content\":\"s\"}, {\"role\": \"user\", \"content\" : \"3\"} ]"
    );
}

#[test]
fn where_all_is_kept_nothing_changes() {
    assert_eq!(cut("openai.chat", CHAT, &[true; 3], Some("note")), None);
    assert_eq!(cut("openai.chat", CHAT, &[], Some("note")), None);
    // The current turn stays whatever is said of it.
    assert_eq!(cut("openai.chat", CHAT, &[true, true, false], None), None);
}

#[test]
fn the_first_element_goes_with_its_comma_and_so_do_pins() {
    let body = r#"{"messages":[{"role":"user","content":"1"},{"role":"assistant","content":"a"},
{"sluice_pin":true,"role":"user","content":"2"},{"role":"assistant","sluice_pin" : {"x":[1]} , "content":"b"},
{"role":"user","content":"3","sluice_pin":false},{"sluice_pin":1}]}"#;
    assert_eq!(
        cut("openai.chat", body, &[false, false, true], None).unwrap(),
        r#"[{"role":"user","content":"2"},{"role":"assistant" , "content":"b"},
{"role":"user","content":"3"},{}]"#
    );
}

#[test]
fn pins_are_taken_out_of_any_conversation() {
    let format = formats::by_name("openai.chat").unwrap();
    let unpinned =
        |request: &Request<'_>| unpinned(request.body, &format.conversation(request).unwrap());
    let body = r#"{"messages":[7,{"role":"assistant","content":"a","sluice_pin":true}]}"#;
    let request = format.parse(body).unwrap();
    assert_eq!(
        unpinned(&request).apply(body),
        r#"{"messages":[7,{"role":"assistant","content":"a"}]}"#
    );
    // However the key is written.
    let body = r#"{"messages":[{"role":"user","content":"a","sl\u0075ice\u005Fpin":true}]}"#;
    let request = format.parse(body).unwrap();
    assert_eq!(
        unpinned(&request).apply(body),
        r#"{"messages":[{"role":"user","content":"a"}]}"#
    );
    let other = r#"{"messages":[{"role":"user","content":"caf\u00e9 \u003cb\u003e \u00"}]}"#;
    assert!(!may_be_pinned(other), "no letter of the key is escaped");
    let body = r#"{"messages":[{"role":"user","content":"say \"sluice_pin\":true"}]}"#;
    let request = format.parse(body).unwrap();
    assert!(unpinned(&request).is_empty());
}

#[test]
fn a_note_stands_in_front_of_what_the_user_says_after_the_gap() {
    let noted = cut(
        "openai.chat",
        CHAT,
        &[false, true, true],
        Some("said \"x\"\n"),
    )
    .unwrap();
    let noted: Value = serde_json::from_str(&noted).unwrap();
    assert_eq!(
        noted[1],
        json!({"role": "user", "content": "said \"x\"\n\n\n2"})
    );
    assert_eq!(noted.as_array().unwrap().len(), 4);
}

#[test]
fn a_note_before_parts_is_a_part_of_the_apis_own_kind() {
    let of = |format: &str, field: &str, content: Value| {
        let messages = json!([
            {"role": "user", "content": "1"}, {"role": "assistant", "content": "a"},
            {"role": "user", "content": content}
        ]);
        let body = json!({"model": "m", field: messages}).to_string();
        let cut = cut(format, &body, &[false], Some("N")).unwrap();
        serde_json::from_str::<Value>(&cut).unwrap()
    };
    let image = json!({"type": "input_image", "image_url": "u"});
    assert_eq!(
        of("openai.responses", "input", json!([image])),
        json!([{"role": "user", "content": [{"type": "input_text", "text": "N"}, image]}])
    );
    let text = json!({"type": "text", "text": "t"});
    for format in ["openai.chat", "anthropic.messages"] {
        let part = json!({"type": "text", "text": "N"});
        let found = of(format, "messages", json!([text]));
        assert_eq!(found, json!([{"role": "user", "content": [part, text]}]));
    }
}

#[test]
fn a_note_does_not_come_between_anthropics_results_and_their_calls() {
    let result = json!({"type": "tool_result", "tool_use_id": "x", "content": "r"});
    let text = json!({"type": "text", "text": "t"});
    // A result of nothing stays where it is, but must still come first in its message.
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "1"}, {"role": "assistant", "content": "a"},
        {"role": "user", "content": [result, text]}
    ]});
    let cut = cut("anthropic.messages", &body.to_string(), &[false], Some("N")).unwrap();
    let cut: Value = serde_json::from_str(&cut).unwrap();
    assert_eq!(
        cut[0]["content"],
        json!([result, {"type": "text", "text": "N"}, text])
    );
}
