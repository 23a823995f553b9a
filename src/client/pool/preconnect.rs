//! Opens connections before they are used. The threads start when a connection is missing and end when none is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ureq::Timeout;
use ureq::unversioned::transport::{NextTimeout, time};

use super::ConnectionPool;
use super::idle::Dial;
use crate::cancel::CancelStage;
use crate::client::exchange::Exchange;
use crate::client::h1::connection::Connection;
use crate::error::Error;
use crate::foreign::contain;
use crate::origin::Origin;
use crate::thread;

/// Keeps connections to an origin ready until it is dropped.
pub(crate) struct PoolGuard {
    pool: Arc<ConnectionPool>,
    origin: Origin,
    ready: usize,
    single_connection: Arc<AtomicBool>,
}

impl ConnectionPool {
    /// Preconnects until `ready` connections to `origin` are idle, and again as they are used, while the origin is in use.
    pub(crate) fn want(self: &Arc<Self>, origin: &Origin, ready: usize) {
        self.state.lock().idle.want(origin, ready, Instant::now());
        self.refill();
    }

    /// Keeps this many connections to `origin` ready until the guard is dropped.
    pub(crate) fn keep_preconnected(self: &Arc<Self>, origin: &Origin, ready: usize) -> PoolGuard {
        let single_connection = self.state.lock().idle.keep_preconnected(origin, ready, Instant::now());
        self.refill();
        PoolGuard { pool: Arc::clone(self), origin: origin.clone(), ready, single_connection }
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
    pub(super) fn refill(self: &Arc<Self>) {
        loop {
            let dial = {
                let mut state = self.state.lock();
                if state.closed {
                    return;
                }
                let Some(dial) = state.idle.poll_dial(Instant::now()) else {
                    // The next dial may be due when a running one becomes slow.
                    return self.keep_deadlines(&mut state);
                };
                // Before its thread starts: a pool that is closed in between waits for it.
                state.diallers += 1;
                dial
            };
            let (dialler, first) = (Dialler(Arc::clone(self)), dial.clone());
            if let Err(error) = thread::start("dial", move || dialler.0.run_dialler(first)) {
                log::warn!("can't start a thread to preconnect: {error}");
                // The origin counts as failed by it for a while, so that this is not tried again at each request.
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

    fn end_dial(self: &Arc<Self>, dial: &Dial, opened: Option<Box<Connection>>) {
        let is_opened = opened.is_some();
        // First make it ready, then end the dial: in the other order a connection would seem to be missing in between.
        if let Some(connection) = opened {
            self.dialer.counters.preconnected.fetch_add(1, Ordering::Relaxed);
            self.put_back(&dial.origin, connection);
        }
        self.state.lock().idle.handle_dialled(dial, is_opened, Instant::now());
    }

    /// Opens a connection to `origin` on a thread of its own, adds it to the idle ones, and then calls `done` with whether that
    /// has worked. `done` must not block, and is not called if no thread can be started.
    #[cfg(feature = "http3")]
    pub(crate) fn open_beside(self: &Arc<Self>, origin: &Origin, done: impl FnOnce(bool) + Send + 'static) {
        {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            state.diallers += 1;
        }
        let (dialler, origin) = (Dialler(Arc::clone(self)), origin.clone());
        let spawned = thread::start("dial", move || {
            let pool = &dialler.0;
            let opened = contain("opening a connection", || pool.open_ahead(&origin));
            let opened = opened.unwrap_or_else(|panic| Err(panic.into()));
            let is_open = opened.is_ok();
            match opened {
                // First make it ready: a request may wait for it in `done`.
                Ok(connection) => pool.put_back(&origin, connection),
                Err(error) => log::debug!("no connection to {}: {error}", origin.host),
            }
            done(is_open);
        });
        if let Err(error) = spawned {
            log::warn!("can't start a thread to connect: {error}");
        }
    }

    fn open_ahead(&self, origin: &Origin) -> Result<Box<Connection>, Error> {
        let exchange = Arc::new(Exchange::default());
        let dials = self.dials.lock().clone();
        let _on_close = dials.on_cancel(CancelStage::Abort, {
            let exchange = Arc::clone(&exchange);
            move |reason| exchange.abort(reason)
        });
        let after = time::Duration::Exact(self.config.timeouts().connect.unwrap_or_default());
        let timeout = NextTimeout { after, reason: Timeout::Connect, per_read: None, per_write: None };
        let opened = self.open(origin, &exchange, &self.config, timeout);
        // No request is sent, so no silence limit can be met but that of the proxy and of the handshake, which have their own texts.
        let connection = opened.map_err(|error| Error::from_ureq(error, Duration::ZERO))?;
        // Bound for the dial only: a later cancel of the dials must not close it while it serves a request.
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

impl PoolGuard {
    /// The holder's connection was closed in the middle of a body. It will need one again.
    pub(crate) fn handle_cut(&self) {
        self.pool.state.lock().idle.handle_cut(&self.origin);
        self.pool.refill();
    }

    /// True if the origin has turned out to serve one connection at a time.
    pub(crate) fn is_single_connection(&self) -> bool {
        self.single_connection.load(Ordering::Relaxed)
    }
}

impl Drop for PoolGuard {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.idle.stop_preconnecting(&self.origin, self.ready);
        // A connection that was kept for this stream may be due by now.
        if state.idle.has_surplus(&self.origin) {
            self.pool.keep_deadlines(&mut state);
        }
    }
}

impl fmt::Debug for PoolGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolGuard").field("origin", &self.origin).finish()
    }
}
