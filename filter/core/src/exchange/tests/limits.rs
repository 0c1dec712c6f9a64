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

#[test]
fn a_body_that_cannot_be_read_passes_or_is_refused_as_declared_and_is_counted() {
    let levers = format!(r#"{SIDECAR},"route":{{{TIERS}}}"#);
    for body in ["", "not json", r#"{"model": NaN}"#, "[1]"] {
        let mut open = run(&levers);
        let effects = open.ask(&[], body);
        assert!(effects.sent() && effects.new_body().is_none(), "{body}");
        assert_eq!(effects.counted("unread"), 1);
        assert!(open.done().0.is_none());

        let mut closed = run(&format!(r#"{levers},"limits":{{"on_failure":"closed"}}"#));
        let effects = closed.ask(&[], body);
        let (status, _, told) = effects.response().unwrap();
        assert_eq!((status, effects.counted("unread")), (400, 1));
        assert!(told.contains("request_unreadable"), "{told}");
        let record = closed.done().0.unwrap().0.record;
        assert_eq!((record.outcome, record.status), (Outcome::Rejected, 400));

        let dry = format!(r#"{levers},"mode":"dry","limits":{{"on_failure":"closed"}}"#);
        assert!(run(&dry).ask(&[], body).sent(), "dry refuses nothing");
    }
}

#[test]
fn a_dry_run_does_not_refuse_a_long_body_either() {
    let limits = r#""mode":"dry","limits":{"request_body":"1KiB","on_failure":"closed"}"#;
    let long = BODY.replace("refund", &"refund".repeat(1000));
    let length = long.len().to_string();
    for extra in [&[][..], &[("content-length", length.as_str())]] {
        let mut all = CHAT.to_vec();
        all.extend(extra);
        let mut run = run(limits);
        let mut effects = run.on(Event::RequestHeaders {
            headers: &headers(&all),
            end_of_stream: false,
        });
        if effects.flow == Flow::Pause {
            effects = run.on(Event::RequestBodyPart { buffered: 2000 });
        }
        assert_eq!(effects.flow, Flow::Continue);
        assert!(effects.response().is_none());
    }
}

#[test]
fn a_content_encoding_that_does_not_hold_hides_nothing() {
    let mut run = run(&format!(r#""route":{{{TIERS}}}"#));
    for coding in ["foo", "gzip", "identity"] {
        let sent = run.next().ask(&[("content-encoding", coding)], BODY);
        assert!(sent.new_body().unwrap().contains("gpt-4o-mini"), "{coding}");
    }
}

#[test]
fn an_answer_is_asked_for_uncompressed_whatever_the_client_would_take() {
    let mut run = run(&format!(r#""route":{{{TIERS}}}"#));
    let takes = |values: &[&'static str]| -> Vec<(&'static str, &'static str)> {
        values
            .iter()
            .map(|value| ("accept-encoding", *value))
            .collect()
    };
    for values in [
        &["gzip"][..],
        &["identity", "zstd"],
        &["gzip", "identity"],
        &["*"],
    ] {
        let effects = run.next().ask(&takes(values), BODY);
        assert_eq!(
            effects.set("accept-encoding"),
            Some("identity"),
            "{values:?}"
        );
    }
    for values in [&[][..], &["identity"], &["identity", "identity"]] {
        let effects = run.next().ask(&takes(values), BODY);
        assert_eq!(effects.set("accept-encoding"), None, "{values:?}");
    }
    let bytes = [
        (&b":method"[..], &b"POST"[..]),
        (b":path", b"/v1/chat/completions"),
        (b"accept-encoding", b"gzip\xff"),
    ];
    let mut all = Vec::new();
    let mut put = |part: &[u8]| {
        all.extend_from_slice(part);
        all.len() - part.len()..all.len()
    };
    let places = bytes.map(|(name, value)| (put(name), put(value))).to_vec();
    let effects = run.next().on(Event::RequestHeaders {
        headers: &Headers::new(all, places),
        end_of_stream: false,
    });
    assert_eq!(effects.set("accept-encoding"), Some("identity"));
}
