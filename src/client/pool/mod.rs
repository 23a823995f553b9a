//! The connection pool: connections that are kept alive after a request, and preconnected ones.
//!
//! [idle] decides which connections are kept and which are missing. This module has its lock, and the threads that open the
//! missing ones. They start when a connection is missing and end when none is.
//!
//! Old idle connections have to be closed even if no request comes. A thread does that: it sleeps until the next deadline of
//! [idle], and ends when there is none.
pub(crate) mod idle;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use parking_lot::{Condvar, Mutex, MutexGuard};
use ureq::Timeout;
use ureq::config::Config;
use ureq::unversioned::transport::{NextTimeout, time};

use self::idle::{Dial, IdleConnections, Limits};
use super::exchange::Exchange;
use crate::cancel::{CancelReason, CancelToken};
use crate::client::h1::connection::Connection;
use crate::client::net::dial::Dialer;
use crate::error::Error;
use crate::foreign::contain;
use crate::origin::Origin;

/// Time after which the deadline thread ends if there is no deadline. Starting a thread costs about as much as ten small
/// requests.
const LINGER: Duration = Duration::from_secs(5);

/// The idle connections, and the threads that open more.
pub(crate) struct ConnectionPool {
    state: Mutex<PoolState>,
    /// `await_closed` waits here. Notified when a dial thread or the deadline thread has ended.
    ended: Condvar,
    /// The deadline thread waits here. Notified when there is an earlier deadline, and by `close`.
    deadline: Condvar,
    dialer: Dialer,
    config: Config,
    /// Number of the current network. Grows with each change; connections that were opened before are not used again.
    network: AtomicU64,
    /// An origin that serves one connection at a time was found. Spares most requests the lock.
    has_single_connections: AtomicBool,
    /// Cancelled when the client closes.
    closing: CancelToken,
    /// Token of the dials on the current network. Cancelled when the network changes.
    dials: Mutex<CancelToken>,
}

struct PoolState {
    idle: IdleConnections<Connection>,
    diallers: usize,
    /// Next wake-up of the deadline thread. `None` while there is no such thread.
    wakes_at: Option<Instant>,
    closed: bool,
}

/// Keeps a connection to an origin ready until it is dropped.
pub(crate) struct PreconnectGuard {
    pool: Arc<ConnectionPool>,
    origin: Origin,
    single_connection: Arc<AtomicBool>,
}

impl ConnectionPool {
    pub(crate) fn new(dialer: Dialer, config: Config, limits: Limits) -> Arc<Self> {
        let state =
            PoolState { idle: IdleConnections::new(limits), diallers: 0, wakes_at: None, closed: false };
        let closing = CancelToken::new(CancelReason::Shutdown);
        Arc::new(Self {
            state: Mutex::new(state),
            ended: Condvar::new(),
            deadline: Condvar::new(),
            dialer,
            config,
            network: AtomicU64::new(0),
            has_single_connections: AtomicBool::new(false),
            dials: Mutex::new(closing.child(CancelReason::Fetch)),
            closing,
        })
    }

    /// Takes an open idle connection to `origin` that satisfies `is_wanted`. Closes dead ones on the way, and opens the
    /// connections that are missing afterwards in the background.
    pub(crate) fn checkout(
        self: &Arc<Self>,
        origin: &Origin,
        is_wanted: impl Fn(&Connection) -> bool,
    ) -> Option<Connection> {
        loop {
            let (found, old, is_wanted_ahead) = {
                let mut state = self.state.lock();
                let (found, old) = state.idle.checkout(origin, &is_wanted, Instant::now());
                (found, old, state.idle.is_wanted(origin))
            };
            drop(old);
            let found = found.map(|mut connection| {
                let is_fit = self.is_usable(&connection) && connection.is_open();
                is_fit.then_some(connection)
            });
            // A dead connection was closed: check the next one.
            if let None | Some(Some(_)) = found {
                if is_wanted_ahead {
                    self.refill();
                }
                return found.flatten();
            }
        }
    }

    fn is_usable(&self, connection: &Connection) -> bool {
        connection.network == self.network.load(Ordering::Acquire)
    }

    /// Returns a connection that can serve another request to the pool.
    pub(crate) fn put_back(self: &Arc<Self>, origin: &Origin, connection: Connection) {
        if !self.is_usable(&connection) {
            return;
        }
        let gone = {
            let mut state = self.state.lock();
            if state.closed {
                vec![connection]
            } else {
                let gone = state.idle.put(origin, connection, Instant::now());
                // Otherwise a deadline thread is running, and it wakes before this connection is too old.
                if state.wakes_at.is_none() || state.idle.has_surplus(origin) {
                    self.keep_deadlines(&mut state);
                }
                gone
            }
        };
        drop(gone);
    }

    /// Opens a connection to `origin`, bound to `exchange`. Blocks for at most the limits of the lookup and of the connect.
    pub(crate) fn open(
        &self,
        origin: &Origin,
        exchange: &Exchange,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<Connection, ureq::Error> {
        let network = self.network.load(Ordering::Acquire);
        Ok(Connection::new(self.dialer.open(origin, exchange, config, timeout)?, network))
    }

    /// True if all connections lead to a proxy.
    pub(crate) fn has_proxy(&self) -> bool {
        self.dialer.proxy.is_some()
    }

    /// True if a proven connection to `origin`, which has served a request, is idle.
    pub(crate) fn has_proven(&self, origin: &Origin) -> bool {
        self.state.lock().idle.has(origin, Connection::is_proven)
    }

    /// True if `origin` is known to serve one connection at a time.
    pub(crate) fn is_single_connection(&self, origin: &Origin) -> bool {
        self.has_single_connections.load(Ordering::Relaxed)
            && self.state.lock().idle.is_single_connection(origin)
    }

    /// Records that a new connection to `origin` got no answer while a proven one did.
    pub(crate) fn note_unanswered(&self, origin: &Origin) {
        if self.state.lock().idle.note_unanswered(origin) {
            self.has_single_connections.store(true, Ordering::Relaxed);
            log::debug!("{} serves one connection at a time", origin.host);
        }
    }

    /// Records that a new connection to `origin` got an answer.
    pub(crate) fn note_answered(&self, origin: &Origin) {
        self.state.lock().idle.note_answered(origin);
    }

    /// Preconnects until `ready` connections to `origin` are idle, and again as they are used, while the origin is in use.
    pub(crate) fn want(self: &Arc<Self>, origin: &Origin, ready: usize) {
        self.state.lock().idle.want(origin, ready, Instant::now());
        self.refill();
    }

    /// Keeps a connection to `origin` ready until the guard is dropped.
    pub(crate) fn keep_preconnected(self: &Arc<Self>, origin: &Origin) -> PreconnectGuard {
        let single_connection = self.state.lock().idle.keep_preconnected(origin, true, Instant::now());
        self.refill();
        PreconnectGuard { pool: Arc::clone(self), origin: origin.clone(), single_connection }
    }

    /// Closes the idle connections to `origin`.
    pub(crate) fn forget(&self, origin: &Origin) {
        let gone = self.state.lock().idle.clear(Some(origin));
        drop(gone);
    }

    /// Closes the connections to `origin` that became idle before `since`.
    pub(crate) fn forget_older(&self, origin: &Origin, since: Instant) {
        let gone = self.state.lock().idle.clear_older(origin, since);
        drop(gone);
    }

    /// Closes the idle connections to `origin`, which refused another connection, and stops preconnecting to it for a while.
    pub(crate) fn note_refused(&self, origin: &Origin) {
        let gone = self.state.lock().idle.note_refused(origin, Instant::now());
        drop(gone);
    }

    /// Closes all idle connections and cancels the running preconnects.
    pub(crate) fn change_network(self: &Arc<Self>) {
        let network = self.network.fetch_add(1, Ordering::AcqRel) + 1;
        log::debug!("the network has changed ({network})");
        let gone = self.state.lock().idle.change_network();
        drop(gone);
        let old = std::mem::replace(&mut *self.dials.lock(), self.closing.child(CancelReason::Fetch));
        // Before the new dials start: the old ones count against their limit.
        old.cancel();
        self.dialer.lookups.wake_all();
        self.refill();
    }

    /// Number of idle connections, without those that are too old.
    pub(crate) fn idle(&self) -> usize {
        let mut state = self.state.lock();
        let old = state.idle.expire(Instant::now());
        let idle = state.idle.idle();
        drop(state);
        drop(old);
        idle
    }

    /// Closes all idle connections, and opens none any more. Does not block.
    pub(crate) fn close(&self) {
        let gone = {
            let mut state = self.state.lock();
            state.closed = true;
            state.idle.clear(None)
        };
        drop(gone);
        self.closing.cancel();
        self.dialer.lookups.wake_all();
        self.deadline.notify_all();
    }

    /// Blocks until the threads that [`close`](Self::close) stopped have ended.
    pub(crate) fn await_closed(&self) {
        let mut state = self.state.lock();
        while state.diallers > 0 || state.wakes_at.is_some() {
            self.ended.wait(&mut state);
        }
    }

    /// Blocks until every connection that is being preconnected is ready or has failed.
    #[cfg(feature = "bench")]
    pub(crate) fn await_preconnects(&self) {
        let mut state = self.state.lock();
        while state.diallers > 0 {
            self.ended.wait(&mut state);
        }
    }

    /// Starts a thread for each dial that may start now.
    fn refill(self: &Arc<Self>) {
        loop {
            let dial = {
                let mut state = self.state.lock();
                if state.closed {
                    return;
                }
                let Some(dial) = state.idle.poll_dial(Instant::now()) else {
                    return self.keep_deadlines(&mut state);
                };
                state.diallers += 1;
                dial
            };
            let (dialler, first) = (Dialler(Arc::clone(self)), dial.clone());
            let named = thread::Builder::new().name("windway-dial".into());
            if let Err(error) = named.spawn(move || dialler.0.run_dialler(first)) {
                log::warn!("can't start a thread to preconnect: {error}");
                self.end_dial(&dial, None);
                return;
            }
        }
    }

    /// Main function of a dial thread: opens connections until none is missing.
    fn run_dialler(self: &Arc<Self>, first: Dial) {
        let mut next = Some(first);
        while let Some(dial) = next {
            // Catches panics: otherwise the dial would count as running forever, and the origin would never be preconnected
            // again.
            let opened = contain("opening a connection ahead", || self.open_ahead(&dial.origin))
                .unwrap_or_else(|panic| Err(panic.into()));
            if let Err(error) = &opened {
                log::debug!("preconnecting to {} failed: {error}", dial.origin.host);
            }
            self.end_dial(&dial, opened.ok());
            let mut state = self.state.lock();
            next = if state.closed { None } else { state.idle.poll_dial(Instant::now()) };
        }
    }

    fn end_dial(self: &Arc<Self>, dial: &Dial, opened: Option<Connection>) {
        let is_opened = opened.is_some();
        // First make it ready, then end the dial: in the other order a connection would seem to be missing in between.
        if let Some(connection) = opened {
            self.dialer.counters.preconnected.fetch_add(1, Ordering::Relaxed);
            self.put_back(&dial.origin, connection);
        }
        self.state.lock().idle.handle_dialled(dial, is_opened);
    }

    /// Makes a thread wake at the next deadline of [idle].
    fn keep_deadlines(self: &Arc<Self>, state: &mut PoolState) {
        let Some(at) = state.idle.next_deadline(Instant::now()).filter(|_| !state.closed) else {
            return;
        };
        match state.wakes_at {
            Some(wakes_at) if wakes_at <= at => {}
            Some(_) => {
                self.deadline.notify_all();
            }
            None => {
                let pool = Arc::clone(self);
                let named = thread::Builder::new().name("windway-idle".into());
                match named.spawn(move || pool.run_deadlines()) {
                    Ok(_waited_for_by_close) => state.wakes_at = Some(at),
                    // Old connections are then closed at the next use of their origin.
                    Err(error) => log::warn!("can't start a thread to close idle connections: {error}"),
                }
            }
        }
    }

    /// Main function of the deadline thread: closes old idle connections and starts dials that waited for slow ones, until
    /// there are no deadlines.
    fn run_deadlines(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let mut had_none = false;
        while !state.closed {
            let old = state.idle.expire(Instant::now());
            // Without the lock: a close may block, and `refill` takes the lock.
            MutexGuard::unlocked(&mut state, || {
                // A panic must not end this thread: `await_closed` waits until `wakes_at` is `None`.
                let _ = contain("closing idle connections", || drop(old));
                self.refill();
            });
            let now = Instant::now();
            let next = state.idle.next_deadline(now);
            if state.closed || (next.is_none() && had_none) {
                break;
            }
            had_none = next.is_none();
            // Wait a while without a deadline: often the only connection serves a request now and is idle again in a moment.
            let at = next.unwrap_or(now + LINGER);
            state.wakes_at = Some(at);
            self.deadline.wait_until(&mut state, at);
        }
        state.wakes_at = None;
        self.ended.notify_all();
    }

    fn open_ahead(&self, origin: &Origin) -> Result<Connection, Error> {
        let exchange = Arc::new(Exchange::default());
        let dials = self.dials.lock().clone();
        let _on_close = dials.on_cancel({
            let exchange = Arc::clone(&exchange);
            move |reason| exchange.abort(reason)
        });
        let after = time::Duration::Exact(self.config.timeouts().connect.unwrap_or_default());
        let timeout = NextTimeout { after, reason: Timeout::Connect, per_read: None, per_write: None };
        let connection = self.open(origin, &exchange, &self.config, timeout).map_err(Error::from_ureq)?;
        connection.unbind(&exchange);
        Ok(connection)
    }
}

/// Counts a dial thread down when it is dropped, even after a panic, because `await_closed` waits until the count is zero.
struct Dialler(Arc<ConnectionPool>);

impl Drop for Dialler {
    fn drop(&mut self) {
        // Under the lock: a thread between its check and its wait would miss the notification.
        let mut state = self.0.state.lock();
        state.diallers -= 1;
        self.0.ended.notify_all();
    }
}

impl PreconnectGuard {
    /// True if the origin has turned out to serve one connection at a time.
    pub(crate) fn is_single_connection(&self) -> bool {
        self.single_connection.load(Ordering::Relaxed)
    }
}

impl Drop for PreconnectGuard {
    fn drop(&mut self) {
        self.pool.state.lock().idle.keep_preconnected(&self.origin, false, Instant::now());
    }
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool").field("idle", &self.state.lock().idle).finish_non_exhaustive()
    }
}

impl fmt::Debug for PreconnectGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreconnectGuard").field("origin", &self.origin).finish()
    }
}
