//! HTTP/3 over networks that change, lose packets or go silent, and sessions that are resumed.
#![cfg(feature = "http3")]

#[path = "support/h3/mod.rs"]
mod h3;

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use h3::{Gateway, Options, Relay, Reply, Server, data, frame, head};
use support::content::assert_pattern;
use support::{Answer, Content, Origin, PATIENCE, in_time};
use windway::config::{EarlyData, Http3};
use windway::{ByteRange, ClientConfig, Downloader, DownloaderConfig, Fetch, Priority};

const LEN: u64 = 2_000_000;

/// A downloader whose requests to `urls` go over HTTP/3.
fn downloader(server: &Server, url: &str) -> Downloader {
    let client = ClientConfig::new().extra_roots([server.root_pem()]);
    let mut config = DownloaderConfig::new().client(client.http3(Http3::Always(vec![url.into()])));
    // Silence ends an attempt late: what is tested here has to be faster.
    config.client.silence_timeout = Duration::from_secs(30);
    Downloader::new(config).unwrap()
}

fn read(downloader: &Downloader, fetch: Fetch) -> Vec<u8> {
    let mut response = downloader.register((), Priority::High).unwrap().execute(fetch).unwrap();
    let mut body = Vec::new();
    response.read_to_end(&mut body).unwrap();
    body
}

fn get(downloader: &Downloader, url: &str) -> Vec<u8> {
    read(downloader, Fetch::get(url).unwrap())
}

/// As [`get`], but never hedged, however busy the machine is.
fn get_held(downloader: &Downloader, url: &str) -> Vec<u8> {
    read(downloader, Fetch::get(url).unwrap().held(PATIENCE))
}

fn say(reply: &Reply, text: &str) {
    let len = text.len().to_string();
    // The client may be gone.
    let _ = reply.send(head(&[(":status", "200"), ("content-length", &len)]));
    let _ = reply.send(data(text.as_bytes()));
    let _ = reply.finish();
}

/// A gateway to a file, and a relay before it.
fn serve() -> (Origin, Gateway, Relay) {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| Answer::file(request, &content).rate(4_000_000));
    let gateway = Gateway::start(origin.address());
    let relay = Relay::start(gateway.0.address());
    (origin, gateway, relay)
}

#[test]
fn a_body_survives_a_change_of_the_clients_address() {
    in_time("migration", || {
        let (_origin, gateway, relay) = serve();
        let downloader = downloader(&gateway.0, &relay.url("/"));
        // Held, so that no hedged request opens another connection.
        let fetch = Fetch::get(&relay.url("/a.flac")).unwrap().held(PATIENCE);
        let mut response = downloader.register((), Priority::High).unwrap().execute(fetch).unwrap();
        let (mut buf, mut at) = (vec![0; 10_000], 0);
        while at < LEN {
            if at == 200_000 || at == 600_000 {
                relay.change_address();
            }
            response.read_exact(&mut buf).unwrap();
            assert_pattern(at, &buf);
            at += buf.len() as u64;
        }
        // One more for each change that the connection did not survive.
        assert_eq!(gateway.0.connections(), 1);
        assert!(gateway.0.addresses().len() > 1);
    });
}

#[test]
fn a_server_that_can_not_migrate_gets_a_new_connection() {
    in_time("no migration", || {
        let content = Content::pattern(LEN);
        let origin = Origin::start(move |request| Answer::file(request, &content).rate(4_000_000));
        let options = Options { migration: false, ..Options::default() };
        let gateway = Gateway::start_with(options, origin.address());
        let relay = Relay::start(gateway.0.address());
        let downloader = downloader(&gateway.0, &relay.url("/"));
        let mut stream = downloader.open(&relay.url("/a.flac")).unwrap();
        let (mut buf, mut at) = (vec![0; 10_000], 0);
        while at < LEN {
            if at == 200_000 {
                relay.change_address();
            }
            stream.read_exact(&mut buf).unwrap();
            assert_pattern(at, &buf);
            at += buf.len() as u64;
        }
        // A request that was hedged when the path was found dead may have opened one more.
        assert!((2..=3).contains(&gateway.0.connections()), "{}", gateway.0.connections());
    });
}

#[test]
fn a_body_goes_on_although_its_server_has_forgotten_the_connection() {
    in_time("a server that began again", || {
        let content = Content::pattern(LEN);
        let origin = Origin::start(move |request| Answer::file(request, &content).rate(4_000_000));
        let mut options = Options::default();
        options.transport.max_idle_timeout(Some(quinn_proto::VarInt::from_u32(600_000).into()));
        let gateway = Gateway::start_with(options, origin.address());
        let relay = Relay::start(gateway.0.address());
        let client = ClientConfig::new().extra_roots([gateway.0.root_pem()]);
        let client = client.http3(Http3::Always(vec![relay.url("/")])).max_idle_age(10 * PATIENCE);
        let downloader = Downloader::new(DownloaderConfig::new().client(client)).unwrap();
        // Held, so that only the path shows it: no hedged request, and no other limit that ends in time.
        let fetch = Fetch::get(&relay.url("/a.flac")).unwrap().held(PATIENCE);
        let mut response = downloader.register((), Priority::High).unwrap().execute(fetch).unwrap();
        let (mut buf, mut at) = (vec![0; 10_000], 0);
        while at < LEN {
            if at == 200_000 {
                relay.forget_connections();
            }
            response.read_exact(&mut buf).unwrap();
            assert_pattern(at, &buf);
            at += buf.len() as u64;
        }
        assert_eq!(gateway.0.connections(), 2);
    });
}

#[test]
fn requests_that_a_dead_path_ends_share_a_new_connection() {
    const REQUESTS: usize = 4;
    in_time("dead path", || {
        let options = Options { migration: false, ..Options::default() };
        let server = Server::start_with(options, |request, reply| {
            if request.path() == "/wait" && request.connection == 0 {
                reply.await_stop();
            } else {
                say(&reply, "ok");
            }
        });
        // The others find the connection in its handshake.
        let relay = Relay::start_with_rtt(server.address(), Duration::from_millis(50));
        let downloader = downloader(&server, &relay.url("/"));
        // From now on the connection is reused.
        assert_eq!(get(&downloader, &relay.url("/")), b"ok");
        let readers = [(); REQUESTS].map(|()| {
            let (url, own) = (relay.url("/wait"), downloader.clone());
            std::thread::spawn(move || get_held(&own, &url))
        });
        server.wait_until("requests", |server| server.requests() == 1 + REQUESTS);
        relay.change_address();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), b"ok");
        }
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn a_request_that_fails_later_shares_the_new_connection_of_an_earlier_one() {
    in_time("failures one after the other", || {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let server = Server::start(move |request, reply| {
            if request.path() == "/wait" && request.connection == 0 {
                released.lock().unwrap().recv().unwrap();
                let _ = reply.reset(0x102);
            } else {
                say(&reply, "ok");
            }
        });
        let downloader = downloader(&server, &server.url("/"));
        assert_eq!(get(&downloader, &server.url("/")), b"ok");
        let (results, result) = mpsc::channel();
        for _ in 0..2 {
            let (url, own, results) = (server.url("/wait"), downloader.clone(), results.clone());
            std::thread::spawn(move || results.send(get_held(&own, &url)));
        }
        server.wait_until("requests", |server| server.requests() == 3);
        for _ in 0..2 {
            release.send(()).unwrap();
            assert_eq!(result.recv().unwrap(), b"ok");
        }
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn hedged_requests_share_a_new_connection() {
    in_time("hedged requests", || {
        let server = Server::start(|request, reply| {
            if request.path() == "/wait" && request.connection == 0 {
                reply.await_stop();
            } else {
                say(&reply, "ok");
            }
        });
        let downloader = downloader(&server, &server.url("/"));
        assert_eq!(get(&downloader, &server.url("/")), b"ok");
        let readers = [(); 3].map(|()| {
            let (url, own) = (server.url("/wait"), downloader.clone());
            let before = server.requests();
            let reader = std::thread::spawn(move || get(&own, &url));
            server.wait_until("request", |server| server.requests() > before);
            // So long that the handshake of one hedged request is complete when the next one begins.
            (0..40).for_each(|_| assert_eq!(get(&downloader, &server.url("/")), b"ok"));
            reader
        });
        for reader in readers {
            assert_eq!(reader.join().unwrap(), b"ok");
        }
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn a_silent_server_is_no_dead_path() {
    in_time("silent server", || {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let server = Server::start(move |_, reply| {
            released.lock().unwrap().recv().unwrap();
            say(&reply, "late");
        });
        let downloader = downloader(&server, &server.url("/"));
        // Held, since the server is silent on purpose: any other request is hedged after a second.
        let fetch = Fetch::get(&server.url("/")).unwrap().held(PATIENCE);
        let own = downloader.clone();
        let reader = std::thread::spawn(move || read(&own, fetch));
        // One for each 500 ms without a packet: the path has been tested, and has passed.
        server.wait_until("PINGs", |server| server.pings() >= 2);
        release.send(()).unwrap();
        assert_eq!(reader.join().unwrap(), b"late");
        assert_eq!((server.connections(), server.requests()), (1, 1));
    });
}

#[test]
fn a_silent_path_that_returns_keeps_its_connection() {
    in_time("silent path", || {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let server = Server::start(move |_, reply| {
            // The client may be gone.
            let _ = reply.send(head(&[(":status", "200"), ("content-length", "10")]));
            let _ = reply.send(data(b"first"));
            released.lock().unwrap().recv().unwrap();
            let _ = reply.send(data(b"later"));
            let _ = reply.finish();
        });
        let relay = Relay::start(server.address());
        let downloader = downloader(&server, &relay.url("/"));
        let mut response = downloader
            .register((), Priority::High)
            .unwrap()
            .execute(Fetch::get(&relay.url("/")).unwrap())
            .unwrap();
        let mut body = vec![0; 5];
        response.read_exact(&mut body).unwrap();
        // While the reader waits: acknowledgements may come first, and then the PING after 500 ms.
        relay.set_silent(true);
        let reader = std::thread::spawn(move || {
            response.read_to_end(&mut body).unwrap();
            body
        });
        let before = server.pings();
        relay.await_unheard(1);
        relay.set_silent(false);
        // Its repetition, which shows that the path is there.
        server.wait_until("PING", |server| server.pings() > before);
        release.send(()).unwrap();
        assert_eq!(reader.join().unwrap(), b"firstlater");
        assert_eq!((server.connections(), server.requests(), server.lost()), (1, 1, 0));
    });
}

#[test]
fn a_connection_is_kept_alive_while_a_stream_needs_it_and_then_ends() {
    in_time("keep-alive", || {
        let content = Content::pattern(64 << 20);
        let origin = Origin::start(move |request| Answer::file(request, &content));
        let gateway = Gateway::start(origin.address());
        let client = ClientConfig::new().extra_roots([gateway.0.root_pem()]);
        let mut config = DownloaderConfig::new().client(client.http3(Http3::Always(vec![gateway.url("/")])));
        config.client.max_idle_age = Duration::from_millis(1500);
        let downloader = Downloader::new(config).unwrap();
        let mut stream = downloader.open(&gateway.url("/a.flac")).unwrap();
        let mut buf = vec![0; 10_000];
        stream.read_exact(&mut buf).unwrap();
        assert_pattern(0, &buf);
        // One for each 500 ms. Six is more than the tests of the path's MTU need, the other six last twice the idle limit.
        let before = gateway.0.pings();
        gateway.0.wait_until("PINGs", |server| server.pings() >= before + 12);
        assert_eq!((gateway.0.connections(), gateway.0.lost()), (1, 0));
        drop(stream);
        gateway.0.wait_until("end of the idle connection", |server| server.lost() == 1);
    });
}

#[test]
fn a_connection_is_kept_alive_while_a_response_is_not_read() {
    in_time("a paused reader", || {
        let server = Server::start(|request, reply| {
            if request.path() == "/held" {
                let _ = reply.send([head(&[(":status", "200")]), data(b"first")].concat());
                reply.await_stop();
            } else {
                say(&reply, "ok");
            }
        });
        let client = ClientConfig::new().extra_roots([server.root_pem()]);
        let mut config = DownloaderConfig::new().client(client.http3(Http3::Always(vec![server.url("/")])));
        config.client.max_idle_age = Duration::from_millis(1500);
        let downloader = Downloader::new(config).unwrap();
        let held = hold(&downloader, &server.url("/held"));
        // As above.
        let before = server.pings();
        server.wait_until("PINGs", |server| server.pings() >= before + 12);
        assert_eq!((server.connections(), server.lost()), (1, 0));
        drop(held);
        server.wait_until("end of the idle connection", |server| server.lost() == 1);
    });
}

#[test]
fn a_connection_is_kept_alive_within_the_idle_limit_of_the_server() {
    in_time("a server with a short idle limit", || {
        let mut options = Options::default();
        options.transport.max_idle_timeout(Some(quinn_proto::VarInt::from_u32(1500).into()));
        let server = Server::start_with(options, |_, reply| {
            let _ = reply.send([head(&[(":status", "200")]), data(b"first")].concat());
            reply.await_stop();
        });
        let client = ClientConfig::new().extra_roots([server.root_pem()]);
        let config = DownloaderConfig::new().client(client.http3(Http3::Always(vec![server.url("/")])));
        let downloader = Downloader::new(config).unwrap();
        let held = hold(&downloader, &server.url("/held"));
        // Six is more than the tests of the path's MTU need.
        let before = server.pings();
        server.wait_until("PINGs", |server| server.pings() >= before + 12 || server.lost() > 0);
        assert_eq!((server.connections(), server.lost()), (1, 0));
        drop(held);
    });
}

#[test]
fn a_file_is_right_over_a_path_that_loses_packets() {
    in_time("loss", || {
        let (_origin, gateway, relay) = serve();
        let downloader = downloader(&gateway.0, &relay.url("/"));
        let mut stream = downloader.open(&relay.url("/a.flac")).unwrap();
        relay.set_loss(30);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all.len() as u64, LEN);
        assert_pattern(0, &all);
        // The connection stays, although the client learns that the network has changed.
        downloader.network_changed();
        let fetch = Fetch::get(&relay.url("/a.flac")).unwrap().range(ByteRange::new(5, 5000));
        assert_pattern(5, &read(&downloader, fetch));
        assert_eq!(gateway.0.connections(), 1);
    });
}

/// Ends the connection of `downloader`, so that the next request needs a new one.
fn lose_connection(url: &str, downloader: &Downloader) {
    let _ = downloader.register((), Priority::High).unwrap().execute(Fetch::get(url).unwrap());
}

/// A server that closes the connection when asked for `/close`.
fn closing(early_data: bool, answer: impl Fn(&h3::Request, &Reply) + Send + Sync + 'static) -> Server {
    let options = Options { early_data, ..Options::default() };
    let requests = AtomicUsize::new(0);
    Server::start_with(options, move |request, reply| {
        if request.path() == "/close" && requests.fetch_add(1, Ordering::AcqRel) == 0 {
            let _ = reply.close_connection(0x100);
        } else {
            answer(&request, &reply);
        }
    })
}

#[test]
fn a_plain_request_on_a_resumed_connection_is_sent_before_the_handshake() {
    in_time("0-RTT", || {
        let server = closing(true, |_, reply| say(reply, "ok"));
        // On loopback the handshake may be complete before the request is made.
        let relay = Relay::start_with_rtt(server.address(), Duration::from_millis(50));
        let downloader = downloader(&server, &relay.url("/"));
        assert_eq!(get(&downloader, &relay.url("/")), b"ok");
        assert_eq!(server.early_requests(), 0);
        // Its own repetition is the first early request.
        lose_connection(&relay.url("/close"), &downloader);
        assert_eq!(get(&downloader, &relay.url("/")), b"ok");
        assert_eq!((server.connections(), server.early_requests()), (2, 1));
    });
}

#[test]
fn a_request_before_the_handshake_is_sent_over_tcp_too_where_no_packet_comes_back() {
    in_time("0-RTT without an answer", || {
        let server = Server::start(|_, reply| say(&reply, "h3"));
        // Nothing answers at its port over QUIC.
        let origin = Origin::start_tls(|_| Answer::whole(&Content::pattern(10)));
        let client = ClientConfig::new().extra_roots([origin.root_pem(), server.root_pem()]);
        let names = vec![server.url("/"), origin.url("/")];
        let mut config = DownloaderConfig::new().client(client.http3(Http3::Always(names)));
        config.max_retries = 0;
        let downloader = Downloader::new(config).unwrap();
        // This brings a ticket, which belongs to the name, not to the port.
        assert_eq!(get_held(&downloader, &server.url("/")), b"h3");
        // More than one if TCP was tried beside it, on a busy machine.
        let before = downloader.stats().connections_dialled;
        assert_eq!(get_held(&downloader, &origin.url("/")).len(), 10);
        // No repetition: one connection was begun over QUIC, and one over TCP.
        let stats = downloader.stats();
        assert_eq!((stats.requests, stats.connections_dialled - before), (2, 2));
    });
}

#[test]
fn a_server_that_asks_for_another_handshake_packet_is_asked_once() {
    in_time("Retry and NEW_TOKEN", || {
        let options = Options { retries: true, tokens: 2, ..Options::default() };
        let server = Server::start_with(options, |request, reply| {
            if request.path() == "/close" && request.connection == 0 {
                let _ = reply.close_connection(0x100);
            } else {
                say(&reply, "ok");
            }
        });
        let relay = Relay::start_with_rtt(server.address(), Duration::from_millis(50));
        let downloader = downloader(&server, &relay.url("/"));
        assert_eq!(get_held(&downloader, &relay.url("/")), b"ok");
        assert!(server.retries() > 0);
        // The next connection has a token (RFC 9000, section 8.1.3).
        assert_eq!(get_held(&downloader, &relay.url("/close")), b"ok");
        let (connections, retries) = (server.connections(), server.retries());
        assert!(connections >= 2 && retries < connections, "{connections}, {retries}");
    });
}

#[test]
fn a_request_with_a_field_of_the_user_waits_for_the_handshake() {
    in_time("no 0-RTT", || {
        let server = closing(true, |_, reply| say(reply, "ok"));
        let downloader = downloader(&server, &server.url("/"));
        let fetch =
            |path: &str, name: &str| Fetch::get(&server.url(path)).unwrap().header(name, "secret").unwrap();
        for name in ["Authorization", "Cookie", "X-Own"] {
            assert_eq!(read(&downloader, fetch("/", name)), b"ok");
        }
        let closed = downloader.register((), Priority::High).unwrap().execute(fetch("/close", "Cookie"));
        drop(closed);
        assert_eq!(read(&downloader, fetch("/", "Cookie")), b"ok");
        assert_eq!((server.connections(), server.early_requests()), (2, 0));
    });
}

#[test]
fn fields_of_the_user_are_sent_before_the_handshake_only_as_far_as_allowed() {
    use EarlyData::{Credentials, Headers, Plain};
    in_time("0-RTT with fields", || {
        for (allowed, name, is_early) in [
            (Plain, "X-Own", false),
            (Plain, "Cookie", false),
            (Headers, "X-Own", true),
            (Headers, "Authorization", false),
            (Headers, "Cookie", false),
            (Credentials, "X-Own", true),
            (Credentials, "Authorization", true),
        ] {
            let server = closing(true, |_, reply| say(reply, "ok"));
            let relay = Relay::start_with_rtt(server.address(), Duration::from_millis(50));
            let client = ClientConfig::new().extra_roots([server.root_pem()]).early_data(allowed);
            let client = client.http3(Http3::Always(vec![relay.url("/")]));
            let downloader = Downloader::new(DownloaderConfig::new().client(client)).unwrap();
            assert_eq!(get(&downloader, &relay.url("/")), b"ok");
            // The connection ends, and the request is sent again over a new one.
            let fetch = Fetch::get(&relay.url("/close")).unwrap().header(name, "secret").unwrap();
            assert_eq!(read(&downloader, fetch), b"ok", "{allowed:?} {name}");
            let early = server.early_requests();
            assert_eq!((server.connections(), early), (2, usize::from(is_early)), "{allowed:?} {name}");
        }
    });
}

#[test]
fn an_early_request_that_is_refused_is_sent_again_after_the_handshake() {
    in_time("425", || {
        let is_refused = Arc::new(AtomicBool::new(false));
        let refused = Arc::clone(&is_refused);
        let server = closing(true, move |request, reply| {
            if request.path() == "/early" && !refused.swap(true, Ordering::AcqRel) {
                let _ = reply.send(head(&[(":status", "425"), ("content-length", "0")]));
                let _ = reply.finish();
            } else {
                say(reply, "ok");
            }
        });
        let downloader = downloader(&server, &server.url("/"));
        assert_eq!(get(&downloader, &server.url("/")), b"ok");
        // Without an early repetition of its own: it has a field of the user.
        let fetch = Fetch::get(&server.url("/close")).unwrap().header("X-Own", "1").unwrap();
        drop(downloader.register((), Priority::High).unwrap().execute(fetch));
        // That has opened the second connection already, so a third one is needed for an early request.
        let before = server.connections();
        assert!(before >= 2);
        assert_eq!(get(&downloader, &server.url("/early")), b"ok");
        assert!(is_refused.load(Ordering::Acquire));
    });
}

#[test]
fn requests_on_a_rejected_resumption_are_sent_again_on_the_same_connection() {
    in_time("rejection", || {
        // A ticket belongs to a name, not to a port: that of the first server is offered to the second one, whose keys are others.
        let first = Server::start(|_, reply| say(&reply, "first"));
        let second = Server::start(|_, reply| say(&reply, "second"));
        // On loopback the handshake may be complete before the request is made.
        let relay = Relay::start_with_rtt(second.address(), Duration::from_millis(50));
        let client = ClientConfig::new().extra_roots([first.root_pem(), second.root_pem()]);
        let client = client.http3(Http3::Always(vec![first.url("/"), relay.url("/")]));
        let downloader = Downloader::new(DownloaderConfig::new().client(client)).unwrap();
        assert_eq!(get(&downloader, &first.url("/")), b"first");
        assert_eq!(get(&downloader, &relay.url("/")), b"second");
        assert_eq!((second.connections(), second.requests(), second.early_requests()), (1, 1, 0));
    });
}

#[test]
fn a_connection_that_is_going_away_takes_no_new_requests() {
    in_time("GOAWAY", || {
        let server = Server::start(|request, reply| {
            if request.path() == "/bye" {
                // RFC 9114, section 5.2: this request is processed, later ones are not.
                let id = 4_u8;
                let mut goaway = Vec::new();
                frame::put_frame(&mut goaway, frame::GOAWAY, &[id]);
                let _ = reply.control(goaway);
            }
            say(&reply, "ok");
        });
        let downloader = downloader(&server, &server.url("/"));
        assert_eq!(get(&downloader, &server.url("/bye")), b"ok");
        // The GOAWAY comes on another stream, in the same packet or one later: until then a request may use the connection.
        while server.connections() < 2 {
            assert_eq!(get(&downloader, &server.url("/")), b"ok");
        }
    });
}

#[test]
fn a_request_that_a_server_going_away_has_not_processed_is_repeated_and_an_earlier_one_ends() {
    in_time("GOAWAY between two requests", || {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let server = Server::start(move |request, reply| match (request.path(), request.connection) {
            ("/held", _) => {
                let _ = reply
                    .send([head(&[(":status", "200"), ("content-length", "9")]), data(b"first")].concat());
                // Fails once the test has failed.
                let _ = released.lock().unwrap().recv();
                let _ = reply.send_last(data(b"last"));
            }
            (_, 0) => {
                // Its own stream is the second one of the client (RFC 9000, section 2.1).
                let mut goaway = Vec::new();
                frame::put_frame(&mut goaway, frame::GOAWAY, &[4]);
                let _ = reply.control(goaway);
                reply.await_stop();
            }
            _ => say(&reply, "ok"),
        });
        let client = h3::over_http3(ClientConfig::new(), &[&server]);
        let mut config = DownloaderConfig::new().client(client);
        // RFC 9114, section 5.2: it was not processed, so this is no failure.
        config.max_retries = 0;
        let downloader = Downloader::new(config).unwrap();
        let mut held = hold(&downloader, &server.url("/held"));
        assert_eq!(get_held(&downloader, &server.url("/")), b"ok");
        release.send(()).unwrap();
        let mut rest = Vec::new();
        held.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"last");
        assert_eq!((server.connections(), server.requests()), (2, 3));
    });
}

/// The open response to `/held`, after its first bytes.
fn hold(downloader: &Downloader, url: &str) -> windway::Response {
    let mut held =
        downloader.register((), Priority::High).unwrap().execute(Fetch::get(url).unwrap()).unwrap();
    held.read_exact(&mut [0; 5]).unwrap();
    held
}

#[test]
fn a_response_on_a_connection_that_goes_away_does_not_hold_up_a_stop() {
    in_time("stop after GOAWAY", || {
        let mut options = Options::default();
        // It never becomes idle.
        options.transport.keep_alive_interval(Some(Duration::from_secs(1)));
        let server = Server::start_with(options, |request, reply| match request.path() {
            "/held" => {
                let _ = reply.send([head(&[(":status", "200")]), data(b"first")].concat());
                reply.await_stop();
            }
            "/bye" => {
                let mut goaway = Vec::new();
                frame::put_frame(&mut goaway, frame::GOAWAY, &[8]);
                let _ = reply.control(goaway);
                say(&reply, "ok");
            }
            _ => say(&reply, "ok"),
        });
        let downloader = downloader(&server, &server.url("/"));
        let held = hold(&downloader, &server.url("/held"));
        assert_eq!(get(&downloader, &server.url("/bye")), b"ok");
        while server.connections() < 2 {
            assert_eq!(get(&downloader, &server.url("/")), b"ok");
        }
        // The first connection still carries the open response.
        assert_eq!(server.lost(), 0);
        downloader.stop();
        drop(held);
    });
}

#[test]
fn what_has_arrived_is_read_although_the_connection_is_over() {
    const BODY: usize = 300_000;
    in_time("an end before the last read", || {
        let server = closing(true, |request, reply| {
            if request.path() == "/held" {
                let _ = reply.send([head(&[(":status", "200")]), data(b"first")].concat());
                let _ = reply.send(data(&[7; BODY])).and_then(|()| reply.finish());
            } else {
                say(reply, "ok");
            }
        });
        let downloader = downloader(&server, &server.url("/"));
        let mut held = hold(&downloader, &server.url("/held"));
        server.wait_until("delivery", |server| server.delivered() == 1);
        lose_connection(&server.url("/close"), &downloader);
        let mut rest = Vec::new();
        held.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [7; BODY]);
        // The second one to `/close`, over the new connection, is its repetition.
        assert_eq!((server.connections(), server.requests()), (2, 3));
    });
}

#[test]
fn a_preconnect_whose_first_packet_is_lost_is_repeated() {
    in_time("lost preconnect", || {
        let server = Server::start(|_, reply| say(&reply, "ok"));
        let relay = Relay::start(server.address());
        let downloader = downloader(&server, &relay.url("/"));
        relay.set_silent(true);
        downloader.preconnect(&relay.url("/"), 1).unwrap();
        relay.await_unheard(2);
        relay.set_silent(false);
        server.wait_until("connection", |server| server.connections() == 1);
        assert_eq!(get(&downloader, &relay.url("/")), b"ok");
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn a_connection_that_goes_away_ends_though_its_streams_do_not() {
    in_time("GOAWAY without the end of a stream", || {
        let mut options = Options::default();
        // It never becomes idle.
        options.transport.keep_alive_interval(Some(Duration::from_secs(1)));
        let server = Server::start_with(options, |_, reply| {
            let mut goaway = Vec::new();
            frame::put_frame(&mut goaway, frame::GOAWAY, &[4]);
            let _ = reply.control(goaway);
            let _ = reply.send([head(&[(":status", "200"), ("content-length", "2")]), data(b"ok")].concat());
            reply.await_stop();
        });
        let downloader = downloader(&server, &server.url("/"));
        assert_eq!(get(&downloader, &server.url("/")), b"ok");
        server.wait_until("end of the connection", |server| server.lost() == 1);
    });
}
