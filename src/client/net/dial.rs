//! Opens connections: TCP, the tunnel through a proxy if one is set, and TLS for https.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::unversioned::transport::NextTimeout;

use super::dns::Lookups;
use super::happy_eyeballs;
use super::socket::{ShutdownHandle, Socket};
use crate::client::exchange::Exchange;
use crate::client::h1::connection::Link;
use crate::client::h1::proxy::HttpProxy;
use crate::client::h1::transport::{HandshakeLimit, Tcp, carry};
use crate::client::stats::Counters;
use crate::client::tls::Tls;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// Opens connections to origins.
///
/// ureq has a connector for proxies, but it would request the connection to the proxy from our connector as if the proxy were
/// an origin, and that connection would then be pooled and read like one to an origin. Here each layer owns the layer below.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) counters: Arc<Counters>,
    /// Limit for everything before the first request together: the TCP connect, the proxy's response and the TLS handshake.
    pub(crate) connect_timeout: Duration,
    pub(crate) proxy: Option<HttpProxy>,
    pub(crate) tls: Arc<Tls>,
}

impl Dialer {
    /// Opens a connection to `origin`, bound to `exchange`. Blocks for at most the limits of the lookup and of the connect.
    pub(crate) fn open(
        &self,
        origin: &Origin,
        exchange: &Exchange,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<(Link, ShutdownHandle), ureq::Error> {
        let next_hop = self.proxy.as_ref().map_or(origin, HttpProxy::origin);
        let mut addresses = self.lookups.addresses(next_hop, exchange).map_err(carry)?;
        // Here and not before: what a name resolves to may change between a check and the connection. A proxy's own
        // address says nothing of the origin.
        if self.proxy.is_none() {
            addresses.retain(|address| exchange.may_reach(Some(*address)));
            if addresses.is_empty() {
                let why =
                    format!("{} has private addresses only, which may not be reached from here", origin.host);
                return Err(carry(Error::new(ErrorKind::Forbidden, why)));
            }
        }
        // After the lookup, which has its own limit.
        let began = Instant::now();
        let socket = self.connect(&addresses, exchange).map_err(carry)?;
        let handle = socket.shutdown_handle();
        let tcp = Tcp::new(socket, config);
        let limit = HandshakeLimit::new(began.checked_add(self.connect_timeout), timeout);
        let host = &origin.host;
        let link = match (&self.proxy, origin.is_tls) {
            (None, false) => Link::Direct(tcp),
            (None, true) => Link::layered(self.tls.open(tcp, host, config, limit)?),
            (Some(proxy), false) => Link::layered(proxy.open(tcp, origin, limit)?),
            (Some(proxy), true) => {
                Link::layered(self.tls.open(proxy.open(tcp, origin, limit)?, host, config, limit)?)
            }
        };
        exchange.complete(&handle).map_err(carry)?;
        Ok((link, handle))
    }

    /// Connects to one of the addresses and binds the socket to `exchange`, so that an abort shuts it down.
    fn connect(&self, addresses: &[SocketAddr], exchange: &Exchange) -> Result<Socket, Error> {
        let (holder, released) = crossbeam_channel::bounded(0);
        exchange.hold(holder);
        let connected =
            happy_eyeballs::connect(&exchange.order(addresses), self.connect_timeout, &released, || {
                self.counters.dialled.fetch_add(1, Ordering::Relaxed);
            });
        // A cancel drops the holder, which ends `connect` with another error. Return the cancel.
        if let Some(cancelled) = exchange.cancelled() {
            return Err(cancelled);
        }
        let mut socket = connected?;
        // Nagle's algorithm would hold small writes back until an acknowledgement arrives, for example in a TLS handshake.
        socket.set_nodelay().map_err(|error| {
            Error::new(ErrorKind::Unreachable, "the connection was lost").with_cause(error)
        })?;
        exchange.bind(&socket.shutdown_handle(), false)?;
        Ok(socket)
    }
}
