//! The scripted origin as tests hold it: start, log, stop, network faults.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Answer, Asked, Content, Identity};

/// What the server was asked and has done.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Without the suffix requests: when they come beside the others is left to chance.
    pub asked: Vec<Asked>,
    pub suffixes: Vec<Asked>,
    /// Connections accepted.
    pub connections: usize,
    /// Connections open now.
    pub open: usize,
    /// Bytes of body sent.
    pub sent: u64,
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

pub(super) struct Shared {
    pub(super) handler: Box<Handler>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    pub(super) address: SocketAddr,
    /// What a new connection costs; over TLS, twice.
    pub(super) rtt: Duration,
    /// For TLS.
    pub(super) identity: Option<Identity>,
    /// Connections before this one are in the black hole. Only grows.
    pub(super) black_holed: AtomicUsize,
    pub(super) lost: AtomicUsize,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) log: Log,
    /// Requests that the log does not hold any more.
    pub(super) forgotten: usize,
    /// How often each path was asked for.
    pub(super) seen: HashMap<String, usize>,
    /// Second handles of the connections that nobody has shut down.
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
    /// Keeps the port ours until the thread has ended, or its wake-up call could reach somebody else.
    _listener: TcpListener,
}

impl Origin {
    /// A server that answers as `handler` says.
    pub fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with_rtt(Duration::ZERO, handler)
    }

    /// As `start`; a new connection costs one `rtt`, as its handshake would on a network.
    pub fn start_with_rtt(rtt: Duration, handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_as(None, rtt, Box::new(handler))
    }

    /// As `start`, over TLS with a certificate of its own: see `root_pem`.
    pub fn start_tls(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_tls_with_rtt(Duration::ZERO, handler)
    }

    /// As `start_tls`, with a certificate that the test has made.
    pub fn start_tls_as(
        identity: Identity,
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(Some(identity), Duration::ZERO, Box::new(handler))
    }

    /// As `start_tls`; a new connection costs two `rtt`, one for TCP and one for TLS 1.3.
    pub fn start_tls_with_rtt(
        rtt: Duration,
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(Some(Identity::new()), rtt, Box::new(handler))
    }

    /// As `start`, but it accepts a connection only when the one before it was closed.
    pub fn start_single_connection(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let origin = Self::start(handler);
        origin.shared.lock().is_single_connection = true;
        origin
    }

    /// As `start`, but of the connections that are open it serves the oldest only; the others get a 503.
    pub fn start_for_oldest(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
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
        Self::start(move |asked| Answer::file(asked, &content))
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

    /// Lets go of the requests in the log, so that it does not grow for ever.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.forgotten += state.log.asked.len();
        state.log.asked = Vec::new();
        state.log.suffixes = Vec::new();
    }

    /// What happened so far.
    pub fn log(&self) -> Log {
        self.shared.lock().log.clone()
    }

    /// Blocks until `wanted` holds for the log. Panics with the log when `PATIENCE` is over.
    pub fn wait_until(&self, what: &str, wanted: impl FnMut(&Log) -> bool) {
        super::wait_until(self.shared.lock(), &self.shared.changed, |state| &state.log, what, wanted);
    }

    /// Lets stalled answers go on; their connections end with them.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.released = true;
        for socket in state.sockets.values() {
            // It may be closed already.
            drop(socket.shutdown(Shutdown::Read));
        }
    }

    /// Forgets the connections that are open now, as a NAT does: they stay open, but no byte goes either way any more,
    /// except those that the system was given before. New ones work.
    pub fn black_hole(&self) {
        let state = self.shared.lock();
        self.shared.black_holed.store(state.log.connections, Ordering::Release);
    }

    /// Number of connections in the black hole on which a request was sent. A client that sends one gets no answer, so it has
    /// been counted by the time that another connection answers instead.
    pub fn lost_requests(&self) -> usize {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Closes what is in the black hole, so that it does not pile up for ever.
    pub fn empty_black_hole(&self) {
        let black_holed = self.shared.black_holed.load(Ordering::Acquire);
        let mut state = self.shared.lock();
        state.sockets.retain(|connection, socket| {
            let is_kept = *connection >= black_holed;
            if !is_kept {
                // It may be closed already, which is what is wanted.
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
                // It may be closed already, which is what is wanted.
                drop(socket.shutdown(Shutdown::Both));
            }
            // For those in the black hole.
            self.shared.changed.notify_all();
        }
        // Wakes the acceptor, which sees that it is to stop. One that has stopped has given its port away.
        if self.acceptor.lock().expect("no panic under this lock").is_some() {
            drop(TcpStream::connect(self.shared.address));
        }
        if let Some(acceptor) = self.acceptor.lock().expect("no panic under this lock").take() {
            acceptor.thread.join().expect("the acceptor did not panic");
        }
    }

    /// Comes back on the same port.
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
            // A handler that panicked has failed its test by closing the connection; its message is printed.
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
                // A client that goes away in mid-answer is its own business.
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

/// A connection that counts as open until this is dropped, by a handler's panic too.
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
