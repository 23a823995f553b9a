//! Streams through an HTTP or SOCKS proxy deliver the same bytes, and none that the proxy has changed.

use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use support::content::{assert_pattern, assert_whole};
use support::peers::downloader;
use support::proxy::{Proxy, Reply};
use support::{Answer, Content, Identity, Origin, Request};
use windway::downloader::PeerHandle;
use windway::{Downloader, Error, ErrorKind, Fetch, Priority, Response};

/// Longer than all buffers between the origin and the caller.
const LONG: u64 = 3_000_000;

fn through(proxy: &Proxy, origins: &[&Origin]) -> Downloader {
    through_url(proxy.url(), origins)
}

fn through_url(proxy: String, origins: &[&Origin]) -> Downloader {
    downloader(|config| {
        config.client.proxy = Some(proxy);
        config.max_retries = 0;
        for origin in origins.iter().filter(|origin| origin.url("").starts_with("https")) {
            config.client.extra_roots.push(origin.root_pem());
        }
    })
}

fn serve_long(request: &Request) -> Answer {
    Answer::file(request, &Content::pattern(LONG))
}

fn both() -> [Origin; 2] {
    [Origin::start_tls(serve_long), Origin::start(serve_long)]
}

fn get(peer: &PeerHandle, origin: &Origin, path: &str) -> Result<Response, Error> {
    peer.execute(Fetch::get(&origin.url(path)).unwrap())
}

/// Reads with buffers of `len` bytes, to the end or an error.
fn read_in(response: &mut Response, len: usize) -> (Vec<u8>, Result<(), Error>) {
    let (mut body, mut buf) = (Vec::new(), vec![0; len]);
    loop {
        match response.read_chunk(&mut buf) {
            Ok(0) => return (body, Ok(())),
            Ok(got) => body.extend_from_slice(&buf[..got]),
            Err(error) => return (body, Err(error)),
        }
    }
}

#[test]
fn a_body_through_a_proxy_is_exact_in_reads_of_any_length() {
    for (origin, is_socks) in both().into_iter().chain(both()).zip([false, false, true, true]) {
        let proxy = Proxy::start();
        let url = if is_socks { proxy.socks_url() } else { proxy.url() };
        let downloader = through_url(url, &[&origin]);
        let peer = downloader.register((), Priority::High).unwrap();
        for len in [700, 16 * 1024, 64 * 1024, 1_000_000] {
            let (body, end) = read_in(&mut get(&peer, &origin, "/a").unwrap(), len);
            assert_eq!(end.map_err(|error| error.kind()), Ok(()), "in reads of {len}");
            assert_eq!(body.len() as u64, LONG);
            assert_pattern(0, &body);
        }
        // One tunnel served all of them.
        assert_eq!(proxy.log().connects.len(), 1);
        assert_eq!(origin.log().connections, 1);
        assert_eq!(downloader.stats().connections_dialled, 1);
    }
}

#[test]
fn a_file_through_a_proxy_is_exact_at_any_position() {
    for origin in both() {
        let proxy = Proxy::start();
        let mut stream = through(&proxy, &[&origin]).open(&origin.url("/a")).unwrap();
        let mut buf = vec![0; 300_000];
        for (position, len) in
            [(0, 5_000), (2_900_000, 100_000), (1, 20_000), (1_234_567, 300_000), (2_000_001, 70_000)]
        {
            stream.seek(SeekFrom::Start(position)).unwrap();
            stream.read_exact(&mut buf[..len]).unwrap();
            assert_pattern(position, &buf[..len]);
        }
        stream.seek(SeekFrom::Start(0)).unwrap();
        assert_whole(&mut stream, LONG);
    }
}

#[test]
fn no_byte_of_a_tls_tunnel_that_its_proxy_rewrites_is_delivered() {
    for from in [0, 100, 1500, 5_000, 100_000, 1_000_000, 2_900_000] {
        for len in [700, 64 * 1024] {
            let origin = Origin::start_tls(serve_long);
            let proxy = Proxy::rewriting(from);
            let peer = through(&proxy, &[&origin]).register((), Priority::High).unwrap();
            let error = match get(&peer, &origin, "/a") {
                Err(error) => error,
                Ok(mut response) => {
                    let (body, end) = read_in(&mut response, len);
                    assert_pattern(0, &body);
                    assert!(body.len() as u64 <= from, "{} bytes, rewritten from {from}", body.len());
                    end.expect_err("a body that was rewritten")
                }
            };
            assert_eq!(error.kind(), ErrorKind::Tls, "rewritten from {from}: {error:?}");
        }
    }
}

#[test]
fn a_file_that_its_proxy_rewrites_fails_without_a_wrong_byte() {
    for from in [5_000, 500_000] {
        let origin = Origin::start_tls(serve_long);
        let proxy = Proxy::rewriting(from);
        let downloader = through(&proxy, &[&origin]);
        let result = downloader.open(&origin.url("/a")).and_then(|mut stream| {
            let mut all = Vec::new();
            let result = stream.read_to_end(&mut all);
            assert_pattern(0, &all);
            result.map(drop).map_err(Error::from)
        });
        let error = result.expect_err("a file that was rewritten");
        assert_eq!(error.kind(), ErrorKind::Tls, "{error:?}");
    }
}

#[test]
fn a_tunnel_is_reused_for_its_own_origin_only() {
    let first = Origin::start_tls(serve_long);
    let second = Origin::start_tls(|request| Answer::file(request, &Content::pattern(40_000)));
    let proxy = Proxy::start();
    let downloader = through(&proxy, &[&first, &second]);
    let peer = downloader.register((), Priority::High).unwrap();
    for _ in 0..3 {
        for (origin, expected) in [(&first, LONG), (&second, 40_000)] {
            let (body, end) = read_in(&mut get(&peer, origin, "/a").unwrap(), 64 * 1024);
            assert_eq!((body.len() as u64, end.is_ok()), (expected, true));
            assert_pattern(0, &body);
        }
    }
    assert_eq!(proxy.log().connects.len(), 2);
    assert_eq!((first.log().connections, second.log().connections), (1, 1));
    assert_eq!(downloader.stats().connections_idle, 2);
}

/// A request to the address of the proxy must not use a tunnel through the proxy.
#[test]
fn an_origin_at_the_address_of_the_proxy_gets_no_tunnel_to_another() {
    let origin = Origin::start(serve_long);
    let proxy = Proxy::start();
    let peer = through(&proxy, &[&origin]).register((), Priority::High).unwrap();
    let (body, end) = read_in(&mut get(&peer, &origin, "/a").unwrap(), 64 * 1024);
    assert_eq!((body.len() as u64, end.is_ok()), (LONG, true));
    // The proxy serves no such request, but it is asked for a tunnel to itself.
    get(&peer, &origin, "/a").unwrap();
    let to_itself = peer.execute(Fetch::get(&format!("{}/a", proxy.url())).unwrap());
    assert!(to_itself.is_err());
    proxy.wait_until("a request for a tunnel to itself", |log| {
        log.connects.iter().any(|connect| connect.target == proxy.address().to_string())
    });
}

#[test]
fn connections_through_a_proxy_are_preconnected() {
    for origin in both() {
        let proxy = Proxy::start();
        let downloader = through(&proxy, &[&origin]);
        let peer = downloader.register((), Priority::High).unwrap();
        downloader.preconnect(&origin.url("/"), 2).unwrap();
        downloader.await_preconnects();
        let stats = downloader.stats();
        assert_eq!((stats.connections_idle, stats.connections_preconnected), (2, 2), "{stats:?}");
        assert_eq!(proxy.log().connects.len(), 2);
        for _ in 0..2 {
            let (body, end) = read_in(&mut get(&peer, &origin, "/a").unwrap(), 64 * 1024);
            assert_eq!((body.len() as u64, end.is_ok()), (LONG, true));
            assert_pattern(0, &body);
        }
        // While one is in use, another one may be opened in its place. None was opened for a request.
        downloader.await_preconnects();
        let stats = downloader.stats();
        assert_eq!(stats.connections_dialled, stats.connections_preconnected, "{stats:?}");
        downloader.stop();
        assert_eq!(downloader.stats().connections_idle, 0);
    }
}

#[test]
fn a_proxy_that_refuses_is_an_error_with_its_status() {
    // A 416 of a server may be the end of a file of unknown length. That of a proxy is not.
    for (status, is_retryable) in [(403, false), (407, false), (416, false), (502, true)] {
        for origin in both() {
            let challenge = "proxy-authenticate: Digest realm=\"r\"\r\nProxy-Authenticate: \x1b[2J x";
            let head = format!("HTTP/1.1 {status} No\r\nContent-Length: 5\r\n{challenge}\r\n\r\nsorry");
            let proxy = Proxy::replying(move |_| Reply::Refuse(head.clone().into_bytes()));
            let peer = through(&proxy, &[&origin]).register((), Priority::High).unwrap();
            let error = get(&peer, &origin, "/a").unwrap_err();
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::ProxyStatus(status), is_retryable));
            assert_eq!(error.status(), None, "it is not the server's");
            assert!(error.to_string().starts_with("the proxy"), "{error}");
            assert!(error.to_string().contains(" and asks for Digest ("), "{error}");
            assert!(origin.log().requests.is_empty());
        }
    }
}

#[test]
fn an_invalid_or_truncated_answer_of_a_proxy_is_a_typed_error() {
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 1_000_000]].concat();
    for (answer, kind) in [
        (b"".to_vec(), ErrorKind::Disconnected),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n".to_vec(), ErrorKind::Disconnected),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), ErrorKind::Protocol),
        (b"HTTP/1.1 2x0 OK\r\n\r\n".to_vec(), ErrorKind::Protocol),
        (endless, ErrorKind::Protocol),
    ] {
        for origin in both() {
            let answer = answer.clone();
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(30)]).into_owned();
            let proxy = Proxy::replying(move |_| Reply::Refuse(answer.clone()));
            let peer = through(&proxy, &[&origin]).register((), Priority::High).unwrap();
            let error = get(&peer, &origin, "/a").unwrap_err();
            assert_eq!(error.kind(), kind, "{shown:?}: {error:?}");
        }
    }
}

/// What a captive portal, a proxy that inspects TLS, and a broken proxy do.
#[test]
fn what_goes_wrong_in_a_tunnel_names_the_proxy() {
    const PAGE: &str = "HTTP/1.1 200 OK\r\n\r\n";
    let page = || Reply::TunnelWith(format!("{PAGE}<html>Log in</html>").into_bytes());
    let closes = || Reply::Refuse(PAGE.as_bytes().to_vec());
    let with_root = |origin: &Origin| vec![origin.root_pem()];
    let tls = || Origin::start_tls(serve_long);
    let plain = || Origin::start(serve_long);
    // A connection that is closed with unread bytes is reset. So it may end in one way or the other.
    let cases = [
        ("a page in place of TLS", tls(), page(), true, &[ErrorKind::Tls][..]),
        ("an end in place of TLS", tls(), closes(), true, &[ErrorKind::Tls, ErrorKind::Disconnected]),
        ("a certificate that is not trusted", tls(), Reply::Tunnel, false, &[ErrorKind::Tls]),
        ("a page in place of a response", plain(), page(), false, &[ErrorKind::Protocol]),
        ("an end in place of a response", plain(), closes(), false, &[ErrorKind::Disconnected]),
    ];
    for (case, origin, reply, is_trusted, kinds) in cases {
        let proxy = Proxy::replying(move |_| reply.clone());
        let downloader = downloader(|config| {
            config.client.proxy = Some(proxy.url());
            config.client.extra_roots = if is_trusted { with_root(&origin) } else { Vec::new() };
            config.max_retries = 0;
        });
        let peer = downloader.register((), Priority::High).unwrap();
        let error = get(&peer, &origin, "/a").unwrap_err();
        assert!(kinds.contains(&error.kind()), "{case}: {error:?}");
        let proxy = format!("through the proxy {}", proxy.address());
        assert_eq!(error.to_string().matches(&proxy).count(), 1, "{case}: {error}");
    }
}

#[test]
fn any_2xx_answer_of_a_proxy_opens_a_tunnel() {
    let many = (0..60).map(|number| format!("X-{number}: y\r\n")).collect::<String>();
    for answer in [
        "HTTP/1.0 200\r\n\r\n".to_owned(),
        "HTTP/1.1 204 Open\r\nContent-Length: 7\r\n\r\n".into(),
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        "HTTP/1.1 200 OK\nX: y\n\n".into(),
    ] {
        for origin in both() {
            let answer = answer.clone();
            let proxy = Proxy::replying(move |_| Reply::TunnelWith(answer.clone().into_bytes()));
            let peer = through(&proxy, &[&origin]).register((), Priority::High).unwrap();
            let (body, end) = read_in(&mut get(&peer, &origin, "/a").unwrap(), 64 * 1024);
            assert_eq!((body.len() as u64, end.is_ok()), (LONG, true));
            assert_pattern(0, &body);
        }
    }
}

#[test]
fn only_the_proxy_sees_its_credentials() {
    let origin = Origin::start_tls(serve_long);
    let proxy = Proxy::start();
    let url = format!("http://user:p%40ss@{}", proxy.address());
    let downloader = downloader(|config| {
        config.client.proxy = Some(url);
        config.client.extra_roots.push(origin.root_pem());
    });
    let peer = downloader.register((), Priority::High).unwrap();
    get(&peer, &origin, "/a").unwrap();
    let connect = proxy.log().connects[0].clone();
    assert_eq!(connect.header("proxy-authorization"), Some("Basic dXNlcjpwQHNz"));
    assert_eq!(connect.header("host"), Some(connect.target.as_str()));
    assert_eq!(connect.target, origin.address().to_string());
    assert_eq!(origin.log().requests[0].header("proxy-authorization"), None);
}

#[test]
fn a_proxy_that_is_down_or_silent_is_an_error_in_time() {
    for (answer, is_gone) in [(None, true), (Some(""), false), (Some("HTTP/1.1 200"), false)] {
        let origin = Origin::start_tls(serve_long);
        let proxy = Proxy::replying(move |_| Reply::Silent(answer.unwrap_or_default().as_bytes().to_vec()));
        let downloader = downloader(|config| {
            config.client.proxy = Some(proxy.url());
            config.client.connect_timeout = Duration::from_millis(300);
            config.max_retries = 0;
        });
        if is_gone {
            drop(proxy);
        }
        let peer = downloader.register((), Priority::High).unwrap();
        let error = get(&peer, &origin, "/a").unwrap_err();
        let expected = if is_gone { ErrorKind::Refused } else { ErrorKind::ConnectTimedOut };
        assert_eq!(error.kind(), expected, "{error:?}");
        assert!(error.to_string().contains("the proxy"), "{error}");
        assert!(is_gone || error.to_string().contains(" within 300ms "), "{error}");
    }
}

#[test]
fn a_cancel_ends_a_wait_for_a_proxy_or_for_its_tunnel() {
    let origin = Origin::start_tls(|request| match request.path.as_str() {
        "/head" => serve_long(request).stall_in_head(10),
        _ => serve_long(request).stall_after(1000),
    });
    let silent = Proxy::replying(|_| Reply::Silent(Vec::new()));
    let proxy = Proxy::start();
    for (proxy, path) in [(&silent, "/a"), (&proxy, "/head"), (&proxy, "/a")] {
        let peer = through(proxy, &[&origin]).register((), Priority::High).unwrap();
        let before = (proxy.log().connects.len(), origin.log().requests.len(), origin.log().sent);
        let (waiting, url) = (peer.clone(), origin.url(path));
        let reader = thread::spawn(move || {
            let mut response = waiting.execute(Fetch::get(&url).unwrap())?;
            let (body, end) = read_in(&mut response, 64 * 1024);
            assert_pattern(0, &body);
            end
        });
        proxy.wait_until("a request for a tunnel", |log| log.connects.len() > before.0);
        match path {
            "/head" => origin.wait_until("a request", |log| log.requests.len() > before.1),
            _ if proxy.log().connects.len() > 1 => {
                origin.wait_until("a body", |log| log.sent >= before.2 + 1000);
            }
            _ => {}
        }
        peer.cancel();
        let error = reader.join().unwrap().unwrap_err();
        assert!(error.is_cancelled(), "{error:?}");
        proxy.wait_until("a closed connection", |log| log.open == 0);
    }
}

#[test]
fn a_socks_proxy_gets_names_and_its_own_credentials() {
    let origin = Origin::start_tls(serve_long);
    let proxy = Proxy::start();
    let url = proxy.socks_url().replace("://", "://user:p%40ss@");
    let peer = through_url(url, &[&origin]).register((), Priority::High).unwrap();
    // The resolver of this machine knows no such name, and is not asked.
    let port = origin.address().port();
    for (host, is_known) in [("127.0.0.1", true), ("localhost", true), ("windway.invalid", false)] {
        let result = peer.execute(Fetch::get(&format!("https://{host}:{port}/a")).unwrap());
        assert_eq!(result.is_ok(), is_known, "{host}: {result:?}");
        let connect = proxy.log().connects.last().cloned().unwrap();
        assert_eq!(connect.target, format!("{host}:{port}"));
        assert_eq!(connect.credentials, Some(("user".into(), "p@ss".into())));
    }
    assert!(origin.log().requests.iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn what_a_socks_proxy_answers_is_a_typed_error() {
    for (answer, kind) in [
        (&[5, 1, 0, 1, 0, 0, 0, 0, 0, 0][..], ErrorKind::Unreachable),
        (&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0], ErrorKind::Unreachable),
        (&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0], ErrorKind::Refused),
        (&[5, 6, 0, 1, 0, 0, 0, 0, 0, 0], ErrorKind::ConnectTimedOut),
        (&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0], ErrorKind::Forbidden),
        (&[5, 0, 0, 9], ErrorKind::Protocol),
        (&[4, 90, 0, 0], ErrorKind::Protocol),
        (&[5, 0, 0, 3, 200, 1], ErrorKind::Disconnected),
        (&[], ErrorKind::Disconnected),
    ] {
        let origin = Origin::start(serve_long);
        let proxy = Proxy::replying(move |_| Reply::Refuse(answer.to_vec()));
        let peer = through_url(proxy.socks_url(), &[&origin]).register((), Priority::High).unwrap();
        let error = get(&peer, &origin, "/a").unwrap_err();
        assert_eq!(error.kind(), kind, "{answer:?}: {error:?}");
        assert!(error.to_string().contains("proxy"), "{error}");
        // An origin may have several ports, of which a proxy allows some.
        let names_port = error.to_string().contains(&format!("tunnel to {}:", origin.address()));
        assert!(names_port || !matches!(answer.first_chunk(), Some([5, 1..=6])), "{error}");
        assert!(origin.log().requests.is_empty());
    }
}

/// The address of a tunnel may be a name, and the bytes behind it are the origin's.
#[test]
fn a_result_of_socks_with_any_kind_of_address_opens_the_tunnel() {
    for address in [[&[1][..], &[0; 6]].concat(), [&[4][..], &[0; 18]].concat(), b"\x03\x04host\0\0".to_vec()]
    {
        let origin = Origin::start(serve_long);
        let answer = [&[5, 0, 0][..], &address].concat();
        let proxy = Proxy::replying(move |_| Reply::TunnelWith(answer.clone()));
        let peer = through_url(proxy.socks_url(), &[&origin]).register((), Priority::High).unwrap();
        let (body, end) = read_in(&mut get(&peer, &origin, "/a").unwrap(), 64 * 1024);
        assert_eq!((body.len() as u64, end.is_ok()), (LONG, true));
        assert_pattern(0, &body);
    }
}

#[test]
fn hosts_without_a_proxy_are_reached_directly_and_all_others_through_it() {
    let origin = Origin::start(serve_long);
    let port = origin.address().port();
    let proxy = Proxy::start();
    let downloader = downloader(|config| {
        config.client.proxy = Some(proxy.url());
        config.client.no_proxy = vec!["127.0.0.0/8".into()];
    });
    let peer = downloader.register((), Priority::High).unwrap();
    for (host, tunnels) in [("127.0.0.1", 0), ("localhost", 1)] {
        let fetch = Fetch::get(&format!("http://{host}:{port}/a")).unwrap();
        let (body, end) = read_in(&mut peer.execute(fetch).unwrap(), 64 * 1024);
        assert_eq!((body.len() as u64, end.is_ok()), (LONG, true));
        assert_pattern(0, &body);
        assert_eq!(proxy.log().connects.len(), tunnels);
    }
}

/// Answers one request for a tunnel, and then plays the origin at its end.
fn serve_tunnel(mut client: impl Read + Write, at_its_end: impl FnOnce(&mut dyn ReadWrite)) {
    let connect = read_head(&mut client);
    assert!(connect.starts_with("CONNECT "), "{connect}");
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    at_its_end(&mut client);
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

fn read_head(client: &mut (impl Read + ?Sized)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn serve_body(client: &mut (impl ReadWrite + ?Sized)) {
    assert!(read_head(client).starts_with("GET /a "));
    client.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n").as_bytes()).unwrap();
    let mut body = Vec::new();
    Content::pattern(LONG).append(&mut body, 0..LONG);
    client.write_all(&body).unwrap();
    client.flush().unwrap();
}

#[test]
fn a_tunnel_through_an_https_proxy_has_tls_inside_of_tls() {
    for is_tls in [false, true] {
        let (proxy, origin) = (Identity::new(), Identity::new());
        let roots = [&proxy, &origin].map(|identity| identity.root_pem.clone().into_bytes());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            serve_tunnel(proxy.serve(socket), |client| match is_tls {
                true => serve_body(&mut origin.serve(client)),
                false => serve_body(client),
            });
        });
        let downloader = downloader(|config| {
            config.client.proxy = Some(format!("https://localhost:{}", address.port()));
            config.client.extra_roots = roots.to_vec();
            config.max_retries = 0;
        });
        let peer = downloader.register((), Priority::High).unwrap();
        let scheme = if is_tls { "https" } else { "http" };
        let fetch = Fetch::get(&format!("{scheme}://127.0.0.1:9/a")).unwrap();
        let (body, end) = read_in(&mut peer.execute(fetch).unwrap(), 64 * 1024);
        assert_eq!((body.len() as u64, end.is_ok()), (LONG, true));
        assert_pattern(0, &body);
        server.join().unwrap();
    }
}

#[test]
fn an_https_proxy_with_an_unknown_certificate_sees_no_request() {
    let proxy = Identity::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap()).replace("127.0.0.1", "localhost");
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        proxy.serve(socket).read(&mut [0]).is_err()
    });
    let peer = through_url(url, &[]).register((), Priority::High).unwrap();
    let error = peer.execute(Fetch::get("http://127.0.0.1:9/a").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error:?}");
    let wanted = "can't connect to the proxy: the TLS handshake with localhost failed";
    assert!(error.to_string().starts_with(wanted), "{error}");
    assert!(server.join().unwrap(), "the proxy read a byte");
}
