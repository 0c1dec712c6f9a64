//! The guard: upstreams that fail, requests upstream at once, dollars per minute.

use super::*;

const MISSES: &str = r#""guard":{"misses":{"limit":2,"queue":1,"wait":"5s"}}"#;
const BACKOFF: &str = r#""guard":{"backoff":{"failures":2,"pause":"4s","longest":"60s"}}"#;

impl Run {
    /// Sends one, and puts its exchange aside.
    fn start(&mut self) -> Exchange {
        assert!(self.next().ask(&[], BODY).sent());
        std::mem::take(&mut self.exchange)
    }

    fn finish(&mut self, exchange: Exchange) {
        self.exchange = exchange;
        self.answer("200", ANSWER);
        self.done();
    }
}

impl Effects {
    fn queued(&self) -> bool {
        self.list.contains(&Effect::Queue) && self.flow == Flow::Pause
    }

    /// Status, code and `retry-after` of an error of ours.
    fn refused(&self) -> Option<(u16, String, String)> {
        let (status, headers, body) = self.response()?;
        let body: serde_json::Value = serde_json::from_str(&body).ok()?;
        let code = body["error"]["code"].as_str()?.to_owned();
        Some((status, code, headers.get("retry-after")?.clone()))
    }
}

fn refusal(status: u16, code: &str, secs: &str) -> Option<(u16, String, String)> {
    Some((status, code.to_owned(), secs.to_owned()))
}

#[test]
fn beyond_the_limit_requests_wait_for_their_turn_and_the_queue_is_bounded() {
    let mut run = run(MISSES);
    let (first, second) = (run.start(), run.start());
    assert!(run.next().ask(&[], BODY).queued());
    assert!(run.exchange.is_queued());
    let third = std::mem::take(&mut run.exchange);
    let full = run.next().ask(&[], BODY);
    assert_eq!(
        full.refused(),
        refusal(503, "too_many_requests_upstream", "1")
    );
    let (_, effects) = run.done();
    assert_eq!(
        effects.counted("sluice.requests;"),
        1,
        "it is counted as refused"
    );

    run.exchange = third;
    assert_eq!(run.on(Event::Turn).flow, Flow::Pause);
    assert!(run.exchange.is_queued());
    let third = std::mem::take(&mut run.exchange);
    run.finish(first);
    run.exchange = third;
    let turn = run.on(Event::Turn);
    assert!(turn.sent() && !run.exchange.is_queued());
    let third = std::mem::take(&mut run.exchange);
    run.finish(second);
    run.finish(third);
    let (one, two) = (run.start(), run.start());
    run.finish(one);
    run.finish(two);
}

#[test]
fn who_waits_too_long_is_refused_and_who_leaves_makes_room() {
    let mut run = run(MISSES);
    let (first, _second) = (run.start(), run.start());
    run.next().ask(&[], BODY);
    run.world.now_ns += 5 * SECOND;
    let late = run.on(Event::Turn);
    assert_eq!(
        late.refused(),
        refusal(503, "too_many_requests_upstream", "1")
    );
    run.done();
    assert!(run.next().ask(&[], BODY).queued());
    run.done();
    assert!(
        run.next().ask(&[], BODY).queued(),
        "its place is free again"
    );
    run.done();
    run.finish(first);
    let third = run.start();
    run.finish(third);
}

#[test]
fn the_limit_holds_without_a_sidecar_and_gives_back_what_budgets_reserved() {
    let budget = r#""budgets":[{"per":"tenant","tokens":1000000,"every":"day","over":"reject"}]"#;
    let mut run = run(&format!(
        r#"{budget},"guard":{{"misses":{{"limit":1,"queue":0}}}}"#
    ));
    let first = run.start();
    let before = run.world.counters.clone();
    let refused = run.next().ask(&[], BODY);
    assert_eq!(
        refused.refused(),
        refusal(503, "too_many_requests_upstream", "1")
    );
    run.done();
    assert_eq!(run.world.counters, before, "what it reserved is given back");
    run.finish(first);
}

#[test]
fn an_upstream_that_fails_is_left_alone_and_then_tried_by_one() {
    let mut run = run(BACKOFF);
    for _ in 0..2 {
        assert!(run.next().ask(&[], BODY).sent());
        run.answer("500", "{}");
        run.done();
    }
    let refused = run.next().ask(&[], BODY);
    assert_eq!(refused.refused(), refusal(503, "upstream_backoff", "4"));
    run.done();
    let mini = BODY.replace("gpt-4o", "gpt-4o-mini");
    assert!(
        run.next().ask(&[], &mini).sent(),
        "another model is another upstream"
    );
    run.done();
    run.world.now_ns += 4 * SECOND;
    assert!(run.next().ask(&[], BODY).sent());
    let probe = std::mem::take(&mut run.exchange);
    assert!(run.next().ask(&[], BODY).refused().is_some(), "one tries");
    run.done();
    run.finish(probe);
    assert!(run.next().ask(&[], BODY).sent());
}

#[test]
fn a_rate_limit_is_its_callers_own_and_is_kept_as_long_as_upstream_says() {
    let mut run = run(BACKOFF);
    let other = [("authorization", "Bearer sk-2")];
    let two = [CHAT[0], CHAT[1], CHAT[2], other[0]];
    assert!(run.next().ask(&[], BODY).sent());
    let head = headers(&[(":status", "429"), ("retry-after", "17")]);
    run.on(Event::ResponseHeaders {
        headers: &head,
        end_of_stream: true,
    });
    run.done();
    assert_eq!(
        run.next().ask(&[], BODY).refused(),
        refusal(503, "upstream_backoff", "17")
    );
    run.done();
    assert!(run.next().ask_as(&two, BODY).sent());
    run.done();
    run.world.now_ns += 17 * SECOND;
    assert!(run.next().ask(&[], BODY).sent());
    // A try whose client left is none.
    run.done();
    assert!(run.next().ask(&[], BODY).sent());
}

#[test]
fn while_upstream_fails_the_sidecar_is_asked_for_any_answer() {
    let mut run = run(&format!(
        r#"{SIDECAR},"cache":{{"exact":{{"stale_if_error":"1h"}}}},{BACKOFF}"#
    ));
    for _ in 0..2 {
        assert!(!run.next().ask(&[], BODY).call().unwrap().cache.failing);
        run.say(Verdict::go(0), b"");
        run.answer("502", "{}");
        run.done();
    }
    assert!(run.next().ask(&[], BODY).call().unwrap().cache.failing);
    let refused = run.say(Verdict::go(0), b"");
    assert_eq!(refused.refused(), refusal(503, "upstream_backoff", "4"));
}

/// Six minutes of little, then a minute of much.
fn spending(guard: &str) -> Run {
    let tiers = TIERS.replace("0.99", "0.05");
    let config = format!(r#""route":{{{tiers}}},"guard":{{"spend":{guard}}}"#);
    let mut run = run(&config);
    run.world.now_ns -= run.world.now_ns % (60 * SECOND);
    let spend = |run: &mut Run, times: usize| {
        for _ in 0..times {
            run.next().ask(&[("x", "y")], BODY);
            run.answer("200", ANSWER);
            run.done();
        }
    };
    for _ in 0..6 {
        spend(&mut run, 2);
        run.world.now_ns += 60 * SECOND;
    }
    spend(&mut run, 20);
    run
}

#[test]
fn too_much_spending_is_refused_until_the_minute_is_over() {
    let mut run = spending(r#"{"factor":4,"floor":0.00001,"over":["reject"]}"#);
    run.world.now_ns += 15 * SECOND;
    let refused = run.next().ask(&[], BODY);
    assert_eq!(refused.refused(), refusal(429, "spend_rate_exceeded", "45"));
    assert_eq!(refused.counted("guard_spend;action=reject;"), 1);
    run.done();
    run.world.now_ns += 45 * SECOND;
    assert!(run.next().ask(&[], BODY).sent());
}

#[test]
fn too_much_spending_waits_where_the_config_says_so() {
    let mut run = spending(r#"{"factor":4,"floor":0.00001,"over":["queue"]}"#);
    run.world.now_ns += 55 * SECOND;
    assert!(run.next().ask(&[], BODY).queued());
    run.world.now_ns += 4 * SECOND;
    assert_eq!(run.on(Event::Turn).flow, Flow::Pause);
    run.world.now_ns += SECOND;
    assert!(run.on(Event::Turn).sent());
}

#[test]
fn too_much_spending_goes_to_the_small_tier_but_for_the_ceiling() {
    let hard = BODY.replace("What is your refund policy?", HARD);
    let mut run = spending(r#"{"factor":4,"floor":1000,"over":["small_tier"]}"#);
    let sent = run.next().ask(&[], &hard);
    assert_eq!(
        sent.set("x-sluice-tier"),
        Some("large"),
        "as long as it is not too much"
    );
    let mut run = spending(r#"{"factor":4,"floor":0.00001,"over":["small_tier"]}"#);
    let sent = run.next().ask(&[], &hard);
    assert!(sent.sent());
    assert_eq!(sent.set("x-sluice-tier"), Some("small"));
    let mut run =
        spending(r#"{"factor":4,"floor":0.00001,"ceiling":0.0001,"over":["small_tier"]}"#);
    assert_eq!(
        run.next().ask(&[], &hard).refused().unwrap().1,
        "spend_rate_exceeded"
    );
}

/// Scored above the small tier's bound.
const HARD: &str = "Prove by induction, step by step, that the algorithm terminates; derive its complexity and implement it in Rust with tests, then compare the trade-offs of three alternatives.";

#[test]
fn too_much_spending_in_dry_is_only_counted() {
    let config = r#""guard":{"mode":"dry","spend":{"factor":1,"floor":0,"ceiling":0.0001,"over":["reject"]},"misses":{"limit":1,"queue":0}}"#;
    let mut run = run(config);
    let mut counted = 0;
    for _ in 0..5 {
        let sent = run.next().ask(&[], BODY);
        assert!(sent.sent());
        counted += sent.counted("guard_spend;action=dry;");
        run.answer("200", ANSWER);
        run.done();
    }
    assert!(counted > 0);
}

#[test]
fn one_that_envoy_answers_while_it_waits_for_its_turn_makes_room() {
    let mut run = run(MISSES);
    let (_first, _second) = (run.start(), run.start());
    for _ in 0..3 {
        assert!(run.next().ask(&[], BODY).queued());
        run.answer("504", "");
        run.done();
    }
}

#[test]
fn a_try_that_meets_another_failure_does_not_stand_in_its_callers_way() {
    let mut run = run(BACKOFF);
    let answered = |run: &mut Run, status, pairs: &[(&str, &str)]| {
        assert!(run.next().ask(&[], BODY).sent(), "before {status}");
        let mut all = vec![(":status", status)];
        all.extend(pairs);
        run.on(Event::ResponseHeaders {
            headers: &headers(&all),
            end_of_stream: true,
        });
        run.done();
    };
    answered(&mut run, "429", &[("retry-after", "3")]);
    run.world.now_ns += 3 * SECOND;
    // The caller's limit is over; this is the first failure of the upstream itself.
    answered(&mut run, "500", &[]);
    answered(&mut run, "200", &[]);
}

#[test]
fn a_worker_that_is_asked_seldom_knows_what_the_others_spend() {
    let mut run = run(r#""guard":{"spend":{"factor":2,"floor":0.00001,"over":["reject"]}}"#);
    let route = run.vm.plan.route_at(None).name.clone();
    for minute in 0..30 {
        crate::policy::guard::spend(&route, Usd::from_dollars(0.01), &mut run.world);
        run.vm.tick(&mut run.world);
        if minute % 3 == 0 {
            assert!(run.next().ask(&[], BODY).sent(), "in minute {minute}");
            run.answer("200", ANSWER);
            run.done();
        }
        run.world.now_ns += 60 * SECOND;
    }
}

#[test]
fn who_comes_later_waits_behind_those_that_wait() {
    let mut run = run(r#""guard":{"misses":{"limit":1,"queue":5,"wait":"5s"}}"#);
    let first = run.start();
    assert!(run.next().ask(&[], BODY).queued());
    let second = std::mem::take(&mut run.exchange);
    run.finish(first);
    assert!(
        run.next().ask(&[], BODY).queued(),
        "a place is free, and another one's"
    );
    let third = std::mem::take(&mut run.exchange);
    run.exchange = second;
    assert!(run.on(Event::Turn).sent());
    let second = std::mem::take(&mut run.exchange);
    run.finish(second);
    run.exchange = third;
    assert!(run.on(Event::Turn).sent());
}
