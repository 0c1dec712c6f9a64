//! Requests, whole answers and errors, against the APIs' references.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "clippy knows unit tests only as tests; the support module serves several files"
)]

mod support;

use sluice_core::formats::{self, ApiError, ErrorKind, Format, UsageScan};
use sluice_core::json;
use support::{fixtures, golden, object, stream, told_by_answer, told_by_request, usage};

fn format(name: &str) -> &'static dyn Format {
    formats::by_name(name).expect("a registered format")
}

#[test]
fn every_request_is_read_as_its_golden_file_says() {
    for fixture in fixtures(".request.json") {
        let request = fixture.format.parse(fixture.text()).unwrap();
        golden(&fixture, &told_by_request(fixture.format, &request));
    }
}

#[test]
fn every_answer_is_read_as_its_golden_file_says() {
    for fixture in fixtures(".answer.json") {
        golden(
            &fixture,
            &told_by_answer(&fixture.format.answer(&fixture.bytes)),
        );
    }
}

#[test]
fn asking_for_usage_keeps_the_other_stream_options() {
    let chat = format("openai.chat");
    let body = r#"{"model":"m","messages":[],"stream":true , "stream_options" : { "a" : 1, "include_usage" : false } }"#;
    let request = chat.parse(body).unwrap();
    let edit = chat.ask_usage(&request).unwrap();
    assert_eq!(
        json::set_fields(body, &request.fields, &[(edit.field, &edit.json)]),
        r#"{"model":"m","messages":[],"stream":true , "stream_options" : { "a" : 1, "include_usage" : true } }"#
    );
    for body in [
        r#"{"model":"m","messages":[]}"#,
        r#"{"model":"m","messages":[],"stream":false}"#,
        r#"{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"model":"m","messages":[],"stream":true,"stream_options":"?"}"#,
    ] {
        assert_eq!(chat.ask_usage(&chat.parse(body).unwrap()), None, "{body}");
    }
    let body = r#"{"model":"m","messages":[],"stream":true,"stream_options":null}"#;
    let edit = chat.ask_usage(&chat.parse(body).unwrap()).unwrap();
    assert_eq!(edit.json, r#"{"include_usage":true}"#);
}

#[test]
fn a_path_is_what_servers_decode_it_to() {
    for (path, name) in [
        ("/v1/chat/completion%73?a=%3f", Some("openai.chat")),
        ("/v1%2Fmessages", Some("anthropic.messages")),
        ("/v1/messages%", None),
        ("/v1/messages%3f", None),
        ("/v1/messages%ff", None),
    ] {
        assert_eq!(formats::by_path(path).map(Format::name), name, "{path}");
    }
}

#[test]
fn a_path_belongs_to_one_format_or_none() {
    let cases = [
        ("/v1/chat/completions", Some("openai.chat")),
        (
            "/openai/v1/chat/completions?api-version=1",
            Some("openai.chat"),
        ),
        ("/v1/completions", Some("openai.completions")),
        ("/v1/embeddings", Some("openai.embeddings")),
        ("/v1/responses", Some("openai.responses")),
        ("/v1/responses/resp_1", None),
        ("/v1/responses/resp_1/cancel", None),
        ("/v1/responses/input_tokens", None),
        ("/v1/messages", Some("anthropic.messages")),
        ("/v1/messages/count_tokens", None),
        ("/v1/messages/batches", None),
        ("/v1/threads/thread_1/messages", None),
        ("/v1/models", None),
        ("/", None),
        ("", None),
    ];
    for (path, name) in cases {
        assert_eq!(formats::by_path(path).map(Format::name), name, "{path}");
        let serving = formats::ALL
            .iter()
            .filter(|format| format.serves(path.split('?').next().unwrap()));
        assert_eq!(serving.count(), usize::from(name.is_some()), "{path}");
    }
    for format in formats::ALL {
        let named = formats::by_name(format.name()).unwrap();
        assert_eq!(named.name(), format.name());
    }
}

#[test]
fn what_is_no_request_of_the_api_is_said_without_quoting_it() {
    for format in formats::ALL {
        for body in [
            "",
            "secret",
            "[\"secret\"]",
            "{\"model\":\"secret\"",
            "{\"model\":7,\"messages\":[],\"input\":\"\",\"prompt\":\"secret\"}",
            "\"secret\"",
            "null",
        ] {
            let error = format.parse(body).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
    for (name, body) in [
        ("openai.chat", r#"{"model":"m"}"#),
        ("openai.chat", r#"{"model":"m","messages":"secret"}"#),
        ("openai.embeddings", r#"{"model":"m"}"#),
        (
            "openai.responses",
            r#"{"model":"m","input":{"a":"secret"}}"#,
        ),
        ("anthropic.messages", r#"{"model":"m","messages":{}}"#),
    ] {
        let error = format(name).parse(body).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn a_body_that_other_parsers_accept_does_not_slip_past() {
    let chat = format("openai.chat");
    for (body, model) in [
        ("\u{feff}{\"model\":\"m\",\"messages\":[]}", "m"),
        ("  {\"mod\\u0065l\":\"m\",\"messages\":[]}\n", "m"),
        ("{\"\\ud800\":1,\"model\":\"m\",\"messages\":[]}", "m"),
        ("{\"model\":\"a\",\"messages\":[],\"model\":\"b\"}", "b"),
        ("{\"messages\":[]}", ""),
        ("{\"messages\":[{},null,1,\"x\",[[]]]}", ""),
    ] {
        assert_eq!(chat.parse(body).unwrap().model, model, "{body}");
    }
}

#[test]
fn what_hangs_on_more_than_the_request_is_not_cacheable() {
    let cases = [
        ("openai.chat", r#""store":true"#),
        ("openai.chat", r#""audio":{"voice":"alloy","format":"wav"}"#),
        ("openai.chat", r#""modalities":["text","audio"]"#),
        ("openai.chat", r#""web_search_options":{}"#),
        ("openai.chat", r#""model":"gpt-4o-search-preview""#),
        ("openai.chat", r#""tools":[{"type":"web_search"}]"#),
        ("openai.chat", r#""tools":[{}]"#),
        ("openai.responses", r#""background":true"#),
        ("openai.responses", r#""conversation":"conv_1""#),
        ("openai.responses", r#""previous_response_id":"resp_1""#),
        ("openai.responses", r#""prompt":{"id":"pmpt_1"}"#),
        (
            "openai.responses",
            r#""tools":[{"type":"function"},{"type":"code_interpreter"}]"#,
        ),
        ("openai.responses", r#""input":[{"id":"msg_1"}]"#),
        ("anthropic.messages", r#""container":"c""#),
        ("anthropic.messages", r#""mcp_servers":[{"url":"x"}]"#),
        (
            "anthropic.messages",
            r#""tools":[{"type":"code_execution_20250825","name":"x"}]"#,
        ),
    ];
    for (name, field) in cases {
        let format = format(name);
        let body = |field: &str| format!(r#"{{"messages":[],{field}}}"#);
        let plain = body(r#""model":"m""#);
        assert!(format.cacheable(&format.parse(&plain).unwrap()), "{name}");
        let body = body(field);
        assert!(!format.cacheable(&format.parse(&body).unwrap()), "{body}");
    }
    for (name, field) in [
        (
            "openai.chat",
            r#""n":4,"store":false,"web_search_options":null"#,
        ),
        (
            "openai.responses",
            r#""store":true,"background":false,"previous_response_id":null"#,
        ),
        (
            "anthropic.messages",
            r#""mcp_servers":[],"tools":[{"name":"a"}]"#,
        ),
    ] {
        let body = format!(r#"{{"messages":[],{field}}}"#);
        let format = format(name);
        assert!(format.cacheable(&format.parse(&body).unwrap()), "{body}");
    }
}

#[test]
fn fields_outside_the_key_are_only_those_that_cannot_change_the_answer() {
    let decisive = [
        "model",
        "messages",
        "prompt",
        "input",
        "system",
        "instructions",
        "tools",
        "tool_choice",
        "functions",
        "response_format",
        "text",
        "seed",
        "temperature",
        "top_p",
        "n",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "reasoning_effort",
        "thinking",
        "service_tier",
        "logprobs",
        "dimensions",
        "encoding_format",
        "stop_sequences",
        "top_k",
    ];
    for format in formats::ALL {
        for field in decisive {
            assert!(
                !format.not_in_key().contains(&field),
                "{} {field}",
                format.name()
            );
        }
    }
    // Its answer repeats them.
    let told_back = [
        "user",
        "metadata",
        "store",
        "prompt_cache_key",
        "safety_identifier",
    ];
    let responses = format("openai.responses").not_in_key();
    assert!(told_back.iter().all(|field| !responses.contains(field)));
}

#[test]
fn the_usage_of_a_long_answer_is_found_however_it_is_cut() {
    for fixture in fixtures(".answer.json") {
        let expected = fixture.format.answer(&fixture.bytes).usage;
        assert!(expected.is_some(), "{}", fixture.name);
        for size in [1, 2, 3, 5, 100, usize::MAX] {
            let mut scan = UsageScan::new();
            for piece in fixture.bytes.chunks(size.min(fixture.bytes.len())) {
                scan.push(piece);
            }
            let found = scan.usage().and_then(|raw| fixture.format.usage(raw));
            assert_eq!(found, expected, "{} by {size}", fixture.name);
        }
        for cut in 0..fixture.bytes.len() {
            let (a, b) = fixture.bytes.split_at(cut);
            let mut scan = UsageScan::new();
            scan.push(a);
            scan.push(b);
            let found = scan.usage().and_then(|raw| fixture.format.usage(raw));
            assert_eq!(found, expected, "{} at {cut}", fixture.name);
        }
    }
}

#[test]
fn an_error_takes_the_shape_of_the_api() {
    let error = |kind| ApiError {
        kind,
        message: "The \"budget\" of tenant acme is used up".to_owned(),
        code: "budget_exceeded",
    };
    let kinds = [
        (
            ErrorKind::InvalidRequest,
            "invalid_request_error",
            "invalid_request_error",
        ),
        (
            ErrorKind::Forbidden,
            "invalid_request_error",
            "permission_error",
        ),
        (
            ErrorKind::TooLarge,
            "invalid_request_error",
            "request_too_large",
        ),
        (
            ErrorKind::RateLimited,
            "rate_limit_error",
            "rate_limit_error",
        ),
        (ErrorKind::Unavailable, "server_error", "overloaded_error"),
    ];
    for (kind, openai, anthropic) in kinds {
        for format in formats::ALL {
            let json: serde_json::Value =
                serde_json::from_str(&format.error(&error(kind))).unwrap();
            let message = "The \"budget\" of tenant acme is used up";
            let expected = if format.family() == "anthropic" {
                serde_json::json!({"type": "error", "error": {"type": anthropic, "message": message}})
            } else {
                serde_json::json!({"error": {"message": message, "type": openai, "param": null, "code": "budget_exceeded"}})
            };
            assert_eq!(json, expected);
        }
    }
}

#[test]
fn nesting_of_a_hundred_thousand_levels_costs_no_stack() {
    let small = std::thread::Builder::new().stack_size(128 << 10);
    let thread = small.spawn(|| {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        for deep in [deep, objects] {
            let body = format!(
                r#"{{"model":"m","x":{deep},"input":[{{"role":"user","content":{deep}}}],"prompt":{deep},"messages":[{{"role":"user","content":{deep}}},{{"role":"user","content":[{{"type":"tool_result","content":{deep}}}]}}],"system":{deep},"tools":{deep},"text":{deep},"response_format":{deep},"stream":{deep},"max_tokens":{deep},"stream_options":{deep},"usage":{deep},"choices":{deep},"output":{deep},"content":{deep},"status":"completed","stop_reason":"end_turn"}}"#
            );
            for format in formats::ALL {
                let request = format.parse(&body).unwrap();
                let _ = format.cacheable(&request);
                let _ = format.ask_usage(&request);
                let _ = json::set_fields(&body, &request.fields, &[("model", "\"n\"")]);
                let _ = format.answer(body.as_bytes());
                let _ = format.replay(&body, true);
                let _ = format.usage(&body);
                let sse = format!("data: {body}\n\ndata: {{\"type\":\"message_start\",\"message\":{body}}}\n\ndata: {deep}\n\n");
                let _ = stream(*format, true, [sse.as_bytes()]);
            }
            // Not closed, and closed too often.
            let open = &body[..body.len() / 2];
            let mut scan = UsageScan::new();
            scan.push(open.as_bytes());
            scan.push("]}".repeat(200_000).as_bytes());
            for format in formats::ALL {
                assert!(format.parse(open).is_err());
            }
        }
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn an_edited_request_differs_in_the_edit_only() {
    for fixture in fixtures(".request.json") {
        let body = fixture.text();
        let request = fixture.format.parse(body).unwrap();
        let edited = json::set_fields(
            body,
            &request.fields,
            &[("model", "\"other\""), ("x_new", "[1]")],
        );
        let after = object(&edited);
        assert_eq!(after.get("model"), Some("\"other\""));
        assert_eq!(after.get("x_new"), Some("[1]"));
        // Undone, it is the same bytes again.
        let model = request.fields.get("model").unwrap();
        let undone = edited
            .replace(",\"x_new\":[1]", "")
            .replacen("\"other\"", model, 1);
        assert_eq!(undone, body);
    }
}

#[test]
fn usage_is_normalised_whatever_the_api_calls_it() {
    let cases = [
        (
            "openai.chat",
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":null}"#,
            Some(usage(10, 0, 0, 5, 0)),
        ),
        (
            "openai.chat",
            r#"{"prompt_tokens":10.0,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3}}"#,
            Some(usage(10, 4, 3, 5, 0)),
        ),
        // More cached than there was, more reasoning than was said: parts never exceed the whole.
        (
            "openai.chat",
            r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":40,"cache_write_tokens":3},"completion_tokens_details":{"reasoning_tokens":9}}"#,
            Some(usage(10, 10, 0, 5, 5)),
        ),
        // Reasoning beside the completion, as the total tells.
        (
            "openai.chat",
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":24,"completion_tokens_details":{"reasoning_tokens":9}}"#,
            Some(usage(10, 0, 0, 14, 9)),
        ),
        (
            "openai.embeddings",
            r#"{"prompt_tokens":8,"total_tokens":8}"#,
            Some(usage(8, 0, 0, 0, 0)),
        ),
        (
            "openai.responses",
            r#"{"input_tokens":36,"input_tokens_details":{"cached_tokens":12},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}"#,
            Some(usage(36, 12, 0, 87, 64)),
        ),
        (
            "anthropic.messages",
            r#"{"input_tokens":12,"cache_creation_input_tokens":248,"cache_read_input_tokens":1800,"output_tokens":8}"#,
            Some(usage(2060, 1800, 248, 8, 0)),
        ),
        (
            "anthropic.messages",
            r#"{"input_tokens":12,"cache_creation_input_tokens":null,"output_tokens":8,"output_tokens_details":{"thinking_tokens":3}}"#,
            Some(usage(12, 0, 0, 8, 3)),
        ),
        ("openai.chat", "{}", None),
        ("openai.chat", "null", None),
        ("anthropic.messages", r#"{"output_tokens":-1}"#, None),
        (
            "anthropic.messages",
            r#"{"input_tokens":18446744073709551615,"cache_read_input_tokens":5}"#,
            Some(usage(u64::MAX, 5, 0, 0, 0)),
        ),
    ];
    for (name, raw, expected) in cases {
        assert_eq!(format(name).usage(raw), expected, "{name} {raw}");
    }
}

#[test]
fn only_a_top_level_usage_object_is_found_in_a_long_answer() {
    let padding = "x".repeat(9000);
    let long = format!(r#"{{"usage":{{"a":"{padding}"}}}}"#);
    let long_then_short = format!(r#"{{"usage":{{"a":"{padding}"}},"usage":{{"b":1}}}}"#);
    let cases = [
        (
            r#"{"data":[{"usage":{"a":1}}],"usage" : {"b":{"c":["}"]},"d":"\"}\\"} }"#,
            Some(r#"{"b":{"c":["}"]},"d":"\"}\\"}"#),
        ),
        (
            r#"{"usage":{"a":1},"usage":{"b":2},"x":"usage"}"#,
            Some(r#"{"b":2}"#),
        ),
        (r#"{"x":"usage","y":{"a":1}}"#, None),
        (r#"{"usages":{"a":1},"usag":{},"u":{}}"#, None),
        (r#"{"usage":null}"#, None),
        (r#"{"usage":[{"a":1}]}"#, None),
        (r#"{"usage":{"a":1"#, None),
        (r#"[{"usage":{"a":1}}]"#, None),
        (&long, None),
        (&long_then_short, Some(r#"{"b":1}"#)),
    ];
    for (answer, expected) in cases {
        for size in [1, 4, 1 << 20] {
            let mut scan = UsageScan::new();
            for piece in answer.as_bytes().chunks(size) {
                scan.push(piece);
            }
            assert_eq!(scan.usage(), expected, "{:.80} by {size}", answer);
        }
    }
}
