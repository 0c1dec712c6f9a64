//! How near texts are to a question, so that a request can be trimmed by it: the old messages of a
//! conversation, the chunks of a retrieval.
//!
//! A text's vector is remembered, so that a conversation's old messages are embedded once. What is
//! new is embedded while the request's caches are looked up, the newest text first, for as long as
//! the filter gives it; what did not get its turn is embedded behind the answer, one after another,
//! so that the next turn has it.
//!
//! The batcher is another than the semantic cache's, on the same model: a look-up by meaning, which
//! has milliseconds, waits for no conversation.

mod later;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sluice_engine::{Batcher, BatcherOptions, Engine, EngineError, Waiting};
use sluice_wire::Similarity;
use tokio::time::{Instant, timeout_at};

use self::later::Later;
use crate::semantic::Row;
use crate::text::cut;

/// Most tokens in a batch, for each thread of the model: a text waits for the batch that it finds
/// running, and more together are hardly faster on a CPU. One text is one thread's work.
const BATCH_TOKENS: usize = 256;
/// Most texts that wait for a batch: beyond, requests are told that theirs are not known.
const WAITING: usize = 512;
/// Texts of one request that wait for a batch at the same time, and so many more for each further
/// thread. They are tokenized when their turn comes to wait, about a millisecond each, on the thread
/// that serves the request.
const AT_ONCE: usize = 4;
const AT_ONCE_MORE: usize = 2;
/// Bytes of texts that are embedded together behind answers, for each thread: about [`BATCH_TOKENS`]
/// of them, so that a request's own wait for one batch.
const BEHIND: usize = 1024;
/// What a vector costs beside its parts: its key, moka's nodes, what allocation adds.
const OVERHEAD: usize = 256;

/// How much may be remembered, and what works on the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Bytes of vectors, those used last.
    pub(crate) bytes: u64,
    /// Threads of the model.
    pub(crate) threads: usize,
}

/// Which text of whom, as which model reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id([u8; 16]);

/// Texts to compare.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    /// Whose they are: what one tenant's request has had embedded is known to that tenant alone, as
    /// the time of an answer would tell others.
    pub(crate) tenant: String,
    /// What they are compared with.
    pub(crate) question: String,
    /// The texts, oldest first.
    pub(crate) texts: Vec<String>,
    /// How long it may take.
    pub(crate) patience: Duration,
}

/// What became of texts, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// The vector was remembered.
    pub(crate) known: u64,
    /// Embedded in time.
    pub(crate) embedded: u64,
    /// Not in time: embedded behind the answer.
    pub(crate) late: u64,
    /// Not in time, and too much waits already.
    pub(crate) dropped: u64,
    /// There, and nothing to compare them with: the question was not embedded in time.
    pub(crate) unasked: u64,
    /// The model failed.
    pub(crate) failed: u64,
}

/// Sizes, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Texts whose vector is remembered.
    pub(crate) entries: u64,
    /// Bytes that they take, about.
    pub(crate) bytes: u64,
    /// Texts that wait to be embedded behind answers.
    pub(crate) waiting: u64,
    /// Texts that were, since the start.
    pub(crate) behind: u64,
}

/// The model, and what it has read.
pub(crate) struct Scorer {
    batcher: Batcher,
    known: Cache<Id, Arc<Row>>,
    /// Makes ids that another revision of the model would not make.
    secret: [u8; blake3::KEY_LEN],
    later: Later,
    behind: AtomicU64,
    threads: usize,
}

impl Scorer {
    /// One on `engine` that remembers nothing yet.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn new(engine: Arc<dyn Engine>, options: Options) -> Result<Self, EngineError> {
        let Options { bytes, threads } = options;
        let weight = engine.info().dimensions.saturating_add(OVERHEAD);
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        let secret = *blake3::hash(engine.info().revision.as_bytes()).as_bytes();
        let options = BatcherOptions {
            max_tokens: BATCH_TOKENS.saturating_mul(threads),
            max_waiting: WAITING,
            ..BatcherOptions::default()
        };
        Ok(Scorer {
            batcher: Batcher::new(engine, options)?,
            known: Cache::builder()
                .max_capacity(bytes)
                .eviction_policy(EvictionPolicy::lru())
                .weigher(move |_: &Id, _: &Arc<Row>| weight)
                .build(),
            secret,
            later: Later::default(),
            behind: AtomicU64::new(0),
            threads: threads.max(1),
        })
    }

    fn id(&self, tenant: &str, text: &str) -> Id {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&(tenant.len() as u64).to_le_bytes());
        hasher.update(tenant.as_bytes()).update(text.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Id(id)
    }

    /// How near each text is to the question, as far as that is known at `until`.
    ///
    /// Dropping the future gives the texts up that were not embedded yet: nobody waits for them.
    pub(crate) async fn compare(
        self: &Arc<Self>,
        comparison: &Comparison,
        until: Instant,
    ) -> (Vec<Similarity>, Tally) {
        let Comparison {
            tenant,
            question,
            texts,
            ..
        } = comparison;
        let ids: Vec<Id> = texts.iter().map(|text| self.id(tenant, text)).collect();
        let mut rows: Vec<_> = ids.iter().map(|id| Found::of(self.known.get(id))).collect();
        let asked = self.id(tenant, question);
        let mut question_row = Found::of(self.known.get(&asked));
        let mut tally = Tally {
            known: rows.iter().filter(|row| row.is_known()).count() as u64,
            ..Tally::default()
        };
        // The question first: without it nothing can be told.
        let missing = rows.iter().enumerate().rev();
        let missing = missing.filter(|(_, row)| !row.is_known());
        let mut wanted: Vec<_> = missing.map(|(at, _)| (Some(at), ids[at])).collect();
        if !question_row.is_known() {
            wanted.insert(0, (None, asked));
        }
        let mut embedding = stream::iter(wanted)
            .map(async |(at, id)| {
                let text = at.and_then(|at| texts.get(at)).unwrap_or(question);
                (at, self.embed(id, text).await)
            })
            .buffer_unordered(AT_ONCE + AT_ONCE_MORE * (self.threads - 1));
        while Instant::now() < until
            && let Ok(Some((at, row))) = timeout_at(until, embedding.next()).await
        {
            let found = match row {
                Ok(row) => Found::Row(row),
                // Others wait already, and those of this request that are left would be refused too.
                Err(EngineError::Overloaded { .. }) => break,
                Err(_) => Found::Failed,
            };
            if at.is_some() {
                tally.count(&found);
            }
            match at.and_then(|at| rows.get_mut(at)) {
                Some(place) => *place = found,
                None => question_row = found,
            }
        }
        drop(embedding);
        if !question_row.is_known() {
            tally.without_question();
        }
        self.put_off((&ids, texts), &rows, &mut tally);
        let similarities = rows.iter().map(|row| row.similarity(&question_row));
        (similarities.collect(), tally)
    }

    /// What was not in time is embedded behind the answer, the newest first.
    fn put_off(
        self: &Arc<Self>,
        (ids, texts): (&[Id], &[String]),
        rows: &[Found],
        tally: &mut Tally,
    ) {
        let all = ids.iter().zip(texts).zip(rows).rev();
        for ((id, text), _) in all.filter(|(_, row)| matches!(row, Found::Late)) {
            match self.later.push(*id, text) {
                true => tally.late += 1,
                false => tally.dropped += 1,
            }
        }
        if self.later.begin() {
            tokio::spawn(self.clone().catch_up());
        }
    }

    async fn catch_up(self: Arc<Self>) {
        loop {
            let group = self.later.next(BEHIND.saturating_mul(self.threads));
            if group.is_empty() {
                return;
            }
            let embedding = group.iter().map(|(id, text)| self.embed(*id, text));
            let done = join_all(embedding).await;
            let embedded = done.iter().filter(|row| row.is_ok()).count();
            self.behind.fetch_add(embedded as u64, Ordering::Relaxed);
            self.later.done(group.iter().map(|(id, _)| id));
        }
    }

    async fn embed(&self, id: Id, text: &str) -> Result<Arc<Row>, EngineError> {
        // Another one's turn may have come first.
        if let Some(row) = self.known.get(&id) {
            return Ok(row);
        }
        let tokens = beginning(&**self.batcher.engine(), text)?;
        let mut vectors = self.batcher.embed_tokens(vec![tokens]).await?;
        let vector = vectors.pop().unwrap_or_default();
        let row = Arc::new(Row::of(&vector));
        self.known.insert(id, row.clone());
        Ok(row)
    }

    /// What it holds.
    pub(crate) fn size(&self) -> Size {
        self.known.run_pending_tasks();
        Size {
            entries: self.known.entry_count(),
            bytes: self.known.weighted_size(),
            waiting: self.later.len() as u64,
            behind: self.behind.load(Ordering::Relaxed),
        }
    }

    /// Embeds nothing from now on. Blocks until the running batch is done.
    pub(crate) fn close(&self) {
        self.later.close();
        self.batcher.shut_down(Waiting::Refuse);
    }
}

impl Tally {
    /// A text's turn came.
    fn count(&mut self, found: &Found) {
        match found {
            Found::Row(_) => self.embedded += 1,
            Found::Failed => self.failed += 1,
            Found::Late => {}
        }
    }

    /// The question's vector is not there.
    fn without_question(&mut self) {
        self.unasked = self.known + self.embedded;
        (self.known, self.embedded) = (0, 0);
    }
}

/// What is known of a text.
enum Found {
    Row(Arc<Row>),
    Late,
    Failed,
}

impl Found {
    fn of(known: Option<Arc<Row>>) -> Self {
        known.map_or(Found::Late, Found::Row)
    }

    fn is_known(&self) -> bool {
        matches!(self, Found::Row(_))
    }

    fn similarity(&self, other: &Found) -> Similarity {
        match (self, other) {
            (Found::Row(one), Found::Row(other)) => Similarity::of(one.cosine(other)),
            _ => Similarity::UNKNOWN,
        }
    }
}

/// The tokens of `text`, or of as much of its beginning as the model can read: the engine refuses
/// what is longer, as it must where a vector stands for the whole of a question.
fn beginning(engine: &dyn Engine, text: &str) -> Result<Vec<u32>, EngineError> {
    let mut text = text;
    loop {
        match engine.encode(text) {
            Err(EngineError::TooLong { found, limit, .. }) if !text.is_empty() => {
                // Tokens are spread about evenly; a tenth less, so that few tries are needed.
                let fits = text.len() / 10 * 9 * limit / found.max(limit).max(1);
                text = cut(text, fits);
            }
            tokens => return tokens,
        }
    }
}
