//! Those who wait here for another request's answer, by key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::cache::{Entry, Key};

/// What those who wait for a key are told.
#[derive(Clone, Debug, Default)]
pub enum Signal {
    /// Nothing yet.
    #[default]
    Held,
    /// Something changed: look and ask again.
    Changed,
    /// Here is the answer.
    Answered(Arc<Entry>),
}

/// The waiting room of one sidecar, bounded in number.
pub struct Waiting {
    rooms: Mutex<Rooms>,
    most: usize,
}

#[derive(Default)]
struct Rooms {
    by_key: HashMap<Key, Room>,
    seats: usize,
    /// How many rooms there were.
    opened: u64,
}

struct Room {
    number: u64,
    signal: watch::Sender<Signal>,
    seats: usize,
}

/// A place among those who wait for a key; given up when it is dropped.
pub struct Seat {
    waiting: Arc<Waiting>,
    key: Key,
    room: u64,
    signal: watch::Receiver<Signal>,
    /// The first of its key, who is to watch what happens elsewhere.
    first: bool,
}

impl Waiting {
    /// Room for `most`.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Waiting {
            rooms: Mutex::default(),
            most,
        })
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat, unless all are taken. It hears what is told from now on.
    pub fn sit(self: &Arc<Self>, key: Key) -> Option<Seat> {
        let mut rooms = self.rooms();
        if rooms.seats >= self.most {
            return None;
        }
        rooms.seats += 1;
        let number = rooms.opened + 1;
        let room = rooms.by_key.entry(key).or_insert_with(|| Room {
            number,
            signal: watch::Sender::new(Signal::Held),
            seats: 0,
        });
        room.seats += 1;
        let seat = Seat {
            waiting: self.clone(),
            key,
            room: room.number,
            signal: room.signal.subscribe(),
            first: room.seats == 1,
        };
        rooms.opened += u64::from(seat.first);
        Some(seat)
    }

    /// Tells all who wait for `key`.
    pub fn tell(&self, key: Key, signal: Signal) {
        if let Some(room) = self.rooms().by_key.get(&key) {
            room.signal.send_replace(signal);
        }
    }

    /// Whether anyone waits for `key`.
    #[must_use]
    pub fn anyone(&self, key: Key) -> bool {
        self.rooms().by_key.contains_key(&key)
    }

    /// Whether anyone still waits of those who wait for `key` in that room. Once all have left, the
    /// next one opens another.
    #[must_use]
    pub fn is_open(&self, key: Key, room: u64) -> bool {
        let rooms = self.rooms();
        rooms.by_key.get(&key).is_some_and(|it| it.number == room)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms().seats
    }

    /// Whether nobody does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Seat {
    /// Whether this one is to watch the key for all of this sidecar.
    #[must_use]
    pub fn first(&self) -> bool {
        self.first
    }

    /// The room that it is in; see [`Waiting::is_open`].
    #[must_use]
    pub fn room(&self) -> u64 {
        self.room
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        // The sender lives as long as this seat does.
        let _ = self.signal.changed().await;
        self.signal.borrow_and_update().clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut rooms = self.waiting.rooms();
        rooms.seats -= 1;
        if let Some(room) = rooms.by_key.get_mut(&self.key) {
            room.seats -= 1;
            if room.seats == 0 {
                rooms.by_key.remove(&self.key);
            }
        }
    }
}
