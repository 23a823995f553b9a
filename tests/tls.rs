//! A stream over TLS delivers the same bytes as one without, and ends only at the real end.

use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::content::{assert_pattern, assert_whole};
use support::{Answer, Content, Identity, Origin};
use windway::config::{ClientCertificate, Roots};
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, Fetch, Priority};

fn trusting(origin: &Origin) -> Downloader {
    let mut config = DownloaderConfig::default();
    config.client.extra_roots.push(origin.root_pem());
    Downloader::new(config).unwrap()
}

#[test]
fn a_stream_over_tls_reads_the_right_bytes() {
    let content = Content::pattern(3_000_000);
    let origin = Origin::start_tls(move |request| Answer::file(request, &content));
    let mut stream = trusting(&origin).open(&origin.url("/a")).unwrap();
    assert_whole(&mut stream, 3_000_000);
    let mut buf = vec![0; 70_000];
    for position in [2_900_000, 0, 1_234_567, 2_000_001] {
        stream.seek(SeekFrom::Start(position)).unwrap();
        stream.read_exact(&mut buf).unwrap();
        assert_pattern(position, &buf);
    }
}

#[test]
fn an_unknown_root_is_refused() {
    let origin = Origin::start_tls(|_| Answer::status(404));
    let other = Origin::start_tls(|_| Answer::status(404));
    for downloader in [Downloader::new(DownloaderConfig::default()).unwrap(), trusting(&other)] {
        let error = downloader.open(&origin.url("/a")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error:?}");
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    assert!(origin.log().requests.is_empty());
}

fn open_at(origin: &Origin, host: &str, trusted: &[Vec<u8>]) -> Result<(), Error> {
    let mut config = DownloaderConfig::default();
    config.client.extra_roots = trusted.to_vec();
    config.max_retries = 0;
    let url = format!("https://{host}:{}/a", origin.address().port());
    let mut body = Vec::new();
    Downloader::new(config)?.open(&url)?.read_to_end(&mut body)?;
    assert_eq!(body.len(), 1000);
    assert_pattern(0, &body);
    Ok(())
}

fn start_self_signed(alternative_names: &[&str], common_name: &str, last_year: i32) -> Origin {
    let identity = Identity::self_signed(alternative_names, common_name, last_year);
    Origin::start_tls_as(identity, |request| Answer::file(request, &Content::pattern(1000)))
}

/// As `openssl req -x509` makes it: a certificate authority that is used as a server's certificate.
#[test]
fn a_configured_self_signed_certificate_is_trusted_for_its_names_only() {
    for (alternative_names, common_name, right, wrong) in [
        (
            &["localhost", "127.0.0.1"][..],
            "x",
            &["localhost", "127.0.0.1"][..],
            &["localhost.localdomain"][..],
        ),
        (&["localhost"], "127.0.0.1", &["localhost"], &["127.0.0.1"]),
        (&["127.0.0.1"], "localhost", &["127.0.0.1"], &["localhost"]),
        (&["other.example"], "localhost", &[], &["localhost", "127.0.0.1"]),
        // Without alternative names only the common name can match.
        (&[], "localhost", &["localhost", "LOCALHOST"], &["127.0.0.1"]),
        (&[], "127.0.0.1", &["127.0.0.1"], &["localhost"]),
        (&[], "other.example", &[], &["localhost", "127.0.0.1"]),
    ] {
        let origin = start_self_signed(alternative_names, common_name, 2099);
        let also = start_self_signed(alternative_names, common_name, 2099);
        for host in right {
            open_at(&origin, host, &[origin.root_pem()]).unwrap();
            // Several certificates in one file, in any order.
            let both = [also.root_pem(), origin.root_pem()];
            open_at(&origin, host, &[both.concat()]).unwrap();
            open_at(&origin, host, &both).unwrap();
        }
        let requests = origin.log().requests.len();
        let given = [origin.root_pem()];
        // Another certificate with the same names is not trusted.
        let cases =
            wrong.iter().map(|host| (host, &given[..])).chain(right.iter().map(|host| (host, &[][..])));
        for (host, trusted) in cases {
            if let Err(error) = open_at(&origin, host, trusted) {
                let is_unknown = error.kind() == ErrorKind::HostNotFound && host.ends_with("localdomain");
                assert!(error.kind() == ErrorKind::Tls || is_unknown, "{host}: {error:?}");
                assert!(!error.is_retryable() || is_unknown);
            } else {
                panic!("{alternative_names:?} and {common_name} passed for {host}");
            }
        }
        for host in right {
            assert_eq!(open_at(&origin, host, &[also.root_pem()]).unwrap_err().kind(), ErrorKind::Tls);
        }
        assert_eq!(origin.log().requests.len(), requests);
    }
}

#[test]
fn an_expired_certificate_is_refused_even_if_configured() {
    for names in [&["localhost"][..], &[]] {
        let origin = start_self_signed(names, "localhost", 2001);
        let error = open_at(&origin, "localhost", &[origin.root_pem()]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error:?}");
        assert!(format!("{error:?}").contains("expired"), "{error:?}");
        assert!(origin.log().requests.is_empty());
    }
}

#[test]
fn a_root_without_a_certificate_is_an_invalid_configuration() {
    for pem in [&b""[..], b"no certificate", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        let mut config = DownloaderConfig::default();
        config.client.extra_roots.push(pem.to_vec());
        let error = Downloader::new(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("extra_roots"), "{error}");
    }
}

#[test]
fn a_tls_connection_without_close_notify_broke_and_did_not_end() {
    let content = Content::pattern(100_000);
    let origin = Origin::start_tls(move |request| {
        let answer = Answer::whole(&content).no_length();
        if request.path == "/cut" { answer.close_after(50_000).without_close_notify() } else { answer }
    });
    let peer = trusting(&origin).register((), Priority::High).unwrap();

    let mut cut = peer.execute(Fetch::get(&origin.url("/cut")).unwrap()).unwrap();
    let mut body = Vec::new();
    let error = Error::from(cut.read_to_end(&mut body).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
    assert_eq!(body.len(), 50_000);
    assert_pattern(0, &body);

    let mut whole = peer.execute(Fetch::get(&origin.url("/whole")).unwrap()).unwrap();
    assert_whole(&mut whole, 100_000);
}

#[test]
fn a_cancel_ends_a_read_of_a_silent_tls_body() {
    let content = Content::pattern(1_000_000);
    let origin = Origin::start_tls(move |request| Answer::file(request, &content).stall_after(1000));
    let mut stream = trusting(&origin).open(&origin.url("/a")).unwrap();
    let handle = stream.handle();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        let error = stream.read_to_end(&mut all).unwrap_err();
        (Error::from(error), all)
    });
    handle.wait_buffered(1000, None).unwrap();
    handle.cancel();
    let (error, all) = reader.join().unwrap();
    assert!(error.is_cancelled(), "{error:?}");
    assert_pattern(0, &all);
    origin.wait_until("closed connection", |log| log.open == 0);
}

/// A handshake that gets one byte now and then.
#[test]
fn a_slow_handshake_ends_at_the_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/a", listener.local_addr().unwrap());
    let (_end, ended) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        // The header of a record of 16 KiB.
        socket.write_all(&[22, 3, 3, 64, 0]).unwrap();
        while socket.write_all(&[2]).is_ok() {
            assert!(ended.recv_timeout(Duration::from_millis(10)).is_err());
        }
    });
    let mut config = DownloaderConfig::default();
    config.client.connect_timeout = Duration::from_millis(300);
    config.max_retries = 0;
    let downloader = Downloader::new(config).unwrap();
    let peer = downloader.register((), Priority::High).unwrap();
    let error = peer.execute(Fetch::get(&url).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectTimedOut);
    assert!(error.to_string().contains("with 127.0.0.1 was not complete within 300ms"), "{error}");
    server.join().unwrap();
}

#[test]
fn a_certificate_of_the_client_is_shown_to_its_own_origin_only() {
    let (chain, key, root) = Identity::of_client();
    let [home, other] = [(); 2].map(|()| {
        Origin::start_tls_as(Identity::new().requiring(&root), |request| {
            Answer::file(request, &Content::pattern(1000))
        })
    });
    let open = |origin: &Origin, shown_to: Option<&Origin>| -> Result<(), Error> {
        let mut config = DownloaderConfig::default();
        config.max_retries = 0;
        config.client.extra_roots.push(origin.root_pem());
        let certificate = ClientCertificate::from_pem(chain.clone(), key.clone());
        config.client.client_certificates =
            shown_to.map(|to| (to.url("/"), certificate)).into_iter().collect();
        let mut body = Vec::new();
        Downloader::new(config)?.open(&origin.url("/a"))?.read_to_end(&mut body)?;
        assert_pattern(0, &body);
        Ok(())
    };
    open(&home, Some(&home)).unwrap();
    // In TLS 1.3 a server refuses a client after the handshake.
    for shown_to in [None, Some(&other)] {
        let error = open(&home, shown_to).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Tls | ErrorKind::Disconnected), "{error:?}");
    }
    assert!(other.log().requests.is_empty());
}

#[test]
fn a_certificate_of_the_client_that_can_not_be_used_is_refused_without_showing_the_key() {
    let (chain, key, _) = Identity::of_client();
    for (origin, chain, key) in [
        ("https://host", &b"no PEM"[..], &key[..]),
        ("https://host", &chain, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"),
        ("https://host", &chain, &chain),
        ("no URL", &chain, &key),
    ] {
        let mut config = DownloaderConfig::default();
        let certificate = ClientCertificate::from_pem(chain, key);
        config.client.client_certificates = vec![(origin.into(), certificate)];
        let error = Downloader::new(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("client_certificates") && !shown.contains("c2VjcmV0"), "{shown}");
    }
}

#[test]
fn pinned_roots_are_the_only_ones() {
    let origin = Origin::start_tls(|request| Answer::file(request, &Content::pattern(1000)));
    let other = Origin::start_tls(|_| Answer::status(404));
    let open = |extra_roots: Vec<Vec<u8>>| -> Result<u64, Error> {
        let mut config = DownloaderConfig::default();
        config.max_retries = 0;
        config.client = config.client.roots(Roots::ExtraOnly).extra_roots(extra_roots);
        let mut body = Vec::new();
        Downloader::new(config)?.open(&origin.url("/a"))?.read_to_end(&mut body)?;
        Ok(body.len() as u64)
    };
    assert_eq!(open(vec![origin.root_pem()]).unwrap(), 1000);
    assert_eq!(open(vec![other.root_pem()]).unwrap_err().kind(), ErrorKind::Tls);
    let error = open(Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("extra_roots"), "{error}");
}

/// The roots of the system come from a variable of the environment, so a process of its own opens the stream.
#[cfg(all(feature = "platform-roots", target_os = "linux"))]
#[test]
fn the_roots_of_the_system_are_trusted_if_asked_for() {
    use std::process::Command;

    const URL: &str = "WINDWAY_TEST_URL";
    const NAME: &str = "the_roots_of_the_system_are_trusted_if_asked_for";
    if let Ok(url) = std::env::var(URL) {
        let mut config = DownloaderConfig::default();
        config.client.roots = Roots::Platform;
        config.max_retries = 0;
        let mut body = Vec::new();
        Downloader::new(config).unwrap().open(&url).unwrap().read_to_end(&mut body).unwrap();
        assert_pattern(0, &body);
        return;
    }
    let origin = Origin::start_tls(|request| Answer::file(request, &Content::pattern(1000)));
    let other = Origin::start_tls(|_| Answer::status(404));
    let directory = tempfile::tempdir().unwrap();
    for (trusted, is_trusted) in [(&origin, true), (&other, false)] {
        let file = directory.path().join("roots.pem");
        std::fs::write(&file, trusted.root_pem()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME]).env("SSL_CERT_FILE", &file).env(URL, origin.url("/a"));
        assert_eq!(child.output().unwrap().status.success(), is_trusted);
    }
}
