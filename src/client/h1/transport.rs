//! A TCP connection as a transport of ureq.

use std::time::{Duration, Instant};
use std::{fmt, io};

use ureq::Timeout;
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport, time};

use crate::client::net::socket::Socket;
use crate::error::Error;

/// Wraps our error in one of ureq.
pub(crate) fn carry(error: Error) -> ureq::Error {
    // `Other`, because ureq takes some kinds of I/O errors for the clean end of a body.
    ureq::Error::Io(io::Error::other(error))
}

/// A transport that can carry TLS: it can read the bytes that have arrived without waiting.
pub(crate) trait Carrier: Transport {
    /// Reads the bytes that have arrived into the input buffer. False if the connection is closed or has failed.
    fn take_arrived(&mut self) -> bool;
}

/// Time limit of the steps before the first request: the response of a proxy and the TLS handshake.
#[derive(Clone, Copy)]
pub(crate) struct HandshakeLimit {
    /// Deadline of all steps. `None` if an `Instant` can't represent it.
    until: Option<Instant>,
    /// Time for all steps together, the TCP connect included.
    whole: Duration,
    timeout: NextTimeout,
}

impl HandshakeLimit {
    /// The steps began with the TCP connect, at `began`, and may take `whole`.
    pub(crate) fn new(began: Instant, whole: Duration, timeout: NextTimeout) -> Self {
        Self { until: began.checked_add(whole), whole, timeout }
    }

    /// For an error that says which limit was met.
    pub(crate) fn whole(&self) -> Duration {
        self.whole
    }

    /// What is left of the limit for the next wait.
    pub(crate) fn left(&self) -> NextTimeout {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        match left.map(time::Duration::Exact).filter(|left| *left < self.timeout.after) {
            // With this reason the error says that connecting timed out, and not that the server is silent.
            Some(after) => NextTimeout { after, reason: Timeout::Connect, ..self.timeout },
            None => self.timeout,
        }
    }
}

/// A TCP connection. The only owner of its socket.
pub(crate) struct Tcp {
    socket: Socket,
    buffers: LazyBuffers,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

/// Fails if `timeout` has passed.
fn check(timeout: NextTimeout) -> Result<NextTimeout, ureq::Error> {
    // The limit has passed. `NextTimeout::not_zero` would make a second of it, because sockets refuse a limit of zero.
    if timeout.after.is_zero() { Err(ureq::Error::Timeout(timeout.reason)) } else { Ok(timeout) }
}

impl Tcp {
    pub(crate) fn new(socket: Socket, config: &Config) -> Self {
        Self { socket, buffers: buffers(config), read_timeout: None, write_timeout: None }
    }

    /// Sets the limit of each read from the socket, as `await_input` does.
    pub(crate) fn limit_reads(&mut self, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = check(timeout.for_read())?;
        self.set_read_timeout(timeout.not_zero().map(|after| *after))?;
        Ok(())
    }

    /// Limit of each read from the socket. `None` means no limit.
    pub(crate) fn read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    pub(crate) fn set_read_timeout(&mut self, wanted: Option<Duration>) -> io::Result<()> {
        // Saves a system call for most reads.
        if wanted != self.read_timeout {
            self.socket.set_read_timeout(wanted)?;
            self.read_timeout = wanted;
        }
        Ok(())
    }

    fn set_write_timeout(&mut self, timeout: NextTimeout) -> io::Result<()> {
        let wanted = timeout.not_zero().map(|after| *after);
        // Saves a system call for each write.
        if wanted != self.write_timeout {
            self.socket.set_write_timeout(wanted)?;
            self.write_timeout = wanted;
        }
        Ok(())
    }

    /// Reads from the socket directly, without the input buffer.
    pub(crate) fn read_unbuffered(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        debug_assert!(self.buffers.input().is_empty(), "buffered bytes come first");
        self.socket.read(buf)
    }
}

/// Buffers of the configured sizes.
pub(crate) fn buffers(config: &Config) -> LazyBuffers {
    LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size())
}

/// True if a read or write has reached its time limit.
pub(crate) fn timed_out(error: &io::Error) -> bool {
    // Unix reports `WouldBlock` when a time limit of a socket has passed, Windows `TimedOut`.
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

impl Carrier for Tcp {
    fn take_arrived(&mut self) -> bool {
        if self.socket.set_nonblocking(true).is_err() {
            return false;
        }
        let is_open = loop {
            // A full buffer also returns 0, and then counts as closed.
            match self.socket.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Ok(got) if got > 0 => self.buffers.input_appended(got),
                _ => break false,
            }
        };
        // A socket that stays non-blocking would make the next read fail, so it counts as closed.
        is_open && self.socket.set_nonblocking(false).is_ok()
    }
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = check(timeout.for_write())?;
        self.set_write_timeout(timeout)?;
        match self.socket.write_all(&self.buffers.output()[..amount]) {
            Err(error) if timed_out(&error) => Err(ureq::Error::Timeout(timeout.reason)),
            result => Ok(result?),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = check(timeout.for_read())?;
        self.set_read_timeout(timeout.not_zero().map(|after| *after))?;
        let Self { socket, buffers, .. } = self;
        match socket.read(buffers.input_append_buf()) {
            Err(error) if timed_out(&error) => Err(ureq::Error::Timeout(timeout.reason)),
            Err(error) => Err(error.into()),
            Ok(got) => {
                buffers.input_appended(got);
                Ok(got > 0)
            }
        }
    }

    /// False if the server has closed the connection, or has sent bytes without a request: they would be taken for the next
    /// response.
    fn is_open(&mut self) -> bool {
        self.buffers.input().is_empty() && self.socket.is_open_and_silent()
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
