//! What the thread of a request does with its connection: it sends, waits, reads and cancels.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, MutexGuard};

use super::lock::Connection;
use super::path::PATH_SILENCE;
use super::receiving::Waiter;
use super::state::State;
use crate::client::h3::response::Head;
use crate::client::urgency::Urgency;
use crate::error::Error;

/// Bytes that are taken from a stream at a time while its head is missing.
const HEAD_PIECE: usize = 16 * 1024;

/// A request of a connection. Its drop cancels it, if its response is not complete.
pub(crate) struct RequestStream {
    connection: Arc<Connection>,
    key: u64,
    changed: Arc<Condvar>,
}

/// Aborts a request from another thread.
#[derive(Clone)]
pub(crate) struct StreamHandle {
    connection: Arc<Connection>,
    key: u64,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The handshake is complete.
    Ready,
    /// The time is over. True if a packet has arrived.
    NotYet { has_packet: bool },
}

impl StreamHandle {
    /// Ends the request, and wakes its thread.
    pub(crate) fn abort(&self) {
        self.connection.abort(self.key);
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.connection.peer
    }
}

impl RequestStream {
    /// Adds a request, which has no stream yet, to a connection. Without `urgency` it is urgent.
    pub(crate) fn enter(connection: &Arc<Connection>, urgency: Option<&Arc<dyn Urgency>>) -> Self {
        let is_urgent = || urgency.is_none_or(|urgency| urgency.is_urgent());
        let was_urgent = is_urgent();
        let (key, changed) = connection.state.lock().add_request(was_urgent, urgency);
        fence(Ordering::SeqCst);
        // Again, now that `recheck_urgency` finds the request: it may have become urgent between the two.
        if !was_urgent && is_urgent() {
            connection.make_urgent(&[key]);
        }
        Self { connection: Arc::clone(connection), key, changed }
    }

    pub(crate) fn handle(&self) -> StreamHandle {
        StreamHandle { connection: Arc::clone(&self.connection), key: self.key }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Wakes the threads of all requests of `connection`. Each asks its `is_decided` again.
    pub(crate) fn notify_all(connection: &Connection) {
        connection.state.lock().notify_all();
    }

    /// Sends the request, whose HEADERS frame is `head`, if the handshake is not complete and it may be sent before that
    /// (0-RTT). Returns when it was sent.
    pub(crate) fn send_early(&self, head: &[u8]) -> Option<Instant> {
        let sent = self.connection.with(|state, now| {
            let is_early = !state.is_ready && state.quic.has_0rtt();
            (is_early && state.open_stream(self.key, head, now)).then_some(now)
        });
        sent.flatten()
    }

    /// Blocks until the handshake is complete, until `until`, or until `is_decided`.
    pub(crate) fn await_ready(
        &self,
        until: Instant,
        is_decided: impl Fn() -> bool,
    ) -> Result<Readiness, Error> {
        self.connection.locked(|state| {
            let ready = self.wait(state, Some(until), false, |state, _| {
                if state.is_ready {
                    return Some(Ok(Readiness::Ready));
                }
                let has_packet = state.path.heard().is_some();
                is_decided().then_some(Ok(Readiness::NotYet { has_packet }))
            });
            let ready = match ready {
                // It has ended since: `send` returns the reason. The server does speak HTTP/3.
                Err(_) if state.is_ready => Some(Readiness::Ready),
                result => result?,
            };
            Ok(ready.unwrap_or(Readiness::NotYet { has_packet: state.path.heard().is_some() }))
        })
    }

    /// Sends the request, whose HEADERS frame is `head`, unless it was sent before. Blocks until the response head arrives, for at
    /// most `limit`. True if the server has got the request before the handshake was complete.
    pub(crate) fn send(&self, head: &[u8], limit: Duration) -> Result<(Head, bool), Error> {
        let until = Instant::now().checked_add(limit);
        self.connection.locked(|state| {
            let answered = self.wait(state, until, true, |state, now| {
                let request = state.requests.get(&self.key)?;
                if request.stream.is_none() {
                    if !state.is_ready || state.over.is_some() || !state.open_stream(self.key, head, now) {
                        return None;
                    }
                    state.pump(now);
                }
                let mut taken = Vec::new();
                if let Err(error) = state.take(self.key, HEAD_PIECE, &mut taken, now) {
                    return Some(Err(error));
                }
                let request = state.requests.get(&self.key)?;
                request.head.clone().map(|head| Ok((head, request.is_early)))
            })?;
            answered.ok_or_else(|| Error::silent(limit))
        })
    }

    /// Reads the available bytes of the body. Blocks until at least one byte arrives, for at most `limit`. 0 means the end.
    pub(crate) fn read(&self, buf: &mut [u8], limit: Option<Duration>) -> Result<usize, Error> {
        let mut taken = Vec::new();
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.connection.locked(|state| {
            let read = self.wait(state, until, true, |state, now| {
                let result = state.take(self.key, buf.len(), &mut taken, now);
                // What came before an error is read first. The next read returns the error.
                if let Some(error) = result.err().filter(|_| taken.is_empty()) {
                    return Some(Err(error));
                }
                let is_over = state.requests.get(&self.key).is_none_or(|request| request.is_complete);
                if taken.is_empty() && !is_over {
                    return None;
                }
                Some(Ok(()))
            })?;
            read.ok_or_else(|| Error::silent(limit.unwrap_or(Duration::MAX)))
        })?;
        // Without the lock: to copy takes longer than to take.
        let mut got = 0;
        for chunk in taken {
            buf[got..got + chunk.bytes.len()].copy_from_slice(&chunk.bytes);
            got += chunk.bytes.len();
        }
        Ok(got)
    }

    /// Blocks until `check` returns something. `None` when `until` has passed.
    fn wait<T>(
        &self,
        state: &mut MutexGuard<'_, State>,
        until: Option<Instant>,
        is_path_watched: bool,
        mut check: impl FnMut(&mut State, Instant) -> Option<Result<T, Error>>,
    ) -> Result<Option<T>, Error> {
        let mut now = Instant::now();
        let mut waiter = Waiter::default();
        state.path.handle_wait(now);
        let result = loop {
            if let Some(error) = state.failure(self.key) {
                break Err(error);
            }
            if let Some(result) = check(state, now) {
                break result.map(Some);
            }
            // Behind the check: what has arrived before can be read.
            if let Some(error) = &state.over {
                break Err(error.clone());
            }
            if until.is_some_and(|until| until <= now) {
                break Ok(None);
            }
            let path = is_path_watched.then(|| state.watch_path(now));
            if state.over.is_some() {
                continue;
            }
            // Before the deadlines: one of them is that of a socket that no thread polls.
            waiter.claim_socket(state);
            let deadline = state.deadline();
            let own = state.armed.own(deadline);
            // Always one: `path` for a response, `until` for a handshake.
            let next = [until, path, own].into_iter().flatten().min().unwrap_or(now + PATH_SILENCE);
            waiter.block(state, self.key, &self.changed, next);
            now = Instant::now();
        };
        state.path.handle_wait_end();
        waiter.leave(state);
        result
    }
}

#[cfg(test)]
impl RequestStream {
    /// A request that has just begun, on a connection whose handshake counts as complete.
    pub(crate) fn preset_silent(connection: &Arc<Connection>) -> Self {
        let stream = Self::enter(connection, None);
        connection.state.lock().is_ready = true;
        stream
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        let Self { connection, key, .. } = self;
        if connection.with(|state, now| state.release(*key, now)).is_none() {
            // The connection is over, so there is no server to inform.
            connection.state.lock().forget(*key);
        }
    }
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamHandle").field(&self.key).finish()
    }
}
