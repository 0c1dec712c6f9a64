//! The formats against requests, answers and streams as the APIs' references give them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows unit tests only as tests"
)]

mod support;

use sluice_core::formats::{self, ApiError, ErrorKind, Format, UsageScan};
use sluice_core::json;
use support::{fixtures, golden, object, stream, told_by_answer, told_by_request, told_in_streams};

fn format(name: &str) -> &'static dyn Format {
    formats::by_name(name).expect("a registered format")
}

fn fixture(name: &str, file: &str) -> support::Fixture {
    fixtures(file)
        .into_iter()
        .find(|fixture| fixture.format.name() == name && fixture.name == file)
        .unwrap_or_else(|| panic!("fixture {name}/{file}"))
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
fn every_stream_is_read_and_assembled_as_its_golden_file_says() {
    for fixture in fixtures(".stream.sse") {
        let all = stream(fixture.format, false, [fixture.bytes.as_slice()]);
        assert_eq!(all.passed, fixture.bytes, "{}", fixture.name);
        let hiding = stream(fixture.format, true, [fixture.bytes.as_slice()]);
        assert_eq!(hiding.outcome, all.outcome);
        assert_eq!(hiding.assembled, all.assembled);
        let hidden = fixture.bytes.len() - hiding.passed.len();
        let mut told = told_by_answer(&all.outcome);
        told["hidden_bytes_where_not_asked_for"] = hidden.into();
        told["assembled"] = all
            .assembled
            .map(|json| serde_json::from_str(&json).unwrap())
            .unwrap_or_default();
        golden(&fixture, &told);
    }
}

#[test]
fn a_stream_cut_into_any_pieces_gives_the_same() {
    for fixture in fixtures(".stream.sse") {
        let bytes = fixture.bytes.as_slice();
        for hide in [false, true] {
            let whole = stream(fixture.format, hide, [bytes]);
            let single = stream(fixture.format, hide, bytes.chunks(1));
            assert_eq!(single, whole, "{} byte by byte", fixture.name);
            for size in [2, 3, 7, 64, 1000] {
                let pieces = stream(fixture.format, hide, bytes.chunks(size));
                assert_eq!(pieces, whole, "{} by {size}", fixture.name);
            }
        }
    }
}

#[test]
fn an_assembled_stream_replays_to_a_stream_that_assembles_to_the_same() {
    for fixture in fixtures(".stream.sse") {
        let first = stream(fixture.format, false, [fixture.bytes.as_slice()]);
        let Some(assembled) = first.assembled else {
            continue;
        };
        let replayed = fixture.format.replay(&assembled, true).unwrap();
        let second = stream(fixture.format, false, [replayed.as_slice()]);
        assert_eq!(
            second.outcome.usage, first.outcome.usage,
            "{}",
            fixture.name
        );
        assert_eq!(second.outcome.complete, first.outcome.complete);
        // White space in a tool's input, which is JSON, is not kept.
        assert!(second.outcome.text_bytes.abs_diff(first.outcome.text_bytes) <= 1);
        assert_eq!(
            told_in_streams(&second.assembled.unwrap()),
            told_in_streams(&assembled),
            "{}",
            fixture.name
        );
        // And the assembled answer reads as the stream did.
        let read = fixture.format.answer(assembled.as_bytes());
        assert_eq!(read.usage, first.outcome.usage, "{}", fixture.name);
        assert_eq!(read.complete, first.outcome.complete, "{}", fixture.name);
    }
}

#[test]
fn a_whole_answer_replays_to_a_stream_that_assembles_to_it() {
    let mut replayed = 0;
    for fixture in fixtures(".answer.json") {
        let answer = fixture.format.answer(&fixture.bytes);
        if !answer.complete || fixture.name.starts_with("logprobs") {
            continue;
        }
        let Some(events) = fixture.format.replay(fixture.text(), true) else {
            assert_eq!(fixture.format.name(), "openai.embeddings");
            continue;
        };
        let again = stream(fixture.format, false, [events.as_slice()]);
        assert!(again.outcome.complete, "{}", fixture.name);
        assert_eq!(again.outcome.usage, answer.usage, "{}", fixture.name);
        let mut told = told_in_streams(fixture.text());
        if let Some(choices) = told.get_mut("choices").and_then(|list| list.as_array_mut()) {
            // Absent and null mean the same here.
            for choice in choices {
                choice["logprobs"] = serde_json::Value::Null;
                if choice.get("message").is_some() {
                    choice["message"]["refusal"] = choice["message"]["refusal"].take();
                }
            }
        }
        assert_eq!(
            told_in_streams(&again.assembled.unwrap()),
            told,
            "{}",
            fixture.name
        );
        replayed += 1;
    }
    assert!(replayed >= 8, "{replayed} answers were replayed");
}

#[test]
fn a_replayed_stream_has_usage_only_where_the_client_asked() {
    for name in ["openai.chat", "openai.completions"] {
        let format = format(name);
        let file = if name == "openai.chat" {
            "text.answer.json"
        } else {
            "one.answer.json"
        };
        let fixture = fixture(name, file);
        let asked = format.replay(fixture.text(), true).unwrap();
        let not = String::from_utf8(format.replay(fixture.text(), false).unwrap()).unwrap();
        assert!(String::from_utf8(asked).unwrap().contains("prompt_tokens"));
        assert!(!not.contains("usage"), "{not}");
        assert!(not.ends_with("data: [DONE]\n\n"));
    }
}

#[test]
fn logprobs_are_replayed_but_not_assembled() {
    let fixture = fixture("openai.chat", "logprobs.answer.json");
    let events = fixture.format.replay(fixture.text(), false).unwrap();
    let text = String::from_utf8(events.clone()).unwrap();
    assert!(text.contains(r#""delta":{"content":"Hello!"},"logprobs":{"content":[{"token":"#));
    assert_eq!(text.matches("-0.31725305").count(), 1);
    let read = stream(fixture.format, false, [events.as_slice()]);
    assert!(read.outcome.complete);
    assert_eq!(read.assembled, None);
}

#[test]
fn long_texts_are_replayed_in_short_deltas_that_cut_no_escape() {
    let text = r#"\ud83d\ude00 \u00e9\\\"é😀\n"#.repeat(3000);
    let chat = format!(
        r#"{{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}]}}"#
    );
    let anthropic = format!(
        r#"{{"id":"1","type":"message","role":"assistant","model":"m","content":[{{"type":"text","text":"{text}"}},{{"type":"tool_use","id":"t","name":"n","input":{{"a":"{text}"}}}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":1,"output_tokens":2}}}}"#
    );
    for (name, answer) in [("openai.chat", &chat), ("anthropic.messages", &anthropic)] {
        let format = format(name);
        let events = format.replay(answer, true).unwrap();
        let longest = events.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
        assert!(longest < Some(20_000), "{longest:?}");
        let again = stream(format, false, [events.as_slice()]);
        let told = |json: &str| {
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            (
                value["choices"][0]["message"]["content"].clone(),
                value["content"].clone(),
            )
        };
        assert_eq!(told(&again.assembled.unwrap()), told(answer), "{name}");
        let read = format.answer(answer.as_bytes());
        if name == "openai.chat" {
            assert_eq!(again.outcome.text_bytes, read.text_bytes);
        }
    }
}

#[test]
fn a_stored_answer_that_is_not_ended_or_not_known_is_not_replayed() {
    let cases = [
        ("openai.chat", "{}"),
        ("openai.chat", r#"{"choices":[]}"#),
        (
            "openai.chat",
            r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":null}]}"#,
        ),
        (
            "openai.chat",
            r#"{"choices":[{"index":0,"message":{"role":"assistant","content":null,"audio":{"id":"a","data":"AA"}},"finish_reason":"stop"}]}"#,
        ),
        (
            "openai.chat",
            r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"a","annotations":[{"type":"url_citation"}]},"finish_reason":"stop"}]}"#,
        ),
        (
            "openai.completions",
            r#"{"choices":[{"index":0,"text":"a","finish_reason":null}]}"#,
        ),
        (
            "openai.responses",
            r#"{"status":"in_progress","output":[]}"#,
        ),
        (
            "openai.responses",
            r#"{"status":"completed","output":[{"type":"web_search_call","id":"ws"}]}"#,
        ),
        (
            "anthropic.messages",
            r#"{"type":"message","content":[],"stop_reason":null,"usage":{}}"#,
        ),
        ("anthropic.messages", "no JSON"),
    ];
    for (name, answer) in cases {
        assert_eq!(format(name).replay(answer, true), None, "{name} {answer}");
    }
}

#[test]
fn a_stream_is_only_complete_and_assembled_when_it_ended_properly() {
    // Every event of every stream left out in turn: what is assembled from the rest, if anything,
    // is the same answer (pings, comments, empty deltas), or the event was one of text.
    for fixture in fixtures(".stream.sse") {
        let whole = stream(fixture.format, false, [fixture.bytes.as_slice()]);
        if whole.assembled.is_none() || fixture.name.starts_with("compatible") {
            continue;
        }
        let text = fixture.text().replace('\r', "\n");
        let events: Vec<&str> = text.split_inclusive("\n\n").collect();
        let last = events.len() - 1;
        let without_last = stream(
            fixture.format,
            false,
            events[..last].iter().map(|event| event.as_bytes()),
        );
        assert_eq!(without_last.assembled, None, "{}", fixture.name);
        assert!(!without_last.outcome.complete, "{}", fixture.name);
        for end in 0..last {
            let cut = stream(
                fixture.format,
                false,
                events[..end].iter().map(|event| event.as_bytes()),
            );
            assert_eq!(cut.assembled, None, "{} cut at {end}", fixture.name);
            assert!(!cut.outcome.complete);
        }
    }
}

#[test]
fn a_stream_longer_than_the_bound_is_not_assembled_but_its_usage_is_read() {
    let piece = "x".repeat(64 << 10);
    for (name, delta, end) in [
        (
            "openai.chat",
            format!(
                r#"{{"id":"1","created":1,"model":"m","choices":[{{"index":0,"delta":{{"content":"{piece}"}},"finish_reason":null}}]}}"#
            ),
            vec![
                r#"{"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
                r#"{"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
                "[DONE]",
            ],
        ),
        (
            "anthropic.messages",
            format!(
                r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{piece}"}}}}"#
            ),
            vec![
                r#"{"type":"content_block_stop","index":0}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":4}}"#,
                r#"{"type":"message_stop"}"#,
            ],
        ),
    ] {
        let mut events = Vec::new();
        if name == "anthropic.messages" {
            events.push(r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#);
            events.push(r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#);
        }
        events.extend(std::iter::repeat_n(delta.as_str(), 17));
        events.extend(end);
        let sse: String = events
            .iter()
            .map(|data| format!("data: {data}\n\n"))
            .collect();
        let read = stream(format(name), false, [sse.as_bytes()]);
        assert_eq!(read.assembled, None);
        assert_eq!(read.outcome.usage, Some(support::usage(3, 0, 0, 4, 0)));
        assert_eq!(read.outcome.text_bytes, 17 * (64 << 10));
        assert!(read.outcome.complete);
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
fn only_the_chunk_that_has_nothing_but_usage_is_hidden() {
    let chat = format("openai.chat");
    let chunks = [
        r#"data: {"choices":[],"prompt_filter_results":[]}"#,
        r#"data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}],"usage":null}"#,
        r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
        ": comment",
        r#"data: {"choices":[ ],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        "data: [DONE]",
    ];
    let sse = chunks.map(|chunk| format!("{chunk}\n\n"));
    let passed = stream(chat, true, [sse.concat().as_bytes()]);
    let expected = [&sse[..4], &sse[5..]].concat().concat();
    assert_eq!(String::from_utf8(passed.passed).unwrap(), expected);
    assert_eq!(
        passed.outcome.usage,
        Some(support::usage(1, 0, 0, 2, 0)),
        "hidden, but read"
    );
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
