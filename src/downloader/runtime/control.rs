//! A running fetch as other threads see it: its priority, its progress, and how its attempt is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::preemption::Turn;
use crate::cancel::CancelToken;
use crate::client::Urgency;
use crate::downloader::fetch::{Fetch, Measured};
use crate::downloader::stats::PeerStats;
use crate::event::Event;
use crate::types::{Priority, RequestId};

/// What others see of a running fetch, and may do to it.
pub(crate) struct Control {
    pub(crate) request: RequestId,
    /// Its peer's, and that of all.
    pub(super) all_stats: [Arc<PeerStats>; 2],
    pub(super) measured: Measured,
    state: Mutex<ControlState>,
    /// Bytes of body so far, and steps before them: grows with every sign of life.
    progress: AtomicU64,
}

struct ControlState {
    /// Its priority and its protection, as the schedule decided them.
    turn: Turn,
    /// Closes the running attempt.
    attempt: Option<CancelToken>,
    evicted: bool,
    /// The watchdog ended it.
    stalled: bool,
    moved: Instant,
    /// A worker has taken it up before.
    begun: bool,
    /// Its end was published, or is about to be.
    ended: bool,
}

impl Control {
    pub(crate) fn new(request: RequestId, fetch: &Fetch, all_stats: [Arc<PeerStats>; 2]) -> Self {
        let state = ControlState {
            turn: Turn::new(fetch.priority),
            attempt: None,
            evicted: false,
            stalled: false,
            moved: Instant::now(),
            begun: false,
            ended: false,
        };
        let (measured, state) = (fetch.measured, Mutex::new(state));
        Self { request, all_stats, measured, state, progress: AtomicU64::new(0) }
    }

    /// A worker takes the fetch up.
    pub(crate) fn begin(&self, protected: bool) {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.evicted = false;
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

    /// A worker takes it up. True if it is the first one to.
    pub(crate) fn take_up(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().begun, true)
    }

    /// Notes the end, and gives back what the last attempt could have been closed by. `None` if it has ended before.
    pub(super) fn end(&self) -> Option<Option<CancelToken>> {
        let mut state = self.state.lock();
        let is_first = !std::mem::replace(&mut state.ended, true);
        is_first.then(|| state.attempt.take())
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// Tells that it takes long, unless it has ended: nothing comes after an end.
    pub(crate) fn tell_slow(&self) {
        let event = Event::Slow { request: self.request };
        let state = self.state.lock();
        if state.ended {
            return;
        }
        let lost = self.all_stats.each_ref().map(|stats| stats.bus.push(&event));
        drop(state);
        drop(lost);
    }

    /// Publishes an event of the fetch, and logs it.
    pub(crate) fn publish(&self, event: &Event) {
        if let Some(level) = event.log_level() {
            log::log!(level, "{event}");
        }
        self.all_stats.iter().for_each(|stats| stats.publish(event));
    }

    /// When it gave its last sign of life.
    pub(crate) fn moved(&self) -> Instant {
        self.state.lock().moved
    }

    /// Closes the running attempt; the fetch goes on from its offset later.
    pub(crate) fn abort(&self) {
        let attempt = {
            let mut state = self.state.lock();
            state.evicted = true;
            state.attempt.take()
        };
        // Outside the lock: its hooks are foreign here.
        if let Some(attempt) = attempt {
            attempt.cancel();
        }
    }

    /// Publishes that it is stalled, and ends it for that if `ends`. False if it does not: it has ended, or moved or left its
    /// worker since it gave its last sign of life at `seen`.
    pub(crate) fn report_stall(&self, seen: Instant, hang: &Event, ends: bool) -> bool {
        let attempt = {
            let mut state = self.state.lock();
            if state.ended || state.moved != seen {
                return false;
            }
            // Under the lock: nothing comes after an end.
            self.publish(hang);
            state.stalled = ends;
            if ends { state.attempt.take() } else { None }
        };
        if let Some(attempt) = attempt {
            attempt.cancel();
        }
        true
    }

    /// Who it is and how it is getting on.
    pub(crate) fn describe(&self, now: Instant) -> String {
        let state = self.state.lock();
        let silence = now.saturating_duration_since(state.moved);
        format!("{} ({:?}, silent for {silence:?})", self.request, state.turn.priority())
    }

    pub(super) fn was_stalled(&self) -> bool {
        self.state.lock().stalled
    }

    /// Lets an abort close `attempt`. One that came before closes it now.
    pub(super) fn arm(&self, attempt: &CancelToken) {
        let is_late = {
            let mut state = self.state.lock();
            state.attempt = Some(attempt.clone());
            state.evicted || state.stalled
        };
        if is_late {
            attempt.cancel();
        }
    }

    /// Notes that the fetch holds no worker any more, and nobody ends it for standing still.
    pub(super) fn disarm(&self) {
        let mut state = self.state.lock();
        state.attempt = None;
        state.moved = Instant::now();
    }

    /// Notes that the fetch leaves its worker, to go on later.
    pub(super) fn leave(&self) {
        self.state.lock().moved = Instant::now();
    }

    pub(super) fn advance(&self) {
        self.advance_by(1);
    }

    pub(crate) fn advance_by(&self, steps: u64) {
        self.progress.fetch_add(steps, Ordering::Relaxed);
        self.state.lock().moved = Instant::now();
    }

    /// True if urgent work may interrupt it.
    pub(crate) fn is_preemptible(&self) -> bool {
        self.state.lock().turn.is_preemptible(self.progress.load(Ordering::Relaxed), Instant::now())
    }

    /// True if it had as many bytes in this turn as a protected one may have.
    pub(crate) fn had_share(&self) -> bool {
        self.state.lock().turn.had_share(self.progress.load(Ordering::Relaxed))
    }
}

impl Urgency for Control {
    fn is_urgent(&self) -> bool {
        self.priority() == Priority::High
    }
}
