//! The body of a response over HTTP/3.

use std::sync::Arc;
use std::time::Duration;

use super::connection::RequestStream;
use crate::client::exchange::Exchange;
use crate::error::{Error, ErrorKind};

/// A body and its stream. Its drop stops the stream, if the body is not complete.
pub(crate) struct H3Body {
    stream: RequestStream,
    exchange: Arc<Exchange>,
    /// Silence limit of each read.
    silence: Duration,
}

impl H3Body {
    pub(super) fn new(stream: RequestStream, exchange: Arc<Exchange>, silence: Duration) -> Self {
        Self { stream, exchange, silence }
    }

    /// Reads the available bytes. Blocks until at least one byte arrives, for at most the silence limit. 0 means the end.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let read = |limit| self.stream.read(buf, limit);
        let read = match self.exchange.silence() {
            Some(silence) => silence.wait(Some(self.silence), is_timeout, read),
            None => self.stream.read(buf, Some(self.silence)),
        };
        // The last part of a wait in two parts names only its own limit.
        read.map_err(|error| if is_timeout(&error) { Error::silent(self.silence) } else { error })
    }

    /// As [`read`](Self::read), but blocks for at most `brief`: `None` if nothing arrived.
    pub(crate) fn read_briefly(&mut self, buf: &mut [u8], brief: Duration) -> Result<Option<usize>, Error> {
        match self.stream.read(buf, Some(brief)) {
            Err(error) if is_timeout(&error) => Ok(None),
            result => result.map(Some),
        }
    }
}

impl Drop for H3Body {
    fn drop(&mut self) {
        // Before the stream is forgotten: a late abort must not find it.
        self.exchange.unbind_stream();
    }
}

fn is_timeout(error: &Error) -> bool {
    error.kind() == ErrorKind::Silent
}
