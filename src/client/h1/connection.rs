//! A connection of HTTP/1 and what its bytes go over, apart from any request.
//!
//! Only a [`Link::Direct`] has a TCP connection that can be moved elsewhere: what carries TLS, or leads through a proxy, has it
//! inside, and never gives it out. So nothing can read the bytes of TLS past TLS.

use std::fmt;

use ureq::unversioned::transport::{Buffers, LazyBuffers, Transport};

use super::transport::{Tcp, carry};
use crate::client::exchange::Exchange;
use crate::client::net::socket::ShutdownHandle;
use crate::error::{Error, ErrorKind};

/// What the bytes of a connection go over.
#[derive(Debug)]
pub(crate) enum Link {
    /// TCP to the origin itself, and nothing else. The only kind whose TCP connection can be had.
    Direct(Tcp),
    /// It was direct, and the body's reader has it. The buffers are empty.
    Lent(LazyBuffers),
    /// TLS, or a proxy's tunnel, or one in the other.
    Layered(Box<dyn Transport>),
}

impl Link {
    pub(crate) fn layered(transport: impl Transport) -> Self {
        Self::Layered(Box::new(transport))
    }

    pub(super) fn transport(&mut self) -> Result<&mut dyn Transport, ureq::Error> {
        match self {
            Self::Direct(tcp) => Ok(tcp),
            Self::Layered(transport) => Ok(&mut **transport),
            // Whoever reads the body asks the exchange, and does not look at this.
            Self::Lent(_) => Err(carry(Error::new(ErrorKind::Protocol, "the rest is read from the socket"))),
        }
    }

    pub(super) fn buffers(&mut self) -> &mut dyn Buffers {
        match self {
            Self::Direct(tcp) => tcp.buffers(),
            Self::Layered(transport) => transport.buffers(),
            Self::Lent(buffers) => buffers,
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Layered(transport) if transport.is_tls())
    }
}

/// A connection that serves nobody.
pub(crate) struct Connection {
    pub(super) link: Link,
    pub(super) handle: ShutdownHandle,
    /// Requests it has served, the current one included.
    pub(super) requests: u64,
    /// The network that it was opened on.
    pub(crate) network: u64,
}

impl Connection {
    /// A connection that was just opened for the current exchange.
    pub(crate) fn new((link, handle): (Link, ShutdownHandle), network: u64) -> Self {
        Self { link, handle, requests: 0, network }
    }

    /// Lets go of the exchange that it was opened for.
    pub(crate) fn unbind(&self, exchange: &Exchange) {
        exchange.unbind(&self.handle);
    }

    /// True if it has served a request.
    pub(crate) fn is_proven(&self) -> bool {
        self.requests > 0
    }

    /// Judged by hang-up: nothing is sent.
    pub(crate) fn is_open(&mut self) -> bool {
        self.link.transport().is_ok_and(Transport::is_open)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("link", &self.link).finish_non_exhaustive()
    }
}
