//! The body of a response over HTTP/1.
//!
//! ureq returns what it has buffered, and decodes chunked bodies. The rest of a body of known length is read from the socket
//! directly into the caller's buffer: the connector [lends](super::lending) the TCP connection, and gets it back at the end.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::BodyReader;

use super::error::{describe, describe_io};
use super::transport::{Tcp, timed_out};
use crate::client::exchange::Exchange;
use crate::error::Error;

/// Minimum size of a buffer for direct reads: copying this many bytes takes about as long as a system call. Smaller reads use
/// ureq's buffer.
const LARGE: usize = 16 * 1024;

/// How a body ends, and what happens to its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Framing {
    /// The body is framed by Content-Length, without a transfer coding.
    pub(crate) by_length: bool,
    /// The connection can be reused after the body.
    pub(crate) keeps_alive: bool,
}

/// A body and its connection.
pub(crate) struct H1Body {
    /// Owns the connection.
    reader: BodyReader<'static>,
    /// The lent connection, once ureq has returned all that it had buffered. Only this body reads it.
    direct: Option<Direct>,
    /// A large buffer was used once. A small one after that is the rest of a large one.
    is_read_large: bool,
    exchange: Arc<Exchange>,
    framing: Framing,
    /// Named by the error of a read that meets it.
    silence: Duration,
}

struct Direct {
    tcp: Tcp,
    /// Silence limit of each read.
    limit: Option<Duration>,
}

impl H1Body {
    /// A body whose framing is not known yet: its connection is closed after it. Boxed, because it is moved several times until it
    /// is read.
    pub(crate) fn new(reader: BodyReader<'static>, exchange: &Arc<Exchange>, silence: Duration) -> Box<Self> {
        let (exchange, framing) = (Arc::clone(exchange), Framing::default());
        Box::new(Self { reader, direct: None, is_read_large: false, exchange, framing, silence })
    }

    /// Sets how the body ends, as declared in its head.
    pub(crate) fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// Reads and drops at most `len` bytes. If that is the whole body, its connection can be reused.
    pub(crate) fn discard_rest(&mut self, len: u64) {
        // One byte more, so that the end of a body of the maximum length is read too: that makes ureq release the connection.
        // The result does not matter: a connection whose body was not read to its end is closed.
        drop(io::copy(&mut (&mut self.reader).take(len + 1), &mut io::sink()));
    }

    /// Reads the available bytes. Blocks until at least one byte arrives, for at most the silence limit.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        if self.direct.is_none() {
            self.is_read_large |= buf.len() >= LARGE;
            // ureq has to decode chunked bodies, so they are never read directly.
            if self.framing.by_length && self.is_read_large {
                self.exchange.lending.allow();
            }
            self.exchange.begin_body_read();
            let result = self.reader.read(buf);
            // If ureq lent its connection during this read, `result` is an error that means nothing: see `Link::transport`.
            let lent = self.exchange.lending.take_lent();
            self.direct = lent.map(|tcp| Direct { limit: tcp.read_timeout(), tcp });
            if self.direct.is_none() {
                return result.map_err(|error| describe(ureq::Error::from(error), self.silence));
            }
        }
        let Some(Direct { tcp, limit }) = &mut self.direct else { return Ok(0) };
        let mut read = |limit| tcp.set_read_timeout(limit).and_then(|()| tcp.read_unbuffered(buf));
        let result = match self.exchange.silence() {
            Some(silence) => silence.wait(*limit, timed_out, read),
            None => read(*limit),
        };
        result.map_err(|error| describe_io(error, self.silence))
    }

    /// As [`read`](Self::read), but blocks for at most `brief`: `None` if nothing arrived. Only call it if
    /// [`is_direct`](Self::is_direct) is true.
    pub(crate) fn read_briefly(&mut self, buf: &mut [u8], brief: Duration) -> Result<Option<usize>, Error> {
        let Some(Direct { tcp, .. }) = &mut self.direct else { return self.read(buf).map(Some) };
        match tcp.set_read_timeout(Some(brief)).and_then(|()| tcp.read_unbuffered(buf)) {
            Err(error) if timed_out(&error) => Ok(None),
            result => result.map(Some).map_err(|error| describe_io(error, self.silence)),
        }
    }

    /// True if a body of `len` bytes, of which none was read, came along with its head.
    pub(crate) fn has_arrived(&self, len: usize) -> bool {
        self.framing.by_length && self.exchange.behind_head() >= len
    }

    /// Reads a body of `len` bytes that [has arrived](Self::has_arrived). Fewer come if the connection broke.
    pub(crate) fn read_arrived(&mut self, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(len);
        let read = (&mut self.reader).take(len as u64).read_to_end(&mut bytes);
        read.map_err(|error| describe(ureq::Error::from(error), self.silence))?;
        Ok(bytes)
    }

    /// True if the next read is a direct one from the socket, whose time limit can be changed.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Returns the connection to the pool if it can be reused. Call it when the body is complete. Blocks for at most `brief`.
    pub(crate) fn finish(mut self: Box<Self>, brief: Duration) {
        if !self.framing.keeps_alive {
            return;
        }
        // The connector takes the connection back when `reader` is dropped.
        match self.direct.take() {
            Some(Direct { tcp, .. }) => self.exchange.lending.give_back(tcp),
            // Without another read, at which ureq would see the end: that takes as long as to read a short body.
            None if self.framing.by_length => self.exchange.lending.keep(),
            None => self.read_end(Instant::now() + brief),
        }
    }

    /// Reads the end of a chunked part, whose length is that of its range. Most servers send the end together with the last bytes.
    /// If it comes later, the connection is closed instead: the reader must not wait for it.
    fn read_end(&mut self, until: Instant) {
        self.exchange.read_until(until);
        self.exchange.begin_body_read();
        // At the end ureq releases the connection, and otherwise it is closed.
        drop(self.reader.read(&mut [0]));
    }
}
