//! Blocks of a temporary file that are also held in memory, for readers that must not wait for a disk.
//!
//! A reader that finds a block missing requests it, the [disk thread](super::disk) loads it, and writers keep it up to
//! date.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;

use super::memory::{Block, new_block};
use super::{BLOCK, RangeSet};
use crate::error::Error;

/// So many blocks lie in memory: two for each of four readers. More only while there are so many that nobody has read.
const MOST: usize = 8;
/// No more than these, whoever has read them or not.
const LIMIT: usize = 16;

/// The blocks in memory, and those that are wished for.
#[derive(Debug, Default)]
pub(super) struct BlockCache {
    /// The one that was used last comes last.
    held: VecDeque<Held>,
    /// Blocks to be brought. None is in `held`.
    requests: VecDeque<u64>,
    /// Blocks that could not be brought, and why, until it is told to who reads them. None is in `held` or `requests`.
    failures: VecDeque<(u64, Error)>,
}

#[derive(Debug)]
struct Held {
    index: u64,
    block: Block,
    /// Bytes, by their offset in the resource, that are in `block`. Grows only.
    there: RangeSet,
    /// Somebody got at it since it was brought.
    is_used: bool,
}

impl BlockCache {
    /// The block with the byte at `offset`, and where the bytes that are in it without a gap from there end.
    pub(super) fn get(&mut self, offset: u64) -> Option<(Block, u64)> {
        let at = self.held.iter().position(|held| held.index == offset / BLOCK)?;
        let mut held = self.held.remove(at)?;
        let end = held.there.run_from(offset);
        let found = (end > offset).then(|| (Arc::clone(&held.block), end));
        held.is_used |= found.is_some();
        self.held.push_back(held);
        found
    }

    /// Wishes for a block, once.
    pub(super) fn request(&mut self, index: u64) {
        let has_failed = self.failures.iter().any(|(failed, _)| *failed == index);
        if has_failed || self.block(index).is_some() || self.requests.contains(&index) {
            return;
        }
        if self.requests.len() == LIMIT {
            self.requests.pop_front();
        }
        self.requests.push_back(index);
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// The next block to be brought, with memory for it. From now on those who write to it write there, too.
    pub(super) fn take_request(&mut self) -> Option<(u64, Block)> {
        let index = self.requests.pop_front()?;
        while self.held.len() >= MOST {
            // What was brought and not read yet is still waited for.
            let used = self.held.iter().position(|held| held.is_used);
            let is_full = self.held.len() >= LIMIT;
            let Some(at) = used.or(is_full.then_some(0)) else { break };
            self.held.remove(at);
        }
        let block = Arc::new(RwLock::new(new_block()));
        self.held.push_back(Held {
            index,
            block: Arc::clone(&block),
            there: RangeSet::default(),
            is_used: false,
        });
        Some((index, block))
    }

    /// The memory of a block that is held.
    pub(super) fn block(&self, index: u64) -> Option<Block> {
        self.held.iter().find(|held| held.index == index).map(|held| Arc::clone(&held.block))
    }

    /// Notes that these bytes are in `block`, unless it is held no more.
    pub(super) fn note(&mut self, block: &Block, bytes: Range<u64>) {
        if let Some(held) = self.held.iter_mut().find(|held| Arc::ptr_eq(&held.block, block)) {
            held.there.insert(bytes);
        }
    }

    /// Notes that a block could not be brought. It is not wished for again before that was told.
    pub(super) fn fail(&mut self, index: u64, error: Error) {
        self.forget(index);
        if self.failures.len() == LIMIT {
            self.failures.pop_front();
        }
        self.failures.push_back((index, error));
    }

    /// Why the block could not be brought, once.
    pub(super) fn take_failure(&mut self, index: u64) -> Option<Error> {
        let at = self.failures.iter().position(|(failed, _)| *failed == index)?;
        self.failures.remove(at).map(|(_, error)| error)
    }

    pub(super) fn forget(&mut self, index: u64) {
        self.held.retain(|held| held.index != index);
        self.requests.retain(|request| *request != index);
        self.failures.retain(|(failed, _)| *failed != index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_wished_for_once_and_serves_what_was_noted() {
        let mut block_cache = BlockCache::default();
        block_cache.request(3);
        block_cache.request(3);
        let (index, block) = block_cache.take_request().unwrap();
        assert_eq!((index, block_cache.has_requests()), (3, false));
        block_cache.request(3);
        assert!(!block_cache.has_requests() && block_cache.get(3 * BLOCK).is_none());
        block_cache.note(&block, 3 * BLOCK + 10..3 * BLOCK + 20);
        assert!(block_cache.get(3 * BLOCK).is_none());
        assert_eq!(block_cache.get(3 * BLOCK + 12).unwrap().1, 3 * BLOCK + 20);
        block_cache.forget(3);
        block_cache.note(&block, 3 * BLOCK..4 * BLOCK);
        assert!(block_cache.get(3 * BLOCK + 12).is_none());
    }

    fn bring(block_cache: &mut BlockCache, index: u64) {
        block_cache.request(index);
        let (index, block) = block_cache.take_request().unwrap();
        block_cache.note(&block, index * BLOCK..(index + 1) * BLOCK);
    }

    #[test]
    fn what_nobody_has_read_stays_for_who_wished_for_it() {
        let mut block_cache = BlockCache::default();
        let many = LIMIT as u64;
        (0..many).for_each(|index| bring(&mut block_cache, index));
        assert!((0..many).all(|index| block_cache.get(index * BLOCK).is_some()));
        bring(&mut block_cache, many);
        assert_eq!(block_cache.held.len(), MOST);
        (0..2 * LIMIT as u64).for_each(|index| bring(&mut block_cache, 1000 + index));
        assert_eq!(block_cache.held.len(), LIMIT);
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut block_cache = BlockCache::default();
        for index in 0..MOST as u64 {
            bring(&mut block_cache, index);
            assert!(block_cache.get(index * BLOCK).is_some());
        }
        assert!(block_cache.get(0).is_some());
        bring(&mut block_cache, 100);
        assert!(block_cache.get(0).is_some() && block_cache.get(BLOCK).is_none());
        assert!(block_cache.get(100 * BLOCK).is_some());
    }
}
