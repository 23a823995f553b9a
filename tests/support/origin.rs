//! The scripted origin: start and stop, the log of its requests, faults of its network.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Answer, Content, Identity, Request};

/// Requests that the server got, and what it has done.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// All requests but the suffix requests, whose order beside the others is random.
    pub requests: Vec<Request>,
    pub suffixes: Vec<Request>,
    /// Connections accepted.
    pub connections: usize,
    /// Connections on which the server waited for a request, over TLS after the handshake. A client may have ended that before.
    pub ready: usize,
    /// Connections open now.
    pub open: usize,
    /// Bytes of body sent.
    pub sent: u64,
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

pub(super) struct Shared {
    pub(super) handler: Box<Handler>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    pub(super) address: SocketAddr,
    /// Delay of a new connection. Twice as long over TLS.
    pub(super) rtt: Duration,
    /// Certificate of a server with TLS.
    pub(super) identity: Option<Identity>,
    /// Connections before this one are in the black hole. Only grows.
    pub(super) black_holed: AtomicUsize,
    pub(super) lost: AtomicUsize,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) log: Log,
    /// Number of requests that `forget` removed from the log.
    pub(super) forgotten: usize,
    /// Number of requests for each path.
    pub(super) seen: HashMap<String, usize>,
    /// Second handles of the open connections, to shut them down.
    pub(super) sockets: HashMap<usize, TcpStream>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) listening: bool,
    pub(super) released: bool,
    pub(super) stopping: bool,
    pub(super) is_single_connection: bool,
    pub(super) serves_oldest: bool,
}

/// The server. Its drop closes all connections and ends its threads.
pub struct Origin {
    shared: Arc<Shared>,
    acceptor: Mutex<Option<Acceptor>>,
}

struct Acceptor {
    thread: JoinHandle<()>,
    /// Keeps the port until the thread has ended. Else another process could get the connection that wakes the thread.
    _listener: TcpListener,
}

impl Origin {
    /// A server whose answers are made by `handler`.
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with_rtt(Duration::ZERO, handler)
    }

    /// As `start`, with a delay of one `rtt` for each new connection, as for its handshake on a network.
    pub fn start_with_rtt(
        rtt: Duration,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(None, rtt, Box::new(handler))
    }

    /// As `start`, over TLS with a new certificate: see `root_pem`.
    pub fn start_tls(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_tls_with_rtt(Duration::ZERO, handler)
    }

    /// As `start_tls`, with a certificate of the test.
    pub fn start_tls_as(
        identity: Identity,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(Some(identity), Duration::ZERO, Box::new(handler))
    }

    /// As `start_tls`, with a delay of two `rtt` for each new connection, one for TCP and one for TLS 1.3.
    pub fn start_tls_with_rtt(
        rtt: Duration,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(Some(Identity::new()), rtt, Box::new(handler))
    }

    /// As `start`, but a connection is accepted only after the one before it was closed.
    pub fn start_single_connection(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let origin = Self::start(handler);
        origin.shared.lock().is_single_connection = true;
        origin
    }

    /// As `start`, but only the oldest open connection is served. The others get a 503.
    pub fn start_for_oldest(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let origin = Self::start(handler);
        origin.shared.lock().serves_oldest = true;
        origin
    }

    fn start_as(identity: Option<Identity>, rtt: Duration, handler: Box<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let shared = Arc::new(Shared {
            handler,
            state: Mutex::default(),
            changed: Condvar::new(),
            address: listener.local_addr().expect("a bound socket has an address"),
            rtt,
            identity,
            black_holed: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        });
        let origin = Self { shared, acceptor: Mutex::default() };
        origin.accept_on(listener);
        origin
    }

    /// A good server for one file, at any path.
    pub fn serving(content: Content) -> Self {
        Self::start(move |request| Answer::file(request, &content))
    }

    pub fn url(&self, path: &str) -> String {
        let scheme = if self.shared.identity.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.shared.address)
    }

    /// The certificate to trust for TLS.
    pub fn root_pem(&self) -> Vec<u8> {
        let identity = self.shared.identity.as_ref().expect("only a server with TLS has a root");
        identity.root_pem.clone().into_bytes()
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Removes the requests from the log, so that it does not grow forever.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.forgotten += state.log.requests.len();
        state.log.requests = Vec::new();
        state.log.suffixes = Vec::new();
    }

    /// The log so far.
    pub fn log(&self) -> Log {
        self.shared.lock().log.clone()
    }

    /// Blocks until `wanted` holds for the log. Panics with the log when `PATIENCE` is over.
    pub fn wait_until(&self, what: &str, wanted: impl FnMut(&Log) -> bool) {
        super::wait_until(self.shared.lock(), &self.shared.changed, |state| &state.log, what, wanted);
    }

    /// Continues stalled responses. Their connections end with them.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.released = true;
        for socket in state.sockets.values() {
            // It may be closed already.
            drop(socket.shutdown(Shutdown::Read));
        }
    }

    /// Kills the open connections silently, as a NAT that forgets them: they stay open, but transfer no more bytes, except those
    /// that the system already has. New connections work.
    pub fn black_hole(&self) {
        let state = self.shared.lock();
        self.shared.black_holed.store(state.log.connections, Ordering::Release);
    }

    /// Number of connections in the black hole on which a request was sent. A client that sends one gets no answer, so it has
    /// been counted by the time that another connection answers instead.
    pub fn lost_requests(&self) -> usize {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Closes the connections in the black hole, so that they do not accumulate.
    pub fn empty_black_hole(&self) {
        let black_holed = self.shared.black_holed.load(Ordering::Acquire);
        let mut state = self.shared.lock();
        state.sockets.retain(|connection, socket| {
            let is_kept = *connection >= black_holed;
            if !is_kept {
                // Fails if it is closed already, which is the aim.
                drop(socket.shutdown(Shutdown::Both));
            }
            is_kept
        });
        self.shared.changed.notify_all();
    }

    /// Refuses new connections and closes the open ones, until `listen_again`.
    pub fn stop_listening(&self) {
        {
            let mut state = self.shared.lock();
            state.listening = false;
            for (_, socket) in state.sockets.drain() {
                // Fails if it is closed already, which is the aim.
                drop(socket.shutdown(Shutdown::Both));
            }
            // Ends the threads of connections in the black hole.
            self.shared.changed.notify_all();
        }
        // Wakes the acceptor, which then stops. After that the port is free for other processes.
        if self.acceptor.lock().expect("no panic under this lock").is_some() {
            drop(TcpStream::connect(self.shared.address));
        }
        if let Some(acceptor) = self.acceptor.lock().expect("no panic under this lock").take() {
            acceptor.thread.join().expect("the acceptor did not panic");
        }
    }

    /// Listens on the same port again.
    pub fn listen_again(&self) {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("an option of every socket");
        socket.bind(&self.shared.address.into()).expect("the port that was ours");
        socket.listen(128).expect("a bound socket listens");
        self.accept_on(socket.into());
    }

    fn accept_on(&self, listener: TcpListener) {
        self.shared.lock().listening = true;
        let shared = Arc::clone(&self.shared);
        let _listener = listener.try_clone().expect("a descriptor is left");
        let thread = thread::spawn(move || shared.accept(&listener));
        let acceptor = Acceptor { thread, _listener };
        *self.acceptor.lock().expect("no panic under this lock") = Some(acceptor);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        self.stop_listening();
        let threads = std::mem::take(&mut self.shared.lock().threads);
        for thread in threads {
            // A panic of a handler closed its connection, which fails the test, and its message was printed.
            drop(thread.join());
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for socket in listener.incoming() {
            let Ok(socket) = socket else { continue };
            let mut state = self.lock();
            if !state.listening {
                return;
            }
            let connection = state.log.connections;
            state.log.connections += 1;
            state.log.open += 1;
            state.sockets.insert(connection, socket.try_clone().expect("a descriptor is left"));
            let open = Open { shared: Arc::clone(self), connection };
            let thread = thread::spawn(move || {
                // Fails if the client closes its connection within a response, which it may do.
                drop(open.shared.serve(connection, &socket));
                open.shared.outlast_black_hole(connection);
                drop(socket);
                drop(open);
            });
            state.threads.retain(|thread| !thread.is_finished());
            self.changed.notify_all();
            if state.is_single_connection {
                drop(state);
                drop(thread.join());
            } else {
                state.threads.push(thread);
            }
        }
    }
}

/// Counts a connection as open until it is dropped, also by a panic of a handler.
struct Open {
    shared: Arc<Shared>,
    connection: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.sockets.remove(&self.connection);
        state.log.open -= 1;
        self.shared.changed.notify_all();
    }
}
