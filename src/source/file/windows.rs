//! Which bytes of a file storage keeps: around its readers, at both ends, and what is foreseen to be read.

use std::ops::Range;

use super::plan::{self, OPENING};
use super::reader_view::ReaderView;
use super::state::State;
use crate::downloader::BudgetShare;
use crate::error::{Error, ErrorKind};
use crate::source::prefetch;

/// Bytes at the beginning of a file that stay stored, whatever the window around its readers: decoders come back to a
/// file's headers after a look at its end.
const KEPT_HEAD: u64 = OPENING;

/// Bytes at the end of a file that stay stored: tags, the last page of an Ogg file, small indices.
///
/// Storage keeps whole blocks of 256 KiB, so head and tail take 768 KiB at most, beside the windows.
const KEPT_TAIL: u64 = 128 * 1024;

impl State {
    /// Bytes that the readers' windows need, before the budget reduces them.
    pub(crate) fn wanted_memory(&self) -> u64 {
        self.limits.wanted(self.readers.iter().map(|(_, reader)| reader), self.len())
    }

    /// Reads how much memory the budget grants now.
    pub(crate) fn set_granted(&mut self, share: &BudgetShare) {
        // Read under this lock, so that the latest grant is the one that stays.
        self.limits.set_granted(share.reduced(), self.readers.len());
    }

    /// What storage has to keep; `None` is all.
    pub(crate) fn windows(&self) -> Option<Vec<Range<u64>>> {
        self.windows_of(plan::prefetch_limit(self.limits.kept()))
    }

    /// What storage has to keep once the budget has been reduced, without what may be fetched beyond the prefetch target.
    pub(crate) fn granted_windows(&self) -> Option<Vec<Range<u64>>> {
        self.windows_of(prefetch::full_target(self.limits.kept()))
    }

    fn windows_of(&self, ahead: u64) -> Option<Vec<Range<u64>>> {
        self.each_window(ahead).map(Iterator::collect)
    }

    /// `None` if storage keeps everything. They may overlap.
    fn each_window(&self, ahead: u64) -> Option<impl Iterator<Item = Range<u64>> + '_> {
        let behind = self.limits.behind()?;
        // Evicted bytes of a sequential body come back only with all bytes before them, so a reduced grant does not apply to
        // it.
        let ahead = if self.is_sequential() {
            ahead.max(plan::prefetch_limit(self.limits.configured()))
        } else {
            ahead
        };
        let len = self.len().unwrap_or(u64::MAX);
        let kept = [0..KEPT_HEAD, len.saturating_sub(KEPT_TAIL)..len];
        let window = move |reader: &ReaderView| {
            let ahead = reader.position.saturating_add(ahead);
            reader.position.saturating_sub(behind)..ahead.max(reader.until)
        };
        let windows = self.readers.iter().map(move |(_, reader)| window(reader)).chain(kept);
        let candidates = self.readers.iter().flat_map(|(_, reader)| reader.bisection.candidates());
        Some(windows.chain(self.upcoming.ranges().iter().cloned()).chain(candidates))
    }

    /// Up to where a wait for the bytes from `position` to `end` reserves storage. Bytes behind the end of the file do not count;
    /// of a file whose length is not known yet, those up to `stored_to` are known to exist.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the file has more bytes there than storage keeps ahead of a reader.
    pub(super) fn end_of_wait(&self, position: u64, end: u64, stored_to: u64) -> Result<u64, Error> {
        let Some(most) = self.most_buffered() else { return Ok(end) };
        let kept_to = position.saturating_add(most);
        let is_longer = match self.len() {
            Some(len) => len > kept_to,
            // All that is kept has arrived, and not the end.
            None => stored_to >= kept_to,
        };
        if end > kept_to && is_longer {
            let bytes = end.min(self.len().unwrap_or(end)) - position;
            let why = format!("can't wait for {bytes} bytes: storage keeps at most {most} ahead of a reader");
            return Err(Error::new(ErrorKind::InvalidInput, why));
        }
        Ok(end.min(kept_to))
    }

    /// How many bytes can be stored from a reader's position on; `None` is any number.
    fn most_buffered(&self) -> Option<u64> {
        self.limits.behind().map(|_| plan::prefetch_limit(self.limits.configured()))
    }

    /// True if some reader may want some of these bytes. Asked for each chunk.
    pub(crate) fn is_wanted(&self, bytes: &Range<u64>) -> bool {
        self.each_window(plan::prefetch_limit(self.limits.kept())).is_none_or(|mut windows| {
            windows.any(|window| bytes.start < window.end && window.start < bytes.end)
        })
    }
}
