//! The source of a track's stream: ends when the track is skipped, and reports when the track comes to its end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::order::TrackId;
use super::shared::Shared;
use super::skip::Skip;
use crate::error::{Error, ErrorKind};
use crate::source::{Source, TryRead};

/// Bytes read between two checks whether all that is left of the track is stored.
const LOOK_AFTER: u64 = 64 * 1024;

pub(super) struct TrackSource {
    id: TrackId,
    inner: Arc<dyn Source>,
    skip: Skip,
    queue: Weak<Shared>,
    prefetch_before: Option<u64>,
    /// The queue has been informed that the end is near.
    is_ending: AtomicBool,
    /// Position at which to look again.
    look_at: AtomicU64,
}

impl TrackSource {
    pub(super) fn new(id: TrackId, skip: Skip, queue: &Arc<Shared>, prefetch_before: Option<u64>) -> Self {
        Self {
            id,
            inner: Arc::clone(skip.source()),
            skip,
            queue: Arc::downgrade(queue),
            prefetch_before,
            is_ending: AtomicBool::new(false),
            look_at: AtomicU64::new(0),
        }
    }

    /// Informs the queue if the track comes to its end. `position` is that of the next byte.
    fn note_read(&self, position: u64, is_end: bool) {
        // Relaxed: a stream makes one read at a time, and a second notice would do no harm.
        if self.is_ending.load(Ordering::Relaxed) || !(is_end || self.is_due(position)) {
            return;
        }
        let Some(queue) = self.queue.upgrade() else { return };
        // On a metered network, and of a track that is repeated, it asks again later.
        let is_handled = queue.handle_end_near(self.id, position, is_end);
        self.is_ending.store(is_handled, Ordering::Relaxed);
    }

    fn is_due(&self, position: u64) -> bool {
        let (Some(before), Some(len)) = (self.prefetch_before, self.inner.len()) else { return false };
        let look_at = self.look_at.load(Ordering::Relaxed);
        // A reader that has gone back looks again, too.
        if (look_at.saturating_sub(LOOK_AFTER)..look_at).contains(&position) {
            return false;
        }
        self.look_at.store(position + LOOK_AFTER, Ordering::Relaxed);
        let is_stored = || {
            let ranges = self.inner.buffered();
            ranges.iter().any(|range| range.start <= position && len <= range.end)
        };
        // `is_stored` last: it copies the list of ranges.
        len.saturating_sub(position) <= before || is_stored()
    }

    /// The result of a call that a skip may have interrupted.
    fn unless_skipped<T>(&self, result: Result<T, Error>, skipped: T) -> Result<T, Error> {
        match result {
            Err(error) if error.kind() == ErrorKind::Interrupted && self.skip.is_skipped() => Ok(skipped),
            result => result,
        }
    }
}

impl Source for TrackSource {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        if self.skip.is_skipped() {
            return Ok(0);
        }
        let got = self.unless_skipped(self.inner.read_at(position, buf), 0)?;
        self.note_read(position + got as u64, got == 0);
        Ok(got)
    }

    fn try_read_at(&self, position: u64, buf: &mut [u8]) -> Result<TryRead, Error> {
        if self.skip.is_skipped() {
            return Ok(TryRead::End);
        }
        let read = self.unless_skipped(self.inner.try_read_at(position, buf), TryRead::End)?;
        match read {
            TryRead::Bytes(got) => self.note_read(position + got as u64, false),
            TryRead::End => self.note_read(position, true),
            TryRead::Pending(_) => {}
        }
        Ok(read)
    }

    fn len(&self) -> Option<u64> {
        self.inner.len()
    }

    fn inner(&self) -> Option<&dyn Source> {
        Some(&*self.inner)
    }

    /// An interrupt by a skip lasts.
    fn resume(&self) {
        // After a skip the source stays interrupted, so that no read blocks on it again.
        if !self.skip.is_skipped() {
            self.inner.resume();
        }
    }

    fn reader(&self) -> Option<Arc<dyn Source>> {
        self.inner.reader()
    }
}
