//! TLS: whom a client believes, and the connections that it speaks it over. All of windway's policy on TLS is here.
//!
//! Certificates are always verified: there is no way to turn that off.
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

/// Opens TLS over connections.
pub(super) struct Tls {
    /// Certificates that are trusted besides the web's roots.
    extra_roots: Vec<CertificateDer<'static>>,
    /// Made when TLS is spoken first: the roots take a while to read.
    config: OnceLock<Arc<rustls::ClientConfig>>,
}

/// A connection that carries TLS. It owns the connection below, whose bytes nobody else can read.
pub(super) struct TlsTransport<T: Carrier> {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, Limited<T>>,
}

impl Tls {
    /// Trusts the web's roots and the certificates in each of `extra_roots`, in PEM.
    pub(super) fn new(extra_roots: &[Vec<u8>]) -> Result<Self, Error> {
        let no_certificate =
            || Error::new(ErrorKind::InvalidConfig, "ClientConfig::extra_roots holds no certificate in PEM");
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
        Ok(Self { extra_roots: certificates, config: OnceLock::new() })
    }

    /// What all of a client's connections share, resumption included.
    fn config(&self) -> Result<Arc<rustls::ClientConfig>, Error> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        // An application that has chosen a provider for its process has its reasons.
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|cause| Error::new(ErrorKind::Tls, "TLS can't be set up").with_cause(cause))?
            // rustls calls every verifier of one's own dangerous. This one asks rustls's, or is stricter.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(provider)?))
            .with_no_client_auth();
        Ok(Arc::clone(self.config.get_or_init(|| Arc::new(config))))
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

    /// Speaks TLS over `carrier`, to `host`. Blocks until the handshake is done, for the limit of the connection.
    pub(super) fn open<T: Carrier>(
        &self,
        carrier: T,
        host: &str,
        config: &Config,
        limit: HandshakeLimit,
    ) -> Result<TlsTransport<T>, ureq::Error> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|cause| {
            let why = format!("{host} is not a name that a certificate can have");
            carry(Error::new(ErrorKind::Tls, why).with_cause(cause))
        })?;
        let mut connection = ClientConnection::new(self.config().map_err(carry)?, name)
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
        // What rustls makes of a certificate, or of bytes that are no TLS.
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
            // On an idle connection only session tickets and the like are expected, which leave nothing to read.
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

    /// Judged by hang-up. Nothing may have come unasked either: it would be taken for the next answer.
    fn is_open(&mut self) -> bool {
        self.take_arrived() && self.buffers.input().is_empty()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// A carrier as rustls reads and writes it, with what is left of a limit.
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

    /// A record may take many reads and writes, which share the limit.
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

/// Believes a server whose certificate a root vouches for, or that was given itself.
#[derive(Debug)]
struct Verifier {
    by_roots: Arc<WebPkiServerVerifier>,
    /// Believed byte for byte, if name and time are right. rustls refuses a certificate that says that it is an authority's
    /// in a server's place, and that is what plain `openssl req -x509` makes.
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
            return verify_itself(end_entity, server_name, now).map(|()| ServerCertVerified::assertion());
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

/// Checks what is to be checked of a certificate that nobody has to vouch for.
fn verify_itself(
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
