//! What a stream is at: one pure function of what is known of it, for files and radios alike.

use crate::error::{Error, ErrorKind};

/// What a stream is at.
///
/// The first row that holds counts:
///
/// | phase | holds | until |
/// |---|---|---|
/// | `Closed` | the stream was dropped or cancelled, or its downloader has stopped | for good |
/// | `Ended` | the last read returned 0, at the end of the file | a seek elsewhere, or a read |
/// | `Failed` | the last read failed, unless it was interrupted | the next read, which tries again, or a seek |
/// | `Complete` | all of the file is stored | some of it is evicted |
/// | `Failed` | fetching has failed, nothing is fetched, and nobody waits | a read or wait has it fetched again |
/// | `Opening` | nothing is known of the file yet, or the station has not been heard | the first answer |
/// | `Retrying` | what was asked for last could not be had, and is asked for again | it comes, or fails for good |
/// | `Stalled` | a reader or a wait waits for bytes | they come |
/// | `Fetching` | bytes are coming, or asked for | what is wanted is there |
/// | `Idle` | nothing is fetched: what the readers will want next is there, or a radio is paused | they read on |
///
/// A radio is never `Ended` nor `Complete`. `Ended` and the first `Failed` are those of the stream whose handle is asked, where
/// several read one file; all else is the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing is known yet.
    Opening,
    /// A reader waits for bytes.
    Stalled,
    /// Bytes are coming, and nobody has to wait.
    Fetching,
    /// Nothing is fetched, since nothing more is wanted now.
    Idle,
    /// What was asked for last could not be had, and is asked for again.
    Retrying,
    /// All of the file is stored.
    Complete,
    /// The reader has reached the end of the file.
    Ended,
    /// What was asked for last could not be had, and is not asked for before the next read.
    /// [`StreamHandle::last_error`](crate::StreamHandle::last_error) tells why.
    Failed,
    /// The stream was dropped or cancelled, or its downloader has stopped.
    Closed,
}

/// What the phase follows from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Nothing more will come, because that was wanted.
    pub(crate) is_cancelled: bool,
    /// How the stream's reads stand.
    pub(crate) reads: LastRead,
    pub(crate) is_complete: bool,
    /// Fetching has failed, and only a reader that waits has it begin again.
    pub(crate) has_failed: bool,
    /// An answer has told what it is.
    pub(crate) is_known: bool,
    pub(crate) is_retrying: bool,
    pub(crate) is_urgent: bool,
    /// Something is on its way, or may come at any time.
    pub(crate) is_fetching: bool,
}

impl Facts {
    pub(crate) fn phase(self) -> Phase {
        match self.reads {
            _ if self.is_cancelled => return Phase::Closed,
            LastRead::Dropped => return Phase::Closed,
            LastRead::Ended => return Phase::Ended,
            LastRead::Failed => return Phase::Failed,
            LastRead::Open => {}
        }
        if self.is_complete {
            Phase::Complete
        } else if self.has_failed && !self.is_urgent && !self.is_fetching {
            Phase::Failed
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

/// What became of a stream's last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LastRead {
    /// There was none, it got bytes or was interrupted, or it waits.
    #[default]
    Open,
    /// It returned 0 at the end.
    Ended,
    Failed,
    /// The stream is gone.
    Dropped,
}

/// The reads of one stream, as its handles see them.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    last: LastRead,
    /// What a read failed of last. Stays when reads go on.
    error: Option<Error>,
}

impl Reads {
    pub(crate) fn last(&self) -> LastRead {
        self.last
    }

    /// What the last read failed of, if it failed.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.error.as_ref().filter(|_| self.last == LastRead::Failed)
    }

    /// What a read failed of last, whatever came after it.
    pub(crate) fn last_error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Notes that a read begins, or that the next one begins elsewhere.
    pub(crate) fn begin(&mut self) {
        self.last = LastRead::Open;
    }

    /// Notes that a read has returned 0 at the end.
    pub(crate) fn end(&mut self) {
        self.last = LastRead::Ended;
    }

    /// Notes that a read has failed. False if that says nothing of the stream: the read was interrupted or cancelled, or
    /// refused because of where it was made.
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

    /// Notes that the stream is gone.
    pub(crate) fn drop_reader(&mut self) {
        self.last = LastRead::Dropped;
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
    fn what_was_closed_is_neither_ended_nor_failed() {
        for reads in [LastRead::Open, LastRead::Ended, LastRead::Failed, LastRead::Dropped] {
            assert_eq!(
                phase(|facts| (facts.is_cancelled, facts.is_complete, facts.reads) = (true, true, reads)),
                Phase::Closed
            );
        }
        assert_eq!(phase(|facts| facts.reads = LastRead::Dropped), Phase::Closed);
    }

    #[test]
    fn a_failure_holds_until_somebody_waits_or_something_is_fetched() {
        assert_eq!(phase(|facts| facts.has_failed = true), Phase::Failed);
        assert_eq!(phase(|facts| (facts.has_failed, facts.is_urgent) = (true, true)), Phase::Stalled);
        assert_eq!(phase(|facts| (facts.has_failed, facts.is_fetching) = (true, true)), Phase::Fetching);
        assert_eq!(phase(|facts| (facts.has_failed, facts.is_known) = (true, false)), Phase::Failed);
    }

    #[test]
    fn what_a_reader_met_comes_before_what_is_fetched() {
        let fetching = |reads| phase(|facts| (facts.reads, facts.is_fetching) = (reads, true));
        assert_eq!(fetching(LastRead::Ended), Phase::Ended);
        assert_eq!(fetching(LastRead::Failed), Phase::Failed);
        assert_eq!(fetching(LastRead::Open), Phase::Fetching);
        assert_eq!(phase(|facts| (facts.reads, facts.is_complete) = (LastRead::Ended, true)), Phase::Ended);
    }

    #[test]
    fn a_read_that_was_interrupted_has_not_failed() {
        let mut reads = Reads::default();
        assert!(!reads.fail(&Error::new(ErrorKind::Interrupted, "interrupted")));
        assert_eq!((reads.last(), reads.last_error().is_none()), (LastRead::Open, true));
        assert!(reads.fail(&Error::new(ErrorKind::TimedOut, "too late")));
        assert!(reads.failure().is_some());
        reads.begin();
        assert!(reads.failure().is_none() && reads.last_error().is_some());
    }
}
