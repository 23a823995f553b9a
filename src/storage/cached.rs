//! Blocks in an entry of the persistent cache, which outlives the resource. Once the entry takes no more bytes, further blocks
//! go to the store that the configuration names, and are evicted with the windows of the readers. Blocks in the entry are not
//! evicted: they cost no memory.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::layout::bytes_of;
use super::memory::MemoryStore;
use super::ranges::RangeSet;
use super::resource::Resource;
use super::store::{BlockStore, OnFailure, Place};
use super::write_behind::WriteBehind;
use crate::buffer::Buffer;
use crate::cache::{BLOCK, Entry};
use crate::error::Error;

// A block's index in the storage is used as its index in the entry.
const _: () = assert!(BLOCK == super::layout::BLOCK);

/// All blocks of a resource.
pub(super) struct CachedStore {
    entry: Arc<Entry>,
    /// Blocks in the entry, by index.
    places: BTreeMap<u64, Arc<CachedBlock>>,
    /// Blocks that the entry did not take. None of them is in `places`.
    fallback: Box<dyn BlockStore>,
    /// Called when the entry takes no more bytes.
    on_failure: Option<OnFailure>,
    /// Writes to the entry of which the resource knows.
    known_writes: u64,
}

/// A block of the entry.
#[derive(Debug)]
struct CachedBlock {
    entry: Arc<Entry>,
    index: u64,
}

impl Resource {
    /// Stores everything in `entry` from now on, and takes what is there for stored. Does nothing if bytes are stored already,
    /// or the resource is closed. `on_failure` is called once, without a lock, if the entry takes no more bytes.
    pub(crate) fn attach(&self, entry: Arc<Entry>, on_failure: OnFailure) {
        // Before they are looked at: what is written in between is looked at again.
        let known_writes = entry.writes();
        let stored = entry.stored();
        {
            let mut state = self.state.lock();
            if state.ranges.iter().next().is_some() {
                return;
            }
            let Some(fallback) = state.store.take() else { return };
            state.store =
                Some(Box::new(CachedStore::new(entry, known_writes, &stored, fallback, on_failure)));
            state.write_behind = WriteBehind::new(true);
            stored.into_iter().for_each(|range| state.ranges.insert(range));
        }
        self.changed.notify_all();
    }

    /// Takes in what other streams of the process have stored in the entry meanwhile.
    pub(crate) fn take_in_stored(&self) {
        let has_more = {
            let mut state = self.state.lock();
            let stored = state.store.as_mut().map(|store| store.poll_stored()).unwrap_or_default();
            let has_more = !stored.is_empty();
            stored.into_iter().for_each(|range| state.ranges.insert(range));
            has_more
        };
        if has_more {
            self.changed.notify_all();
        }
    }

    /// Forgets all bytes that lie in an entry. Others are stored without one from now on.
    pub(crate) fn detach(&self) {
        let replaced = {
            let mut state = self.state.lock();
            let Some(fallback) = state.store.as_mut().and_then(|store| store.take_fallback()) else { return };
            state.ranges = RangeSet::default();
            let write_behind = WriteBehind::new(fallback.outlives_resource());
            (
                state.store.replace(fallback),
                std::mem::replace(&mut state.write_behind, write_behind),
                std::mem::take(&mut state.block_cache),
            )
        };
        // Without the lock, since this may close files.
        drop(replaced);
        self.notify();
    }
}

impl CachedStore {
    fn new(
        entry: Arc<Entry>,
        known_writes: u64,
        stored: &[Range<u64>],
        fallback: Box<dyn BlockStore>,
        on_failure: OnFailure,
    ) -> Self {
        let (places, on_failure) = (BTreeMap::new(), Some(on_failure));
        let mut store = Self { entry, places, fallback, on_failure, known_writes };
        store.place_all(stored);
        store
    }

    fn place_all(&mut self, stored: &[Range<u64>]) {
        for range in stored {
            for index in range.start / BLOCK..range.end.div_ceil(BLOCK) {
                self.place(index);
            }
        }
    }

    fn place(&mut self, index: u64) -> Arc<dyn Place> {
        let entry = &self.entry;
        let place = self
            .places
            .entry(index)
            .or_insert_with(|| Arc::new(CachedBlock { entry: Arc::clone(entry), index }));
        Arc::clone(place) as Arc<dyn Place>
    }
}

impl BlockStore for CachedStore {
    fn entry(&mut self, index: u64) -> Arc<dyn Place> {
        if let Some(place) = self.get(index) {
            return place;
        }
        if self.entry.is_read_only() { self.fallback.entry(index) } else { self.place(index) }
    }

    fn get(&self, index: u64) -> Option<Arc<dyn Place>> {
        match self.places.get(&index) {
            Some(place) => Some(Arc::clone(place) as Arc<dyn Place>),
            None => self.fallback.get(index),
        }
    }

    /// The blocks that are not in the entry: the others stay.
    fn indices(&self, within: Range<u64>) -> Vec<u64> {
        self.fallback.indices(within)
    }

    fn remove(&mut self, index: u64) {
        self.places.remove(&index);
        self.fallback.remove(index);
    }

    fn keep(&mut self, index: u64, block: &mut Buffer) -> bool {
        let is_kept = self.entry.is_read_only() && self.fallback.keep(index, block);
        if is_kept {
            self.places.remove(&index);
        }
        is_kept
    }

    fn handle_failure(&mut self, index: u64, place: &Arc<dyn Place>) -> Option<OnFailure> {
        // There is no third place: the disk that is too full for the entry may be that of the temporary file, too.
        if self.fallback.get(index).is_some_and(|own| Arc::ptr_eq(&own, place)) {
            return self.fallback.handle_failure(index, place);
        }
        // Another writer may have come first.
        self.places.remove(&index);
        let ignore = || -> OnFailure { Box::new(|_| {}) };
        Some(self.on_failure.take().unwrap_or_else(ignore))
    }

    fn outlives_resource(&self) -> bool {
        true
    }

    fn poll_stored(&mut self) -> Vec<Range<u64>> {
        let writes = self.entry.writes();
        // Blocks that the entry did not take lie elsewhere, and it takes no more.
        if writes == self.known_writes || self.entry.is_read_only() {
            return Vec::new();
        }
        self.known_writes = writes;
        let stored = self.entry.stored();
        self.place_all(&stored);
        stored
    }

    fn take_fallback(&mut self) -> Option<Box<dyn BlockStore>> {
        // What it held is forgotten with the rest.
        self.fallback.indices(0..u64::MAX).into_iter().for_each(|index| self.fallback.remove(index));
        Some(std::mem::replace(&mut self.fallback, Box::new(MemoryStore::default())))
    }
}

impl fmt::Debug for CachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStore").field("entry", &self.entry).finish_non_exhaustive()
    }
}

impl Place for CachedBlock {
    fn read(&self, within: u64, buf: &mut [u8]) -> Result<bool, Error> {
        Ok(self.entry.read(self.index, within, buf))
    }

    fn write(&self, within: u64, bytes: &[u8]) -> Result<(), Error> {
        // A server may send bytes behind the length that it gave: they do not belong to the file.
        let len = self.entry.header().len.saturating_sub(bytes_of(self.index).start + within);
        let bytes = &bytes[..usize::try_from(len).map_or(bytes.len(), |len| len.min(bytes.len()))];
        self.entry.write(self.index, within, bytes)
    }
}
