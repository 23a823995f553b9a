//! The transfer of a body to its sink, one chunk a step.

use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::handoff::{Drive, Extent, Step};
use super::job::{Job, Target};
use super::message::Message;
use super::record::BodyMeter;
use crate::buffer::{BUFFER, Buffer};
use crate::cancel::CancelToken;
use crate::client;
use crate::error::Error;
use crate::types::Priority;

/// A body on its way into its sink.
pub(crate) struct Transfer {
    pub(crate) core: Arc<Core>,
    pub(crate) job: Box<Job>,
    pub(crate) body: Box<client::Response>,
    pub(crate) meter: BodyMeter,
    /// As long as a block, or empty where a sink has kept it.
    pub(crate) chunk: Buffer,
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
    /// Reads once, and writes what arrived to the sink.
    fn step(&mut self, by: By) -> Result<Step, Error> {
        if self.job.retry_state.is_complete() {
            return Ok(Step::Eof);
        }
        let at = self.body.position();
        match self.read(at, by) {
            Ok(None) => Ok(Step::WouldBlock),
            Ok(Some(0)) => self.job.retry_state.check_end(at).map(|()| Step::Eof),
            Ok(Some(got)) => {
                self.store(at, got)?;
                Ok(self.next_step())
            }
            Err(error) => self.go_on(error),
        }
    }

    /// Reads into the chunk. `None` if a brief read brought nothing.
    fn read(&mut self, at: u64, by: By) -> Result<Option<usize>, Error> {
        if self.chunk.len() != BUFFER {
            self.chunk = Buffer::new();
        }
        // Up to where a block ends, so that the next one may come whole.
        let most = BUFFER - (at % BUFFER as u64) as usize;
        let buf = &mut self.chunk[..most];
        let read = match by {
            By::Worker => self.body.read_chunk(buf).map(Some),
            By::Reader => self.body.read_briefly(buf),
        };
        // Also of a read that failed or brought nothing: it has waited for the network.
        self.meter.advance(&mut self.body, read.as_ref().map_or(0, |got| got.unwrap_or(0)));
        read
    }

    /// Writes the first `got` bytes of the chunk, which arrived from `at` on, to the sink.
    fn store(&mut self, at: u64, got: usize) -> Result<(), Error> {
        let Job { target, retry_state, control, record, handoff, .. } = &mut *self.job;
        control.advance_by(got as u64, Instant::now());
        let Target::Sink(sink) = target else { unreachable!("the body for a caller is handed over") };
        let (offset, new) = retry_state.take(at, &self.chunk[..got])?;
        let new_bytes = new.len();
        match new_bytes {
            // Sent once more: by a server without ranges, or for the overlap check.
            0 => return Ok(()),
            BUFFER => sink.write_block(offset, &mut self.chunk)?,
            _ => sink.write(offset, new)?,
        }
        record.received += new_bytes as u64;
        if handoff.is_some() {
            // Our own storage took it: only a user's sink can hold a body back.
            self.body.note_stored();
        }
        Ok(())
    }

    /// Whether the transfer goes on after a chunk.
    fn next_step(&self) -> Step {
        if !self.core.preemptions.is_wanted() {
            return Step::Moved;
        }
        // A fetch that no reader waits for any more is no urgent work, and makes room for what is.
        self.demote_unless_demanded();
        if self.job.control.is_preemptible() { Step::Preempt } else { Step::Moved }
    }

    /// Goes on with the body that was requested beside this one while it was silent, if that is why it failed.
    fn go_on(&mut self, error: Error) -> Result<Step, Error> {
        let Some(mut body) = self.body.take_winner() else { return Err(error) };
        let Job { retry_state, control, target, .. } = &mut *self.job;
        if let Target::Sink(sink) = target {
            // As after a break. It has the bytes before these, and can't ask for the body now.
            sink.head(body.head())?;
        }
        retry_state.go_on(&mut body, control)?;
        control.advance_by(1, Instant::now());
        self.body = body;
        Ok(Step::Moved)
    }

    /// Makes an urgent fetch a prefetch if no reader waits for it any more. True if it is a prefetch, or is about to be.
    pub(super) fn demote_unless_demanded(&self) -> bool {
        if self.job.control.priority() == Priority::Low {
            return true;
        }
        let is_unwanted = !self.job.is_demanded();
        if is_unwanted {
            self.core.post(Message::Promoted(self.job.record.id, Priority::Low));
        }
        is_unwanted
    }

    /// A step that is not offered to a reader.
    pub(super) fn step_alone(&mut self) -> Result<Step, Error> {
        self.step(By::Worker)
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

impl Drive for Transfer {
    fn step_briefly(&mut self) -> Result<Step, Error> {
        self.step(By::Reader)
    }

    fn extent(&self) -> Extent {
        Extent { start: self.body.head().start(), position: self.body.position(), end: self.body.end() }
    }

    fn can_be_brief(&self) -> bool {
        self.body.can_be_brief()
    }

    fn token(&self) -> Option<&CancelToken> {
        self.body.token()
    }
}
