//! TCP connections: opened with a limit, whichever address answers first, and aborted from any thread.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::exchange::Exchange;
use crate::error::{Error, ErrorKind};

/// How long an address is tried while others are left that may answer sooner (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Our error as ureq's. As an I/O error of kind `Other`, or ureq would take some kinds for the clean end of a body.
pub(super) fn carry(error: Error) -> ureq::Error {
    ureq::Error::Io(io::Error::other(error))
}

/// Connections opened and in use.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) dialled: AtomicU64,
    /// Of those, the ones that were opened ahead.
    pub(super) warmed: AtomicU64,
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
        let config = details.config;
        if config.proxy().is_some_and(|proxy| !proxy.is_no_proxy(details.uri)) {
            // The next in the chain opens the proxy's tunnel.
            return Ok(None);
        }
        let socket = self.dial(&details.addrs).map_err(carry)?;
        Ok(Some(Tcp {
            socket,
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            is_tls: details.needs_tls(),
            read_timeout: None,
            write_timeout: None,
        }))
    }
}

impl Dial {
    /// Tries the addresses in turn: each shortly, while others are left that may answer sooner; then each at length.
    fn dial(&self, addresses: &[SocketAddr]) -> Result<Arc<TcpStream>, Error> {
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

    fn dial_one(&self, address: SocketAddr, limit: Duration) -> Result<Arc<TcpStream>, Error> {
        let failed = |error: io::Error| describe_connect(address, error);
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
        let socket = Arc::new(TcpStream::from(socket));
        let exchange = Exchange::current();
        // Bound before it connects, so that a cancel releases the connect.
        if let Some(exchange) = &exchange {
            exchange.bind(&socket, false).map_err(Error::from_ureq)?;
        }
        self.counters.dialled.fetch_add(1, Ordering::Relaxed);
        let connected = connect(&socket, address, limit, exchange.as_deref())
            .and_then(|()| socket.set_nodelay(true))
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

/// Blocks until `socket` is connected, `limit` has passed, or the exchange lets go of the socket.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn connect(
    socket: &Arc<TcpStream>,
    address: SocketAddr,
    limit: Duration,
    _: Option<&Exchange>,
) -> io::Result<()> {
    socket2::SockRef::from(&**socket).connect_timeout(&address.into(), limit)
}

/// Blocks until `socket` is connected, `limit` has passed, or the exchange lets go of the socket.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn connect(
    socket: &Arc<TcpStream>,
    address: SocketAddr,
    limit: Duration,
    exchange: Option<&Exchange>,
) -> io::Result<()> {
    let (holder, released) = crossbeam_channel::bounded(0);
    let _held = match exchange {
        Some(exchange) => {
            exchange.hold(holder);
            None
        }
        None => Some(holder),
    };
    super::aside::connect(socket, address, limit, &released)
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
    socket: Arc<TcpStream>,
    buffers: LazyBuffers,
    is_tls: bool,
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
}

/// Reads what there is; a signal does not end the wait.
pub(super) fn read_into(mut socket: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
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
        match (&*self.socket).write_all(&self.buffers.output()[..amount]) {
            Err(error) if timed_out(&error) => Err(ureq::Error::Timeout(timeout.reason)),
            result => Ok(result?),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        self.set_read_timeout(timeout)?;
        let Self { socket, buffers, .. } = self;
        let result = read_into(socket, buffers.input_append_buf());
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
                read_into(&self.socket, self.buffers.input_append_buf())
            } else {
                read_into(&self.socket, &mut byte)
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
