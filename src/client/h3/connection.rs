//! One QUIC connection (RFC 9000) that speaks HTTP/3: its streams, its packets, its deadlines.
//!
//! ```text
//!  worker: send, head, read ─▶ lock ─▶ quinn-proto ─▶ packets ─▶ socket
//!     ▲ condvar of the request          ▲
//!     └──────── windway-quic: packets and deadlines ──┘
//! ```
//!
//! Callers send their packets themselves, under the lock of the connection. The thread of `driver.rs` receives, and wakes the
//! requests whose streams have become readable. [`Armed`] says who keeps the deadlines.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Registry, Token, Waker};
use parking_lot::{Condvar, Mutex, MutexGuard};
use quinn_proto::{
    Chunk, ClientConfig, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event, ReadError, StreamEvent, StreamId, Transmit, VarInt, WriteError,
};

use super::armed::Armed;
use super::code::{Code, Violation};
use super::control::{self, Control, Notice, UniStream};
use super::response::{Head, Part, ResponseReader};
use super::socket::{Buffers, Received, Socket};
use crate::error::{Error, ErrorKind};
use crate::foreign::contain;

/// Least time without a packet, while a reader waits, after which the path is tested by a PING. As long again without an
/// answer, and the connection is given up. Longer than most servers think.
const PATH_SILENCE: Duration = Duration::from_millis(500);

/// The same in round trips: two for a lost packet and its repetition, twice.
const PATH_SILENCE_RTTS: u32 = 4;

/// Batches of packets that are received in a turn, so that one connection can't keep the thread from the others.
const BATCHES: usize = 8;

/// Bytes that are taken from a stream at a time while its head is missing.
const HEAD_PIECE: usize = 16 * 1024;

/// A connection. Shared by its requests and by the thread.
pub(super) struct Connection {
    state: Mutex<State>,
    /// Wakes the thread.
    waker: Arc<Waker>,
    pub(super) peer: SocketAddr,
}

/// What a turn of a connection has left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// When the next turn is due, at the latest.
    pub(super) deadline: Option<Instant>,
    /// More packets are waiting in the socket.
    pub(super) has_more: bool,
    /// The connection is over: the thread forgets it.
    pub(super) is_over: bool,
}

struct State {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    quic: quinn_proto::Connection,
    socket: Socket,
    /// Contents of the packet that is sent, or of `unsent`.
    out: Vec<u8>,
    /// A packet that did not fit into the socket's buffer.
    unsent: Option<Transmit>,
    armed: Armed<Instant>,
    requests: HashMap<u64, Request>,
    /// The requests that have a stream.
    by_stream: HashMap<StreamId, u64>,
    next_request: u64,
    control: Control,
    unidirectional: HashMap<StreamId, UniStream>,
    /// This client's control stream was opened.
    has_control: bool,
    /// Maximum size of a response head in bytes.
    max_head: usize,
    /// The handshake is complete.
    is_ready: bool,
    /// Responses that were received.
    served: u64,
    /// The server accepts no new requests, or another connection has taken its place.
    is_retired: bool,
    /// Why the connection is over. Set once.
    over: Option<Error>,
    /// When the last packet arrived.
    heard: Option<Instant>,
    /// When the path was tested. `None` once a packet has arrived since.
    tested: Option<Instant>,
    /// Readers that wait, and since when there has always been one.
    waiting: u32,
    waiting_since: Instant,
}

struct Request {
    stream: Option<StreamId>,
    reader: ResponseReader,
    head: Option<Head>,
    /// Body bytes that were parsed and not read yet: what came along with the head.
    pending: VecDeque<Chunk>,
    /// Bytes of the request that did not fit into the server's flow control.
    unwritten: Vec<u8>,
    /// The stream is complete: nothing more can be read from it.
    is_complete: bool,
    /// Sent before the handshake was complete.
    is_early: bool,
    is_aborted: bool,
    /// Its reader is gone, and only the end of the stream is missing.
    is_released: bool,
    error: Option<Error>,
    /// The thread of the request waits here. Notified when its stream is readable, when it may get a stream, when the handshake
    /// is complete, by an abort, and when the connection is over.
    changed: Arc<Condvar>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// The handshake is complete.
    Ready,
    /// Requests may be sent before the handshake is complete (0-RTT).
    Early,
    /// The time is over. True if a packet has arrived.
    NotYet { has_packet: bool },
}

impl Connection {
    /// Begins a connection to `remote`, whose certificate must be for `name`. Sends the first packet and does not block. The
    /// thread that `waker` wakes has to be given the connection.
    pub(super) fn begin(
        waker: &Arc<Waker>,
        config: ClientConfig,
        remote: SocketAddr,
        name: &str,
        max_head: usize,
    ) -> Result<Arc<Self>, Error> {
        let failed = |cause: io::Error| {
            Error::new(ErrorKind::Unreachable, "can't open a UDP socket for HTTP/3").with_cause(cause)
        };
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        let socket = Socket::bind(remote).map_err(failed)?;
        let now = Instant::now();
        let (handle, quic) = endpoint.connect(now, config, remote, name).map_err(|cause| {
            Error::new(ErrorKind::Unreachable, "can't begin a QUIC connection").with_cause(cause)
        })?;
        let mut state = State::new(endpoint, handle, quic, socket, max_head, now);
        state.pump(now);
        Ok(Arc::new(Self { state: Mutex::new(state), waker: Arc::clone(waker), peer: remote }))
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        self.state.lock().socket.register(registry, token)
    }

    pub(super) fn deregister(&self, registry: &Registry) {
        if let Err(error) = self.state.lock().socket.deregister(registry) {
            log::debug!("a UDP socket was not registered: {error}");
        }
    }

    /// True if it takes new requests.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state.lock();
        state.over.is_none() && !state.is_retired
    }

    /// Requests that are open now, and responses that were received.
    pub(super) fn load(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.requests.len(), state.served)
    }

    /// Takes no new requests, and closes once the open ones have ended.
    pub(super) fn retire(&self) {
        self.with(|state, now| {
            state.is_retired = true;
            state.close_if_unused(now);
        });
    }

    /// Closes the connection. Its requests fail.
    pub(super) fn close(&self) {
        self.with(|state, now| {
            state.close(now, Code::NO_ERROR, "", Error::new(ErrorKind::Disconnected, "closed"))
        });
    }

    /// Makes the path known again after a change of network: the server learns the new address from a PING.
    pub(super) fn handle_network_changed(&self) {
        self.with(|state, _| state.quic.ping());
    }

    /// Adds a request, which has no stream yet.
    pub(super) fn enter(self: &Arc<Self>) -> RequestStream {
        let mut state = self.state.lock();
        let key = state.next_request;
        state.next_request += 1;
        let changed = Arc::new(Condvar::new());
        let request = Request::new(state.max_head, &changed);
        state.requests.insert(key, request);
        RequestStream { connection: Arc::clone(self), key, changed }
    }

    /// A turn of the thread: receives packets and keeps deadlines.
    pub(super) fn turn(&self, buffers: &mut Buffers) -> Turn {
        let mut state = self.state.lock();
        let mut has_more = false;
        if state.over.is_none() {
            let turn = contain("QUIC", || has_more = state.receive(buffers));
            if let Err(panic) = turn {
                state.end(panic.into());
            }
        }
        let is_over = state.over.is_some();
        let deadline = if is_over { None } else { state.deadline() };
        state.armed.handle_sleep(deadline);
        Turn { deadline, has_more, is_over }
    }

    /// Runs `action` under the lock, and sends what it has caused.
    fn with<R>(&self, action: impl FnOnce(&mut State, Instant) -> R) -> Option<R> {
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

    /// Runs `action` under the lock, and leaves the deadlines to the thread. A panic in quinn-proto ends this connection only.
    fn locked<R>(
        &self,
        action: impl FnOnce(&mut MutexGuard<'_, State>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut state = self.state.lock();
        let result = contain("QUIC", || action(&mut state)).unwrap_or_else(|panic| {
            let error = Error::from(panic);
            state.end(error.clone());
            Err(error)
        });
        let must_wake = match state.over {
            // The thread forgets the connection.
            Some(_) => true,
            None => {
                let deadline = state.deadline();
                state.armed.handle_leave(deadline)
            }
        };
        drop(state);
        if must_wake {
            if let Err(error) = self.waker.wake() {
                // The deadline is then kept late: with the next packet or the next deadline.
                log::warn!("can't wake the thread for QUIC: {error}");
            }
        }
        result
    }
}

impl State {
    fn new(
        endpoint: Endpoint,
        handle: ConnectionHandle,
        quic: quinn_proto::Connection,
        socket: Socket,
        max_head: usize,
        now: Instant,
    ) -> Self {
        Self {
            endpoint,
            handle,
            quic,
            socket,
            out: Vec::new(),
            unsent: None,
            armed: Armed::new(),
            requests: HashMap::new(),
            by_stream: HashMap::new(),
            next_request: 0,
            control: Control::default(),
            unidirectional: HashMap::new(),
            has_control: false,
            max_head,
            is_ready: false,
            served: 0,
            is_retired: false,
            over: None,
            heard: None,
            tested: None,
            waiting: 0,
            waiting_since: now,
        }
    }

    fn deadline(&mut self) -> Option<Instant> {
        self.quic.poll_timeout()
    }

    /// Receives what has arrived, and keeps the deadlines. True if more may have arrived.
    fn receive(&mut self, buffers: &mut Buffers) -> bool {
        for _ in 0..BATCHES {
            let now = Instant::now();
            let received = self.receive_batch(buffers, now);
            self.advance(now);
            match received {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An ICMP error on some systems. It is no proof: RFC 9000, section 14.2.1.
                Err(error) => {
                    log::debug!("receiving on a UDP socket failed: {error}");
                    return false;
                }
            }
        }
        true
    }

    /// Receives some packets and passes them to quinn-proto.
    fn receive_batch(&mut self, buffers: &mut Buffers, now: Instant) -> io::Result<()> {
        let Self { socket, endpoint, quic, handle, heard, tested, .. } = self;
        let mut reply = Vec::new();
        socket.receive(buffers, |received| {
            (*heard, *tested) = (Some(now), None);
            for datagram in received.datagrams() {
                let Received { from, to, ecn, .. } = received;
                match endpoint.handle(now, from, to, ecn, datagram, &mut reply) {
                    Some(DatagramEvent::ConnectionEvent(of, event)) if of == *handle => {
                        quic.handle_event(event)
                    }
                    // Packets of nobody: no reply is owed to them.
                    _ => reply.clear(),
                }
            }
        })
    }

    /// Receives without the thread. True if something came.
    fn receive_late(&mut self, now: Instant) -> bool {
        self.receive(&mut Buffers::default());
        self.heard.is_some_and(|heard| heard >= now)
    }

    /// Keeps the deadlines that are due, and sends what that causes.
    fn advance(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.quic.handle_timeout(now);
        }
        self.pump(now);
    }

    /// Passes on the events of the connection, and sends its packets.
    fn pump(&mut self, now: Instant) {
        loop {
            self.exchange_endpoint_events();
            let Some(event) = self.quic.poll() else { break };
            self.handle_event(event, now);
        }
        self.flush(now);
        self.exchange_endpoint_events();
    }

    fn exchange_endpoint_events(&mut self) {
        while let Some(event) = self.quic.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(event);
            }
        }
    }

    fn flush(&mut self, now: Instant) {
        let most = self.socket.max_datagrams();
        loop {
            let transmit = self.unsent.take().or_else(|| {
                self.out.clear();
                self.quic.poll_transmit(now, most, &mut self.out)
            });
            let Some(transmit) = transmit else { return };
            match self.socket.send(&transmit, &self.out) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The thread sends it when the socket is writable.
                    self.unsent = Some(transmit);
                    return;
                }
                // No network at the moment, for example. QUIC treats the packet as lost.
                Err(error) => log::debug!("a QUIC packet was not sent: {error}"),
            }
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected => self.handle_connected(now),
            Event::ConnectionLost { reason } => {
                let error = describe(&reason, self.is_ready);
                self.end(error.with_cause(reason));
            }
            Event::Stream(StreamEvent::Readable { id }) => match self.by_stream.get(&id) {
                Some(key) => self.handle_readable(*key),
                None => self.read_unidirectional(id, now),
            },
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                while let Some(id) = self.quic.streams().accept(Dir::Uni) {
                    self.unidirectional.insert(id, UniStream::default());
                    self.read_unidirectional(id, now);
                }
            }
            Event::Stream(StreamEvent::Writable { id }) => {
                if let Some(key) = self.by_stream.get(&id).copied() {
                    self.write(key);
                }
            }
            Event::Stream(StreamEvent::Available { dir }) => match dir {
                Dir::Uni => self.open_control(),
                Dir::Bi => self.notify_all(),
            },
            // The server may stop reading a request that it has answered (RFC 9114, section 4.1.1). It has no other reason to be
            // heard: there is no bidirectional stream of a server, since none is allowed.
            Event::Stream(_) | Event::HandshakeDataReady => {}
            Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    fn handle_connected(&mut self, now: Instant) {
        self.is_ready = true;
        let is_rejected = self.quic.has_0rtt() && !self.quic.accepted_0rtt();
        if is_rejected {
            // RFC 9001, section 4.6.2: the server has seen nothing of what was sent, and all streams begin again.
            self.by_stream.clear();
            self.unidirectional.clear();
            (self.control, self.has_control) = (Control::default(), false);
            self.requests.values_mut().for_each(Request::begin_again);
        }
        self.open_control();
        self.notify_all();
        self.close_if_unused(now);
    }

    /// Opens this client's control stream (RFC 9114, section 6.2.1), once the server allows a stream.
    fn open_control(&mut self) {
        if self.has_control {
            return;
        }
        let Some(id) = self.quic.streams().open(Dir::Uni) else { return };
        self.has_control = true;
        // A dozen bytes: each server allows more (section 6.2). A smaller window makes them come late, which is harmless.
        if let Err(error) = self.quic.send_stream(id).write(&control::opening(self.max_head)) {
            log::debug!("the settings were not sent: {error}");
        }
    }

    fn read_unidirectional(&mut self, id: StreamId, now: Instant) {
        let Some(mut stream) = self.unidirectional.remove(&id) else { return };
        let mut receiver = self.quic.recv_stream(id);
        let Ok(mut chunks) = receiver.read(true) else { return };
        let mut notices = Vec::new();
        let result = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => match self.control.handle_bytes(&mut stream, &chunk.bytes) {
                    Ok(notice) => notices.extend(notice),
                    Err(violation) => break Err(violation),
                },
                Err(ReadError::Blocked) => break Ok(true),
                Ok(None) | Err(ReadError::Reset(_)) => {
                    break self.control.handle_end(&stream).map(|()| false);
                }
            }
        };
        // `pump` sends the credit that this gives.
        let _ = chunks.finalize();
        match result {
            Ok(true) if !notices.contains(&Notice::Ignored) => drop(self.unidirectional.insert(id, stream)),
            // It may be complete already.
            Ok(true) => drop(receiver.stop(varint(Code::STREAM_CREATION_ERROR))),
            Ok(false) => {}
            Err(violation) => self.handle_violation(violation, now),
        }
        for notice in notices {
            if let Notice::GoAway(first) = notice {
                self.handle_goaway(first, now);
            }
        }
    }

    /// RFC 9114, section 5.2: requests on streams from `first` on were not processed, and may be sent over another connection.
    fn handle_goaway(&mut self, first: u64, now: Instant) {
        self.is_retired = true;
        for request in self.requests.values_mut() {
            let is_refused = request.stream.is_none_or(|id| VarInt::from(id).into_inner() >= first);
            if is_refused && request.head.is_none() {
                let why = "the server closes the connection and has not processed the request";
                request.error.get_or_insert_with(|| Error::new(ErrorKind::Disconnected, why));
                request.changed.notify_all();
            }
        }
        self.close_if_unused(now);
    }

    fn handle_violation(&mut self, violation: Violation, now: Instant) {
        let error = Error::new(ErrorKind::Protocol, "the response is not valid HTTP/3").with_cause(violation);
        self.close(now, violation.code, violation.why, error);
    }

    fn close_if_unused(&mut self, now: Instant) {
        if self.is_retired && self.requests.is_empty() {
            self.close(
                now,
                Code::NO_ERROR,
                "",
                Error::new(ErrorKind::Disconnected, "the connection was replaced"),
            );
        }
    }

    fn close(&mut self, now: Instant, code: Code, why: &'static str, error: Error) {
        if self.over.is_none() {
            self.quic.close(now, varint(code), why.as_bytes().into());
            self.flush(now);
            self.end(error);
        }
    }

    /// Ends the connection: its requests fail with `error`.
    fn end(&mut self, error: Error) {
        self.over.get_or_insert(error);
        self.notify_all();
    }

    fn notify_all(&self) {
        for request in self.requests.values() {
            request.changed.notify_all();
        }
    }

    fn handle_readable(&mut self, key: u64) {
        let Some(request) = self.requests.get(&key) else { return };
        if request.is_released {
            self.finish(key);
        } else {
            request.changed.notify_all();
        }
    }

    /// Opens a stream for a request and writes `head`. False if the server allows no stream now.
    fn open_stream(&mut self, key: u64, head: &[u8]) -> bool {
        let Some(id) = self.quic.streams().open(Dir::Bi) else { return false };
        let is_early = !self.is_ready;
        if is_early {
            self.open_control();
        }
        let Some(request) = self.requests.get_mut(&key) else { return false };
        (request.stream, request.unwritten, request.is_early) = (Some(id), head.to_vec(), is_early);
        self.by_stream.insert(id, key);
        self.write(key);
        true
    }

    /// Writes what is left of a request.
    fn write(&mut self, key: u64) {
        let Some(request) = self.requests.get_mut(&key) else { return };
        let Some(id) = request.stream else { return };
        let mut stream = self.quic.send_stream(id);
        while !request.unwritten.is_empty() {
            match stream.write(&request.unwritten) {
                Ok(written) => drop(request.unwritten.drain(..written)),
                Err(WriteError::Blocked) => return,
                // The server answers without the rest, or resets the response.
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => request.unwritten.clear(),
            }
        }
        // An error means that the server stopped the stream, see above.
        drop(stream.finish());
    }

    /// Takes up to `most` bytes of a body that have arrived, or parses up to the head if that is missing. The pieces go to
    /// `taken`.
    fn take(&mut self, key: u64, most: usize, taken: &mut Vec<Chunk>, now: Instant) -> Result<(), Error> {
        let Some(request) = self.requests.get_mut(&key) else { return Ok(()) };
        let mut got = request.take_pending(most, taken);
        let Some(id) = request.stream.filter(|_| !request.is_complete && got < most) else { return Ok(()) };
        let mut receiver = self.quic.recv_stream(id);
        let Ok(mut chunks) = receiver.read(true) else {
            request.is_complete = true;
            return Ok(());
        };
        let result = loop {
            let had_head = request.head.is_some();
            match chunks.next(most - got) {
                Ok(Some(chunk)) => match request.parse(chunk, taken) {
                    Ok(bytes) => got += bytes,
                    Err(violation) => break Err(Broken::Rule(violation)),
                },
                Ok(None) => break request.end().map_or(Ok(()), Err),
                Err(ReadError::Blocked) => break Ok(()),
                Err(ReadError::Reset(code)) => break Err(Broken::Reset(code)),
            }
            if !had_head && request.head.is_some() {
                self.served += 1;
                // What follows belongs to the first read of the body.
                request.pending.extend(taken.drain(..));
                break Ok(());
            }
            if got >= most {
                break Ok(());
            }
        };
        // `pump` sends the credit that this gives.
        let _ = chunks.finalize();
        result.map_err(|broken| self.handle_broken(key, broken, now))
    }

    /// The error of a request whose stream broke.
    fn handle_broken(&mut self, key: u64, broken: Broken, now: Instant) -> Error {
        let error = match broken {
            Broken::Rule(violation) => {
                if violation.ends_connection() {
                    self.handle_violation(violation, now);
                }
                Error::new(ErrorKind::Protocol, "the response is not valid HTTP/3").with_cause(violation)
            }
            Broken::Cut => Error::new(
                ErrorKind::Disconnected,
                "the server ended the stream before the end of the response",
            ),
            Broken::Reset(code) => {
                if let Some(request) = self.requests.get_mut(&key) {
                    request.is_complete = true;
                }
                let why = format!("the server reset the stream (HTTP/3 error {:#x})", code.into_inner());
                Error::new(ErrorKind::Disconnected, why)
            }
        };
        if let Some(request) = self.requests.get_mut(&key) {
            request.error.get_or_insert_with(|| error.clone());
        }
        error
    }

    /// Ends a request. If its body is complete and only the end of the stream is missing, that is awaited by the thread: to
    /// stop the stream would cost a packet.
    fn release(&mut self, key: u64, now: Instant) {
        let Some(request) = self.requests.get_mut(&key) else { return };
        request.is_released = true;
        request.pending.clear();
        let is_to_end = request.reader.is_complete() && request.stream.is_some() && !request.is_aborted;
        if is_to_end {
            self.finish(key);
        } else {
            self.stop(key);
            self.forget(key);
        }
        self.close_if_unused(now);
    }

    /// Reads the end of the stream of a released request, if it has arrived.
    fn finish(&mut self, key: u64) {
        let mut unwanted = Vec::new();
        let result = self.take(key, 1, &mut unwanted, Instant::now());
        let is_complete = self.requests.get(&key).is_none_or(|request| request.is_complete);
        if result.is_err() || !unwanted.is_empty() {
            self.stop(key);
        } else if !is_complete {
            return;
        }
        self.forget(key);
    }

    /// Tells the server that the response is not wanted (RFC 9114, section 4.1.1).
    fn stop(&mut self, key: u64) {
        let Some(request) = self.requests.get_mut(&key) else { return };
        if let Some(id) = request.stream.filter(|_| !request.is_complete) {
            // Both fail if the stream is complete in that direction, which is as good.
            drop(self.quic.recv_stream(id).stop(varint(Code::REQUEST_CANCELLED)));
            if !request.unwritten.is_empty() {
                drop(self.quic.send_stream(id).reset(varint(Code::REQUEST_CANCELLED)));
            }
        }
        request.is_complete = true;
    }

    fn forget(&mut self, key: u64) {
        if let Some(Request { stream: Some(id), .. }) = self.requests.remove(&key) {
            self.by_stream.remove(&id);
        }
    }

    /// Tests the path if no packet has come for too long while a reader waits. Returns when to call it again.
    fn watch_path(&mut self, now: Instant) -> Instant {
        let silence = PATH_SILENCE.max(self.quic.rtt() * PATH_SILENCE_RTTS);
        let quiet_since = self.heard.map_or(self.waiting_since, |heard| heard.max(self.waiting_since));
        match self.tested.filter(|tested| *tested >= self.waiting_since) {
            None if now < quiet_since + silence => quiet_since + silence,
            None => {
                self.quic.ping();
                self.tested = Some(now);
                self.pump(now);
                now + silence
            }
            Some(tested) if now < tested + silence => tested + silence,
            // The answer may be in the socket, if the thread had no time to run.
            Some(_) if self.receive_late(now) => now + silence,
            Some(_) => {
                let why = format!("no packet came for {:?}, also none to a PING", now - quiet_since);
                self.close(now, Code::NO_ERROR, "", Error::new(ErrorKind::Disconnected, why));
                now
            }
        }
    }
}

/// Why a response can't be read on.
enum Broken {
    Rule(Violation),
    /// The stream ended too early. RFC 9114, section 4.1.2 calls that malformed; it is also what a proxy does whose own source
    /// broke, so the rest is requested again.
    Cut,
    Reset(VarInt),
}

impl Request {
    fn new(max_head: usize, changed: &Arc<Condvar>) -> Self {
        Self {
            stream: None,
            reader: ResponseReader::new(max_head),
            head: None,
            pending: VecDeque::new(),
            unwritten: Vec::new(),
            is_complete: false,
            is_early: false,
            is_aborted: false,
            is_released: false,
            error: None,
            changed: Arc::clone(changed),
        }
    }

    /// The server has not seen the request: it gets another stream.
    fn begin_again(&mut self) {
        self.stream = None;
        self.unwritten.clear();
    }

    fn take_pending(&mut self, most: usize, taken: &mut Vec<Chunk>) -> usize {
        let mut got = 0;
        while got < most {
            let Some(mut chunk) = self.pending.pop_front() else { break };
            if chunk.bytes.len() > most - got {
                let rest = chunk.bytes.split_off(most - got);
                self.pending.push_front(Chunk { offset: 0, bytes: rest });
            }
            got += chunk.bytes.len();
            taken.push(chunk);
        }
        got
    }

    /// Records that the stream has ended. Returns what is wrong with that.
    fn end(&mut self) -> Option<Broken> {
        self.is_complete = true;
        match self.reader.finish() {
            Err(_) if self.reader.is_cut() => Some(Broken::Cut),
            result => result.err().map(Broken::Rule),
        }
    }

    /// Parses a piece of the stream. Its body bytes go to `taken`, without a copy. Returns how many there are.
    fn parse(&mut self, chunk: Chunk, taken: &mut Vec<Chunk>) -> Result<usize, Violation> {
        let (mut rest, mut got) = (chunk.bytes, 0);
        loop {
            let (used, part) = self.reader.next(&rest)?;
            match part {
                None => return Ok(got),
                Some(Part::Head(head)) => self.head = Some(head),
                Some(Part::Body(range)) => {
                    got += range.len();
                    taken.push(Chunk { offset: 0, bytes: rest.slice(range) });
                }
            }
            drop(rest.split_to(used));
        }
    }
}

/// A request of a connection. Its drop cancels it, if its response is not complete.
pub(super) struct RequestStream {
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

impl StreamHandle {
    /// Ends the request, and wakes its thread.
    pub(crate) fn abort(&self) {
        self.connection.with(|state, _| {
            state.stop(self.key);
            if let Some(request) = state.requests.get_mut(&self.key) {
                request.is_aborted = true;
                request.changed.notify_all();
            }
        });
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.connection.peer
    }
}

impl RequestStream {
    pub(super) fn handle(&self) -> StreamHandle {
        StreamHandle { connection: Arc::clone(&self.connection), key: self.key }
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Wakes the thread of the request, which asks its `is_decided` again.
    pub(super) fn nudge(connection: &Connection) {
        connection.state.lock().notify_all();
    }

    /// Blocks until requests can be sent, until `until`, or until `is_decided`.
    pub(super) fn await_ready(
        &self,
        may_be_early: bool,
        until: Instant,
        is_decided: impl Fn() -> bool,
    ) -> Result<Readiness, Error> {
        self.connection.locked(|state| {
            let ready = self.wait(state, Some(until), false, |state, _| {
                if state.is_ready {
                    return Some(Ok(Readiness::Ready));
                }
                let is_early = may_be_early && state.quic.has_0rtt();
                let not_yet =
                    || is_decided().then_some(Readiness::NotYet { has_packet: state.heard.is_some() });
                is_early.then_some(Readiness::Early).or_else(not_yet).map(Ok)
            })?;
            Ok(ready.unwrap_or(Readiness::NotYet { has_packet: state.heard.is_some() }))
        })
    }

    /// Sends the request, whose HEADERS frame is `head`, and blocks until the response head arrives, for at most `limit`. True
    /// if it was sent before the handshake was complete.
    pub(super) fn send(
        &self,
        head: &[u8],
        may_be_early: bool,
        limit: Duration,
    ) -> Result<(Head, bool), Error> {
        let until = Instant::now().checked_add(limit);
        self.connection.locked(|state| {
            let answered = self.wait(state, until, true, |state, now| {
                let request = state.requests.get(&self.key)?;
                if request.stream.is_none() {
                    let is_ready = state.is_ready || (may_be_early && state.quic.has_0rtt());
                    if !is_ready || !state.open_stream(self.key, head) {
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
            answered.ok_or_else(silent)
        })
    }

    /// Reads the available bytes of the body. Blocks until at least one byte arrives, for at most `limit`. 0 means the end.
    pub(super) fn read(&self, buf: &mut [u8], limit: Option<Duration>) -> Result<usize, Error> {
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
                // Sends the credit for what was taken.
                state.pump(now);
                Some(Ok(()))
            })?;
            read.ok_or_else(silent)
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
        state.waiting += 1;
        if state.waiting == 1 {
            state.waiting_since = now;
        }
        let result = loop {
            if let Some(error) = state.failure(self.key) {
                break Err(error);
            }
            if let Some(result) = check(state, now) {
                break result.map(Some);
            }
            if until.is_some_and(|until| until <= now) {
                break Ok(None);
            }
            let path = is_path_watched.then(|| state.watch_path(now));
            if state.over.is_some() {
                continue;
            }
            let deadline = state.deadline();
            let own = state.armed.own(deadline);
            // Always one: `path` for a response, `until` for a handshake.
            let next = [until, path, own].into_iter().flatten().min().unwrap_or(now + PATH_SILENCE);
            self.changed.wait_until(state, next);
            now = Instant::now();
            if state.over.is_none() {
                state.advance(now);
            }
        };
        state.waiting -= 1;
        result
    }
}

impl State {
    /// Why a request can't go on.
    fn failure(&self, key: u64) -> Option<Error> {
        let request = self.requests.get(&key)?;
        // The exchange knows the reason of the abort.
        let aborted =
            || request.is_aborted.then(|| Error::new(ErrorKind::Disconnected, "the request was aborted"));
        // What has arrived of a complete response can be read although the connection is over.
        let over = || self.over.clone().filter(|_| !request.is_complete || request.head.is_none());
        if !request.pending.is_empty() {
            // It came before whatever happened then.
            return aborted();
        }
        aborted().or_else(|| request.error.clone()).or_else(over)
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        let Self { connection, key, .. } = self;
        if connection.with(|state, now| state.release(*key, now)).is_none() {
            connection.state.lock().forget(*key);
        }
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::Silent, "read timed out: the server sent nothing for the silence limit")
}

fn varint(code: Code) -> VarInt {
    VarInt::from_u32(code.0)
}

/// What the end of a connection means for its requests.
fn describe(reason: &ConnectionError, is_ready: bool) -> Error {
    let (kind, what) = match reason {
        // RFC 9001, section 4.8: TLS alerts are the codes from 0x100 to 0x1ff.
        ConnectionError::TransportError(error) if is_crypto(u64::from(error.code)) => {
            (ErrorKind::Tls, "the TLS handshake failed")
        }
        ConnectionError::TransportError(_) => (ErrorKind::Protocol, "the server does not speak valid QUIC"),
        ConnectionError::VersionMismatch => {
            (ErrorKind::Protocol, "the server speaks no common version of QUIC")
        }
        ConnectionError::ConnectionClosed(close) if is_crypto(u64::from(close.error_code)) => {
            (ErrorKind::Tls, "the server refused the TLS handshake")
        }
        ConnectionError::TimedOut if !is_ready => (ErrorKind::ConnectTimedOut, "connecting timed out"),
        _ => (ErrorKind::Disconnected, "the connection broke"),
    };
    Error::new(kind, what)
}

fn is_crypto(code: u64) -> bool {
    (0x100..0x200).contains(&code)
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StreamHandle").field(&self.key).finish()
    }
}
