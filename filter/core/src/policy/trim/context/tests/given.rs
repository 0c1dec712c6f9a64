//! The request's own field, in every API that generates.

use super::super::given::{NoPlace, place};
use super::*;
use crate::formats::{AnthropicMessages, OpenAiCompletions, OpenAiResponses};

const FIELD_VALUE: &str = r#"[{"text":"We ship.","score":0.1},"The warranty \"is\" long.",{"content":"None","metadata":{"lang":"de"}}]"#;

/// The body that goes upstream, chunks chosen by the policy, or all of them.
fn sent(format: &dyn Format, body: &str, policy: Option<&Policy>) -> String {
    let request = format.parse(body).unwrap();
    let found = Found::of(&request, policy).unwrap();
    let chosen = match policy {
        Some(policy) => found.choose(policy, &mut Words::default(), &[]),
        None => found.whole(),
    };
    let mut edits = chosen.edits;
    if let Some(rendered) = &chosen.given {
        edits.extend(place(&request, format, rendered).unwrap());
    }
    edits.apply(body)
}

#[test]
fn the_field_goes_into_the_last_question_in_every_format() {
    let document = r#"<document index=\"2\">\nThe warranty \"is\" long.\n</document>\n\n"#;
    let policy = top(1, Vec::new());
    let cases: [(&dyn Format, &str, &str); 5] = [
        (
            &OpenAiChat,
            r#"{"model":"m","sluice_context":FIELD,"messages":[{"role":"user","content":"Hi"},{"role":"user","content":"The warranty?"}]}"#,
            r#"{"model":"m","messages":[{"role":"user","content":"Hi"},{"role":"user","content":"DOCThe warranty?"}]}"#,
        ),
        (
            &OpenAiResponses,
            r#"{"sluice_context": FIELD, "input": "The warranty?", "model": "m"}"#,
            r#"{"input": "DOCThe warranty?", "model": "m"}"#,
        ),
        (
            &OpenAiResponses,
            r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"u"},{"type":"input_text","text":"The warranty?"}]}], "sluice_context": FIELD }"#,
            r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"u"},{"type":"input_text","text":"DOCThe warranty?"}]}] }"#,
        ),
        (
            &AnthropicMessages,
            r#"{"max_tokens":1,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"42"},{"type":"text","text":"The warranty?"}]}],"sluice\u005fcontext":FIELD,"model":"m"}"#,
            r#"{"max_tokens":1,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"42"},{"type":"text","text":"DOCThe warranty?"}]}],"model":"m"}"#,
        ),
        (
            &OpenAiCompletions,
            r#"{"model":"m","prompt":["The warranty?","The warranty!"],"sluice_context":FIELD}"#,
            r#"{"model":"m","prompt":["DOCThe warranty?","DOCThe warranty!"]}"#,
        ),
    ];
    for (format, body, expected) in cases {
        let body = body.replace("FIELD", FIELD_VALUE);
        assert_eq!(
            sent(format, &body, Some(&policy)),
            expected.replace("DOC", document),
            "{}",
            format.name()
        );
    }
}

#[test]
fn the_field_goes_where_the_prompt_says() {
    let body = r#"{"messages":[{"role":"system","content":"Use: {{context}} or {{context}}."},{"role":"user","content":"{{context}}?"}],"sluice_context":["a {{context}}"]}"#;
    assert_eq!(
        sent(&OpenAiChat, body, None),
        r#"{"messages":[{"role":"system","content":"Use: <document index=\"1\">\na {{context}}\n</document> or {{context}}."},{"role":"user","content":"{{context}}?"}]}"#
    );
    let body = r#"{"messages":[{"role":"user","content":"Use {{context}}."}],"sluice_context":[]}"#;
    assert_eq!(
        sent(&OpenAiChat, body, None),
        r#"{"messages":[{"role":"user","content":"Use ."}]}"#
    );
    let untouched = r#"{"messages":[{"role":"user","content":"Use {{context}}."}]}"#;
    assert_eq!(
        sent(&OpenAiChat, untouched, Some(&top(1, Vec::new()))),
        untouched
    );
}

#[test]
fn a_dry_run_takes_the_field_out_and_keeps_every_chunk() {
    let body = r#"{"messages":[{"role":"user","content":"Q"}],"sluice_context":FIELD,"sluice_context":FIELD}"#;
    let sent = sent(&OpenAiChat, &body.replace("FIELD", FIELD_VALUE), None);
    assert_eq!(
        sent,
        r#"{"messages":[{"role":"user","content":"<document index=\"1\">\nWe ship.\n</document>\n<document index=\"2\">\nThe warranty \"is\" long.\n</document>\n<document index=\"3\">\nNone\n</document>\n\nQ"}]}"#
    );
}

#[test]
fn a_field_that_is_something_else_is_an_error_that_quotes_no_text() {
    for (value, told) in [
        (
            "\"secret\"",
            "`sluice_context`: found a string, expected an array of {text, score, metadata}",
        ),
        (
            "5",
            "`sluice_context`: found a number, expected an array of {text, score, metadata}",
        ),
        (
            "[\"a\", 7]",
            "`sluice_context`[1]: found a number, expected {text, score, metadata} with a text, or a string",
        ),
        (
            "[{\"body\":\"secret\"}]",
            "`sluice_context`[0]: found an object without it, expected {text, score, metadata} with a text, or a string",
        ),
    ] {
        let body =
            format!(r#"{{"messages":[{{"role":"user","content":"Q"}}],"sluice_context":{value}}}"#);
        let request = OpenAiChat.parse(&body).unwrap();
        assert_eq!(Found::of(&request, None).unwrap_err().to_string(), told);
    }
    let many = format!("[{}]", vec!["\"a\""; 1025].join(","));
    let body = format!(r#"{{"messages":[],"sluice_context":{many}}}"#);
    assert!(Found::of(&OpenAiChat.parse(&body).unwrap(), None).is_err());
    let body = r#"{"messages":[],"sluice_context":null}"#;
    assert_eq!(sent(&OpenAiChat, body, None), r#"{"messages":[]}"#);
    let body = r#"{"messages":[{"role":"assistant","content":"x"}],"sluice_context":["a"]}"#;
    let request = OpenAiChat.parse(body).unwrap();
    assert_eq!(place(&request, &OpenAiChat, "a"), Err(NoPlace));
}

#[test]
fn given_chunks_are_filtered_and_stand_in_the_order_asked_for() {
    let body = r#"{"messages":[{"role":"user","content":"The warranty? It is long?"}],"sluice_context":[{"text":"We ship.","metadata":{"lang":"en"}},{"text":"warranty","metadata":{"lang":"en"}},{"text":"long warranty","metadata":{"lang":"en"}},{"text":"Garantie","metadata":{"lang":"de"}}]}"#;
    let filter = Some(Filter::parse("lang == 'en'").unwrap());
    let policy = Policy {
        order: Order::Rank,
        filter,
        ..top(2, Vec::new())
    };
    let sent = sent(&OpenAiChat, body, Some(&policy));
    assert!(
        sent.contains(r#"<document index=\"3\">\nlong warranty\n</document>\n<document index=\"2\">\nwarranty\n</document>\n\n"#),
        "{sent}"
    );
}
