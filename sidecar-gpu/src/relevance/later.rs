//! Texts that are embedded behind answers: bounded, each once, the oldest first.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Id;

/// Most texts that wait: some seconds of a CPU's work to some tens. What does not fit is asked for
/// again at the next turn.
pub(super) const MOST: usize = 2048;

/// The queue, and whether somebody works on it.
#[derive(Default)]
pub(super) struct Later(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    texts: VecDeque<(Id, String)>,
    /// Those of `texts`, and those that are worked on.
    ids: HashSet<Id>,
    working: bool,
    closed: bool,
}

impl Later {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `text` waits now, or did already.
    pub(super) fn push(&self, id: Id, text: &str) -> bool {
        let mut inner = self.inner();
        if inner.ids.contains(&id) {
            return true;
        }
        let room = inner.texts.len() < MOST && !inner.closed;
        if room {
            inner.ids.insert(id);
            inner.texts.push_back((id, text.to_owned()));
        }
        room
    }

    /// Whether the caller is to work on what waits, as nobody does.
    pub(super) fn begin(&self) -> bool {
        let mut inner = self.inner();
        let begins = !inner.working && !inner.texts.is_empty();
        inner.working |= begins;
        begins
    }

    /// The oldest texts, `bytes` of them or one. With none the caller's work is over.
    pub(super) fn next(&self, bytes: usize) -> Vec<(Id, String)> {
        let mut inner = self.inner();
        let mut room = bytes;
        let mut fits = 0;
        for (_, text) in &inner.texts {
            if fits > 0 && text.len() > room {
                break;
            }
            room = room.saturating_sub(text.len());
            fits += 1;
        }
        inner.working = fits > 0;
        inner.texts.drain(..fits).collect()
    }

    /// These were worked on.
    pub(super) fn done<'a>(&self, ids: impl Iterator<Item = &'a Id>) {
        let mut inner = self.inner();
        for id in ids {
            inner.ids.remove(id);
        }
    }

    /// Texts that wait.
    pub(super) fn len(&self) -> usize {
        self.inner().texts.len()
    }

    /// Nothing waits from now on.
    pub(super) fn close(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        inner.texts.clear();
    }
}
