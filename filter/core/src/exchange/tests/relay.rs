//! A trimmed request for a stream by the sidecar's relay, and what becomes of it where that fails.

use sluice_wire::RelayRequest;

use super::*;

const RELAYED: &str = r#""sidecar":{"cluster":"c","secret":"s","breaker":{"failures":1,"pause":"5s"}},
    "trim":{"mode":"on","history":{"keep":"recent","tokens":20,"last":0},
        "retry":{"cluster":"self","streams":"relay"}}"#;

/// A conversation that is too long, and asks for a stream or does not.
fn long(stream: bool) -> String {
    let turn =
        |role: &str, text: &str| format!(r#"{{"role":"{role}","content":"{}"}}"#, text.repeat(30));
    let turns = [
        turn("user", "Where are the parcels? "),
        turn("assistant", "They are at sea. "),
        turn("user", "What is the weather there? "),
        turn("assistant", "It rains all day. "),
        r#"{"role":"user","content":"Thank you. And the sum of two and two?"}"#.to_owned(),
    ];
    let turns = turns.join(",");
    format!(r#"{{"model":"gpt-4o","stream":{stream},"messages":[{turns}]}}"#)
}

/// The same as it would have gone out untrimmed: its usage is asked for.
fn whole() -> String {
    let long = long(true);
    let long = long.strip_suffix('}').unwrap();
    format!(r#"{long},"stream_options":{{"include_usage":true}}}}"#)
}

fn relay(effects: &Effects) -> Option<&Relay> {
    effects.list.iter().find_map(|effect| match effect {
        Effect::Relay(relay) => Some(relay),
        _ => None,
    })
}

fn attempt(effects: &Effects) -> Option<String> {
    effects.list.iter().find_map(|effect| match effect {
        Effect::Attempt { cluster, body, .. } => {
            assert_eq!(cluster, "self");
            Some(String::from_utf8(body.clone()).unwrap())
        }
        _ => None,
    })
}

impl Run {
    /// Sends the request once the sidecar has said that it may go.
    fn relay(&mut self, body: &str) -> Effects {
        let asked = self.ask(&[("x-sluice-relay", "1")], body);
        let stranger = Effect::RemoveRequestHeader("x-sluice-relay".into());
        assert!(asked.list.contains(&stranger), "{asked:?}");
        match asked.call() {
            Some(_) => self.say(Verdict::go(0), b""),
            None => asked,
        }
    }

    /// The beginning of an answer that streams, of that attempt.
    fn begin(&mut self, status: &str, attempt: Option<&str>) -> Effects {
        let mut head = vec![(":status", status), ("content-type", "text/event-stream")];
        head.extend(attempt.map(|number| ("x-sluice-attempt", number)));
        self.on(Event::ResponseHeaders {
            headers: &headers(&head),
            end_of_stream: false,
        })
    }
}

#[test]
fn a_trimmed_stream_goes_to_the_relay_with_both_bodies_and_the_headers_it_would_have_had() {
    let mut run = run(RELAYED);
    let sent = run.relay(&long(true));
    assert!(sent.sent());
    assert_eq!(sent.new_body(), None, "the frame is the body");
    for (name, value) in [
        (":path", "/v1/relay"),
        ("x-sluice-relay", "1"),
        ("x-sluice-wire", &sluice_wire::VERSION.to_string()),
    ] {
        assert_eq!(sent.set(name), Some(value), "{name}");
    }
    let at = |wanted: &dyn Fn(&Effect) -> bool| sent.list.iter().position(wanted).unwrap();
    let (kept, framed, path) = (
        at(&|effect| *effect == Effect::KeepRequest),
        at(&|effect| matches!(effect, Effect::Relay(_))),
        at(&|effect| matches!(effect, Effect::SetRequestHeader(":path", _))),
    );
    assert!(kept < framed && framed < path, "{sent:?}");
    assert_eq!(
        at(&|effect| *effect == Effect::ClearRouteCache),
        sent.list.len() - 2,
        "the route is chosen by the headers as they are in the end"
    );

    let (bytes, authorization) = relay(&sent).unwrap().frame(&as_kept(&CHAT));
    let token = authorization.strip_prefix("Bearer ").unwrap();
    let now_us = run.world.now_ns / 1000;
    let head = bytes.split(|byte| *byte == b'\n').next().unwrap();
    let opened = Sealer::new("s").relay_head(token, now_us);
    assert_eq!(opened, Some(Digest::of(head)), "it opens to this alone");
    let frame: Frame<RelayRequest, _> = Frame::decode(&bytes).unwrap();
    assert_eq!(frame.head.path, "/v1/chat/completions");
    assert_eq!(frame.head.authority, "api.example.com");
    assert_eq!(
        frame.head.headers,
        [("authorization".to_owned(), "Bearer sk-1".to_owned())]
    );
    assert_eq!(frame.head.body_len(), frame.body.len() as u64);
    let (trimmed, untrimmed) = frame.body.split_at(frame.head.attempts[0].len as usize);
    assert_eq!(untrimmed, whole().as_bytes());
    let trimmed = std::str::from_utf8(trimmed).unwrap();
    assert!(
        !trimmed.contains("parcels") && trimmed.contains("two and two"),
        "{trimmed}"
    );
    let bodies = [trimmed, std::str::from_utf8(untrimmed).unwrap()];
    for (it, body) in frame.head.attempts.iter().zip(bodies) {
        let [(name, seal)] = &it.headers[..] else {
            panic!("{it:?}")
        };
        assert_eq!(it.digest, Digest::of(body.as_bytes()).hex());
        // This filter, on the way to upstream, lets it pass.
        let passes = run.next().ask(&[(name.as_str(), seal.as_str())], body);
        assert_eq!(
            passes.list,
            [
                Effect::RemoveRequestHeader("x-sluice-attempt".into()),
                Effect::ResumeRequest
            ]
        );
        let shown = format!("{:?}", relay(&sent));
        assert!(
            !shown.contains("parcels") && !shown.contains("sk-1"),
            "{shown}"
        );
    }
}

#[test]
fn what_is_no_trimmed_stream_or_not_to_be_relayed_goes_upstream_as_ever() {
    let callout = RELAYED.replace(r#","streams":"relay""#, "");
    let short = BODY.replace(r#""zz": [1, 2]"#, r#""stream": true"#);
    let open = RELAYED.replace(r#""secret":"s","#, "");
    for (config, body) in [
        (RELAYED, long(false)),
        (RELAYED, short),
        (callout.as_str(), long(true)),
        (open.as_str(), long(true)),
    ] {
        let sent = run(config).relay(&body);
        assert!(sent.sent());
        assert_eq!(relay(&sent), None, "{config} {body}");
        assert_eq!(sent.set("x-sluice-relay"), None);
        assert_eq!(sent.set(":path"), None);
    }
}

#[test]
fn while_the_sidecar_is_away_nothing_is_sent_to_it() {
    let mut run = run(RELAYED);
    run.ask(&[], &long(true));
    let sent = run.on(Event::ReplyFailed);
    assert!(sent.sent());
    assert_eq!(relay(&sent), None);
    assert!(sent.new_body().is_some(), "it is trimmed all the same");
}

#[test]
fn the_second_attempts_answer_streams_on_and_is_booked_as_untrimmed() {
    for (number, result) in [("0", "first"), ("1", "second")] {
        let mut run = run(RELAYED);
        run.relay(&long(true));
        let begun = run.begin("200", Some(number));
        assert_eq!(begun.flow, Flow::Continue, "the first event need not wait");
        assert_eq!(begun.counted(&format!("trim_relay;result={result};")), 1);
        let hidden = Effect::RemoveResponseHeader("x-sluice-attempt".into());
        assert!(begun.list.contains(&hidden));
        let trimmed: u64 = begun
            .set("x-sluice-tokens-trimmed")
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(trimmed > 0, number == "0", "{trimmed}");
        let part = run.on(Event::ResponseBody {
            chunk: b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"4\"}}]}\n\n",
            end_of_stream: false,
        });
        assert_eq!(part.flow, Flow::Continue);
        run.on(Event::ResponseBody {
            chunk: b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":300,\"completion_tokens\":1,\"total_tokens\":301}}\n\ndata: [DONE]\n\n",
            end_of_stream: true,
        });
        let record = run.done().0.unwrap().0.record;
        assert_eq!(record.outcome, Outcome::Answered);
        assert_eq!(
            record.saved.total() > Usd::ZERO,
            number == "0",
            "{record:?}"
        );
    }
}

#[test]
fn an_answer_that_is_no_attempts_makes_the_untrimmed_request_go_by_a_call() {
    for status in ["200", "400", "401", "404", "503"] {
        let mut run = run(RELAYED);
        run.relay(&long(true));
        let failed = run.begin(status, None);
        assert_eq!(failed.flow, Flow::Pause);
        assert_eq!(failed.counted("trim_relay;result=failed;"), 1);
        assert_eq!(attempt(&failed).unwrap(), whole(), "{status}");
        let rest = run.on(Event::ResponseBody {
            chunk: b"the sidecar's error",
            end_of_stream: true,
        });
        assert_eq!((rest.flow, rest.list), (Flow::Pause, vec![]));
        let told = run.on(Event::Attempt {
            headers: &headers(&[(":status", "200"), ("content-type", "application/json")]),
            body: ANSWER.as_bytes(),
        });
        let (status, headers, body) = told.response().unwrap();
        assert_eq!((status, body.as_str()), (200, ANSWER));
        assert_eq!(headers["x-sluice-tokens-trimmed"], "0");
        let record = run.done().0.unwrap().0.record;
        assert_eq!(record.outcome, Outcome::Answered);
    }
}

#[test]
fn where_the_call_fails_too_the_relays_error_stands() {
    let mut run = run(RELAYED);
    run.relay(&long(true));
    run.begin("503", None);
    let told = run.on(Event::ReplyFailed);
    assert!(told.list.contains(&Effect::ResumeResponse));
    let record = run.done().0.unwrap().0.record;
    assert_eq!(
        (record.outcome, record.status),
        (Outcome::UpstreamError, 503)
    );
}

#[test]
fn upstreams_own_errors_pass_the_relay_and_are_not_asked_about_again() {
    for (number, status) in [("0", "400"), ("1", "400"), ("0", "429"), ("1", "503")] {
        let mut run = run(RELAYED);
        run.relay(&long(true));
        let told = run.begin(status, Some(number));
        assert_eq!(attempt(&told), None);
        assert_eq!(told.flow, Flow::Continue, "{status}");
        let body = br#"{"error":{"message":"messages: roles must alternate","param":"messages"}}"#;
        let told = run.on(Event::ResponseBody {
            chunk: body,
            end_of_stream: true,
        });
        assert_eq!(attempt(&told), None);
    }
}

#[test]
fn what_says_in_the_sidecars_name_that_it_is_an_attempt_counts_for_nothing() {
    let callout = RELAYED.replace(r#","streams":"relay""#, "");
    let mut run = run(&callout);
    run.relay(&long(true));
    let told = run.begin("200", Some("1"));
    assert_ne!(told.set("x-sluice-tokens-trimmed"), Some("0"));
    let hidden = Effect::RemoveResponseHeader("x-sluice-attempt".into());
    assert!(told.list.contains(&hidden));
}
