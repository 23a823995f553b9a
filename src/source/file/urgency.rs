//! Which pieces a blocked reader waits for.

use super::reader_view::{Piece, ReaderView};
use super::state::{InFlight, State};
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
    pub(crate) fn recheck_urgency(&mut self, key: usize) -> bool {
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

    /// The prefetches that a reader waits for by now, and that the downloader has accepted. They are urgent from now on.
    pub(crate) fn promote_urgent(&mut self, available: &RangeSet) -> Vec<RequestId> {
        let suffix = if self.needs_suffix(available) { self.suffix.promote() } else { None };
        // Without an id it can't be promoted yet, and stays a prefetch: its sink asks again when it gets one.
        let is_due = |in_flight: &InFlight| {
            in_flight.priority == Priority::Low
                && in_flight.request.is_some()
                && self.is_urgent(&in_flight.piece)
        };
        let due: Vec<usize> =
            self.pieces.iter().filter(|(_, in_flight)| is_due(in_flight)).map(|(key, _)| key).collect();
        let promote = |key: usize| {
            let in_flight = &mut self.pieces[key];
            in_flight.priority = Priority::High;
            in_flight.request
        };
        due.into_iter().filter_map(promote).chain(suffix).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::{CancelReason, CancelToken};

    #[test]
    fn a_prefetch_that_is_waited_for_becomes_urgent_once_it_has_an_id() {
        let mut state = State::new(ReadAhead::Bytes(1 << 20), None);
        let available = RangeSet::default();
        let token = CancelToken::new(CancelReason::Fetch);
        let (key, _) = state.add_piece(&(100..200), Priority::Low, token, false);
        let reader = state.add_reader();
        state.want(reader, 150);
        assert_eq!(state.promote_urgent(&available), [], "the downloader has not accepted it");
        let request = RequestId::new(7).unwrap();
        state.pieces[key].request = Some(request);
        assert_eq!(state.promote_urgent(&available), [request]);
        assert_eq!(state.promote_urgent(&available), [], "once");
    }
}
