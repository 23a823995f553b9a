//! Which thread has the duty of the watchdog: to report stalls, and to end jobs that are cancelled while they wait.
//!
//! Both call foreign code, which may block. Then another thread takes the duty over, so that one `finish` or `on_hang` that blocks
//! delays others by [`MAX_CALL`] only. The blocked thread ends when its call returns.
//!
//! ```text
//!  watchdog ── enter ── foreign call ────────────────── leave: relieved, ends
//!  scheduler       └── deadline ▶ starts a thread
//!  that one                          └─ take_over ── enter ── foreign call ── leave: still on duty
//! ```

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a foreign call of the watchdog may take before another thread takes over. Longer than a callback that writes a file
/// usually takes, and short beside `hang_timeout`.
const MAX_CALL: Duration = Duration::from_millis(50);

/// Threads that may be blocked at once, beside the one on duty. An application whose callbacks all wait for one lock must not get a
/// thread for each of them.
const MAX_BLOCKED: usize = 8;

/// A thread's time on duty. Each is given out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift(u64);

impl Shift {
    /// That of the first thread.
    pub(super) const FIRST: Self = Self(0);
}

/// The duty of the watchdog.
#[derive(Debug)]
pub(super) struct Duty(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The shift of the thread on duty.
    shift: Shift,
    /// Since when that thread is in a foreign call.
    since: Option<Instant>,
    /// A thread was started to take over from this call.
    is_relief_sent: bool,
    /// Threads whose shift is over and whose foreign call has not returned.
    blocked: usize,
}

impl Default for Duty {
    fn default() -> Self {
        Self(Mutex::new(State { shift: Shift::FIRST, since: None, is_relief_sent: false, blocked: 0 }))
    }
}

impl Duty {
    /// The thread on duty begins a foreign call at `now`. True if [`next_deadline`](Self::next_deadline) has changed.
    pub(super) fn enter(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        (state.since, state.is_relief_sent) = (Some(now), false);
        state.next_deadline().is_some()
    }

    /// A foreign call has returned, on the thread with this shift. False if another thread has the duty now.
    pub(super) fn leave(&self, shift: Shift) -> bool {
        let mut state = self.0.lock();
        if state.shift != shift {
            state.blocked -= 1;
            return false;
        }
        state.since = None;
        true
    }

    /// When to call [`poll_relief`](Self::poll_relief).
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.lock().next_deadline()
    }

    /// True if another thread has to be started, which [takes over](Self::take_over). True once for each call.
    pub(super) fn poll_relief(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        let is_due = state.next_deadline().is_some_and(|deadline| deadline <= now);
        state.is_relief_sent |= is_due;
        is_due
    }

    /// The thread that [`poll_relief`](Self::poll_relief) has asked for could not be started: it is asked for again if the call
    /// lasts.
    pub(super) fn handle_no_relief(&self, now: Instant) {
        let mut state = self.0.lock();
        if state.is_relief_sent && state.since.is_some() {
            (state.since, state.is_relief_sent) = (Some(now), false);
        }
    }

    /// The shift of a thread that was started to take over. `None` if the call has returned meanwhile.
    pub(super) fn take_over(&self) -> Option<Shift> {
        let mut state = self.0.lock();
        // Another call may have begun since, which gets a relief of its own if it takes too long.
        if !state.is_relief_sent || state.since.is_none() {
            return None;
        }
        state.shift = Shift(state.shift.0 + 1);
        state.blocked += 1;
        (state.since, state.is_relief_sent) = (None, false);
        Some(state.shift)
    }
}

impl State {
    fn next_deadline(&self) -> Option<Instant> {
        let may_relieve = !self.is_relief_sent && self.blocked < MAX_BLOCKED;
        self.since.filter(|_| may_relieve).map(|since| since + MAX_CALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_takes_too_long_is_relieved_once() {
        let (duty, now) = (Duty::default(), Instant::now());
        assert!(!duty.poll_relief(now) && duty.next_deadline().is_none());
        assert!(duty.enter(now));
        assert!(!duty.poll_relief(now + MAX_CALL / 2));
        assert!(duty.poll_relief(now + MAX_CALL) && !duty.poll_relief(now + MAX_CALL));
        let shift = duty.take_over().unwrap();
        assert!(duty.take_over().is_none());
        // The call returns on the thread that had the duty before, and the new one goes on.
        assert!(!duty.leave(Shift::FIRST));
        duty.enter(now);
        assert!(duty.leave(shift));
    }

    #[test]
    fn a_call_that_returns_before_the_relief_keeps_the_duty() {
        let (duty, now) = (Duty::default(), Instant::now());
        duty.enter(now);
        assert!(duty.poll_relief(now + MAX_CALL) && duty.leave(Shift::FIRST));
        assert!(duty.take_over().is_none());
        // Nor is the next call relieved by a thread that was started for the one before.
        duty.enter(now + MAX_CALL);
        assert!(duty.take_over().is_none() && duty.leave(Shift::FIRST));
    }

    #[test]
    fn a_relief_that_can_not_be_started_is_asked_for_again() {
        let (duty, now) = (Duty::default(), Instant::now());
        duty.enter(now);
        assert!(duty.poll_relief(now + MAX_CALL));
        duty.handle_no_relief(now + MAX_CALL);
        assert_eq!(duty.next_deadline(), Some(now + 2 * MAX_CALL));
        assert!(duty.poll_relief(now + 2 * MAX_CALL) && duty.take_over().is_some());
    }

    #[test]
    fn no_more_threads_are_started_than_may_be_blocked() {
        let (duty, now) = (Duty::default(), Instant::now());
        for _ in 0..MAX_BLOCKED {
            duty.enter(now);
            assert!(duty.poll_relief(now + MAX_CALL) && duty.take_over().is_some());
        }
        assert!(!duty.enter(now) && !duty.poll_relief(now + MAX_CALL));
        // One that returns lets another one take over.
        assert!(!duty.leave(Shift::FIRST));
        assert!(duty.poll_relief(now + MAX_CALL) && duty.take_over().is_some());
    }
}
