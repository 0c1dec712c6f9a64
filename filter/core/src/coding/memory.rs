//! What all decoders of a VM may take together.

use std::cell::Cell;
use std::rc::Rc;

/// Bytes that are left to take; clones share them.
#[derive(Clone, Debug)]
pub struct Memory(Rc<Cell<usize>>);

/// There are not so many left.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoMemory;

impl Memory {
    /// So many to take.
    #[must_use]
    pub fn new(bytes: usize) -> Memory {
        Memory(Rc::new(Cell::new(bytes)))
    }

    /// Bytes that nothing has taken.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.get()
    }

    /// Takes so many, until the lease is dropped.
    pub(super) fn lease(&self, bytes: usize) -> Result<Lease, NoMemory> {
        let left = self.left().checked_sub(bytes).ok_or(NoMemory)?;
        self.0.set(left);
        Ok(Lease {
            memory: self.clone(),
            bytes,
        })
    }
}

/// Bytes taken.
#[derive(Debug)]
pub(super) struct Lease {
    memory: Memory,
    bytes: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.memory.0.set(self.memory.left() + self.bytes);
    }
}
