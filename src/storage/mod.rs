//! The stored bytes of one file. Sinks write them, readers read them and block until they arrive.
//!
//! Bytes are kept in blocks of 256 KiB. One mutex guards which bytes are stored and where their blocks are. The bytes
//! themselves are copied outside of the lock. A writer marks bytes as stored only after it has copied them. A reader
//! uses copied bytes only if their block has not moved during the copy. So an eviction in between costs a second copy,
//! and never yields a wrong byte.

mod block_cache;
mod disk;
mod memory;
mod ranges;
mod temp_file;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use self::block_cache::BlockCache;
use self::disk::Disk;
use self::memory::{Block, Blocks};
use self::temp_file::{FileBlocks, Place};
use crate::cancel::CancelReason;
use crate::config::StorageConfig;
use crate::error::Error;

pub(crate) use ranges::RangeSet;

/// Bytes in a block: what a worker reads at once, so that a block can be kept as it came.
const BLOCK: u64 = 256 * 1024;

/// The bytes of one file, as far as they are there.
#[derive(Debug)]
pub(crate) struct Resource {
    state: Mutex<State>,
    /// Notified by `write_at`, and by `notify` when something changed that waiters ask about.
    changed: Condvar,
    /// The thread that loads blocks, from the first one on that was requested, until the close.
    disk: Mutex<Option<Arc<Disk>>>,
}

#[derive(Debug)]
struct State {
    /// The bytes that are there. Each lies in a block of `backend`.
    ranges: RangeSet,
    backend: Backend,
    /// What of a temporary file lies in memory as well.
    block_cache: BlockCache,
    /// The disk thread has been told that there are requested blocks, and has not loaded them all.
    is_loading: bool,
    /// Evictions so far that took a block. A copy during which it did not change is good.
    evictions: u64,
}

#[derive(Debug)]
enum Backend {
    Memory(Blocks),
    File(FileBlocks),
    /// Nothing is there, and nothing is taken in.
    Closed,
}

/// What a read that does not wait for a disk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TryStored {
    /// So many bytes were copied.
    Bytes(usize),
    /// The bytes are there, but not in memory yet.
    OnDisk,
    /// The bytes are not there.
    Nothing,
}

/// A block to copy to or from.
enum Handle {
    Memory(Block),
    File(Place),
}

/// What a waiter looks at.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// The bytes that are there.
    pub(crate) ranges: &'a RangeSet,
}

/// The part of some bytes that lies in one block.
struct Part {
    index: u64,
    /// Offset in the block.
    within: u64,
    /// Where it is among the bytes.
    bytes: Range<usize>,
}

impl Resource {
    pub(crate) fn new(config: &StorageConfig) -> Result<Self, Error> {
        let backend = match config {
            StorageConfig::Memory | StorageConfig::WholeMemory => Backend::Memory(Blocks::default()),
            StorageConfig::TempFile(directory) | StorageConfig::WindowedTempFile(directory) => {
                Backend::File(FileBlocks::new(directory.as_deref())?)
            }
        };
        Ok(Self::over(backend))
    }

    fn over(backend: Backend) -> Self {
        let state = State {
            ranges: RangeSet::default(),
            backend,
            block_cache: BlockCache::default(),
            is_loading: false,
            evictions: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), disk: Mutex::default() }
    }

    /// Stores `bytes` at `offset` and wakes who waits. What is there already is overwritten, with the same bytes if the
    /// writer is right. After an error what was stored before is still there.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        for part in parts(offset, bytes.len()) {
            let from = offset + part.bytes.start as u64;
            let range = from..from + part.bytes.len() as u64;
            let block_cache = loop {
                // A fetch whose stream is gone ends with this.
                let handle = self.state.lock().backend.entry(part.index);
                let handle = handle.ok_or_else(|| Error::cancelled(CancelReason::Peer))?;
                handle.write(part.within, &bytes[part.bytes.clone()])?;
                let mut state = self.state.lock();
                // An eviction may have taken the block while it was written.
                if state.backend.is_current(part.index, &handle) {
                    state.ranges.insert(range.clone());
                    break state.block_cache.block(part.index);
                }
            };
            if let Some(block) = block_cache {
                Handle::Memory(Arc::clone(&block)).write(part.within, &bytes[part.bytes])?;
                self.state.lock().block_cache.note(&block, range);
            }
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Stores a whole block as [`write_at`](Self::write_at) does, and keeps its memory if that is of use here. `block`
    /// is as long afterwards, with whatever in it.
    pub(crate) fn write_block(&self, offset: u64, block: &mut Box<[u8]>) -> Result<(), Error> {
        let is_whole = offset % BLOCK == 0 && block.len() as u64 == BLOCK;
        if !is_whole || !self.state.lock().keep(offset, block) {
            return self.write_at(offset, block);
        }
        self.changed.notify_all();
        if block.is_empty() {
            *block = memory::new_block();
        }
        Ok(())
    }

    /// Copies what is there without a gap from `offset` on, up to the length of `buf`. 0 says that there is nothing.
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

    /// Copies what is there from `offset` on, up to the end of its block.
    fn read_part(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        loop {
            let (handle, len, evictions) = {
                let state = self.state.lock();
                let end = state.ranges.run_from(offset).min(bytes_of(offset / BLOCK).end);
                let len = usize::try_from(end - offset).map_or(buf.len(), |run| run.min(buf.len()));
                match state.backend.get(offset / BLOCK) {
                    Some(handle) if len > 0 => (handle, len, state.evictions),
                    _ => return Ok(0),
                }
            };
            handle.read(offset % BLOCK, &mut buf[..len])?;
            if self.state.lock().evictions == evictions {
                return Ok(len);
            }
            // The block may have been given to other bytes during the copy.
        }
    }

    /// Copies what is there from `offset` on as far as it lies in memory: never waits for a disk. A block that does not
    /// lie there is requested from the disk thread, and so is the one behind a block that does.
    ///
    /// # Errors
    ///
    /// What loading the block at `offset` failed of, once; then it is requested again. What starting the thread failed
    /// of.
    pub(crate) fn try_read_at(self: &Arc<Self>, offset: u64, buf: &mut [u8]) -> Result<TryStored, Error> {
        let stored = self.read_loaded(offset, buf)?;
        self.load_requested()?;
        Ok(stored)
    }

    /// Copies what lies in memory, and notes which blocks are to be loaded.
    fn read_loaded(&self, offset: u64, buf: &mut [u8]) -> Result<TryStored, Error> {
        if matches!(self.state.lock().backend, Backend::Memory(_)) {
            let got = self.read_at(offset, buf)?;
            return Ok(if got == 0 { TryStored::Nothing } else { TryStored::Bytes(got) });
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let Some((block, end)) = self.state.lock().find_cached(at) else { break };
            let len = usize::try_from(end - at).map_or(buf.len() - done, |run| run.min(buf.len() - done));
            Handle::Memory(block).read(at % BLOCK, &mut buf[done..done + len])?;
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

    /// Tells the disk thread if there are blocks to load and it does not know.
    fn load_requested(self: &Arc<Self>) -> Result<(), Error> {
        {
            let mut state = self.state.lock();
            if !state.block_cache.has_requests() || std::mem::replace(&mut state.is_loading, true) {
                return Ok(());
            }
        }
        match self.disk() {
            Ok(disk) => disk.request(self),
            Err(error) => {
                self.state.lock().is_loading = false;
                return Err(error);
            }
        }
        Ok(())
    }

    fn disk(&self) -> Result<Arc<Disk>, Error> {
        let mut disk = self.disk.lock();
        if let Some(disk) = &*disk {
            return Ok(Arc::clone(disk));
        }
        let shared = Disk::shared()?;
        Ok(Arc::clone(disk.insert(shared)))
    }

    /// Drops all bytes, now and for good: frees the memory, closes the temporary file, and gives back the share of the
    /// disk thread, whoever still holds the resource. What comes later is not stored.
    pub(crate) fn close(&self) {
        let dropped = {
            let mut state = self.state.lock();
            // Whoever copies just now copies again, and finds nothing.
            state.evictions += 1;
            state.ranges = RangeSet::default();
            (std::mem::replace(&mut state.backend, Backend::Closed), std::mem::take(&mut state.block_cache))
        };
        // Outside of the lock: there may be much to free.
        drop(dropped);
        let disk = self.disk.lock().take();
        drop(disk);
        self.notify();
    }

    /// Loads the next requested block into memory: reads from the disk. True if there are more. What it fails of is for
    /// the reader of that block.
    fn load_next(&self) -> bool {
        let next = self.state.lock().block_cache.take_request();
        if let Some((index, block)) = next {
            if let Err(error) = self.load_block(index, &block) {
                self.state.lock().block_cache.fail(index, error);
            }
        }
        let mut state = self.state.lock();
        // In the same turn of the lock as the look: who requests a block after it tells the thread again.
        state.is_loading = state.block_cache.has_requests();
        state.is_loading
    }

    fn load_block(&self, index: u64, block: &Block) -> Result<(), Error> {
        let (place, parts) = {
            let state = self.state.lock();
            let Some(place) = state.backend.get(index) else { return Ok(()) };
            (place, cut(&state.ranges, bytes_of(index)))
        };
        for part in parts {
            // Not straight into the block: it must not be locked while a disk is waited for.
            let mut bytes = vec![0; (part.end - part.start) as usize];
            place.read(part.start % BLOCK, &mut bytes)?;
            Handle::Memory(Arc::clone(block)).write(part.start % BLOCK, &bytes)?;
            self.state.lock().block_cache.note(block, part);
        }
        Ok(())
    }

    /// Forgets the blocks that lie outside of all of `keep`.
    pub(crate) fn evict(&self, keep: &[Range<u64>]) {
        let mut state = self.state.lock();
        let outside: Vec<u64> =
            gaps_between(keep).into_iter().flat_map(|gap| state.backend.indices(gap)).collect();
        for index in &outside {
            state.ranges.remove(bytes_of(*index));
            state.backend.remove(*index);
            state.block_cache.forget(*index);
        }
        state.evictions += u64::from(!outside.is_empty());
    }

    /// Shows `look` which bytes are there. It runs under the lock: short, and nothing foreign.
    pub(crate) fn with_ranges<T>(&self, look: impl FnOnce(&RangeSet) -> T) -> T {
        look(&self.state.lock().ranges)
    }

    /// Blocks until `ready` answers, or `deadline` has passed. `ready` runs under the lock, at once and after each
    /// change: short, and nothing foreign.
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

    /// Lets who waits look again: something outside of here has changed.
    pub(crate) fn notify(&self) {
        // Under the lock, so that nobody is between the look and the wait.
        let _state = self.state.lock();
        self.changed.notify_all();
    }
}

impl State {
    /// What [`BlockCache::get`] answers; wishes for it, or for what comes behind it.
    fn find_cached(&mut self, offset: u64) -> Option<(Block, u64)> {
        let found = self.block_cache.get(offset);
        let index = offset / BLOCK + u64::from(found.is_some());
        if self.backend.get(index).is_some() {
            self.block_cache.request(index);
        }
        found
    }

    /// Makes `block` the one at `offset`, and leaves free memory in its place, or nothing. False if blocks are not in
    /// memory.
    fn keep(&mut self, offset: u64, block: &mut Box<[u8]>) -> bool {
        let Backend::Memory(blocks) = &mut self.backend else { return false };
        *block = blocks.put(offset / BLOCK, std::mem::take(block)).unwrap_or_default();
        self.ranges.insert(offset..offset + BLOCK);
        true
    }
}

/// The bytes that the block of this index holds.
fn bytes_of(index: u64) -> Range<u64> {
    index * BLOCK..(index * BLOCK).saturating_add(BLOCK)
}

/// What of `range` is there.
fn cut(ranges: &RangeSet, range: Range<u64>) -> Vec<Range<u64>> {
    let common = |there: Range<u64>| there.start.max(range.start)..there.end.min(range.end);
    ranges.iter().map(common).filter(|part| !part.is_empty()).collect()
}

/// The indices of blocks that lie outside of all these windows.
fn gaps_between(windows: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut kept: Vec<Range<u64>> = windows
        .iter()
        .filter(|window| !window.is_empty())
        .map(|window| window.start / BLOCK..window.end.div_ceil(BLOCK))
        .collect();
    kept.sort_by_key(|blocks| blocks.start);
    let mut gaps = Vec::with_capacity(kept.len() + 1);
    let mut from = 0;
    for blocks in kept {
        if from < blocks.start {
            gaps.push(from..blocks.start);
        }
        from = from.max(blocks.end);
    }
    gaps.push(from..u64::MAX);
    gaps
}

impl Backend {
    /// The block of this index; made if it is not there. `None` once this is closed.
    fn entry(&mut self, index: u64) -> Option<Handle> {
        match self {
            Self::Memory(blocks) => Some(Handle::Memory(blocks.entry(index))),
            Self::File(blocks) => Some(Handle::File(blocks.entry(index))),
            Self::Closed => None,
        }
    }

    fn get(&self, index: u64) -> Option<Handle> {
        match self {
            Self::Memory(blocks) => blocks.get(index).map(Handle::Memory),
            Self::File(blocks) => blocks.get(index).map(Handle::File),
            Self::Closed => None,
        }
    }

    fn is_current(&self, index: u64, handle: &Handle) -> bool {
        match (self, handle) {
            (Self::Memory(blocks), Handle::Memory(block)) => blocks.is_current(index, block),
            (Self::File(blocks), Handle::File(place)) => blocks.is_current(index, place),
            _ => false,
        }
    }

    fn indices(&self, within: Range<u64>) -> Vec<u64> {
        match self {
            Self::Memory(blocks) => blocks.indices(within),
            Self::File(blocks) => blocks.indices(within),
            Self::Closed => Vec::new(),
        }
    }

    fn remove(&mut self, index: u64) {
        match self {
            Self::Memory(blocks) => blocks.remove(index),
            Self::File(blocks) => blocks.remove(index),
            Self::Closed => {}
        }
    }
}

impl Handle {
    fn write(&self, within: u64, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Memory(block) => {
                let at = within as usize;
                block.write()[at..at + bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
            Self::File(place) => place.write(within, bytes),
        }
    }

    fn read(&self, within: u64, buf: &mut [u8]) -> Result<(), Error> {
        match self {
            Self::Memory(block) => {
                let at = within as usize;
                buf.copy_from_slice(&block.read()[at..at + buf.len()]);
                Ok(())
            }
            Self::File(place) => place.read(within, buf),
        }
    }
}

/// Cuts `len` bytes at `offset` at the borders of blocks.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = Part> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = at % BLOCK;
        let take = (len - done).min((BLOCK - within) as usize);
        done += take;
        Some(Part { index: at / BLOCK, within, bytes: done - take..done })
    })
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of windows, some of one")]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn byte_at(offset: u64) -> u8 {
        (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
    }

    fn bytes(range: Range<u64>) -> Vec<u8> {
        range.map(byte_at).collect()
    }

    fn both() -> [Resource; 2] {
        [StorageConfig::Memory, StorageConfig::TempFile(None)].map(|config| Resource::new(&config).unwrap())
    }

    #[test]
    fn what_is_written_anywhere_is_read_back() {
        for resource in both() {
            let far = 5 << 32;
            resource.write_at(far + 10, &bytes(far + 10..far + 200_000)).unwrap();
            let mut buf = vec![0; 300_000];
            assert_eq!(resource.read_at(far, &mut buf).unwrap(), 0);
            let got = resource.read_at(far + 70_000, &mut buf).unwrap();
            assert_eq!(buf[..got], bytes(far + 70_000..far + 200_000));
        }
    }

    #[test]
    fn eviction_forgets_whole_blocks_outside_the_windows() {
        for resource in both() {
            resource.write_at(0, &bytes(0..4 * BLOCK)).unwrap();
            resource.evict(&[BLOCK + 5..BLOCK + 6, 3 * BLOCK - 1..3 * BLOCK]);
            let ranges: Vec<_> = resource.with_ranges(|ranges| ranges.iter().collect());
            assert_eq!(ranges.len(), 1);
            assert_eq!(ranges[0], BLOCK..3 * BLOCK);
            resource.write_at(9 * BLOCK, &bytes(9 * BLOCK..10 * BLOCK)).unwrap();
            let mut buf = vec![0; BLOCK as usize];
            assert_eq!(resource.read_at(2 * BLOCK, &mut buf).unwrap(), buf.len());
            assert_eq!(buf, bytes(2 * BLOCK..3 * BLOCK));
        }
    }

    #[test]
    fn only_blocks_outside_of_all_windows_are_let_go() {
        let blocks = |range: Range<u64>| range.start * BLOCK..range.end * BLOCK;
        assert_eq!(gaps_between(&[]), [0..u64::MAX]);
        assert_eq!(gaps_between(&[0..1]), [1..u64::MAX]);
        let windows = [blocks(7..9), BLOCK + 1..BLOCK + 2, 3 * BLOCK - 1..4 * BLOCK + 1, blocks(3..4)];
        assert_eq!(gaps_between(&windows), [0..1, 5..7, 9..u64::MAX]);
    }

    #[test]
    fn a_full_disk_is_an_error_of_its_own_and_nothing_counts_as_stored() {
        let Ok(full) = std::fs::File::options().read(true).write(true).open("/dev/full") else {
            return; // A system without it has nothing to test with.
        };
        let backend = Backend::File(FileBlocks::over(full));
        let resource = Resource::over(backend);
        let error = resource.write_at(5, b"bytes").unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, false));
        assert_eq!(resource.read_at(5, &mut [0; 10]).unwrap(), 0);
    }

    #[test]
    fn a_slot_of_the_file_that_is_still_held_is_not_given_away() {
        let mut blocks = FileBlocks::new(None).unwrap();
        let held = blocks.entry(7);
        held.write(0, b"seven").unwrap();
        blocks.remove(7);
        let other = blocks.entry(8);
        other.write(0, b"eight").unwrap();
        let mut read = [0; 5];
        held.read(0, &mut read).unwrap();
        assert_eq!(&read, b"seven");
        assert!(!blocks.is_current(7, &held) && blocks.is_current(8, &other));
        drop(held);
        blocks.entry(9).write(0, b"nine!").unwrap();
        assert_eq!(blocks.len(), 2);
    }

    #[test]
    fn who_does_not_wait_for_the_disk_gets_what_was_brought_and_what_is_written_from_then_on() {
        let resource = Resource::new(&StorageConfig::TempFile(None)).unwrap();
        let mut buf = vec![0; 3 * BLOCK as usize];
        assert_eq!(resource.read_loaded(0, &mut buf).unwrap(), TryStored::Nothing);
        assert!(!resource.load_next());
        resource.write_at(0, &bytes(0..BLOCK + 10)).unwrap();
        assert_eq!(resource.read_loaded(5, &mut buf).unwrap(), TryStored::OnDisk);
        while resource.load_next() {}
        // What comes behind is wished for by the way.
        assert_eq!(resource.read_loaded(5, &mut buf).unwrap(), TryStored::Bytes(BLOCK as usize - 5));
        assert!(resource.state.lock().block_cache.has_requests());
        while resource.load_next() {}
        resource.write_at(BLOCK + 10, &bytes(BLOCK + 10..BLOCK + 100)).unwrap();
        assert_eq!(resource.read_loaded(5, &mut buf).unwrap(), TryStored::Bytes(BLOCK as usize + 95));
        assert_eq!(buf[..BLOCK as usize + 95], bytes(5..BLOCK + 100));
        resource.evict(&[BLOCK..BLOCK + 1]);
        assert_eq!(resource.read_loaded(5, &mut buf).unwrap(), TryStored::Nothing);
        assert_eq!(resource.read_loaded(BLOCK, &mut buf).unwrap(), TryStored::Bytes(100));
    }

    #[test]
    fn what_loading_fails_of_is_told_once_to_who_reads_that_block() {
        let file = tempfile::tempfile().unwrap();
        let resource = Resource::over(Backend::File(FileBlocks::over(file.try_clone().unwrap())));
        resource.write_at(0, &bytes(0..2 * BLOCK)).unwrap();
        let mut buf = [0; 10];
        assert_eq!(resource.read_loaded(0, &mut buf).unwrap(), TryStored::OnDisk);
        while resource.load_next() {}
        // The first block lies in memory by now; the second one is lost.
        file.set_len(BLOCK).unwrap();
        for _ in 0..2 {
            assert_eq!(resource.read_loaded(0, &mut buf).unwrap(), TryStored::Bytes(10));
            while resource.load_next() {}
        }
        for _ in 0..2 {
            assert_eq!(resource.read_loaded(BLOCK, &mut buf).unwrap_err().kind(), ErrorKind::Storage);
            assert_eq!(resource.read_loaded(BLOCK, &mut buf).unwrap(), TryStored::OnDisk);
            while resource.load_next() {}
        }
    }

    #[test]
    fn a_closed_resource_holds_no_block_and_takes_none_in() {
        let resource = Resource::new(&StorageConfig::WholeMemory).unwrap();
        resource.write_at(0, &bytes(0..3 * BLOCK)).unwrap();
        let held: Vec<_> = (0..3)
            .map(|index| match resource.state.lock().backend.get(index) {
                Some(Handle::Memory(block)) => Arc::downgrade(&block),
                _ => panic!("block {index} is not in memory"),
            })
            .collect();
        resource.close();
        assert!(held.iter().all(|block| block.upgrade().is_none()));

        let resource = Arc::new(Resource::new(&StorageConfig::TempFile(None)).unwrap());
        resource.write_at(0, &bytes(0..BLOCK)).unwrap();
        let mut buf = [0; 100];
        assert_eq!(resource.try_read_at(0, &mut buf).unwrap(), TryStored::OnDisk);
        resource.close();
        assert!(matches!(resource.state.lock().backend, Backend::Closed) && resource.disk.lock().is_none());
        assert_eq!(resource.read_at(0, &mut buf).unwrap(), 0);
        assert_eq!(resource.try_read_at(0, &mut buf).unwrap(), TryStored::Nothing);
        assert!(resource.write_at(0, &buf).unwrap_err().is_cancelled());
        let mut block = bytes(0..BLOCK).into_boxed_slice();
        assert!(resource.write_block(0, &mut block).unwrap_err().is_cancelled());
        resource.evict(&[]);
        assert!(resource.with_ranges(|ranges| ranges.iter().next().is_none()));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, u64),
        /// The block of this index, with its memory.
        WriteBlock(u64),
        Read(u64, u64),
        /// Without waiting for a disk, after it was waited for or not.
        TryRead(u64, u64, bool),
        Evict(Vec<(u64, u64)>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        const END: u64 = 12 * BLOCK;
        let some = || (0..END, 0..3 * BLOCK);
        let step = prop_oneof![
            4 => some().prop_map(|(at, len)| Step::Write(at, len)),
            2 => (0..END / BLOCK).prop_map(Step::WriteBlock),
            4 => some().prop_map(|(at, len)| Step::Read(at, len)),
            4 => (some(), any::<bool>()).prop_map(|((at, len), brought)| Step::TryRead(at, len, brought)),
            1 => proptest::collection::vec(some(), 0..3).prop_map(Step::Evict),
        ];
        proptest::collection::vec(step, 1..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// What is there is what was written and not evicted; whole blocks outside of the windows go, and nothing else.
        #[test]
        fn storage_agrees_with_a_list_of_bytes(steps in steps()) {
            for resource in both() {
                let mut model = vec![None; 15 * BLOCK as usize];
                for step in &steps {
                    match step {
                        Step::Write(at, len) => {
                            resource.write_at(*at, &bytes(*at..at + len)).unwrap();
                            (*at..at + len).for_each(|offset| model[offset as usize] = Some(byte_at(offset)));
                        }
                        Step::WriteBlock(index) => {
                            let own = index * BLOCK..(index + 1) * BLOCK;
                            let mut block = bytes(own.clone()).into_boxed_slice();
                            resource.write_block(own.start, &mut block).unwrap();
                            prop_assert_eq!(block.len() as u64, BLOCK);
                            own.for_each(|offset| model[offset as usize] = Some(byte_at(offset)));
                        }
                        Step::Read(at, len) => {
                            let mut buf = vec![0; *len as usize];
                            let got = resource.read_at(*at, &mut buf).unwrap();
                            let there: Vec<u8> =
                                model[*at as usize..][..*len as usize].iter().map_while(|byte| *byte).collect();
                            prop_assert_eq!(&buf[..got], &there[..]);
                        }
                        Step::TryRead(at, len, is_brought) => {
                            let mut buf = vec![0; *len as usize];
                            let mut stored = resource.read_loaded(*at, &mut buf).unwrap();
                            if *is_brought {
                                while resource.load_next() {}
                                stored = resource.read_loaded(*at, &mut buf).unwrap();
                            }
                            let is_there = *len > 0 && model[*at as usize].is_some();
                            prop_assert_eq!(stored == TryStored::Nothing, !is_there);
                            prop_assert!(!*is_brought || stored != TryStored::OnDisk);
                            if let TryStored::Bytes(got) = stored {
                                let there: Vec<u8> =
                                    model[*at as usize..][..got].iter().map_while(|byte| *byte).collect();
                                prop_assert_eq!(&buf[..got], &there[..]);
                            }
                        }
                        Step::Evict(windows) => {
                            let windows: Vec<_> = windows.iter().map(|(at, len)| *at..at + len).collect();
                            resource.evict(&windows);
                            for (index, block) in model.chunks_mut(BLOCK as usize).enumerate() {
                                let own = index as u64 * BLOCK..(index as u64 + 1) * BLOCK;
                                let kept = |window: &Range<u64>| window.start < own.end && own.start < window.end;
                                if !windows.iter().any(|window| !window.is_empty() && kept(window)) {
                                    block.fill(None);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_waiter_is_woken_by_the_bytes_and_released_by_its_deadline() {
        let resource = Resource::new(&StorageConfig::Memory).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| resource.wait(None, |view| view.ranges.contains(7).then_some(())));
            resource.write_at(7, b"x").unwrap();
            assert_eq!(waiter.join().unwrap(), Some(()));
        });
        assert_eq!(resource.wait(Some(Instant::now()), |_| None::<()>), None);
    }

    /// Writers, readers and an evictor at once: what a reader gets is right, or nothing.
    #[test]
    fn no_race_delivers_a_byte_of_another_offset() {
        for resource in both() {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let readers: Vec<_> = (0..2_u64)
                    .map(|reader| {
                        let (resource, over) = (&resource, &over);
                        scope.spawn(move || {
                            let mut buf = vec![0; 100_000];
                            let mut offset = reader * 1000;
                            while !over.load(Ordering::Acquire) {
                                offset = (offset * 31 + 77) % (32 * BLOCK);
                                let got = resource.read_at(offset, &mut buf).unwrap() as u64;
                                assert_eq!(buf[..got as usize], bytes(offset..offset + got));
                                if let TryStored::Bytes(got) = resource.read_loaded(offset, &mut buf).unwrap()
                                {
                                    assert_eq!(buf[..got], bytes(offset..offset + got as u64));
                                }
                                while resource.load_next() {}
                            }
                        })
                    })
                    .collect();
                for round in 0..300_u64 {
                    let offset = (round * 7919) % (31 * BLOCK);
                    resource.write_at(offset, &bytes(offset..offset + BLOCK)).unwrap();
                    let own = offset.next_multiple_of(BLOCK)..offset.next_multiple_of(BLOCK) + BLOCK;
                    let mut block = bytes(own.clone()).into_boxed_slice();
                    resource.write_block(own.start, &mut block).unwrap();
                    resource.evict(&[offset.saturating_sub(2 * BLOCK)..offset + 3 * BLOCK]);
                }
                over.store(true, Ordering::Release);
                for reader in readers {
                    reader.join().unwrap();
                }
            });
        }
    }
}
