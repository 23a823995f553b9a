//! The window of stored audio: which bytes are stored, where the reader is, where connections begin, and which titles
//! apply.
//!
//! Pure bookkeeping: the bytes themselves are in a [`Resource`](crate::storage::Resource). Offsets count bytes of audio
//! since the radio's start. The receiver adds bytes at the window's end; [`trim`](Window::trim) removes them at its start.

use std::collections::VecDeque;
use std::io::SeekFrom;
use std::ops::Range;

use super::icy::IcyMetadata;
use super::titles::{Title, Titles};
use crate::config::{OnDiscontinuity, RadioConfig};
use crate::error::{Error, ErrorKind};
use crate::types::ByteRange;

/// Maximum number of bytes that the receiver reads at once: two seconds at 128 kbit/s. So much of the window may stay empty.
pub(crate) const CHUNK: usize = 32 * 1024;

/// A buffer with fewer bytes than this runs low: four seconds at 128 kbit/s.
const LOW: u64 = 64 * 1024;

/// Memory is freed after this many bytes have left the window, so that not each read takes the lock of the storage.
const TRIM: u64 = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Window {
    /// Most bytes kept behind the reader.
    behind: u64,
    /// Most bytes stored ahead of the reader.
    ahead: u64,
    /// True if reads end at a discontinuity.
    ends_reads: bool,
    /// The next byte to be read. `start <= position <= end`.
    position: u64,
    /// The first byte of the window. Only grows. All bytes from here to `end` are stored.
    start: u64,
    /// Position after the last stored byte. Only grows, until `clear` takes back what the reader has not read.
    end: u64,
    /// The memory of all bytes before this one was freed. `trimmed <= start`.
    trimmed: u64,
    /// First bytes of the connections except the first one, from `start` to `end`. Ascending.
    discontinuities: VecDeque<u64>,
    /// The discontinuity that the reader passed last, or the byte that it last sought to. No read ends there.
    passed: u64,
    titles: Titles,
}

impl Window {
    pub(crate) fn new(config: &RadioConfig) -> Self {
        Self {
            behind: config.behind,
            ahead: config.ahead,
            ends_reads: config.on_discontinuity == OnDiscontinuity::EndOfStream,
            position: 0,
            start: 0,
            end: 0,
            trimmed: 0,
            discontinuities: VecDeque::new(),
            passed: 0,
            titles: Titles::default(),
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    /// As ranges: one, or none if it is empty.
    pub(crate) fn buffered(&self) -> Vec<Range<u64>> {
        Some(self.range()).into_iter().filter(|range| !range.is_empty()).collect()
    }

    pub(crate) fn buffered_ahead(&self) -> u64 {
        self.end - self.position
    }

    pub(crate) fn is_low(&self) -> bool {
        self.buffered_ahead() < LOW
    }

    pub(crate) fn title_at(&self, position: u64) -> Option<&Title> {
        self.titles.at(position)
    }
}

/// What the reader does.
impl Window {
    /// Moves the reader over `got` bytes, or up to the discontinuity before them if reads end there. Returns the number of
    /// bytes.
    pub(crate) fn advance(&mut self, got: usize) -> usize {
        let taken = match self.next_end() {
            Some(end) => usize::try_from(end - self.position).map_or(got, |left| left.min(got)),
            None => got,
        };
        self.position += taken as u64;
        // The storage may already have bytes that `append` has not counted yet.
        self.end = self.end.max(self.position);
        taken
    }

    /// The discontinuity at or after the reader's position at which a read ends.
    fn next_end(&self) -> Option<u64> {
        if !self.ends_reads {
            return None;
        }
        self.discontinuities.iter().copied().find(|at| *at >= self.position && *at != self.passed)
    }

    /// Lets the reader continue after the discontinuity at its position. False if a read would not end there.
    pub(crate) fn pass_discontinuity(&mut self) -> bool {
        let is_at_end = self.next_end() == Some(self.position);
        if is_at_end {
            self.passed = self.position;
        }
        is_at_end
    }

    /// Moves the reader to a byte of the window, or to its end.
    pub(crate) fn seek(&mut self, to: SeekFrom) -> Result<u64, Error> {
        let target = match to {
            SeekFrom::Start(target) => Some(target),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(_) => {
                return Err(Error::new(ErrorKind::InvalidInput, "can't seek from the end: a radio has none"));
            }
        };
        let Range { start, end } = self.range();
        // The end belongs to it: that byte arrives next.
        let Some(target) = target.filter(|target| (start..=end).contains(target)) else {
            let why = format!("the radio keeps bytes {start} to {end} only");
            return Err(Error::new(ErrorKind::OutOfWindow, why).with_range(ByteRange::new(start, end)));
        };
        self.position = target;
        // `stream_position` is a seek by 0. It must not pass a discontinuity.
        if to != SeekFrom::Current(0) {
            self.passed = target;
        }
        Ok(target)
    }

    /// Moves the reader to the last stored byte. Returns the bytes it skips.
    pub(crate) fn skip_to_live_edge(&mut self) -> Range<u64> {
        let from = std::mem::replace(&mut self.position, self.end);
        from..self.end
    }

    /// Empties the window.
    pub(crate) fn clear(&mut self) {
        // At the reader and not at 0, so that handles go on returning its position.
        (self.start, self.end) = (self.position, self.position);
        self.discontinuities.clear();
        self.titles.forget_before(self.position);
    }
}

/// What the receiver does.
impl Window {
    /// Number of bytes that the receiver may read next. `None` if there is too little room for a read.
    pub(crate) fn room(&self) -> Option<usize> {
        // After a seek back there may be more than `ahead` bytes before the end.
        let room = self.ahead.saturating_sub(self.buffered_ahead());
        (room >= self.least_room()).then(|| usize::try_from(room).unwrap_or(usize::MAX).min(CHUNK))
    }

    /// The receiver reads only if it has room for this many bytes.
    fn least_room(&self) -> u64 {
        // Otherwise a full window would cause many small reads.
        (self.ahead / 4).clamp(1, CHUNK as u64)
    }

    /// Number of bytes that are certain to be stored ahead of a reader that waits for them.
    pub(crate) fn most_ahead(&self) -> u64 {
        self.ahead - self.least_room()
    }

    /// Records that a connection begins at the window's end. Returns its position, and whether that is a discontinuity.
    pub(crate) fn begin_connection(&mut self) -> (u64, bool) {
        // The first connection joins nothing.
        let is_discontinuity = self.end > 0;
        if is_discontinuity {
            self.discontinuities.push_back(self.end);
            self.titles.begin_connection(self.end);
        }
        (self.end, is_discontinuity)
    }

    /// Records that bytes were stored up to `end`.
    pub(crate) fn append(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// Records a block of metadata for the audio from `position` on. Returns the title if it is a new one.
    pub(crate) fn add_metadata(&mut self, position: u64, metadata: IcyMetadata) -> Option<Title> {
        self.titles.add(position, metadata)
    }

    /// Removes what is too far behind the reader. Returns the new start if memory is to be freed before it.
    pub(crate) fn trim(&mut self) -> Option<u64> {
        self.start = self.start.max(self.position.saturating_sub(self.behind));
        self.titles.forget_before(self.start);
        // One at the start stays: a reader at that byte may still have to stop there.
        while self.discontinuities.front().is_some_and(|at| *at < self.start) {
            self.discontinuities.pop_front();
        }
        if self.start - self.trimmed < TRIM {
            return None;
        }
        self.trimmed = self.start;
        Some(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(change: impl FnOnce(&mut RadioConfig)) -> Window {
        let mut config = RadioConfig::default();
        change(&mut config);
        Window::new(&config)
    }

    #[test]
    fn a_read_ends_at_a_discontinuity_until_it_is_passed() {
        let mut window = window(|config| config.on_discontinuity = OnDiscontinuity::EndOfStream);
        window.append(100);
        assert_eq!(window.begin_connection(), (100, true));
        window.append(200);
        assert_eq!(window.advance(150), 100);
        assert_eq!(window.advance(50), 0);
        assert!(window.pass_discontinuity());
        assert!(!window.pass_discontinuity());
        assert_eq!(window.advance(50), 50);
    }

    #[test]
    fn asking_for_the_position_passes_no_discontinuity_and_a_seek_to_it_does() {
        let mut window = window(|config| config.on_discontinuity = OnDiscontinuity::EndOfStream);
        window.append(100);
        window.begin_connection();
        window.append(200);
        window.advance(100);
        window.seek(SeekFrom::Current(0)).unwrap();
        assert_eq!(window.advance(50), 0);
        window.seek(SeekFrom::Start(100)).unwrap();
        assert_eq!(window.advance(50), 50);
    }

    #[test]
    fn a_seek_out_of_the_window_names_the_window_and_moves_nothing() {
        let mut window = window(|config| config.behind = 1000);
        window.append(5000);
        window.advance(3000);
        window.trim();
        for to in [SeekFrom::Start(1999), SeekFrom::Current(2001), SeekFrom::Current(i64::MIN)] {
            let error = window.seek(to).unwrap_err();
            assert_eq!(
                (error.kind(), error.range()),
                (ErrorKind::OutOfWindow, Some(ByteRange::new(2000, 5000)))
            );
        }
        assert_eq!(window.seek(SeekFrom::End(0)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(window.position(), 3000);
    }

    proptest! {
        /// Whatever the receiver and the reader do, in any order: the reader stays in the window, the window's start never
        /// goes back, the bytes kept are bounded, and no freed byte is in the window.
        #[test]
        fn the_reader_stays_in_a_bounded_window(
            steps in proptest::collection::vec((0..6_u8, 0..200_000_u64), 0..200),
            behind in 0..300_000_u64,
            ahead in 1..300_000_u64,
        ) {
            let mut window = window(|config| (config.behind, config.ahead) = (behind, ahead));
            for (step, number) in steps {
                let before = window.range();
                match step {
                    0 => if let Some(room) = window.room() {
                        window.append(window.end() + number.min(room as u64));
                        window.trim();
                        prop_assert!(window.end() - window.range().start <= behind + ahead);
                    },
                    1 => drop(window.advance(number.min(window.buffered_ahead()) as usize)),
                    2 => drop(window.seek(SeekFrom::Start(number))),
                    3 => drop(window.begin_connection()),
                    4 => drop(window.skip_to_live_edge()),
                    _ => if let Some(freed) = window.trim() { prop_assert!(freed <= window.range().start) },
                }
                let Range { start, end } = window.range();
                prop_assert!(before.start <= start && start <= window.position() && window.position() <= end);
                prop_assert!(window.discontinuities.iter().all(|at| *at <= end));
            }
            window.trim();
            prop_assert!(window.position() - window.range().start <= behind);
            prop_assert!(window.discontinuities.iter().all(|at| window.range().start <= *at));
        }
    }
}
