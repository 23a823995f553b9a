//! The calls of readers that block until the state has something for them.

use std::time::Instant;

use parking_lot::MutexGuard;

use super::shared::{Inner, Shared};
use super::state::section::SectionInfo;
use super::state::{ReadResult, SectionResult, State};
use crate::cancel::CancelReason;
use crate::error::Error;
use crate::source::wait::{Begun, TimeLimit};
use crate::types::{Priority, RequestId};

impl Shared {
    /// Blocks until at least one byte of the section is there, or its end.
    pub(super) fn read(&self, section: u64, buf: &mut [u8]) -> Result<usize, Error> {
        self.wait("read", |state| read(state, section, buf))
    }

    /// As `read`, without blocking: `None` if nothing is there yet. It is requested then.
    pub(super) fn try_read(&self, section: u64, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        self.try_once(|state| read(state, section, buf))
    }

    /// Blocks until the next section begins. `None` at the end of the presentation.
    pub(super) fn next_section(&self) -> Result<Option<(u64, SectionInfo)>, Error> {
        self.wait("next_section", next_section)
    }

    /// As `next_section`, without blocking: `None` if it has not begun yet.
    pub(super) fn try_next_section(&self) -> Result<Option<Option<(u64, SectionInfo)>>, Error> {
        self.try_once(next_section)
    }

    fn try_once<T>(&self, mut attempt: impl FnMut(&mut State) -> Attempt<T>) -> Result<Option<T>, Error> {
        let mut inner = self.inner.lock();
        let begun = inner.waits.begin(self.waiter);
        let result = self.attempt(&mut inner, begun, &mut attempt);
        drop(inner);
        result.map_err(|error| self.locate(error))
    }

    /// Repeats an attempt after each change of the state, until it succeeds or a limit is reached.
    fn wait<T>(&self, call: &str, mut attempt: impl FnMut(&mut State) -> Attempt<T>) -> Result<T, Error> {
        Error::check_may_block(call).map_err(|error| self.locate(error))?;
        let began = Instant::now();
        let mut limit = TimeLimit::new(self.config.read_timeout, began);
        let mut inner = self.inner.lock();
        let begun = inner.waits.begin(self.waiter);
        let mut was_blocked = false;
        let result = loop {
            match self.attempt(&mut inner, begun, &mut attempt) {
                Ok(Some(value)) => break Ok(value),
                Ok(None) => was_blocked = true,
                Err(error) => break Err(error),
            }
            inner.blocked += 1;
            let blocked = self.block(&mut inner, &mut limit);
            inner.blocked -= 1;
            if let Err(error) = blocked {
                break Err(error);
            }
        };
        if was_blocked {
            inner.waits.add_stall(began.elapsed());
        }
        drop(inner);
        result.map_err(|error| self.locate(error))
    }

    /// Makes an attempt, and fetches what it needs now. `None` if it has to be made again after the next change of the state.
    fn attempt<T>(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        begun: Begun,
        attempt: &mut impl FnMut(&mut State) -> Attempt<T>,
    ) -> Result<Option<T>, Error> {
        loop {
            if inner.state.as_mut().is_some_and(|state| state.poll_late_segment(Instant::now())) {
                // Unlocked: it takes this lock itself, and cancels fetches, whose sinks take it too.
                MutexGuard::unlocked(inner, || self.handle_abandoned());
            }
            let Some(state) = inner.state.as_mut() else {
                return self.unopened(inner, begun).map_or(Ok(None), Err);
            };
            let outcome = attempt(state);
            let wake = state.take_wake(Instant::now()).then(|| state.wake_priority());
            let request = match outcome {
                Attempt::Done(result) => {
                    // After an error fetching continues: the caller has got it.
                    self.fetch_now(inner, None, wake.or(result.is_err().then_some(Priority::High)));
                    return result.map(Some);
                }
                Attempt::Wait(request) => request,
            };
            let cancelled = self.link.cancelled();
            let cancelled = cancelled.or(inner.is_closed.then_some(CancelReason::Peer));
            // Checked after the attempt: audio that was fetched can still be read after a cancel or an interrupt.
            if let Some(error) = inner.waits.broken_off(begun, cancelled) {
                return Err(error);
            }
            if request.is_none() && wake.is_none() {
                return Ok(None);
            }
            // The state may change while it is not locked, so the attempt is repeated.
            self.fetch_now(inner, request, wake);
        }
    }

    /// Makes a running fetch urgent, and lets the downloader ask for the next one.
    fn fetch_now(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        request: Option<RequestId>,
        wake: Option<Priority>,
    ) {
        // Both take locks of the downloader, which are never taken inside of that of the state.
        MutexGuard::unlocked(inner, || {
            request.into_iter().for_each(|request| self.link.promote(request));
            wake.into_iter().for_each(|priority| self.link.wake(priority));
        });
    }

    /// Blocks until the state has changed, an outage is over, or a segment that arrives has to be checked.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) once the limit is reached. Its cause is the error that is being retried.
    fn block(&self, inner: &mut MutexGuard<'_, Inner>, limit: &mut TimeLimit) -> Result<(), Error> {
        limit.extend(inner.waits.last_progress());
        let retry_at = inner.state.as_ref().and_then(State::retry_at);
        let next_check = inner.state.as_ref().and_then(State::next_check);
        // An opening has a limit of its own, and ends with an error.
        let deadline = limit.deadline().filter(|_| inner.state.is_some());
        let wakes_at = [deadline, retry_at, next_check].into_iter().flatten().min();
        let is_late = match wakes_at {
            Some(deadline) => self.changed.wait_until(inner, deadline).timed_out(),
            None => {
                self.changed.wait(inner);
                false
            }
        };
        limit.extend(inner.waits.last_progress());
        if is_late && limit.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            let error = inner.waits.read_timed_out(self.config.read_timeout.unwrap_or_default());
            let cause = inner.state.as_ref().and_then(State::last_error).cloned();
            return Err(cause.into_iter().fold(error, Error::with_cause));
        }
        Ok(())
    }
}

fn read(state: &mut State, section: u64, buf: &mut [u8]) -> Attempt<usize> {
    match state.read(section, buf) {
        ReadResult::Bytes(got) => Attempt::Done(Ok(got)),
        ReadResult::End => Attempt::Done(Ok(0)),
        ReadResult::Failed(error) => Attempt::Done(Err(error)),
        ReadResult::Wait(request) => Attempt::Wait(request),
    }
}

fn next_section(state: &mut State) -> Attempt<Option<(u64, SectionInfo)>> {
    match state.next_section() {
        SectionResult::Section(id, info) => Attempt::Done(Ok(Some((id, info)))),
        SectionResult::End => Attempt::Done(Ok(None)),
        SectionResult::Failed(error) => Attempt::Done(Err(error)),
        SectionResult::Wait(request) => Attempt::Wait(request),
    }
}

/// Result of an attempt of a blocking call.
enum Attempt<T> {
    Done(Result<T, Error>),
    /// It has to wait. This fetch, if any, has to become urgent.
    Wait(Option<RequestId>),
}
