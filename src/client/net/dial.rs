//! Opens connections: TCP, the tunnel of a proxy if one is set, TLS for https.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::ConnectionDetails;

use super::dns::{CachingResolver, Lookups};
use super::happy_eyeballs;
use super::socket::{ShutdownHandle, Socket};
use crate::client::exchange::Exchange;
use crate::client::h1::connector::Link;
use crate::client::h1::proxy::HttpProxy;
use crate::client::h1::transport::{Counters, Tcp, carry};
use crate::client::pool::idle::Origin;
use crate::client::tls::Tls;
use crate::error::{Error, ErrorKind};

/// Opens connections to origins.
///
/// ureq could open a proxy's tunnel by a connector of its own, and would ask ours for the connection to the proxy, as if
/// that were one to an origin: it would be kept as one, and read as one. Here each step gets what the step before it made,
/// and is the only one to have it.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) counters: Arc<Counters>,
    /// Limit on all that comes before the first request: TCP, a proxy's answer, the handshake of TLS.
    pub(crate) connect_timeout: Duration,
    pub(crate) proxy: Option<HttpProxy>,
    pub(crate) tls: Tls,
}

impl Dialer {
    /// Opens a connection to `origin`, which is where `details` lead, bound to the current exchange. Blocks for the limits
    /// of its parts.
    pub(crate) fn open(
        &self,
        origin: &Origin,
        details: &ConnectionDetails<'_>,
    ) -> Result<(Link, ShutdownHandle), ureq::Error> {
        let (config, timeout) = (details.config, details.timeout);
        let tcp = match &self.proxy {
            Some(proxy) => {
                let resolver = CachingResolver::new(&self.lookups);
                self.connect(&resolver.resolve(proxy.uri(), config, timeout)?, details)?
            }
            None if details.addrs.is_empty() => {
                // Opened ahead, or what was in stock had died: the name was not looked up for its sake.
                let resolver = CachingResolver::new(&self.lookups);
                self.connect(&resolver.resolve(details.uri, config, timeout)?, details)?
            }
            None => self.connect(&details.addrs, details)?,
        };
        let (tcp, handle) = tcp;
        let host = &origin.host;
        let link = match (&self.proxy, origin.is_tls) {
            (None, false) => Link::Direct(tcp),
            (None, true) => Link::layered(self.tls.open(tcp, host, config, timeout)?),
            (Some(proxy), false) => Link::layered(proxy.open(tcp, origin, timeout)?),
            (Some(proxy), true) => {
                Link::layered(self.tls.open(proxy.open(tcp, origin, timeout)?, host, config, timeout)?)
            }
        };
        match Exchange::current().map(|exchange| exchange.complete(&handle)) {
            None | Some(Ok(())) => Ok((link, handle)),
            Some(Err(cancelled)) => Err(carry(cancelled)),
        }
    }

    /// Connects to one of the addresses. Bound to the current exchange, which releases it from then on.
    fn connect(
        &self,
        addresses: &[SocketAddr],
        details: &ConnectionDetails<'_>,
    ) -> Result<(Tcp, ShutdownHandle), ureq::Error> {
        let began = Instant::now();
        let socket = self.connect_socket(addresses).map_err(carry)?;
        let handle = socket.shutdown_handle();
        Ok((Tcp::new(socket, began.checked_add(self.connect_timeout), details.config), handle))
    }

    fn connect_socket(&self, addresses: &[SocketAddr]) -> Result<Socket, Error> {
        let exchange = Exchange::current().unwrap_or_default();
        let (holder, released) = crossbeam_channel::bounded(0);
        exchange.hold(holder);
        let connected =
            happy_eyeballs::connect(&exchange.order(addresses), self.connect_timeout, &released, || {
                self.counters.dialled.fetch_add(1, Ordering::Relaxed);
            });
        if let Some(cancelled) = exchange.cancelled() {
            return Err(cancelled);
        }
        let mut socket = connected?;
        socket.set_nodelay().map_err(|error| {
            Error::new(ErrorKind::Unreachable, "the connection was lost").with_cause(error)
        })?;
        exchange.bind(&socket.shutdown_handle(), false)?;
        Ok(socket)
    }
}
