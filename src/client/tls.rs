//! TLS: which servers a client trusts, its own certificates, and connections that carry TLS. All of windway's TLS policy is in
//! this module, and every transport gets its rustls configuration from [`Tls::client_config`].
//!
//! Certificates are always verified. There is no option to turn that off.

mod certificate;
mod identity;
mod transport;
mod trust;

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use ureq::config::Config;

use self::identity::Identity;
use self::transport::TlsTransport;
use self::trust::{Trust, Verifier};
use crate::client::h1::transport::{Carrier, HandshakeLimit, carry};
use crate::config::ClientConfig;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// Opens TLS on top of connections.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    trust: Trust,
    /// Made at the first use of TLS, because parsing the roots takes a while.
    verifier: OnceLock<Arc<Verifier>>,
    /// Certificates of the client, and the configuration of TCP connections to the origin of each.
    identities: Vec<(Identity, OnceLock<Arc<rustls::ClientConfig>>)>,
    /// Configuration of TCP connections to all other origins.
    over_tcp: OnceLock<Arc<rustls::ClientConfig>>,
}

impl Tls {
    /// Fails if a certificate or a key in `config` can't be used.
    pub(super) fn new(config: &ClientConfig) -> Result<Self, Error> {
        // That of the process first: an application may have to use a certain one, such as a validated module.
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
        let identities = config.client_certificates.iter().map(|(origin, certificate)| {
            Ok((Identity::new(origin, certificate, &provider)?, OnceLock::new()))
        });
        Ok(Self {
            identities: identities.collect::<Result<_, Error>>()?,
            trust: Trust::new(config.roots, &config.extra_roots)?,
            verifier: OnceLock::new(),
            over_tcp: OnceLock::new(),
            provider,
        })
    }

    /// A rustls configuration for connections to `origin` that negotiate one of `protocols` (ALPN, RFC 7301). Each has its own
    /// cache for session resumption: a ticket is only good for the transport and the protocols that it was made for.
    ///
    /// The certificate of the client is only in the configuration for its own origin.
    pub(super) fn client_config(
        &self,
        origin: &Origin,
        protocols: &[&[u8]],
    ) -> Result<rustls::ClientConfig, Error> {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(not_set_up)?
            // rustls calls every custom verifier dangerous. Ours uses those of rustls and of the platform, except for
            // certificates that are trusted byte for byte.
            .dangerous()
            .with_custom_certificate_verifier(self.verifier()?);
        // With the certificate in the configuration of another origin, any server that a redirect leads to could ask for it.
        let mut config = match self.identity(origin) {
            Some((identity, _)) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.key()).map_err(not_set_up)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    /// True if connections to `origin` need a configuration of their own.
    #[cfg(feature = "http3")]
    pub(super) fn has_identity(&self, origin: &Origin) -> bool {
        self.identity(origin).is_some()
    }

    fn identity(&self, origin: &Origin) -> Option<&(Identity, OnceLock<Arc<rustls::ClientConfig>>)> {
        self.identities.iter().find(|(identity, _)| identity.origin == *origin)
    }

    fn verifier(&self) -> Result<Arc<Verifier>, Error> {
        if let Some(verifier) = self.verifier.get() {
            return Ok(Arc::clone(verifier));
        }
        let verifier = Arc::new(self.trust.verifier(&self.provider)?);
        // `OnceLock` has no fallible initialisation: two threads may make one each, and the first one stays.
        Ok(Arc::clone(self.verifier.get_or_init(|| verifier)))
    }

    /// The configuration that TCP connections to `origin` share, with its cache for session resumption.
    fn over_tcp(&self, origin: &Origin) -> Result<Arc<rustls::ClientConfig>, Error> {
        let shared = self.identity(origin).map_or(&self.over_tcp, |(_, shared)| shared);
        if let Some(config) = shared.get() {
            return Ok(Arc::clone(config));
        }
        // No ALPN: without it a server speaks HTTP/1.1, and some old ones fail on an extension that they don't know.
        let config = Arc::new(self.client_config(origin, &[])?);
        Ok(Arc::clone(shared.get_or_init(|| config)))
    }

    /// Opens TLS to `origin` over `carrier`. Blocks until the handshake is done, for at most `limit`.
    pub(super) fn open<T: Carrier>(
        &self,
        carrier: T,
        origin: &Origin,
        config: &Config,
        limit: HandshakeLimit,
    ) -> Result<TlsTransport<T>, ureq::Error> {
        let shared = self.over_tcp(origin).map_err(carry)?;
        TlsTransport::open(carrier, &origin.host, shared, config, limit)
    }
}

fn not_set_up(cause: rustls::Error) -> Error {
    Error::new(ErrorKind::Tls, "TLS can't be set up").with_cause(cause)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identities: Vec<&Identity> = self.identities.iter().map(|(identity, _)| identity).collect();
        f.debug_struct("Tls")
            .field("trust", &self.trust)
            .field("identities", &identities)
            .finish_non_exhaustive()
    }
}
