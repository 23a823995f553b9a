//! Reads that never wait for a disk, for callbacks of audio devices. A block that does not lie in memory is requested
//! from the disk thread, which loads it.

use std::sync::Arc;

use super::layout::BLOCK;
use super::resource::{Resource, State};
use super::store::Place;
use crate::error::Error;

/// The outcome of a read that does not wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TryStored {
    /// This number of bytes was copied.
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
        self.enlist()?;
        Ok(stored)
    }

    /// Copies what lies in memory, and notes which blocks are to be loaded.
    fn read_loaded(&self, offset: u64, buf: &mut [u8]) -> Result<TryStored, Error> {
        if self.is_in_memory() {
            let got = self.read_at(offset, buf)?;
            return Ok(if got == 0 { TryStored::Nothing } else { TryStored::Bytes(got) });
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let Some((place, end)) = self.state.lock().find_in_memory(at) else { break };
            let len = usize::try_from(end - at).map_or(buf.len() - done, |run| run.min(buf.len() - done));
            // The block was lost meanwhile. The bytes before it are valid.
            if !place.read(at % BLOCK, &mut buf[done..done + len])? {
                break;
            }
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
}

impl State {
    /// The place in memory of the byte at `offset`, and the end of the bytes that are there without a gap from it on.
    /// Requests the block if it is not in memory, and else the one behind it.
    fn find_in_memory(&mut self, offset: u64) -> Option<(Arc<dyn Place>, u64)> {
        let index = offset / BLOCK;
        let found = match self.write_behind.get(offset) {
            Some((block, end)) => Some((Arc::clone(block) as Arc<dyn Place>, end)),
            None => self.block_cache.get(offset).map(|(block, end)| (block as Arc<dyn Place>, end)),
        };
        // If this block is in memory the next one is loaded in advance: most readers go on to it.
        let needed = index + u64::from(found.is_some());
        let first = offset.max(needed * BLOCK);
        let has_place = self.store.as_ref().is_some_and(|store| store.get(needed).is_some());
        if self.write_behind.get(first).is_none() && has_place {
            self.block_cache.request(needed);
        }
        found
    }
}
