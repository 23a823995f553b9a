//! What failures do to a file: which are retried, which end the calls that wait, and when the file ends.

use std::time::Instant;

use super::plan;
use super::state::State;
use crate::cancel::CancelToken;
use crate::config::ReadAhead;
use crate::downloader::Outcome;
use crate::error::{Error, ErrorKind};

/// What is to be done after retrying has lasted too long and the file has ended.
#[derive(Debug)]
pub(crate) struct GivenUp {
    /// Tokens of the fetches in flight, for the caller to cancel.
    pub(crate) tokens: Vec<CancelToken>,
    /// The error if no read returns it.
    pub(crate) unreturned: Option<Error>,
}

impl State {
    /// Records that nothing is fetched any more until a reader waits. Returns the error if no read returns it.
    pub(crate) fn halt(&mut self, error: Error) -> Option<Error> {
        let is_returned = self.is_opening() || self.readers.iter().any(|(_, reader)| reader.waiting);
        // Nothing is retried until a reader waits, and the time until then does not count.
        if !is_returned {
            self.outage.end();
        }
        self.waits.halt(error.clone());
        (!is_returned).then_some(error)
    }

    /// Records that the byte at `next` could not be fetched. If a reader reads on towards it, it is requested again before that
    /// reader blocks.
    pub(crate) fn plan_retry(&mut self, next: u64) {
        let positions = self.readers.iter().map(|(_, reader)| reader.position);
        // Half of what is left, each time: seven attempts for a minute of audio. If little is left the reader blocks soon anyway.
        let halfway = |position: u64| {
            let left = next.checked_sub(position).filter(|left| *left >= plan::FIRST_PIECE)?;
            Some(position + left / 2)
        };
        self.retry_at = positions.filter_map(halfway).min();
    }

    /// Allows prefetching again, which has halted while no reader waited, if a reader at `position` will need it: at once after a
    /// transient error, and after another one as [`plan_retry`](Self::plan_retry) says.
    pub(crate) fn retry_halted(&mut self, position: u64) {
        let Some(error) = self.waits.halted().filter(|_| !self.is_sequential()) else { return };
        if error.is_retryable() || self.retry_at.is_some_and(|at| position >= at) {
            self.retry_at = None;
            self.waits.restart();
        }
    }

    /// Records a failure for the blocked calls. It ends them: nothing is requested again before a call blocks again.
    /// Returns the error if no read returns it.
    pub(crate) fn fail(&mut self, error: Error) -> Option<Error> {
        let unreturned = self.halt(error.clone());
        for (_, reader) in &mut self.readers {
            reader.waiting = false;
            reader.until = 0;
        }
        self.waits.fail(error);
        unreturned
    }

    /// Records that an attempt to fetch what is waited for failed at `now` with `error`, and that the next one starts at
    /// `next`. If that is too late, the file ends.
    pub(crate) fn handle_outage(&mut self, error: &Error, now: Instant, next: Instant) -> Option<GivenUp> {
        let limit = self.outage.handle_failure(now, next)?;
        // Not "no data for": it ends before the limit, since another attempt would begin after it.
        let why = format!(
            "gave up: no data, and the next attempt would start more than {limit:?} after the first failed one"
        );
        let error = Error::new(ErrorKind::GaveUp, why).with_cause(error.clone());
        Some(self.give_up(error))
    }

    /// Ends the file permanently.
    pub(crate) fn give_up(&mut self, error: Error) -> GivenUp {
        self.waits.recover();
        self.waits.end(error.clone());
        let suffix = self.suffix.give_up();
        let tokens = self.pieces.iter().map(|(_, in_flight)| in_flight.token.clone()).chain(suffix).collect();
        GivenUp { tokens, unreturned: self.fail(error) }
    }

    /// Returns the error if fetching ends with it, and no read returns it.
    pub(crate) fn handle_end(&mut self, outcome: Outcome, is_urgent: bool) -> Option<Error> {
        match outcome {
            // No attempt is left, or no reader waits for these bytes. If a reader waits later, they are requested again.
            Outcome::Failed(error) if !self.is_opening() && (error.is_retryable() || !is_urgent) => {
                let is_download = self.limits.configured() == ReadAhead::Whole;
                self.waits.retry(error.clone());
                // No reader would start a download again.
                if is_download && error.is_retryable() {
                    self.waits.restart();
                    return None;
                }
                self.halt(error)
            }
            Outcome::Failed(error) => self.fail(error),
            Outcome::Done => {
                self.waits.recover();
                None
            }
            Outcome::Cancelled(_) => None,
        }
    }

    /// Records that the file changed, and that nothing distinguishes bytes of the old version from those of the new one.
    /// Returns the error if no read returns it.
    pub(crate) fn end_changed(&mut self, error: Error) -> Option<Error> {
        self.mode.make_unusable();
        self.waits.end(error.clone());
        self.fail(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ResponseHead;
    use crate::source::file::network::Network;
    use crate::source::file::plan::Plan;
    use crate::source::file::reader_view::ReaderView;
    use crate::source::file::state::OpenCall;
    use crate::storage::RangeSet;
    use crate::types::Priority;

    #[test]
    fn what_failed_is_not_requested_again_before_a_reader_waits_again() {
        let mut state = State::new(ReadAhead::Bytes(1 << 20), None);
        let nothing = RangeSet::default();
        let plan = |state: &mut State| state.plan(&nothing, Network::default(), Priority::Low);
        let reader = state.readers.insert(ReaderView { waiting: true, ..ReaderView::default() });
        assert!(matches!(plan(&mut state), Plan::Fetch { priority: Priority::High, .. }));
        // The read that waits returns it.
        assert!(state.fail(Error::new(ErrorKind::Status(404), "not found")).is_none());
        assert_eq!(plan(&mut state), Plan::Idle);
        state.readers[reader].waiting = true;
        assert!(matches!(plan(&mut state), Plan::Fetch { .. }));
    }

    #[test]
    fn a_refused_prefetch_is_requested_again_when_half_of_what_is_stored_is_read() {
        let mut state = State::new(ReadAhead::Bytes(8 << 20), None);
        state.open_call = OpenCall::Over;
        state.mode.open(&ResponseHead::for_tests(206, 0..100, Some(64 << 20)));
        let reader = state.readers.insert(ReaderView::default());
        state.handle_end(Outcome::Failed(Error::new(ErrorKind::Status(404), "not found")), false);
        state.plan_retry(4 << 20);
        let mut retries = Vec::new();
        for position in (0..4 << 20).step_by(64 << 10) {
            state.readers[reader].position = position;
            state.retry_halted(position);
            if state.waits.halted().is_none() {
                retries.push(position >> 10);
                state.handle_end(Outcome::Failed(Error::new(ErrorKind::Status(404), "not found")), false);
                state.plan_retry(4 << 20);
            }
        }
        assert_eq!(retries, [2048, 3072, 3584, 3840, 3968, 4032]);
    }

    /// A download sets the read-ahead when its opening has begun, and so it may have failed before.
    #[test]
    fn the_error_of_an_opening_stays_when_the_read_ahead_is_set() {
        let mut state = State::new(ReadAhead::Whole, None);
        state.readers.insert(ReaderView::default());
        state.open_call = OpenCall::Over;
        let error = Error::new(ErrorKind::Empty, "the file has no bytes");
        state.handle_end(Outcome::Failed(error), false);
        state.set_read_ahead(ReadAhead::Whole);
        // Nothing requests the opening again, so its error must not be lost.
        assert_eq!(state.plan(&RangeSet::default(), Network::default(), Priority::Low), Plan::Idle);
        assert!(state.waits.halted().is_some());
    }
}
