//! Texts that a model writes of what a conversation leaves out: ordered with the settlement, used at a
//! later turn.

use sluice_wire::{Order, Remember, Written, limit};

use super::trim::{chat, remembered, reply};
use super::*;

const WRITER: &str = r#""trim":{"history":{"keep":"summary","tokens":160,"last":0,
    "summary":{"tokens":60,"writer":"sidecar","model":"gpt-4o-mini"}}}"#;

fn on() -> Run {
    run(&format!("{SIDECAR},{WRITER}"))
}

/// One turn that upstream answers with `status`: what went out, and what is to be remembered.
fn turn(
    run: &mut Run,
    (body, status): (&str, &str),
    (state, summaries): (Option<String>, Vec<Written>),
) -> (Effects, Option<Remember>) {
    run.world.now_ns += 5 * SECOND;
    run.next().ask(&[], body);
    let head = AdmitReply {
        sent: state,
        summaries,
        ..AdmitReply::of(Verdict::go(0))
    };
    let went = reply(run, head);
    run.answer(status, ANSWER);
    (went, remembered(run))
}

fn written(order: &Order) -> Vec<Written> {
    vec![Written {
        id: order.id.clone(),
        text: "They spoke of numbers.".to_owned(),
    }]
}

#[test]
fn a_text_is_ordered_with_the_settlement_and_used_with_the_next_choice() {
    let mut run = on();
    let (went, told) = turn(&mut run, (&chat(30), "200"), (None, Vec::new()));
    assert_eq!(went.counted("trim_summary;result=ordered;"), 1);
    assert_eq!(went.counted("trim_summary;result=used;"), 0);
    let told = told.unwrap();
    let order = told.order.unwrap();
    assert_eq!((order.model.as_str(), order.tokens), ("gpt-4o-mini", 36));
    assert!(order.text.starts_with("User: Tell number 0 number 0"));
    assert!(order.text.len() <= limit::ORDER && order.id.len() <= limit::SUMMARY_ID);
    // What goes to the next turn says nothing of what was said.
    assert!(!told.state.contains("Tell") && told.state.len() <= limit::STATE);
    assert!(went.list.iter().all(|effect| match effect {
        Effect::Debug(line) => !line.contains("Tell"),
        _ => true,
    }));

    // Another worker, which knows what it is told alone; long after, so that all is chosen anew.
    let mut other = on();
    other.world.now_ns = run.world.now_ns + 7_200 * SECOND;
    let known = (Some(told.state), written(&order));
    let (went, told) = turn(&mut other, (&chat(34), "200"), known);
    let body = went.new_body().unwrap();
    assert!(body.contains("They spoke of numbers."), "{body}");
    assert_eq!(went.counted("trim_summary;result=used;"), 1);
    assert_eq!(went.counted("trim_summary;result=lost;"), 0);
    let told = told.unwrap();

    // The one after that is told of no text.
    let mut last = on();
    last.world.now_ns = other.world.now_ns;
    let (went, _) = turn(
        &mut last,
        (&chat(35), "200"),
        (Some(told.state), Vec::new()),
    );
    assert_eq!(went.counted("trim_summary;result=lost;"), 1);
    assert!(!went.new_body().unwrap().contains("They spoke"));
}

#[test]
fn what_upstream_did_not_answer_has_nothing_written() {
    let mut run = on();
    let (went, told) = turn(&mut run, (&chat(30), "500"), (None, Vec::new()));
    assert_eq!(went.counted("trim_summary;result=ordered;"), 1);
    assert_eq!(told, None);
}

#[test]
fn in_dry_nothing_is_written() {
    let dry = WRITER.replace(r#""trim":{"#, r#""trim":{"mode":"dry","#);
    let mut run = run(&format!("{SIDECAR},\"cache\":{{}},{dry}"));
    let (went, told) = turn(&mut run, (&chat(12), "200"), (None, Vec::new()));
    assert_eq!((went.counted("trim_summary;"), told), (0, None));
    assert!(went.counted("trimmed_tokens;action=dry;") > 0);
}

/// As the sidecar sends it (`summaries.rs`), by a route that has texts written too: it cannot go round.
#[test]
fn a_writers_own_request_has_nothing_left_out_and_orders_nothing() {
    let said = "User: Tell me more. Assistant: There is no more.\\n".repeat(400);
    let body = format!(
        r#"{{"max_tokens":40,"messages":[{{"content":"You write down what was said.","role":"system"}},
            {{"content":"<conversation>\n{said}</conversation>","role":"user"}}],"model":"gpt-4o-mini"}}"#
    );
    let body = body.replace('\n', "");
    let mut run = on();
    let (went, told) = turn(&mut run, (&body, "200"), (None, Vec::new()));
    assert!(went.sent() && went.new_body().is_none());
    assert_eq!(went.counted("trim_summary;"), 0);
    assert_eq!(told.and_then(|told| told.order), None);
}

#[test]
fn texts_of_another_conversation_are_no_texts_of_this_one() {
    let mut run = on();
    let (_, told) = turn(&mut run, (&chat(30), "200"), (None, Vec::new()));
    let order = told.unwrap().order.unwrap();
    let mut other = on();
    let body = chat(34).replace("Told", "Said");
    let (went, _) = turn(&mut other, (&body, "200"), (None, written(&order)));
    assert!(!went.new_body().unwrap().contains("They spoke"));
}
