//! Routing: which model a request goes to, and what is changed for it.

use super::*;

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
