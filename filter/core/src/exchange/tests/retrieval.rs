//! Searches: cached as answers are, without a model, tokens or money.

use super::*;

const ROUTES: &str = r#""routes":[{"name":"search","match":{"path":"/search*"},"kind":"retrieval",
    "cache":{"exact":{"ttl":"1m","stale":"5m","stale_if_error":"1h"},"headers":["X-Index"],"tags":["catalogue"]}}]"#;

const SEARCH: [(&str, &str); 3] = [
    (":method", "POST"),
    (":path", "/search/docs?k=5"),
    (":authority", "search.example.com"),
];

const QUERY: &str = r#"{"q":"refunds", "top_k":5}"#;
const FOUND: &str = r#"{"hits":[{"id":1,"score":0.9}]}"#;

/// Levers, budgets, leaves and refusals that would all be in the way of an LLM request.
fn strict() -> String {
    format!(
        r#""sidecar":{{"cluster":"c","on_failure":"closed"}},"limits":{{"request_body":"1KiB","on_failure":"closed"}},
        "route":{{{TIERS}}},"trim":{{"input_tokens":{{"limit":1}}}},"cache":{{"negative":{{}}}},
        "identity":{{"trust":[{{"header":{{"name":"x-key","value":"k"}}}}],"allow":{{"anonymous":["gpt-4o"]}}}},
        "budgets":[{{"per":"tenant","tokens":1,"every":"day","over":"reject"}}],{ROUTES}"#
    )
}

fn key(effects: &Effects) -> String {
    effects.call().unwrap().plans[0].key.clone().unwrap()
}

#[test]
fn a_search_is_looked_up_sent_as_it_came_and_stored_at_no_cost() {
    let mut run = run(&strict());
    let mut head = SEARCH.to_vec();
    head.extend([("x-key", "k"), ("x-sluice-tags", "doc:1")]);
    let asked = run.ask_as(&head, QUERY);
    let admit = asked.call().unwrap();
    assert_eq!((admit.route.as_str(), admit.plans.len()), ("search", 1));
    assert!(admit.plans[0].charges.is_empty(), "no budget is drawn on");
    let key = key(&asked);
    let sent = run.say(Verdict::go(0), b"");
    assert!(sent.sent() && sent.new_body().is_none());
    assert!(sent.set("x-sluice-tier").is_none() && sent.set("x-sluice-model").is_none());
    let answered = run.answer("200", FOUND);
    assert_eq!(answered.set("x-sluice-cache"), Some("miss"));
    assert_eq!(answered.set("x-sluice-model"), None);
    assert_eq!(
        (
            answered.set("x-sluice-cost"),
            answered.set("x-sluice-saved")
        ),
        (Some("0"), Some("0"))
    );
    let (settle, effects) = run.done();
    let (settle, stored) = settle.unwrap();
    assert_eq!(stored, FOUND.as_bytes());
    let store = settle.store.unwrap();
    assert_eq!(
        (
            store.key,
            store.ttl_secs,
            store.stale_secs,
            store.stale_if_error_secs
        ),
        (key, 60, 300, 3600)
    );
    assert_eq!(store.tags, ["anonymous/catalogue", "anonymous/doc:1"]);
    let record = settle.record;
    assert_eq!(
        (
            record.endpoint.as_str(),
            record.route.as_str(),
            record.model.as_str()
        ),
        ("retrieval", "search", "")
    );
    assert_eq!((record.usage, record.estimated), (Usage::default(), false));
    assert_eq!(
        (record.as_asked, record.cost),
        (Some(Usd::ZERO), Some(Usd::ZERO))
    );
    assert_eq!(record.outcome, Outcome::Answered);
    assert!(settle.counted.is_empty());
    let labels = "requests;endpoint=retrieval;model=none;tier=none;cache=miss;outcome=answered;";
    assert_eq!(effects.counted(labels), 1);
    assert_eq!(
        effects.counted("unpriced") + effects.counted("estimated"),
        0
    );
}

#[test]
fn a_repeat_in_other_words_has_the_same_key_and_is_answered_from_what_is_stored() {
    let mut run = run(&strict());
    let first = key(&run.ask_as(&SEARCH, QUERY));
    let again = run
        .next()
        .ask_as(&SEARCH, "{ \"top_k\": 5,\n\"q\": \"re\\u0066unds\" }");
    assert_eq!(key(&again), first);
    let entry = EntryHead {
        format: "retrieval".into(),
        ..EntryHead::default()
    };
    let hit = Verdict::Hit {
        plan: 0,
        age_secs: 7,
        entry,
        result: CacheResult::Hit,
        refresh: None,
    };
    let (status, headers, body) = run.say(hit, FOUND.as_bytes()).response().unwrap();
    assert_eq!((status, body.as_str()), (200, FOUND));
    assert_eq!(headers["x-sluice-cache"], "hit");
    assert_eq!(headers["content-type"], "application/json");
    let record = run.done().0.unwrap().0.record;
    assert_eq!(
        (record.cost, record.saved.total()),
        (Some(Usd::ZERO), Usd::ZERO)
    );

    let mut other = SEARCH.to_vec();
    other.push(("x-index", "blue"));
    assert_ne!(key(&run.next().ask_as(&other, QUERY)), first);
    assert_ne!(key(&run.next().ask_as(&SEARCH, FOUND)), first);
}

#[test]
fn what_cannot_be_read_or_looked_up_passes_also_where_an_llm_request_is_refused() {
    let mut run = run(&strict());
    let long = format!("\"{}\"", "x".repeat(2000));
    for body in ["{\"q\":1}\n{\"q\":2}\n", "", "q=x", &long] {
        let mut effects = run.next().on(Event::RequestHeaders {
            headers: &headers(&SEARCH),
            end_of_stream: false,
        });
        let buffered = body.len();
        effects
            .list
            .extend(run.on(Event::RequestBodyPart { buffered }).list);
        let whole = body.as_bytes();
        effects
            .list
            .extend(run.on(Event::RequestBody { body: whole }).list);
        assert!(effects.sent() && effects.call().is_none(), "{body}");
        assert!(effects.new_body().is_none() && effects.response().is_none());
    }
    // Two readings of one body are not looked up, and its answer is not kept.
    let twice = run.next().ask_as(&SEARCH, r#"{"q":1,"q":2}"#);
    assert!(twice.sent() && twice.call().is_none());
    assert_eq!(
        run.answer("200", FOUND).set("x-sluice-cache"),
        Some("bypass")
    );
    assert_eq!(run.done().0.unwrap().0.store, None);
    // Without the sidecar there is no cache, and no budget that has to be checked.
    run.next().ask_as(&SEARCH, QUERY);
    let alone = run.on(Event::ReplyFailed);
    assert!(alone.sent() && alone.response().is_none());
    assert_eq!(
        run.answer("200", FOUND).set("x-sluice-cache"),
        Some("bypass")
    );
}

#[test]
fn only_whole_json_answers_with_status_200_are_stored() {
    let stored = |status: &str, answer: &str| {
        let mut run = run(&strict());
        run.ask_as(&SEARCH, QUERY);
        run.say(Verdict::go(0), b"");
        run.answer(status, answer);
        run.done().0.unwrap().0.store.is_some()
    };
    assert!(stored("200", FOUND));
    assert!(stored("200", "[]"));
    assert!(!stored("201", FOUND));
    assert!(!stored("200", "{\"hits\":["));
    assert!(!stored("200", r#"{"timed_out":true,"hits":[]}"#));
    assert!(!stored("200", &format!("\"{}\"", "x".repeat(256 << 10))));
    let refusal = r#"{"error":{"message":"unknown field","type":"invalid_request_error"}}"#;
    assert!(!stored("400", refusal), "refusals are not remembered");
}

#[test]
fn only_posts_are_held_and_errors_of_ours_are_plain_json() {
    let guard = r#""guard":{"misses":{"limit":1,"queue":0}}"#;
    let config = ROUTES.replace("\"cache\":", &format!("{guard},\"cache\":"));
    let mut run = run(&format!("{SIDECAR},{config}"));
    let mut get = SEARCH;
    get[0].1 = "GET";
    assert!(run.ask_as(&get, QUERY).list.is_empty());
    run.next().ask_as(&SEARCH, QUERY);
    assert!(run.say(Verdict::go(0), b"").sent());
    // That one is upstream yet.
    run.next().ask_as(&SEARCH, QUERY);
    let (status, _, body) = run.say(Verdict::go(0), b"").response().unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["error"]["code"]),
        (503, &"too_many_requests_upstream".into())
    );
    assert_eq!(body["error"].as_object().unwrap().len(), 2);
}
