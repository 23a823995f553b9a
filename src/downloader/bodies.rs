//! The response bodies that are open in the hands of callers and sinks: how many there are, and the wait for one to close.
//!
//! Counted is what is open, from the arrival of its response head until the body was read to its end, failed or was dropped. A
//! caller that still waits for a head holds nothing, and must not keep others from asking.
//!
//! A thread that waits for a body to close may hold all of them itself, or they are held by threads that wait for this one:
//! that wait would never end. Which thread will drop a body can't be known. But an owner that makes progress reads its body or
//! closes it sooner or later. So the wait fails once no body was read or closed for as long as a connection may be silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind};

/// The open bodies of a downloader.
#[derive(Debug)]
pub(super) struct OpenBodies {
    /// `max_open_bodies`.
    max: usize,
    /// A wait for room fails if nothing happens to any of them for this long.
    wait_limit: Duration,
    state: Mutex<State>,
    /// Reads of any body that have begun so far, and those that have ended.
    begun_reads: AtomicU64,
    ended_reads: AtomicU64,
    /// Notified when a body closes, and when a waiting thread is cancelled.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bodies that are open.
    open: usize,
    /// Bodies closed so far.
    closed: u64,
}

/// What has happened to the bodies so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    closed: u64,
    begun_reads: u64,
    ended_reads: u64,
}

impl Progress {
    /// A read has begun that has not ended.
    fn is_being_read(self) -> bool {
        self.begun_reads != self.ended_reads
    }
}

/// Decides when a wait for room fails. Reads no clock.
#[derive(Debug)]
struct WaitLimit {
    limit: Duration,
    seen: Progress,
    /// When the last progress was seen.
    since: Instant,
}

impl WaitLimit {
    fn new(limit: Duration, seen: Progress, now: Instant) -> Self {
        Self { limit, seen, since: now }
    }

    /// True if nothing has happened to any body for the limit.
    fn is_over(&mut self, progress: Progress, now: Instant) -> bool {
        // A caller that reads will make room, however slow its server is.
        if progress != self.seen || progress.is_being_read() {
            (self.seen, self.since) = (progress, now);
        }
        now.saturating_duration_since(self.since) >= self.limit
    }

    /// When to look again, if nothing wakes the waiting thread before.
    fn deadline(&self) -> Instant {
        self.since + self.limit
    }
}

/// One open body. Its drop closes it.
#[derive(Debug)]
pub(super) struct OpenBody(Arc<OpenBodies>);

/// A read of an open body. Its drop ends it.
pub(super) struct BodyRead<'a>(&'a OpenBodies);

impl OpenBodies {
    pub(super) fn new(max: usize, wait_limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            max,
            wait_limit,
            state: Mutex::default(),
            begun_reads: AtomicU64::new(0),
            ended_reads: AtomicU64::new(0),
            changed: Condvar::new(),
        })
    }

    pub(super) fn count(&self) -> usize {
        self.state.lock().open
    }

    /// Fails if as many are open as may be.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooManyOpenBodies`].
    pub(super) fn check_room(&self) -> Result<(), Error> {
        if self.count() < self.max { Ok(()) } else { Err(self.too_many()) }
    }

    /// How many more may be open.
    pub(super) fn room(&self) -> usize {
        self.max.saturating_sub(self.count())
    }

    /// Opens one, unless as many are open as may be.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooManyOpenBodies`].
    pub(super) fn open(self: &Arc<Self>) -> Result<OpenBody, Error> {
        let mut state = self.state.lock();
        if state.open >= self.max {
            return Err(self.too_many());
        }
        Ok(self.insert(&mut state))
    }

    /// Opens one in any case: for a batch, which had seen room when it sent the request.
    pub(super) fn open_anyway(self: &Arc<Self>) -> OpenBody {
        self.insert(&mut self.state.lock())
    }

    fn insert(self: &Arc<Self>, state: &mut State) -> OpenBody {
        state.open += 1;
        OpenBody(Arc::clone(self))
    }

    /// What has happened, with the number of closed bodies of the locked state.
    fn progress(&self, closed: u64) -> Progress {
        // In this order: a read that begins in between is seen as one that runs, and not as one that has ended before it began.
        let ended_reads = self.ended_reads.load(Ordering::Acquire);
        Progress { closed, begun_reads: self.begun_reads.load(Ordering::Relaxed), ended_reads }
    }

    /// Blocks until one more may be open, or `token` is cancelled. Fails at once if nothing has happened since `stuck`, which
    /// the failure before this one left.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`]; [`ErrorKind::TooManyOpenBodies`], with what was seen last, where nothing happens to any body.
    pub(super) fn await_room(
        self: &Arc<Self>,
        token: &CancelToken,
        stuck: &mut Option<Progress>,
    ) -> Result<(), Error> {
        let bodies = Arc::clone(self);
        let _on_cancel = token.wake_on_cancel(move || {
            // Under the lock, so that no thread is between the look at the token and the wait.
            let _state = bodies.state.lock();
            bodies.changed.notify_all() > 0
        });
        let mut state = self.state.lock();
        let mut wait_limit = WaitLimit::new(self.wait_limit, self.progress(state.closed), Instant::now());
        loop {
            if let Some(reason) = token.reason() {
                return Err(Error::cancelled(reason));
            }
            if state.open < self.max {
                return Ok(());
            }
            let now = self.progress(state.closed);
            // Otherwise each fetch of a batch would wait for the whole limit.
            if *stuck == Some(now) {
                return Err(self.too_many());
            }
            if wait_limit.is_over(now, Instant::now()) {
                *stuck = Some(now);
                return Err(self.too_many());
            }
            self.changed.wait_until(&mut state, wait_limit.deadline());
        }
    }

    fn too_many(&self) -> Error {
        let why = format!("{} response bodies are open, as many as allowed; read or drop some", self.max);
        Error::new(ErrorKind::TooManyOpenBodies, why)
    }
}

impl OpenBody {
    /// Counts a read, which ends with the drop of the returned value.
    pub(super) fn begin_read(&self) -> BodyRead<'_> {
        // Relaxed: a read that is seen late extends the wait by one look.
        self.0.begun_reads.fetch_add(1, Ordering::Relaxed);
        BodyRead(&self.0)
    }
}

impl Drop for BodyRead<'_> {
    fn drop(&mut self) {
        self.0.ended_reads.fetch_add(1, Ordering::Release);
    }
}

impl Drop for OpenBody {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.open -= 1;
        state.closed += 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::CancelReason;

    const LIMIT: Duration = Duration::from_secs(10);

    /// After this many begins and ends of reads.
    fn progress(changes: u64) -> Progress {
        Progress { closed: 0, begun_reads: changes.div_ceil(2), ended_reads: changes / 2 }
    }

    #[test]
    fn a_wait_goes_on_while_a_body_is_being_read() {
        let start = Instant::now();
        let mut wait_limit = WaitLimit::new(LIMIT, progress(0), start);
        for looks in 1..5 {
            assert!(!wait_limit.is_over(progress(1), start + looks * LIMIT));
        }
        let ended = start + 5 * LIMIT;
        assert!(!wait_limit.is_over(progress(2), ended));
        assert_eq!(wait_limit.deadline(), ended + LIMIT);
        assert!(!wait_limit.is_over(progress(2), ended + LIMIT / 2));
        assert!(wait_limit.is_over(progress(2), ended + LIMIT));
    }

    #[test]
    fn a_wait_ends_when_a_body_is_closed() {
        let bodies = OpenBodies::new(1, Duration::from_secs(365 * 24 * 3600));
        let body = bodies.open().unwrap();
        assert!(bodies.open().is_err());
        let waits = std::thread::spawn({
            let bodies = Arc::clone(&bodies);
            move || bodies.await_room(&CancelToken::new(CancelReason::Peer), &mut None)
        });
        // Before or after the thread has begun to wait: it ends in either case.
        drop(body);
        waits.join().unwrap().unwrap();
        assert_eq!(bodies.room(), 1);
    }

    #[test]
    fn a_wait_for_bodies_that_nobody_reads_fails_and_the_next_one_at_once() {
        let bodies = OpenBodies::new(1, Duration::from_millis(1));
        let token = CancelToken::new(CancelReason::Peer);
        let mut stuck = None;
        let body = bodies.open().unwrap();
        let error = bodies.await_room(&token, &mut stuck).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooManyOpenBodies);
        assert_eq!(stuck, Some(progress(0)));
        // With a limit of a year, but for that.
        let patient = OpenBodies::new(1, Duration::from_secs(365 * 24 * 3600));
        let _held = patient.open().unwrap();
        assert!(patient.await_room(&token, &mut stuck).is_err());
        drop(body);
        bodies.await_room(&token, &mut stuck).unwrap();
        token.cancel();
        assert!(patient.await_room(&token, &mut None).unwrap_err().is_cancelled());
    }
}
