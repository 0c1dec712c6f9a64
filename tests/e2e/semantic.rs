//! Questions in other words are answered from cache; other questions, tenants and prompts are not.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use std::time::Duration;

use serde_json::{Value, json};
use sluice_tests::client::{Answer, Client};
use sluice_tests::process::eventually;
use sluice_tests::requests::CHAT;
use sluice_tests::stack::{Setup, Stack, caching, merge};
use sluice_tests::tools;
use sluice_wire::CacheResult;

const QUESTION: &str = "How do I reset my password?";

/// The embedding model has time, as the sidecar has: a busy machine must not look like a miss.
fn setup() -> Setup {
    let mut setup = Setup::with(json!({
        "cache": caching(),
        "serve": {"semantic": {"model": tools::model().unwrap()}},
    }));
    let semantic = json!({"cache": {"semantic": {"timeout": "10s"}}});
    merge(&mut setup.config, semantic);
    setup
}

fn body(system: &str, question: &str) -> Value {
    json!({"model": "gpt-4o", "messages": [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
    ]})
}

/// Sends and waits until it is settled, and its question, if it is new, is kept.
async fn ask(
    (stack, client): (&Stack, &Client),
    body: &Value,
    (sent, kept): (&mut usize, &mut usize),
) -> Answer {
    let answer = client.post(CHAT.path, body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    *sent += 1;
    stack.settled(*sent).await.unwrap();
    *kept += usize::from(matches!(cache(&answer), "miss" | "audit"));
    let gauge = format!("sluice_semantic_entries {kept}\n");
    eventually(Duration::from_secs(20), async || {
        let metrics = stack.sidecar().client().get("/metrics").await;
        let text = metrics.map_err(|error| error.to_string())?.text();
        match text.contains(&gauge) {
            true => Ok(()),
            false => Err(format!("expected {gauge}")),
        }
    })
    .await
    .unwrap();
    answer
}

fn cache(answer: &Answer) -> &str {
    answer.header("x-sluice-cache").unwrap_or("no header")
}

#[tokio::test]
async fn a_paraphrase_is_answered_from_cache_and_another_question_is_not() {
    let stack = Stack::start(setup()).await.unwrap();
    let acme = stack.client().with("x-tenant", "acme");
    let globex = stack.client().with("x-tenant", "globex");
    let (mut sent, mut kept) = (0, 0);
    let brief = "You are the help desk of a shop.";
    let first = ask(
        (&stack, &acme),
        &body(brief, QUESTION),
        (&mut sent, &mut kept),
    )
    .await;
    assert_eq!(cache(&first), "miss");

    for same in ["How can I reset my password?", "how do i reset my password"] {
        let mut asked = body(brief, same);
        let told = ask((&stack, &acme), &asked, (&mut sent, &mut kept)).await;
        assert_eq!(cache(&told), "semantic", "{same}");
        assert_eq!(told.body, first.body);
        assert_eq!(told.header("x-sluice-cost"), Some("0"));
        assert_eq!(told.header("x-sluice-saved"), first.header("x-sluice-cost"));
        asked["stream"] = json!(true);
        let streamed = ask((&stack, &acme), &asked, (&mut sent, &mut kept)).await;
        assert_eq!(cache(&streamed), "semantic", "{same}");
        assert_eq!(streamed.said(), first.said());
    }
    assert_eq!(stack.provider().stats().total.requests, 1);

    let mut earlier = body(brief, QUESTION);
    earlier["messages"] = json!([
        {"role": "user", "content": "I forgot the name of my dog."},
        {"role": "assistant", "content": "I am sorry."},
        {"role": "user", "content": "How can I reset my password?"},
    ]);
    let mut tools = body(brief, "How can I reset my password?");
    tools["tools"] = json!([{"type": "function", "function": {"name": "reset", "parameters": {
        "type": "object", "properties": {}}}}]);
    let others = [
        (&acme, body(brief, "How do I reset 3 passwords?")),
        (&acme, body(brief, "How do I not reset my password?")),
        (&acme, body(brief, "How do I reset my username?")),
        (
            &acme,
            body("You are a pirate.", "How can I reset my password?"),
        ),
        (&globex, body(brief, "How can I reset my password?")),
        (&acme, earlier),
        (&acme, tools),
    ];
    let count = others.len();
    for (client, other) in others {
        let answer = ask((&stack, client), &other, (&mut sent, &mut kept)).await;
        assert_eq!(cache(&answer), "miss", "{other}");
    }
    assert_eq!(stack.provider().stats().total.requests, 1 + count as u64);

    let records = stack.settled(sent).await.unwrap();
    let semantic: Vec<_> = records
        .iter()
        .filter(|record| record.cache == CacheResult::Semantic)
        .collect();
    assert_eq!(semantic.len(), 4);
    for record in semantic {
        assert_eq!(record.cost.unwrap().0, 0);
        assert_eq!(Some(record.saved.cache), record.as_asked);
    }
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    stack.check_no_trap().await.unwrap();
}

/// Of the metrics of the sidecar, those that begin so, each with its value.
async fn series(stack: &Stack, name: &str) -> Vec<(String, f64)> {
    let metrics = stack.sidecar().client().get("/metrics").await.unwrap();
    let text = metrics.text();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .map(|line| {
            let (labels, value) = line.rsplit_once(' ').unwrap();
            (labels.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_share_is_asked_upstream_as_well_which_is_booked_and_moves_the_threshold() {
    let mut setup = setup();
    let auto = json!({"cache": {"semantic": {"threshold": "auto", "audit": 0.5}}});
    merge(&mut setup.config, auto);
    let stack = Stack::start(setup).await.unwrap();
    let client = stack.client().with("x-tenant", "acme");
    let (mut sent, mut kept) = (0, 0);
    let first = ask(
        (&stack, &client),
        &body("Help.", QUESTION),
        (&mut sent, &mut kept),
    )
    .await;
    assert_eq!(cache(&first), "miss");
    let (mut audits, mut hits) = (0_u64, 0_u64);
    for n in 1..=24 {
        // Another request that asks the same; the model sees no difference at all.
        let question = format!("{}{QUESTION}", " ".repeat(n));
        let mut asked = body("Help.", &question);
        asked["stream"] = json!(n % 2 == 0);
        let told = ask((&stack, &client), &asked, (&mut sent, &mut kept)).await;
        match cache(&told) {
            "audit" => audits += 1,
            "semantic" => hits += 1,
            other => panic!("{other} for {question:?}"),
        }
    }
    // All of one kind would happen once in eight million runs.
    assert!(audits > 0 && hits > 0, "{audits} {hits}");
    assert_eq!(stack.provider().stats().total.requests, 1 + audits);

    let records = stack.settled(sent).await.unwrap();
    let audited = records
        .iter()
        .filter(|record| record.cache == CacheResult::Audit);
    assert_eq!(audited.clone().count() as u64, audits);
    for record in audited {
        assert!(record.cost.unwrap().0 > 0, "{record:?}");
        assert_eq!(record.cost, record.as_asked);
        assert_eq!(record.saved.cache.0, 0);
    }
    eventually(Duration::from_secs(20), async || {
        let judged = series(&stack, "sluice_semantic_audits_total{").await;
        let count: f64 = judged.iter().map(|(_, count)| count).sum();
        match count as u64 == audits {
            true => Ok(()),
            false => Err(format!("expected {audits} audits, found {judged:?}")),
        }
    })
    .await
    .unwrap();
    let judged = series(&stack, "sluice_semantic_audits_total{").await;
    assert!(
        !judged.iter().any(|(labels, _)| labels.contains("unjudged")),
        "{judged:?}"
    );
    let different = judged
        .iter()
        .any(|(labels, _)| labels.contains("different"));
    let threshold = series(&stack, "sluice_semantic_threshold{").await[0].1;
    match different {
        true => assert!(threshold > 0.98, "{threshold}"),
        false => assert!(threshold < 0.98, "{threshold}"),
    }
    assert_eq!(stack.differences().await.unwrap(), Vec::<String>::new());
    stack.check_no_trap().await.unwrap();
}
