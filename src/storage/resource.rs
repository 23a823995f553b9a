//! The bytes of one file, as far as they are stored, and the readers that wait for more.
//!
//! One mutex guards which bytes are stored and where their blocks lie. The bytes themselves are copied outside of it. A
//! writer marks bytes as stored only after it has copied them. A reader that found a block's place under the lock may
//! copy from it afterwards whatever happens to the block: the place goes to no other block while it is held.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::block_cache::BlockCache;
use super::disk::Disk;
use super::layout::{BLOCK, blocks_outside, bytes_of, parts};
use super::memory::MemoryStore;
use super::ranges::RangeSet;
use super::store::{BlockStore, Place};
use super::temp_file::TempFileStore;
use super::write_behind::WriteBehind;
use crate::cancel::CancelReason;
use crate::config::StorageConfig;
use crate::error::Error;

/// The stored bytes of one file.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(super) state: Mutex<State>,
    /// Notified when bytes were stored, and by `notify` when something else changed that waiters ask about.
    pub(super) changed: Condvar,
    /// Writers that found no room in memory wait here, for a limited time. Notified by the disk thread when it has written enough
    /// blocks or has no more work, by the close, and by `notify`.
    pub(super) written: Condvar,
    /// Writers do not wait for the disk thread: one of them may be the thread of a reader that was interrupted.
    pub(super) is_interrupted: AtomicBool,
    /// The thread for file I/O, from the first request for it until the close.
    pub(super) disk: Mutex<Option<Arc<Disk>>>,
}

#[derive(Debug)]
pub(super) struct State {
    /// The stored bytes. Each lies in a block of `store` or of `write_behind`.
    pub(super) ranges: RangeSet,
    /// `None` once the resource is closed: nothing is stored then, and nothing is accepted.
    pub(super) store: Option<Box<dyn BlockStore>>,
    /// Blocks of a store on disk that are not written yet. Each has a place in `store`.
    pub(super) write_behind: WriteBehind,
    /// Why a block could not be written behind. The next writer gets it.
    pub(super) write_failure: Option<Error>,
    /// Blocks of a store on disk that lie in memory as well.
    pub(super) block_cache: BlockCache,
    /// The disk thread knows that there are blocks to load or to write, and has not done them all.
    pub(super) is_enlisted: bool,
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
            StorageConfig::Memory => Self::over(MemoryStore::default()),
            StorageConfig::WholeMemory => Self::over(MemoryStore::whole()),
            StorageConfig::TempFile(directory) | StorageConfig::WindowedTempFile(directory) => {
                Self::over(TempFileStore::new(directory.as_deref())?)
            }
        })
    }

    pub(super) fn over(store: impl BlockStore + 'static) -> Self {
        let write_behind = WriteBehind::new(store.outlives_resource());
        let state = State {
            ranges: RangeSet::default(),
            store: Some(Box::new(store)),
            write_behind,
            write_failure: None,
            block_cache: BlockCache::default(),
            is_enlisted: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            written: Condvar::new(),
            is_interrupted: AtomicBool::new(false),
            disk: Mutex::default(),
        }
    }

    /// Stores `bytes` at `offset` and wakes readers that wait. Bytes that are stored already are overwritten. After an
    /// error the bytes that were stored before are still there.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        for part in parts(offset, bytes.len()) {
            let from = offset + part.bytes.start as u64;
            let range = from..from + part.bytes.len() as u64;
            let cached = loop {
                // The bytes are written without the lock, since a disk may be slow. The place stays that of this block while it
                // is held.
                let place = self.state.lock().entry(part.index)?;
                if let Err(error) = place.write(part.within, &bytes[part.bytes.clone()]) {
                    // Written once more, in the place that the block gets now.
                    self.handle_failure(part.index, &place, error)?;
                    continue;
                }
                let mut state = self.state.lock();
                // An eviction may have removed the block while it was written.
                if state.is_current(part.index, &place) {
                    state.ranges.insert(range.clone());
                    break state.block_cache.block(part.index);
                }
            };
            if let Some(block) = cached {
                // The block is in memory as well. Without these bytes there, a reader that must not wait for a disk would never
                // see them.
                block.copy_from(part.within, &bytes[part.bytes]);
                self.state.lock().block_cache.note(&block, range);
            }
        }
        // Without the lock: the bytes were marked under it, so a waiter has either seen them or waits already.
        self.changed.notify_all();
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
            let Some((place, end)) = state.find(offset) else { return Ok(0) };
            (place, usize::try_from(end - offset).map_or(buf.len(), |run| run.min(buf.len())))
        };
        if place.read(offset % BLOCK, &mut buf[..len])? {
            return Ok(len);
        }
        self.forget(offset / BLOCK, &place);
        Ok(0)
    }

    /// Forgets a block whose bytes are lost, unless it lies elsewhere by now.
    pub(super) fn forget(&self, index: u64, place: &Arc<dyn Place>) {
        let mut state = self.state.lock();
        if state.is_current(index, place) {
            state.ranges.remove(bytes_of(index));
        }
    }

    /// Forgets a block that could not be written, if it can be stored elsewhere.
    ///
    /// # Errors
    ///
    /// `error`, if it can't.
    fn handle_failure(&self, index: u64, place: &Arc<dyn Place>, error: Error) -> Result<(), Error> {
        let mut state = self.state.lock();
        let Some(on_failure) = state.store.as_mut().and_then(|store| store.handle_failure(index, place))
        else {
            return Err(error);
        };
        state.ranges.remove(bytes_of(index));
        state.block_cache.forget(index);
        drop(state);
        // Without the lock: the callback may lock this resource again.
        on_failure(error);
        Ok(())
    }

    /// Drops all bytes permanently: frees the memory, lets the disk thread close the temporary file if it is large, and
    /// gives back the share of that thread, even if other threads still hold the resource. Later writes fail. Blocks for the disk
    /// if a persistent store has not got all its blocks.
    pub(crate) fn close(&self) {
        let dropped = {
            let mut state = self.state.lock();
            state.ranges = RangeSet::default();
            (
                state.store.take(),
                std::mem::replace(&mut state.write_behind, WriteBehind::new(false)),
                std::mem::take(&mut state.block_cache),
            )
        };
        self.written.notify_all();
        // Outside of the lock: there may be much to free, or to write.
        let (store, write_behind, _) = dropped;
        // Not in the match, which would hold the lock while the drop of the last share joins the disk thread.
        let disk = self.disk.lock().take();
        match (store, disk) {
            (Some(store), _) if store.outlives_resource() => write_behind.write_all(&*store),
            (Some(store), Some(disk)) if store.is_slow_to_drop() => disk.close(store),
            _ => {}
        }
        self.notify();
    }

    /// Forgets the blocks that lie outside of all of `keep`.
    pub(crate) fn evict(&self, keep: &[Range<u64>]) {
        Self::evict_locked(&mut self.state.lock(), keep);
    }

    /// As [`evict`](Self::evict), with what `keep` returns under the lock. `None` keeps all.
    ///
    /// Another thread may move a window, and store the bytes that it waits for, at any time before the lock is taken.
    pub(crate) fn evict_outside(&self, keep: impl FnOnce() -> Option<Vec<Range<u64>>>) {
        let mut state = self.state.lock();
        if let Some(keep) = keep() {
            Self::evict_locked(&mut state, &keep);
        }
    }

    fn evict_locked(state: &mut State, keep: &[Range<u64>]) {
        let State { ranges, store: Some(store), write_behind, block_cache, .. } = state else { return };
        // Collected before: `remove` changes what `indices` looks at.
        for index in blocks_outside(keep).into_iter().flat_map(|gap| store.indices(gap)).collect::<Vec<_>>() {
            ranges.remove(bytes_of(index));
            store.remove(index);
            write_behind.forget(index);
            block_cache.forget(index);
        }
    }

    /// True if no read or write waits for a disk.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.state.lock().store.as_ref().is_some_and(|store| store.is_in_memory())
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
                        // The change may have come after the deadline, before this thread got the lock again.
                        return ready(&View { ranges: &state.ranges });
                    }
                }
            }
        }
    }

    /// Makes waiters look again: something outside of storage has changed. Returns true if there were any.
    pub(crate) fn notify(&self) -> bool {
        // Under the lock, so that no waiter is between its look and its wait.
        let _state = self.state.lock();
        self.changed.notify_all() + self.written.notify_all() > 0
    }

    /// Sets whether writers wait for the disk thread. Takes no lock; [`notify`](Self::notify) wakes those that wait already.
    pub(crate) fn set_interrupted(&self, is_interrupted: bool) {
        // Relaxed: `notify` takes the lock under which writers look.
        self.is_interrupted.store(is_interrupted, Ordering::Relaxed);
    }
}

impl State {
    /// The store, for a writer.
    ///
    /// # Errors
    ///
    /// Why an earlier block could not be written behind, once. That the resource is closed.
    pub(super) fn writable(&mut self) -> Result<&mut dyn BlockStore, Error> {
        if let Some(error) = self.write_failure.take() {
            return Err(error);
        }
        // A fetch whose stream is gone ends with this error.
        let store = self.store.as_mut().ok_or_else(|| Error::cancelled(CancelReason::Peer))?;
        Ok(store.as_mut())
    }

    /// The place of the byte at `offset`, if it is stored, and the end of the bytes that lie there without a gap from it on.
    pub(super) fn find(&self, offset: u64) -> Option<(Arc<dyn Place>, u64)> {
        let run = self.ranges.run_from(offset);
        if run == offset {
            return None;
        }
        if let Some((block, end)) = self.write_behind.get(offset) {
            return Some((Arc::clone(block) as Arc<dyn Place>, end.min(run)));
        }
        let place = self.store.as_ref()?.get(offset / BLOCK)?;
        Some((place, run.min(bytes_of(offset / BLOCK).end)))
    }

    /// The place for new bytes of the block of this index. Makes one if the block has none.
    fn entry(&mut self, index: u64) -> Result<Arc<dyn Place>, Error> {
        let store = self.writable()?;
        let place = store.entry(index);
        // A whole block in memory needs none, and its file gets all of it.
        let whole = self.write_behind.get(index * BLOCK).filter(|(_, end)| *end == bytes_of(index).end);
        Ok(whole.map_or(place, |(block, _)| Arc::clone(block) as Arc<dyn Place>))
    }

    /// True if bytes that were written to `place` are stored: the block was not evicted or replaced meanwhile.
    fn is_current(&self, index: u64, place: &Arc<dyn Place>) -> bool {
        let is_place = |current: Arc<dyn Place>| Arc::ptr_eq(&current, place);
        let in_store = self.store.as_ref().and_then(|store| store.get(index));
        let in_memory =
            self.write_behind.get(index * BLOCK).map(|(block, _)| Arc::clone(block) as Arc<dyn Place>);
        in_store.into_iter().chain(in_memory).any(is_place)
    }
}
