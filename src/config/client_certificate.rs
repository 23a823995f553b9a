//! `ClientCertificate`: what a client shows to servers that authenticate it.

use std::fmt;

/// A certificate with its private key, by which a server authenticates a client (mutual TLS). `Debug` shows nothing of it.
///
/// ```no_run
/// use windway::ClientConfig;
/// use windway::config::ClientCertificate;
///
/// let certificate = ClientCertificate::from_pem(std::fs::read("me.crt")?, std::fs::read("me.key")?);
/// let client = ClientConfig::new().client_certificates([("https://home.example".into(), certificate)]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct ClientCertificate {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl ClientCertificate {
    /// `chain` has the client's certificate first, then those of the authorities between it and the root. `key` is its private
    /// key. Both are PEM, and are checked when the downloader is made.
    pub fn from_pem(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { chain: chain.into(), key: key.into() }
    }

    pub(crate) fn expose_chain(&self) -> &[u8] {
        &self.chain
    }

    pub(crate) fn expose_key(&self) -> &[u8] {
        &self.key
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate")
    }
}
