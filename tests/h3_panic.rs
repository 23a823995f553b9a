//! A panic below quinn-proto ends one connection. In a process of its own, because the process has one provider of cryptography:
//! this one panics when the test wants it to, on the thread of windway that handles the packets.
#![cfg(feature = "http3")]

#[path = "support/h3/mod.rs"]
mod h3;

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

use h3::{Reply, Server, data, head, over_http3};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use support::in_time;
use windway::{ClientConfig, Downloader, DownloaderConfig, ErrorKind, Fetch, Priority};

/// Signatures are not verified while this is set, but end in a panic.
static PANICS: AtomicBool = AtomicBool::new(false);
static PANICKED: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Panicking(&'static dyn SignatureVerificationAlgorithm);

impl SignatureVerificationAlgorithm for Panicking {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        if PANICS.load(Ordering::Acquire) {
            PANICKED.fetch_add(1, Ordering::AcqRel);
            panic!("a test's fault in cryptography");
        }
        self.0.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }
}

fn panicking(
    algorithm: &'static dyn SignatureVerificationAlgorithm,
) -> &'static dyn SignatureVerificationAlgorithm {
    Box::leak(Box::new(Panicking(algorithm)))
}

fn install_provider() {
    let mut provider = rustls::crypto::ring::default_provider();
    let known = provider.signature_verification_algorithms;
    let all: Vec<_> = known.all.iter().map(|algorithm| panicking(*algorithm)).collect();
    let mapping = known.mapping.iter().map(|(scheme, algorithms)| {
        let algorithms: Vec<_> = algorithms.iter().map(|algorithm| panicking(*algorithm)).collect();
        (*scheme, &*algorithms.leak())
    });
    provider.signature_verification_algorithms =
        WebPkiSupportedAlgorithms { all: all.leak(), mapping: mapping.collect::<Vec<_>>().leak() };
    CryptoProvider::install_default(provider).expect("no other provider in this process");
}

fn good(reply: &Reply) {
    // The client may be gone.
    let _ = reply.send([head(&[(":status", "200"), ("content-length", "2")]), data(b"ok")].concat());
    let _ = reply.finish();
}

#[test]
fn a_panic_in_quic_ends_one_connection() {
    install_provider();
    in_time("panic", || {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let healthy = Server::start(move |_, reply| {
            let _ = reply.send(head(&[(":status", "200"), ("content-length", "4")]));
            let _ = reply.send(data(b"be"));
            released.lock().unwrap().recv().unwrap();
            let _ = reply.send(data(b"in"));
            let _ = reply.finish();
        });
        let broken = Server::start(|_, reply| good(&reply));
        let client = over_http3(ClientConfig::new(), &[&healthy, &broken]);
        let mut config = DownloaderConfig::new().client(client);
        config.max_retries = 0;
        let downloader = Downloader::new(config).unwrap();
        let peer = downloader.register((), Priority::High).unwrap();
        let get = |url: &str| peer.execute(Fetch::get(url).unwrap());
        let mut response = get(&healthy.url("/")).unwrap();
        response.read_exact(&mut [0; 2]).unwrap();

        PANICS.store(true, Ordering::Release);
        // Without QUIC it is requested over TCP, and nothing listens there.
        assert_eq!(get(&broken.url("/")).unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(PANICKED.load(Ordering::Acquire), 1);
        PANICS.store(false, Ordering::Release);

        // The body that was on its way goes on, and the other server is reached once QUIC may be tried again.
        release.send(()).unwrap();
        let mut rest = Vec::new();
        response.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"in");
        assert_eq!((healthy.connections(), healthy.requests(), healthy.lost()), (1, 1, 0));
        downloader.network_changed();
        assert_eq!(get(&broken.url("/")).unwrap().bytes(10).unwrap(), b"ok");
    });
}
