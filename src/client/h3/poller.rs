//! What a thread needs to wait for packets: a poll, its waker, and buffers.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use mio::{Events, Poll, Registry, Token, Waker};
use parking_lot::Mutex;

use super::socket::Buffers;

/// Token of the waker. Sockets count up from 0.
pub(super) const WAKER: Token = Token(usize::MAX);

/// Pollers that are kept for the next callers. Each has some file descriptors.
const KEPT: usize = 4;

/// Waits for the packets of one connection on the thread of a caller.
pub(super) struct Poller {
    poll: Poll,
    events: Events,
    registry: Arc<Registry>,
    waker: Arc<Waker>,
    pub(super) buffers: Buffers,
}

impl Poller {
    fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = Arc::new(poll.registry().try_clone()?);
        let waker = Arc::new(Waker::new(&registry, WAKER)?);
        // It polls a socket and the waker.
        Ok(Self { poll, events: Events::with_capacity(4), registry, waker, buffers: Buffers::default() })
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Ends [`wait`](Self::wait), or the next one.
    pub(super) fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    /// Blocks until a packet arrives, until it is woken, or until `until`.
    pub(super) fn wait(&mut self, until: Instant) {
        let timeout = until.saturating_duration_since(Instant::now());
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout)) {
            // A signal. The thread that waits looks at the connection again.
            log::debug!("waiting for packets was interrupted: {error}");
        }
    }
}

/// Pollers for the callers of all connections.
#[derive(Default)]
pub(crate) struct Pollers(Mutex<Vec<Poller>>);

impl Pollers {
    /// `None` if the system has no more descriptors.
    pub(super) fn take(&self) -> Option<Poller> {
        let kept = self.0.lock().pop();
        let made = kept.map_or_else(Poller::new, Ok);
        made.inspect_err(|error| log::debug!("a request can't poll its socket: {error}")).ok()
    }

    pub(super) fn put(&self, poller: Poller) {
        let mut kept = self.0.lock();
        if kept.len() < KEPT {
            kept.push(poller);
            return;
        }
        drop(kept);
        // Without the lock: to close it takes several system calls.
        drop(poller);
    }
}

impl fmt::Debug for Pollers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pollers").finish_non_exhaustive()
    }
}
