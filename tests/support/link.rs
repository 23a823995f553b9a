//! A slow network in front of the scripted origin: a TCP relay with a round trip, a rate that all its connections share, slow
//! start on each of them, and a bounded queue.
//!
//! `SlowStart` and `Bottleneck` are pure: time is an argument, counted from the start of the link. The threads of `Link` wait for
//! the deadlines that these return. They may wake late, but never early: a transfer takes at least `transfer_time`.
//!
//! Differences from a real network: no segment is lost (a full queue blocks the sender, which ends slow start as a loss would);
//! bytes of the client are delayed, but not limited; `connect` returns at once, and the first bytes wait for the round trip of the
//! handshake; when the client closes its side, the whole connection ends.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Payload of a TCP segment on Ethernet with timestamps: 1,500 - 20 - 20 - 12.
pub const SEGMENT: u64 = 1448;

/// Initial window (RFC 6928).
pub const INITIAL_WINDOW: u64 = 10 * SEGMENT;

/// Linux's smallest retransmission timeout (`TCP_RTO_MIN`). RFC 6298 says 1 s.
const MIN_RETRANSMISSION_TIMEOUT: Duration = Duration::from_millis(200);

/// A write that ends this long after its bytes arrived was held back by a full receive buffer, not by a late wake-up.
const RECEIVER_IS_FULL: Duration = Duration::from_millis(5);

/// Properties of the network.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// Bytes a second from the origin to the client, over all connections. Infinite for no limit.
    pub rate: f64,
    pub rtt: Duration,
    /// Capacity of the queue before the bottleneck, in bytes.
    pub queue: u64,
}

impl LinkConfig {
    /// A link without a limit of its rate.
    pub fn with_rtt(rtt: Duration) -> Self {
        Self { rate: f64::INFINITY, rtt, queue: u64::MAX }
    }

    /// A link of so many Mbit/s. Its queue holds what the link carries in a round trip, or in 20 ms if that is more: the
    /// usual size of a router's buffer.
    pub fn with_rate(rtt: Duration, mbit: f64) -> Self {
        let rate = mbit * 1e6 / 8.0;
        let queue = rate * rtt.max(Duration::from_millis(20)).as_secs_f64();
        Self { rate, rtt, queue: (queue as u64).max(INITIAL_WINDOW) }
    }

    /// Bytes that are sent together: a segment, or those of a millisecond on a fast link, where a thread that wakes for each
    /// segment would be slower than the link.
    fn slice(&self) -> u64 {
        ((self.rate / 1000.0) as u64).clamp(SEGMENT, 64 * 1024)
    }
}

/// The congestion window of one connection.
#[derive(Clone, Copy, Debug)]
pub struct SlowStart {
    window: u64,
    in_flight: u64,
    /// Most bytes in flight since the connection was last idle.
    peak: u64,
    /// When the last bytes were sent.
    last_sent: Duration,
    retransmission_timeout: Duration,
    /// A full queue has ended slow start: from then on the window grows by a segment for each window that is acknowledged.
    is_over: bool,
    /// Bytes acknowledged since it last grew by a segment.
    acknowledged: u64,
}

impl SlowStart {
    pub fn new(rtt: Duration) -> Self {
        Self {
            window: INITIAL_WINDOW,
            in_flight: 0,
            peak: 0,
            last_sent: Duration::ZERO,
            retransmission_timeout: rtt + MIN_RETRANSMISSION_TIMEOUT,
            is_over: false,
            acknowledged: 0,
        }
    }

    /// Bytes that may be sent at `now`.
    pub fn room(&mut self, now: Duration) -> u64 {
        // RFC 5681, 4.1, the way of Linux (`tcp_cwnd_restart`): the window is halved for each timeout without traffic.
        while self.in_flight == 0 && now >= self.last_sent + self.retransmission_timeout {
            if self.window <= INITIAL_WINDOW {
                break;
            }
            self.window = (self.window / 2).max(INITIAL_WINDOW);
            self.last_sent += self.retransmission_timeout;
        }
        self.window.saturating_sub(self.in_flight)
    }

    pub fn handle_sent(&mut self, bytes: u64, now: Duration) {
        self.peak = if self.in_flight == 0 { bytes } else { self.peak.max(self.in_flight + bytes) };
        self.in_flight += bytes;
        self.last_sent = now;
    }

    pub fn handle_acknowledged(&mut self, bytes: u64) {
        // RFC 7661: a window grows only if it is used. Linux requires that half of it is (`tcp_is_cwnd_limited`).
        if self.peak * 2 >= self.window {
            if self.is_over {
                self.avoid_congestion(bytes);
            } else {
                self.window += bytes;
            }
        }
        self.in_flight -= bytes;
    }

    /// RFC 5681, 3.1: a segment for each window that was acknowledged. Two transfers that shared the link leave each with
    /// half of its window, and the one that goes on alone gets back to all of it.
    fn avoid_congestion(&mut self, bytes: u64) {
        self.acknowledged += bytes;
        if self.acknowledged >= self.window {
            self.acknowledged -= self.window;
            self.window += SEGMENT;
        }
    }

    /// Ends slow start: the queue is full.
    pub fn handle_full_queue(&mut self) {
        self.is_over = true;
        self.window = self.in_flight.max(INITIAL_WINDOW);
    }
}

/// The slowest hop of the path, which all connections share.
#[derive(Clone, Copy, Debug)]
pub struct Bottleneck {
    config: LinkConfig,
    /// Time at which the queue is empty.
    free_at: Duration,
}

impl Bottleneck {
    pub fn new(config: LinkConfig) -> Self {
        Self { config, free_at: Duration::ZERO }
    }

    /// Time at which the queue has room for `bytes`.
    pub fn room_at(&self, bytes: u64) -> Duration {
        let most = self.config.queue.saturating_sub(bytes);
        let drain = most as f64 / self.config.rate;
        Duration::try_from_secs_f64(drain).map_or(Duration::ZERO, |drain| self.free_at.saturating_sub(drain))
    }

    /// Sends `bytes`. Returns when the last of them has left the queue.
    pub fn send(&mut self, bytes: u64, now: Duration) -> Duration {
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(bytes as f64 / self.config.rate);
        self.free_at
    }
}

/// Time that `bytes` take over an idle link, from the first use of a new connection's window to their arrival, with the half round
/// trip. Computed in virtual time, without waiting.
pub fn transfer_time(config: LinkConfig, bytes: u64) -> Duration {
    let (mut window, mut bottleneck) = (SlowStart::new(config.rtt), Bottleneck::new(config));
    let mut acknowledged: VecDeque<(Duration, u64)> = VecDeque::new();
    let (mut now, mut left, mut arrived) = (Duration::ZERO, bytes, Duration::ZERO);
    while left > 0 {
        while acknowledged.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = acknowledged.pop_front().expect("it is there");
            window.handle_acknowledged(bytes);
        }
        let room = window.room(now).min(config.slice()).min(left);
        if room == 0 {
            now = acknowledged.front().expect("a full window is in flight").0;
            continue;
        }
        let room_at = bottleneck.room_at(room);
        if room_at > now {
            window.handle_full_queue();
            now = room_at;
            continue;
        }
        let left_at = bottleneck.send(room, now);
        window.handle_sent(room, now);
        arrived = left_at + config.rtt / 2;
        acknowledged.push_back((left_at + config.rtt, room));
        left -= room;
    }
    arrived
}

/// The relay. Its drop closes all connections and ends its threads.
pub struct Link {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    config: LinkConfig,
    origin: SocketAddr,
    address: SocketAddr,
    began: Instant,
    bottleneck: Mutex<Bottleneck>,
    connections: AtomicUsize,
    delivered: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_stopping: bool,
    connections: Vec<Arc<Connection>>,
    threads: Vec<JoinHandle<()>>,
}

/// A connection of the client, and the one to the origin that it is relayed to.
struct Connection {
    client: TcpStream,
    origin: TcpStream,
    /// Time at which the handshake of the client is complete.
    established: Duration,
    flows: Mutex<Flows>,
    /// Notified when `flows` changes.
    changed: Condvar,
}

struct Flows {
    up: Flow,
    down: Flow,
    window: SlowStart,
    /// Numbers of bytes, and the times at which they are acknowledged, in order.
    acknowledged: VecDeque<(Duration, u64)>,
    is_closed: bool,
}

/// Bytes in flight, and the times at which they arrive. Empty bytes are the end of the stream.
type Flow = VecDeque<(Duration, Vec<u8>)>;

impl Link {
    /// A link to the server at `origin`.
    pub fn start(origin: SocketAddr, config: LinkConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let shared = Arc::new(Shared {
            config,
            origin,
            address: listener.local_addr().expect("a bound socket has an address"),
            began: Instant::now(),
            bottleneck: Mutex::new(Bottleneck::new(config)),
            connections: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            state: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accepting.accept(&listener));
        Self { shared, acceptor: Some(acceptor) }
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.shared.address)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Bytes that were written to the sockets of clients so far.
    pub fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stop();
        // Wakes the acceptor, which then stops.
        drop(TcpStream::connect(self.shared.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        let threads = std::mem::take(&mut lock(&self.shared.state).threads);
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn stop(&self) {
        let connections = {
            let mut state = lock(&self.state);
            state.is_stopping = true;
            std::mem::take(&mut state.connections)
        };
        connections.iter().for_each(|connection| connection.close());
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let Ok(client) = client else { continue };
            let established = self.now() + self.config.rtt;
            if lock(&self.state).is_stopping {
                return;
            }
            self.connections.fetch_add(1, Ordering::Relaxed);
            let Ok(connection) = self.connect(client, established) else { continue };
            self.relay(Arc::new(connection));
        }
    }

    fn connect(&self, client: TcpStream, established: Duration) -> io::Result<Connection> {
        let origin = TcpStream::connect(self.origin)?;
        client.set_nodelay(true)?;
        origin.set_nodelay(true)?;
        let flows = Flows {
            up: VecDeque::new(),
            down: VecDeque::new(),
            window: SlowStart::new(self.config.rtt),
            acknowledged: VecDeque::new(),
            is_closed: false,
        };
        Ok(Connection { client, origin, established, flows: Mutex::new(flows), changed: Condvar::new() })
    }

    fn relay(self: &Arc<Self>, connection: Arc<Connection>) {
        let mut state = lock(&self.state);
        if state.is_stopping {
            return;
        }
        state.threads.retain(|thread| !thread.is_finished());
        state.connections.retain(|connection| !lock(&connection.flows).is_closed);
        let jobs: [fn(&Self, &Connection) -> io::Result<()>; 4] =
            [Self::send_up, Self::deliver_up, Self::send_down, Self::deliver_down];
        for job in jobs {
            let (shared, connection) = (Arc::clone(self), Arc::clone(&connection));
            state.threads.push(thread::spawn(move || {
                if job(&shared, &connection).is_err() {
                    connection.close();
                }
            }));
        }
        state.connections.push(connection);
    }

    /// Reads the bytes of the client.
    fn send_up(&self, connection: &Connection) -> io::Result<()> {
        let mut buf = [0; 16 * 1024];
        loop {
            // A reset is delayed like an end.
            let got = (&connection.client).read(&mut buf).unwrap_or(0);
            let arrives = self.now().max(connection.established) + self.config.rtt / 2;
            connection.with_flows(|flows| flows.up.push_back((arrives, buf[..got].to_vec())))?;
            if got == 0 {
                return Ok(());
            }
        }
    }

    fn deliver_up(&self, connection: &Connection) -> io::Result<()> {
        loop {
            let (_, bytes) = connection.next_arrival(self, |flows| &mut flows.up)?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            (&connection.origin).write_all(&bytes)?;
        }
    }

    /// Reads the bytes of the origin as fast as the window and the queue allow.
    fn send_down(&self, connection: &Connection) -> io::Result<()> {
        let mut buf = vec![0; self.config.slice() as usize];
        loop {
            let room = connection.window_room(self)?.min(buf.len() as u64) as usize;
            let got = (&connection.origin).read(&mut buf[..room])?;
            let left_at = self.pass_bottleneck(connection, got as u64)?;
            let arrives = left_at + self.config.rtt / 2;
            connection.with_flows(|flows| flows.down.push_back((arrives, buf[..got].to_vec())))?;
            if got == 0 {
                return Ok(());
            }
        }
    }

    /// Blocks until the queue has room for `bytes`. Returns the time at which they leave it.
    fn pass_bottleneck(&self, connection: &Connection, bytes: u64) -> io::Result<Duration> {
        loop {
            let mut bottleneck = lock(&self.bottleneck);
            let (room_at, now) = (bottleneck.room_at(bytes), self.now());
            if room_at <= now {
                let left_at = bottleneck.send(bytes, now);
                drop(bottleneck);
                connection.with_flows(|flows| flows.window.handle_sent(bytes, now))?;
                return Ok(left_at);
            }
            drop(bottleneck);
            let mut flows = connection.lock_open()?;
            flows.window.handle_full_queue();
            while self.now() < room_at {
                flows = connection.wait(self, flows, Some(room_at))?;
            }
        }
    }

    fn deliver_down(&self, connection: &Connection) -> io::Result<()> {
        loop {
            let (arrives, bytes) = connection.next_arrival(self, |flows| &mut flows.down)?;
            if bytes.is_empty() {
                return connection.client.shutdown(Shutdown::Write);
            }
            let len = bytes.len() as u64;
            // Before the write: the client may read the counter as soon as it has the bytes.
            self.delivered.fetch_add(len, Ordering::Relaxed);
            (&connection.client).write_all(&bytes)?;
            // A late wake-up of this thread must not count as a delay of the network.
            let now = self.now();
            let taken = if now > arrives + RECEIVER_IS_FULL { now } else { arrives };
            connection
                .with_flows(|flows| flows.acknowledged.push_back((taken + self.config.rtt / 2, len)))?;
        }
    }
}

impl Connection {
    fn close(&self) {
        lock(&self.flows).is_closed = true;
        self.changed.notify_all();
        for socket in [&self.client, &self.origin] {
            // It may be closed already, which is what is wanted.
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    /// Fails once the connection is closed.
    fn lock_open(&self) -> io::Result<MutexGuard<'_, Flows>> {
        let flows = lock(&self.flows);
        if flows.is_closed { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(flows) }
    }

    fn with_flows(&self, change: impl FnOnce(&mut Flows)) -> io::Result<()> {
        change(&mut *self.lock_open()?);
        self.changed.notify_all();
        Ok(())
    }

    /// Blocks until something changes, or until `deadline`.
    fn wait<'a>(
        &self,
        shared: &Shared,
        flows: MutexGuard<'a, Flows>,
        deadline: Option<Duration>,
    ) -> io::Result<MutexGuard<'a, Flows>> {
        let flows = match deadline {
            None => self.changed.wait(flows).expect("no panic under this lock"),
            Some(deadline) => {
                let left = deadline.saturating_sub(shared.now());
                self.changed.wait_timeout(flows, left).expect("no panic under this lock").0
            }
        };
        if flows.is_closed { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(flows) }
    }

    /// Blocks until the next bytes of a flow arrive.
    fn next_arrival(
        &self,
        shared: &Shared,
        of: impl Fn(&mut Flows) -> &mut Flow,
    ) -> io::Result<(Duration, Vec<u8>)> {
        let mut flows = self.lock_open()?;
        loop {
            let due = of(&mut flows).front().map(|(arrives, _)| *arrives);
            if due.is_some_and(|due| due <= shared.now()) {
                return Ok(of(&mut flows).pop_front().expect("it is there"));
            }
            flows = self.wait(shared, flows, due)?;
        }
    }

    /// Blocks until the window allows a byte. Returns how many it allows.
    fn window_room(&self, shared: &Shared) -> io::Result<u64> {
        let mut flows = self.lock_open()?;
        loop {
            let now = shared.now();
            while flows.acknowledged.front().is_some_and(|(at, _)| *at <= now) {
                let (_, bytes) = flows.acknowledged.pop_front().expect("it is there");
                flows.window.handle_acknowledged(bytes);
            }
            let room = flows.window.room(now);
            if room > 0 {
                return Ok(room);
            }
            let due = flows.acknowledged.front().map(|(at, _)| *at);
            flows = self.wait(shared, flows, due)?;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
