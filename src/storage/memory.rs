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
    free: Vec<Block>,
}

impl Blocks {
    /// The block of this index; made if it is not there.
    pub(super) fn entry(&mut self, index: u64) -> Block {
        let free = &mut self.free;
        let block = self.blocks.entry(index).or_insert_with(|| free.pop().unwrap_or_else(new_block));
        Arc::clone(block)
    }

    pub(super) fn get(&self, index: u64) -> Option<Block> {
        self.blocks.get(&index).cloned()
    }

    /// True if `block` is still the one of this index.
    pub(super) fn is_current(&self, index: u64, block: &Block) -> bool {
        self.blocks.get(&index).is_some_and(|current| Arc::ptr_eq(current, block))
    }

    /// The blocks of these indices that are there.
    pub(super) fn indices(&self, within: Range<u64>) -> Vec<u64> {
        self.blocks.range(within).map(|(index, _)| *index).collect()
    }

    /// Lets go of a block. Its memory is used again only if nobody copies from or to it just now.
    pub(super) fn remove(&mut self, index: u64) {
        let Some(block) = self.blocks.remove(&index) else { return };
        if Arc::strong_count(&block) == 1 && self.free.len() < MAX_FREE {
            self.free.push(block);
        }
    }
}

fn new_block() -> Block {
    Arc::new(RwLock::new(vec![0; BLOCK as usize].into_boxed_slice()))
}
