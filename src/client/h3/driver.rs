//! The thread `windway-quic`: receives for all connections, except those whose only caller does that itself (`receiver.rs`), and
//! keeps their deadlines. It starts with the first connection and ends with the last.
//!
//! If it can't be started, or panics, only the connections of that moment are lost: the next one starts it again.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use mio::{Events, Poll, Registry, Token, Waker};
use parking_lot::{Condvar, Mutex};

use super::connection::{Connection, Turn};
use super::poller::{Pollers, WAKER};
use super::socket::Buffers;
use crate::error::{Error, ErrorKind};
use crate::foreign::{Panic, contain};
use crate::thread;

/// Events that one poll returns at most. Others stay ready for the next poll.
const EVENTS: usize = 64;

/// Wakes the thread, and knows its connections.
#[derive(Debug)]
pub(super) struct Driver {
    registry: Arc<Registry>,
    waker: Arc<Waker>,
    pollers: Arc<Pollers>,
    /// Locked by the thread for as long as it runs.
    poll: Mutex<Poll>,
    state: Mutex<State>,
    /// `await_ended` waits here. Notified when the thread ends.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A thread was started, and is not about to end. Always true while there is a connection.
    is_running: bool,
    /// The thread that was started last. Taken by the call that joins it.
    thread: Option<JoinHandle<()>>,
    connections: HashMap<usize, Arc<Connection>>,
    /// Only grows, so an event of a connection that is over finds none.
    next_token: usize,
}

impl Driver {
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the system has no more descriptors.
    pub(super) fn new() -> Result<Arc<Self>, Error> {
        let poll = Poll::new().map_err(no_wait)?;
        let registry = Arc::new(poll.registry().try_clone().map_err(no_wait)?);
        let waker = Arc::new(Waker::new(&registry, WAKER).map_err(no_wait)?);
        let (pollers, poll, state) = (Arc::default(), Mutex::new(poll), Mutex::default());
        Ok(Arc::new(Self { registry, waker, pollers, poll, state, ended: Condvar::new() }))
    }

    /// Receives for `connection` from now on. Starts the thread if it does not run.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the system refuses the thread, or to poll another socket.
    pub(super) fn add(self: &Arc<Self>, connection: &Arc<Connection>) -> Result<(), Error> {
        let mut state = self.state.lock();
        let token = state.next_token;
        state.next_token += 1;
        connection.register(&self.registry, Token(token)).map_err(no_wait)?;
        if !state.is_running {
            let driver = Arc::clone(self);
            // The handle of a thread that ran before is dropped without a join: that thread has nothing to do but to end.
            state.thread = Some(thread::start("quic", move || driver.run())?);
            state.is_running = true;
        }
        state.connections.insert(token, Arc::clone(connection));
        drop(state);
        // Its first packet was sent without the thread, which has to send it again if it is lost.
        self.waker.wake().map_err(no_wait)
    }

    /// Wakes the thread, which takes a turn of each connection.
    pub(super) fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    /// For callers that receive themselves.
    pub(super) fn pollers(&self) -> &Arc<Pollers> {
        &self.pollers
    }

    /// Blocks until the thread has ended, because all connections are over.
    pub(super) fn await_ended(&self) {
        let mut state = self.state.lock();
        while state.is_running {
            self.ended.wait(&mut state);
        }
        let thread = state.thread.take();
        drop(state);
        // It has nothing to do but to end. Without this, it could still be there when the caller counts threads, or unloads code.
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread for QUIC panicked");
        }
    }

    /// Main function of the thread.
    fn run(&self) {
        if let Err(panic) = contain("the thread for QUIC", || self.drive()) {
            self.handle_panic(panic);
        }
    }

    /// The thread ends by `panic`, and its connections with it: nothing would keep their deadlines.
    fn handle_panic(&self, panic: Panic) {
        let lost = {
            let mut state = self.state.lock();
            state.is_running = false;
            self.ended.notify_all();
            std::mem::take(&mut state.connections)
        };
        let error = Error::from(panic);
        lost.values().for_each(|connection| connection.fail(&error));
    }

    /// Receives and keeps deadlines until no connection is left.
    fn drive(&self) {
        let mut poll = self.poll.lock();
        let (mut events, mut buffers) = (Events::with_capacity(EVENTS), Buffers::default());
        // Latest time of the next turn of each connection, and the connections with packets that are still unread.
        let mut turns: HashMap<usize, Turn> = HashMap::new();
        loop {
            if let Err(error) = poll.poll(&mut events, timeout(&turns)) {
                // A signal. Anything else is no reason to leave the connections alone either.
                log::debug!("waiting for packets was interrupted: {error}");
            }
            let is_woken = events.iter().any(|event| event.token() == WAKER);
            let now = Instant::now();
            for (token, connection) in self.tokens() {
                let is_due =
                    |turn: &Turn| turn.has_more || turn.deadline.is_some_and(|deadline| deadline <= now);
                let is_ready = events.iter().any(|event| event.token() == Token(token));
                if is_woken || is_ready || turns.get(&token).is_none_or(is_due) {
                    turns.insert(token, connection.turn(&mut buffers));
                }
            }
            turns.retain(|token, turn| {
                if turn.is_over {
                    self.remove(*token);
                }
                !turn.is_over
            });
            let mut state = self.state.lock();
            if state.connections.is_empty() {
                // Under the lock: a connection that is added from now on starts another thread.
                state.is_running = false;
                self.ended.notify_all();
                return;
            }
        }
    }

    /// The connections that are not over.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        self.state.lock().connections.values().cloned().collect()
    }

    fn tokens(&self) -> Vec<(usize, Arc<Connection>)> {
        let state = self.state.lock();
        state.connections.iter().map(|(token, connection)| (*token, Arc::clone(connection))).collect()
    }

    fn remove(&self, token: usize) {
        let removed = self.state.lock().connections.remove(&token);
        if let Some(connection) = removed {
            connection.deregister();
        }
    }
}

fn no_wait(cause: io::Error) -> Error {
    Error::new(ErrorKind::Io(cause.kind()), "can't wait for QUIC packets").with_cause(cause)
}

/// How long the thread may sleep. `None`: until a packet comes or it is woken.
fn timeout(turns: &HashMap<usize, Turn>) -> Option<std::time::Duration> {
    if turns.values().any(|turn| turn.has_more) {
        return Some(std::time::Duration::ZERO);
    }
    let first = turns.values().filter_map(|turn| turn.deadline).min()?;
    Some(first.saturating_duration_since(Instant::now()))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::client::h3::connection::RequestStream;

    #[test]
    fn a_thread_that_panics_ends_its_connections_and_is_started_again() {
        let driver = Driver::new().unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let [lost, next] = [(); 2]
            .map(|()| Connection::preset((driver.waker(), driver.pollers()), silent.local_addr().unwrap()));
        // As the thread leaves it.
        let state = || driver.state.lock();
        (state().is_running, state().next_token) = (true, 1);
        state().connections.insert(0, Arc::clone(&lost));
        let stream = RequestStream::enter(&lost, None);
        driver.handle_panic(contain("a test", || panic!("as it wants")).unwrap_err());
        let error = stream.send(&[], Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panicked);
        driver.add(&next).unwrap();
        assert!(state().is_running && state().connections.len() == 1);
        next.close();
        driver.await_ended();
    }
}
