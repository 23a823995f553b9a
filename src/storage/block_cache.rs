//! Blocks of a file on disk that are also held in memory, for readers that must not wait for a disk.
//!
//! A reader that finds a block missing requests it, the [disk thread](super::disk) loads it, and writers keep it up to
//! date.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::layout::BLOCK;
use super::memory::Block;
use super::ranges::RangeSet;
use crate::error::Error;

/// Number of blocks in memory: the one that is read and the next one, for each of four readers. There are more only while that
/// many are loaded and not read yet.
const MOST: usize = 8;
/// Maximum number of blocks in memory, read or not.
const LIMIT: usize = 16;

/// The blocks in memory, and the requested ones.
#[derive(Debug, Default)]
pub(super) struct BlockCache {
    /// In the order of their last use; the most recent one comes last.
    held: VecDeque<Held>,
    /// Blocks to be loaded. None is in `held`.
    requests: VecDeque<u64>,
    /// Blocks that could not be loaded, and why, until a read of the block returns it. None is in `held` or `requests`.
    failures: VecDeque<(u64, Error)>,
}

#[derive(Debug)]
struct Held {
    index: u64,
    block: Arc<Block>,
    /// Bytes, by their offset in the resource, that are in `block`. Only grows.
    there: RangeSet,
    /// It was read since it was loaded.
    is_used: bool,
}

impl BlockCache {
    /// The block with the byte at `offset`, and the end of the bytes that are in it without a gap from there on.
    pub(super) fn get(&mut self, offset: u64) -> Option<(Arc<Block>, u64)> {
        let at = self.held.iter().position(|held| held.index == offset / BLOCK)?;
        let mut held = self.held.remove(at)?;
        let end = held.there.run_from(offset);
        let found = (end > offset).then(|| (Arc::clone(&held.block), end));
        held.is_used |= found.is_some();
        self.held.push_back(held);
        found
    }

    /// Requests a block, unless it is requested or in memory already.
    pub(super) fn request(&mut self, index: u64) {
        let has_failed = self.failures.iter().any(|(failed, _)| *failed == index);
        if has_failed || self.block(index).is_some() || self.requests.contains(&index) {
            return;
        }
        // The oldest request is the likeliest to be of a reader that has moved on. One that still needs it asks again.
        if self.requests.len() == LIMIT {
            self.requests.pop_front();
        }
        self.requests.push_back(index);
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// The next block to be loaded, with memory for it. From now on writers of the block write there, too.
    pub(super) fn take_request(&mut self) -> Option<(u64, Arc<Block>)> {
        let index = self.requests.pop_front()?;
        while self.held.len() >= MOST {
            // A reader still needs a block that was loaded and not read yet.
            let used = self.held.iter().position(|held| held.is_used);
            let is_full = self.held.len() >= LIMIT;
            let Some(at) = used.or(is_full.then_some(0)) else { break };
            self.held.remove(at);
        }
        let block = Arc::new(Block::new());
        self.held.push_back(Held {
            index,
            block: Arc::clone(&block),
            there: RangeSet::default(),
            is_used: false,
        });
        Some((index, block))
    }

    /// The memory of a block that is held.
    pub(super) fn block(&self, index: u64) -> Option<Arc<Block>> {
        self.held.iter().find(|held| held.index == index).map(|held| Arc::clone(&held.block))
    }

    /// Notes that these bytes are in `block`, unless it is no longer held.
    pub(super) fn note(&mut self, block: &Arc<Block>, bytes: Range<u64>) {
        if let Some(held) = self.held.iter_mut().find(|held| Arc::ptr_eq(&held.block, block)) {
            held.there.insert(bytes);
        }
    }

    /// Notes that a block could not be loaded. It is not requested again before a read has returned the error.
    pub(super) fn fail(&mut self, index: u64, error: Error) {
        self.forget(index);
        if self.failures.len() == LIMIT {
            self.failures.pop_front();
        }
        self.failures.push_back((index, error));
    }

    /// Why the block could not be loaded, once.
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
    fn a_block_is_requested_once_and_serves_what_was_noted() {
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

    fn load(block_cache: &mut BlockCache, index: u64) {
        block_cache.request(index);
        let (index, block) = block_cache.take_request().unwrap();
        block_cache.note(&block, index * BLOCK..(index + 1) * BLOCK);
    }

    #[test]
    fn a_loaded_block_that_was_not_read_stays_in_memory() {
        let mut block_cache = BlockCache::default();
        let many = LIMIT as u64;
        (0..many).for_each(|index| load(&mut block_cache, index));
        assert!((0..many).all(|index| block_cache.get(index * BLOCK).is_some()));
        load(&mut block_cache, many);
        assert_eq!(block_cache.held.len(), MOST);
        (0..2 * LIMIT as u64).for_each(|index| load(&mut block_cache, 1000 + index));
        assert_eq!(block_cache.held.len(), LIMIT);
    }

    #[test]
    fn the_block_that_was_used_longest_ago_is_dropped_first() {
        let mut block_cache = BlockCache::default();
        for index in 0..MOST as u64 {
            load(&mut block_cache, index);
            assert!(block_cache.get(index * BLOCK).is_some());
        }
        assert!(block_cache.get(0).is_some());
        load(&mut block_cache, 100);
        assert!(block_cache.get(0).is_some() && block_cache.get(BLOCK).is_none());
        assert!(block_cache.get(100 * BLOCK).is_some());
    }
}
