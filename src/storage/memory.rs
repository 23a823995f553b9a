//! Blocks in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;

use super::store::{BlockStore, Place};
use crate::buffer::Buffer;
use crate::error::Error;

/// A block's bytes. Locked for as long as a copy takes.
#[derive(Debug)]
pub(super) struct Block(RwLock<Buffer>);

impl Block {
    /// A block with any content.
    pub(super) fn new() -> Self {
        Self(RwLock::new(Buffer::new()))
    }

    /// A block with any content, which is about to be filled.
    fn resident() -> Self {
        Self(RwLock::new(Buffer::resident()))
    }

    /// A block of zeros, which takes memory only where it is written.
    fn sparse() -> Self {
        Self(RwLock::new(Buffer::sparse()))
    }

    pub(super) fn copy_to(&self, within: u64, buf: &mut [u8]) {
        let at = within as usize;
        buf.copy_from_slice(&self.0.read()[at..at + buf.len()]);
    }

    pub(super) fn copy_from(&self, within: u64, bytes: &[u8]) {
        let at = within as usize;
        self.0.write()[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl Place for Block {
    fn read(&self, within: u64, buf: &mut [u8]) -> Result<bool, Error> {
        self.copy_to(within, buf);
        Ok(true)
    }

    fn write(&self, within: u64, bytes: &[u8]) -> Result<(), Error> {
        self.copy_from(within, bytes);
        Ok(())
    }
}

/// All blocks of a resource, in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryStore {
    blocks: BTreeMap<u64, Arc<Block>>,
    /// No block is removed before the end, so there are no removed ones whose memory new ones get.
    is_whole: bool,
}

impl MemoryStore {
    /// A store that keeps the whole file.
    pub(super) fn whole() -> Self {
        Self { is_whole: true, ..Self::default() }
    }
}

impl BlockStore for MemoryStore {
    fn entry(&mut self, index: u64) -> Arc<dyn Place> {
        // A block that follows another one is filled soon, most likely. One that stands alone may hold a few bytes only, such
        // as the last ones of a file.
        let is_sequel = index.checked_sub(1).is_some_and(|before| self.blocks.contains_key(&before));
        let new = || {
            Arc::new(match (is_sequel, self.is_whole) {
                (true, true) => Block::resident(),
                (true, false) => Block::new(),
                (false, _) => Block::sparse(),
            })
        };
        let block = self.blocks.entry(index).or_insert_with(new);
        Arc::clone(block) as Arc<dyn Place>
    }

    fn get(&self, index: u64) -> Option<Arc<dyn Place>> {
        self.blocks.get(&index).map(|block| Arc::clone(block) as Arc<dyn Place>)
    }

    fn indices(&self, within: Range<u64>) -> Vec<u64> {
        self.blocks.range(within).map(|(index, _)| *index).collect()
    }

    fn remove(&mut self, index: u64) {
        self.blocks.remove(&index);
    }

    fn keep(&mut self, index: u64, block: &mut Buffer) -> bool {
        // A reader that holds the block which was there goes on with that: both have the same bytes.
        self.blocks.insert(index, Arc::new(Block(RwLock::new(std::mem::take(block)))));
        true
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BUFFER;

    #[test]
    fn a_block_that_stands_alone_gets_no_buffer_that_was_full_before() {
        let is_sparse = |store: &mut MemoryStore, index| {
            // What a closed stream leaves behind for new blocks.
            let mut used = Buffer::new();
            used.fill(7);
            drop(used);
            let mut content = vec![1; BUFFER];
            store.entry(index).read(0, &mut content).unwrap();
            content.iter().all(|byte| *byte == 0)
        };
        let mut store = MemoryStore::default();
        assert!([0, 15, 3].into_iter().all(|index| is_sparse(&mut store, index)));
    }
}
