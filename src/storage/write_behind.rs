//! Blocks of a store on disk that a writer leaves in memory until the disk thread has written them.
//!
//! So a writer does not wait for the page cache or the disk, and a reader that follows it closely copies from memory. The memory
//! is limited for all resources of the process together: beyond the limit a writer waits until the disk thread has written some
//! blocks of its resource, which slows it down to the disk's rate. If there are none, it writes its bytes itself.
//!
//! ```text
//!   bytes in sequence ─▶ filling ── full, or another block is filled ──▶ ┐
//!                                                                        ├─▶ order ── due ──▶ disk thread ──▶ file
//!   a whole block ─────────────────────────────────────────────────────▶ ┘
//! ```
//!
//! Of a temporary file the last blocks stay in memory until others push them out: a window moves on before they are written,
//! most of the time, and then they never are. An entry of the cache outlives the resource, so its blocks are due at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::layout::BLOCK;
use super::store::{BlockStore, Place};
use crate::buffer::Buffer;
use crate::error::Error;

/// Maximum number of blocks of all resources in memory, 8 MiB: some milliseconds of a disk's work, so that a burst does not wait
/// for it.
pub(super) const MAX_BACKLOG: usize = 32;

/// No block is begun to be filled beyond this. Resources that are not read keep what they have, and whole blocks of others still
/// find room. A writer that waits for room goes on once so few are left: not for each block, since to wake it takes about as long
/// as to write one.
const MAX_FILLING: usize = 24;

/// This many blocks of all resources stay in memory, 4 MiB, if nothing requires that they are in the file.
const KEPT: usize = 16;

/// How many blocks of all resources lie in memory.
#[derive(Debug)]
pub(super) struct Backlog {
    blocks: AtomicUsize,
    /// See [`KEPT`].
    kept: usize,
}

/// A block that is not in its file yet. Its bytes do not change once they are noted.
#[derive(Debug)]
pub(super) struct Unwritten {
    bytes: RwLock<Buffer>,
    backlog: Arc<Backlog>,
}

/// A block in memory, and how much of it.
#[derive(Debug)]
struct Held {
    block: Arc<Unwritten>,
    /// Number of its first bytes that are stored here. Others may lie in its place in the store.
    filled: u64,
}

/// The blocks of one resource that lie in memory.
#[derive(Debug)]
pub(super) struct WriteBehind {
    /// By the block's index. Each has a place in the store as well.
    blocks: BTreeMap<u64, Held>,
    /// Those that the disk thread has not begun to write, in the order in which they came.
    order: VecDeque<u64>,
    /// The block that a writer is filling. Not in `order`.
    filling: Option<u64>,
    /// Blocks have to get into the file soon.
    is_prompt: bool,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { blocks: AtomicUsize::new(0), kept: KEPT }
    }
}

impl Backlog {
    /// One of which no block stays in memory.
    #[cfg(test)]
    pub(super) fn keeping_none() -> Self {
        Self { blocks: AtomicUsize::new(0), kept: 0 }
    }

    /// Takes a whole block. `None` if too many lie in memory already; then nothing changes.
    pub(super) fn take(self: &Arc<Self>, block: &mut Buffer) -> Option<Unwritten> {
        self.reserve(MAX_BACKLOG)?;
        Some(Unwritten { bytes: RwLock::new(std::mem::take(block)), backlog: Arc::clone(self) })
    }

    /// A block to be filled. `None` if too many lie in memory already.
    pub(super) fn begin(self: &Arc<Self>) -> Option<Unwritten> {
        self.reserve(MAX_FILLING)?;
        Some(Unwritten { bytes: RwLock::new(Buffer::new()), backlog: Arc::clone(self) })
    }

    fn reserve(&self, limit: usize) -> Option<()> {
        let more = |blocks: usize| (blocks < limit).then_some(blocks + 1);
        // Relaxed: only a count. The blocks themselves change hands under the lock of their resource.
        self.blocks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(drop)
    }

    fn is_crowded(&self) -> bool {
        self.blocks.load(Ordering::Relaxed) >= MAX_FILLING
    }

    fn is_above_kept(&self) -> bool {
        self.blocks.load(Ordering::Relaxed) > self.kept
    }
}

impl Unwritten {
    pub(super) fn fill(&self, within: u64, bytes: &[u8]) {
        let at = within as usize;
        self.bytes.write()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes its first `filled` bytes to `place`.
    pub(super) fn write_to(&self, place: &dyn Place, filled: u64) -> Result<(), Error> {
        self.write_with(filled, |bytes| place.write(0, bytes))
    }

    /// Passes its first `filled` bytes to `write`.
    pub(super) fn write_with<T>(&self, filled: u64, write: impl FnOnce(&[u8]) -> T) -> T {
        write(&self.bytes.read()[..filled as usize])
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.backlog.blocks.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place for Unwritten {
    fn read(&self, within: u64, buf: &mut [u8]) -> Result<bool, Error> {
        let at = within as usize;
        buf.copy_from_slice(&self.bytes.read()[at..at + buf.len()]);
        Ok(true)
    }

    /// Does nothing: these bytes are stored, and a byte that is written again is the same one.
    fn write(&self, _within: u64, _bytes: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

impl WriteBehind {
    pub(super) fn new(is_prompt: bool) -> Self {
        Self { blocks: BTreeMap::new(), order: VecDeque::new(), filling: None, is_prompt }
    }

    /// Adds a whole block. One of this index that lies here already is forgotten.
    pub(super) fn add(&mut self, index: u64, block: Unwritten) {
        // Also from `order`, where an index may stand once: `poll` would take the second one for the end of the work.
        self.forget(index);
        self.blocks.insert(index, Held { block: Arc::new(block), filled: BLOCK });
        self.order.push_back(index);
    }

    /// Begins to fill a block. The one that was being filled is to be written as it is.
    pub(super) fn begin(&mut self, index: u64, block: Unwritten) -> Arc<Unwritten> {
        self.forget(index);
        // A writer that has moved on does not come back: a jump begins another block.
        self.order.extend(self.filling.replace(index));
        let block = Arc::new(block);
        self.blocks.insert(index, Held { block: Arc::clone(&block), filled: 0 });
        block
    }

    /// The block that is being filled, if `offset` continues it.
    pub(super) fn filling_at(&self, offset: u64) -> Option<Arc<Unwritten>> {
        let index = self.filling.filter(|filling| *filling == offset / BLOCK)?;
        let held = self.blocks.get(&index)?;
        (offset % BLOCK == held.filled).then(|| Arc::clone(&held.block))
    }

    /// Notes that the block which is being filled has all bytes up to `filled`. False if it is not being filled any more.
    pub(super) fn handle_filled(&mut self, index: u64, block: &Arc<Unwritten>, filled: u64) -> bool {
        let held = self.blocks.get_mut(&index).filter(|held| Arc::ptr_eq(&held.block, block));
        let Some(held) = held.filter(|_| self.filling == Some(index)) else { return false };
        held.filled = held.filled.max(filled);
        if held.filled == BLOCK {
            self.filling = None;
            self.order.push_back(index);
        }
        true
    }

    /// The place of the byte at `offset`, if it lies here, and the end of those that do.
    pub(super) fn get(&self, offset: u64) -> Option<(&Arc<Unwritten>, u64)> {
        let index = offset / BLOCK;
        let held = self.blocks.get(&index).filter(|held| offset % BLOCK < held.filled)?;
        Some((&held.block, index * BLOCK + held.filled))
    }

    /// True if the disk thread is to write a block.
    pub(super) fn is_due(&self) -> bool {
        self.due().is_some()
    }

    /// True if the disk thread is to write a block, and writers should wait until it has written more.
    pub(super) fn is_crowded(&self) -> bool {
        self.due().is_some_and(|backlog| backlog.is_crowded())
    }

    /// The backlog of the block that is due.
    fn due(&self) -> Option<&Backlog> {
        let first = self.order.front().and_then(|index| self.blocks.get(index))?;
        let backlog = &*first.block.backlog;
        (self.is_prompt || backlog.is_above_kept()).then_some(backlog)
    }

    /// The block to be written next, if one is due, and the number of its bytes. It stays until
    /// [`handle_written`](Self::handle_written).
    pub(super) fn poll(&mut self) -> Option<(u64, Arc<Unwritten>, u64)> {
        if !self.is_due() {
            return None;
        }
        let index = self.order.pop_front()?;
        let held = self.blocks.get(&index)?;
        Some((index, Arc::clone(&held.block), held.filled))
    }

    /// Notes that a block was written. False if it was forgotten or replaced meanwhile.
    pub(super) fn handle_written(&mut self, index: u64, block: &Arc<Unwritten>) -> bool {
        let is_current = self.blocks.get(&index).is_some_and(|held| Arc::ptr_eq(&held.block, block));
        if is_current {
            self.forget(index);
        }
        is_current
    }

    /// All blocks, also those that are being written, and the number of bytes of each.
    #[cfg(feature = "cache")]
    pub(super) fn all(&self) -> Vec<(u64, Arc<Unwritten>, u64)> {
        self.blocks.iter().map(|(index, held)| (*index, Arc::clone(&held.block), held.filled)).collect()
    }

    /// Writes all blocks into their places in `store`. Logs a failure: the file is closed, so no call is left to return it.
    pub(super) fn write_all(self, store: &dyn BlockStore) {
        for (index, held) in self.blocks {
            let written = store.get(index).map(|place| held.block.write_to(&*place, held.filled));
            if let Some(Err(error)) = written {
                log::debug!("the last blocks of a closed file are not stored: {error}");
                return;
            }
        }
    }

    pub(super) fn forget(&mut self, index: u64) {
        if self.blocks.remove(&index).is_some() {
            self.order.retain(|waiting| *waiting != index);
            self.filling = self.filling.filter(|filling| *filling != index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(backlog: &Arc<Backlog>, byte: u8) -> Option<Unwritten> {
        backlog.take(&mut Buffer::from(vec![byte; BLOCK as usize]))
    }

    fn first_byte(behind: &WriteBehind, index: u64) -> Option<u8> {
        let (block, _) = behind.get(index * BLOCK)?;
        let mut byte = [0];
        block.read(0, &mut byte).unwrap();
        Some(byte[0])
    }

    #[test]
    fn the_blocks_in_memory_are_limited() {
        let backlog = Arc::new(Backlog::default());
        let mut full: Vec<Unwritten> = (0..MAX_FILLING).map(|_| backlog.begin().unwrap()).collect();
        assert!(backlog.begin().is_none());
        full.extend((MAX_FILLING..MAX_BACKLOG).map(|_| whole(&backlog, 1).unwrap()));
        let mut refused = Buffer::from(vec![2; BLOCK as usize]);
        assert!(backlog.take(&mut refused).is_none());
        assert!(refused.iter().all(|byte| *byte == 2));
        full.pop();
        assert!(backlog.take(&mut refused).is_some() && refused.is_empty());
    }

    #[test]
    fn blocks_are_written_once_in_order_and_readable_until_then() {
        let backlog = Arc::new(Backlog::default());
        let mut behind = WriteBehind::new(true);
        for index in [7, 3, 5] {
            behind.add(index, whole(&backlog, index as u8).unwrap());
        }
        behind.forget(3);
        let (index, block, filled) = behind.poll().unwrap();
        assert_eq!(
            (index, filled, first_byte(&behind, 7), first_byte(&behind, 3)),
            (7, BLOCK, Some(7), None)
        );
        assert!(behind.handle_written(7, &block) && first_byte(&behind, 7).is_none());
        let (index, block, _) = behind.poll().unwrap();
        assert_eq!((index, behind.is_due()), (5, false));
        // It is written again, with other bytes, before the first write has ended.
        behind.add(5, whole(&backlog, 55).unwrap());
        assert!(!behind.handle_written(5, &block) && first_byte(&behind, 5) == Some(55));
        let (_, block, _) = behind.poll().unwrap();
        assert!(behind.handle_written(5, &block) && behind.poll().is_none());
    }

    #[test]
    fn the_last_blocks_stay_in_memory_until_others_push_them_out() {
        let backlog = Arc::new(Backlog::default());
        let mut behind = WriteBehind::new(false);
        for index in 0..KEPT as u64 {
            behind.add(index, whole(&backlog, 1).unwrap());
            assert!(behind.poll().is_none());
        }
        behind.add(100, whole(&backlog, 1).unwrap());
        let (index, block, _) = behind.poll().unwrap();
        assert!(index == 0 && behind.handle_written(0, &block));
        drop(block);
        assert!(behind.poll().is_none());
    }

    #[test]
    fn a_block_is_filled_in_sequence_and_written_as_it_is_when_another_one_is_filled() {
        let backlog = Arc::new(Backlog::keeping_none());
        let mut behind = WriteBehind::new(false);
        let first = behind.begin(4, backlog.begin().unwrap());
        first.fill(0, &[4; 100]);
        assert!(behind.get(4 * BLOCK).is_none() && behind.handle_filled(4, &first, 100));
        assert!(behind.filling_at(4 * BLOCK + 99).is_none() && behind.filling_at(4 * BLOCK + 100).is_some());
        assert_eq!(behind.get(4 * BLOCK + 99).unwrap().1, 4 * BLOCK + 100);
        assert!(behind.get(4 * BLOCK + 100).is_none() && behind.poll().is_none());
        let second = behind.begin(5, backlog.begin().unwrap());
        assert!(!behind.handle_filled(4, &first, 200));
        let (index, block, filled) = behind.poll().unwrap();
        assert_eq!((index, filled, Arc::ptr_eq(&block, &first)), (4, 100, true));
        assert!(behind.handle_filled(5, &second, BLOCK) && behind.filling_at(6 * BLOCK).is_none());
        assert_eq!(behind.poll().unwrap().0, 5);
    }
}
