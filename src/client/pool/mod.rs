//! Keeps connections ready: those that have served a request, and those opened ahead of one.
//!
//! What is wanted and what is there is the business of [idle]; here are its lock, and the threads that open
//! what is lacking. They begin when something is lacking and end when nothing is.
//!
//! What is idle for too long has to be closed though nobody asks for it. A thread sees to that: it sleeps up to the next
//! deadline of [idle], and ends when nothing is idle.
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

/// How long the thread of the deadlines stays where there are none. A thread costs about as much as ten small requests.
const LINGER: Duration = Duration::from_secs(5);

/// The connections that are ready, and those who open more.
pub(crate) struct ConnectionPool {
    state: Mutex<PoolState>,
    /// Notified when a dial thread has ended.
    ended: Condvar,
    /// Where the thread waits that keeps the deadlines. Notified when there is an earlier one, and by the close.
    deadline: Condvar,
    dialer: Dialer,
    config: Config,
    /// Which network it is: grows when the network has changed, and what was opened before is not used again.
    network: AtomicU64,
    /// Cancelled when the client closes.
    closing: CancelToken,
    /// Ends the dials of this network: cancelled when it has changed.
    dials: Mutex<CancelToken>,
}

struct PoolState {
    idle: IdleConnections<Connection>,
    diallers: usize,
    /// When the thread that keeps the deadlines wakes next. `None` while there is none.
    wakes_at: Option<Instant>,
    closed: bool,
}

/// Keeps a connection to an origin ready for as long as it lives.
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
            dials: Mutex::new(closing.child(CancelReason::Fetch)),
            closing,
        })
    }

    /// A connection to `origin` that is ready, alive, and as `is_wanted`. Those found dead are closed, and what is lacking
    /// after it is opened in the background.
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
            // A dead one is closed, and the next one looked at.
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

    /// Takes a connection that is fit for another request.
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
                // A thread that waits for a deadline wakes before this connection is too old.
                if state.wakes_at.is_none() || state.idle.has_surplus(origin) {
                    self.keep_deadlines(&mut state);
                }
                gone
            }
        };
        drop(gone);
    }

    /// Opens a connection to `origin`, bound to `exchange`. Blocks for the limits of its parts.
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

    /// True if a connection to `origin` is ready that has served a request.
    pub(crate) fn has_proven(&self, origin: &Origin) -> bool {
        self.state.lock().idle.has(origin, Connection::is_proven)
    }

    /// True if `origin` is known to answer one connection at a time.
    pub(crate) fn is_single_connection(&self, origin: &Origin) -> bool {
        self.state.lock().idle.is_single_connection(origin)
    }

    /// Notes that a new connection to `origin` got no answer while one that had served others did.
    pub(crate) fn note_unanswered(&self, origin: &Origin) {
        if self.state.lock().idle.note_unanswered(origin) {
            log::debug!("{} serves one connection at a time", origin.host);
        }
    }

    /// Notes that a new connection to `origin` got an answer.
    pub(crate) fn note_answered(&self, origin: &Origin) {
        self.state.lock().idle.note_answered(origin);
    }

    /// Wants so many connections ready, for as long as the origin is used.
    pub(crate) fn want(self: &Arc<Self>, origin: &Origin, ready: usize) {
        self.state.lock().idle.want(origin, ready, Instant::now());
        self.refill();
    }

    /// Keeps a connection ready while the result lives.
    pub(crate) fn keep_preconnected(self: &Arc<Self>, origin: &Origin) -> PreconnectGuard {
        let single_connection = self.state.lock().idle.keep_preconnected(origin, true, Instant::now());
        self.refill();
        PreconnectGuard { pool: Arc::clone(self), origin: origin.clone(), single_connection }
    }

    /// Lets go of what leads to `origin`.
    pub(crate) fn forget(&self, origin: &Origin) {
        let gone = self.state.lock().idle.clear(Some(origin));
        drop(gone);
    }

    /// Lets go of what leads to `origin` and has been idle since before `since`.
    pub(crate) fn forget_older(&self, origin: &Origin, since: Instant) {
        let gone = self.state.lock().idle.clear_older(origin, since);
        drop(gone);
    }

    /// Lets go of what leads to `origin`, which refuses more connections than it serves, and opens none ahead for a while.
    pub(crate) fn note_refused(&self, origin: &Origin) {
        let gone = self.state.lock().idle.note_refused(origin, Instant::now());
        drop(gone);
    }

    /// Lets go of all that was opened so far, and of what is being opened ahead.
    pub(crate) fn change_network(self: &Arc<Self>) {
        let network = self.network.fetch_add(1, Ordering::AcqRel) + 1;
        log::debug!("the network has changed ({network})");
        let gone = self.state.lock().idle.change_network();
        drop(gone);
        let old = std::mem::replace(&mut *self.dials.lock(), self.closing.child(CancelReason::Fetch));
        // Before the new ones begin: each thread that dials on the old network is one less for them.
        old.cancel();
        self.dialer.lookups.wake_all();
        self.refill();
    }

    /// Connections that are ready.
    pub(crate) fn idle(&self) -> usize {
        let mut state = self.state.lock();
        let old = state.idle.expire(Instant::now());
        let idle = state.idle.idle();
        drop(state);
        drop(old);
        idle
    }

    /// Closes all, and opens no more. Does not block.
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

    /// Blocks until the threads that `close` ends have ended.
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

    /// Sees to it that somebody opens what is lacking.
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
                log::warn!("no thread to open connections ahead: {error}");
                self.end_dial(&dial, None);
                return;
            }
        }
    }

    /// A thread that opens connections, until nothing is lacking.
    fn run_dialler(self: &Arc<Self>, first: Dial) {
        let mut next = Some(first);
        while let Some(dial) = next {
            // Or the origin counted as being dialled, and got no connection ahead any more.
            let opened = contain("opening a connection ahead", || self.open_ahead(&dial.origin))
                .unwrap_or_else(|panic| Err(panic.into()));
            if let Err(error) = &opened {
                log::debug!("no connection to {} ahead: {error}", dial.origin.host);
            }
            self.end_dial(&dial, opened.ok());
            let mut state = self.state.lock();
            next = if state.closed { None } else { state.idle.poll_dial(Instant::now()) };
        }
    }

    fn end_dial(self: &Arc<Self>, dial: &Dial, opened: Option<Connection>) {
        let is_opened = opened.is_some();
        // Ready before it counts as dialled, or another one would seem to be lacking in between.
        if let Some(connection) = opened {
            self.dialer.counters.preconnected.fetch_add(1, Ordering::Relaxed);
            self.put_back(&dial.origin, connection);
        }
        self.state.lock().idle.handle_dialled(dial, is_opened);
    }

    /// Sees to it that a thread wakes at the next deadline of [idle].
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
                    // What is too old is closed at the next use then.
                    Err(error) => log::warn!("no thread to close idle connections: {error}"),
                }
            }
        }
    }

    /// The thread that closes what is idle for too long and opens what waited for slow dials, until there is neither.
    fn run_deadlines(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let mut had_none = false;
        while !state.closed {
            let old = state.idle.expire(Instant::now());
            // A close may block, and a dial takes the lock.
            MutexGuard::unlocked(&mut state, || {
                // Whoever closes the client waits for this thread, so that a panic must not end it.
                let _ = contain("closing idle connections", || drop(old));
                self.refill();
            });
            let now = Instant::now();
            let next = state.idle.next_deadline(now);
            if state.closed || (next.is_none() && had_none) {
                break;
            }
            had_none = next.is_none();
            // No connection is idle while the only one serves a request, and in a moment it is again.
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

/// A thread that opens connections ahead, as the count of them sees it. `close` waits until there is none, so that each has
/// to leave, however it ends.
struct Dialler(Arc<ConnectionPool>);

impl Drop for Dialler {
    fn drop(&mut self) {
        // Under the lock, so that nobody is between the look and the wait.
        let mut state = self.0.state.lock();
        state.diallers -= 1;
        self.0.ended.notify_all();
    }
}

impl PreconnectGuard {
    /// True if the origin was found to answer one connection at a time.
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
