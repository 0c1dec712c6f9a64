use std::collections::HashMap;
use std::rc::Rc;

use sluice_wire::{
    AdmitReply, AdmitRequest, CacheResult, EntryHead, Frame, Outcome, Settle, Usage, Usd, Verdict,
};

use super::*;
use crate::config::Plan;

mod compressed;
use crate::tokens::Tokens;

const SECOND: u64 = 1_000_000_000;

/// The world, as far as an exchange sees it.
#[derive(Default)]
struct World {
    now_ns: u64,
    counters: HashMap<String, (u64, u64)>,
}

impl Host for World {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }

    fn count(&mut self, key: &str, window_start: u64, amount: i64, limit: u64) -> (u64, bool) {
        let (start, used) = self.counters.entry(key.to_owned()).or_default();
        if window_start > *start {
            (*start, *used) = (window_start, 0);
        }
        let before = *used;
        let after = before.saturating_add_signed(amount);
        if after > limit {
            return (before, false);
        }
        *used = after;
        (before, true)
    }
}

/// One request through the machine.
struct Run {
    vm: Vm,
    world: World,
    exchange: Exchange,
}

const MODELS: &str = r#""models":{
    "gpt-4o":{"input":2.5,"cached_input":1.25,"output":10},
    "gpt-4o-mini":{"input":0.15,"output":0.6}}"#;
const TIERS: &str = r#""tiers":[{"name":"small","below":0.99,"model":"gpt-4o-mini","max_tokens":64},{"name":"large","model":"gpt-4o"}]"#;
const SIDECAR: &str = r#""sidecar":{"cluster":"c"}"#;

fn run(config: &str) -> Run {
    let plan = Plan::parse(format!("{{{MODELS},{config}}}").as_bytes(), &|_| None).unwrap();
    Run {
        vm: Vm::new(Rc::new(plan), Tokens::load(&[])),
        world: World {
            now_ns: 1_700_000_000 * SECOND,
            ..World::default()
        },
        exchange: Exchange::new(),
    }
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| (*name, *value)).collect()
}

const CHAT: [(&str, &str); 4] = [
    (":method", "POST"),
    (":path", "/v1/chat/completions"),
    (":authority", "api.example.com"),
    ("authorization", "Bearer sk-1"),
];

const BODY: &str = r#"{ "model": "gpt-4o", "zz": [1, 2],  "messages": [{"role":"user","content":"What is your refund policy?"}] }"#;

const ANSWER: &str = r#"{"id":"c1","object":"chat.completion","created":1,"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Thirty days."},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":10,"total_tokens":110}}"#;

impl Run {
    fn on(&mut self, event: Event<'_>) -> Effects {
        self.exchange.on(event, &mut self.vm, &mut self.world)
    }

    fn next(&mut self) -> &mut Self {
        self.exchange = Exchange::new();
        self
    }

    fn ask(&mut self, extra: &[(&str, &str)], body: &str) -> Effects {
        let mut all = CHAT.to_vec();
        all.extend(extra);
        self.ask_as(&all, body)
    }

    fn ask_as(&mut self, all: &[(&str, &str)], body: &str) -> Effects {
        let mut effects = self.on(Event::RequestHeaders {
            headers: &headers(all),
            end_of_stream: false,
        });
        if effects.flow == Flow::Pause {
            let more = self.on(Event::RequestBody {
                body: body.as_bytes(),
            });
            effects.list.extend(more.list);
        }
        effects
    }

    fn say(&mut self, verdict: Verdict, body: &[u8]) -> Effects {
        let frame = Frame {
            head: AdmitReply {
                verdict,
                over: vec![],
            },
            body,
        }
        .encode()
        .unwrap();
        self.on(Event::Reply {
            status: 200,
            body: &frame,
        })
    }

    fn answer(&mut self, status: &str, body: &str) -> Effects {
        let head = headers(&[
            (":status", status),
            ("content-type", "application/json"),
            ("x-sluice-cost", "forged"),
        ]);
        let mut effects = self.on(Event::ResponseHeaders {
            headers: &head,
            end_of_stream: false,
        });
        effects.list.extend(
            self.on(Event::ResponseBody {
                chunk: body.as_bytes(),
                end_of_stream: true,
            })
            .list,
        );
        effects
    }

    fn done(&mut self) -> (Option<(Settle, Vec<u8>)>, Effects) {
        let effects = self.on(Event::Done);
        let settle = effects.list.iter().find_map(|effect| match effect {
            Effect::Settle(settle, answer) => Some(((**settle).clone(), answer.clone())),
            _ => None,
        });
        (settle, effects)
    }
}

impl Effects {
    fn call(&self) -> Option<AdmitRequest> {
        self.list.iter().find_map(|effect| match effect {
            Effect::Call { body, .. } => Some(Frame::decode(body).unwrap().head),
            _ => None,
        })
    }

    fn sent(&self) -> bool {
        self.list.contains(&Effect::ResumeRequest)
    }

    fn new_body(&self) -> Option<String> {
        self.list.iter().find_map(|effect| match effect {
            Effect::ReplaceRequestBody(body) => Some(String::from_utf8(body.clone()).unwrap()),
            _ => None,
        })
    }

    fn response(&self) -> Option<(u16, HashMap<String, String>, String)> {
        self.list.iter().find_map(|effect| match effect {
            Effect::Respond {
                status,
                headers,
                body,
            } => Some((
                *status,
                headers.iter().cloned().collect(),
                String::from_utf8(body.clone()).unwrap(),
            )),
            _ => None,
        })
    }

    fn set(&self, name: &str) -> Option<&str> {
        self.list.iter().find_map(|effect| match effect {
            Effect::SetResponseHeader(key, value) | Effect::SetRequestHeader(key, value)
                if key == name =>
            {
                Some(value.as_str())
            }
            _ => None,
        })
    }

    fn counted(&self, part: &str) -> u64 {
        let amounts = self.list.iter().filter_map(|effect| match effect {
            Effect::Count(Metric::Add(name, amount)) if name.contains(part) => Some(*amount),
            _ => None,
        });
        amounts.sum()
    }
}

#[test]
fn a_routed_request_changes_its_model_and_cap_and_nothing_else() {
    let mut run = run(&format!(r#""route":{{{TIERS}}}"#));
    let sent = run.ask(&[], BODY);
    assert!(sent.sent());
    let body = sent.new_body().unwrap();
    let expected = BODY.replace("\"gpt-4o\"", "\"gpt-4o-mini\"");
    let stem = expected.trim_end_matches([' ', '}']);
    assert!(body.starts_with(stem), "{body}");
    assert!(body[stem.len()..].contains("64"), "{body}");
    assert_eq!(
        (sent.set("x-sluice-tier"), sent.set("x-sluice-model")),
        (Some("small"), Some("gpt-4o-mini"))
    );
    assert!(sent.list.contains(&Effect::ClearRouteCache));

    let answered = run.answer("200", ANSWER);
    assert_eq!(answered.set("x-sluice-tier"), Some("small"));
    assert!(
        answered
            .list
            .contains(&Effect::RemoveResponseHeader("x-sluice-cost".into())),
        "forged headers go first"
    );
    // 100 × 0.15 + 10 × 0.6 and 100 × 2.5 + 10 × 10, per million.
    assert_eq!(answered.set("x-sluice-cost"), Some("0.000021"));
    assert_eq!(answered.set("x-sluice-saved"), Some("0.000329"));
    let (settle, effects) = run.done();
    assert!(settle.is_none(), "there is no sidecar to settle with");
    assert_eq!(
        effects.counted(
            "requests;endpoint=openai.chat;model=gpt-4o-mini;tier=small;cache=off;outcome=answered;"
        ),
        1
    );
    assert_eq!(effects.counted("spend_nanodollars"), 21_000);
    assert_eq!(effects.counted("saved_nanodollars;lever=route;"), 329_000);
}

#[test]
fn a_dry_lever_counts_and_leaves_every_byte_alone() {
    let mut run = run(&format!(r#""mode":"dry","route":{{{TIERS}}}"#));
    let sent = run.ask(&[], BODY);
    assert!(sent.sent());
    assert_eq!(sent.list, [Effect::ResumeRequest]);
    let answered = run.answer("200", ANSWER);
    assert_eq!(answered.set("x-sluice-saved"), Some("0"));
    let (_, effects) = run.done();
    assert_eq!(effects.counted(";saved_nanodollars"), 0);
    assert_eq!(
        effects.counted("would_save_nanodollars;lever=route;"),
        329_000
    );
}

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
fn a_trusted_caller_gets_the_tier_it_asks_for_even_a_dearer_one() {
    let config = format!(
        r#""identity":{{"trust":[{{"header":{{"name":"x-key","value":"k"}}}}]}},"route":{{{TIERS}}}"#
    );
    let cheap = BODY.replace("gpt-4o", "gpt-4o-mini");
    let mut run = run(&config);
    let sent = run.ask(&[("x-sluice-tier", "large"), ("x-key", "k")], &cheap);
    assert!(sent.new_body().unwrap().contains("\"gpt-4o\""));
    let sent = run.next().ask(&[("x-sluice-tier", "large")], &cheap);
    assert!(
        sent.new_body().unwrap().contains("\"gpt-4o-mini\""),
        "a stranger's wish does not count"
    );
}

#[test]
fn routing_never_takes_a_dearer_model_than_the_one_asked_for() {
    let tiers = r#""tiers":[{"name":"tiny","below":0.0001,"model":"gpt-4o-mini"},{"name":"all","model":"gpt-4o"}]"#;
    let mut run = run(&format!(r#""route":{{{tiers}}}"#));
    let sent = run.ask(&[], &BODY.replace("gpt-4o", "gpt-4o-mini"));
    assert!(sent.sent() && sent.new_body().is_none());
    assert_eq!(
        sent.set("x-sluice-tier"),
        Some("tiny"),
        "it counts as the tier whose model it is"
    );
}

#[test]
fn a_tenant_is_held_to_its_list_of_models() {
    let config = format!(
        r#""identity":{{"tenant":[{{"header":"x-tenant"}}],"allow":{{"acme":["gpt-4o-mini"],"none":["o9"]}}}},"route":{{"mode":"MODE",{TIERS}}}"#
    );
    let mut routed = run(&config.replace("MODE", "on").replace("0.99", "0.0001"));
    let sent = routed.ask(&[("x-tenant", "acme")], BODY);
    assert!(
        sent.new_body().unwrap().contains("gpt-4o-mini"),
        "a tier below has a model that it may use"
    );
    let mut unrouted = run(&config.replace("MODE", "off"));
    let (status, _, body) = unrouted
        .ask(&[("x-tenant", "acme")], BODY)
        .response()
        .unwrap();
    assert_eq!(status, 403);
    assert!(
        body.contains("gpt-4o-mini") && body.contains("model_not_allowed"),
        "{body}"
    );
    let mut other = run(&config.replace("MODE", "off"));
    assert!(other.ask(&[("x-tenant", "globex")], BODY).sent());
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
fn budgets_without_a_sidecar_are_kept_in_the_process_reserved_settled_and_reset() {
    let mut run = run(
        r#""budgets":[{"per":"tenant","tokens":380,"every":"minute","over":"reject"}],"reserve":{"output_tokens":50}"#,
    );
    assert!(run.ask(&[], BODY).sent());
    let used = |run: &Run| {
        run.world
            .counters
            .values()
            .map(|(_, used)| *used)
            .sum::<u64>()
    };
    assert!(
        (50..150).contains(&used(&run)),
        "prompt and expected output: {}",
        used(&run)
    );
    run.answer("200", ANSWER);
    run.done();
    assert_eq!(used(&run), 110, "the actual usage replaced the reservation");
    // An upstream error costs nothing.
    assert!(run.next().ask(&[], BODY).sent());
    run.answer("500", "{}");
    run.done();
    assert_eq!(used(&run), 110);
    // Reset in mid-answer before anything was told: an estimate stays.
    for _ in 0..2 {
        assert!(run.next().ask(&[], BODY).sent());
        run.answer("200", ANSWER);
        run.done();
    }
    assert_eq!(used(&run), 330);
    let refused = run.next().ask(&[], BODY);
    let (status, headers, body) = refused.response().unwrap();
    assert_eq!(status, 429);
    assert_eq!(headers["x-ratelimit-limit-tokens"], "380");
    assert_eq!(headers["x-ratelimit-remaining-tokens"], "50");
    assert_eq!(
        headers["retry-after"],
        (60 - 1_700_000_000 % 60).to_string()
    );
    assert!(
        body.contains("budget_exceeded") && body.contains("380 tokens per minute"),
        "{body}"
    );
    run.done();
    assert_eq!(used(&run), 330, "a refusal draws nothing");
    run.world.now_ns += 60 * SECOND;
    assert!(run.next().ask(&[], BODY).sent(), "a new window starts anew");
}

#[test]
fn over_a_budget_a_request_may_go_to_the_small_tier_or_just_be_counted() {
    let tiers = TIERS.replace("0.99", "0.0001");
    let budget = |over: &str| {
        format!(
            r#""route":{{{tiers}}},"budgets":[{{"per":"tenant","tokens":1,"every":"day","over":"{over}"}}]"#
        )
    };
    let mut small = run(&budget("small_tier"));
    let sent = small.ask(&[], BODY);
    assert!(sent.new_body().unwrap().contains("gpt-4o-mini"));
    assert_eq!(
        sent.counted("budget_over;rule=0;action=pass;"),
        2,
        "on both plans"
    );
    let mut shadow = run(&budget("shadow"));
    let sent = shadow.ask(&[], BODY);
    assert!(sent.sent() && sent.new_body().is_none());
    assert_eq!(sent.counted("budget_over;rule=0;action=pass;"), 1);
}

const CACHED: &str =
    r#""cache":{},"budgets":[{"per":"tenant","tokens":1000,"every":"day","over":"reject"}]"#;

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
    assert!(run.say(Verdict::Go { plan: 0 }, b"").sent());
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

fn hit() -> Verdict {
    let usage = Usage {
        prompt: 100,
        completion: 10,
        ..Usage::default()
    };
    let entry = EntryHead {
        format: "openai.chat".into(),
        model: "gpt-4o".into(),
        tier: None,
        usage,
        cost: None,
    };
    Verdict::Hit {
        plan: 0,
        age_secs: 7,
        entry,
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
    let admit = again
        .call()
        .expect("a hit reserved nothing, so it asks again");
    assert!(admit.plans[0].key.is_none() && !admit.plans[0].charges.is_empty());
    assert!(run.say(Verdict::Go { plan: 0 }, b"").sent());
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
fn a_dated_snapshot_has_its_models_input_limit() {
    let mut run = run(r#""trim":{"input_tokens":{"models":{"gpt-4o":5}}}"#);
    let dated = BODY.replace("gpt-4o", "gpt-4o-2024-08-06");
    assert_eq!(run.ask(&[], &dated).response().unwrap().0, 400);
    let other = BODY.replace("gpt-4o", "gpt-4o-mini");
    assert!(run.next().ask(&[], &other).sent());
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
            run.say(Verdict::Go { plan: 0 }, b"");
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
            run.say(Verdict::Go { plan: 0 }, b"");
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

#[test]
fn near_a_limit_the_prompt_is_counted_and_asked_about_once_more() {
    let json = format!(
        r#"{{"models":{{"gpt-4o":{{"encoding":"o200k_base","input":2.5,"output":10}}}},{SIDECAR},{CACHED}}}"#
    );
    let plan = Plan::parse(json.as_bytes(), &|_| None).unwrap();
    let tokens = Tokens::load(&plan.encodings());
    let mut run = Run {
        vm: Vm::new(Rc::new(plan), tokens),
        world: World::default(),
        exchange: Exchange::new(),
    };
    let estimate = run.ask(&[], BODY).call().unwrap().plans[0].charges[0].clone();
    assert!(estimate.at_most > estimate.reserve, "{estimate:?}");
    let exact = run.say(Verdict::Count, b"").call().unwrap().plans[0].charges[0].clone();
    // "What is your refund policy?" is 6 tokens, framed by 3 + 4; 256 are expected back.
    assert_eq!((exact.reserve, exact.at_most), (6 + 7 + 256, 6 + 7 + 256));
    let third = run.say(Verdict::Count, b"");
    assert!(
        third.sent(),
        "a sidecar that wants more than an exact count is not asked a third time"
    );
}

#[test]
fn a_sidecar_that_is_down_slow_or_talks_nonsense_costs_no_request() {
    let bad: [&dyn Fn(&mut Run) -> Effects; 5] = [
        &|run| run.on(Event::ReplyFailed),
        &|run| {
            run.on(Event::Reply {
                status: 500,
                body: b"{}\n",
            })
        },
        &|run| {
            run.on(Event::Reply {
                status: 200,
                body: b"nonsense",
            })
        },
        &|run| run.say(Verdict::Go { plan: 9 }, b""),
        &|run| {
            run.say(
                Verdict::Over {
                    rule: 9,
                    limit: 1,
                    used: 1,
                    reset_secs: 1,
                },
                b"",
            )
        },
    ];
    for fault in bad {
        let mut open = run(&format!("{SIDECAR},{CACHED}"));
        open.ask(&[], BODY);
        assert!(fault(&mut open).sent());
        open.answer("200", ANSWER);
        assert_eq!(
            open.done().0.unwrap().0.counted[0].amount,
            110,
            "it is still settled"
        );
        let mut closed = run(&format!(
            r#""sidecar":{{"cluster":"c","on_failure":"closed"}},{CACHED}"#
        ));
        closed.ask(&[], BODY);
        let (status, headers, body) = fault(&mut closed).response().unwrap();
        assert_eq!((status, headers["retry-after"].as_str()), (503, "1"));
        assert!(body.contains("budgets_unavailable"));
    }
}

#[test]
fn after_failures_in_a_row_the_sidecar_is_left_alone_and_then_tried_again() {
    let mut run =
        run(r#""sidecar":{"cluster":"c","breaker":{"failures":2,"pause":"5s"}},"cache":{}"#);
    for _ in 0..2 {
        assert!(run.next().ask(&[], BODY).call().is_some());
        assert!(run.on(Event::ReplyFailed).sent());
    }
    let skipped = run.next().ask(&[], BODY);
    assert!(skipped.call().is_none() && skipped.sent());
    assert_eq!(skipped.counted("sidecar;result=skipped;"), 1);
    run.world.now_ns += 5 * SECOND;
    assert!(run.next().ask(&[], BODY).call().is_some());
    assert!(run.say(Verdict::Go { plan: 0 }, b"").sent());
    assert!(run.next().ask(&[], BODY).call().is_some());
}

#[test]
fn usage_of_a_stream_is_asked_for_read_and_hidden() {
    let mut run = run(&format!("{SIDECAR},\"cache\":{{}}"));
    run.ask(&[], &BODY.replace("\"zz\"", "\"stream\": true, \"zz\""));
    let sent = run.say(Verdict::Go { plan: 0 }, b"");
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
    run.say(Verdict::Go { plan: 0 }, b"");
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
        run.say(Verdict::Go { plan: 0 }, b"").list,
        [],
        "a late reply changes nothing"
    );
    assert_eq!(run.done().0, None, "and it is settled once");
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
fn unknown_prices_are_said_to_be_unknown() {
    let mut run = run(&format!("{SIDECAR},\"cache\":{{}}"));
    run.ask(&[], &BODY.replace("gpt-4o", "mystery"));
    run.say(Verdict::Go { plan: 0 }, b"");
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
