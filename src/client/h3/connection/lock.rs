//! The lock of a connection: the thread of `driver.rs` and the threads of the requests take turns.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use mio::{Registry, Token, Waker};
use parking_lot::{Mutex, MutexGuard};
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};

use super::request::UndecidedCount;
use super::state::{State, Usage};
use crate::client::h3::code::Code;
use crate::client::h3::limits::Limits;
use crate::client::h3::poller::Pollers;
use crate::client::h3::socket::{Buffers, Socket};
use crate::client::urgency::Urgency;
use crate::error::{Error, ErrorKind};
use crate::foreign::contain;

/// A connection. Shared by its requests and by the thread.
pub(crate) struct Connection {
    pub(super) state: Mutex<State>,
    /// Requests that may become urgent.
    undecided: UndecidedCount,
    /// Wakes the thread.
    waker: Arc<Waker>,
    pub(crate) peer: SocketAddr,
    pub(crate) began: Instant,
}

/// What a turn of a connection has left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// When the next turn is due, at the latest.
    pub(crate) deadline: Option<Instant>,
    /// More packets are waiting in the socket.
    pub(crate) has_more: bool,
    /// The connection is over: the thread forgets it.
    pub(crate) is_over: bool,
}

impl Connection {
    /// Begins a connection to `remote`, whose certificate must be for `name`. Sends the first packet and does not block. The
    /// thread that `waker` wakes has to be given the connection.
    pub(crate) fn begin(
        (waker, pollers): (&Arc<Waker>, &Arc<Pollers>),
        config: ClientConfig,
        remote: SocketAddr,
        name: &str,
        limits: &Limits,
    ) -> Result<Arc<Self>, Error> {
        let failed = |cause: io::Error| {
            Error::new(ErrorKind::Unreachable, "can't open a UDP socket for HTTP/3").with_cause(cause)
        };
        let socket = Socket::bind(remote).map_err(failed)?;
        // A packet that is too large has to be lost to show that it is: RFC 9000, section 14, forbids fragments, and RFC 8899 finds
        // the MTU by what is lost.
        let discovers_mtu = !socket.may_fragment();
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, discovers_mtu, None);
        let now = Instant::now();
        let (handle, quic) = endpoint.connect(now, config, remote, name).map_err(|cause| {
            Error::new(ErrorKind::Unreachable, "can't begin a QUIC connection").with_cause(cause)
        })?;
        let pollers = Arc::clone(pollers);
        let mut state = State::new(endpoint, handle, quic, socket, pollers, limits, now);
        state.pump(now);
        let (undecided, waker) = (state.undecided.clone(), Arc::clone(waker));
        Ok(Arc::new(Self { state: Mutex::new(state), undecided, waker, peer: remote, began: now }))
    }

    pub(crate) fn register(&self, registry: &Arc<Registry>, token: Token) -> io::Result<()> {
        self.state.lock().socket.register(registry, token)
    }

    pub(crate) fn deregister(&self) {
        if let Err(error) = self.state.lock().socket.deregister() {
            log::debug!("a UDP socket was not registered: {error}");
        }
    }

    /// Ends it and its requests with `error`.
    pub(crate) fn fail(&self, error: &Error) {
        self.state.lock().end(error.clone());
    }

    /// True if it takes new requests.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.state.lock();
        state.over.is_none() && !state.is_retired
    }

    /// True if its handshake is not complete.
    pub(crate) fn is_opening(&self) -> bool {
        let state = self.state.lock();
        state.over.is_none() && !state.is_ready
    }

    /// Requests that are open now, and responses that were received.
    pub(crate) fn load(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.open_requests().count(), state.served)
    }

    /// True if it is ready, has received no response, and has a request that began at or before `since`. It may have no stream:
    /// some servers allow none.
    pub(crate) fn is_silent_since(&self, since: Instant) -> bool {
        let state = self.state.lock();
        let is_usable = state.is_ready && !state.is_retired && state.over.is_none();
        is_usable && state.served == 0 && state.open_requests().any(|request| request.began <= since)
    }

    /// When its last request ended, if it has no request and is ready for others.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        let is_idle = state.is_ready && !state.is_retired && state.over.is_none();
        (is_idle && state.open_requests().next().is_none()).then_some(state.used)
    }

    /// Takes no new requests, and closes once the open ones have ended.
    pub(crate) fn retire(&self) {
        self.with(|state, now| {
            state.is_retired = true;
            state.close_if_unused(now);
        });
    }

    /// Closes the connection. Its requests fail.
    pub(crate) fn close(&self) {
        self.with(|state, now| {
            state.close(now, Code::NO_ERROR, "", Error::new(ErrorKind::Disconnected, "closed"))
        });
    }

    /// Makes the path known again after a change of network: the server learns the new address from a PING.
    pub(crate) fn handle_network_changed(&self) {
        self.with(|state, _| state.quic.ping());
    }

    /// Sends a PING whenever no packet has arrived for a while from now on, also without a request; or only with one.
    pub(crate) fn keep_alive(&self, is_kept_alive: bool) {
        self.with(|state, _| state.is_kept_alive = is_kept_alive);
    }

    /// How its streams are used. `None` if it takes no new requests, or its handshake is not complete.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let mut state = self.state.lock();
        let is_ready = state.is_ready && state.over.is_none() && !state.is_retired;
        is_ready.then(|| {
            state.refill_credit();
            let waiting = state.requests.values().filter(|request| request.awaits_stream).count();
            Usage { in_use: state.by_stream.len(), waiting, left: state.credit.left() }
        })
    }

    /// Checks again whether requests that wait for a stream have become urgent.
    pub(crate) fn recheck_urgency(&self) {
        // Without the lock, for which the readers of long bodies and the thread compete. The fence belongs to the one in
        // `RequestStream::enter`: either that one sees that the request is urgent, or this one sees the request.
        fence(Ordering::SeqCst);
        if self.undecided.is_zero() {
            return;
        }
        let waiting: Vec<(u64, Arc<dyn Urgency>)> = {
            let state = self.state.lock();
            let not_urgent = state.requests.iter().filter(|(_, request)| request.undecided.is_some());
            not_urgent.filter_map(|(key, request)| Some((*key, request.urgency.clone()?))).collect()
        };
        // Without the lock: the answer may need another one.
        let urgent = waiting.iter().filter(|(_, urgency)| urgency.is_urgent());
        let urgent: Vec<u64> = urgent.map(|(key, _)| *key).collect();
        if !urgent.is_empty() {
            self.make_urgent(&urgent);
        }
    }

    pub(super) fn make_urgent(&self, keys: &[u64]) {
        let mut state = self.state.lock();
        for key in keys {
            if let Some(request) = state.requests.get_mut(key).filter(|request| !request.is_urgent) {
                request.is_urgent = true;
                request.undecided = None;
                request.notify();
            }
        }
    }

    /// A turn of the thread: receives packets and keeps deadlines.
    pub(crate) fn turn(&self, buffers: &mut Buffers) -> Turn {
        let mut state = self.state.lock();
        let mut has_more = false;
        if state.over.is_none() {
            let turn = contain("QUIC", || {
                has_more = state.take_turn(buffers);
            });
            if let Err(panic) = turn {
                state.end(panic.into());
            }
        }
        let is_over = state.over.is_some();
        let deadline = if is_over { None } else { state.deadline_of_thread() };
        state.armed.handle_sleep(deadline);
        Turn { deadline, has_more, is_over }
    }

    /// Runs `action` under the lock, and sends what it has caused.
    pub(super) fn with<R>(&self, action: impl FnOnce(&mut State, Instant) -> R) -> Option<R> {
        self.locked(|state| {
            if state.over.is_some() {
                return Ok(None);
            }
            let now = Instant::now();
            let result = action(state, now);
            state.pump(now);
            Ok(Some(result))
        })
        .ok()
        .flatten()
    }

    /// Runs `action` under the lock, and leaves the deadlines to the thread.
    pub(super) fn locked<R>(
        &self,
        action: impl FnOnce(&mut MutexGuard<'_, State>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut state = self.state.lock();
        // A panic in quinn-proto must end this connection only: other threads use the others.
        let result = contain("QUIC", || action(&mut state)).unwrap_or_else(|panic| {
            let error = Error::from(panic);
            state.end(error.clone());
            Err(error)
        });
        self.leave(state).wake();
        result
    }

    /// Ends request `key`, wakes its thread, and asks the server to stop sending.
    pub(super) fn abort(&self, key: u64) {
        let (mut state, mut out) = (self.state.lock(), Vec::new());
        let packet = contain("QUIC", || state.abort(key, Instant::now(), &mut out));
        let packet = packet.unwrap_or_else(|panic| {
            state.end(panic.into());
            None
        });
        let sender = Arc::clone(state.socket.sender());
        let left = self.leave(state);
        // Without the lock, which the woken thread needs at once. If it fails, QUIC treats the packet as lost.
        if let Some(Err(error)) = packet.map(|packet| sender.send(&packet, &out)) {
            log::debug!("a QUIC packet was not sent: {error}");
        }
        left.wake();
    }

    /// Releases the lock, and leaves the deadlines to the thread.
    fn leave(&self, mut state: MutexGuard<'_, State>) -> Left<'_> {
        let must_wake = match state.over {
            // The thread forgets the connection.
            Some(_) => true,
            None => {
                let deadline = state.deadline();
                state.armed.handle_leave(deadline)
            }
        };
        Left(Some(&*self.waker).filter(|_| must_wake))
    }
}

/// A lock that was released: the thread has to be woken if there is a waker.
#[must_use]
struct Left<'a>(Option<&'a Waker>);

impl Left<'_> {
    fn wake(self) {
        if let Some(Err(error)) = self.0.map(Waker::wake) {
            // The deadline is then kept late: with the next packet or the next deadline.
            log::warn!("can't wake the thread for QUIC: {error}");
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Connection {
    /// A connection to `remote` with long limits, which no driver knows yet.
    pub(crate) fn preset(wakes: (&Arc<Waker>, &Arc<Pollers>), remote: SocketAddr) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.unwrap().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let tls = quinn_proto::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let long = std::time::Duration::from_secs(20);
        let limits = Limits { connect: long, silence: long, idle: long, max_idle: 1, max_head: 1000 };
        Self::begin(wakes, ClientConfig::new(Arc::new(tls)), remote, "localhost", &limits).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::cancel::CancelReason;
    use crate::client::exchange::{Exchange, Over, Reach};
    use crate::client::h3::connection::RequestStream;
    use crate::client::h3::driver::Driver;
    use crate::origin::Origin;

    struct Prefetch;

    impl Urgency for Prefetch {
        fn is_urgent(&self) -> bool {
            false
        }
    }

    /// A connection to a socket that never answers. Its thread does not run.
    fn connection() -> (UdpSocket, Arc<Connection>) {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let driver = Driver::new().unwrap();
        let connection = Connection::preset((driver.waker(), driver.pollers()), silent.local_addr().unwrap());
        (silent, connection)
    }

    /// After this time a call counts as one that hangs.
    const LIMIT: Duration = Duration::from_secs(20);

    /// Runs `call` on a thread of its own, and waits until it returns.
    fn on_a_thread(call: impl FnOnce() + Send + 'static) -> bool {
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            call();
            // The test may have given up.
            let _ = done.send(());
        });
        is_done.recv_timeout(LIMIT).is_ok()
    }

    #[test]
    fn a_retired_connection_takes_no_new_requests() {
        let (_silent, connection) = connection();
        let _earlier = RequestStream::enter(&connection, None);
        connection.retire();
        let error = RequestStream::enter(&connection, None).send(&[], Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
    }

    #[test]
    fn an_urgent_fetch_does_not_wait_for_a_busy_connection_without_undecided_requests() {
        let (_silent, connection) = connection();
        let _urgent = RequestStream::enter(&connection, None);
        let prefetch: Arc<dyn Urgency> = Arc::new(Prefetch);
        drop(RequestStream::enter(&connection, Some(&prefetch)));
        let _busy = connection.state.lock();
        let other = Arc::clone(&connection);
        assert!(on_a_thread(move || other.recheck_urgency()), "it waits for the lock");
    }

    #[test]
    fn the_reason_of_a_cancel_is_known_while_the_connection_is_busy() {
        let (_silent, connection) = connection();
        let stream = RequestStream::enter(&connection, None);
        let exchange = Arc::new(Exchange::to(&Origin::new(true, "a", 1), Over::Any, Reach::Any));
        exchange.hold_stream(stream.handle()).unwrap();
        let busy = connection.state.lock();
        let (ends, end) = mpsc::channel();
        let cancels = [(); 2].map(|()| {
            let (other, ends) = (Arc::clone(&exchange), ends.clone());
            thread::spawn(move || {
                other.abort(CancelReason::Fetch);
                ends.send(()).unwrap();
            })
        });
        // The one that ends the stream waits for the connection. The other one has nothing left to do.
        assert!(end.recv_timeout(LIMIT).is_ok(), "it waits for the cancel, which waits for the connection");
        let other = Arc::clone(&exchange);
        assert!(on_a_thread(move || assert!(other.cancelled().is_some())), "it is not known, or waited for");
        drop(busy);
        cancels.into_iter().for_each(|cancel| cancel.join().unwrap());
    }
}
