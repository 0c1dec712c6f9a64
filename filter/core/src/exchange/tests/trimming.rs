//! What trimming makes of a request, and what is booked where it was refused for that.

use super::*;

const RETRIED: &str = r#""sidecar":{"cluster":"c","secret":"s"},
    "trim":{"mode":"on","history":{"keep":"recent","tokens":20,"last":0},"retry":{"cluster":"self"}}"#;

const REFUSAL: &str = r#"{"error":{"message":"messages: roles must alternate","type":"invalid_request_error","param":"messages","code":null}}"#;

/// A conversation of two exchanges, each with something of its own in what the user says, and a
/// question.
fn long((first, second): (&str, &str), question: &str) -> String {
    let turn = |role: &str, text: &str, more: &str| {
        let text = text.repeat(30);
        format!(r#"{{"role":"{role}","content":"{text}"{more}}}"#)
    };
    let turns = [
        turn("user", "Where are the parcels? ", first),
        turn("assistant", "They are at sea. ", ""),
        turn("user", "What is the weather there? ", second),
        turn("assistant", "It rains all day. ", ""),
        format!(r#"{{"role":"user","content":"{question}"}}"#),
    ];
    let turns = turns.join(",");
    format!(r#"{{"model":"gpt-4o","messages":[{turns}]}}"#)
}

#[test]
fn what_is_pinned_stays_though_upstream_never_sees_the_pin() {
    let mut run = run(r#""trim":{"history":{"keep":"recent","tokens":20,"last":0}}"#);
    let body = long((r#","sluice_pin":true"#, ""), "And two and two?");
    let sent = run.ask(&[], &body).new_body().unwrap();
    assert!(!sent.contains("sluice_pin"), "{sent}");
    assert!(sent.contains("Where are the parcels?"), "{sent}");
    assert!(!sent.contains("What is the weather"), "{sent}");
}

#[test]
fn chunks_are_chosen_in_a_conversation_that_is_kept_whole_too() {
    let trim = r#""trim":{"context":{"markers":[{"tag":"d"}],"top_k":1,"rank":"bm25"}HISTORY}"#;
    let (rain, sums) = (
        "It rains in Leeds. ".repeat(20),
        "Two and two is four. ".repeat(20),
    );
    let question = format!(r"<d>{rain}</d>\n<d>{sums}</d>\nWhat is the sum of two and two?");
    let body = long(("", ""), &question);
    for history in ["", r#","history":{"tokens":100000}"#] {
        let mut run = run(&trim.replace("HISTORY", history));
        let effects = run.ask(&[], &body);
        let sent = effects.new_body().unwrap();
        assert!(sent.contains("Two and two is four."), "{sent}");
        assert!(!sent.contains("It rains in Leeds."), "{sent}");
        assert!(sent.contains("Where are the parcels?"), "{sent}");
        assert_eq!(effects.counted("trim;action=texts"), 1, "{effects:?}");
    }
}

#[test]
fn a_client_that_leaves_the_second_attempt_owes_its_prompt() {
    let mut run = run(RETRIED);
    run.ask(&[], &long(("", ""), "And two and two?"));
    assert!(run.say(Verdict::go(0), b"").new_body().is_some());
    let effects = run.answer("400", REFUSAL);
    let attempted = |effect: &Effect| matches!(effect, Effect::Attempt { .. });
    assert!(effects.list.iter().any(attempted), "{effects:?}");
    let (settle, _) = run.done();
    let record = settle.unwrap().0.record;
    assert_eq!((record.status, record.outcome), (0, Outcome::Aborted));
    // 2,700 bytes.
    assert!(record.usage.prompt > 500, "{record:?}");
    assert!(record.estimated);
    assert!(record.cost.unwrap().0 > 0);
    assert_eq!(record.saved.trim.0, 0);
}
