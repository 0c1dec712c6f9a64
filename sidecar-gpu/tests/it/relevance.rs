//! Texts that a request may be trimmed by: compared with its question beside the look-ups.

use std::sync::{Arc, Mutex, mpsc};

use proptest::prelude::*;
use serde_json::json;
use sluice::semantic::SemanticCache;
use sluice_engine::{Echo, Engine, EngineError, Generate, Generated, Info};
use sluice_wire::{AdmitReply, AdmitRequest, Frame, Over, Plan, Relevance, Verdict, limit};

use crate::common::{Sidecar, ask, charge, frame, item, key, plan, with_answer};
use crate::relay::relayed;
use crate::semantic::{bounds, model, on, sidecar};
use crate::summaries::orders;

const PAGE: &str = include_str!("../../../docs/trimming-sidecar.md");
const QUESTION: &str = "where is my parcel";
const TEXTS: [&str; 3] = ["the sky is blue", "my parcel is late", "where is my parcel"];

/// A request that has `texts` compared with [`QUESTION`], and its frame's body.
fn compares(n: u128, texts: &[&str]) -> (AdmitRequest, Vec<u8>) {
    let request = AdmitRequest {
        relevance: Some(Relevance {
            question: QUESTION.to_owned(),
            lens: texts.iter().map(|text| text.len() as u32).collect(),
            max_ms: 60_000,
        }),
        ..ask(n, vec![plan(None, vec![])])
    };
    (request, texts.concat().into_bytes())
}

impl Sidecar {
    async fn compare(&self, (request, body): &(AdmitRequest, Vec<u8>)) -> AdmitReply {
        let (status, answer) = self.post("/v1/admit", frame(request, body)).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        let frame: Frame<AdmitReply, _> = Frame::decode(&answer).unwrap();
        frame.head
    }

    async fn texts_counted(&self, result: &str, number: usize) -> bool {
        let series = format!("sluice_relevance_texts_total{{result=\"{result}\"}} {number}\n");
        self.metrics().await.contains(&series)
    }
}

/// The cosines of a reply, -2 where one is not known.
fn cosines(reply: &AdmitReply) -> Vec<f32> {
    let all = reply.similarities.iter().flatten();
    all.map(|it| it.cosine().unwrap_or(-2.0)).collect()
}

#[tokio::test]
async fn a_request_that_goes_is_told_how_near_its_texts_are_in_their_order() {
    let sidecar = sidecar();
    let reply = sidecar.compare(&compares(1, &TEXTS)).await;
    assert_eq!(reply.verdict, Verdict::go(0));
    let told = cosines(&reply);
    assert!(told[0] < told[1] && told[1] < told[2], "{told:?}");
    assert!(told[2] > 0.995, "{told:?}");
    // Without any time there are those that were embedded before.
    let mut again = compares(2, &[TEXTS[1], TEXTS[0]]);
    again.0.relevance.as_mut().unwrap().max_ms = 0;
    assert_eq!(
        cosines(&sidecar.compare(&again).await),
        [told[1], told[0]],
        "as they were"
    );
    assert!(sidecar.texts_counted("known", 2).await);
    let none = sidecar.compare(&compares(3, &[])).await;
    assert_eq!(none.similarities, Some(vec![]));
    assert_eq!(
        sidecar
            .compare(&(ask(4, vec![plan(None, vec![])]), vec![]))
            .await,
        AdmitReply::of(Verdict::go(0))
    );
}

#[tokio::test]
async fn what_one_tenant_had_embedded_is_not_known_to_another() {
    let sidecar = sidecar();
    sidecar.compare(&compares(1, &TEXTS)).await;
    let mut other = compares(2, &TEXTS);
    other.0.tenant = "globex".to_owned();
    other.0.relevance.as_mut().unwrap().max_ms = 0;
    assert_eq!(cosines(&sidecar.compare(&other).await), [-2.0; 3]);
    assert!(sidecar.texts_counted("late", 3).await);
}

#[tokio::test]
async fn texts_stand_behind_the_keys_of_inputs() {
    let sidecar = sidecar();
    let (mut request, texts) = compares(1, &TEXTS);
    request.plans = vec![Plan {
        inputs: 2,
        ..Plan::default()
    }];
    let body = [&[7; 2 * limit::KEY][..], &texts].concat();
    assert_eq!(cosines(&sidecar.compare(&(request, body)).await).len(), 3);
}

#[tokio::test]
async fn where_there_is_no_model_nothing_is_told_and_that_is_counted() {
    let sidecar = Sidecar::new(&json!({}));
    let reply = sidecar.compare(&compares(1, &TEXTS)).await;
    assert_eq!(reply, AdmitReply::of(Verdict::go(0)));
    assert!(sidecar.texts_counted("no_model", 3).await);
}

/// The stand-in, which embeds nothing until the other end of its gate is let go.
struct Slow(Echo, Mutex<mpsc::Receiver<()>>);

impl Engine for Slow {
    fn info(&self) -> &Info {
        self.0.info()
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.0.encode(text)
    }

    fn embed_tokens(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError> {
        // Ends with an error, as nothing is ever sent.
        self.1.lock().unwrap().recv().unwrap_err();
        self.0.embed_tokens(texts)
    }

    fn generate(
        &self,
        ask: &Generate<'_>,
        piece: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError> {
        self.0.generate(ask, piece)
    }
}

fn slow() -> (Sidecar, mpsc::Sender<()>) {
    let (opens, gate) = mpsc::channel();
    (on(Arc::new(Slow(Echo::new(64), Mutex::new(gate)))), opens)
}

#[tokio::test]
async fn no_answer_from_cache_and_no_refusal_waits_for_texts() {
    let (sidecar, _opens) = slow();
    sidecar
        .settle(vec![with_answer(item(1, 10), key(1), 5)], b"known")
        .await;
    let (mut hit, texts) = compares(2, &TEXTS);
    hit.plans = vec![plan(Some(key(1)), vec![])];
    let reply = sidecar.compare(&(hit, texts.clone())).await;
    assert!(matches!(reply.verdict, Verdict::Hit { .. }), "{reply:?}");
    assert_eq!(reply.similarities, None);

    let (mut poor, _) = compares(3, &TEXTS);
    poor.plans = vec![plan(None, vec![charge(10, 20, Over::Reject)])];
    let reply = sidecar.compare(&(poor, texts)).await;
    assert!(matches!(reply.verdict, Verdict::Over { .. }), "{reply:?}");
}

#[tokio::test]
async fn budgets_are_reserved_while_texts_are_compared() {
    let (sidecar, opens) = slow();
    let (mut request, texts) = compares(1, &TEXTS);
    request.plans = vec![plan(None, vec![charge(100, 60, Over::Reject)])];
    let router = sidecar.router.clone();
    let body = frame(&request, &texts);
    let asking = tokio::spawn(tower::ServiceExt::oneshot(
        router,
        crate::common::post("/v1/admit", body),
    ));
    crate::common::until("it is reserved", async || {
        sidecar.metrics_value("sluice_budget_reservations").await == Some(1)
    })
    .await;
    assert!(!asking.is_finished());
    drop(opens);
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn who_hangs_up_while_texts_are_compared_gives_the_lease_back() {
    let (sidecar, opens) = slow();
    let leased = |n| {
        let (mut request, texts) = compares(n, &TEXTS);
        request.plans = vec![plan(Some(key(1)), vec![])];
        request.cache.lease_ms = 60_000;
        (request, texts)
    };
    let (request, texts) = leased(1);
    let router = sidecar.router.clone();
    let call = crate::common::post("/v1/admit", frame(&request, &texts));
    let asking = tokio::spawn(tower::ServiceExt::oneshot(router, call));
    let held = async |number| {
        let what = format!("{number} leases are held");
        crate::common::until(&what, async || {
            sidecar.metrics_value("sluice_leases_held").await == Some(number)
        })
        .await;
    };
    held(1).await;
    asking.abort();
    held(0).await;
    drop(opens);
    let reply = sidecar.compare(&leased(2)).await;
    assert!(
        matches!(reply.verdict, Verdict::Go { lease: Some(_), .. }),
        "{reply:?}"
    );
}

#[tokio::test]
async fn what_was_late_is_known_at_the_next_turn() {
    let (sidecar, opens) = slow();
    let mut asked = compares(1, &TEXTS);
    asked.0.relevance.as_mut().unwrap().max_ms = 5;
    assert_eq!(cosines(&sidecar.compare(&asked).await), [-2.0; 3]);
    drop(opens);
    crate::common::until("it is embedded", async || {
        sidecar.metrics_value("sluice_relevance_entries").await >= Some(3)
    })
    .await;
    asked.0.relevance.as_mut().unwrap().max_ms = 60_000;
    let told = cosines(&sidecar.compare(&asked).await);
    assert!(told.iter().all(|it| *it > -1.5), "{told:?}");
    assert!(sidecar.texts_counted("known", 3).await);
}

#[tokio::test]
async fn texts_that_are_not_what_they_say_are_refused_with_the_fields_name() {
    let sidecar = sidecar();
    let long = "x".repeat(limit::TEXT + 1);
    let much = vec!["x".repeat(limit::TEXT); limit::TEXTS_BYTES / limit::TEXT + 1];
    let much: Vec<&str> = much.iter().map(String::as_str).collect();
    let mut question = compares(1, &[]);
    question.0.relevance.as_mut().unwrap().question = long.clone();
    let mut odd = compares(1, &["grün"]);
    odd.0.relevance.as_mut().unwrap().lens = vec![3, 2];
    let short = (compares(1, &TEXTS).0, b"the sky".to_vec());
    let mut more = compares(1, &TEXTS);
    more.1.push(b'x');
    let mut endless = compares(1, &[]);
    endless.0.relevance.as_mut().unwrap().lens = vec![u32::MAX; 200];
    let mut nobody = compares(1, &[]);
    nobody.0.conversation = Some("acme/1".to_owned());
    for (ask, part) in [
        (
            question,
            "relevance.question: expected at most 2048 bytes, found 2049",
        ),
        (
            compares(1, &[&long]),
            "relevance.lens[0]: expected at most 2048 bytes, found 2049",
        ),
        (
            compares(1, &["x"; 257]),
            "relevance.lens: expected at most 256 texts, found 257",
        ),
        (
            compares(1, &much),
            "relevance.lens: expected at most 131072 bytes in all",
        ),
        (odd, "relevance.lens[0]: expected a text in UTF-8"),
        (
            short,
            "body: expected the keys of 0 inputs and 50 bytes of texts, found 7 bytes",
        ),
        (
            more,
            "body: expected the keys of 0 inputs and 50 bytes of texts, found 51 bytes",
        ),
        (endless, "body: expected the keys of 0 inputs and"),
        (nobody, "conversation: expected 64 hex digits"),
    ] {
        let (status, text) = sidecar.post("/v1/admit", frame(&ask.0, &ask.1)).await;
        let text = String::from_utf8_lossy(&text);
        assert_eq!(
            (status.as_u16(), text.contains(part)),
            (400, true),
            "{part} in {text}"
        );
    }
}

/// A frame with some texts, changed here and there.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let texts = prop::collection::vec(".{0,40}", 0..6);
    let lens = prop::collection::vec(any::<u32>(), 0..4);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (
        texts,
        prop::option::weighted(0.3, lens),
        changes,
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(texts, lens, changes, end, cut)| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let (mut ask, body) = compares(1, &texts);
            if let Some(lens) = lens {
                ask.relevance.as_mut().unwrap().lens = lens;
            }
            let mut bytes = frame(&ask, &body);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cut {
                bytes.truncate(end.index(bytes.len() + 1));
            }
            bytes
        })
}

#[test]
fn whatever_a_frame_says_of_its_texts_it_is_answered_text_by_text_or_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let sidecar = runtime.block_on(async { sidecar() });
    let config = ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let answered = std::cell::Cell::new(0);
    let outcome = proptest::test_runner::TestRunner::new(config).run(&damaged(), |bytes| {
        let (status, answer) = runtime.block_on(sidecar.post("/v1/admit", bytes.clone()));
        if status == 200 {
            let asked: Frame<AdmitRequest, _> = Frame::decode(&bytes).unwrap();
            let told: Frame<AdmitReply, _> = Frame::decode(&answer).unwrap();
            let texts = asked.head.relevance.map(|it| it.lens.len());
            prop_assert_eq!(told.head.similarities.map(|it| it.len()), texts);
            answered.set(answered.get() + 1);
        } else {
            prop_assert_eq!(status, 400);
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(answered.get() > 20, "{} were answered", answered.get());
}

#[tokio::test]
async fn the_real_model_knows_which_turn_a_question_is_about() {
    let Some(model) = model() else { return };
    let sidecar = Sidecar::new(&json!({"semantic": {"model": model}}));
    let long = format!(
        "Our dog had surgery on her knee. {}",
        "She rests. ".repeat(180)
    );
    let texts = [
        "I moved to Lisbon in March and love the pasteis de nata.",
        &long,
        "My sister Ana teaches chemistry at a high school.",
    ];
    for (n, question, nearest) in [
        (1, "How is the recovery of your pet going?", 1),
        (2, "Which subject does Ana give lessons in?", 2),
        (3, "What city do you live in now?", 0),
    ] {
        let (mut ask, body) = compares(n, &texts);
        ask.relevance.as_mut().unwrap().question = question.to_owned();
        let told = cosines(&sidecar.compare(&(ask, body)).await);
        let best = (0..3).max_by(|a, b| told[*a].total_cmp(&told[*b]));
        assert_eq!(best, Some(nearest), "{question}: {told:?}");
    }
}

#[test]
fn what_the_page_says_to_write_is_taken() {
    let block = PAGE.split("```yaml\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let text = format!("sidecar: {{cluster: s, secret: x}}\n{block}");
    let serve = sluice::config::parse(&text, false, &|_| None)
        .unwrap()
        .serve;
    assert_eq!(serve.semantic.unwrap().texts, 64 << 20);
    assert_eq!(serve.conversations, 32 << 20);
    assert_eq!(serve.relay.unwrap().address.port(), 10000);
    assert_eq!(serve.summaries.unwrap().address.port(), 10000);
}

#[tokio::test]
async fn the_metrics_of_the_page_are_shown() {
    let semantic = SemanticCache::with(Arc::new(Echo::new(64)), &bounds()).unwrap();
    // Nobody listens there.
    let patch = json!({
        "relay": {"url": "http://127.0.0.1:1"},
        "summaries": {"url": "http://127.0.0.1:1/v1/chat/completions"},
    });
    let sidecar = Sidecar::with_questions(semantic, &patch);
    let (mut request, texts) = compares(1, &TEXTS);
    request.conversation = Some(key(1));
    sidecar.compare(&(request, texts)).await;
    sidecar.settle(vec![orders((1, 1), "x", None)], b"").await;
    sidecar.came_to("failed", 1).await;
    let (status, _) = sidecar.call(relayed()).await;
    assert_eq!(status, 502);
    let metrics = sidecar.metrics().await;
    let table = PAGE.split("## Metrics").nth(1).unwrap();
    let names: Vec<&str> = table
        .split('`')
        .filter(|name| name.starts_with("sluice_"))
        .map(|name| name.split('{').next().unwrap())
        .map(|name| name.trim_end_matches("_total"))
        .collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        assert!(
            metrics.contains(&format!("# HELP {name} ")),
            "{name} in {metrics}"
        );
    }
}
