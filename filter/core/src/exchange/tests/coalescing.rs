//! Leases, waiting for another request's answer, stale answers and refusals that are remembered.

use sluice_wire::{Lease, LeaseEnd, Release, Spare};

use super::*;

const SECRET: &str =
    r#""sidecar":{"cluster":"c","secret":"s3cret","timeout":"50ms","wait":"20s","waits":2}"#;
const BUDGET: &str = r#""budgets":[{"per":"tenant","tokens":1000,"every":"day","over":"reject"}]"#;
const STALE: &str = r#""cache":{"exact":{"ttl":"10m","stale":"5m","stale_if_error":"1h"},"refresh":{"cluster":"self"}}"#;
const ERROR: &str = r#"{"error":{"message":"This model's maximum context length is 8 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;

/// The tests' moment, as a token says it.
const NOW_US: u64 = 1_700_000_000_000_000;

fn lease() -> Lease {
    Lease {
        holder: "ab".repeat(16),
        token: NOW_US,
    }
}

fn leader(spare: bool) -> Verdict {
    Verdict::Go {
        plan: 0,
        lease: Some(lease()),
        spare: spare.then(|| Spare {
            age_secs: 700,
            entry: entry(200),
        }),
        audit: None,
    }
}

fn entry(status: u16) -> EntryHead {
    EntryHead {
        format: "openai.chat".into(),
        model: "gpt-4o".into(),
        status,
        usage: Usage {
            prompt: 100,
            completion: 10,
            ..Usage::default()
        },
        ..EntryHead::default()
    }
}

fn found(result: CacheResult, refresh: Option<Lease>) -> Verdict {
    let status = match result {
        CacheResult::Negative => 400,
        _ => 200,
    };
    Verdict::Hit {
        plan: 0,
        age_secs: 7,
        entry: entry(status),
        result,
        refresh,
    }
}

impl Effects {
    /// Path, question and time of the call.
    fn asks(&self) -> Option<(&'static str, AdmitRequest, u32)> {
        self.list.iter().find_map(|effect| match effect {
            Effect::Call {
                path,
                body,
                timeout_ms,
            } => Some((*path, Frame::decode(body).unwrap().head, *timeout_ms)),
            _ => None,
        })
    }

    /// The headers that are added to a request with these beside the usual ones.
    fn refreshed(&self, own: &[(&str, &str)]) -> Option<HashMap<&'static str, String>> {
        self.list.iter().find_map(|effect| match effect {
            Effect::Refresh {
                cluster,
                headers,
                lease: (seal, lease),
                ..
            } => {
                assert_eq!(cluster, "self");
                let added = headers.iter().map(|(name, value)| (*name, value.as_str()));
                let kept = CHAT.into_iter().chain(own.iter().copied()).chain(added);
                let kept: Vec<_> = kept
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect();
                let lease = ("x-sluice-lease", seal.lease(&kept, lease));
                Some(headers.iter().cloned().chain([lease]).collect())
            }
            _ => None,
        })
    }
}

/// Another worker of the same config, so many seconds later.
fn run_at(run: &Run, secs: u64) -> Run {
    Run {
        vm: Vm::new(run.vm.plan.clone(), Tokens::load(&[])),
        world: World {
            now_ns: run.world.now_ns + secs * SECOND,
            ..World::default()
        },
        exchange: Exchange::new(),
    }
}

fn released(run: &mut Run) -> (Option<Release>, Record, bool) {
    let settle = run.done().0.unwrap().0;
    (settle.release, settle.record, settle.store.is_some())
}

#[test]
fn a_leader_gives_its_lease_back_with_what_came_of_it() {
    let config = format!("{SECRET},{CACHED}");
    let end = |status: &str, answer: &str| {
        let mut run = run(&config);
        let (_, asked, _) = run.ask(&[], BODY).asks().unwrap();
        assert_eq!(asked.cache.lease_ms, 30_000);
        run.say(leader(false), b"");
        if !status.is_empty() {
            run.answer(status, answer);
        }
        let (release, _, stored) = released(&mut run);
        let release = release.unwrap();
        assert_eq!(release.lease, lease());
        assert_eq!(Some(release.key), asked.plans[0].key);
        (release.end, stored)
    };
    assert_eq!(end("200", ANSWER), (LeaseEnd::Stored, true));
    let cut = ANSWER.replace("stop", "length");
    assert_eq!(end("200", &cut), (LeaseEnd::Uncacheable, false));
    assert_eq!(end("401", "{}"), (LeaseEnd::Uncacheable, false));
    assert_eq!(end("429", "{}"), (LeaseEnd::Failed, false));
    assert_eq!(end("500", "{}"), (LeaseEnd::Failed, false));
    assert_eq!(end("", ""), (LeaseEnd::Failed, false), "the client left");
}

#[test]
fn a_follower_waits_and_gets_the_leaders_answer_in_its_own_form() {
    let mut run = run(&format!("{SECRET},{CACHED}"));
    run.ask(&[], &BODY.replace("\"zz\"", "\"stream\": true, \"zz\""));
    let (path, asked, timeout_ms) = run.say(Verdict::Wait, b"").asks().unwrap();
    assert_eq!((path, asked.cache.wait_ms), ("/v1/wait", 2_000));
    assert_eq!(timeout_ms, 2_050, "the sidecar says when the wait is over");
    run.world.now_ns += 2 * SECOND;
    let (path, asked, _) = run.say(Verdict::Wait, b"").asks().unwrap();
    assert_eq!(
        (path, asked.cache.wait_ms),
        ("/v1/wait", 2_000),
        "and it waits on"
    );
    let told = run.say(found(CacheResult::Coalesced, None), ANSWER.as_bytes());
    let (status, headers, body) = told.response().unwrap();
    assert_eq!(
        (status, headers["x-sluice-cache"].as_str()),
        (200, "coalesced")
    );
    assert!(body.contains("Thirty days.") && body.ends_with("data: [DONE]\n\n"));
    let (release, record, stored) = released(&mut run);
    assert_eq!((release, stored), (None, false));
    assert_eq!(
        (record.cache, record.cost),
        (CacheResult::Coalesced, Some(Usd::ZERO))
    );
    assert_eq!(record.saved.cache, Usd::from_dollars(350e-6));
    assert_eq!(record.age_secs, Some(7));
    assert_eq!(run.vm.waiting, 0);
}

/// The sidecar is gone: nothing is asked at once, and something when its turn comes.
fn fails_and_asks_again(run: &mut Run) -> (&'static str, AdmitRequest, u32) {
    let failed = run.on(Event::ReplyFailed);
    assert!(failed.asks().is_none() && failed.list.contains(&Effect::Queue));
    assert_eq!(failed.flow, Flow::Pause);
    for _ in 0..50 {
        let turn = run.on(Event::Turn);
        if let Some(asked) = turn.asks() {
            assert_eq!(run.vm.waiting, 0);
            return asked;
        }
        assert_eq!((turn.flow, run.vm.waiting), (Flow::Pause, 1));
        run.world.now_ns += SECOND / 20;
    }
    panic!("it is not asked again");
}

#[test]
fn a_follower_whose_sidecar_dies_is_admitted_anew_in_its_turn_and_in_the_end_goes_alone() {
    let mut run = run(&format!("{SECRET},{CACHED}"));
    run.ask(&[], BODY);
    run.say(Verdict::Wait, b"");
    let begun_ns = run.world.now_ns;
    for tries in 1..40 {
        let (path, asked, _) = fails_and_asks_again(&mut run);
        assert_eq!((path, asked.cache.wait_ms), ("/v1/admit", 0));
        if asked.cache.lease_ms == 0 {
            assert!((6..=8).contains(&tries), "{tries}");
            let took_ns = run.world.now_ns - begun_ns;
            assert!((3 * SECOND..4 * SECOND).contains(&took_ns), "{took_ns}");
            assert!(run.say(Verdict::go(0), b"").sent());
            assert_eq!(run.vm.waiting, 0);
            return;
        }
    }
    panic!("it waits for ever");
}

#[test]
fn a_sidecar_that_answers_meanwhile_has_all_its_patience_again() {
    let mut run = run(&format!("{SECRET},{CACHED}"));
    run.ask(&[], BODY);
    run.say(Verdict::Wait, b"");
    for _ in 0..3 {
        for _ in 0..5 {
            let (_, asked, _) = fails_and_asks_again(&mut run);
            assert_eq!(asked.cache.lease_ms, 30_000);
        }
        assert_eq!(run.say(Verdict::Wait, b"").asks().unwrap().0, "/v1/wait");
    }
}

#[test]
fn a_follower_that_meets_the_dead_sidecar_once_more_tries_the_next() {
    let mut run = run(&format!("{SECRET},{CACHED}"));
    run.ask(&[], BODY);
    run.say(Verdict::Wait, b"");
    assert_eq!(fails_and_asks_again(&mut run).0, "/v1/admit");
    let (path, asked, _) = fails_and_asks_again(&mut run);
    assert_eq!((path, asked.cache.lease_ms), ("/v1/admit", 30_000));
    let told = run.say(found(CacheResult::Hit, None), ANSWER.as_bytes());
    assert_eq!(told.response().unwrap().0, 200);
}

#[test]
fn one_that_leaves_before_it_asks_again_leaves_nothing_behind() {
    let mut run = run(&format!("{SECRET},{CACHED}"));
    run.ask(&[], BODY);
    run.say(Verdict::Wait, b"");
    run.on(Event::ReplyFailed);
    assert_eq!(run.vm.waiting, 1);
    let (release, record, _) = released(&mut run);
    assert_eq!(release.unwrap().end, LeaseEnd::Failed);
    assert_eq!((record.usage, run.vm.waiting), (Usage::default(), 0));
    assert!(run.on(Event::Turn).list.is_empty());
}

#[test]
fn the_time_and_the_number_of_those_who_wait_are_bounded() {
    let mut run = run(&format!("{SECRET},{CACHED}"));
    // Its time is one for all its waits together.
    run.ask(&[], BODY);
    run.say(Verdict::Wait, b"");
    run.world.now_ns += 18 * SECOND;
    run.on(Event::ReplyFailed);
    run.world.now_ns += SECOND;
    assert_eq!(run.on(Event::Turn).asks().unwrap().0, "/v1/admit");
    let (_, asked, _) = run.say(Verdict::Wait, b"").asks().unwrap();
    assert_eq!(asked.cache.wait_ms, 1_000);
    run.world.now_ns += SECOND;
    let (path, asked, _) = run.say(Verdict::Wait, b"").asks().unwrap();
    assert_eq!((path, asked.cache.lease_ms), ("/v1/admit", 0), "alone");
    run.done();

    let mut waiting = Vec::new();
    for _ in 0..2 {
        run.next().ask(&[], BODY);
        assert_eq!(run.say(Verdict::Wait, b"").asks().unwrap().0, "/v1/wait");
        waiting.push(std::mem::take(&mut run.exchange));
    }
    run.next().ask(&[], BODY);
    let (path, asked, _) = run.say(Verdict::Wait, b"").asks().unwrap();
    assert_eq!((path, asked.cache.lease_ms), ("/v1/admit", 0), "no room");
    run.done();
    for exchange in waiting {
        run.exchange = exchange;
        run.done();
    }
    assert_eq!(run.vm.waiting, 0, "who leaves makes room");
}

#[test]
fn one_that_leaves_while_it_asks_gives_back_what_it_may_hold() {
    let mut run = run(&format!("{SECRET},{CACHED}"));
    let asked = run.ask(&[], BODY).call().unwrap();
    let (release, ..) = released(&mut run);
    let release = release.unwrap();
    assert_eq!((release.lease.holder, release.lease.token), (asked.id, 0));
    assert_eq!(release.end, LeaseEnd::Failed);
}

#[test]
fn a_sidecar_that_says_wait_to_one_who_asked_for_no_lease_talks_nonsense() {
    for config in [
        format!(r#"{SECRET},"cache":{{"mode":"dry"}},{BUDGET}"#),
        format!(r#"{SECRET},"cache":{{"coalesce":{{"mode":"off"}}}},{BUDGET}"#),
    ] {
        let mut run = run(&config);
        assert_eq!(run.ask(&[], BODY).call().unwrap().cache.lease_ms, 0);
        let said = run.say(Verdict::Wait, b"");
        assert!(said.sent());
        assert_eq!(said.counted("sidecar;result=nonsense;"), 1);
    }
}

#[test]
fn a_stale_answer_goes_out_and_its_request_goes_once_more_under_the_lease() {
    let trust = r#""identity":{"trust":[{"header":{"name":"x-key","value":"k"}}],"task":[{"header":"x-sluice-task"}]}"#;
    let mut run = run(&format!("{SECRET},{STALE},{trust}"));
    let task = [
        ("x-key", "k"),
        ("x-sluice-task", "support"),
        ("x-sluice-tags", "doc:1, doc:2"),
    ];
    let asked = run.ask(&task, BODY).call().unwrap();
    assert!(asked.cache.behind);
    let told = run.say(found(CacheResult::Stale, Some(lease())), ANSWER.as_bytes());
    assert_eq!(told.response().unwrap().1["x-sluice-cache"], "stale");
    let headers = told.refreshed(&task[..1]).unwrap();
    assert_eq!(headers["x-sluice-task"], "support");
    let (release, record, _) = released(&mut run);
    assert_eq!((release, record.cache), (None, CacheResult::Stale));

    // The same request once more, as the loop brings it.
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let again: Vec<(&str, &str)> = headers.chain([task[0]]).collect();
    for (at, (name, _)) in again.iter().enumerate() {
        // Of another wish, or another caller, it is a stranger's.
        let mut other = again.clone();
        other[at].1 = "other";
        let asked = run.next().ask(&other, BODY).call().unwrap();
        assert_eq!(asked.cache.lease, None, "{name}");
        run.done();
    }
    let asked = run.next().ask(&again, BODY).call().unwrap();
    assert_eq!(asked.cache.lease, Some(lease()));
    assert!(!asked.cache.behind);
    run.say(leader(false), b"");
    run.answer("200", ANSWER);
    let settle = run.done().0.unwrap().0;
    let record = settle.record;
    assert_eq!(
        (record.cache, record.task.as_str()),
        (CacheResult::Refresh, "support")
    );
    assert_eq!(
        (record.as_asked, record.cost),
        (Some(Usd::ZERO), Some(Usd::from_dollars(350e-6)))
    );
    assert_eq!(record.saved.cache, Usd::from_dollars(-350e-6));
    let store = settle.store.unwrap();
    assert_eq!(
        (store.ttl_secs, store.stale_secs, store.stale_if_error_secs),
        (600, 300, 3600)
    );
    let tenant = &record.tenant;
    assert_eq!(
        store.tags,
        [format!("{tenant}/doc:1"), format!("{tenant}/doc:2")]
    );
    assert_eq!(settle.release.unwrap().end, LeaseEnd::Stored);
}

#[test]
fn a_forged_lease_is_an_ordinary_request_and_a_refresh_that_came_too_late_ends() {
    let mut run = run(&format!("{SECRET},{STALE}"));
    let bare = format!("{}:{NOW_US}", "ab".repeat(16));
    for forged in [
        bare.clone(),
        format!("{bare}:"),
        format!("{bare}:{}", "0".repeat(32)),
        ":::".into(),
    ] {
        let asked = run.next().ask(&[("x-sluice-lease", &forged)], BODY);
        assert_eq!(asked.call().unwrap().cache.lease, None, "{forged}");
        assert!(
            asked
                .list
                .contains(&Effect::RemoveRequestHeader("x-sluice-lease".into()))
        );
        run.done();
    }
    run.next().ask(&[], BODY);
    let told = run.say(found(CacheResult::Stale, Some(lease())), ANSWER.as_bytes());
    let sealed = told
        .refreshed(&[])
        .unwrap()
        .remove("x-sluice-lease")
        .unwrap();
    let mut late = run_at(&run, 2 * 3600);
    let asked = late.ask(&[("x-sluice-lease", &sealed)], BODY);
    assert_eq!(asked.call().unwrap().cache.lease, None, "one that was kept");
    for fault in [
        &|run: &mut Run| run.say(Verdict::Wait, b""),
        &|run: &mut Run| run.say(found(CacheResult::Hit, None), ANSWER.as_bytes()),
        &|run: &mut Run| run.say(found(CacheResult::Stale, None), ANSWER.as_bytes()),
        &|run: &mut Run| run.on(Event::ReplyFailed),
    ] as [&dyn Fn(&mut Run) -> Effects; 4]
    {
        run.next().ask(&[("x-sluice-lease", &sealed)], BODY);
        let (status, _, body) = fault(&mut run).response().unwrap();
        assert!(
            status == 503 && body.contains("refresh_superseded"),
            "{body}"
        );
        let done = run.on(Event::Done);
        assert_eq!(done.counted("refresh_superseded"), 1);
        assert_eq!(done.list.len(), 1, "no request of anyone: {done:?}");
    }
}

#[test]
fn a_refresh_that_fails_saves_nothing() {
    let mut run = run(&format!("{SECRET},{STALE}"));
    run.ask(&[], BODY);
    let told = run.say(found(CacheResult::Stale, Some(lease())), ANSWER.as_bytes());
    let sealed = told
        .refreshed(&[])
        .unwrap()
        .remove("x-sluice-lease")
        .unwrap();
    run.done();
    run.next().ask(&[("x-sluice-lease", &sealed)], BODY);
    assert!(run.say(leader(true), ANSWER.as_bytes()).sent());
    assert!(run.answer("503", "{}").response().is_none());
    let (release, record, _) = released(&mut run);
    assert_eq!(release.unwrap().end, LeaseEnd::Failed);
    assert_eq!((record.cache, record.status), (CacheResult::Refresh, 503));
}

#[test]
fn one_callers_bad_key_does_not_keep_a_refresh_or_all_tenants_from_the_answer() {
    let mut run = run(&format!("{SECRET},{STALE}"));
    run.ask(&[], BODY);
    let told = run.say(found(CacheResult::Stale, Some(lease())), ANSWER.as_bytes());
    let sealed = told
        .refreshed(&[])
        .unwrap()
        .remove("x-sluice-lease")
        .unwrap();
    run.done();
    run.next().ask(&[("x-sluice-lease", &sealed)], BODY);
    assert!(run.say(leader(false), b"").sent());
    run.answer("401", "{}");
    assert_eq!(released(&mut run).0.unwrap().end, LeaseEnd::Failed);

    for (scope, status, end) in [
        ("global", "401", LeaseEnd::Failed),
        ("global", "403", LeaseEnd::Failed),
        ("global", "405", LeaseEnd::Uncacheable),
        ("tenant", "401", LeaseEnd::Uncacheable),
    ] {
        let cache = format!(r#""cache":{{"scope":"{scope}","exact":{{"ttl":"10m"}}}}"#);
        let mut run = super::run(&format!("{SECRET},{cache}"));
        run.ask(&[], BODY);
        assert!(run.say(leader(false), b"").sent());
        run.answer(status, "{}");
        let released = released(&mut run).0.unwrap();
        assert_eq!(released.end, end, "{scope} {status}");
    }
}

#[test]
fn without_a_secret_or_a_cluster_nothing_is_said_to_be_refreshed_behind() {
    for config in [
        format!("{SIDECAR},{STALE}"),
        format!(r#"{SECRET},"cache":{{"exact":{{"stale":"5m"}}}}"#),
    ] {
        assert!(!run(&config).ask(&[], BODY).call().unwrap().cache.behind);
    }
}

#[test]
fn when_upstream_fails_an_answer_past_its_time_stands_in() {
    let config = format!("{SECRET},{STALE},{BUDGET}");
    for status in ["429", "500", "503", "529"] {
        let mut run = run(&config);
        run.ask(&[], BODY);
        assert!(run.say(leader(true), ANSWER.as_bytes()).sent());
        let answered = run.answer(status, r#"{"error":{}}"#);
        let (told, headers, body) = answered.response().unwrap();
        assert_eq!(
            (told, headers["x-sluice-cache"].as_str(), body.as_str()),
            (200, "stale", ANSWER)
        );
        assert_eq!(headers["age"], "700");
        let settle = run.done().0.unwrap().0;
        assert_eq!(
            (settle.record.cache, settle.record.status),
            (CacheResult::Stale, 200)
        );
        assert!(settle.counted.is_empty() && settle.store.is_none());
        assert_eq!(settle.release.unwrap().end, LeaseEnd::Failed);
    }
    let mut run = run(&config);
    run.ask(&[], BODY);
    run.say(leader(true), ANSWER.as_bytes());
    assert!(
        run.answer("404", "{}").response().is_none(),
        "an answer of its own"
    );
    let asked = run.next().ask(&[], BODY);
    assert!(asked.call().is_some());
}

#[test]
fn a_refusal_that_stands_is_remembered_and_told_with_its_status() {
    let config = format!(r#"{SECRET},"cache":{{"negative":{{"ttl":"30s"}}}},{BUDGET}"#);
    let mut run = run(&config);
    run.ask(&[], BODY);
    run.say(leader(false), b"");
    let answered = run.answer("400", ERROR);
    assert_eq!(answered.set("x-sluice-cost"), Some("0"));
    let (settle, stored) = run.done().0.unwrap();
    let store = settle.store.unwrap();
    assert_eq!(
        (store.entry.status, store.ttl_secs, store.stale_secs),
        (400, 30, 0)
    );
    assert_eq!(stored, ERROR.as_bytes());
    assert_eq!(settle.release.unwrap().end, LeaseEnd::Stored);

    run.next()
        .ask(&[], &BODY.replace("\"zz\"", "\"stream\": true, \"zz\""));
    let told = run.say(found(CacheResult::Negative, None), ERROR.as_bytes());
    let (status, headers, body) = told.response().unwrap();
    assert_eq!(
        (status, headers["content-type"].as_str(), body.as_str()),
        (400, "application/json", ERROR)
    );
    assert_eq!(
        (
            headers["x-sluice-cache"].as_str(),
            headers["x-sluice-cost"].as_str()
        ),
        ("negative", "0")
    );
    let (_, record, _) = released(&mut run);
    assert_eq!(
        (record.cache, record.outcome),
        (CacheResult::Negative, Outcome::UpstreamError)
    );
    assert_eq!(
        (record.as_asked, record.cost),
        (Some(Usd::ZERO), Some(Usd::ZERO))
    );
}

#[test]
fn what_does_not_stand_is_not_remembered_nor_is_anything_where_it_is_not_asked_for() {
    let on = r#""negative":{}"#;
    let unknown = r#"{"error":{"message":"The model `x` does not exist","type":"invalid_request_error","code":"model_not_found"}}"#;
    for (cache, status, body, remembered) in [
        (on, "404", unknown, true),
        (r#""negative":{},"scope":"global""#, "404", unknown, false),
        (r#""negative":{},"scope":"global""#, "400", ERROR, true),
        (on, "429", ERROR, false),
        (on, "500", ERROR, false),
        (
            on,
            "400",
            r#"{"error":{"message":"credit balance is too low","type":"invalid_request_error"}}"#,
            false,
        ),
        (r#""negative":{"mode":"off"}"#, "400", ERROR, false),
        (r#""mode":"dry","negative":{}"#, "400", ERROR, false),
        ("", "400", ERROR, false),
    ] {
        let mut run = run(&format!(r#"{SECRET},"cache":{{{cache}}}"#));
        run.ask(&[], BODY);
        run.say(Verdict::go(0), b"");
        run.answer(status, body);
        let (_, _, stored) = released(&mut run);
        assert_eq!(stored, remembered, "{cache} {status} {body}");
    }
}

#[test]
fn one_that_envoy_answers_while_it_asks_or_waits_leaves_nothing_behind() {
    let mut run = run(&format!("{SECRET},{CACHED}"));
    for waits in [false, true] {
        let asked = run.next().ask(&[], BODY).call().unwrap();
        if waits {
            run.say(Verdict::Wait, b"");
        }
        run.answer("504", "");
        let release = released(&mut run).0.unwrap();
        assert_eq!((release.lease.holder, release.lease.token), (asked.id, 0));
        assert_eq!(release.end, LeaseEnd::Failed);
    }
    assert_eq!(run.vm.waiting, 0);

    let secret = SECRET.replace("\"c\"", r#""c","breaker":{"failures":1,"pause":"1s"}"#);
    let mut run = super::run(&format!("{secret},{CACHED}"));
    run.ask(&[], BODY);
    assert!(run.on(Event::ReplyFailed).sent());
    run.done();
    run.world.now_ns += SECOND;
    assert!(run.next().ask(&[], BODY).call().is_some(), "a probe");
    run.answer("504", "");
    run.done();
    assert!(run.next().ask(&[], BODY).call().is_some(), "the next probe");
}

#[test]
fn in_dry_no_answer_stands_in() {
    let dry = STALE.replace(r#""exact""#, r#""mode":"dry","exact""#);
    let backoff = r#""guard":{"backoff":{"failures":1}}"#;
    let mut run = run(&format!("{SECRET},{dry},{BUDGET},{backoff}"));
    run.ask(&[], BODY);
    assert!(run.say(leader(true), ANSWER.as_bytes()).sent());
    assert!(run.answer("500", "{}").response().is_none());
    run.done();
    run.next().ask(&[], BODY);
    let held_back = run.say(leader(true), ANSWER.as_bytes());
    assert_eq!(held_back.response().unwrap().0, 503);
}

#[test]
fn one_whose_time_is_over_does_not_look_for_one_sidecar_after_another() {
    let mut run = run(&format!("{SECRET},{CACHED}"));
    run.ask(&[], BODY);
    run.say(Verdict::Wait, b"");
    run.world.now_ns += 20 * SECOND;
    let (path, asked, _) = run.on(Event::ReplyFailed).asks().unwrap();
    assert_eq!((path, asked.cache.lease_ms), ("/v1/admit", 0), "alone");
    assert!(run.on(Event::ReplyFailed).sent());
}

#[test]
fn a_lease_that_the_filter_never_heard_of_ends_with_its_request() {
    let mut run = run(&format!("{SECRET},{CACHED}"));
    let asked = run.ask(&[], BODY).call().unwrap();
    assert!(run.on(Event::ReplyFailed).sent());
    run.answer("500", "{}");
    let (release, ..) = released(&mut run);
    let release = release.unwrap();
    assert_eq!((release.lease.holder, release.lease.token), (asked.id, 0));
    assert_eq!(release.end, LeaseEnd::Failed);
}

#[test]
fn what_stands_by_is_bounded_over_all_requests_of_a_worker() {
    let mut run = run(&format!("{SECRET},{STALE}"));
    let mut long = serde_json::from_str::<serde_json::Value>(ANSWER).unwrap();
    long["choices"][0]["message"]["content"] = "x".repeat(3 << 20).into();
    let long = long.to_string();
    let mut sent = Vec::new();
    for _ in 0..2 {
        run.next().ask(&[], BODY);
        assert!(run.say(leader(true), long.as_bytes()).sent());
        sent.push(std::mem::take(&mut run.exchange));
    }
    let mut stood_in = Vec::new();
    for exchange in sent {
        run.exchange = exchange;
        stood_in.push(run.answer("500", "{}").response().is_some());
        run.done();
    }
    assert_eq!(stood_in, [true, false]);
    assert_eq!(run.vm.spares.get(), 0);
}
