//! Does what is due at a time while no request comes: closes old idle connections, and starts dials that waited for slow ones.
//!
//! One thread sleeps until the next deadline of [idle](super::idle), and ends when there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::{ConnectionPool, PoolState};
use crate::foreign::contain;
use crate::thread;

/// Time after which the deadline thread ends if there is no deadline. Starting a thread costs about as much as ten small
/// requests.
const LINGER: Duration = Duration::from_secs(5);

impl ConnectionPool {
    /// Makes a thread wake at the next deadline.
    pub(super) fn keep_deadlines(self: &Arc<Self>, state: &mut PoolState) {
        let Some(at) = state.idle.next_deadline(Instant::now()).filter(|_| !state.closed) else {
            return;
        };
        match state.wakes_at {
            // It wakes before that, and then looks for the next deadline itself.
            Some(wakes_at) if wakes_at <= at => {}
            Some(_) => {
                self.deadline.notify_all();
            }
            None => {
                let pool = Arc::clone(self);
                match thread::start("idle", move || pool.run_deadlines()) {
                    Ok(_waited_for_by_close) => state.wakes_at = Some(at),
                    // Old connections are then closed at the next use of their origin.
                    Err(error) => log::warn!("can't start a thread to close idle connections: {error}"),
                }
            }
        }
    }

    /// Main function of the deadline thread: closes old idle connections and starts dials that waited for slow ones, until
    /// there are no deadlines.
    fn run_deadlines(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let mut had_none = false;
        while !state.closed {
            let old = state.idle.expire(Instant::now());
            // Without the lock: a close may block, and `refill` takes the lock.
            MutexGuard::unlocked(&mut state, || {
                // A panic must not end this thread: `await_closed` waits until `wakes_at` is `None`.
                let _ = contain("closing idle connections", || drop(old));
                self.refill();
            });
            let now = Instant::now();
            let next = state.idle.next_deadline(now);
            if state.closed || (next.is_none() && had_none) {
                break;
            }
            had_none = next.is_none();
            // Wait a while without a deadline: often the only connection serves a request now and is idle again in a moment.
            let at = next.unwrap_or(now + LINGER);
            state.wakes_at = Some(at);
            self.deadline.wait_until(&mut state, at);
        }
        state.wakes_at = None;
        self.ended.notify_all();
    }
}
