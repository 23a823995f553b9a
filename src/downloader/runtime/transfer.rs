//! The transfer of a body to its sink, one chunk a step; and the hand-off, by which the waiting reader drives it itself.
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

use super::core::Core;
use super::worker::{BodyMeter, Job, Target};
use crate::cancel::CancelToken;
use crate::client;
use crate::downloader::fetch::BLOCK;
use crate::error::Error;
use crate::foreign::contain;

/// A reader that comes back later than this is busy elsewhere: a worker then fetches ahead of it.
const BUSY_ELSEWHERE: Duration = Duration::from_micros(200);

/// How long a worker waits for a reader that does not come back at all.
const UNCLAIMED: Duration = Duration::from_millis(5);

/// A body on its way into its sink.
pub(crate) struct Transfer {
    pub(crate) core: Arc<Core>,
    pub(crate) job: Box<Job>,
    pub(crate) body: client::Response,
    pub(crate) meter: BodyMeter,
    /// As long as a block, or empty where a sink has kept it.
    pub(crate) chunk: Box<[u8]>,
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Some bytes arrived.
    Moved,
    /// No byte arrived during a brief read.
    WouldBlock,
    /// Some bytes arrived, and the transfer must give its worker to urgent work.
    Preempt,
    /// The body has ended.
    Eof,
}

/// Which thread takes a step, which decides how long the step may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// For the silence limit at most.
    Worker,
    /// For a moment.
    Reader,
}

impl Transfer {
    /// Reads once, and writes what came to the sink.
    fn step(&mut self, by: By) -> Result<Step, Error> {
        let Target::Sink(sink) = &mut self.job.target else { return Ok(Step::Eof) };
        if self.job.retry_state.is_complete() {
            return Ok(Step::Eof);
        }
        if self.chunk.len() != BLOCK {
            self.chunk = vec![0; BLOCK].into_boxed_slice();
        }
        let at = self.body.position();
        // Up to where a block ends, so that the next one may come whole.
        let most = BLOCK - (at % BLOCK as u64) as usize;
        let buf = &mut self.chunk[..most];
        let read = match by {
            By::Worker => self.body.read_chunk(buf).map(Some),
            By::Reader => self.body.read_briefly(buf),
        };
        // Of a read that came to nothing, too: it has waited.
        self.meter.advance(&mut self.body, read.as_ref().map_or(0, |got| got.unwrap_or(0)));
        let got = match read {
            Ok(Some(got)) => got,
            Ok(None) => return Ok(Step::WouldBlock),
            Err(error) => return self.go_on(error),
        };
        if got == 0 {
            self.job.retry_state.check_end(at)?;
            return Ok(Step::Eof);
        }
        self.job.control.advance_by(got as u64);
        let (offset, new) = self.job.retry_state.take(at, &self.chunk[..got])?;
        let new_bytes = new.len();
        match new_bytes {
            // Sent once more: by a server without ranges, or for the overlap check.
            0 => return Ok(Step::Moved),
            BLOCK => sink.write_block(offset, &mut self.chunk)?,
            _ => sink.write(offset, new)?,
        }
        self.job.record.received += new_bytes as u64;
        if self.job.handoff.is_some() {
            // Our own storage took it: only a user's sink can hold a body back.
            self.body.note_stored();
        }
        let must_preempt = self.core.must_preempt() && self.job.control.is_preemptible();
        Ok(if must_preempt { Step::Preempt } else { Step::Moved })
    }

    /// Goes on with the body that was requested beside this one while it was silent, if that is why it failed.
    fn go_on(&mut self, error: Error) -> Result<Step, Error> {
        let Some(mut body) = self.body.take_winner() else { return Err(error) };
        let Job { retry_state, control, target, .. } = &mut *self.job;
        if let Target::Sink(sink) = target {
            // As after a break. It has the bytes before these, and can't ask for the body now.
            sink.head(body.head())?;
        }
        retry_state.go_on(&self.core, &mut body, control)?;
        control.advance_by(1);
        self.body = body;
        Ok(Step::Moved)
    }

    /// True if its next byte is the one at `position`.
    fn is_at(&self, position: u64) -> bool {
        self.body.position() == position
    }

    /// A worker's step. Blocks while the reader drives the transfer, if it is offered.
    pub(crate) fn step_or_offer(mut self: Box<Self>) -> (Box<Self>, Result<Step, Error>) {
        let (at, began) = (self.body.position(), Instant::now());
        let step = self.step(By::Worker);
        let is_prompt = began.elapsed() < client::BRIEF && self.body.can_be_brief();
        match (&step, self.job.handoff.clone()) {
            (Ok(Step::Moved), Some(handoff)) if is_prompt => handoff.offer(self, at),
            _ => (self, step),
        }
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
    fn offer(self: Arc<Self>, transfer: Box<Transfer>, at: u64) -> (Box<Transfer>, Result<Step, Error>) {
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
                    // A step that leaves the transfer here notifies nobody, so check again when the offer may be unclaimed.
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
