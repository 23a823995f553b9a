//! Which pieces a blocked reader waits for.

use super::reader_view::{Piece, ReaderView};
use super::state::State;
use crate::config::ReadAhead;
use crate::storage::RangeSet;
use crate::types::{Priority, RequestId};

impl State {
    /// True if a reader is blocked on a byte of this piece.
    pub(crate) fn is_urgent(&self, piece: &Piece) -> bool {
        // Before the first response head nothing else can be fetched.
        let needs = |reader: &ReaderView| reader.needs(piece) || (self.mode.is_opening() && reader.waits());
        self.readers.iter().any(|(_, reader)| needs(reader))
    }

    /// True if a reader is blocked on a byte of this piece, or if all bytes are wanted.
    pub(crate) fn waits_for(&self, piece: &Piece) -> bool {
        self.is_urgent(piece) || self.limits.configured() == ReadAhead::Whole
    }

    /// True if a reader is blocked on a byte of the piece. If not, it is a prefetch from now on.
    pub(crate) fn is_demanded(&mut self, key: usize) -> bool {
        let is_urgent = self.pieces.get(key).is_some_and(|in_flight| self.is_urgent(&in_flight.piece));
        if let Some(in_flight) = self.pieces.get_mut(key).filter(|_| !is_urgent) {
            in_flight.priority = Priority::Low;
        }
        is_urgent
    }

    /// True if a reader is blocked on bytes that the suffix request brings.
    fn needs_suffix(&self, available: &RangeSet) -> bool {
        let Some(suffix) = self.suffix.range(self.len(), !self.first.is_empty()) else { return false };
        let urgent = |reader: &ReaderView| reader.urgent(available).is_some_and(|at| suffix.contains(&at));
        self.readers.iter().any(|(_, reader)| urgent(reader))
    }

    /// The prefetches that a reader waits for by now. They are urgent from now on.
    pub(crate) fn promote_urgent(&mut self, available: &RangeSet) -> Vec<RequestId> {
        let suffix = if self.needs_suffix(available) { self.suffix.promote() } else { None };
        let urgent: Vec<usize> = self
            .pieces
            .iter()
            .filter(|(_, in_flight)| in_flight.priority == Priority::Low && self.is_urgent(&in_flight.piece))
            .map(|(key, _)| key)
            .collect();
        let promote = |key: usize| {
            let in_flight = &mut self.pieces[key];
            in_flight.priority = Priority::High;
            in_flight.request
        };
        urgent.into_iter().filter_map(promote).chain(suffix).collect()
    }
}
