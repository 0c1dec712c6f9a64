//! The semantic cache: embeds a question, finds the stored ones that ask the same, keeps new ones.
//!
//! It knows which answers would do, not the answers: those are in the exact cache, under the keys
//! that it gives. An answer that is gone there takes its question with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use moka::sync::Cache;
use sluice_engine::{
    Batcher, BatcherOptions, Engine, EngineError, LoadError, LoadOptions, Waiting, load,
};
use tokio::sync::Semaphore;

use super::agree::{Agreement, agree};
use super::file::{self, Unusable};
use super::index::{Bounds, Index, Near, Row, Size, Stored};
use super::shared::{Exchanged, Shared};
use super::threshold::{Found, Judged, Thresholds};
use super::{DEFAULT_THRESHOLD, MAX_BYTES, Question, Reading, Verdict, Vocabulary, judge};
use crate::cache::Key;
use crate::config::Semantic;
use crate::relevance;
use crate::store::{Link, StoreError};

/// Bytes of vectors kept of the questions asked last: an answer that comes is stored with the
/// vector of its look-up.
const RECENT: u64 = 16 << 20;
/// Most questions that wait to be embedded: more could not be answered in time.
const WAITING: usize = 256;
/// Most answers whose questions wait to be stored.
const STORING: usize = 256;

/// Most audits whose answers wait to be compared, one after another: questions wait for the same
/// model, and are more urgent.
const JUDGING: usize = 64;

/// Why there is no embedding model.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder.
    #[error("serve.semantic.model: {0}")]
    Load(#[from] LoadError),
    /// Its thread.
    #[error("serve.semantic.model: {0}")]
    Engine(#[from] EngineError),
}

/// What a look-up or a store came to, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// `hit`, `none` (nothing near), `guard`, `below` (the threshold), `missing` (the answer is
    /// gone), `timeout`, `overloaded`, `too_long`, `error`; `stored`.
    pub result: &'static str,
    /// The guard's reason.
    pub reason: &'static str,
}

impl Told {
    pub(crate) fn plain(result: &'static str) -> Self {
        Told { result, reason: "" }
    }
}

/// Questions and where their answers are.
pub struct SemanticCache {
    batcher: Batcher,
    words: Option<Vocabulary>,
    index: Index,
    recent: Cache<String, Arc<Row>>,
    /// Questions whose vector was among `recent`, and those that were embedded.
    pub(crate) embedded: [AtomicU64; 2],
    file: Option<PathBuf>,
    storing: Arc<Semaphore>,
    judging: Semaphore,
    /// Its turn: one answer is embedded at a time.
    judge: tokio::sync::Mutex<()>,
    bounds: Bounds,
    texts: relevance::Options,
    thresholds: Thresholds,
    shared: Option<Shared>,
}

impl SemanticCache {
    /// Loads the model, and the questions that were saved in `data`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: &Semantic, (data, now_ms): (&Path, u64)) -> Result<Self, OpenError> {
        let start = Instant::now();
        log::info!("semantic cache: loading {}", config.model.display());
        let options = LoadOptions {
            threads: config.threads,
            ..LoadOptions::default()
        };
        let engine = load(&config.model, &options)?;
        let words = Vocabulary::of_model(&config.model);
        if words.is_none() {
            log::info!(
                "semantic cache: no word pieces in tokenizer.json, so no misspelling is forgiven"
            );
        }
        let mut cache = SemanticCache::with(engine, config)?;
        cache.words = words;
        let info = cache.batcher.engine().info();
        log::info!(
            "semantic cache: {} ready after {} ms",
            info.model,
            start.elapsed().as_millis()
        );
        let path = data.join("semantic.index");
        match file::load(&cache.index, cache.made_by(), (&path, now_ms)) {
            Ok(0) => {}
            Ok(count) => log::info!("semantic cache: {count} questions of an earlier run"),
            Err(error @ Unusable::Other) => {
                log::info!(
                    "semantic cache: {}: {error}; starting empty",
                    path.display()
                );
            }
            Err(error) => {
                log::warn!(
                    "semantic cache: {}: {error}; starting empty",
                    path.display()
                );
            }
        }
        cache.file = Some(path);
        cache.thresholds = Thresholds::open(data, cache.made_by().0);
        Ok(cache)
    }

    /// One on `engine` that saves nothing.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn with(engine: Arc<dyn Engine>, config: &Semantic) -> Result<Self, OpenError> {
        let dimensions = engine.info().dimensions;
        let row = u32::try_from(dimensions).unwrap_or(u32::MAX);
        let options = BatcherOptions {
            max_waiting: WAITING,
            ..BatcherOptions::default()
        };
        let bounds = Bounds {
            entries: config.entries,
            bytes: usize::try_from(config.memory).unwrap_or(usize::MAX),
        };
        Ok(SemanticCache {
            batcher: Batcher::new(engine, options)?,
            words: None,
            index: Index::new(dimensions, bounds),
            recent: Cache::builder()
                .max_capacity(RECENT)
                .weigher(move |text: &String, _| {
                    let text = u32::try_from(text.len()).unwrap_or(u32::MAX);
                    text.saturating_add(row).saturating_add(200)
                })
                .build(),
            embedded: Default::default(),
            file: None,
            storing: Arc::new(Semaphore::new(STORING)),
            judging: Semaphore::new(JUDGING),
            judge: tokio::sync::Mutex::default(),
            bounds,
            texts: relevance::Options {
                bytes: config.texts,
                threads: config.threads,
            },
            thresholds: Thresholds::default(),
            shared: None,
        })
    }

    /// Shares with the other sidecars on the Redis behind `link` from now on.
    pub(crate) fn share(&mut self, link: Arc<Link>) {
        self.shared = Some(Shared::new(link, self.made_by(), self.bounds));
    }

    /// Tells the other sidecars what is new here, and learns from them.
    pub(crate) async fn catch_up(&self) {
        if let Some(shared) = &self.shared {
            shared.turn(&self.index, &self.thresholds).await;
        }
    }

    /// How the exchange with other sidecars fares, where there is one.
    #[must_use]
    pub fn exchanged(&self) -> Option<Exchanged> {
        self.shared.as_ref().map(Shared::exchanged)
    }

    /// The probability from which two questions of `route` count as one, where it finds itself.
    pub(crate) fn threshold(&self, route: &str) -> f32 {
        self.thresholds.of(route).threshold() as f32
    }

    /// What was found of each route's threshold.
    #[must_use]
    pub fn thresholds(&self) -> Vec<(String, Found)> {
        self.thresholds.all()
    }

    /// Compares the stored answer of an audit with upstream's, and moves the threshold of `route` to
    /// hold `rate`.
    pub(crate) async fn audited(
        &self,
        answers: (&[u8], &[u8]),
        (route, rate): (&str, f64),
    ) -> Agreement {
        let Ok(_room) = self.judging.try_acquire() else {
            return Agreement::Unjudged;
        };
        let _turn = self.judge.lock().await;
        let agreement = agree(answers, &self.batcher, self.words.as_ref()).await;
        let different = match agreement {
            Agreement::Same => false,
            Agreement::Different => true,
            Agreement::Unjudged => return agreement,
        };
        let judged = Judged { different, rate };
        self.thresholds.judged(route, judged, self.shared.is_some());
        agreement
    }

    /// Forgets all questions, here and where they are shared.
    pub(crate) async fn clear(&self) -> Result<(), StoreError> {
        self.index.clear();
        match &self.shared {
            Some(shared) => shared.clear().await,
            None => Ok(()),
        }
    }

    /// The model that questions are compared by.
    pub(crate) fn engine(&self) -> &Arc<dyn Engine> {
        self.batcher.engine()
    }

    /// How texts are to be compared that are no questions of this cache.
    pub(crate) fn text_options(&self) -> relevance::Options {
        self.texts
    }

    fn made_by(&self) -> (&str, usize) {
        let info = self.batcher.engine().info();
        (&info.revision, info.dimensions)
    }

    async fn embed(&self, text: &str) -> Result<Arc<Row>, Told> {
        if text.len() > MAX_BYTES {
            return Err(Told::plain("too_long"));
        }
        let known = self.recent.get(text);
        self.embedded[usize::from(known.is_none())].fetch_add(1, Ordering::Relaxed);
        if let Some(row) = known {
            return Ok(row);
        }
        let mut vectors = self
            .batcher
            .embed(vec![text.to_owned()])
            .await
            .map_err(|error| {
                Told::plain(match error {
                    EngineError::Overloaded { .. } => "overloaded",
                    EngineError::TooLong { .. } => "too_long",
                    _ => "error",
                })
            })?;
        let vector = vectors.pop().ok_or(Told::plain("error"))?;
        let row = Arc::new(Row::of(&vector));
        self.recent.insert(text.to_owned(), row.clone());
        Ok(row)
    }

    /// The keys of the answers that would do for a question, likeliest first; never none.
    pub(crate) async fn alike(
        self: &Arc<Self>,
        (scope, text): (Key, &str),
        (threshold, now_ms): (Option<f32>, u64),
    ) -> Result<Vec<Key>, Told> {
        let row = self.embed(text).await?;
        let (cache, text) = (self.clone(), text.to_owned());
        // A scan of a large scope takes milliseconds.
        let judged = tokio::task::spawn_blocking(move || {
            let near = cache.index.search(&scope, &row, now_ms);
            let question = Question::read(&text);
            let threshold = threshold.unwrap_or(DEFAULT_THRESHOLD);
            choose(&near, threshold, |near| {
                judge(&near.question, &question, near.cosine, cache.words.as_ref())
            })
        });
        judged.await.unwrap_or(Err(Told::plain("error")))
    }

    /// A question was answered with the answer of `key`.
    pub(crate) fn used(&self, key: &Key) {
        self.index.used(key);
    }

    /// The answer of `key` is gone.
    pub(crate) fn gone(&self, key: &Key) {
        self.index.remove(key);
    }

    /// Keeps a question whose answer was stored under `key`.
    pub(crate) async fn keep(
        self: &Arc<Self>,
        (scope, text): (Key, &str),
        (key, until_ms): (Key, u64),
    ) -> Told {
        let Ok(_turn) = self.storing.try_acquire() else {
            return Told::plain("overloaded");
        };
        let row = match self.embed(text).await {
            Ok(row) => row,
            Err(told) => return told,
        };
        let question = Question::read(text);
        if question.reading() == Reading::TooLong {
            return Told::plain("too_long");
        }
        let stored = Stored {
            scope,
            key,
            question: Arc::new(question),
            until_ms,
        };
        if let Some(shared) = &self.shared {
            shared.tell(&stored, &row);
        }
        self.index.insert(stored, &row);
        Told::plain("stored")
    }

    /// Removes what is over.
    pub(crate) fn expire(&self, now_ms: u64) {
        self.index.expire(now_ms);
    }

    /// Writes the questions and the thresholds down for the next start. Blocks.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self) -> std::io::Result<()> {
        self.thresholds.save()?;
        match &self.file {
            None => Ok(()),
            Some(path) => file::save(&self.index, self.made_by(), path),
        }
    }

    /// Keys of the answers that questions are known of.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.index.keys()
    }

    /// What the index holds.
    #[must_use]
    pub fn size(&self) -> Size {
        self.index.size()
    }

    /// Questions that wait to be embedded.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.batcher.stats().waiting
    }

    /// Embeds nothing from now on.
    pub(crate) fn close(&self) {
        self.batcher.shut_down(Waiting::Refuse);
    }
}

/// Those that ask the same, likeliest first, or why there is none: what was said of the nearest.
fn choose(
    near: &[Near],
    threshold: f32,
    mut judge: impl FnMut(&Near) -> Verdict,
) -> Result<Vec<Key>, Told> {
    let mut alike: Vec<(f32, Key)> = Vec::new();
    let mut nearest = Told::plain("none");
    for (at, near) in near.iter().enumerate() {
        let told = match judge(near) {
            Verdict::Probability(probability) if probability >= threshold => {
                alike.push((probability, near.key));
                continue;
            }
            Verdict::Probability(_) => Told::plain("below"),
            Verdict::Refused(refusal) => Told {
                result: "guard",
                reason: refusal.name(),
            },
        };
        if at == 0 {
            nearest = told;
        }
    }
    if alike.is_empty() {
        return Err(nearest);
    }
    // Stable: of equals the nearer comes first.
    alike.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(alike.into_iter().map(|(_, key)| key).collect())
}

#[cfg(test)]
mod tests {
    use super::super::Refusal;
    use super::*;

    fn near(n: u8, cosine: f32) -> Near {
        Near {
            key: Key::new([n; 32]),
            cosine,
            question: Arc::new(Question::read("Hi")),
        }
    }

    /// The verdict is what the cosine stands for.
    fn chosen(cosines: &[f32]) -> Result<Vec<Key>, Told> {
        let near: Vec<_> = (1..)
            .zip(cosines)
            .map(|(n, cosine)| near(n, *cosine))
            .collect();
        choose(&near, 0.9, |near| match near.cosine {
            0.8 => Verdict::Refused(Refusal::Number),
            probability => Verdict::Probability(probability),
        })
    }

    #[test]
    fn the_likeliest_comes_first_and_of_none_the_nearest_says_why() {
        let key = |n| Key::new([n; 32]);
        assert_eq!(
            chosen(&[0.91, 0.8, 0.99, 0.91]),
            Ok(vec![key(3), key(1), key(4)])
        );
        assert_eq!(chosen(&[]), Err(Told::plain("none")));
        assert_eq!(chosen(&[0.5, 0.8]), Err(Told::plain("below")));
        let guard = Told {
            result: "guard",
            reason: "number",
        };
        assert_eq!(chosen(&[0.8, 0.5]), Err(guard));
    }
}
