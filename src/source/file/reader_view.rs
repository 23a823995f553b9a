//! What the plan sees: readers, and pieces in flight. Pure; reads no clock.

use std::ops::Range;

use super::alignment;
use super::bisection::{Bisection, Hint};
use crate::config::ReadAhead;
use crate::source::prefetch;
use crate::storage::RangeSet;
use crate::types::Priority;

/// A reader, as the plan sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReaderView {
    /// The next byte it will read.
    pub(crate) position: u64,
    /// It is blocked on that byte.
    pub(crate) waiting: bool,
    /// Bytes it has read in sequence up to its position.
    pub(crate) run: u64,
    /// True while read-ahead is filled up to the prefetch target; false while the reader uses it down to half.
    pub(crate) filling: bool,
    /// A thread waits until all bytes from the position up to here are stored.
    pub(crate) until: u64,
    /// Its jumps, as far as they may be those of a bisection.
    pub(crate) bisection: Bisection,
}

/// A fetch on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The next byte that will arrive.
    pub(crate) next: u64,
    /// One past the last one.
    pub(crate) end: u64,
    /// Priority of its next attempt, if it failed and waits for that. A reader must not wait for one of `Low`, which may take
    /// long.
    pub(crate) retrying: Option<Priority>,
}

impl ReaderView {
    /// Moves to `position`, which is not where the last read ended. No thread waits there yet.
    pub(crate) fn jump(&mut self, position: u64, hint: Option<&Hint>) {
        let mut bisection = self.bisection;
        bisection.handle_jump(position, hint);
        // The run starts at 0, so the first piece after a jump is small: most decoders jump more than once.
        *self = Self { position, bisection, ..Self::default() };
    }

    /// The first missing byte that is waited for.
    pub(crate) fn urgent(&self, available: &RangeSet) -> Option<u64> {
        let missing = available.run_from(self.position);
        let is_urgent = missing < self.until || (self.waiting && missing == self.position);
        is_urgent.then_some(missing)
    }

    /// True if something is waited for.
    pub(crate) fn waits(&self) -> bool {
        self.waiting || self.until > self.position
    }

    /// True if this piece will bring bytes that this reader waits for.
    pub(crate) fn needs(&self, piece: &Piece) -> bool {
        let end = self.until.max(self.position.saturating_add(u64::from(self.waiting)));
        // A piece without an end brings the last byte, wherever that is.
        self.waits() && piece.next < end && (self.position < piece.end || piece.end == u64::MAX)
    }

    /// Decides whether to read ahead: up to the prefetch target, then not before half of it is used up, so that a radio can
    /// sleep in between.
    pub(crate) fn refill(&mut self, available: &RangeSet, in_flight: &[Piece], read_ahead: ReadAhead) {
        let end = covered_to(self.position, available, in_flight);
        self.filling =
            end < self.until || prefetch::refill(self.filling, end - self.position, self.target(read_ahead));
    }

    /// How many bytes should be stored ahead of it.
    pub(super) fn target(&self, read_ahead: ReadAhead) -> u64 {
        let target = prefetch::target(read_ahead, self.position, self.run);
        let end = alignment::target_end(self.position.saturating_add(target), target);
        let target = end - self.position;
        // A reader that bisects jumps again soon: what lies behind its probe would not be read.
        self.bisection.at_probe(self.position).map_or(target, |probe| target.min(probe.end - self.position))
    }

    /// One past the last byte that should be stored.
    pub(super) fn target_end(&self, read_ahead: ReadAhead) -> u64 {
        self.position.saturating_add(self.target(read_ahead)).max(self.until)
    }
}

/// The end of what is stored or on its way without a gap from `position` on.
pub(crate) fn covered_to(position: u64, available: &RangeSet, in_flight: &[Piece]) -> u64 {
    let mut end = available.run_from(position);
    while let Some(piece) = in_flight.iter().find(|piece| piece.next <= end && end < piece.end) {
        end = available.run_from(piece.end);
    }
    end
}

/// True if `piece` brings some of where a reader that bisects jumps next.
pub(crate) fn is_candidate(piece: &Piece, reader: &ReaderView) -> bool {
    reader.bisection.candidates().any(|range| brings(piece, &range))
}

pub(super) fn brings(piece: &Piece, range: &Range<u64>) -> bool {
    piece.next < range.end && range.start < piece.end
}
