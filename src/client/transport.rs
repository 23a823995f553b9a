//! TCP connections: opened with a limit, and aborted from any thread.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ureq::Timeout;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport, time,
};

use super::exchange::Exchange;
use super::eyeballs;
use crate::error::{Error, ErrorKind};

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
        let began = Instant::now();
        let socket = self.dial(&details.addrs).map_err(carry)?;
        Ok(Some(Tcp {
            socket,
            handshake_until: began.checked_add(self.connect_timeout),
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            is_tls: details.needs_tls(),
            read_timeout: None,
            write_timeout: None,
        }))
    }
}

impl Dial {
    /// Connects to one of the addresses. Bound to the current exchange, which releases it from then on.
    fn dial(&self, addresses: &[SocketAddr]) -> Result<Arc<TcpStream>, Error> {
        let exchange = Exchange::current().unwrap_or_default();
        let (holder, released) = crossbeam_channel::bounded(0);
        exchange.hold(holder);
        let connected = eyeballs::connect(addresses, self.connect_timeout, &released, || {
            self.counters.dialled.fetch_add(1, Ordering::Relaxed);
        });
        if let Some(cancelled) = exchange.cancelled() {
            return Err(cancelled);
        }
        let socket = connected?;
        socket.set_nodelay(true).map_err(|error| {
            Error::new(ErrorKind::Unreachable, "the connection was lost").with_cause(error)
        })?;
        exchange.bind(&socket, false).map_err(Error::from_ureq)?;
        Ok(socket)
    }
}

/// A TCP connection.
pub(super) struct Tcp {
    socket: Arc<TcpStream>,
    /// When what comes before the first request has to be over: a handshake, or a proxy's answer. `None` once it is.
    handshake_until: Option<Instant>,
    buffers: LazyBuffers,
    is_tls: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Tcp {
    /// The limit that holds now. An error if it has passed.
    fn limit(&mut self, mut timeout: NextTimeout) -> Result<NextTimeout, ureq::Error> {
        if let Some(until) = self.handshake_until {
            if Exchange::current().is_some_and(|exchange| !exchange.was_connected()) {
                let left = until.saturating_duration_since(Instant::now());
                if left < *timeout.after {
                    timeout = NextTimeout {
                        after: time::Duration::Exact(left),
                        reason: Timeout::Connect,
                        ..timeout
                    };
                }
            } else {
                self.handshake_until = None;
            }
        }
        if timeout.after.is_zero() {
            return Err(ureq::Error::Timeout(timeout.reason));
        }
        Ok(timeout)
    }

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

/// True if a limit on reads or writes has passed.
pub(super) fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = self.limit(timeout.for_write())?;
        self.set_write_timeout(timeout)?;
        match (&*self.socket).write_all(&self.buffers.output()[..amount]) {
            Err(error) if timed_out(&error) => Err(ureq::Error::Timeout(timeout.reason)),
            result => Ok(result?),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = self.limit(timeout.for_read())?;
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
