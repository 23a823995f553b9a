//! The state of one request that its connection, its timeouts and its cancellation share.
//!
//! A thread-local, set around ureq's call, names the request that ureq's connector serves. A connection is bound to its request
//! while it serves it, and unbound before it is reused, so a late cancel can't close the connection of the next request.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use ureq::unversioned::transport::{NextTimeout, time};

use super::silence_watch::SilenceWatch;
use crate::cancel::CancelReason;
use crate::client::h1::lending::Lending;
#[cfg(feature = "http3")]
use crate::client::h3::StreamHandle;
use crate::client::net::private::is_private;
use crate::client::net::socket::ShutdownHandle;
use crate::client::urgency::Urgency;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// A request that is being sent or answered.
#[derive(Default)]
pub(super) struct Exchange {
    binding: Mutex<Binding>,
    pub(super) over: Over,
    /// Bytes of body that came along with the head.
    behind_head: AtomicUsize,
    /// Number of reads of the body through ureq.
    body_reads: AtomicUsize,
    /// Origin of the request. `None` for a preconnect.
    pub(super) origin: Option<Origin>,
    /// The TCP connection while the reader of the body borrows it.
    pub(super) lending: Lending,
    silence: OnceLock<SilenceWatch>,
    /// Addresses on which other attempts of the same request already wait. A new connection tries them last.
    away_from: Vec<SocketAddr>,
    /// When the first attempt was sent, if this one hedges it.
    #[cfg(feature = "http3")]
    hedged_since: Option<Instant>,
    /// It may go to addresses of the public internet only.
    is_public_only: bool,
    /// Whether a reader is blocked on the response. `None`: it is urgent.
    #[cfg(feature = "http3")]
    urgency: Option<Arc<dyn Urgency>>,
}

/// Which connection a request uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Over {
    /// A pooled connection, or a new one if there is none.
    #[default]
    Any,
    /// A new connection, even if the pool has one.
    New,
    /// A new connection. Over HTTP/3 also one that was begun after this time, for another request: it is shared.
    After(Instant),
    /// A pooled connection that has answered a request before. Fails if there is none.
    Proven,
}

/// Which addresses a request may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reach {
    #[default]
    Any,
    /// Any, but a public server must not redirect it to a private address.
    NoDescent,
    /// Addresses of the public internet.
    Public,
}

/// What ends an exchange on its connection.
enum Handle {
    /// Shuts its connection down.
    Socket(ShutdownHandle),
    /// Ends its stream of a connection that others share.
    #[cfg(feature = "http3")]
    Stream(StreamHandle),
}

#[derive(Default)]
struct Binding {
    /// Set once. From then on `bind` fails.
    cancelled: Option<CancelReason>,
    /// Ends the exchange on its connection. Only set while the connection serves it.
    handle: Option<Handle>,
    /// The address that it was bound to last.
    reached: Option<SocketAddr>,
    /// The connection is complete, including its TLS handshake.
    connected: bool,
    /// The connection had served another request before.
    reused: bool,
    /// The connection was complete before the request was made: reused or preconnected.
    pooled: bool,
    /// When a socket was bound last. No byte has arrived on it since, unless `answered`.
    bound_at: Option<Instant>,
    /// The request is being sent, or was.
    is_sent: bool,
    /// The first byte of the response has arrived.
    answered: bool,
    /// Time from sending the request to the first byte of the response.
    ttfb: Option<Duration>,
    /// Deadline of every read of the response, besides the usual limits.
    read_until: Option<Instant>,
    /// The response head is complete.
    has_head: bool,
    /// Another exchange of the same hedged request was faster.
    superseded: bool,
    /// Set while a connection is being opened. Dropping it makes the dialling thread stop.
    holder: Option<Sender<()>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Exchange>>> = const { RefCell::new(None) };
}

impl Exchange {
    pub(super) fn to(origin: &Origin, over: Over, reach: Reach) -> Self {
        let is_public_only = reach == Reach::Public;
        Self { over, origin: Some(origin.clone()), is_public_only, ..Self::default() }
    }

    /// True if it may go over a connection to this address.
    pub(super) fn may_reach(&self, address: SocketAddr) -> bool {
        !self.is_public_only || !is_private(address.ip())
    }

    /// Makes it urgent only while `urgency` says so.
    #[cfg_attr(
        not(feature = "http3"),
        expect(unused_variables, unused_mut, reason = "only streams of HTTP/3 have a reserve")
    )]
    pub(super) fn with_urgency(mut self, urgency: Option<&Arc<dyn Urgency>>) -> Self {
        #[cfg(feature = "http3")]
        {
            self.urgency = urgency.cloned();
        }
        self
    }

    /// Whether a reader is blocked on the response. `None`: it is urgent.
    #[cfg(feature = "http3")]
    pub(super) fn urgency(&self) -> Option<&Arc<dyn Urgency>> {
        self.urgency.as_ref()
    }

    /// Makes a new connection try these addresses last.
    pub(super) fn away_from(self, addresses: Vec<SocketAddr>) -> Self {
        Self { away_from: addresses, ..self }
    }

    /// Makes it hedge an attempt that was sent at `since`.
    #[cfg_attr(
        not(feature = "http3"),
        expect(
            unused_variables,
            unused_mut,
            reason = "only connections of HTTP/3 are shared with the first attempt"
        )
    )]
    pub(super) fn hedging(mut self, since: Instant) -> Self {
        #[cfg(feature = "http3")]
        {
            self.hedged_since = Some(since);
        }
        self
    }

    /// When the first attempt was sent, if this one hedges it.
    #[cfg(feature = "http3")]
    pub(super) fn hedged_since(&self) -> Option<Instant> {
        self.hedged_since
    }

    /// The addresses in the order in which to try them.
    pub(super) fn order(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        // The sort is stable: within both groups the order of the lookup stays.
        let mut ordered = addresses.to_vec();
        ordered.sort_by_key(|address| self.away_from.contains(address));
        ordered
    }

    /// Runs `call` with this exchange as the thread's current one.
    pub(super) fn enter<T>(self: &Arc<Self>, call: impl FnOnce() -> T) -> T {
        // A guard, so that a panic in `call` can't leave the exchange to the thread's next request.
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(None);
            }
        }
        // ureq's connector is one for all requests, and gets no word of which one it serves. ureq calls it on the request's own
        // thread.
        CURRENT.set(Some(Arc::clone(self)));
        let _leave = Leave;
        call()
    }

    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Shuts the socket of this exchange down, which wakes the thread that is blocked on it. No socket can be bound afterwards.
    pub(super) fn abort(&self, reason: CancelReason) {
        let stream = {
            let mut binding = self.binding.lock();
            // The first reason stays: those after it are its consequences.
            binding.cancelled.get_or_insert(reason);
            binding.shut_down()
        };
        end(stream);
    }

    /// Ends this exchange because another one was faster, unless its response head is complete. Returns false if it is.
    pub(super) fn supersede(&self) -> bool {
        let stream = {
            let mut binding = self.binding.lock();
            // Under the same lock as `record_head`: only one of the two exchanges can win.
            if binding.has_head {
                return false;
            }
            binding.superseded = true;
            binding.shut_down()
        };
        end(stream);
        true
    }

    /// Ends the read of the body with an error, because another exchange continues it.
    pub(super) fn break_off(&self) {
        let stream = {
            let mut binding = self.binding.lock();
            binding.superseded = true;
            binding.shut_down()
        };
        end(stream);
    }

    /// Records that the response head is complete. Fails if the exchange was aborted, or if another one was faster.
    pub(super) fn record_head(&self) -> Result<(), Error> {
        let mut binding = self.binding.lock();
        binding.check()?;
        binding.has_head = true;
        Ok(())
    }

    /// When the socket was bound, whether the connection is reused, and whether it is pooled. `None` while there is no
    /// connection.
    pub(super) fn silent_since(&self) -> Option<(Instant, bool, bool)> {
        let binding = self.binding.lock();
        Some((binding.bound_at?, binding.reused, binding.pooled))
    }

    /// The remote address of its connection, while it has one.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.binding.lock().handle.as_ref().map(Handle::peer)
    }

    /// The address that has answered, also once its connection serves others.
    pub(super) fn reached(&self) -> Option<IpAddr> {
        self.binding.lock().reached.map(|address| address.ip())
    }

    /// The reason of the abort, as an error.
    pub(super) fn cancelled(&self) -> Option<Error> {
        self.binding.lock().cancelled.map(Error::cancelled)
    }

    /// Fails if it was aborted, or if another exchange was faster.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.binding.lock().check()
    }

    /// True if the request used a reused connection and `error` may only mean that the server had closed it: without a response
    /// there is no proof that the connection still worked.
    pub(super) fn was_stale(&self, error: &Error) -> bool {
        // An invalid response is no answer: its bytes were sent before this request.
        let is_no_answer =
            matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Disconnected | ErrorKind::Tls);
        let binding = self.binding.lock();
        // A cancel, or a faster exchange, has shut the socket down: that error says nothing about the server.
        let is_alone = binding.cancelled.is_none() && !binding.superseded;
        binding.reused && is_alone && (is_no_answer || !binding.answered)
    }

    /// True if the exchange had a complete connection.
    pub(super) fn was_connected(&self) -> bool {
        self.binding.lock().connected
    }

    /// True if its connection had served another request before.
    pub(super) fn is_reused(&self) -> bool {
        self.binding.lock().reused
    }

    pub(super) fn bind(&self, handle: &ShutdownHandle, reused: bool) -> Result<(), Error> {
        let mut binding = self.binding.lock();
        // Under the lock: an abort before this point found no socket to shut down.
        binding.check()?;
        binding.bound_at = Some(Instant::now());
        binding.holder = None;
        binding.reached = Some(handle.peer());
        binding.handle = Some(Handle::Socket(handle.clone()));
        binding.reused = reused;
        Ok(())
    }

    /// Keeps `holder` while a connection is being opened, and drops it on an abort; at once if the exchange is already aborted.
    pub(super) fn hold(&self, holder: Sender<()>) {
        let mut binding = self.binding.lock();
        binding.holder = Some(holder).filter(|_| binding.cancelled.is_none() && !binding.superseded);
    }

    pub(super) fn unbind(&self, handle: &ShutdownHandle) {
        let mut binding = self.binding.lock();
        // The exchange may be bound to another connection by now.
        if binding.handle.as_ref().is_some_and(|bound| bound.is_of(handle)) {
            binding.handle = None;
        }
    }

    /// Makes an abort end `stream`, whose connection may still be in its handshake.
    #[cfg(feature = "http3")]
    pub(super) fn hold_stream(&self, stream: StreamHandle) -> Result<(), Error> {
        let mut binding = self.binding.lock();
        binding.check()?;
        binding.reached = Some(stream.peer());
        binding.handle = Some(Handle::Stream(stream));
        Ok(())
    }

    /// Records that its stream is about to be opened, or was opened at `sent`, on a connection that may have served others.
    #[cfg(feature = "http3")]
    pub(super) fn bind_stream(&self, is_reused: bool, sent: Option<Instant>) -> Result<(), Error> {
        let mut binding = self.binding.lock();
        binding.check()?;
        binding.bound_at = Some(sent.unwrap_or_else(Instant::now));
        (binding.reused, binding.pooled) = (is_reused, is_reused);
        (binding.connected, binding.is_sent) = (true, true);
        Ok(())
    }

    /// Records that its stream has ended, or is not used.
    #[cfg(feature = "http3")]
    pub(super) fn unbind_stream(&self) {
        let mut binding = self.binding.lock();
        if matches!(binding.handle, Some(Handle::Stream(_))) {
            binding.handle = None;
        }
    }

    /// Records that the connection which was opened for this exchange is complete. Fails if the exchange was aborted meanwhile.
    pub(super) fn complete(&self, handle: &ShutdownHandle) -> Result<(), Error> {
        let mut binding = self.binding.lock();
        binding.connected = binding.handle.as_ref().is_some_and(|bound| bound.is_of(handle));
        if binding.connected {
            return Ok(());
        }
        Err(binding.cancelled.map_or_else(Error::superseded, Error::cancelled))
    }

    /// Records that the exchange uses a connection from the pool.
    pub(super) fn record_pooled(&self) {
        let mut binding = self.binding.lock();
        binding.connected = true;
        binding.pooled = true;
    }

    /// Records that the request is being sent.
    pub(super) fn record_sent(&self) {
        self.binding.lock().is_sent = true;
    }

    /// True if the request is being sent, or was.
    pub(super) fn is_sent(&self) -> bool {
        self.binding.lock().is_sent
    }

    /// Records the first byte of the response. True the first time.
    pub(super) fn record_answer(&self) -> bool {
        let mut binding = self.binding.lock();
        if !binding.answered {
            // A connection is bound to its request right before that is sent.
            binding.ttfb = binding.bound_at.filter(|_| binding.is_sent).map(|sent| sent.elapsed());
        }
        !std::mem::replace(&mut binding.answered, true)
    }

    /// True if the request was sent, has got no answer, and was neither cancelled nor superseded.
    pub(super) fn is_unanswered(&self) -> bool {
        let binding = self.binding.lock();
        binding.is_sent && !binding.answered && binding.check().is_ok()
    }

    /// Notes how many bytes of body came along with the head.
    pub(super) fn record_behind_head(&self, bytes: usize) {
        // Relaxed: written by the thread of the request, before it passes the response on.
        self.behind_head.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of body that came along with the head.
    pub(super) fn behind_head(&self) -> usize {
        self.behind_head.load(Ordering::Relaxed)
    }

    /// Notes that a read of the body through ureq begins.
    pub(super) fn begin_body_read(&self) {
        // Relaxed: ureq waits for the connection on the thread of the read.
        self.body_reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of the read of the body that waits. 0 before the response head.
    pub(super) fn body_read(&self) -> usize {
        self.body_reads.load(Ordering::Relaxed)
    }

    /// Time from sending the request to the first byte of the response.
    pub(super) fn ttfb(&self) -> Option<Duration> {
        self.binding.lock().ttfb
    }

    /// Limits every read of the response to this deadline.
    pub(super) fn read_until(&self, until: Instant) {
        self.binding.lock().read_until = Some(until);
    }

    /// Shortens `timeout` to the deadline of [`read_until`](Self::read_until).
    pub(super) fn limit(&self, timeout: NextTimeout) -> NextTimeout {
        let Some(until) = self.binding.lock().read_until else { return timeout };
        let left = until.saturating_duration_since(Instant::now());
        NextTimeout { after: timeout.after.min(time::Duration::Exact(left)), ..timeout }
    }

    /// Reports silences of the body to `watch` from now on.
    pub(super) fn watch(&self, watch: SilenceWatch) {
        // A second watch fails to be set: each body is watched once, and the first watch stays.
        let _ = self.silence.set(watch);
    }

    /// The watch to which silences of the body are reported.
    pub(super) fn silence(&self) -> Option<&SilenceWatch> {
        self.silence.get()
    }
}

impl Error {
    /// The error of an exchange that lost to another one of the same hedged request. Only the hedge sees it.
    pub(super) fn superseded() -> Self {
        Self::new(ErrorKind::Disconnected, "another connection was faster")
    }
}

impl Binding {
    /// Fails if the exchange was aborted.
    fn check(&self) -> Result<(), Error> {
        match self.cancelled {
            Some(reason) => Err(Error::cancelled(reason)),
            None if self.superseded => Err(Error::superseded()),
            None => Ok(()),
        }
    }

    /// Shuts its socket down. Returns its stream, which has to be ended without this lock.
    #[must_use]
    fn shut_down(&mut self) -> Option<Handle> {
        self.holder = None;
        let handle = self.handle.take()?;
        // Under the lock: once it is unbound, the socket may serve another request. A stream never does.
        match &handle {
            Handle::Socket(socket) => socket.reset(),
            #[cfg(feature = "http3")]
            Handle::Stream(_) => {}
        }
        Some(handle)
    }
}

/// Ends a stream. That waits for the lock of its connection and sends a packet, while the thread that the abort has woken needs
/// the lock of the binding to ask for the reason.
fn end(handle: Option<Handle>) {
    match handle {
        Some(Handle::Socket(_)) | None => {}
        #[cfg(feature = "http3")]
        Some(Handle::Stream(stream)) => stream.abort(),
    }
}

impl Handle {
    fn peer(&self) -> SocketAddr {
        match self {
            Self::Socket(socket) => socket.peer(),
            #[cfg(feature = "http3")]
            Self::Stream(stream) => stream.peer(),
        }
    }

    /// True if it shuts the connection of `socket` down.
    fn is_of(&self, socket: &ShutdownHandle) -> bool {
        match self {
            Self::Socket(own) => own.is_same(socket),
            #[cfg(feature = "http3")]
            Self::Stream(_) => false,
        }
    }
}
