//! The server's packets, connections and streams.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint, EndpointConfig, Event,
    ReadError, ServerConfig, StreamEvent, StreamId, TokenLog, TokenReuseError, Transmit, TransportConfig,
    ValidationTokenConfig, VarInt, WriteError,
};
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::Socket;

use super::frame::{Frame, FrameReader, Place, SETTINGS, put_frame};
use super::parameters::WithParameters;
use super::qpack;
use support::Identity;

/// Datagrams of one send. Linux takes 64, but not more than the 65,507 bytes of one large datagram: a longer send fails as a whole,
/// which is the loss of all its packets.
const MAX_SEGMENTS: usize = 32;

/// How the server behaves, apart from its answers.
pub struct Options {
    /// Bytes of the server's unidirectional streams, each sent at once.
    pub unidirectional: Vec<Vec<u8>>,
    pub transport: TransportConfig,
    pub migration: bool,
    /// Accepts 0-RTT.
    pub early_data: bool,
    /// Never answers a packet.
    pub silent: bool,
    /// Answers a client whose address is not validated by a Retry packet (RFC 9000, section 8.1.2).
    pub retries: bool,
    /// NEW_TOKEN frames that each connection gets (RFC 9000, section 8.1.3).
    pub tokens: u32,
    /// Unidirectional streams of an unknown type that are opened as fast as the client allows.
    pub flood: usize,
    pub alpn: Vec<u8>,
    /// Bytes behind the transport parameters. Empty: none.
    pub extra_parameters: Vec<u8>,
    /// Answers requests on the server's own thread; the handler gets those for which it returns `None`. For benches: a handler
    /// costs two switches of threads a request.
    pub at_once: Option<Box<AtOnce>>,
}

/// The bytes of the answer to a request, in pieces.
pub type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;

type AtOnce = dyn Fn(&Request) -> Option<Pieces> + Send + Sync;

impl Default for Options {
    fn default() -> Self {
        let mut settings = vec![0];
        put_frame(&mut settings, SETTINGS, &[]);
        let (transport, alpn) = (TransportConfig::default(), b"h3".to_vec());
        Self {
            unidirectional: vec![settings],
            transport,
            migration: true,
            early_data: true,
            silent: false,
            retries: false,
            tokens: 0,
            flood: 0,
            alpn,
            extra_parameters: Vec::new(),
            at_once: None,
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    pub fields: Vec<(String, String)>,
    /// Number of its connection, from 0.
    pub connection: usize,
}

impl Request {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.field(":path").unwrap_or_default()
    }
}

/// What a handler sends.
enum Piece {
    Bytes(Bytes),
    Finish,
    Reset(u32),
    /// Closes the whole connection, with this code.
    Close(u32),
    /// Forgets the connection without a word: the next packet gets a stateless reset.
    Forget,
    /// Bytes for the server's first unidirectional stream.
    Control(Vec<u8>),
    /// Ends that stream.
    EndControl,
    /// Asks the client to stop sending (STOP_SENDING), with this code.
    Stop(u32),
}

/// Ends what blocks a handler.
type OnStop = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Sends the answer to one request.
pub struct Reply {
    pieces: SyncSender<Piece>,
    waker: Arc<Waker>,
    /// Ends what blocks the handler, when the client stops the stream.
    on_stop: OnStop,
}

/// The client has stopped the stream, or its connection is gone.
#[derive(Debug)]
pub struct Gone;

impl Reply {
    fn put(&self, piece: Piece) -> Result<(), Gone> {
        self.pieces.send(piece).map_err(|_| Gone)?;
        self.waker.wake().map_err(|_| Gone)
    }

    /// Sends the last bytes of the stream.
    pub fn send_last(&self, bytes: impl Into<Vec<u8>>) -> Result<(), Gone> {
        self.pieces.send(Piece::Bytes(Bytes::from(bytes.into()))).map_err(|_| Gone)?;
        self.finish()
    }

    /// Sends bytes of the stream. Blocks while the client takes none.
    pub fn send(&self, bytes: impl Into<Vec<u8>>) -> Result<(), Gone> {
        self.put(Piece::Bytes(Bytes::from(bytes.into())))
    }

    pub fn finish(&self) -> Result<(), Gone> {
        self.put(Piece::Finish)
    }

    pub fn reset(&self, code: u32) -> Result<(), Gone> {
        self.put(Piece::Reset(code))
    }

    pub fn close_connection(&self, code: u32) -> Result<(), Gone> {
        self.put(Piece::Close(code))
    }

    pub fn forget_connection(&self) -> Result<(), Gone> {
        self.put(Piece::Forget)
    }

    /// Sends bytes of the control stream.
    pub fn control(&self, bytes: impl Into<Vec<u8>>) -> Result<(), Gone> {
        self.put(Piece::Control(bytes.into()))
    }

    pub fn end_control(&self) -> Result<(), Gone> {
        self.put(Piece::EndControl)
    }

    /// Asks the client to stop sending the request.
    pub fn stop_sending(&self, code: u32) -> Result<(), Gone> {
        self.put(Piece::Stop(code))
    }

    /// Calls `stop` when the client stops the stream.
    pub fn on_stop(&self, stop: impl FnOnce() + Send + 'static) {
        *self.on_stop.lock().expect("no panic under this lock") = Some(Box::new(stop));
    }

    /// Blocks until the client stops the stream or its connection is gone.
    pub fn await_stop(&self) {
        let (stop, stopped) = mpsc::channel::<()>();
        self.on_stop(move || drop(stop));
        // The sender is dropped by the call, or with the stream.
        let _ = stopped.recv();
    }
}

type Handler = dyn Fn(Request, Reply) + Send + Sync;

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    connections: AtomicUsize,
    requests: AtomicUsize,
    early: AtomicUsize,
    stopped: AtomicUsize,
    delivered: AtomicUsize,
    settings: AtomicUsize,
    addresses: Mutex<Vec<SocketAddr>>,
    received: AtomicU64,
    /// PING frames that have arrived on all connections.
    pings: AtomicU64,
    /// Connections that have ended.
    lost: AtomicUsize,
    /// Streams of an unknown type that were opened.
    flooded: AtomicUsize,
    /// Retry packets that were sent.
    retries: AtomicUsize,
    /// Drops all packets.
    muted: AtomicBool,
    changed: Condvar,
    lock: Mutex<()>,
}

/// The server. Its drop closes it.
pub struct Server {
    address: SocketAddr,
    root_pem: String,
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
    /// Refuses connections over TCP.
    _tcp: Socket,
}

impl Server {
    pub fn start(handler: impl Fn(Request, Reply) + Send + Sync + 'static) -> Self {
        Self::start_with(Options::default(), handler)
    }

    pub fn start_with(options: Options, handler: impl Fn(Request, Reply) + Send + Sync + 'static) -> Self {
        let (root_pem, config) = server_config(&options);
        let (socket, tcp) = super::bind();
        socket.set_nonblocking(true).expect("a socket that can be polled");
        let socket = UdpSocket::from_std(socket);
        let address = socket.local_addr().expect("a bound socket has an address");
        let poll = Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), Token(1)).expect("a waker"));
        let shared = Arc::new(Shared::default());
        let run =
            Run::new(options, config, socket, Arc::clone(&shared), Arc::clone(&waker), Box::new(handler));
        let thread = Some(thread::spawn(move || run.run(poll)));
        Self { address, root_pem, shared, waker, thread, _tcp: tcp }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub fn root_pem(&self) -> Vec<u8> {
        self.root_pem.clone().into_bytes()
    }

    /// Connections that were accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Acquire)
    }

    /// Requests that came before their handshake was complete.
    pub fn early_requests(&self) -> usize {
        self.shared.early.load(Ordering::Acquire)
    }

    /// Streams that the client has stopped.
    pub fn stopped(&self) -> usize {
        self.shared.stopped.load(Ordering::Acquire)
    }

    /// Streams whose bytes have all been acknowledged.
    pub fn delivered(&self) -> usize {
        self.shared.delivered.load(Ordering::Acquire)
    }

    /// SETTINGS frames that have arrived.
    pub fn settings(&self) -> usize {
        self.shared.settings.load(Ordering::Acquire)
    }

    /// The client's addresses, in the order of their first packets.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.addresses.lock().expect("no panic under this lock").clone()
    }

    /// Datagrams that have arrived.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Acquire)
    }

    /// PING frames that have arrived.
    pub fn pings(&self) -> u64 {
        self.shared.pings.load(Ordering::Acquire)
    }

    /// Connections that have ended.
    pub fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::Acquire)
    }

    /// Streams of an unknown type that were opened.
    pub fn flooded(&self) -> usize {
        self.shared.flooded.load(Ordering::Acquire)
    }

    /// Retry packets that were sent.
    pub fn retries(&self) -> usize {
        self.shared.retries.load(Ordering::Acquire)
    }

    /// Drops all packets from now on.
    pub fn mute(&self) {
        self.shared.muted.store(true, Ordering::Release);
    }

    /// Blocks until `wanted` holds. Panics when the patience of the tests is over.
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut guard = self.shared.lock.lock().expect("no panic under this lock");
        while !wanted(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "still no {what}");
            guard = self.shared.changed.wait_timeout(guard, left).expect("no panic under this lock").0;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        let woken = self.waker.wake();
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the HTTP/3 origin panicked");
        }
    }
}

fn server_config(options: &Options) -> (String, Arc<ServerConfig>) {
    let identity = Identity::new();
    let mut tls = identity.server_config();
    tls.alpn_protocols = vec![options.alpn.clone()];
    tls.max_early_data_size = if options.early_data { u32::MAX } else { 0 };
    let tls = Arc::new(tls);
    let valid = Arc::new(QuicServerConfig::try_from(Arc::clone(&tls)).expect("a provider that can do QUIC"));
    let extra = options.extra_parameters.clone();
    let mut config = match extra.is_empty() {
        true => ServerConfig::with_crypto(valid),
        false => ServerConfig::with_crypto(Arc::new(WithParameters { tls, valid, extra })),
    };
    config.migration(options.migration);
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(options.tokens).log(Arc::new(AllTokens));
    config.validation_token_config(tokens);
    (identity.root_pem, Arc::new(config))
}

/// Accepts a token as often as it comes.
struct AllTokens;

impl TokenLog for AllTokens {
    fn check_and_insert(&self, _: u128, _: SystemTime, _: Duration) -> Result<(), TokenReuseError> {
        Ok(())
    }
}

struct Run {
    options: Options,
    endpoint: Endpoint,
    socket: UdpSocket,
    udp: UdpSocketState,
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    handlers: Arc<Handlers>,
    open: HashMap<ConnectionHandle, Open>,
    accepted: usize,
    unsent: VecDeque<(Transmit, Vec<u8>)>,
    /// The socket's buffer is full, and the poll says when it is not.
    is_full: bool,
}

type Job = (Request, Reply);

/// Threads that run the handler. One that has ended waits for the next request: to start a thread takes longer than to answer.
struct Handlers {
    handler: Box<Handler>,
    idle: Mutex<Vec<mpsc::Sender<Job>>>,
}

impl Handlers {
    fn start(self: &Arc<Self>, job: Job) {
        let idle = self.idle.lock().expect("no panic under this lock").pop();
        let Some(job) = (match idle {
            // A handler that panics loses its thread.
            Some(idle) => idle.send(job).err().map(|refused| refused.0),
            None => Some(job),
        }) else {
            return;
        };
        // The thread must not keep the list alive, whose end is its own.
        let handlers = Arc::downgrade(self);
        thread::spawn(move || {
            let mut next = Some(job);
            while let Some((request, reply)) = next {
                let Some(handlers) = handlers.upgrade() else { return };
                (handlers.handler)(request, reply);
                let (idle, jobs) = mpsc::channel();
                handlers.idle.lock().expect("no panic under this lock").push(idle);
                drop(handlers);
                next = jobs.recv().ok();
            }
        });
    }
}

struct Open {
    quic: Connection,
    number: usize,
    /// PING frames that are counted.
    pings: u64,
    /// Streams of an unknown type that were opened.
    flooded: usize,
    control: Option<StreamId>,
    /// Bytes of the client's control stream, until its SETTINGS are complete.
    settings: Vec<u8>,
    is_ready: bool,
    reading: HashMap<StreamId, (FrameReader, Vec<u8>)>,
    answering: HashMap<StreamId, Answering>,
}

struct Answering {
    source: Source,
    unwritten: Bytes,
    is_ended: bool,
    on_stop: OnStop,
}

impl Run {
    fn new(
        mut options: Options,
        config: Arc<ServerConfig>,
        socket: UdpSocket,
        shared: Arc<Shared>,
        waker: Arc<Waker>,
        handler: Box<Handler>,
    ) -> Self {
        let handlers = Arc::new(Handlers { handler, idle: Mutex::default() });
        let mut config = (*config).clone();
        config.transport_config(Arc::new(std::mem::take(&mut options.transport)));
        let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), Some(Arc::new(config)), true, None);
        let udp = UdpSocketState::new((&socket).into()).expect("a UDP socket");
        let (open, unsent) = (HashMap::new(), VecDeque::new());
        Self {
            options,
            endpoint,
            socket,
            udp,
            shared,
            waker,
            handlers,
            open,
            accepted: 0,
            unsent,
            is_full: false,
        }
    }

    fn run(mut self, mut poll: Poll) {
        poll.registry()
            .register(&mut self.socket, Token(0), Interest::READABLE)
            .expect("a registered socket");
        let mut events = Events::with_capacity(16);
        let mut buffers = vec![0; 8 * 65536];
        while !self.shared.stopping.load(Ordering::Acquire) {
            let deadline = self.open.values_mut().filter_map(|open| open.quic.poll_timeout()).min();
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Interrupted by a signal at most.
            let _ = poll.poll(&mut events, timeout);
            while self.receive(&mut buffers) {}
            let handles: Vec<ConnectionHandle> = self.open.keys().copied().collect();
            for handle in handles {
                self.serve(handle);
            }
            // Each packet that leaves the buffer would wake the thread otherwise.
            if std::mem::replace(&mut self.is_full, !self.unsent.is_empty()) == self.unsent.is_empty() {
                let both = Interest::READABLE | Interest::WRITABLE;
                let interest = if self.is_full { both } else { Interest::READABLE };
                poll.registry()
                    .reregister(&mut self.socket, Token(0), interest)
                    .expect("a registered socket");
            }
            drop(self.shared.lock.lock());
            self.shared.changed.notify_all();
        }
    }

    /// True if something was received.
    fn receive(&mut self, buffers: &mut [u8]) -> bool {
        let mut metas = [RecvMeta::default(); 8];
        let mut rest = buffers.chunks_mut(65536);
        let mut slices: [IoSliceMut<'_>; 8] =
            std::array::from_fn(|_| IoSliceMut::new(rest.next().expect("eight buffers")));
        let received = self.socket.try_io(|| self.udp.recv((&self.socket).into(), &mut slices, &mut metas));
        let Ok(count) = received else { return false };
        for (meta, slice) in metas.iter().zip(&slices).take(count) {
            for datagram in slice[..meta.len].chunks(meta.stride.max(1)) {
                self.handle_datagram(meta, datagram);
            }
        }
        true
    }

    fn handle_datagram(&mut self, meta: &RecvMeta, datagram: &[u8]) {
        self.shared.received.fetch_add(1, Ordering::AcqRel);
        if self.options.silent || self.shared.muted.load(Ordering::Acquire) {
            return;
        }
        {
            let mut addresses = self.shared.addresses.lock().expect("no panic under this lock");
            if !addresses.contains(&meta.addr) {
                addresses.push(meta.addr);
            }
        }
        let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        let (now, mut reply) = (Instant::now(), Vec::new());
        match self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, datagram.into(), &mut reply) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(open) = self.open.get_mut(&handle) {
                    open.quic.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming))
                if self.options.retries && !incoming.remote_address_validated() =>
            {
                let retry = self.endpoint.retry(incoming, &mut reply).expect("a client without a token");
                self.shared.retries.fetch_add(1, Ordering::AcqRel);
                self.unsent.push_back((retry, reply));
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                match self.endpoint.accept(incoming, now, &mut reply, None) {
                    Ok((handle, quic)) => {
                        self.open.insert(handle, Open::new(quic, self.accepted));
                        self.accepted += 1;
                        self.shared.connections.fetch_add(1, Ordering::AcqRel);
                    }
                    Err(error) => self.unsent.extend(error.response.map(|transmit| (transmit, reply))),
                }
            }
            Some(DatagramEvent::Response(transmit)) => self.unsent.push_back((transmit, reply)),
            None => {}
        }
        self.send_queued();
    }

    fn send_queued(&mut self) {
        while let Some((transmit, bytes)) = self.unsent.pop_front() {
            if send(&self.socket, &self.udp, &transmit, &bytes).is_err() {
                self.unsent.push_front((transmit, bytes));
                return;
            }
        }
    }

    fn serve(&mut self, handle: ConnectionHandle) {
        let Some(mut open) = self.open.remove(&handle) else { return };
        let now = Instant::now();
        if open.quic.poll_timeout().is_some_and(|deadline| deadline <= now) {
            open.quic.handle_timeout(now);
        }
        let mut is_kept = true;
        loop {
            while let Some(event) = open.quic.poll_endpoint_events() {
                is_kept &= !event.is_drained();
                if let Some(event) = self.endpoint.handle_event(handle, event) {
                    open.quic.handle_event(event);
                }
            }
            if let Some(event) = open.quic.poll() {
                self.handle_event(&mut open, event);
                continue;
            }
            is_kept &= open.answer(now);
            self.send_queued();
            if !self.transmit(&mut open, now) {
                break;
            }
        }
        let pings = open.quic.stats().frame_rx.ping;
        self.shared.pings.fetch_add(pings - std::mem::replace(&mut open.pings, pings), Ordering::AcqRel);
        if is_kept {
            self.open.insert(handle, open);
        } else if !open.quic.is_drained() {
            drop(self.endpoint.handle_event(handle, quinn_proto::EndpointEvent::drained()));
        }
    }

    /// Sends until nothing is left or the socket is full. True if something was sent.
    fn transmit(&mut self, open: &mut Open, now: Instant) -> bool {
        let mut was_sent = false;
        while self.unsent.is_empty() {
            let mut out = Vec::new();
            let most = self.udp.max_gso_segments().min(MAX_SEGMENTS);
            let Some(transmit) = open.quic.poll_transmit(now, most, &mut out) else { break };
            self.unsent.push_back((transmit, out));
            self.send_queued();
            was_sent = true;
        }
        was_sent
    }

    fn handle_event(&mut self, open: &mut Open, event: Event) {
        match event {
            Event::Connected => {
                open.is_ready = true;
                for bytes in &self.options.unidirectional {
                    let Some(id) = open.quic.streams().open(Dir::Uni) else { break };
                    open.control.get_or_insert(id);
                    // A test sends little, and looks at what the client does with it.
                    let _ = open.quic.send_stream(id).write(bytes);
                }
                self.flood(open);
            }
            Event::Stream(StreamEvent::Available { dir: Dir::Uni }) => self.flood(open),
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                while let Some(id) = open.quic.streams().accept(Dir::Bi) {
                    open.reading.insert(id, (FrameReader::new(Place::Request(65536)), Vec::new()));
                    self.read(open, id);
                }
            }
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                while let Some(id) = open.quic.streams().accept(Dir::Uni) {
                    self.read_control(open, id);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) if id.dir() == Dir::Uni => {
                self.read_control(open, id);
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(open, id),
            Event::Stream(StreamEvent::Stopped { id, .. }) => {
                self.shared.stopped.fetch_add(1, Ordering::AcqRel);
                if let Some(answering) = open.answering.remove(&id) {
                    answering.stop();
                }
                // It may have ended by itself.
                let _ = open.quic.send_stream(id).reset(VarInt::from_u32(0x10c));
            }
            Event::Stream(StreamEvent::Finished { .. }) => {
                self.shared.delivered.fetch_add(1, Ordering::AcqRel);
            }
            Event::ConnectionLost { .. } => {
                self.shared.lost.fetch_add(1, Ordering::AcqRel);
                open.answering.drain().for_each(|(_, answering)| answering.stop())
            }
            _ => {}
        }
    }

    /// Opens more streams of an unknown type.
    fn flood(&self, open: &mut Open) {
        while open.flooded < self.options.flood {
            let Some(id) = open.quic.streams().open(Dir::Uni) else { return };
            let _ = open.quic.send_stream(id).write(&[0x21; 100]);
            open.flooded += 1;
            self.shared.flooded.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Reads the client's only unidirectional stream: its control stream.
    fn read_control(&self, open: &mut Open, id: StreamId) {
        let mut receiver = open.quic.recv_stream(id);
        let Ok(mut chunks) = receiver.read(true) else { return };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            open.settings.extend(&chunk.bytes);
        }
        let _ = chunks.finalize();
        // Behind the type of the stream.
        let frame = open.settings.get(1..).map(|frames| FrameReader::new(Place::Control).next(frames));
        if let Some(Ok((_, Some(Frame::Settings(_))))) = frame {
            open.settings.clear();
            self.shared.settings.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Reads a request, and starts its handler when it is complete.
    fn read(&mut self, open: &mut Open, id: StreamId) {
        let Some((reader, section)) = open.reading.get_mut(&id) else { return };
        let mut receiver = open.quic.recv_stream(id);
        let Ok(mut chunks) = receiver.read(true) else { return };
        let is_complete = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    let mut input = &chunk.bytes[..];
                    while let Ok((used, Some(frame))) = reader.next(input) {
                        if let Frame::Headers(headers) = frame {
                            *section = headers;
                        }
                        input = &input[used..];
                    }
                }
                Ok(None) => break true,
                Err(ReadError::Blocked) => break false,
                Err(ReadError::Reset(_)) => return drop(open.reading.remove(&id)),
            }
        };
        let _ = chunks.finalize();
        if is_complete {
            let (_, section) = open.reading.remove(&id).expect("found above");
            self.shared.requests.fetch_add(1, Ordering::AcqRel);
            self.shared.early.fetch_add(usize::from(!open.is_ready), Ordering::AcqRel);
            self.start(open, id, &section);
        }
    }

    fn start(&self, open: &mut Open, id: StreamId, section: &[u8]) {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("requests are text");
        let fields = qpack::decode(section, 1 << 20).expect("a valid request");
        let fields = fields.into_iter().map(|(name, value)| (text(name), text(value))).collect();
        let request = Request { fields, connection: open.number };
        let on_stop = OnStop::default();
        let mut answer = |source| {
            let on_stop = Arc::clone(&on_stop);
            open.answering
                .insert(id, Answering { source, unwritten: Bytes::new(), is_ended: false, on_stop });
        };
        if let Some(pieces) = self.options.at_once.as_ref().and_then(|at_once| at_once(&request)) {
            return answer(Source::Pieces(pieces));
        }
        let (pieces, receiver) = mpsc::sync_channel(4);
        answer(Source::Handler(receiver));
        let waker = Arc::clone(&self.waker);
        self.handlers.start((request, Reply { pieces, waker, on_stop }));
    }
}

impl Open {
    fn new(quic: Connection, number: usize) -> Self {
        let (reading, answering) = (HashMap::new(), HashMap::new());
        Self {
            quic,
            number,
            pings: 0,
            flooded: 0,
            control: None,
            settings: Vec::new(),
            is_ready: false,
            reading,
            answering,
        }
    }

    /// Passes on what the handlers send. False if the connection is to be forgotten.
    fn answer(&mut self, now: Instant) -> bool {
        let ids: Vec<StreamId> = self.answering.keys().copied().collect();
        for id in ids {
            let Some(mut answering) = self.answering.remove(&id) else { continue };
            loop {
                while !answering.unwritten.is_empty() {
                    match self
                        .quic
                        .send_stream(id)
                        .write_chunks(std::slice::from_mut(&mut answering.unwritten))
                    {
                        Ok(_) => {}
                        Err(WriteError::Blocked) => break,
                        Err(_) => {
                            answering.unwritten.clear();
                            answering.is_ended = true;
                        }
                    }
                }
                if !answering.unwritten.is_empty() || answering.is_ended {
                    break;
                }
                match answering.source.next() {
                    Ok(Piece::Bytes(bytes)) => answering.unwritten = bytes,
                    // The stream may have been stopped.
                    Ok(Piece::Finish) => {
                        let _ = self.quic.send_stream(id).finish();
                        answering.is_ended = true;
                    }
                    Ok(Piece::Reset(code)) => {
                        let _ = self.quic.send_stream(id).reset(VarInt::from_u32(code));
                        answering.is_ended = true;
                    }
                    Ok(Piece::Close(code)) => {
                        self.quic.close(now, VarInt::from_u32(code), b"test"[..].into());
                        answering.is_ended = true;
                    }
                    Ok(Piece::Forget) => return false,
                    Ok(Piece::Control(bytes)) => {
                        // There is none before the handshake is complete, if the request came earlier.
                        if let Some(control) = self.control {
                            let _ = self.quic.send_stream(control).write(&bytes);
                        }
                    }
                    Ok(Piece::EndControl) => {
                        if let Some(control) = self.control {
                            let _ = self.quic.send_stream(control).finish();
                        }
                    }
                    // Fails if the request is complete, as it mostly is.
                    Ok(Piece::Stop(code)) => {
                        let _ = self.quic.recv_stream(id).stop(VarInt::from_u32(code));
                    }
                    Err(TryRecvError::Empty) => break,
                    // A handler that ends without a word leaves its stream open.
                    Err(TryRecvError::Disconnected) => break,
                }
            }
            if answering.is_ended && answering.unwritten.is_empty() {
                continue;
            }
            self.answering.insert(id, answering);
        }
        true
    }
}

/// Where the pieces of an answer come from.
enum Source {
    Handler(Receiver<Piece>),
    Pieces(Pieces),
}

impl Source {
    fn next(&mut self) -> Result<Piece, TryRecvError> {
        match self {
            Self::Handler(pieces) => pieces.try_recv(),
            Self::Pieces(pieces) => Ok(pieces.next().map_or(Piece::Finish, Piece::Bytes)),
        }
    }
}

impl Answering {
    fn stop(self) {
        let stop = self.on_stop.lock().expect("no panic under this lock").take();
        stop.into_iter().for_each(|stop| stop());
    }
}

fn send(socket: &UdpSocket, udp: &UdpSocketState, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
    let transmit = quinn_udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
        contents: &bytes[..transmit.size],
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    };
    match socket.try_io(|| udp.try_send(socket.into(), &transmit)) {
        // Anything but a full buffer is like a lost packet.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}
