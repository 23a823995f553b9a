//! Files and fetches over HTTP/3: ranges, cancellation, reuse, discovery, fallback.
#![cfg(feature = "http3")]

#[path = "support/h3/mod.rs"]
mod h3;

use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h3::{Gateway, Options, Reply, Request, Server, assert_shared, data, frame, head, over_http3};
use support::content::assert_pattern;
use support::peers::{List, collect};
use support::{Answer, Content, Origin, in_time};
use windway::config::Http3;
use windway::downloader::Outcome;
use windway::{ByteRange, ClientConfig, Downloader, DownloaderConfig, Error, ErrorKind, Fetch, Priority};

const LEN: u64 = 3_000_000;

fn downloader(servers: &[&Server]) -> Downloader {
    with_client(over_http3(ClientConfig::new(), servers))
}

fn with_client(client: ClientConfig) -> Downloader {
    let mut config = DownloaderConfig::new().client(client);
    config.max_retries = 2;
    Downloader::new(config).unwrap()
}

fn serve() -> (Origin, Gateway) {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| Answer::file(request, &content));
    let gateway = Gateway::start(origin.address());
    (origin, gateway)
}

/// Answers each request with this text.
fn say(reply: &Reply, text: &str) {
    let len = text.len().to_string();
    // The client may be gone.
    let _ = reply.send(head(&[(":status", "200"), ("content-length", &len)]));
    let _ = reply.send(data(text.as_bytes()));
    let _ = reply.finish();
}

fn get(downloader: &Downloader, url: &str) -> Result<Vec<u8>, Error> {
    read(downloader, Fetch::get(url)?)
}

fn read(downloader: &Downloader, fetch: Fetch) -> Result<Vec<u8>, Error> {
    let mut response = downloader.register((), Priority::High)?.execute(fetch)?;
    let mut body = Vec::new();
    response.read_to_end(&mut body)?;
    Ok(body)
}

#[test]
fn a_cap_on_the_bandwidth_holds_over_http3() {
    const RATE: u64 = 400_000;
    in_time("a capped file", || {
        let (_origin, gateway) = serve();
        let downloader = downloader(&[&gateway.0]);
        downloader.set_max_bandwidth(RATE).unwrap();
        let began = std::time::Instant::now();
        let mut bytes = vec![0; 300_000];
        downloader.open(&gateway.url("/a.flac")).unwrap().read_exact(&mut bytes).unwrap();
        assert_pattern(0, &bytes);
        // Without the burst. A busy machine only makes it longer.
        assert!(began.elapsed() >= Duration::from_millis(500));
    });
}

#[test]
fn a_file_is_read_over_one_connection() {
    in_time("a file", || {
        let (_origin, gateway) = serve();
        let downloader = downloader(&[&gateway.0]);
        let mut stream = downloader.open(&gateway.url("/a.flac")).unwrap();
        let mut buf = vec![0; 10_000];
        for at in [0, LEN - 10_000, 1_000_000, 5, 2_000_000] {
            stream.seek(SeekFrom::Start(at)).unwrap();
            stream.read_exact(&mut buf).unwrap();
            assert_pattern(at, &buf);
        }
        stream.seek(SeekFrom::Start(0)).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all.len() as u64, LEN);
        assert_pattern(0, &all);
        // A hedged request, on a busy machine, may have opened one more.
        assert!(gateway.0.connections() <= 2, "{}", gateway.0.connections());
        assert!(gateway.0.requests() > 4);
        assert!(downloader.stats().connections_idle >= 1);
        drop(stream);
        downloader.stop();
    });
}

#[test]
fn random_ranges_are_right_whether_they_are_read_or_abandoned() {
    in_time("ranges", || {
        let (_origin, gateway) = serve();
        let downloader = downloader(&[&gateway.0]);
        let peer = downloader.register((), Priority::High).unwrap();
        let mut random = 7_u64;
        for _ in 0..200 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442);
            let start = (random >> 20) % (LEN - 1);
            let end = start + 1 + (random >> 40) % 100_000.min(LEN - start);
            let fetch = Fetch::get(&gateway.url("/a")).unwrap().range(ByteRange::new(start, end));
            let mut response = peer.execute(fetch).unwrap();
            let mut body = vec![0; if random % 4 == 0 { 1 } else { (end - start) as usize }];
            response.read_exact(&mut body).unwrap();
            assert_pattern(start, &body);
        }
        assert_shared(&gateway.0, &downloader, 200);
    });
}

#[test]
fn many_requests_share_a_connection() {
    in_time("many", || {
        let server = Server::start(|request, reply| say(&reply, request.path()));
        let downloader = downloader(&[&server]);
        // The first one opens the connection.
        assert_eq!(get(&downloader, &server.url("/0")).unwrap(), b"/0");
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (downloader, url) = (downloader.clone(), server.url(""));
                std::thread::spawn(move || {
                    for number in 0..50 {
                        let path = format!("/{thread}/{number}");
                        assert_eq!(get(&downloader, &format!("{url}{path}")).unwrap(), path.as_bytes());
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_shared(&server, &downloader, 401);
        // Complete bodies are never stopped: that would cost a packet each. A hedged request that lost is.
        assert!(server.stopped() + 401 <= downloader.stats().requests as usize, "{}", server.stopped());
    });
}

#[test]
fn bodies_that_are_not_read_leave_credit_for_other_requests() {
    const CHUNK: usize = 64 * 1024;
    /// Chunks that the server has got rid of when a body fills its window of 4 MiB: 63 are sent, and five wait to be.
    const FILLED: usize = 68;
    in_time("bodies that are not read", || {
        let sent = Arc::new(AtomicUsize::new(0));
        let (own, (progress, moved)) = (Arc::clone(&sent), std::sync::mpsc::channel());
        let progress = std::sync::Mutex::new(progress);
        let server = Server::start(move |request, reply| {
            if request.path() == "/small" {
                return say(&reply, "ok");
            }
            let progress = progress.lock().unwrap().clone();
            let _ = reply.send(head(&[(":status", "200")]));
            while reply.send(data(&[7; CHUNK])).is_ok() {
                own.fetch_add(1, Ordering::AcqRel);
                // The test may be over.
                let _ = progress.send(());
            }
        });
        let downloader = downloader(&[&server]);
        let held: Vec<_> = (1..=3)
            .map(|bodies| {
                // Held, so that no hedged request gets an answer over another connection.
                let held = |path: &str| Fetch::get(&server.url(path)).unwrap().held(support::PATIENCE);
                let peer = downloader.register((), Priority::High).unwrap();
                let body = peer.execute(held("/large")).unwrap();
                while sent.load(Ordering::Acquire) < bodies * FILLED {
                    moved.recv().unwrap();
                }
                assert_eq!(read(&downloader, held("/small")).unwrap(), b"ok");
                body
            })
            .collect();
        drop(held);
    });
}

#[test]
fn a_request_carries_the_fields_of_one_over_tcp() {
    in_time("fields", || {
        let (fields, seen) = std::sync::mpsc::channel();
        let server = Server::start(move |request: Request, reply| {
            fields.send(request.fields).unwrap();
            say(&reply, "ok");
        });
        let client = over_http3(ClientConfig::new(), &[&server]).user_agent("test/1");
        let fetch = Fetch::get(&server.url("/a%20b?c=d")).unwrap().header("X-Own", "1").unwrap();
        read(&with_client(client), fetch).unwrap();
        let fields = seen.recv().unwrap();
        let authority = server.url("").trim_start_matches("https://").to_owned();
        for (name, value) in [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", &authority),
            (":path", "/a%20b?c=d"),
            ("accept", "*/*"),
            ("accept-encoding", "identity"),
            ("user-agent", "test/1"),
            ("x-own", "1"),
        ] {
            assert!(fields.iter().any(|field| field.0 == name && field.1 == value), "{name}: {fields:?}");
        }
        assert_eq!(fields.len(), 8);
    });
}

#[test]
fn a_password_of_a_redirect_is_sent_as_authorization() {
    in_time("userinfo", || {
        let (fields, seen) = std::sync::mpsc::channel();
        let server = Server::start(move |request: Request, reply| {
            let authority = request.field(":authority").unwrap().to_owned();
            if request.path() == "/" {
                let location = format!("https://user:secret@{authority}/there");
                let _ = reply.send_last(head(&[(":status", "302"), ("location", &location)]));
            } else {
                fields.send((authority, request.field("authorization").map(str::to_owned))).unwrap();
                say(&reply, "ok");
            }
        });
        assert_eq!(get(&downloader(&[&server]), &server.url("/")).unwrap(), b"ok");
        let expected = (server.address().to_string(), Some("Basic dXNlcjpzZWNyZXQ=".to_owned()));
        assert_eq!(seen.recv().unwrap(), expected);
    });
}

#[test]
fn a_cancel_stops_the_stream_in_head_and_body_and_spares_the_connection() {
    in_time("cancel", || {
        let server = Server::start(|request, reply| {
            if request.path() == "/ok" {
                return say(&reply, "ok");
            }
            if request.path() == "/body" {
                reply.send(head(&[(":status", "200"), ("content-length", "1000")])).unwrap();
                reply.send(data(&[0; 10])).unwrap();
            }
            reply.await_stop();
        });
        let downloader = downloader(&[&server]);
        for (stopped, path) in ["/head", "/body"].into_iter().enumerate() {
            let peer = downloader.register((), Priority::High).unwrap();
            let epoch = peer.epoch();
            let fetch = Fetch::get(&server.url(path)).unwrap().epoch(&epoch);
            let (begun, has_begun) = std::sync::mpsc::channel();
            let reader = std::thread::spawn(move || {
                begun.send(()).unwrap();
                let mut response = peer.execute(fetch)?;
                let mut body = Vec::new();
                response.read_to_end(&mut body)?;
                Ok::<(), Error>(())
            });
            has_begun.recv().unwrap();
            server.wait_until("request", |server| server.requests() > 2 * stopped);
            epoch.cancel();
            let error = reader.join().unwrap().unwrap_err();
            assert!(error.is_cancelled(), "{error:?}");
            server.wait_until("stop", |server| server.stopped() > stopped);
            assert_eq!(get(&downloader, &server.url("/ok")).unwrap(), b"ok");
        }
        assert_shared(&server, &downloader, 4);
    });
}

/// A TCP origin over TLS that advertises HTTP/3 at `port`.
fn advertising(port: u16) -> Origin {
    with_alternative(&format!("h3=\":{port}\"; ma=60"))
}

/// A TCP origin over TLS that answers with this `Alt-Svc`.
fn with_alternative(value: &str) -> Origin {
    let value = value.to_owned();
    Origin::start_tls(move |_| Answer::whole(&Content::pattern(10)).header("Alt-Svc", &value))
}

#[test]
fn an_alternative_that_can_not_be_used_leaves_the_requests_to_tcp() {
    in_time("unusable alternatives", || {
        // A name that does not exist (RFC 6761, section 6.4), addresses of no server, a text that is no name.
        for authority in ["none.invalid:443", "0.0.0.0:443", "[::]:443", "a b:443", "[::1:443", "%:443"] {
            let origin = with_alternative(&format!("h3=\"{authority}\""));
            let client = ClientConfig::new().extra_roots([origin.root_pem()]);
            let downloader = with_client(client.http3(Http3::Always(vec![origin.url("/")])));
            for _ in 0..3 {
                assert_eq!(get(&downloader, &origin.url("/")).expect(authority).len(), 10);
            }
            assert!(origin.log().requests.len() >= 3, "{authority}");
        }
    });
}

#[test]
fn a_named_origin_is_not_followed_to_another_private_host() {
    in_time("another private host", || {
        let server = Server::start(|_, reply| say(&reply, "h3"));
        let origin = with_alternative(&format!("h3=\"localhost:{}\"", server.address().port()));
        let client = ClientConfig::new().extra_roots([origin.root_pem(), server.root_pem()]);
        let downloader = with_client(client.http3(Http3::Always(vec![origin.url("/")])));
        for _ in 0..3 {
            assert_eq!(get(&downloader, &origin.url("/")).unwrap().len(), 10);
        }
        assert_eq!(server.received(), 0);
    });
}

#[test]
fn an_origin_that_advertises_is_not_followed_to_a_private_address() {
    in_time("private", || {
        let server = Server::start(|_, reply| say(&reply, "h3"));
        let origin = advertising(server.address().port());
        let client = ClientConfig::new().extra_roots([origin.root_pem()]).http3(Http3::Advertised);
        let downloader = with_client(client);
        for _ in 0..3 {
            assert_eq!(get(&downloader, &origin.url("/")).unwrap().len(), 10);
        }
        assert_eq!(server.received(), 0);
        assert!(origin.log().requests.len() >= 3);
    });
}

#[test]
fn an_advertised_port_is_used_from_the_second_request_on() {
    in_time("advertised", || {
        let server = Server::start(|_, reply| say(&reply, "h3"));
        let origin = advertising(server.address().port());
        let client = ClientConfig::new().extra_roots([origin.root_pem(), server.root_pem()]);
        // Named, because its address is private. Nothing answers over QUIC at its own port.
        let downloader = with_client(client.http3(Http3::Always(vec![origin.url("/")])));
        assert_eq!(get(&downloader, &origin.url("/")).unwrap().len(), 10);
        assert_eq!(origin.log().requests.len(), 1);
        let url = origin.url("/");
        // From now on TCP is refused. A handshake that is slow, on a busy machine, would otherwise lose against it.
        drop(origin);
        for _ in 0..3 {
            assert_eq!(get(&downloader, &url).unwrap(), b"h3");
        }
        // A hedged request, on a busy machine, may have opened one more.
        assert!(server.connections() <= 2 && server.requests() >= 3, "{}", server.connections());
    });
}

#[test]
fn an_alternative_that_is_not_responsible_for_its_origin_is_left_alone() {
    in_time("421", || {
        let server = Server::start(|_, reply| {
            let _ = reply.send(head(&[(":status", "421"), ("content-length", "0")]));
            let _ = reply.finish();
        });
        let origin = advertising(server.address().port());
        let client = ClientConfig::new().extra_roots([origin.root_pem(), server.root_pem()]);
        let downloader = with_client(client.http3(Http3::Always(vec![origin.url("/")])));
        // The first one brings the advertisement. Each response over TCP repeats it.
        for _ in 0..4 {
            assert_eq!(get(&downloader, &origin.url("/")).unwrap().len(), 10);
        }
        assert!(origin.log().requests.len() >= 4);
        // None if TCP was faster, on a busy machine.
        assert!(server.requests() <= 1, "{}", server.requests());
    });
}

/// How a server fails behind the handshake.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Close,
    Reset,
    Malformed,
    GoAway,
}

#[test]
fn a_server_that_fails_behind_its_handshake_is_requested_over_tcp() {
    in_time("failures behind the handshake", || {
        for failure in [Failure::Close, Failure::Reset, Failure::Malformed, Failure::GoAway] {
            let server = Server::start(move |_, reply| {
                let _ = match failure {
                    Failure::Close => reply.close_connection(0x102),
                    Failure::Reset => reply.reset(0x102),
                    Failure::Malformed => reply.send_last(head(&[("x", "y")])),
                    Failure::GoAway => {
                        let mut goaway = Vec::new();
                        frame::put_frame(&mut goaway, frame::GOAWAY, &[0]);
                        reply.control(goaway)
                    }
                };
                reply.await_stop();
            });
            let origin = advertising(server.address().port());
            let client = ClientConfig::new().extra_roots([origin.root_pem(), server.root_pem()]);
            let client = client.http3(Http3::Always(vec![origin.url("/")]));
            let mut config = DownloaderConfig::new().client(client);
            config.max_retries = 0;
            let downloader = Downloader::new(config).unwrap();
            for _ in 0..4 {
                let body = get(&downloader, &origin.url("/"));
                assert_eq!(body.unwrap_or_else(|error| panic!("{failure:?}: {error:?}")).len(), 10);
            }
            assert!(origin.log().requests.len() >= 4, "{failure:?}");
            // It is left alone then. None if TCP was faster, on a busy machine.
            assert!(server.requests() <= 1, "{failure:?}: {}", server.requests());
        }
    });
}

/// How a server is silent behind its handshake, and what the TCP server of its origin does after a response.
#[derive(Clone, Copy, Debug)]
enum Mute {
    NoAnswer,
    NoStreams,
}

/// An origin whose QUIC server completes handshakes and never answers, and a client that has learnt of it.
fn mute(mute: Mute, keeps_alive: bool) -> (Server, Origin, ClientConfig) {
    let mut options = Options::default();
    if let Mute::NoStreams = mute {
        options.transport.max_concurrent_bidi_streams(0_u32.into());
    }
    let server = Server::start_with(options, |_, reply| reply.await_stop());
    let value = format!("h3=\":{}\"; ma=60", server.address().port());
    let origin = Origin::start_tls(move |_| {
        let answer = Answer::whole(&Content::pattern(10)).header("Alt-Svc", &value);
        if keeps_alive { answer } else { answer.header("Connection", "close") }
    });
    let client = ClientConfig::new().extra_roots([origin.root_pem(), server.root_pem()]);
    let client = client.http3(Http3::Always(vec![origin.url("/")]));
    (server, origin, client)
}

#[test]
fn a_server_that_never_answers_behind_its_handshake_is_requested_over_tcp() {
    in_time("mute servers", || {
        for (kind, keeps_alive) in [
            (Mute::NoAnswer, false),
            (Mute::NoStreams, false),
            (Mute::NoAnswer, true),
            (Mute::NoStreams, true),
        ] {
            let (server, origin, client) = mute(kind, keeps_alive);
            let mut config = DownloaderConfig::new().client(client);
            config.max_retries = 0;
            // Silence ends a request late: a hedged request has to be faster.
            config.client.silence_timeout = Duration::from_secs(50);
            let downloader = Downloader::new(config).unwrap();
            for _ in 0..8 {
                let body = get(&downloader, &origin.url("/"));
                let body = body.unwrap_or_else(|error| panic!("{kind:?}, {keeps_alive}: {error:?}"));
                assert_eq!(body.len(), 10);
            }
            // It is left alone then, behind one request and its hedged ones.
            let used = (server.connections(), server.requests());
            assert!(used.0 <= 3 && used.1 <= 3, "{kind:?}, {keeps_alive}: {used:?}");
        }
    });
}

#[test]
fn a_prefetch_that_a_new_quic_connection_does_not_answer_is_requested_over_tcp() {
    in_time("a mute server and a prefetch", || {
        let (server, origin, client) = mute(Mute::NoAnswer, false);
        let mut config = DownloaderConfig::new().client(client);
        config.max_retries = 0;
        config.client.silence_timeout = Duration::from_millis(300);
        let downloader = Downloader::new(config).unwrap();
        // It brings the advertisement.
        assert_eq!(get(&downloader, &origin.url("/")).unwrap().len(), 10);
        let (list, (sink, end)) = (List::default(), collect(0));
        list.put(Fetch::get(&origin.url("/low")).unwrap(), sink);
        let low = downloader.register(list, Priority::Low).unwrap();
        low.wake(Priority::Low);
        let end = end.recv().unwrap();
        assert!(matches!(end.outcome, Outcome::Done), "{:?}", end.outcome);
        assert!(server.requests() <= 1, "{}", server.requests());
    });
}

#[test]
fn a_request_that_is_hedged_where_nothing_listens_over_tcp_gets_a_new_quic_connection() {
    in_time("a mute connection without TCP", || {
        let server = Server::start(|request, reply| match request.connection {
            0 => reply.await_stop(),
            _ => say(&reply, "ok"),
        });
        let mut config = DownloaderConfig::new().client(over_http3(ClientConfig::new(), &[&server]));
        config.max_retries = 0;
        config.client.silence_timeout = Duration::from_secs(50);
        let downloader = Downloader::new(config).unwrap();
        assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"ok");
    });
}

#[test]
fn the_error_of_the_new_quic_connection_is_returned_if_nothing_listens_over_tcp() {
    in_time("two bad connections without TCP", || {
        let server = Server::start(|request, reply| match request.connection {
            0 => reply.await_stop(),
            // Ends the stream without a response.
            _ => drop(reply.finish()),
        });
        let mut config = DownloaderConfig::new().client(over_http3(ClientConfig::new(), &[&server]));
        config.max_retries = 0;
        // Longer than the delay of the first hedged request, shorter than that of the second one.
        config.client.silence_timeout = Duration::from_millis(1500);
        let downloader = Downloader::new(config).unwrap();
        let error = get(&downloader, &server.url("/")).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Refused, "{error:?}");
    });
}

#[test]
fn without_an_answer_over_quic_tcp_is_used_and_quic_left_alone() {
    in_time("fallback", || {
        let content = Content::pattern(LEN);
        let origin = Origin::start_tls(move |request| Answer::file(request, &content));
        let client = ClientConfig::new().extra_roots([origin.root_pem()]);
        let downloader = with_client(client.http3(Http3::Always(vec![origin.url("/")])));
        for _ in 0..3 {
            let fetch = Fetch::get(&origin.url("/a")).unwrap().range(ByteRange::new(0, 1000));
            assert_pattern(0, &read(&downloader, fetch).unwrap());
        }
        // One connection was begun over QUIC, and no second one. All others were over TCP.
        let dialled = downloader.stats().connections_dialled as usize;
        origin.wait_until("connection", |log| log.connections + 1 >= dialled);
    });
}

#[test]
fn a_server_of_another_protocol_is_requested_over_tcp() {
    in_time("ALPN", || {
        let options = Options { alpn: b"hq-interop".to_vec(), ..Options::default() };
        let server = Server::start_with(options, |_, reply| say(&reply, "h3"));
        let downloader = downloader(&[&server]);
        // Nothing listens there over TCP.
        let error = get(&downloader, &server.url("/")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    });
}

#[test]
fn an_untrusted_certificate_is_an_error() {
    in_time("certificate", || {
        let server = Server::start(|_, reply| say(&reply, "h3"));
        let client = ClientConfig::new().http3(Http3::Always(vec![server.url("/")]));
        let error = get(&with_client(client), &server.url("/")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert_eq!(server.requests(), 0);
    });
}

#[test]
fn a_proxy_is_never_bypassed() {
    in_time("proxy", || {
        let server = Server::start(|_, reply| say(&reply, "h3"));
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", proxy.local_addr().unwrap());
        drop(proxy);
        let client = over_http3(ClientConfig::new(), &[&server]).proxy(address);
        assert!(get(&with_client(client), &server.url("/")).is_err());
        assert_eq!(server.received(), 0);
    });
}

#[test]
fn only_https_origins_can_be_named() {
    for origin in ["http://example.com", "example.com", ""] {
        let client = ClientConfig::new().http3(Http3::Always(vec![origin.into()]));
        let error = Downloader::new(DownloaderConfig::new().client(client)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
}

#[test]
fn a_preconnected_connection_serves_the_first_request() {
    in_time("preconnect", || {
        let server = Server::start(|_, reply| say(&reply, "h3"));
        let downloader = downloader(&[&server]);
        downloader.preconnect(&server.url("/"), 1).unwrap();
        server.wait_until("connection", |server| server.connections() == 1);
        assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"h3");
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn requests_beyond_the_credit_wait_for_it() {
    in_time("credit", || {
        let mut options = Options::default();
        options.transport.max_concurrent_bidi_streams(2_u32.into());
        let served = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (now, peak) = (Arc::clone(&served), Arc::clone(&most));
        let server = Server::start_with(options, move |_, reply| {
            peak.fetch_max(now.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
            std::thread::sleep(Duration::from_millis(5));
            now.fetch_sub(1, Ordering::AcqRel);
            say(&reply, "ok");
        });
        let downloader = downloader(&[&server]);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (downloader, url) = (downloader.clone(), server.url("/"));
                std::thread::spawn(move || (0..5).for_each(|_| drop(get(&downloader, &url).unwrap())))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_shared(&server, &downloader, 40);
        assert!(most.load(Ordering::Acquire) <= 2);
    });
}
