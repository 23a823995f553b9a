//! A tunnel through an HTTP proxy (RFC 9110, section 9.3.6).

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::head::{self, Extent};
use super::transport::{Carrier, HandshakeLimit, Tcp, carry};
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// The proxy through which all connections are opened.
pub(crate) struct HttpProxy {
    origin: Origin,
    /// Header fields of each CONNECT request.
    headers: String,
}

/// A tunnel: the connection to the proxy after the proxy's response to CONNECT. It owns that connection, so no other code can
/// read its bytes.
#[derive(Debug)]
pub(crate) struct Tunnel(Tcp);

impl HttpProxy {
    pub(crate) fn new(proxy: &ureq::Proxy, user_agent: &str) -> Self {
        let mut headers = format!("User-Agent: {user_agent}\r\n");
        if proxy.username().is_some() || proxy.password().is_some() {
            let (user, password) =
                (proxy.username().unwrap_or_default(), proxy.password().unwrap_or_default());
            let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
            headers += &format!("Proxy-Authorization: Basic {credentials}\r\n");
        }
        Self { origin: Origin::new(false, proxy.host(), proxy.port()), headers }
    }

    /// Origin of the proxy.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Host and port, without credentials.
    fn name(&self) -> String {
        format!("{}:{}", self.origin.host, self.origin.port)
    }

    /// Requests a tunnel to `origin` over a new connection to this proxy. Blocks until the proxy answers, for at most `limit`.
    pub(crate) fn open(
        &self,
        mut tcp: Tcp,
        origin: &Origin,
        limit: HandshakeLimit,
    ) -> Result<Tunnel, ureq::Error> {
        let target = format!("{}:{}", origin.host, origin.port);
        let mut request = String::new();
        // Writing to a string does not fail.
        let _ = write!(request, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n", self.headers);
        for part in request.as_bytes().chunks(tcp.buffers().output().len()) {
            tcp.buffers().output()[..part.len()].copy_from_slice(part);
            tcp.transmit_output(part.len(), limit.left())?;
        }
        loop {
            let input = tcp.buffers().input();
            match status(input) {
                Ok(None) => self.await_more(&mut tcp, &target, limit)?,
                // RFC 9110, section 15.2: interim responses precede the final one.
                Ok(Some((len, 100..=199))) => tcp.buffers().input_consume(len),
                // RFC 9110, section 9.3.6: any 2xx opens the tunnel, and Content-Length in it must be ignored.
                Ok(Some((len, 200..=299))) => {
                    tcp.buffers().input_consume(len);
                    return Ok(Tunnel(tcp));
                }
                Ok(Some((_, status))) => {
                    let why =
                        format!("the proxy {} sent status {status} for a tunnel to {target}", self.name());
                    return Err(carry(Error::new(ErrorKind::Status(status), why)));
                }
                Err(NoHttp) => {
                    let why = format!("the response of the proxy {} is not valid HTTP", self.name());
                    return Err(carry(Error::new(ErrorKind::Protocol, why)));
                }
            }
        }
    }

    fn await_more(&self, tcp: &mut Tcp, target: &str, limit: HandshakeLimit) -> Result<(), ureq::Error> {
        if tcp.buffers().input_append_buf().is_empty() {
            let why = format!("the response head of the proxy {} is larger than allowed", self.name());
            return Err(carry(Error::new(ErrorKind::Protocol, why)));
        }
        if tcp.await_input(limit.left())? {
            return Ok(());
        }
        let why =
            format!("the proxy {} closed the connection on a request for a tunnel to {target}", self.name());
        Err(carry(Error::new(ErrorKind::Disconnected, why)))
    }
}

/// The bytes are not an HTTP/1 head.
struct NoHttp;

/// Length and status of the head at the beginning of `input`. `None` if it is not complete.
fn status(input: &[u8]) -> Result<Option<(usize, u16)>, NoHttp> {
    const BEGINNING: &[u8] = b"HTTP/1.";
    let known = input.len().min(BEGINNING.len());
    if input[..known] != BEGINNING[..known] {
        return Err(NoHttp);
    }
    let Some(Extent { len, .. }) = head::complete(input) else { return Ok(None) };
    head::status(&input[..len]).map(|status| Some((len, status))).ok_or(NoHttp)
}

impl Carrier for Tunnel {
    fn take_arrived(&mut self) -> bool {
        self.0.take_arrived()
    }
}

impl Transport for Tunnel {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        false
    }
}

impl std::fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL and the header fields contain credentials.
        f.debug_struct("HttpProxy").field("origin", &self.origin).finish_non_exhaustive()
    }
}
