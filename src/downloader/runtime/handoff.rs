//! The hand-off: the reader that waits for the bytes of a transfer takes its steps, in place of the worker.
//!
//! On a fast connection the thread switches cost more than the bytes: for each chunk the worker wakes the reader on another
//! core. So if a reader waits for the bytes that a worker brings, and they arrive at once, the worker offers the transfer at
//! the [`Handoff`] and sleeps. The reader drives it whenever storage has no byte for it. The worker takes the transfer back
//! when a read would block, when the body ends or fails, and when the reader is busy elsewhere.
//!
//! ```text
//!         ┌── step, blocking ◀──┐
//!  worker ┤                     ├── back: would block, end, error, cancelled, reader busy elsewhere
//!         └─▶ Handoff::offer ───┘
//!                  │  ▲
//!                  ▼  │
//!   reader: Handoff::drive: step, brief
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use slab::Slab;

use super::transfer::{By, Step, Transfer};
use crate::cancel::CancelToken;
use crate::error::Error;
use crate::foreign::contain;

/// A reader that comes back later than this is busy elsewhere: a worker then fetches ahead of it.
const BUSY_ELSEWHERE: Duration = Duration::from_micros(200);

/// How long a worker waits for a reader that does not come back at all.
const UNCLAIMED: Duration = Duration::from_millis(5);

/// Transfers offered to the readers of a file. One for all fetches of the file.
pub(crate) struct Handoff {
    state: Mutex<State>,
    /// Workers that have offered a transfer wait here. Notified by the reader that gives one back, and by its cancellation.
    changed: Condvar,
    /// Wakes blocked readers, so that they look for an offer.
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Position at which a reader found no offer, unless one was made since.
    urgent: Option<u64>,
    /// The offers. A worker waits for each.
    offered: Slab<Offered>,
}

struct Offered {
    /// One past the last byte of the body, if known.
    end: Option<u64>,
    holder: Holder,
}

enum Holder {
    /// No thread drives it; the time is that of the last step.
    Here(Box<Transfer>, Instant),
    /// A reader is taking a step.
    Taken,
    /// To be taken back by its worker, with the outcome of the last step.
    Back(Box<Transfer>, Result<Step, Error>),
}

impl Handoff {
    /// `wake` is called after each offer, without a lock: the reader may be blocked.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), wake: Box::new(wake) }
    }

    /// True if a transfer is offered whose next byte is the one at `position`.
    pub(crate) fn has(&self, position: u64) -> bool {
        let is_at = |offered: &Offered| matches!(&offered.holder, Holder::Here(transfer, _) if transfer.is_at(position));
        self.state.lock().offered.iter().any(|(_, offered)| is_at(offered))
    }

    /// Takes a step with the offered transfer whose next byte is the one at `position`. Blocks for a brief read at most. True
    /// if bytes arrived; otherwise the reader should block until a worker brings them.
    pub(crate) fn drive(&self, position: u64) -> bool {
        let Some((key, mut transfer, since)) = self.take(position) else { return false };
        let is_busy = since.elapsed() > BUSY_ELSEWHERE;
        // A panic must not pass: the worker would wait for the transfer forever.
        let step = contain("a reader's step", || transfer.step(By::Reader))
            .unwrap_or_else(|panic| Err(panic.into()));
        let is_to_stay = !is_busy && matches!(step, Ok(Step::Moved));
        let has_moved = matches!(step, Ok(Step::Moved | Step::Preempt));
        let mut state = self.state.lock();
        if is_to_stay && transfer.body.can_be_brief() {
            state.offered[key].holder = Holder::Here(transfer, Instant::now());
        } else {
            state.offered[key].holder = Holder::Back(transfer, step);
            self.changed.notify_all();
        }
        has_moved
    }

    fn take(&self, position: u64) -> Option<(usize, Box<Transfer>, Instant)> {
        let mut state = self.state.lock();
        for (key, offered) in &mut state.offered {
            match std::mem::replace(&mut offered.holder, Holder::Taken) {
                Holder::Here(transfer, since) if transfer.is_at(position) => {
                    return Some((key, transfer, since));
                }
                other => offered.holder = other,
            }
        }
        state.urgent = Some(position);
        None
    }

    /// Offers a transfer that has just advanced from `at` to a reader that waits for its bytes or drives the transfer before
    /// it. Blocks until the transfer comes back. Returns at once if there is no such reader.
    pub(super) fn offer(
        self: Arc<Self>,
        transfer: Box<Transfer>,
        at: u64,
    ) -> (Box<Transfer>, Result<Step, Error>) {
        let (start, position) = (transfer.body.head().start(), transfer.body.position());
        let mut state = self.state.lock();
        let is_next = state.offered.iter().any(|(_, offered)| offered.end == Some(start));
        if state.urgent.is_some_and(|urgent| at <= urgent && urgent <= position) {
            state.urgent = None;
        } else if !is_next {
            return (transfer, Ok(Step::Moved));
        }
        let (token, end) = (transfer.body.token().cloned(), transfer.body.end());
        let key = state.offered.insert(Offered { end, holder: Holder::Here(transfer, Instant::now()) });
        drop(state);
        (self.wake)();
        let _on_cancel = token.as_ref().map(|token| {
            let handoff = Arc::clone(&self);
            token.on_cancel(move |_| {
                // Under the lock: a worker between its check and its wait would miss the notification.
                let _state = handoff.state.lock();
                handoff.changed.notify_all();
            })
        });
        self.wait_for(key, || token.as_ref().is_some_and(CancelToken::is_cancelled))
    }

    fn wait_for(&self, key: usize, is_cancelled: impl Fn() -> bool) -> (Box<Transfer>, Result<Step, Error>) {
        let mut state = self.state.lock();
        loop {
            match std::mem::replace(&mut state.offered[key].holder, Holder::Taken) {
                Holder::Back(transfer, step) => {
                    state.offered.remove(key);
                    return (transfer, step);
                }
                Holder::Here(transfer, since) if is_cancelled() || since.elapsed() >= UNCLAIMED => {
                    state.offered.remove(key);
                    return (transfer, Ok(Step::Moved));
                }
                Holder::Here(transfer, since) => {
                    state.offered[key].holder = Holder::Here(transfer, since);
                    self.changed.wait_until(&mut state, since + UNCLAIMED);
                }
                Holder::Taken => {
                    // A step that leaves the transfer here notifies no thread, so check again when the offer may be unclaimed.
                    self.changed.wait_until(&mut state, Instant::now() + UNCLAIMED);
                }
            }
        }
    }
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff").finish_non_exhaustive()
    }
}
