//! The bytes of one file, as far as they are stored, and the readers that wait for more.
//!
//! One mutex guards which bytes are stored and where their blocks lie. The bytes themselves are copied outside of it. A
//! writer marks bytes as stored only after it has copied them. A reader that found a block's place under the lock may
//! copy from it afterwards whatever happens to the block: the place goes to no other block while it is held.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::block_cache::BlockCache;
use super::disk::Disk;
use super::layout::{BLOCK, blocks_outside, bytes_of, parts};
use super::memory::{MemoryStore, new_block};
use super::ranges::RangeSet;
use super::store::{BlockStore, Place};
use super::temp_file::TempFileStore;
use crate::cancel::CancelReason;
use crate::config::StorageConfig;
use crate::error::Error;

/// The stored bytes of one file.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(super) state: Mutex<State>,
    /// Notified by `write_at`, and by `notify` when something changed that waiters ask about.
    changed: Condvar,
    /// The thread for file I/O, from the first request for it until the close.
    pub(super) disk: Mutex<Option<Arc<Disk>>>,
}

#[derive(Debug)]
pub(super) struct State {
    /// The stored bytes. Each lies in a block of `store`.
    pub(super) ranges: RangeSet,
    /// `None` once the resource is closed: nothing is stored then, and nothing is accepted.
    pub(super) store: Option<Box<dyn BlockStore>>,
    /// Blocks of a store on disk that lie in memory as well.
    pub(super) block_cache: BlockCache,
    /// The disk thread knows that blocks are requested, and has not loaded them all.
    pub(super) is_loading: bool,
}

/// What a waiter looks at.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// The stored bytes.
    pub(crate) ranges: &'a RangeSet,
}

impl Resource {
    pub(crate) fn new(config: &StorageConfig) -> Result<Self, Error> {
        Ok(match config {
            StorageConfig::Memory | StorageConfig::WholeMemory => Self::over(MemoryStore::default()),
            StorageConfig::TempFile(directory) | StorageConfig::WindowedTempFile(directory) => {
                Self::over(TempFileStore::new(directory.as_deref())?)
            }
        })
    }

    pub(super) fn over(store: impl BlockStore + 'static) -> Self {
        let state = State {
            ranges: RangeSet::default(),
            store: Some(Box::new(store)),
            block_cache: BlockCache::default(),
            is_loading: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), disk: Mutex::default() }
    }

    /// Stores `bytes` at `offset` and wakes readers that wait. Bytes that are stored already are overwritten. After an
    /// error the bytes that were stored before are still there.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        for part in parts(offset, bytes.len()) {
            let from = offset + part.bytes.start as u64;
            let range = from..from + part.bytes.len() as u64;
            let cached = loop {
                let place = self.state.lock().entry(part.index)?;
                place.write(part.within, &bytes[part.bytes.clone()])?;
                let mut state = self.state.lock();
                // An eviction may have removed the block while it was written.
                if state.is_current(part.index, &place) {
                    state.ranges.insert(range.clone());
                    break state.block_cache.block(part.index);
                }
            };
            if let Some(block) = cached {
                block.copy_from(part.within, &bytes[part.bytes]);
                self.state.lock().block_cache.note(&block, range);
            }
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Stores a whole block as [`write_at`](Self::write_at) does, and keeps its memory if the store can use it. `block`
    /// has the same length afterwards, and any content.
    pub(crate) fn write_block(&self, offset: u64, block: &mut Box<[u8]>) -> Result<(), Error> {
        let is_whole = offset % BLOCK == 0 && block.len() as u64 == BLOCK;
        if !is_whole || !self.state.lock().keep(offset, block) {
            return self.write_at(offset, block);
        }
        self.changed.notify_all();
        if block.is_empty() {
            *block = new_block();
        }
        Ok(())
    }

    /// Copies what is stored without a gap from `offset` on, up to the length of `buf`. Returns 0 if nothing is.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_part(offset + done as u64, &mut buf[done..])? {
                0 => break,
                got => done += got,
            }
        }
        Ok(done)
    }

    /// Copies what is stored from `offset` on, up to the end of its block.
    fn read_part(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let (place, len) = {
            let state = self.state.lock();
            let end = state.ranges.run_from(offset).min(bytes_of(offset / BLOCK).end);
            let len = usize::try_from(end - offset).map_or(buf.len(), |run| run.min(buf.len()));
            match state.get(offset / BLOCK) {
                Some(place) if len > 0 => (place, len),
                _ => return Ok(0),
            }
        };
        place.read(offset % BLOCK, &mut buf[..len])?;
        Ok(len)
    }

    /// Drops all bytes permanently: frees the memory, closes the temporary file, and gives back the share of the disk
    /// thread, whoever still holds the resource. Later writes fail.
    pub(crate) fn close(&self) {
        let dropped = {
            let mut state = self.state.lock();
            state.ranges = RangeSet::default();
            (state.store.take(), std::mem::take(&mut state.block_cache))
        };
        // Outside of the lock: there may be much to free.
        drop(dropped);
        let disk = self.disk.lock().take();
        drop(disk);
        self.notify();
    }

    /// Forgets the blocks that lie outside of all of `keep`.
    pub(crate) fn evict(&self, keep: &[Range<u64>]) {
        let mut state = self.state.lock();
        let State { ranges, store: Some(store), block_cache, .. } = &mut *state else { return };
        for index in blocks_outside(keep).into_iter().flat_map(|gap| store.indices(gap)).collect::<Vec<_>>() {
            ranges.remove(bytes_of(index));
            store.remove(index);
            block_cache.forget(index);
        }
    }

    /// Shows `look` which bytes are stored. It runs under the lock: it must be short and call nothing foreign.
    pub(crate) fn with_ranges<T>(&self, look: impl FnOnce(&RangeSet) -> T) -> T {
        look(&self.state.lock().ranges)
    }

    /// Blocks until `ready` returns a value, or `deadline` has passed. `ready` runs under the lock, at once and after
    /// each change: it must be short and call nothing foreign.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&View<'_>) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            let answer = ready(&View { ranges: &state.ranges });
            if answer.is_some() {
                return answer;
            }
            match deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) => {
                    if self.changed.wait_until(&mut state, deadline).timed_out() {
                        return ready(&View { ranges: &state.ranges });
                    }
                }
            }
        }
    }

    /// Makes waiters look again: something outside of storage has changed.
    pub(crate) fn notify(&self) {
        // Under the lock, so that no waiter is between its look and its wait.
        let _state = self.state.lock();
        self.changed.notify_all();
    }
}

impl State {
    /// The place of the block of this index. Makes one if the block has none.
    fn entry(&mut self, index: u64) -> Result<Arc<dyn Place>, Error> {
        // A fetch whose stream is gone ends with this error.
        let store = self.store.as_mut().ok_or_else(|| Error::cancelled(CancelReason::Peer))?;
        Ok(store.entry(index))
    }

    pub(super) fn get(&self, index: u64) -> Option<Arc<dyn Place>> {
        self.store.as_ref()?.get(index)
    }

    fn is_current(&self, index: u64, place: &Arc<dyn Place>) -> bool {
        self.get(index).is_some_and(|current| Arc::ptr_eq(&current, place))
    }

    /// Makes `block` the one at `offset`, and leaves free memory in its place, or nothing. False if the store does not
    /// keep memory.
    fn keep(&mut self, offset: u64, block: &mut Box<[u8]>) -> bool {
        let is_kept = self.store.as_mut().is_some_and(|store| store.keep(offset / BLOCK, block));
        if is_kept {
            self.ranges.insert(offset..offset + BLOCK);
        }
        is_kept
    }
}
