//! What the disk thread does for a resource: it loads requested blocks, and writes those that a writer left in memory.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::disk::{Disk, DiskWork};
use super::layout::{BLOCK, bytes_of, parts};
use super::memory::Block;
use super::ranges::RangeSet;
use super::resource::{Resource, State};
use super::write_behind::{Backlog, Unwritten};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::foreign::contain;

/// How long a writer waits for the disk thread, which may hang on the disk of another resource. Enough for the blocks of one resource
/// on a disk that writes 40 MB a second.
const MAX_WAIT: Duration = Duration::from_millis(50);

impl Resource {
    /// Stores a whole block as [`write_at`](Self::write_at) does. Takes its memory if the store can use it, or else until
    /// the block has been written; then `block` is empty afterwards. A block that can't be written later is stored no
    /// more, and the next write returns the error.
    pub(crate) fn write_block(self: &Arc<Self>, offset: u64, block: &mut Buffer) -> Result<(), Error> {
        let is_whole = offset % BLOCK == 0 && block.len() as u64 == BLOCK;
        if !is_whole || !(self.keep(offset, block)? || self.write_behind(offset, block)?) {
            return self.write_at(offset, block);
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Stores bytes as [`write_at`](Self::write_at) does. Leaves those that follow a whole block in memory until their own block
    /// is full, and has been written by the disk thread; then an error is returned by the next write.
    pub(crate) fn store(self: &Arc<Self>, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut has_filled = false;
        for part in parts(offset, bytes.len()) {
            let at = offset + part.bytes.start as u64;
            if self.fill(at, &bytes[part.bytes.clone()])? {
                has_filled = true;
                // Now, and not after the next part, which may wait for the disk or fail.
                self.changed.notify_all();
            } else {
                self.write_at(at, &bytes[part.bytes])?;
            }
        }
        if has_filled { self.enlist() } else { Ok(()) }
    }

    /// Stores bytes of one block in memory, if they continue the block that is being filled or begin one. False if they have to
    /// be written elsewhere.
    fn fill(self: &Arc<Self>, offset: u64, bytes: &[u8]) -> Result<bool, Error> {
        let index = offset / BLOCK;
        let filling = {
            let state = self.state.lock();
            let filling = state.write_behind.filling_at(offset);
            if filling.is_none() && !state.may_fill(offset) {
                return Ok(false);
            }
            filling
        };
        let block = match filling {
            Some(block) => block,
            None => {
                // Without the lock: starting the disk thread is I/O. So `may_fill` is asked again below.
                let Some(block) = self.reserve(Backlog::begin)? else { return Ok(false) };
                let mut state = self.state.lock();
                if !state.may_fill(offset) {
                    return Ok(false);
                }
                state.writable()?.entry(index);
                state.write_behind.begin(index, block)
            }
        };
        // Without the lock of the state. The bytes can't be read before `handle_filled` has counted them.
        block.fill(offset % BLOCK, bytes);
        let mut state = self.state.lock();
        let end = offset + bytes.len() as u64;
        // An eviction may have removed the block, or another writer may fill another one by now.
        let is_filled = state.write_behind.handle_filled(index, &block, end - index * BLOCK);
        if is_filled {
            // What was loaded of the block before is less than the block.
            state.block_cache.forget(index);
            state.ranges.insert(offset..end);
        }
        Ok(is_filled)
    }

    /// Makes `block` the one at `offset`. False if the store does not keep memory.
    fn keep(&self, offset: u64, block: &mut Buffer) -> Result<bool, Error> {
        let mut state = self.state.lock();
        let is_kept = state.writable()?.keep(offset / BLOCK, block);
        if is_kept {
            state.ranges.insert(offset..offset + BLOCK);
        }
        Ok(is_kept)
    }

    /// Leaves a block in memory for the disk thread to write. False if there is no room for it.
    fn write_behind(self: &Arc<Self>, offset: u64, block: &mut Buffer) -> Result<bool, Error> {
        let Some(block) = self.reserve(|backlog| backlog.take(block))? else { return Ok(false) };
        {
            let mut state = self.state.lock();
            let index = offset / BLOCK;
            state.writable()?.entry(index);
            state.write_behind.add(index, block);
            // What was loaded of the block before is less than the block.
            state.block_cache.forget(index);
            state.ranges.insert(offset..offset + BLOCK);
        }
        self.enlist()?;
        Ok(true)
    }

    /// What `take` gets of the backlog. If that is full, blocks while the disk thread writes blocks of this resource, for at most
    /// [`MAX_WAIT`]. `None` if there is still no room.
    fn reserve(
        self: &Arc<Self>,
        mut take: impl FnMut(&Arc<Backlog>) -> Option<Unwritten>,
    ) -> Result<Option<Unwritten>, Error> {
        // No share of the disk thread: the close drops the last one, and must not leave that to a thread which waits here.
        let backlog = Arc::clone(self.shared_disk()?.backlog());
        if let Some(block) = take(&backlog) {
            return Ok(Some(block));
        }
        // Blocks of other resources may have made those of this one due since these were added.
        self.enlist()?;
        let mut state = self.state.lock();
        // To write to the same file beside the disk thread is no faster: the system lets one thread write at a time, and others
        // spin until it is their turn.
        let until = Instant::now() + MAX_WAIT;
        while state.is_enlisted
            && state.write_behind.is_crowded()
            && !self.is_interrupted.load(Ordering::Relaxed)
            && !self.written.wait_until(&mut state, until).timed_out()
        {}
        drop(state);
        // Other writers may have taken the room. This one writes its bytes itself then.
        Ok(take(&backlog))
    }

    /// Notifies the disk thread if there is work that it does not know of.
    pub(super) fn enlist(self: &Arc<Self>) -> Result<(), Error> {
        {
            let mut state = self.state.lock();
            let has_work = state.block_cache.has_requests() || state.write_behind.is_due();
            if !has_work || std::mem::replace(&mut state.is_enlisted, true) {
                return Ok(());
            }
        }
        match self.shared_disk() {
            Ok(disk) => {
                let work: Arc<dyn DiskWork> = Arc::clone(self) as _;
                disk.request(&work);
            }
            Err(error) => {
                // So that the next store tries again.
                self.state.lock().is_enlisted = false;
                self.written.notify_all();
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn shared_disk(&self) -> Result<Arc<Disk>, Error> {
        let mut disk = self.disk.lock();
        if let Some(disk) = &*disk {
            return Ok(Arc::clone(disk));
        }
        let shared = Disk::shared()?;
        Ok(Arc::clone(disk.insert(shared)))
    }

    fn load_block(&self, index: u64, block: &Arc<Block>) -> Result<(), Error> {
        let parts = common(&self.state.lock().ranges, bytes_of(index));
        for part in parts {
            // Not straight into the block: it must not be locked while a disk is waited for.
            let mut bytes = vec![0; (part.end - part.start) as usize];
            let got = self.read_at(part.start, &mut bytes)?;
            block.copy_from(part.start % BLOCK, &bytes[..got]);
            self.state.lock().block_cache.note(block, part.start..part.start + got as u64);
            if got < bytes.len() {
                // Evicted or lost meanwhile.
                self.state.lock().block_cache.forget(index);
                // A reader that has got `OnDisk` for these bytes has to ask again.
                self.changed.notify_all();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes all blocks that wait for the disk thread. Blocks for the disk.
    ///
    /// # Errors
    ///
    /// The reason why a block could not be written; the block is not stored any more.
    #[cfg(feature = "cache")]
    pub(crate) fn flush(&self) -> Result<(), Error> {
        // A block that the disk thread writes just now is among them: written twice, it is the same.
        let waiting = self.state.lock().write_behind.all();
        for (index, block, filled) in waiting {
            self.write_unwritten(index, &block, filled);
        }
        self.state.lock().write_failure.take().map_or(Ok(()), Err)
    }

    /// Writes the first `filled` bytes of a block.
    fn write_unwritten(&self, index: u64, block: &Arc<Unwritten>, filled: u64) {
        let place = self.state.lock().store.as_ref().and_then(|store| store.get(index));
        let Some(place) = place else { return };
        // A panic must not pass: readers and writers of all resources wait for this thread.
        let written = contain("the write of a block", || block.write_to(&*place, filled))
            .unwrap_or_else(|panic| Err(panic.into()));
        let mut state = self.state.lock();
        // A block that was evicted or replaced meanwhile is no concern of this write.
        if !state.write_behind.handle_written(index, block) {
            return;
        }
        let Err(error) = written else { return };
        let on_failure = state.store.as_mut().and_then(|store| store.handle_failure(index, &place));
        if let Some(on_failure) = on_failure {
            // Stored again by the next line: the place that it gets now is another one.
            state.ranges.remove(bytes_of(index));
            drop(state);
            on_failure(error);
            if let Err(error) = block.write_with(filled, |bytes| self.write_at(index * BLOCK, bytes)) {
                self.state.lock().write_failure = Some(error);
            }
            return;
        }
        state.ranges.remove(bytes_of(index));
        if let Some(store) = &mut state.store {
            store.remove(index);
        }
        state.write_failure = Some(error);
    }
}

impl State {
    /// True if a block may be filled in memory from `offset` on: its start, behind a block that is there. False if bytes of it are
    /// stored already, which may lie in memory only.
    fn may_fill(&self, offset: u64) -> bool {
        // Only behind a block that is there: so a file of which a few bytes are read takes no memory, and needs no thread.
        let Some(before) = offset.checked_sub(BLOCK).filter(|_| offset % BLOCK == 0) else { return false };
        let is_on_disk =
            self.store.as_ref().is_some_and(|store| !store.is_in_memory() && !store.outlives_resource());
        is_on_disk && self.ranges.run_from(before) == offset
    }
}

impl DiskWork for Resource {
    /// Loads the next requested block, or else writes the next block. If a load fails, the reader of the block gets the
    /// error.
    fn work(&self) -> bool {
        let (request, unwritten) = {
            let mut state = self.state.lock();
            let request = state.block_cache.take_request();
            // First: a reader waits for a load, and no thread for a write.
            let unwritten = if request.is_none() { state.write_behind.poll() } else { None };
            (request, unwritten)
        };
        if let Some((index, block)) = request {
            let loaded = contain("the load of a block", || self.load_block(index, &block));
            if let Err(error) = loaded.unwrap_or_else(|panic| Err(panic.into())) {
                self.state.lock().block_cache.fail(index, error);
            }
        }
        if let Some((index, block, filled)) = unwritten {
            self.write_unwritten(index, &block, filled);
        }
        let mut state = self.state.lock();
        // Under the lock that guards the work: a thread that adds some later sees this, and notifies the disk thread again.
        state.is_enlisted = state.block_cache.has_requests() || state.write_behind.is_due();
        if !state.write_behind.is_crowded() {
            self.written.notify_all();
        }
        state.is_enlisted
    }
}

/// The parts of `range` that are in `ranges`.
fn common(ranges: &RangeSet, range: Range<u64>) -> Vec<Range<u64>> {
    let common = |stored: Range<u64>| stored.start.max(range.start)..stored.end.min(range.end);
    ranges.iter().map(common).filter(|part| !part.is_empty()).collect()
}
