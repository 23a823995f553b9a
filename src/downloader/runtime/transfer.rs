//! A body on its way into its sink, a chunk a step; and where it lies while its reader takes the steps himself.
//!
//! A body that comes as fast as it can be read costs more in hand-overs than in bytes: for each chunk the worker wakes the
//! reader, on another core. So where a reader waits for the very bytes that a worker brings, and brings without having to
//! wait for long, the worker leaves the body at a [`Handoff`] and sleeps. The reader goes on with it whenever storage has
//! nothing for him. The worker has it back as soon as a moment passes without a byte, the body ends or fails, or its reader
//! has other things to do.
//!
//! ```text
//!         ┌── step, blocking ◀──┐
//!  worker ┤                     ├── back: dry, whole, failed, cancelled, its reader busy elsewhere
//!         └─▶ Berth::leave ─────┘
//!                  │  ▲
//!                  ▼  │
//!   reader: Berth::drive: step, brief
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

/// A reader who comes back later than this has other things to do than to read: a worker had better run ahead of him.
const BUSY_ELSEWHERE: Duration = Duration::from_micros(200);

/// So long a worker waits for a reader who does not come back at all.
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

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Some bytes came.
    Moved,
    /// Nothing came to a brief read.
    WouldBlock,
    /// Some bytes came, and the body is to make room for urgent work.
    Preempt,
    /// The body has ended.
    Eof,
}

/// Who takes a step, and so how long it may block.
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
            // Sent once more: by a server without ranges, or to hold the joint against.
            0 => return Ok(Step::Moved),
            BLOCK => sink.write_block(offset, &mut self.chunk)?,
            _ => sink.write(offset, new)?,
        }
        self.job.record.received += new_bytes as u64;
        if self.job.handoff.is_some() {
            // Our own storage took it: that is no holding back, as a sink of somebody else's may do.
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

    /// A worker's step; blocks for as long as the body is left to its reader, if it is.
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

/// Where bodies lie while their reader goes on with them. One for all fetches of a file.
pub(crate) struct Handoff {
    state: Mutex<State>,
    /// Where the workers wait that have left a body. Notified by the reader that gives one back, and by its cancellation.
    changed: Condvar,
    /// Lets readers that wait look here again.
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Where a reader found nothing to go on with, unless a body was left for him since.
    urgent: Option<u64>,
    /// Each with a worker that waits for it.
    offered: Slab<Offered>,
}

struct Offered {
    /// Where the body ends, if known.
    end: Option<u64>,
    holder: Holder,
}

enum Holder {
    /// Here, and a reader was at it last at that time.
    Here(Box<Transfer>, Instant),
    /// A reader is taking a step.
    Taken,
    /// To be taken back by its worker, with what the last step came to.
    Back(Box<Transfer>, Result<Step, Error>),
}

impl Handoff {
    /// `wake` is called after a body was left, with no lock held: its reader may be waiting.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), wake: Box::new(wake) }
    }

    /// True if a body lies here whose next byte is the one at `position`.
    pub(crate) fn has(&self, position: u64) -> bool {
        let is_at = |offered: &Offered| matches!(&offered.holder, Holder::Here(transfer, _) if transfer.is_at(position));
        self.state.lock().offered.iter().any(|(_, offered)| is_at(offered))
    }

    /// Takes a step with the body that lies here and whose next byte is the one at `position`. Blocks for a moment at most.
    /// True if bytes came; else the reader had better wait for somebody else to bring them.
    pub(crate) fn drive(&self, position: u64) -> bool {
        let Some((key, mut transfer, since)) = self.take(position) else { return false };
        let is_busy = since.elapsed() > BUSY_ELSEWHERE;
        // Or its worker would wait for it forever.
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

    /// Leaves a body, which has just come on from `at`, to a reader that waits for it or reads the one before it. Blocks
    /// until it comes back; that is at once if there is no such reader.
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
                // Under the lock, so that the worker is not between its look and its wait.
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
                    // Not told of the step's end if the body stays here: looks again when it might be left alone.
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
