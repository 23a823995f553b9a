//! A connection as the server sees it: bytes in and out, plain or over TLS.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::certificate::{Certificate, Key, pem, pem_of};

/// Certificate of a server for `127.0.0.1` and `localhost`, and the root that signed it.
pub struct Identity {
    pub root_pem: String,
    config: Arc<ServerConfig>,
    certified: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

impl Identity {
    /// A new certificate with a root of its own.
    pub fn new() -> Self {
        let (root_key, key) = (Key::generate(), Key::generate());
        let root = Certificate::of_root("the scripted origin's root");
        let certificate = Certificate {
            subject: "the scripted origin",
            alternative_names: &["127.0.0.1", "localhost"],
            is_authority: false,
            ..root
        };
        let certificate = certificate.sign(&key, &root_key);
        Self::of(pem(&root.sign(&root_key, &root_key)), certificate, &key)
    }

    /// A certificate as `openssl req -x509` makes it: self-signed, marked as an authority, and used by a server.
    /// `alternative_names` may be empty. Valid to the end of the year `last_year`.
    pub fn self_signed(alternative_names: &[&str], common_name: &str, last_year: i32) -> Self {
        let certificate = Certificate {
            subject: common_name,
            issuer: common_name,
            alternative_names,
            is_authority: true,
            last_year,
        };
        let key = Key::generate();
        let certificate = certificate.sign(&key, &key);
        Self::of(pem(&certificate), certificate, &key)
    }

    /// The server's side of TLS over any connection. The handshake is part of the first read or write.
    pub fn serve<T: Read + Write>(&self, below: T) -> StreamOwned<ServerConnection, T> {
        let tls = ServerConnection::new(Arc::clone(&self.config)).expect("a configuration that is complete");
        StreamOwned::new(tls, below)
    }

    /// Makes the server require a certificate of clients that this root has signed.
    pub fn requiring(mut self, root: &[u8]) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root.to_vec().into()).expect("a certificate of an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let (certificate, key) = &self.certified;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider knows")
            .with_client_cert_verifier(clients.build().expect("a verifier with a root"))
            .with_single_cert(vec![certificate.clone()], key.clone_key())
            .expect("a key that fits the certificate");
        self.config = Arc::new(config);
        self
    }

    /// A certificate of a client and its key, in PEM, signed by a root of its own. The root is the third.
    pub fn of_client() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let (root_key, key) = (Key::generate(), Key::generate());
        let root = Certificate::of_root("the root of a client");
        let certificate = Certificate { subject: "a client", is_authority: false, ..root };
        let [certificate, root] = [certificate.sign(&key, &root_key), root.sign(&root_key, &root_key)];
        let key = pem_of("PRIVATE KEY", key.pkcs8());
        (pem(&certificate).into_bytes(), key.into_bytes(), root)
    }

    fn of(root_pem: String, certificate: Vec<u8>, key: &Key) -> Self {
        let provider = rustls::crypto::ring::default_provider();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pkcs8().to_vec()));
        let certificate = CertificateDer::from(certificate);
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("versions that the provider knows")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.clone_key())
            .expect("a key that fits the certificate");
        Self { root_pem, config: Arc::new(config), certified: (certificate, key) }
    }

    /// The configuration of a server with this certificate.
    pub fn server_config(&self) -> ServerConfig {
        (*self.config).clone()
    }

    /// The server's side of a handshake.
    pub fn accept<'a>(&self, mut line: Line<'a>) -> io::Result<Wire<'a>> {
        let mut tls = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        tls.complete_io(&mut line)?;
        Ok(Wire::Tls(Box::new(StreamOwned::new(tls, line))))
    }
}

/// A socket whose reads and writes fail once its connection is in the black hole.
pub struct Line<'a> {
    pub socket: &'a TcpStream,
    pub connection: usize,
    /// Connections before this one are in the black hole.
    pub black_holed: &'a AtomicUsize,
    /// Number of connections in the black hole on which the client sent a request.
    pub lost: &'a AtomicUsize,
}

/// Length of the TLS 1.3 record with which a client closes a connection: header, alert, content type, tag (RFC 8446, 5.2).
const CLOSE_NOTIFY: usize = 5 + 2 + 1 + 16;

impl Line<'_> {
    fn check(&self) -> io::Result<()> {
        if self.connection < self.black_holed.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl Read for Line<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.socket.read(buf)?;
        let alive = self.check();
        if alive.is_err() && got > CLOSE_NOTIFY {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        alive.map(|()| got)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An open connection.
pub enum Wire<'a> {
    Plain(Line<'a>),
    Tls(Box<StreamOwned<ServerConnection, Line<'a>>>),
}

impl Wire<'_> {
    /// The TCP socket, for options and for waiting.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(line) => line.socket,
            Self::Tls(tls) => tls.sock.socket,
        }
    }

    /// Blocks until bytes arrive. 0 at the end of the client's side.
    pub fn receive(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(line) => line.read(buf),
            Self::Tls(tls) => tls.read(buf),
        }
    }

    /// Blocks until the system has taken all bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(line) => line.write_all(bytes),
            Self::Tls(tls) => {
                tls.write_all(bytes)?;
                tls.flush()
            }
        }
    }

    /// Sends a close_notify alert over TLS. Does nothing without TLS.
    pub fn notify_close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => {
                tls.conn.send_close_notify();
                tls.flush()
            }
        }
    }
}
