//! Whole blocks that a writer leaves in memory until the disk thread has written them.
//!
//! So a writer does not wait for the page cache or the disk, and a reader that follows it closely copies from memory.
//! The memory is limited for all resources of the process together: beyond the limit a writer writes its block itself,
//! which slows it down to the disk's rate. A partial block is always written at once: on a slow connection the disk
//! thread would be woken for each chunk.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;

use super::memory::new_block;
use super::store::Place;
use crate::error::Error;

/// Maximum number of blocks of all resources that wait to be written, 8 MiB: some milliseconds of a disk's work, so
/// that a burst does not wait for it.
const MAX_BUFFERS: usize = 32;

/// Memory for the blocks that wait to be written, of all resources together.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Free>);

#[derive(Debug, Default)]
struct Free {
    /// Buffers that are full. At most [`MAX_BUFFERS`].
    in_use: usize,
    /// Memory of earlier buffers. Together with those in use there are at most [`MAX_BUFFERS`].
    free: Vec<Box<[u8]>>,
}

/// A block that waits to be written. Its bytes do not change. Whoever drops the last handle returns the memory.
#[derive(Debug)]
pub(super) struct Buffer {
    /// Empty in the drop only.
    bytes: Box<[u8]>,
    buffers: Arc<Buffers>,
}

/// The blocks of one resource that wait to be written.
#[derive(Debug, Default)]
pub(super) struct WriteBehind {
    /// By the block's index. Each byte of each is stored.
    blocks: BTreeMap<u64, Arc<Buffer>>,
    /// Those that the disk thread has not begun to write, in the order in which they came.
    order: VecDeque<u64>,
}

impl Buffers {
    /// Takes a whole block, and leaves other memory in its place. `None` if too many blocks wait already; then nothing
    /// changes.
    pub(super) fn take(self: &Arc<Self>, block: &mut Box<[u8]>) -> Option<Buffer> {
        let free = {
            let mut state = self.0.lock();
            if state.in_use == MAX_BUFFERS {
                return None;
            }
            state.in_use += 1;
            state.free.pop()
        };
        let bytes = std::mem::replace(block, free.unwrap_or_else(new_block));
        Some(Buffer { bytes, buffers: Arc::clone(self) })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.buffers.0.lock();
        state.in_use -= 1;
        state.free.push(std::mem::take(&mut self.bytes));
    }
}

impl Place for Buffer {
    fn read(&self, within: u64, buf: &mut [u8]) -> Result<(), Error> {
        let at = within as usize;
        buf.copy_from_slice(&self[at..at + buf.len()]);
        Ok(())
    }

    /// Does nothing: all bytes of the block are stored, and whoever writes a byte again writes the same one.
    fn write(&self, _within: u64, _bytes: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

impl WriteBehind {
    /// Adds a block. One of this index that waits already is forgotten.
    pub(super) fn add(&mut self, index: u64, block: Buffer) {
        self.forget(index);
        self.blocks.insert(index, Arc::new(block));
        self.order.push_back(index);
    }

    pub(super) fn get(&self, index: u64) -> Option<&Arc<Buffer>> {
        self.blocks.get(&index)
    }

    pub(super) fn has_unwritten(&self) -> bool {
        !self.order.is_empty()
    }

    /// The block to be written next. It stays until [`handle_written`](Self::handle_written).
    pub(super) fn poll(&mut self) -> Option<(u64, Arc<Buffer>)> {
        let index = self.order.pop_front()?;
        Some((index, Arc::clone(self.blocks.get(&index)?)))
    }

    /// Notes that a block was written. False if it was forgotten or replaced meanwhile.
    pub(super) fn handle_written(&mut self, index: u64, block: &Arc<Buffer>) -> bool {
        let is_current = self.blocks.get(&index).is_some_and(|current| Arc::ptr_eq(current, block));
        if is_current {
            self.blocks.remove(&index);
        }
        is_current
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

    fn buffer(buffers: &Arc<Buffers>, byte: u8) -> Option<Buffer> {
        buffers.take(&mut vec![byte; BLOCK as usize].into_boxed_slice())
    }

    #[test]
    fn the_memory_of_written_blocks_is_used_again_and_limited() {
        let buffers = Arc::new(Buffers::default());
        let mut held: Vec<Buffer> = (0..MAX_BUFFERS).map(|_| buffer(&buffers, 1).unwrap()).collect();
        let mut block = vec![2; BLOCK as usize].into_boxed_slice();
        assert!(buffers.take(&mut block).is_none());
        assert!(block.iter().all(|byte| *byte == 2));
        let memory = held[0].as_ptr();
        held.remove(0);
        assert!(buffers.take(&mut block).is_some());
        assert_eq!((block.as_ptr(), block.len() as u64), (memory, BLOCK));
        drop(held);
        assert!(buffers.0.lock().free.len() <= MAX_BUFFERS);
    }

    #[test]
    fn blocks_are_written_once_in_order_and_readable_until_then() {
        let buffers = Arc::new(Buffers::default());
        let mut behind = WriteBehind::default();
        for index in [7, 3, 5] {
            behind.add(index, buffer(&buffers, index as u8).unwrap());
        }
        behind.forget(3);
        let (index, block) = behind.poll().unwrap();
        assert_eq!((index, behind.get(7).unwrap()[0], behind.get(3).is_none()), (7, 7, true));
        assert!(behind.handle_written(7, &block) && behind.get(7).is_none());
        let (index, block) = behind.poll().unwrap();
        assert_eq!((index, behind.has_unwritten()), (5, false));
        // It is written anew, with other bytes, before the first write has ended.
        behind.add(5, buffer(&buffers, 55).unwrap());
        assert!(!behind.handle_written(5, &block) && behind.get(5).unwrap()[0] == 55);
        let (_, block) = behind.poll().unwrap();
        assert!(behind.handle_written(5, &block) && behind.poll().is_none());
    }
}
