//! Shared by the blocking calls of all sources: why they end early, how long they may last, the error that explains them, and
//! the stall statistics.
//!
//! ```text
//!   source's state ──▶ WaitState: interrupts, errors, progress, stalls    facts, under the source's mutex
//!   one reader     ──▶ WaitReader: names its interrupts                   those of other readers do not end its calls
//!   one call       ──▶ Begun: which interrupts and failures are older     makes the call end for newer ones only
//!                  ──▶ TimeLimit: maximum time without progress           moves its deadline with the progress
//! ```
//!
//! Why a call has to end is asked with its [`Begun`], which only a reader can make: no call can wait without its reader.
//!
//! A source keeps one [`WaitState`] in the state that its mutex guards, and notifies its own condition variable after
//! each change. Nothing here blocks by itself or reads a clock, except for [`TimeLimit::block`], which calls the
//! source's wait.

use std::time::{Duration, Instant};

use slab::Slab;

use crate::cancel::CancelReason;
use crate::error::{Error, ErrorKind};

/// The facts that end or explain blocked calls.
#[derive(Debug, Default)]
pub(crate) struct WaitState {
    readers: Slab<ReaderState>,
    /// Number of failures so far, and the last one. It ends the calls that were blocked when it happened.
    failures: Failures,
    failure: Option<Error>,
    /// The error of the last attempt, while the source retries by itself or when it is asked again.
    retrying: Option<Error>,
    /// The error with which fetching stopped. A call that blocks starts it again.
    halted: Option<Error>,
    /// The error with which the source ended. Permanent.
    ended: Option<Error>,
    /// When the last bytes arrived that a blocked call needs.
    last_progress: Option<Instant>,
    stalls: Stalls,
}

/// What was said to one reader.
#[derive(Clone, Copy, Debug, Default)]
struct ReaderState {
    /// Number of interrupts so far. A call that began before the last one ends, even if `resume` was called since.
    interrupts: u64,
    /// No call may block until `resume`.
    is_interrupted: bool,
    /// The failures that its calls have returned, or that happened before it.
    returned: Failures,
}

/// Names one reader of a source, from [`WaitState::add_reader`] to [`WaitState::remove_reader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitReader(usize);

/// The calls that were blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stalls {
    pub(crate) count: u64,
    /// Their total time.
    pub(crate) time: Duration,
}

/// The failures of a source that happened before some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures(u64);

/// A reader that has begun a call, with the interrupts and failures that happened before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    reader: WaitReader,
    interrupts: u64,
    failures: Failures,
}

impl Begun {
    /// The reader whose call it is.
    pub(crate) fn reader(self) -> WaitReader {
        self.reader
    }

    /// Ignores `failures`, but no interrupt: the call is about to request again what failed before.
    pub(crate) fn after(self, failures: Failures) -> Self {
        Self { failures, ..self }
    }
}

impl WaitState {
    /// Adds a reader, which is not interrupted.
    pub(crate) fn add_reader(&mut self) -> WaitReader {
        let reader = ReaderState { returned: self.failures, ..ReaderState::default() };
        WaitReader(self.readers.insert(reader))
    }

    /// Forgets a reader that is in no call any more.
    pub(crate) fn remove_reader(&mut self, reader: WaitReader) {
        self.readers.remove(reader.0);
    }

    /// Call this when a blocking call of `reader` begins, before it first checks the state of the source: an interrupt in between
    /// would be lost.
    pub(crate) fn begin(&self, reader: WaitReader) -> Begun {
        Begun { reader, interrupts: self.readers[reader.0].interrupts, failures: self.failures }
    }

    /// As [`begin`](Self::begin), for a call that does not block. A failure between two of these calls is returned by the later one,
    /// once.
    pub(crate) fn begin_polling(&mut self, reader: WaitReader) -> Begun {
        let begun = self.begin(reader);
        begun.after(std::mem::replace(&mut self.readers[reader.0].returned, self.failures))
    }

    /// Records that a call of `reader` has blocked until now: it has returned the failures so far, or requested again what failed.
    pub(crate) fn end_blocking(&mut self, reader: WaitReader) {
        self.readers[reader.0].returned = self.failures;
    }

    /// The failures so far.
    pub(crate) fn failures(&self) -> Failures {
        self.failures
    }

    /// The reason why a call has to end without its bytes. `cancelled` is the reason why the source was cancelled, if it
    /// was.
    pub(crate) fn broken_off(&self, begun: Begun, cancelled: Option<CancelReason>) -> Option<Error> {
        // First: a cancel is permanent, and often the reason for the other errors.
        if let Some(reason) = cancelled {
            return Some(Error::cancelled(reason));
        }
        if self.ended.is_some() {
            return self.ended.clone();
        }
        let ReaderState { interrupts, is_interrupted, .. } = self.readers[begun.reader.0];
        if is_interrupted || interrupts != begun.interrupts {
            return Some(Error::new(ErrorKind::Interrupted, "the call was interrupted"));
        }
        if self.failures == begun.failures { None } else { self.failure.clone() }
    }

    /// Ends the blocked calls of `reader`. The caller notifies them.
    pub(crate) fn interrupt(&mut self, reader: WaitReader) {
        let reader = &mut self.readers[reader.0];
        reader.interrupts += 1;
        // Both: the flag stops calls that begin later, the number ends those that are blocked even if `resume` comes before
        // they wake.
        reader.is_interrupted = true;
    }

    /// True from an interrupt of `reader` until its `resume`.
    pub(crate) fn is_interrupted(&self, reader: WaitReader) -> bool {
        self.readers[reader.0].is_interrupted
    }

    /// True if any reader is interrupted.
    pub(crate) fn has_interrupted(&self) -> bool {
        self.readers.iter().any(|(_, reader)| reader.is_interrupted)
    }

    /// Allows calls of `reader` to block again.
    pub(crate) fn resume(&mut self, reader: WaitReader) {
        self.readers[reader.0].is_interrupted = false;
    }

    /// Records an error that ends the calls that are blocked now, and no later ones. The caller notifies them.
    pub(crate) fn fail(&mut self, error: Error) {
        self.failure = Some(error);
        self.failures.0 += 1;
    }

    /// Records that an attempt failed and that another one follows.
    pub(crate) fn retry(&mut self, error: Error) {
        self.retrying = Some(error);
    }

    /// Records that an attempt succeeded.
    pub(crate) fn recover(&mut self) {
        self.retrying = None;
    }

    pub(crate) fn retrying(&self) -> Option<&Error> {
        self.retrying.as_ref()
    }

    /// Records that fetching stopped with `error`, until [`restart`](Self::restart).
    pub(crate) fn halt(&mut self, error: Error) {
        self.halted = Some(error);
    }

    /// Records that fetching may start again: a call blocks, or the reader has moved on.
    pub(crate) fn restart(&mut self) {
        self.halted = None;
    }

    pub(crate) fn halted(&self) -> Option<&Error> {
        self.halted.as_ref()
    }

    /// Records that the source ended with `error`: no more bytes will arrive. The caller notifies the blocked calls.
    pub(crate) fn end(&mut self, error: Error) {
        self.ended = Some(error);
    }

    pub(crate) fn ended(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// The error that stopped fetching, or that is being retried. A cancellation is no error.
    pub(crate) fn last_error(&self) -> Option<&Error> {
        // The program asked for the cancellation, so it is no news to it.
        let ended = self.ended.as_ref().filter(|error| !error.is_cancelled());
        self.halted.as_ref().or(ended).or(self.retrying.as_ref())
    }

    /// Records that bytes arrived that a blocked call needs.
    pub(crate) fn progress(&mut self, now: Instant) {
        self.last_progress = Some(now);
    }

    pub(crate) fn last_progress(&self) -> Option<Instant> {
        self.last_progress
    }

    /// The error of a read whose [`TimeLimit`] has passed. Its cause is the error that is being retried.
    pub(crate) fn read_timed_out(&self, limit: Duration) -> Error {
        self.timed_out(format!("read timed out: no data for {limit:?}"))
    }

    /// The error of a wait for bytes that did not all arrive within `timeout`, with the same cause.
    pub(crate) fn wait_timed_out(&self, timeout: Duration) -> Error {
        self.timed_out(format!("wait timed out: the bytes did not arrive within {timeout:?}"))
    }

    fn timed_out(&self, why: String) -> Error {
        let error = Error::new(ErrorKind::TimedOut, why);
        match &self.retrying {
            Some(cause) => error.with_cause(cause.clone()),
            None => error,
        }
    }

    /// Counts a read that was blocked for `time`.
    pub(crate) fn add_stall(&mut self, time: Duration) {
        self.stalls.count += 1;
        self.stalls.time += time;
    }

    pub(crate) fn stalls(&self) -> Stalls {
        self.stalls
    }
}

/// The time limit of one blocked call: it ends when there was no progress for this long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit {
    limit: Option<Duration>,
    /// The beginning of the call, or the last progress since.
    since: Instant,
}

impl TimeLimit {
    /// `None` is no limit.
    pub(crate) fn new(limit: Option<Duration>, now: Instant) -> Self {
        Self { limit, since: now }
    }

    /// Extends the limit if there was progress since.
    pub(crate) fn extend(&mut self, last_progress: Option<Instant>) {
        // Progress from before the call does not count.
        self.since = last_progress.map_or(self.since, |progress| progress.max(self.since));
    }

    /// When the call ends, unless there is progress. `None` is never.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        // A limit that an `Instant` can't represent counts as no limit.
        self.since.checked_add(self.limit?)
    }

    /// Calls `wait` until it returns a value, or until the limit has passed: then the error is that limit. `wait` must not
    /// block beyond the [`deadline`](Self::deadline), and has to [extend](Self::extend) the limit when it sees progress.
    pub(crate) fn block<T>(mut self, mut wait: impl FnMut(&mut Self) -> Option<T>) -> Result<T, Duration> {
        loop {
            if let Some(answer) = wait(&mut self) {
                return Ok(answer);
            }
            // The deadline may have moved while `wait` was blocked until the earlier one.
            match (self.limit, self.deadline()) {
                (Some(limit), Some(deadline)) if Instant::now() >= deadline => return Err(limit),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "for a test")
    }

    #[test]
    fn an_interrupt_ends_calls_that_began_before_it_even_after_a_resume() {
        let mut waits = WaitState::default();
        let reader = waits.add_reader();
        let before = waits.begin(reader);
        waits.interrupt(reader);
        let during = waits.begin(reader);
        assert_eq!(waits.broken_off(during, None).unwrap().kind(), ErrorKind::Interrupted);
        waits.resume(reader);
        assert_eq!(waits.broken_off(before, None).unwrap().kind(), ErrorKind::Interrupted);
        assert!(waits.broken_off(during, None).is_none());
    }

    #[test]
    fn a_reader_that_polls_returns_a_failure_once_and_none_from_before_it_or_that_it_has_blocked_on() {
        let mut waits = WaitState::default();
        let error = || Error::new(ErrorKind::Status(404), "not found");
        let returns = |waits: &mut WaitState, reader| {
            let begun = waits.begin_polling(reader);
            waits.broken_off(begun, None).is_some()
        };
        let first = waits.add_reader();
        waits.fail(error());
        let later = waits.add_reader();
        assert!(returns(&mut waits, first) && !returns(&mut waits, first));
        assert!(!returns(&mut waits, later), "it failed before there was this reader");
        waits.fail(error());
        waits.end_blocking(first);
        assert!(!returns(&mut waits, first) && returns(&mut waits, later));
    }

    #[test]
    fn a_failure_ends_calls_that_began_before_it_and_no_later_ones() {
        let mut waits = WaitState::default();
        let reader = waits.add_reader();
        let before = waits.begin(reader);
        waits.fail(error(ErrorKind::Status(404)));
        assert_eq!(waits.broken_off(before, None).unwrap().kind(), ErrorKind::Status(404));
        assert!(waits.broken_off(waits.begin(reader), None).is_none());
        assert!(waits.broken_off(before.after(waits.failures()), None).is_none());
    }

    #[test]
    fn a_cancelled_source_returns_that_error_whatever_else_happened() {
        let mut waits = WaitState::default();
        let reader = waits.add_reader();
        let begun = waits.begin(reader);
        waits.interrupt(reader);
        waits.end(error(ErrorKind::Changed));
        assert_eq!(waits.broken_off(begun, None).unwrap().kind(), ErrorKind::Changed);
        let reason = CancelReason::Fetch;
        assert_eq!(waits.broken_off(begun, Some(reason)).unwrap().kind(), ErrorKind::Cancelled(reason));
    }

    /// What a thread does with one reader. Each change is made twice, in a source with other readers and in one without.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        Begin,
        Interrupt,
        Resume,
        Replace,
    }

    proptest! {
        #[test]
        fn the_calls_of_a_reader_end_as_if_there_were_no_other_reader(
            acts in vec((0usize..3, select(vec![Act::Begin, Act::Interrupt, Act::Resume, Act::Replace])), 0..60),
        ) {
            let (mut shared, mut alone) = (WaitState::default(), WaitState::default());
            let mut readers: [_; 3] = std::array::from_fn(|_| shared.add_reader());
            let own = alone.add_reader();
            let mut calls = Vec::new();
            for (reader, act) in acts {
                match act {
                    Act::Begin if reader == 0 => calls.push((shared.begin(readers[0]), alone.begin(own))),
                    Act::Begin => {}
                    Act::Interrupt => shared.interrupt(readers[reader]),
                    Act::Resume => shared.resume(readers[reader]),
                    Act::Replace if reader == 0 => {}
                    Act::Replace => {
                        shared.remove_reader(readers[reader]);
                        readers[reader] = shared.add_reader();
                    }
                }
                match act {
                    Act::Interrupt if reader == 0 => alone.interrupt(own),
                    Act::Resume if reader == 0 => alone.resume(own),
                    _ => {}
                }
                for (among, alone_call) in &calls {
                    prop_assert_eq!(
                        shared.broken_off(*among, None).is_some(),
                        alone.broken_off(*alone_call, None).is_some()
                    );
                }
                let interrupted = readers.iter().any(|reader| shared.is_interrupted(*reader));
                prop_assert_eq!(shared.has_interrupted(), interrupted);
            }
        }
    }

    #[test]
    fn the_last_error_is_the_one_that_stopped_fetching() {
        let mut waits = WaitState::default();
        waits.retry(error(ErrorKind::Disconnected));
        assert_eq!(waits.last_error().unwrap().kind(), ErrorKind::Disconnected);
        let late = waits.read_timed_out(Duration::from_secs(30));
        assert_eq!(late.to_string(), "read timed out: no data for 30s");
        assert_eq!(late.cause().unwrap().kind(), ErrorKind::Disconnected);
        waits.halt(error(ErrorKind::Status(503)));
        assert_eq!(waits.last_error().unwrap().kind(), ErrorKind::Status(503));
        waits.restart();
        waits.recover();
        assert!(waits.last_error().is_none());
        waits.end(Error::cancelled(CancelReason::Peer));
        assert!(waits.last_error().is_none());
    }

    #[test]
    fn a_limit_runs_from_the_last_progress() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut limit = TimeLimit::new(Some(10 * second), now);
        assert_eq!(limit.deadline(), Some(now + 10 * second));
        limit.extend(Some(now + 4 * second));
        assert_eq!(limit.deadline(), Some(now + 14 * second));
        limit.extend(now.checked_sub(second));
        limit.extend(None);
        assert_eq!(limit.deadline(), Some(now + 14 * second));
        assert_eq!(TimeLimit::new(None, now).deadline(), None);
        assert_eq!(TimeLimit::new(Some(Duration::MAX), now).deadline(), None);
    }

    #[test]
    fn a_call_blocks_again_if_its_deadline_has_moved() {
        let past = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let mut progress = [None, Some(Instant::now() + Duration::from_secs(60))].into_iter();
        let limit = TimeLimit::new(Some(Duration::from_secs(2)), past);
        let answer = limit.block(|limit| match progress.next() {
            Some(None) => {
                limit.extend(Some(Instant::now() + Duration::from_secs(60)));
                None
            }
            _ => Some(7),
        });
        assert_eq!(answer, Ok(7));
        assert_eq!(limit.block(|_| None::<()>), Err(Duration::from_secs(2)));
    }
}
