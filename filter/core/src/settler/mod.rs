//! The queue of finished requests on their way to the sidecar: nobody waits for it, nothing in it
//! is lost for a failed call, and it is bounded.
//!
//! Every record carries an idempotent id, so a batch whose reply was lost is simply sent again.

use std::collections::VecDeque;

use sluice_wire::{Frame, Settle, SettleRequest};

/// Records held, sent ones included. Past it the oldest that is not under way is dropped.
const MAX_ITEMS: usize = 4096;

/// Bytes held, sent ones included; a record is taken for [`RECORD_BYTES`]. Past it first the
/// oldest answers are dropped (a cache entry less), then the oldest records.
const MAX_BYTES: usize = 8 << 20;

/// A record in memory, generously.
const RECORD_BYTES: usize = 1024;

/// Bounds of one batch. A single larger answer goes alone.
const BATCH_ITEMS: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

/// Batches under way at once: enough to keep a sidecar busy, few enough not to flood one that is
/// just coming back.
const FLIGHTS: usize = 2;

/// After so long without a word a batch counts as failed: the host forgot it.
const LOST_NS: u64 = 30_000_000_000;

/// Attempts per record. With the pauses below they span more than a minute.
const MAX_TRIES: u8 = 12;

/// From this attempt on a record goes alone, so that one that the sidecar cannot take does not
/// take others with it.
const ALONE_FROM: u8 = 4;

/// Pause after the first failed batch; doubles with each further one in a row.
const FIRST_PAUSE_NS: u64 = 100_000_000;
const LONGEST_PAUSE_NS: u64 = 15_000_000_000;

/// Least time between two batches that go before their pause is over, because a sidecar answers
/// others. Who waits for an answer of theirs would else wait out a pause that is of an earlier hour.
const EARLY_NS: u64 = 250_000_000;

fn pause_ns(failures: u32) -> u64 {
    (FIRST_PAUSE_NS << failures.min(16)).min(LONGEST_PAUSE_NS)
}

/// The queue. Time is a parameter.
#[derive(Debug, Default)]
pub struct Settler {
    waiting: VecDeque<Item>,
    flights: Vec<Flight>,
    bytes: usize,
    last_id: u32,
    failures: u32,
    paused_until_ns: u64,
    /// The next batch goes before the pause is over.
    early: bool,
    last_early_ns: u64,
    dropped: u64,
    dropped_answers: u64,
}

#[derive(Debug)]
struct Item {
    settle: Settle,
    answer: Vec<u8>,
    tries: u8,
    /// Not before, whatever becomes of others meanwhile: another sidecar may have to let go of it.
    again_ns: u64,
}

impl Item {
    fn bytes(&self) -> usize {
        RECORD_BYTES + self.answer.len() + self.settle.order_len()
    }
}

#[derive(Debug)]
struct Flight {
    id: u32,
    since_ns: u64,
    /// It went before its pause was over: should it fail it does not count.
    early: bool,
    items: Vec<Item>,
}

/// A batch to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// To name it in [`Settler::done`].
    pub id: u32,
    /// The frame.
    pub body: Vec<u8>,
}

impl Settler {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Settler {
        Settler::default()
    }

    /// Takes a finished request; `answer` is what is to be stored, empty where nothing is.
    pub fn push(&mut self, mut settle: Settle, mut answer: Vec<u8>) {
        // A length that is not the answer's would shift every later answer of the batch.
        if settle.body_len() != answer.len() as u64 {
            settle.store_nothing();
            answer = Vec::new();
        }
        let item = Item {
            settle,
            answer,
            tries: 0,
            again_ns: 0,
        };
        self.bytes += item.bytes();
        self.waiting.push_back(item);
        self.bound();
    }

    /// The next batch to send, if one is due. Ask again until there is none.
    pub fn next(&mut self, now_ns: u64) -> Option<Batch> {
        self.give_up_lost(now_ns);
        let early = std::mem::take(&mut self.early);
        if self.flights.len() >= FLIGHTS || now_ns < self.paused_until_ns && !early {
            return None;
        }
        let mut items: Vec<Item> = Vec::new();
        let mut bytes = 0;
        let mut at = 0;
        while let Some(item) = self.waiting.get(at) {
            if now_ns < item.again_ns && !early {
                at += 1;
                continue;
            }
            let alone = item.tries >= ALONE_FROM;
            let full = items.len() >= BATCH_ITEMS || bytes + item.bytes() > BATCH_BYTES;
            if !items.is_empty() && (full || alone) {
                break;
            }
            bytes += item.bytes();
            items.extend(self.waiting.remove(at));
            if alone {
                break;
            }
        }
        let (head, answers) = split(&items);
        if head.items.is_empty() {
            return None;
        }
        let Ok(body) = (Frame {
            head,
            body: answers,
        })
        .encode() else {
            // Not JSON for some reason that sending again would not cure.
            self.drop_items(&items);
            return None;
        };
        self.last_id = self.last_id.wrapping_add(1);
        let id = self.last_id;
        self.flights.push(Flight {
            id,
            since_ns: now_ns,
            early: now_ns < self.paused_until_ns,
            items,
        });
        Some(Batch { id, body })
    }

    /// A batch was answered: `ok` when the sidecar booked it.
    pub fn done(&mut self, id: u32, ok: bool, now_ns: u64) {
        let Some(at) = self.flights.iter().position(|flight| flight.id == id) else {
            return;
        };
        let flight = self.flights.swap_remove(at);
        if ok {
            self.failures = 0;
            self.paused_until_ns = 0;
            self.bytes -= flight.items.iter().map(Item::bytes).sum::<usize>();
            return;
        }
        if !flight.early {
            self.paused_until_ns = now_ns.saturating_add(pause_ns(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
        let (again, spent): (Vec<_>, Vec<_>) = flight
            .items
            .into_iter()
            .map(|item| match flight.early {
                true => item,
                false => Item {
                    tries: item.tries + 1,
                    again_ns: now_ns.saturating_add(pause_ns(item.tries.into())),
                    ..item
                },
            })
            .partition(|item| item.tries < MAX_TRIES);
        self.drop_items(&spent);
        for item in again.into_iter().rev() {
            self.waiting.push_front(item);
        }
    }

    /// A sidecar answers: a batch may go before the pause is over, one at a time.
    pub fn reachable(&mut self, now_ns: u64) {
        let paused = now_ns < self.paused_until_ns && self.flights.is_empty();
        if paused && now_ns >= self.last_early_ns.saturating_add(EARLY_NS) {
            self.early = true;
            self.last_early_ns = now_ns;
        }
    }

    /// Records that were given up, ever.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Answers that were not sent for want of room, ever; their records were.
    #[must_use]
    pub fn dropped_answers(&self) -> u64 {
        self.dropped_answers
    }

    /// Whether nothing waits and nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty()
    }

    fn drop_items(&mut self, items: &[Item]) {
        self.dropped += items.len() as u64;
        self.bytes -= items.iter().map(Item::bytes).sum::<usize>();
    }

    fn give_up_lost(&mut self, now_ns: u64) {
        let lost: Vec<u32> = self
            .flights
            .iter()
            .filter(|flight| now_ns.saturating_sub(flight.since_ns) >= LOST_NS)
            .map(|flight| flight.id)
            .collect();
        for id in lost {
            self.done(id, false, now_ns);
        }
    }

    fn bound(&mut self) {
        if self.bytes > MAX_BYTES {
            for item in &mut self.waiting {
                if self.bytes <= MAX_BYTES {
                    break;
                }
                self.bytes -= item.settle.order_len();
                item.settle.order_nothing();
                if !item.answer.is_empty() {
                    self.bytes -= item.answer.len();
                    self.dropped_answers += 1;
                    item.answer = Vec::new();
                    item.settle.store_nothing();
                }
            }
        }
        let flying: usize = self.flights.iter().map(|flight| flight.items.len()).sum();
        while self.bytes > MAX_BYTES || self.waiting.len() + flying > MAX_ITEMS {
            let Some(oldest) = self.waiting.pop_front() else {
                break;
            };
            self.drop_items(&[oldest]);
        }
    }
}

/// The head and the answers' bytes of a batch.
fn split(items: &[Item]) -> (SettleRequest, Vec<u8>) {
    let answers = items
        .iter()
        .flat_map(|item| &item.answer)
        .copied()
        .collect();
    let items = items.iter().map(|item| item.settle.clone()).collect();
    (SettleRequest { items }, answers)
}

#[cfg(test)]
mod tests;
