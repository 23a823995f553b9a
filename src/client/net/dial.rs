//! Opens connections: TCP, the tunnel through a proxy if one is set, and TLS for https.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::unversioned::transport::NextTimeout;

use super::dns::Lookups;
use super::happy_eyeballs::{self, Connected};
use super::socket::{ShutdownHandle, Socket};
use crate::client::exchange::Exchange;
use crate::client::h1::connection::Link;
use crate::client::h1::transport::{Carrier, HandshakeLimit, Tcp, carry};
use crate::client::proxy::Proxy;
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
    pub(crate) proxy: Option<Proxy>,
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
        let proxy = self.proxy_for(origin);
        let next_hop = proxy.map_or(origin, Proxy::origin);
        let locate = |error: Error| {
            let is_proxys = proxy.is_some() && !error.is_cancelled();
            carry(if is_proxys { error.on_the_way_to_the_proxy() } else { error })
        };
        let mut addresses = self.lookups.addresses(next_hop, exchange).map_err(locate)?;
        // Here and not before: what a name resolves to may change between a check and the connection. A proxy's own
        // address does not show where the origin is.
        if proxy.is_none() {
            addresses.retain(|address| exchange.may_reach(*address));
            if addresses.is_empty() {
                let why =
                    format!("{} has private addresses only, which may not be reached from here", origin.host);
                return Err(carry(Error::new(ErrorKind::Forbidden, why)));
            }
        }
        // After the lookup, which has its own limit.
        let began = Instant::now();
        let socket = self.connect(&addresses, exchange).map_err(locate)?;
        let handle = socket.shutdown_handle();
        let tcp = Tcp::new(socket, config);
        let limit = HandshakeLimit::new(began, self.connect_timeout, timeout);
        let link = match proxy {
            None if origin.is_tls => Link::layered(self.tls.open(tcp, origin, config, limit)?),
            None => Link::Direct(tcp),
            Some(proxy) if proxy.origin().is_tls => {
                let tls = self.tls.open(tcp, proxy.origin(), config, limit);
                // Nothing is read yet, so no silence limit is met.
                let tls = tls.map_err(|error| locate(Error::from_ureq(error, self.connect_timeout)))?;
                self.open_through(proxy, tls, origin, config, limit)?
            }
            Some(proxy) => self.open_through(proxy, tcp, origin, config, limit)?,
        };
        exchange.complete(&handle).map_err(carry)?;
        Ok((link, handle))
    }

    /// The proxy through which `origin` is reached. `None`: directly.
    pub(crate) fn proxy_for(&self, origin: &Origin) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|proxy| proxy.serves(origin))
    }

    /// Opens a tunnel to `origin` over `carrier`, a connection to `proxy`, and TLS in the tunnel.
    fn open_through(
        &self,
        proxy: &Proxy,
        carrier: impl Carrier,
        origin: &Origin,
        config: &Config,
        limit: HandshakeLimit,
    ) -> Result<Link, ureq::Error> {
        let tunnel = proxy.open(carrier, origin, limit)?;
        if !origin.is_tls {
            return Ok(Link::layered(tunnel));
        }
        // Bytes that are not TLS, or a certificate that is not trusted, may be the proxy's.
        let through =
            |error| carry(Error::from_ureq(error, self.connect_timeout).through_the_proxy(&proxy.name()));
        Ok(Link::layered(self.tls.open(tunnel, origin, config, limit).map_err(through)?))
    }

    /// Connects to one of the addresses and binds the socket to `exchange`, so that an abort shuts it down.
    fn connect(&self, addresses: &[SocketAddr], exchange: &Exchange) -> Result<Socket, Error> {
        // Nothing is ever sent: the drop of `holder` is the signal.
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
        let Connected { mut socket, unresponsive } = connected?;
        // Else each connection waits for them again: 250 ms where IPv6 leads nowhere.
        unresponsive.iter().for_each(|address| self.lookups.record_unresponsive(address.ip()));
        // Nagle's algorithm would hold small writes back until an acknowledgement arrives, for example in a TLS handshake.
        socket.set_nodelay().map_err(|error| {
            Error::new(ErrorKind::Unreachable, "the connection was lost").with_cause(error)
        })?;
        exchange.bind(&socket.shutdown_handle(), false)?;
        Ok(socket)
    }
}
