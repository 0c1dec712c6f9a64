//! What is settled in the end: whole, streamed, cut off, of unknown price.

use super::*;

#[test]
fn an_admitted_request_is_settled_with_its_usage_and_its_answer() {
    let mut run = run(&format!("{SIDECAR},{CACHED}"));
    let asked = run.ask(&[], BODY);
    assert!(!asked.sent());
    let admit = asked.call().unwrap();
    assert_eq!((admit.id.len(), admit.plans.len()), (32, 1));
    let key = admit.plans[0].key.clone().unwrap();
    assert_eq!(key.len(), 64);
    let charge = &admit.plans[0].charges[0];
    assert!(charge.counter.starts_with("tenant:key-") && charge.limit == 1000);
    assert!(run.say(Verdict::go(0), b"").sent());
    assert_eq!(
        run.answer("200", ANSWER).set("x-sluice-cache"),
        Some("miss")
    );
    let (settle, _) = run.done();
    let (settle, answer) = settle.unwrap();
    assert_eq!(answer, ANSWER.as_bytes());
    assert_eq!(
        settle
            .store
            .as_ref()
            .map(|store| (store.key.clone(), store.len)),
        Some((key, ANSWER.len() as u64))
    );
    assert_eq!(settle.counted[0].amount, 110);
    let record = settle.record;
    assert_eq!(
        (record.id, record.status, record.outcome),
        (admit.id, 200, Outcome::Answered)
    );
    assert_eq!(record.cost, Some(Usd::from_dollars(350e-6)));
    assert!(!record.estimated);
}

#[test]
fn usage_of_a_stream_is_asked_for_read_and_hidden() {
    let mut run = run(&format!("{SIDECAR},\"cache\":{{}}"));
    run.ask(&[], &BODY.replace("\"zz\"", "\"stream\": true, \"zz\""));
    let sent = run.say(Verdict::go(0), b"");
    assert!(
        sent.new_body()
            .unwrap()
            .contains(r#""stream_options":{"include_usage":true}"#)
    );
    let head = headers(&[(":status", "200"), ("content-type", "text/event-stream")]);
    assert_eq!(
        run.on(Event::ResponseHeaders {
            headers: &head,
            end_of_stream: false
        })
        .flow,
        Flow::Continue
    );
    let chunk = |rest: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o\",{rest}}}\n\n"
        )
    };
    let shown = chunk(
        r#""choices":[{"index":0,"delta":{"role":"assistant","content":"Thirty days."},"finish_reason":null}]"#,
    ) + &chunk(r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#);
    let hidden = chunk(
        r#""choices":[],"usage":{"prompt_tokens":100,"completion_tokens":10,"total_tokens":110}"#,
    );
    let all = format!("{shown}{hidden}data: [DONE]\n\n");
    let mut told = Vec::new();
    for (at, piece) in all.as_bytes().chunks(7).enumerate() {
        let effects = run.on(Event::ResponseBody {
            chunk: piece,
            end_of_stream: (at + 1) * 7 >= all.len(),
        });
        let replaced = effects.list.iter().find_map(|effect| match effect {
            Effect::ReplaceResponseBody(body) => Some(body.clone()),
            _ => None,
        });
        told.extend(replaced.unwrap_or_else(|| piece.to_vec()));
    }
    assert_eq!(
        String::from_utf8(told).unwrap(),
        format!("{shown}data: [DONE]\n\n")
    );
    let (settle, answer) = run.done().0.unwrap();
    assert_eq!(
        (
            settle.record.usage.prompt,
            settle.record.usage.completion,
            settle.record.estimated
        ),
        (100, 10, false)
    );
    assert!(settle.store.is_some());
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Thirty days.");
}

#[test]
fn a_client_that_leaves_in_mid_stream_is_booked_by_estimate() {
    let mut run = run(&format!("{SIDECAR},{CACHED}"));
    run.ask(&[], &BODY.replace("\"zz\"", "\"stream\": true, \"zz\""));
    run.say(Verdict::go(0), b"");
    let head = headers(&[(":status", "200"), ("content-type", "text/event-stream")]);
    run.on(Event::ResponseHeaders {
        headers: &head,
        end_of_stream: false,
    });
    let text = "words ".repeat(40);
    let event = format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
    );
    run.on(Event::ResponseBody {
        chunk: event.as_bytes(),
        end_of_stream: false,
    });
    let (settle, answer) = run.done().0.unwrap();
    assert_eq!(
        (settle.record.outcome, settle.record.estimated, answer.len()),
        (Outcome::Aborted, true, 0)
    );
    assert_eq!(
        settle.record.usage.completion, 60,
        "240 bytes at 4 bytes per token"
    );
    assert_eq!(settle.counted[0].amount, settle.record.usage.total());
}

#[test]
fn a_client_that_leaves_while_the_sidecar_is_asked_owes_nothing() {
    let mut run = run(&format!("{SIDECAR},{CACHED}"));
    run.ask(&[], BODY);
    let settle = run.done().0.unwrap().0;
    assert_eq!(
        (
            settle.record.outcome,
            settle.record.usage.total(),
            settle.counted[0].amount
        ),
        (Outcome::Aborted, 0, 0)
    );
    assert_eq!(
        run.say(Verdict::go(0), b"").list,
        [],
        "a late reply changes nothing"
    );
    assert_eq!(run.done().0, None, "and it is settled once");
}

#[test]
fn unknown_prices_are_said_to_be_unknown() {
    let mut run = run(&format!("{SIDECAR},\"cache\":{{}}"));
    run.ask(&[], &BODY.replace("gpt-4o", "mystery"));
    run.say(Verdict::go(0), b"");
    let answered = run.answer("200", ANSWER);
    assert_eq!(
        (
            answered.set("x-sluice-cost"),
            answered.set("x-sluice-saved")
        ),
        (Some("unknown"), Some("unknown"))
    );
    let (settle, effects) = run.done();
    let record = settle.unwrap().0.record;
    assert_eq!(
        (record.as_asked, record.cost, record.model.as_str()),
        (None, None, "mystery")
    );
    assert_eq!(
        effects.counted("unpriced;model=other;"),
        1,
        "a client's own name makes no metric"
    );
}

/// An Anthropic stream up to and without `message_delta`, which alone tells the answer's tokens.
fn message_start(words: usize) -> String {
    let mut events = String::from(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-haiku-4-5\",\"content\":[],\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":5,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    );
    for _ in 0..words {
        events += "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"word \"}}\n\n";
    }
    events
}

#[test]
fn a_stream_that_told_only_its_beginning_is_booked_by_what_was_seen_of_it() {
    const MESSAGE: &str = r#"{"model":"claude-haiku-4-5","max_tokens":9000,"stream":true,"messages":[{"role":"user","content":"Tell me a long story."}]}"#;
    let head = headers(&[(":status", "200"), ("content-type", "text/event-stream")]);
    for ends in [false, true] {
        let mut run = run(SIDECAR);
        run.ask_as(&[(":method", "POST"), (":path", "/v1/messages")], MESSAGE);
        run.on(Event::ResponseHeaders {
            headers: &head,
            end_of_stream: false,
        });
        let stream = message_start(4000);
        run.on(Event::ResponseBody {
            chunk: stream.as_bytes(),
            end_of_stream: ends,
        });
        let (settle, effects) = run.done();
        let record = settle.unwrap().0.record;
        assert!(record.estimated, "{record:?}");
        let usage = record.usage;
        assert_eq!((usage.prompt, usage.cached), (30, 5), "as it was told");
        assert!(
            (3000..=6000).contains(&usage.completion),
            "20,000 bytes of text: {usage:?}"
        );
        assert_eq!(effects.counted("sluice.estimated"), 1);
        let state = effects.list.iter().find_map(|effect| match effect {
            Effect::SetState(state) => Some(state.as_str()),
            _ => None,
        });
        assert!(state.unwrap().ends_with(" estimated=true"), "{state:?}");
    }
}
