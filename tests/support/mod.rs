//! A scripted origin server: real sockets, std threads, deterministic bodies, and any misbehaviour a test asks for.
//!
//! ```no_run
//! let origin = Origin::serving(Content::pattern(1 << 20));
//! let slow = Origin::start(move |asked| Answer::file(asked, &content).latency(RTT).rate(100_000).reset_after(5000));
//! origin.wait_until("a second request", |log| log.asked.len() == 2);
//! ```
#![allow(dead_code, unreachable_pub, reason = "each test and example uses a part of it")]

pub mod content;
pub mod decoding;
pub mod link;
pub mod peers;
pub mod proxy;
pub mod steps;
mod wire;

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use content::Content;

pub use wire::Identity;
use wire::{Line, Wire};

/// Between the halves of a head, so that they are not read as one.
const SPLIT_GAP: Duration = Duration::from_millis(5);

/// How long a test waits for what should come at once on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request, as the server saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// Which request of its connection it is, from 0.
    pub on_connection: usize,
    /// Which request of all it is, from 0, without the suffix requests. `usize::MAX` for those.
    pub number: usize,
    /// How many had asked for this path before.
    pub again: usize,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first byte asked for, and the last one if it is told. A range that makes no sense is none (RFC 9110, section
    /// 14.1.1).
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok());
        last.is_none_or(|last| first <= last).then_some((first, last))
    }

    /// How many of the last bytes are asked for. A stream asks for them once, beside its opening; nobody else does.
    pub fn suffix(&self) -> Option<u64> {
        self.header("range")?.strip_prefix("bytes=-")?.parse().ok()
    }
}

/// What the server answers, and how it sends it.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Content,
    /// The part of `body` that is sent.
    part: std::ops::Range<u64>,
    framing: Framing,
    latency: Duration,
    holds_head: bool,
    pace: Pace,
    end: Ending,
    /// Statuses of the answers before this one.
    interim: Vec<u16>,
    /// Where the head is split.
    split: Option<usize>,
    trailers: Vec<(String, String)>,
    /// Bytes more than announced.
    extra: usize,
    /// They are a chunk of a chunked body, and not what follows it.
    extra_is_chunk: bool,
    /// Sent instead of all the above.
    raw: Option<Vec<u8>>,
    version: &'static str,
    notifies_close: bool,
    closes_when_idle: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    /// No length: the end of the connection is the end of the body.
    Close,
    Chunked,
}

/// A radio station: what it plays, and how often it says so.
#[derive(Clone, Debug)]
pub struct Station {
    pub audio: Content,
    /// Bytes of audio between two metadata blocks; 0 for a station that says nothing.
    pub interval: u64,
    /// One block in so many says a title, the others are empty.
    pub every: u64,
    /// Said in turn.
    pub titles: Vec<&'static str>,
}

/// How fast a body is sent.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Full,
    /// Bytes a second.
    Rate(u64),
    /// So many bytes, each time.
    Trickle(u64, Duration),
}

impl Pace {
    /// How many bytes go out together.
    fn slice(self) -> u64 {
        match self {
            Self::Full => 256 * 1024,
            // A slow server sends small pieces, ten a second or more.
            Self::Rate(rate) => (rate / 50).clamp(1, 64 * 1024),
            Self::Trickle(bytes, _) => bytes.max(1),
        }
    }

    /// How long to wait when `sent` bytes went out in `taken`.
    fn wait(self, sent: u64, taken: Duration) -> Duration {
        match self {
            Self::Full => Duration::ZERO,
            Self::Rate(rate) => Duration::from_secs_f64(sent as f64 / rate as f64).saturating_sub(taken),
            Self::Trickle(_, every) => every,
        }
    }
}

/// How far an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Whole,
    /// So many bytes of head.
    InHead(usize, Cut),
    /// So many bytes of body.
    InBody(u64, Cut),
    /// So many bytes of body, the last chunk without its end.
    InChunk(u64),
}

/// What happens where an answer ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Close,
    Reset,
    Stall,
}

impl Answer {
    /// A status with a short text.
    pub fn status(status: u16) -> Self {
        let body = Content::bytes(format!("status {status}\n").into_bytes());
        Self::whole(&body).with_status(status)
    }

    /// All of `content`, whatever was asked for.
    pub fn whole(content: &Content) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: content.clone(),
            part: 0..content.len(),
            framing: Framing::Length,
            latency: Duration::ZERO,
            holds_head: false,
            pace: Pace::Full,
            end: Ending::Whole,
            interim: Vec::new(),
            split: None,
            trailers: Vec::new(),
            extra: 0,
            extra_is_chunk: false,
            raw: None,
            version: "HTTP/1.1",
            notifies_close: true,
            closes_when_idle: false,
        }
    }

    /// What a good server says: the range that was asked for, 416 behind the end, an entity tag.
    pub fn file(asked: &Asked, content: &Content) -> Self {
        let answer = Self::whole(content).header("ETag", &content.etag()).header("Accept-Ranges", "bytes");
        let len = content.len();
        if let Some(suffix) = asked.suffix().filter(|_| len > 0) {
            return answer.partial(len.saturating_sub(suffix)..len);
        }
        let Some((first, last)) = asked.range() else { return answer };
        if first >= len {
            let range = format!("bytes */{len}");
            return Self::status(416).header("Content-Range", &range);
        }
        let end = last.map_or(len, |last| len.min(last.saturating_add(1)));
        answer.partial(first..end)
    }

    /// What Icecast says: no length, and titles for those who ask for them.
    pub fn station(asked: &Asked, station: &Station) -> Self {
        let Station { audio, interval, every, titles } = station;
        let answer =
            |content: &Content| Self::whole(content).no_length().header("Content-Type", "audio/mpeg");
        if asked.header("icy-metadata") != Some("1") || *interval == 0 {
            return answer(audio).header("icy-name", "Scripted");
        }
        answer(&Content::icy(audio, *interval, *every, titles))
            .header("icy-name", "Scripted")
            .header("icy-metaint", &interval.to_string())
    }

    /// A part, with its `Content-Range`.
    pub fn partial(mut self, part: std::ops::Range<u64>) -> Self {
        let range = format!("bytes {}-{}/{}", part.start, part.end - 1, self.body.len());
        self.part = part;
        self.with_status(206).header("Content-Range", &range)
    }

    /// A redirect.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::status(status).header("Location", location)
    }

    /// These bytes as they are, at the pace of a body, and then the end of the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), ..Self::status(200) }
    }

    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self
    }

    /// Waits so long before the head.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Waits with the head until the origin is released or dropped.
    pub fn latency_until_released(mut self) -> Self {
        self.holds_head = true;
        self
    }

    /// Sends the body at so many bytes a second.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.pace = Pace::Rate(bytes_per_second);
        self
    }

    /// Sends so many bytes of body at a time, each as a chunk or a segment of its own, and waits after each.
    pub fn trickle(mut self, bytes_per_chunk: u64, every: Duration) -> Self {
        self.pace = Pace::Trickle(bytes_per_chunk, every);
        self
    }

    /// No `Content-Length`: the body ends with the connection.
    pub fn no_length(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Sends these after the last chunk.
    pub fn trailers(mut self, trailers: &[(&str, &str)]) -> Self {
        self.trailers = trailers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.chunked()
    }

    /// Sends so many bytes more than announced, together with the last ones.
    pub fn extra_bytes(mut self, bytes: usize) -> Self {
        self.extra = bytes;
        self
    }

    /// Sends so many bytes more than announced, as a chunk of their own before the last one.
    pub fn extra_chunk(mut self, bytes: usize) -> Self {
        self.extra_is_chunk = true;
        self.extra_bytes(bytes).chunked()
    }

    pub fn http10(mut self) -> Self {
        self.version = "HTTP/1.0";
        self
    }

    /// HTTP/1.0 with a connection that is kept, and says so.
    pub fn keep_alive_http10(self) -> Self {
        self.http10().header("Connection", "keep-alive")
    }

    /// The status line of SHOUTcast, `ICY 200 OK`, and the end of the connection after the body.
    pub fn icy(mut self) -> Self {
        self.version = "ICY";
        self.with_status(200)
    }

    /// Answers with this status first, 100 or 103, before any latency; one more for each call.
    pub fn interim(mut self, status: u16) -> Self {
        self.interim.push(status);
        self
    }

    /// Sends the head in two segments, the first one of so many bytes.
    pub fn split_head(mut self, at: usize) -> Self {
        self.split = Some(at);
        self
    }

    /// Closes the connection after so many bytes of head.
    pub fn close_in_head(mut self, after_bytes: usize) -> Self {
        self.end = Ending::InHead(after_bytes, Cut::Close);
        self
    }

    /// Resets the connection after so many bytes of head.
    pub fn reset_in_head(mut self, after_bytes: usize) -> Self {
        self.end = Ending::InHead(after_bytes, Cut::Reset);
        self
    }

    /// Falls silent after so many bytes of head, until the origin is released or dropped.
    pub fn stall_in_head(mut self, after_bytes: usize) -> Self {
        self.end = Ending::InHead(after_bytes, Cut::Stall);
        self
    }

    /// Closes the connection after so many bytes of body.
    pub fn close_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InBody(bytes, Cut::Close);
        self
    }

    /// Closes the connection after so many bytes of body, in the middle of a chunk.
    pub fn cut_chunk_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InChunk(bytes);
        self.chunked()
    }

    /// Resets the connection after so many bytes of body.
    pub fn reset_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InBody(bytes, Cut::Reset);
        self
    }

    /// Falls silent after so many bytes of body, until the origin is released or dropped.
    pub fn stall_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InBody(bytes, Cut::Stall);
        self
    }

    /// Closes the connection after the whole answer without having said so, as when a keep-alive runs out.
    pub fn close_when_idle(mut self) -> Self {
        self.closes_when_idle = true;
        self
    }

    /// Over TLS, a connection that is closed after this just ends, as if it were cut.
    pub fn without_close_notify(mut self) -> Self {
        self.notifies_close = false;
        self
    }

    fn head(&self) -> String {
        let reason = if self.version == "ICY" { "OK" } else { "whatever" };
        let mut head = format!("{} {} {reason}\r\n", self.version, self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let has_length = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        match self.framing {
            Framing::Length if !has_length => {
                head.push_str(&format!("Content-Length: {}\r\n", self.part.end - self.part.start));
            }
            Framing::Close => head.push_str("Connection: close\r\n"),
            Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::Length => {}
        }
        head.push_str("\r\n");
        head
    }

    /// The answers before this one.
    fn interim_heads(&self) -> String {
        let head = |status: &u16| match status {
            103 => "HTTP/1.1 103 Early Hints\r\nLink: </cover.jpg>; rel=preload\r\n\r\n".into(),
            _ => format!("HTTP/1.1 {status} whatever\r\n\r\n"),
        };
        self.interim.iter().map(head).collect()
    }

    /// What follows the last chunk.
    fn chunked_end(&self) -> Vec<u8> {
        let mut end = String::new();
        if self.extra_is_chunk {
            end.push_str(&format!("{:x}\r\n{}\r\n", self.extra, "x".repeat(self.extra)));
        }
        end.push_str("0\r\n");
        for (name, value) in &self.trailers {
            end.push_str(&format!("{name}: {value}\r\n"));
        }
        end.push_str("\r\n");
        let mut end = end.into_bytes();
        if !self.extra_is_chunk {
            self.append_extra(&mut end);
        }
        end
    }

    fn append_extra(&self, out: &mut Vec<u8>) {
        out.resize(out.len() + self.extra, b'x');
    }

    /// True if another answer can follow on the same connection.
    fn keeps_connection(&self) -> bool {
        let is_kept = self.headers.contains(&("Connection".into(), "keep-alive".into()));
        self.framing != Framing::Close && !self.closes_when_idle && (self.version == "HTTP/1.1" || is_kept)
    }
}

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

struct Shared {
    handler: Box<Handler>,
    state: Mutex<State>,
    changed: Condvar,
    address: SocketAddr,
    /// What a new connection costs; over TLS, twice.
    rtt: Duration,
    /// For TLS.
    identity: Option<Identity>,
    /// Connections before this one are in the black hole. Only grows.
    black_holed: AtomicUsize,
}

#[derive(Default)]
struct State {
    log: Log,
    /// Requests that the log does not hold any more.
    forgotten: usize,
    /// How often each path was asked for.
    seen: HashMap<String, usize>,
    /// Second handles of the connections that nobody has shut down.
    sockets: HashMap<usize, TcpStream>,
    threads: Vec<JoinHandle<()>>,
    listening: bool,
    released: bool,
    stopping: bool,
    is_single_connection: bool,
    serves_oldest: bool,
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

    /// Blocks until the log is as wanted. Panics with the log if that takes absurdly long.
    pub fn wait_until(&self, what: &str, mut wanted: impl FnMut(&Log) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        while !wanted(&state.log) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "still no {what}: {:?}", state.log);
            state = self.shared.changed.wait_timeout(state, left).expect("no panic under this lock").0;
        }
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
    fn lock(&self) -> MutexGuard<'_, State> {
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

    fn serve(&self, connection: usize, socket: &TcpStream) -> io::Result<()> {
        let accepted = Instant::now();
        socket.set_nodelay(true)?;
        let line = Line { socket, connection, black_holed: &self.black_holed };
        let mut wire = match &self.identity {
            None => Wire::Plain(line),
            Some(identity) => {
                self.pause(2 * self.rtt)?;
                identity.accept(line)?
            }
        };
        let mut unread = Vec::new();
        for on_connection in 0.. {
            let Some(mut asked) = read_request(&mut wire, &mut unread)? else { return Ok(()) };
            asked.connection = connection;
            asked.on_connection = on_connection;
            {
                let mut state = self.lock();
                if asked.suffix().is_some() {
                    asked.number = usize::MAX;
                    state.log.suffixes.push(asked.clone());
                } else {
                    asked.number = state.forgotten + state.log.asked.len();
                    let seen = state.seen.entry(asked.path.clone()).or_default();
                    asked.again = *seen;
                    *seen += 1;
                    state.log.asked.push(asked.clone());
                }
                self.changed.notify_all();
            }
            let answer = if self.serves(connection) { (self.handler)(&asked) } else { Answer::status(503) };
            let is_first = on_connection == 0 && self.identity.is_none();
            // A connection that was opened ahead has had its round trip.
            let handshake =
                if is_first { self.rtt.saturating_sub(accepted.elapsed()) } else { Duration::ZERO };
            self.pause(handshake)?;
            if !answer.interim.is_empty() {
                wire.send(answer.interim_heads().as_bytes())?;
            }
            self.pause(answer.latency)?;
            if answer.holds_head && !self.stall(socket) {
                return Ok(());
            }
            if !self.send(&mut wire, &answer)? {
                return hang_up(&mut wire, &answer);
            }
        }
        Ok(())
    }

    /// False for all but the oldest open connection of a server that serves no other.
    fn serves(&self, connection: usize) -> bool {
        let state = self.lock();
        !state.serves_oldest || state.sockets.keys().all(|other| *other >= connection)
    }

    /// Sends an answer. False if the connection is to end with it.
    fn send(&self, wire: &mut Wire<'_>, answer: &Answer) -> io::Result<bool> {
        if let Some(raw) = &answer.raw {
            self.send_raw(wire, raw, answer.pace)?;
            return Ok(false);
        }
        let mut out = answer.head().into_bytes();
        if let Ending::InHead(bytes, cut) = answer.end {
            let rest = out.split_off(bytes.min(out.len()));
            wire.send(&out)?;
            if cut != Cut::Stall || !self.stall(wire.socket()) {
                return Ok(false);
            }
            out = rest;
        }
        if let Some(at) = answer.split {
            let rest = out.split_off(at.min(out.len()));
            wire.send(&out)?;
            self.pause(SPLIT_GAP)?;
            out = rest;
        }
        self.send_body(wire, answer, out)
    }

    fn send_raw(&self, wire: &mut Wire<'_>, raw: &[u8], pace: Pace) -> io::Result<()> {
        let (mut sent, began) = (0, Instant::now());
        for slice in raw.chunks(pace.slice() as usize) {
            self.pause(pace.wait(sent, began.elapsed()))?;
            wire.send(slice)?;
            sent += slice.len() as u64;
        }
        Ok(())
    }

    /// Sends the body behind what is in `out` already: head and first bytes go together, as most servers send them.
    fn send_body(&self, wire: &mut Wire<'_>, answer: &Answer, mut out: Vec<u8>) -> io::Result<bool> {
        let mut at = answer.part.start;
        let limit = match answer.end {
            Ending::Whole | Ending::InHead(..) => u64::MAX,
            Ending::InBody(bytes, _) | Ending::InChunk(bytes) => bytes,
        };
        let stop = at.saturating_add(limit).min(answer.part.end);
        let began = Instant::now();
        loop {
            let end = stop.min(at.saturating_add(answer.pace.slice()));
            let is_cut = end == stop && matches!(answer.end, Ending::InChunk(_));
            append(&mut out, answer, at..end, is_cut);
            if end == answer.part.end && answer.framing != Framing::Chunked {
                answer.append_extra(&mut out);
            }
            wire.send(&out)?;
            out.clear();
            self.lock().log.sent += end - at;
            self.changed.notify_all();
            at = end;
            if at == stop {
                break;
            }
            self.pause(answer.pace.wait(at - answer.part.start, began.elapsed()))?;
        }
        match answer.end {
            Ending::InBody(_, Cut::Close | Cut::Reset) | Ending::InChunk(_) => return Ok(false),
            Ending::InBody(_, Cut::Stall) => {
                if self.stall(wire.socket()) {
                    append(&mut out, answer, stop..answer.part.end, false);
                    wire.send(&out)?;
                }
                return Ok(false);
            }
            Ending::Whole | Ending::InHead(..) => {}
        }
        if answer.framing == Framing::Chunked {
            wire.send(&answer.chunked_end())?;
        }
        Ok(answer.keeps_connection())
    }

    /// Waits, unless the server stops meanwhile.
    fn pause(&self, time: Duration) -> io::Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        let deadline = Instant::now() + time;
        let mut state = self.lock();
        loop {
            if state.stopping {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            state = self.changed.wait_timeout(state, left).expect("no panic under this lock").0;
        }
    }

    /// Keeps a connection that is in the black hole open, for as long as nobody shuts it down.
    fn outlast_black_hole(&self, connection: usize) {
        if connection >= self.black_holed.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        while state.sockets.contains_key(&connection) {
            state = self.changed.wait(state).expect("no panic under this lock");
        }
    }

    /// Waits to be released; false if the client goes away or the server stops instead.
    fn stall(&self, mut socket: &TcpStream) -> bool {
        if !self.lock().released {
            // `release` shuts the reading half down. A client that waits sends nothing.
            while matches!(socket.read(&mut [0; 256]), Ok(got) if got > 0) {}
        }
        let state = self.lock();
        state.released && !state.stopping && state.listening
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

/// The end of a connection after its last answer. The socket's drop does the rest: a shutdown would send the end that
/// a reset goes without.
fn hang_up(wire: &mut Wire<'_>, answer: &Answer) -> io::Result<()> {
    match answer.end {
        Ending::InHead(_, Cut::Reset) | Ending::InBody(_, Cut::Reset) => {
            socket2::SockRef::from(wire.socket()).set_linger(Some(Duration::ZERO))
        }
        _ if answer.notifies_close => wire.notify_close(),
        _ => Ok(()),
    }
}

/// Frames a part of the body. A chunk that is cut announces a byte more than comes.
fn append(out: &mut Vec<u8>, answer: &Answer, part: std::ops::Range<u64>, is_cut: bool) {
    if answer.framing != Framing::Chunked {
        return answer.body.append(out, part);
    }
    let announced = part.end - part.start + u64::from(is_cut);
    if announced == 0 {
        return;
    }
    out.extend_from_slice(format!("{announced:x}\r\n").as_bytes());
    answer.body.append(out, part);
    if !is_cut {
        out.extend_from_slice(b"\r\n");
    }
}

/// The next request on a connection; `None` at its end.
fn read_request(wire: &mut Wire<'_>, unread: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    let end = loop {
        if let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut buf = [0; 4096];
        let got = wire.receive(&mut buf)?;
        if got == 0 {
            return Ok(None);
        }
        unread.extend_from_slice(&buf[..got]);
    };
    let head = String::from_utf8_lossy(&unread[..end]).into_owned();
    unread.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, path) = (word(), word());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Some(Asked { connection: 0, on_connection: 0, number: 0, again: 0, method, path, headers }))
}
