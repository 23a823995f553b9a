//! Response bodies, independent of the protocol that carries them. Their reader does not know about sockets.

use std::io::{self, Read};
use std::time::Duration;

use super::h1::body::{Framing, H1Body};
#[cfg(feature = "http3")]
use super::h3::body::H3Body;
use crate::error::Error;

/// Longest wait of a brief read: so short that it does not delay a reader that is interrupted. The system may round it up to a
/// few timer ticks.
pub(crate) const BRIEF: Duration = Duration::from_millis(1);

/// The body of a response, with the connection that carries it.
pub(super) enum Body {
    Http1(Box<H1Body>),
    #[cfg(feature = "http3")]
    Http3(H3Body),
    /// All bytes, which came along with the head, and where the next read begins. Their connection serves others.
    Arrived(io::Cursor<Vec<u8>>),
    /// Complete, or without content. Holds no connection.
    Closed,
}

impl Body {
    /// Sets how a body over HTTP/1 ends, as declared in its head.
    pub(super) fn set_framing(&mut self, framing: Framing) {
        if let Self::Http1(body) = self {
            body.set_framing(framing);
        }
    }

    /// Reads and drops at most `len` bytes of a body that is not used, so that its connection can be reused.
    pub(super) fn discard_rest(&mut self, len: u64) {
        match self {
            Self::Http1(body) => body.discard_rest(len),
            // Its connection serves others meanwhile.
            #[cfg(feature = "http3")]
            Self::Http3(_) => {}
            Self::Arrived(_) | Self::Closed => {}
        }
    }

    /// Reads the available bytes. Blocks until at least one byte arrives, for at most the silence limit. 0 means the end.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        match self {
            Self::Http1(body) => body.read(buf),
            #[cfg(feature = "http3")]
            Self::Http3(body) => body.read(buf),
            // A read from memory does not fail.
            Self::Arrived(bytes) => Ok(bytes.read(buf).unwrap_or(0)),
            Self::Closed => Ok(0),
        }
    }

    /// As [`read`](Self::read), but blocks for at most [`BRIEF`]: `None` if nothing arrived. Only call it if
    /// [`can_be_brief`](Self::can_be_brief) is true.
    pub(super) fn read_briefly(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        match self {
            Self::Http1(body) => body.read_briefly(buf, BRIEF),
            #[cfg(feature = "http3")]
            Self::Http3(body) => body.read_briefly(buf, BRIEF),
            Self::Arrived(_) | Self::Closed => self.read(buf).map(Some),
        }
    }

    /// Takes the `len` bytes that it has out of the connection, which then serves other requests, if they came along with the
    /// head. Does not block.
    pub(super) fn take_arrived(&mut self, len: usize) -> Result<(), Error> {
        let Self::Http1(body) = self else { return Ok(()) };
        if body.has_arrived(len) {
            let bytes = body.read_arrived(len)?;
            self.finish();
            *self = Self::Arrived(io::Cursor::new(bytes));
        }
        Ok(())
    }

    /// True if the next read can be brief.
    pub(super) fn can_be_brief(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_direct(),
            #[cfg(feature = "http3")]
            Self::Http3(_) => true,
            Self::Arrived(_) | Self::Closed => false,
        }
    }

    /// Returns the connection to the pool if it can be reused. Call it when the body is complete. Blocks for at most [`BRIEF`].
    pub(super) fn finish(&mut self) {
        match std::mem::replace(self, Self::Closed) {
            Self::Http1(body) => body.finish(BRIEF),
            #[cfg(feature = "http3")]
            Self::Http3(body) => drop(body),
            Self::Arrived(_) | Self::Closed => {}
        }
    }
}
