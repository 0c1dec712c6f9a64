//! Budgets: reserved, settled, over, and counted exactly near their limit.

use super::*;

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

#[test]
fn near_a_limit_the_prompt_is_counted_and_asked_about_once_more() {
    let mut run = counting(&format!("{SIDECAR},{CACHED}"));
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
