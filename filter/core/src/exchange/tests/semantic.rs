//! Questions that are compared by meaning: which are, what the sidecar is told, what is stored.

use sluice_wire::{Audit, Auto, Lease, LeaseEnd, Spare};

use super::*;

const SEMANTIC: &str = r#""cache":{"semantic":{"threshold":0.97,"max_chars":60,"timeout":"45ms"}}"#;

const AUTO: &str = r#""cache":{"semantic":{"threshold":"auto","audit":0.05}}"#;
const DRY: &str = r#""cache":{"mode":"dry","semantic":{"threshold":"auto","audit":0.05}}"#;

/// What was stored for another question.
const STORED: &str = r#"{"choices":[{"message":{"role":"assistant","content":"A month."}}]}"#;

/// `BODY` with other messages.
fn body(messages: &str) -> String {
    format!(r#"{{"model":"gpt-4o","messages":[{messages}]}}"#)
}

fn text(role: &str, text: &str) -> String {
    format!(r#"{{"role":"{role}","content":"{text}"}}"#)
}

fn timeout(effects: &Effects) -> u32 {
    let mut calls = effects.list.iter().filter_map(|effect| match effect {
        Effect::Call { timeout_ms, .. } => Some(*timeout_ms),
        _ => None,
    });
    calls.next().unwrap()
}

#[test]
fn the_last_user_turn_is_looked_up_by_meaning_and_stored_with_its_answer() {
    let mut run = run(&format!("{SIDECAR},{SEMANTIC}"));
    let asked = run.ask(&[], BODY);
    let admit = asked.call().unwrap();
    let scope = admit.plans[0].scope.clone().unwrap();
    let question = admit.cache.question.unwrap();
    assert_eq!(
        (
            question.text.as_str(),
            question.max_ms,
            question.threshold_milli
        ),
        ("What is your refund policy?", 45, Some(970))
    );
    let plain = super::run(&format!(r#"{SIDECAR},"cache":{{}}"#)).ask(&[], BODY);
    assert!(plain.call().unwrap().cache.question.is_none());
    assert_eq!(timeout(&asked), timeout(&plain) + 45);
    run.say(Verdict::go(0), b"");
    run.answer("200", ANSWER);
    let stored = run.done().0.unwrap().0.store.unwrap().question.unwrap();
    assert_eq!((stored.scope, stored.text), (scope, question.text));
}

#[test]
fn an_answer_to_another_question_is_told_as_semantic_and_costs_nothing() {
    let mut run = run(&format!("{SIDECAR},{SEMANTIC}"));
    run.ask(&[], BODY);
    let entry = EntryHead {
        format: "openai.chat".into(),
        model: "gpt-4o".into(),
        usage: Usage {
            prompt: 100,
            completion: 10,
            ..Usage::default()
        },
        ..EntryHead::default()
    };
    let verdict = Verdict::Hit {
        plan: 0,
        age_secs: 7,
        entry,
        result: CacheResult::Semantic,
        refresh: None,
    };
    let (status, headers, told) = run.say(verdict, ANSWER.as_bytes()).response().unwrap();
    assert_eq!((status, told.as_str()), (200, ANSWER));
    assert_eq!(headers["x-sluice-cache"], "semantic");
    let settle = run.done().0.unwrap().0;
    assert_eq!(settle.store, None, "it stays the other question's answer");
    assert_eq!(
        (
            settle.record.cache,
            settle.record.cost,
            settle.record.saved.cache
        ),
        (
            CacheResult::Semantic,
            Some(Usd::ZERO),
            Usd::from_dollars(350e-6)
        )
    );
}

#[test]
fn only_plain_questions_of_the_user_are_compared() {
    let image = r#"{"role":"user","content":[{"type":"text","text":"What is this?"},{"type":"image_url","image_url":{"url":"u"}}]}"#;
    let parts = r#"{"role":"user","content":[{"type":"text","text":"What is this?"}]}"#;
    let two = r#"{"role":"user","content":[{"type":"text","text":"What"},{"type":"text","text":"is this?"}]}"#;
    let hot = BODY.replace("\"zz\"", "\"temperature\": 1.1, \"zz\"");
    let sixty = "é".repeat(60);
    let cases = [
        (BODY.to_owned(), true),
        (body(parts), true),
        (
            body(&[text("user", "a"), text("assistant", "b"), text("user", "c")].join(",")),
            true,
        ),
        (body(&text("user", &sixty)), true),
        (body(&text("user", &format!("{sixty}é"))), false),
        (body(&text("user", "x".repeat(1000).as_str())), false),
        (body(&text("user", r"\n ")), false),
        (
            body(&[text("user", "a"), text("assistant", "b")].join(",")),
            false,
        ),
        (
            body(
                &[
                    text("user", "a"),
                    r#"{"role":"tool","tool_call_id":"1","content":"b"}"#.to_owned(),
                ]
                .join(","),
            ),
            false,
        ),
        (body(image), false),
        (body(two), false),
        (hot, false),
    ];
    for (body, compared) in cases {
        let mut run = run(&format!("{SIDECAR},{SEMANTIC}"));
        let admit = run.ask(&[], &body).call();
        let question = admit.and_then(|admit| admit.cache.question);
        assert_eq!(question.is_some(), compared, "{body}");
    }
    let mut run = run(&format!("{SIDECAR},{SEMANTIC}"));
    let mut completions = CHAT.to_vec();
    completions[1] = (":path", "/v1/completions");
    let asked = run.ask_as(
        &completions,
        r#"{"model":"gpt-4o","prompt":"Once upon a time"}"#,
    );
    assert!(asked.call().unwrap().cache.question.is_none());
}

#[test]
fn a_question_is_looked_up_once_and_not_by_who_waits_refreshes_or_bypasses() {
    let trust = r#""identity":{"trust":[{"header":{"name":"x-key","value":"k"}}]}"#;
    let config = format!("{SIDECAR},{trust},{SEMANTIC}");
    let mut waiting = run(&config);
    assert!(
        waiting
            .ask(&[], BODY)
            .call()
            .unwrap()
            .cache
            .question
            .is_some()
    );
    let waits = waiting.say(Verdict::Wait, b"").call().unwrap();
    assert!(waits.plans[0].key.is_some() && waits.plans[0].scope.is_none());
    assert!(waits.cache.question.is_none());

    let mut refreshing = run(&config);
    let asked = refreshing.ask(&[("x-sluice-cache", "refresh"), ("x-key", "k")], BODY);
    assert!(asked.call().is_none());
    refreshing.answer("200", ANSWER);
    let store = refreshing.done().0.unwrap().0.store.unwrap();
    assert!(
        store.question.is_some(),
        "a newer answer to the same question"
    );
}

fn entry() -> EntryHead {
    EntryHead {
        format: "openai.chat".into(),
        model: "gpt-4o".into(),
        usage: Usage {
            prompt: 100,
            completion: 10,
            ..Usage::default()
        },
        ..EntryHead::default()
    }
}

fn audit() -> Audit {
    Audit {
        key: "ab".repeat(32),
        false_ppm: 20_000,
    }
}

fn audited(stored: bool) -> Verdict {
    Verdict::Go {
        plan: 0,
        lease: Some(Lease {
            holder: "cd".repeat(16),
            token: 7,
        }),
        spare: stored.then(|| Spare {
            age_secs: 7,
            entry: entry(),
        }),
        audit: Some(Box::new(audit())),
    }
}

impl Run {
    fn audit(config: &str) -> (Run, Effects) {
        let mut run = run(&format!("{SIDECAR},{config}"));
        run.ask(&[], BODY);
        let effects = run.say(audited(true), STORED.as_bytes());
        (run, effects)
    }

    /// Who was answered with what is stored, and so draws nothing, audits nothing, and lets another
    /// one try.
    fn is_told_what_is_stored(&mut self, effects: &Effects) {
        let (status, headers, told) = effects.response().unwrap();
        assert_eq!((status, told.as_str()), (200, STORED));
        assert_eq!(headers["x-sluice-cache"], "semantic");
        assert_eq!(headers["x-sluice-cost"], "0");
        let settle = self.done().0.unwrap().0;
        assert_eq!(settle.audit, None);
        assert_eq!(settle.record.cache, CacheResult::Semantic);
        assert_eq!(settle.record.cost, Some(Usd::ZERO));
        assert!(settle.counted.is_empty() && settle.store.is_none());
        assert_eq!(settle.release.unwrap().end, LeaseEnd::Failed);
    }
}

#[test]
fn a_threshold_that_finds_itself_travels_with_the_question_and_in_dry_all_are_audited() {
    for (config, audit_ppm) in [(AUTO, 50_000), (DRY, 1_000_000)] {
        let asked = run(&format!("{SIDECAR},{config}")).ask(&[], BODY);
        let question = asked.call().unwrap().cache.question.unwrap();
        let false_ppm = 20_000;
        let auto = Auto {
            audit_ppm,
            false_ppm,
        };
        assert_eq!(
            (question.threshold_milli, question.auto),
            (None, Some(auto))
        );
    }
    let asked = run(&format!("{SIDECAR},{SEMANTIC}")).ask(&[], BODY);
    assert_eq!(asked.call().unwrap().cache.question.unwrap().auto, None);
}

#[test]
fn an_audited_request_is_answered_by_upstream_and_pays_for_it() {
    let (mut run, effects) = Run::audit(AUTO);
    assert!(effects.sent());
    let answered = run.answer("200", ANSWER);
    assert_eq!(answered.set("x-sluice-cache"), Some("audit"));
    assert_eq!(answered.set("x-sluice-cost"), Some("0.00035"));
    assert!(answered.response().is_none());
    let (settle, answer) = run.done().0.unwrap();
    assert_eq!(settle.audit, Some(audit()));
    assert_eq!(settle.record.cache, CacheResult::Audit);
    assert_eq!(settle.record.cost, Some(Usd::from_dollars(350e-6)));
    assert_eq!(settle.record.saved.cache, Usd::ZERO);
    assert!(settle.store.unwrap().question.is_some());
    assert_eq!(answer, ANSWER.as_bytes());
    assert_eq!(settle.release.unwrap().end, LeaseEnd::Stored);
    assert_eq!(run.vm.spares.get(), 0);
}

#[test]
fn whatever_upstream_has_against_an_audited_request_it_is_told_what_is_stored() {
    for status in ["400", "404", "429", "500", "503"] {
        let (mut run, _) = Run::audit(AUTO);
        let effects = run.answer(status, r#"{"error":{}}"#);
        assert_eq!(effects.counted("stale_if_error"), 0);
        run.is_told_what_is_stored(&effects);
    }
}

#[test]
fn an_audit_neither_waits_for_its_turn_nor_is_refused() {
    for queue in [0, 5] {
        let misses = format!(r#""guard":{{"misses":{{"limit":1,"queue":{queue}}}}}"#);
        let mut run = run(&format!("{SIDECAR},{AUTO},{misses}"));
        run.ask(&[], BODY);
        assert!(run.say(Verdict::go(0), b"").sent());
        run.next().ask(&[], BODY);
        let effects = run.say(audited(true), STORED.as_bytes());
        assert_eq!(effects.counted("action=semantic"), 1);
        run.is_told_what_is_stored(&effects);
    }
}

#[test]
fn an_audit_whose_stored_answer_cannot_be_told_waits_as_any_request() {
    let misses = r#""guard":{"misses":{"limit":1,"queue":5}}"#;
    let mut run = run(&format!("{SIDECAR},{AUTO},{misses}"));
    run.ask(&[], BODY);
    assert!(run.say(Verdict::go(0), b"").sent());
    run.next().ask(&[], BODY);
    let Verdict::Go {
        plan, lease, audit, ..
    } = audited(true)
    else {
        panic!("no leave to go");
    };
    let entry = EntryHead {
        format: "anthropic.messages".into(),
        ..entry()
    };
    let spare = Some(Spare { age_secs: 7, entry });
    let verdict = Verdict::Go {
        plan,
        lease,
        spare,
        audit,
    };
    let effects = run.say(verdict, STORED.as_bytes());
    assert!(effects.response().is_none());
    assert!(run.exchange.is_queued());
}

#[test]
fn without_room_for_the_stored_answer_it_is_told_at_once() {
    let mut run = run(&format!("{SIDECAR},{AUTO}"));
    run.vm.spares.set(4 << 20);
    run.ask(&[], BODY);
    let effects = run.say(audited(true), STORED.as_bytes());
    run.is_told_what_is_stored(&effects);
}

#[test]
fn an_audit_in_dry_is_a_hit_that_was_not_told() {
    let (mut run, effects) = Run::audit(DRY);
    assert!(effects.sent());
    assert_eq!(effects.counted("dry_hits"), 1);
    assert_eq!(run.vm.spares.get(), 0, "none goes out");
    let answered = run.answer("200", ANSWER);
    assert_eq!(answered.set("x-sluice-cache"), Some("miss"));
    let settle = run.done().0.unwrap().0;
    assert_eq!(settle.audit, Some(audit()));
    assert_eq!(settle.record.cache, CacheResult::Miss);
    assert_eq!(settle.record.would_save.cache, Usd::from_dollars(350e-6));
}

#[test]
fn an_audit_in_dry_waits_for_its_turn_as_any_request() {
    let misses = r#""guard":{"misses":{"limit":1,"queue":5}}"#;
    let mut run = run(&format!("{SIDECAR},{DRY},{misses}"));
    run.ask(&[], BODY);
    assert!(run.say(Verdict::go(0), b"").sent());
    run.next().ask(&[], BODY);
    let effects = run.say(audited(true), STORED.as_bytes());
    assert!(effects.response().is_none());
    assert!(run.exchange.is_queued());
}

#[test]
fn who_leaves_before_the_audit_is_sent_was_none_and_a_broken_answer_is_no_judgement() {
    let mut left = run(&format!("{SIDECAR},{AUTO}"));
    left.ask(&[], BODY);
    assert_eq!(left.done().0.unwrap().0.audit, None);
    let (mut run, _) = Run::audit(AUTO);
    run.on(Event::ResponseHeaders {
        headers: &headers(&[(":status", "200"), ("content-type", "application/json")]),
        end_of_stream: false,
    });
    let settle = run.done().0.unwrap().0;
    assert_eq!(settle.record.outcome, Outcome::Aborted);
    assert!(settle.audit.is_some() && settle.store.is_none());
}

#[test]
fn an_audit_that_nobody_asked_for_is_none() {
    let mut run = run(&format!(r#"{SIDECAR},"cache":{{}}"#));
    run.ask(&[], BODY);
    run.say(audited(false), b"");
    let answered = run.answer("200", ANSWER);
    assert_eq!(answered.set("x-sluice-cache"), Some("miss"));
    assert_eq!(run.done().0.unwrap().0.audit, None);
}
