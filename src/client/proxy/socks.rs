//! A tunnel through a SOCKS 5 proxy (RFC 1928), with user and password (RFC 1929) or without.
//!
//! The proxy gets the name of the host, not its address. So a lookup does not show to the local network where the user goes, and
//! the proxy chooses between IPv4 and IPv6.

use std::net::IpAddr;

use crate::client::h1::transport::{Carrier, HandshakeLimit, carry};
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// RFC 1928, sections 3 and 4: the version of the protocol.
const VERSION: u8 = 5;
/// Methods of RFC 1928, section 3.
const NO_CREDENTIALS: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
/// RFC 1929, section 2: the version of the exchange of user and password.
const CREDENTIALS_VERSION: u8 = 1;
/// RFC 1928, section 4: the command to open a TCP connection.
const CONNECT: u8 = 1;
/// Kinds of addresses (RFC 1928, section 5).
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// User and password for a SOCKS proxy, each of at most 255 bytes.
pub(super) type Credentials = (String, String);

/// Requests a tunnel to `origin` over `carrier`, a new connection to the proxy named `proxy`. Blocks until the proxy answers, for
/// at most `limit`.
pub(super) fn open(
    carrier: &mut impl Carrier,
    proxy: &str,
    credentials: Option<&Credentials>,
    origin: &Origin,
    limit: HandshakeLimit,
) -> Result<(), ureq::Error> {
    let mut handshake = Handshake { carrier, proxy, origin, limit };
    match credentials {
        None => handshake.send(&[VERSION, 1, NO_CREDENTIALS])?,
        // RFC 1928, section 3: the proxy chooses. One that needs no credentials does not get to see them.
        Some(_) => handshake.send(&[VERSION, 2, NO_CREDENTIALS, USER_AND_PASSWORD])?,
    }
    match (handshake.receive()?, credentials) {
        ([VERSION, NO_CREDENTIALS], _) => {}
        ([VERSION, USER_AND_PASSWORD], Some(credentials)) => handshake.show(credentials)?,
        ([VERSION, _], None) => return Err(handshake.refused("wants a user and a password")),
        ([VERSION, _], Some(_)) => return Err(handshake.refused("does not take a user and a password")),
        _ => return Err(handshake.invalid()),
    }
    let request = connect_to(origin).ok_or_else(|| handshake.refused("can't be sent so long a name"))?;
    handshake.send(&request)?;
    handshake.receive_result()
}

/// The request for a tunnel. `None` if the name of the host is too long for SOCKS.
fn connect_to(origin: &Origin) -> Option<Vec<u8>> {
    // The third byte is reserved (RFC 1928, section 4).
    let mut request = vec![VERSION, CONNECT, 0];
    // A URL has an IPv6 address in brackets (RFC 3986, section 3.2.2). SOCKS has it as 16 bytes.
    match origin.host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Err(_) => {
            // The proxy looks the name up. Its length is one byte (RFC 1928, section 5).
            request.extend([NAME, u8::try_from(origin.host.len()).ok()?]);
            request.extend(origin.host.as_bytes());
        }
    }
    request.extend(origin.port.to_be_bytes());
    Some(request)
}

struct Handshake<'a, T> {
    carrier: &'a mut T,
    proxy: &'a str,
    origin: &'a Origin,
    limit: HandshakeLimit,
}

impl<T: Carrier> Handshake<'_, T> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), ureq::Error> {
        // Always fits into the output buffer of 16 KiB: the longest message, with user and password, has 513 bytes.
        self.carrier.buffers().output()[..bytes.len()].copy_from_slice(bytes);
        self.carrier.transmit_output(bytes.len(), self.limit.left())
    }

    /// Receives exactly `N` bytes: those behind them are the tunnel's.
    fn receive<const N: usize>(&mut self) -> Result<[u8; N], ureq::Error> {
        loop {
            if let Some(bytes) = self.carrier.buffers().input().first_chunk().copied() {
                self.carrier.buffers().input_consume(N);
                return Ok(bytes);
            }
            if !self.carrier.await_input(self.limit.left())? {
                let why = format!("the proxy {} closed the connection in its handshake", self.proxy);
                return Err(carry(Error::new(ErrorKind::Disconnected, why)));
            }
        }
    }

    fn show(&mut self, (user, password): &Credentials) -> Result<(), ureq::Error> {
        let mut message = vec![CREDENTIALS_VERSION];
        for text in [user, password] {
            // At most 255 bytes: checked when the client was made.
            message.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            message.extend(text.as_bytes());
        }
        self.send(&message)?;
        match self.receive()? {
            [CREDENTIALS_VERSION, 0] => Ok(()),
            _ => Err(self.refused("refused the user or the password")),
        }
    }

    /// Receives the result of the request for a tunnel, with the address that the proxy uses for it (RFC 1928, section 6).
    fn receive_result(&mut self) -> Result<(), ureq::Error> {
        let [version, result, _reserved, kind] = self.receive()?;
        if version != VERSION {
            return Err(self.invalid());
        }
        if result != 0 {
            return Err(self.failed(result));
        }
        // The address is of no use, but the bytes of the tunnel follow it.
        match kind {
            // Each with the two bytes of the port.
            IPV4 => self.receive::<6>().map(|_| ())?,
            IPV6 => self.receive::<18>().map(|_| ())?,
            NAME => {
                let [len] = self.receive()?;
                // Byte by byte: their number is known only now, and none behind them may be taken.
                for _ in 0..u16::from(len) + 2 {
                    self.receive::<1>()?;
                }
            }
            _ => return Err(self.invalid()),
        }
        Ok(())
    }

    fn failed(&self, result: u8) -> ureq::Error {
        // The values of the reply field (RFC 1928, section 6).
        let (kind, what) = match result {
            2 => return self.refused("does not allow it"),
            5 => (ErrorKind::Refused, "the host refused the connection"),
            6 => (ErrorKind::ConnectTimedOut, "the host did not answer in time"),
            _ => (ErrorKind::Unreachable, "the host can't be reached"),
        };
        let why = format!(
            "the proxy {} opened no tunnel to {}: {what} ({result})",
            self.proxy,
            self.origin.authority()
        );
        carry(Error::new(kind, why))
    }

    fn refused(&self, what: &str) -> ureq::Error {
        let why =
            format!("the proxy {} opened no tunnel to {}: it {what}", self.proxy, self.origin.authority());
        carry(Error::new(ErrorKind::Forbidden, why))
    }

    fn invalid(&self) -> ureq::Error {
        let why = format!("the response of the proxy {} is not valid SOCKS 5", self.proxy);
        carry(Error::new(ErrorKind::Protocol, why))
    }
}
