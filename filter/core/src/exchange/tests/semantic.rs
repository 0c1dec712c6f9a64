//! Questions that are compared by meaning: which are, what the sidecar is told, what is stored.

use super::*;

const SEMANTIC: &str = r#""cache":{"semantic":{"threshold":0.97,"max_chars":60,"timeout":"45ms"}}"#;

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
