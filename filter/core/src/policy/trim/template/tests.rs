use serde_json::Value;

use super::*;
use crate::formats::{AnthropicMessages, OpenAiChat, OpenAiCompletions, OpenAiResponses};

const USER: &str = "{{context}}\n\nQuestion: {{ question }}\nAnswer in one line.";

fn template(user: &str) -> Template {
    Template {
        name: "t".into(),
        system: Some("Be \"brief\".".into()),
        user: Frame::parse(user).unwrap(),
        limits: SlotLimits::default(),
        client_system: ClientSystem::Keep,
        over: Over::Reject,
    }
}

/// A token is a word.
fn words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

fn rendered(template: &Template, format: &dyn Format, body: &str, context: &str) -> String {
    let request = format.parse(body).unwrap();
    let body = template
        .render(&request, format, context, &mut words)
        .unwrap()
        .apply(body);
    serde_json::from_str::<Value>(&body).expect(&body);
    format.parse(&body).expect(&body);
    body
}

#[test]
fn a_template_is_put_around_the_question_in_every_format() {
    let cases: [(&dyn Format, &str, &str); 6] = [
        (
            &OpenAiChat,
            r#"{"model":"m", "messages":[ {"role":"system","content":"Mine."},{"role":"user","content":"One?"},{"role":"assistant","content":"Two."},{"role":"user","content":"Th\u0072ee {{context}}?"}]}"#,
            r#"{"model":"m", "messages":[{"role":"system","content":"SYS"}, {"role":"system","content":"Mine."},{"role":"user","content":"One?"},{"role":"assistant","content":"Two."},{"role":"user","content":"DOCQuestion: Th\u0072ee {{context}}?\nAnswer in one line."}]}"#,
        ),
        (
            &OpenAiChat,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}},{"type":"text","text":"What"},{"type":"text","text":"is it?"}]},{"role":"assistant","tool_calls":[]},{"role":"tool","content":"x"}]}"#,
            r#"{"messages":[{"role":"system","content":"SYS"},{"role":"user","content":[{"type":"image_url","image_url":{}},{"type":"text","text":"DOCQuestion: What"},{"type":"text","text":"is it?\nAnswer in one line."}]},{"role":"assistant","tool_calls":[]},{"role":"tool","content":"x"}]}"#,
        ),
        (
            &OpenAiResponses,
            r#"{"model":"m","input":"What?"}"#,
            r#"{"instructions":"SYS","model":"m","input":"DOCQuestion: What?\nAnswer in one line."}"#,
        ),
        (
            &OpenAiResponses,
            r#"{"instructions":"Mine.","input":[{"role":"user","content":[{"type":"input_text","text":""}]}]}"#,
            r#"{"instructions":"SYS\n\nMine.","input":[{"role":"user","content":[{"type":"input_text","text":"DOCQuestion: \nAnswer in one line."}]}]}"#,
        ),
        (
            &AnthropicMessages,
            r#"{"system":[{"type":"text","text":"Mine.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"42"}]},{"type":"text","text":"What?"}]}],"max_tokens":1}"#,
            r#"{"system":[{"type":"text","text":"SYS"},{"type":"text","text":"Mine.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"42"}]},{"type":"text","text":"DOCQuestion: What?\nAnswer in one line."}]}],"max_tokens":1}"#,
        ),
        (
            &OpenAiCompletions,
            r#"{"prompt":["A?","B?"]}"#,
            r#"{"prompt":["SYS\n\nDOCQuestion: A?\nAnswer in one line.","SYS\n\nDOCQuestion: B?\nAnswer in one line."]}"#,
        ),
    ];
    for (format, body, expected) in cases {
        let expected = expected
            .replace("SYS", r#"Be \"brief\"."#)
            .replace("DOC", r"<d>é</d>\n\n");
        assert_eq!(
            rendered(&template(USER), format, body, "<d>é</d>"),
            expected,
            "{}",
            format.name()
        );
    }
}

#[test]
fn the_clients_system_prompt_goes_where_the_template_says_so() {
    let drops = Template {
        client_system: ClientSystem::Drop,
        ..template("{{question}}")
    };
    for (format, body, expected) in [
        (
            &OpenAiChat as &dyn Format,
            r#"{"messages":[{"role":"developer","content":"A"}, {"role":"user","content":"Q"},{"role":"system","content":"B"}]}"#,
            r#"{"messages":[{"role":"system","content":"SYS"},{"role":"user","content":"Q"}]}"#,
        ),
        (
            &OpenAiResponses,
            r#"{"input":[{"role":"user","content":"Q"},{"role":"developer","content":"B"}],"instructions":null}"#,
            r#"{"input":[{"role":"user","content":"Q"}],"instructions":"SYS"}"#,
        ),
        (
            &AnthropicMessages,
            r#"{"messages":[{"role":"user","content":"Q"}],"max_tokens":1,"system":[{"type":"text","text":"A"}]}"#,
            r#"{"messages":[{"role":"user","content":"Q"}],"max_tokens":1,"system":"SYS"}"#,
        ),
    ] {
        let expected = expected.replace("SYS", r#"Be \"brief\"."#);
        assert_eq!(
            rendered(&drops, format, body, ""),
            expected,
            "{}",
            format.name()
        );
    }
}

#[test]
fn the_prefix_is_the_same_whatever_is_asked() {
    let of = |question: &str, context: &str| {
        let body = serde_json::json!({"messages": [{"role": "system", "content": "Mine."}, {"role": "user", "content": question}]});
        rendered(&template(USER), &OpenAiChat, &body.to_string(), context)
    };
    let (one, other) = (of("One?", "a"), of("Another?", "b"));
    let shared = one
        .bytes()
        .zip(other.bytes())
        .take_while(|(one, other)| one == other)
        .count();
    assert!(
        one[..shared].contains("Mine.") && one[..shared].ends_with(r#""content":""#),
        "{}",
        &one[..shared]
    );
}

#[test]
fn an_empty_slot_leaves_no_gap_and_chunks_without_a_slot_stand_first() {
    let body = r#"{"messages":[{"role":"user","content":"Q"}]}"#;
    let plain = Template {
        system: None,
        ..template(USER)
    };
    assert_eq!(
        rendered(&plain, &OpenAiChat, body, ""),
        r#"{"messages":[{"role":"user","content":"Question: Q\nAnswer in one line."}]}"#
    );
    let bare = Template {
        system: None,
        ..template("{{question}}!")
    };
    assert_eq!(
        rendered(&bare, &OpenAiChat, body, "C"),
        r#"{"messages":[{"role":"user","content":"C\n\nQ!"}]}"#
    );
}

#[test]
fn memory_is_told_in_the_users_text_where_its_slot_stands_and_only_where_it_is_text() {
    let with_memory = Template {
        system: None,
        ..template("Before:\n{{memory}}\n\nNow: {{question}}")
    };
    let body = r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"One?"},{"role":"assistant","content":"A {{question}}"},{"role":"user","content":"Two?"},{"role":"assistant","content":"B"},{"role":"user","content":"Three?"}]}"#;
    assert_eq!(
        rendered(&with_memory, &OpenAiChat, body, ""),
        r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"Before:\nUser: One?\nAssistant: A {{question}}\nUser: Two?\nAssistant: B\n\nNow: Three?"}]}"#
    );
    let capped = |memory: u64| Template {
        limits: SlotLimits {
            memory: Some(memory),
            ..SlotLimits::default()
        },
        ..with_memory.clone()
    };
    assert_eq!(
        rendered(&capped(8), &OpenAiChat, body, ""),
        r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"Before:\nUser: Two?\nAssistant: B\n\nNow: Three?"}]}"#
    );
    assert!(!rendered(&capped(3), &OpenAiChat, body, "").contains("Assistant"));
    let tools = r#"{"messages":[{"role":"user","content":"One?"},{"role":"assistant","content":"A","tool_calls":[{"id":"t"}]},{"role":"tool","tool_call_id":"t","content":"x"},{"role":"user","content":"Three?"}]}"#;
    let out = rendered(&with_memory, &OpenAiChat, tools, "");
    assert!(
        out.contains("tool_call_id") && out.contains(r"Before:\nNow: Three?"),
        "{out}"
    );
}

#[test]
fn a_question_over_its_limit_is_told_and_never_cut() {
    let limited = |limit| Template {
        limits: SlotLimits {
            question: Some(limit),
            ..SlotLimits::default()
        },
        ..template(USER)
    };
    let body = r#"{"messages":[{"role":"user","content":"one two three"}]}"#;
    let request = OpenAiChat.parse(body).unwrap();
    assert_eq!(limited(3).check(&request, &mut words), Ok(()));
    let told = limited(2).check(&request, &mut words).unwrap_err();
    assert_eq!(
        told,
        QuestionTooLong {
            found: 3,
            limit: 2,
            over: Over::Reject
        }
    );
    assert_eq!(
        told.to_string(),
        "This question has 3 tokens; at most 2 are allowed."
    );
    assert!(rendered(&limited(2), &OpenAiChat, body, "").contains("one two three"));
    let silent = r#"{"messages":[{"role":"assistant","content":"x"},{"role":"user","content":[{"type":"image_url"}]}]}"#;
    let request = OpenAiChat.parse(silent).unwrap();
    assert_eq!(limited(0).check(&request, &mut words), Ok(()));
    assert_eq!(
        limited(0).render(&request, &OpenAiChat, "", &mut words),
        Err(NoQuestion)
    );
}

#[test]
fn a_conversation_of_many_messages_is_framed_soon() {
    let one = r#"{"role":"system","content":"S"},{"role":"user","content":"Q"},{"role":"assistant","content":"A"}"#;
    let body = format!(
        r#"{{"messages":[{},{{"role":"user","content":"Last"}}]}}"#,
        vec![one; 30_000].join(",")
    );
    let framed = Template {
        client_system: ClientSystem::Drop,
        ..template("{{memory}}\n{{question}}")
    };
    let start = std::time::Instant::now();
    let out = rendered(&framed, &OpenAiChat, &body, "");
    assert_eq!(out.matches("\"role\"").count(), 2);
    assert!(
        start.elapsed() < std::time::Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn whatever_differs_in_a_template_is_in_its_digest() {
    let one = template(USER);
    let others = [
        Template {
            name: "u".into(),
            ..one.clone()
        },
        Template {
            system: None,
            ..one.clone()
        },
        template("{{question}}"),
        Template {
            limits: SlotLimits {
                memory: Some(1),
                ..SlotLimits::default()
            },
            ..one.clone()
        },
        Template {
            client_system: ClientSystem::Drop,
            ..one.clone()
        },
        Template {
            over: Over::Shadow,
            ..one.clone()
        },
    ];
    for other in others {
        assert_ne!(one.digest(), other.digest(), "{other:?}");
    }
    assert_eq!(one.digest(), template(USER).digest());
}

#[test]
fn unknown_slots_are_faults_and_other_braces_are_text() {
    assert_eq!(
        Frame::parse("{{question}} {{ history }}").unwrap_err(),
        "found `{{history}}`, expected context, memory or question"
    );
    assert_eq!(
        Frame::parse("{{context}}").unwrap_err(),
        "found `{{question}}` 0 times, expected it once"
    );
    assert_eq!(
        Frame::parse("{{question}}{{question}}").unwrap_err(),
        "found `{{question}}` 2 times, expected it once"
    );
    let text = r#"{{"a": {{}} {{ b c }} {"#;
    let frame = Frame::parse(&format!("{text}{{{{question}}}}")).unwrap();
    assert_eq!(frame.before, [Piece::Text(text.into())]);
    assert!(fixed("Reply as {\"a\": {{}}}.").is_ok());
    assert!(fixed("{{question}}").is_err() && fixed("{{other}}").is_err());
}
