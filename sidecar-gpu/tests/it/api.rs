//! The sidecar's HTTP API with the memory store, in virtual time and without a socket.

use crate::common::{
    ACME, NOW, OPERATOR, SECRET, Sidecar, ask, charge, frame, id, item, key, plan, post,
    with_answer,
};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use sluice_wire::{CacheResult, Over, SettleReply, SettleRequest, Unit, Verdict, Window, limit};

fn sidecar() -> Sidecar {
    Sidecar::new(&json!({}))
}

fn message(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap();
    value["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_settled_answer_is_a_hit_until_its_time_is_over_and_a_hit_reserves_nothing() {
    let sidecar = sidecar();
    let budget = || vec![charge(1000, 100, Over::Reject)];
    let first = sidecar
        .admit(&ask(1, vec![plan(Some(key(1)), budget())]))
        .await;
    assert_eq!(first.0.verdict, Verdict::go(0));
    let answer = b"{\"text\": \"line\\nfeed\"}\n";
    let settled = with_answer(item(1, 80), key(1), answer.len() as u64);
    let reply = sidecar.settle(vec![settled.clone()], answer).await;
    assert_eq!(
        reply,
        SettleReply {
            booked: 1,
            repeated: 0
        }
    );

    sidecar.advance(5_500);
    let (reply, body) = sidecar
        .admit(&ask(2, vec![plan(Some(key(1)), budget())]))
        .await;
    let entry = settled.store.unwrap().entry;
    assert_eq!(
        reply.verdict,
        Verdict::Hit {
            plan: 0,
            age_secs: 5,
            entry,
            result: CacheResult::Hit,
            refresh: None,
        }
    );
    assert_eq!(body, answer);
    let counter = ("tenant:acme", Window::Day, Unit::Tokens);
    let level = sidecar.app.local_budgets().level(counter, NOW);
    assert_eq!(level, (80, 80), "the hit holds nothing");

    sidecar.advance(600_000);
    let (reply, body) = sidecar
        .admit(&ask(3, vec![plan(Some(key(1)), budget())]))
        .await;
    assert_eq!((reply.verdict, body.len()), (Verdict::go(0), 0));
}

#[tokio::test]
async fn over_a_budget_the_numbers_are_told() {
    let sidecar = sidecar();
    let budget = || plan(None, vec![charge(100, 60, Over::Reject)]);
    sidecar.admit(&ask(1, vec![budget()])).await;
    let (reply, _) = sidecar.admit(&ask(2, vec![budget()])).await;
    assert_eq!(
        reply.verdict,
        Verdict::Over {
            rule: 0,
            limit: 100,
            used: 60,
            reset_secs: 86_400 - NOW / 1000 % 86_400,
        }
    );
}

#[tokio::test]
async fn an_estimate_near_the_limit_is_answered_with_count() {
    let sidecar = sidecar();
    let mut estimate = charge(100, 60, Over::Reject);
    estimate.at_most = 150;
    let (reply, _) = sidecar
        .admit(&ask(1, vec![plan(None, vec![estimate])]))
        .await;
    assert_eq!(reply.verdict, Verdict::Count);
}

#[tokio::test]
async fn over_a_small_tier_budget_the_second_plan_is_looked_up_and_then_reserved() {
    let sidecar = sidecar();
    let mut dear = charge(100, 160, Over::SmallTier);
    dear.rule = 3;
    let mut cheap = charge(100, 120, Over::SmallTier);
    cheap.rule = 3;
    let plans = || {
        vec![
            plan(Some(key(1)), vec![dear.clone()]),
            plan(Some(key(2)), vec![cheap.clone()]),
        ]
    };
    let (reply, _) = sidecar.admit(&ask(1, plans())).await;
    assert_eq!((reply.verdict, reply.over), (Verdict::go(1), vec![3]));

    let settled = with_answer(item(1, 10), key(2), 5);
    sidecar.settle(vec![settled], b"small").await;
    let (reply, body) = sidecar.admit(&ask(2, plans())).await;
    assert!(
        matches!(reply.verdict, Verdict::Hit { plan: 1, .. }),
        "{reply:?}"
    );
    assert_eq!((reply.over, body), (vec![3], b"small".to_vec()));
}

#[tokio::test]
async fn a_retried_settlement_books_charges_and_stores_once() {
    let sidecar = sidecar();
    for (round, expected) in [(0, (2, 0)), (1, (0, 2)), (2, (0, 2))] {
        let reply = sidecar.settle(vec![item(1, 30), item(2, 12)], b"").await;
        assert_eq!((reply.booked, reply.repeated), expected, "round {round}");
    }
    let counter = ("tenant:acme", Window::Day, Unit::Tokens);
    assert_eq!(sidecar.app.local_budgets().level(counter, NOW).0, 42);
    assert_eq!(sidecar.report("").await.total.requests, 2);
}

#[tokio::test]
async fn answers_in_one_batch_are_told_apart_by_their_lengths() {
    let sidecar = sidecar();
    let items = vec![
        with_answer(item(1, 1), key(1), 3),
        item(2, 1),
        with_answer(item(3, 1), key(3), 4),
    ];
    sidecar.settle(items, b"onefour").await;
    for (n, answer) in [(1, &b"one"[..]), (3, b"four")] {
        let (_, body) = sidecar
            .admit(&ask(9, vec![plan(Some(key(n)), vec![])]))
            .await;
        assert_eq!(body, answer);
    }
}

#[tokio::test]
async fn only_the_filters_secret_opens_the_filters_calls() {
    let sidecar = sidecar();
    let body = || frame(&ask(1, vec![plan(None, vec![])]), b"");
    for path in ["/v1/admit", "/v1/settle"] {
        for (token, status) in [
            (None, 401),
            (Some("Bearer wrong"), 401),
            (Some("Bearer "), 401),
            (Some("Basic ZmlsdGVyLXNlY3JldA=="), 401),
            (Some("Bearer filter-secret2"), 401),
            (Some("Bearer operator-token"), 403),
            (Some("Bearer acme-token"), 403),
        ] {
            let mut request = post(path, body());
            request.headers_mut().remove("authorization");
            if let Some(token) = token {
                request
                    .headers_mut()
                    .insert("authorization", token.parse().unwrap());
            }
            let (found, text) = sidecar.call(request).await;
            assert_eq!(found, status, "{path} with {token:?}");
            assert!(!message(&text).contains("filter-secret"));
        }
    }
}

#[tokio::test]
async fn a_filter_of_another_version_is_told_to_upgrade() {
    let sidecar = sidecar();
    for version in [None, Some("0"), Some("1"), Some("one")] {
        let mut request = post("/v1/admit", Vec::new());
        request.headers_mut().remove("x-sluice-wire");
        if let Some(version) = version {
            request
                .headers_mut()
                .insert("x-sluice-wire", version.parse().unwrap());
        }
        let (status, body) = sidecar.call(request).await;
        assert_eq!(status, 426, "{version:?}");
        let expected = format!("x-sluice-wire: expected {}", sluice_wire::VERSION);
        assert!(message(&body).contains(&expected), "{}", message(&body));
    }
}

#[tokio::test]
async fn malformed_admits_are_refused_with_what_is_wrong() {
    let sidecar = sidecar();
    let good = ask(1, vec![plan(None, vec![])]);
    let mut short_id = good.clone();
    short_id.id = "abc".to_owned();
    let mut no_plan = good.clone();
    no_plan.plans.clear();
    let mut bad_key = good.clone();
    bad_key.plans[0].key = Some("zz".repeat(32));
    let many = ask(1, vec![plan(None, vec![charge(1, 1, Over::Reject); 65])]);
    for (body, part) in [
        (Vec::new(), "no line feed"),
        (b"{}".to_vec(), "no line feed"),
        (b"{}\n".to_vec(), "missing field"),
        (b"[[[[[[\n".to_vec(), "head of the frame"),
        (b"\xff\xfe\n".to_vec(), "head of the frame"),
        (frame(&short_id, b""), "id: expected 32 hex digits"),
        (frame(&no_plan, b""), "plans: expected one or two, found 0"),
        (frame(&bad_key, b""), "plans[0].key: expected 64 hex digits"),
        (
            frame(&many, b""),
            "plans[0].charges: expected at most 64, found 65",
        ),
    ] {
        let (status, text) = sidecar.post("/v1/admit", body).await;
        assert_eq!(status, 400, "{part}");
        assert!(
            message(&text).contains(part),
            "{part} in {}",
            message(&text)
        );
    }
}

#[tokio::test]
async fn malformed_settlements_are_refused_whole() {
    let sidecar = sidecar();
    let mut bad_id = item(2, 1);
    bad_id.record.id = "2".to_owned();
    for (items, answers, part) in [
        (vec![item(1, 1), bad_id], &b""[..], "items[1].record.id"),
        (
            vec![with_answer(item(1, 1), key(1), 10)],
            b"short",
            "items[0].store.len: expected 10 bytes of answer, found 5",
        ),
        (vec![item(1, 1)], b"rest", "4 bytes more"),
        (
            vec![with_answer(item(1, 1), "k".to_owned(), 0)],
            b"",
            "items[0].store.key",
        ),
        (
            vec![item(1, 1); limit::SETTLE_ITEMS + 1],
            b"",
            "items: expected at most 1000",
        ),
    ] {
        let (status, text) = sidecar.try_settle(items, answers).await;
        assert_eq!(status, 400, "{part}");
        assert!(
            message(&text).contains(part),
            "{part} in {}",
            message(&text)
        );
    }
    assert_eq!(sidecar.report("").await.total.requests, 0);
}

#[tokio::test]
async fn bodies_beyond_their_bound_are_refused_declared_or_not() {
    let sidecar = sidecar();
    let (status, _) = sidecar
        .post("/v1/admit", vec![b' '; limit::ADMIT_BODY + 1])
        .await;
    assert_eq!(status, 413);
    let (status, _) = sidecar
        .post("/v1/settle", vec![b' '; limit::SETTLE_BODY + 1])
        .await;
    assert_eq!(status, 413);
    // In chunks, without a declared length.
    let chunks =
        futures_util::stream::iter((0..400).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1000])));
    let mut request = post("/v1/admit", Vec::new());
    *request.body_mut() = Body::from_stream(chunks);
    let (status, text) = sidecar.call(request).await;
    assert_eq!(status, 413, "{}", message(&text));
}

#[tokio::test]
async fn a_report_shows_a_tenant_its_own_and_an_operator_everything() {
    let sidecar = sidecar();
    let mut other = item(2, 7);
    other.record.tenant = "globex".to_owned();
    sidecar.settle(vec![item(1, 30), other], b"").await;

    let all = sidecar.report("by=tenant").await;
    assert_eq!((all.total.requests, all.by["tenant"].len()), (2, 2));
    let (status, body) = sidecar.get("/report?by=tenant,task", ACME).await;
    assert_eq!(status, 200);
    let own: sluice::report::Report = serde_json::from_slice(&body).unwrap();
    assert_eq!(own.tenant.as_deref(), Some("acme"));
    assert_eq!(own.total.tokens.prompt, 30);
    assert!(!String::from_utf8(body).unwrap().contains("globex"));

    for (token, status) in [(SECRET, 403), ("nobody", 401)] {
        assert_eq!(sidecar.get("/report", token).await.0, status, "{token}");
    }
    let anonymous = Request::get("/report").body(Body::empty()).unwrap();
    assert_eq!(sidecar.call(anonymous).await.0, 401);
}

#[tokio::test]
async fn a_report_has_dollars_as_exact_strings_and_as_numbers() {
    let sidecar = sidecar();
    sidecar.settle(vec![item(1, 30)], b"").await;
    let (_, body) = sidecar.get("/report?by=model", OPERATOR).await;
    let report: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(report["total"]["cost"]["exact"], "0.0000000004");
    assert_eq!(report["total"]["cost"]["number"], 4e-10);
    assert_eq!(report["by"]["model"][0]["key"]["model"], "gpt-4o-mini");
}

#[tokio::test]
async fn a_report_query_that_is_not_understood_says_why() {
    let sidecar = sidecar();
    for (query, part) in [
        ("by=colour", "by: expected one of task"),
        ("from=yesterday", "from: expected a moment"),
        ("form=1", "unknown field `form`"),
    ] {
        let (status, body) = sidecar.get(&format!("/report?{query}"), OPERATOR).await;
        assert_eq!(status, 400, "{query}");
        assert!(message(&body).contains(part), "{}", message(&body));
    }
    let bounded = sidecar
        .report("from=2023-11-14&to=2023-11-15T00:00:00Z")
        .await;
    assert_eq!(bounded.from_ms, Some(1_699_920_000_000));
    assert_eq!(bounded.to_ms, Some(1_700_006_400_000));
}

#[tokio::test]
async fn metrics_are_for_operators_unless_the_config_opens_them() {
    let closed = sidecar();
    for (token, status) in [(OPERATOR, 200), (ACME, 403), (SECRET, 403), ("x", 401)] {
        assert_eq!(closed.get("/metrics", token).await.0, status, "{token}");
    }
    let open = Sidecar::new(&json!({"metrics": {"open": true}}));
    let anonymous = Request::get("/metrics").body(Body::empty()).unwrap();
    assert_eq!(open.call(anonymous).await.0, 200);
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let sidecar = sidecar();
    let settled = with_answer(item(1, 30), key(1), 4);
    sidecar.settle(vec![settled.clone()], b"text").await;
    sidecar.settle(vec![settled], b"text").await;
    sidecar
        .admit(&ask(2, vec![plan(Some(key(1)), vec![])]))
        .await;
    sidecar
        .admit(&ask(
            3,
            vec![plan(Some(key(9)), vec![charge(10, 60, Over::Reject)])],
        ))
        .await;
    sidecar.post("/v1/admit", Vec::new()).await;
    let text = sidecar.metrics().await;
    for line in [
        "sluice_settled_total{result=\"booked\"} 1",
        "sluice_settled_total{result=\"repeated\"} 1",
        "sluice_cache_lookups_total{result=\"hit\"} 1",
        "sluice_cache_lookups_total{result=\"miss\"} 1",
        "sluice_admits_total{result=\"over\"} 1",
        "sluice_budget_over_total{rule=\"0\",result=\"rejected\"} 1",
        "sluice_refused_total{result=\"malformed\"} 1",
        "sluice_tokens_total{tenant=\"acme\",task=\"support\",kind=\"prompt\"} 30",
        "sluice_admit_seconds_count 2",
        "sluice_settle_seconds_count 2",
        "sluice_ledger_failing 0",
        "sluice_ledger_queue 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_ledger_that_refuses_is_told_to_retry_and_the_sidecar_is_not_ready_meanwhile() {
    let data = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::at(data.path(), &json!({}));
    let probe = || Request::get("/readyz").body(Body::empty()).unwrap();
    assert_eq!(sidecar.call(probe()).await.0, 200);
    let other = rusqlite::Connection::open(sidecar.app.ledger().path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let (status, body) = sidecar.try_settle(vec![item(1, 30)], b"").await;
    assert_eq!(status, 503);
    let error: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(error["error"]["retry"], true);
    assert_eq!(sidecar.call(probe()).await.0, 503);
    assert!(sidecar.metrics().await.contains("sluice_ledger_errors 1"));
    let counter = ("tenant:acme", Window::Day, Unit::Tokens);
    assert_eq!(
        sidecar.app.local_budgets().level(counter, NOW).0,
        0,
        "nothing is charged that is not booked"
    );

    other.execute_batch("COMMIT").unwrap();
    assert_eq!(sidecar.settle(vec![item(1, 30)], b"").await.booked, 1);
    assert_eq!(sidecar.call(probe()).await.0, 200);
}

#[tokio::test]
async fn a_restart_remembers_what_budgets_were_charged() {
    let data = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::at(data.path(), &json!({}));
    sidecar.settle(vec![item(1, 90)], b"").await;
    sidecar.app.ledger().close().await;
    let probe = Request::get("/readyz").body(Body::empty()).unwrap();
    assert_eq!(sidecar.call(probe).await.0, 503, "its ledger is closed");
    drop(sidecar);
    let sidecar = Sidecar::at(data.path(), &json!({}));
    let (reply, _) = sidecar
        .admit(&ask(
            2,
            vec![plan(None, vec![charge(100, 20, Over::Reject)])],
        ))
        .await;
    assert!(
        matches!(reply.verdict, Verdict::Over { used: 90, .. }),
        "{reply:?}"
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_as_errors() {
    let sidecar = sidecar();
    assert_eq!(sidecar.get("/v1/nothing", OPERATOR).await.0, 404);
    assert_eq!(sidecar.get("/v1/admit", OPERATOR).await.0, 405);
    assert_eq!(sidecar.get("/healthz", "none").await.0, 200);
}

#[tokio::test]
async fn a_batch_of_one_id_twice_books_it_once() {
    let sidecar = sidecar();
    let body = frame(
        &SettleRequest {
            items: vec![item(5, 3), item(5, 3)],
        },
        b"",
    );
    let (status, _) = sidecar.post("/v1/settle", body).await;
    assert_eq!(status, 200);
    let counter = ("tenant:acme", Window::Day, Unit::Tokens);
    assert_eq!(sidecar.app.local_budgets().level(counter, NOW).0, 3);
    assert_eq!(id(5).len(), 32);
}
