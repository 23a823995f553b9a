//! The connection pool: connections that are kept alive after a request, and preconnected ones.
//!
//! - [idle] decides which connections are kept and which are missing, with [origin_pool] for those to one origin and [demand] for
//!   what it needs. All are pure.
//! - This module has their lock: a request takes a connection out and returns it.
//! - [preconnect] has the threads that open what is missing, [deadlines] the one that closes what is too old.
//!
//! A connection in this pool serves one request at a time, and is out of the pool meanwhile. Connections that many requests
//! share, such as those of HTTP/3, do not belong here: they are never taken out, and have no idle time.

mod deadlines;
mod demand;
pub(crate) mod idle;
pub(crate) mod origin_pool;
pub(crate) mod preconnect;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use ureq::config::Config;
use ureq::unversioned::transport::NextTimeout;

use self::idle::IdleConnections;
use self::origin_pool::Limits;
use super::exchange::Exchange;
use crate::cancel::{CancelReason, CancelToken};
use crate::client::h1::connection::Connection;
use crate::client::net::dial::Dialer;
use crate::origin::Origin;

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
    /// Boxed, because a connection is moved several times for each request.
    idle: IdleConnections<Box<Connection>>,
    diallers: usize,
    /// Next wake-up of the deadline thread. `None` while there is no such thread.
    wakes_at: Option<Instant>,
    closed: bool,
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
    ) -> Option<Box<Connection>> {
        loop {
            let (found, old, is_wanted_ahead) = {
                let mut state = self.state.lock();
                let (found, old) =
                    state.idle.checkout(origin, |connection| is_wanted(connection), Instant::now());
                (found, old, state.idle.is_wanted(origin))
            };
            // Without the lock: closing a socket is a system call, and of TLS a write.
            drop(old);
            let found = found.map(|mut connection| {
                // Without the lock: `is_open` is a system call.
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
        // Acquire, with the AcqRel of `change_network`: a request that begins after that call uses no old connection.
        connection.network == self.network.load(Ordering::Acquire)
    }

    /// Returns a connection that can serve another request to the pool.
    pub(crate) fn put_back(self: &Arc<Self>, origin: &Origin, connection: Box<Connection>) {
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
    ) -> Result<Box<Connection>, ureq::Error> {
        // Before the dial: a connection whose dial began on the old network is not used on the new one.
        let network = self.network.load(Ordering::Acquire);
        Ok(Box::new(Connection::new(self.dialer.open(origin, exchange, config, timeout)?, network)))
    }

    /// Records that a request to `origin`, which began at `began`, could not connect, or got no answer.
    pub(crate) fn record_failed(&self, origin: &Origin, began: Instant) {
        self.state.lock().idle.handle_failed(origin, began, Instant::now());
    }

    /// True if connections to `origin` lead to a proxy.
    pub(crate) fn is_proxied(&self, origin: &Origin) -> bool {
        self.dialer.proxy_for(origin).is_some()
    }

    /// Host and port of the proxy to which connections to `origin` lead.
    pub(crate) fn proxy_for(&self, origin: &Origin) -> Option<String> {
        Some(self.dialer.proxy_for(origin)?.name())
    }

    /// True if a proven connection to `origin`, which has served a request, is idle.
    pub(crate) fn has_proven(&self, origin: &Origin) -> bool {
        self.state.lock().idle.has(origin, |connection| connection.is_proven())
    }

    /// True if `origin` is known to serve one connection at a time.
    pub(crate) fn is_single_connection(&self, origin: &Origin) -> bool {
        self.has_single_connections.load(Ordering::Relaxed)
            && self.state.lock().idle.is_single_connection(origin)
    }

    /// Records that a new connection to `origin` got no answer while a proven one did.
    pub(crate) fn record_unanswered(&self, origin: &Origin) {
        if self.state.lock().idle.handle_unanswered(origin) {
            self.has_single_connections.store(true, Ordering::Relaxed);
            log::debug!("{} serves one connection at a time", origin.host);
        }
    }

    /// Records that a new connection to `origin` got an answer.
    pub(crate) fn record_answered(self: &Arc<Self>, origin: &Origin) {
        let is_back = self.state.lock().idle.handle_answered(origin, Instant::now());
        if is_back {
            self.refill();
        }
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
    pub(crate) fn record_refused(&self, origin: &Origin) {
        let gone = self.state.lock().idle.handle_refused(origin, Instant::now());
        drop(gone);
    }

    /// Closes all idle connections and cancels the running preconnects.
    pub(crate) fn change_network(self: &Arc<Self>) {
        // First: a connection that is returned from now on is closed, and does not slip in behind the clearing.
        let network = self.network.fetch_add(1, Ordering::AcqRel) + 1;
        log::debug!("the network has changed ({network})");
        let gone = self.state.lock().idle.change_network(Instant::now());
        drop(gone);
        let old = std::mem::replace(&mut *self.dials.lock(), self.closing.child(CancelReason::Fetch));
        // Before the new dials start: the old ones count against their limit.
        old.cancel();
        // A dial that waits for a name looks at its token only when it is woken.
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
        // A dial that waits for a name looks at its token only when it is woken.
        self.dialer.lookups.wake_all();
        // Without the lock: `closed` was set under it, so the deadline thread has either seen that or waits already.
        self.deadline.notify_all();
    }

    /// Blocks until the threads that [`close`](Self::close) stopped have ended.
    pub(crate) fn await_closed(&self) {
        let mut state = self.state.lock();
        while state.diallers > 0 || state.wakes_at.is_some() {
            self.ended.wait(&mut state);
        }
    }
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool").field("idle", &self.state.lock().idle).finish_non_exhaustive()
    }
}
