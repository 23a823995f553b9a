//! Certificates of the client, for servers that authenticate it (mutual TLS).

use std::fmt;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::trust::certificates_in;
use crate::config::ClientCertificate;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::safe_url::HttpUrl;

/// A certificate with its private key, for one origin.
pub(super) struct Identity {
    pub(super) origin: Origin,
    pub(super) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// The entry of [`ClientConfig::client_certificates`](crate::ClientConfig::client_certificates) for the URL `origin`.
    pub(super) fn new(
        origin: &str,
        certificate: &ClientCertificate,
        provider: &CryptoProvider,
    ) -> Result<Self, Error> {
        let wrong = |why: &str| {
            Error::new(ErrorKind::InvalidConfig, format!("ClientConfig::client_certificates {why}"))
        };
        let url = HttpUrl::parse(origin)
            .map_err(|cause| wrong("has an entry without a valid origin").with_cause(cause))?;
        let chain = certificates_in(certificate.expose_chain());
        let chain = chain.ok_or_else(|| wrong("has an entry without a PEM certificate"))?;
        // Without the cause: it may quote the key.
        let key = PrivateKeyDer::from_pem_slice(certificate.expose_key())
            .map_err(|_| wrong("has an entry without a private key in PEM"))?;
        // Now, not at the first handshake: it is the configuration that is wrong.
        provider
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|cause| wrong("has a private key that can't be used").with_cause(cause))?;
        Ok(Self { origin: url.origin().clone(), chain, key })
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("origin", &self.origin).finish_non_exhaustive()
    }
}
