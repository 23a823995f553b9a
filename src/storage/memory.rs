//! Blocks in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;

use super::BLOCK;

/// A block's bytes. Locked for as long as a copy takes.
pub(super) type Block = Arc<RwLock<Box<[u8]>>>;

/// Evicted blocks kept for new bytes.
const MAX_FREE: usize = 64;

/// Handles to the blocks, by index. Bytes are copied by whoever got a handle, without this being locked.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    blocks: BTreeMap<u64, Block>,
    free: Vec<Box<[u8]>>,
}

impl Blocks {
    /// The block of this index; made if it is not there.
    pub(super) fn entry(&mut self, index: u64) -> Block {
        let free = &mut self.free;
        let block = self
            .blocks
            .entry(index)
            .or_insert_with(|| Arc::new(RwLock::new(free.pop().unwrap_or_else(new_block))));
        Arc::clone(block)
    }

    pub(super) fn get(&self, index: u64) -> Option<Block> {
        self.blocks.get(&index).cloned()
    }

    /// Makes `bytes` the block of this index. Returns memory for another block, if there is some.
    pub(super) fn put(&mut self, index: u64, bytes: Box<[u8]>) -> Option<Box<[u8]>> {
        if let Some(old) = self.blocks.insert(index, Arc::new(RwLock::new(bytes))) {
            self.recycle(old);
        }
        self.free.pop()
    }

    /// True if `block` is still the one of this index.
    pub(super) fn is_current(&self, index: u64, block: &Block) -> bool {
        self.blocks.get(&index).is_some_and(|current| Arc::ptr_eq(current, block))
    }

    /// The blocks of these indices that are there.
    pub(super) fn indices(&self, within: Range<u64>) -> Vec<u64> {
        self.blocks.range(within).map(|(index, _)| *index).collect()
    }

    /// Drops a block.
    pub(super) fn remove(&mut self, index: u64) {
        if let Some(block) = self.blocks.remove(&index) {
            self.recycle(block);
        }
    }

    /// Keeps a block's memory for another one, unless somebody copies from or to it just now.
    fn recycle(&mut self, block: Block) {
        let free = Arc::into_inner(block).filter(|_| self.free.len() < MAX_FREE);
        self.free.extend(free.map(RwLock::into_inner));
    }
}

/// Memory for a block.
pub(super) fn new_block() -> Box<[u8]> {
    vec![0; BLOCK as usize].into_boxed_slice()
}
