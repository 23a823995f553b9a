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
}

impl BlockStore for MemoryStore {
    fn entry(&mut self, index: u64) -> Arc<dyn Place> {
        let block = self.blocks.entry(index).or_insert_with(|| Arc::new(Block::new()));
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
        self.blocks.insert(index, Arc::new(Block(RwLock::new(std::mem::take(block)))));
        true
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}
