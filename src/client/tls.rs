//! TLS: which certificates a client trusts, and connections that carry TLS. All of windway's TLS policy is in this module.
//!
//! Certificates are always verified. There is no option to turn that off.
mod certificate;

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
};
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport, time};

use self::certificate::Certificate;
use crate::client::h1::transport::{Carrier, HandshakeLimit, buffers, carry};
use crate::error::{Error, ErrorKind};

/// Opens TLS on top of connections.
pub(super) struct Tls {
    /// Certificates that are trusted in addition to the public roots.
    extra_roots: Vec<CertificateDer<'static>>,
    /// Made at the first use of TLS, because parsing the roots takes a while.
    over_tcp: OnceLock<Arc<rustls::ClientConfig>>,
}

/// A connection that carries TLS. It owns the connection below, so nothing else can read the encrypted bytes.
pub(super) struct TlsTransport<T: Carrier> {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, Limited<T>>,
}

impl Tls {
    /// Trusts the public roots and the certificates in each of `extra_roots`, which are PEM texts.
    pub(super) fn new(extra_roots: &[Vec<u8>]) -> Result<Self, Error> {
        let no_certificate = || {
            Error::new(
                ErrorKind::InvalidConfig,
                "ClientConfig::extra_roots has an entry without a PEM certificate",
            )
        };
        let mut certificates = Vec::new();
        for pem in extra_roots {
            let before = certificates.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                certificates.push(certificate.map_err(|cause| no_certificate().with_cause(cause))?);
            }
            if certificates.len() == before {
                return Err(no_certificate());
            }
        }
        Ok(Self { extra_roots: certificates, over_tcp: OnceLock::new() })
    }

    /// A rustls configuration with the client's trust, for connections that negotiate one of `protocols` (ALPN, RFC 7301). Each
    /// has its own cache for session resumption: a ticket is only good for the transport and the protocols that it was made for.
    ///
    /// Every transport gets its configuration from here, so that what is trusted is decided once.
    pub(super) fn client_config(&self, protocols: &[&[u8]]) -> Result<rustls::ClientConfig, Error> {
        // If the application installed a provider for the process, use that one.
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|cause| Error::new(ErrorKind::Tls, "TLS can't be set up").with_cause(cause))?
            // rustls calls every custom verifier dangerous. Ours uses the one of rustls, except for certificates that are
            // trusted byte for byte.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(provider)?))
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    /// The configuration that all connections over TCP share, with its cache for session resumption.
    fn shared_config(&self) -> Result<Arc<rustls::ClientConfig>, Error> {
        if let Some(config) = self.over_tcp.get() {
            return Ok(Arc::clone(config));
        }
        // No ALPN: without it a server speaks HTTP/1.1, and some old ones fail on an extension that they don't know.
        let config = self.client_config(&[])?;
        Ok(Arc::clone(self.over_tcp.get_or_init(|| Arc::new(config))))
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Verifier, Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        roots.add_parsable_certificates(self.extra_roots.iter().cloned());
        let by_roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|cause| Error::new(ErrorKind::Tls, "TLS can't be set up").with_cause(cause))?;
        Ok(Verifier { by_roots, trusted: self.extra_roots.clone() })
    }

    /// Opens TLS to `host` over `carrier`. Blocks until the handshake is done, for at most `limit`.
    pub(super) fn open<T: Carrier>(
        &self,
        carrier: T,
        host: &str,
        config: &Config,
        limit: HandshakeLimit,
    ) -> Result<TlsTransport<T>, ureq::Error> {
        // A URL has IPv6 addresses in brackets (RFC 3986, section 3.2.2), a certificate does not.
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|cause| {
            let why = format!("{host} is not a name that a certificate can have");
            carry(Error::new(ErrorKind::Tls, why).with_cause(cause))
        })?;
        let mut connection = ClientConnection::new(self.shared_config().map_err(carry)?, name)
            .map_err(|cause| carry(failed(io::Error::other(cause))))?;
        let mut limited = Limited { carrier, timeout: limit.left(), since: Instant::now() };
        connection.complete_io(&mut limited).map_err(describe_handshake)?;
        Ok(TlsTransport { buffers: buffers(config), stream: StreamOwned::new(connection, limited) })
    }
}

fn describe_handshake(error: io::Error) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let why = "the server closed the connection during the TLS handshake";
            carry(Error::new(ErrorKind::Tls, why).with_cause(error))
        }
        // rustls reports an invalid certificate, and bytes that are not TLS, as invalid data.
        io::ErrorKind::InvalidData => carry(failed(error)),
        _ => error.into(),
    }
}

fn failed(cause: io::Error) -> Error {
    Error::new(ErrorKind::Tls, "the TLS handshake failed").with_cause(cause)
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

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Trusts a server whose certificate has a chain to a root, or is itself in `extra_roots`.
#[derive(Debug)]
struct Verifier {
    by_roots: Arc<WebPkiServerVerifier>,
    /// Certificates that are trusted byte for byte, if name and time are valid. rustls refuses a CA certificate as a server's,
    /// but plain `openssl req -x509` makes such a certificate for a server.
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.trusted.contains(end_entity) {
            return verify_without_chain(end_entity, server_name, now)
                .map(|()| ServerCertVerified::assertion());
        }
        self.by_roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_roots.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_roots.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_roots.supported_verify_schemes()
    }
}

/// Checks the time and the name of a certificate that needs no chain, because it is trusted itself.
fn verify_without_chain(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let parts = Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let time = |at: i64| UnixTime::since_unix_epoch(Duration::from_secs(at.max(0).unsigned_abs()));
    if seconds < parts.not_before {
        let not_before = time(parts.not_before);
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if seconds > parts.not_after {
        let not_after = time(parts.not_after);
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    if parts.is_named(&server_name.to_str()) {
        return Ok(());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("extra_roots", &self.extra_roots.len()).finish_non_exhaustive()
    }
}

impl<T: Carrier> fmt::Debug for TlsTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").field("carrier", &self.stream.sock.carrier).finish_non_exhaustive()
    }
}
