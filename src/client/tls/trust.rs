//! Which certificates of servers a client trusts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::certificate::Certificate;
use crate::config::Roots;
use crate::error::{Error, ErrorKind};

/// The configured [`ClientConfig::roots`](crate::ClientConfig::roots) and `extra_roots`.
pub(super) struct Trust {
    roots: Roots,
    extra_roots: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Each of `extra_roots` is a PEM text.
    pub(super) fn new(roots: Roots, extra_roots: &[Vec<u8>]) -> Result<Self, Error> {
        let wrong = |why: &str| Error::new(ErrorKind::InvalidConfig, format!("ClientConfig::{why}"));
        let mut certificates = Vec::new();
        for pem in extra_roots {
            let in_pem = certificates_in(pem);
            certificates
                .extend(in_pem.ok_or_else(|| wrong("extra_roots has an entry without a PEM certificate"))?);
        }
        if roots == Roots::ExtraOnly && certificates.is_empty() {
            return Err(wrong("roots is ExtraOnly without extra_roots: no server would be trusted"));
        }
        Ok(Self { roots, extra_roots: certificates })
    }

    /// Checks certificates. Parses the roots, which takes a while.
    pub(super) fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Verifier, Error> {
        let mut roots = RootCertStore::empty();
        // Passes over what webpki can't read: such a certificate may still be trusted byte for byte.
        roots.add_parsable_certificates(self.extra_roots.iter().cloned());
        let mut by_roots: Vec<Arc<dyn ServerCertVerifier>> = Vec::new();
        match self.roots {
            Roots::BuiltIn => {
                let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
                roots.add_parsable_certificates(built_in);
            }
            #[cfg(feature = "platform-roots")]
            Roots::Platform => by_roots.push(of_platform(provider)?),
            Roots::ExtraOnly => {}
        }
        // rustls makes no verifier without roots.
        if !roots.is_empty() {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|cause| Error::new(ErrorKind::Tls, "TLS can't be set up").with_cause(cause))?;
            by_roots.push(verifier);
        }
        let algorithms = provider.signature_verification_algorithms;
        Ok(Verifier { by_roots, trusted: self.extra_roots.clone(), algorithms })
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("roots", &self.roots)
            .field("extra_roots", &self.extra_roots.len())
            .finish()
    }
}

/// The certificates in a PEM text. `None` if there is none, or if one can't be read.
pub(super) fn certificates_in(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!certificates.is_empty()).then_some(certificates)
}

/// Checks certificates as the operating system does.
#[cfg(feature = "platform-roots")]
fn of_platform(provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(provider)).map_err(|cause| {
        let why = "the roots of the operating system can't be used";
        Error::new(ErrorKind::Tls, why).with_cause(cause)
    })?;
    Ok(Arc::new(verifier))
}

/// Trusts a server whose certificate has a chain to a root, or is itself in `extra_roots`.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Each of them may trust the server. Not empty.
    by_roots: Vec<Arc<dyn ServerCertVerifier>>,
    /// Certificates that are trusted byte for byte, if name and time are valid. rustls refuses a CA certificate as a server's,
    /// but plain `openssl req -x509` makes such a certificate for a server.
    trusted: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
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
        let check = |roots: &Arc<dyn ServerCertVerifier>| {
            roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        let mut results = self.by_roots.iter().map(check);
        // The first error: that of the platform, which knows most about the certificate.
        let first = results.next().unwrap_or(Err(CertificateError::UnknownIssuer.into()));
        first.or_else(|error| results.find_map(Result::ok).ok_or(error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
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
    // RFC 5280, section 4.1.2.5: the validity includes both ends.
    if seconds > parts.not_after {
        let not_after = time(parts.not_after);
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    if parts.is_named(&server_name.to_str()) {
        return Ok(());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)
}
