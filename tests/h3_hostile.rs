//! Servers that break the rules of QUIC, HTTP/3 or QPACK. Each gets a typed error, in time, and costs other requests nothing.
#![cfg(feature = "http3")]

#[path = "support/h3/mod.rs"]
mod h3;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use h3::{Options, Reply, Request, Server, assert_shared, data, frame, head, over_http3};
use support::content::assert_pattern;
use support::{Content, in_time};
use windway::config::Http3;
use windway::{ByteRange, ClientConfig, Downloader, DownloaderConfig, Error, ErrorKind, Fetch, Priority};

fn downloader(servers: &[&Server]) -> Downloader {
    let mut config = DownloaderConfig::new().client(over_http3(ClientConfig::new(), servers));
    config.max_retries = 0;
    Downloader::new(config).unwrap()
}

fn get(downloader: &Downloader, url: &str) -> Result<Vec<u8>, Error> {
    let mut response = downloader.register((), Priority::High)?.execute(Fetch::get(url)?)?;
    let mut body = Vec::new();
    response.read_to_end(&mut body)?;
    Ok(body)
}

fn good(reply: &Reply) {
    // The client may be gone.
    let _ = reply.send([head(&[(":status", "200"), ("content-length", "2")]), data(b"ok")].concat());
    let _ = reply.finish();
}

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_frame(&mut out, kind, payload);
    out
}

const OK: &[(&str, &str)] = &[(":status", "200")];

/// How an answer goes on after its bytes.
#[derive(Clone, Copy)]
enum Then {
    Finish,
    Reset,
    Close,
    Forget,
}

/// Answers that break a rule, and the error of each.
fn answers() -> Vec<(&'static str, Vec<u8>, Then, ErrorKind)> {
    use Then::{Close, Finish, Forget, Reset};
    let broken = ErrorKind::Disconnected;
    let wrong = ErrorKind::Protocol;
    let mut endless = Vec::new();
    frame::put_integer(&mut endless, frame::HEADERS);
    frame::put_integer(&mut endless, 1 << 40);
    vec![
        ("a body before the head", data(b"ok"), Finish, wrong),
        ("no head", Vec::new(), Finish, broken),
        ("only an interim head", head(&[(":status", "103")]), Finish, broken),
        ("a head without a status", head(&[("etag", "1")]), Finish, wrong),
        ("a name in upper case", head(&[(":status", "200"), ("Etag", "1")]), Finish, wrong),
        ("a field of HTTP/1", head(&[(":status", "200"), ("connection", "close")]), Finish, wrong),
        ("a head in a head", [head(OK), head(OK)].concat(), Finish, wrong),
        ("a frame of the control stream", frame(frame::SETTINGS, &[]), Finish, wrong),
        ("a push", frame(0x5, &[0, 0, 0]), Finish, wrong),
        ("a frame of HTTP/2", frame(0x8, &[0]), Finish, wrong),
        ("a head of a terabyte", endless, Finish, wrong),
        ("a reference to the dynamic table", frame(frame::HEADERS, &[0, 0, 0x80]), Finish, wrong),
        ("an insert count", frame(frame::HEADERS, &[5, 0, 0xd9]), Finish, wrong),
        ("an index beyond the table", frame(frame::HEADERS, &[0, 0, 0xff, 0x7f]), Finish, wrong),
        ("a bomb", frame(frame::HEADERS, &[&[0, 0][..], &[0xd9; 60_000]].concat()), Finish, wrong),
        ("a cut frame", vec![1, 50, 0, 0], Finish, broken),
        (
            "a cut body",
            [head(&[(":status", "200"), ("content-length", "9")]), data(b"ok")].concat(),
            Finish,
            broken,
        ),
        (
            "a long body",
            [head(&[(":status", "200"), ("content-length", "1")]), data(b"ok")].concat(),
            Finish,
            wrong,
        ),
        ("a bare reset", Vec::new(), Reset, broken),
        ("a closed connection", Vec::new(), Close, broken),
        ("a stateless reset", Vec::new(), Forget, broken),
    ]
}

#[test]
fn the_error_of_a_refused_certificate_says_why() {
    in_time("a certificate", || {
        let server = Server::start(|_, reply| good(&reply));
        let client = ClientConfig::new().http3(Http3::Always(vec![server.url("/")]));
        let mut config = DownloaderConfig::new().client(client);
        config.max_retries = 0;
        let error = get(&Downloader::new(config).unwrap(), &server.url("/a")).unwrap_err();
        // Nothing listens over TCP.
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    });
}

#[test]
fn each_broken_answer_is_an_error_and_the_next_request_succeeds() {
    in_time("answers", || {
        let server = Server::start(|request: Request, reply| {
            let Ok(index) = request.path()[1..].parse::<usize>() else { return good(&reply) };
            let (_, bytes, then, _) = answers().swap_remove(index);
            let sent = reply.send(bytes).and_then(|()| match then {
                Then::Finish => reply.finish(),
                Then::Reset => reply.reset(0x102),
                Then::Close => reply.close_connection(0x102),
                Then::Forget => reply.forget_connection(),
            });
            // The client may have closed the connection by now.
            let _ = sent;
        });
        let downloader = downloader(&[&server]);
        for (index, (name, _, then, kind)) in answers().into_iter().enumerate() {
            let error = get(&downloader, &server.url(&format!("/{index}"))).expect_err(name);
            // The request may be repeated on a new connection, with the same result. If the repetition ends that before its
            // handshake is complete, TCP is tried, where nothing listens.
            let ends_early = matches!(then, Then::Close | Then::Forget) && error.kind() == ErrorKind::Refused;
            assert!(error.kind() == kind || ends_early, "{name}: {error:?}");
            assert_eq!(get(&downloader, &server.url("/good")).expect(name), b"ok");
        }
    });
}

#[test]
fn other_requests_of_a_connection_go_on_after_a_malformed_response() {
    in_time("malformed", || {
        let server = Server::start(|request: Request, reply| match request.path() {
            "/malformed" => {
                let _ = reply.send(head(&[("x", "y")])).and_then(|()| reply.finish());
            }
            _ => good(&reply),
        });
        let downloader = downloader(&[&server]);
        for _ in 0..10 {
            assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"ok");
            let error = get(&downloader, &server.url("/malformed")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
        // RFC 9114, section 4.1.2: a malformed response is an error of its stream. A request that fails with such an error on a
        // connection that has served others is repeated once, as over TCP: on a new connection.
        assert!(server.connections() <= 11, "{}", server.connections());
    });
}

#[test]
fn a_violation_that_ends_the_connection_costs_other_bodies_no_byte() {
    const LEN: u64 = 20_000;
    in_time("violation beside a body", || {
        let server = Server::start(|request: Request, reply| {
            if request.path() == "/bad" {
                // RFC 9114, section 4.1: an error of the connection.
                let _ = reply.send(data(b"a body before the head"));
                return reply.await_stop();
            }
            let range = request.field("range").unwrap_or("bytes=0-").trim_start_matches("bytes=");
            let first: u64 = range.split_once('-').unwrap().0.parse().unwrap();
            // On the first connection half of the file arrives.
            let end = if request.connection == 0 { LEN / 2 } else { LEN };
            let (range, mut bytes) = (format!("bytes {first}-{}/{LEN}", LEN - 1), Vec::new());
            Content::pattern(LEN).append(&mut bytes, first..end);
            let fields = [(":status", "206"), ("content-range", &range), ("etag", "\"1\"")];
            let _ = reply.send([head(&fields), data(&bytes)].concat());
            if request.connection == 0 { reply.await_stop() } else { drop(reply.finish()) }
        });
        let config = DownloaderConfig::new().client(over_http3(ClientConfig::new(), &[&server]));
        let downloader = Downloader::new(config).unwrap();
        let fetch = Fetch::get(&server.url("/file")).unwrap().range(ByteRange::new(0, LEN));
        let mut body = downloader.register((), Priority::High).unwrap().execute(fetch).unwrap();
        let mut bytes = vec![0; LEN as usize / 2];
        body.read_exact(&mut bytes).unwrap();
        assert_eq!(get(&downloader, &server.url("/bad")).unwrap_err().kind(), ErrorKind::Protocol);
        body.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, LEN);
        assert_pattern(0, &bytes);
    });
}

/// What a server does in the middle of a body. All but the last two end it.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Reset(u32),
    Close(u32),
    Forget,
    EndControl,
    GoAway,
    StopSending(u32),
}

#[test]
fn a_body_goes_on_whatever_the_server_does_in_its_middle() {
    const LEN: u64 = 100_000;
    in_time("faults in mid-body", || {
        use Fault::{Close, EndControl, Forget, GoAway, Reset, StopSending};
        // RFC 9114, section 8.1: NO_ERROR, INTERNAL_ERROR, REQUEST_REJECTED, REQUEST_CANCELLED, VERSION_FALLBACK; and no code.
        let codes = [0x100, 0x102, 0x10b, 0x10c, 0x110, 0x3fff_ffff];
        let ends = codes.map(Reset).into_iter().chain(codes.map(Close));
        for fault in ends.chain([Forget, EndControl, GoAway, StopSending(0x100)]) {
            let was_faulty = AtomicBool::new(false);
            let server = Server::start(move |request: Request, reply| {
                let range = request.field("range").unwrap_or("bytes=0-").trim_start_matches("bytes=");
                let first: u64 = range.split_once('-').unwrap().0.parse().unwrap();
                let range = format!("bytes {first}-{}/{LEN}", LEN - 1);
                let bytes = |part| {
                    let mut bytes = Vec::new();
                    Content::pattern(LEN).append(&mut bytes, part);
                    data(&bytes)
                };
                let half = first + (LEN - first) / 2;
                let fields = [(":status", "206"), ("content-range", &range), ("etag", "\"1\"")];
                let mut goaway = Vec::new();
                frame::put_frame(&mut goaway, frame::GOAWAY, &[4]);
                // The client may be gone.
                let _ = reply.send([head(&fields), bytes(first..half)].concat());
                let _ = match fault {
                    _ if was_faulty.swap(true, Ordering::AcqRel) => Ok(()),
                    Reset(code) => reply.reset(code),
                    Close(code) => reply.close_connection(code),
                    Forget => reply.forget_connection(),
                    EndControl => reply.end_control(),
                    GoAway => reply.control(goaway),
                    StopSending(code) => reply.stop_sending(code),
                };
                let _ = reply.send_last(bytes(half..LEN));
            });
            let config = DownloaderConfig::new().client(over_http3(ClientConfig::new(), &[&server]));
            let downloader = Downloader::new(config).unwrap();
            let fetch = Fetch::get(&server.url("/")).unwrap().range(ByteRange::new(0, LEN));
            let mut body = downloader.register((), Priority::High).unwrap().execute(fetch).unwrap();
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            assert_eq!(bytes.len() as u64, LEN, "{fault:?}");
            assert_pattern(0, &bytes);
        }
    });
}

#[test]
fn a_flood_of_empty_frames_is_silence_and_spares_other_requests() {
    in_time("empty DATA frames", || {
        let server = Server::start(|request: Request, reply| {
            if request.path() != "/flood" {
                return good(&reply);
            }
            let _ = reply.send(head(&[(":status", "200"), ("content-length", "2")]));
            // Frames of DATA without a byte, and of an unknown type. Ends when the client stops the stream.
            let empty = [data(b""), frame(0x21, b"")].concat().repeat(4096);
            while reply.send(empty.clone()).is_ok() {}
        });
        let mut config = DownloaderConfig::new().client(over_http3(ClientConfig::new(), &[&server]));
        (config.max_retries, config.client.silence_timeout) = (0, Duration::from_millis(500));
        let downloader = Downloader::new(config).unwrap();
        let peer = downloader.register((), Priority::High).unwrap();
        let mut flooded = peer.execute(Fetch::get(&server.url("/flood")).unwrap()).unwrap();
        assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"ok");
        let error = Error::from(flooded.read(&mut [0; 2]).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Silent, "{error:?}");
        drop(flooded);
        assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"ok");
    });
}

#[test]
fn a_server_that_reads_no_request_is_silent() {
    in_time("no credit", || {
        let mut options = Options::default();
        options.transport.stream_receive_window(0_u32.into());
        let server = Server::start_with(options, |_, reply| good(&reply));
        let mut config = DownloaderConfig::new().client(over_http3(ClientConfig::new(), &[&server]));
        (config.max_retries, config.client.silence_timeout) = (0, Duration::from_millis(500));
        // It is requested over TCP then, where nothing listens.
        let error = get(&Downloader::new(config).unwrap(), &server.url("/")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Silent, "{error:?}");
        assert_eq!(server.requests(), 0);
    });
}

#[test]
fn streams_of_unknown_types_cost_other_streams_nothing_however_many_there_are() {
    in_time("a flood of streams", || {
        let server =
            Server::start_with(Options { flood: 1000, ..Options::default() }, |_, reply| good(&reply));
        let downloader = downloader(&[&server]);
        assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"ok");
        server.wait_until("end of the flood", |server| server.flooded() == 1000);
        assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"ok");
        assert_shared(&server, &downloader, 2);
    });
}

#[test]
fn wrong_streams_of_the_server_end_their_connection_only() {
    in_time("control streams", || {
        let settings = || [vec![0], frame(frame::SETTINGS, &[])].concat();
        let wrong: Vec<Vec<Vec<u8>>> = vec![
            vec![[vec![0], frame(frame::GOAWAY, &[0])].concat()],
            vec![settings(), settings()],
            vec![[settings(), frame(frame::SETTINGS, &[])].concat()],
            vec![[vec![0], frame(frame::SETTINGS, &[2, 0])].concat()],
            vec![[settings(), frame(frame::DATA, &[1])].concat()],
            vec![[settings(), frame(0x3, &[0])].concat()],
            vec![settings(), vec![1, 0]],
            vec![settings(), vec![2, 0xc0, 0]],
            vec![settings(), vec![3, 0x80]],
        ];
        let healthy = Server::start(|_, reply| good(&reply));
        for unidirectional in wrong {
            let options = Options { unidirectional: unidirectional.clone(), ..Options::default() };
            let server = Server::start_with(options, |_, reply| reply.await_stop());
            let downloader = downloader(&[&server, &healthy]);
            assert_eq!(get(&downloader, &healthy.url("/")).unwrap(), b"ok");
            let error = get(&downloader, &server.url("/")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Disconnected, "{unidirectional:?}: {error:?}");
            assert!(error.to_string().contains("broke a rule of HTTP/3"), "{error}");
            let before = healthy.connections();
            assert_eq!(get(&downloader, &healthy.url("/")).unwrap(), b"ok");
            assert_eq!(healthy.connections(), before);
        }
    });
}

#[test]
fn malformed_transport_parameters_end_their_connection_only() {
    in_time("transport parameters", || {
        // Type, length and value of each (RFC 9000, section 18.2).
        let malformed: Vec<Vec<u8>> = vec![
            // Cut in the type, in the length, in the value.
            vec![0x40],
            vec![0x40, 0x33],
            vec![0x40, 0x33, 5, 1],
            vec![0x40, 0x33, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            // A second initial_max_data.
            vec![4, 1, 7],
            // max_udp_payload_size below 1,200: it is sent once already, so this is a second one too.
            vec![3, 2, 0x40, 0x10],
            // A token of three bytes, an ack_delay_exponent of 21, a max_ack_delay of 2^14 ms.
            vec![2, 3, 1, 2, 3],
            vec![0xa, 1, 21],
            vec![0xb, 4, 0x80, 0, 0x40, 0],
            // An integer that does not fill its parameter, and one that is longer.
            vec![0xe, 2, 2, 0],
            vec![0xe, 1, 0x40],
            // active_connection_id_limit below 2, more streams than there can be, a preferred address that is cut.
            vec![0xe, 1, 1],
            vec![8, 8, 0xd0, 0, 0, 0, 0, 0, 0, 1],
            vec![0xd, 4, 127, 0, 0, 1],
            // A flag with a value.
            vec![0xc, 1, 0],
            vec![0xff; 300],
        ];
        let healthy = Server::start(|_, reply| good(&reply));
        let mut refused = 0;
        for extra in malformed {
            let options = Options { extra_parameters: extra.clone(), ..Options::default() };
            let server = Server::start_with(options, |_, reply| good(&reply));
            let downloader = downloader(&[&server, &healthy]);
            assert_eq!(get(&downloader, &healthy.url("/")).unwrap(), b"ok");
            match get(&downloader, &server.url("/")) {
                // Valid after all, where the server does not send the same parameter itself.
                Ok(body) => assert_eq!(body, b"ok"),
                Err(error) => {
                    // Without QUIC it is requested over TCP, and nothing listens there.
                    assert_eq!(error.kind(), ErrorKind::Refused, "{extra:?}: {error:?}");
                    refused += 1;
                }
            }
            let before = healthy.connections();
            assert_eq!(get(&downloader, &healthy.url("/")).unwrap(), b"ok");
            assert_eq!(healthy.connections(), before, "{extra:?}");
        }
        assert!(refused >= 12, "{refused}");
    });
}

#[test]
fn unknown_frames_and_streams_are_ignored() {
    in_time("greasing", || {
        let mut options = Options::default();
        options.unidirectional.push([vec![0x21], vec![7; 2000]].concat());
        let server = Server::start_with(options, |_, reply| {
            let grease = frame(0x21, &[9; 500]);
            let answer = [
                &grease,
                &head(&[(":status", "103")])[..],
                &grease,
                &head(OK),
                &grease,
                &data(b"o"),
                &grease,
                &data(b"k"),
            ];
            let _ = reply.send(answer.concat()).and_then(|()| reply.finish());
        });
        let downloader = downloader(&[&server]);
        for _ in 0..5 {
            assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"ok");
        }
        assert_shared(&server, &downloader, 5);
    });
}

#[test]
fn a_response_whose_stream_never_ends_holds_no_stream() {
    in_time("no end of streams", || {
        let mut options = Options::default();
        options.transport.max_concurrent_bidi_streams(2_u32.into());
        let server = Server::start_with(options, |_, reply| {
            let _ = reply.send([head(&[(":status", "200"), ("content-length", "2")]), data(b"ok")].concat());
            reply.await_stop();
        });
        let downloader = downloader(&[&server]);
        for _ in 0..10 {
            assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"ok");
        }
        assert_shared(&server, &downloader, 10);
    });
}

#[test]
fn a_stream_that_goes_on_behind_its_body_is_stopped() {
    in_time("bytes behind the body", || {
        let server = Server::start(|_, reply| {
            let _ = reply.send([head(&[(":status", "200"), ("content-length", "2")]), data(b"ok")].concat());
            while reply.send(frame(0x21, &[0; 1000])).is_ok() {}
        });
        let downloader = downloader(&[&server]);
        assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"ok");
        server.wait_until("stop", |server| server.stopped() == 1);
    });
}

#[test]
fn a_server_that_takes_one_byte_at_a_time_gets_whole_requests() {
    in_time("small windows", || {
        let mut options = Options::default();
        options.transport.stream_receive_window(1_u32.into()).receive_window(1_u32.into());
        options.transport.max_concurrent_bidi_streams(1_u32.into());
        let server = Server::start_with(options, |_, reply| good(&reply));
        let downloader = downloader(&[&server]);
        for _ in 0..3 {
            assert_eq!(get(&downloader, &server.url("/")).unwrap(), b"ok");
        }
        server.wait_until("SETTINGS", |server| server.settings() == 1);
    });
}

#[test]
fn mutated_answers_end_and_spare_other_requests() {
    in_time("mutations", || {
        let server = Server::start(|request: Request, reply| {
            let Ok(seed) = request.path()[1..].parse::<u64>() else { return good(&reply) };
            let mut random = seed;
            let mut next = || {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as usize
            };
            let mut bytes = [head(OK), data(&[7; 50]), data(&[7; 50]), head(&[("x", "y")])].concat();
            for _ in 0..1 + next() % 3 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            let cut = next() % bytes.len();
            let _ = reply
                .send(&bytes[..cut])
                .and_then(|()| reply.send(&bytes[cut..]))
                .and_then(|()| if next() % 4 == 0 { reply.reset(next() as u32) } else { reply.finish() });
        });
        let downloader = downloader(&[&server]);
        for seed in 0..200 {
            // Any result, but a result.
            let _ = get(&downloader, &server.url(&format!("/{seed}")));
            assert_eq!(get(&downloader, &server.url("/good")).unwrap(), b"ok", "{seed}");
        }
    });
}

/// A UDP socket that answers each packet by `answer`, for as long as the test runs.
fn answer_packets(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> String {
    let (socket, tcp) = h3::bind();
    let url = format!("https://{}/", socket.local_addr().unwrap());
    std::thread::spawn(move || {
        let _refusing = tcp;
        let mut buf = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&answer(&buf[..len]), from);
        }
    });
    url
}

#[test]
fn packets_that_are_no_handshake_end_in_an_error_and_do_not_disturb_others() {
    in_time("packets", || {
        // RFC 9000, section 17.2.1: the ids of the packet, exchanged, and versions that nobody knows.
        let negotiate = |packet: &[u8]| {
            let to = &packet[6..6 + usize::from(packet[5])];
            let from = &packet[6 + to.len() + 1..][..usize::from(packet[6 + to.len()])];
            let (to_len, from_len) = (to.len() as u8, from.len() as u8);
            [&[0x80, 0, 0, 0, 0, from_len][..], from, &[to_len], to, &[0xfa, 0xce, 0xb0, 0x0c]].concat()
        };
        let echo = |packet: &[u8]| packet.to_vec();
        let garbage =
            |packet: &[u8]| packet.iter().map(|byte| byte.wrapping_mul(31).wrapping_add(7)).collect();
        let short = |_: &[u8]| vec![0x40, 1, 2, 3];
        let healthy = Server::start(|_, reply| good(&reply));
        for url in
            [answer_packets(negotiate), answer_packets(echo), answer_packets(garbage), answer_packets(short)]
        {
            let client = over_http3(ClientConfig::new(), &[&healthy]);
            let origins = vec![url.clone(), healthy.url("/")];
            let mut config = DownloaderConfig::new().client(client.http3(Http3::Always(origins)));
            config.client.connect_timeout = std::time::Duration::from_millis(500);
            config.max_retries = 0;
            let downloader = Downloader::new(config).unwrap();
            // Nothing listens there over TCP.
            assert_eq!(get(&downloader, &url).unwrap_err().kind(), ErrorKind::Refused);
            assert_eq!(get(&downloader, &healthy.url("/")).unwrap(), b"ok");
        }
    });
}
