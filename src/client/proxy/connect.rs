//! Tunnels through an HTTP proxy (RFC 9110, section 9.3.6).

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::socks::Credentials;
use crate::client::acceptance::asked_for;
use crate::client::h1::head::{self, Extent};
use crate::client::h1::transport::{Carrier, HandshakeLimit, carry};
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// An HTTP proxy.
pub(super) struct HttpProxy {
    origin: Origin,
    /// Header fields of each CONNECT request.
    headers: String,
}

impl HttpProxy {
    pub(super) fn new(origin: &Origin, credentials: Option<&Credentials>, user_agent: &str) -> Self {
        let mut headers = format!("User-Agent: {user_agent}\r\n");
        if let Some((user, password)) = credentials {
            let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
            headers += &format!("Proxy-Authorization: Basic {credentials}\r\n");
        }
        Self { origin: origin.clone(), headers }
    }

    /// Host and port, without credentials.
    fn name(&self) -> String {
        self.origin.authority()
    }

    /// Requests a tunnel to `origin` over `carrier`, a new connection to this proxy. Blocks until the proxy answers, for at most
    /// `limit`.
    pub(super) fn open(
        &self,
        carrier: &mut impl Carrier,
        origin: &Origin,
        limit: HandshakeLimit,
    ) -> Result<(), ureq::Error> {
        // RFC 9112, section 3.2.3: the authority form. RFC 9110, section 9.3.6: it has a port even if that is the default one.
        let target = origin.authority();
        let mut request = String::new();
        // Writing to a string does not fail.
        let _ = write!(request, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n", self.headers);
        // Credentials may make the head longer than the output buffer.
        for part in request.as_bytes().chunks(carrier.buffers().output().len()) {
            carrier.buffers().output()[..part.len()].copy_from_slice(part);
            carrier.transmit_output(part.len(), limit.left())?;
        }
        loop {
            let input = carrier.buffers().input();
            match status(input) {
                Ok(None) => self.await_more(carrier, &target, limit)?,
                // RFC 9110, section 15.2: interim responses precede the final one.
                Ok(Some((len, 100..=199))) => carrier.buffers().input_consume(len),
                // RFC 9110, section 9.3.6: any 2xx opens the tunnel, and Content-Length in it must be ignored.
                Ok(Some((len, 200..=299))) => {
                    carrier.buffers().input_consume(len);
                    return Ok(());
                }
                Ok(Some((len, status))) => {
                    let asked_for = asked_for(challenges(&input[..len]));
                    let name = self.name();
                    let why =
                        format!("the proxy {name} sent status {status} for a tunnel to {target}{asked_for}");
                    return Err(carry(Error::new(ErrorKind::ProxyStatus(status), why)));
                }
                Err(NoHttp) => {
                    let why = format!("the response of the proxy {} is not valid HTTP", self.name());
                    return Err(carry(Error::new(ErrorKind::Protocol, why)));
                }
            }
        }
    }

    fn await_more(
        &self,
        carrier: &mut impl Carrier,
        target: &str,
        limit: HandshakeLimit,
    ) -> Result<(), ureq::Error> {
        // The buffer is full, and the head is not at its end.
        if carrier.buffers().input_append_buf().is_empty() {
            let why = format!("the response head of the proxy {} is larger than allowed", self.name());
            return Err(carry(Error::new(ErrorKind::Protocol, why)));
        }
        if carrier.await_input(limit.left())? {
            return Ok(());
        }
        let why =
            format!("the proxy {} closed the connection on a request for a tunnel to {target}", self.name());
        Err(carry(Error::new(ErrorKind::Disconnected, why)))
    }
}

/// The bytes are not an HTTP/1 head.
struct NoHttp;

/// The values of the fields that say how the proxy wants to be shown who asks (RFC 9110, section 11.7.1).
fn challenges(head: &[u8]) -> impl Iterator<Item = &str> {
    let lines = std::str::from_utf8(head).unwrap_or_default().lines();
    let fields = lines.filter_map(|line| line.split_once(':'));
    fields.filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authenticate")).map(|(_, value)| value)
}

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
