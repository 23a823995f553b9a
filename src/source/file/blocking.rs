//! How a read of a file is served, or blocks.
//!
//! A read of stored bytes copies them. Else it registers what it needs, makes that urgent, and waits for storage: until
//! the byte is there, the source ends the wait, or a worker has left the body for this thread to read. While all workers
//! are busy the thread is lent, and runs its own fetch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plan;
use super::reader_id::ReaderId;
use super::shared::Shared;
#[cfg(feature = "queue")]
use super::state::OpenCall;
use super::state::State;
use crate::downloader::{Driven, Lent};
use crate::error::Error;
use crate::source::prefetch;
use crate::source::wait::{Begun, TimeLimit};
use crate::source::{Pending, TryRead};
use crate::storage::{RangeSet, TryStored};
use crate::types::Priority;

enum Wait {
    Ready,
    End,
    Failed(Error),
}

/// Why a blocked thread wakes.
enum Woken<T> {
    Over(T),
    /// It is to run a fetch itself.
    ToRun,
}

impl Shared {
    /// Copies what is stored at `position`, without waiting.
    pub(crate) fn read_stored(
        &self,
        reader: ReaderId,
        position: u64,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        let got = self.resource.read_at(position, buf).map_err(|error| self.locate(error, position))?;
        if got > 0 {
            self.advance(reader, position, got as u64);
        }
        Ok(got)
    }

    /// Reads at `position`: blocks until at least one byte is there, the end, or an error.
    pub(crate) fn read(&self, reader: ReaderId, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        if buf.is_empty() {
            return Ok(0);
        }
        Error::check_may_block("read").map_err(|error| self.locate(error, position))?;
        let (begun, interrupted) = {
            let state = self.state.lock();
            // Before the first look at storage: a failure between the look and the wait still ends this read.
            (state.waits.begin(reader.waits), state.waits.is_interrupted(reader.waits))
        };
        loop {
            let got = self.read_stored(reader, position, buf)?;
            if got > 0 {
                return Ok(got);
            }
            // Driving a transfer may block, which an interrupted read must not do.
            if !interrupted {
                // A file gets whole blocks. The chunk that one arrives in becomes the block, which saves more than the copy out of it.
                let own = if self.resource.is_in_memory() { &mut *buf } else { &mut [] };
                match self.handoff.drive(position, own) {
                    Driven::Received(got) if self.has_stored(position, got) => {
                        self.advance(reader, position, got as u64);
                        return Ok(got);
                    }
                    // The bytes are not where this read wants them, or were dropped. The next look at storage decides.
                    Driven::Received(_) | Driven::Stored => continue,
                    Driven::Nothing => {}
                }
            }
            match self.await_byte(reader, position, begun) {
                Wait::Ready => {}
                Wait::End => return Ok(0),
                Wait::Failed(error) => return Err(self.locate(error, position)),
            }
        }
    }

    /// True if these bytes were stored: a sink may hold back or drop what it gets.
    fn has_stored(&self, position: u64, bytes: usize) -> bool {
        self.resource.with_ranges(|ranges| ranges.run_from(position) - position >= bytes as u64)
    }

    /// Copies what is there at `position`; where nothing is, requests it and does not wait.
    pub(crate) fn try_read(&self, reader: ReaderId, position: u64, buf: &mut [u8]) -> Result<TryRead, Error> {
        if buf.is_empty() {
            return Ok(TryRead::Bytes(0));
        }
        let stored =
            self.resource.try_read_at(position, buf).map_err(|error| self.locate(error, position))?;
        if let TryStored::Bytes(got) = stored {
            self.advance(reader, position, got as u64);
            return Ok(TryRead::Bytes(got));
        }
        let pending = {
            // The disk thread loads the block. There is nothing to request.
            if stored == TryStored::OnDisk {
                return Ok(TryRead::Pending(Pending::OnDisk));
            }
            let mut state = self.state.lock();
            if state.is_past_end(position) {
                return Ok(TryRead::End);
            }
            let begun = state.waits.begin_polling(reader.waits);
            if let Some(error) = state.waits.broken_off(begun, self.cancel_reason()) {
                return Err(self.locate(error, position));
            }
            state.want(reader, position);
            if state.waits.retrying().is_some() { Pending::Retrying } else { Pending::Fetching }
        };
        self.request_urgent();
        Ok(TryRead::Pending(pending))
    }

    /// Blocks until the length is known, reading on to the end if the server does not send it.
    pub(crate) fn await_len(&self, reader: ReaderId) -> Result<u64, Error> {
        let begun = self.state.lock().waits.begin(reader.waits);
        loop {
            if let Some(len) = self.len() {
                return Ok(len);
            }
            Error::check_may_block("seek").map_err(|error| self.locate(error, u64::MAX))?;
            // This position stands for the end, wherever that is. A body of unknown length is read on while a reader waits
            // there.
            if let Wait::Failed(error) = self.await_byte(reader, u64::MAX, begun) {
                return Err(self.locate(error, u64::MAX));
            }
        }
    }

    /// Blocks until `bytes` are stored from `position` on, or all up to the end. Fails once the file is known to have more of them
    /// than storage keeps.
    pub(crate) fn wait_buffered(
        &self,
        reader: ReaderId,
        position: u64,
        bytes: u64,
        timeout: Option<Duration>,
    ) -> Result<(), Error> {
        Error::check_may_block("waiting for bytes").map_err(|error| self.locate(error, position))?;
        let end = position.saturating_add(bytes);
        let begun = {
            let mut state = self.state.lock();
            // Before anything is requested: of a file of known length it shows now whether storage keeps the bytes.
            let until = state.end_of_wait(position, end, position);
            until.map(|until| (state.waits.begin(reader.waits), state.want_all(&(position..until))))
        };
        let (begun, waiter) = begun.map_err(|error| self.locate(error, position))?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.request_urgent();
        let ended = loop {
            let ended = self.wait_or_run(deadline, begun, |stored| {
                let state = self.state.lock();
                let stored_to = stored.run_from(position);
                match state.end_of_wait(position, end, stored_to) {
                    Ok(until) if stored_to >= until.min(state.len().unwrap_or(u64::MAX)) => Some(Ok(())),
                    Ok(_) => state.waits.broken_off(begun, self.cancel_reason()).map(Err),
                    Err(refused) => Some(Err(refused)),
                }
            });
            // `None` without a deadline means that this thread has run a fetch: it looks again.
            if ended.is_some() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                break ended;
            }
        };
        let mut state = self.state.lock();
        // Under the same lock as the message, and before the errors return: a reader that is left over would hold a window.
        state.readers.remove(waiter);
        let ended = ended.unwrap_or_else(|| Err(state.waits.wait_timed_out(timeout.unwrap_or_default())));
        drop(state);
        ended.map_err(|error| self.locate(error, position))
    }

    /// As [`await_opening`](Self::await_opening), for a file that was opened in the background. Its failure is returned like
    /// that of an opening that is waited for: at once if the host can't be reached.
    #[cfg(feature = "queue")]
    pub(super) fn finish_opening(&self, reader: ReaderId) -> Result<(), Error> {
        self.state.lock().open_call = OpenCall::Blocked;
        let opened = self.await_opening(reader);
        self.state.lock().open_call = OpenCall::Over;
        opened
    }

    pub(super) fn await_opening(&self, reader: ReaderId) -> Result<(), Error> {
        // Only the first bytes show that the response is not an HTML page.
        let known = |state: &State| (!state.first.is_empty()).then_some(Wait::Ready);
        let begun = self.state.lock().waits.begin(reader.waits);
        match self.wait_as(reader, 0, begun, known) {
            Wait::Failed(error) => Err(self.locate(error, 0)),
            _ => Ok(()),
        }
    }

    /// Records that a reader got bytes from storage, and requests more when it is time.
    fn advance(&self, reader: ReaderId, position: u64, bytes: u64) {
        let mut state = self.state.lock();
        let read_ahead = state.limits.target();
        state.stats.bytes_read += bytes;
        state.limits.handle_read(bytes, Instant::now());
        let run = state.move_on(reader, position, bytes);
        if !prefetch::is_look_due(run, bytes, plan::prefetch_limit(read_ahead)) {
            return;
        }
        state.retry_halted(position + bytes);
        let sequential = state.one_body.is_running();
        drop(state);
        self.request_memory();
        // The state is locked again: the lock of the resource is never taken inside the state's. Other readers of the file may
        // move meanwhile.
        self.resource.evict_outside(|| self.state.lock().windows());
        if sequential {
            // The thread that reads the sequential body waits for readers to get on.
            self.resource.notify();
        }
        self.replan(Priority::Low);
    }

    fn await_byte(&self, reader: ReaderId, position: u64, begun: Begun) -> Wait {
        self.wait_as(reader, position, begun, |state| state.is_past_end(position).then_some(Wait::End))
    }

    /// Blocks `reader` on the byte at `position`, until it is there, `or` ends the wait, or it can't be waited for.
    fn wait_as(
        &self,
        reader: ReaderId,
        position: u64,
        begun: Begun,
        or: impl Fn(&State) -> Option<Wait>,
    ) -> Wait {
        let begun = {
            let mut state = self.state.lock();
            state.want(reader, position);
            begun.after(state.waits.failures())
        };
        self.request_urgent();
        let began = Instant::now();
        let wait = self.block(position, begun, or);
        let mut state = self.state.lock();
        state.readers[reader.view].waiting = false;
        state.waits.end_blocking(reader.waits);
        // Waiting to learn that the file has ended is no stall: there is nothing to play.
        if !matches!(wait, Wait::End) {
            state.waits.add_stall(began.elapsed());
        }
        wait
    }

    /// Fetches what is waited for: cancels what is in the way, makes it urgent, and requests what is not on its way.
    fn request_urgent(&self) {
        let Some(link) = self.link.get() else { return };
        let network = self.network();
        let (unwanted, urgent, may_jump) = self.resource.with_ranges(|ranges| {
            let mut state = self.state.lock();
            // In this order: what is cancelled must not be made urgent.
            (state.unwanted(ranges, network), state.promote_urgent(ranges), state.may_jump())
        });
        // Without the locks, since a cancellation runs callbacks. And before the rest, since it frees workers and connections.
        for token in unwanted {
            token.cancel();
        }
        urgent.into_iter().for_each(|request| link.waker.promote(request, Priority::High));
        // The thread of a sequential body may wait for readers: it reads on now, or starts again.
        self.resource.notify();
        // What is waited for may be in flight already, but not yet the places to which its reader may jump next.
        self.replan(if may_jump { Priority::Low } else { Priority::High });
    }

    /// Makes the prefetches urgent that a reader waits for. Called when the downloader has accepted one: a reader that was blocked
    /// before that could not.
    pub(crate) fn promote_urgent(&self) {
        let Some(link) = self.link.get() else { return };
        let urgent = self.resource.with_ranges(|ranges| self.state.lock().promote_urgent(ranges));
        urgent.into_iter().for_each(|request| link.waker.promote(request, Priority::High));
    }

    fn block(&self, position: u64, begun: Begun, or: impl Fn(&State) -> Option<Wait>) -> Wait {
        let limit = TimeLimit::new(self.config.read_timeout, Instant::now());
        let ended = limit.block(|limit| {
            let deadline = limit.deadline();
            self.wait_or_run(deadline, begun, |stored| {
                if stored.contains(position) {
                    return Some(Wait::Ready);
                }
                let state = self.state.lock();
                limit.extend(state.waits.last_progress());
                or(&state)
                    .or_else(|| state.waits.broken_off(begun, self.cancel_reason()).map(Wait::Failed))
                    .or_else(|| self.handoff.has(position).then_some(Wait::Ready))
            })
        });
        ended.unwrap_or_else(|limit| Wait::Failed(self.state.lock().waits.read_timed_out(limit)))
    }

    /// Waits until `ended` answers. While all workers are busy this thread does what one of them would do for it: then there
    /// is no answer yet, and none if `deadline` has passed.
    fn wait_or_run<T>(
        &self,
        deadline: Option<Instant>,
        begun: Begun,
        mut ended: impl FnMut(&RangeSet) -> Option<T>,
    ) -> Option<T> {
        let resource = Arc::clone(&self.resource);
        // Lent before the wait, so that a task that comes at once ends that wait.
        let wake = move || {
            resource.notify();
        };
        let lent = self.link.get().and_then(|link| link.waker.lend(wake));
        let woken = self.resource.wait(deadline, |view| {
            let has_task = || lent.as_ref().is_some_and(Lent::has_task).then_some(Woken::ToRun);
            ended(view.ranges).map(Woken::Over).or_else(has_task)
        })?;
        match (woken, lent) {
            (Woken::Over(answer), _) => return Some(answer),
            (Woken::ToRun, Some(lent)) => self.run_lent(lent, deadline, begun),
            (Woken::ToRun, None) => {}
        }
        None
    }

    /// Does what a worker would do, until `deadline`, or until the call that has begun is to end.
    fn run_lent(&self, lent: Lent, deadline: Option<Instant>, begun: Begun) {
        // Before `run` first looks whether the call is to end: an interrupt after that look finds the thread here.
        let key = self.state.lock().begin_lent(begun.reader(), lent.interrupter());
        lent.run(deadline, || self.state.lock().waits.broken_off(begun, self.cancel_reason()).is_some());
        self.state.lock().end_lent(key);
    }
}
