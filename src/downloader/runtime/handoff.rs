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

use crate::cancel::CancelToken;
use crate::error::Error;
use crate::foreign::contain;

/// A reader that comes back later than this is busy elsewhere, and a worker fetches ahead of it. Several times as long as a reader
/// needs to copy out a chunk, and less than it needs to decode one.
const BUSY_ELSEWHERE: Duration = Duration::from_micros(200);

/// How long a worker waits for a reader that does not come back at all. Longer than a blocked thread needs to wake on a busy
/// machine, and too short to be heard as a gap.
const UNCLAIMED: Duration = Duration::from_millis(5);

/// A body on its way, as its reader drives it. So the hand-off, which every fetch may name, knows nothing of jobs and workers.
pub(crate) trait Drive: Send {
    /// Reads for a brief time at most, and stores what arrived. It may receive into `own`, the reader's buffer.
    fn step_briefly(&mut self, own: &mut [u8]) -> Result<Step, Error>;

    /// Which bytes of the resource the body has.
    fn extent(&self) -> Extent;

    /// False if a read may block for longer than briefly.
    fn can_be_brief(&self) -> bool;

    /// Ends the wait of the worker that has offered it.
    fn token(&self) -> Option<&CancelToken>;
}

/// Which bytes of the resource a body has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Position of its first byte.
    pub(crate) start: u64,
    /// Position of the next byte.
    pub(crate) position: u64,
    /// One past the last byte, if known.
    pub(crate) end: Option<u64>,
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Some bytes arrived.
    Moved,
    /// This number of bytes arrived. They lie at the start of the reader's buffer, besides in the sink.
    Received(usize),
    /// No byte arrived during a brief read.
    WouldBlock,
    /// Some bytes arrived, and the transfer must give its worker to urgent work.
    Preempt,
    /// The body has ended.
    Eof,
}

/// The outcome of a reader's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driven {
    /// No byte arrived, or nothing is offered: the reader should block until a worker brings the bytes.
    Nothing,
    /// Some bytes arrived. They are stored, as far as storage keeps them.
    Stored,
    /// As `Stored`, and this number of bytes, those from the position on, lie at the start of the reader's buffer.
    Received(usize),
}

/// An offered transfer. The worker that offers it knows its type, and takes it out again.
type Slot<T> = Arc<Mutex<Option<Box<T>>>>;

/// A [`Slot`] as the reader sees it.
trait Offer: Send + Sync {
    /// Takes a step. Returns what came of it, and where the transfer stays if another step may follow.
    fn step(&self, own: &mut [u8]) -> (Result<Step, Error>, Option<u64>);
}

impl<T: Drive> Offer for Mutex<Option<Box<T>>> {
    fn step(&self, own: &mut [u8]) -> (Result<Step, Error>, Option<u64>) {
        let mut slot = self.lock();
        // The worker takes it out only when no reader is at it.
        let Some(transfer) = &mut *slot else { return (Ok(Step::WouldBlock), None) };
        // A panic must not pass: the worker would wait for the transfer forever.
        let step = contain("a reader's step", || transfer.step_briefly(own))
            .unwrap_or_else(|panic| Err(panic.into()));
        let is_to_stay = matches!(step, Ok(Step::Moved | Step::Received(_))) && transfer.can_be_brief();
        (step, is_to_stay.then(|| transfer.extent().position))
    }
}

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
    /// Position at which a reader found no offer and is about to block, unless an offer was made since.
    missed: Option<u64>,
    /// The offers. A worker waits for each.
    offered: Slab<Offered>,
}

struct Offered {
    transfer: Arc<dyn Offer>,
    /// One past the last byte of the body, if known.
    end: Option<u64>,
    holder: Holder,
}

enum Holder {
    /// No thread drives it. Its next byte is the one at `position`; the last step ended at `since`.
    Here { position: u64, since: Instant },
    /// A reader is taking a step.
    Taken,
    /// To be taken back by its worker, with the outcome of the last step.
    Back(Result<Step, Error>),
}

impl Handoff {
    /// `wake` is called after each offer, without a lock: the reader may be blocked.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), wake: Box::new(wake) }
    }

    /// True if a transfer is offered whose next byte is the one at `position`.
    pub(crate) fn has(&self, position: u64) -> bool {
        self.state.lock().offered.iter().any(|(_, offered)| offered.is_at(position))
    }

    /// Takes a step with the offered transfer whose next byte is the one at `position`. Blocks for a brief read at most.
    /// `own` is the reader's buffer, or empty. A large one may receive the bytes, see [`Driven::Received`].
    pub(crate) fn drive(&self, position: u64, own: &mut [u8]) -> Driven {
        let Some((key, transfer, since)) = self.take(position) else { return Driven::Nothing };
        // Before the step, whose own time shows nothing of the reader.
        let is_busy = since.elapsed() > BUSY_ELSEWHERE;
        let (step, next) = transfer.step(own);
        let driven = match step {
            Ok(Step::Received(bytes)) => Driven::Received(bytes),
            Ok(Step::Moved | Step::Preempt) => Driven::Stored,
            Ok(Step::WouldBlock | Step::Eof) | Err(_) => Driven::Nothing,
        };
        let mut state = self.state.lock();
        state.offered[key].holder = match next.filter(|_| !is_busy) {
            Some(position) => Holder::Here { position, since: Instant::now() },
            None => {
                // All: the worker of each offer waits for this condvar.
                self.changed.notify_all();
                Holder::Back(step)
            }
        };
        driven
    }

    fn take(&self, position: u64) -> Option<(usize, Arc<dyn Offer>, Instant)> {
        let mut state = self.state.lock();
        for (key, offered) in &mut state.offered {
            match offered.holder {
                Holder::Here { position: at, since } if at == position => {
                    offered.holder = Holder::Taken;
                    return Some((key, Arc::clone(&offered.transfer), since));
                }
                _ => {}
            }
        }
        state.missed = Some(position);
        None
    }

    /// Offers a transfer that has just advanced from `at` to a reader that waits for its bytes or drives the transfer before
    /// it. Blocks until the transfer comes back. Returns at once if there is no such reader.
    pub(super) fn offer<T: Drive + 'static>(
        self: Arc<Self>,
        transfer: Box<T>,
        at: u64,
    ) -> (Box<T>, Result<Step, Error>) {
        let Extent { start, position, end } = transfer.extent();
        let mut state = self.state.lock();
        // A reader that drives the piece before this one needs this one next, so it finds the offer without blocking in
        // between.
        let is_next = state.offered.iter().any(|(_, offered)| offered.end == Some(start));
        // The reader missed bytes that this step has brought, or that the next one brings.
        if state.missed.is_some_and(|missed| at <= missed && missed <= position) {
            state.missed = None;
        } else if !is_next {
            return (transfer, Ok(Step::Moved));
        }
        let token = transfer.token().cloned();
        let slot: Slot<T> = Arc::new(Mutex::new(Some(transfer)));
        let holder = Holder::Here { position, since: Instant::now() };
        let key = state.offered.insert(Offered { transfer: Arc::clone(&slot) as _, end, holder });
        // The reader that is woken takes this lock to look for the offer.
        drop(state);
        (self.wake)();
        let _on_cancel = token.as_ref().map(|token| {
            let handoff = Arc::clone(&self);
            token.wake_on_cancel(move || {
                // Under the lock: a worker between its check and its wait would miss the notification.
                let _state = handoff.state.lock();
                handoff.changed.notify_all() > 0
            })
        });
        let step = self.wait_for(key, || token.as_ref().is_some_and(CancelToken::is_cancelled));
        let transfer = slot.lock().take();
        (transfer.unwrap_or_else(|| unreachable!("only this call takes it out")), step)
    }

    /// Blocks until the offer is over. Returns the outcome of the last step.
    fn wait_for(&self, key: usize, is_cancelled: impl Fn() -> bool) -> Result<Step, Error> {
        let mut state = self.state.lock();
        loop {
            let deadline = match &state.offered[key].holder {
                Holder::Here { since, .. } if is_cancelled() || since.elapsed() >= UNCLAIMED => break,
                Holder::Here { since, .. } => *since + UNCLAIMED,
                // A step that leaves the transfer here notifies no thread, so check again when the offer may be unclaimed.
                Holder::Taken => Instant::now() + UNCLAIMED,
                Holder::Back(_) => break,
            };
            self.changed.wait_until(&mut state, deadline);
        }
        match state.offered.remove(key).holder {
            Holder::Back(step) => step,
            Holder::Here { .. } | Holder::Taken => Ok(Step::Moved),
        }
    }
}

impl Offered {
    /// True if no thread drives it, and its next byte is the one at `position`.
    fn is_at(&self, position: u64) -> bool {
        matches!(self.holder, Holder::Here { position: at, .. } if at == position)
    }
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::CancelReason;
    use crate::error::ErrorKind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Has moved from byte 0 to byte 10, and ends at its next step, in this way.
    struct Body {
        next: fn() -> Result<Step, Error>,
        token: CancelToken,
    }

    impl Drive for Body {
        fn step_briefly(&mut self, _: &mut [u8]) -> Result<Step, Error> {
            (self.next)()
        }

        fn extent(&self) -> Extent {
            Extent { start: 0, position: 10, end: None }
        }

        fn can_be_brief(&self) -> bool {
            true
        }

        fn token(&self) -> Option<&CancelToken> {
            Some(&self.token)
        }
    }

    /// A step of the reader that waits for byte 10.
    fn drive_on(handoff: &Handoff) -> Driven {
        handoff.drive(10, &mut [])
    }

    /// What a worker gets back that offers such a body, and how often the reader was woken. A reader that `misses` byte 10 is about to
    /// block, and calls `drive` when it is woken.
    fn offered(
        misses: bool,
        next: fn() -> Result<Step, Error>,
        drive: impl Fn(&Handoff, &CancelToken) + Send + Sync + 'static,
    ) -> (Result<Step, Error>, usize) {
        let (token, woken) = (CancelToken::new(CancelReason::Fetch), Arc::new(AtomicUsize::new(0)));
        let handoff = Arc::new_cyclic(|handoff: &std::sync::Weak<Handoff>| {
            let (handoff, token, woken) = (handoff.clone(), token.clone(), Arc::clone(&woken));
            Handoff::new(move || {
                woken.fetch_add(1, Ordering::Relaxed);
                drive(&handoff.upgrade().unwrap(), &token);
            })
        });
        assert!(!misses || drive_on(&handoff) == Driven::Nothing, "nothing was offered yet");
        let (_, step) = Arc::clone(&handoff).offer(Box::new(Body { next, token }), 0);
        assert!(!handoff.has(10), "the offer is over");
        (step, woken.load(Ordering::Relaxed))
    }

    #[test]
    fn without_a_reader_that_waits_the_worker_goes_on() {
        let (step, woken) = offered(false, || Ok(Step::Eof), |_, _| ());
        assert!(matches!((step, woken), (Ok(Step::Moved), 0)));
    }

    #[test]
    fn what_ends_a_readers_step_is_returned_to_the_worker() {
        let drive = |handoff: &Handoff, _: &CancelToken| {
            assert!(handoff.has(10) && drive_on(handoff) == Driven::Nothing)
        };
        assert!(matches!(offered(true, || Ok(Step::Eof), drive), (Ok(Step::Eof), 1)));
        assert!(matches!(offered(true, || Ok(Step::WouldBlock), drive), (Ok(Step::WouldBlock), 1)));
        let (failed, _) =
            offered(true, || Err(Error::new(ErrorKind::Disconnected, "as the test wants")), drive);
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Disconnected);
    }

    #[test]
    fn bytes_in_the_readers_buffer_are_the_readers_to_count() {
        let drive = |handoff: &Handoff, token: &CancelToken| {
            assert_eq!(drive_on(handoff), Driven::Received(7));
            token.cancel();
        };
        assert!(offered(true, || Ok(Step::Received(7)), drive).0.is_ok());
    }

    #[test]
    fn a_step_that_panics_gives_the_transfer_back() {
        let drive = |handoff: &Handoff, _: &CancelToken| assert_eq!(drive_on(handoff), Driven::Nothing);
        let (step, _) = offered(true, || panic!("as the test wants"), drive);
        assert_eq!(step.unwrap_err().kind(), ErrorKind::Panicked);
    }

    #[test]
    fn a_cancelled_worker_takes_back_what_no_reader_drives() {
        let cancel = |_: &Handoff, token: &CancelToken| token.cancel();
        assert!(matches!(offered(true, || Ok(Step::Eof), cancel), (Ok(Step::Moved), 1)));
    }
}
