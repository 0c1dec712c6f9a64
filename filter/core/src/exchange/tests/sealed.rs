//! Requests that this filter sends itself once more: what it lets pass as it is, and what is a
//! stranger's like any other.

use super::*;

const RETRY: &str = r#""sidecar":{"cluster":"c","secret":"s","wait":"2s"},
    "identity":{"tenant":[{"header":"x-tenant"},{"key_hash":true}]},"cache":{},
    "trim":{"history":{"keep":"recent","tokens":20,"last":0},"retry":{"cluster":"self"}}"#;
const REFUSAL: &str = r#"{"error":{"message":"roles must alternate","type":"invalid_request_error","param":"messages"}}"#;
const OWN: [(&str, &str); 3] = [
    ("content-type", "application/json"),
    ("x-tenant", "acme"),
    ("x-sluice-tier", "small"),
];

fn long() -> String {
    let turn =
        |role: &str, text: &str| format!(r#"{{"role":"{role}","content":"{}"}},"#, text.repeat(30));
    let turns = [
        turn("user", "Where are the parcels? "),
        turn("assistant", "They are at sea. "),
        turn("user", "What is the weather there? "),
        turn("assistant", "It rains all day. "),
    ];
    let turns = turns.concat();
    format!(
        r#"{{"model":"gpt-4o","messages":[{turns}{{"role":"user","content":"And two and two?"}}]}}"#
    )
}

/// A request that was refused: what is sent once more, its headers and its body.
fn sent(run: &mut Run) -> (Vec<(String, String)>, String) {
    run.next().ask(&OWN[..2], &long());
    run.say(Verdict::go(0), b"");
    let refused = run.answer("400", REFUSAL);
    let attempt = refused.list.iter().find_map(|effect| match effect {
        Effect::Attempt { seal, body, .. } => Some((seal.clone(), body.clone())),
        _ => None,
    });
    let (seal, body) = attempt.unwrap();
    // The host's: what the first one had when it was sent, and the seal.
    let mut headers = as_kept(&CHAT);
    headers.extend(as_kept(&OWN));
    let sealed = seal.attempt(&headers, Digest::of(&body));
    headers.push(("x-sluice-attempt".to_owned(), sealed));
    (headers, String::from_utf8(body).unwrap())
}

fn come(run: &mut Run, headers: &[(String, String)], body: &str) -> Effects {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    run.next().ask_as(&headers, body)
}

fn passes(effects: &Effects) -> bool {
    let as_it_is = [
        Effect::RemoveRequestHeader("x-sluice-attempt".into()),
        Effect::ResumeRequest,
    ];
    effects.list == as_it_is
}

/// It is asked about, and what it says in our name counts for nothing.
fn is_a_strangers(effects: &Effects) -> bool {
    let removed = |name: &str| {
        let removed = Effect::RemoveRequestHeader(name.to_owned());
        effects.list.contains(&removed)
    };
    effects.call().is_some() && removed("x-sluice-attempt") && removed("x-sluice-tier")
}

#[test]
fn an_attempt_passes_as_it_is_once_and_for_a_minute() {
    let mut run = run(RETRY);
    let (headers, body) = sent(&mut run);
    run.world.now_ns += 60 * SECOND;
    assert!(passes(&come(&mut run, &headers, &body)));
    assert!(
        is_a_strangers(&come(&mut run, &headers, &body)),
        "whoever saw it and says it again"
    );
    let (headers, body) = sent(&mut run);
    run.world.now_ns += 61 * SECOND;
    assert!(is_a_strangers(&come(&mut run, &headers, &body)), "stale");
    let (headers, body) = sent(&mut run);
    let other = RETRY.replace(r#""secret":"s""#, r#""secret":"t""#);
    assert!(is_a_strangers(&come(
        &mut super::run(&other),
        &headers,
        &body
    )));
}

#[test]
fn a_seal_is_for_no_other_body() {
    let mut run = run(RETRY);
    let (headers, body) = sent(&mut run);
    for other in [
        body.replace("parcels", "parcelS"),
        format!("{body} "),
        body[..body.len() - 1].to_owned(),
    ] {
        let effects = come(&mut run, &headers, &other);
        assert!(!passes(&effects), "{other}");
    }
    assert!(is_a_strangers(&come(
        &mut run,
        &headers,
        &body.replace("parcels", "letters")
    )));
    assert!(
        passes(&come(&mut run, &headers, &body)),
        "what was said of others does not use it up"
    );
}

#[test]
fn a_body_that_grows_too_long_is_held_no_longer_than_a_strangers() {
    let narrow = format!(r#"{RETRY},"limits":{{"request_body":"64KiB"}}"#);
    let mut run = run(&narrow);
    let (headers, body) = sent(&mut run);
    let head: Headers = headers.into_iter().collect();
    let first = run.next().on(Event::RequestHeaders {
        headers: &head,
        end_of_stream: false,
    });
    assert_eq!((first.flow, first.list.len()), (Flow::Pause, 0));
    let part = run.on(Event::RequestBodyPart {
        buffered: body.len(),
    });
    assert_eq!((part.flow, part.list.len()), (Flow::Pause, 0));
    let part = run.on(Event::RequestBodyPart {
        buffered: body.len() + 1,
    });
    assert_eq!(part.flow, Flow::Pause, "a stranger's body that is read");
    let tier = Effect::RemoveRequestHeader("x-sluice-tier".into());
    assert!(part.list.contains(&tier));
    let part = run.on(Event::RequestBodyPart { buffered: 65 << 10 });
    assert!(part.sent() && part.counted("too_large") == 1, "{part:?}");
}

#[test]
fn a_seal_is_for_no_other_place_caller_or_word_in_our_name() {
    let mut run = run(RETRY);
    for name in [
        ":path",
        ":authority",
        "content-type",
        "authorization",
        "x-tenant",
        "x-sluice-tier",
        "x-sluice-attempt",
    ] {
        let (mut headers, body) = sent(&mut run);
        let header = headers.iter_mut().find(|(it, _)| it == name).unwrap();
        header.1 = match name {
            ":path" => "/v1/chat/completions?other=1".to_owned(),
            "x-sluice-attempt" => header.1.replace(':', "::"),
            _ => "other".to_owned(),
        };
        let effects = come(&mut run, &headers, &body);
        assert!(is_a_strangers(&effects), "{name}: {effects:?}");
    }
    for more in [
        ("x-sluice-model", "gpt-4o"),
        ("x-sluice-attempt", "1:1"),
        ("x-api-key", "sk-2"),
    ] {
        let (mut headers, body) = sent(&mut run);
        headers.push((more.0.to_owned(), more.1.to_owned()));
        let effects = come(&mut run, &headers, &body);
        assert!(is_a_strangers(&effects), "{more:?}");
    }
    let (mut headers, _) = sent(&mut run);
    headers[0].1 = "GET".to_owned();
    let effects = come(&mut run, &headers, "");
    assert!(!passes(&effects), "{effects:?}");
}

#[test]
fn what_only_says_that_it_is_an_attempt_is_trimmed_and_not_sent_again() {
    let mut run = run(RETRY);
    let (mut headers, body) = sent(&mut run);
    // As a proxy on the way may have changed it.
    headers[2].1 = "api.example.com:443".to_owned();
    assert!(is_a_strangers(&come(&mut run, &headers, &body)));
    let sent = run.say(Verdict::go(0), b"");
    assert!(sent.new_body().is_some(), "{sent:?}");
    assert!(!sent.list.contains(&Effect::KeepRequest));
    let refused = run.answer("400", REFUSAL);
    let again = |effect: &Effect| matches!(effect, Effect::Attempt { .. });
    assert!(!refused.list.iter().any(again), "no circle");
}

#[test]
fn an_attempt_that_is_not_for_us_to_read_passes_or_is_stripped() {
    let mut run = run(RETRY);
    let (mut headers, body) = sent(&mut run);
    let path = headers.iter_mut().find(|(it, _)| it == ":path").unwrap();
    path.1 = "/v1/files".to_owned();
    let effects = come(&mut run, &headers, &body);
    assert!(effects.call().is_none() && effects.flow == Flow::Continue);
    let tier = Effect::RemoveRequestHeader("x-sluice-tier".into());
    assert!(effects.list.contains(&tier));
}

#[test]
fn what_is_debugged_shows_no_credential() {
    let mut run = run(RETRY);
    let (headers, _) = sent(&mut run);
    let head: Headers = headers.into_iter().collect();
    run.next().on(Event::RequestHeaders {
        headers: &head,
        end_of_stream: false,
    });
    let shown = format!("{:?} {:?} {:?}", run.exchange, run.vm.seal, head);
    assert!(shown.contains("authorization"), "{shown}");
    assert!(
        !shown.contains("sk-1") && !shown.contains("acme"),
        "{shown}"
    );
}
