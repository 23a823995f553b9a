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
    /// As long as a block. Empty after a sink has kept its memory.
    pub(crate) chunk: Buffer,
    /// The last read filled its buffer. More bytes are likely to have arrived, so the next read may bring a whole block.
    pub(crate) has_filled: bool,
}

/// Which thread takes a step. It decides how long the step may block, and where the bytes are received.
#[derive(Debug)]
enum By<'a> {
    /// Blocks for the silence limit at most.
    Worker,
    /// Blocks for a moment. May receive into the reader's buffer; see [`MIN_DIRECT`].
    Reader(&'a mut [u8]),
}

/// Minimum size of a reader's buffer to receive into it. A system call for fewer bytes takes longer than the copy that it
/// saves.
const MIN_DIRECT: usize = 32 * 1024;

/// Where received bytes lie.
enum Received<'a> {
    /// In a chunk, which a sink may keep if all of it is new.
    Chunk(&'a mut Buffer),
    /// In a reader's buffer.
    Direct(&'a [u8]),
}

/// Number of bytes from `position` to the end of its block.
fn up_to_block_end(position: u64) -> usize {
    // A read stops there, so that the next block may come as a whole.
    BUFFER - (position % BUFFER as u64) as usize
}

impl Transfer {
    /// Reads once, and writes what arrived to the sink.
    fn step(&mut self, by: By<'_>) -> Result<Step, Error> {
        // Without another read: a server may send more than it announced, or keep the connection open and send nothing.
        if self.job.retry_state.is_complete() {
            return Ok(Step::Eof);
        }
        let wanted = up_to_block_end(self.body.position());
        match by {
            By::Worker => match self.admit(wanted)? {
                Some(most) => self.step_with_chunk(most, |body, buf| body.read_chunk(buf).map(Some)),
                None => Ok(Step::Preempt),
            },
            By::Reader(own) => {
                // Storage keeps the chunk of a whole block. So its bytes are copied once either way, and one system call receives
                // them. Bytes of a part would be copied once more by way of the chunk.
                let is_block = wanted == BUFFER && self.has_filled;
                let is_direct = own.len() >= MIN_DIRECT && !is_block;
                let wanted = if is_direct { wanted.min(own.len()) } else { wanted };
                // A reader must not block here for its share: the worker waits for it instead.
                let Some(most) = self.meter.try_admit(&self.body, wanted) else {
                    return Ok(Step::WouldBlock);
                };
                if is_direct {
                    self.step_directly(&mut own[..most])
                } else {
                    self.step_with_chunk(most, client::Response::read_briefly)
                }
            }
        }
    }

    /// Blocks while `max_bandwidth` holds the next read back. Returns how many of the `wanted` bytes to read, or `None` if the
    /// transfer is to be preempted.
    fn admit(&mut self, wanted: usize) -> Result<Option<usize>, Error> {
        let Self { core, job, body, meter, .. } = self;
        if let Some(share) = meter.try_admit(body, wanted) {
            return Ok(Some(share));
        }
        let token = body.token().unwrap_or(&job.token).clone();
        let is_preempted = || core.preemptions.is_wanted() && job.control.is_preemptible();
        let share = meter.await_share(body, wanted, &token, is_preempted);
        match token.reason() {
            Some(reason) if share.is_none() => {
                Err(Error::cancelled(reason).with_url(job.retry_state.request().url()))
            }
            _ => Ok(share),
        }
    }

    fn step_with_chunk(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut client::Response, &mut [u8]) -> Result<Option<usize>, Error>,
    ) -> Result<Step, Error> {
        let mut chunk = std::mem::take(&mut self.chunk);
        // A sink has kept the last one as its block.
        if chunk.len() != BUFFER {
            chunk = if self.has_filled { Buffer::resident() } else { Buffer::new() };
        }
        let at = self.body.position();
        let read = read(&mut self.body, &mut chunk[..most]);
        self.has_filled = matches!(read, Ok(Some(got)) if got == most);
        let step = self.handle_read(at, read, Received::Chunk(&mut chunk));
        self.chunk = chunk;
        step
    }

    /// Receives into a reader's buffer. Storage gets a copy.
    fn step_directly(&mut self, own: &mut [u8]) -> Result<Step, Error> {
        let at = self.body.position();
        // By way of a chunk each byte would be copied once more.
        let read = self.body.read_briefly(own);
        self.has_filled = matches!(read, Ok(Some(got)) if got == own.len());
        self.handle_read(at, read, Received::Direct(own))
    }

    /// Takes in the result of a read at the position `at`, which is `None` if a brief read brought nothing.
    fn handle_read(
        &mut self,
        at: u64,
        read: Result<Option<usize>, Error>,
        received: Received<'_>,
    ) -> Result<Step, Error> {
        // Also of a read that failed or brought nothing: it has waited for the network.
        self.meter.advance(&mut self.body, read.as_ref().map_or(0, |got| got.unwrap_or(0)));
        match read {
            Ok(None) => Ok(Step::WouldBlock),
            Ok(Some(0)) => self.job.retry_state.check_end(at).map(|()| Step::Eof),
            Ok(Some(got)) => {
                let is_direct = matches!(received, Received::Direct(_));
                let new = self.store(at, got, received)?;
                Ok(match self.next_step() {
                    // Fewer are new if the server sent some once more: without ranges, or for the overlap check.
                    Step::Moved if is_direct && new == got => Step::Received(got),
                    step => step,
                })
            }
            Err(error) => self.go_on(error),
        }
    }

    /// Writes the new ones of `got` bytes, which arrived from `at` on, to the sink. Returns their number.
    fn store(&mut self, at: u64, got: usize, received: Received<'_>) -> Result<usize, Error> {
        let Job { target, retry_state, control, record, handoff, .. } = &mut *self.job;
        let now = self.body.last_read_at();
        control.advance_by(got as u64, now);
        let Target::Sink(sink) = target else { unreachable!("the body for a caller is handed over") };
        let bytes = match &received {
            Received::Chunk(chunk) => &chunk[..got],
            Received::Direct(own) => &own[..got],
        };
        let (offset, new) = retry_state.take(at, bytes, now)?;
        let new_bytes = new.len();
        match received {
            // Sent once more: by a server without ranges, or for the overlap check.
            _ if new_bytes == 0 => return Ok(0),
            Received::Chunk(chunk) if new_bytes == BUFFER => sink.write_block(offset, chunk)?,
            _ => sink.write(offset, new)?,
        }
        record.received += new_bytes as u64;
        if handoff.is_some() {
            // Our own storage took it: only a user's sink can hold a body back.
            self.body.note_stored();
        }
        Ok(new_bytes)
    }

    /// Whether the transfer goes on after a chunk.
    fn next_step(&self) -> Step {
        // One that is whole frees its worker by its end.
        if !self.core.preemptions.is_wanted() || self.is_whole() {
            return Step::Moved;
        }
        // A fetch that no reader waits for any more is no urgent work, and makes room for what is.
        self.demote_unless_urgent();
        if self.job.control.is_preemptible() { Step::Preempt } else { Step::Moved }
    }

    /// Goes on with the body that was requested beside this one while it was silent, if that is why it failed.
    fn go_on(&mut self, error: Error) -> Result<Step, Error> {
        let Some(mut body) = self.body.take_winner() else { return Err(error) };
        let Job { retry_state, control, target, .. } = &mut *self.job;
        if let Target::Sink(sink) = target {
            // The sink gets the new head as after a break. An answer `Detach` would come too late: it has got bytes already.
            sink.head(body.head())?;
        }
        retry_state.go_on(&mut body, control)?;
        control.advance_by(1, Instant::now());
        self.body = body;
        Ok(Step::Moved)
    }

    /// True if no byte is missing, as far as the length is known.
    pub(super) fn is_whole(&self) -> bool {
        self.job.retry_state.is_complete()
    }

    /// Makes an urgent fetch a prefetch if no reader waits for it any more. True if it is a prefetch, or is about to be.
    pub(super) fn demote_unless_urgent(&self) -> bool {
        if self.job.control.priority() == Priority::Low {
            return true;
        }
        let is_unwanted = !self.job.is_still_urgent();
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
    fn step_briefly(&mut self, own: &mut [u8]) -> Result<Step, Error> {
        self.step(By::Reader(own))
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
