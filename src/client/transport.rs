//! Connections as ureq sees them: dialled here, aborted from any thread, watched for how they end.
//!
//! ```text
//!  agent.run ─▶ Dial: resolve'd addresses ─▶ Tcp ─▶ rustls, for https ─▶ Watched
//! ```
//!
//! The connector learns of the request that it works for through a thread-local, set around ureq's call. A connection
//! from ureq's pool never passes the connector, so it is bound to its request when the request is sent, and unbound
//! before it goes back into the pool: a late cancel can't kill the socket's next user.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use crate::cancel::CancelReason;
use crate::error::{Error, ErrorKind};

/// How long an address is tried while others are left that may answer sooner (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// One request, as its connection and its canceller see it.
#[derive(Default)]
pub(super) struct Exchange(Mutex<Binding>);

#[derive(Default)]
struct Binding {
    /// Set once, and then no socket is bound any more.
    cancelled: Option<CancelReason>,
    /// The socket that this exchange uses, and nobody else.
    socket: Option<Arc<Socket>>,
    /// The connection had served another request before.
    reused: bool,
    /// Something came back.
    answered: bool,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Exchange>>> = const { RefCell::new(None) };
}

impl Exchange {
    /// Runs `call` with this as the current exchange of the thread.
    pub(super) fn enter<T>(self: &Arc<Self>, call: impl FnOnce() -> T) -> T {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(None);
            }
        }
        CURRENT.set(Some(Arc::clone(self)));
        let _leave = Leave;
        call()
    }

    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Releases whoever is blocked on this exchange's socket, now and from now on.
    pub(super) fn abort(&self, reason: CancelReason) {
        let mut binding = self.0.lock();
        binding.cancelled.get_or_insert(reason);
        if let Some(socket) = binding.socket.take() {
            // An error says that it is down already.
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    /// Why it was aborted, if it was.
    pub(super) fn cancelled(&self) -> Option<Error> {
        self.0.lock().cancelled.map(Error::cancelled)
    }

    /// True if a connection that had served another request before went away without an answer.
    pub(super) fn was_stale(&self) -> bool {
        let binding = self.0.lock();
        binding.reused && !binding.answered && binding.cancelled.is_none()
    }

    fn bind(&self, socket: &Arc<Socket>, reused: bool) -> Result<(), ureq::Error> {
        let mut binding = self.0.lock();
        if let Some(reason) = binding.cancelled {
            return Err(carry(Error::cancelled(reason)));
        }
        binding.socket = Some(Arc::clone(socket));
        binding.reused = reused;
        Ok(())
    }

    fn unbind(&self, socket: &Arc<Socket>) {
        let mut binding = self.0.lock();
        if binding.socket.as_ref().is_some_and(|bound| Arc::ptr_eq(bound, socket)) {
            binding.socket = None;
        }
    }

    fn note_answer(&self) {
        self.0.lock().answered = true;
    }
}

/// Our error as ureq's. As an I/O error of kind `Other`, or ureq would take some kinds for the clean end of a body.
pub(super) fn carry(error: Error) -> ureq::Error {
    ureq::Error::Io(io::Error::other(error))
}

/// Connections opened and in use.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) dialled: AtomicU64,
    pub(super) requests: AtomicU64,
}

/// Opens TCP connections.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) counters: Arc<Counters>,
    pub(super) connect_timeout: Duration,
}

impl Connector<()> for Dial {
    type Out = Tcp;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Tcp>, ureq::Error> {
        let socket = self.dial(&details.addrs).map_err(carry)?;
        let config = details.config;
        Ok(Some(Tcp {
            socket,
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            is_tls: details.needs_tls(),
            awaits_head: false,
            read_timeout: None,
            write_timeout: None,
        }))
    }
}

impl Dial {
    /// Tries the addresses in turn: each shortly, while others are left that may answer sooner; then each at length.
    fn dial(&self, addresses: &[SocketAddr]) -> Result<Arc<Socket>, Error> {
        let deadline = Instant::now() + self.connect_timeout;
        let mut last = None;
        let patient = if addresses.len() > 1 { 2 } else { 1 };
        for round in 0..patient {
            for (index, address) in addresses.iter().enumerate() {
                let left = deadline.saturating_duration_since(Instant::now());
                let share = left / (addresses.len() - index) as u32;
                let limit = if round + 1 < patient { STAGGER.min(left) } else { share };
                if limit.is_zero() {
                    break;
                }
                match self.dial_one(*address, limit) {
                    Ok(socket) => return Ok(socket),
                    Err(error) if error.is_cancelled() => return Err(error),
                    Err(error) => last = Some(error),
                }
            }
            // Who refused at once refuses again.
            if last.as_ref().is_some_and(|error| error.kind() != ErrorKind::ConnectTimedOut) {
                break;
            }
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::ConnectTimedOut, "no time was left to connect")))
    }

    fn dial_one(&self, address: SocketAddr, limit: Duration) -> Result<Arc<Socket>, Error> {
        let failed = |error: io::Error| describe_connect(address, error);
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
        let socket = Arc::new(socket);
        let exchange = Exchange::current();
        // Bound before it connects, so that a cancel releases the connect.
        if let Some(exchange) = &exchange {
            exchange.bind(&socket, false).map_err(Error::from_ureq)?;
        }
        self.counters.dialled.fetch_add(1, Ordering::Relaxed);
        let connected = socket
            .connect_timeout(&SockAddr::from(address), limit)
            .and_then(|()| socket.set_tcp_nodelay(true))
            .map_err(failed);
        let Some(exchange) = exchange else { return connected.map(|()| socket) };
        match (connected, exchange.cancelled()) {
            (_, Some(cancelled)) => Err(cancelled),
            (Err(error), None) => {
                exchange.unbind(&socket);
                Err(error)
            }
            (Ok(()), None) => Ok(socket),
        }
    }
}

fn describe_connect(address: SocketAddr, error: io::Error) -> Error {
    let (kind, what) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (ErrorKind::Refused, "refused the connection"),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            (ErrorKind::ConnectTimedOut, "did not accept the connection in time")
        }
        _ => (ErrorKind::Unreachable, "can't be reached"),
    };
    Error::new(kind, format!("{address} {what}")).with_cause(error)
}

/// A TCP connection.
pub(super) struct Tcp {
    socket: Arc<Socket>,
    buffers: LazyBuffers,
    is_tls: bool,
    /// A request was sent and nothing of the answer has come.
    awaits_head: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Tcp {
    fn set_read_timeout(&mut self, timeout: NextTimeout) -> io::Result<()> {
        let wanted = timeout.not_zero().map(|after| *after);
        if wanted != self.read_timeout {
            self.socket.set_read_timeout(wanted)?;
            self.read_timeout = wanted;
        }
        Ok(())
    }

    fn set_write_timeout(&mut self, timeout: NextTimeout) -> io::Result<()> {
        let wanted = timeout.not_zero().map(|after| *after);
        if wanted != self.write_timeout {
            self.socket.set_write_timeout(wanted)?;
            self.write_timeout = wanted;
        }
        Ok(())
    }

    fn read_into(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.socket).read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Reads the beginning of an answer, with `ICY` as its protocol turned into one that ureq knows.
    fn read_head(&mut self) -> io::Result<usize> {
        let Self { socket, buffers, .. } = self;
        let buf = buffers.input_append_buf();
        let mut filled = 0;
        loop {
            let got = match (&**socket).read(&mut buf[ROOM + filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            filled += got;
            let is_short = filled < ICY.len() && ICY.starts_with(&buf[ROOM..ROOM + filled]);
            if got == 0 || !is_short {
                break;
            }
        }
        Ok(rewrite_icy(buf, filled))
    }
}

/// The protocol of SHOUTcast's status line.
const ICY: &[u8] = b"ICY ";
const HTTP: &[u8] = b"HTTP/1.0 ";
/// How much longer `HTTP` is.
const ROOM: usize = HTTP.len() - ICY.len();

/// Moves the `filled` bytes that begin at `ROOM` to the front of `buf`, with `ICY` turned into `HTTP`. Returns how many
/// they are now.
fn rewrite_icy(buf: &mut [u8], filled: usize) -> usize {
    if buf[ROOM..ROOM + filled].starts_with(ICY) {
        buf[..HTTP.len()].copy_from_slice(HTTP);
        return filled + ROOM;
    }
    buf.copy_within(ROOM..ROOM + filled, 0);
    filled
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        self.set_write_timeout(timeout)?;
        self.awaits_head = !self.is_tls;
        match (&*self.socket).write_all(&self.buffers.output()[..amount]) {
            Err(error) if timed_out(&error) => Err(ureq::Error::Timeout(timeout.reason)),
            result => Ok(result?),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        self.set_read_timeout(timeout)?;
        let result = if std::mem::take(&mut self.awaits_head) {
            self.read_head()
        } else {
            let Self { socket, buffers, .. } = self;
            let buf = buffers.input_append_buf();
            loop {
                match (&**socket).read(buf) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result,
                }
            }
        };
        match result {
            Err(error) if timed_out(&error) => Err(ureq::Error::Timeout(timeout.reason)),
            Err(error) => Err(error.into()),
            Ok(got) => {
                self.buffers.input_appended(got);
                Ok(got > 0)
            }
        }
    }

    /// Judged by hang-up. An idle TLS connection may have session tickets to read: they go into the buffer, where rustls
    /// finds them. On a plain one nothing may come.
    fn is_open(&mut self) -> bool {
        if self.socket.set_nonblocking(true).is_err() {
            return false;
        }
        let is_open = loop {
            let mut byte = [0];
            let read = if self.is_tls {
                (&*self.socket).read(self.buffers.input_append_buf())
            } else {
                self.read_into(&mut byte)
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Ok(got) if got > 0 && self.is_tls => self.buffers.input_appended(got),
                _ => break false,
            }
        };
        is_open && self.socket.set_nonblocking(false).is_ok()
    }

    fn is_tls(&self) -> bool {
        false
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tcp").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Wraps the finished connection in [`Watched`].
#[derive(Debug)]
pub(super) struct Watch;

impl<In: Transport> Connector<In> for Watch {
    type Out = Watched<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Watched<In>>, ureq::Error> {
        let Some(inner) = chained else { return Ok(None) };
        let socket = Exchange::current().and_then(|exchange| exchange.0.lock().socket.clone());
        let Some(socket) = socket else { return Err(carry(cancelled_in_handshake())) };
        Ok(Some(Watched { inner, socket, exchange: None, requests: 0 }))
    }
}

fn cancelled_in_handshake() -> Error {
    let reason = Exchange::current().and_then(|exchange| exchange.0.lock().cancelled);
    Error::cancelled(reason.unwrap_or(CancelReason::Fetch))
}

/// A connection bound to the request that uses it, whose breaks no layer above can take for ends.
pub(super) struct Watched<T> {
    inner: T,
    socket: Arc<Socket>,
    /// Whom it serves: from the sending of a request until it is idle again.
    exchange: Option<Arc<Exchange>>,
    /// Requests it has served, the current one included.
    requests: u64,
}

impl<T> Watched<T> {
    fn unbind(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.unbind(&self.socket);
        }
    }

    /// What really happened: a cancel shows as an end, and ureq takes a reset or an abort for a clean end.
    fn explain<R>(&self, result: Result<R, ureq::Error>) -> Result<R, ureq::Error> {
        if let Some(cancelled) = self.exchange.as_ref().and_then(|exchange| exchange.cancelled()) {
            return Err(carry(cancelled));
        }
        result.map_err(|error| match error {
            ureq::Error::Io(io) if is_break(&io) => {
                carry(Error::new(ErrorKind::Disconnected, "the connection broke").with_cause(io))
            }
            other => other,
        })
    }
}

fn is_break(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}

impl<T: Transport> Transport for Watched<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.exchange.is_none() {
            self.requests += 1;
            if let Some(exchange) = Exchange::current() {
                exchange.bind(&self.socket, self.requests > 1)?;
                self.exchange = Some(exchange);
            }
        }
        let result = self.inner.transmit_output(amount, timeout);
        self.explain(result)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let result = self.inner.await_input(timeout);
        if let (Ok(true), Some(exchange)) = (&result, &self.exchange) {
            exchange.note_answer();
        }
        self.explain(result)
    }

    fn is_open(&mut self) -> bool {
        self.unbind();
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.unbind();
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(answer: &[u8]) -> Vec<u8> {
        let mut buf = vec![0; 256];
        buf[ROOM..ROOM + answer.len()].copy_from_slice(answer);
        let len = rewrite_icy(&mut buf, answer.len());
        buf[..len].to_vec()
    }

    #[test]
    fn an_icy_status_line_becomes_http() {
        assert_eq!(rewritten(b"ICY 200 OK\r\nicy-br:128\r\n"), b"HTTP/1.0 200 OK\r\nicy-br:128\r\n");
    }

    #[test]
    fn every_other_beginning_stays() {
        for answer in [&b"HTTP/1.1 200 OK\r\n"[..], b"ICYCLE", b"IC", b""] {
            assert_eq!(rewritten(answer), answer);
        }
    }
}
