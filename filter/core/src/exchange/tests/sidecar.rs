//! The sidecar when it fails: what a request does without it.

use super::*;

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
        &|run| run.say(Verdict::go(9), b""),
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
    assert!(run.say(Verdict::go(0), b"").sent());
    assert!(run.next().ask(&[], BODY).call().is_some());
}
