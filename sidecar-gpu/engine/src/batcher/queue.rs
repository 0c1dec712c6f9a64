//! What waits, and which of it goes next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::oneshot;

use super::Answer;
use crate::EngineError;

/// What callers asked for and have not been given yet, oldest first.
#[derive(Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    tokens: usize,
}

/// Bounds of a batch.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) tokens: usize,
    pub(super) texts: usize,
    pub(super) window: usize,
}

impl Queue {
    pub(super) fn push(&mut self, item: Item) {
        self.tokens += item.tokens.len();
        self.items.push_back(item);
    }

    /// Texts and their tokens.
    pub(super) fn depth(&self) -> (usize, usize) {
        (self.items.len(), self.tokens)
    }

    pub(super) fn take_all(&mut self) -> Vec<Item> {
        self.tokens = 0;
        self.items.drain(..).collect()
    }

    /// The next batch: the oldest text and, as far as the bounds allow, the shortest of those that
    /// came next. Also how many were thrown away since their callers have left.
    pub(super) fn take(&mut self, limits: Limits) -> (Vec<Item>, usize) {
        let before = self.items.len();
        self.items.retain(|item| {
            let stays = item.call.is_awaited();
            if !stays {
                self.tokens -= item.tokens.len();
            }
            stays
        });
        let skipped = before - self.items.len();
        let window = limits.window.clamp(1, self.items.len().max(1));
        let mut order: Vec<_> = (0..window.min(self.items.len())).collect();
        // The first stays first; among equals the older is first.
        if let Some(rest) = order.get_mut(1..) {
            rest.sort_by_key(|&at| self.items[at].tokens.len());
        }
        let mut tokens = 0;
        let fits = order.iter().take_while(|&&at| {
            tokens += self.items[at].tokens.len();
            tokens <= limits.tokens
        });
        let texts = fits.count().min(limits.texts).max(1);
        order.truncate(texts);
        // From the back, so that the places of the others stay true.
        order.sort_unstable_by(|a, b| b.cmp(a));
        let mut batch: Vec<_> = order
            .into_iter()
            .filter_map(|at| self.items.remove(at))
            .collect();
        batch.reverse();
        self.tokens -= batch.iter().map(|item| item.tokens.len()).sum::<usize>();
        (batch, skipped)
    }
}

/// One text.
pub(super) struct Item {
    pub(super) call: Arc<Call>,
    /// Which text of the call.
    pub(super) index: usize,
    pub(super) tokens: Vec<u32>,
}

/// One caller's texts, which may go through the model in several batches.
pub(super) struct Call(Mutex<Pending>);

struct Pending {
    vectors: Vec<Vec<f32>>,
    left: usize,
    /// Taken when the answer is sent.
    reply: Option<oneshot::Sender<Answer>>,
}

impl Call {
    pub(super) fn new(texts: usize, reply: oneshot::Sender<Answer>) -> Arc<Self> {
        let mut pending = Pending {
            vectors: vec![Vec::new(); texts],
            left: texts,
            reply: Some(reply),
        };
        pending.answer_if_done();
        Arc::new(Call(Mutex::new(pending)))
    }

    /// Whether someone still waits for the answer.
    fn is_awaited(&self) -> bool {
        let pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = pending.reply.as_ref();
        reply.is_some_and(|reply| !reply.is_canceled())
    }

    /// A text's answer. The last one, or the first error, is sent.
    pub(super) fn settle(&self, index: usize, answer: Result<Vec<f32>, EngineError>) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(vector) => {
                if let Some(place) = pending.vectors.get_mut(index) {
                    *place = vector;
                }
                pending.left = pending.left.saturating_sub(1);
                pending.answer_if_done();
            }
            Err(error) => {
                if let Some(reply) = pending.reply.take() {
                    // The caller may have left meanwhile.
                    let _ = reply.send(Err(error.about(index)));
                }
            }
        }
    }
}

impl Pending {
    fn answer_if_done(&mut self) {
        if self.left == 0
            && let Some(reply) = self.reply.take()
        {
            // The caller may have left meanwhile.
            let _ = reply.send(Ok(std::mem::take(&mut self.vectors)));
        }
    }
}
