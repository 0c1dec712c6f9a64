//! What is not ours, too long or out of order: passed or refused as declared.

use super::*;

#[test]
fn what_is_not_ours_passes_and_strangers_control_headers_do_not() {
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[(":method", "GET"), (":path", "/v1/models")], ""),
        (
            &[(":method", "POST"), (":path", "/v1/chat/completions")],
            "not json",
        ),
        (
            &[
                (":method", "POST"),
                (":path", "/v1/chat/completions"),
                ("content-encoding", "gzip"),
            ],
            "x",
        ),
        (&[(":method", "POST"), (":path", "/v1/other")], "{}"),
    ];
    for (pairs, body) in cases {
        let mut run = run(&format!(r#"{SIDECAR},"route":{{{TIERS}}},"cache":{{}}"#));
        let mut pairs = pairs.to_vec();
        pairs.push(("x-sluice-tier", "large"));
        let effects = run.ask_as(&pairs, body);
        assert!(
            effects.new_body().is_none() && effects.call().is_none(),
            "{pairs:?}"
        );
        assert!(
            effects
                .list
                .contains(&Effect::RemoveRequestHeader("x-sluice-tier".into()))
        );
        let forged = headers(&[(":status", "200"), ("x-sluice-cache", "hit")]);
        let effects = run.on(Event::ResponseHeaders {
            headers: &forged,
            end_of_stream: true,
        });
        assert_eq!(
            effects.list,
            [Effect::RemoveResponseHeader("x-sluice-cache".into())]
        );
        assert_eq!(run.done().1.list, []);
    }
}

#[test]
fn a_prompt_over_its_limit_is_refused_in_the_apis_own_words() {
    let mut run = run(r#""trim":{"input_tokens":{"limit":5}}"#);
    let (status, headers, body) = run.ask(&[], BODY).response().unwrap();
    assert_eq!(
        (status, headers["content-type"].as_str()),
        (400, "application/json")
    );
    let error: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(error["error"]["code"], "prompt_too_long");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("at most 5")
    );
    // Our own answer comes back through the response callbacks.
    assert_eq!(run.answer("400", &body).list, []);
    let (_, effects) = run.done();
    assert_eq!(effects.counted("outcome=rejected;"), 1);
    assert_eq!(effects.counted("spend_nanodollars"), 0);
}

#[test]
fn a_dated_snapshot_has_its_models_input_limit() {
    let mut run = run(r#""trim":{"input_tokens":{"models":{"gpt-4o":5}}}"#);
    let dated = BODY.replace("gpt-4o", "gpt-4o-2024-08-06");
    assert_eq!(run.ask(&[], &dated).response().unwrap().0, 400);
    let other = BODY.replace("gpt-4o", "gpt-4o-mini");
    assert!(run.next().ask(&[], &other).sent());
}

#[test]
fn an_answer_too_long_to_hold_streams_and_is_accounted_all_the_same() {
    let mut run = run(r#""limits":{"response_body":"1KiB"},"cache":{}"#);
    run.ask(&[], BODY);
    let long = ANSWER.replace("Thirty days.", &"long ".repeat(1000));
    let head = headers(&[(":status", "200"), ("content-type", "application/json")]);
    assert_eq!(
        run.on(Event::ResponseHeaders {
            headers: &head,
            end_of_stream: false
        })
        .flow,
        Flow::Pause
    );
    let (first, rest) = long.split_at(800);
    assert_eq!(
        run.on(Event::ResponseBody {
            chunk: first.as_bytes(),
            end_of_stream: false
        })
        .flow,
        Flow::Pause
    );
    let (held, rest) = (&long[..1800], &rest[1000..]);
    let effects = run.on(Event::ResponseBody {
        chunk: held.as_bytes(),
        end_of_stream: false,
    });
    assert_eq!(
        (effects.flow, effects.list),
        (Flow::Continue, vec![Effect::ResumeResponse])
    );
    run.on(Event::ResponseBody {
        chunk: rest.as_bytes(),
        end_of_stream: true,
    });
    assert_eq!(run.done().1.counted("kind=prompt;"), 100);
}

#[test]
fn a_body_over_the_limit_follows_the_declared_outcome() {
    let length = [("content-length", "2000")];
    let mut open = run(r#""limits":{"request_body":"1KiB"},"cache":{}"#);
    assert_eq!(open.ask(&length, BODY).flow, Flow::Continue);
    let mut closed = run(r#""limits":{"request_body":"1KiB","on_failure":"closed"},"cache":{}"#);
    assert_eq!(closed.ask(&length, BODY).response().unwrap().0, 413);
    // Without a declared length it shows while the body comes in.
    let mut chunked = run(r#""limits":{"request_body":"1KiB"},"cache":{}"#);
    chunked.on(Event::RequestHeaders {
        headers: &headers(&CHAT),
        end_of_stream: false,
    });
    assert_eq!(
        chunked.on(Event::RequestBodyPart { buffered: 1000 }).flow,
        Flow::Pause
    );
    let effects = chunked.on(Event::RequestBodyPart { buffered: 1100 });
    assert_eq!(effects.flow, Flow::Continue);
    assert!(effects.sent());
}

#[test]
fn events_out_of_order_do_nothing() {
    let mut run = run(&format!("{SIDECAR},{CACHED}"));
    assert_eq!(run.on(Event::ReplyFailed), Effects::default());
    assert_eq!(
        run.on(Event::RequestBody { body: b"{}" }),
        Effects::default()
    );
    assert_eq!(
        run.on(Event::ResponseBody {
            chunk: b"x",
            end_of_stream: true
        }),
        Effects::default()
    );
    assert_eq!(run.on(Event::Done), Effects::default());
    assert_eq!(run.ask(&[], BODY).list, [], "nothing comes after the end");
}
