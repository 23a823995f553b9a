//! The phase of a stream: a pure function of its source's state and the result of its last read.

use crate::error::{Error, ErrorKind};

/// What a stream is currently doing.
///
/// The first row whose condition holds applies:
///
/// | phase | condition | until |
/// |---|---|---|
/// | `Closed` | the stream was cancelled, or its downloader has stopped | forever |
/// | `Ended` | the last read returned 0, at the end of the file | a seek elsewhere, or a read; forever if the stream was dropped |
/// | `Failed` | the last read failed, unless it was interrupted | the next read, which retries, or a seek; forever if the stream was dropped |
/// | `Closed` | the stream was dropped, and neither `Ended` nor `Failed` applied | forever |
/// | `Complete` | all of the file is stored | some of it is evicted |
/// | `Failed` | fetching has failed, nothing is fetched, and no call is blocked | a read or wait restarts fetching |
/// | `Opening` | no response for the file yet, or no audio from the station yet | the first response |
/// | `Retrying` | the last request failed and is being retried | it succeeds, or fails permanently |
/// | `Stalled` | a read or a wait is blocked on bytes | they arrive |
/// | `Fetching` | bytes are requested or arriving | the prefetch target is reached |
/// | `Idle` | nothing is fetched: the prefetch target is reached, or a radio is paused | the readers continue |
///
/// So a player can tell how a track ended, although its decoder has dropped the stream.
///
/// A radio is never `Ended` or `Complete`, unless its URL leads to a file, and is always `Closed` after its drop.
///
/// If several streams read one file, `Ended` and the first `Failed` describe the stream whose handle is asked. All other
/// phases describe the file.
///
/// ```no_run
/// use windway::stream::Phase;
///
/// # let stream = windway::open("https://example.com/episode.mp3")?;
/// let label = match stream.handle().phase() {
///     Phase::Opening | Phase::Stalled => "buffering",
///     Phase::Retrying => "reconnecting",
///     Phase::Failed => "failed",
///     _ => "",
/// };
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// No response has arrived yet.
    Opening,
    /// A reader is blocked on bytes.
    Stalled,
    /// Bytes are arriving, and no reader is blocked.
    Fetching,
    /// Nothing is fetched, because nothing more is needed now.
    Idle,
    /// The last request failed and is being retried.
    Retrying,
    /// All of the file is stored.
    Complete,
    /// The reader has reached the end of the file.
    Ended,
    /// The last request failed, and is not retried before the next read.
    /// [`StreamHandle::last_error`](crate::StreamHandle::last_error) returns the reason.
    Failed,
    /// The stream was cancelled or dropped before its end, or its downloader has stopped.
    Closed,
}

impl Phase {
    /// The phase of a stream whose source is in this phase, by the result of its last read.
    pub(crate) fn after(self, last: LastRead) -> Self {
        match last {
            _ if self == Self::Closed => Self::Closed,
            LastRead::Dropped => Self::Closed,
            LastRead::Ended => Self::Ended,
            LastRead::Failed => Self::Failed,
            LastRead::Open => self,
        }
    }
}

/// The state that determines the phase of a source.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// The stream was cancelled: no more bytes will arrive.
    pub(crate) is_cancelled: bool,
    pub(crate) is_complete: bool,
    /// Fetching has failed, and only a blocked reader restarts it.
    pub(crate) has_failed: bool,
    /// A response has described the file or station.
    pub(crate) is_known: bool,
    pub(crate) is_retrying: bool,
    pub(crate) is_urgent: bool,
    /// A request is in flight, or bytes may arrive at any time.
    pub(crate) is_fetching: bool,
}

impl Facts {
    pub(crate) fn phase(self) -> Phase {
        if self.is_cancelled {
            Phase::Closed
        } else if self.is_complete {
            Phase::Complete
        // A blocked reader restarts what has failed, so its failure is not the last word.
        } else if self.has_failed && !self.is_urgent && !self.is_fetching {
            Phase::Failed
        // Before `Retrying`: retries of the first request are a part of opening for a user interface.
        } else if !self.is_known {
            Phase::Opening
        } else if self.is_retrying {
            Phase::Retrying
        } else if self.is_urgent {
            Phase::Stalled
        } else if self.is_fetching {
            Phase::Fetching
        } else {
            Phase::Idle
        }
    }
}

/// Result of a stream's last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LastRead {
    /// There was no read yet, it returned bytes, it was interrupted, or it is still blocked.
    #[default]
    Open,
    /// It returned 0 at the end of the file.
    Ended,
    Failed,
    /// The stream was dropped while it was open.
    Dropped,
}

/// The reads of one stream, as its handles see them.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    last: LastRead,
    /// Error of the last read that failed. Kept when later reads succeed.
    error: Option<Error>,
}

impl Reads {
    pub(crate) fn last(&self) -> LastRead {
        self.last
    }

    /// Error of the last read, if it failed.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.error.as_ref().filter(|_| self.last == LastRead::Failed)
    }

    /// Error of the last read that failed, even if later reads succeeded.
    pub(crate) fn last_error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Records that a read begins, or that a seek moved the next one.
    pub(crate) fn begin(&mut self) {
        self.last = LastRead::Open;
    }

    /// Records that a read returned 0 at the end of the file.
    pub(crate) fn end(&mut self) {
        self.last = LastRead::Ended;
    }

    /// Records that a read failed. False if the error says nothing about the stream: the read was interrupted or
    /// cancelled, or refused because it was called inside a callback.
    pub(crate) fn fail(&mut self, error: &Error) -> bool {
        let is_failure = !matches!(
            error.kind(),
            ErrorKind::Cancelled(_) | ErrorKind::Interrupted | ErrorKind::WouldDeadlock
        );
        if is_failure {
            self.last = LastRead::Failed;
            self.error = Some(error.clone());
        }
        is_failure
    }

    /// Records that the stream was dropped.
    pub(crate) fn drop_reader(&mut self) {
        // How the last read ended stays known: decoders drop the stream at the end of a track, and only this distinguishes an end
        // from a failure then.
        if self.last == LastRead::Open {
            self.last = LastRead::Dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(change: impl FnOnce(&mut Facts)) -> Phase {
        let mut facts = Facts { is_known: true, ..Facts::default() };
        change(&mut facts);
        facts.phase()
    }

    #[test]
    fn a_closed_stream_is_neither_ended_nor_failed() {
        let closed = phase(|facts| (facts.is_cancelled, facts.is_complete) = (true, true));
        for last in [LastRead::Open, LastRead::Ended, LastRead::Failed, LastRead::Dropped] {
            assert_eq!(closed.after(last), Phase::Closed);
        }
        assert_eq!(Phase::Fetching.after(LastRead::Dropped), Phase::Closed);
    }

    #[test]
    fn a_failure_holds_until_a_read_blocks_or_something_is_fetched() {
        assert_eq!(phase(|facts| facts.has_failed = true), Phase::Failed);
        assert_eq!(phase(|facts| (facts.has_failed, facts.is_urgent) = (true, true)), Phase::Stalled);
        assert_eq!(phase(|facts| (facts.has_failed, facts.is_fetching) = (true, true)), Phase::Fetching);
        assert_eq!(phase(|facts| (facts.has_failed, facts.is_known) = (true, false)), Phase::Failed);
    }

    #[test]
    fn the_result_of_the_last_read_comes_before_the_state_of_the_fetches() {
        assert_eq!(Phase::Fetching.after(LastRead::Ended), Phase::Ended);
        assert_eq!(Phase::Fetching.after(LastRead::Failed), Phase::Failed);
        assert_eq!(Phase::Fetching.after(LastRead::Open), Phase::Fetching);
        assert_eq!(Phase::Complete.after(LastRead::Ended), Phase::Ended);
    }

    #[test]
    fn the_end_of_the_last_read_outlives_the_stream() {
        let last_after = |act: fn(&mut Reads)| {
            let mut reads = Reads::default();
            act(&mut reads);
            reads.drop_reader();
            reads.last()
        };
        assert_eq!(last_after(|_| ()), LastRead::Dropped);
        assert_eq!(last_after(Reads::end), LastRead::Ended);
        let fail = |reads: &mut Reads| assert!(reads.fail(&Error::new(ErrorKind::TimedOut, "too late")));
        assert_eq!(last_after(fail), LastRead::Failed);
    }

    #[test]
    fn an_interrupted_read_has_not_failed() {
        let mut reads = Reads::default();
        assert!(!reads.fail(&Error::new(ErrorKind::Interrupted, "interrupted")));
        assert_eq!((reads.last(), reads.last_error().is_none()), (LastRead::Open, true));
        assert!(reads.fail(&Error::new(ErrorKind::TimedOut, "too late")));
        assert!(reads.failure().is_some());
        reads.begin();
        assert!(reads.failure().is_none() && reads.last_error().is_some());
    }
}
