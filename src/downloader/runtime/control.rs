//! A running fetch as other threads see it: its priority, its progress, and how to abort its attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::preemption::Turn;
use crate::cancel::CancelToken;
use crate::client::Urgency;
use crate::downloader::rules::Measured;
use crate::downloader::stats::PeerStats;
use crate::event::Event;
use crate::types::{Priority, RequestId};

/// What other threads see of a running fetch, and may do to it.
pub(crate) struct Control {
    pub(crate) request: RequestId,
    /// Statistics of its peer, and of all peers.
    pub(super) all_stats: [Arc<PeerStats>; 2],
    pub(super) measured: Measured,
    state: Mutex<ControlState>,
    /// Bytes of the body so far, and steps before them. Grows whenever the fetch progresses.
    progress: AtomicU64,
}

struct ControlState {
    /// Its priority, and whether its turn is protected. The schedule decides both.
    turn: Turn,
    /// Cancels the running attempt.
    attempt: Option<CancelToken>,
    /// The attempt was aborted in this turn.
    aborted: bool,
    /// The watchdog ended the fetch in this turn.
    stalled: bool,
    /// The last time at which it progressed.
    moved: Instant,
    /// `max_bandwidth` holds its next read back, so it can't progress.
    is_paced: bool,
    /// It was on a worker before.
    started: bool,
    /// Its end is published, or is about to be.
    ended: bool,
}

impl Control {
    /// The control of a fetch that is accepted at `now`.
    pub(crate) fn new(
        request: RequestId,
        priority: Priority,
        measured: Measured,
        all_stats: [Arc<PeerStats>; 2],
        now: Instant,
    ) -> Self {
        let state = ControlState {
            turn: Turn::new(priority),
            attempt: None,
            aborted: false,
            stalled: false,
            moved: now,
            is_paced: false,
            started: false,
            ended: false,
        };
        Self { request, all_stats, measured, state: Mutex::new(state), progress: AtomicU64::new(0) }
    }

    /// A turn on a worker begins.
    pub(crate) fn begin(&self, protected: bool, now: Instant) {
        let mut state = self.state.lock();
        state.aborted = false;
        state.stalled = false;
        state.turn.begin(protected, self.progress.load(Ordering::Relaxed), now);
        state.moved = now;
    }

    pub(super) fn priority(&self) -> Priority {
        self.state.lock().turn.priority()
    }

    pub(crate) fn set_priority(&self, priority: Priority) {
        self.state.lock().turn.set_priority(priority);
    }

    /// Records that it is on a worker. True the first time.
    pub(crate) fn mark_started(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().started, true)
    }

    /// Records the end. Returns the token of the last attempt, for the caller to drop. `None` if it has ended before.
    pub(super) fn end(&self) -> Option<Option<CancelToken>> {
        let mut state = self.state.lock();
        let is_first = !std::mem::replace(&mut state.ended, true);
        is_first.then(|| state.attempt.take())
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// Publishes [`Event::Slow`], unless it has ended: no event may follow the end.
    pub(crate) fn report_slow(&self) {
        let event = Event::Slow { request: self.request };
        let state = self.state.lock();
        if state.ended {
            return;
        }
        // Under the lock: otherwise the end could be published in between.
        let lost = self.all_stats.each_ref().map(|stats| stats.bus.push(&event));
        drop(state);
        drop(lost);
    }

    /// True if its events have a subscriber, or may be logged.
    pub(super) fn is_observed(&self) -> bool {
        log::max_level() > log::LevelFilter::Off
            || self.all_stats.iter().any(|stats| stats.bus.has_subscribers())
    }

    /// Publishes an event of the fetch, and logs it.
    pub(crate) fn publish(&self, event: &Event) {
        if let Some(level) = event.log_level() {
            log::log!(level, "{event}");
        }
        self.all_stats.iter().for_each(|stats| stats.publish(event));
    }

    /// The last time at which it progressed, or was not expected to.
    pub(crate) fn moved(&self) -> Instant {
        let state = self.state.lock();
        if state.is_paced { Instant::now() } else { state.moved }
    }

    /// Records whether `max_bandwidth` holds its next read back.
    pub(crate) fn set_paced(&self, is_paced: bool, now: Instant) {
        let mut state = self.state.lock();
        // The time that it was held back for is not time without progress.
        (state.is_paced, state.moved) = (is_paced, now);
    }

    /// Closes the connection of the running attempt. The fetch continues from its offset later.
    pub(crate) fn abort(&self) {
        let attempt = {
            let mut state = self.state.lock();
            state.aborted = true;
            state.attempt.take()
        };
        // Outside the lock: the hooks of the token may be user code.
        if let Some(attempt) = attempt {
            attempt.cancel();
        }
    }

    /// Publishes that it is stalled, and ends it if `ends`. Returns false and does nothing if it has ended, is held back by
    /// `max_bandwidth`, or has progressed or left its worker since `seen`.
    pub(crate) fn report_stall(&self, seen: Instant, hang: &Event, ends: bool) -> bool {
        let attempt = {
            let mut state = self.state.lock();
            // Compared, not measured again: the time of the last progress names the stall that was observed.
            if state.ended || state.is_paced || state.moved != seen {
                return false;
            }
            // Under the lock: otherwise the end could be published first, and no event may follow it.
            self.publish(hang);
            state.stalled = ends;
            if ends { state.attempt.take() } else { None }
        };
        if let Some(attempt) = attempt {
            attempt.cancel();
        }
        true
    }

    /// Its id, its priority and how long it has been silent.
    pub(crate) fn describe(&self, now: Instant) -> String {
        let state = self.state.lock();
        let silence = now.saturating_duration_since(state.moved);
        format!("{} ({:?}, silent for {silence:?})", self.request, state.turn.priority())
    }

    /// True if the watchdog ended it in this turn.
    pub(super) fn was_stalled(&self) -> bool {
        self.state.lock().stalled
    }

    /// Makes `attempt` the one that an abort cancels. If the turn was aborted before, cancels it now.
    pub(super) fn arm(&self, attempt: &CancelToken) {
        // An abort that came before this attempt had a token found nothing to cancel.
        let is_late = {
            let mut state = self.state.lock();
            state.attempt = Some(attempt.clone());
            state.aborted || state.stalled
        };
        if is_late {
            attempt.cancel();
        }
    }

    /// Records that the fetch holds no worker any more. Neither an abort nor the watchdog can end it.
    pub(super) fn disarm(&self) {
        let mut state = self.state.lock();
        state.attempt = None;
        // As in `leave`: the watchdog may have seen it on its worker just now.
        state.moved = Instant::now();
    }

    /// Records that the fetch leaves its worker, to continue later.
    pub(super) fn leave(&self) {
        // The watchdog may have seen it on its worker just now: a new time shows that it has left.
        self.state.lock().moved = Instant::now();
    }

    /// Records that it has progressed, by this many bytes or other steps.
    pub(crate) fn advance_by(&self, steps: u64, now: Instant) {
        // Relaxed: a reader of `progress` that sees it late takes a turn for one chunk shorter than it was.
        self.progress.fetch_add(steps, Ordering::Relaxed);
        self.state.lock().moved = now;
    }

    /// True if urgent work may preempt it.
    pub(crate) fn is_preemptible(&self) -> bool {
        self.state.lock().turn.is_preemptible(self.progress.load(Ordering::Relaxed), Instant::now())
    }

    /// True if it got as many bytes in this turn as a protected turn may have.
    pub(crate) fn had_share(&self) -> bool {
        self.state.lock().turn.had_share(self.progress.load(Ordering::Relaxed))
    }
}

impl Urgency for Control {
    fn is_urgent(&self) -> bool {
        self.priority() == Priority::High
    }
}
