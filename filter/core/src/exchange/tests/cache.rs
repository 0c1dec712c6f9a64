//! The cache: what is looked up, answered from it and stored.

use super::*;

fn hit() -> Verdict {
    let usage = Usage {
        prompt: 100,
        completion: 10,
        ..Usage::default()
    };
    let entry = EntryHead {
        format: "openai.chat".into(),
        model: "gpt-4o".into(),
        usage,
        ..EntryHead::default()
    };
    Verdict::Hit {
        plan: 0,
        age_secs: 7,
        entry,
        result: CacheResult::Hit,
        refresh: None,
    }
}

#[test]
fn a_hit_is_answered_as_json_or_as_a_stream_and_costs_nothing() {
    let mut run = run(&format!("{SIDECAR},{CACHED}"));
    run.ask(&[], BODY);
    let (status, headers, body) = run.say(hit(), ANSWER.as_bytes()).response().unwrap();
    assert_eq!((status, body.as_str()), (200, ANSWER));
    assert_eq!(
        (
            headers["x-sluice-cache"].as_str(),
            headers["x-sluice-cost"].as_str(),
            headers["age"].as_str()
        ),
        ("hit", "0", "7")
    );
    assert_eq!(headers["x-sluice-saved"], "0.00035");
    let (settle, _) = run.done();
    let settle = settle.unwrap().0;
    assert_eq!(
        (settle.record.cache, settle.counted.len(), settle.store),
        (CacheResult::Hit, 0, None)
    );
    assert_eq!(settle.record.outcome, Outcome::Answered);
    assert_eq!(
        (settle.record.cost, settle.record.saved.cache),
        (Some(Usd::ZERO), Usd::from_dollars(350e-6))
    );

    let streamed = BODY.replace("\"zz\"", "\"stream\": true, \"zz\"");
    run.next().ask(&[], &streamed);
    let (_, headers, body) = run.say(hit(), ANSWER.as_bytes()).response().unwrap();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert!(
        body.contains("Thirty days.")
            && body.ends_with("data: [DONE]\n\n")
            && !body.contains("usage\":{"),
        "{body}"
    );
}

#[test]
fn a_dry_cache_is_asked_and_its_hit_is_only_counted() {
    let mut run = run(&format!(
        r#"{SIDECAR},"cache":{{"mode":"dry"}},"budgets":[{{"per":"tenant","tokens":1000,"every":"day","over":"reject"}}]"#
    ));
    assert!(run.ask(&[], BODY).call().unwrap().plans[0].key.is_some());
    let again = run.say(hit(), ANSWER.as_bytes());
    assert_eq!(again.counted("dry_hits;endpoint=openai.chat;"), 1);
    let admit = again
        .call()
        .expect("a hit reserved nothing, so it asks again");
    assert!(admit.plans[0].key.is_none() && !admit.plans[0].charges.is_empty());
    assert!(run.say(Verdict::go(0), b"").sent());
    run.answer("200", ANSWER);
    let record = run.done().0.unwrap().0.record;
    assert_eq!(record.would_save.cache, Usd::from_dollars(350e-6));
    assert_eq!(record.saved.total(), Usd::ZERO);
}

#[test]
fn a_sidecar_that_says_hit_for_ever_holds_no_request() {
    // In mode dry the first hit is only counted; the second, to a call without a key, is nonsense.
    let mut run = run(&format!(
        r#"{SIDECAR},"cache":{{"mode":"dry"}},"budgets":[{{"per":"tenant","tokens":1000,"every":"day","over":"reject"}}]"#
    ));
    run.ask(&[], BODY);
    assert!(run.say(hit(), ANSWER.as_bytes()).call().is_some());
    let second = run.say(hit(), ANSWER.as_bytes());
    assert!(second.call().is_none() && second.sent());
    assert_eq!(second.counted("sidecar;result=nonsense;"), 1);
}

#[test]
fn callers_say_no_store_no_cache_and_trusted_ones_bypass_and_refresh() {
    let trust = r#""identity":{"trust":[{"header":{"name":"x-key","value":"k"}}]}"#;
    let config = format!(r#"{SIDECAR},{trust},"cache":{{}}"#);
    let key = ("x-key", "k");
    // Header, whether it is looked up, whether its answer is stored.
    type Case<'a> = (&'a [(&'a str, &'a str)], bool, bool);
    let cases: [Case<'_>; 6] = [
        (&[], true, true),
        (&[("cache-control", "max-age=0, No-Store")], false, false),
        (&[("cache-control", "no-cache")], false, true),
        (&[("x-sluice-cache", "bypass"), key], false, false),
        (&[("x-sluice-cache", "refresh"), key], false, true),
        (&[("x-sluice-cache", "bypass")], true, true),
    ];
    for (extra, looks_up, stores) in cases {
        let mut run = run(&config);
        let asked = run.ask(extra, BODY);
        assert_eq!(asked.call().is_some(), looks_up, "{extra:?}");
        if looks_up {
            run.say(Verdict::go(0), b"");
        }
        let answered = run.answer("200", ANSWER);
        assert_eq!(
            answered.set("x-sluice-cache"),
            Some(if looks_up { "miss" } else { "bypass" }),
            "{extra:?}"
        );
        assert_eq!(run.done().0.unwrap().0.store.is_some(), stores, "{extra:?}");
    }
}

#[test]
fn errors_cut_answers_hot_requests_and_long_answers_are_not_stored() {
    let stored = |config: &str, body: &str, status: &str, answer: &str| {
        let mut run = run(&format!("{SIDECAR},{config}"));
        if run.ask(&[], body).call().is_some() {
            run.say(Verdict::go(0), b"");
        }
        run.answer(status, answer);
        run.done().0.unwrap().0.store.is_some()
    };
    let plain = r#""cache":{}"#;
    assert!(stored(plain, BODY, "200", ANSWER));
    assert!(!stored(plain, BODY, "500", ANSWER));
    assert!(!stored(
        plain,
        BODY,
        "200",
        &ANSWER.replace("stop", "length")
    ));
    assert!(!stored(plain, BODY, "200", "{\"broken"));
    assert!(!stored(
        plain,
        &BODY.replace("\"zz\"", "\"temperature\": 1.1, \"zz\""),
        "200",
        ANSWER
    ));
    let cool = r#""cache":{"exact":{"max_temperature":0.5}}"#;
    let cold = BODY.replace("\"zz\"", "\"temperature\": 0.5, \"zz\"");
    assert!(stored(cool, &cold, "200", ANSWER));
    assert!(
        !stored(cool, BODY, "200", ANSWER),
        "a temperature that is not set is the providers' default of 1"
    );
    assert!(!stored(
        r#""cache":{"exact":{"max_answer":10}}"#,
        BODY,
        "200",
        ANSWER
    ));
}
