//! Blocks in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;

use super::layout::BLOCK;
use super::store::{BlockStore, Place};
use crate::error::Error;

/// Removed blocks whose memory is kept for new bytes.
const MAX_FREE: usize = 64;

/// A block's bytes. Locked for as long as a copy takes.
#[derive(Debug)]
pub(super) struct Block(RwLock<Box<[u8]>>);

impl Block {
    /// A block of zeros.
    pub(super) fn zeroed() -> Self {
        Self(RwLock::new(new_block()))
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
    fn read(&self, within: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.copy_to(within, buf);
        Ok(())
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
    /// At most [`MAX_FREE`].
    free: Vec<Box<[u8]>>,
}

impl MemoryStore {
    /// Keeps a block's memory for another one, unless somebody is copying from or to it.
    fn recycle(&mut self, block: Arc<Block>) {
        let free = Arc::into_inner(block).filter(|_| self.free.len() < MAX_FREE);
        self.free.extend(free.map(|block| block.0.into_inner()));
    }
}

impl BlockStore for MemoryStore {
    fn entry(&mut self, index: u64) -> Arc<dyn Place> {
        let free = &mut self.free;
        let new = || Arc::new(Block(RwLock::new(free.pop().unwrap_or_else(new_block))));
        let block: &Arc<Block> = self.blocks.entry(index).or_insert_with(new);
        Arc::clone(block) as Arc<dyn Place>
    }

    fn get(&self, index: u64) -> Option<Arc<dyn Place>> {
        self.blocks.get(&index).map(|block| Arc::clone(block) as Arc<dyn Place>)
    }

    fn indices(&self, within: Range<u64>) -> Vec<u64> {
        self.blocks.range(within).map(|(index, _)| *index).collect()
    }

    fn remove(&mut self, index: u64) {
        if let Some(block) = self.blocks.remove(&index) {
            self.recycle(block);
        }
    }

    fn keep(&mut self, index: u64, block: &mut Box<[u8]>) -> bool {
        let kept = Arc::new(Block(RwLock::new(std::mem::take(block))));
        if let Some(old) = self.blocks.insert(index, kept) {
            self.recycle(old);
        }
        *block = self.free.pop().unwrap_or_default();
        true
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}

/// Memory for a block.
pub(super) fn new_block() -> Box<[u8]> {
    vec![0; BLOCK as usize].into_boxed_slice()
}
