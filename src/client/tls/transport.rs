//! A transport of ureq that carries TLS.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::Timeout;
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport, time};

use crate::client::h1::transport::{Carrier, HandshakeLimit, buffers, carry};
use crate::error::{Error, ErrorKind};

/// A connection that carries TLS. It owns the connection below, so nothing else can read the encrypted bytes.
pub(crate) struct TlsTransport<T: Carrier> {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, Limited<T>>,
}

impl<T: Carrier> TlsTransport<T> {
    /// Opens TLS to `host` over `carrier`. Blocks until the handshake is done, for at most `limit`.
    pub(super) fn open(
        carrier: T,
        host: &str,
        tls: Arc<ClientConfig>,
        config: &Config,
        limit: HandshakeLimit,
    ) -> Result<Self, ureq::Error> {
        // A URL has IPv6 addresses in brackets (RFC 3986, section 3.2.2), a certificate does not.
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|cause| {
            let why = format!("{host} is not a name that a certificate can have");
            carry(Error::new(ErrorKind::Tls, why).with_cause(cause))
        })?;
        let mut connection =
            ClientConnection::new(tls, name).map_err(|cause| carry(failed(host, io::Error::other(cause))))?;
        let mut limited = Limited { carrier, timeout: limit.left(), since: Instant::now() };
        // The whole handshake now, within the limit of the connect. rustls would do it with the first write, within that of a
        // write.
        connection.complete_io(&mut limited).map_err(|error| describe_handshake(host, error, limit))?;
        Ok(Self { buffers: buffers(config), stream: StreamOwned::new(connection, limited) })
    }
}

fn describe_handshake(host: &str, error: io::Error, limit: HandshakeLimit) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let why = format!("{host} closed the connection during the TLS handshake");
            carry(Error::new(ErrorKind::Tls, why).with_cause(error))
        }
        // rustls reports an invalid certificate, and bytes that are not TLS, as invalid data.
        io::ErrorKind::InvalidData => carry(failed(host, error)),
        _ => match error.into() {
            ureq::Error::Timeout(Timeout::Connect) => {
                let limit = limit.whole();
                let why = format!("the TLS handshake with {host} was not complete within {limit:?}");
                carry(Error::new(ErrorKind::ConnectTimedOut, why))
            }
            error => error,
        },
    }
}

fn failed(host: &str, cause: io::Error) -> Error {
    // With the cause: whether a certificate has expired or is not trusted is all that helps.
    Error::new(ErrorKind::Tls, format!("the TLS handshake with {host} failed: {cause}")).with_cause(cause)
}

impl<T: Carrier> Carrier for TlsTransport<T> {
    fn take_arrived(&mut self) -> bool {
        let Self { buffers, stream } = self;
        let carrier = &mut stream.sock.carrier;
        let is_open = carrier.take_arrived();
        loop {
            // On an idle connection only records such as session tickets are expected, which contain no plaintext.
            let Ok(state) = stream.conn.process_new_packets() else { return false };
            if state.plaintext_bytes_to_read() > 0 {
                match stream.conn.reader().read(buffers.input_append_buf()) {
                    Ok(got) if got > 0 => buffers.input_appended(got),
                    _ => return false,
                }
            }
            if state.peer_has_closed() {
                return false;
            }
            if carrier.buffers().input().is_empty() {
                return is_open;
            }
            let taken = stream.conn.read_tls(&mut carrier.buffers().input()).unwrap_or(0);
            // rustls takes nothing more of a connection that has failed, and this loop would not end.
            if taken == 0 {
                return false;
            }
            carrier.buffers().input_consume(taken);
        }
    }
}

impl<T: Carrier> Transport for TlsTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.limit(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.limit(timeout);
        let got = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(got);
        Ok(got > 0)
    }

    /// False if the server has closed the connection, or has sent plaintext without a request: that would be taken for the next
    /// response.
    fn is_open(&mut self) -> bool {
        self.take_arrived() && self.buffers.input().is_empty()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Lets rustls read and write a carrier, within a time limit.
struct Limited<T> {
    carrier: T,
    timeout: NextTimeout,
    /// When the limit began.
    since: Instant,
}

impl<T: Carrier> Limited<T> {
    fn limit(&mut self, timeout: NextTimeout) {
        self.timeout = timeout;
        self.since = Instant::now();
    }

    /// What is left of the limit. A record may take many reads and writes, which share it.
    fn left(&self) -> NextTimeout {
        let time::Duration::Exact(limit) = self.timeout.after else { return self.timeout };
        let left = limit.saturating_sub(self.since.elapsed());
        NextTimeout { after: time::Duration::Exact(left), ..self.timeout }
    }
}

impl<T: Carrier> Read for Limited<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.carrier.buffers().input().is_empty() {
            let timeout = self.left();
            self.carrier.await_input(timeout).map_err(ureq::Error::into_io)?;
        }
        let buffers = self.carrier.buffers();
        let got = buffers.input().len().min(buf.len());
        buf[..got].copy_from_slice(&buffers.input()[..got]);
        buffers.input_consume(got);
        Ok(got)
    }
}

impl<T: Carrier> Write for Limited<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let timeout = self.left();
        let output = self.carrier.buffers().output();
        let sent = output.len().min(bytes.len());
        output[..sent].copy_from_slice(&bytes[..sent]);
        self.carrier.transmit_output(sent, timeout).map_err(ureq::Error::into_io)?;
        Ok(sent)
    }

    // `write` has passed everything on to the socket.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Carrier> fmt::Debug for TlsTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").field("carrier", &self.stream.sock.carrier).finish_non_exhaustive()
    }
}
