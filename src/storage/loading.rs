//! Reads that never wait for a disk, for callbacks of audio devices. A block that does not lie in memory is requested
//! from the disk thread, which loads it.

use std::ops::Range;
use std::sync::Arc;

use super::disk::{Disk, DiskWork};
use super::layout::{BLOCK, bytes_of};
use super::memory::Block;
use super::ranges::RangeSet;
use super::resource::{Resource, State};
use crate::error::Error;

/// The outcome of a read that does not wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TryStored {
    /// So many bytes were copied.
    Bytes(usize),
    /// The bytes are stored, but not in memory yet.
    OnDisk,
    /// The bytes are not stored.
    Nothing,
}

impl Resource {
    /// Copies what is stored from `offset` on as far as it lies in memory: never waits for a disk. A block that does
    /// not lie in memory is requested from the disk thread, and so is the one behind a block that does.
    ///
    /// # Errors
    ///
    /// The reason why the block at `offset` could not be loaded, once; then it is requested again. The reason why the
    /// disk thread could not be started.
    pub(crate) fn try_read_at(self: &Arc<Self>, offset: u64, buf: &mut [u8]) -> Result<TryStored, Error> {
        let stored = self.read_loaded(offset, buf)?;
        self.load_requested()?;
        Ok(stored)
    }

    /// Copies what lies in memory, and notes which blocks are to be loaded.
    pub(super) fn read_loaded(&self, offset: u64, buf: &mut [u8]) -> Result<TryStored, Error> {
        if self.state.lock().store.as_ref().is_some_and(|store| store.is_in_memory()) {
            let got = self.read_at(offset, buf)?;
            return Ok(if got == 0 { TryStored::Nothing } else { TryStored::Bytes(got) });
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let Some((block, end)) = self.state.lock().find_cached(at) else { break };
            let len = usize::try_from(end - at).map_or(buf.len() - done, |run| run.min(buf.len() - done));
            block.copy_to(at % BLOCK, &mut buf[done..done + len]);
            done += len;
        }
        if done > 0 {
            return Ok(TryStored::Bytes(done));
        }
        let mut state = self.state.lock();
        if let Some(error) = state.block_cache.take_failure(offset / BLOCK) {
            return Err(error);
        }
        Ok(if state.ranges.contains(offset) { TryStored::OnDisk } else { TryStored::Nothing })
    }

    /// Notifies the disk thread if blocks are requested and it does not know.
    fn load_requested(self: &Arc<Self>) -> Result<(), Error> {
        {
            let mut state = self.state.lock();
            if !state.block_cache.has_requests() || std::mem::replace(&mut state.is_loading, true) {
                return Ok(());
            }
        }
        match self.shared_disk() {
            Ok(disk) => {
                let work: Arc<dyn DiskWork> = Arc::clone(self) as _;
                disk.request(&work);
            }
            Err(error) => {
                self.state.lock().is_loading = false;
                return Err(error);
            }
        }
        Ok(())
    }

    fn shared_disk(&self) -> Result<Arc<Disk>, Error> {
        let mut disk = self.disk.lock();
        if let Some(disk) = &*disk {
            return Ok(Arc::clone(disk));
        }
        let shared = Disk::shared()?;
        Ok(Arc::clone(disk.insert(shared)))
    }

    fn load_block(&self, index: u64, block: &Arc<Block>) -> Result<(), Error> {
        let (place, parts) = {
            let state = self.state.lock();
            let Some(place) = state.get(index) else { return Ok(()) };
            (place, common(&state.ranges, bytes_of(index)))
        };
        for part in parts {
            // Not straight into the block: it must not be locked while a disk is waited for.
            let mut bytes = vec![0; (part.end - part.start) as usize];
            place.read(part.start % BLOCK, &mut bytes)?;
            block.copy_from(part.start % BLOCK, &bytes);
            self.state.lock().block_cache.note(block, part);
        }
        Ok(())
    }
}

impl DiskWork for Resource {
    /// Loads the next requested block into memory. If that fails, the reader of the block gets the error.
    fn work(&self) -> bool {
        let next = self.state.lock().block_cache.take_request();
        if let Some((index, block)) = next {
            if let Err(error) = self.load_block(index, &block) {
                self.state.lock().block_cache.fail(index, error);
            }
        }
        let mut state = self.state.lock();
        // Under the same lock as the look: a reader that requests a block after it notifies the thread again.
        state.is_loading = state.block_cache.has_requests();
        state.is_loading
    }
}

impl State {
    /// Finds what [`BlockCache::get`](super::block_cache::BlockCache::get) finds. Requests the block if it is not
    /// there, and else the one behind it.
    fn find_cached(&mut self, offset: u64) -> Option<(Arc<Block>, u64)> {
        let found = self.block_cache.get(offset);
        let index = offset / BLOCK + u64::from(found.is_some());
        if self.get(index).is_some() {
            self.block_cache.request(index);
        }
        found
    }
}

/// The parts of `range` that are in `ranges`.
fn common(ranges: &RangeSet, range: Range<u64>) -> Vec<Range<u64>> {
    let common = |stored: Range<u64>| stored.start.max(range.start)..stored.end.min(range.end);
    ranges.iter().map(common).filter(|part| !part.is_empty()).collect()
}
