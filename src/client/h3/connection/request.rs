//! One request of a connection, and what has arrived of its response.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mio::Waker;
use parking_lot::Condvar;
use quinn_proto::{Chunk, StreamId, VarInt};

use crate::client::h3::code::Violation;
use crate::client::h3::response::{Head, Part, ResponseReader};
use crate::client::urgency::Urgency;
use crate::error::Error;

/// A request. Its thread waits on `changed`.
pub(super) struct Request {
    /// When it was added, or when the handshake was complete, if it waited for that.
    pub(super) began: Instant,
    pub(super) stream: Option<StreamId>,
    pub(super) reader: ResponseReader,
    pub(super) head: Option<Head>,
    /// Body bytes that were parsed and not read yet: what came along with the head.
    pub(super) pending: VecDeque<Chunk>,
    /// Bytes of the request that did not fit into the server's flow control.
    pub(super) unwritten: Vec<u8>,
    /// The stream is complete: nothing more can be read from it.
    pub(super) is_complete: bool,
    /// Sent before the handshake was complete.
    pub(super) is_early: bool,
    pub(super) is_aborted: bool,
    /// A reader is blocked on the response. Only becomes true.
    pub(super) is_urgent: bool,
    /// It has no stream and is not urgent yet.
    pub(super) undecided: Option<Undecided>,
    /// Shows whether that has become true. Must not be asked under the lock of the connection.
    pub(super) urgency: Option<Arc<dyn Urgency>>,
    /// It waits for a stream.
    pub(super) awaits_stream: bool,
    /// Its reader is gone, and only the end of the stream is missing.
    pub(super) is_released: bool,
    pub(super) error: Option<Error>,
    /// The thread of the request waits here. Notified when its stream is readable, when it may get a stream, when the handshake
    /// is complete, by an abort, and when the connection is over.
    pub(super) changed: Arc<Condvar>,
    /// Wakes the thread of the request instead, while it polls the socket itself.
    pub(super) polls: Option<Arc<Waker>>,
}

/// Requests of a connection that have no stream and are not urgent yet. Read without the lock of the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct UndecidedCount(Arc<AtomicUsize>);

/// One of them. Its drop subtracts it.
#[derive(Debug)]
pub(super) struct Undecided(UndecidedCount);

impl UndecidedCount {
    pub(super) fn add(&self) -> Undecided {
        self.0.fetch_add(1, Ordering::SeqCst);
        Undecided(self.clone())
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Why a response can't be read on.
pub(super) enum Broken {
    Rule(Violation),
    /// The stream ended too early. RFC 9114, section 4.1.2 calls that malformed; it is also what a proxy does whose own source
    /// broke, so the rest is requested again.
    Cut,
    Reset(VarInt),
}

impl Request {
    pub(super) fn new(max_head: usize, is_urgent: bool, urgency: Option<&Arc<dyn Urgency>>) -> Self {
        Self {
            began: Instant::now(),
            stream: None,
            reader: ResponseReader::new(max_head),
            head: None,
            pending: VecDeque::new(),
            unwritten: Vec::new(),
            is_complete: false,
            is_early: false,
            is_aborted: false,
            is_urgent,
            undecided: None,
            urgency: urgency.cloned(),
            awaits_stream: false,
            is_released: false,
            error: None,
            changed: Arc::default(),
            polls: None,
        }
    }

    /// Wakes the thread of the request, if it waits.
    pub(super) fn notify(&self) {
        let Some(waker) = &self.polls else {
            self.changed.notify_all();
            return;
        };
        if let Err(error) = waker.wake() {
            // It then sees the change late: with the next packet or at its next deadline.
            log::warn!("can't wake the thread of a request: {error}");
        }
    }

    /// The server has not seen the request: it gets another stream.
    pub(super) fn begin_again(&mut self) {
        self.stream = None;
        self.unwritten.clear();
    }

    pub(super) fn take_pending(&mut self, most: usize, taken: &mut Vec<Chunk>) -> usize {
        let mut got = 0;
        while got < most {
            let Some(mut chunk) = self.pending.pop_front() else { break };
            if chunk.bytes.len() > most - got {
                let rest = chunk.bytes.split_off(most - got);
                // Pieces are taken in their order, so no offset is looked at.
                self.pending.push_front(Chunk { offset: 0, bytes: rest });
            }
            got += chunk.bytes.len();
            taken.push(chunk);
        }
        got
    }

    /// Records that the stream has ended. Returns what is wrong with that.
    pub(super) fn end(&mut self) -> Option<Broken> {
        self.is_complete = true;
        match self.reader.finish() {
            Err(_) if self.reader.is_cut() => Some(Broken::Cut),
            result => result.err().map(Broken::Rule),
        }
    }

    /// Parses a piece of the stream. Its body bytes go to `taken`, without a copy. Returns how many there are.
    pub(super) fn parse(&mut self, chunk: Chunk, taken: &mut Vec<Chunk>) -> Result<usize, Violation> {
        let (mut rest, mut got) = (chunk.bytes, 0);
        loop {
            let (used, part) = self.reader.next(&rest)?;
            match part {
                None => return Ok(got),
                Some(Part::Head(head)) => self.head = Some(head),
                Some(Part::Body(range)) => {
                    got += range.len();
                    taken.push(Chunk { offset: 0, bytes: rest.slice(range) });
                }
            }
            drop(rest.split_to(used));
        }
    }
}
