//! The batcher before an engine that waits until the test lets it go on.

use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::*;
use crate::{Echo, Generate, Generated, Info};

/// An engine that shows each batch and answers when it is told how.
struct Gate {
    info: Info,
    shown: Mutex<Sender<Vec<Vec<u32>>>>,
    told: Mutex<Receiver<Reply>>,
}

#[derive(Clone, Copy)]
enum Reply {
    /// Each text's vector is its number of tokens.
    Lengths,
    Fail,
    Panic,
    /// One vector too few.
    Short,
}

impl Engine for Gate {
    fn info(&self) -> &Info {
        &self.info
    }

    /// One token per byte.
    fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let limit = self.info.max_tokens;
        if text.len() > limit {
            return Err(EngineError::TooLong {
                index: 0,
                found: text.len(),
                limit,
            });
        }
        Ok(text.bytes().map(u32::from).collect())
    }

    fn embed_tokens(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError> {
        let batch = texts.iter().map(|tokens| tokens.to_vec()).collect();
        self.shown.lock().unwrap().send(batch).unwrap();
        let told = self.told.lock().unwrap().recv().unwrap();
        let mut vectors: Vec<_> = texts.iter().map(|text| vec![text.len() as f32]).collect();
        match told {
            Reply::Lengths => {}
            Reply::Fail => return Err(EngineError::Device("as told".into())),
            Reply::Panic => std::panic::resume_unwind(Box::new("as told")),
            Reply::Short => drop(vectors.pop()),
        }
        Ok(vectors)
    }

    fn generate(
        &self,
        _: &Generate<'_>,
        _: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError> {
        Err(EngineError::Closed)
    }
}

/// A batcher and the other side of its gate.
struct Setup {
    batcher: Arc<Batcher>,
    shown: Receiver<Vec<Vec<u32>>>,
    tell: Sender<Reply>,
}

impl Setup {
    fn new(options: BatcherOptions) -> Self {
        let (shown, batches) = channel();
        let (tell, told) = channel();
        let gate = Gate {
            info: Info {
                model: "gate".into(),
                revision: "1".into(),
                dimensions: 1,
                max_batch: 8,
                max_tokens: 100,
            },
            shown: Mutex::new(shown),
            told: Mutex::new(told),
        };
        Setup {
            batcher: Arc::new(Batcher::new(Arc::new(gate), options).unwrap()),
            shown: batches,
            tell,
        }
    }

    /// The lengths of the texts in the batch that the engine was given next.
    fn next(&self) -> Vec<usize> {
        let batch = self.shown.recv().unwrap();
        batch.iter().map(Vec::len).collect()
    }

    fn tell(&self, reply: Reply) {
        self.tell.send(reply).unwrap();
    }

    /// Keeps the engine busy with a text of one token.
    fn occupy(&self) -> impl Future<Output = Answer> + use<> {
        let answer = self.batcher.embed(texts(&[1]));
        assert_eq!(self.next(), [1]);
        answer
    }
}

fn texts(lengths: &[usize]) -> Vec<String> {
    lengths.iter().map(|&length| "x".repeat(length)).collect()
}

fn vectors(lengths: &[usize]) -> Answer {
    Ok(lengths.iter().map(|&length| vec![length as f32]).collect())
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A runtime of one future.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn what_queues_while_the_model_works_is_the_next_batch() {
    let setup = Setup::new(BatcherOptions::default());
    let first = setup.occupy();
    // Two callers, one of them with two texts.
    let second = setup.batcher.embed(texts(&[2]));
    let third = setup.batcher.embed(texts(&[3, 4]));
    let stats = setup.batcher.stats();
    assert_eq!(
        (stats.running, stats.waiting, stats.waiting_tokens),
        (1, 3, 9)
    );
    setup.tell(Reply::Lengths);
    assert_eq!(block_on(first), vectors(&[1]));
    assert_eq!(setup.next(), [2, 3, 4]);
    setup.tell(Reply::Lengths);
    assert_eq!(block_on(third), vectors(&[3, 4]));
    assert_eq!(block_on(second), vectors(&[2]));
    let stats = setup.batcher.stats();
    assert_eq!((stats.batches, stats.texts, stats.tokens), (2, 4, 10));
    assert_eq!(
        (stats.running, stats.waiting, stats.waiting_tokens),
        (0, 0, 0)
    );
    assert!(stats.busy > Duration::ZERO);
}

#[test]
fn an_idle_model_takes_a_text_at_once() {
    let setup = Setup::new(BatcherOptions::default());
    let answer = setup.occupy();
    setup.tell(Reply::Lengths);
    assert_eq!(block_on(answer), vectors(&[1]));
}

#[test]
fn no_texts_are_answered_without_the_model() {
    let setup = Setup::new(BatcherOptions::default());
    assert_eq!(block_on(setup.batcher.embed(Vec::new())), Ok(Vec::new()));
}

#[test]
fn a_batch_keeps_to_its_tokens_and_has_the_oldest_and_the_shortest() {
    let setup = Setup::new(BatcherOptions {
        max_tokens: 20,
        window: 4,
        ..BatcherOptions::default()
    });
    let first = setup.occupy();
    // The last two are outside the window at first: of 15, 9, 3 and 7, 15 and 3 fit.
    let others = setup.batcher.embed(texts(&[15, 9, 3, 7, 1, 2]));
    setup.tell(Reply::Lengths);
    for batch in [&[15, 3][..], &[9, 7, 1, 2]] {
        assert_eq!(setup.next(), batch);
        setup.tell(Reply::Lengths);
    }
    assert_eq!(block_on(first), vectors(&[1]));
    // In the order of the call, whatever the order of the work.
    assert_eq!(block_on(others), vectors(&[15, 9, 3, 7, 1, 2]));
}

#[test]
fn a_text_longer_than_a_batch_goes_alone() {
    let setup = Setup::new(BatcherOptions {
        max_tokens: 20,
        ..BatcherOptions::default()
    });
    let _first = setup.occupy();
    let _others = setup.batcher.embed(texts(&[50, 1]));
    setup.tell(Reply::Lengths);
    assert_eq!(setup.next(), [50]);
    setup.tell(Reply::Lengths);
    assert_eq!(setup.next(), [1]);
    setup.tell(Reply::Lengths);
}

#[test]
fn a_batch_has_no_more_texts_than_the_engine_takes() {
    let setup = Setup::new(BatcherOptions::default());
    let _first = setup.occupy();
    let answer = setup.batcher.embed(texts(&[1; 11]));
    setup.tell(Reply::Lengths);
    assert_eq!(setup.next(), [1; 8]);
    setup.tell(Reply::Lengths);
    assert_eq!(setup.next(), [1; 3]);
    setup.tell(Reply::Lengths);
    assert_eq!(block_on(answer), vectors(&[1; 11]));
}

#[test]
fn callers_that_left_are_skipped() {
    let setup = Setup::new(BatcherOptions::default());
    let first = setup.occupy();
    let gone = setup.batcher.embed(texts(&[2, 3]));
    let stays = setup.batcher.embed(texts(&[4]));
    drop(gone);
    setup.tell(Reply::Lengths);
    assert_eq!(setup.next(), [4]);
    setup.tell(Reply::Lengths);
    assert_eq!(block_on(first), vectors(&[1]));
    assert_eq!(block_on(stays), vectors(&[4]));
    let stats = setup.batcher.stats();
    assert_eq!((stats.skipped, stats.texts, stats.waiting), (2, 2, 0));
}

#[test]
fn a_full_queue_refuses_and_says_how_full_it_is() {
    let setup = Setup::new(BatcherOptions {
        max_waiting: 3,
        ..BatcherOptions::default()
    });
    let first = setup.occupy();
    let second = setup.batcher.embed(texts(&[2, 3]));
    let error = block_on(setup.batcher.embed(texts(&[4, 5]))).unwrap_err();
    let expected = EngineError::Overloaded {
        waiting: 2,
        limit: 3,
    };
    assert_eq!(error, expected);
    assert!(error.retry());
    // More than ever fits is no matter of load.
    let error = block_on(setup.batcher.embed(texts(&[1; 4]))).unwrap_err();
    assert_eq!(error, EngineError::BatchTooLarge { found: 4, limit: 3 });
    assert!(!error.retry());
    let third = setup.batcher.embed(texts(&[4]));
    for _ in 0..2 {
        setup.tell(Reply::Lengths);
    }
    assert_eq!(setup.next(), [2, 3, 4]);
    assert_eq!(block_on(first), vectors(&[1]));
    assert_eq!(block_on(second), vectors(&[2, 3]));
    assert_eq!(block_on(third), vectors(&[4]));
    assert_eq!(setup.batcher.stats().refused, 2);
}

#[test]
fn a_text_that_is_too_long_is_named_and_does_not_queue() {
    let setup = Setup::new(BatcherOptions::default());
    let answer = setup.batcher.embed(texts(&[1, 101]));
    assert_eq!(
        block_on(answer),
        Err(EngineError::TooLong {
            index: 1,
            found: 101,
            limit: 100
        })
    );
    assert_eq!(setup.batcher.stats(), Stats::default());
}

#[test]
fn a_batch_that_fails_is_tried_again_one_by_one() {
    let setup = Setup::new(BatcherOptions::default());
    let _first = setup.occupy();
    let fine = setup.batcher.embed(texts(&[2]));
    let bad = setup.batcher.embed(texts(&[3]));
    setup.tell(Reply::Lengths);
    assert_eq!(setup.next(), [2, 3]);
    setup.tell(Reply::Fail);
    assert_eq!(setup.next(), [2]);
    setup.tell(Reply::Lengths);
    assert_eq!(setup.next(), [3]);
    setup.tell(Reply::Fail);
    assert_eq!(block_on(fine), vectors(&[2]));
    assert_eq!(block_on(bad), Err(EngineError::Device("as told".into())));
    let stats = setup.batcher.stats();
    assert_eq!((stats.batches, stats.texts, stats.failed), (4, 2, 1));
}

#[test]
fn an_engine_that_panics_or_answers_too_little_is_an_error_and_the_thread_lives_on() {
    let setup = Setup::new(BatcherOptions::default());
    for (reply, expected) in [
        (Reply::Panic, "device: the engine panicked"),
        (
            Reply::Short,
            "device: the engine answered fewer texts than it was asked",
        ),
    ] {
        let answer = setup.occupy();
        setup.tell(reply);
        assert_eq!(block_on(answer).unwrap_err().to_string(), expected);
    }
    let answer = setup.occupy();
    setup.tell(Reply::Lengths);
    assert_eq!(block_on(answer), vectors(&[1]));
}

#[test]
fn a_shutdown_answers_those_who_wait_when_told_so() {
    let setup = Setup::new(BatcherOptions::default());
    let first = setup.occupy();
    let second = setup.batcher.embed(texts(&[2]));
    let batcher = Arc::clone(&setup.batcher);
    let closing = thread::spawn(move || batcher.shut_down(Waiting::Answer));
    setup.tell(Reply::Lengths);
    setup.tell(Reply::Lengths);
    closing.join().unwrap();
    assert_eq!(block_on(first), vectors(&[1]));
    assert_eq!(block_on(second), vectors(&[2]));
    let late = block_on(setup.batcher.embed(texts(&[3])));
    assert_eq!(late, Err(EngineError::Closed));
}

#[test]
fn a_shutdown_refuses_those_who_wait_when_told_so_and_finishes_what_runs() {
    let setup = Setup::new(BatcherOptions::default());
    let first = setup.occupy();
    let second = setup.batcher.embed(texts(&[2]));
    let batcher = Arc::clone(&setup.batcher);
    let closing = thread::spawn(move || batcher.shut_down(Waiting::Refuse));
    // While the first is still running.
    assert_eq!(block_on(second), Err(EngineError::Closed));
    setup.tell(Reply::Lengths);
    closing.join().unwrap();
    assert_eq!(block_on(first), vectors(&[1]));
    // Once more is no fault.
    setup.batcher.shut_down(Waiting::Answer);
}

#[test]
fn dropping_it_refuses_those_who_wait() {
    let setup = Setup::new(BatcherOptions::default());
    let first = setup.occupy();
    let second = setup.batcher.embed(texts(&[2]));
    let Setup { batcher, tell, .. } = setup;
    let dropping = thread::spawn(move || drop(batcher));
    assert_eq!(block_on(second), Err(EngineError::Closed));
    tell.send(Reply::Lengths).unwrap();
    dropping.join().unwrap();
    assert_eq!(block_on(first), vectors(&[1]));
}

#[test]
fn many_callers_at_once_get_their_own_answers() {
    let engine: Arc<dyn Engine> = Arc::new(Echo::new(32));
    let batcher = Batcher::new(Arc::clone(&engine), BatcherOptions::default()).unwrap();
    thread::scope(|scope| {
        for caller in 0..8 {
            let (batcher, engine) = (&batcher, &engine);
            scope.spawn(move || {
                for round in 0..50 {
                    let texts = [format!("{caller} asks {round}"), format!("{round}")];
                    let found = block_on(batcher.embed(texts.to_vec()));
                    let texts = [texts[0].as_str(), texts[1].as_str()];
                    assert_eq!(found, engine.embed(&texts));
                }
            });
        }
    });
    let stats = batcher.stats();
    assert_eq!((stats.texts, stats.waiting), (800, 0));
}
