//! Whole blocks that a writer leaves in memory until the disk thread has written them.
//!
//! So a writer does not wait for the page cache or the disk, and a reader that follows it closely copies from memory.
//! The memory is limited for all resources of the process together: beyond the limit a writer writes its block itself,
//! which slows it down to the disk's rate. A partial block is always written at once: on a slow connection the disk
//! thread would be woken for each chunk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::store::{BlockStore, Place};
use crate::buffer::Buffer;
use crate::error::Error;

/// Maximum number of blocks of all resources that wait to be written, 8 MiB: some milliseconds of a disk's work, so
/// that a burst does not wait for it.
const MAX_BACKLOG: usize = 32;

/// How many blocks of all resources wait to be written.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicUsize);

/// A block that waits to be written. Its bytes do not change.
#[derive(Debug)]
pub(super) struct Unwritten {
    bytes: Buffer,
    backlog: Arc<Backlog>,
}

/// The blocks of one resource that wait to be written.
#[derive(Debug, Default)]
pub(super) struct WriteBehind {
    /// By the block's index. Each byte of each is stored.
    blocks: BTreeMap<u64, Arc<Unwritten>>,
    /// Those that the disk thread has not begun to write, in the order in which they came.
    order: VecDeque<u64>,
}

impl Backlog {
    /// Takes a whole block. `None` if too many wait already; then nothing changes.
    pub(super) fn take(self: &Arc<Self>, block: &mut Buffer) -> Option<Unwritten> {
        let more = |waiting: usize| (waiting < MAX_BACKLOG).then_some(waiting + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Unwritten { bytes: std::mem::take(block), backlog: Arc::clone(self) })
    }
}

impl Unwritten {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.backlog.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place for Unwritten {
    fn read(&self, within: u64, buf: &mut [u8]) -> Result<bool, Error> {
        let at = within as usize;
        buf.copy_from_slice(&self.bytes[at..at + buf.len()]);
        Ok(true)
    }

    /// Does nothing: all bytes of the block are stored, and whoever writes a byte again writes the same one.
    fn write(&self, _within: u64, _bytes: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

impl WriteBehind {
    /// Adds a block. One of this index that waits already is forgotten.
    pub(super) fn add(&mut self, index: u64, block: Unwritten) {
        self.forget(index);
        self.blocks.insert(index, Arc::new(block));
        self.order.push_back(index);
    }

    pub(super) fn get(&self, index: u64) -> Option<&Arc<Unwritten>> {
        self.blocks.get(&index)
    }

    pub(super) fn has_unwritten(&self) -> bool {
        !self.order.is_empty()
    }

    /// The block to be written next. It stays until [`handle_written`](Self::handle_written).
    pub(super) fn poll(&mut self) -> Option<(u64, Arc<Unwritten>)> {
        let index = self.order.pop_front()?;
        Some((index, Arc::clone(self.blocks.get(&index)?)))
    }

    /// Notes that a block was written. False if it was forgotten or replaced meanwhile.
    pub(super) fn handle_written(&mut self, index: u64, block: &Arc<Unwritten>) -> bool {
        let is_current = self.blocks.get(&index).is_some_and(|current| Arc::ptr_eq(current, block));
        if is_current {
            self.blocks.remove(&index);
        }
        is_current
    }

    /// All blocks, also those that are being written.
    #[cfg(feature = "cache")]
    pub(super) fn all(&self) -> Vec<(u64, Arc<Unwritten>)> {
        self.blocks.iter().map(|(index, block)| (*index, Arc::clone(block))).collect()
    }

    /// Writes all blocks into their places in `store`. Nobody waits for them, so a failure is nobody's.
    pub(super) fn write_all(self, store: &dyn BlockStore) {
        for (index, block) in self.blocks {
            let written = store.get(index).map(|place| place.write(0, block.bytes()));
            if let Some(Err(error)) = written {
                log::debug!("the last blocks of a closed file are not stored: {error}");
                return;
            }
        }
    }

    pub(super) fn forget(&mut self, index: u64) {
        if self.blocks.remove(&index).is_some() {
            self.order.retain(|waiting| *waiting != index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::layout::BLOCK;

    fn waiting(backlog: &Arc<Backlog>, byte: u8) -> Option<Unwritten> {
        backlog.take(&mut Buffer::from(vec![byte; BLOCK as usize]))
    }

    #[test]
    fn the_blocks_that_wait_are_limited() {
        let backlog = Arc::new(Backlog::default());
        let mut full: Vec<Unwritten> = (0..MAX_BACKLOG).map(|_| waiting(&backlog, 1).unwrap()).collect();
        let mut refused = Buffer::from(vec![2; BLOCK as usize]);
        assert!(backlog.take(&mut refused).is_none());
        assert!(refused.iter().all(|byte| *byte == 2));
        full.pop();
        assert!(backlog.take(&mut refused).is_some() && refused.is_empty());
    }

    #[test]
    fn blocks_are_written_once_in_order_and_readable_until_then() {
        let backlog = Arc::new(Backlog::default());
        let mut behind = WriteBehind::default();
        for index in [7, 3, 5] {
            behind.add(index, waiting(&backlog, index as u8).unwrap());
        }
        behind.forget(3);
        let (index, block) = behind.poll().unwrap();
        assert_eq!((index, behind.get(7).unwrap().bytes[0], behind.get(3).is_none()), (7, 7, true));
        assert!(behind.handle_written(7, &block) && behind.get(7).is_none());
        let (index, block) = behind.poll().unwrap();
        assert_eq!((index, behind.has_unwritten()), (5, false));
        // It is written anew, with other bytes, before the first write has ended.
        behind.add(5, waiting(&backlog, 55).unwrap());
        assert!(!behind.handle_written(5, &block) && behind.get(5).unwrap().bytes[0] == 55);
        let (_, block) = behind.poll().unwrap();
        assert!(behind.handle_written(5, &block) && behind.poll().is_none());
    }
}
