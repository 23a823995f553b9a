//! One request, as its connection and its canceller see it.
//!
//! ureq's connector learns of the request that it works for through a thread-local, set around ureq's call. A connection
//! is bound to its request while it serves it, and unbound before it serves anybody else: a late cancel can't kill the
//! socket's next user.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use ureq::unversioned::transport::{NextTimeout, time};

use super::silence_watch::SilenceWatch;
use crate::cancel::CancelReason;
use crate::client::h1::lending::Lending;
use crate::client::net::socket::ShutdownHandle;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// A request on its way.
#[derive(Default)]
pub(super) struct Exchange {
    binding: Mutex<Binding>,
    pub(super) over: Over,
    /// Where the request goes. `None` where a connection is opened ahead of one.
    pub(super) origin: Option<Origin>,
    /// The TCP connection, while the body's reader has it.
    pub(super) lending: Lending,
    silence: OnceLock<SilenceWatch>,
    /// Addresses that others of the same request wait for. A new connection tries them last.
    away_from: Vec<SocketAddr>,
}

/// Which connection a request goes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Over {
    /// One from the pool, or else a new one.
    #[default]
    Any,
    /// A new one, whatever is in the pool.
    New,
    /// One from the pool that has served others, or none.
    Proven,
}

#[derive(Default)]
struct Binding {
    /// Set once, and then no socket is bound any more.
    cancelled: Option<CancelReason>,
    /// Ends the connection that this exchange uses, and nobody else.
    handle: Option<ShutdownHandle>,
    /// The connection is complete, with its handshake.
    connected: bool,
    /// The connection had served another request before.
    reused: bool,
    /// The connection was complete before the request was made: reused, or opened ahead.
    pooled: bool,
    /// When a socket was bound last: nothing has come back over it since, unless `answered`.
    bound_at: Option<Instant>,
    /// When the request was sent.
    sent: Option<Instant>,
    /// Something came back.
    answered: bool,
    /// How long that took.
    ttfb: Option<Duration>,
    /// No wait for more of the answer goes on for longer.
    read_until: Option<Instant>,
    /// All of the response head came.
    has_head: bool,
    /// Another exchange for the same request was faster.
    superseded: bool,
    /// While a connection is made: dropped when it is to be given up.
    holder: Option<Sender<()>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Exchange>>> = const { RefCell::new(None) };
}

impl Exchange {
    pub(super) fn to(origin: &Origin, over: Over) -> Self {
        Self { over, origin: Some(origin.clone()), ..Self::default() }
    }

    /// Lets a new connection try these addresses after all others.
    pub(super) fn away_from(self, addresses: Vec<SocketAddr>) -> Self {
        Self { away_from: addresses, ..self }
    }

    /// The addresses in the order in which to try them.
    pub(super) fn order(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut ordered = addresses.to_vec();
        ordered.sort_by_key(|address| self.away_from.contains(address));
        ordered
    }

    /// Runs `call` with this as the current exchange of the thread.
    pub(super) fn enter<T>(self: &Arc<Self>, call: impl FnOnce() -> T) -> T {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(None);
            }
        }
        CURRENT.set(Some(Arc::clone(self)));
        let _leave = Leave;
        call()
    }

    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Releases the thread that is blocked on this exchange's socket, now and from now on.
    pub(super) fn abort(&self, reason: CancelReason) {
        let mut binding = self.binding.lock();
        binding.cancelled.get_or_insert(reason);
        binding.shut_down();
    }

    /// Releases whoever is blocked on this exchange, unless its response head is complete. False if it is.
    pub(super) fn supersede(&self) -> bool {
        let mut binding = self.binding.lock();
        binding.superseded |= !binding.has_head;
        if !binding.has_head {
            binding.shut_down();
        }
        !binding.has_head
    }

    /// Releases whoever reads the body, because another exchange goes on with it.
    pub(super) fn break_off(&self) {
        let mut binding = self.binding.lock();
        binding.superseded = true;
        binding.shut_down();
    }

    /// Notes that all of the response head has come. False if another exchange was faster.
    pub(super) fn note_head(&self) -> bool {
        let mut binding = self.binding.lock();
        binding.has_head = !binding.superseded;
        binding.has_head
    }

    /// Since when its connection has been silent, whether that is reused, and whether it comes from the pool. `None` while
    /// there is no connection.
    pub(super) fn silent_since(&self) -> Option<(Instant, bool, bool)> {
        let binding = self.binding.lock();
        Some((binding.bound_at?, binding.reused, binding.pooled))
    }

    /// The address that its connection leads to, while it has one.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.binding.lock().handle.as_ref().and_then(ShutdownHandle::peer)
    }

    /// Why it was aborted, if it was.
    pub(super) fn cancelled(&self) -> Option<Error> {
        self.binding.lock().cancelled.map(Error::cancelled)
    }

    /// True if the request went over a connection that had served another one before, and `error` may be of that
    /// connection alone: only an answer proves that it still served. What came in place of one was no answer to this
    /// request, but bytes from before it.
    pub(super) fn was_stale(&self, error: &Error) -> bool {
        let is_no_answer =
            matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Disconnected | ErrorKind::Tls);
        let binding = self.binding.lock();
        let is_alone = binding.cancelled.is_none() && !binding.superseded;
        binding.reused && is_alone && (is_no_answer || !binding.answered)
    }

    /// True if it got as far as a complete connection.
    pub(super) fn was_connected(&self) -> bool {
        self.binding.lock().connected
    }

    /// True if its connection had served others before.
    pub(super) fn is_reused(&self) -> bool {
        self.binding.lock().reused
    }

    pub(super) fn bind(&self, handle: &ShutdownHandle, reused: bool) -> Result<(), Error> {
        let mut binding = self.binding.lock();
        if let Some(reason) = binding.cancelled {
            return Err(Error::cancelled(reason));
        }
        if binding.superseded {
            return Err(Error::superseded());
        }
        binding.bound_at = Some(Instant::now());
        binding.holder = None;
        binding.handle = Some(handle.clone());
        binding.reused = reused;
        Ok(())
    }

    /// Keeps `holder` while a connection is made, and drops it when this is aborted; at once if it was.
    pub(super) fn hold(&self, holder: Sender<()>) {
        let mut binding = self.binding.lock();
        binding.holder = Some(holder).filter(|_| binding.cancelled.is_none() && !binding.superseded);
    }

    pub(super) fn unbind(&self, handle: &ShutdownHandle) {
        let mut binding = self.binding.lock();
        if binding.handle.as_ref().is_some_and(|bound| bound.is_same(handle)) {
            binding.handle = None;
        }
    }

    /// Notes that the connection is complete that was opened for this. An error if this was aborted meanwhile.
    pub(super) fn complete(&self, handle: &ShutdownHandle) -> Result<(), Error> {
        let mut binding = self.binding.lock();
        binding.connected = binding.handle.as_ref().is_some_and(|bound| bound.is_same(handle));
        if binding.connected {
            return Ok(());
        }
        Err(binding.cancelled.map_or_else(Error::superseded, Error::cancelled))
    }

    /// It goes over a connection that was complete before.
    pub(super) fn note_connected(&self) {
        let mut binding = self.binding.lock();
        binding.connected = true;
        binding.pooled = true;
    }

    /// Notes that the request is being sent.
    pub(super) fn note_sent(&self) {
        self.binding.lock().sent = Some(Instant::now());
    }

    /// Notes that something came back. True the first time.
    pub(super) fn note_answer(&self) -> bool {
        let mut binding = self.binding.lock();
        if !binding.answered {
            binding.ttfb = binding.sent.map(|sent| sent.elapsed());
        }
        !std::mem::replace(&mut binding.answered, true)
    }

    /// How long the first byte of the answer took.
    pub(super) fn ttfb(&self) -> Option<Duration> {
        self.binding.lock().ttfb
    }

    /// Lets no wait for more of the answer go on for longer.
    pub(super) fn read_until(&self, until: Instant) {
        self.binding.lock().read_until = Some(until);
    }

    /// What is left of a wait for more of the answer.
    pub(super) fn limit(&self, timeout: NextTimeout) -> NextTimeout {
        let Some(until) = self.binding.lock().read_until else { return timeout };
        let left = until.saturating_duration_since(Instant::now());
        NextTimeout { after: timeout.after.min(time::Duration::Exact(left)), ..timeout }
    }

    /// Reports silences of its body from now on.
    pub(super) fn watch(&self, watch: SilenceWatch) {
        // A second watch fails to be set: each body is watched once, and the first watch stays.
        let _ = self.silence.set(watch);
    }

    /// What silences of its body are reported to.
    pub(super) fn silence(&self) -> Option<&SilenceWatch> {
        self.silence.get()
    }
}

impl Error {
    /// Of an exchange that another one for the same request was faster than. Nobody but the hedge sees it.
    pub(super) fn superseded() -> Self {
        Self::new(ErrorKind::Disconnected, "another connection was faster")
    }
}

impl Binding {
    fn shut_down(&mut self) {
        self.holder = None;
        if let Some(handle) = self.handle.take() {
            handle.reset();
        }
    }
}
