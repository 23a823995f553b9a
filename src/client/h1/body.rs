//! The body of a response over HTTP/1.
//!
//! ureq gives out what it has buffered, and decodes chunks. The rest of a body of a known length is read from the socket,
//! straight into a large buffer: the TCP connection is [lent](super::lending) by the connector and given back at the end.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::BodyReader;

use super::error::{describe, describe_io};
use super::transport::{Tcp, timed_out};
use crate::client::exchange::Exchange;
use crate::error::Error;

/// A buffer of this size is read into by a system call of its own, about as long as a copy of so many bytes takes. What goes
/// into smaller ones is buffered by ureq.
const LARGE: usize = 16 * 1024;

/// What is known of the way a body ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Framing {
    /// Nothing but its announced bytes is sent.
    pub(crate) by_length: bool,
    /// The connection serves other requests after it.
    pub(crate) keeps_alive: bool,
}

/// A body and its connection.
pub(crate) struct H1Body {
    /// Owns the connection.
    reader: BodyReader<'static>,
    /// Where the rest comes from once ureq has given out what it had buffered. Nobody else reads it.
    direct: Option<Direct>,
    /// It was read into a large buffer once. A small one since is the rest of such a one.
    is_read_large: bool,
    exchange: Arc<Exchange>,
    framing: Framing,
}

struct Direct {
    tcp: Tcp,
    /// Limit on the silence of each read.
    limit: Option<Duration>,
}

impl H1Body {
    pub(crate) fn new(reader: BodyReader<'static>, exchange: &Arc<Exchange>, framing: Framing) -> Self {
        Self { reader, direct: None, is_read_large: false, exchange: Arc::clone(exchange), framing }
    }

    /// Reads what there is. Blocks until a byte is there, for the silence limit at most.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        if self.direct.is_none() {
            self.is_read_large |= buf.len() >= LARGE;
            if self.framing.by_length && self.is_read_large {
                self.exchange.lending.allow();
            }
            let result = self.reader.read(buf);
            let lent = self.exchange.lending.take_lent();
            self.direct = lent.map(|tcp| Direct { limit: tcp.read_timeout(), tcp });
            if self.direct.is_none() {
                return result.map_err(|error| describe(ureq::Error::from(error)));
            }
        }
        let Some(Direct { tcp, limit }) = &mut self.direct else { return Ok(0) };
        let mut read = |limit| tcp.set_read_timeout(limit).and_then(|()| tcp.read_unbuffered(buf));
        let result = match self.exchange.silence() {
            Some(silence) => silence.wait(*limit, timed_out, read),
            None => read(*limit),
        };
        result.map_err(describe_io)
    }

    /// As [`read`](Self::read), but for `brief` at most: `None` if nothing came. Only where [`is_direct`](Self::is_direct).
    pub(crate) fn read_briefly(&mut self, buf: &mut [u8], brief: Duration) -> Result<Option<usize>, Error> {
        let Some(Direct { tcp, .. }) = &mut self.direct else { return self.read(buf).map(Some) };
        match tcp.set_read_timeout(Some(brief)).and_then(|()| tcp.read_unbuffered(buf)) {
            Err(error) if timed_out(&error) => Ok(None),
            result => result.map(Some).map_err(describe_io),
        }
    }

    /// True if the next read is one of the socket itself, whose limit can be changed for it.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Lets the connection serve other requests, if it can. Called when all bytes have come. Does not block: where no length
    /// frames the body, its end may not have been sent, and the connection is closed.
    pub(crate) fn finish(mut self) {
        match self.direct.take() {
            // Taken back by the connector when the reader is dropped.
            Some(Direct { tcp, .. }) if self.framing.keeps_alive => self.exchange.lending.give_back(tcp),
            Some(_) => {}
            None if self.framing.by_length => {
                // ureq lets go of the connection when a read returns nothing. What comes of it does not matter: all bytes
                // are there.
                drop(self.reader.read(&mut [0]));
            }
            None => {}
        }
    }
}
