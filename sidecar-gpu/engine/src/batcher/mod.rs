//! Many callers, one model: texts queue while the model works, and what has queued goes next.
//!
//! Nothing waits for a batch to fill up: a text that comes while the model is idle is worked on at
//! once, alone, and under load batches grow by themselves, since more arrives during a longer
//! batch. One thread owns the model; callers await their answers on whichever runtime they have.

mod queue;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_channel::oneshot;

use self::queue::{Call, Item, Queue};
use crate::{Engine, EngineError};

/// Bounds of a [`Batcher`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatcherOptions {
    /// Most tokens in a batch. A single text may have more, and is then alone. A text waits for at
    /// most the batch that it finds running, so this bounds the wait of an idle queue: on a CPU a
    /// few hundred, since larger batches are hardly faster per token there.
    pub max_tokens: usize,
    /// Most texts that wait; what comes beyond is refused with [`EngineError::Overloaded`].
    pub max_waiting: usize,
    /// How many of the oldest texts a batch is picked from. The oldest is always in it; the rest
    /// of it are the shortest of these, so that a long text delays few others.
    pub window: usize,
}

impl Default for BatcherOptions {
    fn default() -> Self {
        BatcherOptions {
            max_tokens: 512,
            max_waiting: 1024,
            window: 64,
        }
    }
}

/// What is to happen to those who wait when a [`Batcher`] is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// They still get their answers.
    Answer,
    /// They get [`EngineError::Closed`]; only the running batch is finished.
    Refuse,
}

/// What a [`Batcher`] has done, and what it has before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls of the model.
    pub batches: u64,
    /// Texts that were embedded.
    pub texts: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Texts whose caller left before their turn came.
    pub skipped: u64,
    /// Texts that were refused because too many were waiting.
    pub refused: u64,
    /// Texts for which the model failed.
    pub failed: u64,
    /// Texts that wait now.
    pub waiting: usize,
    /// Their tokens.
    pub waiting_tokens: usize,
    /// Texts in the batch that runs now.
    pub running: usize,
    /// How long the model has worked in all.
    pub busy: Duration,
}

/// An engine behind a queue. Dropping it refuses those who wait.
#[derive(Debug)]
pub struct Batcher {
    shared: Arc<Shared>,
    /// Taken by whoever shuts it down.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Batcher {
    /// Starts the thread that owns `engine`.
    ///
    /// # Errors
    /// [`EngineError::Device`] when there is no thread to be had.
    pub fn new(engine: Arc<dyn Engine>, options: BatcherOptions) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared {
            engine,
            options,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("sluice-engine".into())
            .spawn(move || worker.run())
            .map_err(|error| EngineError::Device(format!("no thread: {error}")))?;
        Ok(Batcher {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The engine: what it is, and its tokenizer, which needs no turn.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.shared.engine
    }

    /// One vector per text, in their order. See [`EngineError`] for what goes wrong.
    ///
    /// The texts are tokenized here, on the caller's thread, which takes a small part of the time
    /// that the model will; they have their place in the queue before this returns. The future only
    /// waits for the answer. Dropping it gives the place up.
    pub fn embed(
        &self,
        texts: Vec<String>,
    ) -> impl Future<Output = Result<Vec<Vec<f32>>, EngineError>> + Send + use<> {
        let engine = &self.shared.engine;
        let tokens = self.shared.room(texts.len()).and_then(|()| {
            let encode = |(index, text): (usize, &String)| {
                let tokens = engine.encode(text);
                tokens.map_err(|error| error.about(index))
            };
            texts.iter().enumerate().map(encode).collect()
        });
        let answer = tokens.and_then(|tokens| self.shared.submit(tokens));
        wait(answer)
    }

    /// The same for texts that [`Engine::encode`] was applied to already.
    pub fn embed_tokens(
        &self,
        texts: Vec<Vec<u32>>,
    ) -> impl Future<Output = Result<Vec<Vec<f32>>, EngineError>> + Send + use<> {
        wait(self.shared.submit(texts))
    }

    /// A snapshot, for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.shared.lock();
        let (waiting, waiting_tokens) = state.queue.depth();
        Stats {
            waiting,
            waiting_tokens,
            ..state.stats
        }
    }

    /// Takes no more texts, and returns when the thread has ended: after the running batch, or
    /// after all that wait. Blocks; in an async program, call it where that is allowed.
    pub fn shut_down(&self, waiting: Waiting) {
        let refused = {
            let mut state = self.shared.lock();
            state.closed = true;
            self.shared.changed.notify_all();
            match waiting {
                Waiting::Answer => Vec::new(),
                Waiting::Refuse => state.queue.take_all(),
            }
        };
        // Outside the lock: an answer wakes the caller, who may ask for something at once.
        for item in refused {
            item.call.settle(item.index, Err(EngineError::Closed));
        }
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It catches the engine's panics, and there is nothing to do about one of its own:
            // whoever still waits sees that their channel is gone.
            let _ = thread.join();
        }
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.shut_down(Waiting::Refuse);
    }
}

type Answer = Result<Vec<Vec<f32>>, EngineError>;

async fn wait(answer: Result<oneshot::Receiver<Answer>, EngineError>) -> Answer {
    // A channel that is gone without an answer: the thread is.
    answer?.await.unwrap_or(Err(EngineError::Closed))
}

struct Shared {
    engine: Arc<dyn Engine>,
    options: BatcherOptions,
    state: Mutex<State>,
    /// Something was queued, or the batcher was closed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: Queue,
    closed: bool,
    stats: Stats,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many texts more may wait.
    fn room(&self, texts: usize) -> Result<(), EngineError> {
        self.room_in(&mut self.lock(), texts)
    }

    fn room_in(&self, state: &mut State, texts: usize) -> Result<(), EngineError> {
        let limit = self.options.max_waiting;
        let (waiting, _) = state.queue.depth();
        if state.closed {
            return Err(EngineError::Closed);
        }
        if texts > limit {
            let found = texts;
            return Err(EngineError::BatchTooLarge { found, limit });
        }
        if waiting + texts > limit {
            state.stats.refused += count(texts);
            return Err(EngineError::Overloaded { waiting, limit });
        }
        Ok(())
    }

    fn submit(&self, texts: Vec<Vec<u32>>) -> Result<oneshot::Receiver<Answer>, EngineError> {
        let (reply, answer) = oneshot::channel();
        let call = Call::new(texts.len(), reply);
        let mut state = self.lock();
        self.room_in(&mut state, texts.len())?;
        for (index, tokens) in texts.into_iter().enumerate() {
            state.queue.push(Item {
                call: Arc::clone(&call),
                index,
                tokens,
            });
        }
        self.changed.notify_all();
        Ok(answer)
    }

    /// The thread.
    fn run(&self) {
        let limits = queue::Limits {
            tokens: self.options.max_tokens,
            texts: self.engine.info().max_batch,
            window: self.options.window,
        };
        let mut state = self.lock();
        loop {
            let (batch, skipped) = state.queue.take(limits);
            state.stats.skipped += count(skipped);
            if batch.is_empty() {
                if state.closed {
                    return;
                }
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.stats.running = batch.len();
            drop(state);
            let start = Instant::now();
            let (answers, batches) = self.embed(&batch);
            let busy = start.elapsed();
            state = self.lock();
            let stats = &mut state.stats;
            stats.running = 0;
            stats.batches += batches;
            stats.busy += busy;
            for (item, answer) in batch.iter().zip(&answers) {
                if answer.is_ok() {
                    stats.texts += 1;
                    stats.tokens += count(item.tokens.len());
                } else {
                    stats.failed += 1;
                }
            }
            drop(state);
            for (item, answer) in batch.into_iter().zip(answers) {
                item.call.settle(item.index, answer);
            }
            state = self.lock();
        }
    }

    /// An answer for each text, and how often the model was called for them.
    fn embed(&self, batch: &[Item]) -> (Vec<Result<Vec<f32>, EngineError>>, u64) {
        let tokens: Vec<_> = batch.iter().map(|item| item.tokens.as_slice()).collect();
        match self.call(&tokens) {
            Ok(vectors) => (vectors.into_iter().map(Ok).collect(), 1),
            Err(error) if batch.len() == 1 => (vec![Err(error)], 1),
            // One text may be the reason; the others have not deserved it.
            Err(_) => {
                let alone = |text: &&[u32]| {
                    let mut vectors = self.call(&[text])?;
                    vectors.pop().ok_or_else(no_vector)
                };
                let answers = tokens.iter().map(alone).collect();
                (answers, 1 + count(batch.len()))
            }
        }
    }

    fn call(&self, texts: &[&[u32]]) -> Answer {
        let call = AssertUnwindSafe(|| self.engine.embed_tokens(texts));
        let vectors = catch_unwind(call)
            .unwrap_or_else(|_| Err(EngineError::Device("the engine panicked".into())))?;
        if vectors.len() == texts.len() {
            Ok(vectors)
        } else {
            Err(no_vector())
        }
    }
}

fn no_vector() -> EngineError {
    EngineError::Device("the engine answered fewer texts than it was asked".into())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("engine", self.engine.info())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
