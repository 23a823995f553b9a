//! An HTTP/1 connection and its transport, independent of requests.
//!
//! Only the TCP connection of a [`Link::Direct`] can be moved elsewhere. TLS and tunnels own theirs and never give it away, so
//! no code can read the encrypted bytes below TLS.

use std::fmt;

use ureq::unversioned::transport::{Buffers, LazyBuffers, Transport};

use super::transport::{Tcp, carry};
use crate::client::exchange::Exchange;
use crate::client::net::socket::ShutdownHandle;
use crate::error::{Error, ErrorKind};

/// The transport of a connection.
#[derive(Debug)]
pub(crate) enum Link {
    /// Plain TCP to the origin. The only kind whose TCP connection can be lent.
    Direct(Tcp),
    /// It was direct, and its TCP connection is lent to the reader of the body. The buffers are empty.
    Lent(LazyBuffers),
    /// TLS, a tunnel through a proxy, or TLS inside a tunnel.
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
            // Ends the read of ureq that lent the connection. `H1Body` ignores this error and reads from the lent connection.
            Self::Lent(_) => {
                Err(carry(Error::new(ErrorKind::Protocol, "the connection is lent to its body")))
            }
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

/// A connection that is not bound to a request.
pub(crate) struct Connection {
    pub(super) link: Link,
    pub(super) handle: ShutdownHandle,
    /// Number of requests sent on it, including the current one.
    pub(super) requests: u64,
    /// Number of the network on which it was opened.
    pub(crate) network: u64,
}

impl Connection {
    /// A connection that was just opened and has sent no request.
    pub(crate) fn new((link, handle): (Link, ShutdownHandle), network: u64) -> Self {
        Self { link, handle, requests: 0, network }
    }

    /// Unbinds the connection from the exchange for which it was opened.
    pub(crate) fn unbind(&self, exchange: &Exchange) {
        exchange.unbind(&self.handle);
    }

    /// The address at its other end.
    pub(crate) fn peer(&self) -> std::net::SocketAddr {
        self.handle.peer()
    }

    /// True if it has served a request.
    pub(crate) fn is_proven(&self) -> bool {
        self.requests > 0
    }

    /// False if the server has closed the connection or sent bytes without a request. Sends nothing.
    pub(crate) fn is_open(&mut self) -> bool {
        self.link.transport().is_ok_and(Transport::is_open)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("link", &self.link).finish_non_exhaustive()
    }
}
