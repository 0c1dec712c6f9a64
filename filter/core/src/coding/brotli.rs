//! br (RFC 7932).

use std::fmt;
use std::mem::size_of;
use std::ops::RangeInclusive;

use brotli_decompressor::{
    Allocator, BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapper, SliceWrapperMut,
};

use super::memory::{Lease, Memory, NoMemory};
use super::{PIECE, Sink, Step, Unreadable};

type State = BrotliState<Rooms, Rooms, Rooms>;

/// `content-encoding: br`. The windows of more than 16 MiB that some encoders can be told to use
/// are no part of it.
pub(super) struct Brotli {
    state: Box<State>,
    ended: bool,
    _lease: Lease,
}

impl Brotli {
    pub(super) fn new(memory: &Memory) -> Result<Self, NoMemory> {
        let lease = memory.lease(size_of::<State>())?;
        let rooms = || Rooms(memory.clone());
        Ok(Brotli {
            state: Box::new(State::new_strict(rooms(), rooms(), rooms())),
            ended: false,
            _lease: lease,
        })
    }
}

impl fmt::Debug for Brotli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brotli")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Step for Brotli {
    fn push(&mut self, bytes: &[u8], sink: Sink<'_>) -> Result<(), Unreadable> {
        if self.ended {
            return Ok(());
        }
        let mut piece = [0; PIECE];
        let (mut left, mut used, mut total) = (bytes.len(), 0, 0);
        loop {
            let (mut room, mut gave) = (PIECE, 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut used,
                bytes,
                &mut room,
                &mut gave,
                &mut piece,
                &mut total,
                &mut self.state,
            );
            sink(piece.get(..gave).unwrap_or(&[]))?;
            match result {
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::NeedsMoreInput => return Ok(()),
                BrotliResult::ResultSuccess => {
                    self.ended = true;
                    return Ok(());
                }
                BrotliResult::ResultFailure
                    if NO_ROOM.contains(&(self.state.error_code as i32)) =>
                {
                    return Err(Unreadable::NoMemory);
                }
                BrotliResult::ResultFailure => return Err(Unreadable::Damaged),
            }
        }
    }

    fn ended(&self) -> bool {
        self.ended
    }
}

/// The decoder's errors where an allocation failed, as in the C library's header.
const NO_ROOM: RangeInclusive<i32> = -30..=-21;

/// Where the decoder's memory is from.
#[derive(Debug)]
struct Rooms(Memory);

/// A piece of it; empty where there was none to take, which the decoder checks.
struct Room<T> {
    cells: Box<[T]>,
    _lease: Option<Lease>,
}

impl<T> Default for Room<T> {
    fn default() -> Self {
        Room {
            cells: Box::default(),
            _lease: None,
        }
    }
}

impl<T> SliceWrapper<T> for Room<T> {
    fn slice(&self) -> &[T] {
        &self.cells
    }
}

impl<T> SliceWrapperMut<T> for Room<T> {
    fn slice_mut(&mut self) -> &mut [T] {
        &mut self.cells
    }
}

impl<T: Clone + Default> Allocator<T> for Rooms {
    type AllocatedMemory = Room<T>;

    fn alloc_cell(&mut self, len: usize) -> Room<T> {
        match self.0.lease(len.saturating_mul(size_of::<T>())) {
            Ok(lease) => Room {
                cells: vec![T::default(); len].into(),
                _lease: Some(lease),
            },
            Err(NoMemory) => Room::default(),
        }
    }

    /// Dropped, it is given back.
    fn free_cell(&mut self, _: Room<T>) {}
}
