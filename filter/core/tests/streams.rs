//! Streamed answers and their replay: read, hidden, assembled, told again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "clippy knows unit tests only as tests; the support module serves several files"
)]

mod support;

use sluice_core::formats::{self, Format};
use support::{fixtures, golden, stream, told_by_answer, told_in_streams};

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
            let told =
                fixture.format.name() == "openai.embeddings" || fixture.name.starts_with("custom");
            assert!(told, "{}", fixture.name);
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
