//! Audits: which answers by meaning are asked upstream as well, what comes of it, and that nobody is
//! the worse for it.

use serde_json::json;
use sluice_wire::{AdmitRequest, Audit, Auto, CacheResult, Over, Settle, Verdict};

use crate::common::{Sidecar, charge, id, key, until};
use crate::semantic::{REFUND, answers, asks, sidecar};

const PARAPHRASE: &str = "how do i reset my password";

/// A chat answer as the API gives it.
fn chat(id: u128, text: &str) -> Vec<u8> {
    let message = json!({"role": "assistant", "content": text});
    let choices = json!([{"index": 0, "message": message}]);
    format!(r#"{{"id":"c{id}","choices":{choices}}}"#).into_bytes()
}

/// The paraphrase under a key of its own, of which `audit_ppm` are audited.
fn audits((n, k): (u128, u8), audit_ppm: u32) -> AdmitRequest {
    let mut ask = asks((n, k), 1, PARAPHRASE);
    ask.route = "help".to_owned();
    ask.cache.question.as_mut().unwrap().auto = Some(Auto {
        audit_ppm,
        false_ppm: 20_000,
    });
    ask
}

const ALL: u32 = 1_000_000;

fn audited(verdict: &Verdict) -> Option<&Audit> {
    match verdict {
        Verdict::Go { audit, spare, .. } => audit.as_deref().inspect(|_| assert!(spare.is_some())),
        _ => None,
    }
}

fn semantic(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Hit {
            result: CacheResult::Semantic,
            ..
        }
    )
}

/// One that knows an answer to [`REFUND`].
async fn taught() -> Sidecar {
    let sidecar = sidecar();
    sidecar
        .learn((1, 1), 1, (REFUND, &chat(1, "By mail.")))
        .await;
    sidecar
}

impl Sidecar {
    /// Has `n` audited, settles it with what upstream says, and returns how that was judged.
    pub(crate) async fn audit(&self, (n, k): (u128, u8), says: &str) -> String {
        let (reply, body) = self.admit(&audits((n, k), ALL)).await;
        let audit = audited(&reply.verdict).unwrap().clone();
        assert_eq!(audit.key, key(1));
        assert_eq!(audit.false_ppm, 20_000);
        assert_eq!(body, chat(1, "By mail."), "what stands in");
        self.settle_audit((n, k), (audit, Some(says))).await
    }

    async fn settle_audit(
        &self,
        (n, k): (u128, u8),
        (audit, says): (Audit, Option<&str>),
    ) -> String {
        let answer = says.map_or(Vec::new(), |says| chat(n, says));
        let mut item = answers((n, k), 1, (PARAPHRASE, &answer));
        item.record.route = "help".to_owned();
        item.record.cache = CacheResult::Audit;
        item.audit = Some(audit);
        match &mut item.store {
            // Its question would be likelier than that of key 1 from now on.
            Some(store) if says.is_some() => store.question = None,
            store => *store = None,
        }
        let before = self.judged().await;
        self.settle(vec![item], &answer).await;
        until("the audit is judged", async || {
            self.judged().await != before
        })
        .await;
        let after = self.judged().await;
        let new = after.iter().find(|line| !before.contains(line)).unwrap();
        let result = new.split("result=\"").nth(1).unwrap();
        result.split('"').next().unwrap().to_owned()
    }

    async fn judged(&self) -> Vec<String> {
        let text = self.metrics().await;
        let lines = text
            .lines()
            .filter(|line| line.starts_with("sluice_semantic_audits_total{"));
        lines.map(str::to_owned).collect()
    }

    /// A gauge of the route.
    pub(crate) async fn of_route(&self, name: &str) -> Option<f64> {
        let text = self.metrics().await;
        let series = format!("{name}{{route=\"help\"}} ");
        let mut values = text.lines().filter_map(|line| line.strip_prefix(&series));
        values.next()?.parse().ok()
    }

    pub(crate) async fn threshold(&self) -> Option<f64> {
        self.of_route("sluice_semantic_threshold").await
    }
}

#[tokio::test]
async fn an_audit_is_judged_by_the_two_answers_and_moves_the_threshold_of_its_route() {
    let sidecar = taught().await;
    assert_eq!(sidecar.threshold().await, None, "nothing was audited");
    assert_eq!(sidecar.audit((2, 2), "By  mail.\n").await, "same");
    let lower = sidecar.threshold().await.unwrap();
    assert!(lower < 0.98, "{lower}");
    assert_eq!(
        sidecar.of_route("sluice_semantic_false_hit_estimate").await,
        Some(0.0)
    );
    assert_eq!(sidecar.audit((3, 3), "Not by mail.").await, "different");
    let higher = sidecar.threshold().await.unwrap();
    assert!(higher > 0.98, "{higher}");
    assert_eq!(
        sidecar.of_route("sluice_semantic_false_hit_estimate").await,
        Some(0.5)
    );
    let (_, report) = sidecar
        .ask(
            ("GET", "/report/cache"),
            crate::common::OPERATOR,
            &json!(null),
        )
        .await;
    let told = &report["semantic"][0];
    assert_eq!(
        (told["route"].as_str(), told["audits"].as_u64()),
        (Some("help"), Some(2))
    );
    // What upstream said to the paraphrase is kept for it.
    assert_eq!(sidecar.hit(key(3)).await, Some(chat(3, "Not by mail.")));
}

#[tokio::test]
async fn where_enough_are_false_only_equal_terms_are_told() {
    let asked =
        "How do I reset the password of my account at the shop when I am on holiday in Spain?";
    let near = asked.replace("at the shop", "in the shop");
    let sidecar = sidecar();
    sidecar
        .learn((1, 1), 1, (asked, &chat(1, "By mail.")))
        .await;
    let told = async |n: u128, text: &str| {
        let mut ask = audits((n, 99), 0);
        text.clone_into(&mut ask.cache.question.as_mut().unwrap().text);
        semantic(&sidecar.admit(&ask).await.0.verdict)
    };
    assert!(told(50, &near).await);
    for n in 2..12 {
        let audit = Audit {
            key: key(1),
            false_ppm: 20_000,
        };
        let judged = sidecar.settle_audit((n, n as u8), (audit, Some("Not by mail.")));
        assert_eq!(judged.await, "different");
    }
    assert!(!told(51, &near).await);
    assert!(told(52, &asked.to_lowercase()).await);
}

#[tokio::test]
async fn an_audit_without_two_answers_is_not_judged() {
    let sidecar = taught().await;
    let audit = |k: u8| Audit {
        key: key(k),
        false_ppm: 20_000,
    };
    assert_eq!(
        sidecar.settle_audit((2, 2), (audit(1), None)).await,
        "unjudged"
    );
    assert_eq!(
        sidecar.settle_audit((3, 3), (audit(9), Some("Hi"))).await,
        "unjudged"
    );
    assert_eq!(sidecar.threshold().await, None);
}

#[tokio::test]
async fn a_settlement_that_is_repeated_is_judged_once() {
    let sidecar = taught().await;
    sidecar.audit((2, 2), "By mail.").await;
    let before = sidecar.judged().await;
    let mut item: Settle = answers((2, 2), 1, (PARAPHRASE, &chat(2, "By mail.")));
    item.record.route = "help".to_owned();
    item.store.as_mut().unwrap().question = None;
    item.audit = Some(Audit {
        key: key(1),
        false_ppm: 20_000,
    });
    let reply = sidecar.settle(vec![item], &chat(2, "By mail.")).await;
    assert_eq!((reply.booked, reply.repeated), (0, 1));
    // A later one that counts: what comes before it has been judged, or never is.
    assert_eq!(sidecar.audit((3, 3), "Not by mail.").await, "different");
    let mut expected = before;
    expected.push(r#"sluice_semantic_audits_total{route="help",result="different"} 1"#.to_owned());
    let mut judged = sidecar.judged().await;
    judged.sort();
    expected.sort();
    assert_eq!(judged, expected);
}

#[tokio::test]
async fn about_the_share_that_is_configured_is_audited_and_a_retry_is_what_it_was() {
    let sidecar = taught().await;
    let mut count = 0;
    for n in 0..500 {
        let request = audits((100 + n, 2), 100_000);
        let (reply, _) = sidecar.admit(&request).await;
        let is = audited(&reply.verdict).is_some();
        assert!(is || semantic(&reply.verdict), "{reply:?}");
        count += u32::from(is);
        if n % 50 == 0 {
            let (again, _) = sidecar.admit(&request).await;
            assert_eq!(audited(&again.verdict).is_some(), is);
        }
    }
    assert!((30..=75).contains(&count), "{count} of 500 at 10%");
}

#[tokio::test]
async fn what_budgets_would_refuse_count_or_send_elsewhere_is_answered_by_the_hit() {
    let sidecar = taught().await;
    let over = |over| vec![charge(10, 1000, over)];
    let mut near = charge(1000, 900, Over::Reject);
    near.at_most = 2000;
    for (n, charges) in [
        (2, over(Over::Reject)),
        (3, over(Over::SmallTier)),
        (4, vec![near]),
    ] {
        let mut ask = audits((n, n as u8), ALL);
        ask.cache.lease_ms = 10_000;
        let free = AdmitRequest {
            id: id(n + 100),
            ..ask.clone()
        };
        ask.plans[0].charges = charges;
        let mut small = ask.plans[0].clone();
        small.key = Some(key(9));
        ask.plans.push(small);
        let (reply, body) = sidecar.admit(&ask).await;
        assert!(semantic(&reply.verdict), "{n}: {reply:?}");
        assert_eq!(body, chat(1, "By mail."));
        until("the lease is given back", async || {
            let (reply, _) = sidecar.admit(&free).await;
            matches!(reply.verdict, Verdict::Go { lease: Some(_), .. })
        })
        .await;
    }
    // What is within goes, and is reserved.
    let mut ask = audits((5, 5), ALL);
    ask.plans[0].charges = vec![charge(1000, 900, Over::Reject)];
    let (reply, _) = sidecar.admit(&ask).await;
    assert!(audited(&reply.verdict).is_some(), "{reply:?}");
    assert_eq!(
        sidecar.metrics_value("sluice_budget_reservations").await,
        Some(1)
    );
}

#[tokio::test]
async fn an_audit_waits_for_nobody_and_is_none_while_upstream_fails() {
    let sidecar = taught().await;
    let leased = |n| {
        let mut ask = audits((n, 2), ALL);
        ask.cache.lease_ms = 10_000;
        ask
    };
    let (first, _) = sidecar.admit(&leased(2)).await;
    assert!(audited(&first.verdict).is_some());
    let (second, _) = sidecar.admit(&leased(3)).await;
    assert!(semantic(&second.verdict), "{second:?}");
    let mut failing = audits((4, 4), ALL);
    failing.cache.failing = true;
    assert!(semantic(&sidecar.admit(&failing).await.0.verdict));
}

#[tokio::test]
async fn a_mark_that_is_no_key_is_refused_with_its_path() {
    let sidecar = taught().await;
    let mut item = answers((2, 2), 1, (PARAPHRASE, b"{}"));
    item.audit = Some(Audit {
        key: "7".to_owned(),
        false_ppm: u32::MAX,
    });
    let (status, body) = sidecar.try_settle(vec![item], b"{}").await;
    assert_eq!(status, 400);
    assert!(String::from_utf8_lossy(&body).contains("items[0].audit.key"));
}

#[tokio::test]
async fn a_sidecar_without_a_model_says_so() {
    let sidecar = Sidecar::new(&json!({}));
    let (reply, _) = sidecar.admit(&audits((1, 1), ALL)).await;
    assert!(matches!(reply.verdict, Verdict::Go { audit: None, .. }));
    assert!(sidecar.counted(r#"result="no_model",reason="""#).await);
}
