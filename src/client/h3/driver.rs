//! The thread `windway-quic`: receives for all connections, except those whose only caller does that itself (`receiver.rs`), and
//! keeps their deadlines. It starts with the first connection and ends with the last.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use mio::{Events, Poll, Registry, Token, Waker};
use parking_lot::{Condvar, Mutex};

use super::connection::{Connection, Turn};
use super::poller::{Pollers, WAKER};
use super::socket::Buffers;

/// Events that one poll returns at most. Others stay ready for the next poll.
const EVENTS: usize = 64;

/// Wakes the thread, and knows its connections.
#[derive(Debug)]
pub(super) struct Driver {
    registry: Arc<Registry>,
    waker: Arc<Waker>,
    pollers: Arc<Pollers>,
    state: Mutex<State>,
    /// `await_ended` waits here. Notified when the thread ends.
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    /// `None` while a thread uses it.
    poll: Option<Poll>,
    /// The thread that was started last. Taken by the call that joins it.
    thread: Option<JoinHandle<()>>,
    /// A thread could not be started, and the poll is lost with it.
    is_lost: bool,
    connections: HashMap<usize, Arc<Connection>>,
    /// Only grows, so an event of a connection that is over finds none.
    next_token: usize,
}

impl Driver {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let poll = Poll::new()?;
        let registry = Arc::new(poll.registry().try_clone()?);
        let waker = Arc::new(Waker::new(&registry, WAKER)?);
        let state = State {
            poll: Some(poll),
            thread: None,
            is_lost: false,
            connections: HashMap::new(),
            next_token: 0,
        };
        let (pollers, state) = (Arc::default(), Mutex::new(state));
        Ok(Arc::new(Self { registry, waker, pollers, state, ended: Condvar::new() }))
    }

    /// Receives for `connection` from now on. Starts the thread if it does not run.
    pub(super) fn add(self: &Arc<Self>, connection: &Arc<Connection>) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.is_lost {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let token = state.next_token;
        state.next_token += 1;
        connection.register(&self.registry, Token(token))?;
        if let Some(poll) = state.poll.take() {
            let driver = Arc::clone(self);
            let named = thread::Builder::new().name("windway-quic".into());
            match named.spawn(move || driver.run(poll)) {
                // The handle of a thread that ran before is dropped without a join: that thread has given the poll back as
                // its last act.
                Ok(thread) => state.thread = Some(thread),
                Err(error) => {
                    state.is_lost = true;
                    return Err(error);
                }
            }
        }
        state.connections.insert(token, Arc::clone(connection));
        drop(state);
        // Its first packet was sent without the thread, which has to send it again if it is lost.
        self.waker.wake()
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
        while state.poll.is_none() && !state.is_lost {
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
    fn run(&self, mut poll: Poll) {
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
                state.poll = Some(poll);
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

/// How long the thread may sleep. `None`: until a packet comes or it is woken.
fn timeout(turns: &HashMap<usize, Turn>) -> Option<std::time::Duration> {
    if turns.values().any(|turn| turn.has_more) {
        return Some(std::time::Duration::ZERO);
    }
    let first = turns.values().filter_map(|turn| turn.deadline).min()?;
    Some(first.saturating_duration_since(Instant::now()))
}
