//! A body on its way into its sink, a chunk a step; and where it lies while its reader takes the steps himself.
//!
//! A body that comes as fast as it can be read costs more in hand-overs than in bytes: for each chunk the worker wakes the
//! reader, on another core. So where a reader waits for the very bytes that a worker brings, and brings without having to
//! wait for long, the worker leaves the body at a [`Berth`] and sleeps. The reader goes on with it whenever storage has
//! nothing for him. The worker has it back as soon as a moment passes without a byte, the body ends or fails, or its reader
//! has other things to do.
//!
//! ```text
//!         ┌── step, blocking ◀──┐
//!  worker ┤                     ├── back: dry, whole, failed, cancelled, its reader busy elsewhere
//!         └─▶ Berth::leave ─────┘
//!                  │  ▲
//!                  ▼  │
//!   reader: Berth::read_on: step, brief
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use slab::Slab;

use super::core::Core;
use super::worker::{Job, Target, Transfer};
use crate::cancel::CancelToken;
use crate::client;
use crate::downloader::fetch::BLOCK;
use crate::error::Error;
use crate::foreign::contain;

/// A reader who comes back later than this has other things to do than to read: a worker had better run ahead of him.
const BUSY_ELSEWHERE: Duration = Duration::from_micros(200);

/// So long a worker waits for a reader who does not come back at all.
const LEFT_ALONE: Duration = Duration::from_millis(5);

/// A body on its way into its sink.
pub(crate) struct Passage {
    pub(crate) core: Arc<Core>,
    pub(crate) job: Box<Job>,
    pub(crate) body: client::Response,
    pub(crate) transfer: Transfer,
    /// As long as a block, or empty where a sink has kept it.
    pub(crate) chunk: Box<[u8]>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Some bytes came.
    Moved,
    /// Nothing came to a brief read.
    Dry,
    /// Some bytes came, and the body is to make room for awaited work.
    Pressed,
    /// The body has ended.
    Whole,
}

/// Who takes a step, and so how long it may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// For the silence limit at most.
    Worker,
    /// For a moment.
    Reader,
}

impl Passage {
    /// Reads once, and writes what came to the sink.
    fn step(&mut self, by: By) -> Result<Step, Error> {
        let Target::Sink(sink) = &mut self.job.target else { return Ok(Step::Whole) };
        if self.job.pursuit.is_complete() {
            return Ok(Step::Whole);
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
        self.transfer.advance(&mut self.body, read.as_ref().map_or(0, |got| got.unwrap_or(0)));
        let got = match read {
            Ok(Some(got)) => got,
            Ok(None) => return Ok(Step::Dry),
            Err(error) => return self.go_on(error),
        };
        if got == 0 {
            self.job.pursuit.check_end(at)?;
            return Ok(Step::Whole);
        }
        self.job.control.advance_by(got as u64);
        let (offset, new) = self.job.pursuit.take(at, &self.chunk[..got])?;
        let new_bytes = new.len();
        match new_bytes {
            // Sent once more: by a server without ranges, or to hold the joint against.
            0 => return Ok(Step::Moved),
            BLOCK => sink.write_block(offset, &mut self.chunk)?,
            _ => sink.write(offset, new)?,
        }
        self.job.record.received += new_bytes as u64;
        if self.job.berth.is_some() {
            // Our own storage took it: that is no holding back, as a sink of somebody else's may do.
            self.body.note_stored();
        }
        let is_pressed = self.core.is_pressed() && self.job.control.may_yield();
        Ok(if is_pressed { Step::Pressed } else { Step::Moved })
    }

    /// Goes on with the body that was requested beside this one while it was silent, if that is why it failed.
    fn go_on(&mut self, error: Error) -> Result<Step, Error> {
        let Some(mut body) = self.body.take_winner() else { return Err(error) };
        let Job { pursuit, control, target, .. } = &mut *self.job;
        if let Target::Sink(sink) = target {
            // As after a break. It has the bytes before these, and can't ask for the body now.
            sink.head(body.head())?;
        }
        pursuit.go_on(&self.core, &mut body, control)?;
        control.advance_by(1);
        self.body = body;
        Ok(Step::Moved)
    }

    /// True if its next byte is the one at `position`.
    fn is_at(&self, position: u64) -> bool {
        self.body.position() == position
    }

    /// A worker's step; blocks for as long as the body is left to its reader, if it is.
    pub(crate) fn step_or_leave(mut self: Box<Self>) -> (Box<Self>, Result<Step, Error>) {
        let (at, began) = (self.body.position(), Instant::now());
        let step = self.step(By::Worker);
        let is_prompt = began.elapsed() < client::BRIEF && self.body.can_be_brief();
        match (&step, self.job.berth.clone()) {
            (Ok(Step::Moved), Some(berth)) if is_prompt => berth.leave(self, at),
            _ => (self, step),
        }
    }
}

/// Where bodies lie while their reader goes on with them. One for all fetches of a file.
pub(crate) struct Berth {
    state: Mutex<State>,
    /// Where the workers wait that have left a body. Notified by the reader that gives one back, and by its cancellation.
    changed: Condvar,
    /// Lets readers that wait look here again.
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Where a reader found nothing to go on with, unless a body was left for him since.
    awaited: Option<u64>,
    /// Each with a worker that waits for it.
    left: Slab<Left>,
}

struct Left {
    /// Where the body ends, if known.
    end: Option<u64>,
    place: Place,
}

enum Place {
    /// Here, and a reader was at it last at that time.
    Here(Box<Passage>, Instant),
    /// A reader is taking a step.
    Taken,
    /// To be taken back by its worker, with what the last step came to.
    Back(Box<Passage>, Result<Step, Error>),
}

impl Berth {
    /// `wake` is called after a body was left, with no lock held: its reader may be waiting.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), wake: Box::new(wake) }
    }

    /// True if a body lies here whose next byte is the one at `position`.
    pub(crate) fn has(&self, position: u64) -> bool {
        let is_at = |left: &Left| matches!(&left.place, Place::Here(passage, _) if passage.is_at(position));
        self.state.lock().left.iter().any(|(_, left)| is_at(left))
    }

    /// Takes a step with the body that lies here and whose next byte is the one at `position`. Blocks for a moment at most.
    /// True if bytes came; else the reader had better wait for somebody else to bring them.
    pub(crate) fn read_on(&self, position: u64) -> bool {
        let Some((key, mut passage, since)) = self.take(position) else { return false };
        let is_busy = since.elapsed() > BUSY_ELSEWHERE;
        // Or its worker would wait for it forever.
        let step =
            contain("a reader's step", || passage.step(By::Reader)).unwrap_or_else(|panic| Err(panic.into()));
        let is_to_stay = !is_busy && matches!(step, Ok(Step::Moved));
        let has_moved = matches!(step, Ok(Step::Moved | Step::Pressed));
        let mut state = self.state.lock();
        if is_to_stay && passage.body.can_be_brief() {
            state.left[key].place = Place::Here(passage, Instant::now());
        } else {
            state.left[key].place = Place::Back(passage, step);
            self.changed.notify_all();
        }
        has_moved
    }

    fn take(&self, position: u64) -> Option<(usize, Box<Passage>, Instant)> {
        let mut state = self.state.lock();
        for (key, left) in &mut state.left {
            match std::mem::replace(&mut left.place, Place::Taken) {
                Place::Here(passage, since) if passage.is_at(position) => return Some((key, passage, since)),
                other => left.place = other,
            }
        }
        state.awaited = Some(position);
        None
    }

    /// Leaves a body, which has just come on from `at`, to a reader that waits for it or reads the one before it. Blocks
    /// until it comes back; that is at once if there is no such reader.
    fn leave(self: Arc<Self>, passage: Box<Passage>, at: u64) -> (Box<Passage>, Result<Step, Error>) {
        let (start, position) = (passage.body.head().start(), passage.body.position());
        let mut state = self.state.lock();
        let is_next = state.left.iter().any(|(_, left)| left.end == Some(start));
        if state.awaited.is_some_and(|awaited| at <= awaited && awaited <= position) {
            state.awaited = None;
        } else if !is_next {
            return (passage, Ok(Step::Moved));
        }
        let (token, end) = (passage.body.token().cloned(), passage.body.end());
        let key = state.left.insert(Left { end, place: Place::Here(passage, Instant::now()) });
        drop(state);
        (self.wake)();
        let _on_cancel = token.as_ref().map(|token| {
            let berth = Arc::clone(&self);
            token.on_cancel(move |_| {
                // Under the lock, so that the worker is not between its look and its wait.
                let _state = berth.state.lock();
                berth.changed.notify_all();
            })
        });
        self.wait_for(key, || token.as_ref().is_some_and(CancelToken::is_cancelled))
    }

    fn wait_for(&self, key: usize, is_cancelled: impl Fn() -> bool) -> (Box<Passage>, Result<Step, Error>) {
        let mut state = self.state.lock();
        loop {
            match std::mem::replace(&mut state.left[key].place, Place::Taken) {
                Place::Back(passage, step) => {
                    state.left.remove(key);
                    return (passage, step);
                }
                Place::Here(passage, since) if is_cancelled() || since.elapsed() >= LEFT_ALONE => {
                    state.left.remove(key);
                    return (passage, Ok(Step::Moved));
                }
                Place::Here(passage, since) => {
                    state.left[key].place = Place::Here(passage, since);
                    self.changed.wait_until(&mut state, since + LEFT_ALONE);
                }
                Place::Taken => {
                    // Not told of the step's end if the body stays here: looks again when it might be left alone.
                    self.changed.wait_until(&mut state, Instant::now() + LEFT_ALONE);
                }
            }
        }
    }
}

impl fmt::Debug for Berth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Berth").finish_non_exhaustive()
    }
}
