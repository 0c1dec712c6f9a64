//! Questions in other words: answered from what is stored, within their scope, or sent on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

use serde_json::json;
use sluice::config::Semantic;
use sluice::semantic::SemanticCache;
use sluice_engine::{Echo, Engine, EngineError, Generate, Generated, Info};
use sluice_wire::{
    AdmitReply, AdmitRequest, Answered, CacheAsk, CacheResult, Plan, Question, Settle, Verdict,
};

use crate::common::{Sidecar, ask, item, key, with_answer};

pub(crate) const REFUND: &str = "How do I reset my password?";

pub(crate) fn bounds() -> Semantic {
    Semantic {
        model: PathBuf::new(),
        threads: 1,
        entries: 1000,
        memory: 1 << 20,
        texts: 1 << 20,
        keep_answers: false,
    }
}

pub(crate) fn on(engine: Arc<dyn Engine>) -> Sidecar {
    Sidecar::with_questions(SemanticCache::with(engine, &bounds()).unwrap(), &json!({}))
}

/// On the stand-in, to which texts that share words are near.
pub(crate) fn sidecar() -> Sidecar {
    on(Arc::new(Echo::new(384)))
}

/// A request with a key of its own, `k`, in `scope`.
pub(crate) fn asks((n, k): (u128, u8), scope: u8, text: &str) -> AdmitRequest {
    let plan = Plan {
        key: Some(key(k)),
        scope: Some(key(scope)),
        charges: Vec::new(),
        ..Plan::default()
    };
    AdmitRequest {
        cache: CacheAsk {
            question: Some(Question {
                text: text.to_owned(),
                max_ms: 10_000,
                ..Question::default()
            }),
            ..CacheAsk::default()
        },
        ..ask(n, vec![plan])
    }
}

pub(crate) fn answers((n, k): (u128, u8), scope: u8, (text, answer): (&str, &[u8])) -> Settle {
    let mut settle = with_answer(item(n, 10), key(k), answer.len() as u64);
    settle.store.as_mut().unwrap().question = Some(Answered {
        scope: key(scope),
        text: text.to_owned(),
    });
    settle
}

impl Sidecar {
    /// Settles `text` with an answer, and returns once its question is kept.
    pub(crate) async fn learn(&self, at: (u128, u8), scope: u8, told: (&str, &[u8])) {
        let entries = self.metrics_value("sluice_semantic_entries").await.unwrap();
        self.settle(vec![answers(at, scope, told)], told.1).await;
        while self.metrics_value("sluice_semantic_entries").await.unwrap() == entries {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn found(&self, ask: &AdmitRequest) -> Option<Vec<u8>> {
        let (reply, body) = self.admit(ask).await;
        hit(&reply).then_some(body)
    }

    pub(crate) async fn counted(&self, series: &str) -> bool {
        let text = self.metrics().await;
        text.contains(&format!("sluice_semantic_lookups_total{{{series}}} 1\n"))
    }
}

fn hit(reply: &AdmitReply) -> bool {
    match &reply.verdict {
        Verdict::Hit { result, .. } => {
            assert_eq!(*result, CacheResult::Semantic);
            true
        }
        _ => false,
    }
}

#[tokio::test]
async fn a_question_in_other_words_is_answered_within_its_scope_only() {
    let sidecar = sidecar();
    sidecar.learn((1, 1), 1, (REFUND, b"By mail.")).await;
    let other = "how do i reset my password";
    let same = sidecar.found(&asks((2, 2), 1, other)).await;
    assert_eq!(same.as_deref(), Some(&b"By mail."[..]));
    assert!(sidecar.found(&asks((3, 2), 2, other)).await.is_none());
    assert!(sidecar.counted(r#"result="hit",reason="""#).await);
    assert!(sidecar.counted(r#"result="none",reason="""#).await);
    // The exact answer comes first, as what it is.
    let (exact, _) = sidecar.admit(&asks((4, 1), 1, REFUND)).await;
    let Verdict::Hit { result, .. } = exact.verdict else {
        panic!("{exact:?}");
    };
    assert_eq!(result, CacheResult::Hit);
}

#[tokio::test]
async fn a_guard_says_why_what_is_near_is_another_question() {
    let sidecar = sidecar();
    let asked = "Where is my order number 1234 from last week now?";
    sidecar.learn((1, 1), 1, (asked, b"In Lisbon.")).await;
    let other = asked.replace("1234", "1235");
    assert!(sidecar.found(&asks((2, 2), 1, &other)).await.is_none());
    assert!(sidecar.counted(r#"result="guard",reason="number""#).await);
}

#[tokio::test]
async fn an_answer_that_is_over_takes_its_question_with_it() {
    let sidecar = sidecar();
    sidecar.learn((1, 1), 1, (REFUND, b"By mail.")).await;
    sidecar.advance(600_000);
    assert!(
        sidecar
            .found(&asks((2, 2), 1, "how do i reset my password"))
            .await
            .is_none()
    );
    assert!(sidecar.counted(r#"result="none",reason="""#).await);
}

#[tokio::test]
async fn only_answers_with_status_200_are_told_to_other_questions() {
    let sidecar = sidecar();
    let mut refused = answers((1, 1), 1, (REFUND, b"No."));
    refused.store.as_mut().unwrap().entry.status = 400;
    sidecar.settle(vec![refused], b"No.").await;
    sidecar.learn((2, 2), 2, (REFUND, b"By mail.")).await;
    assert!(sidecar.found(&asks((3, 3), 1, REFUND)).await.is_none());
}

/// An engine that answers with an error, at once or when the other end of `held` is let go.
struct Broken {
    echo: Echo,
    held: Option<Mutex<mpsc::Receiver<()>>>,
}

impl Engine for Broken {
    fn info(&self) -> &Info {
        self.echo.info()
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.echo.encode(text)
    }

    fn embed_tokens(&self, _: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError> {
        if let Some(held) = &self.held {
            // Ends with an error, as nothing is ever sent.
            held.lock().unwrap().recv().unwrap_err();
        }
        Err(EngineError::Device("it is gone".into()))
    }

    fn generate(
        &self,
        ask: &Generate<'_>,
        piece: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError> {
        self.echo.generate(ask, piece)
    }
}

#[tokio::test]
async fn a_model_that_fails_or_takes_too_long_is_a_miss() {
    for (hangs, result) in [(false, "error"), (true, "timeout")] {
        let (holds, held) = mpsc::channel();
        let sidecar = on(Arc::new(Broken {
            echo: Echo::new(384),
            held: hangs.then(|| Mutex::new(held)),
        }));
        let mut request = asks((1, 1), 1, REFUND);
        if hangs {
            request.cache.question.as_mut().unwrap().max_ms = 5;
        }
        assert!(sidecar.found(&request).await.is_none());
        assert!(
            sidecar
                .counted(&format!(r#"result="{result}",reason="""#))
                .await
        );
        drop(holds);
    }
}

#[tokio::test]
async fn a_folder_without_a_model_is_refused_with_the_fields_name() {
    let data = tempfile::tempdir().unwrap();
    let patch = json!({"semantic": {"model": data.path().join("nothing")}});
    let config = crate::common::serve_config(data.path(), &patch);
    let error = sluice::App::open(config, sluice::clock::Clock::System)
        .err()
        .unwrap()
        .to_string();
    assert!(error.starts_with("serve.semantic.model: "), "{error}");
}

/// The model of `SLUICE_MODEL`, which must then be there, or that of `cargo xtask setup model`.
pub(crate) fn model() -> Option<PathBuf> {
    let told = std::env::var_os("SLUICE_MODEL").map(PathBuf::from);
    let required = told.is_some() || std::env::var_os("SLUICE_REQUIRE_ALL").is_some();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = told.unwrap_or_else(|| root.join("../target/models/all-MiniLM-L6-v2"));
    if !required && !folder.is_dir() {
        eprintln!("SKIPPED: no model in {}", folder.display());
        return None;
    }
    Some(folder)
}

#[tokio::test]
async fn the_real_model_tells_paraphrases_from_near_questions_also_after_a_restart() {
    let Some(model) = model() else { return };
    let data = tempfile::tempdir().unwrap();
    let patch = json!({"semantic": {"model": model, "keep_answers": true}});
    let paraphrases = [
        "How can I reset my password?",
        "how do i reset my password",
        "What is the way to reset my password?",
    ];
    let others = [
        "How do I not reset my password?",
        "How do I reset my username?",
        "How do I reset 2 passwords?",
        "Why do I reset my password?",
    ];
    let sidecar = Sidecar::at(data.path(), &patch);
    sidecar.learn((1, 1), 1, (REFUND, b"By mail.")).await;
    for text in paraphrases {
        let found = sidecar.found(&asks((2, 2), 1, text)).await;
        assert_eq!(found.as_deref(), Some(&b"By mail."[..]), "{text}");
    }
    for text in others {
        assert!(
            sidecar.found(&asks((2, 2), 1, text)).await.is_none(),
            "{text}"
        );
    }
    sidecar.app.leave().await;
    drop(sidecar);

    let again = Sidecar::at(data.path(), &patch);
    again.app.restore().await;
    let found = again.found(&asks((3, 2), 1, paraphrases[0])).await;
    assert_eq!(found.as_deref(), Some(&b"By mail."[..]));
    again.app.leave().await;
    drop(again);

    // Answers are not kept this time: its is missed, and its question forgotten.
    let patch = json!({"semantic": {"model": patch["semantic"]["model"]}});
    let again = Sidecar::at(data.path(), &patch);
    again.app.restore().await;
    assert_eq!(
        again.metrics_value("sluice_semantic_entries").await,
        Some(1)
    );
    assert!(!data.path().join("semantic.answers").exists());
    assert!(
        again
            .found(&asks((3, 2), 1, paraphrases[0]))
            .await
            .is_none()
    );
    assert!(again.counted(r#"result="missing",reason="""#).await);
    assert_eq!(
        again.metrics_value("sluice_semantic_entries").await,
        Some(0)
    );
}
